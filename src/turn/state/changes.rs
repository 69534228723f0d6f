//! The queue of table changes for a mirror.

use std::collections::VecDeque;

use crate::turn::change::TableChange;

/// Changes of the table that the mirror has not taken yet. They are taken after every input, so the queue never holds more
/// than one input changes.
#[derive(Debug, Default)]
pub struct Changes {
    is_on: bool,
    queue: VecDeque<TableChange>,
}

impl Changes {
    /// Switches the report on or off. What is queued is dropped.
    pub fn set(&mut self, is_on: bool) {
        *self = Self { is_on, queue: VecDeque::new() };
    }

    /// Queues a change if the report is on.
    pub fn note(&mut self, change: impl FnOnce() -> TableChange) {
        if self.is_on {
            self.queue.push_back(change());
        }
    }

    /// The next change, in order.
    pub fn pop(&mut self) -> Option<TableChange> {
        self.queue.pop_front()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
