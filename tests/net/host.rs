//! A host of any kind with a relay server. A router connects it with a client and a peer.
//!
//! The client is at 198.18.1.2 and 2001:db8:1::2, the host at 198.18.2.2 and 2001:db8:2::2, peers at 198.18.3.2 and
//! 2001:db8:3::2, and the router at .1 and ::1 of each.

use std::any::Any;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::client::{Client, Link, PATIENCE};
use super::support::codec::{ADDITIONAL_FAMILY, ADDRESS_ERROR_CODE, REQUESTED_FAMILY};
use super::support::credentials::Credentials;
use super::support::http::get;
use super::support::namespace::{self, Lab, within};
use super::support::plan::Plan;
use super::support::server::{Server, skip_on_coturn};
use super::support::stun::{ALLOCATE, DATA, Message, REQUESTED_TRANSPORT, Session, UDP, XOR_RELAYED_ADDRESS};
use super::support::{beside_others, tls};

pub const SERVER: IpAddr = IpAddr::V4(namespace::SERVER);
pub const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2));
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2);
/// The network of the IPv6 peer.
const PEER6_NET: &str = "2001:db8:3::/64";
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
pub const SHARED_PORT: u16 = 443;
/// TLS behind a proxy on the same host.
const PROXIED_PORT: u16 = 5350;
/// How long to wait for an answer that may never come.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Udp,
    Tcp,
    Tls,
    /// TLS through a proxy on the host, which sends the client's address in a PROXY header.
    Proxy,
    /// TLS on the port that is shared with the web.
    Shared,
}

pub const WAYS: [Way; 5] = [Way::Udp, Way::Tcp, Way::Tls, Way::Proxy, Way::Shared];

/// The families that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

pub const FAMILIES: [Families; 3] = [Families::V4, Families::V6, Families::Both];

impl Families {
    fn attributes(self) -> &'static [(u16, &'static [u8])] {
        const V6: &[u8] = &[2, 0, 0, 0];
        match self {
            Families::V4 => &[(REQUESTED_TRANSPORT, &UDP)],
            Families::V6 => &[(REQUESTED_TRANSPORT, &UDP), (REQUESTED_FAMILY, V6)],
            Families::Both => &[(REQUESTED_TRANSPORT, &UDP), (ADDITIONAL_FAMILY, V6)],
        }
    }
}

/// The answer to an Allocate: the relayed address of each family, or the error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub v4: Result<IpAddr, u16>,
    pub v6: Result<IpAddr, u16>,
}

impl Told {
    /// Returns the answer for a client that asks for these families. Of both, one is enough (RFC 8656 section 7.2).
    fn of(self, families: Families) -> Result<Vec<IpAddr>, u16> {
        match families {
            Families::V4 => self.v4.map(|ip| vec![ip]),
            Families::V6 => self.v6.map(|ip| vec![ip]),
            Families::Both => match [self.v4, self.v6].into_iter().flatten().collect::<Vec<_>>() {
                none if none.is_empty() => self.v4.map(|ip| vec![ip]),
                some => Ok(some),
            },
        }
    }
}

/// What happens to media through a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// The peer receives from the announced address, and the client receives what the peer sends there.
    Flows,
    NothingToPeer,
    NothingFromPeer,
    /// The peer receives from this address, which is not the announced one.
    From(IpAddr),
    /// CreatePermission fails with this code, although the peer has the family of the announced address.
    Refused(u16),
}

/// A host with its server.
pub struct Host {
    pub lab: Lab,
    pub server: Server,
    ann: Credentials,
    /// The lock of `alone` or `beside_others`, released on drop.
    _lock: Box<dyn Any>,
}

/// A server on all addresses, without `[relay] addresses`.
fn plan(lab: &Lab) -> Plan {
    let mut plan = Plan::on(&[Ipv6Addr::UNSPECIFIED.into()], &[namespace::PEER_NET, PEER6_NET]);
    plan.relay.clear();
    plan.ports = Some([PORT, PORT, TLS_PORT]);
    plan.namespace = Some(lab.server.clone());
    plan.tables = format!(
        "[[listen]]\ntransport = 'tls'\naddress = '[::]:{SHARED_PORT}'\nweb = true\n\
         [[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:{PROXIED_PORT}'\nproxy_protocol = ['127.0.0.0/8']\n"
    );
    plan
}

impl Host {
    /// Starts the usual host, changed by `set_up`, and its server; `None` if the tests run against coturn, which fails most
    /// of them.
    pub fn start(set_up: impl FnOnce(&Lab)) -> Option<Host> {
        Host::start_with(set_up, |_| {})
    }

    pub fn start_with(set_up: impl FnOnce(&Lab), change: impl FnOnce(&mut Plan)) -> Option<Host> {
        Host::start_in(beside_others, set_up, change)
    }

    pub fn start_in<T: Any>(
        lock: fn() -> T,
        set_up: impl FnOnce(&Lab),
        change: impl FnOnce(&mut Plan),
    ) -> Option<Host> {
        if skip_on_coturn("relay addresses on hosts of every kind") {
            return None;
        }
        Some(Host::start_any(lock, set_up, change))
    }

    /// Does the same, also if the tests run against coturn.
    pub fn start_any<T: Any>(
        lock: fn() -> T,
        set_up: impl FnOnce(&Lab),
        change: impl FnOnce(&mut Plan),
    ) -> Host {
        let _lock = Box::new(lock());
        let lab = Lab::new();
        lab.add_ipv6();
        set_up(&lab);
        let mut plan = plan(&lab);
        change(&mut plan);
        let server = Server::start(&plan);
        let ann = server.credentials("ann");
        Host { lab, server, ann, _lock }
    }

    /// Connects a client in this way to an address of the host.
    pub fn client(&self, way: Way, at: IpAddr) -> Client {
        self.try_client(way, at, self.ann.clone(), PATIENCE)
            .unwrap_or_else(|error| panic!("{way:?} at {at}: {error}\n{}", self.server.log()))
    }

    /// Does the same for any user; fails if the server does not answer within `patience`.
    pub fn try_client(
        &self,
        way: Way,
        at: IpAddr,
        user: Credentials,
        patience: Duration,
    ) -> io::Result<Client> {
        let link = match way {
            Way::Proxy => {
                let proxied = (Ipv4Addr::LOCALHOST, PROXIED_PORT);
                let stream = within(&self.lab.server, || TcpStream::connect(proxied))?;
                let from: IpAddr = if at.is_ipv4() { namespace::CLIENT.into() } else { CLIENT6.into() };
                over_tls(stream, Some((from, at)))
            }
            _ => within(&self.lab.client, || connect(way, at))?,
        };
        link.wait_at_most(patience);
        Client::try_join(link, &Session::new(user, b""))
    }

    /// Connects a client in this way to `at` and allocates for these families. Returns it with its relayed addresses, or the
    /// error code.
    pub fn relayed(
        &self,
        way: Way,
        at: IpAddr,
        families: Families,
    ) -> (Client, Result<Vec<SocketAddr>, u16>) {
        let mut client = self.client(way, at);
        let answer = client.ask(ALLOCATE, families.attributes());
        let relayed = addresses(&answer);
        if let (Families::Both, Ok([one])) = (families, relayed.as_deref()) {
            // ADDRESS-ERROR-CODE says why the other family is missing (RFC 8656 section 7.2).
            let refused = if one.is_ipv4() { 2 } else { 1 };
            let code = answer.attribute(ADDRESS_ERROR_CODE).map(|value| &value[..4]);
            assert_eq!(code, Some(&[refused, 0, 4, 40][..]), "{answer:?}");
        }
        (client, relayed)
    }

    /// Checks what holds on every host: a server that reports ready relays for every client. It refuses only a family that
    /// it has no address of, with the code of the RFC, and `check` explains it.
    ///
    /// Each way in at `at` is tested with each choice of families: the client gets the addresses in `told`, and media flows
    /// through them between the client and a peer beyond the router.
    pub fn relays_from(&self, at: IpAddr, told: Told) {
        for way in WAYS {
            for families in FAMILIES {
                self.holds(way, at, families, told);
            }
        }
        self.explains(told);
    }

    /// Checks one way in with one choice of families.
    pub fn holds(&self, way: Way, at: IpAddr, families: Families, told: Told) {
        let (mut client, relayed) = self.relayed(way, at, families);
        let expected = told.of(families);
        let cell = format!("{way:?} at {at}, {families:?}");
        let addresses = relayed.clone().map(|all| all.iter().map(SocketAddr::ip).collect::<Vec<_>>());
        assert_eq!(addresses, expected, "{cell}\n{}", self.server.log());
        for announced in relayed.unwrap_or_default() {
            let media = self.media(&mut client, announced, PATIENCE);
            assert_eq!(media, Media::Flows, "{cell}: {announced}\n{}", self.server.log());
        }
    }

    /// Checks that `check` names the missing families, and that the server is not ready if it has none at all.
    pub fn explains(&self, told: Told) {
        let written = std::fs::read_to_string(self.server.files().path("hallpass.toml")).expect("written");
        let (code, text) = self.run("check", &written);
        assert_eq!(code, Some(0), "{text}");
        let relays = told.v4.is_ok() || told.v6.is_ok();
        for (family, told, peers) in [("IPv4", told.v4, namespace::PEER_NET), ("IPv6", told.v6, PEER6_NET)] {
            let lacks = format!("no client reaches the peers {peers}: this relay has no {family} address");
            let explained = match relays {
                true => text.contains(&lacks),
                false => text.contains("this machine has no address to relay from"),
            };
            assert_eq!(explained, told.is_err(), "{family}: {told:?}: {text}");
            // 440 if the other family is available, 508 if there is none at all.
            let of_the_rfc = if relays { 440 } else { 508 };
            assert_eq!(told.err().unwrap_or(of_the_rfc), of_the_rfc, "{family}");
        }
        let (status, text) = self.readiness();
        assert!(relays || status == 503, "{status} {text}: ready, although it refuses every client");
    }

    /// Sends a packet each way through a relayed address of this client.
    pub fn media(&self, client: &mut Client, announced: SocketAddr, patience: Duration) -> Media {
        let ip: IpAddr = if announced.is_ipv4() { namespace::PEER.into() } else { PEER6.into() };
        let socket = within(&self.lab.peer, || UdpSocket::bind((ip, 0)).expect("a peer"));
        socket.set_read_timeout(Some(patience)).expect("timeout");
        let peer = socket.local_addr().expect("local");
        match client.permit(peer) {
            0 => client.send_to(peer, b"from the client"),
            code => return Media::Refused(code),
        }
        let mut buffer = [0; 100];
        let received = loop {
            match socket.recv_from(&mut buffer) {
                // A process that is stopped and continued gets EINTR, because the socket has a timeout (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        let Ok((len, from)) = received else { return Media::NothingToPeer };
        assert_eq!(&buffer[..len], b"from the client");
        if from != announced {
            return Media::From(from.ip());
        }
        // Sending fails if a router without a route reports that by ICMP.
        let arrived = socket.send_to(b"from the peer", announced).and_then(|_| client.receive());
        match arrived {
            Ok(data) => assert_eq!(Message::parse(&data).attribute(DATA), Some(&b"from the peer"[..])),
            Err(_) => return Media::NothingFromPeer,
        }
        Media::Flows
    }

    /// Checks that media flows through the announced address in both directions.
    pub fn carries_media(&self, client: &mut Client, announced: SocketAddr) {
        let media = self.media(client, announced, PATIENCE);
        assert_eq!(media, Media::Flows, "{announced}\n{}", self.server.log());
    }

    /// Describes in a few words what a client gets, which may be no answer at all.
    pub fn observe(&self, way: Way, at: IpAddr, families: Families) -> String {
        let mut client = match self.try_client(way, at, self.ann.clone(), PROBE_LIMIT) {
            Ok(client) => client,
            Err(_) => return "no answer".to_owned(),
        };
        let Ok(answer) = client.try_ask(ALLOCATE, families.attributes()) else {
            return "no answer to Allocate".to_owned();
        };
        let all = match addresses(&answer) {
            Ok(all) => all,
            Err(code) => return code.to_string(),
        };
        let shown = all.into_iter().map(|announced| {
            let ip = announced.ip();
            match self.media(&mut client, announced, PROBE_LIMIT) {
                Media::Flows => format!("{ip} works"),
                Media::NothingToPeer => format!("{ip}, nothing reaches the peer"),
                Media::NothingFromPeer => format!("{ip}, the peer's packets are lost"),
                Media::From(other) => format!("{ip}, but packets come from {other}"),
                Media::Refused(code) => format!("{ip}, its peers are refused with {code}"),
            }
        });
        shown.collect::<Vec<_>>().join("; ")
    }

    /// Runs a command on the host with another configuration. Returns its exit status and standard error.
    pub fn run(&self, command: &str, config: &str) -> (Option<i32>, String) {
        let admin = format!("[admin]\naddress = \"{}\"", self.server.admin());
        let path = self.server.files().write("other.toml", &config.replace(&admin, ""));
        let run = within(&self.lab.server, || {
            let mut hallpass = Command::new(env!("CARGO_BIN_EXE_hallpass"));
            hallpass.args([command, "--config"]).arg(&path).output().expect("hallpass starts")
        });
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    }

    /// Returns the status and the body of `/readyz`.
    pub fn readiness(&self) -> (u16, String) {
        let admin = self.server.admin();
        within(&self.lab.server, || get(admin, "/readyz"))
    }

    /// Waits until the server has this many allocations.
    pub fn until_allocations(&self, expected: u64) {
        let (admin, start) = (self.server.admin(), Instant::now());
        loop {
            let (_, metrics) = within(&self.lab.server, || get(admin, "/metrics"));
            let samples = metrics.lines().filter(|line| line.starts_with("hallpass_allocations{"));
            let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
            let held: u64 = values.sum();
            if held == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{held} allocations");
        }
    }

    /// Waits until an IPv4 Allocate at `at` gets this answer; returns how long it took.
    pub fn until_relayed(&self, at: IpAddr, expected: Result<IpAddr, u16>) -> Duration {
        self.until_told(at, Families::V4, expected.map(|ip| vec![ip]))
    }

    /// Waits until an Allocate for both families at `at` gets this answer.
    pub fn until_both(&self, at: IpAddr, told: Told) {
        self.until_told(at, Families::Both, told.of(Families::Both));
    }

    fn until_told(&self, at: IpAddr, families: Families, expected: Result<Vec<IpAddr>, u16>) -> Duration {
        let start = Instant::now();
        loop {
            let (mut client, relayed) = self.relayed(Way::Udp, at, families);
            if relayed.clone().map(|all| all.iter().map(SocketAddr::ip).collect()) == expected {
                return start.elapsed();
            }
            // Relayed from another address, because the server does not know this one yet: it would stay.
            if relayed.is_ok() {
                client.refresh(0);
            }
            assert!(start.elapsed() < PATIENCE, "{relayed:?}, not {expected:?}\n{}", self.server.log());
        }
    }
}

/// Connects from the current namespace, without a proxy.
fn connect(way: Way, at: IpAddr) -> io::Result<Link> {
    let tcp = |port| TcpStream::connect((at, port));
    Ok(match way {
        Way::Udp => {
            let any: IpAddr =
                if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect((at, PORT))?;
            Link::Udp(socket)
        }
        Way::Tcp => Link::Tcp(tcp(PORT)?),
        Way::Tls => over_tls(tcp(TLS_PORT)?, None),
        Way::Shared | Way::Proxy => over_tls(tcp(SHARED_PORT)?, None),
    })
}

/// Starts TLS on a connection, after a PROXY header for this client and the address that it connected to.
fn over_tls(mut stream: TcpStream, proxied: Option<(IpAddr, IpAddr)>) -> Link {
    if let Some((from, to)) = proxied {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        write!(stream, "PROXY {family} {from} {to} 40000 {TLS_PORT}\r\n").expect("send");
    }
    Link::Tls(Box::new(tls::over(stream, tls::client())))
}

/// Returns the relayed addresses in the answer to an Allocate, or the error code.
fn addresses(answer: &Message) -> Result<Vec<SocketAddr>, u16> {
    match answer.error_code() {
        Some(code) => Err(code),
        None => Ok(answer.xor_addresses(XOR_RELAYED_ADDRESS)),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}
