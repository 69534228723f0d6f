//! The running server and programs that others wrote: every transport, over real sockets on loopback.

#[path = "../support/mod.rs"]
mod support;

mod libnice;
mod stun_tools;
mod uclient;
