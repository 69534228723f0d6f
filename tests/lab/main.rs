//! Hostile networks: a school whose firewall blocks most traffic, a relay outside, and a real headless browser. The
//! call is between two peers of one page with relay candidates only, so every byte crosses the firewall and the relay
//! twice.
#![allow(clippy::disallowed_methods, reason = "external programs run on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod check;
mod firefox;
mod paths;
mod school;
mod walls;
