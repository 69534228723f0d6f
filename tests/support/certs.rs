//! Certificates from certs/make.sh. Each is created once per test binary, because an RSA key of 4096 bits takes seconds.
//!
//! This file depends on no other, so tests can include it alone.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

/// The script that creates certificates.
pub const MAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/certs/make.sh");

/// The kinds of certificates that the script can create; it documents each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Good,
    Expired,
    NotYetValid,
    OtherName,
    LeafOnly,
    Rsa2048,
    Rsa4096,
    SelfSigned,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Good => "good",
            Kind::Expired => "expired",
            Kind::NotYetValid => "not-yet-valid",
            Kind::OtherName => "other-name",
            Kind::LeafOnly => "leaf-only",
            Kind::Rsa2048 => "rsa-2048",
            Kind::Rsa4096 => "rsa-4096",
            Kind::SelfSigned => "self-signed",
        }
    }
}

/// A certificate with its key and root, in PEM.
pub struct Made {
    /// The root, for clients that must trust it.
    pub ca: String,
    /// The certificate chain of the server.
    pub cert: String,
    pub key: String,
}

type Cache = HashMap<(Kind, String), Arc<OnceLock<Arc<Made>>>>;

/// Returns the certificate of this kind for this name, always the same one.
pub fn made(kind: Kind, name: &str) -> Arc<Made> {
    static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
    // The lock protects only the map: no test waits for a certificate that it does not need.
    let entry = {
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(cache.entry((kind, name.to_owned())).or_default())
    };
    Arc::clone(entry.get_or_init(|| Arc::new(make(kind, name))))
}

/// Writes the certificate and its key to these paths.
pub fn write(kind: Kind, name: &str, cert: &Path, key: &Path) {
    let made = made(kind, name);
    put(cert, &made.cert, 0o644);
    put(key, &made.key, 0o600);
}

fn put(path: &Path, text: &str, mode: u32) {
    let written =
        fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    written.unwrap_or_else(|error| panic!("cannot write {path:?}: {error}"));
}

fn make(kind: Kind, name: &str) -> Made {
    let directory =
        std::env::temp_dir().join(format!("hallpass-made-{}-{}-{name}", std::process::id(), kind.name()));
    fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("cannot make {directory:?}: {error}"));
    let output = Command::new("sh").arg(MAKE).arg(kind.name()).arg(&directory).arg(name).output();
    let output = output.expect("a shell");
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let made = Made { ca: read("ca.pem"), cert: read("cert.pem"), key: read("key.pem") };
    let _ = fs::remove_dir_all(&directory);
    assert!(output.status.success(), "certs/make.sh (openssl): {}", String::from_utf8_lossy(&output.stderr));
    made
}
