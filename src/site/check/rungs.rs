//! The ways to the relay that the page tries.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::base::transport::Transport;
use crate::base::turn_url::place;

/// Most ways that a page tries: a browser makes two logins for each.
const RUNGS_MAX: usize = 8;

/// A listener as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// The name or address; `None`: the one that the visitor used for the page.
    pub host: Option<String>,
}

impl Rung {
    fn id(&self) -> String {
        format!("{}-{}", self.transport, self.port)
    }
}

/// The ways in the order of the page: the address first, which costs no login, then the ones for media.
fn all(rungs: &[Rung]) -> impl Iterator<Item = (String, &Rung, bool)> {
    let rungs = &rungs[..rungs.len().min(RUNGS_MAX)];
    let address = rungs.iter().find(|rung| rung.transport == Transport::Udp);
    let address = address.map(|rung| (format!("address-{}", rung.id()), rung, true));
    address.into_iter().chain(rungs.iter().map(|rung| (rung.id(), rung, false)))
}

/// The names of the ways, which results may contain.
pub(super) fn ids(rungs: &[Rung]) -> Vec<String> {
    all(rungs).map(|(id, ..)| id).collect()
}

/// Returns the ways for a visitor that reached the page under `used`. A certificate is for names: `name` replaces an address
/// where the connection is encrypted.
pub(super) fn json(rungs: &[Rung], used: &str, name: Option<&str>) -> Value {
    let is_address = used.parse::<IpAddr>().is_ok();
    let ways = all(rungs).map(|(id, rung, is_for_address)| {
        let host = match (&rung.host, name) {
            (Some(host), _) => host,
            (None, Some(name)) if is_address && rung.transport == Transport::Tls => name,
            (None, _) => used,
        };
        let at = place(host, rung.port);
        let url = match (is_for_address, rung.transport) {
            (true, _) => format!("stun:{at}"),
            (false, Transport::Udp) => format!("turn:{at}?transport=udp"),
            (false, Transport::Tcp) => format!("turn:{at}?transport=tcp"),
            (false, Transport::Tls) => format!("turns:{at}?transport=tcp"),
        };
        json!({
            "id": id,
            "kind": if is_for_address { "address" } else { "media" },
            "transport": rung.transport.to_string(),
            "port": rung.port,
            "host": host,
            "url": url,
        })
    });
    Value::Array(ways.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rungs() -> Vec<Rung> {
        let rung =
            |transport, port, host: Option<&str>| Rung { transport, port, host: host.map(str::to_owned) };
        vec![
            rung(Transport::Udp, 3479, None),
            rung(Transport::Tcp, 80, Some("198.51.100.9")),
            rung(Transport::Tls, 443, None),
        ]
    }

    fn urls(used: &str, name: Option<&str>) -> Vec<String> {
        let ways = json(&rungs(), used, name);
        let ways = ways.as_array().expect("a list").clone();
        ways.iter().map(|way| way["url"].as_str().expect("a URL").to_owned()).collect()
    }

    #[test]
    fn the_ways_lead_to_the_name_that_the_visitor_used() {
        assert_eq!(
            urls("relay.example.org", Some("cert.example.org")),
            [
                "stun:relay.example.org:3479",
                "turn:relay.example.org:3479?transport=udp",
                "turn:198.51.100.9:80?transport=tcp",
                "turns:relay.example.org:443?transport=tcp",
            ]
        );
        assert_eq!(
            urls("192.0.2.1", Some("cert.example.org"))[3],
            "turns:cert.example.org:443?transport=tcp"
        );
        assert_eq!(urls("2001:db8::1", None)[3], "turns:[2001:db8::1]:443?transport=tcp");
        assert_eq!(ids(&rungs()), ["address-udp-3479", "udp-3479", "tcp-80", "tls-443"]);
        assert_eq!(ids(&[]), Vec::<String>::new());
    }
}
