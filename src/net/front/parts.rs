//! The parts of a front door.

use std::rc::Rc;
use std::sync::Arc;

use super::first_bytes::Web;
use crate::base::time::Now;
use crate::net::admission::Gate;
use crate::net::counters::Counters;
use crate::net::socket::StreamListener;
use crate::net::stream::tls::TlsChooser;
use crate::net::syscall::Epoll;

/// The parts of a front door.
pub struct Parts {
    /// The epoll set of the worker.
    pub epoll: Rc<Epoll>,
    /// The limits of this worker.
    pub gate: Arc<Gate>,
    /// The counters of this worker.
    pub counters: Arc<Counters>,
    /// Chooses the configuration of TLS clients, which are refused without it.
    pub tls: Option<Arc<dyn TlsChooser>>,
    /// The back ends of web clients, which are refused without it.
    pub web: Option<Arc<Web>>,
    /// The stream listeners.
    pub listeners: Vec<StreamListener>,
    /// The clock that measures handshakes.
    pub clock: fn() -> Now,
    /// Two keys from a cryptographic random generator, for the limits of handshakes and the tables of QUIC flows.
    pub keys: [[u64; 2]; 2],
}
