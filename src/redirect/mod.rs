//! Plain HTTP on port 80: sends browsers to https, and shows the authority of certificates the files of HTTP-01.
//!
//! Everything runs on the control thread. Nothing of a request is stored, and nobody is sent to a name that is not the server's own.
#![forbid(unsafe_code)]

mod answer;
mod places;

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

pub use answer::Rules;
use places::Places;

/// Most bytes and fields in the head of a request. Browsers send less than 4 KB.
const HEAD_MAX: usize = 8 << 10;
const FIELDS_MAX: usize = 64;
/// Time for the head of the request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Time for a whole connection, which carries one request.
const TIME: Duration = Duration::from_secs(10);
/// The pause after a failed accept, which fails again at once without descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the listener on the current runtime. `rules` is read for each request. Aborting the task closes the listener; open
/// connections end by themselves.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub fn serve(listener: StdListener, rules: Arc<dyn Rules>) -> std::io::Result<AbortHandle> {
    let listener = TcpListener::from_std(listener)?;
    let places = Places::default();
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, client)) = listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            // Without a place the connection is closed.
            if let Some(place) = places.enter(client.ip()) {
                let rules = Arc::clone(&rules);
                tokio::spawn(async move {
                    // An error concerns this client only.
                    let _ = timeout(TIME, connection(stream, rules)).await;
                    drop(place);
                });
            }
        }
    });
    Ok(task.abort_handle())
}

async fn connection(stream: TcpStream, rules: Arc<dyn Rules>) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let answer = answer::to(&request, &*rules);
        async { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .max_headers(FIELDS_MAX)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
