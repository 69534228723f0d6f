//! The PROXY header in front of a connection: whose it is.

use crate::net::counters::CloseReason;
use crate::net::scratch::Scratch;
use crate::net::syscall::canonical;
use crate::wire::proxy_protocol::{self, Addresses, Peek};

/// What the first bytes of a proxied connection hold.
pub enum Header {
    /// A whole header, taken off the front of the bytes; the addresses, where it names some.
    Whole(Option<Addresses>),
    /// The start of one.
    Partial,
}

/// Takes the header off the front of `received`.
///
/// # Errors
/// `NotProxied` if something else came first.
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
