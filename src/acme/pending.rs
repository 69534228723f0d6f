//! The answers to the challenges of the attempt that is running.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

/// Answers that the authority may fetch now; none unless an attempt is running. They are read by all threads without a lock.
#[derive(Debug, Default)]
pub struct Pending {
    handshakes: ArcSwap<BTreeMap<String, Arc<ServerConfig>>>,
    files: ArcSwap<BTreeMap<String, String>>,
}

impl Pending {
    /// Returns the settings for a handshake of TLS-ALPN-01 with this name in lower case.
    pub fn handshake(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.handshakes.load().get(name).map(Arc::clone)
    }

    /// Returns the content of the file for a token of HTTP-01.
    pub fn file(&self, token: &str) -> Option<String> {
        self.files.load().get(token).cloned()
    }

    pub(super) fn add_handshake(&self, name: &str, config: Arc<ServerConfig>) {
        self.handshakes.rcu(|all| {
            let mut next = BTreeMap::clone(all);
            next.insert(name.to_owned(), Arc::clone(&config));
            next
        });
    }

    pub(super) fn add_file(&self, token: &str, content: &str) {
        self.files.rcu(|all| {
            let mut next = BTreeMap::clone(all);
            next.insert(token.to_owned(), content.to_owned());
            next
        });
    }

    pub(super) fn clear(&self) {
        self.handshakes.store(Arc::default());
        self.files.store(Arc::default());
    }
}
