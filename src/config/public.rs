//! `listen.public`: where clients reach a listener if that is not its own address and port.

use super::types::Public;
use super::walk::{At, Notes, Section};
use crate::base::browser_ports::{GOOD_PORTS, browsers_use};
use crate::base::transport::Transport;
use crate::base::turn_url::{TurnUrl, split};

const KEY: &str = "listen.public";
const EXAMPLE: &str = "write \"turns:relay.example.org:443?transport=tcp\", or \"relay.example.org:443\" if only the port differs";

/// Reads the key of a listener with this transport and port. `either`: whether the listener also takes clients with TLS on
/// a TCP port, or without TLS on a TLS port.
pub(super) fn public(
    section: &Section<'_, '_>,
    (transport, either): (Transport, bool),
    port: u16,
    notes: &mut Notes,
) -> Option<Vec<Public>> {
    let mut all: Vec<Public> = Vec::new();
    for At { value, line } in section.one_or_more("public", notes)? {
        let one = match parse(value, transport, port) {
            Ok(one) => one,
            Err(reason) => {
                notes.error(line, KEY, format!("{value:?} is not accepted: {reason}"), EXAMPLE);
                continue;
            }
        };
        if let Some((message, remedy)) = clash(one.transport, transport, either) {
            notes.error(line, KEY, format!("{value:?} is {message}"), remedy);
        } else if !browsers_use(one.port) {
            notes.warn(line, KEY, format!("browsers refuse TURN servers on port {}", one.port), GOOD_PORTS);
        }
        if all.contains(&one) {
            notes.error(line, KEY, format!("{value:?} is listed twice"), "remove one of the two");
        }
        all.push(one);
    }
    Some(all)
}

/// Parses a TURN URL, or a host with an optional port and the transport of the listener.
fn parse(text: &str, transport: Transport, port: u16) -> Result<Public, String> {
    const SCHEMES: [&str; 6] = ["stun", "stuns", "turn", "turns", "http", "https"];
    let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    if scheme.is_some_and(|scheme| SCHEMES.contains(&scheme.as_str())) {
        let url: TurnUrl = text.parse().map_err(|error| format!("{error}"))?;
        return Ok(Public { transport: url.transport(), port: url.port(), host: url.host });
    }
    let (host, written) = split(text).map_err(|error| error.to_string())?;
    Ok(Public { transport, host, port: written.unwrap_or(port) })
}

/// Why a listener cannot serve clients of a transport, even behind a proxy, and what to do.
fn clash(clients: Transport, listener: Transport, either: bool) -> Option<(&'static str, &'static str)> {
    match (clients, listener) {
        (Transport::Udp, Transport::Tcp | Transport::Tls) => Some((
            "a URL of UDP, and no proxy turns UDP into TCP",
            "add ?transport=tcp, write turns: instead of turn:, or move the URL to the [[listen]] with transport = \"udp\"",
        )),
        (Transport::Tcp | Transport::Tls, Transport::Udp) => Some((
            "not a URL of UDP, and no proxy turns TCP into UDP",
            "remove ?transport=tcp and write turn:, or move the URL to a [[listen]] with transport = \"tcp\" or \"tls\"",
        )),
        (Transport::Tcp, Transport::Tls) if !either => Some((
            "a URL without TLS, and this listener has plain = false",
            "write turns: instead of turn:, or remove plain = false",
        )),
        _ => None,
    }
}
