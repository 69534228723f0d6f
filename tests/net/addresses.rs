//! Addresses that arrive late, change or disappear while the server runs, and what it tells the operator. `matrix` covers
//! the kinds of hosts.

use std::time::{Duration, Instant};

use super::host::{Families, Host, SERVER, SERVER6, SHARED_PORT, Told, WAYS, Way, ip};
use super::matrix::behind_nat;
use super::support::alone;
use super::support::client::{Client, PATIENCE};
use super::support::namespace::{Lab, shell};
use super::support::plan::Plan;
use super::support::proc::{descriptors, memory};

/// The server starts before the network is up and reports that it is not ready. With the first address it becomes ready.
#[test]
fn an_address_arrives_late() {
    let set_up = |lab: &Lab| shell(&lab.server, "ip addr flush dev up0 scope global");
    let Some(host) = Host::start_with(set_up, |plan| plan.started = "no address to relay from") else {
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
    // The IPv6 address is usable once duplicate address detection is over.
    let relays_ipv6 = |line: &str| line.contains("relaying from") && line.contains("2001:db8:2::2");
    assert!(host.server.wait_log(PATIENCE, |log| log.lines().any(relays_ipv6)));
    host.relays_from(SERVER, Told { v4: Ok(SERVER), v6: Ok(SERVER6) });
}

/// DHCP assigns another address: calls on the old one end, with a line in the log; calls on an address that stays go on.
#[test]
fn an_address_is_replaced() {
    let Some(host) = Host::start(|_| {}) else { return };
    let (mut ends, relayed) = host.relayed(Way::Udp, SERVER6, Families::V4);
    assert_eq!(relayed.map(|all| all[0].ip()), Ok(SERVER));
    let (mut stays, relayed) = host.relayed(Way::Udp, SERVER6, Families::V6);
    let announced = relayed.expect("allocated")[0];
    shell(
        &host.lab.server,
        "ip addr add 198.18.2.7/24 dev up0; ip addr del 198.18.2.2/24 dev up0\n\
         ip addr add 198.18.2.7/24 dev up0 2>/dev/null || true; ip route replace default via 198.18.2.1",
    );
    let took = host.until_relayed(SERVER6, Ok(ip("198.18.2.7")));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(host.server.wait_log(PATIENCE, |log| log.contains("address gone")), "{}", host.server.log());
    assert_eq!(ends.refresh(600), 437, "the client is told");
    host.carries_media(&mut stays, announced);
    host.relays_from(ip("198.18.2.7"), Told { v4: Ok(ip("198.18.2.7")), v6: Ok(SERVER6) });
}

/// A lease renewal removes the address for a moment: new calls are refused meanwhile, and running ones go on afterwards.
#[test]
fn an_address_returns_within_seconds() {
    let Some(host) = Host::start(|_| {}) else { return };
    let (mut stays, relayed) = host.relayed(Way::Udp, SERVER6, Families::V4);
    let announced = relayed.expect("allocated")[0];
    for _ in 0..3 {
        shell(&host.lab.server, "ip addr del 198.18.2.2/24 dev up0");
        host.until_relayed(SERVER6, Err(440));
        shell(&host.lab.server, "ip addr add 198.18.2.2/24 dev up0; ip route add default via 198.18.2.1");
        host.until_relayed(SERVER6, Ok(SERVER));
        host.carries_media(&mut stays, announced);
    }
    assert_eq!(stays.refresh(600), 0);
    assert!(!host.server.log().contains("address gone"), "{}", host.server.log());
}

/// Without a default route, the address of an inner network looks as good as the one in use, and it is listed first. It
/// must not replace the one in use, and a relay on it must not announce the public address.
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
    // The log line about the second address shows that the server has read its addresses without a default route.
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

/// A connection for this name would loop: the server would pass it through to itself without end.
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
    files.write("hallpass.toml", &looped);
    host.server.signal("HUP");
    let stays = |log: &str| log.contains(told) && log.contains("the configuration in use stays");
    assert!(host.server.wait_log(PATIENCE, stays), "{}", host.server.log());
    // A reload that moves the listener removes the loop.
    files.write("hallpass.toml", &looped.replace("'[::]:443'", "'[::]:444'"));
    host.server.signal("HUP");
    let applied = |log: &str| log.contains("the new configuration is in use");
    assert!(host.server.wait_log(PATIENCE, applied), "{}", host.server.log());
}

/// The address of the back end is assigned to this machine while the server runs.
#[test]
fn a_back_end_that_becomes_our_own_listener_is_reported() {
    let Some(host) = Host::start_with(
        |_| {},
        |plan| {
            plan.tables = format!(
                "[[listen]]\ntransport = 'tls'\naddress = '[::]:{SHARED_PORT}'\nweb = true\n\
                 [web]\nproxy_protocol = 'v1'\npassthrough = {{ 'bbb.example.org' = '198.18.2.9:{SHARED_PORT}' }}\n"
            );
        },
    ) else {
        return;
    };
    assert!(!host.server.log().contains("own listener"), "{}", host.server.log());
    shell(&host.lab.server, "ip addr add 198.18.2.9/24 dev up0");
    let told = "error: web.passthrough: 198.18.2.9:443 is this relay's own listener tls [::]:443";
    assert!(host.server.wait_log(PATIENCE, |log| log.contains(told)), "{}", host.server.log());
}

/// A listener whose address exists serves at once; the others start when theirs is assigned.
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
    host.relays_from(SERVER, Told { v4: Ok(SERVER), v6: Ok(SERVER6) });
    assert!(!host.server.log().lines().any(|line| line == "ready"), "{}", host.server.log());
    shell(&host.lab.server, "ip addr add 198.18.2.9/24 dev up0");
    host.until_relayed(late, Ok(late));
    host.relays_from(late, Told { v4: Ok(late), v6: Ok(SERVER6) });
    assert!(host.server.wait_log(PATIENCE, |log| log.lines().any(|line| line == "ready")));
    assert_eq!(host.readiness().0, 200);
    let written =
        std::fs::read_to_string(host.server.files().path("hallpass.toml")).expect("the configuration");
    let (code, text) = host.run("check", &written.replace("198.18.2.9", "198.18.2.10"));
    assert!(code == Some(0) && text.matches("does not have the address of").count() == 3, "{code:?} {text}");
}

/// Listeners on `[::]` serve IPv4 if IPv6 addresses are disabled by sysctl, and also if the kernel has no IPv6 sockets at
/// all.
#[test]
fn a_kernel_without_ipv6() {
    // Refuses IPv6 sockets with EAFNOSUPPORT, as a kernel without IPv6 does: a seccomp(2) filter for socket(2).
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
        host.relays_from(SERVER, Told { v4: Ok(SERVER), v6: Err(440) });
        let told = host.server.log().matches("listeners on [::] serve IPv4 alone").count();
        assert_eq!(told, usize::from(!has_sockets), "{}", host.server.log());
        assert_eq!(host.readiness().0, 200);
    }
    // Addresses that are written out: the others serve, and the server is not ready.
    let no_addresses = |lab: &Lab| shell(&lab.server, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    let written = |plan: &mut Plan| {
        plan.wrapper = ["/usr/bin/python3", "-c", NO_SOCKETS].map(String::from).to_vec();
        plan.listeners = Plan::on(&[SERVER, SERVER6], &[]).listeners;
        plan.started = "this machine has no IPv6, so no client is served there";
    };
    let Some(host) = Host::start_with(no_addresses, written) else { return };
    host.relays_from(SERVER, Told { v4: Ok(SERVER), v6: Err(440) });
    let (status, text) = host.readiness();
    assert!(status == 503 && text.contains("the address of a listener"), "{status} {text}");
    assert_eq!(host.server.log().matches("so no client is served there").count(), 3, "{}", host.server.log());
}

/// A setting that can never work is an error in `check` and `serve`; one that may work later is a warning of `check`.
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

/// An address comes and goes while 200 calls relay from another one: they lose nothing, and no descriptor or memory leaks.
#[test]
fn a_hundred_changes_under_two_hundred_calls() {
    let Some(host) = Host::start_in(alone, |_| {}, |_| {}) else { return };
    let echo = host.lab.start_peer();
    let mut calls: Vec<Client> = (0..200)
        .map(|number| {
            let at = if number % 2 == 0 { SERVER } else { SERVER6 };
            let (mut client, relayed) = host.relayed(WAYS[number % WAYS.len()], at, Families::V4);
            assert_eq!(relayed.map(|all| all[0].ip()), Ok(SERVER));
            assert_eq!(client.permit(echo), 0);
            client
        })
        .collect();
    let pid = host.server.pid();
    let before = (descriptors(pid), memory(pid));
    for change in 0..100 {
        let (address, number) = (ip("198.18.2.9"), change % 200);
        shell(&host.lab.server, "ip addr add 198.18.2.9/24 dev up0");
        host.until_relayed(address, Ok(address));
        shell(&host.lab.server, "ip addr del 198.18.2.9/24 dev up0");
        calls[number].echo(echo, 20);
        calls[199 - number].echo(echo, 20);
    }
    host.until_allocations(200);
    // The allocation count drops before the sockets are closed.
    let start = Instant::now();
    while descriptors(pid) > before.0 + 5 {
        assert!(start.elapsed() < PATIENCE, "{} descriptors, {} before", descriptors(pid), before.0);
    }
    assert!(memory(pid) < before.1 + (4 << 10), "{} KiB, {} before", memory(pid), before.1);
    for call in &mut calls {
        assert_eq!(call.refresh(600), 0);
        call.echo(echo, 5);
    }
}
