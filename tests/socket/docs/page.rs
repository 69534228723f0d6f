//! The commands in a page of the documentation, with the output that it shows.

use std::fs;
use std::path::Path;

/// A fenced block with commands.
pub struct Block {
    /// The page, relative to the root of the project, and the line of the first command.
    pub place: String,
    /// What the machine is like before the first command: the second word after the fence. See `settings`.
    pub setting: String,
    pub steps: Vec<Step>,
}

/// A command and the lines that the page shows below it; none if the page shows commands only.
pub struct Step {
    pub command: String,
    pub shown: Vec<String>,
}

/// A part of a page, in its order.
pub enum Part {
    Commands(Block),
    /// A configuration file.
    Configuration(String),
}

/// The languages of blocks without commands.
const WITHOUT_COMMANDS: [&str; 4] = ["", "text", "toml", "ini"];

/// Returns the fenced blocks of a page: commands in `sh` blocks, commands after `$` with their output in `console` blocks, and
/// configuration files in `toml` blocks.
pub fn parts(page: &str) -> Vec<Part> {
    let text = text(page);
    let mut lines = text.lines().zip(1..);
    let mut parts = Vec::new();
    while let Some((line, number)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let indented = line.len() - line.trim_start().len();
        let inside = lines.by_ref().map(|(line, _)| line);
        let inside = inside.take_while(|line| !line.trim_start().starts_with("```"));
        let inside: Vec<&str> = inside.map(|line| line.get(indented..).unwrap_or_default()).collect();
        let (language, setting) = info.split_once(' ').unwrap_or((info, ""));
        let place = format!("{page}:{}", number + 1);
        let steps = match language {
            "sh" => commands(&inside),
            "console" => with_output(&inside),
            "toml" => {
                parts.push(Part::Configuration(inside.join("\n")));
                continue;
            }
            other => {
                assert!(WITHOUT_COMMANDS.contains(&other), "{place}: write sh or console, not {other}");
                assert!(
                    !inside.iter().any(|line| is_command(line)),
                    "{place}: write sh or console before a command"
                );
                continue;
            }
        };
        assert!(!steps.is_empty(), "{place}: no command; begin each with `$ ` in a console block");
        parts.push(Part::Commands(Block { place, setting: setting.to_owned(), steps }));
    }
    parts
}

fn is_command(line: &str) -> bool {
    line.starts_with("$ ") || line.strip_prefix("hallpass ").is_some_and(|rest| !begins_with_version(rest))
}

/// The program's output begins with its name and version.
fn begins_with_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

/// Each line is a command, unless it is a comment; a backslash at its end continues it.
fn commands(lines: &[&str]) -> Vec<Step> {
    let joined = lines.join("\n").replace("\\\n", " ");
    let commands = joined.lines().map(without_comment).filter(|line| !line.is_empty());
    commands.map(|command| Step { command, shown: Vec::new() }).collect()
}

fn without_comment(line: &str) -> String {
    let end = if line.starts_with('#') { 0 } else { line.find(" #").unwrap_or(line.len()) };
    line[..end].trim().to_owned()
}

fn with_output(lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
            (None, Some(step)) => step.shown.push((*line).to_owned()),
            (None, None) => panic!("output before the first command: {line}"),
        }
    }
    steps
}

/// Returns the commands in the sentences of a page that begin with this, as one block each.
pub fn in_sentences(page: &str, begin: &str) -> Vec<Block> {
    let outside = lines(page).into_iter().filter(|line| !line.is_fenced);
    let blocks = outside.flat_map(|Line { place, text, .. }| {
        let commands = quoted(&text).filter(|command| command.starts_with(begin)).map(str::to_owned);
        let block = |command| Block {
            place: place.clone(),
            setting: String::new(),
            steps: vec![Step { command, shown: Vec::new() }],
        };
        commands.map(block).collect::<Vec<_>>()
    });
    blocks.collect()
}

/// Returns the `hallpass` command lines in a page, in blocks and in sentences, with their place.
pub fn hallpass_commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for Line { place, text, is_fenced } in lines(page) {
        let commands: Vec<Vec<String>> = match is_fenced {
            true => shell_words(text.trim_start().trim_start_matches("$ ")),
            false => quoted(&text).flat_map(shell_words).collect(),
        };
        let ours = commands.into_iter().filter_map(|words| match &words[..] {
            [first, second, ..] if first == "hallpass" && begins_with_version(second) => None,
            [first, ..] if first == "hallpass" => Some(words),
            // cargo run --release -- serve
            [cargo, run, ..] if cargo == "cargo" && run == "run" => {
                let arguments = words.into_iter().skip_while(|word| word != "--").skip(1);
                Some(["hallpass".to_owned()].into_iter().chain(arguments).collect())
            }
            _ => None,
        });
        found.extend(ours.map(|words| (place.clone(), words)));
    }
    found
}

/// A line of a page that is no fence.
struct Line {
    /// The page and the number of the line.
    place: String,
    text: String,
    is_fenced: bool,
}

/// A backslash at the end of a line within a fence continues it.
fn lines(page: &str) -> Vec<Line> {
    let (mut is_fenced, mut is_continued) = (false, false);
    let mut lines: Vec<Line> = Vec::new();
    for (line, number) in text(page).lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
            continue;
        }
        let (part, continues) = match line.strip_suffix('\\').filter(|_| is_fenced) {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| is_continued) {
            Some(last) => last.text.push_str(part),
            None => {
                lines.push(Line { place: format!("{page}:{number}"), text: part.to_owned(), is_fenced });
            }
        }
        is_continued = continues;
    }
    lines
}

fn text(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// Returns what stands in backquotes in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Splits a line of shell into the words of its commands. Redirections and comments end a command, a substitution is the
/// word 1.
fn shell_words(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut nested, mut is_redirected) = (None, 0, false);
    let mut before = ' ';
    for letter in line.chars().chain(['\n']) {
        match (quote, letter) {
            _ if nested > 0 => match letter {
                ')' => nested -= 1,
                '(' => nested += 1,
                _ => {}
            },
            (_, '(') if before == '$' => {
                nested = 1;
                let text = word.get_or_insert_default();
                text.pop();
                text.push('1');
            }
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\n' | '|' | ';' | '&' | '>' | '<') => {
                words.extend(word.take().filter(|_| !is_redirected));
                if matches!(letter, '>' | '<') {
                    is_redirected = true;
                } else if matches!(letter, '|' | ';' | '&' | '\n') {
                    commands.push(std::mem::take(&mut words));
                    is_redirected = false;
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
        before = letter;
    }
    words.extend(word);
    commands.push(words);
    commands.retain(|words| !words.is_empty());
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_shell_are_split_into_commands() {
        let split =
            |line: &str| -> Vec<String> { shell_words(line).iter().map(|words| words.join("_")).collect() };
        assert_eq!(split("a \"b c\" 'd' > f | g && h # i"), ["a_b c_d", "g", "h"]);
        assert_eq!(split("load --pid \"$(pidof hallpass)\" -q"), ["load_--pid_1_-q"]);
        assert_eq!(split("# only a comment"), Vec::<String>::new());
    }
}
