//! The PROXY protocol, versions 1 and 2: how a proxy passes on the addresses of a connection (specification of haproxy,
//! doc/proxy-protocol.txt, sections 2.1 and 2.2).

use std::net::{IpAddr, SocketAddr};
use std::str;

/// The longest header that is accepted. Version 1 has at most 107 bytes; version 2 may have 512 bytes of addresses and
/// extensions (TLVs) here, and proxies send less than 300.
pub const MAX_PEEK: usize = V2_HEADER + 512;

const V1_START: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEADER: usize = 16;
const V2_VERSION: u8 = 0x20;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;
const V4_LEN: usize = 12;
const V6_LEN: usize = 36;

/// The two addresses of a connection, as the proxy saw them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length in bytes; the client's own bytes follow.
    pub len: usize,
    /// `None` if the proxy connects for itself (LOCAL, a health check) or does not know the addresses (UNKNOWN, other families);
    /// then those of the connection count.
    pub addresses: Option<Addresses>,
}

/// The result of looking at the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A header.
    Found(Header),
    /// Not a header.
    NotProxy,
    /// The beginning of one; more bytes are needed. Never returned for [`MAX_PEEK`] bytes or more.
    NeedMore,
}

/// Examines the bytes that have arrived so far, from the first byte of the connection on.
pub fn peek(bytes: &[u8]) -> Peek {
    let begins = |start: &[u8]| {
        let len = bytes.len().min(start.len());
        bytes[..len] == start[..len]
    };
    if begins(V2_SIGNATURE) && !bytes.is_empty() {
        peek_v2(bytes)
    } else if begins(V1_START) {
        peek_v1(bytes)
    } else {
        Peek::NotProxy
    }
}

fn peek_v1(bytes: &[u8]) -> Peek {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() >= V1_MAX { Peek::NotProxy } else { Peek::NeedMore };
    };
    let words = str::from_utf8(&line[V1_START.len().min(end)..end]).ok().and_then(v1_addresses);
    match words {
        Some(addresses) => Peek::Found(Header { len: end + 2, addresses }),
        None => Peek::NotProxy,
    }
}

/// Reads the words after `PROXY `; `None` if they are invalid, `Some(None)` for UNKNOWN.
fn v1_addresses(words: &str) -> Option<Option<Addresses>> {
    if words == "UNKNOWN" || words.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut words = words.split(' ');
    let family = words.next()?;
    let mut address = || -> Option<IpAddr> {
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == (family == "TCP4")).then_some(address)
    };
    let (source, destination) = (address()?, address()?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    (matches!(family, "TCP4" | "TCP6") && words.next().is_none()).then_some(Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// Reads a decimal port without sign and leading zeros (section 2.1).
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

fn peek_v2(bytes: &[u8]) -> Peek {
    let Some(header) = bytes.first_chunk::<V2_HEADER>() else {
        // The version can be checked already.
        let wrong = bytes.get(V2_SIGNATURE.len()).is_some_and(|byte| byte & 0xf0 != V2_VERSION);
        return if wrong { Peek::NotProxy } else { Peek::NeedMore };
    };
    let len = V2_HEADER + usize::from(u16::from_be_bytes([header[14], header[15]]));
    let command = header[12];
    if !matches!(command, V2_LOCAL | V2_PROXY) || len > MAX_PEEK {
        return Peek::NotProxy;
    }
    let Some(body) = bytes.get(V2_HEADER..len) else { return Peek::NeedMore };
    let found = |addresses| Peek::Found(Header { len, addresses });
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match (command, header[13]) {
        (V2_PROXY, V2_TCP4) if body.len() >= V4_LEN => {
            let ip = |at: usize| IpAddr::from([body[at], body[at + 1], body[at + 2], body[at + 3]]);
            let (source, destination) = (ip(0), ip(4));
            found(Some(Addresses {
                source: SocketAddr::new(source, port(8)),
                destination: SocketAddr::new(destination, port(10)),
            }))
        }
        (V2_PROXY, V2_TCP6) if body.len() >= V6_LEN => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                IpAddr::from(octets)
            };
            let (source, destination) = (ip(0), ip(16));
            found(Some(Addresses {
                source: SocketAddr::new(source, port(32)),
                destination: SocketAddr::new(destination, port(34)),
            }))
        }
        (V2_PROXY, V2_TCP4 | V2_TCP6) => Peek::NotProxy,
        // LOCAL, and families other than IPv4 and IPv6.
        _ => found(None),
    }
}

/// The version to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Appends a header.
pub fn write(version: Version, addresses: Addresses, out: &mut Vec<u8>) {
    let Addresses { mut source, mut destination } = addresses;
    if source.is_ipv4() != destination.is_ipv4() {
        // Both addresses must have one family; the mapped form of an IPv4 address is equivalent.
        (source, destination) = (mapped(source), mapped(destination));
    }
    match version {
        Version::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
            out.extend_from_slice(line.as_bytes());
        }
        Version::V2 => {
            out.extend_from_slice(V2_SIGNATURE);
            let (family, len) = if source.is_ipv4() { (V2_TCP4, V4_LEN) } else { (V2_TCP6, V6_LEN) };
            out.extend_from_slice(&[V2_PROXY, family, 0, len as u8]);
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            out.extend_from_slice(&source.port().to_be_bytes());
            out.extend_from_slice(&destination.port().to_be_bytes());
        }
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses {
            source: source.parse().expect("source"),
            destination: destination.parse().expect("destination"),
        }
    }

    fn found(bytes: &[u8]) -> Option<Addresses> {
        // Every prefix needs more bytes, and bytes after the header do not matter.
        for len in 0..bytes.len() {
            assert_eq!(peek(&bytes[..len]), Peek::NeedMore, "{len} bytes of {bytes:?}");
        }
        let longer = [bytes, b"\x16\x03\x01"].concat();
        assert_eq!(peek(&longer), peek(bytes));
        match peek(bytes) {
            Peek::Found(header) => {
                assert_eq!(header.len, bytes.len());
                header.addresses
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn version_1_follows_the_specification() {
        let line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n";
        assert_eq!(found(line), Some(addresses("192.168.0.1:56324", "192.168.0.11:443")));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        assert_eq!(found(line), Some(addresses("[2001:db8::1]:1", "[2001:db8::2]:65535")));
        assert_eq!(found(b"PROXY UNKNOWN\r\n"), None);
        let long = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
                     ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!((long.len(), found(long)), (107, None));
    }

    #[test]
    fn version_2_with_and_without_extensions() {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 0xc3, 0x50, 0x01, 0xbb]);
        let expected = Some(addresses("192.0.2.1:50000", "198.51.100.2:443"));
        assert_eq!(found(&header), expected);
        // PP2_TYPE_ALPN after the addresses.
        header[15] = 17;
        header.extend([0x01, 0, 2, b'h', b'2']);
        assert_eq!(found(&header), expected);
        let mut local = V2_SIGNATURE.to_vec();
        local.extend([0x20, 0x00, 0, 0]);
        assert_eq!(found(&local), None);
        let mut unix = V2_SIGNATURE.to_vec();
        unix.extend([0x21, 0x31, 0, 216]);
        unix.extend([0; 216]);
        assert_eq!(found(&unix), None);
    }

    #[test]
    fn written_headers_are_read_again() {
        for version in [Version::V1, Version::V2] {
            for pair in [addresses("192.0.2.1:1", "192.0.2.2:443"), addresses("[2001:db8::1]:9", "[::1]:443")]
            {
                let mut bytes = Vec::new();
                write(version, pair, &mut bytes);
                assert_eq!(found(&bytes), Some(pair));
            }
            let mut bytes = Vec::new();
            write(version, addresses("192.0.2.1:1", "[2001:db8::2]:443"), &mut bytes);
            assert_eq!(found(&bytes), Some(addresses("[::ffff:192.0.2.1]:1", "[2001:db8::2]:443")));
        }
    }

    #[test]
    fn malformed_headers_and_other_protocols_are_refused_at_once() {
        for bytes in [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"\x00\x01\x00\x00\x21\x12\xa4\x42",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY \r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b0123456789a",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(peek(bytes), Peek::NotProxy, "{bytes:?}");
        }
        assert_eq!(peek(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 100]].concat()), Peek::NotProxy);
    }
}
