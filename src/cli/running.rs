//! Asks the running server for a page of its admin address.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::args::{AdminAddressArgs, RunningServerArgs};
use crate::config;

/// Time for connection and answer: the server's own limit is ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest answer. 10,000 sessions with 64 peers each have less.
const ANSWER_MAX: usize = 64 << 20;

/// Why the server cannot be asked, and the next step.
#[derive(Debug)]
pub struct Failed {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next_step: String,
}

impl Failed {
    /// The server at `address` cannot be asked, for this reason.
    pub fn to_ask(address: SocketAddr, reason: &str) -> Self {
        Self {
            message: format!("cannot ask the server at {address}: {reason}"),
            next_step: "is it running, and is this [admin] address right? systemctl status hallpass"
                .to_owned(),
        }
    }
}

/// Requests `path` with this query, without the entries that are `None`.
///
/// # Errors
/// The server does not answer, or its answer is not the page.
pub fn ask(
    server: &RunningServerArgs,
    path: &str,
    query: &[(&str, &Option<String>)],
) -> Result<Value, Failed> {
    let address = address(&server.address)?;
    let mut encoded = form_urlencoded::Serializer::new(format!("{path}?"));
    for (key, value) in query {
        if let Some(value) = value {
            encoded.append_pair(key, value);
        }
    }
    let target = encoded.finish();
    let failed = |message: String| Failed::to_ask(address, &message);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    let (status, body) = runtime.block_on(fetch(address, &target)).map_err(failed)?;
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(|error| failed(error.to_string())),
        StatusCode::NOT_FOUND => {
            Err(failed("it has no such page: its version is older than this program's".to_owned()))
        }
        status => Err(failed(format!("it answers {status}: {}", String::from_utf8_lossy(&body).trim_end()))),
    }
}

/// Returns the entries of a list in an answer; none if it is no list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the admin address of the arguments.
///
/// # Errors
/// The configuration cannot be read, or it has no admin address.
pub fn address(server: &AdminAddressArgs) -> Result<SocketAddr, Failed> {
    let Some(path) = &server.config else { return Ok(server.admin) };
    let loaded = config::read(path).map_err(|report| Failed {
        message: format!("cannot read the configuration:\n{report}"),
        next_step: "fix it, or give the address with --admin".to_owned(),
    })?;
    let admin = loaded.config.admin.ok_or_else(|| no_admin(path))?;
    let mut address = admin.address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    Ok(address)
}

fn no_admin(path: &Path) -> Failed {
    Failed {
        message: format!("{} has no [admin], so the server cannot be asked", path.display()),
        next_step: "add [admin] with address = \"127.0.0.1:9641\" and restart the server".to_owned(),
    }
}

/// Requests a page.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn fetch(address: SocketAddr, target: &str) -> Result<(StatusCode, Bytes), String> {
    let exchange = tokio::time::timeout(PATIENCE, exchange(address, target));
    exchange.await.map_err(|_| "no answer in time".to_owned())?
}

async fn exchange(address: SocketAddr, target: &str) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the server closes the connection; the answer has the error, if there is one.
    tokio::spawn(async { drop(connection.await) });
    let request = Request::get(target).header(header::HOST, address.to_string()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}
