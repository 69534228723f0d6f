//! Services of the operating system: clocks, randomness, limits, addresses, log output and systemd.
//!
//! Used by the control side. `clock` is the only file of the crate that reads a clock; the protocol and the data plane
//! receive the time as an argument.
#![forbid(unsafe_code)]

pub mod account;
pub mod addresses;
pub mod clock;
pub mod entropy;
pub mod files;
pub mod interfaces;
pub mod kernel_tables;
pub mod limits;
pub mod local_addresses;
pub mod log_queue;
pub mod logging;
pub mod memory;
pub mod neighbours;
mod netlink;
pub mod own_addresses;
pub mod pipe;
pub mod port_holder;
pub mod systemd;
pub mod time_wait;
pub mod whole_file;
