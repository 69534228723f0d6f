//! Hostile networks: a school whose firewall lets little out, a relay behind it, and a real headless Chromium that
//! must get its media through. The call is between two peers of one page, each with relayed candidates only, so that
//! every byte of it goes through the firewall and the relay, twice.
#![allow(clippy::disallowed_methods, reason = "programs that others wrote are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod firefox;
mod paths;
mod school;
mod walls;
