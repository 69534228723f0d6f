//! Numbers of named hosts.

/// The number of a named host, and the index of its counters. It stays the same across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u8);

/// The most hosts that a configuration may have.
pub const HOSTS_MAX: usize = 200;
