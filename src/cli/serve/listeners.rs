//! The listeners in use, and how a reload changes them: new ones are bound before any other is closed.

use std::sync::Arc;

use super::start_error::bind_failed;
use crate::net::common_change::CommonChange;
use crate::net::listening::ListenerChange;
use crate::net::{self, Handle, Listener, WorkerSockets};

/// The listeners in use.
pub struct Listeners {
    in_use: Vec<Listener>,
    mss: u16,
    /// UDP listeners that a reload removed and that clients still need.
    removed: Vec<Removed>,
}

struct Removed {
    listener: Listener,
    /// Held by each worker with a client there.
    holders: Arc<()>,
}

/// The listeners of another configuration. The new ones are bound and serve nobody yet.
pub struct NextListeners {
    all: Vec<Listener>,
    mss: u16,
    /// The new sockets of each worker, and duplicates of them; empty if there are none.
    sockets: Vec<(WorkerSockets, WorkerSockets)>,
}

/// Whether both use the same socket. Its other settings can change while it is open.
fn is_same_socket(one: &Listener, other: &Listener) -> bool {
    one.transport.is_stream() == other.transport.is_stream() && one.address == other.address
}

fn named(listener: &Listener) -> String {
    format!("listen {} {}", listener.transport, listener.address)
}

impl Listeners {
    /// The listeners that the workers were started with.
    pub fn new(settings: &net::Settings) -> Self {
        Self { in_use: settings.listeners.clone(), mss: settings.mss, removed: Vec::new() }
    }

    /// Binds the listeners that are new in `next`, for each worker.
    ///
    /// # Errors
    /// What prevents it, for the operator. Then nothing is bound.
    pub fn prepare(&self, next: &net::Settings) -> Result<NextListeners, Vec<String>> {
        let problems: Vec<String> = next
            .listeners
            .iter()
            .filter(|listener| {
                self.in_use
                    .iter()
                    .any(|one| is_same_socket(one, listener) && one.only_v6 != listener.only_v6)
            })
            .map(|listener| {
                format!(
                    "{}: whether it serves IPv4 as well depends on the other listeners of the port and needs a restart",
                    named(listener)
                )
            })
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let is_open = |listener: &Listener| {
            let mut open = self.in_use.iter().chain(self.removed.iter().map(|removed| &removed.listener));
            open.any(|one| is_same_socket(one, listener))
        };
        let added: Vec<Listener> =
            next.listeners.iter().filter(|listener| !is_open(listener)).cloned().collect();
        let sockets = match added.is_empty() {
            true => Vec::new(),
            false => self.bind(&net::Settings { listeners: added, ..next.clone() })?,
        };
        Ok(NextListeners { all: next.listeners.clone(), mss: next.mss, sockets })
    }

    /// Binds new listeners, and duplicates their sockets.
    fn bind(&self, added: &net::Settings) -> Result<Vec<(WorkerSockets, WorkerSockets)>, Vec<String>> {
        let bound = net::bind(added).map_err(|error| {
            let (address, is_stream) = (error.address, error.transport.is_stream());
            let removed = self.removed.iter().map(|removed| &removed.listener);
            let own =
                self.in_use.iter().chain(removed).find(|one| {
                    one.transport.is_stream() == is_stream && one.address.port() == address.port()
                });
            let step = match own {
                Some(own) => {
                    format!("{} of this server overlaps with it: replacing it needs a restart", named(own))
                }
                None => bind_failed(&error).next_step,
            };
            vec![format!("{error}; {step}")]
        })?;
        let double = |sockets: WorkerSockets| {
            let spare = sockets.try_clone()?;
            Ok((sockets, spare))
        };
        let doubled: std::io::Result<Vec<_>> = bound.into_iter().map(double).collect();
        doubled.map_err(|error| vec![format!("the new listeners cannot be opened: {error}")])
    }

    /// Serves the next listeners, and removes those that are not among them.
    pub fn apply(&mut self, next: NextListeners, workers: &Handle) {
        let NextListeners { all, mss, sockets } = next;
        let mut common = CommonChange { mss: (mss != self.mss).then_some(mss), ..CommonChange::default() };
        let mut is_changed = common.mss.is_some() || !sockets.is_empty();
        let is_next = |listener: &Listener| all.iter().any(|one| is_same_socket(one, listener));
        for gone in self.in_use.iter().filter(|listener| !is_next(listener)) {
            is_changed = true;
            if gone.transport.is_stream() {
                common.closed_streams.push(gone.address);
            } else {
                let holders = Arc::new(());
                common.removed.push((gone.address, Arc::clone(&holders)));
                self.removed.push(Removed { listener: gone.clone(), holders });
            }
        }
        let revived = self.removed.extract_if(.., |removed| is_next(&removed.listener));
        let revived: Vec<Listener> = revived.map(|removed| removed.listener).collect();
        common.revived = revived.iter().map(|listener| listener.address).collect();
        let before: Vec<&Listener> = self.in_use.iter().chain(&revived).collect();
        let differs = |listener: &&Listener| {
            before.iter().any(|one| {
                is_same_socket(one, listener)
                    && **one != Listener { awaited: one.awaited, ..(*listener).clone() }
            })
        };
        common.updated = all.iter().filter(differs).cloned().collect();
        is_changed |= !common.updated.is_empty() || !common.revived.is_empty();
        (self.in_use, self.mss) = (all, mss);
        if is_changed {
            send(sockets, &common, workers);
        }
    }

    /// Closes the removed UDP listeners that no client needs any more.
    pub fn close_unused(&mut self, workers: &Handle) {
        let unused = self.removed.extract_if(.., |removed| Arc::strong_count(&removed.holders) == 1);
        let unused: Vec<Listener> = unused.map(|removed| removed.listener).collect();
        if unused.is_empty() {
            return;
        }
        for listener in &unused {
            tracing::info!("{}: closed, no client has an allocation there any more", named(listener));
        }
        let closed = unused.into_iter().map(|listener| listener.address).collect();
        send(Vec::new(), &CommonChange { closed, ..CommonChange::default() }, workers);
    }
}

/// Sends each worker its sockets and the common part.
fn send(sockets: Vec<(WorkerSockets, WorkerSockets)>, common: &CommonChange, workers: &Handle) {
    let mut sockets = sockets.into_iter();
    let changes = (0..workers.len()).map(|_| {
        let (added, spare) = sockets.next().unwrap_or_default();
        ListenerChange { added, spare, common: common.clone() }
    });
    workers.change_listeners(changes.collect());
}
