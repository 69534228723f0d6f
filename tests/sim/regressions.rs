//! Bugs found by the simulation, each with its shortest reproduction.

use std::net::SocketAddr;
use std::time::Duration;

use hallpass::base::transport::Transport;
use hallpass::turn::action::{EndReason, OpenError};
use hallpass::turn::five_tuple::Client;

use crate::rig::{Rig, login};
use crate::stun;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

fn client() -> Client {
    stun::client(Transport::Tcp, address("8.8.1.1:5000"), 1)
}

#[test]
fn a_late_timer_removes_both_channel_and_permission() {
    let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
    rig.allocate(client(), &login, &[(stun::LIFETIME, 3600_u32.to_be_bytes().to_vec())]);
    let peer = address("9.9.0.1:7000");
    let id = rig.id();
    assert_eq!(rig.ask(client(), &login, stun::create_permission(id, &[peer])), Some(0));
    rig.wait(Duration::from_secs(100));
    let id = rig.id();
    assert_eq!(rig.ask(client(), &login, stun::channel_bind(id, 0x4000, peer)), Some(0));
    rig.wait(Duration::from_secs(3000));
    rig.timeout();
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (0, 0));
    assert_eq!(rig.server.allocations(), 1);
}

#[test]
fn ports_held_while_opening_are_released_when_the_client_disconnects() {
    for pair in [false, true] {
        let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
        let even = vec![if pair { 0x80 } else { 0 }];
        let id = rig.id();
        assert_eq!(rig.ask(client(), &login, stun::allocate(id, &[(stun::EVEN_PORT, even)])), None);
        for _ in 0..5 {
            rig.open(Err(OpenError::InUse));
        }
        assert_eq!(rig.shared.ports.taken(), if pair { 12 } else { 6 });
        rig.server.handle_client_gone(rig.now, &client(), EndReason::Reset);
        rig.draw();
        assert_eq!((rig.shared.ports.taken(), rig.shared.quota.total(), rig.server.allocations()), (0, 0, 0));
        assert!(rig.ended.is_empty(), "no session ends, because none was established");
    }
}

#[test]
fn a_pending_allocation_accepts_no_requests() {
    let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
    let (allocate, refresh, permit) = (rig.id(), rig.id(), rig.id());
    let dual = [(stun::ADDITIONAL_FAMILY, vec![2, 0, 0, 0])];
    assert_eq!(rig.ask(client(), &login, stun::allocate(allocate, &dual)), None);
    let delete_v6 = stun::refresh(refresh, 0).raw(stun::FAMILY, &[2, 0, 0, 0]);
    assert_eq!(rig.ask(client(), &login, delete_v6), Some(437));
    let permission = stun::create_permission(permit, &[address("9.9.0.1:7000")]);
    assert_eq!(rig.ask(client(), &login, permission), Some(437));
    rig.open(Ok(()));
    let answer = rig.replies.last().expect("the answer to Allocate");
    assert_eq!((answer.code(), answer.addresses(stun::RELAYED).len()), (Some(0), 2));
}

#[test]
fn an_allocation_expires_on_time_even_if_the_timer_is_late() {
    let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
    rig.allocate(client(), &login, &[]);
    rig.wait(Duration::from_secs(600));
    let id = rig.id();
    assert_eq!(rig.ask(client(), &login, stun::refresh(id, 600)), Some(437));
    assert_eq!((rig.ended.len(), rig.closed.len()), (1, 1), "the late request ends it");
    rig.allocate(client(), &login, &[]);
    assert_eq!(rig.server.allocations(), 1);
}

#[test]
fn a_refresh_that_shortens_a_lifetime_brings_its_end_forward() {
    let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
    rig.allocate(client(), &login, &[(stun::LIFETIME, 3600_u32.to_be_bytes().to_vec())]);
    for _ in 0..2000 {
        for lifetime in [600, 3600, 600] {
            let id = rig.id();
            assert_eq!(rig.ask(client(), &login, stun::refresh(id, lifetime)), Some(0));
        }
    }
    let ends = rig.now.instant + Duration::from_secs(600);
    assert_eq!(rig.server.poll_timeout(), Some(ends));
    rig.wait(Duration::from_secs(600));
    rig.timeout();
    assert_eq!((rig.server.allocations(), rig.shared.ports.taken(), rig.ended.len()), (0, 0, 1));
}

#[test]
fn the_same_address_twice_in_a_request_is_one_permission() {
    let mut settings = stun::settings();
    settings.limits.permissions_per_allocation = 1;
    let (mut rig, login) = (Rig::new(settings), login("ann"));
    rig.allocate(client(), &login, &[]);
    let (twice, second) = (rig.id(), rig.id());
    let ports = [address("9.9.0.1:1"), address("9.9.0.1:2")];
    assert_eq!(rig.ask(client(), &login, stun::create_permission(twice, &ports)), Some(0));
    let other = [address("9.9.0.2:1")];
    assert_eq!(rig.ask(client(), &login, stun::create_permission(second, &other)), Some(508));
}
