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

impl CertStore {
    /// A store that begins with this certificate.
    pub fn new(first: Arc<CertifiedKey>) -> Self {
        Self { current: ArcSwap::new(first) }
    }

    /// Handshakes that begin from now on get this certificate.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        self.current.store(next);
    }

    /// Reads the files again; on any error the certificate in use stays. `now`: seconds since 1970.
    pub fn reload(&self, chain: &Path, key: &Path, now: u64) -> Result<Vec<Warning>, CertError> {
        let loaded = files::load(chain, key, now)?;
        self.replace(loaded.key);
        Ok(loaded.warnings)
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
