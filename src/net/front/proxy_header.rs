//! Reads the PROXY header at the start of a connection, which names the client.

use crate::net::counters::CloseReason;
use crate::net::scratch::Scratch;
use crate::net::syscall::canonical;
use crate::wire::proxy_protocol::{self, Addresses, Peek};

/// The result of [`take`].
pub enum Header {
    /// A whole header, removed from the bytes, and its addresses, if it contains any.
    Whole(Option<Addresses>),
    /// An incomplete header.
    Partial,
}

/// Removes the header from the front of `received`.
///
/// # Errors
/// `NotProxied` if the bytes are not a PROXY header.
pub fn take(received: &mut Scratch) -> Result<Header, CloseReason> {
    match proxy_protocol::peek(received.bytes()) {
        Peek::Found(header) => {
            received.drop_front(header.len);
            Ok(Header::Whole(header.addresses.map(|Addresses { source, destination }| Addresses {
                source: canonical(source),
                destination: canonical(destination),
            })))
        }
        Peek::NeedMore => Ok(Header::Partial),
        Peek::NotProxy => Err(CloseReason::NotProxied),
    }
}
