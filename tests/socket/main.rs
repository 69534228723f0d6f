//! The running server with third-party programs: every transport, over real sockets on loopback.
#![allow(clippy::disallowed_methods, reason = "third-party programs are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod certificates;
mod churn;
mod control;
mod datagram;
mod docs;
mod explain;
mod libnice;
mod load;
mod pion;
mod reload;
mod set_ups;
mod signals;
mod stream;
mod stun_tools;
mod top;
mod uclient;
