//! TLS as a browser does it, and what it shows about the network: which certificate arrives, and who issued it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, NamedGroup, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stage::Cause;
use super::text::clean;
use crate::cert::verifier::{Judge, Presented, Verifier};
use crate::cert::{Description, DistinguishedName, describe, provider, roots};
use crate::system::clock;

/// Maximum number of certificates of a chain that are described.
const CHAIN_MAX: usize = 8;

/// Checks certificates against this computer's authorities.
#[derive(Clone, Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    all: Option<Arc<WebPkiServerVerifier>>,
    /// Without the authorities that an administrator added.
    public: Option<Arc<WebPkiServerVerifier>>,
}

/// The certificate of one handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The server's certificate first, then its issuers as they were sent. Texts are cleaned.
    pub chain: Vec<Description>,
    /// Whether browsers accept it.
    pub verdict: Verdict,
}

/// Whether browsers accept a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A public authority issued it for this name.
    Public,
    /// An authority issued it that an administrator added to this computer.
    Added,
    /// It expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It is for other names.
    OtherName,
    /// It is signed with its own key.
    SelfSigned,
    /// An authority issued it that this computer does not know, or the chain is incomplete.
    UnknownIssuer,
    /// It names an issuer that did not sign it.
    Forged,
    /// This computer has no list of authorities.
    Unchecked,
    /// Something else is wrong.
    Invalid(String),
}

impl Verdict {
    /// Whether browsers on this computer accept the certificate.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Public | Self::Added | Self::Unchecked)
    }

    /// Its name in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Added => "added_authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OtherName => "other_name",
            Self::SelfSigned => "self_signed",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Forged => "forged",
            Self::Unchecked => "unchecked",
            Self::Invalid(_) => "invalid",
        }
    }
}

impl Certificate {
    /// The name of the authority that issued the server's certificate.
    pub fn issuer(&self) -> String {
        self.chain.first().map_or_else(|| "nobody".to_owned(), |leaf| shown(&leaf.issuer))
    }

    /// Whether the network may have put it in the place of the relay's: its issuer is not public, but it is not the relay's
    /// own self-made certificate either.
    pub fn may_be_interception(&self) -> bool {
        matches!(self.verdict, Verdict::Added | Verdict::UnknownIssuer | Verdict::Forged)
    }
}

/// A distinguished name for a person.
pub fn shown(name: &DistinguishedName) -> String {
    match (&name.common_name, &name.organization) {
        (Some(common), Some(organization)) if common != organization => format!("{common} ({organization})"),
        (Some(one), _) | (None, Some(one)) => one.clone(),
        (None, None) => "an issuer without a name".to_owned(),
    }
}

/// What a handshake came to. The certificate is known even if the handshake failed after it.
pub struct Handshake {
    /// The connection, or why there is none.
    pub stream: Result<Box<TlsStream<TcpStream>>, Cause>,
    /// The certificate, if one arrived.
    pub certificate: Option<Certificate>,
}

impl Trust {
    /// Reads this computer's authorities. Without any, certificates are not checked.
    pub fn of_this_computer() -> Self {
        match roots::system() {
            Ok(found) => Self::new(found.all, found.public),
            Err(_) => Self::new(RootCertStore::empty(), RootCertStore::empty()),
        }
    }

    fn new(all: RootCertStore, public: RootCertStore) -> Self {
        let verifier = |roots: RootCertStore| {
            // It fails only without authorities.
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()
        };
        Self { provider: Arc::new(as_browsers()), all: verifier(all), public: verifier(public) }
    }

    /// Judges the chain of a server, its own certificate first, for the name `host`.
    pub fn judge(&self, chain: &[CertificateDer<'_>], host: &str) -> Option<Certificate> {
        let (leaf, others) = chain.split_first()?;
        let name = ServerName::try_from(host.to_owned()).ok()?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(clock::unix_seconds()));
        Some(self.certificate(Presented { leaf, others, name: &name, ocsp: &[], now }))
    }

    fn certificate(&self, presented: Presented<'_>) -> Certificate {
        let check =
            |verifier: &Option<Arc<WebPkiServerVerifier>>| Some(presented.check(verifier.as_deref()?));
        let chain = [presented.leaf].into_iter().chain(presented.others).take(CHAIN_MAX);
        let chain: Vec<Description> = chain.filter_map(|one| describe(one)).map(cleaned).collect();
        let verdict = match check(&self.all) {
            None => Verdict::Unchecked,
            Some(Ok(())) if check(&self.public) == Some(Ok(())) => Verdict::Public,
            Some(Ok(())) => Verdict::Added,
            Some(Err(error)) => verdict(&error, chain.first().is_some_and(|leaf| leaf.is_self_issued)),
        };
        Certificate { chain, verdict }
    }

    /// Makes the handshake for `host`.
    pub async fn handshake(&self, stream: TcpStream, host: &str) -> Handshake {
        let recorder = Recorder { trust: self.clone(), seen: Mutex::new(None) };
        let verifier = Arc::new(Verifier::new(recorder, Arc::clone(&self.provider)));
        let stream = self.connect(stream, host, Arc::clone(&verifier)).await;
        let certificate = verifier.judge.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        Handshake { stream, certificate }
    }

    async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        verifier: Arc<Verifier<Recorder>>,
    ) -> Result<Box<TlsStream<TcpStream>>, Cause> {
        let failed = |error: &dyn std::fmt::Display| Cause::TlsFailed(clean(&error.to_string()));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // Every connection shows its own certificate.
        config.resumption = rustls::client::Resumption::disabled();
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(cause(&error)),
        }
    }
}

/// The key exchange of browsers: a post-quantum share first, so that the ClientHello spans two segments. Some firewalls cannot
/// read those.
fn as_browsers() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider.kx_groups.insert(0, aws_lc_rs::kx_group::X25519MLKEM768);
    provider
}

fn cause(error: &io::Error) -> Cause {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidMessage(_)) => Cause::NotTls,
        Some(inner) => Cause::TlsFailed(clean(&inner.to_string())),
        None => Cause::of_error(error),
    }
}

/// Accepts every certificate and records whether it should have been accepted. The doctor sends no password over the
/// connection, only what TURN sends over plain UDP, too.
#[derive(Debug)]
struct Recorder {
    trust: Trust,
    seen: Mutex<Option<Certificate>>,
}

impl Judge for Recorder {
    fn judge(&self, presented: Presented<'_>) -> Result<(), Error> {
        let certificate = self.trust.certificate(presented);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate);
        Ok(())
    }
}

fn verdict(error: &Error, is_self_issued: bool) -> Verdict {
    use CertificateError as Bad;
    match error {
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => Verdict::Expired,
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => Verdict::NotYetValid,
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            Verdict::OtherName
        }
        _ if is_self_issued => Verdict::SelfSigned,
        Error::InvalidCertificate(Bad::UnknownIssuer) => Verdict::UnknownIssuer,
        Error::InvalidCertificate(Bad::BadSignature) => Verdict::Forged,
        other => Verdict::Invalid(clean(&other.to_string())),
    }
}

fn cleaned(description: Description) -> Description {
    let name = |name: DistinguishedName| DistinguishedName {
        common_name: name.common_name.as_deref().map(clean),
        organization: name.organization.as_deref().map(clean),
    };
    Description {
        subject: name(description.subject),
        issuer: name(description.issuer),
        names: description.names.iter().map(|name| clean(name)).collect(),
        ..description
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_have_names() {
        let name = |common: Option<&str>, organization: Option<&str>| {
            shown(&DistinguishedName {
                common_name: common.map(str::to_owned),
                organization: organization.map(str::to_owned),
            })
        };
        assert_eq!(name(Some("R11"), Some("Let's Encrypt")), "R11 (Let's Encrypt)");
        assert_eq!(name(Some("School"), Some("School")), "School");
        assert_eq!(name(None, None), "an issuer without a name");
    }

    #[test]
    fn errors_of_a_certificate_have_verdicts() {
        let of = |error: CertificateError, own| verdict(&Error::InvalidCertificate(error), own);
        assert_eq!(of(CertificateError::Expired, true), Verdict::Expired);
        assert_eq!(of(CertificateError::NotValidForName, false), Verdict::OtherName);
        assert_eq!(of(CertificateError::UnknownIssuer, false), Verdict::UnknownIssuer);
        assert_eq!(of(CertificateError::UnknownIssuer, true), Verdict::SelfSigned);
        assert_eq!(of(CertificateError::BadSignature, false), Verdict::Forged);
        assert!(matches!(of(CertificateError::BadEncoding, false), Verdict::Invalid(_)));
        assert!(Verdict::Added.is_accepted() && !Verdict::SelfSigned.is_accepted());
    }
}
