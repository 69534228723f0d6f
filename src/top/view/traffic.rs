//! The first view: traffic by host and transport, and below it refusals, drops, limits and workers in short.

use super::page::Page;
use crate::top::board::{Count, NEAR};
use crate::top::grid::{Column, lay_out};
use crate::top::state::State;
use crate::top::tables;

/// The lines of the lower part, if there is room for them.
const LOWER: usize = 11;
/// The width from which on the lower part has two columns.
const TWO_COLUMNS: usize = 70;

/// Draws the view.
pub fn draw(page: &mut Page<'_>, state: &mut State) {
    let Some(board) = &state.board else { return waiting(page, state) };
    let has_lower = page.height() >= LOWER + 4 && page.width() >= TWO_COLUMNS;
    let upper = if has_lower { page.height() - LOWER } else { page.height() };
    let cells: Vec<Vec<String>> = state.rows().into_iter().map(tables::traffic).collect();
    let is_filtered = cells.len() < board.rows.len();
    let mut table = page.split_off(u16::try_from(upper).unwrap_or(u16::MAX));
    let lines = lay_out(&tables::TRAFFIC, &cells, table.width());
    table.text(&lines.header, state.theme.header());
    if lines.rows.is_empty() {
        let text =
            if is_filtered { "nothing contains the filter; esc shows everything" } else { "no hosts yet" };
        table.text(text, state.theme.dim());
    }
    let room = table.left();
    state.cursor().show(lines.rows.len(), room);
    // The table has no selection: the keys scroll it.
    let first = state.cursor().at.min(lines.rows.len().saturating_sub(room));
    let hidden = lines.rows.len().saturating_sub(first + room);
    for (at, line) in lines.rows.iter().enumerate().skip(first).take(room) {
        if hidden > 0 && at + 1 == first + room {
            table.text(&format!("and {} more: scroll down", hidden + 1), state.theme.dim());
        } else {
            table.text(line, ratatui::style::Style::new());
        }
    }
    if has_lower {
        counts(&mut page.half(false), state);
        capacity(&mut page.half(true), state);
    }
}

fn waiting(page: &mut Page<'_>, state: &State) {
    page.text("waiting for the first answer of the server", state.theme.dim());
}

/// Refusals and drops.
fn counts(page: &mut Page<'_>, state: &State) {
    let Some(board) = &state.board else { return };
    let half = page.left() / 2;
    let refused = sum_of_reasons(&board.refusals);
    few(page, &tables::counts("REFUSED"), &refused, half, state);
    let rest = page.left();
    few(page, &tables::counts("DROPPED"), &board.drops, rest, state);
}

/// Adds up the refusals of all hosts and transports: the view of reasons has the details.
fn sum_of_reasons(refusals: &[Count]) -> Vec<Count> {
    let mut sums: Vec<Count> = Vec::new();
    for count in refusals {
        match sums.iter_mut().find(|sum| sum.reason == count.reason) {
            Some(sum) => (sum.recent, sum.total) = (sum.recent + count.recent, sum.total + count.total),
            None => sums.push(Count { rung: Default::default(), ..count.clone() }),
        }
    }
    sums.sort_by(|a, b| (b.recent, b.total).cmp(&(a.recent, a.total)));
    sums
}

fn few(page: &mut Page<'_>, columns: &[Column], counts: &[Count], lines: usize, state: &State) {
    let cells: Vec<Vec<String>> = counts.iter().map(tables::count).collect();
    let laid = lay_out(columns, &cells, page.width());
    page.text(&laid.header, state.theme.header());
    if counts.is_empty() {
        page.text("none", state.theme.dim());
    }
    for (line, count) in laid.rows.iter().zip(counts).take(lines.saturating_sub(1)) {
        page.text(line, if count.recent > 0 { state.theme.title() } else { state.theme.dim() });
    }
}

/// Limits and workers.
fn capacity(page: &mut Page<'_>, state: &State) {
    let Some(board) = &state.board else { return };
    limits(page, state);
    let mut loads: Vec<_> = board.workers.iter().collect();
    // The busiest first, because there may be more than fit.
    loads.sort_by(|a, b| b.busy.unwrap_or(0.0).total_cmp(&a.busy.unwrap_or(0.0)));
    let cells: Vec<Vec<String>> = loads.iter().map(|load| tables::worker(load)[..5].to_vec()).collect();
    let laid = lay_out(&tables::WORKERS[..5], &cells, page.width());
    page.text(&laid.header, state.theme.header());
    let room = page.left();
    let shown = if laid.rows.len() > room { room.saturating_sub(1) } else { room };
    for (line, load) in laid.rows.iter().zip(&loads).take(shown) {
        let is_busy = load.busy.is_some_and(|busy| busy >= NEAR);
        page.text(line, if is_busy { state.theme.warning() } else { ratatui::style::Style::new() });
    }
    if laid.rows.len() > shown {
        page.text(&format!("and {} more: 5 workers", laid.rows.len() - shown), state.theme.dim());
    }
}

/// The limits with their use.
pub fn limits(page: &mut Page<'_>, state: &State) {
    let Some(board) = &state.board else { return };
    let cells: Vec<Vec<String>> = board.limits.iter().map(tables::limit).collect();
    let laid = lay_out(&tables::LIMITS, &cells, page.width());
    page.text(&laid.header, state.theme.header());
    for (line, limited) in laid.rows.iter().zip(&board.limits) {
        let is_near = limited.share().is_some_and(|share| share >= NEAR);
        page.text(line, if is_near { state.theme.warning() } else { ratatui::style::Style::new() });
    }
}
