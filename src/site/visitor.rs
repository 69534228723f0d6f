//! The client of a connection and its version of HTTP.

use std::net::SocketAddr;

use crate::wire::client_hello::Shape;

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.1 or 1.0.
    One,
    /// HTTP/2.
    Two,
}

/// The client of a connection. Handlers receive it as an `Extension`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client connected to.
    pub server: SocketAddr,
    /// Whether the client came over TLS. Others are redirected.
    pub secure: bool,
    /// Whether the web server that the client wants is unreachable. The site then answers one request with 502 and
    /// closes.
    pub down: bool,
    /// Whether a web server of the operator forwards the requests. It names the client in `X-Real-IP`.
    pub forwarded: bool,
    /// What is typical of a kind of browser in the client's ClientHello; `None` if TLS ended elsewhere.
    pub hello: Option<Shape>,
}
