//! The workers' counters as metrics. Read while they run: each has one writer and is a plain load here.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::drain::Progress;
use crate::admin::{Snapshot, Source};
use crate::base::host::HostId;
use crate::base::transport::Transport;
use crate::net;
use crate::net::admission::{Admission, Class};
use crate::net::counters::{CloseReason, Decision, Refusal, Stage, TlsOutcome};
use crate::system::memory;
use crate::turn::action::DropReason;
use crate::turn::counters::{Counter, Counters, ERROR_CODES, HostRung, Request};
use crate::turn::shared::Shared;

/// Everything that is counted.
pub struct Numbers {
    /// Of the protocol, one set a worker.
    pub protocol: Vec<Arc<Counters>>,
    /// Of the network side, one set a worker.
    pub network: Vec<Arc<net::counters::Counters>>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// How far a drain is.
    pub drain: Progress,
    /// What the workers share.
    pub shared: Arc<Shared>,
    /// Names of hosts by number.
    pub hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    /// Seconds since 1970 when the process began to serve.
    pub started: u64,
}

impl Source for Numbers {
    fn collect(&self, out: &mut Snapshot) {
        let version = env!("CARGO_PKG_VERSION");
        out.gauge("hallpass_build_info", "The version that runs.", &[("version", version)], 1.0);
        let started = self.started as f64;
        out.gauge(
            "hallpass_start_time_seconds",
            "When the server started, in seconds since 1970.",
            &[],
            started,
        );
        self.hosts_and_rungs(out);
        self.requests(out);
        self.stages(out);
        self.streams(out);
        self.web(out);
        let taken = self.shared.ports.taken() as f64;
        out.gauge(
            "hallpass_relay_ports_taken",
            "Relay ports held by allocations and reservations.",
            &[],
            taken,
        );
        self.capacity(out);
        self.loops(out);
    }
}

impl Numbers {
    fn sum(&self, read: impl Fn(&Counters) -> u64) -> u64 {
        self.protocol.iter().map(|counters| read(counters)).fold(0, u64::wrapping_add)
    }

    fn sum_network(&self, read: impl Fn(&net::counters::Counters) -> u64) -> u64 {
        self.network.iter().map(|counters| read(counters)).fold(0, u64::wrapping_add)
    }

    fn hosts_and_rungs(&self, out: &mut Snapshot) {
        for (number, host) in self.hosts.load().iter().enumerate() {
            let id = HostId(number as u8);
            for transport in Transport::ALL {
                let rung = [("host", &**host), ("transport", transport.name())];
                let alive = self.sum(|counters| counters.host(id, transport).allocations.get());
                out.gauge("hallpass_allocations", "Allocations alive.", &rung, alive as f64);
                let made = self.sum(|counters| counters.host(id, transport).allocated.get());
                out.counter("hallpass_allocations_total", "Allocations made.", &rung, made);
                for direction in ["from_client", "from_peer"] {
                    let flow = |counters: &Counters| {
                        let rung = counters.host(id, transport);
                        let flow =
                            if direction == "from_client" { &rung.from_client } else { &rung.from_peer };
                        (flow.packets.get(), flow.bytes.get())
                    };
                    let labels = [rung[0], rung[1], ("direction", direction)];
                    let packets = self.sum(|counters| flow(counters).0);
                    out.counter("hallpass_relayed_packets_total", "Datagrams relayed.", &labels, packets);
                    let bytes = self.sum(|counters| flow(counters).1);
                    out.counter("hallpass_relayed_bytes_total", "Payload bytes relayed.", &labels, bytes);
                }
            }
        }
        let permissions = self.sum(|counters| counters.permissions.get()) as f64;
        out.gauge("hallpass_permissions", "Permissions alive.", &[], permissions);
        let channels = self.sum(|counters| counters.channels.get()) as f64;
        out.gauge("hallpass_channels", "Channels alive.", &[], channels);
    }

    fn requests(&self, out: &mut Snapshot) {
        for transport in Transport::ALL {
            for request in Request::ALL {
                let labels = [("transport", transport.name()), ("method", request.name())];
                let asked = self.sum(|counters| counters.request(transport, request).get());
                out.counter("hallpass_requests_total", "Requests received.", &labels, asked);
            }
        }
        for transport in Transport::ALL {
            for request in Request::ALL {
                for code in ERROR_CODES {
                    let refused = self.sum(|counters| counters.error(transport, request, code).get());
                    // Most pairs of method and code never meet; the first of a pair is not to be missed by a rate.
                    let expected = matches!((request, code), (Request::Allocate, 401 | 486 | 508));
                    if refused > 0 || expected {
                        let code = code.to_string();
                        let labels =
                            [("transport", transport.name()), ("method", request.name()), ("code", &code)];
                        let help = "Error answers; the first request of every client gets a 401.";
                        out.counter("hallpass_errors_total", help, &labels, refused);
                    }
                }
            }
        }
        for &reason in DropReason::ALL {
            let dropped = self.sum(|counters| counters.dropped(reason).get());
            let help = "Messages that went no further, by reason.";
            out.counter("hallpass_drops_total", help, &[("reason", reason.name())], dropped);
        }
    }

    /// How far clients come: where the numbers fall from one stage to the next, they fail.
    fn stages(&self, out: &mut Snapshot) {
        let hosts = self.hosts.load().len();
        for transport in Transport::ALL {
            let of_hosts = |read: fn(&HostRung) -> &Counter| {
                let sum = |counters: &Counters| {
                    (0..hosts).map(|host| read(counters.host(HostId(host as u8), transport)).get()).sum()
                };
                self.sum(sum)
            };
            let streams = |read: fn(&net::counters::Streams) -> u64| {
                self.sum_network(|counters| read(counters.streams(transport)))
            };
            let first_stun = self.sum(|counters| counters.request(transport, Request::Allocate).get());
            let mut stages = vec![
                ("allocate_asked", first_stun),
                ("authenticated", self.sum(|counters| counters.authenticated(transport).get())),
                ("allocated", of_hosts(|rung| &rung.allocated)),
                ("permission", of_hosts(|rung| &rung.permitted)),
                ("data_to_peer", of_hosts(|rung| &rung.sent)),
                ("data_from_peer", of_hosts(|rung| &rung.received)),
            ];
            if transport.is_stream() {
                stages.push(("accepted", streams(|streams| streams.accepted.get())));
            }
            if transport == Transport::Tls {
                stages.push(("tls", self.sum_network(|counters| counters.tls(TlsOutcome::Done).get())));
            }
            for (stage, reached) in stages {
                let labels = [("transport", transport.name()), ("stage", stage)];
                let help = "How often a stage was reached on the way from a connection to media.";
                out.counter("hallpass_stage_total", help, &labels, reached);
            }
        }
    }

    fn streams(&self, out: &mut Snapshot) {
        for transport in [Transport::Tcp, Transport::Tls] {
            let label = [("transport", transport.name())];
            let read = |read: fn(&net::counters::Streams) -> u64| {
                self.sum_network(|counters| read(counters.streams(transport)))
            };
            let open = read(|streams| streams.open.get()) as f64;
            out.gauge("hallpass_connections", "Streams open.", &label, open);
            let accepted = read(|streams| streams.accepted.get());
            out.counter("hallpass_connections_total", "Streams accepted.", &label, accepted);
            for &refusal in Refusal::ALL {
                let refused = self.sum_network(|counters| counters.streams(transport).refused(refusal).get());
                let labels = [label[0], ("reason", refusal.name())];
                let help = "Streams closed at once, by what there was none left of.";
                out.counter("hallpass_connections_refused_total", help, &labels, refused);
            }
            let received = read(|streams| streams.received.get());
            out.counter(
                "hallpass_stream_received_bytes_total",
                "Bytes from stream clients.",
                &label,
                received,
            );
            let sent = read(|streams| streams.sent.get());
            out.counter("hallpass_stream_sent_bytes_total", "Bytes to stream clients.", &label, sent);
            let stale = read(|streams| streams.stale.get());
            out.counter("hallpass_stream_stale_total", "Media dropped for waiting too long.", &label, stale);
            for &stage in Stage::ALL {
                for &reason in CloseReason::ALL {
                    let closed =
                        self.sum_network(|counters| counters.streams(transport).closed(stage, reason).get());
                    let labels = [label[0], ("stage", stage.name()), ("reason", reason.name())];
                    let help = "Streams closed, by how far they had come and why.";
                    out.counter("hallpass_connections_closed_total", help, &labels, closed);
                }
            }
        }
        for class in Class::ALL {
            let open = f64::from(self.admission.streams_of(class));
            let help =
                "Streams open, by whom they serve: strangers, web clients, TURN clients that authenticated.";
            out.gauge("hallpass_connections_by_class", help, &[("class", class.name())], open);
        }
        for &outcome in TlsOutcome::ALL {
            let ended = self.sum_network(|counters| counters.tls(outcome).get());
            let help = "TLS handshakes by outcome; unknown_ca and bad_certificate hint at interception.";
            out.counter("hallpass_tls_handshakes_total", help, &[("outcome", outcome.name())], ended);
        }
    }

    fn web(&self, out: &mut Snapshot) {
        for &decision in Decision::ALL {
            let decided = self.sum_network(|counters| counters.decided(decision).get());
            let help = "Clients of ports shared with the web, by what they turned out to be.";
            out.counter("hallpass_shared_port_clients_total", help, &[("client", decision.name())], decided);
        }
        let down = self.sum_network(|counters| counters.back_end_down.get());
        let help = "Web clients whose web server could not be had.";
        out.counter("hallpass_web_unavailable_total", help, &[], down);
        let untrusted = self.sum_network(|counters| counters.untrusted.get());
        let help = "Connections to a listener behind a proxy that came from somebody else.";
        out.counter("hallpass_proxy_untrusted_total", help, &[], untrusted);
    }

    /// What there is of descriptors and memory, and who got none.
    fn capacity(&self, out: &mut Snapshot) {
        let (open, most) = self.admission.descriptors();
        let help = "Sockets open for clients, peers and web servers.";
        out.gauge("hallpass_descriptors", help, &[], open.into());
        let help = "How many such sockets there may be.";
        out.gauge("hallpass_descriptors_max", help, &[], most.into());
        if let Some(resident) = memory::resident() {
            out.gauge("hallpass_resident_bytes", "Memory of this process.", &[], resident as f64);
        }
        let pressure = f64::from(self.admission.pressure() as u8);
        let help = "Memory: 0 = enough, 1 = newcomers are refused, 2 = queues are cut too.";
        out.gauge("hallpass_memory_pressure", help, &[], pressure);
        for &refusal in Refusal::ALL {
            // The others are of streams alone.
            if matches!(refusal, Refusal::Descriptors | Refusal::Memory) {
                let refused = self.sum_network(|counters| counters.relays_refused(refusal).get());
                let help = "Relayed addresses that were not opened, by what there was none left of.";
                out.counter("hallpass_relays_refused_total", help, &[("reason", refusal.name())], refused);
            }
        }
        out.gauge("hallpass_clients", "Users with an allocation.", &[], self.shared.quota.users() as f64);
        let draining = f64::from(u8::from(self.drain.is_draining()));
        out.gauge("hallpass_draining", "1 while no new allocation is made.", &[], draining);
        if let Some(seconds) = self.drain.seconds_left() {
            let help = "Until a drain cuts off whoever is left.";
            out.gauge("hallpass_drain_seconds_left", help, &[], seconds as f64);
        }
    }

    fn loops(&self, out: &mut Snapshot) {
        for (number, counters) in self.network.iter().enumerate() {
            let worker = number.to_string();
            let label = [("worker", worker.as_str())];
            out.counter(
                "hallpass_worker_wakeups_total",
                "Turns of the loop.",
                &label,
                counters.wakeups.get(),
            );
            out.counter("hallpass_worker_batches_total", "Receive calls.", &label, counters.batches.get());
            let datagrams = counters.datagrams.get();
            out.counter("hallpass_worker_datagrams_total", "Datagrams received.", &label, datagrams);
            out.counter("hallpass_worker_sent_total", "Datagrams sent.", &label, counters.sent.get());
            let paused = counters.accept_paused.get();
            out.counter(
                "hallpass_worker_accept_paused_total",
                "Pauses for lack of descriptors.",
                &label,
                paused,
            );
            out.counter(
                "hallpass_worker_restarts_total",
                "Times that the worker failed and began anew.",
                &label,
                counters.restarts.get(),
            );
            out.gauge("hallpass_worker_relays", "Relay sockets open.", &label, counters.relays.get() as f64);
            out.counter(
                "hallpass_worker_icmp_total",
                "ICMP errors about peers.",
                &label,
                counters.icmp.get(),
            );
        }
    }
}
