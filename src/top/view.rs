//! The screen. It fits every size: tables leave out columns, and parts that have no room are left to their own view.

mod lists;
mod overlay;
mod page;
mod traffic;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::board::Board;
use super::grid::cells_of;
use super::number::{bits, or_dash, percent, short};
use super::state::{Link, Overlay, State, View};
use crate::base::text::{counted, duration};
use crate::base::time::Instant;
use page::Page;

/// Most lines of notices above the view, and the part of the screen that they may take. The others are one key away.
const NOTICE_LINES: usize = 4;
const NOTICE_PART: usize = 6;

/// Draws the whole screen. `unix` is the time in seconds since 1970.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, now: Instant, unix: u64) {
    let area = frame.area();
    let mut page = Page::new(frame.buffer_mut(), area);
    if area.width < 20 || area.height < 4 {
        page.text("the terminal is too small", Style::new());
        return;
    }
    head(&mut page, state, now);
    if state.overlay.is_none() {
        notices(&mut page, state);
    }
    tabs(&mut page, state);
    let mut body = page.split_off(area.height.saturating_sub(page.used() + 1));
    match state.overlay.clone() {
        Some(Overlay::Help) => overlay::help(&mut body, state),
        Some(Overlay::Notices) => overlay::notices(&mut body, state),
        Some(Overlay::Detail(id)) => overlay::detail(&mut body, state, &id, unix),
        None => match state.view {
            View::Traffic => traffic::draw(&mut body, state),
            View::Sessions => lists::sessions(&mut body, state, now),
            View::Refusals => lists::refusals(&mut body, state, unix),
            View::Reasons => lists::reasons(&mut body, state),
            View::Workers => lists::workers(&mut body, state),
        },
    }
    let typed = foot(&mut page, state);
    if let Some(column) = typed {
        let last = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
        frame.set_cursor_position((last.x + column.min(last.width.saturating_sub(1)), last.y));
    }
}

/// Which server, whether it serves, and the totals.
fn head(page: &mut Page<'_>, state: &State, now: Instant) {
    let theme = state.theme;
    let name = match &state.board {
        Some(board) => {
            let reading = &board.reading;
            let up = unix_of(board, state, now).saturating_sub(reading.started);
            format!("hallpass {} at {}, up {}", reading.version, state.server, duration(up))
        }
        None => format!("hallpass at {}", state.server),
    };
    let (text, style) = match (&state.link, &state.board) {
        (Link::Down { since, .. }, _) => {
            (format!("NO ANSWER for {}", duration(now.since(*since).as_secs())), theme.urgent())
        }
        _ if state.is_paused => ("PAUSED".to_owned(), theme.warning()),
        (Link::Waiting, _) | (_, None) => ("asking...".to_owned(), theme.dim()),
        (Link::Up, Some(board)) if board.reading.draining => ("DRAINING".to_owned(), theme.urgent()),
        (Link::Up, Some(board)) if board.reading.ready => ("ready".to_owned(), theme.good()),
        (Link::Up, Some(_)) => ("NOT READY".to_owned(), theme.urgent()),
    };
    page.both(Span::styled(name, theme.title()), Span::styled(text, style));
    let Some(board) = &state.board else { return };
    let sum = &board.sum;
    let parts = [
        counted(sum.sessions as usize, "session"),
        counted(board.reading.users as usize, "user"),
        format!("new {}/s", or_dash(sum.created, short)),
        format!("to peers {}", or_dash(sum.from_client.bits, bits)),
        format!("to clients {}", or_dash(sum.from_peer.bits, bits)),
        format!("busiest worker {}", or_dash(board.busiest(), percent)),
    ];
    page.text(&fitting(&parts, ", ", page.width()), Style::new());
}

/// Returns the time in seconds since 1970, as the age of the latest reading tells it.
fn unix_of(board: &Board, state: &State, now: Instant) -> u64 {
    state.unix_at_reading + now.since(board.reading.at).as_secs()
}

/// Joins as many parts as fit.
fn fitting(parts: &[String], separator: &str, width: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let gap = if text.is_empty() { "" } else { separator };
        if cells_of(&text) + gap.len() + cells_of(part) > width {
            break;
        }
        text.push_str(gap);
        text.push_str(part);
    }
    text
}

/// What needs attention, as much as there is room for.
fn notices(page: &mut Page<'_>, state: &State) {
    let all: Vec<_> = state.failure().into_iter().chain(&state.notices).collect();
    if all.is_empty() {
        if state.board.is_some() {
            page.text(&state.all_is_well, state.theme.good());
        }
        return;
    }
    let room = (page.height() / NOTICE_PART).clamp(1, NOTICE_LINES);
    let mut shown = 0;
    let mut left = room;
    for notice in &all {
        let lines = notice.lines(page.width());
        // The first one is cut rather than left out.
        if shown > 0 && lines.len() > left {
            break;
        }
        let style = if notice.is_urgent { state.theme.urgent() } else { state.theme.warning() };
        let taken = lines.len().min(left);
        lines.iter().take(taken).for_each(|line| page.text(line, style));
        (shown, left) = (shown + 1, left - taken);
    }
    if shown < all.len() && room > 1 {
        page.text(&format!("  and {} more: press a", all.len() - shown), state.theme.warning());
    }
}

/// The views, with filter and order of the current one.
fn tabs(page: &mut Page<'_>, state: &State) {
    let mut spans = Vec::new();
    let is_narrow = page.width() < 64;
    for (at, view) in View::ALL.into_iter().enumerate() {
        let is_shown = view == state.view;
        let text = match is_narrow && !is_shown {
            true => format!(" {} ", at + 1),
            false => format!(" {} {} ", at + 1, view.name()),
        };
        let style = if is_shown { state.theme.selected() } else { Style::new() };
        spans.push(Span::styled(text, style));
    }
    let mut right = Vec::new();
    if !state.filter.is_empty() {
        right.push(format!("only \"{}\"", state.filter));
    }
    if let Some((order, is_reversed)) = state.order(state.view) {
        right.push(format!("by {}{}", order.name(), if is_reversed { ", reversed" } else { "" }));
    }
    page.line_and(Line::from(spans), Span::styled(right.join(" "), state.theme.dim()));
}

/// The keys, or the filter while it is typed. Returns the column of the cursor then.
fn foot(page: &mut Page<'_>, state: &State) -> Option<u16> {
    if state.is_typing {
        let text = format!("filter: {}", state.filter);
        page.last(&text, state.theme.title());
        return Some(u16::try_from(cells_of(&text)).unwrap_or(u16::MAX));
    }
    let mut keys = vec!["q quit", "? help"];
    match (&state.overlay, state.view) {
        (Some(_), _) => keys.extend(["esc back", "up/down scroll"]),
        (None, View::Sessions) => keys.extend(["enter detail", "/ filter", "s sort", "r reverse"]),
        (None, View::Refusals) => keys.extend(["enter detail", "/ filter", "r reverse"]),
        (None, View::Traffic) => keys.extend(["1-5 view", "/ filter", "s sort", "r reverse"]),
        (None, _) => keys.extend(["1-5 view", "/ filter"]),
    }
    keys.push(if state.is_paused { "p go on" } else { "p pause" });
    if !state.filter.is_empty() {
        keys.push("esc all");
    }
    let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    page.last(&fitting(&keys, "  ", page.width()), state.theme.dim());
    None
}

#[cfg(test)]
mod tests;
