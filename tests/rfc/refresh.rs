//! RFC 8656 section 8: Refresh.

use hallpass::base::transport::Transport;
use hallpass::turn::action::{DropReason, EndReason, FromPeer};
use hallpass::turn::address::OnWire;

use crate::codec::*;
use crate::rig::*;

fn with_family(secs: u32, family: [u8; 4]) -> Msg {
    Msg::request(REFRESH).lifetime(secs).attr(REQUESTED_FAMILY, &family)
}

/// RFC 8656 section 8.2: the same formula as Allocate.
#[test]
fn s8_2_lifetime_is_clamped_and_counts_from_the_refresh() {
    for (wish, granted) in
        [(None, 600), (Some(1), 600), (Some(600), 600), (Some(1800), 1800), (Some(u32::MAX), 3600)]
    {
        let mut rig = Rig::new();
        let alice = rig.allocated();
        rig.wait(100);
        let request = wish.iter().fold(Msg::request(REFRESH), |request, &wish| request.lifetime(wish));
        assert_eq!(rig.ask(&alice, request).secs(), granted, "{wish:?}");
        rig.wait(u64::from(granted) - 1);
        assert_eq!(rig.server.allocations(), 1, "{wish:?}");
        rig.wait(1);
        assert_eq!(rig.held(), (0, 0, 0));
    }
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.ask(&alice, Msg::request(REFRESH).attr(LIFETIME, &[0, 0])).code(), 400);
    assert_eq!(rig.server.allocations(), 1);
}

/// RFC 8656 section 8.2: the allocation ends at once with its permissions and channels; a repeated request is 437.
#[test]
fn s8_2_lifetime_0_deletes_and_a_repetition_is_437() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    let relay = rig.relay(true);
    let request = alice.seal(Msg::request(REFRESH).lifetime(0));
    let answer = rig.bare(&alice.at, &request);
    assert_eq!((answer.code(), answer.secs()), (0, 0));
    check_signed(&alice, &answer);
    assert_eq!(rig.held(), (0, 0, 0));
    assert!(rig.sockets.is_empty());
    assert_eq!(rig.sessions.pop().expect("ended").reason, EndReason::Deleted);
    assert_eq!(rig.bare(&alice.at, &request).code(), 437);
    assert!(rig.at_relay(relay, addr(PEER), b"x").is_err());
    assert!(rig.channel(&alice, 0x4000, b"x").is_err());
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "the five-tuple is free at once");
}

/// RFC 8656 section 8.2; RFC 8489 section 6.3.1: a repeated Refresh refreshes again.
#[test]
fn s8_2_a_retransmitted_refresh_succeeds_again() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    let request = alice.seal(Msg::request(REFRESH).lifetime(700));
    assert_eq!(rig.bare(&alice.at, &request).bytes, rig.bare(&alice.at, &request).bytes);
    assert_eq!(rig.held(), (1, 1, 1));
}

/// RFC 8656 sections 8.1 and 8.2: the other half keeps its time, permissions and channels.
#[test]
fn s8_2_one_half_of_a_dual_allocation_is_deleted_alone() {
    for (family, other, gone, kept) in [(V4, V6, PEER, PEER6), (V6, V4, PEER6, PEER)] {
        let mut rig = Rig::new();
        let alice = rig.allocated_dual();
        assert_eq!((rig.bind(&alice, 0x4000, PEER), rig.bind(&alice, 0x4001, PEER6)), (0, 0));
        let (gone_channel, kept_channel) = if gone == PEER { (0x4000, 0x4001) } else { (0x4001, 0x4000) };
        let answer = rig.ask(&alice, with_family(0, family));
        assert_eq!((answer.code(), answer.secs()), (0, 0));
        assert_eq!(rig.held(), (1, 1, 1));
        assert!(rig.sessions.is_empty());
        assert!(rig.channel(&alice, gone_channel, b"x").is_err());
        assert!(rig.send(&alice, gone, b"x").is_err());
        assert_eq!(rig.channel(&alice, kept_channel, b"x").expect("relayed").to, addr(kept));
        assert!(rig.data_from_peer(kept, b"y").is_ok());
        // Requests for the deleted half now get 443.
        assert_eq!(rig.ask(&alice, with_family(600, family)).code(), 443);
        assert_eq!(rig.ask(&alice, with_family(0, family)).code(), 443);
        assert_eq!(rig.permit(&alice, &[gone]), 443);
        assert_eq!(rig.bind(&alice, 0x4002, gone), 443);
        // Deleting the last half ends the allocation.
        assert_eq!(rig.ask(&alice, with_family(0, other)).code(), 0);
        assert_eq!(rig.held(), (0, 0, 0));
        assert_eq!(rig.sessions.len(), 1);
    }
}

/// RFC 8656 sections 8.1 and 8.2: a Refresh with a family refreshes that half, one without refreshes both.
#[test]
fn s8_2_one_half_of_a_dual_allocation_is_refreshed_alone() {
    let mut rig = Rig::new();
    let alice = rig.allocated_dual();
    rig.wait(300);
    assert_eq!(rig.ask(&alice, with_family(1000, V6)).secs(), 1000);
    rig.wait(300);
    assert_eq!(rig.held(), (1, 1, 1), "IPv4 has expired");
    assert_eq!(rig.permit(&alice, &[PEER6]), 0);
    assert_eq!(rig.permit(&alice, &[PEER]), 443);
    rig.wait(700);
    assert_eq!(rig.held(), (0, 0, 0));
    let alice = rig.allocated_dual();
    rig.wait(300);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    rig.wait(599);
    assert_eq!(rig.held(), (1, 2, 1));
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8656 section 8.2: a family that the allocation does not have.
#[test]
fn s8_2_a_family_without_relayed_address_is_443() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    for family in [V6, [0, 0, 0, 0], [9, 0, 0, 0]] {
        assert_eq!(rig.ask(&alice, with_family(0, family)).code(), 443, "{family:?}");
    }
    assert_eq!(
        rig.ask(&alice, with_family(700, [1, 0xff, 0xff, 0xff])).secs(),
        700,
        "reserved bits are ignored"
    );
    assert_eq!(rig.held(), (1, 1, 1));
}

/// RFC 8656 section 6: only Refresh refreshes an allocation; data in either direction does not.
#[test]
fn s6_data_does_not_refresh_an_allocation() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    for _ in 0..5 {
        rig.wait(100);
        assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
        assert!(rig.channel(&alice, 0x4000, b"x").is_ok());
        assert!(rig.send(&alice, PEER, b"x").is_ok());
        assert!(rig.data_from_peer(PEER, b"x").is_ok());
    }
    rig.wait(100);
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8656 sections 5 and 6: an expired allocation is gone, no matter how late the server wakes up.
#[test]
fn s6_an_expired_allocation_is_gone_even_if_no_timer_ran() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    rig.skip(600);
    assert!(rig.send(&alice, PEER, b"x").is_err());
    assert_eq!(rig.refresh(&alice, 600).code(), 437);
    let mut rig = Rig::new();
    let alice = rig.allocated();
    rig.skip(600);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "the five-tuple is free");
    assert_eq!(rig.held(), (1, 1, 1));
    // Once the allocation has expired, an expired name is refused.
    let user = rig.rest(client(2), "north-secret", &format!("{}:w_x", rig.now.unix + 10));
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    rig.skip(600);
    let request = user.seal(Msg::allocate());
    assert_eq!(rig.bare(&user.at, &request).code(), 401);
}

/// RFC 8656 sections 5 and 6: hundreds of allocations may expire at the same moment. They are removed a page at a time, so that
/// packets do not wait for all of them, and one that waits for its removal relays nothing and cannot be refreshed.
#[test]
fn s6_allocations_that_expire_together_are_removed_in_pages_and_relay_nothing() {
    let mut rig = Rig::new();
    let mut users: Vec<User> = (10_000..10_250).map(|port| rig.alice_at(client(port))).collect();
    users.push(rig.alice_at(client_at(Transport::Tls, "203.0.113.5:40000")));
    for user in &users {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    rig.skip(400);
    for user in &users {
        assert_eq!(rig.bind(user, 0x4000, PEER), 0);
    }
    let (udp, tls) = (&users[249], &users[250]);
    let relay = *rig.sockets.keys().nth(249).expect("of the last UDP client");
    rig.skip(200);
    assert_eq!(rig.refresh(&users[0], 600).code(), 437);
    let left = rig.server.allocations();
    assert!((100..200).contains(&left), "{left} are left");
    assert!(rig.server.has_allocation(&udp.at) && rig.server.has_allocation(&tls.at));
    assert_eq!(rig.send(udp, PEER, b"x"), Err(DropReason::NoRelay));
    assert_eq!(rig.channel(udp, 0x4000, b"x"), Err(DropReason::NoRelay));
    let from_peer = rig.server.handle_peer(rig.now, relay, OnWire(addr(PEER)), 9);
    assert_eq!(from_peer, FromPeer::Dropped(DropReason::NoRelay));
    let refresh = udp.seal(Msg::request(REFRESH).lifetime(600)).bytes();
    assert_eq!(rig.silent(&udp.at, &refresh), DropReason::Backlog, "clients repeat it");
    assert_eq!(rig.refresh(tls, 600).code(), 437, "some clients repeat nothing over a stream");
    let mut pages = 0;
    while rig.server.poll_timeout().is_some_and(|at| at <= rig.now.instant) {
        rig.server.handle_timeout(rig.now);
        rig.drain();
        pages += 1;
    }
    assert!((2..4).contains(&pages), "{pages} pages");
    assert_eq!((rig.held(), rig.sessions.len()), ((0, 0, 0), users.len()));
    assert!(rig.sessions.iter().all(|session| session.reason == EndReason::Expired));
    assert_eq!(rig.ask(udp, Msg::allocate()).code(), 0);
}

/// Hundreds of connections may be reset at the same moment.
#[test]
fn s6_allocations_of_streams_that_close_together_end_in_pages() {
    let mut rig = Rig::new();
    let at = |port: u16| client_at(Transport::Tls, &format!("203.0.113.5:{port}"));
    let users: Vec<User> = (10_000..10_250).map(|port| rig.alice_at(at(port))).collect();
    for user in &users {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    for user in &users {
        rig.server.handle_client_gone(rig.now, &user.at, EndReason::Reset);
    }
    let left = rig.server.allocations();
    assert!((100..200).contains(&left), "{left} are left");
    rig.wait(0);
    assert_eq!((rig.held(), rig.sessions.len()), ((0, 0, 0), users.len()));
    assert!(rig.sessions.iter().all(|session| session.reason == EndReason::Reset));
}

/// A Refresh to 0 over a stream ends its allocation at once, with everything that belongs to it. The caller learns how much that
/// was, so that other connections have their turn.
#[test]
fn s8_2_the_work_of_a_refresh_to_0_is_counted() {
    let mut rig = Rig::with(|settings| settings.limits.requests_per_user = 0);
    let alice = rig.alice_at(client_at(Transport::Tls, "203.0.113.5:40000"));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    for host in 0..1000 {
        let peer = format!("8.8.{}.{}:9", host / 250, 1 + host % 250);
        assert_eq!(rig.bind(&alice, 0x4000 + host as u16, &peer), 0, "{peer}");
    }
    let before = rig.server.removed();
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
    assert_eq!(rig.server.removed() - before, 0);
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    assert_eq!(rig.server.removed() - before, 1000 + 1000 + 16, "permissions, channels and the relay");
}

/// RFC 8656 section 6: when its stream closes, an allocation ends and the five-tuple is free.
#[test]
fn s6_a_closed_stream_ends_its_allocation() {
    let mut rig = Rig::new();
    let alice = rig.alice_at(client_at(Transport::Tls, "203.0.113.5:40000"));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    rig.server.handle_client_gone(rig.now, &alice.at, EndReason::Reset);
    rig.drain();
    assert_eq!(rig.held(), (0, 0, 0));
    assert_eq!(rig.sessions.pop().expect("ended").reason, EndReason::Reset);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
}
