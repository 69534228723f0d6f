//! Classifies the first bytes of a client on a shared port. Every TURN client starts with a STUN message, regardless of
//! the ALPN protocol that the client, or a proxy in front of it, negotiated. Any other client is a web client and goes
//! to a web server or to the built-in [`Site`].

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::net::admission::Descriptor;
use crate::net::stream::tls::Protocol;
use crate::wire::client_hello::Shape;
use crate::wire::demux::{Kind, classify};
use crate::wire::proxy_protocol::Version;

/// The start of the HTTP/2 connection preface (RFC 9113 section 3.4), long enough to recognise it.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The back ends of web clients on shared ports.
#[derive(Clone)]
pub struct Web {
    /// The web server for HTTP/1.1; `None`: the built-in site.
    pub http1: Option<SocketAddr>,
    /// The web server for HTTP/2; `None`: the built-in site.
    pub h2: Option<SocketAddr>,
    /// The version of the PROXY header that web servers receive; `None`: no header.
    pub proxy_protocol: Option<Version>,
    /// The built-in site.
    pub site: Arc<dyn Site>,
}

impl Web {
    /// Returns the protocol of a client that negotiated `alpn` and starts with `first`, and the web server for it.
    pub fn back_end(&self, alpn: Option<Protocol>, first: &[u8]) -> (Protocol, Option<SocketAddr>) {
        let is_preface =
            first.len() >= 4 && first.starts_with(&H2_PREFACE[..first.len().min(H2_PREFACE.len())]);
        match alpn {
            Some(Protocol::H2) => (Protocol::H2, self.h2),
            _ if is_preface => (Protocol::H2, self.h2),
            _ => (Protocol::Http1, self.http1),
        }
    }
}

/// The built-in site. It serves clients whose protocol has no web server, or whose web server is unreachable.
pub trait Site: Send + Sync {
    /// Serves a client over its own end of a connection. Must not block. Returns `false` if the site is full.
    fn visit(&self, visit: Visit) -> bool;
}

/// A web client's connection as the built-in [`Site`] receives it.
#[derive(Debug)]
pub struct Visit {
    /// Carries the decrypted bytes of the client, and the answers. Non-blocking.
    pub stream: UnixStream,
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub server: SocketAddr,
    /// The protocol of the client.
    pub protocol: Protocol,
    /// Whether it came over TLS.
    pub secure: bool,
    /// Whether a web server is configured but unreachable.
    pub down: bool,
    /// The shape of its ClientHello, if TLS ended here.
    pub hello: Option<Shape>,
    /// The descriptor of `stream`; must be dropped after it.
    pub place: Descriptor,
}

/// Returns whether a client with this first byte speaks TURN. A new client has no channel, so it must send a STUN
/// message first. ChannelData is not accepted, because its first byte may be a letter, like that of an HTTP request.
pub fn is_turn(first: u8) -> bool {
    classify(first) == Kind::Stun
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Site for Nothing {
        fn visit(&self, _: Visit) -> bool {
            false
        }
    }

    #[test]
    fn turn_begins_with_stun_and_web_protocols_do_not() {
        assert!(is_turn(0x00) && is_turn(0x01));
        for first in b"GPHDOCT\x16\x40\x4f\x80\xff" {
            assert!(!is_turn(*first), "{first:#x}");
        }
    }

    #[test]
    fn the_web_server_is_chosen_by_protocol() {
        let [http1, h2] = [81, 82].map(|port| Some((std::net::Ipv4Addr::LOCALHOST, port).into()));
        let web = Web { http1, h2, proxy_protocol: None, site: Arc::new(Nothing) };
        assert_eq!(web.back_end(Some(Protocol::H2), b""), (Protocol::H2, h2));
        assert_eq!(web.back_end(Some(Protocol::Http1), b"GET / HTTP/1.1\r\n"), (Protocol::Http1, http1));
        assert_eq!(web.back_end(None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (Protocol::H2, h2));
        assert_eq!(web.back_end(None, b"PRI *"), (Protocol::H2, h2));
        assert_eq!(web.back_end(None, b"P"), (Protocol::Http1, http1));
        assert_eq!(web.back_end(None, b"PROPFIND / HTTP/1.1\r\n"), (Protocol::Http1, http1));
    }
}
