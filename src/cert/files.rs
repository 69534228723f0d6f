//! Certificate chain and key from PEM files, with errors that name the file and the way out.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::x509;

/// Larger files are no certificates.
const MAX_FILE: u64 = 1 << 20;
const DAY: u64 = 86_400;
/// When a warning about the coming end begins.
const EXPIRES_SOON_DAYS: u64 = 14;

/// A certificate ready for use, and what an operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// For [`super::CertStore`].
    pub key: Arc<CertifiedKey>,
    /// Not wrong enough to refuse it: an expired certificate is still better than no relay.
    pub warnings: Vec<Warning>,
}

/// What is odd about a certificate that is used all the same; `Display` ends with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Its time is over since so many days.
    Expired(PathBuf, u64),
    /// It ends in so many days.
    ExpiresSoon(PathBuf, u64),
    /// Its time has not begun; usually the clock of this host is wrong.
    NotYetValid(PathBuf),
    /// No intermediate certificate follows the first one.
    LeafOnly(PathBuf),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(path, days) => {
                write!(f, "{}: expired {days} days ago; renew it and send SIGUSR2", path.display())
            }
            Self::ExpiresSoon(path, days) => {
                write!(f, "{}: expires in {days} days; renew it and send SIGUSR2", path.display())
            }
            Self::NotYetValid(path) => {
                write!(f, "{}: not valid yet; check the clock of this host", path.display())
            }
            Self::LeafOnly(path) => write!(
                f,
                "{}: holds no intermediate certificate, which many clients need; give fullchain.pem instead",
                path.display()
            ),
        }
    }
}

/// Why a chain and key cannot be used; `Display` ends with the next step.
#[derive(Debug)]
pub enum CertError {
    /// A file cannot be read.
    Read(PathBuf, io::Error),
    /// A file is larger than any certificate.
    TooLarge(PathBuf),
    /// A PEM section is damaged.
    Pem(PathBuf, pem::Error),
    /// The chain file holds no certificate.
    NoCertificate(PathBuf),
    /// A certificate in the chain is damaged.
    BadCertificate(PathBuf),
    /// The key file holds no private key.
    NoKey(PathBuf),
    /// The key is protected by a passphrase, which nobody could type at a restart.
    EncryptedKey(PathBuf),
    /// The key is of a kind rustls does not use.
    BadKey(PathBuf, Error),
    /// The key belongs to another certificate of the chain: the order is wrong.
    WrongOrder(PathBuf),
    /// The key belongs to none of the certificates.
    Mismatch {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "{}: permission denied; let the user of the server read it, for example by group ssl-cert",
                path.display()
            ),
            Self::Read(path, error) => write!(f, "{}: {error}; check the path", path.display()),
            Self::TooLarge(path) => {
                write!(f, "{}: larger than 1 MiB; give a PEM file", path.display())
            }
            Self::Pem(path, error) => {
                write!(f, "{}: damaged PEM ({error}); copy the file again", path.display())
            }
            Self::NoCertificate(path) => write!(
                f,
                "{}: no certificate in it; `cert` wants the PEM chain (fullchain.pem), `key` the private key",
                path.display()
            ),
            Self::BadCertificate(path) => {
                write!(f, "{}: a certificate in it is damaged; get the chain again", path.display())
            }
            Self::NoKey(path) => write!(
                f,
                "{}: no private key in it; `key` wants the PEM file that belongs to `cert` (privkey.pem)",
                path.display()
            ),
            Self::EncryptedKey(path) => write!(
                f,
                "{0}: the key has a passphrase; take it off with `openssl pkey -in {0} -out NEW`",
                path.display()
            ),
            Self::BadKey(path, error) => write!(
                f,
                "{}: the key cannot be used ({error}); use ECDSA P-256/P-384, Ed25519 or RSA from 2048 bits",
                path.display()
            ),
            Self::WrongOrder(path) => write!(
                f,
                "{}: the server's own certificate must come first, its issuers after it",
                path.display()
            ),
            Self::Mismatch { chain, key } => write!(
                f,
                "{}: the key is not that of the certificate in {}; give the two of one renewal",
                key.display(),
                chain.display()
            ),
        }
    }
}

impl std::error::Error for CertError {}

/// Reads both files and checks that they belong together. `now`: seconds since 1970, for the warnings.
pub fn load(chain_path: &Path, key_path: &Path, now: u64) -> Result<Loaded, CertError> {
    let chain = read_chain(chain_path)?;
    let key = read_key(key_path)?;
    let signer = super::provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| CertError::BadKey(key_path.into(), error))?;
    let leaf = x509::summary(&chain[0]).ok_or_else(|| CertError::BadCertificate(chain_path.into()))?;
    let matches = |at: usize| CertifiedKey::new(vec![chain[at].clone()], Arc::clone(&signer)).keys_match();
    match matches(0) {
        // Unknown: the key does not tell its public half. All kinds that are accepted here do.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) if (1..chain.len()).any(|at| matches(at).is_ok()) => {
            return Err(CertError::WrongOrder(chain_path.into()));
        }
        Err(Error::InconsistentKeys(_)) => {
            return Err(CertError::Mismatch { chain: chain_path.into(), key: key_path.into() });
        }
        Err(_) => return Err(CertError::BadCertificate(chain_path.into())),
    }
    let warnings = warnings(chain_path, &leaf, chain.len(), now);
    Ok(Loaded { key: Arc::new(CertifiedKey::new(chain, signer)), warnings })
}

/// At least one certificate, or an error.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let text = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| CertError::Pem(path.into(), error))?;
    if chain.is_empty() { Err(CertError::NoCertificate(path.into())) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let text = read(path)?;
    let encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.windows(mark.len()).any(|w| w == *mark)) {
        return Err(CertError::EncryptedKey(path.into()));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => CertError::NoKey(path.into()),
        error => CertError::Pem(path.into(), error),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertError> {
    let mut text = Vec::new();
    let file = File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut text));
    match file {
        Err(error) => Err(CertError::Read(path.into(), error)),
        Ok(length) if length as u64 > MAX_FILE => Err(CertError::TooLarge(path.into())),
        Ok(_) => Ok(text),
    }
}

fn warnings(path: &Path, leaf: &x509::Summary, chain_length: usize, now: u64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    // Years past 9999 cannot be written in a certificate, so seconds fit an i64.
    let left = leaf.not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let days = left.unsigned_abs() / DAY;
    if left < 0 {
        warnings.push(Warning::Expired(path.into(), days));
    } else if days < EXPIRES_SOON_DAYS {
        warnings.push(Warning::ExpiresSoon(path.into(), days));
    }
    if i64::try_from(now).is_ok_and(|now| now < leaf.not_before) {
        warnings.push(Warning::NotYetValid(path.into()));
    }
    if chain_length == 1 && !leaf.self_issued {
        warnings.push(Warning::LeafOnly(path.into()));
    }
    warnings
}

/// Makes one signature, as each full handshake needs one, with the scheme that the key prefers.
pub fn sign_once(key: &CertifiedKey) -> Result<(), Error> {
    // What TLS 1.3 offers in the order of our preference; every key that is accepted knows one of them.
    let schemes = super::provider().signature_verification_algorithms.supported_schemes();
    let signer = key.key.choose_scheme(&schemes).ok_or(Error::General("no signature scheme".to_owned()))?;
    // The size of what is signed in TLS 1.3 (RFC 8446 section 4.4.3).
    signer.sign(&[0x20; 130]).map(|_| ())
}

#[cfg(test)]
mod tests;
