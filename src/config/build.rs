//! From tables to a [`Config`]: each table's values, checked one by one.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use toml::de::DeTable;

use super::drain::drain;
use super::parties::{hosts, peers, users};
use super::types::*;
use super::walk::{At, Notes, Section};
use super::web::{either, is_host_name, proxies, quic, shared, web};
use crate::base::transport::Transport;

/// A longer realm makes the unauthenticated 401 exceed 2.5 times the request that provoked it.
const REALM_BYTES_MAX: usize = 52;

/// Where the things stand that later checks compare.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) ports: usize,
    pub(super) relay_addresses: Vec<usize>,
}

pub(super) fn config(document: &DeTable<'_>, base: &Path, notes: &mut Notes) -> (Config, Lines) {
    let top = Section::open(document, "", 1, notes);
    let mut lines = Lines::default();
    let config = Config {
        realm: realm(&top, notes),
        external_ip: external_ip(&top, notes),
        strict_channels: top.boolean("strict_channels", false, notes),
        icmp_to_clients: top.boolean("icmp_to_clients", false, notes),
        privacy: top.boolean("privacy", false, notes),
        listen: listeners(&top, notes),
        relay: relay(&top, &mut lines, notes),
        tls: tls(&top, base, notes),
        web: web(&top, notes),
        hosts: hosts(&top, base, notes),
        users: users(&top, notes),
        peers: peers(&top, notes),
        limits: limits(&top, notes),
        drain: drain(&top, notes),
        log: log(&top, notes),
        admin: admin(&top, notes),
        fallback_to_ipv4: false,
    };
    (config, lines)
}

fn realm(top: &Section<'_, '_>, notes: &mut Notes) -> String {
    let Some(At { value, line }) = top.string("realm", notes) else { return DEFAULT_REALM.to_owned() };
    const NAME: &str = "write the relay's own name: realm = \"relay.example.org\"";
    if value.is_empty() {
        notes.error(line, "realm", "the realm is empty", NAME);
    } else if value.len() > REALM_BYTES_MAX {
        notes.error(
            line,
            "realm",
            format!("the realm has {} bytes, more than {REALM_BYTES_MAX}", value.len()),
            "write a shorter one: a long realm makes the first answer to a stranger an amplifier",
        );
    } else if value.chars().any(char::is_control) {
        notes.error(line, "realm", "the realm contains a control character", NAME);
    }
    value.to_owned()
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
                "write public and private address of one family",
            );
        }
        if entry.public.is_unspecified() || entry.public.is_multicast() {
            notes.error(
                line,
                "external_ip",
                format!("nobody can send to {}", entry.public),
                "write the address that the outside world sees",
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
                "a second entry for the same addresses",
                "write one entry a family, or say of each which private address it is for: \"public/private\"",
            );
        }
        entries.push(entry);
    }
    entries
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
                ..Listener::new(transport, address, line)
            });
        }
    }
    listeners
}

fn relay(top: &Section<'_, '_>, lines: &mut Lines, notes: &mut Notes) -> Relay {
    let mut relay = Config::default().relay;
    let Some(section) = top.table("relay", "[relay]", notes) else { return relay };
    for At { value, line } in section.strings("addresses", notes).unwrap_or_default() {
        match value.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => notes.error(
                line,
                "relay.addresses",
                format!("{address} is no address to relay from"),
                "write this host's own address, or leave relay.addresses out to use the listening ones",
            ),
            Ok(address) if relay.addresses.contains(&address) => {
                notes.error(
                    line,
                    "relay.addresses",
                    format!("{address} stands twice"),
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
                        "ports below 1024 are those of well-known services and need a privilege",
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
    // Both mean one UDP socket for each allocation, the only mode there is: the key is checked and decides nothing.
    let _: Option<()> = section.word("mode", &[("auto", ()), ("sockets", ())], notes);
    relay
}

fn tls(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Option<TlsFiles> {
    let section = top.table("tls", "[tls]", notes)?;
    let mut file = |key: &str| {
        let At { value, line } = section.string(key, notes)?;
        if value.is_empty() {
            notes.error(line, &section.key(key), "the path is empty", format!("write the path of the {key}"));
            return None;
        }
        Some(base.join(value))
    };
    let (cert, key) = (file("cert"), file("key"));
    for (present, absent) in [("cert", "key"), ("key", "cert")] {
        if section.has(present) && !section.has(absent) {
            notes.error(
                section.line_of(present, notes),
                &section.key(absent),
                format!("tls.{present} stands alone"),
                format!("write tls.{absent} too, or remove both for a self-made certificate"),
            );
        }
    }
    Some(TlsFiles { cert: cert?, key: key? })
}

fn limits(top: &Section<'_, '_>, notes: &mut Notes) -> Limits {
    let defaults = Limits::default();
    let Some(section) = top.table("limits", "[limits]", notes) else { return defaults };
    let none = Some("no limit");
    let bound = |key, default, notes: &mut Notes| section.number(key, 1..=u32::MAX, none, default, notes);
    let limits = Limits {
        allocations_per_user: bound("allocations_per_user", defaults.allocations_per_user, notes),
        allocations_per_host: bound("allocations_per_host", defaults.allocations_per_host, notes),
        allocations_total: bound("allocations_total", defaults.allocations_total, notes),
        unauthenticated_per_source: section.number(
            "unauthenticated_per_source",
            1..=10_000_000,
            none,
            defaults.unauthenticated_per_source,
            notes,
        ),
        requests_per_user: bound("requests_per_user", defaults.requests_per_user, notes),
        kbit_per_allocation: bound("kbit_per_allocation", defaults.kbit_per_allocation, notes),
        packets_per_allocation: bound("packets_per_allocation", defaults.packets_per_allocation, notes),
        kbit_per_user: bound("kbit_per_user", defaults.kbit_per_user, notes),
        packets_per_user: bound("packets_per_user", defaults.packets_per_user, notes),
        kbit_per_host: bound("kbit_per_host", defaults.kbit_per_host, notes),
        packets_per_host: bound("packets_per_host", defaults.packets_per_host, notes),
        mss: section.number("mss", 536..=8960, Some("the kernel's choice"), defaults.mss, notes),
        workers: section.number("workers", 1..=256, Some("one per core"), defaults.workers, notes),
        permissions_per_allocation: section.number(
            "permissions_per_allocation",
            1..=100_000,
            None,
            defaults.permissions_per_allocation,
            notes,
        ),
        // 0x4000 to 0x7FFF are all there are.
        channels_per_allocation: section.number(
            "channels_per_allocation",
            1..=16_384,
            None,
            defaults.channels_per_allocation,
            notes,
        ),
        permissions_per_user: bound("permissions_per_user", defaults.permissions_per_user, notes),
        connections_total: section.number(
            "connections_total",
            1..=1_000_000,
            None,
            defaults.connections_total,
            notes,
        ),
        connections_per_source: bound("connections_per_source", defaults.connections_per_source, notes),
        connections_exempt: section
            .prefixes("connections_exempt", notes)
            .map_or(defaults.connections_exempt, |exempt| exempt.into_iter().map(|net| net.value).collect()),
        memory_mib: section.number(
            "memory_mib",
            64..=u32::MAX,
            Some("three quarters of what there is"),
            defaults.memory_mib,
            notes,
        ),
        lifetime_max_seconds: section.number(
            "lifetime_max_seconds",
            1..=86_400,
            None,
            defaults.lifetime_max_seconds,
            notes,
        ),
        drain_seconds: section.number(
            "drain_seconds",
            1..=86_400,
            Some("no waiting"),
            defaults.drain_seconds,
            notes,
        ),
    };
    if limits.lifetime_max_seconds < 600 {
        notes.warn(
            section.line_of("lifetime_max_seconds", notes),
            "limits.lifetime_max_seconds",
            "shorter than the default lifetime that clients count on (RFC 8656 section 3.2)",
            "write 600 or more",
        );
    }
    limits
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

fn admin(top: &Section<'_, '_>, notes: &mut Notes) -> Option<Admin> {
    let section = top.table("admin", "[admin]", notes)?;
    let names = admin_names(&section, notes);
    if !section.has("address") {
        return Some(Admin { names, ..Admin::default() });
    }
    let At { value: address, line } = socket_address(&section, "address", "\"127.0.0.1:9641\"", notes)?;
    if !address.ip().is_loopback() {
        notes.warn(
            line,
            "admin.address",
            format!("{address} is not loopback, and there is no password on it"),
            "write \"127.0.0.1:9641\", or let a firewall admit your monitoring only",
        );
    }
    Some(Admin { address, names })
}

fn admin_names(section: &Section<'_, '_>, notes: &mut Notes) -> Vec<String> {
    let mut names = Vec::new();
    for At { value, line } in section.strings("names", notes).unwrap_or_default() {
        if is_host_name(value) {
            names.push(value.to_ascii_lowercase());
        } else {
            let remedy = "write the name alone: \"relay.example.org\"; IP addresses need no entry";
            notes.error(line, "admin.names", format!("{value:?} is not a host name"), remedy);
        }
    }
    names
}

/// An address with a port under `key`; port 0 is refused.
pub(super) fn socket_address(
    section: &Section<'_, '_>,
    key: &str,
    example: &str,
    notes: &mut Notes,
) -> Option<At<SocketAddr>> {
    let At { value, line } = section.string(key, notes)?;
    let key = section.key(key);
    parse_address(At { value, line }, &key, example, notes)
}

/// The same of a value that is there.
pub(super) fn parse_address(
    At { value, line }: At<&str>,
    key: &str,
    example: &str,
    notes: &mut Notes,
) -> Option<At<SocketAddr>> {
    let Ok(address) = value.parse::<SocketAddr>() else {
        let remedy = format!("write address and port, names are not looked up: {example}");
        notes.error(line, key, format!("{value:?} is not an address with a port"), remedy);
        return None;
    };
    if address.port() == 0 {
        notes.error(line, key, "port 0 is no port that anybody could know", format!("write {example}"));
        return None;
    }
    if address.ip().is_multicast() {
        notes.error(
            line,
            key,
            format!("{} is a multicast address", address.ip()),
            format!("write {example}"),
        );
        return None;
    }
    Some(At { value: address, line })
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    const SHAPE: &str = "write first and last port: \"49152-65535\"";
    let (first, last) = text.split_once('-').ok_or(SHAPE)?;
    let first: u16 = first.trim().parse().map_err(|_| SHAPE)?;
    let last: u16 = last.trim().parse().map_err(|_| SHAPE)?;
    if first == 0 {
        return Err("port 0 cannot be relayed from: start at 1024 or above");
    }
    if first > last {
        return Err("write the lower port first: \"49152-65535\"");
    }
    Ok(first..=last)
}
