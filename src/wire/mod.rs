//! Bytes and their meaning. Pure: no state, no time, no input or output.

pub mod frame;
