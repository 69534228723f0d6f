//! Hallpass, a STUN/TURN relay.
//!
//! ARCHITECTURE.md describes the path of a packet module by module. In short: [`net`] receives it, [`wire`] parses
//! it, [`turn`] decides, and [`net`] sends the result.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod acme;
pub mod admin;
pub mod base;
pub mod cert;
pub mod cli;
pub mod client;
pub mod config;
pub mod coturn;
pub mod doctor;
pub mod load;
pub mod net;
pub mod redirect;
pub mod site;
pub mod system;
pub mod top;
pub mod turn;
pub mod wire;
