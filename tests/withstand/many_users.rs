//! Many users with a small burst each, at the same moment. None has much work; all together have.

use crate::bursts::every;
use crate::machine::many_descriptors;
use crate::page_logins;
use crate::support::client::{Client, Link};
use crate::support::plan::{Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::Session;
use crate::support::{alone, plan::LOCAL_V4};
use crate::tiny::{beside, server};
use std::net::SocketAddr;
use std::time::Duration;

const USERS: usize = 20;
/// Allocations of each, as many as a login of the test page may have.
const ALLOCATIONS: usize = 40;
/// Empty ChannelData on each connection at once: 16,000 in all.
const MESSAGES: usize = 20;
const CHANNEL: u16 = 0x4000;

/// Returns the connections of one user, in pairs that have each other as peers.
fn pairs(server: SocketAddr, session: &Session) -> Vec<Client> {
    let mut all = Vec::new();
    for _ in 0..ALLOCATIONS / 2 {
        let mut pair = [(); 2].map(|()| Client::join(Link::open(Transport::Tcp, server), session));
        let relayed = pair.each_mut().map(|client| client.allocate().expect("an allocation"));
        for (client, peer) in pair.iter_mut().zip([relayed[1], relayed[0]]) {
            assert_eq!(client.bind(CHANNEL, peer), 0, "a channel");
        }
        all.extend(pair);
    }
    all
}

fn bursts_of(what: &str, server: &Server, mut session: impl FnMut(usize) -> Session) {
    let address = server.v4(Transport::Tcp);
    let mut all: Vec<Client> = (0..USERS).flat_map(|number| pairs(address, &session(number))).collect();
    let empty = [0x40, 0, 0, 0].repeat(MESSAGES);
    beside(what, server, |stop| {
        every(Duration::from_secs(1), stop, || {
            all.iter_mut().for_each(|client| client.link.send(&empty).expect("the connection stays open"));
            (all.len() * MESSAGES) as u64
        })
    });
}

/// A stranger gets as many logins of the test page.
#[test]
fn bursts_of_many_page_logins_disturb_no_call() {
    let _turn = alone();
    if skip_on_coturn("the test page") {
        return;
    }
    many_descriptors(2_000);
    let plan = Plan { tls: "web = true".to_owned(), ..Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]) };
    let server = Server::start(&Plan { limits: "workers = 1".to_owned(), ..plan });
    let page = server.v4(Transport::Tls);
    bursts_of("bursts of 20 page logins", &server, |_| page_logins::session(page));
}

#[test]
fn bursts_of_many_users_disturb_no_call() {
    let _turn = alone();
    many_descriptors(2_000);
    let server = server();
    let session = |number| Session::new(server.credentials(&format!("pupil{number}")), b"");
    bursts_of("bursts of 20 users", &server, session);
}
