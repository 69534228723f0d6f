//! `[web]`, and the keys of `[[listen]]` that share a port or put a proxy in front of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::address::{parse_address, socket_address};
use super::types::{Config, Listener, ProxyProtocol, Web};
use super::walk::{At, Notes, Section};
use crate::base::transport::Transport;

/// Longest DNS name in bytes (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;
const EXAMPLE: &str = "\"127.0.0.1:81\"";

/// Reads `[web]`.
pub(super) fn web(top: &Section<'_, '_>, notes: &mut Notes) -> Web {
    let Some(section) = top.table("web", "[web]", notes) else { return Web::default() };
    const VERSIONS: [(&str, ProxyProtocol); 3] =
        [("none", ProxyProtocol::None), ("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    let mut server = |key| socket_address(&section, key, EXAMPLE, notes).map(|at| at.value);
    let (http1, h2) = (server("http1"), server("h2"));
    if h2.is_some() && http1.is_none() {
        notes.warn(
            section.line_of("h2", notes),
            "web.h2",
            "browsers that speak HTTP/1.1 get the built-in site",
            "add web.http1",
        );
    }
    let proxy_protocol = section.word("proxy_protocol", &VERSIONS, notes).unwrap_or_default();
    let passthrough = passthrough(&section, notes);
    let any = http1.is_some() || h2.is_some() || !passthrough.is_empty();
    if any && proxy_protocol == ProxyProtocol::None {
        notes.warn(
            section.line_of("proxy_protocol", notes),
            "web.proxy_protocol",
            "without a PROXY header the web server sees every visitor as this host: its allow lists and its limits per \
             client see a single client, and it may trust an X-Forwarded-For header that a visitor wrote",
            "write proxy_protocol = \"v1\", and for nginx: listen ... proxy_protocol; set_real_ip_from 127.0.0.1; \
             real_ip_header proxy_protocol;",
        );
    }
    Web { http1, h2, proxy_protocol, passthrough }
}

fn passthrough(section: &Section<'_, '_>, notes: &mut Notes) -> BTreeMap<String, SocketAddr> {
    const KEY: &str = "web.passthrough";
    let mut servers = BTreeMap::new();
    for At { value: (name, address), line } in section.pairs("passthrough", notes) {
        let name = name.to_ascii_lowercase();
        if !is_host_name(&name) {
            let remedy = "write the whole name, as clients send it: \"bbb.example.org\"";
            notes.error(line, KEY, format!("{name:?} is not a host name"), remedy);
        } else if let Some(to) = parse_address(At { value: address, line }, KEY, "\"127.0.0.1:8443\"", notes)
            && servers.insert(name.clone(), to.value).is_some()
        {
            notes.error(line, KEY, format!("{name} is listed twice"), "remove one of the two");
        }
    }
    servers
}

/// Whether `name` is a DNS name and not an address.
pub(super) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok();
    name.len() <= NAME_MAX && name.split('.').all(is_label) && !is_address
}

/// Reads `listen.proxy_protocol`: the proxies whose PROXY header is trusted.
pub(super) fn proxies(section: &Section<'_, '_>, transport: Transport, notes: &mut Notes) -> Vec<IpNet> {
    let Some(prefixes) = section.prefixes("proxy_protocol", notes) else { return Vec::new() };
    let line = section.line_of("proxy_protocol", notes);
    if transport == Transport::Udp {
        notes.error(
            line,
            "listen.proxy_protocol",
            "the PROXY protocol is not supported over UDP",
            "remove it, or write transport = \"tcp\" or \"tls\"",
        );
    } else if prefixes.is_empty() {
        notes.error(
            line,
            "listen.proxy_protocol",
            "an empty list trusts no proxy, so no client can connect",
            "write the address of the proxy, or remove the key",
        );
    }
    for At { value, line } in &prefixes {
        if value.prefix_len() == 0 {
            notes.warn(
                *line,
                "listen.proxy_protocol",
                "any client can claim any address",
                "write the address of the proxy",
            );
        }
    }
    prefixes.into_iter().map(|at| at.value).collect()
}

/// Reads `listen.web`.
pub(super) fn shared(section: &Section<'_, '_>, transport: Transport, notes: &mut Notes) -> bool {
    let web = section.boolean("web", false, notes);
    if web && transport != Transport::Tls {
        notes.error(
            section.line_of("web", notes),
            "listen.web",
            "only a TLS port can be shared with the web",
            "write transport = \"tls\", or remove web",
        );
    }
    web
}

/// Reads `listen.plain` of a TLS port or `listen.tls` of a TCP port.
pub(super) fn either(section: &Section<'_, '_>, transport: Transport, notes: &mut Notes) -> bool {
    const KEYS: [(&str, &str, Transport); 2] =
        [("plain", "listen.plain", Transport::Tls), ("tls", "listen.tls", Transport::Tcp)];
    let mut either = false;
    for (key, name, of) in KEYS {
        if of == transport {
            either = section.boolean(key, true, notes);
        } else if section.has(key) {
            let line = section.line_of(key, notes);
            let remedy = format!("remove it, or write transport = \"{of}\"");
            notes.error(
                line,
                name,
                format!("only a listener with transport = \"{of}\" has this key"),
                remedy,
            );
        }
    }
    either
}

/// Reads `listen.quic`.
pub(super) fn quic(section: &Section<'_, '_>, transport: Transport, notes: &mut Notes) -> Option<SocketAddr> {
    let to = socket_address(section, "quic", "\"127.0.0.1:8443\"", notes)?;
    if transport != Transport::Udp {
        notes.error(
            to.line,
            "listen.quic",
            "QUIC needs a UDP listener",
            "move it to the [[listen]] with transport = \"udp\", or remove it",
        );
    } else {
        notes.warn(
            to.line,
            "listen.quic",
            "the HTTP/3 server sees every visitor as this host, because QUIC has no PROXY header: its allow lists and \
             its limits per client see a single client",
            "let it serve public content only, or remove quic: browsers then use HTTP/2",
        );
    }
    Some(to.value)
}

/// Checks that a listener is shared with the web, and that no web server is one of our own listeners.
pub(super) fn check(config: &Config, top: &Section<'_, '_>, notes: &mut Notes) {
    let line = top.line_of("web", notes);
    if top.has("web") && !config.listen.iter().any(|listener| listener.web) {
        notes.warn(
            line,
            "web",
            "no listener is shared with the web",
            "write web = true in the [[listen]] with transport = \"tls\"",
        );
    }
    for OwnBackEnd { key, server, listener, from } in config.own_back_ends(|ip| ip.is_loopback()) {
        notes.error(
            from.map_or(line, |from| from.line),
            key,
            format!("{server} is this relay's own listener on line {}", listener.line),
            OwnBackEnd::REMEDY,
        );
    }
}

/// A back end that is one of our own listeners: a single connection or packet would loop until a limit stops it.
#[derive(Clone, Copy, Debug)]
pub struct OwnBackEnd<'a> {
    /// The key that names the back end.
    pub key: &'static str,
    /// The address of the back end.
    pub server: SocketAddr,
    /// The listener that receives what is forwarded there.
    pub listener: &'a Listener,
    /// The listener with the key; `None` if it is in `[web]`.
    pub from: Option<&'a Listener>,
}

impl OwnBackEnd<'_> {
    /// The remedy in messages.
    pub const REMEDY: &'static str = "write the address of the web server";
}

impl Config {
    /// Returns the back ends that are our own listeners. `is_here` says whether this machine has an address.
    pub fn own_back_ends(&self, is_here: impl Fn(IpAddr) -> bool) -> Vec<OwnBackEnd<'_>> {
        let Web { http1, h2, passthrough, .. } = &self.web;
        let of_web = [("web.http1", http1), ("web.h2", h2)];
        let of_web = of_web.into_iter().filter_map(|(key, server)| Some((key, (*server)?, None)));
        let passed = passthrough.values().map(|&server| ("web.passthrough", server, None));
        let quic = self.listen.iter().filter_map(|from| Some(("listen.quic", from.quic?, Some(from))));
        let all = of_web.chain(passed).chain(quic);
        let ours = |(key, server, from): (&'static str, SocketAddr, Option<_>)| {
            let listener = self.listen.iter().find(|listener| {
                let is_udp = listener.transport == Transport::Udp;
                is_udp == (key == "listen.quic") && self.receives(listener, server, &is_here)
            });
            listener.map(|listener| OwnBackEnd { key, server, listener, from })
        };
        all.filter_map(ours).collect()
    }

    /// Whether this listener receives what this machine sends to `server`.
    fn receives(&self, listener: &Listener, server: SocketAddr, is_here: impl Fn(IpAddr) -> bool) -> bool {
        let (at, to) = (listener.address.ip().to_canonical(), server.ip().to_canonical());
        // Connecting to the unspecified address means connecting to loopback.
        let is_here = to.is_unspecified() || is_here(to);
        let covers = at.is_unspecified()
            && (at.is_ipv4() == to.is_ipv4() || at.is_ipv6() && self.is_dual_stack(listener));
        let is_loopback = at.is_loopback() && to.is_unspecified() && at.is_ipv4() == to.is_ipv4();
        listener.address.port() == server.port() && (at == to || is_loopback || covers && is_here)
    }
}
