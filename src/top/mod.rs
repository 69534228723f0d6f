//! What `hallpass top` shows: answers of the admin address turned into rates, notices and a screen.
//!
//! ```text
//!   /metrics -> exposition -> reading -> history -> board --+-> view     the screen, by ratatui
//!   /sessions, /refusals  -> sessions, refusals ------------+-> report   plain text and JSON
//! ```
//!
//! Nothing here reads a clock, a socket or a terminal: times, answers and keys are arguments. All texts of the server are
//! cleaned where they are read, so no user can write to the terminal of the operator.
#![forbid(unsafe_code)]

pub mod attention;
pub mod board;
mod exposition;
mod grid;
pub mod history;
mod number;
pub mod reading;
pub mod refusals;
pub mod report;
pub mod sessions;
pub mod state;
mod tables;
pub mod theme;
pub mod view;
