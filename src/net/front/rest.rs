//! The rest of an answer that the client has not received when both directions of a web connection have ended.
//!
//! The kernel would deliver it without the connection, but then it would count in no limit, and a client that takes a few bytes
//! now and then would keep it for hours.

use std::time::Duration;

use super::life::Life;
use super::progress::Progress;
use crate::base::time::Instant;
use crate::net::counters::CloseReason;
use crate::net::stream::Stream;
use crate::net::syscall::TcpProgress;

/// What may be left to the kernel alone: a segment or two, and the end of the connection.
const LEFT_TO_KERNEL: usize = 4 << 10;
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// How far the client is.
#[derive(Debug, Default)]
pub struct Rest {
    progress: Option<Progress>,
    is_over: bool,
}

/// Returns whether the client has yet to receive so much that its connection must stay.
pub fn is_left(stream: &Stream) -> bool {
    stream.undelivered() > LEFT_TO_KERNEL
}

impl Rest {
    /// Returns whether it has arrived.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Returns when to look again, or that the connection is over: `Closed` if the rest has arrived, `Stuck` if the client
    /// does not take it.
    pub fn life(&mut self, stream: &Stream, now: Instant) -> Life {
        let arrived = TcpProgress::of(stream.fd()).unwrap_or_default().acknowledged;
        self.judge(stream.undelivered(), arrived, now)
    }

    fn judge(&mut self, undelivered: usize, arrived: u64, now: Instant) -> Life {
        if undelivered <= LEFT_TO_KERNEL {
            self.is_over = true;
            return Life::Over(CloseReason::Closed);
        }
        let progress = self.progress.get_or_insert(Progress::new(now, arrived));
        progress.follow(now, arrived);
        if progress.is_stalled(now) {
            return Life::Over(CloseReason::Stuck);
        }
        Life::Until(now + LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_waited_for_while_it_arrives() {
        let at = |seconds| Instant::from_nanos((1000 + seconds) * 1_000_000_000);
        let mut rest = Rest::default();
        assert_eq!(rest.judge(300_000, 50_000, at(0)), Life::Until(at(1)));
        // 20 kbit/s.
        for second in 1..60 {
            assert_eq!(rest.judge(290_000, 50_000 + second * 2_500, at(second)), Life::Until(at(second + 1)));
        }
        // A few bytes now and then.
        let arrived = 50_000 + 59 * 2_500;
        let end = (60..80).find(|&second| {
            rest.judge(280_000, arrived + second, at(second)) == Life::Over(CloseReason::Stuck)
        });
        assert!(end.is_some_and(|second| (66..=69).contains(&second)), "{end:?}");
        assert_eq!(rest.judge(1000, 0, at(90)), Life::Over(CloseReason::Closed));
    }
}
