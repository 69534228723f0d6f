//! The certificate of a configuration, read as the server reads it.

use std::path::Path;
use std::time::Duration;

use rustls::sign::CertifiedKey;

use crate::cert::{self, CertStore};
use crate::config::{Admin, AdminTls, Config, Exposure, Severity, TlsFiles};
use crate::system::clock;

/// A signature that takes longer delays packets noticeably. RSA keys of 3072 bits or more exceed this.
const SLOW_SIGNATURE: Duration = Duration::from_millis(1);

/// What is known about the certificate of a configuration.
#[derive(Default)]
pub struct Examined {
    /// One error that prevents its use, or any number of warnings, as lines of text.
    pub problems: Vec<(Severity, String)>,
    /// The first name in it.
    pub name: Option<String>,
}

/// Reads certificates and keys that the configuration names: those of the listeners, and those of the admin pages alone.
/// `file` is the name of the configuration in messages.
pub fn examine(config: &Config, file: &str) -> Examined {
    let mut examined =
        config.tls.as_ref().map_or_else(Examined::default, |files| of_files(files, "tls", file));
    if let Some(Admin { tls: AdminTls::Own(files), .. }) = &config.admin {
        examined.problems.extend(of_files(files, "admin", file).problems);
    }
    examined
}

fn of_files(files: &TlsFiles, table: &str, file: &str) -> Examined {
    let loaded = match cert::load(&files.cert, &files.key, clock::unix_seconds()) {
        Ok(loaded) => loaded,
        Err(error) => {
            let problems = vec![(Severity::Error, format!("{file}: error: {table}: {error}\n"))];
            return Examined { problems, name: None };
        }
    };
    let mut warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(Exposure::of_file(&files.key).map(|exposure| exposure.to_string()));
    let time = signature_time(&loaded.key);
    if time > SLOW_SIGNATURE {
        warnings.push(slow_key(&files.key, time));
    }
    let line = |warning: String| (Severity::Warning, format!("{file}: warning: {table}: {warning}\n"));
    let problems = warnings.into_iter().map(line).collect();
    Examined { problems, name: CertStore::new(loaded.key).expiry().and_then(|expiry| expiry.name) }
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
