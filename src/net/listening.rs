//! A change of the listeners of one worker, while it runs.

use super::common_change::CommonChange;
use super::socket::WorkerSockets;

/// What changes. New sockets are bound already, so no client is refused meanwhile.
#[derive(Debug, Default)]
pub struct ListenerChange {
    /// New listeners.
    pub added: WorkerSockets,
    /// Duplicates of them, for the successor of a failed worker.
    pub spare: WorkerSockets,
    /// What changes for every worker alike.
    pub common: CommonChange,
}
