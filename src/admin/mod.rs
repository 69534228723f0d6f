//! The admin address: dashboard, metrics for Prometheus, health and readiness, sessions and refusals. Read-only, loopback by
//! default; elsewhere with TLS and a token.
//!
//! Independent of the protocol and the data plane: a module with metrics implements [`MetricSource`].
#![forbid(unsafe_code)]

pub mod access;
pub mod checks;
mod connection;
mod dashboard;
pub mod history;
mod host;
pub mod http;
mod listener;
pub mod metrics;
pub mod overview;
mod places;
mod problems;
pub mod readiness;
pub mod refusals;
pub mod sessions;
pub mod state;

pub use access::Access;
pub use http::{Content, Door, serve};
pub use metrics::{MetricSource, Snapshot, Times};
pub use readiness::{Latch, Readiness};
