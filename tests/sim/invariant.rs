//! The invariants that must hold after every step, by name.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// Until it ends, an allocation is on exactly one server and is as its client was told.
    AllocationsAgree,
    /// The ports taken in the pool are those of open relays, pending relays and reservations.
    PortsAreAccountedFor,
    /// The quota's total is the number of allocations.
    QuotaIsExact,
    /// Data is relayed if, and only if, allocation, permission and channel have not expired.
    OnlyPermittedDataIsRelayed,
    /// Data arrives unchanged.
    DataIsUnchanged,
    /// Data reaches no client or peer but its destination.
    NothingIsMisrouted,
    /// The counters match what was observed.
    CountersAgree,
    /// Actions name existing relays; each is opened at a free address and closed exactly once.
    RelaysAreOpenedAndClosedOnce,
    /// After `handle_timeout` nothing expired remains, and no deadline is in the past.
    DeadlinesAreKept,
    /// Requests with wrong passwords, expired names or stale nonces are refused.
    BadCredentialsGetNothing,
    /// Answers are well-formed, match a request and have a code that RFC 8656 allows for it.
    AnswersFitTheirRequest,
    /// After all allocations have ended, all tables are empty.
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
