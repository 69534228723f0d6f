//! The certificate that handshakes get, replaced without a lock and without dropping anyone.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::{self, CertError, Warning};

/// One certificate at a time, whatever name the client asks for: clients without SNI must be served, and a
/// relay has one name.
#[derive(Debug)]
pub struct CertStore {
    current: ArcSwap<CertifiedKey>,
}

/// What reading the files again came to.
#[derive(Debug)]
pub struct Reloaded {
    /// Whether the files hold another certificate than the one that was in use.
    pub is_new: bool,
    /// What an operator should know about the certificate that is in use now.
    pub warnings: Vec<Warning>,
}

impl CertStore {
    /// A store that begins with this certificate.
    pub fn new(first: Arc<CertifiedKey>) -> Self {
        Self { current: ArcSwap::new(first) }
    }

    /// Handshakes that begin from now on get this certificate.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        self.current.store(next);
    }

    /// Reads the files again. `now`: seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with which file; the certificate in use stays.
    pub fn reload(&self, chain: &Path, key: &Path, now: u64) -> Result<Reloaded, CertError> {
        let loaded = files::load(chain, key, now)?;
        // The key is that of the first certificate: the same chain has the same key.
        let is_new = self.current().cert != loaded.key.cert;
        if is_new {
            self.replace(loaded.key);
        }
        Ok(Reloaded { is_new, warnings: loaded.warnings })
    }

    /// What a handshake would get now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
