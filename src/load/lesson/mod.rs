//! Lessons as a load: how many pupils does a relay carry?
//!
//! [`run`] lets pupils and teachers of a [`shape`] join, talk, show cameras and a screen by an [`agenda`], leave and come
//! back by their [`attendance`], and measures a [`step`] for each number of pupils that the [`ramp`] asks for. The
//! [`outcome`] has the answer; [`table`], [`json`] and [`page`] show it.
//!
//! Everything that decides is pure and has the time as an argument. Only `school` has sockets and a clock.

pub mod agenda;
pub mod attendance;
pub mod counters;
pub mod json;
pub mod limit;
pub mod outcome;
pub mod page;
mod plot;
pub mod ramp;
mod school;
pub mod shape;
pub mod step;
pub mod table;
#[cfg(test)]
mod tests;

pub use school::{Login, Options, Phase, Status, Watch, run};
