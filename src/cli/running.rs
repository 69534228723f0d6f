//! Asks the running server for a page of its admin address.

mod failed;
mod server;
mod trust;

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::args::RunningServerArgs;
use crate::base::text::clean;
pub use failed::Failed;
pub use server::Target;

/// Time for connection and answer: the server's own limit is ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest answer. 10,000 sessions with 64 peers each have less.
const ANSWER_MAX: usize = 64 << 20;

/// Characters of an unexpected answer that are shown.
const SHOWN_MAX: usize = 300;

/// Requests `path` with this query, without the entries that are `None`.
///
/// # Errors
/// The server does not answer, or its answer is not the page.
pub fn ask(
    server: &RunningServerArgs,
    path: &str,
    query: &[(&str, &Option<String>)],
) -> Result<Value, Failed> {
    let target = Target::of(&server.address)?;
    let mut encoded = form_urlencoded::Serializer::new(format!("{path}?"));
    for (key, value) in query {
        if let Some(value) = value {
            encoded.append_pair(key, value);
        }
    }
    let body = wait(&target, &encoded.finish())?;
    let page = serde_json::from_slice(&body).map_err(|error| target.failed(&error.to_string()))?;
    if has_list(&page, path) {
        Ok(page)
    } else {
        Err(target.failed("another program answers, not a Hallpass server"))
    }
}

/// Whether a page has the list that it is named after, as `/sessions` has `sessions`.
fn has_list(page: &Value, path: &str) -> bool {
    page.get(path.trim_start_matches('/')).is_some_and(Value::is_array)
}

/// Requests the metrics of a server.
///
/// # Errors
/// The server does not answer, or its answer is not the page.
pub fn metrics(target: &Target) -> Result<String, Failed> {
    Ok(String::from_utf8_lossy(&wait(target, "/metrics")?).into_owned())
}

fn wait(target: &Target, page: &str) -> Result<Bytes, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| target.failed(&error.to_string()))?.block_on(target.page(page))
}

/// Returns the entries of a list in an answer; none if it is no list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn request(
    target: &Target,
    page: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the server closes the connection; the answer has the error, if there is one.
    tokio::spawn(async { drop(connection.await) });
    let mut request = Request::get(page).header(header::HOST, target.url.authority());
    if let Some(token) = &target.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body =
        Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

impl Target {
    /// Requests a page.
    ///
    /// # Errors
    /// The server does not answer, or not with a page.
    pub async fn page(&self, page: &str) -> Result<Bytes, Failed> {
        match self.get(page).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::NOT_FOUND, _) => Err(self.failed(
                "it has no such page: its version is older than this program's, or it is another program",
            )),
            (StatusCode::UNAUTHORIZED, _) => {
                let message = match self.token {
                    Some(_) => "it does not accept this token",
                    None => "it wants a token",
                };
                let next_step = "on the server itself: --config FILE; elsewhere: --token-file FILE";
                Err(Failed { next_step: next_step.to_owned(), ..self.failed(message) })
            }
            (status, body) => {
                let text = String::from_utf8_lossy(&body);
                Err(self.failed(&format!("it answers {status}: {}", clean(text.trim_end(), SHOWN_MAX))))
            }
        }
    }

    /// Requests a page, whatever the status of the answer.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn get(&self, page: &str) -> Result<(StatusCode, Bytes), Failed> {
        let answer = tokio::time::timeout(PATIENCE, self.fetch(page)).await;
        answer.map_err(|_| self.failed("no answer in time"))?
    }

    async fn fetch(&self, page: &str) -> Result<(StatusCode, Bytes), Failed> {
        let io = |error: std::io::Error| self.failed(&error.to_string());
        let failed = |message: String| self.failed(&message);
        let stream = TcpStream::connect((self.url.host(), self.url.port())).await.map_err(io)?;
        match &self.trust {
            None => request(self, page, stream).await.map_err(failed),
            Some(trust) => {
                let stream = trust.connect(stream, self.url.host()).await.map_err(|error| {
                    let (message, next_step) = trust::explain(&error);
                    Failed { next_step: next_step.to_owned(), ..failed(message) }
                })?;
                request(self, page, stream).await.map_err(failed)
            }
        }
    }

    /// Returns why this server cannot be asked.
    pub fn failed(&self, message: &str) -> Failed {
        Failed {
            message: format!("cannot ask the server at {}: {message}", self.url),
            next_step:
                "is it running (systemctl status hallpass), and is this its [admin] address? --config FILE \
                        takes the address from the configuration, --admin names it"
                    .to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_json_of_another_program_is_no_empty_list() {
        for other in [json!(null), json!({}), json!([]), json!({ "sessions": 5 }), json!({ "refusals": [] })]
        {
            assert!(!has_list(&other, "/sessions"), "{other}");
        }
        assert!(has_list(&json!({ "sessions": [] }), "/sessions"));
    }
}
