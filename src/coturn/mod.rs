//! Imports a configuration of coturn: `turnserver.conf` and arguments of turnserver become a configuration of Hallpass and a
//! report with every line and argument. Pure: no file is read or written.
//!
//! In the order of a configuration's way: `syntax` and `words` read bytes into items, `options` says what each option is,
//! `values` and `peers` read values, `translate` makes a meaning of them, `toml` writes it, and `report` says what
//! became of each item. What they imitate is coturn 4.6.1, of Debian 12, with its mistakes; where Hallpass does not copy
//! one, the report says so.
#![forbid(unsafe_code)]

mod input;
mod meaning;
mod options;
mod peers;
pub mod report;
pub mod syntax;
#[cfg(test)]
mod tests;
mod toml;
mod translate;
mod values;
pub mod words;
mod work;

use std::path::Path;

use crate::config;
pub use input::Input;
use report::{Note, Report};
use syntax::Item;
use words::Word;

/// The result of an import.
#[derive(Clone)]
pub struct Import {
    /// The configuration with its secrets; `None` if the import is refused.
    pub configuration: Option<Configuration>,
    /// What became of every line and argument.
    pub report: Report,
}

/// A configuration of Hallpass.
#[derive(Clone)]
pub struct Configuration {
    /// The text of the file. It contains secrets.
    pub toml: String,
}

/// Imports a configuration.
pub fn import(input: &Input<'_>) -> Import {
    let mut items = Vec::new();
    if let Some((_, file)) = input.file {
        items = read_file(file, input.arguments);
    }
    let arguments: Vec<Word> =
        input.arguments.iter().map(|text| Word { text: text.clone(), ..Word::default() }).collect();
    items.extend(words::read(&arguments));
    let file = input.file.map(|(name, _)| name.to_owned());
    let (meaning, mut report) = translate::translate(items, input);
    report.file = file;
    let source = report.file.clone().unwrap_or_else(|| "a command line".to_owned());
    let toml = toml::text(&meaning, &source);
    if toml.len() as u64 > config::FILE_BYTES_MAX {
        report.refusals.push(Note {
            message: format!("the result has {} bytes; a configuration may have 1 MiB", toml.len()),
            remedy: "import fewer users, addresses and ranges: a secret needs no users, and a prefix covers many addresses"
                .to_owned(),
        });
    } else if !report.is_refused()
        && let Err(problems) = config::parse(&toml, "hallpass.toml", Path::new(""))
    {
        report.refusals.extend(problems.problems.into_iter().map(|problem| Note {
            message: format!("the result has an error: {}: {}", problem.key, problem.message),
            remedy: problem.remedy,
        }));
    }
    let configuration = (!report.is_refused()).then_some(Configuration { toml });
    Import { configuration, report }
}

/// Reads the file: settings, or the command line in it. With `-n`, coturn does not read it.
fn read_file(file: &[u8], arguments: &[Vec<u8>]) -> Vec<Item> {
    let unread = words::file_argument(arguments) == words::FileArgument::None;
    let mut items = match words::of_file(file) {
        None => syntax::read(file),
        Some(words) => {
            let mut items = words::read(&words);
            // Lines on which no argument starts: comments, blank lines, and rests of arguments.
            let used: Vec<Option<usize>> = items.iter().map(|item| item.place.line).collect();
            let lines = file.split_inclusive(|&byte| byte == b'\n').count();
            items.extend((1..=lines).filter(|line| !used.contains(&Some(*line))).map(Item::without_argument));
            items.sort_by_key(|item| item.place.line);
            items
        }
    };
    if unread {
        items.iter_mut().for_each(Item::ignore);
    }
    items
}
