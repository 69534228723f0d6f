//! TLS as the load speaks it.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::options::{Options, Transport};

/// The configuration; `None` for other transports. The one group that every server has (RFC 8446 section
/// 9.1) and no tickets: every server does the same work for every connection.
///
/// # Errors
/// The system's certificates cannot be read.
pub fn config(options: &Options) -> io::Result<Option<Arc<ClientConfig>>> {
    if options.target.transport != Transport::Tls {
        return Ok(None);
    }
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::SECP256R1];
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = if options.target.insecure {
        let anything = Arc::new(Anything(provider));
        builder.dangerous().with_custom_certificate_verifier(anything).with_no_client_auth()
    } else {
        builder.with_root_certificates(system_roots()?).with_no_client_auth()
    };
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Some(Arc::new(config)))
}

/// Where Debian and its kin keep the certificates of public authorities.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

fn system_roots() -> io::Result<RootCertStore> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("{ROOTS}: {error}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ROOTS).map_err(|error| failed(&error))? {
        // One that rustls cannot use is no reason to do without the others.
        let _ = roots.add(certificate.map_err(|error| failed(&error))?);
    }
    Ok(roots)
}

/// Takes any certificate, unchecked: the server's work is measured, not the client's.
#[derive(Debug)]
struct Anything(Arc<CryptoProvider>);

impl ServerCertVerifier for Anything {
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
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
