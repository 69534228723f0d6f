//! The files of a certificate.

use std::path::Path;

use super::types::TlsFiles;
use super::walk::{At, Notes, Section};

/// Reads the keys `cert` and `key` of a table; `None` without them. `without` says what happens then.
pub(super) fn certificate_files(
    section: &Section<'_, '_>,
    base: &Path,
    without: &str,
    notes: &mut Notes,
) -> Option<TlsFiles> {
    let mut file = |key: &str| {
        let At { value, line } = section.string(key, notes)?;
        if value.is_empty() {
            notes.error(line, &section.key(key), "the path is empty", format!("write the path of the {key}"));
            return None;
        }
        Some((base.join(value), line))
    };
    let (cert, key) = (file("cert"), file("key"));
    for (present, absent) in [("cert", "key"), ("key", "cert")] {
        if section.has(present) && !section.has(absent) {
            let line = section.line_of(present, notes);
            let (present, absent) = (section.key(present), section.key(absent));
            notes.error(
                line,
                &absent,
                format!("{present} is set without {absent}"),
                format!("add {absent}, or remove both {without}"),
            );
        }
    }
    let ((cert, cert_line), (key, key_line)) = (cert?, key?);
    Some(TlsFiles { cert, key, accept_expired: false, lines: (cert_line, key_line) })
}

/// Limit of certificates besides the one in `[tls]`. Each is looked through for the name of a client.
const MORE_MAX: usize = 100;

/// Reads the tables `[[tls.certificate]]`.
pub(super) fn more_certificates(tls: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Vec<TlsFiles> {
    let mut all: Vec<TlsFiles> = Vec::new();
    for section in tls.tables("certificate", "[[tls.certificate]]", notes) {
        if !section.has("cert") && !section.has("key") {
            let remedy = "write the files: cert and key, or remove [[tls.certificate]]";
            notes.error(section.line, "tls.certificate", "no certificate", remedy);
        }
        let Some(files) = certificate_files(&section, base, "and [[tls.certificate]]", notes) else {
            continue;
        };
        if all.iter().any(|other| other.cert == files.cert) {
            let message = format!("{} is listed twice", files.cert.display());
            notes.error(files.lines.0, "tls.certificate.cert", message, "remove one of the two");
        } else if all.len() == MORE_MAX {
            let message = format!("more than {MORE_MAX} certificates");
            notes.error(section.line, "tls.certificate", message, "put several names into one certificate");
        } else {
            all.push(files);
        }
    }
    all
}
