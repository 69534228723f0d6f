//! The certificate authorities that this computer trusts.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::system::pipe;

/// Names a file that replaces the system's, as for OpenSSL.
const VARIABLE: &str = "SSL_CERT_FILE";
/// All trusted certificates in one file; the first that exists is read.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",             // openSUSE
    "/etc/ssl/cert.pem",                  // Alpine
];
/// Where an administrator puts authorities that do not come with the system. The bundle contains them, too.
const ADDED: [&str; 3] = [
    "/usr/local/share/ca-certificates",  // Debian, Ubuntu, Alpine
    "/etc/pki/ca-trust/source/anchors",  // Fedora, RHEL
    "/etc/ca-certificates/trust-source", // Arch
];
/// Maximum number of files that are read from a directory of added authorities.
const ADDED_MAX: usize = 256;

/// The authorities that this computer trusts.
#[derive(Debug)]
pub struct SystemRoots {
    /// All of them.
    pub all: RootCertStore,
    /// Those that come with the system. The others were added by an administrator, often for TLS inspection.
    pub public: RootCertStore,
}

/// Reads the authorities that this computer trusts: from the file in `SSL_CERT_FILE`, else from the system's. Skips
/// certificates that rustls cannot use.
///
/// # Errors
/// The file cannot be read or is not PEM; the error names it.
pub fn system() -> io::Result<SystemRoots> {
    let path = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map_or_else(bundle, PathBuf::from);
    let all =
        read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    Ok(divide(&all, &added(&ADDED)))
}

/// The first bundle that exists, or Debian's, so that the error names a file.
fn bundle() -> PathBuf {
    let exists = |path: &&&str| Path::new(path).exists();
    PathBuf::from(BUNDLES.iter().find(exists).unwrap_or(&BUNDLES[0]))
}

fn divide(all: &[CertificateDer<'static>], added: &[CertificateDer<'static>]) -> SystemRoots {
    let mut roots = SystemRoots { all: RootCertStore::empty(), public: RootCertStore::empty() };
    for certificate in all {
        let _ = roots.all.add(certificate.clone());
        if !added.contains(certificate) {
            let _ = roots.public.add(certificate.clone());
        }
    }
    roots
}

/// Reads the certificates in these directories. A missing directory and files that are not PEM are skipped.
fn added(directories: &[&str]) -> Vec<CertificateDer<'static>> {
    let files =
        directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    files.take(ADDED_MAX).filter_map(|file| read(&file.path()).ok()).flatten().collect()
}

fn read(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_reader_iter(pipe::open(path)?.0).collect::<Result<_, _>>().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_authorities_are_not_public() {
        let made = |name: &str| {
            let made = super::super::self_signed(&[name.to_owned()], &[], 1_800_000_000).unwrap();
            made.key.cert[0].clone().into_owned()
        };
        let (one, two) = (made("one.example"), made("two.example"));
        let roots = divide(&[one.clone(), two.clone()], std::slice::from_ref(&two));
        assert_eq!((roots.all.len(), roots.public.len()), (2, 1));
        assert_eq!(divide(&[one], &[]).public.len(), 1);
        assert!(added(&["/nowhere"]).is_empty());
        assert!(read(Path::new("/nowhere.pem")).is_err());
    }
}
