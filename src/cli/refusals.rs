//! `hallpass refusals`: who was refused lately, and why.

use std::process::ExitCode;

use serde_json::Value;

use super::args::RefusalsArgs;
use super::running::{self, Failed};
use super::{output, table};
use crate::base::text::duration;
use crate::system::clock;

/// Asks the running server and prints the last refusals.
pub(super) fn run(args: &RefusalsArgs) -> ExitCode {
    let query = [("host", &args.host), ("user", &args.user), ("reason", &args.reason)];
    let page = match running::ask(&args.server, "/refusals", &query) {
        Ok(page) => page,
        Err(Failed { message, next_step }) => return output::fail(&message, &next_step),
    };
    let text = if args.server.json { format!("{page:#}\n") } else { text(&page, clock::unix_seconds()) };
    output::print(text.as_bytes())
}

/// Returns the refusals as a table, each with its reason and the next step.
fn text(page: &Value, now: u64) -> String {
    let refusals = running::list(&page["refusals"]);
    if refusals.is_empty() {
        return "no refusals\n".to_owned();
    }
    let header = ["AGO", "HOST", "USER", "VIA", "CLIENT", "REQUEST", "REASON"];
    let rows: Vec<Vec<String>> = refusals.iter().map(|refusal| row(refusal, now)).collect();
    let mut table = table::align(&header, &rows).into_iter();
    let mut lines: Vec<String> = table.next().into_iter().collect();
    for (refusal, line) in refusals.iter().zip(table) {
        lines.push(line);
        let text = |key: &str| refusal[key].as_str().unwrap_or_default().to_owned();
        lines.push(format!("  {}", text("text")));
        lines.push(format!("  next step: {}", text("next_step")));
    }
    lines.join("\n") + "\n"
}

fn row(refusal: &Value, now: u64) -> Vec<String> {
    let text = |key: &str| match refusal[key].as_str() {
        None | Some("") => "-".to_owned(),
        Some(text) => text.to_owned(),
    };
    let ago = duration(now.saturating_sub(refusal["time"].as_u64().unwrap_or(now)));
    let reason = match refusal["code"].as_u64() {
        Some(code) => format!("{} ({code})", text("reason")),
        None => text("reason"),
    };
    vec![ago, text("host"), text("user"), text("transport"), text("client"), text("request"), reason]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_a_line_with_its_reason_and_the_next_step() {
        let refusal = json!({
            "time": 1000, "host": "", "user": "w_ann", "transport": "udp", "client": "192.0.2.1:5", "request": "allocate",
            "reason": "wrong_password", "code": 401, "text": "the password fits none of the 2 secrets",
            "next_step": "compare the secrets",
        });
        let expected = "\
AGO    HOST  USER   VIA  CLIENT       REQUEST   REASON
1m 5s  -     w_ann  udp  192.0.2.1:5  allocate  wrong_password (401)
  the password fits none of the 2 secrets
  next step: compare the secrets
";
        assert_eq!(text(&json!({ "refusals": [refusal] }), 1065), expected);
        assert_eq!(text(&json!({ "refusals": [] }), 0), "no refusals\n");
    }
}
