//! The limits of the configuration that metrics show beside what is used of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::admin::Snapshot;
use crate::cli::serve::pressure;
use crate::config::Config;

/// The limits in use; a reload replaces them.
#[derive(Debug, Default)]
pub struct Limits {
    /// 0: no limit.
    allocations: AtomicU64,
    connections: AtomicU64,
    /// In bytes; `u64::MAX`: the machine's memory is unknown.
    memory: AtomicU64,
    /// On each address.
    ports: AtomicU64,
    /// Whether clients that ask for IPv4 get no allocation.
    lacks_ipv4: AtomicBool,
    /// Whether `[web]` names a server.
    has_web_server: AtomicBool,
}

impl Limits {
    /// Takes the limits of a configuration.
    pub fn set(&self, config: &Config) {
        self.allocations.store(config.limits.allocations_total.into(), Relaxed);
        self.connections.store(config.limits.connections_total.into(), Relaxed);
        self.memory.store(pressure::budget(config.limits.memory_mib), Relaxed);
        let web = &config.web;
        self.has_web_server.store(web.http1.is_some() || web.h2.is_some(), Relaxed);
        self.ports.store(config.relay.ports.clone().count() as u64, Relaxed);
    }

    /// Returns whether connections of a shared port go to a web server.
    pub fn has_web_server(&self) -> bool {
        self.has_web_server.load(Relaxed)
    }

    /// Returns the limit on allocations; 0: there is none.
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Relaxed)
    }

    /// Returns the limit on open streams.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Returns the number of relay ports of all addresses.
    pub fn ports(&self, addresses: usize) -> u64 {
        self.ports.load(Relaxed).saturating_mul(addresses as u64)
    }

    /// Sets whether the relay has only IPv6 addresses to relay from.
    pub fn set_lacks_ipv4(&self, lacks: bool) {
        self.lacks_ipv4.store(lacks, Relaxed);
    }

    /// Returns whether the relay has only IPv6 addresses to relay from.
    pub fn lacks_ipv4(&self) -> bool {
        self.lacks_ipv4.load(Relaxed)
    }

    /// Adds the metrics; `addresses` is the number of addresses to relay from. A limit that does not exist has none.
    pub fn collect(&self, addresses: usize, out: &mut Snapshot) {
        let allocations = self.allocations.load(Relaxed);
        if allocations > 0 {
            let help = "Limit on allocations (limits.allocations_total).";
            out.gauge("hallpass_allocations_max", help, &[], allocations as f64);
        }
        let help = "Limit on open streams (limits.connections_total).";
        out.gauge("hallpass_connections_max", help, &[], self.connections.load(Relaxed) as f64);
        let memory = self.memory.load(Relaxed);
        if memory < u64::MAX {
            let help = "Limit on resident memory (limits.memory_mib). New clients are refused from nine tenths of it on.";
            out.gauge("hallpass_memory_max_bytes", help, &[], memory as f64);
        }
        let ports = self.ports(addresses);
        let help = "Relay ports of all addresses ([relay] ports).";
        out.gauge("hallpass_relay_ports_max", help, &[], ports as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_do_not_exist_have_no_metric() {
        let (limits, mut config) = (Limits::default(), Config::default());
        config.relay.ports = 50_000..=50_099;
        config.limits.memory_mib = 100;
        let text = |config: &Config| {
            let mut out = Snapshot::default();
            limits.set(config);
            limits.collect(2, &mut out);
            out.render().expect("text")
        };
        let without = text(&config);
        for line in [
            "hallpass_connections_max 10000",
            "hallpass_memory_max_bytes 104857600",
            "hallpass_relay_ports_max 200",
        ] {
            assert!(without.contains(&format!("\n{line}\n")), "{line}: {without}");
        }
        assert!(!without.contains("allocations_max"), "{without}");
        config.limits.allocations_total = 7;
        assert!(text(&config).contains("\nhallpass_allocations_max 7\n"));
    }
}
