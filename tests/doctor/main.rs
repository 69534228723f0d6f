//! `hallpass doctor`: on loopback against this project's relay and against coturn, and from clients behind hostile firewalls
//! in network namespaces.
#![allow(clippy::disallowed_methods, reason = "external programs run on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod coturn;
mod examination;
mod logins;
mod on_relay;
mod relays;
mod walls;
