//! The control socket: HTTP/1.1 on a Unix socket that only the user of the server and root may open. Its requests become
//! [`Order`]s for the event loop.
//!
//! | request | effect |
//! |---|---|
//! | `POST /reload` | applies the configuration file; 409 if nothing is applied |
//! | `GET /difference` | the file of the configuration, and what a reload would change |
//! | `GET /drain` | the state of the drain, and who is left |
//! | `POST /drain` | begins a drain, or changes its time limit; `{"seconds": 2700}`, default `limits.drain_seconds` |
//! | `DELETE /drain` | ends the drain |

mod caller;
mod socket;

use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::census::Census;
use super::client_names::ClientNames;
use super::compared::Compared;
use super::reload::Reloaded;
use crate::net::sessions::SessionReader;
use caller::Caller;
pub use socket::{ControlSocket, default_path};

/// Orders that may wait for the event loop. A full queue delays the requests.
const ORDERS: usize = 16;
/// The longest time limit of a drain, in seconds, as for `limits.drain_seconds`.
const DRAIN_SECONDS_MAX: u64 = 86_400;

/// An order for the event loop, with the way back.
pub enum Order {
    /// Begins a drain, or replaces the time limit of the running one.
    Drain {
        /// After this time the remaining sessions end; `None`: `limits.drain_seconds`.
        limit: Option<Duration>,
        /// Takes the new state.
        reply: oneshot::Sender<DrainView>,
    },
    /// Ends the drain.
    CancelDrain(oneshot::Sender<DrainView>),
    /// Applies the configuration file.
    Reload(oneshot::Sender<Reloaded>),
    /// Compares the configuration file with the configuration in use.
    Compare(oneshot::Sender<Compared>),
    /// Asks for the state of the drain.
    ShowDrain(oneshot::Sender<DrainView>),
}

/// An order, and who waits for the answer.
pub struct Asked {
    order: Order,
    caller: Caller,
}

impl Asked {
    /// Returns the order; `None` if its caller has given up. A server that did not answer in time, because it was stopped or busy,
    /// must not do later what nobody expects any more.
    pub fn still_wanted(self) -> Option<Order> {
        let Self { order, caller } = self;
        if caller.is_gone() {
            if !matches!(order, Order::Compare(_) | Order::ShowDrain(_)) {
                tracing::warn!(
                    "an order from the control socket is dropped: its sender did not wait for the answer"
                );
            }
            return None;
        }
        Some(order)
    }
}

/// The state of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// Whether one is running.
    pub is_draining: bool,
    /// Time until the remaining sessions end; `None` without a limit.
    pub left: Option<Duration>,
}

/// What the requests need.
#[derive(Clone)]
struct Control {
    orders: mpsc::Sender<Asked>,
    sessions: SessionReader,
    names: ClientNames,
}

/// Serves the control socket on the current runtime and returns the orders. Without a socket there are none.
pub fn serve(
    socket: Option<&ControlSocket>,
    sessions: SessionReader,
    names: ClientNames,
) -> mpsc::Receiver<Asked> {
    let (orders, received) = mpsc::channel(ORDERS);
    let Some(socket) = socket else { return received };
    let listener = socket.listener().and_then(tokio::net::UnixListener::from_std);
    match listener {
        Ok(listener) => {
            let router = router(Control { orders, sessions, names });
            tokio::spawn(async move {
                let service = router.into_make_service_with_connect_info::<Caller>();
                if let Err(error) = axum::serve(listener, service).await {
                    tracing::error!("the control socket is no longer served: {error}");
                }
            });
        }
        Err(error) => tracing::error!("the control socket is not served: {error}"),
    }
    received
}

fn router(control: Control) -> Router {
    let drain = get(show_drain).post(begin_drain).delete(cancel_drain);
    Router::new()
        .route("/reload", post(reload))
        .route("/difference", get(compare))
        .route("/drain", drain)
        .with_state(control)
}

async fn reload(State(control): State<Control>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    let (reply, reloaded) = oneshot::channel();
    let is_sent = control.send(Order::Reload(reply), caller).await;
    let (true, Ok(reloaded)) = (is_sent, reloaded.await) else { return stopping() };
    let status = if reloaded.is_applied { StatusCode::OK } else { StatusCode::CONFLICT };
    answer(status, &reloaded.to_json())
}

async fn compare(State(control): State<Control>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    let (reply, compared) = oneshot::channel();
    let is_sent = control.send(Order::Compare(reply), caller).await;
    let (true, Ok(compared)) = (is_sent, compared.await) else { return stopping() };
    answer(StatusCode::OK, &compared.to_json())
}

async fn show_drain(State(control): State<Control>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    control.state(Order::ShowDrain, caller).await
}

async fn cancel_drain(State(control): State<Control>, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    control.state(Order::CancelDrain, caller).await
}

async fn begin_drain(
    State(control): State<Control>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: String,
) -> Response {
    match drain_limit(&body) {
        Ok(limit) => control.state(|reply| Order::Drain { limit, reply }, caller).await,
        Err(message) => answer(StatusCode::BAD_REQUEST, &json!({ "error": message })),
    }
}

/// Reads the body of `POST /drain`; an empty one stands for the configured limit.
fn drain_limit(body: &str) -> Result<Option<Duration>, String> {
    if body.trim().is_empty() {
        return Ok(None);
    }
    let wanted = || format!("write {{\"seconds\": N}} with N from 1 to {DRAIN_SECONDS_MAX}, or no body");
    let body: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {}", wanted()))?;
    match body.get("seconds").map(Value::as_u64) {
        None if body.as_object().is_some_and(serde_json::Map::is_empty) => Ok(None),
        Some(Some(seconds @ 1..=DRAIN_SECONDS_MAX)) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(wanted()),
    }
}

impl Control {
    /// Returns whether the event loop takes orders.
    async fn send(&self, order: Order, caller: Caller) -> bool {
        self.orders.send(Asked { order, caller }).await.is_ok()
    }

    /// Gives an order and answers with the state of the drain and who is left.
    async fn state(
        self,
        order: impl FnOnce(oneshot::Sender<DrainView>) -> Order,
        caller: Caller,
    ) -> Response {
        let (reply, view) = oneshot::channel();
        let is_sent = self.send(order(reply), caller).await;
        let (true, Ok(DrainView { is_draining, left })) = (is_sent, view.await) else {
            return stopping();
        };
        // Reading the sessions blocks.
        let read = move || Census::take(&self.sessions, &self.names).to_json();
        let Ok(mut state) = tokio::task::spawn_blocking(read).await else { return stopping() };
        state["draining"] = json!(is_draining);
        state["seconds_left"] = json!(left.map(|left| left.as_secs()));
        answer(StatusCode::OK, &state)
    }
}

/// The answer when the event loop has ended, or has dropped the order.
fn stopping() -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "the server is stopping" }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_has_bounds() {
        let limit = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!((drain_limit(""), drain_limit("{}")), (Ok(None), Ok(None)));
        assert_eq!(drain_limit("{\"seconds\": 2700}"), limit(2700));
        for wrong in
            ["{\"seconds\": 0}", "{\"seconds\": 86401}", "{\"seconds\": \"9\"}", "{\"time\": 5}", "5", "{"]
        {
            assert!(drain_limit(wrong).is_err_and(|message| message.contains("86400")), "{wrong}");
        }
    }
}
