//! The words that every module uses, and nothing else: values without behaviour of their own.
//!
//! Everybody may import from here; it imports nothing of ours.
#![forbid(unsafe_code)]

pub mod family;
pub mod host;
pub mod special_ranges;
pub mod time;
pub mod transport;
