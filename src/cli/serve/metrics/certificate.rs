//! When the certificate in use expires.

use crate::admin::Snapshot;
use crate::cert::CertStore;

/// Label of a certificate without a name.
const UNNAMED: &str = "unnamed";

/// Adds the expiry of each certificate in use.
pub fn collect(certificates: &CertStore, out: &mut Snapshot) {
    if let Some(expiry) = certificates.expiry() {
        let help = "End of the certificate's validity (notAfter) in seconds since 1970, by its first name.";
        let labels = [("name", expiry.name.as_deref().unwrap_or(UNNAMED))];
        out.gauge("hallpass_certificate_expiry_timestamp_seconds", help, &labels, expiry.not_after as f64);
    }
}
