//! The certificate of a configuration, read as the server reads it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use crate::cert::{self, CertError, CertStore};
use crate::config::{Admin, AdminTls, Config, Exposure, Severity, TlsFiles};
use crate::system::clock;

/// The table of the admin pages.
const ADMIN: &str = "admin";
/// A signature that takes longer delays packets noticeably.
const SLOW_SIGNATURE: Duration = Duration::from_millis(2);
/// Signatures of this length, those of RSA keys of 3072 bits or more, take 1 ms or more on common servers.
const SLOW_SIGNATURE_BYTES: usize = 384;

/// What is known about the certificate of a configuration.
#[derive(Default)]
pub struct Examined {
    /// The table of the configuration that names the files.
    table: &'static str,
    /// The files; `None` if the configuration names none.
    files: Option<TlsFiles>,
    /// Why the files cannot be used.
    pub error: Option<CertError>,
    /// What is wrong with the certificate, although it can be used.
    pub warnings: Vec<cert::Warning>,
    /// What is wrong with the key, although it can be used.
    pub key_warnings: Vec<String>,
    /// The certificate and its key; `None` without files and after an error.
    pub key: Option<Arc<CertifiedKey>>,
    /// Whether `[acme]` has not got its first certificate yet.
    pub is_awaited: bool,
    /// The same of the further certificates: that of the admin pages alone, and those of `[[tls.certificate]]`.
    pub more: Vec<Examined>,
}

impl Examined {
    /// The problems as lines of text: one error that prevents the use of the files, or any number of warnings. `file` is the
    /// name of the configuration.
    pub fn lines(&self, file: &str) -> Vec<(Severity, String)> {
        let own = self.files.iter().flat_map(|files| self.problems(files, file));
        own.chain(self.more.iter().flat_map(|one| one.lines(file))).collect()
    }

    fn problems(&self, files: &TlsFiles, file: &str) -> Vec<(Severity, String)> {
        if self.is_awaited {
            let line = files.lines.0;
            let text = format!(
                "{file}:{line}: warning: acme: no certificate yet: the running server gets it, and a self-signed one serves until \
                 then\n    the server's log says how that goes; the authority must reach this host on port 443 or 80\n"
            );
            return vec![(Severity::Warning, text)];
        }
        let error = self.error.iter().map(|error| (Severity::Error, error.path(), error.to_string()));
        let warnings = self.warnings.iter().map(|warning| (warning.path(), warning.to_string()));
        let of_key = self.key_warnings.iter().map(|text| (files.key.as_path(), text.clone()));
        let warnings = warnings.chain(of_key).map(|(path, text)| (Severity::Warning, path, text));
        let located = |(severity, path, text)| {
            let word = if severity == Severity::Error { "error" } else { "warning" };
            let (key, line) = files.named(path);
            let line = if line == 0 { String::new() } else { format!(":{line}") };
            (severity, format!("{file}{line}: {word}: {}.{key}: {text}\n", self.table))
        };
        error.chain(warnings).map(located).collect()
    }

    /// Whether it is the certificate of the admin pages alone.
    pub fn is_of_admin(&self) -> bool {
        self.table == ADMIN
    }

    /// The names in the certificate; none if it cannot be read.
    pub fn names(&self) -> Vec<String> {
        let leaf = self.key.as_ref().and_then(|key| key.cert.first());
        leaf.and_then(|leaf| cert::describe(leaf)).map_or_else(Vec::new, |described| described.names)
    }

    /// The names in the certificates of the listeners; none if one of these cannot be read.
    pub fn served_names(&self) -> Vec<String> {
        let mut names = self.names();
        for one in self.more.iter().filter(|one| !one.is_of_admin()) {
            match one.names() {
                more if more.is_empty() => return Vec::new(),
                more => names.extend(more),
            }
        }
        if self.names().is_empty() { Vec::new() } else { names }
    }

    /// The file with the certificate if that has expired.
    pub fn expired(&self) -> Option<&Path> {
        let expired = |warning: &&cert::Warning| matches!(warning, cert::Warning::Expired(..));
        self.warnings.iter().find(expired).map(cert::Warning::path)
    }

    /// The first name in the certificate.
    pub fn name(&self) -> Option<String> {
        let store = CertStore::new(Arc::clone(self.key.as_ref()?));
        store.expiry().and_then(|expiry| expiry.name)
    }
}

/// Reads certificates and keys that the configuration names: those of the listeners, and those of the admin pages alone.
pub fn examine(config: &Config) -> Examined {
    let examined = match (&config.tls, config.acme.is_some()) {
        (None, _) => Examined::default(),
        (Some(files), false) => of_files(files, "tls"),
        (Some(files), true) if files.cert.exists() => of_files(files, "acme"),
        (Some(files), true) => {
            Examined { table: "acme", files: Some(files.clone()), is_awaited: true, ..Examined::default() }
        }
    };
    let of_admin = match &config.admin {
        Some(Admin { tls: AdminTls::Own(files), .. }) => Some(of_files(files, ADMIN)),
        _ => None,
    };
    let others = config.certificates.iter().map(|files| of_files(files, "tls.certificate"));
    Examined { more: of_admin.into_iter().chain(others).collect(), ..examined }
}

fn of_files(files: &TlsFiles, table: &'static str) -> Examined {
    let loaded = match cert::load(&files.cert, &files.key, clock::unix_seconds()) {
        Ok(loaded) => loaded,
        Err(error) => {
            return Examined { error: Some(error), table, files: Some(files.clone()), ..Examined::default() };
        }
    };
    let exposure = Exposure::of_file(&files.key).map(|exposure| exposure.to_string());
    let slow = slow_key(&files.key, &loaded.key);
    Examined {
        table,
        files: Some(files.clone()),
        is_awaited: false,
        more: Vec::new(),
        error: None,
        warnings: loaded.warnings,
        key_warnings: exposure.into_iter().chain(slow).collect(),
        key: Some(loaded.key),
    }
}

/// Returns the warning about a key whose signatures are slow; `None` if they are not, or if signing fails, which
/// [`cert::load`] has ruled out.
fn slow_key(path: &Path, key: &CertifiedKey) -> Option<String> {
    let (mut fastest, mut length) = (Duration::MAX, 0);
    for _ in 0..5 {
        let start = clock::monotonic_nanos();
        length = cert::sign_once(key).ok()?;
        fastest = fastest.min(Duration::from_nanos(clock::monotonic_nanos() - start));
    }
    // The length is the same in every run, unlike the time, and another machine or hour may be slower.
    let is_slow = length >= SLOW_SIGNATURE_BYTES || fastest > SLOW_SIGNATURE;
    is_slow.then(|| {
        format!(
            "{}: a signature with this key takes {:.1} ms, and each TLS handshake delays all calls for that long; use \
             an ECDSA P-256 key, which takes 0.1 ms or less",
            path.display(),
            fastest.as_secs_f64() * 1e3
        )
    })
}
