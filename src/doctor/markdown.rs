//! The report as Markdown, for tickets.

use std::fmt::Write;
use std::time::Duration;

use super::letter::{heading, letter};
use super::problem::problem;
use super::report::Report;
use super::stage::Stage;
use super::text::{date_and_time, millis};

/// Returns the report as Markdown.
pub fn markdown(report: &Report) -> String {
    let diagnosis = &report.diagnosis;
    let title = match (&report.relay, diagnosis.works) {
        (None, true) => "Calls will work from this computer",
        (None, false) => "Calls will not work from this computer",
        (Some(_), true) => "The relay works",
        (Some(_), false) => "The relay does not serve all clients",
    };
    let mut out = format!("# {title}\n\n");
    for finding in &diagnosis.findings {
        let _ = match &finding.remedy {
            None => writeln!(out, "{}\n", escaped(&finding.text)),
            Some(remedy) => writeln!(
                out,
                "**{}** ({}): {}.  \n{}\n",
                finding.severity.name(),
                finding.code,
                escaped(&finding.text),
                escaped(remedy)
            ),
        };
    }
    if let Some(relay) = &report.relay {
        out.push_str("| | subject | seen |\n|---|---|---|\n");
        for check in &relay.checks {
            let facts = escaped(&check.facts.join("; "));
            let _ = writeln!(out, "| {} | {} | {facts} |", check.mark(), check.topic);
        }
        if !report.outcomes.is_empty() {
            out.push('\n');
        }
    }
    if report.relay.is_none() || !report.outcomes.is_empty() {
        rungs(report, &mut out);
    }
    let _ = writeln!(
        out,
        "\nTested by hallpass doctor {} at {}.",
        env!("CARGO_PKG_VERSION"),
        date_and_time(report.begun)
    );
    if let (Some(addressee), Some(letter)) = (diagnosis.addressee, letter(report)) {
        // Four backticks, which no text from the network can end: it contains no line breaks.
        let _ = write!(out, "\n## {}\n\n````text\n{letter}````\n", heading(addressee));
    }
    out
}

fn rungs(report: &Report, out: &mut String) {
    out.push_str("| | rung | way | address | reached | problem | connect | TLS | STUN | relay | loss |\n");
    out.push_str("|---|---|---|---|---|---|--:|--:|--:|--:|--:|\n");
    for outcome in &report.outcomes {
        let time =
            |time: Option<Duration>| time.map_or_else(String::new, |time| format!("{} ms", millis(time)));
        let exchange = outcome.exchange.as_ref();
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            if outcome.works() { "ok" } else { "no" },
            outcome.rung,
            outcome.route.name(),
            outcome.address.map_or_else(|| escaped(&outcome.rung.host), |address| address.ip().to_string()),
            outcome.reached.map_or("nothing", Stage::name),
            problem(outcome).map(|problem| escaped(&problem)).unwrap_or_default(),
            time(outcome.times.connect),
            time(outcome.times.handshake),
            time(outcome.times.round_trip),
            time(exchange.and_then(|exchange| exchange.trip).map(|[_, median, _]| median)),
            exchange.map_or_else(String::new, |exchange| format!("{:.0} %", exchange.loss() * 100.0)),
        );
    }
}

/// Escapes what Markdown would take for markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '&') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_of_others_is_text() {
        assert_eq!(escaped("a|b <img> `x`"), "a\\|b \\<img\\> \\`x\\`");
    }
}
