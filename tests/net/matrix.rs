//! Which relayed address a client gets on hosts of every kind. Clients connect in every way ([`Way`]) and ask for IPv4,
//! IPv6 or both. Peers send to the address in the answer to Allocate.
//!
//! Hallpass must relay for each of them from the expected address, or refuse with the right code
//! ([`Host::relays_from`]). Against coturn the tests only print what they observe. The table in docs/addresses.md
//! comes from:
//! `HALLPASS_TEST_SERVER=coturn cargo test --test net matrix -- --nocapture`.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::host::{FAMILIES, Families, Host, SERVER, Told, Way, ip};
use super::support::beside_others;
use super::support::client::Client;
use super::support::namespace::{Lab, shell};
use super::support::plan::{Plan, Transport};
use super::support::server::tests_coturn;

/// A kind of host.
struct Situation {
    name: &'static str,
    /// Changes the usual host, which has one address of each family.
    set_up: fn(&Lab),
    /// `external_ip`; empty if it is not set.
    external: &'static str,
    /// Whether the server starts without an address.
    starts_without: bool,
    /// Commands on the host while the server runs.
    later: &'static str,
    cells: &'static [Cell],
}

/// One row of expectations: the address that a client connects to, and the IPv4 and the IPv6 address that the answer to
/// Allocate must have; an empty string if it must refuse that family.
type Cell = (&'static str, &'static str, &'static str);

const USUAL: Situation = Situation {
    name: "",
    set_up: |_| {},
    external: "",
    starts_without: false,
    later: "",
    cells: &[(V4, V4, V6), (V6, V4, V6)],
};
const V4: &str = "198.18.2.2";
const V6: &str = "2001:db8:2::2";

/// Time for coturn to begin to answer. Its log says that it is ready earlier, and a change of addresses delays it again.
const WARM_UP: Duration = Duration::from_secs(3);
/// How many clients ask coturn the same, because it may assign its relay addresses in rotation.
const TRIES: u32 = 4;

#[test]
fn one_ipv4_address() {
    Situation {
        name: "one IPv4 address",
        set_up: |lab| shell(&lab.server, "ip -6 addr flush dev up0 scope global"),
        cells: &[(V4, V4, "")],
        ..USUAL
    }
    .check();
}

#[test]
fn two_ipv4_addresses() {
    Situation {
        name: "two IPv4 addresses",
        set_up: |lab| shell(&lab.server, "ip addr add 198.18.2.3/24 dev up0"),
        cells: &[(V4, V4, V6), ("198.18.2.3", "198.18.2.3", V6), (V6, V4, V6)],
        ..USUAL
    }
    .check();
}

#[test]
fn both_families() {
    Situation { name: "IPv4 and IPv6", ..USUAL }.check();
}

#[test]
fn ipv6_alone() {
    Situation {
        name: "IPv6 alone",
        set_up: |lab| shell(&lab.server, "ip -4 addr flush dev up0"),
        cells: &[(V6, "", V6)],
        ..USUAL
    }
    .check();
}

/// Adds a container bridge, whose interface has a lower index than the uplink.
fn add_bridge(lab: &Lab) {
    shell(
        &lab.server,
        "ip link add docker0 type veth peer name c0; ip link set c0 up; ip link set docker0 up\n\
         ip addr add 172.17.0.1/16 dev docker0; ip addr add fd00:17::1/64 dev docker0 nodad",
    );
    lab.connect_server_again();
}

/// A client that asks for the family it did not connect with must not get the address of the bridge.
#[test]
fn a_container_bridge_has_a_lower_index_than_the_uplink() {
    Situation {
        name: "a container bridge comes first",
        set_up: |lab| {
            add_bridge(lab);
            shell(&lab.router, "ip addr add 2001:db8:2::1/64 dev server nodad");
            shell(
                &lab.server,
                "ip addr add 2001:db8:2::2/64 dev up0 nodad; ip route replace default via 2001:db8:2::1",
            );
        },
        ..USUAL
    }
    .check();
}

/// The bridge has both families and the uplink only one: an address without a route to the outside is no relay address.
#[test]
fn a_container_bridge_has_a_family_that_the_uplink_lacks() {
    Situation {
        name: "IPv6 alone, and a container bridge",
        set_up: |lab| {
            add_bridge(lab);
            shell(&lab.router, "ip addr add 2001:db8:2::1/64 dev server nodad");
            shell(
                &lab.server,
                "ip -4 addr flush dev up0; ip addr add 2001:db8:2::2/64 dev up0 nodad\n\
                 ip route replace default via 2001:db8:2::1",
            );
        },
        cells: &[(V6, "", V6)],
        ..USUAL
    }
    .check();
    Situation {
        name: "IPv4 alone, and a container bridge",
        set_up: add_bridge,
        cells: &[(V4, V4, "")],
        ..USUAL
    }
    .check();
}

/// A link to the router with private addresses; the public ones are elsewhere on the host.
fn over_a_private_link(lab: &Lab) {
    shell(
        &lab.router,
        "ip addr flush dev server scope global; ip addr add 10.9.0.1/24 dev server\n\
         ip addr add fd00:9::1/64 dev server nodad; ip route add 198.18.2.2 via 10.9.0.2\n\
         ip route add 2001:db8:2::2 via fd00:9::2",
    );
    shell(
        &lab.server,
        "ip addr flush dev up0 scope global; ip addr add 10.9.0.2/24 dev up0; ip addr add fd00:9::2/64 dev up0 nodad\n\
         ip route replace default via 10.9.0.1; ip route replace default via fd00:9::1",
    );
}

/// Some hosting companies do this.
#[test]
fn public_addresses_on_loopback() {
    Situation {
        name: "public addresses on loopback",
        set_up: |lab| {
            over_a_private_link(lab);
            shell(
                &lab.server,
                "ip addr add 198.18.2.2/32 dev lo; ip addr add 2001:db8:2::2/128 dev lo nodad",
            );
        },
        ..USUAL
    }
    .check();
}

/// As above, but on an interface without a link.
#[test]
fn public_addresses_on_an_interface_of_their_own() {
    Situation {
        name: "public addresses on an interface without a link",
        set_up: |lab| {
            shell(
                &lab.server,
                "ip link add public type bridge; ip link set public up\n\
                 ip addr add 198.18.2.2/32 dev public; ip addr add 2001:db8:2::2/128 dev public nodad",
            );
            over_a_private_link(lab);
        },
        ..USUAL
    }
    .check();
}

/// An address without a subnet: the gateway is the other end of the link, as at some cloud providers.
#[test]
fn a_point_to_point_address() {
    Situation {
        name: "a point-to-point address",
        set_up: |lab| {
            shell(
                &lab.router,
                "ip addr flush dev server scope global; ip addr add 10.255.255.1/32 dev server\n\
                 ip addr add fe80::1/64 dev server nodad; ip route add 198.18.2.2 dev server\n\
                 ip route add 2001:db8:2::2 dev server",
            );
            shell(
                &lab.server,
                "ip addr flush dev up0 scope global; ip addr add 198.18.2.2 peer 10.255.255.1 dev up0\n\
                 ip addr add 2001:db8:2::2/128 dev up0 nodad; ip route replace default via 10.255.255.1\n\
                 ip route replace default via fe80::1 dev up0",
            );
        },
        ..USUAL
    }
    .check();
}

/// A cloud machine: a private address, and a router that translates a public one.
pub fn behind_nat(lab: &Lab) {
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
    Situation {
        name: "a private address behind 1:1 NAT",
        set_up: |lab| {
            behind_nat(lab);
            // Adds an internal network. A relay on its address must not announce the public address.
            shell(
                &lab.server,
                "ip link add in0 type veth peer name in1; ip link set in1 up; ip link set in0 up\n\
                 ip addr add 10.8.0.1/24 dev in0",
            );
        },
        external: V4,
        cells: &[(V4, V4, "")],
        ..USUAL
    }
    .check();
}

/// As at the larger cloud providers: only IPv4 is translated.
#[test]
fn a_private_address_behind_nat_and_a_global_one() {
    Situation {
        name: "1:1 NAT for IPv4, and IPv6 without",
        set_up: |lab| {
            behind_nat(lab);
            shell(&lab.router, "ip addr add 2001:db8:2::1/64 dev server nodad");
            shell(
                &lab.server,
                "ip addr add 2001:db8:2::2/64 dev up0 nodad; ip route replace default via 2001:db8:2::1",
            );
        },
        external: V4,
        ..USUAL
    }
    .check();
}

/// No interface has these addresses, only local routes. A UDP answer must come from the one that the client sent to.
#[test]
fn addresses_that_exist_only_as_a_route() {
    Situation {
        name: "addresses that exist only as a route",
        set_up: |lab| {
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
        },
        cells: &[("198.18.5.9", V4, V6), ("2001:db8:5::9", V4, V6), ("198.18.6.1", "198.18.6.1", V6)],
        ..USUAL
    }
    .check();
}

/// The server starts before the network is up.
#[test]
fn all_addresses_arrive_late() {
    Situation {
        name: "the addresses arrive late",
        set_up: |lab| shell(&lab.server, "ip addr flush dev up0 scope global"),
        starts_without: true,
        later: "ip addr add 198.18.2.2/24 dev up0; ip route replace default via 198.18.2.1\n\
                ip addr add 2001:db8:2::2/64 dev up0 nodad; ip route replace default via 2001:db8:2::1",
        ..USUAL
    }
    .check();
}

#[test]
fn both_addresses_are_replaced() {
    Situation {
        name: "the addresses are replaced",
        later: "ip addr flush dev up0 scope global; ip addr add 198.18.2.7/24 dev up0\n\
                ip route replace default via 198.18.2.1; ip addr add 2001:db8:2::7/64 dev up0 nodad\n\
                ip route replace default via 2001:db8:2::1",
        cells: &[
            ("198.18.2.7", "198.18.2.7", "2001:db8:2::7"),
            ("2001:db8:2::7", "198.18.2.7", "2001:db8:2::7"),
        ],
        ..USUAL
    }
    .check();
}

/// The permanent global address, a temporary one, which the kernel itself prefers (RFC 8981), a deprecated one of a network
/// that is being renumbered, and a unique-local one.
#[test]
fn ipv6_addresses_of_every_kind() {
    Situation {
        name: "temporary, deprecated and unique-local IPv6 addresses",
        set_up: |lab| {
            shell(
                &lab.server,
                "ip -6 addr flush dev up0 scope global; sysctl -qw net.ipv6.conf.up0.use_tempaddr=2\n\
                 ip addr add 2001:db8:2::2/64 dev up0 mngtmpaddr nodad; ip addr add fd00:2::2/64 dev up0 nodad\n\
                 ip addr add 2001:db8:2::9/64 dev up0 nodad preferred_lft 0\n\
                 ip route replace default via 2001:db8:2::1",
            );
            // Wait for the end of duplicate address detection: until then the server does not list the address.
            shell(
                &lab.server,
                "until ip -6 addr show dev up0 temporary -tentative | grep -q inet6; do :; done",
            );
        },
        cells: &[(V4, V4, V6), (V6, V4, V6), ("2001:db8:2::9", V4, "2001:db8:2::9")],
        ..USUAL
    }
    .check();
}

/// A second uplink has the public addresses. Its default route is in a separate table, for packets from them.
#[test]
fn the_default_route_is_in_another_table() {
    Situation {
        name: "the default route is in a table of its own",
        set_up: |lab| {
            add_bridge(lab);
            shell(&lab.router, "ip addr flush dev server scope global; ip addr add 10.9.0.1/24 dev server");
            let link = format!("ip link add server1 type veth peer name up1 netns {}", lab.server);
            shell(&lab.router, &link);
            shell(
                &lab.router,
                "ip link set server1 up; ip addr add 198.18.2.1/24 dev server1\n\
                 ip addr add 2001:db8:2::1/64 dev server1 nodad",
            );
            shell(
                &lab.server,
                "ip addr flush dev up0 scope global; ip addr add 10.9.0.2/24 dev up0; ip link set up1 up\n\
                 ip addr add 198.18.2.2/24 dev up1; ip addr add 2001:db8:2::2/64 dev up1 nodad\n\
                 ip route add default via 198.18.2.1 table 100; ip rule add from 198.18.2.2 table 100\n\
                 ip -6 route add default via 2001:db8:2::1 table 100; ip -6 rule add from 2001:db8:2::2 table 100",
            );
        },
        ..USUAL
    }
    .check();
}

/// As above, with a private address behind NAT. The address of the bridge must not be used instead, because it has no
/// route to the outside.
#[test]
fn the_default_route_behind_nat_is_in_another_table() {
    Situation {
        name: "1:1 NAT, and the default route is in a table of its own",
        set_up: |lab| {
            add_bridge(lab);
            behind_nat(lab);
            shell(
                &lab.server,
                "ip route del default; ip route add default via 10.9.0.1 table 100; ip rule add from 10.9.0.2 table 100",
            );
        },
        external: V4,
        cells: &[(V4, V4, "")],
        ..USUAL
    }
    .check();
}

/// Only one of two local addresses with the same public address may announce it. Otherwise two clients are told the same
/// address and port, and one gets the media of the other.
#[test]
fn one_public_address_for_two_local_ones() {
    const PORTS: (u16, u16) = (20_000, 20_007);
    let host = Host::start_any(
        beside_others,
        |lab| {
            behind_nat(lab);
            lab.firewall("nat hook prerouting priority -1", &["ip daddr 198.18.2.3 dnat to 10.9.0.3"]);
            shell(&lab.server, "ip addr add 10.9.0.3/24 dev up0");
            shell(&lab.router, "ip route add 198.18.2.3 dev server");
        },
        |plan| {
            plan.relay_ports = PORTS;
            announce(plan, V4);
            on_coturn(plan, false);
        },
    );
    // More clients than one address has ports.
    let mut clients: Vec<(Client, SocketAddr)> = Vec::new();
    for number in 0..10 {
        let at = ip(["198.18.2.2", "198.18.2.3"][number % 2]);
        let user = host.server.credentials(&format!("user{number}"));
        let mut client = match host.try_client(Way::Udp, at, user, WARM_UP) {
            Err(_) if tests_coturn() => continue,
            client => client.expect("an answer"),
        };
        match client.allocate() {
            Ok(announced) => clients.push((client, announced)),
            Err(code) => assert!(tests_coturn() || code == 508, "{code}"),
        }
    }
    let told: HashSet<SocketAddr> = clients.iter().map(|(_, announced)| *announced).collect();
    if tests_coturn() {
        println!(
            "one public address for two local ones | {} clients are told {} different addresses and ports",
            clients.len(),
            told.len()
        );
        return;
    }
    assert_eq!(told.len(), clients.len(), "{told:?}");
    assert!(!clients.is_empty() && told.iter().all(|announced| announced.ip() == SERVER), "{told:?}");
    let written = std::fs::read_to_string(host.server.files().path("hallpass.toml")).expect("written");
    let (code, text) = host.run("check", &written);
    assert!(code == Some(0) && text.contains("10.9.0.3 would announce 198.18.2.2"), "{code:?} {text}");
    drop(clients);
}

impl Situation {
    /// Checks every cell, or prints what coturn does.
    fn check(self) {
        if tests_coturn() {
            for wildcard in [false, true] {
                // coturn may not start at all.
                let shown = catch_unwind(AssertUnwindSafe(|| self.observe(wildcard)));
                let shown = shown.unwrap_or_else(|_| "  does not start".to_owned());
                let listening = if wildcard { "0.0.0.0 and ::" } else { "default" };
                println!("{}, listening-ip: {listening}\n{shown}", self.name);
            }
            return;
        }
        let change = |plan: &mut Plan| {
            announce(plan, self.external);
            if self.starts_without {
                plan.started = "no address to relay from";
            }
        };
        let host = Host::start_any(beside_others, self.set_up, change);
        if self.starts_without {
            // Without an address, only a proxy on the host itself can connect.
            let told = Told { v4: Err(508), v6: Err(508) };
            for families in FAMILIES {
                host.holds(Way::Proxy, SERVER, families, told);
            }
            host.explains(told);
        }
        if !self.later.is_empty() {
            shell(&host.lab.server, self.later);
            let (at, told) = expected(&self.cells[0]);
            host.until_both(at, told);
        }
        for cell in self.cells {
            let (at, told) = expected(cell);
            host.relays_from(at, told);
        }
        assert_eq!(host.readiness().0, 200, "{}", host.server.log());
    }

    /// Returns lines that describe what coturn's clients get over UDP and TLS, at the address of each cell.
    fn observe(&self, wildcard: bool) -> String {
        let change = |plan: &mut Plan| {
            announce(plan, self.external);
            on_coturn(plan, wildcard);
        };
        let host = Host::start_any(beside_others, self.set_up, change);
        if !self.later.is_empty() {
            shell(&host.lab.server, self.later);
        }
        // IPv6 is slow until duplicate address detection is over in every namespace.
        for namespace in [&host.lab.router, &host.lab.client, &host.lab.server, &host.lab.peer] {
            shell(namespace, "while ip -6 addr show tentative | grep -q inet6; do :; done");
        }
        let (start, first) = (Instant::now(), ip(self.cells[0].0));
        while start.elapsed() < WARM_UP && !host.observe(Way::Udp, first, Families::V4).contains("works") {}
        let mut lines = Vec::new();
        for &(at, ..) in self.cells {
            for way in [Way::Udp, Way::Tls] {
                let shown = FAMILIES.map(|families| {
                    let seen = (0..TRIES).map(|_| host.observe(way, ip(at), families));
                    let seen: Vec<_> = seen.collect::<BTreeSet<_>>().into_iter().collect();
                    format!("{families:?}: {}", seen.join(" OR "))
                });
                lines.push(format!("  {way:?} at {at} | {}", shown.join(" | ")));
            }
        }
        lines.join("\n")
    }
}

/// Returns the address to connect to, and the expected answers.
fn expected(&(at, v4, v6): &Cell) -> (IpAddr, Told) {
    let told = |text: &str| if text.is_empty() { Err(440) } else { Ok(ip(text)) };
    (ip(at), Told { v4: told(v4), v6: told(v6) })
}

/// Sets the external address in the configuration of Hallpass and of coturn, unless it is empty.
fn announce(plan: &mut Plan, external: &str) {
    if !external.is_empty() {
        plan.external = vec![ip(external)];
        plan.coturn.push_str(&format!("external-ip={external}\n"));
    }
}

/// For coturn: listens on the wildcard addresses, or sets no address, so that coturn uses all that it finds.
fn on_coturn(plan: &mut Plan, wildcard: bool) {
    if tests_coturn() {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        plan.listeners.clear();
        plan.listeners.extend(any.into_iter().filter(|_| wildcard).map(|ip| (Transport::Udp, ip)));
    }
}
