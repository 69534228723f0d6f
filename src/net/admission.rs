//! Limits on new streams and sockets: the number of streams in total, per class of client and per source, and the
//! descriptors and memory of the process. Shared by all workers; checked when a stream or a socket is opened, never for
//! a packet.
//!
//! When descriptors or memory run low, new clients are refused, and established clients stay served. When even less
//! memory is left, output queues are shortened. A quarter of the streams and of the descriptors is kept for
//! authenticated clients: see [`gate`].

mod class;
pub mod gate;
mod source;
mod state;

pub use class::Class;
pub use gate::{Descriptor, Entry, Gate};
pub use state::{Admission, Pressure, Rules};
