//! The tables of the screen and of the plain report: columns, and the cells of a line.

use super::board::{Count, Limited, Load, Row};
use super::grid::Column;
use super::number::{bits, bound, or_dash, percent, short};
use super::refusals::Refusal;
use super::sessions::Session;
use crate::base::text::{self, bytes, duration};

/// Traffic by host and transport.
pub const TRAFFIC: [Column; 8] = [
    Column::text("HOST", 6, 1),
    Column::text("VIA", 3, 0),
    Column::number("SESSIONS", 8, 2),
    Column::number("NEW/S", 5, 5),
    Column::number("TO PEERS", 11, 3),
    Column::number("PKT/S", 6, 6),
    Column::number("TO CLIENTS", 11, 3),
    Column::number("PKT/S", 6, 6),
];

/// Returns the cells of a row of traffic.
pub fn traffic(row: &Row) -> Vec<String> {
    vec![
        row.rung.host.clone(),
        row.rung.transport.clone(),
        row.sessions.to_string(),
        or_dash(row.created, short),
        or_dash(row.from_client.bits, bits),
        or_dash(row.from_client.packets, short),
        or_dash(row.from_peer.bits, bits),
        or_dash(row.from_peer.packets, short),
    ]
}

/// Sessions. The first column marks those that look wrong.
pub const SESSIONS: [Column; 8] = [
    Column::text("!", 1, 1),
    Column::text("USER", 8, 0),
    Column::text("HOST", 6, 5),
    Column::text("VIA", 3, 4),
    Column::text("CLIENT", 12, 3),
    Column::number("AGE", 7, 6),
    Column::number("TO PEERS", 10, 2),
    Column::number("TO CLIENT", 10, 2),
];

/// Returns the cells of a session. Without a rate yet, those of traffic have what was relayed so far.
pub fn session(session: &Session) -> Vec<String> {
    let traffic = |way: usize, so_far: u64| match session.bits {
        Some(rates) => bits(rates[way]),
        None => bytes(so_far),
    };
    vec![
        if session.hints.is_empty() { String::new() } else { "!".to_owned() },
        text::or_dash(&session.user),
        session.host.clone(),
        session.transport.clone(),
        session.client.clone(),
        duration(session.seconds),
        traffic(0, session.from_client.bytes),
        traffic(1, session.from_peer.bytes),
    ]
}

/// Refusals.
pub const REFUSALS: [Column; 6] = [
    Column::number("AGO", 7, 1),
    Column::text("REASON", 12, 0),
    Column::text("USER", 8, 0),
    Column::text("HOST", 6, 5),
    Column::text("VIA", 3, 4),
    Column::text("CLIENT", 12, 3),
];

/// Returns the cells of a refusal; `unix` is the time in seconds since 1970.
pub fn refusal(refusal: &Refusal, unix: u64) -> Vec<String> {
    vec![
        duration(unix.saturating_sub(refusal.time)),
        refusal.reason.clone(),
        text::or_dash(&refusal.user),
        text::or_dash(&refusal.host),
        refusal.transport.clone(),
        refusal.client.clone(),
    ]
}

/// Refusals and drops by reason.
///
/// `recent` is the span of the counts in seconds.
pub fn reasons(recent: f64) -> [Column; 6] {
    [
        Column::text("WHAT", 7, 2),
        Column::text("REASON", 12, 0),
        Column::text("HOST", 6, 4),
        Column::text("VIA", 3, 5),
        Column::number(last(recent), LAST_WIDTH, 1),
        Column::number("SINCE START", 11, 3),
    ]
}

/// Returns the cells of a reason.
pub fn reason(what: &str, count: &Count) -> Vec<String> {
    vec![
        what.to_owned(),
        count.reason.clone(),
        text::or_dash(&count.rung.host),
        text::or_dash(&count.rung.transport),
        count.recent.to_string(),
        count.total.to_string(),
    ]
}

/// Refusals or drops in short. `recent` is the span of the counts in seconds.
pub fn counts(title: &'static str, recent: f64) -> [Column; 3] {
    [
        Column::text(title, 8, 0),
        Column::number(last(recent), LAST_WIDTH, 1),
        Column::number("SINCE START", 11, 2),
    ]
}

/// Width of the title that [`last`] returns.
const LAST_WIDTH: usize = 9;

/// Returns the title of counts over so many seconds. In the first minute they cover less than a minute.
fn last(seconds: f64) -> &'static str {
    const FIRST: [&str; 10] = [
        "SO FAR", "LAST 1 S", "LAST 2 S", "LAST 3 S", "LAST 4 S", "LAST 5 S", "LAST 6 S", "LAST 7 S",
        "LAST 8 S", "LAST 9 S",
    ];
    match seconds.round() as u64 {
        few @ 0..10 => FIRST[few as usize],
        10..15 => "LAST 10 S",
        15..25 => "LAST 20 S",
        25..35 => "LAST 30 S",
        35..45 => "LAST 40 S",
        45..55 => "LAST 50 S",
        _ => "LAST MIN",
    }
}

/// Returns the cells of a reason in short.
pub fn count(count: &Count) -> Vec<String> {
    let rung = [&count.rung.host, &count.rung.transport];
    let rung: Vec<&str> = rung.into_iter().filter(|text| !text.is_empty()).map(String::as_str).collect();
    let reason = if rung.is_empty() {
        count.reason.clone()
    } else {
        format!("{} ({})", count.reason, rung.join(", "))
    };
    vec![reason, count.recent.to_string(), count.total.to_string()]
}

/// Workers.
pub const WORKERS: [Column; 7] = [
    Column::text("WORKER", 6, 0),
    Column::number("BUSY", 5, 0),
    Column::number("MEDIAN", 7, 3),
    Column::number("P99", 7, 1),
    Column::number("LONGEST", 7, 2),
    Column::number("PKT/S", 6, 4),
    Column::number("RESTARTS", 8, 5),
];

/// Returns the cells of a worker.
pub fn worker(load: &Load) -> Vec<String> {
    let turns = load.turns.map_or_else(|| [(); 3].map(|()| "-".to_owned()), |turns| turns.map(bound));
    let [median, slow, longest] = turns;
    let (busy, packets) = (or_dash(load.busy, percent), or_dash(load.datagrams, short));
    vec![load.worker.to_string(), busy, median, slow, longest, packets, load.restarts.to_string()]
}

/// Limits.
pub const LIMITS: [Column; 4] = [
    Column::text("LIMIT ON", 8, 0),
    Column::number("USED", 8, 1),
    Column::number("OF", 8, 2),
    Column::number("SHARE", 5, 0),
];

/// Returns the cells of a limit.
pub fn limit(limited: &Limited) -> Vec<String> {
    let amount = |value: f64| if limited.is_bytes { bytes(value as u64) } else { format!("{value:.0}") };
    let most = limited.usage.limit.map_or_else(|| "no limit".to_owned(), amount);
    let share = limited.share().map_or_else(|| "-".to_owned(), percent);
    vec![limited.name.to_owned(), amount(limited.usage.used), most, share]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_title_of_counts_names_their_span() {
        let titles = [0.0, 2.0, 9.6, 14.0, 31.0, 60.0].map(last);
        assert_eq!(titles, ["SO FAR", "LAST 2 S", "LAST 10 S", "LAST 10 S", "LAST 30 S", "LAST MIN"]);
        assert!(titles.iter().all(|title| title.len() <= LAST_WIDTH));
    }
}
