//! Payload relayed, by host, transport and direction.
//!
//! A worker counts a datagram when it decides to relay it, and subtracts it if it could not be sent. A scrape in between reads
//! too much, and the next one may read less, which Prometheus takes for a restart of the server. So the highest value read so
//! far is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::admin::Snapshot;
use crate::base::host::{HOSTS_MAX, HostId};
use crate::base::transport::Transport;
use crate::turn::counters::{Counters, Flow, HostRung};

/// Reads one direction.
type Read = fn(&HostRung) -> &Flow;

/// The directions, with their labels.
const DIRECTIONS: [(&str, Read); 2] =
    [("from_client", |rung| &rung.from_client), ("from_peer", |rung| &rung.from_peer)];

/// The highest values read so far.
#[derive(Debug)]
pub struct Relayed(Vec<[[Highest; DIRECTIONS.len()]; Transport::ALL.len()]>);

#[derive(Debug, Default)]
struct Highest {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Default for Relayed {
    fn default() -> Self {
        Self((0..HOSTS_MAX).map(|_| Default::default()).collect())
    }
}

impl Relayed {
    /// Adds what the workers have relayed for one host over one transport.
    pub fn collect(
        &self,
        (id, host): (HostId, &str),
        transport: Transport,
        workers: &[Arc<Counters>],
        out: &mut Snapshot,
    ) {
        let Some(highest) = self.0.get(usize::from(id.0)).map(|host| &host[transport.index()]) else {
            return;
        };
        for ((direction, flow), highest) in DIRECTIONS.into_iter().zip(highest) {
            let labels = [("host", host), ("transport", transport.name()), ("direction", direction)];
            let sum = |read: fn(&Flow) -> u64| {
                workers
                    .iter()
                    .map(|counters| read(flow(counters.host(id, transport))))
                    .fold(0, u64::wrapping_add)
            };
            let packets = at_least(&highest.packets, sum(|flow| flow.packets.get()));
            out.counter("hallpass_relayed_packets_total", "Datagrams relayed and sent.", &labels, packets);
            let bytes = at_least(&highest.bytes, sum(|flow| flow.bytes.get()));
            out.counter("hallpass_relayed_bytes_total", "Payload bytes relayed and sent.", &labels, bytes);
        }
    }
}

/// Returns `read`, or the highest value read before if that is higher.
fn at_least(highest: &AtomicU64, read: u64) -> u64 {
    highest.fetch_max(read, Relaxed).max(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::action::Traffic;

    #[test]
    fn a_counter_never_falls() {
        let (relayed, workers) = (Relayed::default(), [Arc::<Counters>::default(), Arc::default()]);
        let flow = |worker: usize| &workers[worker].host(HostId(3), Transport::Tls).from_peer;
        let scrape = || {
            let mut out = Snapshot::default();
            relayed.collect((HostId(3), "ping"), Transport::Tls, &workers, &mut out);
            let text = out.render().expect("text");
            let labels = "{host=\"ping\",transport=\"tls\",direction=\"from_peer\"}";
            ["packets", "bytes"].map(|unit| {
                let name = format!("hallpass_relayed_{unit}_total{labels} ");
                let value = text.lines().find_map(|line| line.strip_prefix(&name));
                value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_else(|| panic!("{name}: {text}"))
            })
        };
        flow(0).add(100);
        flow(1).add(50);
        assert_eq!(scrape(), [2, 150]);
        flow(1).take_back(Traffic { packets: 1, bytes: 50 });
        assert_eq!(scrape(), [2, 150], "read before it was subtracted");
        flow(1).add(70);
        assert_eq!(scrape(), [2, 170]);
    }
}
