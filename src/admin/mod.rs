//! The admin address: metrics for Prometheus, health and readiness. Read-only, loopback by default.
//!
//! Nothing here knows the protocol or the data plane: whoever counts implements [`Source`].
#![forbid(unsafe_code)]

mod host;
pub mod http;
mod listener;
pub mod metrics;
pub mod readiness;

pub use http::serve;
pub use metrics::{Snapshot, Source};
pub use readiness::{Latch, Readiness};
