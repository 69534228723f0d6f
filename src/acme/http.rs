//! The connections to the authority: one for each request, with limits on time and size.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::{Failure, NO_CONNECTION};
use super::schedule::retry_after;
use crate::cert::{provider, roots};
use crate::system::{clock, pipe};

/// Time for name, connection and handshake.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Time for the answer after that.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Size limit of an answer. A chain with 100 names takes 10 KB.
const ANSWER_MAX: usize = 1 << 20;

/// A client for one attempt. Clones share what the authority asked for.
#[derive(Clone)]
pub struct Https {
    tls: TlsConnector,
    /// When the last refusal allows the next request, in seconds since 1970; 0: it says nothing.
    retry_at: Arc<AtomicU64>,
}

impl Https {
    /// Creates a client that trusts the authorities in `ca_file`, or else those of this computer. Reads files.
    ///
    /// # Errors
    /// `Local` if the authorities cannot be read.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, Failure> {
        let roots = match ca_file {
            Some(path) => from_file(path).map_err(|error| {
                Failure::Local(format!("cannot read {}: {error}; correct [acme] ca_file", path.display()))
            })?,
            None => {
                let system = roots::system().map_err(|error| {
                    Failure::Local(format!(
                        "cannot read the authorities that this computer trusts: {error}; install the package ca-certificates"
                    ))
                })?;
                system.all
            }
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Local(format!("TLS cannot be set up: {error}; report this as a bug")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), retry_at: Arc::default() })
    }

    /// Returns when the last refusal allows another attempt, in seconds since 1970.
    pub fn retry_at(&self) -> Option<u64> {
        Some(self.retry_at.load(Relaxed)).filter(|&at| at > 0)
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Full<Bytes>>> {
        let uri = request.uri().clone();
        let connected = timeout(CONNECT_TIME, self.connect(&uri)).await;
        let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).and_then(|done| done);
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let stream = stream
            .map_err(|error| io::Error::new(error.kind(), format!("{NO_CONNECTION} {host}: {error}")))?;
        let answered = timeout(ANSWER_TIME, exchange(stream, request, &uri)).await;
        let answer = answered.map_err(|_| io::Error::from(io::ErrorKind::TimedOut)).and_then(|done| done);
        let answer = answer
            .map_err(|error| io::Error::new(error.kind(), format!("no answer from {host}: {error}")))?;
        if answer.status().is_client_error() || answer.status().is_server_error() {
            let value = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let at = value.and_then(|value| retry_after(value, clock::unix_seconds()));
            self.retry_at.store(at.unwrap_or(0), Relaxed);
        }
        Ok(answer)
    }

    async fn connect(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} {what}"));
        if uri.scheme_str() != Some("https") {
            return Err(wrong("is not an https:// URL"));
        }
        let host = uri.host().ok_or_else(|| wrong("names no server"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|_| wrong("names no server"))?;
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
        self.tls.connect(name, stream).await
    }
}

fn from_file(path: &Path) -> io::Result<RootCertStore> {
    let (file, _) = pipe::open(path)?;
    let all =
        CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(all) {
        (0, _) => Err(io::Error::other("no certificate of an authority in it")),
        _ => Ok(roots),
    }
}

/// Sends the request on a new connection and reads the whole answer.
async fn exchange(
    stream: TlsStream<TcpStream>,
    mut request: Request<BodyWrapper<Bytes>>,
    uri: &Uri,
) -> io::Result<Response<Full<Bytes>>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    if let Some(host) = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    *request.uri_mut() =
        uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(io::Error::other)?;
    let answer = async {
        let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(parts, Full::new(body.to_bytes())))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection ended first: the answer is there, or never comes.
        ended = connection => {
            ended.map_err(io::Error::other)?;
            answer.await
        }
    }
}

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = client.ask(request).await.map_err(|error| Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(answer))
        })
    }
}
