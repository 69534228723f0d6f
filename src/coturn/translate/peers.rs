//! Allowed and denied peers.

use ipnet::IpNet;

use crate::coturn::meaning::Meaning;
use crate::coturn::options::Key;
use crate::coturn::peers::{NoRange, Policy, as_meant, is_mapped, policy, range, stays_closed};
use crate::coturn::report::Status;
use crate::coturn::work::Work;

/// Translates the lists of peers.
pub(super) fn translate(work: &mut Work) {
    let loopback = work.set(Key::AllowLoopbackPeers);
    if let Some(index) = loopback {
        work.differs(
            index,
            "opens loopback, where services of this machine trust local clients",
            "remove 127.0.0.0/8 and ::1/128 from allow in [peers] unless the media server listens there",
        );
    }
    let loopback = loopback.is_some();
    let allowed = allowed(work, loopback);
    let denied = denied(work, &allowed);
    work.meaning.policy = policy(&allowed, &denied, loopback);
    let Policy { only_allowed, closed, allow, .. } = &work.meaning.policy;
    let (only_allowed, has_allow) = (*only_allowed, !allow.is_empty());
    if !closed.is_empty() {
        let all: Vec<String> = closed.iter().map(|net| format!("\"{net}\"")).collect();
        work.note(
            format!("coturn lets clients reach peers in private networks ({}); here they are denied", all.join(", ").replace('"', "")),
            format!(
                "if the media server has a private address, write it into [peers]: allow = [\"10.0.0.20\"]; everything that coturn \
                 leaves open would be allow = [{}]",
                all.join(", ")
            ),
        );
        work.note(
            "coturn also lets clients reach link-local, carrier-grade NAT and other special ranges, and multicast unless it is \
             switched off; here they are denied",
            "nothing, unless a media server has such an address: then add it to allow in [peers]",
        );
    }
    if has_allow && !only_allowed && work.all(Key::DeniedPeerIp).is_empty() {
        work.note(
            "an allow list alone restricts nothing, in coturn and here: every other public address is open as well",
            "to open these addresses only, write them as peers of the [[host]]",
        );
    }
    own_addresses(work, &denied);
    work.from("peers", &[Key::AllowedPeerIp, Key::DeniedPeerIp, Key::AllowLoopbackPeers]);
}

/// Notes that clients reach each other's relayed addresses in spite of a denied range.
fn own_addresses(work: &mut Work, denied: &[IpNet]) {
    if work.meaning.policy.only_allowed {
        return;
    }
    let Meaning { relay_addresses, listen, .. } = &work.meaning;
    let listen = listen.iter().map(|listen| listen.address.ip()).filter(|_| relay_addresses.is_empty());
    let mut own = relay_addresses.iter().copied().chain(listen).filter(|ip| !ip.is_unspecified());
    let Some(own) = own.find(|ip| denied.iter().any(|range| range.contains(ip))) else { return };
    work.note(
        format!(
            "denied-peer-ip covers the relay's own address {own}: other programs there are denied as in coturn, but clients of \
             the relay still reach each other's relayed addresses"
        ),
        "to deny these as well, write the media servers as peers of the [[host]]",
    );
}

fn allowed(work: &mut Work, loopback: bool) -> Vec<IpNet> {
    let mut allowed = Vec::new();
    for index in work.all(Key::AllowedPeerIp) {
        match range(work.value(index), true) {
            Ok(range) => {
                let closed = range.prefixes.iter().filter(|prefix| stays_closed(prefix, loopback)).count();
                match (closed, range.difference) {
                    (0, None) => work.kept(index, "allowed, even inside a denied range"),
                    (0, Some(difference)) => work.kept(index, format!("allowed; {difference}")),
                    (some, _) if some == range.prefixes.len() => work.idle(
                        index,
                        "loopback, multicast, 0.0.0.0/8 and IPv4 inside IPv6 stay closed, in coturn as well",
                    ),
                    _ => work.differs(
                        index,
                        "allowed without loopback, multicast, 0.0.0.0/8 and IPv4 inside IPv6",
                        "nothing: coturn closes most of them, too",
                    ),
                }
                allowed.extend(range.prefixes);
            }
            Err(NoRange::Name) => work.refuse_name(index),
            Err(NoRange::Lost) => {
                // Taking it would open what coturn refuses.
                let remedy =
                    "to open it, write the prefix into allow in [peers] or into peers of the [[host]]";
                let reason =
                    "coturn does not understand it and ignores the line, so these peers are not allowed";
                work.judge(index, Status::WithoutEffect, reason, Some(remedy.to_owned()));
            }
            Err(NoRange::Empty) => work.idle(index, "an empty range: no address is in it"),
        }
    }
    allowed
}

fn denied(work: &mut Work, allowed: &[IpNet]) -> Vec<IpNet> {
    let mut denied = Vec::new();
    for index in work.all(Key::DeniedPeerIp) {
        let (prefixes, difference, is_lost) = match range(work.value(index), false) {
            Ok(range) => (range.prefixes, range.difference, false),
            Err(NoRange::Name) => {
                work.refuse_name(index);
                continue;
            }
            Err(NoRange::Empty) => {
                work.idle(index, "an empty range: no address is in it");
                continue;
            }
            Err(NoRange::Lost) => (as_meant(work.value(index)), None, true),
        };
        let beaten = |prefix: &IpNet| allowed.iter().any(|allow| allow.contains(prefix));
        if prefixes.is_empty() {
            let remedy = "write FIRST-LAST or one address; in [peers], a prefix";
            work.judge(
                index,
                Status::WithoutEffect,
                "coturn does not understand it and ignores the line",
                Some(remedy.to_owned()),
            );
        } else if is_lost {
            let reason = "coturn does not understand it, ignores the line and leaves these peers open; here they are denied as meant";
            work.differs(
                index,
                reason,
                "nothing, unless clients use these peers: then remove it from deny in [peers]",
            );
        } else if prefixes.iter().all(is_mapped) {
            work.kept(index, "IPv4 addresses inside IPv6 are judged as IPv4");
        } else if prefixes.iter().all(beaten) {
            work.idle(index, "allowed-peer-ip covers it, and in coturn allowed beats denied");
        } else {
            work.kept(
                index,
                difference.map_or("denied".to_owned(), |difference| format!("denied; {difference}")),
            );
        }
        denied.extend(prefixes);
    }
    denied
}
