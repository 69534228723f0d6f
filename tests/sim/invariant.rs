//! The invariants that must hold after every step, by name.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// What a client was told about its allocation is true on exactly one server until it ends.
    ClientsAreToldTheTruth,
    /// Ports taken in the pool are those of relays, of openings and of reservations.
    PortsAreAccountedFor,
    /// The quota's total is the number of allocations.
    QuotaIsExact,
    /// Nothing is relayed without a live allocation, permission and channel; nothing is dropped with them.
    OnlyThePermittedIsRelayed,
    /// Data arrives byte by byte as it was sent.
    DataIsUnchanged,
    /// Data reaches its destination and no other client or peer.
    DataReachesTheRightOne,
    /// The counters match what was observed.
    CountersAgree,
    /// Actions name relays that exist; each is opened at one free address and closed exactly once.
    RelaysAreOpenedAndClosedOnce,
    /// After `handle_timeout` nothing expired is left, and no deadline is in the past.
    TimeIsKept,
    /// Wrong passwords, expired names and stale nonces get nothing.
    StrangersGetNothing,
    /// Answers are well-formed, fit their request and have a code that the request can get.
    AnswersFitTheirRequest,
    /// When all allocations have ended, all structures are empty.
    NothingIsLeftBehind,
}

/// A violated invariant.
#[derive(Debug)]
pub struct Broken {
    pub invariant: Invariant,
    pub detail: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.invariant, self.detail)
    }
}

pub type Checked = Result<(), Broken>;

/// Returns an error with the detail unless `holds`.
pub fn ensure(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Broken { invariant, detail: detail() }) }
}
