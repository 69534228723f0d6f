use proptest::prelude::*;
use proptest::sample::Index;
use stun_types::attribute::AttributeWrite as _;
use stun_types::message::{
    LongTermKeyCredentials, Message as Reference, MessageIntegrityCredentials, ShortTermCredentials,
};

use super::*;
use crate::wire::attribute::{XorMappedAddress, read_xor};
use crate::wire::vectors::{self, ID, set_length};
use crate::wire::{channel_data, indication, request, response, stream};

fn short_term() -> IntegrityKey {
    let credentials = ShortTermCredentials::new("VOkJxbRl1RmTxUk/WvJxBt".into());
    MessageIntegrityCredentials::from(credentials).make_key(IntegrityAlgorithm::Sha1)
}

fn long_term(user: &str, password: &str, algorithm: IntegrityAlgorithm) -> IntegrityKey {
    LongTermKeyCredentials::new(user.into(), password.into(), "example.org".into()).make_key(algorithm)
}

/// The user of RFC 5769 section 2.4; its password is `TheMatrIX` after SASLprep.
const MATRIX: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

/// An Allocate with LIFETIME 9 and these integrity attributes, made by the crate's encoder.
fn signed(algorithms: &[IntegrityAlgorithm], key: &IntegrityKey) -> Vec<u8> {
    use stun_types::message::{MessageWrite, MessageWriteExt, MessageWriteVec};
    let mut encoder = MessageWriteVec::new();
    encoder.push_data(&vectors::message(0x0003, &[(kind::LIFETIME, &[0, 0, 0, 9])]));
    for &algorithm in algorithms {
        encoder.add_message_integrity_with_key(key, algorithm).expect("fits");
    }
    encoder.finish()
}

fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&vectors::message(0, &[(kind, value)])[HEADER_LEN..]);
    set_length(message);
}

#[test]
fn rfc5769_request() {
    let bytes = vectors::rfc5769_request();
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!((message.class(), message.method()), (MessageClass::Request, method::BINDING));
    assert_eq!(message.transaction_id()[..4], [0xb7, 0xe7, 0xa7, 0x01]);
    assert!(message.has_fingerprint() && message.has_sha1() && !message.has_sha256());
    assert_eq!(message.attribute(kind::USERNAME).expect("there").value, b"evtj:h6vY");
    assert_eq!(message.attributes().map(|a| a.kind).collect::<Vec<_>>(), [0x8022, 0x0024, 0x8029, 0x0006]);
    assert!(message.verify(&short_term(), IntegrityAlgorithm::Sha1));
    assert!(!message.verify(&short_term(), IntegrityAlgorithm::Sha256));
    assert_eq!(request::unknown_required(&message).kinds(), [0x0024]);
}

#[test]
fn rfc5769_responses() {
    for (bytes, address) in [
        (vectors::rfc5769_ipv4(), "192.0.2.1:32853"),
        (vectors::rfc5769_ipv6(), "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::parse(&bytes).expect("valid");
        assert_eq!((message.class(), message.method()), (MessageClass::Success, method::BINDING));
        let mapped = message.attribute(kind::XOR_MAPPED_ADDRESS).expect("there");
        let read = read_xor(mapped.value, message.transaction_id());
        assert_eq!(read, Some(address.parse().expect("address")));
        let decoded = XorMappedAddress::decode(mapped.value).expect("valid");
        assert_eq!(decoded.address(message.transaction_id()), read);
        assert!(message.has_fingerprint());
        assert!(message.verify(&short_term(), IntegrityAlgorithm::Sha1));
    }
}

#[test]
fn rfc5769_long_term() {
    let bytes = vectors::rfc5769_long_term();
    let message = Message::parse(&bytes).expect("valid");
    let key = long_term(MATRIX, "TheMatrIX", IntegrityAlgorithm::Sha1);
    assert!(message.verify(&key, IntegrityAlgorithm::Sha1));
    assert!(!message.verify(&long_term(MATRIX, "wrong", IntegrityAlgorithm::Sha1), IntegrityAlgorithm::Sha1));
    assert!(!message.has_fingerprint());
}

#[test]
fn rfc8489_sha256() {
    let bytes = vectors::rfc8489_sha256();
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!(message.integrity(), Some(IntegrityAlgorithm::Sha256));
    let key = long_term(MATRIX, "TheMatrIX", IntegrityAlgorithm::Sha256);
    assert!(message.verify(&key, IntegrityAlgorithm::Sha256));
}

#[test]
fn chromium_signs_what_we_verify() {
    let key = long_term("user", "pass", IntegrityAlgorithm::Sha1);
    for bytes in [
        vectors::chromium_allocate_authenticated(),
        vectors::chromium_create_permission(),
        vectors::chromium_channel_bind(),
    ] {
        let message = Message::parse(&bytes).expect("valid");
        assert!(message.verify(&key, IntegrityAlgorithm::Sha1));
        for flipped in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[flipped] ^= 1;
            let verified = Message::parse(&damaged).is_ok_and(|m| m.verify(&key, IntegrityAlgorithm::Sha1));
            assert!(!verified, "byte {flipped}");
        }
    }
}

#[test]
fn a_key_from_md5_serves_both_algorithms() {
    let key = long_term("user", "pass", IntegrityAlgorithm::Sha1);
    let bytes = signed(&[IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256], &key);
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!(message.integrity(), Some(IntegrityAlgorithm::Sha256));
    assert!(message.verify(&key, IntegrityAlgorithm::Sha1));
    assert!(message.verify(&key, IntegrityAlgorithm::Sha256));
}

#[test]
fn sha256_counts_at_full_length_only() {
    let key = long_term("user", "pass", IntegrityAlgorithm::Sha256);
    for len in 0..=36 {
        // The length in the header is part of what is signed, so every length is signed anew.
        let mut bytes = vectors::message(0x0003, &[(kind::LIFETIME, &[0, 0, 0, 9])]);
        let covered = bytes.len();
        append(&mut bytes, kind::MESSAGE_INTEGRITY_SHA256, &vec![0; len]);
        let mut mac = MessageIntegritySha256::compute(&[&bytes[..covered]], &key).expect("computes").to_vec();
        mac.resize(36, 0);
        bytes[covered + 4..covered + 4 + len].copy_from_slice(&mac[..len]);
        let message = Message::parse(&bytes).expect("valid");
        assert_eq!(message.verify(&key, IntegrityAlgorithm::Sha256), len == 32, "{len} bytes");
    }
}

#[test]
fn attributes_after_integrity_are_ignored() {
    let key = long_term("user", "pass", IntegrityAlgorithm::Sha1);
    let mut bytes = signed(&[IntegrityAlgorithm::Sha1], &key);
    append(&mut bytes, kind::LIFETIME, &[0, 0, 0, 1]);
    append(&mut bytes, 0x7fff, &[]);
    append(&mut bytes, kind::MESSAGE_INTEGRITY_SHA256, &[0; 32]);
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!(message.attributes().count(), 1);
    assert_eq!(message.attribute(kind::LIFETIME).expect("there").value, [0, 0, 0, 9]);
    assert!(request::unknown_required(&message).is_empty());
    assert!(!message.has_sha256(), "not directly after MESSAGE-INTEGRITY");
    assert!(message.verify(&key, IntegrityAlgorithm::Sha1));

    let mut bytes = signed(&[IntegrityAlgorithm::Sha256], &key);
    append(&mut bytes, kind::MESSAGE_INTEGRITY, &[0; 20]);
    let message = Message::parse(&bytes).expect("valid");
    assert!(message.has_sha256() && !message.has_sha1());
}

#[test]
fn a_fingerprint_must_be_last_and_correct() {
    let mut bytes = vectors::rfc5769_request();
    append(&mut bytes, kind::SOFTWARE, b"late");
    assert_eq!(Message::parse(&bytes).err(), Some(WireError::FingerprintNotLast));
    let mut bytes = vectors::rfc5769_request();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(Message::parse(&bytes).err(), Some(WireError::FingerprintMismatch));
    let short = vectors::message(0x0001, &[(kind::FINGERPRINT, &[1, 2, 3])]);
    assert_eq!(Message::parse(&short).err(), Some(WireError::FingerprintMismatch));
    // A wrong one after an ignored attribute, where the crate does not check it.
    let key = long_term("user", "pass", IntegrityAlgorithm::Sha1);
    let mut bytes = signed(&[IntegrityAlgorithm::Sha1], &key);
    append(&mut bytes, kind::SOFTWARE, b"");
    append(&mut bytes, kind::FINGERPRINT, &[0; 4]);
    assert!(Reference::from_bytes(&bytes).is_ok());
    assert_eq!(Message::parse(&bytes).err(), Some(WireError::FingerprintMismatch));
}

#[test]
fn malformed_messages_are_refused() {
    let good = vectors::message(0x0003, &[(kind::LIFETIME, &[0, 0, 0, 9])]);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Message::parse(&bytes).err()
    };
    assert_eq!(refused(&|_| {}), None);
    assert_eq!(refused(&|bytes| bytes.truncate(19)), Some(WireError::Short));
    assert_eq!(refused(&|bytes| bytes[0] = 0x40), Some(WireError::WrongKind));
    assert_eq!(refused(&|bytes| bytes[7] ^= 1), Some(WireError::Cookie));
    assert_eq!(refused(&|bytes| bytes.extend([0; 4])), Some(WireError::Length));
    assert_eq!(refused(&|bytes| bytes.truncate(24)), Some(WireError::Length));
    let unaligned = |bytes: &mut Vec<u8>| {
        bytes.push(0);
        set_length(bytes);
    };
    assert_eq!(refused(&unaligned), Some(WireError::Length));
    assert_eq!(refused(&|bytes| bytes[23] = 5), Some(WireError::AttributeOverrun));
    assert_eq!(refused(&|bytes| bytes[22] = 0xff), Some(WireError::AttributeOverrun));
}

/// Calls everything that reads bytes. Returns whether it was a STUN message.
fn exercise(bytes: &[u8]) -> bool {
    let _ = stream::next(bytes);
    let _ = channel_data::parse_datagram(bytes);
    let Ok(message) = Message::parse(bytes) else {
        return false;
    };
    for attribute in message.attributes() {
        assert_eq!(attribute.value, &bytes[attribute.value_range()]);
    }
    if let Ok(send) = indication::parse_send(&message) {
        assert!(bytes.get(send.payload).is_some());
    }
    if let Ok(request::Request::CreatePermission(permission)) = request::Request::parse(&message) {
        let peers = message.attributes().filter(|a| a.kind == kind::XOR_PEER_ADDRESS).count();
        assert_eq!(permission.peers().count(), peers);
    }
    let _ = request::Credentials::parse(&message);
    let unknown = request::unknown_required(&message);
    let key = short_term();
    for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
        message.verify(&key, algorithm);
    }
    let answer =
        response::Response::error(message.method(), message.transaction_id(), 420, response::Reason::Phrase)
            .unknown_attributes(unknown.kinds())
            .finish(Some((&key, IntegrityAlgorithm::Sha256)), true);
    let answer = Message::parse(&answer).expect("our own answers are valid");
    assert_eq!(answer.transaction_id(), message.transaction_id());
    assert_eq!(answer.method(), message.method());
    true
}

/// Asserts that the crate accepts the message if we do, and reads the same attributes.
fn agrees_with_the_crate(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let reference = Reference::from_bytes(bytes).expect("stricter than the crate");
        let ended = [kind::MESSAGE_INTEGRITY, kind::MESSAGE_INTEGRITY_SHA256, kind::FINGERPRINT];
        let theirs: Vec<_> = reference
            .iter_attributes()
            .map(|(offset, attribute)| {
                (offset, attribute.header.get_type().value(), attribute.value.to_vec())
            })
            .take_while(|(_, kind, _)| !ended.contains(kind))
            .collect();
        let ours: Vec<_> = message.attributes().map(|a| (a.offset, a.kind, a.value.to_vec())).collect();
        assert_eq!(ours, theirs);
        assert_eq!(message.class(), reference.class());
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Truncate(Index),
    Append(u16, Vec<u8>),
    FixLength,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let kinds = prop_oneof![0_u16..0x30, 0x8000_u16..0x8030, any::<u16>()];
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
        3 => (kinds, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(kind, value)| Mutation::Append(kind, value)),
        1 => Just(Mutation::FixLength),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for mutation in mutations {
        match mutation {
            Mutation::Flip(at, bits) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Mutation::Truncate(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            Mutation::Append(kind, value) if bytes.len() >= HEADER_LEN => append(bytes, *kind, value),
            Mutation::FixLength if bytes.len() >= HEADER_LEN => set_length(bytes),
            _ => {}
        }
    }
}

#[test]
fn every_vector_is_read() {
    for bytes in vectors::all() {
        assert!(exercise(&bytes));
        agrees_with_the_crate(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise(&bytes);
    }

    #[test]
    fn arbitrary_attributes_never_panic(
        kind in 0_u16..0x4000,
        attributes in prop::collection::vec((0_u16..0x30, prop::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let attributes: Vec<(u16, &[u8])> = attributes.iter().map(|(kind, value)| (*kind, &value[..])).collect();
        let bytes = vectors::message(kind, &attributes);
        prop_assert!(exercise(&bytes));
        prop_assert_eq!(Message::parse(&bytes).expect("valid").transaction_id(), ID);
        agrees_with_the_crate(&bytes);
    }

    #[test]
    fn mutated_messages_never_panic(
        which in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 0..6),
    ) {
        let all = vectors::all();
        let mut bytes = all[which.index(all.len())].clone();
        mutate(&mut bytes, &mutations);
        exercise(&bytes);
        agrees_with_the_crate(&bytes);
    }
}

/// The limit is accepted; one attribute more and as many as 64 KiB hold are refused.
#[test]
fn the_number_of_attributes_is_limited() {
    for (kind, most) in [(0x0001, ATTRIBUTES_MAX), (0x0016, INDICATION_ATTRIBUTES_MAX)] {
        let with = |count: usize| {
            let empty: Vec<(u16, &[u8])> = vec![(0x8fff, &[]); count];
            vectors::message(kind, &empty)
        };
        assert_eq!(Message::parse(&with(most)).expect("allowed").attributes().count(), most);
        for count in [most + 1, 16_000] {
            assert_eq!(Message::parse(&with(count)).err(), Some(WireError::TooManyAttributes), "{count}");
        }
    }
}

/// For every length, our checksum is the one that the crate writes.
#[test]
fn a_fingerprint_of_any_length_is_checked() {
    for length in (1..600).chain([65_000]) {
        let value: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
        let mut bytes = vectors::message(0x0016, &[(kind::DATA, &value)]);
        let length = (bytes.len() - HEADER_LEN + 8) as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        let sum = Fingerprint::compute(&[&bytes]);
        let mut attribute = [0; 8];
        Fingerprint::new(sum).write_into_unchecked(&mut attribute);
        bytes.extend(attribute);
        assert!(Message::parse(&bytes).expect("right").has_fingerprint(), "{length}");
        bytes[HEADER_LEN + 4] ^= 1;
        assert_eq!(Message::parse(&bytes).err(), Some(WireError::FingerprintMismatch), "{length}");
    }
}
