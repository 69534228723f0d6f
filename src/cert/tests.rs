use super::*;
use crate::load::tls::AnyCertificate;
use rustls::pki_types::ServerName;
use rustls::{
    ClientConfig, ClientConnection, Error, ProtocolVersion, ServerConnection, SupportedProtocolVersion,
};

const NOW: u64 = 1_800_000_000;

fn store() -> Arc<CertStore> {
    Arc::new(CertStore::new(self_signed(&["relay.example.org".into()], &[], NOW).unwrap().key))
}

fn configs(store: &Arc<CertStore>) -> TlsConfigs {
    TlsConfigs::new(Arc::clone(store), &[ALPN_TURN, ALPN_H2, ALPN_HTTP1]).unwrap()
}

fn client(version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::any(provider())))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

/// Completes a handshake in memory, then sends one message from the client to the server.
fn handshake(
    server: &Arc<ServerConfig>,
    client: ClientConfig,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), Error> {
    use std::io::{Read, Write};
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut &wire[..]).unwrap();
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut &wire[..]).unwrap();
        client.process_new_packets()?;
    }
    let mut wire = Vec::new();
    client.writer().write_all(b"allocate").unwrap();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut &wire[..]).unwrap();
    server.process_new_packets()?;
    let mut text = [0; 8];
    server.reader().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"allocate");
    Ok((client, server))
}

#[test]
fn tls_1_2_and_1_3_work_and_agree_on_turn() {
    let configs = configs(&store());
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let offer: &[&[u8]] = &[ALPN_HTTP1, ALPN_TURN];
        let (client, server) =
            handshake(configs.choose(offer), client(version, offer), "relay.example.org").unwrap();
        assert_eq!(client.protocol_version(), Some(number));
        assert_eq!(client.alpn_protocol(), Some(ALPN_TURN));
        assert_eq!(server.server_name(), Some("relay.example.org"));
    }
}

#[test]
fn unknown_alpn_gets_through_only_by_choice() {
    let configs = configs(&store());
    let offer: &[&[u8]] = &[b"c-webrtc", b"acme-tls/1"];
    let strict = handshake(&configs.with_alpn, client(&rustls::version::TLS13, offer), "a.example");
    assert_eq!(strict.err(), Some(Error::NoApplicationProtocol), "the reason for two settings");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (client, _) = handshake(configs.choose(offer), client(version, offer), "a.example").unwrap();
        assert_eq!(client.alpn_protocol(), None);
    }
    for (offer, ours) in [(&[][..], true), (&[ALPN_HTTP1], true), (&[b"x", ALPN_H2], true), (&[b"x"], false)]
    {
        assert_eq!(Arc::ptr_eq(configs.choose(offer), &configs.with_alpn), ours, "{offer:?}");
    }
}

#[test]
fn clients_without_sni_are_served() {
    let configs = configs(&store());
    // rustls sends no SNI for an address.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (_, server) = handshake(configs.choose::<&[u8]>(&[]), client(version, &[]), "192.0.2.1").unwrap();
        assert_eq!(server.server_name(), None);
    }
}

#[test]
fn a_swap_serves_new_clients_and_keeps_old_ones() {
    let store = store();
    let configs = configs(&store);
    let connect =
        || handshake(&configs.with_alpn, client(&rustls::version::TLS13, &[]), "a.example").unwrap();
    let leaf = |c: &ClientConnection| c.peer_certificates().unwrap()[0].clone().into_owned();
    let (mut old, mut old_server) = connect();
    let next = self_signed(&["a.example".into()], &[], NOW).unwrap();
    store.replace(Arc::clone(&next.key));
    let (new, _) = connect();
    assert_ne!(leaf(&old), leaf(&new));
    assert_eq!(leaf(&new), next.key.cert[0]);
    let mut wire = Vec::new();
    std::io::Write::write_all(&mut old.writer(), b"still here").unwrap();
    old.write_tls(&mut wire).unwrap();
    old_server.read_tls(&mut &wire[..]).unwrap();
    assert_eq!(old_server.process_new_packets().unwrap().plaintext_bytes_to_read(), 10);
}

#[test]
fn only_aead_suites_and_no_early_data() {
    let configs = configs(&store());
    for config in [&configs.with_alpn, &configs.without_alpn] {
        assert_eq!(config.max_early_data_size, 0);
        for suite in &config.crypto_provider().cipher_suites {
            let name = format!("{:?}", suite.suite());
            assert!(name.contains("_GCM_") || name.contains("CHACHA20_POLY1305"), "{name}");
        }
    }
}

#[test]
fn the_self_signed_certificate_contains_names_and_addresses() {
    let addresses = ["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
    let made = self_signed(&["relay.example.org".into(), "localhost".into()], &addresses, NOW).unwrap();
    let der = &made.key.cert[0];
    let parsed = rustls::server::ParsedCertificate::try_from(der).unwrap();
    let valid = |name: &str| {
        rustls::client::verify_server_name(&parsed, &ServerName::try_from(name.to_owned()).unwrap()).is_ok()
    };
    for name in ["relay.example.org", "localhost", "127.0.0.1", "::1", "203.0.113.10", "2001:db8::10"] {
        assert!(valid(name), "{name}");
    }
    assert!(!valid("other.example.org") && !valid("203.0.113.11"));
    let summary = x509::summary(der).unwrap();
    assert_eq!(summary.not_after, NOW as i64 + 90 * 86_400);
    assert_eq!(summary.not_before, NOW as i64 - 86_400);
    assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
    assert_eq!(made.fingerprint, self_signed::fingerprint(der));
    let error = self_signed(&["schüle.example".into()], &[], NOW).unwrap_err().to_string();
    assert!(error.contains("xn--"), "{error}");
}
