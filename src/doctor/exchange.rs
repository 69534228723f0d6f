//! Data through the relay: two allocations send to each other and measure times and loss.

use std::net::SocketAddr;
use std::time::Duration;

use super::end::{End, either};
use super::stage::Cause;
use super::watch::now;
use crate::base::time::Instant;
use crate::client::Event;
use crate::system::entropy;

/// Packets of sound that each side sends, and the time between two: as in a call.
const COUNT: u32 = 30;
const INTERVAL: Duration = Duration::from_millis(20);
/// Their length in bytes.
const SMALL: usize = 160;
/// After so many small packets, one large packet is sent. Browsers send video in packets of up to 1,200 bytes.
const LARGE_EVERY: u32 = 5;
const LARGE: usize = 1200;
/// How long late packets are awaited.
const LINGER: Duration = Duration::from_millis(1500);
/// Length of what identifies a packet: a token, its number, the time of its sending.
const HEAD: usize = 8 + 4 + 8;

/// What an exchange of data showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Packets of the size of sound: sent and received.
    pub small: [u32; 2],
    /// Packets of the size of video: sent and received.
    pub large: [u32; 2],
    /// The shortest, the median and the longest time from this computer through the relay and back.
    pub trip: Option<[Duration; 3]>,
}

impl Exchange {
    /// The share of packets that were lost, from 0 to 1.
    pub fn loss(&self) -> f64 {
        let (sent, received) = (self.small[0] + self.large[0], self.small[1] + self.large[1]);
        f64::from(sent.saturating_sub(received)) / f64::from(sent.max(1))
    }

    /// Why calls would not work with these losses; `None` if they would.
    pub fn fault(&self) -> Option<Cause> {
        match (self.small[1], self.large[1]) {
            (0, _) => Some(Cause::NoData),
            (_, 0) => Some(Cause::NoLargeData(LARGE)),
            _ => None,
        }
    }
}

/// Sends packets both ways between two clients that are permitted and bound to each other's `relayed` address.
///
/// # Errors
/// A link failed.
pub async fn exchange(
    ends: &mut [End; 2],
    relayed: [SocketAddr; 2],
    until: Instant,
) -> Result<Exchange, Cause> {
    let token = entropy::key().map_err(|error| Cause::System(error.to_string()))?[0];
    let mut result = Exchange::default();
    let mut trips = Vec::new();
    let mut seen = [0_u128; 2];
    let (start, mut next) = (now(), 0);
    loop {
        while next < COUNT && now() >= start + INTERVAL * next {
            let is_large = next % LARGE_EVERY == LARGE_EVERY - 1;
            for (from, to) in [(0, 1), (1, 0)] {
                for len in if is_large { &[SMALL, LARGE][..] } else { &[SMALL] } {
                    ends[from].queue(relayed[to], &packet(token, next, *len))?;
                    count(&mut result, *len)[0] += 1;
                }
            }
            next += 1;
        }
        let is_complete = result.small[0] == result.small[1] && result.large[0] == result.large[1];
        let end = (start + INTERVAL * COUNT + LINGER).min(until);
        if (next == COUNT && is_complete) || now() >= end {
            break;
        }
        let due = if next < COUNT { start + INTERVAL * next } else { end };
        let Some((index, Event::Data { payload, .. })) = either(ends, due.min(end)).await? else { continue };
        let Some((number, sent)) = read(token, &payload) else { continue };
        // The network may deliver a copy.
        let bit = 1 << (number * 2 + u32::from(payload.len() == LARGE)).min(127);
        if seen[index] & bit == 0 {
            seen[index] |= bit;
            count(&mut result, payload.len())[1] += 1;
            trips.push(now().since(sent));
        }
    }
    trips.sort_unstable();
    result.trip = match (trips.first(), trips.get(trips.len() / 2), trips.last()) {
        (Some(&least), Some(&median), Some(&most)) => Some([least, median, most]),
        _ => None,
    };
    Ok(result)
}

fn count(result: &mut Exchange, len: usize) -> &mut [u32; 2] {
    if len == LARGE { &mut result.large } else { &mut result.small }
}

fn packet(token: u64, number: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&token.to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&now().as_nanos().to_be_bytes());
    bytes.resize(len, 0);
    bytes
}

/// Returns the number of a packet and the time of its sending; `None` if it is not one of this exchange.
fn read(token: u64, bytes: &[u8]) -> Option<(u32, Instant)> {
    let (head, _) = bytes.split_first_chunk::<HEAD>()?;
    let (own, rest) = head.split_first_chunk::<8>()?;
    let (number, sent) = rest.split_first_chunk::<4>()?;
    let (own, number) = (u64::from_be_bytes(*own), u32::from_be_bytes(*number));
    let is_ours = own == token && number < COUNT && matches!(bytes.len(), SMALL | LARGE);
    is_ours.then_some((number, Instant::from_nanos(u64::from_be_bytes(*sent.first_chunk()?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packets_of_this_exchange_count() {
        let bytes = packet(7, 3, SMALL);
        assert_eq!(bytes.len(), SMALL);
        assert_eq!(read(7, &bytes).map(|(number, _)| number), Some(3));
        assert!(
            read(8, &bytes).is_none() && read(7, &bytes[..SMALL - 1]).is_none() && read(7, b"x").is_none()
        );
        assert!(read(7, &packet(7, COUNT, SMALL)).is_none());
        // Each packet has a bit of its own in `seen`.
        const { assert!(COUNT * 2 + 1 < 128) };
    }

    #[test]
    fn losses_are_judged() {
        let of = |small, large| Exchange { small, large, trip: None };
        assert_eq!(of([60, 60], [12, 12]).fault(), None);
        assert_eq!(of([60, 30], [12, 1]).fault(), None);
        assert_eq!(of([60, 60], [12, 0]).fault(), Some(Cause::NoLargeData(LARGE)));
        assert_eq!(of([60, 0], [12, 0]).fault(), Some(Cause::NoData));
        assert!((of([60, 57], [12, 12]).loss() - 3.0 / 72.0).abs() < 1e-9);
        assert!(Exchange::default().loss().abs() < 1e-9);
    }
}
