//! Memory: a burst of TURN allocations leaves nothing on the heap, and relaying a packet allocates no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hallpass::base::transport::Transport;
use hallpass::turn::action::{EndReason, FromClient, FromPeer, OpenError, PeerHeader, RelayId};
use hallpass::turn::address::{Announced, OnWire};
use hallpass::turn::five_tuple::Client;
use hallpass::wire::frame::Frame;
use hallpass::wire::{channel_data, indication};

#[path = "sim/rig.rs"]
mod rig;
#[path = "sim/stun.rs"]
mod stun;

use rig::{Rig, login};

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

/// The system allocator with counters per thread, so that parallel tests do not count each other's memory.
struct Counting;

// SAFETY: every call is forwarded to `System` unchanged; the counters are plain cells that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.set(TAKEN.get() + 1);
        IN_USE.set(IN_USE.get() + layout.size() as i64);
        // SAFETY: the caller upholds the contract of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get() - layout.size() as i64);
        // SAFETY: `block` was allocated by `System` in the functions here.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const MIB: i64 = 1 << 20;
const CLIENTS: u32 = 50_000;

fn client(n: u32) -> Client {
    let ip = Ipv4Addr::from_bits(0x0808_0000 | n >> 4);
    stun::client(Transport::Udp, SocketAddr::new(ip.into(), 4000 + (n & 15) as u16), 0)
}

/// Settings with ports for 50,000 allocations, and a quota, so that users are counted.
fn roomy() -> hallpass::turn::settings::Settings {
    let mut settings = stun::settings();
    settings.relay_ports = 1024..=65_535;
    settings.limits.allocations_per_user = 3;
    settings.limits.allocations_total = CLIENTS;
    settings
}

/// Asserts that no allocation is left and that the heap is within 1 MiB of `before`. A reload with another realm empties the
/// bounded cache of verified users first.
fn assert_all_gone(rig: &mut Rig, before: i64) {
    rig.ended = Vec::new();
    rig.closed = Vec::new();
    rig.opens = Vec::new();
    rig.replies = Vec::new();
    let settings = hallpass::turn::settings::Settings { realm: "another".into(), ..roomy() };
    rig.server.handle_settings(rig.now, Arc::new(settings));
    assert_eq!((rig.server.allocations(), rig.shared.quota.total(), rig.shared.ports.taken()), (0, 0, 0));
    let counters = rig.server.counters();
    assert_eq!((counters.permissions.get(), counters.channels.get()), (0, 0));
    let kept = IN_USE.get() - before;
    assert!(kept < MIB, "{kept} bytes kept");
}

fn set_up(rig: &mut Rig, n: u32) {
    let login = login(&format!("w_{n}"));
    rig.allocate(client(n), &login, &[]);
    let (permit, bind) = (rig.id(), rig.id());
    let peer = |port| SocketAddr::new(Ipv4Addr::new(9, 9, (n >> 8) as u8, n as u8).into(), port);
    assert_eq!(rig.ask(client(n), &login, stun::create_permission(permit, &[peer(1)])), Some(0));
    assert_eq!(rig.ask(client(n), &login, stun::channel_bind(bind, 0x4000, peer(2))), Some(0));
    rig.closed.clear();
}

#[test]
fn fifty_thousand_allocations_in_succession_leave_no_memory() {
    let mut rig = Rig::new(roomy());
    let before = IN_USE.get();
    for n in 0..CLIENTS {
        set_up(&mut rig, n);
        match n % 3 {
            0 => {
                let id = rig.id();
                let code = rig.ask(client(n), &login(&format!("w_{n}")), stun::refresh(id, 0));
                assert_eq!(code, Some(0));
            }
            1 => rig.server.handle_client_gone(rig.now, &client(n), EndReason::Reset),
            _ => {
                rig.wait(Duration::from_secs(601));
                rig.timeout();
            }
        }
        rig.draw();
        assert_eq!(rig.ended.len(), 1);
        rig.ended.clear();
    }
    // Timers that outlived their owners are gone, too.
    rig.wait(Duration::from_secs(3601));
    rig.timeout();
    assert_eq!(rig.server.poll_timeout(), None);
    assert_all_gone(&mut rig, before);
}

#[test]
fn fifty_thousand_simultaneous_allocations_leave_no_memory() {
    let mut rig = Rig::new(roomy());
    let before = IN_USE.get();
    for n in 0..CLIENTS {
        // 10,000 newcomers per second, because the search for their secrets is rate-limited.
        rig.wait(Duration::from_micros(100));
        set_up(&mut rig, n);
    }
    assert_eq!(rig.server.allocations(), CLIENTS as usize);
    let per_client = (IN_USE.get() - before) / i64::from(CLIENTS);
    assert!(per_client < 3072, "{per_client} bytes for one client");
    for seconds in [601, 2] {
        rig.wait(Duration::from_secs(seconds));
        while rig.server.poll_timeout().is_some_and(|at| at <= rig.now.instant) {
            rig.timeout();
        }
    }
    assert_eq!(rig.server.poll_timeout(), None);
    assert_eq!(rig.ended.len(), CLIENTS as usize);
    assert_all_gone(&mut rig, before);
}

#[test]
fn refused_sockets_leave_no_memory() {
    let mut rig = Rig::new(roomy());
    let before = IN_USE.get();
    for n in 0..CLIENTS {
        let id = rig.id();
        assert_eq!(rig.ask(client(n), &login("ann"), stun::allocate(id, &[])), None);
        rig.open(Err(OpenError::Unavailable));
        assert_eq!(rig.replies.last().and_then(stun::Reader::code), Some(508));
        rig.closed.clear();
    }
    assert_all_gone(&mut rig, before);
}

#[test]
fn a_relayed_packet_allocates_no_memory() {
    let mut rig = Rig::new(stun::settings());
    let login = login("ann");
    let mut flows = Vec::new();
    for n in 0..100 {
        rig.allocate(client(n), &login, &[]);
        let peer: SocketAddr = "9.9.0.1:7000".parse().expect("literal");
        let other: SocketAddr = "9.9.0.2:7000".parse().expect("literal");
        let (permit, bind) = (rig.id(), rig.id());
        assert_eq!(rig.ask(client(n), &login, stun::create_permission(permit, &[other])), Some(0));
        assert_eq!(rig.ask(client(n), &login, stun::channel_bind(bind, 0x4001, peer)), Some(0));
        let id = rig.id();
        let channel = stun::channel_data(0x4001, &[7; 160]);
        let send = stun::send(id, other, &[8; 161]);
        let FromClient::Relay { relay, .. } = rig.feed(client(n), &channel) else {
            panic!("{n}: not relayed")
        };
        flows.push((client(n), channel, send, relay, peer, other));
    }
    let mut frame = Frame::new();
    let taken = TAKEN.get();
    let (mut from_client, mut by_channel, mut as_data, mut dropped) = (0, 0, 0, 0);
    for _ in 0..100 {
        for (client, channel, send, relay, peer, other) in &flows {
            for message in [channel, send] {
                let verdict = rig.server.handle_client(rig.now, *client, message);
                from_client += usize::from(matches!(black_box(verdict), FromClient::Relay { .. }));
            }
            for (from, len) in [(peer, 160), (other, 161), (&client.five_tuple.client, 9)] {
                frame.fill(&[1; 200][..len]);
                match rig.server.handle_peer(rig.now, *relay, OnWire(*from), len) {
                    FromPeer::Relay { header: PeerHeader::Channel(number), .. } => {
                        by_channel += usize::from(channel_data::prepend(&mut frame, number).is_some());
                    }
                    FromPeer::Relay {
                        header: PeerHeader::Data { peer: Announced(peer), transaction_id },
                        ..
                    } => {
                        let written = indication::prepend_data(&mut frame, peer, transaction_id);
                        as_data += usize::from(written.is_some());
                    }
                    FromPeer::Dropped(_) => dropped += 1,
                }
            }
            let stray = rig.server.handle_peer(rig.now, RelayId(9999), OnWire(*peer), 1);
            dropped += usize::from(matches!(stray, FromPeer::Dropped(_)));
        }
    }
    assert_eq!(TAKEN.get() - taken, 0, "heap allocations while packets were relayed");
    assert_eq!((from_client, by_channel, as_data, dropped), (20_000, 10_000, 10_000, 20_000));
}
