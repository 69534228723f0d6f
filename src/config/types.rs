//! The types of the configuration: addresses are parsed, secrets are read and defaults are filled in.

mod certificates;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ipnet::IpNet;

use super::limits::{Limits, loopback};
use crate::base::family::DefaultFamily;
use crate::base::transport::Transport;

pub use certificates::{Acme, Challenge, Redirect, TlsFiles};

/// REALM if the file names none.
pub const DEFAULT_REALM: &str = "hallpass";
/// Address of the admin pages if `[admin]` names none.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9641);
/// UDP and TCP port without a configuration. coturn often occupies 3478.
pub const EMBEDDED_PORT: u16 = 3479;
/// TLS port without a configuration (the registered `turns` port).
pub const EMBEDDED_TLS_PORT: u16 = 5349;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// REALM, 1 to 52 bytes.
    pub realm: String,
    /// Addresses announced to clients behind 1:1 NAT.
    pub external_ip: Vec<ExternalIp>,
    /// Whether channel numbers above 0x4FFF are refused (RFC 8656 section 12) instead of accepted (RFC 5766).
    pub strict_channels: bool,
    /// Whether clients receive ICMP errors about packets that they sent to peers (RFC 8656 section 11.5).
    pub icmp_to_clients: bool,
    /// Whether client addresses are kept out of the log above debug level.
    pub privacy: bool,
    /// Where clients connect; at least one.
    pub listen: Vec<Listener>,
    /// Addresses and ports of relayed addresses.
    pub relay: Relay,
    /// Certificate files, those of `[acme]` too; `None` for a self-signed certificate.
    pub tls: Option<TlsFiles>,
    /// `[[tls.certificate]]`: more certificates, for clients that ask for a name in them.
    pub certificates: Vec<TlsFiles>,
    /// A certificate that the server gets by itself; its files are in `tls`.
    pub acme: Option<Acme>,
    /// Addresses for plain HTTP; empty if it is not served.
    pub redirect: Vec<Redirect>,
    /// Web servers behind ports shared with the web.
    pub web: Web,
    /// The built-in web pages, where there is no web server.
    pub site: Site,
    /// Servers that issue credentials.
    pub hosts: Vec<Host>,
    /// Users with a fixed password.
    pub users: Vec<User>,
    /// Peer policy on top of the built-in denies.
    pub peers: Peers,
    /// Limits.
    pub limits: Limits,
    /// Servers that new clients are sent to during a drain.
    pub drain: Drain,
    /// Format and level of the log.
    pub log: Log,
    /// The admin pages; `None` if they are not served.
    pub admin: Option<Admin>,
    /// The control socket; `None` for the one in the runtime directory of systemd, if there is one.
    pub control_socket: Option<PathBuf>,
}

/// One entry of `external_ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalIp {
    /// The address in XOR-RELAYED-ADDRESS.
    pub public: IpAddr,
    /// The local address that it replaces, of the same family; `None` for every local address of the family.
    pub private: Option<IpAddr>,
}

/// One `[[listen]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Transport of the clients.
    pub transport: Transport,
    /// Address to bind; the port is not 0.
    pub address: SocketAddr,
    /// `proxy_protocol`: sources trusted to send a PROXY header; empty disables PROXY.
    pub proxies: Vec<IpNet>,
    /// Whether the port is shared with the web.
    pub web: bool,
    /// Whether the port also serves clients of the other kind: without TLS on a TLS port (`plain`), with TLS on a TCP port
    /// (`tls`).
    pub either: bool,
    /// The HTTP/3 server that shares a UDP port.
    pub quic: Option<SocketAddr>,
    /// Where clients reach it if that is not its own address, for example behind a proxy; empty if clients are told nothing.
    pub public: Option<Vec<Public>>,
    /// Line of the configuration file, for messages; 0 without a file.
    pub line: usize,
}

impl Listener {
    /// Creates a listener for TURN only and without a proxy.
    pub fn new(transport: Transport, address: SocketAddr, line: usize) -> Self {
        let either = transport.is_stream();
        Self { transport, address, proxies: Vec::new(), web: false, either, quic: None, public: None, line }
    }
}

/// One entry of `listen.public`: what clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The transport of the clients. A proxy that ends TLS makes TLS clients into those of a TCP listener.
    pub transport: Transport,
    /// A name in lower case, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `[web]`: web servers for connections on a shared TLS port that are not TURN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// Web server for HTTP/1.1; `None` for the built-in site.
    pub http1: Option<SocketAddr>,
    /// Web server for HTTP/2; `None` if HTTP/2 is not offered.
    pub h2: Option<SocketAddr>,
    /// The PROXY header in front of each connection to a web server.
    pub proxy_protocol: ProxyProtocol,
    /// TLS servers by lower-case name. TLS connections for these names are forwarded without decryption.
    pub passthrough: BTreeMap<String, SocketAddr>,
}

/// `[site]`: the built-in web pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Whether they are served. If not, every request gets a 404.
    pub enabled: bool,
    /// The title of the first page.
    pub title: Option<String>,
    /// The text of the first page.
    pub text: Option<String>,
    /// The language of the first page.
    pub language: SiteLanguage,
    /// Who is responsible for the site: a URL or a text.
    pub imprint: Option<String>,
    /// The operator's own files, in place of the built-in pages.
    pub directory: Option<PathBuf>,
    /// The path of the test page, without a slash at its end; `None` if there is none.
    pub check: Option<String>,
    /// Where a web server of the operator finds the test page, without TLS.
    pub address: Option<SocketAddr>,
}

impl Default for Site {
    fn default() -> Self {
        Self {
            enabled: true,
            title: None,
            text: None,
            language: SiteLanguage::default(),
            imprint: None,
            directory: None,
            check: Some("/check".to_owned()),
            address: None,
        }
    }
}

/// `site.language`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiteLanguage {
    /// English.
    #[default]
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
}

/// `web.proxy_protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No header.
    #[default]
    None,
    /// Version 1, one line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// `[relay]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Local addresses to relay from; empty for those of the listeners.
    pub addresses: Vec<IpAddr>,
    /// UDP ports to relay from.
    pub ports: RangeInclusive<u16>,
    /// The family for clients that name none.
    pub default_family: DefaultFamily,
}

/// One `[[host]]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Host {
    /// The name that the operator chose.
    pub name: String,
    /// Shared secrets in the order of the file, newest first; at least one. All are accepted.
    pub secrets: Vec<String>,
    /// Secrets that are no longer accepted, and whose users' allocations end at once.
    pub revoked: Vec<String>,
    /// The only peers that users of the host may reach; `None` if `[peers]` alone decides.
    pub peers: Option<Vec<IpNet>>,
}

// Written by hand: a derived implementation would print the secrets, and it may end up in a log.
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
    /// The `[[host]]` whose peers and limits apply; `None` for `[peers]` alone.
    pub host: Option<String>,
}

// Written by hand for the same reason as that of `Host`.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("host", &self.host).finish_non_exhaustive()
    }
}

/// `[peers]`. Of all entries that cover an address, built-in denies included, the longest prefix decides. An entry with
/// exactly the prefix of a built-in deny replaces it; if both lists contain a prefix, deny wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Prefixes that clients may reach.
    pub allow: Vec<IpNet>,
    /// Prefixes that clients may not reach.
    pub deny: Vec<IpNet>,
}

/// `[drain]`: servers that new clients are sent to during a drain. The servers of a client's address family are used in
/// turn; without one, the client is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// For clients on UDP.
    pub alternate_server: Vec<SocketAddr>,
    /// For clients on TCP. If the key is absent, the servers for UDP.
    pub tcp_alternate_server: Vec<SocketAddr>,
    /// For clients on TLS. The certificate there must be valid for the name that they connected to.
    pub tls_alternate_server: Vec<SocketAddr>,
}

impl Drain {
    /// Whether there is no other server.
    pub fn is_empty(&self) -> bool {
        [&self.alternate_server, &self.tcp_alternate_server, &self.tls_alternate_server]
            .iter()
            .all(|servers| servers.is_empty())
    }
}

/// `[log]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Format of a line.
    pub format: LogFormat,
    /// The lowest level that is logged.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures.
    Error,
    /// Refusals and imminent problems.
    Warn,
    /// Events that an operator wants to see.
    Info,
    /// Details per client.
    Debug,
    /// Details per message.
    Trace,
}

impl LogLevel {
    /// The name in the configuration file and in `tracing` filters.
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
    /// Address to bind.
    pub address: SocketAddr,
    /// Lower-case host names that requests without a token may use besides IP addresses and `localhost`.
    pub names: Vec<String>,
    /// The token that requests must have. Always there if the address is not loopback.
    pub token: Option<Token>,
    /// Whether the pages use TLS. Always the case if the address is not loopback.
    pub tls: AdminTls,
}

/// The certificate of the admin pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdminTls {
    /// No TLS.
    #[default]
    Off,
    /// The certificate of `[tls]`.
    OfListeners,
    /// A certificate for these pages alone.
    Own(TlsFiles),
}

/// The token of the admin pages.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

// Written by hand for the same reason as that of `Host`.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Admin {
    /// Returns the files of the certificate; `None` without TLS. `listeners` is `[tls]`.
    pub fn certificate<'a>(&'a self, listeners: Option<&'a TlsFiles>) -> Option<&'a TlsFiles> {
        match &self.tls {
            AdminTls::Off => None,
            AdminTls::OfListeners => listeners,
            AdminTls::Own(files) => Some(files),
        }
    }

    /// Returns the URL of the pages at the address itself.
    pub fn url(&self) -> String {
        let scheme = if self.tls == AdminTls::Off { "http" } else { "https" };
        format!("{scheme}://{}/", self.address)
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: DEFAULT_ADMIN, names: Vec::new(), token: None, tls: AdminTls::Off }
    }
}

impl Default for Config {
    /// The default of every key. It has no listener and no user yet, so it cannot be served.
    fn default() -> Self {
        Self {
            realm: DEFAULT_REALM.to_owned(),
            external_ip: Vec::new(),
            strict_channels: false,
            icmp_to_clients: false,
            privacy: false,
            listen: Vec::new(),
            relay: Relay {
                addresses: Vec::new(),
                ports: 49152..=65535,
                default_family: DefaultFamily::default(),
            },
            tls: None,
            certificates: Vec::new(),
            acme: None,
            redirect: Vec::new(),
            web: Web::default(),
            site: Site::default(),
            hosts: Vec::new(),
            users: Vec::new(),
            peers: Peers::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            log: Log { format: LogFormat::Text, level: LogLevel::Info },
            admin: None,
            control_socket: None,
        }
    }
}

impl Config {
    /// The configuration without a file: UDP and TCP on 3479 and TLS on 5349 at every address, one host `default` with
    /// `secret`, and loopback peers open, so that everything can be tried on one machine.
    pub fn embedded(secret: String) -> Self {
        let listener = |transport, port| {
            let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
            // With the test page on the TLS port.
            Listener { web: transport == Transport::Tls, ..Listener::new(transport, address, 0) }
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
            ..Self::default()
        }
    }

    /// Whether a listener on `[::]` serves IPv4 too. It does not if another listener on the same port and protocol names
    /// an IPv4 address.
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
    fn an_ipv4_listener_on_the_same_port_makes_the_ipv6_one_ipv6_only() {
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
