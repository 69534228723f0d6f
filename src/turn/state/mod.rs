//! What a worker holds: allocations with their relays, permissions and channels, deadlines, ports, quotas, rates.

pub mod deadline;
pub mod meter;
pub mod port_pool;
pub mod quota;
pub mod table;
