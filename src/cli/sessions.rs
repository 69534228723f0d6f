//! `hallpass sessions`: who is connected.

use std::process::ExitCode;

use serde_json::Value;

use super::args::SessionsArgs;
use super::running::{self, Failed};
use super::{output, table};
use crate::base::text::{bytes, counted, duration, or_dash};
use crate::base::time::Instant;
use crate::top::reading::Flow;
use crate::top::sessions::{Session, Sessions};

/// Asks the running server and prints its sessions.
pub(super) fn run(args: &SessionsArgs) -> ExitCode {
    let page = match running::ask(&args.server, "/sessions", &[("host", &args.host), ("user", &args.user)]) {
        Ok(page) => page,
        Err(Failed { message, next_step }) => return output::fail(&message, &next_step),
    };
    let text = if args.server.json { output::json(&page) } else { text(&page) };
    output::print_fitting(&text)
}

/// Returns the sessions as a table, each with its hints.
fn text(page: &Value) -> String {
    // Rates need two answers, and so the time between them; there is one.
    let Sessions { all, total, is_complete, .. } = Sessions::of(page, Instant::default(), None);
    let mut lines = Vec::new();
    if !all.is_empty() {
        let header = ["HOST", "USER", "VIA", "CLIENT", "FOR", "SENT", "RECEIVED", "PEERS"];
        let rows: Vec<Vec<String>> = all.iter().map(row).collect();
        let mut table = table::align(&header, &rows).into_iter();
        lines.extend(table.next());
        for (session, line) in all.iter().zip(table) {
            lines.push(line);
            lines.extend(session.hints.iter().chain(&session.notes).map(|hint| format!("  ^ {hint}")));
        }
    }
    let shown = all.len() as u64;
    lines.push(match (total, shown) {
        (0, _) => "no sessions".to_owned(),
        (total, shown) if total == shown => counted(all.len(), "session"),
        (total, shown) => format!("{shown} of {total} sessions"),
    });
    if !is_complete {
        lines.push(
            "a worker did not answer, so its sessions are missing; see the log of the server".to_owned(),
        );
    }
    lines.join("\n") + "\n"
}

fn row(session: &Session) -> Vec<String> {
    let traffic = |flow: Flow| format!("{} / {}", flow.packets, bytes(flow.bytes));
    let mut peers: Vec<&str> =
        session.relayed.iter().flat_map(|relay| &relay.peers).map(String::as_str).collect();
    peers.dedup();
    let more = peers.len().saturating_sub(2);
    peers.truncate(2);
    let mut peers = peers.join(" ");
    if more > 0 {
        peers += &format!(" and {more} more");
    }
    vec![
        or_dash(&session.host),
        or_dash(&session.user),
        or_dash(&session.transport),
        or_dash(&session.client),
        duration(session.seconds),
        traffic(session.from_client),
        traffic(session.from_peer),
        or_dash(&peers),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_is_a_line_with_its_hints_below() {
        let session = json!({
            "host": "ping", "user": "w_ann", "transport": "tls", "client": "192.0.2.1:5", "seconds": 65,
            "from_client": { "packets": 100, "bytes": 20_000 }, "from_peer": { "packets": 0, "bytes": 0 },
            "relayed": [{ "peers": ["198.51.100.1", "198.51.100.2", "198.51.100.3"] }],
            "hints": ["nothing comes back\u{9b}2J from the peers"],
            "notes": ["no peer yet"],
        });
        let page = json!({ "sessions": [session], "total": 3, "complete": false });
        let expected = "\
HOST  USER   VIA  CLIENT       FOR    SENT          RECEIVED  PEERS
ping  w_ann  tls  192.0.2.1:5  1m 5s  100 / 19 KiB  0 / 0 B   198.51.100.1 198.51.100.2 and 1 more
  ^ nothing comes back?2J from the peers
  ^ no peer yet
1 of 3 sessions
a worker did not answer, so its sessions are missing; see the log of the server
";
        assert_eq!(text(&page), expected);
        assert_eq!(text(&json!({ "sessions": [], "total": 0, "complete": true })), "no sessions\n");
    }
}
