//! What the operator said, resolved: addresses parsed, secrets read, defaults filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::base::transport::Transport;

/// REALM when the file names none.
pub const DEFAULT_REALM: &str = "hallpass";
/// Where metrics and health are served when `[admin]` names no address.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// UDP and TCP without a configuration: 3478 is often coturn's already.
pub const EMBEDDED_PORT: u16 = 3479;
/// TLS without a configuration (the registered `turns` port).
pub const EMBEDDED_TLS_PORT: u16 = 5349;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// REALM, 1 to 52 bytes.
    pub realm: String,
    /// What clients are told behind 1:1 NAT.
    pub external_ip: Vec<ExternalIp>,
    /// Refuse channel numbers above 0x4FFF (RFC 8656 section 12) instead of accepting RFC 5766's.
    pub strict_channels: bool,
    /// Tell clients of ICMP errors about what they sent to peers (RFC 8656 section 11.5).
    pub icmp_to_clients: bool,
    /// No client address in the log above debug level.
    pub privacy: bool,
    /// Where clients are served; at least one.
    pub listen: Vec<Listener>,
    /// Where peers are reached from.
    pub relay: Relay,
    /// Certificate files; `None` = self-made.
    pub tls: Option<TlsFiles>,
    /// Who answers on ports shared with the web.
    pub web: Web,
    /// Parties that hand out credentials.
    pub hosts: Vec<Host>,
    /// Users with a fixed password.
    pub users: Vec<User>,
    /// Peer policy on top of the built-in denies.
    pub peers: Peers,
    /// Bounds.
    pub limits: Limits,
    /// Where newcomers are sent while draining.
    pub drain: Drain,
    /// What is logged, and how.
    pub log: Log,
    /// Metrics and health; `None` = not served.
    pub admin: Option<Admin>,
    /// Whether a listener on `[::]` may become one on `0.0.0.0` where the host has no IPv6: only so without a
    /// configuration file, since a written address is meant.
    pub fallback_to_ipv4: bool,
}

/// One entry of `external_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// What XOR-RELAYED-ADDRESS announces.
    pub public: IpAddr,
    /// The local address it stands for, of the same family; `None` = every one of the family.
    pub private: Option<IpAddr>,
}

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it speaks.
    pub transport: Transport,
    /// Where; the port is never 0.
    pub address: SocketAddr,
    /// Who may connect and must say for whom, by the PROXY protocol; empty = anybody, for himself. `proxy_protocol`.
    pub proxies: Vec<IpNet>,
    /// Whether the port is shared with the web.
    pub web: bool,
    /// Whether clients of the other kind come in: without TLS on a TLS port (`plain`), with TLS on a TCP port (`tls`).
    pub either: bool,
    /// The QUIC server (HTTP/3) that shares a UDP port.
    pub quic: Option<SocketAddr>,
    /// Line of the configuration file, for messages; 0 = no file.
    pub line: usize,
}

impl Listener {
    /// For TURN alone, and without a proxy.
    pub fn new(transport: Transport, address: SocketAddr, line: usize) -> Self {
        let either = transport.is_stream();
        Self { transport, address, proxies: Vec::new(), web: false, either, quic: None, line }
    }
}

/// `[web]`: what answers who is not TURN on a shared TLS port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// Web server for HTTP/1.1; `None` = the built-in site.
    pub http1: Option<SocketAddr>,
    /// Web server for HTTP/2; `None` = not offered.
    pub h2: Option<SocketAddr>,
    /// The header that web servers are sent first.
    pub proxy_protocol: ProxyProtocol,
    /// TLS servers by name (lower case): for these TLS is not ended here.
    pub passthrough: BTreeMap<String, SocketAddr>,
}

/// `web.proxy_protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Nothing is sent.
    #[default]
    None,
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Local addresses to relay from; empty = the listening ones.
    pub addresses: Vec<IpAddr>,
    /// UDP ports to relay from.
    pub ports: RangeInclusive<u16>,
}

/// `[tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain, the server's certificate first.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// One `[[host]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Host {
    /// The operator's name for it.
    pub name: String,
    /// Shared secrets in the order of the file, newest first; all verify, at least one.
    pub secrets: Vec<String>,
    /// Secrets that verify no longer, and whose holders lose their allocations at once.
    pub revoked: Vec<String>,
    /// Allow-list; `None` = `[peers]` alone decides.
    pub peers: Option<Vec<IpNet>>,
}

// Written by hand: a derived one would put the secrets into a log some day.
impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets.len();
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("secrets", &secrets)
            .field("revoked", &self.revoked.len())
            .field("peers", &self.peers)
            .finish()
    }
}

/// One `[[user]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// USERNAME.
    pub name: String,
    /// Password of the long-term credential mechanism.
    pub password: String,
    /// The `[[host]]` whose peers and limits apply; `None` = `[peers]` alone.
    pub host: Option<String>,
}

// Written by hand for the same reason as the host's.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("host", &self.host).finish_non_exhaustive()
    }
}

/// `[peers]`: together with the built-in denies the longest covering prefix decides. An entry with exactly the
/// prefix of a built-in deny replaces it; between two entries of one prefix deny wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Opened prefixes.
    pub allow: Vec<IpNet>,
    /// Closed prefixes.
    pub deny: Vec<IpNet>,
}

/// `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations one user may hold; 0 = no limit. Names without a user have no limit.
    pub allocations_per_user: u32,
    /// Allocations of all users of a named host; 0 = no limit.
    pub allocations_per_host: u32,
    /// Allocations in all; 0 = no limit.
    pub allocations_total: u32,
    /// Requests a second from one source that are answered without credentials, and as many Bindings, over UDP; four times
    /// as many over TCP and TLS. 0 = no limit.
    pub unauthenticated_per_source: u32,
    /// Requests a second with the credentials of one user; 0 = no limit.
    pub requests_per_user: u32,
    /// 1,000 bits a second that one allocation may relay, both directions together; 0 = no limit.
    pub kbit_per_allocation: u32,
    /// Datagrams a second that one allocation may relay; 0 = no limit.
    pub packets_per_allocation: u32,
    /// The same for all allocations of a user.
    pub kbit_per_user: u32,
    /// The same for all allocations of a user.
    pub packets_per_user: u32,
    /// The same for all users of a named host.
    pub kbit_per_host: u32,
    /// The same for all users of a named host.
    pub packets_per_host: u32,
    /// TCP_MAXSEG on stream listeners, bytes; 0 = the kernel's choice.
    pub mss: u32,
    /// Worker threads; 0 = one per core.
    pub workers: u32,
    /// Permissions one allocation may hold.
    pub permissions_per_allocation: u32,
    /// Channels one allocation may hold.
    pub channels_per_allocation: u32,
    /// Permissions and channels of all allocations of one user; 0 = no limit.
    pub permissions_per_user: u32,
    /// TCP and TLS clients at once. A quarter is kept for clients that authenticate.
    pub connections_total: u32,
    /// TCP and TLS clients at once from one IPv4 address or one /64 of IPv6, twice as many from a /56, four times from a /48;
    /// 0 = no limit.
    pub connections_per_source: u32,
    /// Sources without that limit, and without the limit of time for TLS handshakes.
    pub connections_exempt: Vec<IpNet>,
    /// Memory beyond which nobody new is served, MiB; 0 = three quarters of what this process may have.
    pub memory_mib: u32,
    /// The longest LIFETIME granted, seconds.
    pub lifetime_max_seconds: u32,
    /// How long SIGTERM waits for running allocations, seconds.
    pub drain_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations_per_user: 500,
            allocations_per_host: 0,
            allocations_total: 0,
            unauthenticated_per_source: 500,
            requests_per_user: 1000,
            kbit_per_allocation: 50_000,
            packets_per_allocation: 20_000,
            kbit_per_user: 0,
            packets_per_user: 0,
            kbit_per_host: 0,
            packets_per_host: 0,
            mss: 0,
            workers: 0,
            permissions_per_allocation: 1000,
            channels_per_allocation: 1000,
            permissions_per_user: 20_000,
            connections_total: 10_000,
            connections_per_source: 8000,
            connections_exempt: loopback(),
            memory_mib: 0,
            lifetime_max_seconds: 3600,
            drain_seconds: 3600,
        }
    }
}

/// `[drain]`: where newcomers are sent while the server drains, at most one address of each family; none = they are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// For clients on UDP and TCP.
    pub alternate_server: Vec<SocketAddr>,
    /// For clients on TLS. Its certificate must be good for the name that they know.
    pub tls_alternate_server: Vec<SocketAddr>,
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least important lines still written.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something does not work.
    Error,
    /// Something will not work, or is refused.
    Warn,
    /// What an operator wants to see.
    Info,
    /// Per client.
    Debug,
    /// Per message.
    Trace,
}

impl LogLevel {
    /// As written in the file and as `tracing` filters read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where metrics and health are served.
    pub address: SocketAddr,
    /// Host names that requests may be for, besides IP addresses and `localhost`; lower case.
    pub names: Vec<String>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: DEFAULT_ADMIN, names: Vec::new() }
    }
}

/// This machine itself.
fn loopback() -> Vec<IpNet> {
    vec![
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    ]
}

impl Default for Config {
    /// Every key's default. Not yet a server: it has no listener and nobody who may use it.
    fn default() -> Self {
        Self {
            realm: DEFAULT_REALM.to_owned(),
            external_ip: Vec::new(),
            strict_channels: false,
            icmp_to_clients: false,
            privacy: false,
            listen: Vec::new(),
            relay: Relay { addresses: Vec::new(), ports: 49152..=65535 },
            tls: None,
            web: Web::default(),
            hosts: Vec::new(),
            users: Vec::new(),
            peers: Peers::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            log: Log { format: LogFormat::Text, level: LogLevel::Info },
            admin: None,
            fallback_to_ipv4: false,
        }
    }
}

impl Config {
    /// The server without a configuration file: UDP and TCP on 3479, TLS on 5349, every address of the host, one
    /// host `default` with `secret`, and loopback peers open, so that it can be tried on one machine.
    pub fn embedded(secret: String) -> Self {
        let listener = |transport, port| {
            Listener::new(transport, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), 0)
        };
        Self {
            listen: vec![
                listener(Transport::Udp, EMBEDDED_PORT),
                listener(Transport::Tcp, EMBEDDED_PORT),
                listener(Transport::Tls, EMBEDDED_TLS_PORT),
            ],
            hosts: vec![Host {
                name: "default".to_owned(),
                secrets: vec![secret],
                revoked: Vec::new(),
                peers: None,
            }],
            peers: Peers { allow: loopback(), deny: Vec::new() },
            fallback_to_ipv4: true,
            ..Self::default()
        }
    }

    /// Turns listeners on `[::]` into ones on `0.0.0.0`, for a host without IPv6. Does nothing unless
    /// [`Config::fallback_to_ipv4`] is set.
    pub fn without_ipv6(&mut self) {
        if self.fallback_to_ipv4 {
            for listener in &mut self.listen {
                if listener.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                    listener.address.set_ip(Ipv4Addr::UNSPECIFIED.into());
                }
            }
        }
    }

    /// Whether this listener on `[::]` serves IPv4 too. It does not when a listener of the same port and
    /// protocol names an IPv4 address itself.
    pub fn is_dual_stack(&self, listener: &Listener) -> bool {
        let same_port = |other: &&Listener| {
            (other.transport == Transport::Udp) == (listener.transport == Transport::Udp)
                && other.address.port() == listener.address.port()
        };
        listener.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && !self.listen.iter().filter(same_port).any(|other| other.address.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_is_dual_stack_until_the_host_has_no_ipv6() {
        let mut config = Config::embedded("0123456789abcdef".into());
        assert!(config.listen.iter().all(|listener| config.is_dual_stack(listener)));
        config.without_ipv6();
        let addresses: Vec<String> = config.listen.iter().map(|l| l.address.to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0:3479", "0.0.0.0:3479", "0.0.0.0:5349"]);
    }

    #[test]
    fn a_written_ipv4_listener_keeps_the_ipv6_one_to_itself() {
        let mut config = Config::embedded("0123456789abcdef".into());
        let mut ipv4 = config.listen[0].clone();
        ipv4.address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        config.listen.push(ipv4);
        assert!(!config.is_dual_stack(&config.listen[0]));
        assert!(config.is_dual_stack(&config.listen[1]), "TCP is another port space");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let mut config = Config::embedded("the-secret-itself".into());
        config.users.push(User { name: "eve".into(), password: "the-password".into(), host: None });
        let shown = format!("{config:?}");
        assert!(!shown.contains("the-secret-itself") && !shown.contains("the-password"), "{shown}");
    }
}
