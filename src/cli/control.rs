//! Gives orders to the running server through its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::args::ControlArgs;
use super::running::Failed;
use crate::base::text::clean;
use crate::config::{self, Config};

/// The socket of a server that systemd has started (`RuntimeDirectory=hallpass`).
const DEFAULT: &str = "/run/hallpass/control.sock";
/// Time for an answer. A reload reads files and opens sockets.
const PATIENCE: Duration = Duration::from_secs(30);
/// Characters of an unexpected answer that are shown.
const SHOWN_MAX: usize = 300;

/// The control socket of a running server.
pub struct Control {
    path: PathBuf,
}

impl Control {
    /// Returns the socket that the arguments name.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub fn of(args: &ControlArgs) -> Result<Self, Failed> {
        let configured = match &args.config {
            Some(file) => configured(file)?,
            None => None,
        };
        let path = args.socket.clone().or(configured);
        Ok(Self { path: path.unwrap_or_else(|| PathBuf::from(DEFAULT)) })
    }

    /// Returns the socket of the server that uses this configuration.
    pub fn in_configuration(config: &Config) -> Self {
        Self { path: config.control_socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT)) }
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// # Errors
    /// The server does not answer, or not with JSON.
    pub async fn ask(&self, method: Method, page: &str, body: &str) -> Result<(StatusCode, Value), Failed> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let answer = tokio::time::timeout(PATIENCE, send(stream, method, page, body)).await;
        let (status, body) = match answer {
            Err(_) => return Err(self.hangs()),
            Ok(answer) => answer.map_err(|error| self.failed(&error))?,
        };
        match serde_json::from_slice(&body) {
            Ok(value) => Ok((status, value)),
            Err(_) => {
                let text = clean(String::from_utf8_lossy(&body).trim_end(), SHOWN_MAX);
                Err(self.failed(&format!("it answers {status}: {text}")))
            }
        }
    }

    /// Does the same as [`Control::ask`]; an answer other than 200 is an error.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn order(&self, method: Method, page: &str, body: &str) -> Result<Value, Failed> {
        match self.ask(method, page, body).await? {
            (StatusCode::OK, value) => Ok(value),
            (status, value) => {
                let text = value["error"].as_str().map_or_else(|| value.to_string(), str::to_owned);
                Err(self.failed(&format!("it answers {status}: {}", clean(&text, SHOWN_MAX))))
            }
        }
    }

    fn failed(&self, message: &str) -> Failed {
        Failed {
            message: format!("cannot ask the server at {}: {message}", self.path.display()),
            next_step: "see its log: journalctl -u hallpass".to_owned(),
        }
    }

    /// The socket takes connections, and nothing answers.
    fn hangs(&self) -> Failed {
        let seconds = PATIENCE.as_secs();
        Failed {
            next_step: "the process may hang: systemctl status hallpass. It drops this order if it has not begun with it".to_owned(),
            ..self.failed(&format!("no answer in {seconds} s"))
        }
    }

    /// Explains why the socket cannot be opened.
    fn unreachable(&self, error: &io::Error) -> Failed {
        let next_step = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "only root and the user of the server may use it: sudo hallpass ..."
            }
            io::ErrorKind::NotFound => {
                "is the server running? systemctl status hallpass. Its socket is in RuntimeDirectory= of the unit, or where \
                 [control] socket says: then name it with --config FILE or --socket PATH. A signal always works: \
                 systemctl kill -s HUP hallpass reloads, USR1 drains"
            }
            io::ErrorKind::ConnectionRefused => {
                "the server is not running any more: systemctl status hallpass"
            }
            _ => "name the socket with --config FILE or --socket PATH",
        };
        Failed { next_step: next_step.to_owned(), ..self.failed(&error.to_string()) }
    }
}

/// Returns `[control] socket`, also of a configuration with errors, which a reload is to report.
///
/// # Errors
/// The file cannot be read, or is not TOML.
fn configured(file: &Path) -> Result<Option<PathBuf>, Failed> {
    let examined = config::examine(file);
    match examined.config {
        Some(config) => Ok(config.control_socket),
        None => Err(Failed {
            message: format!("cannot read the path of the control socket:\n{}", examined.report),
            next_step: "fix the file, or name the socket with --socket PATH".to_owned(),
        }),
    }
}

async fn send(
    stream: UnixStream,
    method: Method,
    page: &str,
    body: &str,
) -> Result<(StatusCode, Bytes), String> {
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    // Ends when the server closes the connection; the answer has the error, if there is one.
    tokio::spawn(async { drop(connection.await) });
    let request = Request::builder().method(method).uri(page).header(header::HOST, "hallpass");
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    let answer = sender.send_request(request.map_err(|error| error.to_string())?).await.map_err(text)?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await.map_err(text)?.to_bytes()))
}
