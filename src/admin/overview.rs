//! The state of the server at one moment, and what is wrong with it, for the dashboard.

use std::time::Duration;

use serde_json::{Value, json};

use super::history::{History, Reading};
use super::problems::{self, Problem, RECENT, Seen};
use super::refusals::Warning;
use super::state::{Program, Reload, State, StateSource};

const HOUR: Duration = Duration::from_secs(3600);

/// The parts that an overview is made of.
pub struct Parts<'a> {
    /// The program.
    pub program: &'a Program,
    /// Why the server is not ready.
    pub not_ready: Option<String>,
    /// The running server.
    pub source: &'a dyn StateSource,
    /// The recent past.
    pub history: &'a History,
    /// The warnings about refusals.
    pub warnings: &'a [Warning],
    /// Refusals reported since the start.
    pub refusals: u64,
}

/// Returns the overview as JSON.
pub fn json(parts: &Parts<'_>) -> Value {
    let Parts { program, not_ready, source, history, warnings, refusals } = parts;
    let (state, reading) = (source.state(), source.reading());
    let now = source.now();
    let change = |period| {
        let change = reading.as_ref().and_then(|reading| history.change(period, source.monotonic(), reading));
        change.unwrap_or_default()
    };
    let hour = history.increases(HOUR, source.monotonic());
    let seen = Seen {
        not_ready: not_ready.as_deref(),
        state: state.as_ref(),
        now,
        change: &change,
        restarts: hour.of(&["restarts"]).round() as u64,
        warnings,
    };
    let problems = problems::all(&seen);
    json!({
        "version": program.version,
        "revision": program.revision,
        "started": program.started,
        "now": now,
        "ready": not_ready.is_none(),
        "problems": problems.iter().map(Problem::json).collect::<Vec<_>>(),
        "refused_recently": problems::refused(&change(RECENT)),
        "refusals": refusals,
        "refusals_last_hour": hour.of(&["refusals_"]).round(),
        "state": state.map(|state| state.json()),
        "levels": reading.map(|reading| levels(&reading)),
    })
}

impl State {
    fn json(&self) -> Value {
        let certificate = self.certificate.as_ref().map(|certificate| {
            json!({
                "name": certificate.name,
                "not_after": certificate.not_after,
                "self_signed": certificate.is_self_signed,
            })
        });
        let reload =
            |reload: Reload| json!({ "successful": reload.is_successful, "succeeded": reload.succeeded });
        json!({
            "certificate": certificate,
            "configuration_reload": reload(self.configuration_reload),
            "certificate_reload": reload(self.certificate_reload),
            "draining": self.is_draining,
            "drain_seconds": self.drain_seconds,
            "memory_pressure": self.memory_pressure,
            "descriptors_max": self.descriptors_max,
            "relay_ports": self.relay_ports,
            "workers": self.workers,
            "hosts": self.hosts,
        })
    }
}

fn levels(reading: &Reading) -> Value {
    json!({
        "users": reading.users,
        "allocations": reading.allocations.iter().sum::<u64>(),
        "connections": reading.connections,
        "memory": reading.memory,
        "descriptors": reading.descriptors,
    })
}
