//! Hosts, by number.

/// A number for a named host that stays the same across reloads; the index of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u8);

/// Hosts that a configuration may name.
pub const HOSTS_MAX: usize = 200;
