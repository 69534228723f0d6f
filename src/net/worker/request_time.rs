//! Time for requests over UDP, and for QUIC.
//!
//! All UDP clients of a worker share one queue in the kernel, in which media waits behind requests. The limits of sources and
//! users permit a second's worth at once, and many of them can come together. So while more is waiting than one read takes, and
//! calls are running, requests have a part of the time. Those beyond it are dropped unread, for a tenth of the cost; clients send
//! them again (RFC 8489 section 6.2.1).

use std::time::Duration;

use crate::base::time::Instant;

/// Time at once, for each kind of sender.
const BURST: Duration = Duration::from_millis(2);
/// Clients with an allocation have a half of the time, others a quarter, and so has QUIC: so many nanoseconds must pass for each
/// one used. So 20,000 requests a second that forge the address of a call do not keep out its own.
const EVERY: [u64; 3] = [4, 2, 4];
/// Time for sending an answer, which happens later.
const SENDING: Duration = Duration::from_micros(3);
/// How long after the last datagram of a call calls count as running.
const CALLS: Duration = Duration::from_secs(1);

/// Who sends what is handled in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client without an allocation.
    Newcomer,
    /// A client with an allocation.
    Holder,
    /// A client of HTTP/3: each of its datagrams is forwarded at once. QUIC repeats what is lost.
    Quic,
}

impl Sender {
    /// The sender of a request.
    pub fn of_request(has_allocation: bool) -> Self {
        if has_allocation { Self::Holder } else { Self::Newcomer }
    }
}

/// The time used, by sender.
#[derive(Debug, Default)]
pub struct RequestTime {
    /// When each has paid for the time used, in nanoseconds (GCRA).
    paid_at: [u64; 3],
    /// When calls do not count as running any more.
    calls_until: Option<Instant>,
}

impl RequestTime {
    /// Records a datagram of a call.
    pub fn media(&mut self, now: Instant) {
        self.calls_until = Some(now + CALLS);
    }

    /// Returns whether another datagram of this sender may be handled.
    pub fn is_left(&self, now: Instant, sender: Sender) -> bool {
        let class = sender as usize;
        let ahead = BURST.as_nanos() as u64 * EVERY[class];
        self.calls_until.is_none_or(|until| until <= now) || self.paid_at[class] <= now.as_nanos() + ahead
    }

    /// Records the time of a datagram of this sender.
    pub fn spend(&mut self, began: Instant, ended: Instant, sender: Sender, is_answered: bool) {
        let class = sender as usize;
        let used = ended.since(began) + if is_answered { SENDING } else { Duration::ZERO };
        let paid_at = self.paid_at[class].max(began.as_nanos());
        // Bounded, so that one long request, or many without calls, do not keep out others for long.
        let most = ended.as_nanos() + 2 * BURST.as_nanos() as u64 * EVERY[class];
        self.paid_at[class] = (paid_at + used.as_nanos() as u64 * EVERY[class]).min(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + micros * 1000)
    }

    /// Handles requests of 47 us, which with their answers take 50, as fast as they may be. Returns how many.
    fn handled(time: &mut RequestTime, from: u64, sender: Sender) -> usize {
        let mut now = from;
        let mut next = || {
            let is_left = time.is_left(at(now), sender);
            time.spend(at(now), at(now + 47), sender, true);
            now += 50;
            is_left
        };
        (0..10_000).take_while(|_| next()).count()
    }

    #[test]
    fn requests_beyond_their_time_are_dropped_while_calls_are_running() {
        let mut time = RequestTime::default();
        assert_eq!(handled(&mut time, 0, Sender::Newcomer), 10_000, "there is no call");
        time.media(at(2_000_000));
        // In the time of the burst another quarter, or another half, is earned.
        let strangers = handled(&mut time, 2_000_000, Sender::Newcomer);
        assert!((53..=55).contains(&strangers), "{strangers}");
        let holders = handled(&mut time, 2_000_000, Sender::Holder);
        assert!((80..=83).contains(&holders), "{holders}");
        let quic = handled(&mut time, 2_000_000, Sender::Quic);
        assert_eq!(quic, strangers);
        assert!(time.is_left(at(2_020_000), Sender::Newcomer));
        assert!(time.is_left(at(3_000_000), Sender::Newcomer), "the last call has ended");
    }

    #[test]
    fn requests_that_are_spread_out_are_never_dropped() {
        let mut time = RequestTime::default();
        for micros in (0..900_000).step_by(400) {
            time.media(at(micros));
            assert!(time.is_left(at(micros), Sender::Newcomer));
            time.spend(at(micros), at(micros + 47), Sender::Newcomer, true);
        }
    }
}
