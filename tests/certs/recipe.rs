//! certs/make.sh, checked with OpenSSL and with `hallpass check`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::LIMIT;
use crate::support::certs::{self, Kind, MAKE};
use crate::support::files::Directory;
use crate::support::tool::{Ended, run, run_command, run_ok};

const NAME: &str = "relay.test";

/// Creates a certificate of this kind as `ca.pem`, `cert.pem` and `key.pem`.
fn files(kind: Kind) -> Directory {
    let files = Directory::new("recipe");
    certs::write(kind, NAME, &files.path("cert.pem"), &files.path("key.pem"));
    files.write("ca.pem", &certs::made(kind, NAME).ca);
    files
}

fn path(files: &Directory, name: &str) -> String {
    files.path(name).display().to_string()
}

/// Verifies it with OpenSSL as a certificate of [`NAME`].
fn verified(files: &Directory) -> Ended {
    let (ca, cert) = (path(files, "ca.pem"), path(files, "cert.pem"));
    let args = [
        "verify",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        NAME,
        "-CAfile",
        &ca,
        "-untrusted",
        &cert,
        &cert,
    ];
    run("openssl", &args, LIMIT)
}

/// Runs `hallpass check` on it.
fn checked(files: &Directory) -> Ended {
    let config = files.write(
        "hallpass.toml",
        "[[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5349'\n[tls]\ncert = 'cert.pem'\nkey = 'key.pem'\n\
         [[host]]\nname = 'h'\nsecret = '0123456789abcdef'\n",
    );
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["check", "--config"]).arg(config);
    run_command(command, LIMIT)
}

#[test]
fn each_kind_has_the_documented_property() {
    // The error that OpenSSL reports, and the warning of `hallpass check`.
    let cases: [(Kind, &str, &str); 8] = [
        (Kind::Good, "", ""),
        (Kind::Rsa2048, "", ""),
        (Kind::Rsa4096, "", "ECDSA P-256"),
        (Kind::SelfSigned, "", ""),
        (Kind::Expired, "certificate has expired", "expired"),
        (Kind::NotYetValid, "certificate is not yet valid", "not valid yet"),
        (Kind::OtherName, "hostname mismatch", ""),
        (Kind::LeafOnly, "unable to get local issuer certificate", "no intermediate certificate"),
    ];
    for (kind, fault, warning) in cases {
        let files = files(kind);
        let verified = verified(&files);
        assert_eq!(verified.success, fault.is_empty(), "{kind:?}: {}", verified.output);
        assert!(verified.output.contains(fault), "{kind:?}: {}", verified.output);
        let checked = checked(&files);
        assert!(checked.success && checked.output.contains(warning), "{kind:?}: {}", checked.output);
        // The time of a signature depends on the machine.
        let warnings =
            checked.output.lines().filter(|line| line.contains("warning: ") && !line.contains("ECDSA P-256"));
        let expected = usize::from(!warning.is_empty() && kind != Kind::Rsa4096);
        assert_eq!(warnings.count(), expected, "{kind:?}: {}", checked.output);
    }
}

#[test]
fn a_manual_run_replaces_all_three_files_together() {
    let files = Directory::new("by-hand");
    let make = |kind: &str| run("sh", &[MAKE, kind, files.path("").to_str().unwrap(), NAME], LIMIT);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(files.path("")).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let made = make("good");
    assert!(made.success && made.output.is_empty(), "{}", made.output);
    assert_eq!(names(), ["ca.pem", "cert.pem", "key.pem"]);
    let mode = |name: &str| fs::metadata(files.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.pem"), mode("cert.pem"), mode("key.pem")), (0o644, 0o644, 0o600));
    let first = fs::read(files.path("cert.pem")).unwrap();
    assert!(make("good").success);
    assert_ne!(fs::read(files.path("cert.pem")).unwrap(), first, "each run makes new keys");
    let second = fs::read(files.path("cert.pem")).unwrap();
    let unknown = make("golden");
    assert!(!unknown.success && unknown.output.contains("not-yet-valid"), "{}", unknown.output);
    assert_eq!((fs::read(files.path("cert.pem")).unwrap(), names().len()), (second, 3));
}

#[test]
fn a_certificate_is_created_once_per_test_binary() {
    let both = [(); 2].map(|()| std::thread::spawn(|| certs::made(Kind::Good, "once.test")));
    let [one, two] = both.map(|thread| thread.join().unwrap());
    assert_eq!((&one.cert, &one.key), (&two.cert, &two.key));
    assert_ne!(one.cert, certs::made(Kind::Good, "twice.test").cert);
    let shown = Directory::new("names");
    let file = shown.write("cert.pem", &one.cert);
    let names = run_ok("openssl", &["x509", "-in", text(&file), "-noout", "-ext", "subjectAltName"], LIMIT);
    for name in ["DNS:once.test", "DNS:localhost", "IP Address:127.0.0.1"] {
        assert!(names.contains(name), "{names}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
