//! Who sends a request, what it may cost, and which peers its sender may reach.

pub mod account;
mod active_sources;
pub mod auth;
pub mod directory;
pub mod explanation;
pub mod gate;
pub mod near_miss;
pub mod nonce;
pub mod own_test;
pub mod peer_policy;
pub mod rate_limit;
pub mod recent_secrets;
pub mod refusal;
pub mod rest;
