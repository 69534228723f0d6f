//! A client or peer that sends a lot gets only its share of each turn of the loop, and loses no message.

use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hallpass::base::host::HostId;
use hallpass::base::time::Now;
use hallpass::base::transport::Transport;
use hallpass::net::admission::Rules;

use super::send_segmented;
use crate::rig::*;

/// Units of work for the messages of one stream before other sockets are served.
const AT_ONCE: u64 = 128;

/// The messages of one read are handled over several turns, in order, and then the end of the connection.
#[test]
fn a_stream_of_tiny_messages_is_handled_over_many_turns() {
    const EACH: usize = 2000;
    for transport in [Transport::Tcp, Transport::Tls] {
        let relay = Relay::start_on(1, Rules::default(), clock);
        let mut client = relay.connect(transport);
        let (_peer, address) = peer();
        client.allocate();
        client.bind(0x4000, address);
        let (mut flood, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            flood.extend([0x40, 0, 0, 0].repeat(EACH));
            let refresh = client.request(0x0004, &[]);
            ids.push(refresh[8..20].to_vec());
            flood.extend(refresh);
        }
        let turns = |relay: &Relay| relay.sum(|counters| counters.wakeups.get());
        let before = turns(&relay);
        client.send(&flood);
        client.stream().shutdown(Shutdown::Write).expect("shutdown");
        for id in ids {
            let answer = client.receive();
            assert_eq!((&answer[..2], &answer[8..20]), (&[0x01, 0x04][..], &id[..]));
        }
        assert!(client.reads_the_end());
        let turns = turns(&relay) - before;
        assert!(turns >= 4 * EACH as u64 / AT_ONCE, "{turns} turns");
        let relayed = &relay.counters[0].host(HostId(0), transport).from_client.packets;
        assert_eq!(relayed.get(), 4 * EACH as u64);
        relay.stop();
    }
}

/// A clock that advances by another millisecond with each reading, so that every time slice is over at its second reading.
fn clock_that_leaps() -> Now {
    static LEAPS: AtomicU64 = AtomicU64::new(0);
    let Now { instant, unix } = clock();
    Now { instant: instant + Duration::from_millis(LEAPS.fetch_add(1, Relaxed)), unix }
}

/// Relayed addresses and streams that a turn has no time for are served in a later turn, without another event.
#[test]
fn sockets_left_over_by_a_turn_are_served_later() {
    let relay = Relay::start_on(1, Rules::default(), clock_that_leaps);
    let (peer, address) = peer();
    let mut clients: Vec<_> = (0..60)
        .map(|number| {
            let mut client = relay.connect(Transport::ALL[number % 3]);
            let relayed = client.allocate();
            client.bind(0x4000, address);
            (client, relayed)
        })
        .collect();
    let payloads: Vec<Vec<u8>> = (0..40).map(|number| vec![number; 4]).collect();
    for _ in 0..3 {
        for (_, relayed) in &clients {
            send_segmented(&peer, *relayed, &[], &payloads);
        }
        for (client, _) in &mut clients {
            for payload in &payloads {
                assert_eq!(client.receive()[4..], payload[..]);
            }
        }
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            client.send(&[0x40, 0, 0, 4, 0, 0, 0, number as u8]);
        }
        let mut seen: Vec<u8> = clients.iter().map(|_| receive_at(&peer).0[3]).collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..clients.len() as u8), "{seen:?}");
    }
    relay.stop();
}
