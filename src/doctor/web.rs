//! Web servers behind the relay: whether they answer, with the PROXY header that the relay sends, and where they redirect to.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::link::{tcp, within};
use super::stage::Cause;
use super::text::clean;
use super::watch::now;
use crate::wire::proxy_protocol::{Addresses, Version, write};

/// Limit for a connection and the answer on it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Redirects that are followed on the same server.
const REDIRECTS_MAX: usize = 3;
/// What nginx answers to a PROXY header that it does not expect, and to a missing one.
const BAD_REQUEST: u16 = 400;

/// A web server behind the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebServer {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// Its address.
    pub address: SocketAddr,
    /// The protocol that is spoken to it.
    pub protocol: Protocol,
    /// The PROXY header in front of each connection.
    pub proxy: Option<Version>,
    /// The name in requests.
    pub host: String,
}

/// What a web server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    H2,
    /// TLS, which is passed through: only the connection is tried.
    PassThrough,
}

/// What a visit showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The answer to the connection that the relay makes, or why there is none.
    pub answer: Result<Answer, Cause>,
    /// Whether the server answers if the PROXY header is left out, or added; `None` if that was not tried.
    pub answers_otherwise: Option<bool>,
}

/// The answer of a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status; `None` if only the connection was tried.
    pub status: Option<u16>,
    /// An absolute redirect, cleaned, and the port in it.
    pub redirect: Option<(String, u16)>,
}

/// Asks for the start page, and follows redirects on the same server.
pub async fn visit(server: &WebServer) -> Visit {
    let answer = follow(server, server.proxy).await;
    let is_bad = match &answer {
        Ok(answer) => answer.status == Some(BAD_REQUEST),
        // Without a connection, the header cannot be the cause.
        Err(cause) => matches!(cause, Cause::System(_) | Cause::Closed | Cause::Reset),
    };
    let answers_otherwise = match is_bad && server.protocol != Protocol::PassThrough {
        true => {
            let other = if server.proxy.is_some() { None } else { Some(Version::V1) };
            Some(follow(server, other).await.is_ok_and(|answer| answer.status != Some(BAD_REQUEST)))
        }
        false => None,
    };
    Visit { answer, answers_otherwise }
}

async fn follow(server: &WebServer, proxy: Option<Version>) -> Result<Answer, Cause> {
    let until = now() + PATIENCE;
    if server.protocol == Protocol::PassThrough {
        tcp(server.address, until).await?;
        return Ok(Answer { status: None, redirect: None });
    }
    let mut path = "/".to_owned();
    for _ in 0..REDIRECTS_MAX {
        let asked = ask(server.address, server.protocol, proxy, &server.host, &path);
        let response = within(PATIENCE, until, asked).await??;
        let status = Some(response.status().as_u16());
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.filter(|_| response.status().is_redirection());
        let Some(location) = location else { return Ok(Answer { status, redirect: None }) };
        let Ok(uri) = location.parse::<Uri>() else { return Ok(Answer { status, redirect: None }) };
        if uri.host().is_some() {
            let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
            let port = uri.port_u16().unwrap_or(usual);
            return Ok(Answer { status, redirect: Some((clean(location), port)) });
        }
        path = uri.path().to_owned();
    }
    Ok(Answer { status: None, redirect: None })
}

/// Sends one request on a connection of its own, and returns the head of the response.
///
/// # Errors
/// There is no connection, or no response in this protocol.
pub(super) async fn ask(
    address: SocketAddr,
    protocol: Protocol,
    proxy: Option<Version>,
    host: &str,
    path: &str,
) -> Result<Response<()>, Cause> {
    let mut stream = tcp(address, now() + PATIENCE).await?;
    let head = proxy.map(|version| greeting(version, &stream)).transpose()?.unwrap_or_default();
    stream.write_all(&head).await.map_err(|error| Cause::of_error(&error))?;
    let failed = |error: hyper::Error| Cause::System(clean(&format!("no HTTP: {error}")));
    let bad = |error: hyper::http::Error| Cause::System(clean(&error.to_string()));
    // Both end when the connection does; the response has the error, if there is one.
    let response = match protocol {
        Protocol::H2 => {
            let request = Request::get(format!("http://{host}{path}")).body(Empty::<Bytes>::new());
            let made = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (mut sender, connection) = made.map_err(failed)?;
            tokio::spawn(async { drop(connection.await) });
            sender.send_request(request.map_err(bad)?).await
        }
        _ => {
            let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new());
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
            tokio::spawn(async { drop(connection.await) });
            sender.send_request(request.map_err(bad)?).await
        }
    };
    Ok(response.map_err(failed)?.map(drop))
}

/// The PROXY header of a connection that this machine makes for itself.
fn greeting(version: Version, stream: &TcpStream) -> Result<Vec<u8>, Cause> {
    let (source, destination) = stream
        .local_addr()
        .and_then(|local| Ok((local, stream.peer_addr()?)))
        .map_err(|error| Cause::of_error(&error))?;
    let mut head = Vec::new();
    write(version, Addresses { source, destination }, &mut head);
    Ok(head)
}
