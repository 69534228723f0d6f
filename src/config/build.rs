//! Builds a [`Config`] from the TOML document and checks each value by itself.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use toml::de::DeTable;

use super::acme::{self, acme};
use super::address::socket_address;
use super::admin::admin;
use super::certificate::{certificate_files, more_certificates};
use super::control::control;
use super::drain::drain;
use super::limits::{DEFAULT_LIFETIME_SECONDS, LIMITS, Limits};
use super::parties::{hosts, peers, users};
use super::public::public;
use super::redirect::redirect;
use super::site::site;
use super::types::*;
use super::walk::{At, Notes, Section};
use super::web::{either, proxies, quic, shared, web};
use crate::base::family::DefaultFamily;
use crate::base::transport::Transport;

/// With a longer realm the 401 to an unauthenticated request would exceed 2.5 times the size of that request.
const REALM_BYTES_MAX: usize = 52;

/// Line numbers for the checks that compare several tables.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) ports: usize,
    pub(super) relay_addresses: Vec<usize>,
}

/// Reads every table. Paths are relative to `base`.
pub(super) fn config(document: &DeTable<'_>, base: &Path, notes: &mut Notes) -> (Config, Lines) {
    let top = Section::open(document, "", 1, notes);
    let mut lines = Lines::default();
    let (tls, certificates) = tls(&top, base, notes);
    let mut config = Config {
        realm: realm(&top, notes),
        external_ip: external_ip(&top, notes),
        strict_channels: top.boolean("strict_channels", false, notes),
        icmp_to_clients: top.boolean("icmp_to_clients", false, notes),
        privacy: top.boolean("privacy", false, notes),
        listen: listeners(&top, notes),
        relay: relay(&top, &mut lines, notes),
        tls,
        certificates,
        acme: acme(&top, base, notes),
        redirect: redirect(&top, notes),
        web: web(&top, notes),
        site: site(&top, base, notes),
        hosts: hosts(&top, base, notes),
        users: users(&top, notes),
        peers: peers(&top, notes),
        limits: limits(&top, notes),
        drain: drain(&top, notes),
        log: log(&top, notes),
        admin: admin(&top, base, notes),
        control_socket: control(&top, notes),
    };
    acme::complete(&mut config, &top, notes);
    (config, lines)
}

fn realm(top: &Section<'_, '_>, notes: &mut Notes) -> String {
    let Some(At { value, line }) = top.string("realm", notes) else { return DEFAULT_REALM.to_owned() };
    const NAME: &str = "write the name of the relay: realm = \"relay.example.org\"";
    if value.is_empty() {
        notes.error(line, "realm", "the realm is empty", NAME);
    } else if value.len() > REALM_BYTES_MAX {
        notes.error(
            line,
            "realm",
            format!("the realm has {} bytes, more than {REALM_BYTES_MAX}", value.len()),
            "write a shorter one: a large response to an unauthenticated client amplifies attacks",
        );
    } else if value.chars().any(char::is_control) {
        notes.error(line, "realm", "the realm contains a control character", NAME);
    } else if looks_like_url(value) {
        notes.error(line, "realm", format!("{value:?} is a URL, and a realm is a name"), NAME);
    }
    value.to_owned()
}

/// Whether the text is a STUN, TURN or web URL, or any other URL with `://`.
fn looks_like_url(text: &str) -> bool {
    const SCHEMES: [&str; 6] = ["stun", "stuns", "turn", "turns", "http", "https"];
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    text.contains("://") || scheme.is_some_and(|scheme| SCHEMES.contains(&scheme.as_str()))
}

fn external_ip(top: &Section<'_, '_>, notes: &mut Notes) -> Vec<ExternalIp> {
    let mut entries: Vec<ExternalIp> = Vec::new();
    for At { value, line } in top.strings("external_ip", notes).unwrap_or_default() {
        let (public, private) = match value.split_once('/') {
            Some((public, private)) => (public.parse(), Some(private.parse())),
            None => (value.parse::<IpAddr>(), None),
        };
        let entry = match (public, private) {
            (Ok(public), None) => ExternalIp { public, private: None },
            (Ok(public), Some(Ok(private))) => ExternalIp { public, private: Some(private) },
            _ => {
                let remedy = "write \"203.0.113.10\", or \"203.0.113.10/10.0.0.5\" (public/private)";
                notes.error(line, "external_ip", format!("{value:?} is not an address"), remedy);
                continue;
            }
        };
        if entry.private.is_some_and(|private: IpAddr| private.is_ipv4() != entry.public.is_ipv4()) {
            notes.error(
                line,
                "external_ip",
                format!("{value:?} mixes IPv4 and IPv6"),
                "write a public and a private address of the same family",
            );
        }
        if entry.public.is_unspecified() || entry.public.is_multicast() {
            notes.error(
                line,
                "external_ip",
                format!("{} cannot be a destination", entry.public),
                "write the address that clients outside see",
            );
        }
        if entry.private.is_some_and(|private| is_private(entry.public) && !is_private(private)) {
            notes.warn(
                line,
                "external_ip",
                format!("{value:?} announces a private address in place of a public one"),
                "write the public address first: \"203.0.113.10/10.0.0.5\"",
            );
        }
        let clash = entries.iter().any(|other| {
            other.public.is_ipv4() == entry.public.is_ipv4()
                && (other.private == entry.private || other.private.is_none() || entry.private.is_none())
        });
        if clash {
            notes.error(
                line,
                "external_ip",
                "overlaps with an earlier entry of the same family",
                "write one entry per family, or add the private address to each: \"public/private\"",
            );
        }
        entries.push(entry);
    }
    entries
}

/// Whether this is an address of a private network (RFC 1918, RFC 4193).
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

fn listeners(top: &Section<'_, '_>, notes: &mut Notes) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for section in top.tables("listen", "[[listen]]", notes) {
        const TRANSPORTS: [(&str, Transport); 3] =
            [("udp", Transport::Udp), ("tcp", Transport::Tcp), ("tls", Transport::Tls)];
        let transport = section.word("transport", &TRANSPORTS, notes);
        if !section.has("transport") {
            let remedy = "write transport = \"udp\", \"tcp\" or \"tls\"";
            notes.error(section.line, "listen.transport", "no transport", remedy);
        }
        let address = socket_address(&section, "address", "\"0.0.0.0:3479\" or \"[::]:3479\"", notes);
        if !section.has("address") {
            let remedy = "write address = \"0.0.0.0:3479\" or \"[::]:3479\"";
            notes.error(section.line, "listen.address", "no address", remedy);
        }
        if let (Some(transport), Some(At { value: address, line })) = (transport, address) {
            let (proxies, web) = (proxies(&section, transport, notes), shared(&section, transport, notes));
            let (either, quic) = (either(&section, transport, notes), quic(&section, transport, notes));
            listeners.push(Listener {
                proxies,
                web,
                either,
                quic,
                public: public(&section, (transport, either), address.port(), notes),
                ..Listener::new(transport, address, line)
            });
        }
    }
    listeners
}

/// Reads `[limits]`.
fn limits(top: &Section<'_, '_>, notes: &mut Notes) -> Limits {
    let mut limits = Limits::default();
    let Some(section) = top.table("limits", "[limits]", notes) else { return limits };
    for limit in LIMITS {
        *(limit.field)(&mut limits) = section.number(limit, notes);
    }
    if let Some(exempt) = section.prefixes("connections_exempt", notes) {
        limits.connections_exempt = exempt.into_iter().map(|prefix| prefix.value).collect();
    }
    if limits.lifetime_max_seconds < DEFAULT_LIFETIME_SECONDS {
        notes.warn(
            section.line_of("lifetime_max_seconds", notes),
            "limits.lifetime_max_seconds",
            "shorter than the default lifetime that clients count on (RFC 8656 section 3.2)",
            format!("write {DEFAULT_LIFETIME_SECONDS} or more"),
        );
    }
    limits
}

fn relay(top: &Section<'_, '_>, lines: &mut Lines, notes: &mut Notes) -> Relay {
    let mut relay = Config::default().relay;
    let Some(section) = top.table("relay", "[relay]", notes) else { return relay };
    for At { value, line } in section.strings("addresses", notes).unwrap_or_default() {
        match value.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => notes.error(
                line,
                "relay.addresses",
                format!("{address} cannot be a relay address"),
                "write an address of this host, or remove relay.addresses to use those of the listeners",
            ),
            Ok(address) if relay.addresses.contains(&address) => {
                notes.error(
                    line,
                    "relay.addresses",
                    format!("{address} is listed twice"),
                    "remove one of the two",
                );
            }
            Ok(address) => {
                relay.addresses.push(address);
                lines.relay_addresses.push(line);
            }
            Err(_) => notes.error(
                line,
                "relay.addresses",
                format!("{value:?} is not an address"),
                "write \"198.51.100.10\" or \"2001:db8::10\", without a port",
            ),
        }
    }
    lines.ports = section.line_of("ports", notes);
    if let Some(At { value, line }) = section.string("ports", notes) {
        match parse_ports(value) {
            Ok(ports) => {
                if *ports.start() < 1024 {
                    notes.warn(
                        line,
                        "relay.ports",
                        "ports below 1024 belong to well-known services and need a privilege",
                        "write \"49152-65535\", or \"32769-65535\" beside a BigBlueButton host",
                    );
                }
                relay.ports = ports;
            }
            Err(remedy) => {
                notes.error(line, "relay.ports", format!("{value:?} is not a range of ports"), remedy);
            }
        }
    }
    let families =
        [("ipv4", DefaultFamily::V4), ("ipv6", DefaultFamily::V6), ("client", DefaultFamily::Client)];
    relay.default_family = section.word("default_family", &families, notes).unwrap_or_default();
    // Both words mean one UDP socket per allocation, the only mode so far: the key is checked and has no effect.
    let _: Option<()> = section.word("mode", &[("auto", ()), ("sockets", ())], notes);
    relay
}

/// Reads `[tls]`: the files of the certificate, and those of each `[[tls.certificate]]`.
fn tls(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> (Option<TlsFiles>, Vec<TlsFiles>) {
    let Some(section) = top.table("tls", "[tls]", notes) else { return (None, Vec::new()) };
    let files = certificate_files(&section, base, "for a self-signed certificate", notes);
    let accept_expired = section.boolean("accept_expired", false, notes);
    let more = more_certificates(&section, base, notes);
    let all = |files| TlsFiles { accept_expired, ..files };
    (files.map(all), more.into_iter().map(all).collect())
}

fn log(top: &Section<'_, '_>, notes: &mut Notes) -> Log {
    let default = Config::default().log;
    let Some(section) = top.table("log", "[log]", notes) else { return default };
    const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    const LEVELS: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = LEVELS.map(|level| (level.as_str(), level));
    Log {
        format: section.word("format", &FORMATS, notes).unwrap_or(default.format),
        level: section.word("level", &levels, notes).unwrap_or(default.level),
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    const SHAPE: &str = "write first and last port: \"49152-65535\"";
    let (first, last) = text.split_once('-').ok_or(SHAPE)?;
    let first: u16 = first.trim().parse().map_err(|_| SHAPE)?;
    let last: u16 = last.trim().parse().map_err(|_| SHAPE)?;
    if first == 0 {
        return Err("port 0 cannot be a relay port: start at 1024 or above");
    }
    if first > last {
        return Err("write the lower port first: \"49152-65535\"");
    }
    Ok(first..=last)
}
