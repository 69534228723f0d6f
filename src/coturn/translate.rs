//! Translates items into a meaning, and says of each item what becomes of it.

mod credentials;
mod limits;
mod listeners;
mod peers;
mod relays;

use super::input::Input;
use super::meaning::Meaning;
use super::report::Report;
use super::syntax::Item;
use super::work::Work;

/// Translates items. The items of the file come before the arguments, so that the arguments win.
pub fn translate(items: Vec<Item>, input: &Input<'_>) -> (Meaning, Report) {
    let mut work = Work::new(items);
    credentials::translate(&mut work, input);
    let network = listeners::translate(&mut work, input);
    relays::translate(&mut work, &network);
    peers::translate(&mut work);
    limits::translate(&mut work);
    work.finish()
}
