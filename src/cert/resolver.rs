//! The certificate for new handshakes. It is replaced without a lock, and running connections are unaffected.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::{self, CertError, Warning};
use super::x509::{self, Description};
use crate::base::text::clean;

/// Names that are returned at most, and the longest of them in characters.
const NAMES_MAX: usize = 8;
const NAME_MAX: usize = 100;

/// Holds one certificate.
#[derive(Debug)]
pub struct CertStore {
    current: ArcSwap<Held>,
}

#[derive(Debug)]
struct Held {
    key: Arc<CertifiedKey>,
    /// The DNS names in it, in lower case.
    names: Vec<String>,
}

impl Held {
    fn new(key: Arc<CertifiedKey>) -> Self {
        let mut names = key.cert.first().map_or_else(Vec::new, |leaf| x509::dns_names(leaf));
        names.iter_mut().for_each(|name| name.make_ascii_lowercase());
        Self { key, names }
    }
}

/// Chooses the certificate for a client: of those for the name that the client asks for, the first one with the name itself,
/// then the first one with a wildcard for it, else the default.
#[derive(Debug)]
pub struct CertChoice {
    default: Arc<CertStore>,
    others: ArcSwap<Vec<Arc<CertStore>>>,
}

impl CertChoice {
    /// Creates a choice of one certificate.
    pub fn new(default: Arc<CertStore>) -> Self {
        Self { default, others: ArcSwap::default() }
    }

    /// Offers these certificates besides the default one.
    pub fn set_others(&self, others: Vec<Arc<CertStore>>) {
        self.others.store(Arc::new(others));
    }

    /// Returns all certificates, the default one first.
    pub fn all(&self) -> Vec<Arc<CertStore>> {
        let others = self.others.load();
        [&self.default].into_iter().chain(others.iter()).map(Arc::clone).collect()
    }

    /// Whether a certificate is for this name in lower case, itself or by a wildcard.
    pub fn covers(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let covers =
            |known: &str| known == name || known.strip_prefix("*.").is_some_and(|of| Some(of) == parent);
        self.all().iter().any(|store| store.has_name(covers))
    }

    /// Returns the certificate for a name; `None` for a client without SNI.
    pub fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let others = self.others.load();
        let Some(name) = name.filter(|_| !others.is_empty()) else { return self.default.current() };
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        let exact = |known: &str| known == name;
        let wildcard = |known: &str| known.strip_prefix("*.").is_some_and(|domain| Some(domain) == parent);
        let stores = || [&self.default].into_iter().chain(others.iter());
        let found = stores().find(|store| store.has_name(exact));
        let found = found.or_else(|| stores().find(|store| store.has_name(wildcard)));
        found.unwrap_or(&self.default).current()
    }
}

impl ResolvesServerCert for CertChoice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
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
    /// The start of its validity in seconds since 1970.
    pub not_before: i64,
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
        Self { current: ArcSwap::from_pointee(Held::new(first)) }
    }

    /// Uses this certificate for handshakes that begin from now on.
    pub fn replace(&self, next: Arc<CertifiedKey>) {
        self.current.store(Arc::new(Held::new(next)));
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
        let Description { not_before, not_after, is_self_issued: is_self_signed, .. } = described;
        Some(Expiry { name, not_before, not_after, is_self_signed })
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
        Arc::clone(&self.current.load().key)
    }

    /// Returns whether one of the DNS names in the certificate is wanted.
    fn has_name(&self, is_wanted: impl Fn(&str) -> bool) -> bool {
        self.current.load().names.iter().any(|name| is_wanted(name))
    }
}

impl ResolvesServerCert for CertStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}
