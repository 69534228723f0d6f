//! How many messages to read at once from a socket whose messages may each hold many datagrams.

/// Datagrams that the messages read at once should hold; a coalesced message holds up to 64.
pub const DATAGRAMS: usize = 64;

/// Returns how many messages are likely to hold [`DATAGRAMS`], at most `max`. The last `messages` messages held
/// `datagrams` datagrams.
pub fn likely(messages: usize, datagrams: usize, max: usize) -> usize {
    (DATAGRAMS * messages).checked_div(datagrams).map_or(max, |likely| likely.clamp(1, max))
}
