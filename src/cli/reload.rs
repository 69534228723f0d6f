//! `hallpass reload`: applies a changed configuration to the running server.

use std::process::ExitCode;

use hyper::{Method, StatusCode};
use serde_json::Value;

use super::args::ReloadArgs;
use super::control::Control;
use super::output;
use super::running::{self, Failed};

/// Orders the reload, waits for its end and prints what changed.
pub(super) fn run(args: &ReloadArgs) -> ExitCode {
    match reload(args) {
        Ok((StatusCode::OK, answer)) => output::print(shown(args, &answer).as_bytes()),
        Ok((_, answer)) => {
            output::print(shown(args, &answer).as_bytes());
            ExitCode::from(output::FAILURE)
        }
        Err(Failed { message, next_step }) => output::fail(&message, &next_step),
    }
}

fn reload(args: &ReloadArgs) -> Result<(StatusCode, Value), Failed> {
    let control = Control::of(&args.server)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed {
        message: format!("cannot start: {error}"),
        next_step: "close some programs".to_owned(),
    })?;
    match runtime.block_on(control.ask(Method::POST, "/reload", ""))? {
        answer @ (StatusCode::OK | StatusCode::CONFLICT, _) => Ok(answer),
        (status, answer) => Err(Failed {
            message: format!("the server answers {status}: {answer}"),
            next_step: "see its log: journalctl -u hallpass".to_owned(),
        }),
    }
}

fn shown(args: &ReloadArgs, answer: &Value) -> String {
    if args.server.json { format!("{answer:#}\n") } else { text(answer) }
}

/// Returns the changes, the problems and the result, each on a line.
fn text(answer: &Value) -> String {
    let lines = ["warnings", "changes", "problems"].into_iter().flat_map(|list| running::list(&answer[list]));
    let mut text: Vec<&str> = lines.filter_map(Value::as_str).collect();
    text.extend(answer["result"].as_str());
    text.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_result_comes_last() {
        let answer =
            json!({ "changes": ["a: changed"], "problems": ["b: wrong"], "result": "nothing is applied" });
        assert_eq!(text(&answer), "a: changed\nb: wrong\nnothing is applied\n");
    }
}
