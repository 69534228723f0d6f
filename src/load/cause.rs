//! What the failure of a client is counted as.

use std::fmt;

/// The cause of a failure, as far as it can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The server refused a request.
    Refused {
        /// The name of the request.
        request: &'static str,
        /// The error code.
        code: u16,
    },
    /// The server did not answer a request.
    Unanswered {
        /// The name of the request.
        request: &'static str,
    },
    /// A socket of the load could not be opened.
    Unopened,
    /// Anything else; the reason is among the errors.
    Other,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Refused { request, code } => write!(f, "error {code} for {request}"),
            Cause::Unanswered { request } => write!(f, "no answer to {request}"),
            Cause::Unopened => f.write_str("no socket could be opened"),
            Cause::Other => f.write_str("another error"),
        }
    }
}
