//! TURN URLs (RFC 7065).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use super::transport::Transport;

/// The longest host name (RFC 1035 section 2.3.4).
const NAME_MAX: usize = 253;

/// A TURN URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnUrl {
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub host: String,
    /// The port, if the URL has one.
    pub port: Option<u16>,
    /// The transport that the URL asks for; `None` for a `turn` URL without `transport`.
    pub transport: Option<Transport>,
}

/// Why a text is no TURN URL. `Display` says what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl(&'static str);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadUrl {}

impl TurnUrl {
    /// The transport that a browser uses for the URL.
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or(Transport::Udp)
    }

    /// The port that a browser uses for the URL (RFC 7065 section 3.2).
    pub fn port(&self) -> u16 {
        let default = if self.transport == Some(Transport::Tls) { 5349 } else { 3478 };
        self.port.unwrap_or(default)
    }
}

impl FromStr for TurnUrl {
    type Err = BadUrl;

    /// Parses a URL.
    ///
    /// # Errors
    /// [`BadUrl`] if it is another URL, DTLS (`turns` with `transport=udp`), or malformed.
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let scheme = BadUrl("write turn:HOST, turn:HOST:PORT?transport=tcp or turns:HOST:PORT");
        let (scheme, rest) = text.split_once(':').ok_or(scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "turn" => false,
            "turns" => true,
            "stun" | "stuns" => return Err(BadUrl("a STUN URL names no relay: write turn: or turns:")),
            "http" | "https" => {
                return Err(BadUrl("a web address names no relay: write turn:HOST or turns:HOST"));
            }
            _ => return Err(BadUrl("write turn: or turns: before the host")),
        };
        if rest.starts_with("//") {
            return Err(BadUrl("write the host directly after the colon, without //"));
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let transport = match (secure, query) {
            (false, None) => None,
            (false, Some("transport=udp")) => Some(Transport::Udp),
            (false, Some("transport=tcp")) => Some(Transport::Tcp),
            (true, None | Some("transport=tcp")) => Some(Transport::Tls),
            (true, Some("transport=udp")) => {
                return Err(BadUrl("browsers do not use TURN over DTLS: write transport=tcp"));
            }
            (_, Some(_)) => return Err(BadUrl("the only parameters are transport=udp and transport=tcp")),
        };
        let (host, port) = split(place)?;
        Ok(Self { host, port, transport })
    }
}

/// Splits a host from an optional port. An IPv6 address is in brackets.
pub fn split(place: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(BadUrl("an IPv6 address ends with ]"))?;
            host.parse::<Ipv6Addr>().map_err(|_| BadUrl("only an IPv6 address may be in brackets"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(BadUrl("only :PORT may follow an address in brackets")),
            }
        }
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(BadUrl("write an IPv6 address in brackets: [2001:db8::1]"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let is_name = !host.is_empty()
        && host.len() <= NAME_MAX
        && !host.starts_with(['-', '.'])
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !is_name && host.parse::<Ipv6Addr>().is_err() {
        return Err(BadUrl("a host is a name of letters, digits, dots and hyphens, or an address"));
    }
    let wrong = BadUrl("a port is a number from 1 to 65535");
    let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or(wrong)).transpose()?;
    Ok((host.to_ascii_lowercase(), port))
}

/// A host and a port as URLs write them.
pub fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_as_browsers_take_them() {
        let parse = |text: &str| text.parse::<TurnUrl>().map(|url| (url.host, url.port, url.transport));
        let url = |host: &str, port, transport| Ok((host.to_owned(), port, transport));
        assert_eq!(parse("turn:relay.example.org"), url("relay.example.org", None, None));
        assert_eq!(parse("TURN:Relay:3478"), url("relay", Some(3478), None));
        assert_eq!(
            parse("turn:192.0.2.1:80?transport=tcp"),
            url("192.0.2.1", Some(80), Some(Transport::Tcp))
        );
        assert_eq!(parse("turn:r?transport=udp"), url("r", None, Some(Transport::Udp)));
        assert_eq!(parse("turns:[2001:db8::1]:443"), url("2001:db8::1", Some(443), Some(Transport::Tls)));
        assert_eq!(parse("turns:r?transport=tcp"), url("r", None, Some(Transport::Tls)));
    }

    #[test]
    fn defaults_of_urls() {
        let used = |text: &str| text.parse::<TurnUrl>().map(|url| (url.transport(), url.port()));
        assert_eq!(used("turn:r"), Ok((Transport::Udp, 3478)));
        assert_eq!(used("turn:r?transport=tcp"), Ok((Transport::Tcp, 3478)));
        assert_eq!(used("turns:r"), Ok((Transport::Tls, 5349)));
        assert_eq!(used("turns:r:443"), Ok((Transport::Tls, 443)));
    }

    #[test]
    fn mistakes_are_explained() {
        for (wrong, said) in [
            ("relay.example.org", "write turn:HOST"),
            ("relay.example.org:3478", "turn: or turns:"),
            ("stun:r", "STUN"),
            ("https://r", "web address"),
            ("turn://r", "without //"),
            ("turns:r?transport=udp", "DTLS"),
            ("turn:r?transport=sctp", "parameters"),
            ("turn:", "a host is"),
            ("turn:r:0", "a port is"),
            ("turn:r:70000", "a port is"),
            ("turn:2001:db8::1", "brackets"),
            ("turn:[2001:db8::1", "ends with ]"),
            ("turn:[relay]", "only an IPv6"),
            ("turn:user@r", "a host is"),
        ] {
            let error = wrong.parse::<TurnUrl>().unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
        }
    }
}
