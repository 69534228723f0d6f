//! Which address is relayed from, on hosts of every kind: across a router, by every way in, to peers that know only what
//! the client was told.
//!
//! The client is at 198.18.1.2 and 2001:db8:1::2, the host at 198.18.2.2 and 2001:db8:2::2, peers at 198.18.3.2 and
//! 2001:db8:3::2, and the router at .1 and ::1 of each.

use std::any::Any;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::client::{Client, Link, PATIENCE};
use super::support::codec::{ADDITIONAL_FAMILY, REQUESTED_FAMILY};
use super::support::http::get;
use super::support::namespace::{self, Lab, shell, within};
use super::support::plan::Plan;
use super::support::server::{Server, skip_on_coturn};
use super::support::stun::{ALLOCATE, DATA, Message, REQUESTED_TRANSPORT, UDP, XOR_RELAYED_ADDRESS};
use super::support::{alone, beside_others, tls};

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2);
const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
const SHARED_PORT: u16 = 443;
/// TLS behind a proxy on the same host.
const PROXIED_PORT: u16 = 5350;

/// A way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Udp,
    Tcp,
    Tls,
    /// TLS through a proxy on the host, which names the client.
    Proxy,
    /// TLS on the port that is shared with the web.
    Shared,
}

const WAYS: [Way; 5] = [Way::Udp, Way::Tcp, Way::Tls, Way::Proxy, Way::Shared];

/// A host with its server.
struct Host {
    lab: Lab,
    server: Server,
    /// The test's turn on this machine, which ends with it.
    _turn: Box<dyn Any>,
}

/// A lab whose host is as `set_up` makes it of the usual one.
fn lab(set_up: impl FnOnce(&Lab)) -> Lab {
    let lab = Lab::new();
    lab.add_ipv6();
    set_up(&lab);
    lab
}

/// A server on all addresses, without `[relay] addresses`.
fn plan(lab: &Lab) -> Plan {
    let mut plan = Plan::on(&[Ipv6Addr::UNSPECIFIED.into()], &[namespace::PEER_NET, "2001:db8:3::/64"]);
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
    /// A host that `set_up` made of the usual one, with its server; `None` if these tests are for another server, which fails
    /// most of them.
    fn start(set_up: impl FnOnce(&Lab)) -> Option<Host> {
        Host::start_with(set_up, |_| {})
    }

    fn start_with(set_up: impl FnOnce(&Lab), change: impl FnOnce(&mut Plan)) -> Option<Host> {
        Host::start_in(beside_others, set_up, change)
    }

    fn start_in<T: Any>(
        turn: fn() -> T,
        set_up: impl FnOnce(&Lab),
        change: impl FnOnce(&mut Plan),
    ) -> Option<Host> {
        if skip_on_coturn("relay addresses on hosts of every kind") {
            return None;
        }
        let _turn = Box::new(turn());
        let lab = lab(set_up);
        let mut plan = plan(&lab);
        change(&mut plan);
        let server = Server::start(&plan);
        Some(Host { lab, server, _turn })
    }

    /// A client that comes in this way at an address of the host.
    fn client(&self, way: Way, at: IpAddr) -> Client {
        let link = match way {
            Way::Proxy => {
                let stream = within(&self.lab.server, || {
                    TcpStream::connect((Ipv4Addr::LOCALHOST, PROXIED_PORT)).expect("the proxied listener")
                });
                let from: IpAddr = if at.is_ipv4() { namespace::CLIENT.into() } else { CLIENT6.into() };
                Link::Tls(Box::new(over_tls(stream, Some((from, at)))))
            }
            _ => within(&self.lab.client, || {
                let tcp = |port| TcpStream::connect((at, port)).expect("a listener");
                match way {
                    Way::Udp => {
                        let any: IpAddr = if at.is_ipv4() {
                            Ipv4Addr::UNSPECIFIED.into()
                        } else {
                            Ipv6Addr::UNSPECIFIED.into()
                        };
                        let socket = UdpSocket::bind((any, 0)).expect("bind");
                        socket.connect((at, PORT)).expect("connect");
                        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
                        Link::Udp(socket)
                    }
                    Way::Tcp => {
                        let stream = tcp(PORT);
                        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                        Link::Tcp(stream)
                    }
                    Way::Tls => Link::Tls(Box::new(over_tls(tcp(TLS_PORT), None))),
                    _ => Link::Tls(Box::new(over_tls(tcp(SHARED_PORT), None))),
                }
            }),
        };
        Client::log_in(link, self.server.credentials("ann"))
    }

    /// What a client is told that came in this way at `at` and asks for these families, or the error code.
    fn relayed(&self, way: Way, at: IpAddr, families: Families) -> (Client, Result<Vec<SocketAddr>, u16>) {
        let mut client = self.client(way, at);
        let answer = client.ask(ALLOCATE, families.attributes());
        let relayed = match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(answer.xor_addresses(XOR_RELAYED_ADDRESS)),
        };
        (client, relayed)
    }

    /// Checks every way in at `at`: clients are told these addresses, and peers outside reach them there.
    fn relays_from(&self, at: IpAddr, v4: Result<IpAddr, u16>, v6: Result<IpAddr, u16>) {
        for way in WAYS {
            for families in [Families::V4, Families::V6, Families::Both] {
                let expected = match families {
                    Families::V4 => v4.map(|ip| vec![ip]),
                    Families::V6 => v6.map(|ip| vec![ip]),
                    Families::Both => match [v4, v6].into_iter().flatten().collect::<Vec<_>>() {
                        none if none.is_empty() => v4.map(|ip| vec![ip]),
                        some => Ok(some),
                    },
                };
                let (mut client, relayed) = self.relayed(way, at, families);
                let addresses = relayed.clone().map(|all| all.iter().map(SocketAddr::ip).collect::<Vec<_>>());
                assert_eq!(addresses, expected, "{way:?} at {at}, {families:?}\n{}", self.server.log());
                for announced in relayed.unwrap_or_default() {
                    self.carries_media(&mut client, announced);
                }
            }
        }
    }

    /// A peer gets what the client sends from the announced address, and reaches the client there.
    fn carries_media(&self, client: &mut Client, announced: SocketAddr) {
        let ip: IpAddr = if announced.is_ipv4() { namespace::PEER.into() } else { PEER6.into() };
        let socket = within(&self.lab.peer, || UdpSocket::bind((ip, 0)).expect("a peer"));
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let peer = socket.local_addr().expect("local");
        assert_eq!(client.permit(peer), 0);
        client.send_to(peer, b"from the client");
        let mut buffer = [0; 100];
        let received = loop {
            match socket.recv_from(&mut buffer) {
                // The machine was stopped for a moment.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        let (len, from) =
            received.unwrap_or_else(|error| panic!("from {announced}: {error}\n{}", self.server.log()));
        assert_eq!((&buffer[..len], from), (&b"from the client"[..], announced));
        socket.send_to(b"from the peer", announced).expect("send");
        let data = Message::parse(&client.receive().expect("from the peer"));
        assert_eq!(data.attribute(DATA), Some(&b"from the peer"[..]));
    }

    /// Runs a command on the host with a configuration beside the one in use. Returns its exit status and its errors.
    fn run(&self, command: &str, config: &str) -> (Option<i32>, String) {
        let admin = format!("[admin]\naddress = \"{}\"", self.server.admin());
        let path = self.server.files().write("other.toml", &config.replace(&admin, ""));
        let run = within(&self.lab.server, || {
            let mut hallpass = Command::new(env!("CARGO_BIN_EXE_hallpass"));
            hallpass.args([command, "--config"]).arg(&path).output().expect("it runs")
        });
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    }

    /// What `/readyz` says.
    fn readiness(&self) -> (u16, String) {
        let admin = self.server.admin();
        within(&self.lab.server, || get(admin, "/readyz"))
    }

    /// Waits until there are so many allocations.
    fn until_allocations(&self, expected: u64) {
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

    /// Waits until an Allocate at `at` is answered with this; returns how long it took.
    fn until_relayed(&self, at: IpAddr, expected: Result<IpAddr, u16>) -> Duration {
        let start = Instant::now();
        loop {
            let (_, relayed) = self.relayed(Way::Udp, at, Families::V4);
            if relayed.clone().map(|all| all[0].ip()) == expected {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "{relayed:?}, not {expected:?}\n{}", self.server.log());
        }
    }
}

/// TLS over a connection, behind a PROXY header for a client and the address that it reached.
fn over_tls(mut stream: TcpStream, proxied: Option<(IpAddr, IpAddr)>) -> tls::TlsStream {
    if let Some((from, to)) = proxied {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        write!(stream, "PROXY {family} {from} {to} 40000 {TLS_PORT}\r\n").expect("send");
    }
    tls::over(stream, tls::client())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Families {
    V4,
    V6,
    Both,
}

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

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

const SERVER: IpAddr = IpAddr::V4(namespace::SERVER);

#[test]
fn both_families() {
    let Some(host) = Host::start(|_| {}) else { return };
    for at in [SERVER, SERVER6.into()] {
        host.relays_from(at, Ok(SERVER), Ok(SERVER6.into()));
    }
}

#[test]
fn one_ipv4_address() {
    let Some(host) = Host::start(|lab| shell(&lab.server, "ip -6 addr flush dev up0 scope global")) else {
        return;
    };
    host.relays_from(SERVER, Ok(SERVER), Err(440));
}

#[test]
fn ipv6_alone() {
    let Some(host) = Host::start(|lab| shell(&lab.server, "ip -4 addr flush dev up0")) else { return };
    host.relays_from(SERVER6.into(), Err(440), Ok(SERVER6.into()));
}

/// Of two addresses each client gets the one that it reached.
#[test]
fn two_ipv4_addresses() {
    let Some(host) = Host::start(|lab| shell(&lab.server, "ip addr add 198.18.2.3/24 dev up0")) else {
        return;
    };
    for at in [SERVER, ip("198.18.2.3")] {
        host.relays_from(at, Ok(at), Ok(SERVER6.into()));
    }
    host.relays_from(SERVER6.into(), Ok(SERVER), Ok(SERVER6.into()));
}

/// The bridge has the lower index, and its address is what a client of the other family must not get.
#[test]
fn a_bridge_of_containers_comes_first() {
    let Some(host) = Host::start(|lab| {
        shell(
            &lab.server,
            "ip link add docker0 type veth peer name c0; ip link set c0 up; ip link set docker0 up\n\
             ip addr add 172.17.0.1/16 dev docker0; ip addr add fd00:17::1/64 dev docker0 nodad",
        );
        lab.connect_server_again();
        shell(&lab.router, "ip addr add 2001:db8:2::1/64 dev server nodad");
        shell(
            &lab.server,
            "ip addr add 2001:db8:2::2/64 dev up0 nodad; ip route replace default via 2001:db8:2::1",
        );
    }) else {
        return;
    };
    for at in [SERVER, SERVER6.into()] {
        host.relays_from(at, Ok(SERVER), Ok(SERVER6.into()));
    }
}

/// The link to the router is private, as at some hosting companies, and the public addresses are on loopback.
#[test]
fn public_addresses_on_loopback() {
    let Some(host) = Host::start(|lab| {
        shell(
            &lab.router,
            "ip addr flush dev server scope global; ip addr add 10.9.0.1/24 dev server\n\
             ip addr add fd00:9::1/64 dev server nodad; ip route add 198.18.2.2 via 10.9.0.2\n\
             ip route add 2001:db8:2::2 via fd00:9::2",
        );
        shell(
            &lab.server,
            "ip addr flush dev up0 scope global; ip addr add 10.9.0.2/24 dev up0; ip addr add fd00:9::2/64 dev up0 nodad\n\
             ip addr add 198.18.2.2/32 dev lo; ip addr add 2001:db8:2::2/128 dev lo nodad\n\
             ip route replace default via 10.9.0.1; ip route replace default via fd00:9::1",
        );
    }) else {
        return;
    };
    for at in [SERVER, SERVER6.into()] {
        host.relays_from(at, Ok(SERVER), Ok(SERVER6.into()));
    }
}

/// A cloud machine: a private address, and a router that translates a public one.
fn behind_nat(lab: &Lab) {
    shell(&lab.router, "ip addr flush dev server scope global; ip addr add 10.9.0.1/24 dev server");
    lab.firewall("nat hook prerouting priority 0", &["ip daddr 198.18.2.2 dnat to 10.9.0.2"]);
    lab.firewall("nat hook postrouting priority 0", &["ip saddr 10.9.0.2 snat to 198.18.2.2"]);
    shell(
        &lab.server,
        "ip addr flush dev up0 scope global; ip addr add 10.9.0.2/24 dev up0; ip route replace default via 10.9.0.1",
    );
}

#[test]
fn a_private_address_behind_one_to_one_nat() {
    // With an inner network beside it, whose address must not announce the public one, too.
    let inner = "ip link add in0 type veth peer name in1; ip link set in1 up; ip link set in0 up; ip addr add 10.8.0.1/24 dev in0";
    let set_up = |lab: &Lab| {
        behind_nat(lab);
        shell(&lab.server, inner);
    };
    let Some(host) = Host::start_with(set_up, |plan| plan.external = vec![SERVER]) else { return };
    host.relays_from(SERVER, Ok(SERVER), Err(440));
}

/// Only the kernel's routes say that these addresses are the host's: UDP is answered from the one that was asked.
#[test]
fn addresses_that_exist_only_as_a_route() {
    let Some(host) = Host::start(|lab| {
        shell(
            &lab.router,
            "ip route add 198.18.5.0/24 via 198.18.2.2; ip route add 2001:db8:5::/64 via 2001:db8:2::2\n\
             ip route add 198.18.6.1 via 198.18.2.2",
        );
        shell(
            &lab.server,
            "ip route add local 198.18.5.0/24 dev lo; ip route add local 2001:db8:5::/64 dev lo\n\
             ip route add local 198.18.6.1 dev lo",
        );
    }) else {
        return;
    };
    for at in ["198.18.5.9", "2001:db8:5::9"] {
        host.relays_from(ip(at), Ok(SERVER), Ok(SERVER6.into()));
    }
    host.relays_from(ip("198.18.6.1"), Ok(ip("198.18.6.1")), Ok(SERVER6.into()));
}

/// The server starts before the network is up, says that it is not ready, and is as soon as it may be.
#[test]
fn an_address_arrives_late() {
    let set_up = |lab: &Lab| shell(&lab.server, "ip addr flush dev up0 scope global");
    let Some(host) = Host::start_with(set_up, |plan| plan.started = "no address that clients elsewhere")
    else {
        return;
    };
    let (status, text) = host.readiness();
    assert!(status == 503 && text.contains("an address to relay from"), "{status} {text}");
    shell(
        &host.lab.server,
        "ip addr add 198.18.2.2/24 dev up0; ip route replace default via 198.18.2.1\n\
         ip addr add 2001:db8:2::2/64 dev up0; ip route replace default via 2001:db8:2::1",
    );
    let took = host.until_relayed(SERVER, Ok(SERVER));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(host.server.wait_log(PATIENCE, |log| log.lines().any(|line| line == "ready")));
    assert_eq!(host.readiness().0, 200);
    // IPv6 is usable once the kernel has looked for duplicates.
    let relays_ipv6 = |line: &str| line.contains("relaying from") && line.contains("2001:db8:2::2");
    assert!(host.server.wait_log(PATIENCE, |log| log.lines().any(relays_ipv6)));
    host.relays_from(SERVER, Ok(SERVER), Ok(SERVER6.into()));
}

/// DHCP gives another address: calls on the old one end, with a line in the log; those on one that stays go on.
#[test]
fn an_address_is_replaced() {
    let Some(host) = Host::start(|_| {}) else { return };
    let (mut ends, relayed) = host.relayed(Way::Udp, SERVER6.into(), Families::V4);
    assert_eq!(relayed.map(|all| all[0].ip()), Ok(SERVER));
    let (mut stays, relayed) = host.relayed(Way::Udp, SERVER6.into(), Families::V6);
    let announced = relayed.expect("allocated")[0];
    shell(
        &host.lab.server,
        "ip addr add 198.18.2.7/24 dev up0; ip addr del 198.18.2.2/24 dev up0\n\
         ip addr add 198.18.2.7/24 dev up0 2>/dev/null || true; ip route replace default via 198.18.2.1",
    );
    let took = host.until_relayed(SERVER6.into(), Ok(ip("198.18.2.7")));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(host.server.wait_log(PATIENCE, |log| log.contains("address gone")), "{}", host.server.log());
    assert_eq!(ends.refresh(600), 437, "the client is told");
    host.carries_media(&mut stays, announced);
    host.relays_from(ip("198.18.2.7"), Ok(ip("198.18.2.7")), Ok(SERVER6.into()));
}

/// The renewal of a lease removes the address for a moment: no new calls meanwhile, and the running ones go on after it.
#[test]
fn an_address_returns_within_seconds() {
    let Some(host) = Host::start(|_| {}) else { return };
    let (mut stays, relayed) = host.relayed(Way::Udp, SERVER6.into(), Families::V4);
    let announced = relayed.expect("allocated")[0];
    for _ in 0..3 {
        shell(&host.lab.server, "ip addr del 198.18.2.2/24 dev up0");
        host.until_relayed(SERVER6.into(), Err(440));
        shell(&host.lab.server, "ip addr add 198.18.2.2/24 dev up0; ip route add default via 198.18.2.1");
        host.until_relayed(SERVER6.into(), Ok(SERVER));
        host.carries_media(&mut stays, announced);
    }
    assert_eq!(stays.refresh(600), 0);
    assert!(!host.server.log().contains("address gone"), "{}", host.server.log());
}

/// While there is no default route an inner network looks as if it led out, and its address comes first. It must neither
/// take the place of the one in use nor announce the public address.
#[test]
fn a_lost_default_route_keeps_the_address_in_use() {
    let set_up = |lab: &Lab| {
        shell(
            &lab.server,
            "ip link add in0 type veth peer name in1; ip link set in1 up; ip link set in0 up; ip addr add 10.8.0.1/24 dev in0",
        );
        lab.connect_server_again();
        behind_nat(lab);
    };
    let Some(host) = Host::start_with(set_up, |plan| plan.external = vec![SERVER]) else { return };
    let (mut stays, relayed) = host.relayed(Way::Udp, SERVER, Families::V4);
    let announced = relayed.expect("allocated")[0];
    assert_eq!(announced.ip(), SERVER);
    // The server lists its addresses, without a way out, once it names the second one.
    shell(&host.lab.server, "ip route del default; ip addr add 10.8.0.2/24 dev in0");
    let seen = |log: &str| log.contains("added=\"10.8.0.2\"");
    assert!(host.server.wait_log(PATIENCE, seen), "{}", host.server.log());
    shell(&host.lab.server, "ip route add default via 10.9.0.1; ip addr add 10.8.0.3/24 dev in0");
    let seen = |log: &str| log.contains("added=\"10.8.0.3\"");
    assert!(host.server.wait_log(PATIENCE, seen), "{}", host.server.log());
    host.carries_media(&mut stays, announced);
    assert_eq!(stays.refresh(600), 0);
    let log = host.server.log();
    assert_eq!(log.matches("relaying from").count(), 1, "{log}");
    assert!(!log.contains("address gone") && !log.contains("would announce"), "{log}");
}

/// A connection for this name would come back to the server again and again.
#[test]
fn a_back_end_that_is_our_own_listener_is_refused() {
    let Some(host) = Host::start(|_| {}) else { return };
    let files = host.server.files();
    let written = std::fs::read_to_string(files.path("hallpass.toml")).expect("the configuration");
    let looped = format!(
        "{written}\n[web]\nproxy_protocol = 'v1'\npassthrough = {{ 'bbb.example.org' = '{SERVER}:{SHARED_PORT}' }}\n"
    );
    let told = "error: web.passthrough: 198.18.2.2:443 is this relay's own listener tls [::]:443";
    for command in ["check", "serve"] {
        let (code, text) = host.run(command, &looped);
        assert!(code == Some(1) && text.contains(told), "{command}: {text}");
    }
    // A reload keeps the listeners, whatever the file says of them now.
    files.write("hallpass.toml", &looped.replace("'[::]:443'", "'[::]:444'"));
    host.server.signal("HUP");
    let stays = |log: &str| log.contains(told) && log.contains("the configuration in use stays");
    assert!(host.server.wait_log(PATIENCE, stays), "{}", host.server.log());
}

/// Listeners on addresses that are there serve at once, the others as soon as theirs is.
#[test]
fn one_of_several_listener_addresses_arrives_late() {
    let late = ip("198.18.2.9");
    let Some(host) = Host::start_with(
        |_| {},
        |plan| {
            plan.listeners = Plan::on(&[SERVER, late], &[]).listeners;
            plan.started = "this machine does not have the address";
        },
    ) else {
        return;
    };
    let (status, text) = host.readiness();
    assert!(status == 503 && text.contains("the address of a listener"), "{status} {text}");
    host.relays_from(SERVER, Ok(SERVER), Ok(SERVER6.into()));
    assert!(!host.server.log().lines().any(|line| line == "ready"), "{}", host.server.log());
    shell(&host.lab.server, "ip addr add 198.18.2.9/24 dev up0");
    host.until_relayed(late, Ok(late));
    host.relays_from(late, Ok(late), Ok(SERVER6.into()));
    assert!(host.server.wait_log(PATIENCE, |log| log.lines().any(|line| line == "ready")));
    assert_eq!(host.readiness().0, 200);
    let written =
        std::fs::read_to_string(host.server.files().path("hallpass.toml")).expect("the configuration");
    let (code, text) = host.run("check", &written.replace("198.18.2.9", "198.18.2.10"));
    assert!(code == Some(0) && text.matches("does not have the address of").count() == 3, "{code:?} {text}");
}

/// Without IPv6 in the kernel, listeners on `[::]` serve IPv4: if only the addresses are switched off, and if there are no
/// such sockets at all.
#[test]
fn a_kernel_without_ipv6() {
    // Refuses them as a kernel without IPv6 does: seccomp(2) with a filter for socket(2).
    const NO_SOCKETS: &str = "\
import ctypes, os, platform, struct, sys
socket = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 2, socket), (0x20, 0, 0, 16), (0x15, 1, 0, 10), (0x06, 0, 0, 0x7fff0000),
    (0x06, 0, 0, 0x00050000 + 97)]
filter = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *one) for one in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(code), ctypes.addressof(filter)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
";
    for has_sockets in [true, false] {
        let no_addresses = |lab: &Lab| shell(&lab.server, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let Some(host) = Host::start_with(no_addresses, |plan| {
            if !has_sockets {
                plan.wrapper = ["/usr/bin/python3", "-c", NO_SOCKETS].map(String::from).to_vec();
            }
        }) else {
            return;
        };
        host.relays_from(SERVER, Ok(SERVER), Err(440));
        let told = host.server.log().matches("listeners on [::] serve IPv4 alone").count();
        assert_eq!(told, usize::from(!has_sockets), "{}", host.server.log());
        assert_eq!(host.readiness().0, 200);
    }
}

/// What can never work ends the start, and `check` names the rest.
#[test]
fn a_configuration_that_does_not_fit_the_machine() {
    let Some(host) = Host::start(|lab| shell(&lab.server, "ip -6 addr flush dev up0 scope global")) else {
        return;
    };
    let written =
        std::fs::read_to_string(host.server.files().path("hallpass.toml")).expect("the configuration");
    let with = |pair: &str| written.replace("external_ip = []", &format!("external_ip = [\"{pair}\"]"));
    let swapped = with("198.18.2.2/203.0.113.50");
    for command in ["check", "serve"] {
        let (code, text) = host.run(command, &swapped);
        assert!(code == Some(1) && text.contains("write \"203.0.113.50/198.18.2.2\""), "{command}: {text}");
    }
    let (code, text) = host.run("check", &with("203.0.113.50/10.0.0.5"));
    assert!(code == Some(0) && text.contains("this machine does not have 10.0.0.5"), "{code:?} {text}");
    let unreached = "no client reaches the peers 2001:db8:3::/64: this relay has no IPv6 address";
    assert!(text.contains(unreached), "{text}");
    assert!(host.server.log().contains(unreached), "{}", host.server.log());
}

/// Addresses come and go under many calls: those on addresses that stay lose nothing, and nothing is left of the others.
#[test]
fn a_hundred_changes_under_two_hundred_calls() {
    let Some(host) = Host::start_in(alone, |_| {}, |_| {}) else { return };
    let echo = host.lab.start_peer();
    let mut calls: Vec<Client> = (0..200)
        .map(|number| {
            let at = if number % 2 == 0 { SERVER } else { SERVER6.into() };
            let (mut client, relayed) = host.relayed(WAYS[number % WAYS.len()], at, Families::V4);
            assert_eq!(relayed.map(|all| all[0].ip()), Ok(SERVER));
            assert_eq!(client.permit(echo), 0);
            client
        })
        .collect();
    let (descriptors, memory) = (held(&host, "fd"), resident(&host));
    for change in 0..100 {
        let (address, number) = (ip("198.18.2.9"), change % 200);
        shell(&host.lab.server, "ip addr add 198.18.2.9/24 dev up0");
        host.until_relayed(address, Ok(address));
        shell(&host.lab.server, "ip addr del 198.18.2.9/24 dev up0");
        calls[number].echo(echo, 20);
        calls[199 - number].echo(echo, 20);
    }
    host.until_allocations(200);
    assert!(held(&host, "fd") <= descriptors + 5, "{} descriptors, {descriptors} before", held(&host, "fd"));
    assert!(resident(&host) < memory + (4 << 10), "{} KiB, {memory} before", resident(&host));
    for call in &mut calls {
        assert_eq!(call.refresh(600), 0);
        call.echo(echo, 5);
    }
}

/// Entries in a directory of the server in /proc.
fn held(host: &Host, of: &str) -> usize {
    std::fs::read_dir(format!("/proc/{}/{of}", host.server.pid())).expect("the server runs").count()
}

/// Resident memory in KiB.
fn resident(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
