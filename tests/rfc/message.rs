//! RFC 8489 sections 5 to 7, 12 and 14: message format and Binding.

use hallpass::base::transport::Transport;
use hallpass::turn::action::DropReason;

use crate::codec::*;
use crate::rig::*;

/// RFC 8489 sections 5, 6.3.1.1, 12, 14.2: request and answer as literal bytes.
#[test]
fn s12_binding_without_credentials_is_answered_with_the_source_address() {
    let mut rig = Rig::new();
    let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl";
    // 203.0.113.5:40000 XOR 0x2112a442
    let expected =
        b"\x01\x01\x00\x0c\x21\x12\xa4\x42abcdefghijkl\x00\x20\x00\x08\x00\x01\xbd\x52\xea\x12\xd5\x47";
    for _ in 0..2 {
        // Section 6.3.1: Binding is idempotent.
        let answer = rig.exchange(&client(40_000), request).expect("an answer");
        assert_eq!(answer.bytes, expected);
    }
}

/// RFC 8489 sections 6.3.1.1 and 14.2.
#[test]
fn s14_2_an_ipv6_client_sees_its_address_on_every_transport() {
    let mut rig = Rig::new();
    for transport in Transport::ALL {
        let at = client_at(transport, "[2001:db8:9::7]:41000");
        let answer = rig.bare(&at, &Msg::request(BINDING));
        assert_eq!((answer.class, answer.method), (SUCCESS, BINDING));
        assert_eq!(answer.address(XOR_MAPPED_ADDRESS), addr("[2001:db8:9::7]:41000"));
    }
}

/// RFC 8489 section 6.3: messages that fail the basic checks are silently discarded.
#[test]
fn s6_3_messages_that_fail_the_basic_checks_are_discarded() {
    let mut rig = Rig::new();
    let at = client(40_000);
    let good = Msg::request(BINDING).bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(rig.silent(&at, &with(0, 0x80)), DropReason::NotTurn, "top bits");
    assert_eq!(rig.silent(&at, &with(4, 0x22)), DropReason::MalformedStun, "cookie: no RFC 3489 either");
    assert_eq!(rig.silent(&at, &with(3, 4)), DropReason::MalformedStun, "length beyond the datagram");
    assert_eq!(rig.silent(&at, &with(3, 2)), DropReason::MalformedStun, "length not a multiple of 4");
    assert_eq!(rig.silent(&at, &good[..19]), DropReason::MalformedStun, "short");
    assert_eq!(rig.silent(&at, &[]), DropReason::NotTurn, "nothing at all");
    let mut overrun = Msg::request(BINDING).attr(SOFTWARE, b"abcd").bytes();
    overrun[23] = 200;
    assert_eq!(rig.silent(&at, &overrun), DropReason::MalformedStun, "attribute past the end");
    let mut trailing = good.clone();
    trailing.extend([0; 4]);
    assert_eq!(rig.silent(&at, &trailing), DropReason::MalformedStun, "bytes after the message");
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 sections 6.3 and 7.
#[test]
fn s7_a_wrong_fingerprint_is_discarded_before_authentication() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let mut bytes = alice.seal(Msg::allocate()).fingerprint().bytes();
    *bytes.last_mut().expect("bytes") ^= 1;
    assert_eq!(rig.silent(&alice.at, &bytes), DropReason::MalformedStun);
    let mut bare = Msg::allocate().fingerprint().bytes();
    bare[21] ^= 0x40;
    assert_eq!(rig.silent(&alice.at, &bare), DropReason::MalformedStun);
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 sections 7, 12 and 14.7: FINGERPRINT is never required. The answer to a request with it has it, too, after
/// integrity. The codec checks position and value of every FINGERPRINT.
#[test]
fn s7_fingerprint_is_accepted_and_answered_in_kind() {
    let mut rig = Rig::new();
    let at = client(40_000);
    assert!(!rig.bare(&at, &Msg::request(BINDING)).has(FINGERPRINT));
    assert!(rig.bare(&at, &Msg::request(BINDING).fingerprint()).has(FINGERPRINT));
    assert!(rig.bare(&at, &Msg::allocate().fingerprint()).has(FINGERPRINT), "401");
    let alice = rig.alice();
    let answer = rig.bare(&alice.at, &alice.seal(Msg::allocate()).fingerprint());
    assert_eq!(answer.code(), 0);
    assert!(answer.has(FINGERPRINT));
    check_signed(&alice, &answer);
    // RFC 8656 section 5: in an indication as well.
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let send = Msg::send().peer(PEER).attr(DATA, b"x").fingerprint().bytes();
    assert!(rig.data(&alice.at, &send).is_ok());
}

/// RFC 8489 section 6.3: unknown methods, among them those of RFC 6062, invalid classes for a method, and responses.
#[test]
fn s6_3_unknown_methods_and_wrong_classes_are_discarded() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    for method in [0x000, 0x002, 0x00a, 0x00b, 0x00c, 0x07f, 0x0ff] {
        let request = alice.seal(Msg::request(method)).bytes();
        assert_eq!(rig.silent(&alice.at, &request), DropReason::UnknownMethod, "{method:#x}");
    }
    for method in [SEND, DATA_METHOD] {
        let request = alice.seal(Msg::request(method)).bytes();
        assert_eq!(rig.silent(&alice.at, &request), DropReason::UnknownMethod, "{method:#x} request");
    }
    for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, DATA_METHOD] {
        let indication = Msg::new(INDICATION, method).bytes();
        assert_eq!(rig.silent(&alice.at, &indication), DropReason::Unsolicited, "{method:#x} indication");
    }
    for (class, method) in [(SUCCESS, BINDING), (ERROR, ALLOCATE), (SUCCESS, SEND)] {
        assert_eq!(rig.silent(&alice.at, &Msg::new(class, method).bytes()), DropReason::Unsolicited);
    }
    assert_eq!(rig.server.allocations(), 1, "nothing ended it");
}

/// A server expects no answers, and no limit applies to them: their attributes, of which there may be hundreds, are not read. A
/// wrong header still shows that a stream has lost its framing.
#[test]
fn s6_3_3_answers_to_a_server_are_dropped_unread() {
    let mut rig = Rig::new();
    let at = client(1);
    for (class, method) in [(SUCCESS, BINDING), (ERROR, ALLOCATE), (INDICATION, DATA_METHOD)] {
        let many = (0..300).fold(Msg::new(class, method), |message, _| message.attr(0x8022, b""));
        assert_eq!(rig.silent(&at, &many.bytes()), DropReason::Unsolicited, "{class:#x}");
        let mut damaged = Msg::new(class, method).fingerprint().bytes();
        *damaged.last_mut().expect("a fingerprint") ^= 1;
        assert_eq!(rig.silent(&at, &damaged), DropReason::Unsolicited, "{class:#x}");
        damaged.push(0);
        assert_eq!(rig.silent(&at, &damaged), DropReason::MalformedStun, "{class:#x}");
    }
}

/// RFC 8489 section 6.3.2: no answer to any indication, no effect of a Binding indication.
#[test]
fn s6_3_2_indications_are_never_answered() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let before = rig.held();
    rig.silent(&alice.at, &Msg::new(INDICATION, BINDING).bytes());
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    // An indication with an unknown required attribute is discarded.
    let unknown = Msg::send().peer(PEER).attr(DATA, b"x").attr(0x7fff, b"").bytes();
    assert_eq!(rig.silent(&alice.at, &unknown), DropReason::MalformedIndication);
    // An unknown optional one is ignored.
    let optional = Msg::send().peer(PEER).attr(DATA, b"x").attr(0xfffe, b"").bytes();
    assert!(rig.data(&alice.at, &optional).is_ok());
    assert_eq!(rig.held(), before);
}

/// RFC 8489 sections 6.3.1 and 14.13: 420 lists each unknown attribute once, with ordinary padding. It is signed, because
/// authentication comes first.
#[test]
fn s6_3_1_unknown_required_attributes_are_420_signed_with_the_list() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    // BANDWIDTH, CHANGE-REQUEST (RFC 5780), an unknown one, one twice.
    let request =
        |message: Msg| message.attr(0x0010, b"").attr(0x0003, b"abcd").attr(0x7abc, b"x").attr(0x0010, b"");
    let answer = rig.ask(&alice, request(Msg::allocate()));
    assert_eq!(answer.code(), 420);
    assert_eq!(answer.get(UNKNOWN_ATTRIBUTES), Some(&[0, 0x10, 0, 3, 0x7a, 0xbc][..]));
    assert_eq!(rig.held(), (0, 0, 0));
    // Section 6.3: without credentials the same request gets 401.
    assert_eq!(rig.bare(&alice.at, &request(Msg::allocate())).code(), 401);
    // Binding is not authenticated.
    let answer = rig.bare(&alice.at, &request(Msg::request(BINDING)));
    assert_eq!(answer.code(), 420);
    assert!(answer.has(UNKNOWN_ATTRIBUTES) && !answer.is_signed());
    // Only 420 has the list.
    assert!(!rig.ask(&alice, Msg::request(REFRESH)).has(UNKNOWN_ATTRIBUTES));
}

/// RFC 8489 sections 6.3 and 14: unknown optional attributes and known attributes in the wrong message are ignored.
#[test]
fn s6_3_optional_and_misplaced_attributes_are_ignored() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    // MOBILITY-TICKET, ORIGIN, unknown optional, DATA and CHANNEL-NUMBER in an Allocate.
    let request = Msg::allocate()
        .attr(0x8030, b"")
        .attr(0x802f, b"https://example.org")
        .attr(0xfabc, b"x")
        .attr(DATA, b"data")
        .channel(0x4000);
    assert_eq!(rig.ask(&alice, request).code(), 0);
}

/// RFC 8489 section 14: of several attributes of one type the first counts.
#[test]
fn s14_the_first_of_duplicates_counts() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig
        .ask(&alice, Msg::allocate().lifetime(900).lifetime(1200).attr(REQUESTED_TRANSPORT, &[6, 0, 0, 0]));
    assert_eq!((answer.code(), answer.secs()), (0, 900));
}

/// RFC 8489 section 14: received padding may have any value; sent padding is zero, which the codec checks in every answer.
#[test]
fn s14_padding_is_ignored_on_receipt_and_sent_as_zero() {
    let mut rig = Rig::with(|settings| settings.realm = "realm".into());
    let alice = rig.alice();
    let request =
        alice.sign(alice.named(Msg::allocate().padded(EVEN_PORT, &[0], 0xff).padded(SOFTWARE, b"a", 0xee)));
    let answer = rig.bare(&alice.at, &request);
    check_signed(&alice, &answer);
    assert_eq!(answer.code(), 0);
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let data = Msg::send().peer(PEER).padded(DATA, b"abcde", 0xff).bytes();
    assert_eq!(rig.data(&alice.at, &data).expect("relayed").data, b"abcde");
    // REALM and DATA of five bytes are padded; Answer::decode checks the padding.
    assert_eq!(rig.bare(&client(1), &Msg::allocate()).get(REALM), Some(&b"realm"[..]));
    let (_, bytes) = rig.data_from_peer(PEER, b"abcde").expect("relayed");
    assert_eq!(Answer::decode(&bytes).get(DATA), Some(&b"abcde"[..]));
}

/// RFC 8489 section 14.1: the first eight bits are ignored; the length must be that of the family.
#[test]
fn s14_1_an_address_has_the_length_of_its_family() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let request = Msg::request(CREATE_PERMISSION);
    let mut value = xor(addr(PEER), request.tid);
    value[0] = 0xff;
    assert_eq!(rig.ask(&alice, request.clone().attr(XOR_PEER_ADDRESS, &value)).code(), 0);
    let long = xor(addr(PEER6), request.tid);
    for wrong in [&value[..7], &value[..4], &[], &long[..19], &[&value[..], &[0]].concat()[..]] {
        let request = Msg::request(CREATE_PERMISSION).attr(XOR_PEER_ADDRESS, wrong);
        assert_eq!(rig.ask(&alice, request).code(), 400, "{wrong:?}");
    }
    value[1] = 3;
    assert_eq!(rig.ask(&alice, Msg::request(CREATE_PERMISSION).attr(XOR_PEER_ADDRESS, &value)).code(), 400);
}

/// RFC 8489 section 14.8: errors have a fitting reason phrase, except for unauthenticated clients.
#[test]
fn s14_8_authenticated_errors_have_a_reason_phrase() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let reason = |answer: &Answer| String::from_utf8(answer.get(ERROR_CODE).expect("error")[4..].to_vec());
    let answer = rig.ask(&alice, Msg::request(REFRESH));
    assert_eq!((answer.code(), reason(&answer).expect("UTF-8").as_str()), (437, "Allocation Mismatch"));
    let answer = rig.ask(&alice, Msg::request(ALLOCATE));
    assert_eq!((answer.code(), reason(&answer).expect("UTF-8").as_str()), (400, "Bad Request"));
    assert_eq!(reason(&rig.bare(&alice.at, &Msg::allocate())).expect("UTF-8"), "", "401 without credentials");
}

/// RFC 8489 section 14.14, RFC 8656 section 5: SOFTWARE is in answers to authenticated Allocate and Refresh requests only.
#[test]
fn s14_14_software_names_maker_and_version_to_authenticated_clients() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    for answer in
        [rig.ask(&alice, Msg::allocate()), rig.refresh(&alice, 600), rig.ask(&alice, Msg::request(ALLOCATE))]
    {
        let text = std::str::from_utf8(answer.get(SOFTWARE).expect("SOFTWARE")).expect("UTF-8");
        assert_eq!(text, concat!("Hallpass ", env!("CARGO_PKG_VERSION")));
    }
    assert!(!rig.bare(&alice.at, &Msg::allocate()).has(SOFTWARE));
    assert!(!rig.bare(&alice.at, &Msg::request(BINDING)).has(SOFTWARE));
}

/// RFC 8489 section 6.1: no answer exceeds 576 bytes including IPv4 and UDP headers.
#[test]
fn s6_1_answers_fit_any_path() {
    let mut rig = Rig::new();
    let alice = rig.alice().with_style(Style::Sha256);
    let many = (0..100).fold(Msg::allocate(), |message, n| message.attr(0x7000 + n, b""));
    assert!(rig.ask(&alice, many).bytes.len() <= 548);
    let dual = Msg::allocate().attr(ADDITIONAL_FAMILY, &V6);
    assert!(rig.ask(&alice, dual).bytes.len() <= 548);
}
