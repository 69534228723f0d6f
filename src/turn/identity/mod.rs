//! Who sends a request, what it may cost, and which peers its sender may reach.

pub mod auth;
mod gate;
pub mod nonce;
pub mod peer_policy;
pub mod rest;
