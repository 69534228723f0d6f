//! Sharing a TLS port with the web. TLS ends here, and the first decrypted bytes say whose a client is: STUN begins
//! every TURN client, whatever ALPN he or a proxy before him negotiated; all else is the web's and goes to a web
//! server behind us ([`Splice`](super::stream::web::Splice)), or is answered by the built-in [`Site`]. Names that
//! have a TLS server of their own are passed through before TLS ends.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::wire::demux::{Kind, classify};
use crate::wire::proxy_protocol::Version;

/// How an HTTP/2 client begins (RFC 9113 section 3.4), as far as it takes to know him.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What a web client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or older.
    Http1,
    /// HTTP/2.
    H2,
    /// TLS that does not end here.
    Tls,
}

/// What becomes of web clients on shared ports.
#[derive(Clone)]
pub struct Web {
    /// The web server for HTTP/1.1; `None`: the built-in site.
    pub http1: Option<SocketAddr>,
    /// The web server for HTTP/2; `None`: the protocol is not offered.
    pub h2: Option<SocketAddr>,
    /// The header that tells web servers whose connection it is.
    pub proxy_protocol: Option<Version>,
    /// What answers where no web server does.
    pub site: Arc<dyn Site>,
}

impl Web {
    /// What a client speaks who negotiated `alpn` and begins with `first`, and the web server for it.
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

/// The built-in site: what answers where no web server is configured, or none is there.
pub trait Site: Send + Sync {
    /// Looks at all that a client has sent since the last answer. `unix`: seconds since 1970. `down`: there should be
    /// a web server, but it does not answer.
    fn answer(&self, protocol: Protocol, received: &[u8], unix: u64, down: bool) -> Answer;
}

/// What a [`Site`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The request is not complete.
    NeedMore,
    /// The answer to the first `consumed` bytes.
    Reply {
        /// What to send.
        bytes: Vec<u8>,
        /// Whether it is the last.
        close: bool,
        /// How many bytes were dealt with.
        consumed: usize,
    },
}

/// Whether a client who begins like that speaks TURN. He has no channel yet, so it must be a STUN message; letters
/// look like ChannelData.
pub fn is_turn(first: u8) -> bool {
    classify(first) == Kind::Stun
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl Site for Nothing {
        fn answer(&self, _: Protocol, _: &[u8], _: u64, _: bool) -> Answer {
            Answer::NeedMore
        }
    }

    #[test]
    fn turn_begins_with_stun_and_nothing_of_the_web_does() {
        assert!(is_turn(0x00) && is_turn(0x01));
        for first in b"GPHDOCT\x16\x40\x4f\x80\xff" {
            assert!(!is_turn(*first), "{first:#x}");
        }
    }

    #[test]
    fn the_web_server_is_chosen_by_what_is_spoken() {
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
