//! When the certificate in use expires, and whether browsers can trust it.

use crate::admin::Snapshot;
use crate::cert::CertStore;

/// Label of a certificate without a name.
const UNNAMED: &str = "unnamed";

/// Adds the expiry of the certificate in use, and whether it is self-signed.
pub fn collect(certificates: &CertStore, out: &mut Snapshot) {
    if let Some(expiry) = certificates.expiry() {
        let help = "End of the certificate's validity (notAfter) in seconds since 1970, by its first name.";
        let labels = [("name", expiry.name.as_deref().unwrap_or(UNNAMED))];
        out.gauge("hallpass_certificate_expiry_timestamp_seconds", help, &labels, expiry.not_after as f64);
        let help = "1 if the certificate in use is self-signed: browsers refuse it.";
        out.gauge(
            "hallpass_certificate_self_signed",
            help,
            &labels,
            f64::from(u8::from(expiry.is_self_signed)),
        );
    }
}
