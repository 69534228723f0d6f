//! The rungs of the ladder: which transports and ports are tried.

use std::fmt;

use crate::base::family::Family;
use crate::base::transport::Transport;
use crate::base::turn_url::TurnUrl;

/// Ports for UDP and TCP: the registered one (RFC 8656 section 19) and the one of BigBlueButton's set-ups.
const PLAIN: [u16; 2] = [3478, 3479];
/// Ports for TLS: the one that networks let out, and the registered one.
const SECURE: [u16; 2] = [443, 5349];

/// One rung: a transport and a port of a relay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rung {
    /// The relay's name or address.
    pub host: String,
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// Whether a browser with the given URLs uses it. The relay may not offer the others.
    pub is_given: bool,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.transport.name().to_ascii_uppercase(), self.port)
    }
}

/// How the relay is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Without a proxy, by an address of this family.
    Direct(Family),
    /// Through the HTTP proxy.
    Proxy,
}

impl Route {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct(Family::V4) => "direct",
            Self::Direct(Family::V6) => "IPv6",
            Self::Proxy => "proxy",
        }
    }

    /// The family of the relay's address; `None` through the proxy, which looks it up itself.
    pub fn family(self) -> Option<Family> {
        match self {
            Self::Direct(family) => Some(family),
            Self::Proxy => None,
        }
    }
}

/// Returns the rungs to try, without duplicates: for each host those of its URLs, and the usual ports of transports for which
/// no URL has a port. With `exact` only what a browser with these URLs uses.
pub fn rungs(urls: &[TurnUrl], exact: bool) -> Vec<Rung> {
    let mut all: Vec<Rung> = Vec::new();
    for url in urls {
        let secure = url.transport == Some(Transport::Tls);
        let (default, usual) = if secure { (5349, &SECURE[..]) } else { (3478, &PLAIN[..]) };
        // Without `transport`, browsers use UDP alone.
        let browsers = url.transport.unwrap_or(Transport::Udp);
        add(&mut all, url, browsers, url.port.unwrap_or(default), true);
        if exact {
            continue;
        }
        let also: &[Transport] =
            if url.transport.is_none() { &[Transport::Udp, Transport::Tcp] } else { &[browsers] };
        for &transport in also {
            let ports = url.port.as_ref().map_or(usual, std::slice::from_ref);
            ports.iter().for_each(|&port| add(&mut all, url, transport, port, false));
        }
    }
    for url in urls.iter().filter(|_| !exact) {
        for transport in Transport::ALL {
            let known = all.iter().any(|rung| rung.host == url.host && rung.transport == transport);
            let usual = if transport == Transport::Tls { SECURE } else { PLAIN };
            if !known {
                usual.iter().for_each(|&port| add(&mut all, url, transport, port, false));
            }
        }
    }
    all.sort();
    all
}

fn add(all: &mut Vec<Rung>, url: &TurnUrl, transport: Transport, port: u16, is_given: bool) {
    let same = |rung: &&mut Rung| rung.host == url.host && rung.transport == transport && rung.port == port;
    match all.iter_mut().find(same) {
        Some(rung) => rung.is_given |= is_given,
        None => all.push(Rung { host: url.host.clone(), transport, port, is_given }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(urls: &[&str], exact: bool) -> Vec<String> {
        let urls: Vec<TurnUrl> = urls.iter().map(|url| url.parse().unwrap()).collect();
        let shown = |rung: &Rung| format!("{rung}{}", if rung.is_given { "!" } else { "" });
        rungs(&urls, exact).iter().map(shown).collect()
    }

    #[test]
    fn given_ports_or_the_usual_ones() {
        let usual = ["UDP 3478", "UDP 3479", "TCP 3478", "TCP 3479", "TLS 443!"];
        assert_eq!(of(&["turns:r:443"], false), usual);
        let usual = ["UDP 3478!", "UDP 3479", "TCP 3478", "TCP 3479", "TLS 443", "TLS 5349"];
        assert_eq!(of(&["turn:r"], false), usual);
        assert_eq!(of(&["turn:r:3479", "turns:r:443"], false), ["UDP 3479!", "TCP 3479", "TLS 443!"]);
        assert_eq!(of(&["turn:r:80?transport=tcp"], false)[2], "TCP 80!");
        assert_eq!(of(&["turns:r"], false)[4..], ["TLS 443", "TLS 5349!"]);
    }

    #[test]
    fn exactly_what_a_browser_uses() {
        assert_eq!(
            of(&["turn:r", "turns:r:443", "turns:r:443?transport=tcp"], true),
            ["UDP 3478!", "TLS 443!"]
        );
        assert_eq!(of(&["turn:r:3478?transport=tcp"], true), ["TCP 3478!"]);
        let hosts = rungs(&["turn:a".parse().unwrap(), "turn:b".parse().unwrap()], true);
        assert_eq!(hosts.iter().map(|rung| rung.host.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}
