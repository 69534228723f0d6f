//! The configuration that a test needs, written for Hallpass or for coturn.

use super::certs::{self, Kind};
use super::files::Directory;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

pub const REALM: &str = "relay.test";
pub const SECRET: &str = "a secret of the tests";
pub const LOCAL_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub const LOCAL_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Below the kernel's ephemeral range, so that no client socket occupies a relay port.
const RELAY_PORTS: (u16, u16) = (16384, 32767);

/// Below the relay ports, and above the ports that browsers refuse.
const FREE_PORTS: (u16, u16) = (11000, 16383);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

/// The parameters of a server. The ports of its listeners are chosen at the start.
#[derive(Clone)]
pub struct Plan {
    pub listeners: Vec<(Transport, IpAddr)>,
    pub relay: Vec<IpAddr>,
    /// The tables with the credentials: a `[[host]]` with the secret of the tests.
    pub hosts: String,
    /// Prefixes that the peer policy allows.
    pub allow: Vec<&'static str>,
    pub relay_ports: (u16, u16),
    /// Lines for the `[limits]` table of Hallpass.
    pub limits: String,
    /// The relay's name in its certificate, issued by `ca.pem`; `first.test` if `None`.
    pub name: Option<&'static str>,
    /// Fixed ports of UDP, TCP and TLS, for use in a network namespace; `None`: free ports.
    pub ports: Option<[u16; 3]>,
    /// Public addresses of a 1:1 NAT.
    pub external: Vec<IpAddr>,
    /// Lines for each `[[listen]]` of Hallpass with UDP, with TCP, and with TLS.
    pub udp: String,
    pub tcp: String,
    pub tls: String,
    /// The tables in the place of `[tls]`, in Hallpass's file.
    pub certificate: Option<String>,
    /// Further tables for the end of Hallpass's file.
    pub tables: String,
    /// Lines for the start of Hallpass's file.
    pub top: String,
    /// The address that the admin pages are bound to, and further lines for `[admin]`.
    pub admin: (IpAddr, String),
    /// Lines for the end of coturn's file.
    pub coturn: String,
    /// The network namespace to run in.
    pub namespace: Option<String>,
    /// A program with arguments that runs the server; the server's command line is appended.
    pub wrapper: Vec<String>,
    /// Text in Hallpass's output after which the test may begin.
    pub started: &'static str,
}

impl Plan {
    /// UDP, TCP and TLS on 127.0.0.1 and ::1, relaying for both families, peers on loopback allowed.
    pub fn loopback() -> Plan {
        Plan::on(&[LOCAL_V4, LOCAL_V6], &["127.0.0.0/8", "::1/128"])
    }

    /// All three transports on each of `addresses`.
    pub fn on(addresses: &[IpAddr], allow: &[&'static str]) -> Plan {
        let transports = [Transport::Udp, Transport::Tcp, Transport::Tls];
        let each = |&ip: &IpAddr| transports.map(|transport| (transport, ip));
        Plan {
            listeners: addresses.iter().flat_map(each).collect(),
            relay: addresses.to_vec(),
            hosts: format!("[[host]]\nname = \"test\"\nsecret = \"{SECRET}\"\n"),
            allow: allow.to_vec(),
            relay_ports: RELAY_PORTS,
            limits: String::new(),
            name: None,
            ports: None,
            external: Vec::new(),
            udp: String::new(),
            tcp: String::new(),
            tls: String::new(),
            certificate: None,
            tables: String::new(),
            top: String::new(),
            admin: (LOCAL_V4, String::new()),
            coturn: String::new(),
            namespace: None,
            wrapper: Vec::new(),
            started: "ready",
        }
    }
}

/// A plan with its ports and files.
pub struct Layout {
    pub listeners: Vec<(Transport, SocketAddr)>,
    pub admin: SocketAddr,
    pub config: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Chooses free ports, creates a certificate and writes the configuration of Hallpass.
pub fn lay_out_hallpass(plan: &Plan, files: &Directory) -> Layout {
    let mut layout = lay_out(plan, files, |transport| match plan.ports {
        Some(ports) => ports[transport as usize],
        None => free_port(),
    });
    let mut toml = format!("realm = \"{REALM}\"\nexternal_ip = {}\n{}\n", quoted(&plan.external), plan.top);
    for (transport, address) in &layout.listeners {
        let further = match transport {
            Transport::Udp => &plan.udp,
            Transport::Tcp => &plan.tcp,
            Transport::Tls => &plan.tls,
        };
        let transport = format!("{transport:?}").to_lowercase();
        write!(toml, "\n[[listen]]\ntransport = \"{transport}\"\naddress = \"{address}\"\n{further}\n")
            .unwrap();
    }
    let (first, last) = plan.relay_ports;
    write!(toml, "\n[relay]\naddresses = {}\nports = \"{first}-{last}\"\n", quoted(&plan.relay)).unwrap();
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}\n", layout.cert, layout.key);
    write!(toml, "\n{}", plan.certificate.as_ref().unwrap_or(&tls)).unwrap();
    write!(toml, "\n{}", plan.hosts).unwrap();
    write!(toml, "\n[peers]\nallow = {}\n", quoted(&plan.allow)).unwrap();
    let (ip, lines) = &plan.admin;
    let bound = SocketAddr::new(*ip, layout.admin.port());
    write!(toml, "\n[admin]\naddress = \"{bound}\"\n{lines}\n").unwrap();
    write!(toml, "\n[limits]\n{}\n{}\n", plan.limits, plan.tables).unwrap();
    layout.config = files.write("hallpass.toml", &toml);
    layout
}

/// Does the same for coturn, which has one port for UDP and TCP and one for TLS, on all its addresses.
pub fn lay_out_coturn(plan: &Plan, files: &Directory) -> Layout {
    let (plain, tls) = match plan.ports {
        Some([plain, _, tls]) => (plain, tls),
        None => (free_port(), free_port()),
    };
    let mut layout = lay_out(plan, files, |transport| if transport == Transport::Tls { tls } else { plain });
    let (first, last) = plan.relay_ports;
    let mut lines = format!(
        "realm={REALM}\nuse-auth-secret\nstatic-auth-secret={SECRET}\nlistening-port={plain}\n\
         tls-listening-port={tls}\nmin-port={first}\nmax-port={last}\nno-cli\n\
         cli-password=unused\nlog-file=stdout\ncert={}\npkey={}\npidfile={}\nuserdb={}\n",
        layout.cert.display(),
        layout.key.display(),
        files.path("pid").display(),
        files.path("userdb").display(),
    );
    if !plan.allow.is_empty() {
        lines.push_str("allow-loopback-peers\n");
    }
    lines.push_str(&plan.coturn);
    let mut listening: Vec<IpAddr> = plan.listeners.iter().map(|(_, address)| *address).collect();
    listening.dedup();
    for address in listening {
        writeln!(lines, "listening-ip={address}").unwrap();
    }
    for address in &plan.relay {
        writeln!(lines, "relay-ip={address}").unwrap();
    }
    layout.config = files.write("turnserver.conf", &lines);
    layout
}

fn lay_out(plan: &Plan, files: &Directory, mut port: impl FnMut(Transport) -> u16) -> Layout {
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let name = plan.name.unwrap_or("first.test");
    certs::write(Kind::Good, name, &cert, &key);
    files.write("ca.pem", &certs::made(Kind::Good, name).ca);
    let listeners = plan.listeners.iter();
    Layout {
        listeners: listeners.map(|&(kind, ip)| (kind, SocketAddr::new(ip, port(kind)))).collect(),
        admin: SocketAddr::new(LOCAL_V4, free_port()),
        config: PathBuf::new(),
        cert,
        key,
    }
}

/// Returns a port that is free for UDP and TCP on every address, and never the same twice per process: servers that
/// share a port by SO_REUSEPORT would take each other's clients. The kernel gives none of these ports to a socket that
/// asks for any, so the port stays free while nobody listens there.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(FREE_PORTS.1 - FREE_PORTS.0) + 1;
    // Other test processes begin elsewhere.
    let first = std::process::id().wrapping_mul(101);
    for _ in 0..count {
        let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = FREE_PORTS.0 + u16::try_from(number).expect("below the count");
        let any = (Ipv6Addr::UNSPECIFIED, port);
        if let (Ok(_), Ok(_)) = (TcpListener::bind(any), UdpSocket::bind(any)) {
            return port;
        }
    }
    panic!("no free port between {} and {}", FREE_PORTS.0, FREE_PORTS.1);
}

fn quoted(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(|item| format!("\"{}\"", item.to_string())).collect();
    format!("[{}]", items.join(", "))
}
