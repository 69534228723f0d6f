//! The vocabulary of the crate: small types and helpers that every module may import. Imports no other module.
#![forbid(unsafe_code)]

pub mod browser_ports;
pub mod calendar;
pub mod family;
pub mod host;
pub mod lock;
pub mod network;
pub mod special_ranges;
pub mod text;
pub mod time;
pub mod transport;
pub mod turn_url;
