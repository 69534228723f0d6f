//! The PROXY header in front of a stream: whose it is.

use super::Stream;
use crate::net::counters::CloseReason;
use crate::net::scratch::Scratch;
use crate::net::syscall::canonical;
use crate::wire::proxy_protocol::{self, Peek};

impl Stream {
    /// Takes the header off the front of `received`, where one is awaited; one that is not whole is kept.
    ///
    /// # Errors
    /// Something else came first, or the client has all the streams that he may have.
    pub(super) fn take_preface(&mut self, received: &mut Scratch) -> Result<(), CloseReason> {
        if self.preface.is_none() {
            return Ok(());
        }
        match proxy_protocol::peek(received.bytes()) {
            Peek::Found(header) => {
                if let Some(addresses) = header.addresses {
                    let client = canonical(addresses.source);
                    // Both halves: the client's five-tuple ends at the address that it connected to.
                    self.client.five_tuple.client = client;
                    self.client.five_tuple.server = canonical(addresses.destination);
                    self.entry.name(client.ip()).map_err(|_| CloseReason::TooMany)?;
                }
                received.drop_front(header.len);
                self.preface = None;
                Ok(())
            }
            Peek::NeedMore => {
                self.preface = Some(received.bytes().to_vec());
                Ok(())
            }
            Peek::NotProxy => Err(CloseReason::NotProxied),
        }
    }
}
