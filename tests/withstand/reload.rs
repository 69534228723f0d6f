//! A reload that denies a peer stops its traffic; one that removes a secret blocks new permissions; one that revokes
//! it ends allocations.

use crate::machine::{metric, until};
use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, REALM, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::Session;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

const CHANNEL: u16 = 0x4000;
const LIMIT: Duration = Duration::from_secs(5);

/// Rewrites the configuration and makes the server reload it.
fn reload(server: &Server, change: impl FnOnce(String) -> String) {
    let path = server.files().path("hallpass.toml");
    let text = change(fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    server.signal("HUP");
}

fn client(server: &Server, transport: Transport) -> Client {
    let session = Session::new(server.credentials("call"), b"");
    let mut client = Client::join(Link::open(transport, server.v4(transport)), &session);
    client.allocate().expect("an allocation");
    client
}

/// Returns whether a payload comes back on the channel.
fn flows(client: &mut Client) -> bool {
    client.link.wait_at_most(Duration::from_millis(100));
    client.send_on(CHANNEL, b"x");
    let flows = client.receive().is_ok();
    client.link.wait_at_most(crate::support::client::PATIENCE);
    flows
}

#[test]
fn a_peer_that_is_denied_at_reload_is_cut_off() {
    let _turn = beside_others();
    if skip_on_coturn("reload") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start([127, 0, 0, 2].into());
    // With its own list, the host permits no relayed address on a denied address, so a denied peer gets 403.
    let secret = format!("secret = \"{SECRET}\"");
    reload(&server, |text| text.replace(&secret, &format!("{secret}\npeers = [\"127.0.0.0/8\"]")));
    assert!(
        server.wait_log(LIMIT, |log| log.contains("the new configuration is in use")),
        "{}",
        server.log()
    );
    for transport in [Transport::Udp, Transport::Tls] {
        let mut call = client(&server, transport);
        assert_eq!(call.bind(CHANNEL, peer.address()), 0);
        assert!(flows(&mut call));
        reload(&server, |text| text.replace("[peers]\n", "[peers]\ndeny = [\"127.0.0.2/32\"]\n"));
        let stopped = until(LIMIT, || !flows(&mut call));
        println!("denied at reload, {transport:?}: stopped after {stopped:?}, including one check of 0.1 s");
        assert!(stopped.is_some(), "data still flows to a denied peer");
        assert!((0..5).all(|_| !flows(&mut call)));
        assert_eq!((call.permit(peer.address()), call.bind(CHANNEL, peer.address())), (403, 403));
        assert!(server.wait_log(LIMIT, |log| log.contains("permissions=1")), "{}", server.log());
        reload(&server, |text| text.replace("deny = [\"127.0.0.2/32\"]\n", ""));
        assert!(until(LIMIT, || call.bind(CHANNEL, peer.address()) == 0).is_some());
        assert!(flows(&mut call), "allowed again");
    }
}

#[test]
fn a_removed_secret_allows_nothing_new_and_a_revoked_one_ends_allocations() {
    let _turn = beside_others();
    if skip_on_coturn("reload") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    // A different peer each time, because the first may be granted before the reload takes effect.
    let mut last = 0;
    let mut elsewhere = || {
        last += 1;
        SocketAddr::from(([127, 0, 9, last], 9))
    };
    let mut call = client(&server, Transport::Udp);
    assert_eq!(call.bind(CHANNEL, peer.address()), 0);
    let secret = format!("secret = \"{SECRET}\"");
    let fresh = "secret = \"another secret of the tests\"";
    reload(&server, |text| text.replace(&secret, fresh));
    let refused = until(LIMIT, || call.permit(elsewhere()) == 403);
    println!("removed secret: nothing new after {refused:?}");
    assert!(refused.is_some(), "a removed secret still allows new permissions");
    assert_eq!(call.bind(0x4001, elsewhere()), 403);
    assert!(flows(&mut call), "existing permissions stay");
    assert_eq!((call.bind(CHANNEL, peer.address()), call.refresh(600)), (0, 0));
    reload(&server, |text| text.replace(fresh, &format!("{fresh}\nrevoked = [\"{SECRET}\"]")));
    let ended = until(LIMIT, || !flows(&mut call));
    println!("revoked secret: ended after {ended:?}, including one check of 0.1 s");
    assert!(ended.is_some(), "an allocation of a revoked secret still relays");
    assert!(server.wait_log(LIMIT, |log| log.contains("reason=\"revoked\"")), "{}", server.log());
}

#[test]
fn a_new_realm_and_a_new_name_of_a_host_leave_calls_alone() {
    let _turn = beside_others();
    if skip_on_coturn("reload") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let peer = Echo::start(LOCAL_V4);
    let mut calls = [Transport::Udp, Transport::Tls].map(|transport| client(&server, transport));
    for call in &mut calls {
        assert_eq!(call.bind(CHANNEL, peer.address()), 0);
    }
    let realm = format!("realm = \"{REALM}\"");
    reload(&server, |text| text.replace(&realm, "realm = \"new.example.org\""));
    let mut newcomer =
        Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), server.credentials("newcomer"));
    assert!(
        until(LIMIT, || newcomer.refresh(600) == 401).is_some(),
        "a newcomer is still served under the old realm"
    );
    reload(&server, |text| text.replace("name = \"test\"", "name = \"renamed\""));
    assert!(
        server.wait_log(LIMIT, |log| log.contains("host \"test\" is now \"renamed\"")),
        "{}",
        server.log()
    );
    let renamed = || metric(&server, "hallpass_allocations", "host=\"renamed\"") == 2;
    assert!(until(LIMIT, renamed).is_some(), "the calls do not count for the host under its new name");
    for (n, call) in (1..).zip(&mut calls) {
        assert!(flows(call));
        assert_eq!((call.refresh(600), call.bind(CHANNEL, peer.address())), (0, 0));
        assert_eq!(call.permit(SocketAddr::from(([127, 0, 9, n], 9))), 0, "a new peer");
    }
    let secret = format!("secret = \"{SECRET}\"");
    let fresh = format!("secret = \"another secret of the tests\"\nrevoked = [\"{SECRET}\"]");
    reload(&server, |text| text.replace(&secret, &fresh));
    for call in &mut calls {
        assert!(until(LIMIT, || !flows(call)).is_some(), "the secret was not revoked under the new name");
    }
}
