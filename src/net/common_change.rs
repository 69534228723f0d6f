//! A change of the listeners, as far as it is the same for every worker.

use std::net::SocketAddr;
use std::sync::Arc;

use super::settings::Listener;

/// A change of the listeners that is the same for every worker.
#[derive(Clone, Debug, Default)]
pub struct CommonChange {
    /// The new settings of listeners that stay. Address and family do not change.
    pub updated: Vec<Listener>,
    /// TCP_MAXSEG of all stream listeners; 0: the kernel's default.
    pub mss: Option<u16>,
    /// Stream listeners to close. Their connections stay.
    pub closed_streams: Vec<SocketAddr>,
    /// UDP listeners that serve only clients with an allocation from now on. The handle is held while there are any.
    pub removed: Vec<(SocketAddr, Arc<()>)>,
    /// Removed UDP listeners that serve all clients again.
    pub revived: Vec<SocketAddr>,
    /// Removed UDP listeners to close.
    pub closed: Vec<SocketAddr>,
}
