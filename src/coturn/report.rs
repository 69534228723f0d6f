//! The report: what becomes of every line and argument, what differs without a line for it, and why an import is refused.

use std::fmt::Write;

use serde_json::json;

use super::syntax::Place;
use crate::base::text::clean;

/// What a comment is called.
pub const COMMENT: &str = "a comment";
/// What a line is called that has nothing but blanks.
pub const BLANK: &str = "blank";
/// Longest name of a file in the report.
const FILE_CHARS: usize = 200;

/// What becomes of a line or an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The same here.
    Kept,
    /// Taken, with another meaning.
    KeptDifferently,
    /// Nothing changes without it.
    WithoutEffect,
    /// Hallpass does not have this.
    NotOffered,
    /// Not taken.
    Refused,
}

impl Status {
    /// Every status, from harmless to harmful.
    pub const ALL: [Status; 5] =
        [Self::Kept, Self::KeptDifferently, Self::WithoutEffect, Self::NotOffered, Self::Refused];

    /// The words in the report.
    pub fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::KeptDifferently => "kept differently",
            Self::WithoutEffect => "without effect here",
            Self::NotOffered => "not offered",
            Self::Refused => "refused",
        }
    }
}

/// One line or argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it is.
    pub place: Place,
    /// The option with its value; without the value if that may be a secret. Empty for blank lines, comments and texts that
    /// are not options.
    pub option: String,
    /// What becomes of it.
    pub status: Status,
    /// Why. Never contains a secret.
    pub reason: String,
    /// What to write or do, where something is to do.
    pub remedy: Option<String>,
}

impl Line {
    /// Whether it is a comment or a blank line.
    fn is_empty(&self) -> bool {
        matches!(self.reason.as_str(), COMMENT | BLANK)
            && self.option.is_empty()
            && self.place.arguments.is_none()
    }
}

/// A message without a line: a difference of defaults, or a reason for which the import is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What differs, or what is wrong. Never contains a secret.
    pub message: String,
    /// What to write or do.
    pub remedy: String,
}

/// The report of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The name of the file, if there is one.
    pub file: Option<String>,
    /// Every line and argument, in their order.
    pub lines: Vec<Line>,
    /// Differences without a line.
    pub notes: Vec<Note>,
    /// Why nothing is imported; empty if the import is good.
    pub refusals: Vec<Note>,
}

impl Report {
    /// Whether nothing is imported.
    pub fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// The number of lines and arguments with this status.
    pub fn count(&self, status: Status) -> usize {
        self.lines.iter().filter(|line| line.status == status).count()
    }

    /// What an operator must know about a running import, as text: lines that change their meaning or need something to be
    /// done, and the notes.
    pub fn differences(&self) -> String {
        let matters = |line: &&Line| {
            line.remedy.is_some() || !matches!(line.status, Status::Kept | Status::WithoutEffect)
        };
        let lines = self.lines.iter().filter(matters).cloned().collect();
        Self { lines, ..self.clone() }.body()
    }

    /// The report as text: one line for each line of the input and an indented one for a remedy, then the notes and reasons.
    pub fn text(&self) -> String {
        format!("{}{}: {}\n", self.body(), self.shown_file(), self.summary())
    }

    /// Like [`Report::text`], but comments and blank lines that follow each other are one line with the numbers of the first and
    /// the last.
    pub fn folded(&self) -> String {
        let runs = self.lines.chunk_by(|one, next| one.is_empty() && next.is_empty());
        let body: String = runs.map(|run| self.run(run)).collect();
        format!("{body}{}{}: {}\n", self.messages(), self.shown_file(), self.summary())
    }

    /// Comments and blank lines as one line, or other lines each.
    fn run(&self, lines: &[Line]) -> String {
        match lines {
            [first, .., last] if first.is_empty() => {
                let number = |line: &Line| line.place.line.unwrap_or_default();
                let words = Status::WithoutEffect.words();
                format!(
                    "{}: lines {}-{}: {words}: comments and blanks\n",
                    self.shown_file(),
                    number(first),
                    number(last)
                )
            }
            lines => Self { lines: lines.to_vec(), file: self.file.clone(), ..Self::default() }.body(),
        }
    }

    fn shown_file(&self) -> String {
        clean(self.file.as_deref().unwrap_or("command line"), FILE_CHARS)
    }

    /// The lines, the notes and the reasons.
    fn body(&self) -> String {
        let file = self.shown_file();
        let mut text = String::new();
        for Line { place, option, status, reason, remedy } in &self.lines {
            let place = shown(*place, self.file.is_some().then_some(file.as_str()));
            let option = if option.is_empty() { String::new() } else { format!("{option}: ") };
            let _ = writeln!(text, "{place}: {}: {option}{reason}", status.words());
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "    {remedy}");
            }
        }
        text + &self.messages()
    }

    /// The notes and the reasons.
    fn messages(&self) -> String {
        let file = self.shown_file();
        let mut text = String::new();
        for (kind, notes) in [("note", &self.notes), ("refused", &self.refusals)] {
            for Note { message, remedy } in notes {
                let _ = writeln!(text, "{file}: {kind}: {message}\n    {remedy}");
            }
        }
        text
    }

    /// The numbers of lines with each status, in words.
    fn summary(&self) -> String {
        let with = |status: &Status| match self.count(*status) {
            0 => None,
            count => Some(format!("{count} {}", status.words())),
        };
        let counts: Vec<String> = Status::ALL.iter().filter_map(with).collect();
        let verdict = if self.is_refused() { "; nothing is imported" } else { "" };
        format!("{} lines and arguments: {}{verdict}", self.lines.len(), counts.join(", "))
    }

    /// The report as JSON.
    pub fn json(&self) -> String {
        let lines: Vec<serde_json::Value> = self.lines.iter().map(json_line).collect();
        let note = |note: &Note| json!({ "message": note.message, "remedy": note.remedy });
        let counts: serde_json::Map<String, serde_json::Value> = Status::ALL
            .iter()
            .map(|status| (status.words().replace(' ', "_"), self.count(*status).into()))
            .collect();
        let report = json!({
            "file": self.file,
            "imported": !self.is_refused(),
            "lines": lines,
            "notes": self.notes.iter().map(note).collect::<Vec<_>>(),
            "refusals": self.refusals.iter().map(note).collect::<Vec<_>>(),
            "counts": counts,
        });
        format!("{report:#}\n")
    }
}

fn json_line(line: &Line) -> serde_json::Value {
    json!({
        "line": line.place.line,
        "arguments": line.place.arguments.map(|(first, last)| [first, last]),
        "option": line.option,
        "status": line.status.words(),
        "reason": line.reason,
        "remedy": line.remedy,
    })
}

/// A place in words, such as `turnserver.conf:3` or `arguments 3-4`.
fn shown(place: Place, file: Option<&str>) -> String {
    let line = match (file, place.line) {
        (Some(file), Some(line)) => Some(format!("{file}:{line}")),
        (_, Some(line)) => Some(format!("line {line}")),
        (_, None) => None,
    };
    let arguments = place.arguments.map(|(first, last)| match first == last {
        true => format!("argument {first}"),
        false => format!("arguments {first}-{last}"),
    });
    [line, arguments].into_iter().flatten().collect::<Vec<_>>().join(": ")
}
