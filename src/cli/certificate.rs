//! The certificate of a configuration, read as the server reads it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use crate::cert::{self, CertError, CertStore};
use crate::config::{Config, Exposure, Severity};
use crate::system::clock;

/// A signature that takes longer delays packets noticeably. RSA keys of 3072 bits or more exceed this.
const SLOW_SIGNATURE: Duration = Duration::from_millis(1);

/// What is known about the certificate of a configuration.
#[derive(Default)]
pub struct Examined {
    /// Why the files cannot be used.
    pub error: Option<CertError>,
    /// What is wrong with the certificate, although it can be used.
    pub warnings: Vec<cert::Warning>,
    /// What is wrong with the key, although it can be used.
    pub key_warnings: Vec<String>,
    /// The certificate and its key; `None` without files and after an error.
    pub key: Option<Arc<CertifiedKey>>,
}

impl Examined {
    /// The problems as lines of text: one error that prevents the use of the files, or any number of warnings. `file` is the
    /// name of the configuration.
    pub fn lines(&self, file: &str) -> Vec<(Severity, String)> {
        let errors = self.error.iter().map(|error| (Severity::Error, error.to_string()));
        let warnings = self.warnings.iter().map(ToString::to_string).chain(self.key_warnings.iter().cloned());
        let all = errors.chain(warnings.map(|warning| (Severity::Warning, warning)));
        all.map(|(severity, text)| {
            let word = if severity == Severity::Error { "error" } else { "warning" };
            (severity, format!("{file}: {word}: tls: {text}\n"))
        })
        .collect()
    }

    /// The first name in the certificate.
    pub fn name(&self) -> Option<String> {
        let store = CertStore::new(Arc::clone(self.key.as_ref()?));
        store.expiry().and_then(|expiry| expiry.name)
    }
}

/// Reads the certificate and the key, if the configuration names any.
pub fn examine(config: &Config) -> Examined {
    let Some(files) = &config.tls else { return Examined::default() };
    let loaded = match cert::load(&files.cert, &files.key, clock::unix_seconds()) {
        Ok(loaded) => loaded,
        Err(error) => return Examined { error: Some(error), ..Examined::default() },
    };
    let exposure = Exposure::of_file(&files.key).map(|exposure| exposure.to_string());
    let time = signature_time(&loaded.key);
    let slow = (time > SLOW_SIGNATURE).then(|| slow_key(&files.key, time));
    Examined {
        error: None,
        warnings: loaded.warnings,
        key_warnings: exposure.into_iter().chain(slow).collect(),
        key: Some(loaded.key),
    }
}

/// Returns the median time of a few signatures; zero if signing fails, which [`cert::load`] has ruled out.
fn signature_time(key: &CertifiedKey) -> Duration {
    let mut times = [(); 5].map(|()| {
        let start = clock::monotonic_nanos();
        let signed = cert::sign_once(key);
        let took = clock::monotonic_nanos() - start;
        signed.map_or(Duration::ZERO, |()| Duration::from_nanos(took))
    });
    times.sort_unstable();
    times[times.len() / 2]
}

/// Formats the warning about a key whose signatures are slow.
fn slow_key(path: &Path, time: Duration) -> String {
    format!(
        "{}: a signature with this key takes {:.1} ms, and each TLS handshake delays all calls for that long; use \
         an ECDSA P-256 key, which takes 0.1 ms or less",
        path.display(),
        time.as_secs_f64() * 1e3
    )
}
