//! The metrics of the running server. Each counter of a worker has a single writer, so reading it is a plain load.
//!
//! `docs/metrics.md` explains each metric to the operator; a test compares it with this module.

mod certificate;
pub mod figures;
pub mod limits;
pub mod process;
mod relayed;
pub mod reload;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::drain::DrainProgress;
use crate::acme::Status;
use crate::admin::{MetricSource, Snapshot, Times};
use crate::base::host::HostId;
use crate::base::transport::Transport;
use crate::cert::CertChoice;
use crate::cli::wanted_names::WantedNames;
use crate::net;
use crate::net::admission::{Admission, Class};
use crate::net::counters::{CloseReason, Decision, Refusal, Stage, TlsOutcome, Turns};
use crate::turn::action::DropReason;
use crate::turn::counters::{Counter, Counters, ERROR_CODES, HostRung, Request};
use crate::turn::identity::refusal::Reason;
use crate::turn::shared::Shared;
use limits::Limits;
use relayed::Relayed;
use reload::Reloads;

/// Everything that the metrics are read from.
pub struct ServerMetrics {
    /// Counters of the protocol, one set per worker.
    pub protocol: Vec<Arc<Counters>>,
    /// Counters of the network side, one set per worker.
    pub network: Vec<Arc<net::counters::Counters>>,
    /// Limits on streams and descriptors, and how much of them is used.
    pub admission: Arc<Admission>,
    /// Progress of a drain.
    pub drain: DrainProgress,
    /// State that the workers share.
    pub shared: Arc<Shared>,
    /// Names of hosts by number.
    pub hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    /// The certificates in use, the default one first.
    pub certificates: Arc<CertChoice>,
    /// The renewal by `[acme]`.
    pub acme: Arc<Status>,
    /// Results of reloads.
    pub reloads: Arc<Reloads>,
    /// The limits in use.
    pub limits: Arc<Limits>,
    /// The names that the certificates must have.
    pub wanted: Arc<ArcSwap<WantedNames>>,
    /// Whether addresses of clients and peers are shown to nobody.
    pub is_private: bool,
    /// What was relayed, as read so far.
    pub relayed: Relayed,
}

impl MetricSource for ServerMetrics {
    fn collect(&self, out: &mut Snapshot) {
        certificate::collect(&self.certificates.all(), out);
        certificate::collect_acme(&self.acme.view(), out);
        self.reloads.collect(out);
        self.hosts(out);
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
        self.limits.collect(self.shared.ports.addresses(), out);
        self.capacity(out);
        self.loops(out);
        // Last, because with many hosts they may be too many, and the last ones are left out.
        self.refusals(out);
    }
}

impl ServerMetrics {
    fn sum(&self, read: impl Fn(&Counters) -> u64) -> u64 {
        self.protocol.iter().map(|counters| read(counters)).fold(0, u64::wrapping_add)
    }

    fn sum_network(&self, read: impl Fn(&net::counters::Counters) -> u64) -> u64 {
        self.network.iter().map(|counters| read(counters)).fold(0, u64::wrapping_add)
    }

    fn hosts(&self, out: &mut Snapshot) {
        for (number, host) in self.hosts.load().iter().enumerate() {
            let id = HostId(number as u8);
            for transport in Transport::ALL {
                let host_labels = [("host", &**host), ("transport", transport.name())];
                let alive = self.sum(|counters| counters.host(id, transport).allocations.get());
                out.gauge("hallpass_allocations", "Allocations that exist.", &host_labels, alive as f64);
                let made = self.sum(|counters| counters.host(id, transport).allocated.get());
                out.counter("hallpass_allocations_total", "Allocations created.", &host_labels, made);
                self.relayed.collect((id, host), transport, &self.protocol, out);
            }
        }
        let permissions = self.sum(|counters| counters.permissions.get()) as f64;
        out.gauge("hallpass_permissions", "Permissions that exist.", &[], permissions);
        let channels = self.sum(|counters| counters.channels.get()) as f64;
        out.gauge("hallpass_channels", "Channels that exist.", &[], channels);
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
                    // Most pairs of method and code never occur. The expected ones start at 0, so that Prometheus's rate()
                    // includes the first error.
                    let expected = matches!((request, code), (Request::Allocate, 401 | 486 | 508));
                    if refused > 0 || expected {
                        let code = code.to_string();
                        let labels =
                            [("transport", transport.name()), ("method", request.name()), ("code", &code)];
                        let help = "Error responses. The first request of every client gets a 401.";
                        out.counter("hallpass_errors_total", help, &labels, refused);
                    }
                }
            }
        }
        for &reason in DropReason::ALL {
            let dropped = self.sum(|counters| counters.dropped(reason).get());
            let help = "Messages dropped, by reason.";
            out.counter("hallpass_drops_total", help, &[("reason", reason.name())], dropped);
        }
    }

    /// Counts refused requests by reason. Most reasons never occur; those of wrong credentials start at 0.
    fn refusals(&self, out: &mut Snapshot) {
        let hosts = self.hosts.load();
        let known = hosts.iter().enumerate().map(|(number, host)| (Some(HostId(number as u8)), &**host));
        for (id, host) in known.chain([(None, "")]) {
            for transport in Transport::ALL {
                for (reason, &name) in Reason::NAMES.iter().enumerate() {
                    let refused = self.sum(|counters| counters.refused(id, transport, reason));
                    let expected = id.is_none() && matches!(name, "wrong_password" | "expired_name");
                    if refused > 0 || expected {
                        let labels = [("reason", name), ("host", host), ("transport", transport.name())];
                        let help = "Requests refused, by reason. first_request and expired_nonce are no failures: the client \
                            continues by itself.";
                        out.counter("hallpass_refusals_total", help, &labels, refused);
                    }
                }
            }
        }
    }

    /// Counts how often each stage was reached. A large drop from one stage to the next shows where clients fail.
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
            let allocate_requests = self.sum(|counters| counters.request(transport, Request::Allocate).get());
            let mut stages = vec![
                ("allocate_asked", allocate_requests),
                ("authenticated", self.sum(|counters| counters.authenticated(transport).get())),
                ("allocated", of_hosts(|host| &host.allocated)),
                ("permission", of_hosts(|host| &host.permitted)),
                ("data_to_peer", of_hosts(|host| &host.sent)),
                ("data_from_peer", of_hosts(|host| &host.received)),
            ];
            if transport.is_stream() {
                stages.push(("accepted", streams(|streams| streams.accepted.get())));
            }
            if transport == Transport::Tls {
                stages.push(("tls", self.sum_network(|counters| counters.tls(TlsOutcome::Done).get())));
            }
            for (stage, reached) in stages {
                let labels = [("transport", transport.name()), ("stage", stage)];
                let help = "How often each stage between connection and media was reached.";
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
            out.gauge("hallpass_connections", "Open streams.", &label, open);
            let accepted = read(|streams| streams.accepted.get());
            out.counter("hallpass_connections_total", "Streams accepted.", &label, accepted);
            for &refusal in Refusal::ALL.iter().filter(|&&refusal| refusal != Refusal::Address) {
                let refused = self.sum_network(|counters| counters.streams(transport).refused(refusal).get());
                let labels = [label[0], ("reason", refusal.name())];
                let help = "Streams refused, by exhausted resource.";
                out.counter("hallpass_connections_refused_total", help, &labels, refused);
            }
            let received = read(|streams| streams.received.get());
            out.counter(
                "hallpass_stream_received_bytes_total",
                "Bytes received from stream clients.",
                &label,
                received,
            );
            let sent = read(|streams| streams.sent.get());
            out.counter("hallpass_stream_sent_bytes_total", "Bytes sent to stream clients.", &label, sent);
            let stale = read(|streams| streams.stale.get());
            out.counter(
                "hallpass_stream_stale_total",
                "Media dropped because it waited too long for the client; also in hallpass_drops_total.",
                &label,
                stale,
            );
            for &stage in Stage::ALL {
                for &reason in CloseReason::ALL {
                    let closed =
                        self.sum_network(|counters| counters.streams(transport).closed(stage, reason).get());
                    let labels = [label[0], ("stage", stage.name()), ("reason", reason.name())];
                    let help = "Streams closed, by stage and reason.";
                    out.counter("hallpass_connections_closed_total", help, &labels, closed);
                }
            }
        }
        for class in Class::ALL {
            let open = f64::from(self.admission.streams_of(class));
            let help = "Open streams by class: unauthenticated, web, authenticated TURN clients.";
            out.gauge("hallpass_connections_by_class", help, &[("class", class.name())], open);
        }
        for &outcome in TlsOutcome::ALL {
            let ended = self.sum_network(|counters| counters.tls(outcome).get());
            let help = "TLS handshakes by outcome. unknown_ca and bad_certificate are signs of interception.";
            out.counter("hallpass_tls_handshakes_total", help, &[("outcome", outcome.name())], ended);
        }
    }

    fn web(&self, out: &mut Snapshot) {
        for &decision in Decision::ALL {
            let decided = self.sum_network(|counters| counters.decided(decision).get());
            let help = "Clients of ports shared with the web, by detected protocol.";
            out.counter("hallpass_shared_port_clients_total", help, &[("client", decision.name())], decided);
        }
        let down = self.sum_network(|counters| counters.back_end_down.get());
        let help = "Web clients whose back end was unreachable.";
        out.counter("hallpass_web_unavailable_total", help, &[], down);
        let untrusted = self.sum_network(|counters| counters.untrusted.get());
        let help = "Connections closed because they did not come from the proxy of their listener.";
        out.counter("hallpass_proxy_untrusted_total", help, &[], untrusted);
    }

    /// Adds the use of descriptors and memory, refusals for lack of them, and the drain.
    fn capacity(&self, out: &mut Snapshot) {
        let (open, most) = self.admission.descriptors();
        let help = "Sockets open for clients, peers and web servers.";
        out.gauge("hallpass_descriptors", help, &[], open.into());
        let help = "Limit on sockets for clients, peers and web servers.";
        out.gauge("hallpass_descriptors_max", help, &[], most.into());
        let pressure = f64::from(self.admission.pressure() as u8);
        let help = "Memory pressure: 0 none, 1 new clients are refused, 2 queues are cut too.";
        out.gauge("hallpass_memory_pressure", help, &[], pressure);
        for &refusal in Refusal::ALL {
            // The other reasons apply to streams only.
            if matches!(refusal, Refusal::Descriptors | Refusal::Memory | Refusal::Address) {
                let refused = self.sum_network(|counters| counters.relays_refused(refusal).get());
                let help = "Relayed addresses that could not be opened, by reason.";
                out.counter("hallpass_relays_refused_total", help, &[("reason", refusal.name())], refused);
            }
        }
        out.gauge(
            "hallpass_clients",
            "Users with at least one allocation.",
            &[],
            self.shared.quota.users() as f64,
        );
        let draining = f64::from(u8::from(self.drain.is_draining()));
        out.gauge("hallpass_draining", "1 while new allocations are refused.", &[], draining);
        if let Some(seconds) = self.drain.seconds_left() {
            let help = "Seconds until the drain closes remaining clients.";
            out.gauge("hallpass_drain_left_seconds", help, &[], seconds as f64);
        }
    }

    fn loops(&self, out: &mut Snapshot) {
        for (number, counters) in self.network.iter().enumerate() {
            let worker = number.to_string();
            let label = [("worker", worker.as_str())];
            out.counter(
                "hallpass_worker_wakeups_total",
                "Iterations of the event loop.",
                &label,
                counters.wakeups.get(),
            );
            let help = "Time of an iteration of the event loop, from waking up until all work is done.";
            out.histogram("hallpass_worker_turn_seconds", help, &label, times(&counters.turns));
            out.counter("hallpass_worker_batches_total", "Receive calls.", &label, counters.batches.get());
            let datagrams = counters.datagrams.get();
            out.counter("hallpass_worker_datagrams_total", "Datagrams received.", &label, datagrams);
            out.counter("hallpass_worker_sent_total", "Datagrams sent.", &label, counters.sent.get());
            let paused = counters.accept_paused.get();
            out.counter(
                "hallpass_worker_accept_paused_total",
                "Pauses in accepting for lack of descriptors.",
                &label,
                paused,
            );
            out.counter(
                "hallpass_worker_restarts_total",
                "Restarts of the worker after a failure.",
                &label,
                counters.restarts.get(),
            );
            out.gauge("hallpass_worker_relays", "Open relay sockets.", &label, counters.relays.get() as f64);
            out.counter(
                "hallpass_worker_icmp_total",
                "ICMP errors received from peers.",
                &label,
                counters.icmp.get(),
            );
        }
    }
}

fn times(turns: &Turns) -> Times {
    let buckets = turns.cumulative().to_vec();
    // Read once, so that the count is never below the last bucket.
    let count = buckets.last().map_or(0, |(_, count)| *count) + turns.longer();
    Times { buckets, count, sum: turns.total() }
}
