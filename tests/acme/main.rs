//! Certificates that the server gets by itself: from pebble, the test server of Let's Encrypt, and from an authority of the tests
//! that misbehaves.
#![allow(clippy::disallowed_methods, reason = "other programs are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod calls;
mod certified;
mod failures;
mod issuance;
mod killed;
mod pebble;
mod profile;
mod redirect;
mod reload;
