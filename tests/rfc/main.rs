//! Tests the protocol core against the server requirements of RFC 8489 and RFC 8656, in virtual time. CONFORMANCE.md maps
//! requirements to tests; `table` verifies it.
//!
//! The client side in [`codec`] shares no code with `hallpass::wire`, so a mistake in one cannot hide in the other.

mod codec;
mod rig;

mod addresses;
mod allocate;
mod auth;
mod channel;
mod confined;
mod data;
mod limits;
mod message;
mod permission;
mod policy;
mod refresh;
mod refusals;
mod table;
mod tls;
mod troubleshooting;
