//! The certificate for new handshakes. It is replaced without a lock, and running connections are unaffected.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::{self, CertError, Warning};
use super::x509;
use crate::base::text::clean;

/// Names that are returned at most, and the longest of them in characters.
const NAMES_MAX: usize = 8;
const NAME_MAX: usize = 100;

/// Holds one certificate, which is used for every server name: a relay has one name, and clients without SNI must be
/// served too.
#[derive(Debug)]
pub struct CertStore {
    current: ArcSwap<CertifiedKey>,
}

/// The content of the files.
#[derive(Debug)]
pub struct Examined {
    /// The certificate, if it is another than the one in use.
    pub next: Option<Arc<CertifiedKey>>,
    /// Warnings about the certificate.
    pub warnings: Vec<Warning>,
}

/// When a certificate expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first DNS name or IP address in it, if it has any.
    pub name: Option<String>,
    /// The end of its validity in seconds since 1970.
    pub not_after: i64,
    /// Whether it is signed with its own key, so that browsers refuse it.
    pub is_self_signed: bool,
}

/// A store that is set later. Until then every handshake fails.
#[derive(Debug, Default)]
pub struct DeferredStore(OnceLock<Arc<CertStore>>);

impl DeferredStore {
    /// Begins to use `store`. Later calls have no effect.
    pub fn set(&self, store: Arc<CertStore>) {
        // The server starts once.
        let _ = self.0.set(store);
    }
}

impl ResolvesServerCert for DeferredStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get().map(|store| store.current())
    }
}

impl CertStore {
    /// Creates a store with its first certificate.
    pub fn new(first: Arc<CertifiedKey>) -> Self {
        Self { current: ArcSwap::new(first) }
    }

    /// Uses this certificate for handshakes that begin from now on.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        self.current.store(next);
    }

    /// Reads the files again, but does not use them yet. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// Those of [`files::load`], and `Expired` if the files would replace a valid certificate by an expired one and
    /// `accept_expired` is not set.
    pub fn examine(
        &self,
        chain: &Path,
        key: &Path,
        now: u64,
        accept_expired: bool,
    ) -> Result<Examined, CertError> {
        let loaded = files::load(chain, key, now)?;
        let current = self.current();
        // The key belongs to the first certificate, so the same chain has the same key.
        let is_new = current.cert != loaded.key.cert;
        if is_new {
            let expired = loaded.warnings.iter().find_map(|warning| match warning {
                Warning::Expired(_, days) => Some(*days),
                _ => None,
            });
            if let Some(days) = expired
                && !accept_expired
                && !files::has_expired(&current, now)
            {
                return Err(CertError::Expired(chain.into(), days));
            }
        }
        Ok(Examined { next: is_new.then_some(loaded.key), warnings: loaded.warnings })
    }

    /// Returns the expiry of the certificate in use; `None` if it cannot be read.
    pub fn expiry(&self) -> Option<Expiry> {
        let current = self.current();
        let leaf = current.cert.first()?;
        let described = x509::describe(leaf)?;
        // A name with other characters is invalid, and must not get into a label.
        let name = described.names.into_iter().find(|name| name.bytes().all(|byte| byte.is_ascii_graphic()));
        Some(Expiry { name, not_after: described.not_after, is_self_signed: described.is_self_issued })
    }

    /// Returns the names of the certificate in use that `next` does not cover, at most eight.
    pub fn lost_names(&self, next: &CertifiedKey) -> Vec<String> {
        let described = |key: &CertifiedKey| key.cert.first().and_then(|leaf| x509::describe(leaf));
        // A self-signed one had names of this machine, and no browser accepted it.
        let before = described(&self.current()).filter(|before| !before.is_self_issued);
        let has = described(next).map(|next| next.names).unwrap_or_default();
        let covers = |wanted: &str| {
            let domain = wanted.split_once('.').map(|(_, domain)| format!("*.{domain}"));
            has.iter().any(|name| {
                name.eq_ignore_ascii_case(wanted)
                    || domain.as_ref().is_some_and(|domain| name.eq_ignore_ascii_case(domain))
            })
        };
        let lost = before.into_iter().flat_map(|before| before.names).filter(|name| !covers(name));
        lost.map(|name| clean(&name, NAME_MAX)).take(NAMES_MAX).collect()
    }

    /// Returns the certificate in use.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
