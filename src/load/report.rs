//! The report of a run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::latency::Latency;
use super::media::Direction;

/// Packet counts by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Packets sent in the measured interval.
    pub sent: [u64; 2],
    /// Those of them that arrived.
    pub received: [u64; 2],
    /// Packets that arrived in the measured interval.
    pub delivered: u64,
}

/// Quantiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The maximum.
    pub max: f64,
}

impl Quantiles {
    /// Returns the quantiles of `latency`; `None` if it is empty.
    pub fn of(latency: &Latency) -> Option<Self> {
        Some(Self {
            p50: latency.quantile(0.5)?,
            p90: latency.quantile(0.9)?,
            p99: latency.quantile(0.99)?,
            p999: latency.quantile(0.999)?,
            max: latency.quantile(1.0)?,
        })
    }
}

/// Resource use of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// CPU time in the measured interval.
    pub cpu: Duration,
    /// Resident bytes before the run, ...
    pub rss_before: u64,
    /// ...with all allocations, ...
    pub rss_during: u64,
    /// ...and after their release.
    pub rss_after: u64,
}

/// The report of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The action.
    pub action: &'static str,
    /// The transport.
    pub transport: &'static str,
    /// The address of the server.
    pub server_address: String,
    /// Allocations at once.
    pub allocations: u64,
    /// Length of the measured interval.
    pub elapsed: Duration,
    /// Packet counts, if the action sends packets.
    pub packets: Option<Packets>,
    /// Completed cycles, Binding requests or handshakes, if the action has any.
    pub operations: Option<u64>,
    /// Latency through the relay, or duration of whole operations.
    pub latency: Option<Quantiles>,
    /// The longest delay between the due time of a packet and its sending.
    pub late: Duration,
    /// Resource use of the server, if it runs on this machine.
    pub server: Option<Server>,
    /// This process: CPU time, and the share of the elapsed time in which it was busy.
    pub generator: (Duration, f64),
    /// Errors and how often each occurred.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Returns the share of sent packets that did not arrive.
    pub fn loss(&self) -> Option<f64> {
        let packets = self.packets?;
        let (sent, received) = (packets.sent.iter().sum::<u64>(), packets.received.iter().sum::<u64>());
        (sent > 0).then(|| sent.saturating_sub(received) as f64 / sent as f64)
    }

    /// Returns the microseconds of server CPU per packet that arrived, or per operation.
    pub fn cpu_per_unit(&self) -> Option<f64> {
        let units = self.packets.map_or(self.operations, |packets| Some(packets.delivered))?;
        (units > 0).then_some(self.server?.cpu.as_secs_f64() * 1e6 / units as f64)
    }

    /// Returns the report as one JSON object.
    pub fn to_json(&self) -> String {
        let by_direction = |counts: [u64; 2]| {
            json!({
                "from_client": counts[Direction::FromClient as usize],
                "from_peer": counts[Direction::FromPeer as usize],
            })
        };
        let mut all = json!({
            "action": self.action,
            "transport": self.transport,
            "server_address": self.server_address,
            "allocations": self.allocations,
            "seconds": self.elapsed.as_secs_f64(),
            "errors": self.errors,
            "generator": { "cpu_seconds": self.generator.0.as_secs_f64(), "busy": self.generator.1 },
        });
        let mut put = |name: &str, value: Value| all[name] = value;
        if let Some(packets) = self.packets {
            let lost = [0, 1].map(|way| packets.sent[way].saturating_sub(packets.received[way]));
            put("sent", by_direction(packets.sent));
            put("received", by_direction(packets.received));
            put("lost", by_direction(lost));
            put("loss_ratio", json!(self.loss().unwrap_or(0.0)));
            put("packets_per_second", json!(self.per_second(packets.delivered)));
            put("late_ms", json!(self.late.as_secs_f64() * 1e3));
        }
        if let Some(operations) = self.operations {
            put("operations", json!(operations));
            put("operations_per_second", json!(self.per_second(operations)));
        }
        if let Some(q) = self.latency {
            let latency = json!({ "p50": q.p50, "p90": q.p90, "p99": q.p99, "p999": q.p999, "max": q.max });
            put("latency_us", latency);
        }
        if let Some(server) = self.server {
            put(
                "server",
                json!({
                    "cpu_seconds": server.cpu.as_secs_f64(),
                    "cpu_cores": server.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9),
                    "cpu_us_per_unit": self.cpu_per_unit(),
                    "rss_before": server.rss_before,
                    "rss_during": server.rss_during,
                    "rss_after": server.rss_after,
                }),
            );
        }
        format!("{all:#}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} over {} to {}", self.action, self.transport, self.server_address)?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<12} {text}");
        if self.allocations > 0 {
            line("allocations", self.allocations.to_string())?;
        }
        line("measured", format!("{:.1} s", self.elapsed.as_secs_f64()))?;
        if let Some(packets) = self.packets {
            line("delivered", format!("{:.0} packets/s", self.per_second(packets.delivered)))?;
            for (name, way) in [("to peers", 0), ("to clients", 1)] {
                let (sent, received) = (packets.sent[way], packets.received[way]);
                line(name, format!("{received} of {sent}"))?;
            }
            line("lost", format!("{:.3} %", self.loss().unwrap_or(0.0) * 100.0))?;
        }
        if let Some(operations) = self.operations {
            line("done", format!("{operations}, {:.0} a second", self.per_second(operations)))?;
        }
        if let Some(q) = self.latency {
            let text = format!(
                "{:.0} us median, {:.0} us 90 %, {:.0} us 99 %, {:.0} us 99.9 %, {:.0} us at most",
                q.p50, q.p90, q.p99, q.p999, q.max
            );
            line("latency", text)?;
        }
        if let Some(server) = self.server {
            let cores = server.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9);
            let each = self.cpu_per_unit().map_or(String::new(), |us| format!(", {us:.2} us each"));
            line("server CPU", format!("{:.0} % of a core{each}", cores * 100.0))?;
            let kib = |bytes: u64| bytes / 1024;
            let (before, during) = (server.rss_before, server.rss_during);
            let each = match self.allocations {
                0 => String::new(),
                n => format!(" ({:.2} KiB each)", during.saturating_sub(before) as f64 / n as f64 / 1024.0),
            };
            line(
                "server RSS",
                format!(
                    "{} KiB, then {} KiB{each}, then {} KiB",
                    kib(before),
                    kib(during),
                    kib(server.rss_after)
                ),
            )?;
        }
        line("generator", format!("busy {:.0} % of the time", self.generator.1 * 100.0))?;
        if self.late > Duration::from_millis(10) {
            let ms = self.late.as_millis();
            line("LATE", format!("packets were sent up to {ms} ms late: this machine was the bottleneck"))?;
        }
        for (text, count) in &self.errors {
            line("failed", format!("{count} x {text}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            action: "traffic",
            transport: "udp",
            server_address: "192.0.2.1:3479".into(),
            allocations: 4,
            elapsed: Duration::from_secs(2),
            packets: Some(Packets { sent: [600, 400], received: [599, 400], delivered: 1000 }),
            server: Some(Server {
                cpu: Duration::from_millis(5),
                rss_before: 1 << 20,
                rss_during: (1 << 20) + 4096,
                rss_after: 1 << 20,
            }),
            errors: BTreeMap::from([("Allocate: 486 Allocation Quota Reached".into(), 3)]),
            ..Report::default()
        }
    }

    #[test]
    fn json_has_plain_numbers() {
        let json: Value = serde_json::from_str(&report().to_json()).expect("JSON");
        assert_eq!(json["packets_per_second"], 500.0);
        assert_eq!(json["lost"], json!({ "from_client": 1, "from_peer": 0 }));
        assert_eq!(json["loss_ratio"], 0.001);
        assert_eq!(json["server"]["cpu_us_per_unit"], 5.0);
        assert_eq!(json["server"]["cpu_cores"], 0.0025);
        assert_eq!(json["errors"]["Allocate: 486 Allocation Quota Reached"], 3);
        assert!(json.get("operations").is_none() && json.get("latency_us").is_none());
    }

    #[test]
    fn text_has_units() {
        let text = report().to_string();
        for part in
            ["500 packets/s", "599 of 600", "0.100 %", "5.00 us each", "1.00 KiB each", "3 x Allocate: 486"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("LATE"));
    }
}
