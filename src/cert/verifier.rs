//! How a client checks the certificate of a server. The judgement differs; the checks of signatures are the same for all.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// What a server presents, and what it is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The server's own certificate.
    pub leaf: &'a CertificateDer<'a>,
    /// The others of its chain.
    pub others: &'a [CertificateDer<'a>],
    /// The name that the client asked for.
    pub name: &'a ServerName<'a>,
    /// An OCSP answer; empty if there is none.
    pub ocsp: &'a [u8],
    /// The time.
    pub now: UnixTime,
}

impl Presented<'_> {
    /// Asks another verifier.
    ///
    /// # Errors
    /// It does not accept the certificate.
    pub fn check(&self, verifier: &dyn ServerCertVerifier) -> Result<(), Error> {
        let Self { leaf, others, name, ocsp, now } = *self;
        verifier.verify_server_cert(leaf, others, name, ocsp, now).map(drop)
    }
}

/// Judges certificates.
pub trait Judge: Debug + Send + Sync {
    /// Judges the certificate that a server presents.
    ///
    /// # Errors
    /// Why the handshake must end.
    fn judge(&self, presented: Presented<'_>) -> Result<(), Error>;

    /// Whether the server must prove that it has the private key of its certificate.
    fn checks_signatures(&self) -> bool {
        true
    }
}

/// A verifier for rustls with this judgement.
#[derive(Debug)]
pub struct Verifier<J> {
    /// The judgement.
    pub judge: J,
    provider: Arc<CryptoProvider>,
}

impl<J: Judge> Verifier<J> {
    /// Verifies signatures with the algorithms of `provider`.
    pub fn new(judge: J, provider: Arc<CryptoProvider>) -> Self {
        Self { judge, provider }
    }
}

impl<J: Judge> ServerCertVerifier for Verifier<J> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge.judge(Presented { leaf, others, name, ocsp, now })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.judge.checks_signatures() {
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
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.judge.checks_signatures() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
