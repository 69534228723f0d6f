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
