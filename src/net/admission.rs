//! Limits on new streams and sockets: streams in all, per class and per source, and the descriptors and memory of the
//! process. Shared by all workers; checked when a stream or a socket is opened, never for a packet.
//!
//! When descriptors or memory run low, newcomers are refused first, then queues are cut; established clients stay
//! served. A quarter of the streams and of the descriptors is kept for authenticated clients: see [`gate`].

mod class;
pub mod gate;
mod source;
mod state;

pub use class::Class;
pub use gate::{Descriptor, Entry, Gate};
pub use state::{Admission, Pressure, Rules};
