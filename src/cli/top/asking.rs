//! Asks the admin address for everything that the screen needs.

use serde_json::Value;

use crate::cli::running::{Failed, Target};
use crate::top::state::{Answers, Wanted};

/// Asks for the metrics, and for the pages that are wanted.
///
/// # Errors
/// The server does not answer, or has no such page.
pub async fn ask(server: &Target, wanted: Wanted) -> Result<Answers, Failed> {
    let metrics = server.page("/metrics").await?;
    let mut answers =
        Answers { metrics: String::from_utf8_lossy(&metrics).into_owned(), ..Answers::default() };
    if answers.metrics.contains("\nhallpass_build_info{")
        || answers.metrics.starts_with("hallpass_build_info{")
    {
        answers.overview = json(server, "/overview").await?;
    }
    if wanted.sessions {
        answers.sessions = Some(json(server, "/sessions").await?);
    }
    if wanted.refusals {
        answers.refusals = Some(json(server, "/refusals").await?);
    }
    Ok(answers)
}

async fn json(server: &Target, path: &str) -> Result<Value, Failed> {
    let page = server.page(path).await?;
    serde_json::from_slice(&page).map_err(|error| server.failed(&format!("{path}: {error}")))
}
