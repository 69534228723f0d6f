//! Checks that concern several tables.

use std::net::IpAddr;

use super::build::Lines;
use super::types::{Config, ExternalIp};
use super::walk::{Notes, Section};
use crate::base::browser_ports::{GOOD_PORTS, browsers_use};
use crate::base::transport::Transport;

/// Checks the tables of a configuration against each other. Each table has been checked by itself.
pub(super) fn check(config: &Config, lines: &Lines, top: &Section<'_, '_>, notes: &mut Notes) {
    listeners(config, top, notes);
    relay_ports(config, lines, notes);
    relay_addresses(config, lines, top, notes);
    super::web::check(config, top, notes);
    super::redirect::check(config, notes);
    super::site::cross_check(config, top, notes);
    if !top.has("host") && !top.has("user") {
        notes.missing(
            "host",
            "no client can use this relay",
            "write a [[host]] with name and secret for each server that issues credentials",
        );
    }
}

fn listeners(config: &Config, top: &Section<'_, '_>, notes: &mut Notes) {
    if !top.has("listen") {
        notes.missing(
            "listen",
            "no listener",
            "write [[listen]] with transport = \"udp\" and address = \"0.0.0.0:3479\"",
        );
    }
    for (number, listener) in config.listen.iter().enumerate() {
        let first = config.listen.iter().take(number).find(|first| {
            first.address == listener.address
                && (first.transport == Transport::Udp) == (listener.transport == Transport::Udp)
        });
        if let Some(first) = first {
            let remedy = if first.transport == listener.transport {
                "remove one of the two"
            } else {
                "TLS is TCP underneath: give one of the two another port"
            };
            let message = format!("{} is already the listener on line {}", listener.address, first.line);
            notes.error(listener.line, "listen.address", message, remedy);
        }
        let is_public =
            listener.proxies.is_empty() && !listener.address.ip().is_loopback() && listener.public.is_none();
        if is_public && !browsers_use(listener.address.port()) {
            notes.warn(
                listener.line,
                "listen.address",
                format!("browsers refuse TURN servers on port {}", listener.address.port()),
                GOOD_PORTS,
            );
        }
        let admin = config.admin.as_ref().map(|admin| admin.address);
        if admin == Some(listener.address) && listener.transport != Transport::Udp {
            let message = format!("{} is also the admin address", listener.address);
            notes.error(listener.line, "listen.address", message, "give one of the two another port");
        }
    }
    let tls = config.listen.iter().find(|listener| listener.transport == Transport::Tls);
    match tls {
        Some(listener) if !top.has("tls") && !top.has("acme") => notes.warn(
            listener.line,
            "tls",
            "no certificate: the server uses a self-signed one, which browsers refuse",
            "write [tls] with cert and key, or [acme] with domains",
        ),
        // A TCP listener serves TLS clients too, unless it says `tls = false`.
        None if config.tls.is_some() && !config.listen.iter().any(|listener| listener.either) => notes.warn(
            top.line_of(if config.acme.is_some() { "acme" } else { "tls" }, notes),
            if config.acme.is_some() { "acme" } else { "tls" },
            "there is a certificate, but no listener uses it",
            "add a [[listen]] with transport = \"tls\", or remove the table",
        ),
        _ => {}
    }
}

/// Refuses relay ports that a UDP listener uses: an allocation on such a port would receive the listener's packets.
fn relay_ports(config: &Config, lines: &Lines, notes: &mut Notes) {
    let udp = config.listen.iter().filter(|listener| listener.transport == Transport::Udp);
    for listener in udp {
        let ip = listener.address.ip();
        let shared = config.relay.addresses.is_empty()
            || ip.is_unspecified() && config.relay.addresses.iter().any(|relay| reaches(ip, *relay))
            || config.relay.addresses.contains(&ip);
        let port = listener.address.port();
        if shared && config.relay.ports.contains(&port) {
            let (first, last) = (*config.relay.ports.start(), *config.relay.ports.end());
            let remedy = if last - port >= port - first {
                format!(
                    "write ports = \"{}-{last}\", or give the listener another port",
                    port.saturating_add(1)
                )
            } else {
                format!("write ports = \"{first}-{}\", or give the listener another port", port - 1)
            };
            let message = format!(
                "{first}-{last} contains port {port} of the UDP listener on line {}, on the same address",
                listener.line
            );
            // Without a [relay] table the range is the default, so the line to change is the listener's.
            let line = if lines.ports == 0 { listener.line } else { lines.ports };
            notes.error(line, "relay.ports", message, remedy);
        }
    }
}

/// Whether a listener on the unspecified address receives packets for `relay`. One on `[::]` may serve IPv4 too.
fn reaches(unspecified: IpAddr, relay: IpAddr) -> bool {
    unspecified.is_ipv6() || relay.is_ipv4()
}

/// Warns about an `external_ip` that translates no relay address.
fn relay_addresses(config: &Config, lines: &Lines, top: &Section<'_, '_>, notes: &mut Notes) {
    if config.relay.addresses.is_empty() {
        return;
    }
    let without_relay = |entry: &&ExternalIp| match entry.private {
        Some(private) => !config.relay.addresses.contains(&private),
        None => !config.relay.addresses.iter().any(|relay| relay.is_ipv4() == entry.public.is_ipv4()),
    };
    if let Some(entry) = config.external_ip.iter().find(without_relay) {
        let line = top.line_of("external_ip", notes);
        let remedy = match (entry.private, lines.relay_addresses.first()) {
            (Some(private), Some(line)) => format!("add \"{private}\" to relay.addresses (line {line})"),
            _ => "add this host's address of that family to relay.addresses".to_owned(),
        };
        let message = format!("{} matches no address in relay.addresses", entry.public);
        notes.warn(line, "external_ip", message, remedy);
    }
}
