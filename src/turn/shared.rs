//! What the workers share: nonce key, relay ports, quota. Packets do not touch it, with two exceptions: a packet between two
//! of our own relayed addresses reads one bit of the port map, and a worker occasionally draws from the rate limit of a user
//! or host.

use std::sync::Arc;

use super::identity::nonce::Nonces;
use super::state::port_pool::PortPool;
use super::state::quota::Quota;

/// The state that all workers share.
#[derive(Debug)]
pub struct Shared {
    /// Makes and checks nonces; a nonce is valid on every worker.
    pub nonces: Nonces,
    /// Which relay ports are taken.
    pub ports: Arc<PortPool>,
    /// Allocations by user, by host and in all.
    pub quota: Arc<Quota>,
}

impl Shared {
    /// Fresh state. `secret` must come from the operating system's randomness.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { nonces: Nonces::new(secret), ports: Arc::default(), quota: Arc::default() }
    }
}
