//! The state as plain text and as JSON, for `--once`.

use serde_json::{Value, json};

use super::board::{Board, Bound, Count, Load, Rate, Row};
use super::grid::{Column, lay_out};
use super::number::{bits, or_dash, short};
use super::reading::Flow;
use super::sessions::Session;
use super::state::State;
use super::tables;
use crate::base::text::{counted, duration};

/// Sessions in a report, those with the most traffic. `hallpass sessions` lists all.
const SESSIONS_MAX: usize = 20;
/// Refusals in a report, the latest. `hallpass refusals` lists all.
const REFUSALS_MAX: usize = 5;
/// Reasons of refusals or drops in the text.
const REASONS_MAX: usize = 10;
/// The width of notices in the text. Tables are as wide as they need.
const WIDTH: usize = 80;
const UNLIMITED: usize = 100_000;

/// Returns the text; empty without a reading. `unix` is the time in seconds since 1970.
pub fn text(state: &State, unix: u64) -> String {
    let Some(board) = &state.board else { return String::new() };
    let mut lines = head(board, &state.server, unix);
    lines.push(String::new());
    if state.notices.is_empty() {
        lines.push(state.all_is_well.clone());
    }
    lines.extend(state.notices.iter().flat_map(|notice| notice.lines(WIDTH)));
    let mut table = |columns: &[Column], cells: Vec<Vec<String>>| {
        if !cells.is_empty() {
            let laid = lay_out(columns, &cells, UNLIMITED);
            lines.extend([String::new(), laid.header]);
            lines.extend(laid.rows);
        }
    };
    table(&tables::TRAFFIC, state.rows().into_iter().map(tables::traffic).collect());
    let few = |counts: &[Count]| counts.iter().take(REASONS_MAX).map(tables::count).collect();
    table(&tables::counts("REFUSED", board.recent), few(&board.refusals));
    table(&tables::counts("DROPPED", board.recent), few(&board.drops));
    table(&tables::LIMITS, board.limits.iter().map(tables::limit).collect());
    table(&tables::WORKERS, board.workers.iter().map(tables::worker).collect());
    let sessions = state.shown_sessions();
    table(&tables::SESSIONS, sessions.iter().take(SESSIONS_MAX).map(|one| tables::session(one)).collect());
    let total = state.sessions.as_ref().map_or(0, |sessions| sessions.total);
    if total > SESSIONS_MAX as u64 {
        lines.push(format!("and {} more: hallpass sessions", total - SESSIONS_MAX as u64));
    }
    let refusals: Vec<_> = state.shown_refusals().into_iter().take(REFUSALS_MAX).collect();
    if !refusals.is_empty() {
        let cells: Vec<Vec<String>> = refusals.iter().map(|one| tables::refusal(one, unix)).collect();
        let laid = lay_out(&tables::REFUSALS, &cells, UNLIMITED);
        lines.extend([String::new(), laid.header]);
        for (line, refusal) in laid.rows.into_iter().zip(&refusals) {
            lines.extend([
                line,
                format!("  {}", refusal.text),
                format!("  next step: {}", refusal.next_step),
            ]);
        }
    }
    lines.join("\n") + "\n"
}

fn head(board: &Board, server: &str, unix: u64) -> Vec<String> {
    let (reading, sum) = (&board.reading, &board.sum);
    let serving = match (reading.draining, reading.ready) {
        (true, _) => "draining",
        (false, true) => "ready",
        (false, false) => "not ready",
    };
    let up = duration(unix.saturating_sub(reading.started));
    vec![
        format!("hallpass {} at {server}, up {up}, {serving}", reading.version),
        format!(
            "{}, {}, new {}/s, to peers {}, to clients {}, {} cores",
            counted(sum.sessions as usize, "session"),
            counted(reading.users as usize, "user"),
            or_dash(sum.created, short),
            or_dash(sum.from_client.bits, bits),
            or_dash(sum.from_peer.bits, bits),
            or_dash(board.cpu, |cores| format!("{cores:.2}")),
        ),
    ]
}

/// Returns the same as JSON; `null` without a reading. Rates are per second.
pub fn json(state: &State, unix: u64) -> Value {
    let Some(board) = &state.board else { return Value::Null };
    let reading = &board.reading;
    let limits = board.limits.iter().map(|limited| {
        json!({ "name": limited.name, "used": limited.usage.used, "limit": limited.usage.limit, "share": limited.share() })
    });
    let notices = state.notices.iter();
    let notices =
        notices.map(|one| json!({ "urgent": one.is_urgent, "text": one.text, "next_step": one.step }));
    let refusals = state.shown_refusals().into_iter().take(REFUSALS_MAX).map(|one| {
        json!({
            "time": one.time, "reason": one.reason, "host": one.host, "user": one.user, "transport": one.transport,
            "client": one.client, "request": one.request, "text": one.text, "next_step": one.next_step,
        })
    });
    let sessions = state.shown_sessions();
    json!({
        "time": unix,
        "server": state.server,
        "version": reading.version,
        "uptime_seconds": unix.saturating_sub(reading.started),
        "ready": reading.ready,
        "draining": reading.draining,
        "interval_seconds": board.interval,
        "recent_seconds": board.recent,
        "users": reading.users,
        "cores": board.cpu,
        "attention": notices.collect::<Vec<_>>(),
        "refused_last_five_minutes": state.refused_recently,
        "total": row(&board.sum),
        "traffic": state.rows().into_iter().map(row).collect::<Vec<_>>(),
        "refusals_by_reason": board.refusals.iter().map(count).collect::<Vec<_>>(),
        "drops_by_reason": board.drops.iter().map(count).collect::<Vec<_>>(),
        "limits": limits.collect::<Vec<_>>(),
        "workers": board.workers.iter().map(worker).collect::<Vec<_>>(),
        "sessions_total": state.sessions.as_ref().map(|sessions| sessions.total),
        "busiest_sessions": sessions.into_iter().take(SESSIONS_MAX).map(session).collect::<Vec<_>>(),
        "last_refusals": refusals.collect::<Vec<_>>(),
    })
}

fn rate(rate: Rate) -> Value {
    json!({ "packets": rate.packets, "bits": rate.bits })
}

fn row(row: &Row) -> Value {
    json!({
        "host": row.rung.host,
        "transport": row.rung.transport,
        "sessions": row.sessions,
        "created": row.created,
        "from_client": rate(row.from_client),
        "from_peer": rate(row.from_peer),
    })
}

fn count(count: &Count) -> Value {
    json!({
        "reason": count.reason,
        "host": count.rung.host,
        "transport": count.rung.transport,
        "recent": count.recent,
        "total": count.total,
    })
}

/// A worker. Of a duration the upper bound is known; `null` is longer than the last one, or there was no turn.
fn worker(load: &Load) -> Value {
    let bound = |at: usize| match load.turns.map(|turns| turns[at]) {
        Some(Bound::Below(seconds)) => Some(seconds),
        Some(Bound::Above(_)) | None => None,
    };
    json!({
        "worker": load.worker,
        "busy": load.busy,
        "datagrams": load.datagrams,
        "turn_seconds": { "median": bound(0), "p99": bound(1), "longest": bound(2) },
        "restarts": load.restarts,
    })
}

fn session(session: &Session) -> Value {
    let flow = |flow: Flow, way: usize| json!({ "packets": flow.packets, "bytes": flow.bytes, "bits": session.bits.map(|bits| bits[way]) });
    json!({
        "host": session.host,
        "user": session.user,
        "transport": session.transport,
        "client": session.client,
        "server": session.server,
        "seconds": session.seconds,
        "from_client": flow(session.from_client, 0),
        "from_peer": flow(session.from_peer, 1),
        "relayed": session.relayed.iter().map(|relayed| &relayed.address).collect::<Vec<_>>(),
        "hints": session.hints,
        "notes": session.notes,
    })
}
