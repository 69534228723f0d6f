//! TLS configuration of the load.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::options::Target;
use crate::base::transport::Transport;
use crate::cert::roots;
use crate::cert::verifier::{Judge, Presented, Verifier};

/// Returns the configuration; `None` for other transports. It offers the one group that every server must support
/// (RFC 8446 section 9.1) and no tickets, so that every server does the same work per connection.
///
/// # Errors
/// The system's certificates cannot be read.
pub fn config(target: &Target) -> io::Result<Option<Arc<ClientConfig>>> {
    if target.transport != Transport::Tls {
        return Ok(None);
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::SECP256R1];
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = if target.insecure {
        // Signature checks would only slow the generator down.
        let any_certificate = Arc::new(AnyCertificate::any(provider).without_signatures());
        builder.dangerous().with_custom_certificate_verifier(any_certificate).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots::system()?.all).with_no_client_auth()
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

/// Accepts any certificate, regardless of name, validity and issuer. For tests and `hallpass load --insecure` only:
/// any host on the path can impersonate the server.
pub type AnyCertificate = Verifier<Any>;

/// The judgement of [`AnyCertificate`].
#[derive(Debug)]
pub struct Any {
    checks_signatures: bool,
}

impl AnyCertificate {
    /// Creates a verifier that checks whether the server has the private key of its certificate.
    pub fn any(provider: Arc<CryptoProvider>) -> Self {
        Self::new(Any { checks_signatures: true }, provider)
    }

    /// Disables that check.
    pub fn without_signatures(mut self) -> Self {
        self.judge.checks_signatures = false;
        self
    }
}

impl Judge for Any {
    fn judge(&self, _: Presented<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }

    fn checks_signatures(&self) -> bool {
        self.checks_signatures
    }
}
