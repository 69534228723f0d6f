//! What RFC 8489 and RFC 8656 ask of a server, checked against the protocol core in virtual time. CONFORMANCE.md says
//! which test answers which requirement; `table` holds it to that.
//!
//! The client's side in [`codec`] shares no code with `hallpass::wire`, so a mistake there cannot hide in both.

mod codec;
mod rig;

mod addresses;
mod allocate;
mod auth;
mod channel;
mod data;
mod limits;
mod message;
mod permission;
mod policy;
mod refresh;
mod table;
mod tls;
