//! The state of the screen: answers of the server, what is shown, and what keys do.

pub mod keys;
pub mod lists;

use std::time::Duration;

use serde_json::Value;

use super::attention::{self, Notice, all_is_well};
use super::board::Board;
use super::history::History;
use super::reading::Reading;
use super::refusals::Refusal;
use super::sessions::{Sessions, number};
use super::theme::Theme;
use crate::base::text::clean;
use crate::base::time::Instant;

/// The server reads its sessions for one request at a time, so they are asked for rarely.
pub const SESSIONS_EVERY: Duration = Duration::from_secs(5);
/// How long a restart of the server is told.
const RESTART_TOLD: Duration = Duration::from_secs(60);
/// Longest text of a failure, in characters.
const REASON_MAX: usize = 300;

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Traffic by host and transport, with the rest in short.
    Traffic,
    /// The sessions.
    Sessions,
    /// The last refusals.
    Refusals,
    /// Refusals and drops by reason.
    Reasons,
    /// Workers and limits.
    Workers,
}

impl View {
    /// All views, in the order of their keys.
    pub const ALL: [Self; 5] = [Self::Traffic, Self::Sessions, Self::Refusals, Self::Reasons, Self::Workers];

    /// Returns the title.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Sessions => "sessions",
            Self::Refusals => "refusals",
            Self::Reasons => "reasons",
            Self::Workers => "workers",
        }
    }
}

/// What lies over the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The keys.
    Help,
    /// All notices.
    Notices,
    /// One session or refusal, by its id.
    Detail(String),
}

/// Whether the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It has not answered yet.
    Waiting,
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Since when.
        since: Instant,
        /// Why, and what to do.
        notice: Notice,
    },
}

/// The pages to ask for besides `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `/sessions`.
    pub sessions: bool,
    /// `/refusals`.
    pub refusals: bool,
}

/// Answers of the server.
#[derive(Debug, Default)]
pub struct Answers {
    /// `/metrics`.
    pub metrics: String,
    /// `/overview`.
    pub overview: Value,
    /// `/sessions`, if it was asked for.
    pub sessions: Option<Value>,
    /// `/refusals`, if it was asked for.
    pub refusals: Option<Value>,
}

/// The selected line of a view.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// Its position.
    pub at: usize,
    /// The first line on the screen.
    pub offset: usize,
    /// What is selected, so that the cursor follows a line that moves.
    id: Option<String>,
    /// The lines that the last drawing had room for.
    page: usize,
    /// The lines that there were.
    lines: usize,
}

impl Cursor {
    /// Chooses the first of `page` lines on the screen so that the selected one of `lines` is visible.
    pub fn show(&mut self, lines: usize, page: usize) {
        (self.lines, self.page) = (lines, page.max(1));
        self.at = self.at.min(lines.saturating_sub(1));
        self.offset = self.offset.clamp((self.at + 1).saturating_sub(self.page), self.at);
        self.offset = self.offset.min(lines.saturating_sub(self.page));
    }
}

/// Everything that the screen shows.
#[derive(Debug)]
pub struct State {
    /// The address of the server.
    pub server: String,
    /// Colours.
    pub theme: Theme,
    history: History,
    /// The numbers of the latest reading.
    pub board: Option<Board>,
    /// The notices about it.
    pub notices: Vec<Notice>,
    /// Requests refused in the last five minutes, without those after which the client continues by itself.
    pub refused_recently: u64,
    /// What is shown without a notice.
    pub all_is_well: String,
    /// The latest sessions.
    pub sessions: Option<Sessions>,
    /// The latest refusals.
    pub refusals: Option<Vec<Refusal>>,
    /// Whether the server answers.
    pub link: Link,
    /// The time of the latest reading, in seconds since 1970.
    pub unix_at_reading: u64,
    /// When a restart of the server was seen.
    restarted: Option<Instant>,
    /// The view.
    pub view: View,
    /// What lies over it.
    pub overlay: Option<Overlay>,
    /// The first line of the overlay on the screen.
    pub scrolled: usize,
    /// What lines must contain.
    pub filter: String,
    /// Whether keys are written to the filter.
    pub is_typing: bool,
    /// Whether the screen stands still.
    pub is_paused: bool,
    orders: [usize; View::ALL.len()],
    is_reversed: [bool; View::ALL.len()],
    cursors: [Cursor; View::ALL.len()],
}

impl State {
    /// Creates the state before the first answer of `server`.
    pub fn new(server: String, theme: Theme) -> Self {
        Self {
            server,
            theme,
            history: History::default(),
            board: None,
            notices: Vec::new(),
            refused_recently: 0,
            all_is_well: String::new(),
            sessions: None,
            refusals: None,
            link: Link::Waiting,
            unix_at_reading: 0,
            restarted: None,
            view: View::Traffic,
            overlay: None,
            scrolled: 0,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            orders: [0; View::ALL.len()],
            is_reversed: [false; View::ALL.len()],
            cursors: Default::default(),
        }
    }

    /// Returns the pages that the view needs now.
    pub fn wanted(&self, now: Instant) -> Wanted {
        let is_old = |sessions: &Sessions| now.since(sessions.at) >= SESSIONS_EVERY;
        let sessions = self.view == View::Sessions && self.sessions.as_ref().is_none_or(is_old);
        Wanted { sessions, refusals: self.view == View::Refusals }
    }

    /// Takes answers that arrived at `at`. `unix` is the time in seconds since 1970.
    pub fn take(&mut self, answers: Answers, at: Instant, unix: u64) {
        let Some(reading) = Reading::of(&answers.metrics, at) else {
            let text = format!("another program answers at {}, not a Hallpass server", self.server);
            let step = "give the [admin] address of the server with --admin or --config";
            return self.take_failure(Notice::new(true, text, step), at);
        };
        (self.link, self.unix_at_reading) = (Link::Up, unix);
        if self.history.add(reading) {
            self.restarted = Some(at);
            (self.sessions, self.refusals) = (None, None);
        }
        if let Some(page) = &answers.sessions {
            self.sessions = Some(Sessions::of(page, at, self.sessions.as_ref()));
        }
        if let Some(page) = &answers.refusals {
            self.refusals = Some(Refusal::all_of(page));
        }
        self.board = Board::of(&self.history);
        self.notices = attention::notices(&answers.overview);
        self.refused_recently = number(&answers.overview["refused_recently"]);
        self.all_is_well = all_is_well(&answers.overview);
        if self.restarted.is_some_and(|restarted| at.since(restarted) < RESTART_TOLD) {
            let step = "if nobody restarted it: journalctl -u hallpass -n 50";
            let text = "the server was restarted; its numbers begin anew";
            self.notices.insert(0, Notice::new(false, text, step));
        }
    }

    /// Records that the server does not answer.
    pub fn take_failure(&mut self, notice: Notice, at: Instant) {
        let since = match &self.link {
            Link::Down { since, .. } => *since,
            Link::Waiting | Link::Up => at,
        };
        let notice = Notice::new(true, clean(&notice.text, REASON_MAX), notice.step);
        self.link = Link::Down { since, notice };
    }

    /// Returns why the server cannot be watched, if so.
    pub fn failure(&self) -> Option<&Notice> {
        match &self.link {
            Link::Down { notice, .. } => Some(notice),
            Link::Waiting | Link::Up => None,
        }
    }

    /// Returns the cursor of the view.
    pub fn cursor(&mut self) -> &mut Cursor {
        &mut self.cursors[self.view as usize]
    }
}

#[cfg(test)]
mod tests;
