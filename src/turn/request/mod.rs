//! Requests (RFC 8489 section 6.3.1 and RFC 8656), one file for each method.

pub mod allocate;
pub mod answer;
pub mod channel;
pub mod permission;
pub mod refresh;
