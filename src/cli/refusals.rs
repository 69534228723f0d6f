//! `hallpass refusals`: who was refused lately, and why.

use std::process::ExitCode;

use serde_json::Value;

use super::args::RefusalsArgs;
use super::running::{self, Failed};
use super::{output, table};
use crate::base::text::{counted, duration, or_dash};
use crate::system::clock;
use crate::top::refusals::Refusal;

/// A selection by host may hide what the reader looks for.
const OF_NO_HOST: &str = "\
without those whose password fits no secret: their host is not known
  next step: hallpass refusals --reason wrong_password, and --reason expired_name
";

/// Asks the running server and prints the last refusals.
pub(super) fn run(args: &RefusalsArgs) -> ExitCode {
    let query = [("host", &args.host), ("user", &args.user), ("reason", &args.reason)];
    let page = match running::ask(&args.server, "/refusals", &query) {
        Ok(page) => page,
        Err(Failed { message, next_step }) => return output::fail(&message, &next_step),
    };
    let is_whole = query.iter().all(|(_, selected)| selected.is_none());
    let text = match (args.server.json, &args.host) {
        (true, _) => output::json(&page),
        (false, None) => text(&page, is_whole, clock::unix_seconds()),
        (false, Some(_)) => text(&page, is_whole, clock::unix_seconds()) + OF_NO_HOST,
    };
    output::print_fitting(&text)
}

/// Returns the refusals as a table, each with its reason and the next step.
///
/// `is_whole`: nothing was selected.
fn text(page: &Value, is_whole: bool, now: u64) -> String {
    let refusals = Refusal::all_of(page);
    let held = page["held"].as_u64().unwrap_or(refusals.len() as u64);
    if refusals.is_empty() {
        return match held {
            0 => "no refusals\n".to_owned(),
            held => format!("none of the {} is selected\n", counted(held as usize, "refusal")),
        };
    }
    let header = ["AGO", "HOST", "USER", "VIA", "CLIENT", "REQUEST", "REASON"];
    let rows: Vec<Vec<String>> = refusals.iter().map(|refusal| row(refusal, now)).collect();
    let mut table = table::align(&header, &rows).into_iter();
    let mut lines: Vec<String> = table.next().into_iter().collect();
    for (refusal, line) in refusals.iter().zip(table) {
        lines.push(line);
        lines.push(format!("  {}", refusal.text));
        lines.push(format!("  next step: {}", refusal.next_step));
    }
    // Who selects wants an answer; who lists all may take the list for complete.
    if is_whole {
        let listed = counted(refusals.len(), "refusal");
        lines.push(format!(
            "{listed}; of a flood only a part is listed, and all are counted: hallpass top --once"
        ));
    }
    lines.join("\n") + "\n"
}

fn row(refusal: &Refusal, now: u64) -> Vec<String> {
    let reason = match refusal.code {
        0 => or_dash(&refusal.reason),
        code => format!("{} ({code})", or_dash(&refusal.reason)),
    };
    let ago = duration(now.saturating_sub(refusal.time));
    let [host, user, transport, client, request] =
        [&refusal.host, &refusal.user, &refusal.transport, &refusal.client, &refusal.request]
            .map(|text| or_dash(text));
    vec![ago, host, user, transport, client, request, reason]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_refusal_is_a_line_with_its_reason_and_the_next_step() {
        let refusal = json!({
            "time": 1000, "host": "", "user": "w\u{1b}_ann", "transport": "udp", "client": "192.0.2.1:5", "request": "allocate",
            "reason": "wrong_password", "code": 401, "text": "the password fits none of the 2 secrets",
            "next_step": "compare the secrets",
        });
        let expected = "\
AGO    HOST  USER    VIA  CLIENT       REQUEST   REASON
1m 5s  -     w?_ann  udp  192.0.2.1:5  allocate  wrong_password (401)
  the password fits none of the 2 secrets
  next step: compare the secrets
";
        assert_eq!(text(&json!({ "refusals": [&refusal], "held": 12 }), false, 1065), expected);
        let all = text(&json!({ "refusals": [refusal], "held": 1 }), true, 1065);
        let count = "1 refusal; of a flood only a part is listed, and all are counted: hallpass top --once\n";
        assert_eq!(all.strip_prefix(expected), Some(count));
        assert_eq!(text(&json!({ "refusals": [] }), true, 0), "no refusals\n");
        let page = json!({ "refusals": [], "held": 12 });
        assert_eq!(text(&page, false, 0), "none of the 12 refusals is selected\n");
    }
}
