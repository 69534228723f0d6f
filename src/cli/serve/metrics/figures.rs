//! The figures and the state that the dashboard shows, from the same counters as the metrics.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ServerMetrics;
use crate::admin::history::{DROPS, Detail, REFUSALS, Reading, SLOW_TURNS, Work};
use crate::admin::state::{Certificate, Limit, Misnamed, Reload, Renewal, State};
use crate::base::host::HostId;
use crate::base::text::clean;
use crate::base::transport::Transport;
use crate::cert::{self, CertStore, describe};
use crate::net;
use crate::net::counters::{Decision, LastAddress, Refusal, TlsOutcome, Turns};
use crate::system::{clock, memory};
use crate::turn::action::DropReason;
use crate::turn::counters::{Flow, HostRung};
use crate::turn::identity::refusal::Reason;

/// Longest list of names in certificates, in characters.
const NAMES_MAX: usize = 200;

/// Returns the figures of this moment.
pub fn reading(metrics: &ServerMetrics) -> Reading {
    let mut reading = Reading::default();
    let hosts = metrics.hosts.load().len();
    let ids = || (0..hosts).map(|number| HostId(number as u8));
    for (at, transport) in Transport::ALL.into_iter().enumerate() {
        for counters in &metrics.protocol {
            for rung in ids().map(|id| counters.host(id, transport)) {
                for (direction, flow) in [&rung.from_client, &rung.from_peer].into_iter().enumerate() {
                    add(&mut reading.bytes[at][direction], flow.bytes.get());
                    add(&mut reading.packets[at][direction], flow.packets.get());
                }
                add(&mut reading.allocations[at], rung.allocations.get());
                add(&mut reading.allocated, rung.allocated.get());
                add(&mut reading.tested, rung.tested.get());
            }
            for (reason, name) in Reason::NAMES.iter().enumerate() {
                let Some(kind) = kind_of_refusal(name) else { continue };
                for id in ids().map(Some).chain([None]) {
                    add(&mut reading.refusals[kind], counters.refused(id, transport, reason));
                }
            }
        }
    }
    for &reason in DropReason::ALL {
        let dropped = metrics.sum(|counters| counters.dropped(reason).get());
        add(&mut reading.drops[kind_of_drop(reason)], dropped);
        match reason {
            DropReason::SendFailed => add(&mut reading.unsent, dropped),
            DropReason::NoRoute => add(&mut reading.no_route, dropped),
            _ => {}
        }
    }
    for counters in &metrics.network {
        for (class, turns) in slow_turns(&counters.turns).into_iter().enumerate() {
            add(&mut reading.slow_turns[class], turns);
        }
    }
    reading.users = metrics.shared.quota.users() as u64;
    reading.cpu = clock::process_cpu();
    reading.memory = memory::resident().unwrap_or(0);
    reading.descriptors = metrics.admission.descriptors().0.into();
    reading.connections = metrics.admission.streams().into();
    reading.web_unavailable = metrics.sum_network(|counters| counters.back_end_down.get());
    let web = [Decision::Http1, Decision::H2, Decision::Site];
    reading.web_clients = metrics.sum_network(|counters| {
        web.iter().map(|&one| counters.decided(one).get()).fold(0, u64::wrapping_add)
    });
    reading.untrusted = metrics.sum_network(|counters| counters.untrusted.get());
    reading.restarts = metrics.sum_network(|counters| counters.restarts.get());
    reading.detail = detail(metrics);
    reading
}

/// Returns the counters by host, reason and worker.
fn detail(metrics: &ServerMetrics) -> Detail {
    let hosts = metrics.hosts.load().len();
    let ids = || (0..hosts).map(|number| HostId(number as u8));
    let of_host = |id: HostId| {
        Transport::ALL.map(|transport| {
            let flows: [fn(&HostRung) -> &Flow; 2] = [|rung| &rung.from_client, |rung| &rung.from_peer];
            flows.map(|flow| metrics.sum(|counters| flow(counters.host(id, transport)).packets.get()))
        })
    };
    let reasons = Reason::NAMES.iter().enumerate().filter_map(|(reason, &name)| {
        let kind = kind_of_refusal(name)?;
        let all =
            ids().map(Some).chain([None]).flat_map(|id| Transport::ALL.map(|transport| (id, transport)));
        let refused =
            all.map(|(id, transport)| metrics.sum(|counters| counters.refused(id, transport, reason)));
        Some((name, kind, refused.fold(0, u64::wrapping_add)))
    });
    let tls = |outcome| metrics.sum_network(|counters| counters.tls(outcome).get());
    let lacks = Refusal::ALL.iter().map(|&refusal| {
        let streams = [Transport::Tcp, Transport::Tls].map(|transport| {
            metrics.sum_network(|counters| counters.streams(transport).refused(refusal).get())
        });
        let relays = match refusal {
            // The other reasons apply to streams only.
            Refusal::Descriptors | Refusal::Memory | Refusal::Address => {
                metrics.sum_network(|counters| counters.relays_refused(refusal).get())
            }
            _ => 0,
        };
        (refusal.name(), streams.into_iter().fold(relays, u64::wrapping_add))
    });
    let work = |counters: &Arc<net::counters::Counters>| {
        let cumulative = counters.turns.cumulative();
        let turns = cumulative.last().map_or(0, |(_, count)| *count) + counters.turns.longer();
        Work { busy: counters.turns.total(), turns, gaps: slow_turns(&counters.turns)[SLOW_TURNS.len() - 1] }
    };
    Detail {
        hosts: ids().map(of_host).collect(),
        reasons: reasons.collect(),
        handshakes: TlsOutcome::ALL.iter().map(|&outcome| tls(outcome)).fold(0, u64::wrapping_add),
        distrusted: tls(TlsOutcome::UnknownCa).wrapping_add(tls(TlsOutcome::BadCertificate)),
        lacks: lacks.collect(),
        workers: metrics.network.iter().map(work).collect(),
    }
}

/// Returns the limits, with what is used of them. Memory has a rule of its own.
fn limits(metrics: &ServerMetrics) -> Vec<Limit> {
    let (open, most) = metrics.admission.descriptors();
    let allocations = metrics.sum(|counters| {
        let rungs = Transport::ALL.into_iter();
        let hosts = metrics.hosts.load().len();
        let all = rungs.flat_map(|transport| (0..hosts).map(move |host| (HostId(host as u8), transport)));
        all.map(|(id, transport)| counters.host(id, transport).allocations.get()).fold(0, u64::wrapping_add)
    });
    let limit = |name, used, limit, next_step| Limit { name, used, limit, next_step };
    let (ports, all) = (&metrics.shared.ports, &metrics.limits);
    vec![
        limit("descriptors", open.into(), most.into(), "raise LimitNOFILE= in the unit and restart"),
        limit(
            "relay ports",
            ports.taken() as u64,
            all.ports(ports.addresses()),
            "widen [relay] ports, or add an address",
        ),
        limit("allocations", allocations, all.allocations(), "raise limits.allocations_total"),
        limit(
            "connections",
            metrics.admission.streams().into(),
            all.connections(),
            "raise limits.connections_total",
        ),
    ]
}

/// Returns the rest of the state.
pub fn state(metrics: &ServerMetrics) -> State {
    let reload = |(successful, succeeded): (f64, f64)| Reload {
        is_successful: successful > 0.0,
        succeeded: succeeded as u64,
    };
    let acme = metrics.acme.view();
    let all = metrics.certificates.all();
    let is_tls_used = metrics.wanted.load().is_tls_used;
    let mut certificates =
        all.iter().filter_map(|certificate| certificate.expiry()).map(|expiry| Certificate {
            name: expiry.name.unwrap_or_else(|| "the server".to_owned()),
            not_after: expiry.not_after,
            soon: cert::files::expires_soon(expiry.not_before, expiry.not_after),
            // Without a listener for TLS, nobody sees it.
            is_self_signed: expiry.is_self_signed && is_tls_used,
        });
    State {
        misnamed: misnamed(metrics, &all),
        certificate: certificates.next(),
        more_certificates: certificates.collect(),
        renewal: acme.is_on.then_some(Renewal {
            next: acme.next,
            is_limited: acme.is_limited,
            error: acme.error,
        }),
        configuration_reload: reload(metrics.reloads.configuration.values()),
        certificate_reload: reload(metrics.reloads.certificate.values()),
        is_draining: metrics.drain.is_draining(),
        drain_seconds: metrics.drain.seconds_left(),
        memory_pressure: metrics.admission.pressure() as u8,
        descriptors_max: metrics.admission.descriptors().1.into(),
        relay_ports: metrics.shared.ports.taken() as u64,
        workers: metrics.protocol.len(),
        limits: limits(metrics),
        has_web_server: metrics.limits.has_web_server(),
        lacks_ipv4: metrics.limits.lacks_ipv4(),
        no_route_to: last(metrics, |counters| &counters.no_route_to),
        untrusted_from: last(metrics, |counters| &counters.untrusted_from),
        hosts: metrics.hosts.load().iter().map(|name| name.to_string()).collect(),
    }
}

/// Returns a name that the configuration has and no certificate, and the names that they have. One that is self-signed is a problem
/// of its own.
fn misnamed(metrics: &ServerMetrics, all: &[Arc<CertStore>]) -> Option<Misnamed> {
    let mut names = Vec::new();
    for store in all {
        let of_one = describe(store.current().cert.first()?)?;
        if of_one.is_self_issued {
            return None;
        }
        names.extend(of_one.names);
    }
    let wanted = metrics.wanted.load();
    let missing = wanted.missing(&names)?.to_owned();
    Some(Misnamed { missing, names: clean(&names.join(", "), NAMES_MAX) })
}

/// Returns the address of the last event of a worker; with `privacy`, none.
fn last(metrics: &ServerMetrics, of: fn(&net::counters::Counters) -> &LastAddress) -> Option<IpAddr> {
    let known = metrics.network.iter().find_map(|counters| of(counters).get());
    known.filter(|_| !metrics.is_private)
}

/// Returns the number of turns in each class of [`SLOW_TURNS`].
fn slow_turns(turns: &Turns) -> [u64; SLOW_TURNS.len()] {
    let cumulative = turns.cumulative();
    let all = cumulative.last().map_or(0, |(_, count)| *count).wrapping_add(turns.longer());
    let longer = SLOW_TURNS.map(|millis| {
        let bound = Duration::from_millis(millis);
        let up_to = cumulative.iter().find(|(at, _)| *at == bound).map_or(0, |(_, count)| *count);
        all.wrapping_sub(up_to)
    });
    std::array::from_fn(|class| longer[class].wrapping_sub(longer.get(class + 1).copied().unwrap_or(0)))
}

/// Adds without a panic: what could not be sent is subtracted, and one of the parts may be a little below zero meanwhile.
fn add(sum: &mut u64, value: u64) {
    *sum = sum.wrapping_add(value);
}

/// Returns the position in [`REFUSALS`] of a reason; `None` if the client continues by itself.
fn kind_of_refusal(reason: &str) -> Option<usize> {
    let kind = match reason {
        _ if Reason::CONTINUES.contains(&reason) => return None,
        "wrong_password"
        | "other_password"
        | "far_expiry"
        | "expired_name"
        | "lifetime_name"
        | "malformed_name"
        | "unknown_user"
        | "unknown_realm"
        | "malformed_credentials" => "credentials",
        "peer_denied" | "withdrawn" | "peer_family" | "allocation_family" => "peers",
        "user_allocations" | "few_ports" | "host_allocations" | "total_allocations" | "permissions"
        | "channels" | "user_permissions" => "limits",
        "memory" | "no_port" | "no_socket" | "no_address" => "capacity",
        "rate_limited" => "rate",
        _ => "other",
    };
    REFUSALS.iter().position(|&known| known == kind)
}

/// Returns the position in [`DROPS`] of a reason.
fn kind_of_drop(reason: DropReason) -> usize {
    use DropReason as Drop;
    let kind = match reason {
        Drop::NotTurn
        | Drop::MalformedStun
        | Drop::MalformedChannelData
        | Drop::Unsolicited
        | Drop::MalformedIndication
        | Drop::UnknownMethod
        | Drop::QuicRefused
        | Drop::TooLarge => "malformed",
        Drop::NoAllocation
        | Drop::NoPermission
        | Drop::NoChannel
        | Drop::PeerDenied
        | Drop::NoFamily
        | Drop::NoRelay => "not_permitted",
        Drop::Throttled
        | Drop::SearchDeferred
        | Drop::RequestsOverRate
        | Drop::Backlog
        | Drop::Amplification => "throttled",
        Drop::AllocationOverRate | Drop::UserOverRate | Drop::HostOverRate => "over_rate",
        Drop::QueueFull
        | Drop::Stale
        | Drop::ConnectionClosed
        | Drop::ReceiveFull
        | Drop::SendFailed
        | Drop::NoRoute
        | Drop::SendBacklog => "undelivered",
    };
    DROPS.iter().position(|&known| known == kind).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_turns_are_divided_into_classes() {
        let turns = Turns::default();
        for millis in [1, 5, 6, 10, 11, 12, 50, 51, 300, 400, 500] {
            turns.add(Duration::from_millis(millis));
        }
        assert_eq!(slow_turns(&turns), [2, 3, 4]);
    }

    #[test]
    fn every_kind_has_a_reason() {
        let refusals: Vec<_> = Reason::NAMES.iter().filter_map(|name| kind_of_refusal(name)).collect();
        assert_eq!(refusals.len(), Reason::NAMES.len() - 3);
        assert!((0..REFUSALS.len()).all(|kind| refusals.contains(&kind)), "{refusals:?}");
        let drops: Vec<_> = DropReason::ALL.iter().map(|&reason| kind_of_drop(reason)).collect();
        assert!((0..DROPS.len()).all(|kind| drops.contains(&kind)), "{drops:?}");
    }
}
