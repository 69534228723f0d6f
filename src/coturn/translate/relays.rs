//! The addresses and ports that peers see.

use std::net::{IpAddr, SocketAddr};

use super::listeners::{Network, address};
use crate::base::transport::Transport;
use crate::coturn::options::Key;
use crate::coturn::report::Status;
use crate::coturn::values;
use crate::coturn::work::Work;

/// coturn's relay ports, and Hallpass's.
const FIRST: u16 = 49152;
const LAST: u16 = 65535;
/// With fewer ports, an installation soon runs out of them.
const FEW_PORTS: usize = 1000;

/// Translates relay addresses, announced addresses, ports and the default family.
pub(super) fn translate(work: &mut Work, network: &Network) {
    relay_addresses(work);
    external(work, network);
    ports(work);
    family(work);
    only_tcp(work);
}

fn relay_addresses(work: &mut Work) {
    for index in work.all(Key::RelayIp) {
        match address(work, index) {
            Some(ip) if ip.is_unspecified() => {
                work.idle(index, "without an address, those of the listeners are used")
            }
            Some(ip) if work.meaning.relay_addresses.contains(&ip) => work.idle(index, "listed twice"),
            Some(ip) => {
                work.kept(index, format!("relays from {ip}"));
                work.meaning.relay_addresses.push(ip);
            }
            None => {}
        }
    }
    work.from("relay.addresses", &[Key::RelayIp]);
}

/// The addresses that are announced in place of the machine's own: `PUBLIC`, or `PUBLIC/PRIVATE`.
fn external(work: &mut Work, network: &Network) {
    let mut pairs: Vec<(IpAddr, IpAddr)> = Vec::new();
    let mut single: Option<(usize, IpAddr)> = None;
    for index in work.all(Key::ExternalIp) {
        let value = work.value(index).to_vec();
        let slash = value.iter().position(|&byte| byte == b'/');
        let (public, private) = match slash {
            Some(at) => (&value[..at], Some(&value[at + 1..])),
            None => (&value[..], None),
        };
        let parsed = (values::address(public), private.map(values::address));
        let (public, private) = match parsed {
            (Ok(public), None) => (public, None),
            (Ok(public), Some(Ok(private))) => (public, Some(private)),
            (Err(values::NotAnAddress::Name), _) | (_, Some(Err(values::NotAnAddress::Name))) => {
                work.refuse_name(index);
                continue;
            }
            _ => {
                let remedy = "write 203.0.113.10, or 203.0.113.10/10.0.0.5 (public/private)";
                work.judge(
                    index,
                    Status::WithoutEffect,
                    "coturn finds no address in it and ignores the line",
                    Some(remedy.to_owned()),
                );
                continue;
            }
        };
        if public.is_unspecified()
            || public.is_multicast()
            || private.is_some_and(|private| private.is_ipv4() != public.is_ipv4())
        {
            let remedy = "write the address that clients outside see";
            work.judge(
                index,
                Status::WithoutEffect,
                "no client can reach this address",
                Some(remedy.to_owned()),
            );
            continue;
        }
        match private {
            None => match single {
                Some(_) => {
                    let remedy = "for a second address write external_ip = [\"PUBLIC/PRIVATE\", ...] with one entry for each";
                    work.judge(
                        index,
                        Status::WithoutEffect,
                        "coturn takes the first external-ip only",
                        Some(remedy.to_owned()),
                    );
                }
                None => single = Some((index, public)),
            },
            Some(private) if pairs.iter().any(|(_, other)| *other == private) => {
                work.idle(index, "coturn takes the first pair with this private address");
            }
            Some(private) => {
                work.differs(
                    index,
                    format!("announces {public} in place of {private}; coturn also opens {private} to all clients, hallpass does not"),
                    format!("if a media server has the address {private}, add it to allow in [peers] or to peers of the [[host]]"),
                );
                pairs.push((public, private));
            }
        }
    }
    let mut written: Vec<String> =
        pairs.iter().map(|(public, private)| format!("{public}/{private}")).collect();
    if let Some((index, public)) = single {
        let of_family = |ip: &IpAddr| ip.is_ipv4() == public.is_ipv4();
        if pairs.iter().any(|(_, private)| of_family(private)) {
            // A single address covers what the pairs leave, so it becomes pairs as well.
            let relays = match work.meaning.relay_addresses.is_empty() {
                true => network.addresses.clone(),
                false => work.meaning.relay_addresses.clone(),
            };
            let left: Vec<IpAddr> = relays
                .into_iter()
                .filter(|relay| of_family(relay) && !relay.is_unspecified() && !relay.is_loopback())
                .filter(|relay| !pairs.iter().any(|(_, private)| private == relay))
                .collect();
            match left.is_empty() {
                true => work.idle(index, "no relay address is left for it: the others have a pair"),
                false => work.kept(index, format!("announces {public} in place of the other addresses")),
            }
            written.extend(left.iter().map(|private| format!("{public}/{private}")));
        } else {
            work.kept(index, format!("announces {public} in place of this machine's addresses"));
            written.push(public.to_string());
        }
    }
    work.meaning.external_ip = written;
    work.from("external_ip", &[Key::ExternalIp]);
    if work.all(Key::ExternalIp).is_empty() {
        note_private(work, network);
    }
}

/// Notes a private address that is announced as it is.
fn note_private(work: &mut Work, network: &Network) {
    let relays = match work.meaning.relay_addresses.is_empty() {
        true => &network.addresses,
        false => &work.meaning.relay_addresses,
    };
    let is_private = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    };
    let Some(private) = relays.iter().find(is_private).copied() else { return };
    work.note(
        format!("clients are told the private address {private} as their relayed address, as with coturn"),
        format!("write external_ip = [\"PUBLIC/{private}\"] if a peer is on another host than the relay"),
    );
}

/// Reads the range of relay ports, and takes the listeners' ports out of it.
fn ports(work: &mut Work) {
    let bound = |work: &mut Work, key| {
        let index = work.last(key)?;
        let number = values::leading(work.value(index)).number;
        match u16::try_from(number) {
            Ok(port) if port > 0 => Some((index, port)),
            _ => {
                work.refuse_whole(index, "not a port", "write a number from 1 to 65535");
                None
            }
        }
    };
    let (first, last) = (bound(work, Key::MinPort), bound(work, Key::MaxPort));
    let range = (first.map_or(FIRST, |(_, port)| port), last.map_or(LAST, |(_, port)| port));
    let judged: Vec<usize> = [first, last].into_iter().flatten().map(|(index, _)| index).collect();
    if range.0 > range.1 {
        if let Some(index) = judged.first() {
            let message = format!("the first relay port {} is above the last one {}", range.0, range.1);
            work.refuse_whole(*index, &message, "write min-port below max-port");
            judged
                .iter()
                .skip(1)
                .for_each(|index| work.judge(*index, Status::Refused, message.clone(), None));
        }
        return;
    }
    let free = without_listeners(work, range);
    let Some((low, high)) = free else {
        work.refuse(
            "all relay ports are ports of UDP listeners",
            "write a larger range with min-port and max-port",
        );
        judged.iter().for_each(|index| work.idle(*index, "no port is left"));
        return;
    };
    let count = usize::from(high - low) + 1;
    let reason = format!("relay ports {low}-{high}: at most {count} allocations for each relay address");
    for index in &judged {
        match (low, high) == range {
            true if !values::leading(work.value(*index)).whole => {
                work.kept(*index, format!("{reason}; the number ends at the first other character"));
            }
            true => work.kept(*index, reason.clone()),
            false => work.differs(
                *index,
                format!(
                    "{reason}, without the ports of UDP listeners, from which coturn would relay as well"
                ),
                "nothing: the firewall may stay open for the others",
            ),
        }
    }
    if judged.is_empty() && (low, high) != range {
        work.note(
            format!(
                "relay ports {low}-{high} in place of {}-{}, without the ports of UDP listeners",
                range.0, range.1
            ),
            "nothing: the firewall may stay open for the others",
        );
    }
    if count < FEW_PORTS {
        work.note(
            format!("only {count} relay ports: each allocation needs one, and a browser has up to ten allocations for each call"),
            "write a wider range, such as ports = \"49152-65535\", and open it in the firewall",
        );
    }
    if !judged.is_empty() || (low, high) != range {
        work.meaning.ports = Some(low..=high);
    }
    work.from("relay.ports", &[Key::MinPort, Key::MaxPort]);
}

/// The largest part of the range that has no port of a UDP listener on a relay address.
fn without_listeners(work: &Work, (first, last): (u16, u16)) -> Option<(u16, u16)> {
    let relays = &work.meaning.relay_addresses;
    let is_shared = |address: &SocketAddr| {
        relays.is_empty() || address.ip().is_unspecified() || relays.contains(&address.ip())
    };
    let listeners = work.meaning.listen.iter().chain(&work.meaning.alternatives);
    let udp = listeners.filter(|listen| listen.transport == Transport::Udp).map(|listen| listen.address);
    let mut taken: Vec<u16> = udp.filter(is_shared).map(|address| address.port()).collect();
    taken.retain(|port| (first..=last).contains(port));
    taken.sort_unstable();
    taken.dedup();
    let mut free: Option<(u16, u16)> = None;
    let mut low = u32::from(first);
    for end in taken.iter().map(|port| u32::from(*port)).chain([u32::from(last) + 1]) {
        // Both bounds are ports again: `low` is at most `end`.
        if let (Ok(from), Ok(to)) = (u16::try_from(low), u16::try_from(end.saturating_sub(1)))
            && low < end
            && free.is_none_or(|(low, high)| to - from > high - low)
        {
            free = Some((from, to));
        }
        low = end + 1;
    }
    free
}

/// The family for clients that name none: each line sets it anew.
fn family(work: &mut Work) {
    let mut order: Vec<usize> = work.all(Key::KeepAddressFamily);
    order.extend(work.all(Key::AllocationDefaultAddressFamily));
    order.sort_unstable();
    for index in order {
        let Some(entry) = work.entries.get(&index) else { continue };
        let value = entry.value.strip_prefix(b"=").unwrap_or(&entry.value);
        let family = match entry.row.name {
            "keep-address-family" => (values::flag(value) == Some(true)).then_some("client"),
            _ => match value {
                b"ipv4" => Some("ipv4"),
                b"ipv6" => Some("ipv6"),
                b"keep" => Some("client"),
                _ => None,
            },
        };
        match family {
            Some(family) => {
                let reason = match family {
                    "client" => {
                        "clients that name no family get that of their own address; RFC 8656 says IPv4"
                    }
                    "ipv6" => "clients that name no family get IPv6; RFC 8656 says IPv4",
                    _ => "clients that name no family get IPv4, as RFC 8656 says",
                };
                work.kept(index, reason);
                work.meaning.default_family = Some(family);
            }
            None => work.idle(index, "coturn ignores this value"),
        }
    }
    work.from("relay.default_family", &[Key::KeepAddressFamily, Key::AllocationDefaultAddressFamily]);
}

/// Relaying over TCP (RFC 6062), and servers that do nothing else or nothing at all.
fn only_tcp(work: &mut Work) {
    if let Some(index) = work.set(Key::NoUdpRelay) {
        let message = "clients could only relay TCP, which is not offered";
        work.refuse_whole(index, message, "remove no-udp-relay");
    }
    let (no_tcp, tcp) = work.flag(Key::NoTcpRelay);
    if let Some(index) = tcp {
        match no_tcp {
            true => work.kept(index, "relaying TCP (RFC 6062) is never offered"),
            false => work.judge(
                index,
                Status::NotOffered,
                "relaying TCP (RFC 6062) is not offered",
                Some("nothing: WebRTC does not use it".to_owned()),
            ),
        }
    }
    if let Some(index) = work.set(Key::StunOnly) {
        work.refuse_whole(
            index,
            "this server only answers STUN; hallpass always relays for clients with credentials",
            "remove stun-only if it is to relay; otherwise keep coturn",
        );
    }
}
