//! A failing worker, and a worker under memory pressure.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use hallpass::base::time::Now;
use hallpass::base::transport::Transport;
use hallpass::net::admission::{Pressure, Rules};
use hallpass::net::counters::Refusal;

use crate::rig::*;

/// An allocation with a channel to its own peer, and the worker that handles it.
struct Call {
    client: Client,
    peer: std::net::UdpSocket,
    worker: usize,
}

fn alive(relay: &Relay, worker: usize) -> u64 {
    let of = |transport| relay.counters[worker].host(hallpass::base::host::HostId(0), transport);
    Transport::ALL.into_iter().map(|transport| of(transport).allocations.get()).sum()
}

fn call(relay: &Relay, transport: Transport) -> Call {
    let before = alive(relay, 0);
    let mut client = relay.connect(transport);
    let (peer, address) = peer();
    client.allocate();
    client.bind(0x4001, address);
    Call { client, peer, worker: usize::from(alive(relay, 0) == before) }
}

impl Call {
    fn goes_on(&mut self) {
        self.client.send_channel(0x4001, b"there");
        let (payload, relayed) = receive_at(&self.peer);
        assert_eq!(payload, b"there");
        self.peer.send_to(b"back", relayed).expect("send");
        assert_eq!(self.client.receive()[4..], *b"back");
    }
}

#[test]
fn a_failing_worker_ends_only_its_own_calls() {
    let relay = Relay::start(0);
    let mut calls = Vec::new();
    for transport in Transport::ALL {
        // The kernel distributes clients by their ports: connect until both workers have some.
        let of = |calls: &[Call], worker| calls.iter().filter(|call| call.worker == worker).count();
        let before = [of(&calls, 0), of(&calls, 1)];
        while of(&calls, 0) < before[0] + 2 || of(&calls, 1) < before[1] + 2 {
            calls.push(call(&relay, transport));
        }
    }
    calls.iter_mut().for_each(Call::goes_on);
    let restarts =
        |relay: &Relay| relay.handle.counters().iter().map(|c| c.restarts.get()).collect::<Vec<_>>();
    let mut trap = relay.connect_naming(TRAP, Transport::Tls);
    assert!(trap.fails_to_send(), "the worker that reads the trap panics and closes its sockets");
    relay.until("one worker restarted", |relay| restarts(relay).iter().sum::<u64>() == 1);
    let failed = restarts(&relay).iter().position(|&n| n == 1).expect("one of them");

    let (lost, mut kept): (Vec<Call>, Vec<Call>) = calls.into_iter().partition(|call| call.worker == failed);
    kept.iter_mut().for_each(Call::goes_on);
    // Everything that the lost calls held is free: ports, quota, connections, descriptors.
    assert_eq!(alive(&relay, failed), 0);
    assert_eq!(relay.shared.ports.taken(), kept.len());
    assert_eq!(relay.shared.quota.total() as usize, kept.len());
    let streams = kept.iter().filter(|call| call.client.is_stream()).count();
    assert_eq!(relay.handle.admission().streams() as usize, streams);
    assert_eq!(relay.handle.admission().descriptors().0 as usize, kept.len() + streams);
    // Their clients allocate again, on the same link if it still exists.
    for mut call in lost {
        if call.client.is_stream() {
            assert!(call.client.is_cut_off());
        } else {
            call.client.nonce.clear();
            let (peer, address) = peer();
            call.client.allocate();
            call.client.bind(0x4001, address);
            Call { peer, ..call }.goes_on();
        }
    }
    // Both workers serve new clients.
    for transport in Transport::ALL {
        let mut both = [false; 2];
        while both != [true; 2] {
            let mut call = self::call(&relay, transport);
            call.goes_on();
            both[call.worker] = true;
            kept.push(call);
        }
    }
    relay.stop();
}

#[test]
fn a_worker_that_keeps_failing_is_given_up_with_its_error() {
    let relay = Relay::start(0);
    // Each of two workers tolerates three failures; at the seventh, one of them has had its fourth.
    let mut exit = None;
    for _ in 0..7 {
        let before = relay.sum(|c| c.restarts.get());
        assert!(relay.connect_naming(TRAP, Transport::Tls).fails_to_send());
        relay.until("a worker restarted or ended", |relay| {
            exit = exit.take().or_else(|| relay.handle.next_exit(std::time::Duration::ZERO));
            exit.is_some() || relay.sum(|c| c.restarts.get()) > before
        });
        if exit.is_some() {
            break;
        }
    }
    assert_eq!(exit.expect("a worker ended").failure.as_deref(), Some("trapped"));
}

#[test]
fn memory_pressure_refuses_newcomers_while_calls_continue() {
    let relay = Relay::start(0);
    let mut calls: Vec<Call> = Transport::ALL.into_iter().map(|transport| call(&relay, transport)).collect();
    for pressure in [Pressure::Full, Pressure::Tight] {
        relay.handle.admission().set_pressure(pressure);
        let mut newcomer = relay.connect(Transport::Udp);
        let transport: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
        let challenge = newcomer.ask(0x0003, &[transport]);
        newcomer.nonce = attribute(&challenge, 0x0015).expect("NONCE");
        assert_eq!(error_code(&newcomer.ask(0x0003, &[transport])), Some(508));
        assert!(is_refused([127, 0, 0, 1], relay.addresses[Transport::Tcp.index()]));
        calls.iter_mut().for_each(Call::goes_on);
    }
    assert_eq!(relay.sum(|c| c.relays_refused(Refusal::Memory).get()), 2);
    // A refused stream is counted after the client sees its end.
    relay.until("both are counted", |relay| {
        relay.sum(|c| c.streams(Transport::Tcp).refused(Refusal::Memory).get()) == 2
    });
    relay.handle.admission().set_pressure(Pressure::None);
    calls.push(call(&relay, Transport::Tls));
    calls.iter_mut().for_each(Call::goes_on);
    relay.stop();
}

#[test]
fn streams_are_limited_per_source() {
    let rules =
        Rules { streams: 10, streams_per_source: 2, exempt: vec!["127.0.0.9/32".parse().expect("net")] };
    let relay = Relay::start_with(rules, clock);
    let address = relay.addresses[Transport::Tcp.index()];
    let from = |source: [u8; 4]| Client::new(Link::Tcp(tcp_from(source, address)));
    let mut held: Vec<Client> = (0..2).map(|_| from([127, 0, 0, 7])).collect();
    for client in &mut held {
        client.allocate();
    }
    assert!(is_refused([127, 0, 0, 7], address));
    let mut others = [from([127, 0, 0, 8]), from([127, 0, 0, 9]), from([127, 0, 0, 9]), from([127, 0, 0, 9])];
    for client in &mut others {
        client.allocate();
    }
    held.pop();
    relay.until("its place is free", |relay| relay.handle.admission().streams() == 5);
    from([127, 0, 0, 7]).allocate();
    relay.until("it is counted", |relay| {
        relay.sum(|c| c.streams(Transport::Tcp).refused(Refusal::Source).get()) == 1
    });
    relay.stop();
}

/// Workers that have read the clock, which each does when it is set up.
static SET_UP: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The clock of workers whose set-up takes long.
fn slow_to_begin() -> Now {
    let name = thread::current().name().unwrap_or_default().to_owned();
    if !SET_UP.lock().expect("no panic").contains(&name) {
        thread::park_timeout(Duration::from_millis(100));
        SET_UP.lock().expect("no panic").insert(name);
    }
    clock()
}

#[test]
fn the_start_waits_until_every_worker_is_set_up() {
    let _relay = Relay::start_on(3, Rules::default(), slow_to_begin);
    let set_up = SET_UP.lock().expect("no panic").clone();
    assert_eq!(Vec::from_iter(set_up), ["worker-0", "worker-1", "worker-2"]);
}
