//! The protocol: RFC 8489 and RFC 8656 as a pure function of time and input.
//!
//! # How to use it
//! Pass one input to a `handle_*` call, then take every [`Action`](action::Action) with
//! [`Server::poll_action`](server::Server::poll_action) before the next input:
//!
//! ```text
//! loop {
//!     wait for packets, or until server.poll_timeout()
//!     now = one reading of the clock for the whole batch
//!     match server.handle_client(now, client, bytes) {      // or handle_peer, handle_timeout, ...
//!         FromClient::Relay { .. } => send bytes[payload] from the relay; no action follows
//!         FromClient::Control      => while let Some(action) = server.poll_action() { carry it out }
//!         FromClient::Dropped(_)   => nothing, it is counted
//!     }
//! }
//! ```
//!
//! There is no socket, no clock and no source of randomness in here: time is an argument, the seed is an
//! argument, and sockets are named by small numbers ([`RelayId`](action::RelayId), [`Link`](five_tuple::Link)).
//! One [`Server`](server::Server) belongs to one worker; what workers share is in [`shared`].
//!
//! # Structure
//! [`server`] is the entry point. It passes requests to `request` (one file for each method) and data to `data`; both act on
//! [`state`], which joins the table with ports, quotas, rates and deadlines. [`identity`] decides who a client is, what its
//! requests may cost and which peers it may reach. The other modules here define values. Imports go one way: `server`, then
//! `request` and `data`, then `state`, then `identity`, then the values; files do not import each other in a circle.
#![forbid(unsafe_code)]

pub mod action;
pub mod address;
pub mod change;
pub mod counters;
mod data;
pub mod error;
pub mod five_tuple;
pub mod id;
pub mod identity;
pub mod keyed_hash;
mod request;
pub mod server;
pub mod settings;
pub mod shared;
pub mod snapshot;
pub mod state;
pub mod throttle;
mod ticket;
