//! What a front door is made of.

use std::rc::Rc;
use std::sync::Arc;

use super::first_bytes::Web;
use crate::base::time::Now;
use crate::net::admission::Gate;
use crate::net::counters::Counters;
use crate::net::socket::StreamListener;
use crate::net::stream::tls::TlsChooser;
use crate::net::syscall::Epoll;

/// What a front door is made of.
pub struct Parts {
    /// Where sockets are registered.
    pub epoll: Rc<Epoll>,
    /// The places of this worker.
    pub gate: Arc<Gate>,
    /// The counters of this worker.
    pub counters: Arc<Counters>,
    /// Chooses the configuration of TLS clients, which are refused without it.
    pub tls: Option<Arc<dyn TlsChooser>>,
    /// Where web clients go, which are refused without it.
    pub web: Option<Arc<Web>>,
    /// The stream listeners.
    pub listeners: Vec<StreamListener>,
    /// Measures handshakes.
    pub clock: fn() -> Now,
    /// Two keys from a cryptographic random generator.
    pub keys: [[u64; 2]; 2],
}
