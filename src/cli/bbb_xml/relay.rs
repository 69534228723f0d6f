//! What a relay's configuration requires of BigBlueButton's list: the URLs, in order and not too many, and the secret.

use std::fmt;

use crate::base::browser_ports::browsers_use;
use crate::base::transport::Transport;
use crate::cli::endpoints::{Audience, Endpoint, endpoints, is_hidden};
use crate::config::{Config, Host};

/// URLs of one transport that a browser is given. Each costs allocations in every connection: one in Chromium, two in
/// Firefox. The first port is for quality or habit, the second for networks that close the first; a third adds nothing.
const PER_TRANSPORT: usize = 2;
/// The port of `turns:` URLs without one (RFC 7065 section 3.1).
const TLS_PORT: u16 = 5349;

/// A relay as one BigBlueButton server needs it.
pub struct Relay {
    /// The relay's name in URLs.
    pub name: String,
    /// The URLs to list.
    pub wanted: Vec<Endpoint>,
    /// Further URLs of the relay, and why they are not listed.
    pub left_out: Vec<(Endpoint, WhyNot)>,
    /// Listeners without a URL, for messages.
    pub hidden: Vec<String>,
    /// The secret that the file must have. With a second one every browser would make twice as many allocations.
    pub newest: String,
    /// Secrets that are accepted as well.
    pub older: Vec<String>,
    /// Secrets that were this host's and are no longer accepted.
    pub revoked: Vec<String>,
    /// The lifetime that the file must have; `None` for any.
    pub ttl: Option<String>,
}

/// Why a URL is not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// Browsers refuse the port.
    Port,
    /// There are enough of this transport.
    Enough,
    /// UDP on the port of TLS, beside another port.
    TlsPort,
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "browsers refuse TURN servers on this port",
            Self::Enough => "browsers make allocations for each URL, and two of a transport are enough",
            Self::TlsPort => "UDP on the port of TLS reaches no network that UDP on the other port does not; --all lists it",
        })
    }
}

impl Relay {
    /// The relay of `config` under `name`, for the users of `host`. `every`: however many URLs there are.
    pub fn new(config: &Config, host: &Host, name: &str, ttl: Option<String>, every: bool) -> Self {
        let name = name.to_ascii_lowercase();
        let all = endpoints(config, Audience::Browsers, |_| name.clone());
        let (wanted, left_out) = choose(all, every);
        let (newest, older) =
            host.secrets.split_first().map_or((String::new(), [].as_slice()), |(one, more)| {
                // A valid configuration has a secret for each host.
                (one.clone(), more)
            });
        let hidden = config.listen.iter().filter(|listener| is_hidden(listener));
        Self {
            name,
            wanted,
            left_out,
            hidden: hidden
                .map(|one| format!("{} {} (line {})", one.transport, one.address, one.line))
                .collect(),
            newest,
            older: older.to_vec(),
            revoked: host.revoked.clone(),
            ttl,
        }
    }

    /// The STUN URL to list: one is enough, because every allocation also tells a client its address.
    pub fn stun(&self) -> Option<String> {
        self.wanted.iter().find_map(Endpoint::stun_url)
    }

    /// Whether the relay serves clients there.
    pub fn serves(&self, endpoint: &Endpoint) -> bool {
        self.wanted.contains(endpoint) || self.left_out.iter().any(|(one, _)| one == endpoint)
    }

    /// Whether this is a secret of the host, valid or not.
    pub fn knows(&self, secret: &str) -> bool {
        let is = |one: &String| one == secret;
        self.newest == secret || self.older.iter().any(is) || self.revoked.iter().any(is)
    }
}

/// Orders URLs and chooses those that are worth their allocations.
fn choose(mut all: Vec<Endpoint>, every: bool) -> (Vec<Endpoint>, Vec<(Endpoint, WhyNot)>) {
    all.sort_by_key(|endpoint| (endpoint.transport, rank(endpoint)));
    let (mut wanted, mut left_out): (Vec<Endpoint>, Vec<_>) = (Vec::new(), Vec::new());
    for endpoint in all {
        let alike = |one: &&Endpoint| one.transport == endpoint.transport && one.server == endpoint.server;
        if !browsers_use(endpoint.port) {
            left_out.push((endpoint, WhyNot::Port));
        } else if !every && is_udp_on_tls_port(&endpoint) && wanted.iter().any(|one| alike(&one)) {
            left_out.push((endpoint, WhyNot::TlsPort));
        } else if !every && wanted.iter().filter(alike).count() >= PER_TRANSPORT {
            left_out.push((endpoint, WhyNot::Enough));
        } else {
            wanted.push(endpoint);
        }
    }
    (wanted, left_out)
}

/// The place of a port among those of its transport. Networks that block much leave 443 open, and then 80. Over UDP the
/// registered port comes first.
fn rank(endpoint: &Endpoint) -> u8 {
    match (endpoint.transport, endpoint.port) {
        (Transport::Udp, 3478) | (Transport::Tcp | Transport::Tls, 443) => 0,
        (Transport::Udp, 443) | (Transport::Tcp, 80) => 1,
        _ if is_udp_on_tls_port(endpoint) => 3,
        _ => 2,
    }
}

/// coturn opens it for DTLS, so an imported configuration has such a listener. Browsers do not use DTLS towards a relay.
fn is_udp_on_tls_port(endpoint: &Endpoint) -> bool {
    (endpoint.transport, endpoint.port) == (Transport::Udp, TLS_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_in_order_and_few() {
        let all = [
            "turns:r:5349",
            "turn:r:5060?transport=tcp",
            "turn:r:3479",
            "turn:r:3478?transport=tcp",
            "turn:r:80?transport=tcp",
            "turn:r:443",
            "turns:r:443",
            "turn:r:443?transport=tcp",
            "turn:r:3478",
            "turns:other:444",
        ];
        let all: Vec<Endpoint> = all.iter().map(|url| Endpoint::of_turn_url(url).unwrap()).collect();
        let (wanted, left_out) = choose(all.clone(), false);
        let urls: Vec<String> = wanted.iter().map(Endpoint::turn_url).collect();
        assert_eq!(
            urls,
            [
                "turn:r:3478",
                "turn:r:443",
                "turn:r:443?transport=tcp",
                "turn:r:80?transport=tcp",
                "turns:r:443?transport=tcp",
                "turns:r:5349?transport=tcp",
            ]
        );
        let left_out: Vec<(String, WhyNot)> =
            left_out.into_iter().map(|(one, why)| (one.turn_url(), why)).collect();
        assert_eq!(
            left_out,
            [
                ("turn:r:3479".to_owned(), WhyNot::Enough),
                ("turn:r:5060?transport=tcp".to_owned(), WhyNot::Port),
                ("turn:r:3478?transport=tcp".to_owned(), WhyNot::Enough),
                ("turns:other:444?transport=tcp".to_owned(), WhyNot::Port),
            ]
        );
        assert_eq!(choose(all, true).1.len(), 2, "only the refused ports");
        let of = |urls: &[&str]| {
            let all = urls.iter().map(|url| Endpoint::of_turn_url(url).unwrap()).collect();
            let (wanted, left_out) = choose(all, false);
            let why: Vec<WhyNot> = left_out.into_iter().map(|(_, why)| why).collect();
            (wanted.iter().map(Endpoint::turn_url).collect::<Vec<_>>(), why)
        };
        assert_eq!(
            of(&["turn:r:5349", "turn:r:3480"]),
            (vec!["turn:r:3480".to_owned()], vec![WhyNot::TlsPort])
        );
        assert_eq!(of(&["turn:r:5349"]), (vec!["turn:r:5349".to_owned()], Vec::new()), "there is no other");
    }
}
