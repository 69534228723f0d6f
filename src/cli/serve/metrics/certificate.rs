//! When the certificates in use expire, whether browsers can trust them, and how their renewal goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::acme::View;
use crate::admin::Snapshot;
use crate::cert::CertStore;

/// Label of a certificate without a name.
const UNNAMED: &str = "unnamed";

/// Adds the validity of each certificate in use, and whether it is self-signed. Of two with the same first name, the one that
/// expires first counts.
pub fn collect(certificates: &[Arc<CertStore>], out: &mut Snapshot) {
    let mut all: Vec<_> = certificates.iter().filter_map(|certificate| certificate.expiry()).collect();
    all.sort_by_key(|expiry| expiry.not_after);
    let mut names = BTreeSet::new();
    for expiry in all {
        let name = expiry.name.as_deref().unwrap_or(UNNAMED);
        if !names.insert(name.to_owned()) {
            continue;
        }
        let help = "End of the certificate's validity (notAfter) in seconds since 1970, by its first name.";
        let labels = [("name", name)];
        out.gauge("hallpass_certificate_expiry_timestamp_seconds", help, &labels, expiry.not_after as f64);
        let help =
            "Start of the certificate's validity (notBefore) in seconds since 1970, by its first name.";
        out.gauge(
            "hallpass_certificate_not_before_timestamp_seconds",
            help,
            &labels,
            expiry.not_before as f64,
        );
        let help = "1 if the certificate in use is self-signed: browsers refuse it.";
        let is_self_signed = f64::from(u8::from(expiry.is_self_signed));
        out.gauge("hallpass_certificate_self_signed", help, &labels, is_self_signed);
    }
}

/// Adds the attempts of `[acme]` and the time of the next one.
pub fn collect_acme(view: &View, out: &mut Snapshot) {
    for (result, count) in [("success", view.issued), ("failure", view.failed)] {
        let help = "Attempts to get a certificate by [acme], by result.";
        out.counter("hallpass_acme_renewals_total", help, &[("result", result)], count);
    }
    let help = "Next attempt to get a certificate by [acme], in seconds since 1970; 0 without [acme].";
    let next = view.next.unwrap_or(0) as f64;
    out.gauge("hallpass_acme_next_attempt_timestamp_seconds", help, &[], next);
}
