//! `hallpass drain`: refuses new users and shows who is left, until nobody is.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::args::DrainArgs;
use super::control::Control;
use super::output::{self, counted};
use super::running::{self, Failed};
use super::table;
use crate::base::text::{clean, duration, or_dash};

/// Interval of the questions to the server.
const INTERVAL: Duration = Duration::from_secs(1);
/// With so many seconds left at the last answer, a limit that is gone now has passed.
const LAST_SECONDS: u64 = 2;
/// Questions from one line to the next if the output is not a terminal.
const LINE_EVERY: u64 = 10;
/// Characters of a name that are shown.
const NAME_MAX: usize = 64;
/// Users shown by name on a terminal.
const SHOWN_USERS: usize = 10;

/// Begins or cancels a drain, and waits for its end.
pub(super) fn run(args: &DrainArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start: {error}"), "close some programs"),
    };
    match runtime.block_on(drain(args)) {
        Ok(code) => code,
        Err(Failed { message, next_step }) => output::fail(&message, &next_step),
    }
}

async fn drain(args: &DrainArgs) -> Result<ExitCode, Failed> {
    let control = Control::of(&args.server)?;
    if args.cancel {
        let state = control.order(Method::DELETE, "/drain", "").await?;
        return Ok(say(args, &state, "the server takes new users"));
    }
    let body = args.limit.map_or_else(String::new, |limit| json!({ "seconds": limit.as_secs() }).to_string());
    let state = control.order(Method::POST, "/drain", &body).await?;
    if args.no_wait {
        return Ok(say(args, &state, &text(&state, SHOWN_USERS).join("\n")));
    }
    watch(args, &control, state).await
}

/// Prints the state as JSON, or else this text.
fn say(args: &DrainArgs, state: &Value, text: &str) -> ExitCode {
    let text = if args.server.json { state.to_string() } else { text.to_owned() };
    output::print((text + "\n").as_bytes())
}

/// Shows who is left until nobody is, the drain is cancelled, or Ctrl-C is pressed.
async fn watch(args: &DrainArgs, control: &Control, mut state: Value) -> Result<ExitCode, Failed> {
    let mut screen = Screen::new(!args.server.json && io::stdout().is_terminal());
    let (mut left, mut ended) = (None, 0);
    for round in 0.. {
        if state["draining"] != Value::Bool(true) {
            screen.clear();
            let step = "if that was a mistake, run it again";
            return Ok(output::fail("the drain was cancelled: the server takes new users", step));
        }
        // Once the time is over, the server ends what is left. Another order may also take the limit away.
        let now_left = state["seconds_left"].as_u64();
        let is_late = now_left.is_none() && left.is_some_and(|left| left <= LAST_SECONDS);
        left = now_left.or(left.filter(|_| is_late));
        if is_over(&state) {
            screen.clear();
            return Ok(say(args, &state, &result(&state, if is_late { ended } else { 0 })));
        }
        ended = if is_late { ended } else { number(&state, "allocations") };
        if screen.is_terminal {
            screen.show(&text(&state, SHOWN_USERS));
        } else if round % LINE_EVERY == 0 {
            say(args, &state, &text(&state, 0).join(""));
        }
        let wait = async {
            tokio::time::sleep(INTERVAL).await;
            control.order(Method::GET, "/drain", "").await
        };
        state = tokio::select! {
            state = wait => state?,
            _ = tokio::signal::ctrl_c() => {
                let step = "hallpass drain shows it again, hallpass drain --cancel ends it";
                return Ok(output::fail("the drain goes on", step));
            }
        };
    }
    Ok(ExitCode::SUCCESS)
}

fn number(state: &Value, key: &str) -> u64 {
    state[key].as_u64().unwrap_or(0)
}

/// Returns whether nobody holds up the drain.
fn is_over(state: &Value) -> bool {
    state["complete"] == Value::Bool(true) && number(state, "allocations") == 0
}

/// Returns the last line. `ended` is the number of allocations that the server has ended.
fn result(state: &Value, ended: u64) -> String {
    let silent = number(state, "silent_allocations");
    let mut text = match ended {
        0 => "nobody is left".to_owned(),
        ended => format!("the time is over: the last {} ended", counted(ended as usize, "allocation")),
    };
    if silent > 0 {
        text += &format!("; {} silent for five minutes", counted(silent as usize, "allocation"));
    }
    text + "; the server refuses new users until hallpass drain --cancel or a restart"
}

/// Returns a line with the state, and lines with the first users that are left.
fn text(state: &Value, users: usize) -> Vec<String> {
    let [people, allocations] = ["users", "allocations"].map(|key| number(state, key));
    let mut line = format!(
        "draining: {} with {} left",
        counted(people as usize, "user"),
        counted(allocations as usize, "allocation")
    );
    if let Some(seconds) = state["seconds_left"].as_u64() {
        line += &format!(", for {} at most", duration(seconds));
    }
    if state["complete"] == Value::Bool(false) {
        line += ", and those of a worker that did not answer";
    }
    let left = running::list(&state["left"]);
    let rows: Vec<Vec<String>> = left.iter().take(users).map(row).collect();
    let mut lines = vec![line];
    if !rows.is_empty() {
        lines.extend(table::align(&["HOST", "USER", "VIA", "ALLOCATIONS", "LAST HEARD"], &rows));
    }
    let others = (people as usize).saturating_sub(users);
    if users > 0 && others > 0 {
        lines.push(format!("and {others} more"));
    }
    lines
}

fn row(user: &Value) -> Vec<String> {
    let text = |key: &str| or_dash(&clean(user[key].as_str().unwrap_or_default(), NAME_MAX));
    let via = running::list(&user["transports"]).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let idle = duration(number(user, "idle_seconds")) + " ago";
    let (held, silent) = (number(user, "allocations"), number(user, "silent_allocations"));
    let held = if held == 0 { format!("{silent} silent") } else { held.to_string() };
    vec![text("host"), text("user"), via.join(" "), held, idle]
}

/// Lines on a terminal that are overwritten with each update.
struct Screen {
    is_terminal: bool,
    lines: usize,
}

impl Screen {
    fn new(is_terminal: bool) -> Self {
        Self { is_terminal, lines: 0 }
    }

    fn show(&mut self, lines: &[String]) {
        self.clear();
        output::print((lines.join("\n") + "\n").as_bytes());
        self.lines = lines.len();
    }

    /// Removes the lines.
    fn clear(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines > 0 {
            // To the first line, and clear all below.
            output::print(format!("\x1b[{lines}A\x1b[J").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(allocations: u64, silent: u64) -> Value {
        json!({
            "draining": true, "seconds_left": 2690, "complete": true, "users": 2, "allocations": allocations,
            "silent_allocations": silent,
            "left": [
                { "host": "ping", "user": "w_ann", "transports": ["udp", "tls"], "allocations": 4,
                  "silent_allocations": 0, "idle_seconds": 0 },
                { "host": "ping", "user": "w_bob", "transports": ["tcp"], "allocations": 1, "silent_allocations": 0,
                  "idle_seconds": 65 },
            ],
        })
    }

    #[test]
    fn a_line_and_a_table_show_who_is_left() {
        let lines = text(&state(5, 0), 1);
        assert_eq!(
            lines,
            [
                "draining: 2 users with 5 allocations left, for 44m 50s at most",
                "HOST  USER   VIA      ALLOCATIONS  LAST HEARD",
                "ping  w_ann  udp tls  4            0s ago",
                "and 1 more",
            ]
        );
        assert_eq!(text(&state(5, 0), 0).len(), 1);
        assert!(!is_over(&state(1, 0)) && is_over(&state(0, 3)));
        let incomplete = json!({ "complete": false, "allocations": 0 });
        assert!(!is_over(&incomplete), "a worker did not answer");
    }

    #[test]
    fn the_result_says_who_was_cut_off() {
        let said = result(&state(0, 0), 0);
        assert!(said.starts_with("nobody is left; the server refuses new users until"), "{said}");
        let said = result(&state(0, 2), 1);
        assert!(
            said.starts_with("the time is over: the last 1 allocation ended; 2 allocations silent"),
            "{said}"
        );
    }
}
