//! Reads certificate chain and key from PEM files. Errors name the file and the remedy.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::crypto::provider;
use super::x509;
use crate::base::text::counted;
use crate::system::{account, pipe};

/// Size limit of a PEM file.
const MAX_FILE: u64 = 1 << 20;
const DAY: u64 = 86_400;
/// Days before the expiry when a warning starts.
const EXPIRES_SOON_DAYS: u64 = 14;

/// Returns the seconds before the expiry when a warning starts: 14 days, or a quarter of a shorter lifetime. A renewal is usually
/// at two thirds, and with jitter not later than a quarter before the end.
pub fn expires_soon(not_before: i64, not_after: i64) -> u64 {
    let lifetime = u64::try_from(not_after.saturating_sub(not_before)).unwrap_or(0);
    (EXPIRES_SOON_DAYS * DAY).min(lifetime / 4)
}

/// The next step for a certificate that has expired or will.
const RENEW: &str = "renew it: a running server uses new files by itself";

/// A certificate with its key, and warnings about it.
#[derive(Debug)]
pub struct LoadedCertificate {
    /// Certificate chain and key, for [`super::CertStore`].
    pub key: Arc<CertifiedKey>,
    /// Problems that do not prevent its use: an expired certificate is still better than no relay.
    pub warnings: Vec<Warning>,
}

/// A problem of a certificate that does not prevent its use. `Display` ends with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Expired this many days ago.
    Expired(PathBuf, u64),
    /// Expires in this many days.
    ExpiresSoon(PathBuf, u64),
    /// Not valid yet; usually the clock of this host is wrong.
    NotYetValid(PathBuf),
    /// The file contains no intermediate certificate.
    LeafOnly(PathBuf),
}

impl Warning {
    /// Returns the file.
    pub fn path(&self) -> &Path {
        let (Self::Expired(path, _)
        | Self::ExpiresSoon(path, _)
        | Self::NotYetValid(path)
        | Self::LeafOnly(path)) = self;
        path
    }
}

/// Returns a number of days in words, such as `1 day`.
fn in_days(days: u64) -> String {
    counted(usize::try_from(days).unwrap_or(usize::MAX), "day")
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(path, days) => {
                write!(f, "{}: expired {} ago; {RENEW}", path.display(), in_days(*days))
            }
            Self::ExpiresSoon(path, days) => {
                write!(f, "{}: expires in {}; {RENEW}", path.display(), in_days(*days))
            }
            Self::NotYetValid(path) => {
                write!(f, "{}: not valid yet; check the clock of this host", path.display())
            }
            Self::LeafOnly(path) => write!(
                f,
                "{}: contains no intermediate certificate, which many clients need; append that of the issuer, as ACME clients do in fullchain.pem",
                path.display()
            ),
        }
    }
}

/// Why a certificate chain and its key cannot be used. `Display` ends with the next step.
#[derive(Debug)]
pub enum CertError {
    /// A file cannot be read.
    Read(PathBuf, io::Error),
    /// A file is larger than any certificate.
    TooLarge(PathBuf),
    /// A PEM section is damaged.
    Pem(PathBuf, pem::Error),
    /// The chain file contains no certificate.
    NoCertificate(PathBuf),
    /// A certificate in the chain is damaged.
    BadCertificate(PathBuf),
    /// The key file contains no private key.
    NoKey(PathBuf),
    /// The key has a passphrase, which cannot be entered at a restart.
    EncryptedKey(PathBuf),
    /// rustls does not support the type of the key.
    BadKey(PathBuf, Error),
    /// The key belongs to a later certificate of the chain, so the order is wrong.
    WrongOrder(PathBuf),
    /// The key belongs to no certificate of the chain.
    Mismatch {
        /// The chain file.
        chain: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// Expired this many days ago, while the certificate in use is valid.
    Expired(PathBuf, u64),
}

impl CertError {
    /// Returns the file; of two that do not fit each other, the key.
    pub fn path(&self) -> &Path {
        match self {
            Self::Read(path, _)
            | Self::TooLarge(path)
            | Self::Pem(path, _)
            | Self::NoCertificate(path)
            | Self::BadCertificate(path)
            | Self::NoKey(path)
            | Self::EncryptedKey(path)
            | Self::BadKey(path, _)
            | Self::WrongOrder(path)
            | Self::Mismatch { key: path, .. }
            | Self::Expired(path, _) => path,
        }
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{}: permission denied; {}", path.display(), account::let_this_user_read(path))
            }
            Self::Read(path, error) => write!(f, "{}: {error}; check the path", path.display()),
            Self::TooLarge(path) => {
                write!(f, "{}: larger than 1 MiB; write the path of a PEM file", path.display())
            }
            Self::Pem(path, error) => {
                write!(f, "{}: damaged PEM ({error}); copy the file again", path.display())
            }
            Self::NoCertificate(path) => write!(
                f,
                "{}: contains no certificate; `cert` needs the PEM chain (fullchain.pem), `key` the private key",
                path.display()
            ),
            Self::BadCertificate(path) => {
                write!(f, "{}: contains a damaged certificate; get the chain again", path.display())
            }
            Self::NoKey(path) => write!(
                f,
                "{}: contains no private key; `key` needs the PEM file that belongs to `cert` (privkey.pem)",
                path.display()
            ),
            Self::EncryptedKey(path) => write!(
                f,
                "{0}: the key has a passphrase; remove it with `openssl pkey -in {0} -out NEW`",
                path.display()
            ),
            Self::BadKey(path, error) => write!(
                f,
                "{}: the key cannot be used ({error}); use ECDSA P-256/P-384, Ed25519 or RSA from 2048 bits",
                path.display()
            ),
            Self::WrongOrder(path) => write!(
                f,
                "{}: the server's own certificate must come first, then those of its issuers",
                path.display()
            ),
            Self::Mismatch { chain, key } => write!(
                f,
                "{}: the key is not that of the certificate in {}; use both files of one renewal",
                key.display(),
                chain.display()
            ),
            Self::Expired(path, days) => write!(
                f,
                "{}: expired {} ago, and the certificate in use is still valid; install the renewed one, or write \
                 accept_expired = true in [tls]",
                path.display(),
                in_days(*days)
            ),
        }
    }
}

impl std::error::Error for CertError {}

/// Reads both files and checks that they belong together. `now` is in seconds since 1970, for the warnings.
///
/// # Errors
/// - `Read`, `TooLarge`, `Pem`: a file cannot be read or is damaged.
/// - `NoCertificate`, `BadCertificate`, `WrongOrder`: the chain cannot be used.
/// - `NoKey`, `EncryptedKey`, `BadKey`: the key cannot be used.
/// - `Mismatch`: the two do not belong together.
pub fn load(chain_path: &Path, key_path: &Path, now: u64) -> Result<LoadedCertificate, CertError> {
    let chain = read_chain(chain_path)?;
    let key = read_key(key_path)?;
    let signer = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| CertError::BadKey(key_path.into(), error))?;
    let leaf = x509::summary(&chain[0]).ok_or_else(|| CertError::BadCertificate(chain_path.into()))?;
    let matches = |at: usize| CertifiedKey::new(vec![chain[at].clone()], Arc::clone(&signer)).keys_match();
    match matches(0) {
        // Unknown: rustls cannot read the public half. It can for all types of keys that are accepted here.
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
    Ok(LoadedCertificate { key: Arc::new(CertifiedKey::new(chain, signer)), warnings })
}

/// Returns whether a certificate that was loaded before has expired.
pub fn has_expired(key: &CertifiedKey, now: u64) -> bool {
    let leaf = key.cert.first().and_then(|leaf| x509::summary(leaf));
    leaf.is_some_and(|leaf| i64::try_from(now).is_ok_and(|now| leaf.not_after < now))
}

/// Reads at least one certificate.
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
    let file = pipe::open(path).and_then(|(file, _)| file.take(MAX_FILE + 1).read_to_end(&mut text));
    match file {
        Err(error) => Err(CertError::Read(path.into(), error)),
        Ok(length) if length as u64 > MAX_FILE => Err(CertError::TooLarge(path.into())),
        Ok(_) => Ok(text),
    }
}

fn warnings(path: &Path, leaf: &x509::Summary, chain_length: usize, now: u64) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let left = leaf.not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let days = left.unsigned_abs() / DAY;
    if left < 0 {
        warnings.push(Warning::Expired(path.into(), days));
    } else if left.unsigned_abs() < expires_soon(leaf.not_before, leaf.not_after) {
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

/// Makes one signature as in a full handshake, with the scheme that the key prefers. Returns its length in bytes: that of an RSA
/// key is as long as its modulus.
///
/// # Errors
/// The error of rustls if the key supports no scheme or signing fails.
pub fn sign_once(key: &CertifiedKey) -> Result<usize, Error> {
    // Every key that `load` accepts supports one of them.
    let schemes = provider().signature_verification_algorithms.supported_schemes();
    let signer = key.key.choose_scheme(&schemes).ok_or(Error::General("no signature scheme".to_owned()))?;
    // As long as the signed content in TLS 1.3 (RFC 8446 section 4.4.3).
    signer.sign(&[0x20; 130]).map(|signature| signature.len())
}

#[cfg(test)]
mod tests;
