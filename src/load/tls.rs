//! TLS configuration of the load.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::options::Target;
use crate::base::transport::Transport;
use crate::cert::roots;

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
        let any_certificate = Arc::new(AnyCertificate::new(provider).without_signatures());
        builder.dangerous().with_custom_certificate_verifier(any_certificate).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots::system()?.all).with_no_client_auth()
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

/// Accepts any certificate, regardless of name, validity and issuer. For tests and `hallpass load --insecure` only:
/// any host on the path can impersonate the server.
#[derive(Debug)]
pub struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    checks_signatures: bool,
}

impl AnyCertificate {
    /// Creates a verifier that checks whether the server has the private key of its certificate.
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider, checks_signatures: true }
    }

    /// Disables that check.
    pub fn without_signatures(self) -> Self {
        Self { checks_signatures: false, ..self }
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
