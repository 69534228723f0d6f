//! A self-signed certificate, for a start without certificate files.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use super::crypto::provider;

const DAY: u64 = 86_400;
const VALID_DAYS: u64 = 90;
/// The certificate is valid from one day ago, for clients whose clock is behind.
const BACKDATED: u64 = DAY;

/// A self-signed certificate and its key.
#[derive(Debug)]
pub struct SelfSigned {
    /// Certificate and key, for [`super::CertStore`].
    pub key: Arc<CertifiedKey>,
    /// SHA-256 of the certificate in the format of OpenSSL and browsers: `AB:CD:...`.
    pub fingerprint: String,
}

/// The reason why no certificate could be created.
#[derive(Debug)]
pub enum SelfSignedError {
    /// rcgen refused the certificate, usually because a name is not plain ASCII.
    Certificate(rcgen::Error),
    /// rustls refused the new key.
    Key(rustls::Error),
}

impl fmt::Display for SelfSignedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => write!(
                f,
                "no certificate could be created ({error}); write names that are not plain ASCII in their xn-- form"
            ),
            Self::Key(error) => write!(f, "the new key cannot be used: {error}"),
        }
    }
}

impl std::error::Error for SelfSignedError {}

/// Creates an ECDSA P-256 certificate for these names and addresses, `localhost`, 127.0.0.1 and ::1. It is valid for 90
/// days from `now` (seconds since 1970).
///
/// # Errors
/// `Certificate` if a name cannot be in a certificate or no key can be generated; `Key` if rustls refuses the key.
pub fn self_signed(names: &[String], addresses: &[IpAddr], now: u64) -> Result<SelfSigned, SelfSignedError> {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut subjects = names.to_vec();
    subjects.extend(addresses.iter().map(IpAddr::to_string));
    subjects.extend(local);
    let mut seen = std::collections::HashSet::new();
    subjects.retain(|s| seen.insert(s.to_ascii_lowercase()));

    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Hallpass self-signed certificate");
    let mut params = CertificateParams::new(subjects).map_err(SelfSignedError::Certificate)?;
    params.distinguished_name = name;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BACKDATED));
    params.not_after = epoch + Duration::from_secs(now.saturating_add(VALID_DAYS * DAY));

    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(SelfSignedError::Certificate)?;
    let certificate = params.self_signed(&pair).map_err(SelfSignedError::Certificate)?.der().clone();
    let fingerprint = fingerprint(&certificate);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = CertifiedKey::from_der(vec![certificate], key, &provider()).map_err(SelfSignedError::Key)?;
    Ok(SelfSigned { key: Arc::new(key), fingerprint })
}

/// Returns the SHA-256 of a certificate in DER, as `AB:CD:...`.
pub fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}
