//! PROXY headers, both versions: read as they arrive, and written.

use hallpass::wire::proxy_protocol::{Addresses, Header, MAX_PEEK, Peek, Version, peek, write};

use super::bytes::address;

/// The first bytes of a connection, and the same bytes as two addresses.
pub fn proxy_protocol(data: &[u8]) {
    let whole = peek(data);
    for end in 0..data.len().min(MAX_PEEK + 8) {
        let part = peek(&data[..end]);
        assert!(part == Peek::NeedMore || part == whole, "{end} bytes: {part:?}, all: {whole:?}");
    }
    if data.len() >= MAX_PEEK {
        assert_ne!(whole, Peek::NeedMore);
    }
    if let Peek::Found(Header { len, addresses }) = whole {
        assert!(len <= data.len() && len <= MAX_PEEK);
        assert_eq!(peek(&data[..len]), whole, "bytes after the header do not matter");
        assert_eq!(peek(&data[..len - 1]), Peek::NeedMore, "no byte too early");
        if let Some(found) = addresses {
            assert_eq!(found.source.is_ipv4(), found.destination.is_ipv4());
            read_back(found);
        }
    }
    let mut rest = data;
    read_back(Addresses { source: address(&mut rest), destination: address(&mut rest) });
}

fn read_back(addresses: Addresses) {
    let Addresses { source, destination } = addresses;
    for version in [Version::V1, Version::V2] {
        let mut bytes = b"before".to_vec();
        write(version, addresses, &mut bytes);
        let bytes = bytes.strip_prefix(b"before").expect("appended");
        let mut followed = bytes.to_vec();
        followed.extend(b"\r\n behind");
        let Peek::Found(Header { len, addresses: Some(read) }) = peek(&followed) else {
            panic!("{:?} of {addresses:?}", String::from_utf8_lossy(bytes));
        };
        assert_eq!(len, bytes.len());
        assert_eq!((read.source.port(), read.destination.port()), (source.port(), destination.port()));
        // If the families differ, the IPv4 address is written in its mapped form.
        let same = source.is_ipv4() == destination.is_ipv4();
        let canonical = |read: std::net::IpAddr| if same { read } else { read.to_canonical() };
        assert_eq!(canonical(read.source.ip()), if same { source.ip() } else { source.ip().to_canonical() });
        assert_eq!(
            canonical(read.destination.ip()),
            if same { destination.ip() } else { destination.ip().to_canonical() }
        );
    }
}
