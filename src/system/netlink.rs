//! Queries to the kernel about addresses and routes, and its announcements: rtnetlink(7).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Attempts to read a list if it changes meanwhile.
const DUMP_TRIES: usize = 3;
/// Time limit for each part of the kernel's answer, which normally arrives immediately.
const DUMP_LIMIT: Duration = Duration::from_secs(1);
/// Size of the buffer for answers. The kernel writes at most 32 KiB at a time.
const DUMP_BUFFER: usize = 32 << 10;

/// `struct nlmsghdr`, of which the first field is the length in 32 bits.
const MESSAGE_HEADER: usize = 16;
/// `struct rtattr`, of which the first field is the length in 16 bits.
const ATTRIBUTE_HEADER: usize = 4;
/// `struct rtmsg`, with which the body of a message about a route begins.
pub const ROUTE_HEADER: usize = 12;
/// Messages and attributes begin at multiples of this.
const ALIGNMENT: usize = 4;

/// A message.
pub struct Message<'a> {
    /// `RTM_...`.
    pub kind: u16,
    flags: u16,
    /// What follows the header.
    pub body: &'a [u8],
}

/// Opens a netlink socket that is not bound.
///
/// # Errors
/// The error of `socket(2)`.
pub fn socket() -> io::Result<OwnedFd> {
    // The default protocol is NETLINK_ROUTE.
    Ok(net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?)
}

/// Requests everything of a kind from the kernel. `parse` reads each message of the kind `answer`.
///
/// # Errors
/// The error of the socket or of the kernel, or `Interrupted` if the list kept changing.
pub fn dump<T>(
    kind: u16,
    body: &[u8],
    answer: u16,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Vec<T>> {
    for _ in 0..DUMP_TRIES {
        let (found, whole) = ask(kind, libc::NLM_F_REQUEST | libc::NLM_F_DUMP, body, answer, &parse)?;
        if whole {
            return Ok(found);
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// Requests one thing from the kernel.
///
/// # Errors
/// The error of the socket or of the kernel.
pub fn request<T>(
    kind: u16,
    body: &[u8],
    answer: u16,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    // The acknowledgement ends the answer.
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    Ok(ask(kind, flags, body, answer, &parse)?.0.pop())
}

/// Sends a request and reads the answer to its end. Returns what was found, and whether nothing changed meanwhile.
fn ask<T>(
    kind: u16,
    flags: i32,
    body: &[u8],
    answer: u16,
    parse: &impl Fn(&[u8]) -> Option<T>,
) -> io::Result<(Vec<T>, bool)> {
    let socket = socket()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DUMP_LIMIT))?;
    let mut request = vec![0; MESSAGE_HEADER];
    request[..4].copy_from_slice(&((MESSAGE_HEADER + body.len()) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
    request.extend_from_slice(body);
    net::send(&socket, &request, SendFlags::empty())?;
    let (mut found, mut whole) = (Vec::new(), true);
    let mut buffer = vec![0; DUMP_BUFFER];
    loop {
        let (_, len) = net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        for message in messages(&buffer[..len.min(DUMP_BUFFER)]) {
            whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok((found, whole)),
                libc::NLMSG_ERROR => {
                    // The body starts with the negative error number; an acknowledgement has 0.
                    let number = message.body.first_chunk().map_or(0, |&bytes| i32::from_ne_bytes(bytes));
                    return if number == 0 {
                        Ok((found, whole))
                    } else {
                        Err(io::Error::from_raw_os_error(-number))
                    };
                }
                _ if message.kind == answer => found.extend(parse(message.body)),
                _ => {}
            }
        }
    }
}

/// Appends an attribute, padded.
pub fn put_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend_from_slice(&((ATTRIBUTE_HEADER + value.len()) as u16).to_ne_bytes());
    body.extend_from_slice(&kind.to_ne_bytes());
    body.extend_from_slice(value);
    body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
}

/// The attributes of a message, as pairs of kind and value.
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Iterates over the attributes in these bytes. Stops at the first incomplete one.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(*self.0.first_chunk()?));
        let (header, value) = self.0.get(..length)?.split_at_checked(ATTRIBUTE_HEADER)?;
        self.0 = self.0.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]), value))
    }
}

/// Divides bytes into messages. Stops at the first incomplete one.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let (header, body) = bytes.get(..length)?.split_at_checked(MESSAGE_HEADER)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        Some(Message { kind: half(4), flags: half(6), body })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_stop_at_an_incomplete_one() {
        let mut bytes = Vec::new();
        for (length, body) in [(17_u32, &[1, 0, 0, 0][..]), (20, &[2, 2, 2, 2]), (40, &[3])] {
            bytes.extend(
                [&length.to_ne_bytes()[..], &libc::RTM_NEWADDR.to_ne_bytes(), &[0; 10], body].concat(),
            );
        }
        let bodies: Vec<&[u8]> = messages(&bytes).map(|message| message.body).collect();
        assert_eq!(bodies, [&[1][..], &[2, 2, 2, 2]]);
        assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero ends it");
    }
}
