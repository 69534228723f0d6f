//! Errors that prevent the start, with the next step for the operator.

use std::io;
use std::net::SocketAddr;

use crate::net;
use crate::system::entropy;
use crate::system::port_holder::{COTURN, PROGRAM, PortSpace, who_holds};

/// The next step if the system refuses a resource.
pub const CHECK_UNIT_LIMITS: &str = "check the limits on tasks, files and memory in the systemd unit";
/// The next step if only a bug can be the cause.
pub const REPORT_BUG: &str = "report this as a bug";

/// Why the server does not start, in words for the operator.
pub struct StartError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub next_step: String,
}

impl StartError {
    /// An error with its next step.
    pub fn new(message: impl ToString, next_step: impl Into<String>) -> Self {
        Self { message: message.to_string(), next_step: next_step.into() }
    }
}

/// The error if the kernel returns no random bytes.
pub fn no_randomness(error: entropy::EntropyError) -> StartError {
    StartError::new(error, "see the kernel's log")
}

/// The error of a listener that cannot be bound.
pub fn bind_failed(error: &net::BindError) -> StartError {
    refused(error.to_string(), &error.source, PortSpace::of(error.transport), error.address)
}

/// The error of an address that cannot be bound. The next step names the process that occupies the port.
pub fn refused(message: String, source: &io::Error, space: PortSpace, address: SocketAddr) -> StartError {
    let next_step = match source.kind() {
        io::ErrorKind::AddrInUse => match who_holds(space, address) {
            Some(holder) if holder.name == PROGRAM => format!(
                "hallpass runs already and has port {} (pid {}): systemctl status hallpass. A second server needs ports of its own",
                address.port(),
                holder.pid
            ),
            Some(holder) if holder.name == COTURN => format!(
                "coturn has port {} (pid {}): run hallpass-takeover-coturn to switch to Hallpass; to keep both, choose another port",
                address.port(),
                holder.pid
            ),
            Some(holder) => format!(
                "port {} is occupied by {} (pid {}): choose another port, or move that program to another one",
                address.port(),
                holder.name,
                holder.pid
            ),
            None => format!(
                "port {} is occupied by a process of another user: run `hallpass check --live` as root to see which",
                address.port()
            ),
        },
        io::ErrorKind::AddrNotAvailable => "write an address of this machine".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; the systemd unit of the project grants it".to_owned()
        }
        _ => "run `hallpass check --live` for details".to_owned(),
    };
    StartError { message, next_step }
}
