//! TLS certificates and the server's TLS settings.
//!
//! A [`CertStore`] holds the certificate that new handshakes get; it is replaced under running ones.
//! [`TlsConfigs`] wraps it in two rustls configurations, one that offers ALPN and one that does not, because
//! rustls ends a handshake when the client offers protocols and none is ours, while TURN must get through
//! whatever an interposed proxy put there.
#![forbid(unsafe_code)]

pub mod files;
pub mod resolver;
pub mod self_signed;
mod x509;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use files::{CertError, Loaded, load, sign_once};
pub use resolver::{CertStore, Reloaded};
pub use self_signed::self_signed;

/// RFC 7443: TURN over TLS.
pub const ALPN_TURN: &[u8] = b"stun.turn";
/// RFC 7301: HTTP/1.1, which browsers behind a proxy offer for TURN too.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// RFC 9113: HTTP/2 over TLS.
pub const ALPN_H2: &[u8] = b"h2";

/// The cryptography in use. Given to rustls wherever it asks, so that no process-wide default is needed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The TLS settings of a listener; clones share the certificate and the ticket keys.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    /// For clients without ALPN and for those that offer a protocol of ours.
    pub with_alpn: Arc<ServerConfig>,
    /// For clients that offer unknown protocols only.
    pub without_alpn: Arc<ServerConfig>,
}

impl TlsConfigs {
    /// TLS 1.2 and 1.3, AEAD suites only, tickets but no early data. `alpn` is in the server's order of
    /// preference; put [`ALPN_H2`] in only where something behind the listener speaks it.
    pub fn new(store: Arc<CertStore>, alpn: &[&[u8]]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(store);
        config.max_early_data_size = 0;
        // Every suite is a good one, but an order of ours is what auditors look for.
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Self { with_alpn: Arc::new(config), without_alpn })
    }

    /// The settings under which a client that offers these protocols gets through.
    pub fn choose<P: AsRef<[u8]>>(&self, client_alpn: &[P]) -> &Arc<ServerConfig> {
        let ours = &self.with_alpn.alpn_protocols;
        let overlap = client_alpn.iter().any(|p| ours.iter().any(|o| o == p.as_ref()));
        if client_alpn.is_empty() || overlap { &self.with_alpn } else { &self.without_alpn }
    }
}

#[cfg(test)]
mod tests;
