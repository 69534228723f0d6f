//! The cost of packets and requests in the protocol core, without sockets or system calls.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::RelayId;
use hallpass::turn::address::OnWire;
use hallpass::turn::five_tuple::Client;
use hallpass::turn::settings::StaticUser;
use hallpass::wire::frame::Frame;
use hallpass::wire::{channel_data, indication};

#[path = "../tests/sim/rig.rs"]
mod rig;
#[path = "../tests/sim/stun.rs"]
mod stun;

use rig::{Rig, login};
use stun::{Login, REALM_NAME};

const BINDING: u16 = 0x0001;
const FINGERPRINT: u16 = 0x8028;
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(9, 9, 0, 1)), 7000);
const OTHER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(9, 9, 0, 2)), 7000);

fn client(n: u32) -> Client {
    let ip = Ipv4Addr::from_bits(0x0808_0000 | n >> 4);
    stun::client(Transport::Udp, SocketAddr::new(ip.into(), 4000 + (n & 15) as u16), 0)
}

/// Returns a server with `allocations` allocations, each with a channel and a permission, and their relays.
fn busy(allocations: u32) -> (Rig, Vec<RelayId>) {
    let (mut rig, login) = (Rig::new(stun::settings()), login("ann"));
    let mut relays = Vec::new();
    for n in 0..allocations {
        let (allocate, permit, bind) = (rig.id(), rig.id(), rig.id());
        rig.ask(client(n), &login, stun::allocate(allocate, &[]));
        relays.extend(rig.opens.iter().map(|(relay, _)| *relay));
        rig.open(Ok(()));
        assert_eq!(rig.ask(client(n), &login, stun::create_permission(permit, &[OTHER])), Some(0));
        assert_eq!(rig.ask(client(n), &login, stun::channel_bind(bind, 0x4000, PEER)), Some(0));
    }
    (rig, relays)
}

/// Routes single packets, each from a different client than the one before.
fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    for allocations in [1, 1000, 10_000] {
        let (mut rig, relays) = busy(allocations);
        let clients: Vec<Client> = (0..allocations).map(client).collect();
        let channel = stun::channel_data(0x4000, &[7; 160]);
        let send = stun::send([1; 12], OTHER, &[7; 160]);
        // A stride that is coprime to every size, so that the cache cannot predict the next client.
        let mut at = 0;
        let mut next = move || {
            at = (at + 7919) % allocations as usize;
            at
        };
        group.bench_function(BenchmarkId::new("channel_data", allocations), |bencher| {
            bencher.iter(|| rig.server.handle_client(rig.now, clients[next()], black_box(&channel)));
        });
        group.bench_function(BenchmarkId::new("send", allocations), |bencher| {
            bencher.iter(|| rig.server.handle_client(rig.now, clients[next()], black_box(&send)));
        });
        group.bench_function(BenchmarkId::new("peer_to_channel", allocations), |bencher| {
            bencher.iter(|| rig.server.handle_peer(rig.now, relays[next()], OnWire(black_box(PEER)), 160));
        });
        group.bench_function(BenchmarkId::new("peer_to_data", allocations), |bencher| {
            bencher.iter(|| rig.server.handle_peer(rig.now, relays[next()], OnWire(black_box(OTHER)), 160));
        });
    }
    group.finish();
}

/// Writes headers into the headroom of a received frame.
fn rewrite(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rewrite");
    group.throughput(Throughput::Elements(1));
    let mut frame = Frame::new();
    frame.spare_mut()[..160].fill(7);
    group.bench_function("channel_data", |bencher| {
        bencher.iter(|| {
            frame.set_len(160);
            channel_data::prepend(&mut frame, black_box(0x4000))
        });
    });
    group.bench_function("data_indication", |bencher| {
        bencher.iter(|| {
            frame.set_len(160);
            indication::prepend_data(&mut frame, black_box(PEER), [3; 12])
        });
    });
    group.finish();
}

/// Authenticates requests: from a recently seen user, from a new one, and from a stranger.
fn authentication(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("authentication");
    group.throughput(Throughput::Elements(1));
    let (mut rig, _) = busy(1);
    let stranger = client(77);
    let nonce = rig.nonce(stranger);
    // A Refresh without an allocation: credentials are checked, then 437.
    let known = stun::refresh([1; 12], 600).signed(&login("ann"), nonce.as_bytes());
    let newcomers: Vec<Vec<u8>> = (0..8192)
        .map(|n| stun::refresh([1; 12], 600).signed(&login(&format!("w_{n}")), nonce.as_bytes()))
        .collect();
    let unsigned = stun::allocate([1; 12], &[]).plain();
    let mut answer = |after: Duration, bytes: &[u8]| {
        rig.wait(after);
        rig.server.handle_client(rig.now, stranger, bytes);
        black_box(rig.server.poll_action())
    };
    group.bench_function("known", |bencher| bencher.iter(|| answer(Duration::ZERO, black_box(&known))));
    group.bench_function("newcomer", |bencher| {
        // More names than the cache holds, in a cycle, so that each has been evicted when it comes again.
        let mut next = newcomers.iter().cycle();
        // The highest rate at which a source may cause searches.
        let after = Duration::from_micros(200);
        bencher.iter(|| next.next().and_then(|bytes| answer(after, black_box(bytes))));
    });
    group
        .bench_function("challenge", |bencher| bencher.iter(|| answer(Duration::ZERO, black_box(&unsigned))));
    group.finish();
}

/// Processes one message without valid credentials, answered or dropped as from a source within its limits.
fn strangers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stranger");
    group.throughput(Throughput::Elements(1));
    let mut settings = stun::settings();
    settings.users = ["ann", "bob"]
        .map(|name| StaticUser { name: name.into(), password: "password".into(), host: HostId(0) })
        .into();
    let mut rig = Rig::new(settings);
    let stranger = client(77);
    let nonce = rig.nonce(stranger);
    let guess = |name: &str| {
        stun::refresh([1; 12], 600).signed(&Login::new(name, "guess", REALM_NAME), nonce.as_bytes())
    };
    let filler = |len: usize| vec![(0x8fff_u16, vec![0x5a; len])];
    let messages = [
        ("binding", stun::Writer::new(BINDING, [1; 12]).plain()),
        ("challenge", stun::allocate([1; 12], &[]).plain()),
        ("forged_nonce", stun::refresh([1; 12], 600).signed(&login("ann"), &[b'n'; 22])),
        ("static_user_known", guess("ann")),
        ("static_user_unknown", guess("eve")),
        ("rest_name", guess(&format!("{}:eve", rig::EPOCH + 1000))),
        ("rest_name_expired", guess(&format!("{}:eve", rig::EPOCH - 1))),
        ("fingerprint_2_kib", stun::allocate([1; 12], &filler(1980)).raw(FINGERPRINT, &[1, 2, 3, 4]).plain()),
        ("over_2_kib", stun::allocate([1; 12], &filler(60_000)).plain()),
        ("channel_data", stun::channel_data(0x4000, &[7; 160])),
        ("garbage", vec![0xa5; 200]),
    ];
    for (name, message) in &messages {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                // Advance the clock, so that no rate limit applies.
                rig.wait(Duration::from_micros(100));
                rig.server.handle_client(rig.now, stranger, black_box(message));
                black_box(rig.server.poll_action())
            });
        });
    }
    group.finish();
}

criterion_group!(core, routes, rewrite, authentication, strangers);
criterion_main!(core);
