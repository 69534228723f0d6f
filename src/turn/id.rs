//! Small numbers for allocations and their relays.

/// Identifies a relayed transport address of one allocation. Its number is reused once the relay is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayId(pub u32);

/// Identifies an allocation within its worker's table. Its number is reused once the allocation has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub u32);

/// Identifies a user with an allocation within its worker, until its last allocation there ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub u32);
