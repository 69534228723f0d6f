//! `[drain]`: the servers that new clients are sent to during a drain.

use std::net::SocketAddr;

use super::address::parse_address;
use super::types::Drain;
use super::walk::{Notes, Section};

/// Maximum number of servers for one transport.
const SERVERS_MAX: usize = 64;

/// Reads `[drain]`.
pub(super) fn drain(top: &Section<'_, '_>, notes: &mut Notes) -> Drain {
    let Some(section) = top.table("drain", "[drain]", notes) else { return Drain::default() };
    let alternate_server = servers(&section, "alternate_server", "\"203.0.113.11:3479\"", notes);
    let tcp_alternate_server = match section.has("tcp_alternate_server") {
        true => servers(&section, "tcp_alternate_server", "\"203.0.113.11:443\"", notes),
        false => alternate_server.clone(),
    };
    let tls_alternate_server = servers(&section, "tls_alternate_server", "\"203.0.113.11:443\"", notes);
    Drain { alternate_server, tcp_alternate_server, tls_alternate_server }
}

/// Reads addresses of both families: a client is sent to a server of its own family (RFC 8489 section 14.15).
fn servers(section: &Section<'_, '_>, key: &str, example: &str, notes: &mut Notes) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for entry in section.strings(key, notes).unwrap_or_default() {
        let (line, name) = (entry.line, section.key(key));
        let Some(server) = parse_address(entry, &name, example, notes) else { continue };
        if server.value.ip().is_unspecified() || server.value.port() == 0 {
            notes.error(
                line,
                &name,
                "clients cannot be sent to this address",
                format!("write the address of the other relay: {example}"),
            );
        } else if servers.contains(&server.value) {
            let message = format!("{} is listed twice", server.value);
            notes.error(line, &name, message, "remove one of the two");
        } else if servers.len() == SERVERS_MAX {
            let message = format!("more than {SERVERS_MAX} servers");
            notes.error(line, &name, message, "remove some; the servers are used in turn");
        } else {
            servers.push(server.value);
        }
    }
    servers
}
