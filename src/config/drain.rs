//! `[drain]`: the servers that new clients are sent to during a drain.

use std::net::SocketAddr;

use super::address::parse_address;
use super::types::Drain;
use super::walk::{Notes, Section};

/// Reads `[drain]`.
pub(super) fn drain(top: &Section<'_, '_>, notes: &mut Notes) -> Drain {
    let Some(section) = top.table("drain", "[drain]", notes) else { return Drain::default() };
    Drain {
        alternate_server: servers(&section, "alternate_server", "\"203.0.113.11:3478\"", notes),
        tls_alternate_server: servers(&section, "tls_alternate_server", "\"203.0.113.11:443\"", notes),
    }
}

/// Reads at most one address per family: a client is sent to an address of its own family (RFC 8489 section 14.15).
fn servers(section: &Section<'_, '_>, key: &str, example: &str, notes: &mut Notes) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for entry in section.strings(key, notes).unwrap_or_default() {
        let (line, name) = (entry.line, section.key(key));
        let Some(server) = parse_address(entry, &name, example, notes) else { continue };
        if server.value.ip().is_unspecified() || server.value.port() == 0 {
            notes.error(
                line,
                &name,
                "clients cannot be sent there",
                format!("write the address of the other relay: {example}"),
            );
        } else if servers.iter().any(|other| other.is_ipv4() == server.value.is_ipv4()) {
            notes.error(
                line,
                &name,
                "a second address of the same family",
                "keep one for IPv4 and one for IPv6",
            );
        } else {
            servers.push(server.value);
        }
    }
    servers
}
