//! The admin address of a running server, as the command line names it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The admin address on the command line: `ADDRESS:PORT`, or a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminUrl {
    is_tls: bool,
    host: String,
    port: u16,
}

/// Why a text is no admin address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl;

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write ADDRESS:PORT or https://NAME:PORT")
    }
}

impl std::error::Error for BadUrl {}

impl FromStr for AdminUrl {
    type Err = BadUrl;

    /// Without a scheme, loopback means plain HTTP and all else HTTPS, as the server has it.
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest.trim_end_matches('/')),
            None => (None, text),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(BadUrl)?;
        let port = port.parse().ok().filter(|&port| port > 0).ok_or(BadUrl)?;
        let host = match host.strip_prefix('[') {
            Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<Ipv6Addr>().is_ok()).ok_or(BadUrl)?,
            None => host,
        };
        let is_name = |host: &str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if host.is_empty() || !(is_name(host) || host.parse::<Ipv6Addr>().is_ok()) {
            return Err(BadUrl);
        }
        let is_tls = match scheme.as_deref() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(BadUrl),
            None => !is_loopback(host),
        };
        Ok(Self { is_tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https://" } else { "" };
        write!(f, "{scheme}{}", self.authority())
    }
}

impl AdminUrl {
    /// Returns the URL of a configured address.
    pub fn of(address: SocketAddr, is_tls: bool) -> Self {
        // Connecting to the unspecified address means connecting to loopback.
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self { is_tls, host: ip.to_string(), port: address.port() }
    }

    /// Returns host and port as in a Host field.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Whether it is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Whether the server speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_may_be_a_url() {
        let url = |text: &str| text.parse::<AdminUrl>().map(|url| url.to_string());
        for (text, expected) in [
            ("127.0.0.1:9641", "127.0.0.1:9641"),
            ("[::1]:9641", "[::1]:9641"),
            ("::1:9641", "[::1]:9641"),
            ("localhost:80", "localhost:80"),
            ("10.0.0.5:9641", "https://10.0.0.5:9641"),
            ("relay.example.org:9641", "https://relay.example.org:9641"),
            ("https://127.0.0.1:9641/", "https://127.0.0.1:9641"),
            ("http://10.0.0.5:9641", "10.0.0.5:9641"),
        ] {
            assert_eq!(url(text), Ok(expected.to_owned()), "{text}");
        }
        for text in
            ["9641", "host", ":9641", "host:0", "host:x", "ftp://host:1", "a b:1", "[host]:1", "u@h:1"]
        {
            assert_eq!(url(text), Err(BadUrl), "{text}");
        }
        let any = AdminUrl::of("0.0.0.0:9641".parse().expect("literal"), true);
        assert_eq!(any.authority(), "127.0.0.1:9641");
    }
}
