//! A client in a call: numbered packets to an echoing peer and back, with their round-trip times.

use super::client::{Client, Link, PATIENCE, channel_data};
use super::echo::Echo;
use super::plan::{LOCAL_V4, Transport};
use super::server::Server;
use super::stun::Session;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const CHANNEL: u16 = 0x4000;
const PAYLOAD: usize = 160;
/// Time to wait for the last packets.
const TAIL: Duration = Duration::from_millis(500);

pub struct Call {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<(Report, Client)>>,
    /// The relayed address.
    pub relayed: SocketAddr,
    _peer: Echo,
}

/// The results of a call.
pub struct Report {
    pub sent: u64,
    /// Round-trip times, sorted.
    times: Vec<Duration>,
}

impl Report {
    pub fn lost(&self) -> u64 {
        self.sent - self.times.len() as u64
    }

    /// Returns the share of packets that never came back.
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }

    /// Returns the round-trip time that this share of packets did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last as f64 * share) as usize).copied().unwrap_or(Duration::MAX)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p95, p99, max] =
            [0.5, 0.95, 0.99, 1.0].map(|share| self.quantile(share).as_secs_f64() * 1e3);
        let (lost, sent) = (self.lost(), self.sent);
        write!(f, "{lost} of {sent} lost, p50 {p50:.1} p95 {p95:.1} p99 {p99:.1} max {max:.1} ms")
    }
}

impl Call {
    /// Starts a call over UDP with `rate` packets per second.
    pub fn start(server: &Server, rate: u32) -> Call {
        Call::over(server, Transport::Udp, rate)
    }

    pub fn over(server: &Server, transport: Transport, rate: u32) -> Call {
        let session = Session::new(server.credentials("call"), b"");
        Call::of(&session, Link::open(transport, server.v4(transport)), rate)
    }

    pub fn of(session: &Session, link: Link, rate: u32) -> Call {
        let peer = Echo::start(LOCAL_V4);
        let mut client = Client::join(link, session);
        let relayed = client.allocate().expect("an allocation for a call");
        assert_eq!(client.bind(CHANNEL, peer.address()), 0, "a channel for a call");
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (stop.clone(), sent.clone());
        let thread = thread::spawn(move || (talk(&mut client, rate, &told, &counted), client));
        let call = Call { stop, sent, thread: Some(thread), relayed, _peer: peer };
        call.goes_on();
        call
    }

    /// Waits until some more packets have come back.
    pub fn goes_on(&self) {
        self.lasts(Duration::from_millis(100));
    }

    /// Continues the call for `time`.
    pub fn lasts(&self, time: Duration) {
        let (start, sent) = (Instant::now(), self.sent.load(Ordering::Relaxed));
        while start.elapsed() < time || self.sent.load(Ordering::Relaxed) < sent + 5 {
            assert!(
                self.thread.as_ref().is_some_and(|thread| !thread.is_finished()),
                "the call ended by itself"
            );
            thread::park_timeout(time.saturating_sub(start.elapsed()).max(Duration::from_millis(1)));
        }
    }

    pub fn end(self) -> Report {
        self.hang_up().0
    }

    /// Ends the call; returns the client with its allocation.
    pub fn hang_up(mut self) -> (Report, Client) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("ended once").join().expect("the call ran to its end")
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn talk(client: &mut Client, rate: u32, stop: &AtomicBool, count: &AtomicU64) -> Report {
    let (start, pause) = (Instant::now(), Duration::from_secs(1) / rate);
    let (mut sent, mut times) = (0_u32, Vec::new());
    let mut end = None;
    loop {
        let now = Instant::now();
        if stop.load(Ordering::Relaxed) && end.is_none() {
            end = Some(now + TAIL);
        }
        let next = match end {
            Some(end) if now >= end || times.len() as u32 == sent => break,
            Some(end) => end,
            None if now >= start + pause * sent => {
                let mut payload = [0x5A; PAYLOAD];
                payload[..8].copy_from_slice(&(start.elapsed().as_nanos() as u64).to_be_bytes());
                // A full send buffer counts as a lost packet.
                let _ = client.link.send(&channel_data(CHANNEL, &payload));
                sent += 1;
                count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            None => start + pause * sent,
        };
        client.link.wait_at_most(next - now);
        if let Ok(bytes) = client.receive()
            && bytes.len() == 4 + PAYLOAD
            && bytes[..2] == CHANNEL.to_be_bytes()
        {
            let left = Duration::from_nanos(u64::from_be_bytes(bytes[4..12].try_into().unwrap()));
            times.push(start.elapsed().saturating_sub(left));
        }
    }
    client.link.wait_at_most(PATIENCE);
    times.sort_unstable();
    Report { sent: sent.into(), times }
}
