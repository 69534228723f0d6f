//! The first view: traffic by host and transport, and below it refusals, drops, limits and workers in short.

use std::cmp::Reverse;

use ratatui::style::Style;

use super::page::Page;
use crate::top::board::{Count, NEAR};
use crate::top::grid::lay_out;
use crate::top::state::State;
use crate::top::tables;

/// The least lines of the lower part: five limits and four workers with their headers.
const LOWER: usize = 11;
/// The width from which on the lower part has two columns.
const TWO_COLUMNS: usize = 70;

/// Draws the view.
pub fn draw(page: &mut Page<'_>, state: &mut State) {
    let Some(board) = &state.board else { return waiting(page, state) };
    let cells: Vec<Vec<String>> = state.rows().into_iter().map(tables::traffic).collect();
    let has_lower = page.height() >= LOWER + 4 && page.width() >= TWO_COLUMNS;
    // The lower part begins below the table, and a long table leaves room for it.
    let upper = if has_lower { (page.height() - LOWER).min(cells.len() + 2) } else { page.height() };
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
            table.text(line, Style::new());
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

/// Refusals and drops, in columns of the same width.
fn counts(page: &mut Page<'_>, state: &State) {
    let Some(board) = &state.board else { return };
    let sums = sum_of_reasons(&board.refusals);
    let refused = sums.iter().take((page.left() / 2).saturating_sub(1));
    let mut lines: Vec<(Vec<String>, Style)> = refused.map(|count| reason_line(count, state)).collect();
    if lines.is_empty() {
        lines.push(nothing(state));
    }
    let columns = tables::counts("REFUSED", board.recent);
    let dropped = tables::counts("DROPPED", board.recent).map(|column| column.title.to_owned());
    lines.push((dropped.to_vec(), state.theme.header()));
    if board.drops.is_empty() {
        lines.push(nothing(state));
    }
    lines.extend(board.drops.iter().map(|count| reason_line(count, state)));
    lines.truncate(page.left().saturating_sub(1));
    let (cells, styles): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
    let laid = lay_out(&columns, &cells, page.width());
    page.text(&laid.header, state.theme.header());
    laid.rows.iter().zip(styles).for_each(|(line, style)| page.text(line, style));
}

/// Returns the cells of a reason, and the style of its line.
fn reason_line(count: &Count, state: &State) -> (Vec<String>, Style) {
    (tables::count(count), if count.recent > 0 { state.theme.title() } else { state.theme.dim() })
}

fn nothing(state: &State) -> (Vec<String>, Style) {
    (vec!["none".to_owned()], state.theme.dim())
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
    sums.sort_by_key(|sum| Reverse((sum.recent, sum.total)));
    sums
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
        page.text(line, if is_busy { state.theme.warning() } else { Style::new() });
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
        page.text(line, if is_near { state.theme.warning() } else { Style::new() });
    }
}
