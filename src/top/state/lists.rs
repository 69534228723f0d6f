//! The lines of a view: filtered, sorted, and which one is selected.

use std::cmp::Ordering;

use super::{State, View};
use crate::top::board::{Count, Row};
use crate::top::refusals::Refusal;
use crate::top::sessions::Session;

/// What lines are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Bits per second in both directions, the largest first.
    Traffic,
    /// The number of sessions, the largest first.
    Sessions,
    /// New sessions per second, the largest first.
    Created,
    /// What looks wrong first.
    Hints,
    /// Age, the newest first.
    Age,
    /// The name of the user.
    User,
    /// The name of the host.
    Host,
    /// The transport.
    Transport,
}

const OF_TRAFFIC: [Order; 5] =
    [Order::Traffic, Order::Sessions, Order::Created, Order::Host, Order::Transport];
const OF_SESSIONS: [Order; 6] =
    [Order::Traffic, Order::Hints, Order::Age, Order::User, Order::Host, Order::Transport];

impl Order {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Sessions => "sessions",
            Self::Created => "new",
            Self::Hints => "hints",
            Self::Age => "age",
            Self::User => "user",
            Self::Host => "host",
            Self::Transport => "via",
        }
    }

    /// Compares rows of traffic. Equal ones are in the order of their names, so that no line jumps without a reason.
    pub fn rows(self, a: &Row, b: &Row) -> Ordering {
        let order = match self {
            Self::Sessions => b.sessions.cmp(&a.sessions),
            Self::Created => b.created.unwrap_or(0.0).total_cmp(&a.created.unwrap_or(0.0)),
            Self::Host => Ordering::Equal,
            Self::Transport => a.rung.transport.cmp(&b.rung.transport),
            _ => b.bits().total_cmp(&a.bits()).then(b.sessions.cmp(&a.sessions)),
        };
        order.then_with(|| a.rung.cmp(&b.rung))
    }

    /// Compares sessions.
    pub fn sessions(self, a: &Session, b: &Session) -> Ordering {
        let order = match self {
            Self::Hints => b.hints.len().cmp(&a.hints.len()),
            Self::Age => a.seconds.cmp(&b.seconds),
            Self::User => a.user.cmp(&b.user),
            Self::Host => a.host.cmp(&b.host),
            Self::Transport => a.transport.cmp(&b.transport),
            _ => b.total_bits().total_cmp(&a.total_bits()),
        };
        order.then_with(|| a.id.cmp(&b.id))
    }
}

impl View {
    fn orders(self) -> &'static [Order] {
        match self {
            Self::Traffic => &OF_TRAFFIC,
            Self::Sessions => &OF_SESSIONS,
            _ => &[],
        }
    }
}

impl State {
    /// Returns the order of the lines of a view and whether it is reversed; `None` if it has only one.
    pub fn order(&self, view: View) -> Option<(Order, bool)> {
        let at = view as usize;
        view.orders().get(self.orders[at]).map(|&order| (order, self.is_reversed[at]))
    }

    /// Sorts the view by the next of its orders.
    pub(super) fn next_order(&mut self) {
        let count = self.view.orders().len().max(1);
        let order = &mut self.orders[self.view as usize];
        *order = (*order + 1) % count;
    }

    /// Returns the rows of traffic to show.
    pub fn rows(&self) -> Vec<&Row> {
        let part = self.filter.to_lowercase();
        let all = self.board.iter().flat_map(|board| &board.rows);
        let holds =
            |row: &&Row| row.rung.host.to_lowercase().contains(&part) || row.rung.transport.contains(&part);
        self.in_order(View::Traffic, all.filter(holds).collect(), Order::rows)
    }

    /// Returns the sessions to show.
    pub fn shown_sessions(&self) -> Vec<&Session> {
        let part = self.filter.to_lowercase();
        let all = self.sessions.iter().flat_map(|sessions| &sessions.all);
        let all = all.filter(|session| session.contains(&part)).collect();
        self.in_order(View::Sessions, all, Order::sessions)
    }

    /// Returns the refusals to show, the latest first.
    pub fn shown_refusals(&self) -> Vec<&Refusal> {
        let part = self.filter.to_lowercase();
        let all = self.refusals.iter().flatten().filter(|refusal| refusal.contains(&part)).collect();
        if self.is_reversed[View::Refusals as usize] { reversed(all) } else { all }
    }

    /// Returns the refusals and then the drops by reason.
    pub fn shown_reasons(&self) -> Vec<(&'static str, &Count)> {
        let part = self.filter.to_lowercase();
        let refused = self.board.iter().flat_map(|board| &board.refusals).map(|count| ("refused", count));
        let dropped = self.board.iter().flat_map(|board| &board.drops).map(|count| ("dropped", count));
        let holds = |(kind, count): &(&str, &Count)| {
            let mut texts = [kind, count.reason.as_str(), &count.rung.transport].into_iter();
            texts.any(|text| text.contains(&part)) || count.rung.host.to_lowercase().contains(&part)
        };
        refused.chain(dropped).filter(holds).collect()
    }

    fn in_order<'a, T>(
        &self,
        view: View,
        mut all: Vec<&'a T>,
        compare: fn(Order, &T, &T) -> Ordering,
    ) -> Vec<&'a T> {
        let Some((order, is_reversed)) = self.order(view) else { return all };
        all.sort_by(|a, b| compare(order, a, b));
        if is_reversed { reversed(all) } else { all }
    }

    /// Returns the id of the selected line, if the view has lines that can be opened.
    pub(super) fn selected(&self) -> Option<String> {
        let at = self.cursors[self.view as usize].at;
        match self.view {
            View::Sessions => self.shown_sessions().get(at).map(|session| session.id.clone()),
            View::Refusals => self.shown_refusals().get(at).map(|refusal| refusal.id()),
            _ => None,
        }
    }

    /// Moves the cursor to the line that was selected, if it is somewhere else now.
    pub fn follow_selection(&mut self) {
        let Some(id) = self.cursor().id.clone() else { return };
        let position = match self.view {
            View::Sessions => self.shown_sessions().iter().position(|session| session.id == id),
            View::Refusals => self.shown_refusals().iter().position(|refusal| refusal.id() == id),
            _ => None,
        };
        if let Some(at) = position {
            self.cursor().at = at;
        }
    }
}

fn reversed<T>(mut all: Vec<T>) -> Vec<T> {
    all.reverse();
    all
}
