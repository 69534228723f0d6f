//! Output and failures of commands.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use ratatui::crossterm::terminal::size;
use serde_json::Value;

pub use crate::base::text::counted;
use crate::base::text::{is_hidden, wrap};

/// A narrower terminal shows no sentence well.
const WIDTH_MIN: usize = 40;
/// Exit status of a bad configuration, a difference or a failure. clap exits with 2 after wrong usage.
pub const FAILURE: u8 = 1;
/// Exit status of wrong usage, as clap has it.
pub const USAGE: u8 = 2;

/// Writes to standard output. A pipe that its reader has closed (`| head`) is not a failure.
pub fn print(bytes: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(
            &format!("cannot write to standard output: {error}"),
            "redirect standard output to another target",
        ),
    }
}

/// Writes text to standard output. On a terminal, sentences under a table do not break in the middle of a word.
pub fn print_fitting(text: &str) -> ExitCode {
    let columns = io::stdout().is_terminal().then(|| size().ok().map(|(columns, _)| usize::from(columns)));
    match columns.flatten().filter(|columns| *columns >= WIDTH_MIN) {
        Some(columns) => print(fitting(text, columns).as_bytes()),
        None => print(text.as_bytes()),
    }
}

/// Wraps the indented lines, which are sentences. Lines of tables stay as they are: their columns would not fit any more.
fn fitting(text: &str, columns: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = &line[..line.len() - line.trim_start_matches(' ').len()];
        if !indent.is_empty() && line.chars().count() > columns {
            out.push_str(&wrap(line, indent, columns));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Returns a document as JSON text. Characters that could control a terminal or hide text are escaped.
pub fn json(document: &Value) -> String {
    let mut text = String::new();
    for c in format!("{document:#}\n").chars() {
        match c {
            // Within a string it is escaped already.
            '\n' => text.push(c),
            c if is_hidden(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text
}

/// Writes to standard error. If that fails, there is nowhere left to report it.
pub fn print_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Prints what is wrong and the next step, and returns the exit status of a failure.
pub fn fail(message: &str, next_step: &str) -> ExitCode {
    print_stderr(&format!("hallpass: {message}\n    {next_step}\n"));
    ExitCode::from(FAILURE)
}

/// Returns the command line that checks the configuration at `path`.
pub fn check_line(path: &Path) -> String {
    format!("hallpass check --config {}", shell_word(&path.display().to_string()))
}

/// Quotes a word for a shell if necessary.
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:=+,@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_wrapped_and_tables_are_not() {
        let text = "AGO  USER  REASON AND MORE\n  the password does not fit\n  next step: compare\n";
        let expected = "AGO  USER  REASON AND MORE\n  the password does\n  not fit\n  next step: compare\n";
        assert_eq!(fitting(text, 20), expected);
    }

    #[test]
    fn json_reaches_a_terminal_without_characters_that_hide_text() {
        let document = serde_json::json!({ "user": "w\u{202e}_ann\u{9b}2J\n\u{feff}é" });
        let text = json(&document);
        assert_eq!(text, "{\n  \"user\": \"w\\u202e_ann\\u009b2J\\n\\ufeffé\"\n}\n");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
    }

    #[test]
    fn shell_words_survive_a_shell() {
        for text in ["plain", "", "it's", "a b", "$HOME `id` \"x\" \\", "*", "1764:w_é"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
