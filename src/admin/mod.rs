//! The admin address: metrics for Prometheus, health and readiness, sessions and refusals. Read-only, loopback by default.
//!
//! Independent of the protocol and the data plane: a module with metrics implements [`MetricSource`].
#![forbid(unsafe_code)]

mod host;
pub mod http;
mod listener;
pub mod metrics;
pub mod readiness;
pub mod refusals;
pub mod sessions;

pub use http::{Content, serve};
pub use metrics::{MetricSource, Snapshot, Times};
pub use readiness::{Latch, Readiness};
