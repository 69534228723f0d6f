//! The metrics of a running server, and everything that names them: `docs/metrics.md`, the rules for Prometheus and the
//! dashboard for Grafana. The files are checked with promtool.
#![allow(clippy::disallowed_methods, reason = "the server is waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod dashboard;
mod exported;
mod names;
mod promtool;
mod reload;
mod table;
