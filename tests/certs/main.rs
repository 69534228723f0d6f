//! certs/: the script that makes the tests' certificates, and the hooks of ACME clients.
#![allow(clippy::disallowed_methods, reason = "the server runs on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod hooks;
mod recipe;

use std::path::PathBuf;
use std::time::Duration;

use support::tool::run_ok;

const LIMIT: Duration = Duration::from_secs(60);

/// A path inside certs/.
fn certs(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/certs")).join(path)
}

#[test]
fn the_scripts_pass_shellcheck() {
    let scripts =
        ["make.sh", "hooks/install-certificate.sh", "hooks/certbot-deploy.sh", "hooks/acme.sh-reload.sh"];
    for script in scripts {
        run_ok("shellcheck", &[certs(script).to_str().unwrap()], LIMIT);
    }
}

#[test]
fn the_repository_has_no_key_and_no_certificate() {
    let mut directories = vec![certs("")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                assert!(!text.contains("-----BEGIN"), "{:?}", entry.path());
            }
        }
    }
}
