//! Output and failures of commands.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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

/// Whether standard output was closed at the start. Then std writes to /dev/null.
static IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Sets whether standard output was closed at the start.
pub fn set_closed(is_closed: bool) {
    IS_CLOSED.store(is_closed, Relaxed);
}

/// Writes to standard output. A pipe that its reader has closed (`| head`) is not a failure; a closed standard output is one.
pub fn print(bytes: &[u8]) -> ExitCode {
    if IS_CLOSED.load(Relaxed) {
        return fail(
            "standard output is closed, so the result is lost",
            "redirect standard output to a file, or to /dev/null",
        );
    }
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

/// Writes to standard output, for the server: a closed one does not stop it, and the log says the same.
pub fn print_if_open(bytes: &[u8]) {
    if !IS_CLOSED.load(Relaxed) {
        let _ = print(bytes);
    }
}

/// Writes text to standard output. On a terminal, sentences under a table do not break in the middle of a word.
pub fn print_fitting(text: &str) -> ExitCode {
    match width(&io::stdout()) {
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

/// Writes lines to standard error, wrapped at the width of the terminal.
pub fn print_stderr_fitting(text: &str) {
    print_stderr(&width(&io::stderr()).map_or_else(|| text.to_owned(), |columns| hanging(text, columns, 0)));
}

/// Writes lines with a column of names to standard output, wrapped at the width of the terminal. `column`: where the texts begin.
pub fn print_hanging(text: &str, column: usize) -> ExitCode {
    let text = width(&io::stdout()).map_or_else(|| text.to_owned(), |columns| hanging(text, columns, column));
    print(text.as_bytes())
}

/// Wraps lines that are too long. What follows is indented like the line; in a line that begins at the left, to `column`.
fn hanging(text: &str, columns: usize, column: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let own = line.len() - line.trim_start_matches(' ').len();
        let indent = " ".repeat(own.max(column));
        // A name with its blanks stays as it is.
        let parts =
            line.split_at_checked(indent.len()).filter(|(name, _)| name.is_empty() || name.ends_with(' '));
        match parts.filter(|_| line.chars().count() > columns) {
            Some((name, rest)) => out.push_str(&wrap(rest, &indent, columns).replacen(&indent, name, 1)),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// Returns the width if this is a terminal, unless it is too narrow for sentences.
fn width(stream: &impl IsTerminal) -> Option<usize> {
    let size = if stream.is_terminal() { size().ok() } else { None };
    size.map(|(columns, _)| usize::from(columns)).filter(|columns| *columns >= WIDTH_MIN)
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
    fn lines_with_a_name_are_wrapped_below_their_text() {
        let text = "listen    udp: clients write turn:relay\n          one user: 500 allocations\nf: good, with 2 warnings\n";
        let expected = "listen    udp: clients\n          write\n          turn:relay\n          one user: 500\n          allocations\n\
                        f: good, with 2 warnings\n";
        assert_eq!(hanging(text, 24, 10), expected);
        let problem = "f:3: error: realm: is empty\n    write a name\n";
        assert_eq!(hanging(problem, 14, 0), "f:3: error:\nrealm: is\nempty\n    write a\n    name\n");
        assert_eq!(hanging("é é é é é é é\n", 7, 0), "é é é é\né é é\n");
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
