//! Numbers of named hosts.

/// The number of a named host, and the index of its counters. It stays the same across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u8);

/// Most hosts in a configuration.
pub const HOSTS_MAX: usize = 200;
