//! Asks the admin address for everything that the screen needs.

use std::net::SocketAddr;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde_json::Value;

use crate::cli::running::{Failed, fetch};
use crate::top::state::{Answers, Wanted};

/// A running server.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// The server with this admin address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Asks for the metrics, and for the pages that are wanted.
    ///
    /// # Errors
    /// The server does not answer, or has no such page.
    pub async fn ask(&self, wanted: Wanted) -> Result<Answers, Failed> {
        let metrics = self.page("/metrics").await?;
        let mut answers =
            Answers { metrics: String::from_utf8_lossy(&metrics).into_owned(), ..Answers::default() };
        if answers.metrics.lines().any(|line| line == "hallpass_ready 0") {
            let (_, reason) = self.get("/readyz").await?;
            answers.unready = Some(String::from_utf8_lossy(&reason).into_owned());
        }
        if wanted.sessions {
            answers.sessions = Some(self.json("/sessions").await?);
        }
        if wanted.refusals {
            answers.refusals = Some(self.json("/refusals").await?);
        }
        Ok(answers)
    }

    async fn json(&self, path: &str) -> Result<Value, Failed> {
        let page = self.page(path).await?;
        serde_json::from_slice(&page)
            .map_err(|error| Failed::to_ask(self.address, &format!("{path}: {error}")))
    }

    async fn page(&self, path: &str) -> Result<Bytes, Failed> {
        match self.get(path).await? {
            (StatusCode::OK, page) => Ok(page),
            (StatusCode::NOT_FOUND, _) => Err(Failed::to_ask(
                self.address,
                &format!(
                    "it has no page {path}: its version is older than this program's, or it is another program"
                ),
            )),
            (status, page) => {
                let text = String::from_utf8_lossy(&page);
                Err(Failed::to_ask(self.address, &format!("it answers {status}: {}", text.trim_end())))
            }
        }
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), Failed> {
        fetch(self.address, path).await.map_err(|reason| Failed::to_ask(self.address, &reason))
    }
}
