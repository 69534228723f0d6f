use std::io::{Read, Write};

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::net::stream::record::{RECORD_MAX, sealed_max};

struct Pair {
    client: ClientConnection,
    client_config: Arc<ClientConfig>,
    server: Tls,
    config: Arc<ServerConfig>,
    incoming: Scratch,
    plain: Scratch,
    output: Scratch,
    handshakes: usize,
}

impl Pair {
    fn new(trusted: bool, version: &'static SupportedProtocolVersion) -> Self {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Self::with(provider, trusted, version)
    }

    /// Creates a client with `provider` and a server with the default one.
    fn with(
        provider: rustls::crypto::CryptoProvider,
        trusted: bool,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let own = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("certificate");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("key");
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(own.cert.der().clone()).expect("root");
        }
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![own.cert.der().clone()], key).expect("config");
        let client = ClientConfig::builder_with_provider(Arc::new(provider));
        let client = client.with_protocol_versions(&[version]).expect("versions");
        let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from("relay.test").expect("name");
        Self {
            client: ClientConnection::new(Arc::clone(&client), name).expect("client"),
            client_config: client,
            server: Tls::default(),
            config: Arc::new(config),
            incoming: Scratch::new(1 << 17),
            plain: Scratch::new(1 << 17),
            output: Scratch::new(1 << 17),
            handshakes: 0,
        }
    }

    /// Replaces the crypto provider of the server.
    fn serve_with(&mut self, provider: rustls::crypto::CryptoProvider) {
        let own = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("certificate");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("key");
        let config = ServerConfig::builder_with_provider(Arc::new(provider));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let config = config.with_single_cert(vec![own.cert.der().clone()], key).expect("config");
        self.config = Arc::new(config);
    }

    /// Passes `bytes` to the server in pieces of `cut` bytes, as a socket would.
    fn feed(&mut self, bytes: &[u8], cut: usize) -> Result<Received, TlsOutcome> {
        let mut last = Received::default();
        for piece in bytes.chunks(cut) {
            self.server.restore(&mut self.incoming);
            self.incoming.append(piece).expect("room");
            last = self.server.receive(
                &self.config,
                false,
                &mut self.incoming,
                &mut self.plain,
                &mut self.output,
            )?;
            self.handshakes += usize::from(last.finished);
        }
        Ok(last)
    }

    fn client_sends(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("write");
        }
        bytes
    }

    fn client_receives(&mut self) -> Result<Vec<u8>, Error> {
        let mut sent = self.output.bytes();
        while !sent.is_empty() {
            self.client.read_tls(&mut sent).expect("read");
            self.client.process_new_packets()?;
        }
        self.output.clear();
        let mut plain = Vec::new();
        match self.client.reader().read_to_end(&mut plain) {
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => panic!("{error}"),
            _ => Ok(plain),
        }
    }

    fn handshake(&mut self, cut: usize) {
        for _ in 0..4 {
            let flight = self.client_sends();
            self.feed(&flight, cut).expect("handshake");
            self.client_receives().expect("handshake");
        }
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        assert_eq!(self.handshakes, 1);
    }
}

#[test]
fn data_flows_both_ways_in_both_versions_with_any_segmentation() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for cut in [1, 7, 500, usize::MAX] {
            let mut pair = Pair::new(true, version);
            pair.handshake(cut);
            assert_eq!(pair.server.incoming.capacity(), 0, "an idle client holds no buffer");
            pair.client.writer().write_all(b"allocate").expect("write");
            pair.client.writer().write_all(&[5; 40_000]).expect("write");
            let bytes = pair.client_sends();
            pair.feed(&bytes, cut.max(100)).expect("data");
            assert_eq!(pair.plain.bytes()[..8], *b"allocate");
            assert_eq!(pair.plain.bytes()[8..], [5; 40_000]);
            pair.server.seal(b"answer and media", &mut pair.output).expect("seal");
            assert_eq!(pair.client_receives().expect("data"), b"answer and media");
        }
    }
}

#[test]
fn a_client_hello_split_into_many_records_is_accepted() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    let flight = pair.client_sends();
    let body = &flight[5..];
    assert_eq!(usize::from(u16::from_be_bytes([flight[3], flight[4]])), body.len(), "one record");
    let mut records = Vec::new();
    for piece in body.chunks(50) {
        records.extend([22, 3, 1, 0, piece.len() as u8]);
        records.extend_from_slice(piece);
    }
    pair.feed(&records, 13).expect("handshake");
    pair.client_receives().expect("handshake");
    pair.handshake(7);
}

#[test]
fn sealing_stays_within_sealed_max_and_fills_records() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    pair.handshake(usize::MAX);
    for len in [1, 100, RECORD_MAX, RECORD_MAX + 1, 65_556] {
        let mut output = Scratch::new(sealed_max(len));
        pair.server.seal(&vec![1; len], &mut output).expect("seal");
        let (mut records, mut rest) = (0, output.bytes());
        while let [_, _, _, high, low, ..] = *rest {
            rest = &rest[5 + usize::from(u16::from_be_bytes([high, low]))..];
            records += 1;
        }
        assert_eq!(records, len.div_ceil(RECORD_MAX));
    }
    let mut output = Scratch::new(10);
    assert!(pair.server.seal(&[1; 100], &mut output).is_err());
}

#[test]
fn a_key_update_is_answered_before_the_next_data() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    pair.handshake(usize::MAX);
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().expect("key update");
        pair.client.writer().write_all(b"after").expect("write");
        let bytes = pair.client_sends();
        pair.feed(&bytes, 3).expect("data");
        assert_eq!(pair.plain.bytes(), b"after");
        pair.plain.clear();
        pair.server.seal(b"and back", &mut pair.output).expect("seal");
        assert_eq!(pair.client_receives().expect("data"), b"and back");
    }
}

/// A HelloRetryRequest is cheap: the handshake begins with the answer to the second ClientHello.
#[test]
fn a_handshake_begins_until_a_client_hello_is_answered() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    assert!(pair.server.begins());
    let hello = pair.client_sends();
    pair.feed(&hello[..hello.len() - 1], usize::MAX).expect("a part");
    assert!(pair.server.begins());
    pair.feed(&hello[hello.len() - 1..], usize::MAX).expect("the rest");
    assert!(!pair.server.begins());

    // The client guesses a group that the server does not have.
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups =
        vec![rustls::crypto::aws_lc_rs::kx_group::SECP384R1, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut pair = Pair::with(provider, true, &rustls::version::TLS13);
    let mut own = rustls::crypto::aws_lc_rs::default_provider();
    own.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    pair.serve_with(own);
    let first = pair.client_sends();
    pair.feed(&first, usize::MAX).expect("the first");
    assert!(!pair.output.bytes().is_empty() && pair.server.begins(), "asked to try again");
    pair.client_receives().expect("a request for another");
    let second = pair.client_sends();
    pair.feed(&second, usize::MAX).expect("the second");
    assert!(!pair.server.begins() && pair.server.is_handshaking());

    // Both ClientHellos in one flight: the answer to the second one follows in the same output.
    (pair.server, pair.output) = (Tls::default(), Scratch::new(1 << 17));
    pair.feed(&[first, second].concat(), usize::MAX).expect("both");
    assert_eq!(pair.output.bytes().get(11..43), Some(&HELLO_RETRY_REQUEST[..]));
    assert!(!pair.server.begins() && pair.server.is_handshaking());
}

#[test]
fn a_client_that_keeps_changing_its_keys_is_refused() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    pair.handshake(usize::MAX);
    let change = |pair: &mut Pair| {
        pair.client.refresh_traffic_keys().expect("key update");
        pair.client.writer().write_all(b"x").expect("write");
        let bytes = pair.client_sends();
        pair.feed(&bytes, usize::MAX)
    };
    let accepted = (0..1000).take_while(|_| change(&mut pair).is_ok()).count();
    assert_eq!(accepted, SILENT_MAX as usize);
    // Data has no limit.
    let mut pair = Pair::new(true, &rustls::version::TLS12);
    pair.handshake(usize::MAX);
    for _ in 0..1000 {
        pair.client.writer().write_all(b"x").expect("write");
        let bytes = pair.client_sends();
        pair.feed(&bytes, usize::MAX).expect("data");
    }
}

/// Key updates count from the first on, also if they arrive with the end of the handshake.
#[test]
fn key_updates_in_the_read_that_ends_the_handshake_count() {
    for (updates, is_accepted) in [(SILENT_MAX, true), (2 * SILENT_MAX, false)] {
        let mut pair = Pair::new(true, &rustls::version::TLS13);
        let hello = pair.client_sends();
        pair.feed(&hello, usize::MAX).expect("the hello");
        let _ = pair.client_receives();
        assert!(!pair.client.is_handshaking() && pair.server.is_handshaking());
        let mut bytes = pair.client_sends();
        for _ in 0..updates {
            pair.client.refresh_traffic_keys().expect("key update");
            bytes.extend(pair.client_sends());
        }
        assert_eq!(pair.feed(&bytes, usize::MAX).is_ok(), is_accepted, "{updates}");
    }
}

/// One read can hold a thousand key updates: processing stops soon after the limit. The limit of rustls itself does not
/// help, because data between them resets its count.
#[test]
fn a_read_full_of_key_updates_is_not_processed_to_its_end() {
    for updates in [1, RECORDS_AT_ONCE - 1, RECORDS_AT_ONCE, 30] {
        let mut pair = Pair::new(true, &rustls::version::TLS13);
        pair.handshake(usize::MAX);
        let mut bytes = Vec::new();
        for _ in 0..100 {
            for _ in 0..updates {
                pair.client.refresh_traffic_keys().expect("key update");
                bytes.extend(pair.client_sends());
            }
            pair.client.writer().write_all(b"x").expect("write");
            bytes.extend(pair.client_sends());
        }
        assert_eq!(pair.feed(&bytes, usize::MAX), Err(TlsOutcome::Garbage));
        let processed = pair.plain.bytes().len() * updates;
        assert!(processed <= SILENT_MAX as usize + RECORDS_AT_ONCE, "{processed} of {}", 100 * updates);
    }
}

/// Sealing does not process the start of a record, so a wrong one is reported once, when it is received.
#[test]
fn data_can_be_sealed_after_the_start_of_a_record() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut pair = Pair::new(true, version);
        pair.handshake(usize::MAX);
        pair.feed(&[0], usize::MAX).expect("the start of a record");
        pair.server.seal(b"data", &mut pair.output).expect("seal");
        assert_eq!(pair.client_receives().expect("data"), b"data");
        assert_eq!(pair.feed(&[0; 5], usize::MAX), Err(TlsOutcome::Garbage));
        let alert = pair.output.bytes().len();
        pair.server.close(&mut pair.output);
        assert_eq!(pair.output.bytes().len(), alert, "nothing after the alert");
        assert!(matches!(pair.client_receives(), Err(Error::AlertReceived(_))));
    }
}

/// Records are processed in portions, up to the end of what was read.
#[test]
fn all_records_of_a_read_are_processed() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut pair = Pair::new(true, version);
        pair.handshake(usize::MAX);
        let mut bytes = Vec::new();
        for _ in 0..5 * RECORDS_AT_ONCE {
            pair.client.writer().write_all(b"x").expect("write");
            bytes.extend(pair.client_sends());
        }
        let (whole, start) = bytes.split_at(bytes.len() - 3);
        pair.feed(whole, usize::MAX).expect("data");
        assert_eq!(pair.plain.bytes().len(), 5 * RECORDS_AT_ONCE - 1);
        pair.feed(start, usize::MAX).expect("the rest of the last record");
        assert_eq!(pair.plain.bytes().len(), 5 * RECORDS_AT_ONCE);
    }
}

/// rustls continues after the records of an unfinished message from earlier reads, and has joined the message over their
/// headers, so they must not be read again.
#[test]
fn a_message_of_many_records_may_continue_in_the_next_read() {
    let mut pair = Pair::new(true, &rustls::version::TLS12);
    let hello = pair.client_sends();
    pair.feed(&hello, usize::MAX).expect("the hello");
    let message = [&[16, 0, 0xff, 0xff][..], &[0; 196]].concat();
    let records: Vec<u8> = message.iter().flat_map(|&byte| [22, 3, 3, 0, 1, byte]).collect();
    for cut in [1, 6, 600, 605] {
        pair.feed(&records, cut).expect("the start of a message");
    }
}

/// Returns the next record of this type.
type Seal = dyn FnMut(rustls::ContentType, &[u8]) -> Vec<u8>;

/// A client that seals its records by hand.
struct Sealer {
    pair: Pair,
    seal: Box<Seal>,
}

impl Sealer {
    fn new() -> Self {
        let mut pair = Pair::new(true, &rustls::version::TLS13);
        let mut config = (*pair.client_config).clone();
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("relay.test").expect("name");
        pair.client = ClientConnection::new(Arc::new(config.clone()), name.clone()).expect("client");
        pair.handshake(usize::MAX);
        let other = ClientConnection::new(Arc::new(config), name).expect("client");
        let client = std::mem::replace(&mut pair.client, other);
        let suite = client.negotiated_cipher_suite().and_then(|suite| suite.tls13()).expect("TLS 1.3");
        let (mut number, secrets) = client.dangerous_extract_secrets().expect("allowed").tx;
        let (key, iv) = match secrets {
            rustls::ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | rustls::ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => panic!("another suite"),
        };
        let mut encrypter = suite.aead_alg.encrypter(key, iv);
        let seal = move |typ, payload: &[u8]| {
            let payload = rustls::crypto::cipher::OutboundChunks::Single(payload);
            let version = rustls::ProtocolVersion::TLSv1_2;
            let plain = rustls::crypto::cipher::OutboundPlainMessage { typ, version, payload };
            number += 1;
            encrypter.encrypt(plain, number - 1).expect("sealed").encode()
        };
        Self { pair, seal: Box::new(seal) }
    }
}

/// After an error rustls must not be called again: it would look for bytes that are no longer kept.
#[test]
fn a_connection_that_failed_within_a_message_can_be_closed() {
    use rustls::ContentType::{ApplicationData, Handshake};
    let update = [24, 0, 0, 1, 0];
    let two = [update, update].concat();
    for records in [
        &[(Handshake, &two[..])][..],
        &[(Handshake, &update[..1]), (ApplicationData, b"x")],
        &[(Handshake, b""), (Handshake, &[1, 0, 0, 0])],
    ] {
        let mut sealer = Sealer::new();
        let bytes: Vec<u8> = records.iter().flat_map(|&(typ, payload)| (sealer.seal)(typ, payload)).collect();
        let mut pair = sealer.pair;
        pair.output.clear();
        assert_eq!(pair.feed(&bytes, usize::MAX), Err(TlsOutcome::Garbage));
        pair.server.close(&mut pair.output);
        assert!(pair.server.seal(b"x", &mut pair.output).is_err());
    }
}

/// After an empty handshake record rustls keeps bytes that begin anywhere in a later record, so plaintext of the client
/// stands where a header is expected.
#[test]
fn records_without_data_are_counted_after_an_empty_handshake_record() {
    use rustls::ContentType::{ApplicationData, Handshake};
    let mut sealer = Sealer::new();
    let fill = [23, 3, 3, 0xff, 0xff].repeat(16);
    for round in 0..=SILENT_MAX {
        let mut bytes = (sealer.seal)(Handshake, b"");
        bytes.extend((sealer.seal)(ApplicationData, &fill));
        assert_eq!(sealer.pair.feed(&bytes, usize::MAX).is_ok(), round < SILENT_MAX, "{round}");
    }
}

#[test]
fn failures_are_classified_and_send_an_alert() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    assert_eq!(pair.feed(b"GET / HTTP/1.1\r\n\r\n", usize::MAX), Err(TlsOutcome::Garbage));

    let mut pair = Pair::new(false, &rustls::version::TLS13);
    let flight = pair.client_sends();
    pair.feed(&flight, usize::MAX).expect("hello");
    assert!(pair.client_receives().is_err());
    let alert = pair.client_sends();
    assert_eq!(pair.feed(&alert, usize::MAX), Err(TlsOutcome::UnknownCa));

    let mut pair = Pair::new(true, &rustls::version::TLS12);
    let mut only_13 = Pair::new(true, &rustls::version::TLS13);
    let key = Arc::clone(&only_13.config);
    let config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]);
    only_13.config =
        Arc::new(config.with_no_client_auth().with_cert_resolver(Arc::clone(&key.cert_resolver)));
    pair.config = Arc::clone(&only_13.config);
    let flight = pair.client_sends();
    assert_eq!(pair.feed(&flight, usize::MAX), Err(TlsOutcome::NothingShared));
    assert_eq!(pair.output.bytes().first(), Some(&21), "an alert record");
    assert!(matches!(pair.client_receives(), Err(Error::AlertReceived(AlertDescription::ProtocolVersion))));

    let mut pair = Pair::new(true, &rustls::version::TLS13);
    pair.handshake(usize::MAX);
    let wrong = [&[23, 3, 3, 0, 64], [9; 64].as_slice()].concat();
    assert_eq!(pair.feed(&wrong, usize::MAX), Err(TlsOutcome::Garbage));
    assert_eq!(pair.client_receives(), Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
}

#[test]
fn an_endless_handshake_message_is_refused() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    // A ClientHello of 60,000 bytes, in many records.
    let mut record = vec![22, 3, 1, 0x3f, 0, 1, 0, 0xea, 0x60];
    record.resize(5 + 0x3f00, 0);
    pair.feed(&record, 1000).expect("the first record may be the start of something");
    let mut next = vec![22, 3, 1, 0x3f, 0];
    next.resize(5 + 0x3f00, 0);
    assert_eq!(pair.feed(&next, 1000), Err(TlsOutcome::Garbage));
}

#[test]
fn both_sides_send_a_close_notify() {
    let mut pair = Pair::new(true, &rustls::version::TLS13);
    pair.server.close(&mut pair.output);
    assert!(pair.output.bytes().is_empty(), "no close_notify before the handshake");
    pair.handshake(usize::MAX);
    pair.client.writer().write_all(b"last").expect("write");
    pair.client.send_close_notify();
    let bytes = pair.client_sends();
    assert!(pair.feed(&bytes, usize::MAX).expect("data").closed);
    assert_eq!(pair.plain.bytes(), b"last");
    pair.server.close(&mut pair.output);
    let mut sent = pair.output.bytes();
    pair.client.read_tls(&mut sent).expect("read");
    assert!(pair.client.process_new_packets().expect("close_notify").peer_has_closed());
}
