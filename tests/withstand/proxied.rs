//! Proxied connections that claim the same client address: none may use or end the allocation of another.

use crate::support::beside_others;
use crate::support::client::{Client, Link, channel_data, tcp_from};
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::Session;
use std::io::{ErrorKind, Write};
use std::time::Duration;

const CHANNEL: u16 = 0x4000;

/// Opens a connection through the proxy for 203.0.113.7:5555, which connected to `destination`.
fn connection(server: &Server, destination: &str) -> Link {
    let mut stream = tcp_from(LOCAL_V4, server.v4(Transport::Tcp));
    stream.write_all(format!("PROXY TCP4 203.0.113.7 {destination} 5555 3478\r\n").as_bytes()).unwrap();
    Link::Tcp(stream)
}

/// Returns whether the peer echoes `payload` on the channel.
fn echoed(client: &mut Client, payload: &[u8]) -> bool {
    client.send_on(CHANNEL, payload);
    match client.receive() {
        Ok(bytes) => bytes.starts_with(&channel_data(CHANNEL, payload)[..4 + payload.len()]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
        Err(error) => panic!("the connection ended: {error}"),
    }
}

#[test]
fn connections_with_the_same_client_address_have_separate_allocations() {
    let _turn = beside_others();
    if skip_on_coturn("PROXY headers on one listener of several") {
        return;
    }
    let plan = Plan { tcp: "proxy_protocol = [\"127.0.0.1\"]".to_owned(), ..Plan::loopback() };
    let server = Server::start(&plan);
    let peer = Echo::start(LOCAL_V4);
    let session = Session::new(server.credentials("call"), b"");
    let mut call = Client::join(connection(&server, "198.51.100.1"), &session);
    call.allocate().expect("an allocation");
    assert_eq!(call.bind(CHANNEL, peer.address()), 0);
    assert!(echoed(&mut call, b"one"));
    let others = [("another destination", "198.51.100.2"), ("the same destination", "198.51.100.1")];
    for (what, destination) in others {
        let mut other = Client::join(connection(&server, destination), &session);
        other.link.wait_at_most(Duration::from_millis(300));
        let used = echoed(&mut other, b"mine");
        // Its data would be echoed to the call.
        let undisturbed = echoed(&mut call, b"two");
        drop(other);
        let goes_on = echoed(&mut call, b"three");
        println!("proxied, {what}: used {used}, undisturbed {undisturbed}, goes on {goes_on}");
        assert!(!used && undisturbed && goes_on, "{what}");
        let mut own = Client::join(connection(&server, destination), &session);
        own.allocate().expect("an allocation of its own");
        assert_eq!(own.bind(CHANNEL, peer.address()), 0);
        assert!(echoed(&mut own, b"its own") && echoed(&mut call, b"and the call"));
        assert_eq!(own.refresh(0), 0);
        assert!(echoed(&mut call, b"still"));
    }
}
