use super::records::MAX_RECORD;
use super::*;
use proptest::prelude::*;

/// `openssl s_client -servername relay.example.org -alpn stun.turn,http/1.1`, OpenSSL 3.0.
const OPENSSL: &str = include_str!("openssl_sni_alpn.hex");
/// `openssl s_client -noservername -tls1_2`.
const OPENSSL_BARE: &str = include_str!("openssl_bare.hex");
/// Chromium 156 opening `https://localhost/`: GREASE, ECH GREASE, a post-quantum key share.
const CHROMIUM: &str = include_str!("chromium.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = std::str::from_utf8(&digits).unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn hello(name: Option<&str>, alpn: &[&str]) -> Peek {
    let alpn = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Peek::Found(ClientHello { server_name: name.map(str::to_owned), alpn })
}

fn captures() -> [(Vec<u8>, Peek); 3] {
    [
        (bytes(OPENSSL), hello(Some("relay.example.org"), &["stun.turn", "http/1.1"])),
        (bytes(OPENSSL_BARE), hello(None, &[])),
        (bytes(CHROMIUM), hello(Some("localhost"), &["h2", "http/1.1"])),
    ]
}

/// The same handshake message in records of `size` bytes.
fn in_records(capture: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    capture[5..].chunks(size).flat_map(record).collect()
}

#[test]
fn the_version_of_a_record_is_ignored() {
    for (capture, expected) in captures() {
        let mut split = in_records(&capture, 100);
        (split[2], split[5 + 100 + 2]) = (5, 0xff);
        assert_eq!(peek(&split), expected);
    }
}

/// A ClientHello with these extensions, in one record.
fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    [&[22, 3, 1], &(message.len() as u16).to_be_bytes()[..], &message].concat()
}

#[test]
fn captured_hellos_are_read() {
    for (capture, expected) in captures() {
        assert_eq!(peek(&capture), expected);
    }
}

#[test]
fn every_segmentation_and_record_size_gives_the_same_answer() {
    for (capture, expected) in captures() {
        for size in [1, 2, 3, 4, 5, 100, 1400, MAX_RECORD] {
            let split = in_records(&capture, size);
            for end in 0..split.len() {
                assert_eq!(peek(&split[..end]), Peek::NeedMore, "{end} of {} in {size}", split.len());
            }
            assert_eq!(peek(&split), expected);
            assert_eq!(
                peek(&[&split[..], &[0x17, 3, 3, 0, 1, 9]].concat()),
                expected,
                "what follows is ignored"
            );
        }
    }
}

#[test]
fn other_protocols_are_recognised_by_their_first_bytes() {
    let others: [&[u8]; 9] = [
        b"G",                   // HTTP
        &[0x00],                // STUN
        &[0x40, 0x00],          // ChannelData
        b"PROXY TCP4 ",         // PROXY v1
        &[0x0d, 0x0a],          // PROXY v2
        &[22, 2],               // record version 2
        &[22, 4, 1],            // record version 4
        &[22, 3, 1, 0, 0],      // an empty record
        &[22, 3, 1, 0, 100, 2], // a ServerHello
    ];
    for other in others {
        assert_eq!(peek(other), Peek::NotTls, "{other:02x?}");
    }
    assert_eq!(peek(&[22, 3, 1, 0x40, 0x01]), Peek::NotTls, "a record over 2^14 bytes");
    assert_eq!(peek(&[22, 3, 1, 0, 4, 1, 0, 0xff, 0xff]), Peek::NotTls, "a message over the limit");
    assert_eq!(peek(&[]), Peek::NeedMore);
}

#[test]
fn every_record_of_the_message_must_be_a_handshake_record() {
    let mut split = in_records(&bytes(OPENSSL), 100);
    split[105] = 23;
    assert_eq!(peek(&split[..105]), Peek::NeedMore);
    assert_eq!(peek(&split), Peek::NotTls);
}

#[test]
fn no_more_bytes_are_awaited_at_the_limit() {
    // A message of 32,000 bytes in records of one byte each does not fit into the bytes that are examined.
    let mut message = vec![1, 0, 0x7d, 0];
    message.resize(32_004, 0);
    let endless = in_records(&[&[0; 5], &message[..]].concat(), 1);
    assert_eq!(peek(&endless[..MAX_PEEK - 1]), Peek::NeedMore);
    assert_eq!(peek(&endless[..MAX_PEEK]), Peek::NotTls);
}

#[test]
fn invalid_names_count_as_missing_and_wrong_lengths_as_malformed() {
    let named = |name: &[u8]| {
        let n = name.len() as u16;
        let mut e = vec![0, 0];
        e.extend((n + 5).to_be_bytes());
        e.extend((n + 3).to_be_bytes());
        e.push(0);
        e.extend(n.to_be_bytes());
        e.extend(name);
        peek(&with_extensions(&e))
    };
    assert_eq!(named(b"Relay.Example.ORG."), hello(Some("relay.example.org"), &[]));
    assert_eq!(named(b"a b\n"), hello(None, &[]));
    assert_eq!(named(b""), hello(None, &[]));
    assert_eq!(named(&[b'a'; 256]), hello(None, &[]));
    assert_eq!(peek(&with_extensions(&[0, 0, 0, 2, 0, 0])), hello(None, &[]), "an empty list");
    assert_eq!(
        peek(&with_extensions(&[0, 0, 0, 5, 0, 3, 1, 0, 0])),
        hello(None, &[]),
        "another type of name"
    );
    for wrong in [&[0, 16, 0, 3, 0, 1, 5][..], &[0, 16, 0, 9, 0, 1], &[0, 0, 0, 4, 0, 9, 0, 0], &[0]] {
        assert_eq!(peek(&with_extensions(wrong)), Peek::NotTls, "{wrong:02x?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(noise in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..1981, flip: u8) {
        let _ = peek(&noise);
        let mut mutated = bytes(CHROMIUM);
        mutated[at] ^= flip;
        // A definite result for a prefix must be the result for the whole.
        let whole = peek(&mutated);
        for end in (0..mutated.len()).step_by(97) {
            match peek(&mutated[..end]) {
                Peek::NeedMore => {}
                definite => prop_assert_eq!(&definite, &whole),
            }
        }
    }
}
