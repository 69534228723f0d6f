//! One reading of `/metrics`: the numbers that the screen needs.

use std::collections::BTreeMap;

use super::exposition::{Sample, samples};
use crate::base::text::clean;
use crate::base::time::Instant;

/// Longest name from the server, in characters. Names of hosts and reasons are shorter.
const NAME_MAX: usize = 64;

/// Refusals after which the client continues by itself.
pub const HARMLESS: [&str; 3] = ["first_request", "expired_nonce", "alternate"];

/// A host and a transport.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung {
    /// The name of the `[[host]]`.
    pub host: String,
    /// `udp`, `tcp` or `tls`.
    pub transport: String,
}

/// Relayed payload, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Datagrams.
    pub packets: u64,
    /// Payload bytes.
    pub bytes: u64,
}

/// The sessions of one rung and what they relayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Sessions that exist.
    pub sessions: u64,
    /// Sessions created.
    pub created: u64,
    /// From clients to peers.
    pub from_client: Flow,
    /// From peers to clients.
    pub from_peer: Flow,
}

/// The turns of one worker's loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worker {
    /// Bounds in seconds, ascending, with the number of turns up to each.
    pub buckets: Vec<(f64, u64)>,
    /// The time of all turns, in seconds.
    pub busy: f64,
    /// Datagrams received.
    pub datagrams: u64,
    /// Restarts after a failure.
    pub restarts: u64,
}

/// Use of a resource and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// What is used.
    pub used: f64,
    /// The limit; `None` if there is none, or if the server does not tell it.
    pub limit: Option<f64>,
}

/// The numbers of one answer. Absent series are zero or empty: a server that starts has few.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When it was read.
    pub at: Instant,
    /// The version of the server.
    pub version: String,
    /// Whether clients can be served.
    pub ready: bool,
    /// When the process started, in seconds since 1970.
    pub started: u64,
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Users with a session.
    pub users: u64,
    /// Sessions and traffic.
    pub rungs: BTreeMap<Rung, Carried>,
    /// Refused requests by reason.
    pub refusals: BTreeMap<(String, Rung), u64>,
    /// Dropped messages by reason.
    pub drops: BTreeMap<String, u64>,
    /// Workers by number.
    pub workers: BTreeMap<u64, Worker>,
    /// Sockets.
    pub descriptors: Use,
    /// Resident bytes.
    pub memory: Use,
    /// Relay ports.
    pub ports: Use,
    /// Allocations.
    pub allocations: Use,
    /// TCP and TLS connections.
    pub connections: Use,
    /// Whether new allocations are refused.
    pub draining: bool,
}

impl Reading {
    /// Reads an answer that arrived at `at`. Returns `None` if it is not from a Hallpass server.
    pub fn of(text: &str, at: Instant) -> Option<Self> {
        let mut reading = Self { at, ..Self::default() };
        samples(text).for_each(|sample| reading.take(&sample));
        (!reading.version.is_empty()).then_some(reading)
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let label = |name: &str| clean(sample.label(name), NAME_MAX);
        match sample.name {
            "hallpass_build_info" => self.version = label("version"),
            "hallpass_ready" => self.ready = sample.value > 0.0,
            "process_start_time_seconds" => self.started = sample.count(),
            "process_cpu_seconds_total" => self.cpu = sample.value,
            "process_resident_memory_bytes" => self.memory.used = sample.value,
            "hallpass_memory_max_bytes" => self.memory.limit = Some(sample.value),
            "hallpass_descriptors" => self.descriptors.used = sample.value,
            "hallpass_descriptors_max" => self.descriptors.limit = Some(sample.value),
            "hallpass_relay_ports_taken" => self.ports.used = sample.value,
            "hallpass_relay_ports_max" => self.ports.limit = Some(sample.value),
            "hallpass_connections" => self.connections.used += sample.value,
            "hallpass_connections_max" => self.connections.limit = Some(sample.value),
            "hallpass_allocations" => {
                self.allocations.used += sample.value;
                self.rung(sample).sessions += sample.count();
            }
            "hallpass_allocations_max" => self.allocations.limit = Some(sample.value),
            "hallpass_allocations_total" => self.rung(sample).created += sample.count(),
            "hallpass_relayed_packets_total" => self.flow(sample, |flow| &mut flow.packets),
            "hallpass_relayed_bytes_total" => self.flow(sample, |flow| &mut flow.bytes),
            "hallpass_clients" => self.users = sample.count(),
            "hallpass_refusals_total" => {
                let key = (label("reason"), Rung { host: label("host"), transport: label("transport") });
                *self.refusals.entry(key).or_default() += sample.count();
            }
            "hallpass_drops_total" => add(&mut self.drops, label("reason"), sample),
            "hallpass_draining" => self.draining = sample.value > 0.0,
            name => self.take_worker(name, sample),
        }
    }

    fn take_worker(&mut self, name: &str, sample: &Sample<'_>) {
        let Some(of_worker) = name.strip_prefix("hallpass_worker_") else { return };
        let Ok(number) = sample.label("worker").parse() else { return };
        let worker = self.workers.entry(number).or_default();
        match of_worker {
            "turn_seconds_bucket" => {
                if let Ok(bound) = sample.label("le").parse::<f64>()
                    && worker.buckets.last().is_none_or(|&(last, _)| last < bound)
                {
                    worker.buckets.push((bound, sample.count()));
                }
            }
            "turn_seconds_sum" => worker.busy = sample.value,
            "datagrams_total" => worker.datagrams = sample.count(),
            "restarts_total" => worker.restarts = sample.count(),
            _ => {}
        }
    }

    fn rung(&mut self, sample: &Sample<'_>) -> &mut Carried {
        let label = |name: &str| clean(sample.label(name), NAME_MAX);
        self.rungs.entry(Rung { host: label("host"), transport: label("transport") }).or_default()
    }

    fn flow(&mut self, sample: &Sample<'_>, number: fn(&mut Flow) -> &mut u64) {
        let rung = self.rung(sample);
        let flow = match sample.label("direction") {
            "from_client" => &mut rung.from_client,
            "from_peer" => &mut rung.from_peer,
            _ => return,
        };
        *number(flow) += sample.count();
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: String, sample: &Sample<'_>) {
    *counts.entry(name).or_default() += sample.count();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::identity::refusal::Reason;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_found_by_name_and_labels() {
        let text = "\
hallpass_build_info{version=\"1.2\"} 1
hallpass_allocations{host=\"ping\",transport=\"udp\"} 3
hallpass_allocations{host=\"ping\",transport=\"tls\"} 4
hallpass_relayed_bytes_total{host=\"ping\",transport=\"udp\",direction=\"from_peer\"} 5000
hallpass_relayed_bytes_total{host=\"ping\",transport=\"udp\",direction=\"sideways\"} 7
hallpass_worker_turn_seconds_bucket{worker=\"1\",le=\"0.1\"} 8
hallpass_worker_turn_seconds_bucket{worker=\"1\",le=\"+Inf\"} 9
hallpass_worker_turn_seconds_sum{worker=\"1\"} 0.5
hallpass_from_the_future 12
";
        let reading = Reading::of(text, Instant::default()).expect("a server");
        assert_eq!(
            (reading.version.as_str(), reading.allocations.used, reading.allocations.limit),
            ("1.2", 7.0, None)
        );
        let udp = Rung { host: "ping".into(), transport: "udp".into() };
        assert_eq!((reading.rungs[&udp].sessions, reading.rungs[&udp].from_peer.bytes), (3, 5000));
        assert_eq!((reading.rungs[&udp].from_client, reading.workers[&1].busy), (Flow::default(), 0.5));
        assert_eq!(reading.workers[&1].buckets, [(0.1, 8), (f64::INFINITY, 9)]);
        assert_eq!(Reading::of("node_load1 0.4\n", Instant::default()), None, "another program");
    }

    #[test]
    fn harmless_reasons_exist() {
        assert!(HARMLESS.iter().all(|reason| Reason::NAMES.contains(reason)));
    }

    proptest! {
        /// No name of a host can contain a character that controls a terminal.
        #[test]
        fn names_are_cleaned(host in any::<String>()) {
            let escaped = host.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            let text = format!("hallpass_build_info{{version=\"{escaped}v\"}} 1\nhallpass_allocations{{host=\"{escaped}\"}} 1\n");
            let reading = Reading::of(&text, Instant::default()).expect("a server");
            let rung = reading.rungs.keys().next().expect("a rung");
            prop_assert!(!rung.host.chars().any(crate::base::text::is_hidden));
            prop_assert!(!reading.version.chars().any(crate::base::text::is_hidden));
        }
    }
}
