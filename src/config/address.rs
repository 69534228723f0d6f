//! Addresses with a port.

use std::net::SocketAddr;

use super::walk::{At, Notes, Section};

/// Reads an address with a port from `key`. Refuses port 0 and multicast addresses.
pub(super) fn socket_address(
    section: &Section<'_, '_>,
    key: &str,
    example: &str,
    notes: &mut Notes,
) -> Option<At<SocketAddr>> {
    let At { value, line } = section.string(key, notes)?;
    let key = section.key(key);
    parse_address(At { value, line }, &key, example, notes)
}

/// Parses an address with a port. Refuses port 0 and multicast addresses.
pub(super) fn parse_address(
    At { value, line }: At<&str>,
    key: &str,
    example: &str,
    notes: &mut Notes,
) -> Option<At<SocketAddr>> {
    let Ok(address) = value.parse::<SocketAddr>() else {
        let remedy = format!("write address and port; names are not looked up: {example}");
        notes.error(line, key, format!("{value:?} is not an address with a port"), remedy);
        return None;
    };
    if address.port() == 0 {
        notes.error(
            line,
            key,
            "port 0 means any port, which clients cannot know",
            format!("write {example}"),
        );
        return None;
    }
    if address.ip().is_multicast() {
        notes.error(
            line,
            key,
            format!("{} is a multicast address", address.ip()),
            format!("write {example}"),
        );
        return None;
    }
    Some(At { value: address, line })
}
