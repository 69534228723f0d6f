//! A directory of our own, removed at the end, and certificates made by `openssl`.

use super::tool::run_ok;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A new empty directory, gone with its content when dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(label: &str) -> Directory {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hallpass-{label}-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {path:?}: {error}"));
        Directory(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {path:?}: {error}"));
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes a self-signed ECDSA certificate for `name` and its key, in PEM.
pub fn make_certificate(name: &str, cert: &Path, key: &Path) {
    self_signed(&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], name, cert, key);
}

/// The same with an RSA key, whose signatures take some milliseconds.
pub fn make_rsa_4096_certificate(name: &str, cert: &Path, key: &Path) {
    self_signed(&["rsa:4096"], name, cert, key);
}

fn self_signed(kind: &[&str], name: &str, cert: &Path, key: &Path) {
    let subject = format!("/CN={name}");
    let names = format!("subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1,IP:::1");
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let mut args = vec!["req", "-x509", "-newkey"];
    args.extend(kind);
    args.extend([
        "-nodes", "-days", "30", "-subj", &subject, "-addext", &names, "-out", cert, "-keyout", key,
    ]);
    // Finding the primes of a large key takes some seconds.
    run_ok("openssl", &args, Duration::from_secs(60));
}

/// Writes an ECDSA certificate for `name` and its key, and `ca.pem`, which vouches for it, into `files`.
pub fn make_signed_certificate(name: &str, files: &Directory, cert: &Path, key: &Path) {
    let path = |name: &str| files.path(name).display().to_string();
    let (ca, ca_key, request) = (path("ca.pem"), path("ca.key"), path("request.pem"));
    let extensions =
        files.write("extensions", &format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{name}\n"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let openssl =
        |args: &str| run_ok("openssl", &args.split(' ').collect::<Vec<_>>(), Duration::from_secs(20));
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("{new} -x509 -days 30 -subj /CN=ca.test -out {ca} -keyout {ca_key}"));
    openssl(&format!("{new} -subj /CN={name} -out {request} -keyout {key}"));
    let extensions = extensions.display();
    openssl(&format!(
        "x509 -req -days 20 -in {request} -CA {ca} -CAkey {ca_key} -CAcreateserial -extfile {extensions} -out {cert}"
    ));
}
