//! Hallpass, a STUN/TURN relay.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod net;
pub mod admin;
pub mod cert;
pub mod system;
pub mod turn;
pub mod wire;
