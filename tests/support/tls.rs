//! A TLS client that accepts any certificate and exposes it.

use hallpass::load::tls::AnyCertificate;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, NamedGroup, StreamOwned};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A client connection that has sent nothing yet.
pub fn client() -> ClientConnection {
    client_for("localhost", &[])
}

/// Does the same with the server name `name` and the protocols `alpn`.
pub fn client_for(name: &'static str, alpn: &[&str]) -> ClientConnection {
    client_of(aws_lc_rs::default_provider(), name, alpn)
}

/// Returns a client that offers a post-quantum key share first, as browsers do: its ClientHello exceeds one segment.
pub fn post_quantum_client() -> ClientConnection {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider.kx_groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    client_of(provider, "localhost", &[])
}

fn client_of(provider: CryptoProvider, name: &'static str, alpn: &[&str]) -> ClientConnection {
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::any(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
}

/// Connects and completes the handshake.
pub fn connect(address: SocketAddr) -> TlsStream {
    connect_as(address, client())
}

/// Does the same with this client.
pub fn connect_as(address: SocketAddr, client: ClientConnection) -> TlsStream {
    over(TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}")), client)
}

/// Completes the handshake over a connection.
pub fn over(mut stream: TcpStream, mut client: ClientConnection) -> TlsStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream).unwrap_or_else(|error| panic!("TLS: {error}"));
    }
    StreamOwned::new(client, stream)
}

/// Returns the server's certificate from the handshake, DER.
pub fn certificate(connection: &ClientConnection) -> Vec<u8> {
    connection.peer_certificates().expect("the handshake is over")[0].to_vec()
}
