//! The views that are one list.

use ratatui::style::Style;

use super::page::Page;
use super::traffic;
use crate::base::text::{counted, duration, wrap};
use crate::base::time::Instant;
use crate::top::board::NEAR;
use crate::top::grid::{Column, lay_out};
use crate::top::state::State;
use crate::top::tables;

/// Draws the sessions.
pub fn sessions(page: &mut Page<'_>, state: &mut State, now: Instant) {
    let Some(sessions) = &state.sessions else {
        return page.text("reading the sessions...", state.theme.dim());
    };
    let (total, is_complete, age) = (sessions.total, sessions.is_complete, now.since(sessions.at).as_secs());
    state.follow_selection();
    let shown = state.shown_sessions();
    let (count, listed) = (shown.len(), state.sessions.as_ref().map_or(0, |sessions| sessions.all.len()));
    // One line for the header, one for what looks wrong with the selected session, one for the numbers below.
    let room = page.left().saturating_sub(3);
    let window = window(state, count, room);
    let shown = state.shown_sessions();
    let selected = shown.get(window.0 + window.1);
    let hint = selected.and_then(|one| one.hints.first().cloned());
    let note = selected.and_then(|one| one.notes.first().cloned());
    let cells: Vec<Vec<String>> =
        shown.iter().skip(window.0).take(room).map(|one| tables::session(one)).collect();
    let marked: Vec<bool> = shown.iter().skip(window.0).take(room).map(|one| !one.hints.is_empty()).collect();
    let mut text = match (count, total) {
        (0, 0) => "no sessions".to_owned(),
        (count, total) if count as u64 == total => counted(total as usize, "session"),
        (count, total) => format!("{count} of {}", counted(total as usize, "session")),
    };
    if listed as u64 != total {
        text += &format!(", {listed} read");
    }
    text += &format!(", read {} ago", duration(age));
    if !is_complete {
        text += "; a worker did not answer, so its sessions are missing";
    }
    let mut table = page.split_off(u16::try_from(page.left().saturating_sub(2)).unwrap_or(u16::MAX));
    list(&mut table, state, &tables::SESSIONS, &cells, &marked, window.1);
    match (hint, note) {
        (Some(hint), _) => page.text(&format!("! {hint}"), state.theme.warning()),
        (None, Some(note)) => page.text(&format!("  {note}"), state.theme.dim()),
        (None, None) => {}
    }
    page.last(&text, state.theme.dim());
}

/// Draws the refusals, the selected one with its reason and the next step.
pub fn refusals(page: &mut Page<'_>, state: &mut State, unix: u64) {
    if state.refusals.is_none() {
        return page.text("reading the refusals...", state.theme.dim());
    }
    state.follow_selection();
    let count = state.shown_refusals().len();
    if count == 0 {
        let text = if state.filter.is_empty() {
            "nobody was refused lately"
        } else {
            "no refusal contains the filter"
        };
        return page.text(text, state.theme.good());
    }
    let story = if page.left() >= 10 { 5 } else { 0 };
    let room = page.left().saturating_sub(1 + story);
    let window = window(state, count, room);
    let shown = state.shown_refusals();
    let cells: Vec<Vec<String>> =
        shown.iter().skip(window.0).take(room).map(|one| tables::refusal(one, unix)).collect();
    let selected = shown.get(window.0 + window.1).map(|one| (one.text.clone(), one.next_step.clone()));
    let height = page.left().saturating_sub(story);
    let mut table = page.split_off(u16::try_from(height).unwrap_or(u16::MAX));
    list(&mut table, state, &tables::REFUSALS, &cells, &vec![false; cells.len()], window.1);
    if let Some((text, next_step)) = selected.filter(|_| story > 0) {
        page.text("", Style::new());
        let text = wrap(&text, "", page.width());
        let step = wrap(&format!("next step: {next_step}"), "", page.width());
        let steps = step.lines().count();
        let room = page.left().saturating_sub(steps.min(2));
        let is_cut = text.lines().count() > room.max(1);
        for (at, line) in text.lines().take(room.max(1)).enumerate() {
            let more = if is_cut && at + 1 == room.max(1) { " ..." } else { "" };
            let kept: String = line.chars().take(page.width().saturating_sub(more.len())).collect();
            page.text(&format!("{kept}{more}"), Style::new());
        }
        step.lines().for_each(|line| page.text(line, state.theme.title()));
    }
}

/// Draws refusals and drops by reason.
pub fn reasons(page: &mut Page<'_>, state: &mut State) {
    let shown = state.shown_reasons();
    if shown.is_empty() {
        return page.text("nothing was refused or dropped", state.theme.good());
    }
    let (count, room) = (shown.len(), page.left().saturating_sub(1));
    let recent: Vec<bool> = shown.iter().map(|(_, count)| count.recent > 0).collect();
    let cells: Vec<Vec<String>> = shown.iter().map(|(what, count)| tables::reason(what, count)).collect();
    let (first, _) = window(state, count, room);
    let last = (first + room).min(count);
    let recent_seconds = state.board.as_ref().map_or(0.0, |board| board.recent);
    let laid = lay_out(&tables::reasons(recent_seconds), &cells[first..last], page.width());
    page.text(&laid.header, state.theme.header());
    for (line, is_recent) in laid.rows.iter().zip(&recent[first..last]) {
        page.text(line, if *is_recent { state.theme.title() } else { state.theme.dim() });
    }
}

/// Draws limits and workers.
pub fn workers(page: &mut Page<'_>, state: &mut State) {
    traffic::limits(page, state);
    page.text("", Style::new());
    let Some(board) = &state.board else { return };
    let cells: Vec<Vec<String>> = board.workers.iter().map(tables::worker).collect();
    let busy: Vec<bool> =
        board.workers.iter().map(|load| load.busy.is_some_and(|busy| busy >= NEAR)).collect();
    let room = page.left().saturating_sub(2);
    let (first, _) = window(state, cells.len(), room);
    let last = (first + room).min(cells.len());
    let laid = lay_out(&tables::WORKERS, &cells[first..last], page.width());
    page.text(&laid.header, state.theme.header());
    for (line, is_busy) in laid.rows.iter().zip(&busy[first..last]) {
        page.text(line, if *is_busy { state.theme.warning() } else { Style::new() });
    }
    page.last(
        "a turn of the loop: from waking up until all work is done; see ? for the words",
        state.theme.dim(),
    );
}

/// Moves the cursor into a list of `count` lines with `room` on the screen. Returns the first line to show, and the position of
/// the selected one below it.
fn window(state: &mut State, count: usize, room: usize) -> (usize, usize) {
    let cursor = state.cursor();
    cursor.show(count, room);
    (cursor.offset, cursor.at - cursor.offset)
}

/// Draws the lines of a list, with a mark on some and the selection.
fn list(
    page: &mut Page<'_>,
    state: &State,
    columns: &[Column],
    cells: &[Vec<String>],
    marked: &[bool],
    selected: usize,
) {
    let laid = lay_out(columns, cells, page.width());
    page.text(&laid.header, state.theme.header());
    for (at, (line, is_marked)) in laid.rows.iter().zip(marked).enumerate() {
        match (at == selected, is_marked) {
            (true, _) => page.selected(line, state.theme.selected()),
            (false, true) => page.text(line, state.theme.warning()),
            (false, false) => page.text(line, Style::new()),
        }
    }
}
