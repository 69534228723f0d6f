//! TLS certificates and the server's TLS settings.
//!
//! A [`CertStore`] holds the certificate for new handshakes and can be updated at any time. [`TlsConfigs`] contains two
//! rustls configurations, with ALPN and without, because rustls ends a handshake in which the client offers only
//! unknown protocols. TURN must get through whatever protocols an intermediate proxy put into the ClientHello.
#![forbid(unsafe_code)]

pub mod challenge;
mod crypto;
pub mod files;
pub mod resolver;
pub mod roots;
pub mod self_signed;
pub mod trust;
pub mod verifier;
mod x509;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::ResolvesServerCert;

pub use crypto::provider;
pub use files::{CertError, LoadedCertificate, Warning, load, sign_once};
pub use resolver::{CertChoice, CertStore, DeferredStore, Examined, Expiry};
pub use self_signed::self_signed;
pub use x509::{Description, DistinguishedName, Identifier, describe, dns_names, identifier};

/// ALPN of TURN over TLS (RFC 7443).
pub const ALPN_TURN: &[u8] = b"stun.turn";
/// ALPN of HTTP/1.1 (RFC 7301). Browsers behind a proxy offer it for TURN too.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// ALPN of HTTP/2 over TLS (RFC 9113).
pub const ALPN_H2: &[u8] = b"h2";

/// The TLS settings of a listener. Clones share the certificate and the ticket keys.
#[derive(Clone, Debug)]
pub struct TlsConfigs {
    /// For clients without ALPN, and for those that offer a supported protocol.
    pub with_alpn: Arc<ServerConfig>,
    /// For clients that offer only unknown protocols.
    pub without_alpn: Arc<ServerConfig>,
}

impl TlsConfigs {
    /// Creates settings with TLS 1.2 and 1.3, AEAD suites only, and tickets but no early data. `alpn` is in the
    /// server's order of preference; it may contain [`ALPN_H2`] only if a web server behind the listener speaks HTTP/2.
    ///
    /// # Errors
    /// The error of rustls if it refuses the settings or has no randomness for ticket keys.
    pub fn new(store: Arc<impl ResolvesServerCert + 'static>, alpn: &[&[u8]]) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(store);
        config.max_early_data_size = 0;
        // Every suite is secure, but auditors expect the server to choose.
        config.ignore_client_order = true;
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Ok(Self { with_alpn: Arc::new(config), without_alpn })
    }

    /// Returns the settings for a client that offers these protocols.
    pub fn choose<P: AsRef<[u8]>>(&self, client_alpn: &[P]) -> &Arc<ServerConfig> {
        let ours = &self.with_alpn.alpn_protocols;
        let overlap = client_alpn.iter().any(|p| ours.iter().any(|o| o == p.as_ref()));
        if client_alpn.is_empty() || overlap { &self.with_alpn } else { &self.without_alpn }
    }
}

#[cfg(test)]
mod tests;
