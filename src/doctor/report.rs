//! The report of a run.

use std::time::Duration;

use super::check::Check;
use super::diagnosis::Diagnosis;
use super::name::Lookup;
use super::outcome::Outcome;

/// The report of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was examined on the relay itself; `None` for a test from a client's network.
    pub relay: Option<Relay>,
    /// The relays' names.
    pub lookups: Vec<Lookup>,
    /// The proxy, without user name and password.
    pub proxy: Option<String>,
    /// All rungs, on all routes.
    pub outcomes: Vec<Outcome>,
    /// What that means.
    pub diagnosis: Diagnosis,
    /// When the run began, in seconds since 1970.
    pub begun: u64,
    /// How long it took.
    pub took: Duration,
}

/// What was examined on the relay itself.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The configuration file.
    pub file: String,
    /// The subjects, in the order of the table.
    pub checks: Vec<Check>,
}
