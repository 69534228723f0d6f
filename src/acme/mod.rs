//! Gets the certificate from an authority and renews it (RFC 8555): `[acme]`.
//!
//! Everything runs on the control thread. `renewal` decides when, by the pure rules in `schedule`; `issue` makes one attempt;
//! `pending` holds the answers to challenges, which the TLS listeners and port 80 read; `store` keeps account, certificate and
//! attempts on the disk. The new certificate is taken into use as any other: its files are followed.
#![forbid(unsafe_code)]

mod failure;
mod http;
mod issue;
mod pending;
mod renewal;
mod schedule;
mod settings;
mod status;
mod store;

pub use pending::Pending;
pub use renewal::Renewal;
pub use settings::{Challenge, Settings};
pub use status::{Status, View};
