//! What the operating system gives: time, randomness, limits, addresses, the journal and systemd.
//!
//! Everything here is control work. `clock` is the only file of the crate that reads a clock; the protocol
//! and the data plane are handed the time as an argument.
#![forbid(unsafe_code)]

pub mod addresses;
pub mod clock;
pub mod entropy;
pub mod interfaces;
pub mod limits;
pub mod local_addresses;
pub mod log_queue;
pub mod logging;
pub mod memory;
mod netlink;
pub mod own_addresses;
pub mod port_holder;
pub mod systemd;
