//! Whether browsers trust a certificate.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::{provider, roots};

/// Whether this chain leads to an authority that comes with this system, and is valid for `name` now (seconds since 1970). `false`
/// if the authorities of the system cannot be read.
pub fn is_public(chain: &[CertificateDer<'_>], name: &str, now: u64) -> bool {
    let Some((leaf, others)) = chain.split_first() else { return false };
    let (Ok(roots), Ok(name)) = (roots::system(), ServerName::try_from(name)) else { return false };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots.public), provider()).build();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    verifier.is_ok_and(|verifier| verifier.verify_server_cert(leaf, others, &name, &[], now).is_ok())
}

#[cfg(test)]
mod tests {
    use super::super::self_signed;
    use super::*;

    #[test]
    fn a_certificate_of_nobody_is_not_public() {
        let made = self_signed(&["relay.example.org".to_owned()], &[], 1_800_000_000).expect("made");
        assert!(!is_public(&made.key.cert, "relay.example.org", 1_800_000_000));
        assert!(!is_public(&[], "relay.example.org", 1_800_000_000));
    }
}
