//! Hallpass, a STUN/TURN relay.
//!
//! A packet's path, module by module, is told in ARCHITECTURE.md; in one line: [`net`] receives it, [`wire`] says what
//! it is, [`turn`] decides, [`net`] sends it on.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod admin;
pub mod base;
pub mod cert;
pub mod cli;
pub mod client;
pub mod config;
pub mod load;
pub mod net;
pub mod site;
pub mod system;
pub mod turn;
pub mod wire;
