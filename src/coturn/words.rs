//! A command line of turnserver, as getopt_long(3) reads it: words to items.

use super::options::{self, Argument, OPTIONS, Row, Version};
use super::syntax::{Content, Fault, Item, Place, Setting};

/// The options without a long name: the configuration file, "no file", and help.
const FILE: u8 = b'c';
const NO_FILE: &[u8] = b"-n";
const HELP: u8 = b'h';

/// An argument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The argument without the quotes of a shell.
    pub text: Vec<u8>,
    /// The line of the file where it starts, if it is from a file.
    pub line: Option<usize>,
    /// Whether a shell would replace a part of it, or run more than this command.
    pub expands: bool,
}

/// What the arguments say about the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileArgument<'a> {
    /// Nothing: coturn reads its default file.
    Default,
    /// `-n`: coturn reads no file.
    None,
    /// `-c FILE`.
    Named(&'a [u8]),
}

/// Finds `-c FILE` and `-n` as coturn does: only as arguments of their own.
pub fn file_argument(words: &[Vec<u8>]) -> FileArgument<'_> {
    let mut found = FileArgument::Default;
    for (index, word) in words.iter().enumerate() {
        match (word.as_slice(), words.get(index + 1)) {
            (word, _) if word == NO_FILE => return FileArgument::None,
            (b"-c", Some(file)) => found = FileArgument::Named(file),
            _ => {}
        }
    }
    found
}

/// Reads the arguments of a command line, with or without the program's name.
pub fn read(words: &[Word]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut at = 0;
    if let Some(first) = words.first()
        && !first.expands
        && is_program(&first.text)
    {
        items.push(item(first, 1, 1, Content::Idle("the program's name")));
        at = 1;
    } else if words.first().is_some_and(|first| is_shell(&first.text)) {
        let fault = expand_first("a shell runs this command line");
        return words
            .iter()
            .enumerate()
            .map(|(index, word)| item(word, index + 1, index + 1, fault.clone()))
            .collect();
    }
    let mut only_operands = false;
    while let Some(word) = words.get(at) {
        let next = words.get(at + 1);
        let (first, text) = (at + 1, word.text.as_slice());
        let mut used = 1;
        if word.expands {
            let fault = expand_first("a shell replaces a part of this argument");
            items.push(item(word, first, first, fault));
        } else if only_operands || !text.starts_with(b"-") || text == b"-" {
            let message = "not an option: coturn ignores this argument";
            let remedy = "an option with an optional value takes it after `=`: --stale-nonce=600";
            items.push(item(word, first, first, fault(message, remedy, false)));
        } else if text == b"--" {
            only_operands = true;
            items.push(item(word, first, first, Content::Idle("the end of the options")));
        } else if let Some(long) = text.strip_prefix(b"--") {
            let (content, took) = long_option(long, next);
            used += usize::from(took);
            items.push(item(word, first, at + used, content));
        } else {
            let (contents, took) = short_options(&text[1..], next);
            used += usize::from(took);
            items.extend(contents.into_iter().map(|content| item(word, first, at + used, content)));
        }
        at += used;
    }
    items
}

fn item(word: &Word, first: usize, last: usize, content: Content) -> Item {
    Item { place: Place { line: word.line, arguments: Some((first, last)) }, content }
}

fn fault(message: &str, remedy: &str, fatal: bool) -> Content {
    Content::Fault(Fault { message: message.to_owned(), remedy: remedy.to_owned(), fatal })
}

fn expand_first(message: &str) -> Content {
    let remedy = "expand it first: write the arguments that turnserver receives, as `ps -o args -C turnserver` shows them";
    fault(message, remedy, true)
}

fn setting(row: &Row, value: &[u8]) -> Content {
    Content::Setting(Setting { name: row.name.to_owned(), value: value.to_vec(), ..Setting::default() })
}

/// Reads `name` or `name=value`. Returns whether the next argument is the value.
fn long_option(text: &[u8], next: Option<&Word>) -> (Content, bool) {
    let (name, value) = match text.iter().position(|&byte| byte == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let name = String::from_utf8_lossy(name);
    let row = match resolve(&name) {
        Ok(row) => row,
        Err(fault) => return (Content::Fault(fault), false),
    };
    match (value, row.argument, next) {
        (Some(value), ..) => (setting(row, value), false),
        (None, Argument::Optional, _) => (setting(row, b""), false),
        (None, Argument::Required, Some(next)) if !next.expands => (setting(row, &next.text), true),
        (None, Argument::Required, Some(_)) => (expand_first("a shell replaces the value"), true),
        (None, Argument::Required, None) => (no_value(row.name), false),
    }
}

fn no_value(name: &str) -> Content {
    fault(
        &format!("--{name} has no value, so coturn does not start"),
        "add the value, or remove the option",
        true,
    )
}

/// Finds an option by its name or by a beginning of it that no other option has.
///
/// # Errors
/// If there is no such option, or if there are several.
fn resolve(name: &str) -> Result<&'static Row, Fault> {
    if let Some(row) = options::find(name) {
        return Ok(row);
    }
    let starts = |row: &&Row| row.version == Version::Here && !name.is_empty() && row.name.starts_with(name);
    let found: Vec<&Row> = OPTIONS.iter().filter(starts).collect();
    match found.as_slice() {
        [row] => Ok(row),
        [first, others @ ..] if others.iter().all(|row| row.short.is_some() && row.short == first.short) => {
            Ok(first)
        }
        [] => {
            let remedy = match options::suggest(name) {
                Some(near) => format!("did you mean --{near}?"),
                None => "remove it".to_owned(),
            };
            let message = "there is no such option, so coturn does not start".to_owned();
            Err(Fault { message, remedy, fatal: true })
        }
        several => {
            let names: Vec<String> = several.iter().map(|row| format!("--{}", row.name)).collect();
            Err(Fault {
                message: "several options begin like this, so coturn does not start".to_owned(),
                remedy: format!("write one of {}", names.join(", ")),
                fatal: true,
            })
        }
    }
}

/// Reads `-abc` or `-pVALUE`. Returns whether the next argument is the value of the last one.
fn short_options(letters: &[u8], next: Option<&Word>) -> (Vec<Content>, bool) {
    let mut contents = Vec::new();
    let mut rest = letters;
    while let Some((&letter, after)) = rest.split_first() {
        rest = after;
        let row = options::find_short(letter);
        // In its short form, only -K of the flags needs a value ("K:").
        let takes =
            letter == FILE || letter == b'K' || row.is_some_and(|row| row.argument == Argument::Required);
        let as_content = |value: &[u8]| match row {
            Some(_) if value.starts_with(b"=") && letter != b'A' => fault(
                "in the short form `=` is a part of the value, which coturn then misreads",
                "write a blank in place of `=`",
                true,
            ),
            Some(row) => setting(row, value),
            None => Content::Idle("names the configuration file"),
        };
        match (row, letter) {
            (None, FILE) => {}
            (None, HELP) => {
                contents.push(fault("coturn prints its help and ends", "remove -h", true));
                continue;
            }
            (None, _) if [letter] == NO_FILE[1..] => {
                contents.push(Content::Idle("no configuration file"));
                continue;
            }
            (None, _) => {
                contents.push(fault("there is no such option, so coturn does not start", "remove it", true));
                continue;
            }
            (Some(_), _) => {}
        }
        if !takes {
            contents.push(as_content(b""));
        } else if !after.is_empty() {
            contents.push(as_content(after));
            return (contents, false);
        } else {
            return match next {
                Some(next) if next.expands => {
                    contents.push(expand_first("a shell replaces the value"));
                    (contents, true)
                }
                Some(next) => {
                    contents.push(as_content(&next.text));
                    (contents, true)
                }
                None => {
                    contents.push(no_value(row.map_or("config", |row| row.name)));
                    (contents, false)
                }
            };
        }
    }
    (contents, false)
}

/// Whether this is turnserver, with or without a directory.
fn is_program(word: &[u8]) -> bool {
    word.rsplit(|&byte| byte == b'/').next() == Some(b"turnserver")
}

/// Whether this is a shell.
fn is_shell(word: &[u8]) -> bool {
    let name = word.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    [&b"sh"[..], b"bash", b"dash", b"ash", b"env", b"eval"].contains(&name)
}

/// What may stand before the program in a unit, a compose file or a script.
const LEADS: [&[u8]; 6] = [b"ExecStart=", b"command:", b"CMD", b"ENTRYPOINT", b"exec", b"sudo"];

/// Reads a file that contains a command line in place of settings; `None` if it contains settings.
pub fn of_file(file: &[u8]) -> Option<Vec<Word>> {
    let mut start = file;
    let mut before = 0;
    loop {
        // Blank lines and comments before the command.
        let end = start.iter().position(|&byte| byte == b'\n').map_or(start.len(), |at| at + 1);
        let line = start[..end].trim_ascii();
        if start.is_empty() {
            return None;
        }
        if !line.is_empty() && !line.starts_with(b"#") {
            break;
        }
        before += 1;
        start = &start[end..];
    }
    let mut text = start.trim_ascii_start();
    for lead in LEADS {
        text = text.strip_prefix(lead).map_or(text, <[u8]>::trim_ascii_start);
    }
    let first = text.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let is_option =
        first.len() > 1 && first[0] == b'-' && (first[1] == b'-' || first[1].is_ascii_alphabetic());
    let is_option = is_option && !has_settings(text);
    let runs = is_shell(first) && text.windows(10).any(|part| part == b"turnserver");
    (is_program(first) || is_option || runs).then(|| split(text, before + 1))
}

/// Whether a line after the first is a setting of `turnserver.conf`. In such a file coturn ignores lines that begin with `-`.
fn has_settings(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    // What follows a backslash is the same line to a shell.
    let mut goes_on = lines.next().is_some_and(|first| first.ends_with(b"\\"));
    for line in lines {
        let name = line.split(|byte| matches!(byte, b' ' | b'\t' | b'=')).next().unwrap_or_default();
        let is_setting = std::str::from_utf8(name).is_ok_and(|name| options::find(name).is_some());
        if !goes_on && is_setting {
            return true;
        }
        goes_on = line.ends_with(b"\\");
    }
    false
}

/// Divides text into words as a POSIX shell does, without replacing anything. `line` is the number of the first line.
pub fn split(text: &[u8], mut line: usize) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let here = line;
        line += usize::from(byte == b'\n');
        match (byte, quote) {
            (b'\'' | b'"', None) => {
                quote = Some(byte);
                open(&mut word, here);
            }
            (byte, Some(open)) if byte == open => quote = None,
            (b'\\', None | Some(b'"')) => match bytes.next() {
                Some(b'\n') => line += 1,
                Some(next) => {
                    let keeps = quote.is_some() && !matches!(next, b'"' | b'\\' | b'$' | b'`');
                    let word = open(&mut word, here);
                    if keeps {
                        word.text.push(b'\\');
                    }
                    word.text.push(next);
                }
                None => {}
            },
            (byte, None) if byte.is_ascii_whitespace() => words.extend(word.take()),
            (b'#', None) if word.is_none() => while bytes.next_if(|&byte| byte != b'\n').is_some() {},
            (byte, _) => {
                let expands = match quote {
                    None => matches!(byte, b'$' | b'`' | b'|' | b';' | b'&' | b'<' | b'>'),
                    Some(open) => open == b'"' && matches!(byte, b'$' | b'`'),
                };
                let word = open(&mut word, here);
                word.expands |= expands;
                word.text.push(byte);
            }
        }
    }
    // A quote that is not closed: a shell would ask for more.
    if let Some(word) = word.as_mut() {
        word.expands |= quote.is_some();
    }
    words.extend(word);
    words
}

/// The current word, which starts on this line if it is new.
fn open(word: &mut Option<Word>, line: usize) -> &mut Word {
    word.get_or_insert_with(|| Word { line: Some(line), ..Word::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a command line as `name=value`, `!` for a fatal fault, `?` for another one.
    fn settings(line: &str) -> Vec<String> {
        let shown = |item: Item| match item.content {
            Content::Setting(Setting { name, value, .. }) => {
                Some(format!("{name}={}", String::from_utf8_lossy(&value)))
            }
            Content::Fault(fault) => Some(if fault.fatal { "!".to_owned() } else { "?".to_owned() }),
            _ => None,
        };
        read(&split(line.as_bytes(), 1)).into_iter().filter_map(shown).collect()
    }

    #[test]
    fn long_options_take_a_value_after_a_blank_or_an_equals_sign() {
        assert_eq!(settings("--min-port 1 --max-port=2"), ["min-port=1", "max-port=2"]);
        assert_eq!(settings("--pidfile= --no-tls"), ["pidfile=", "no-tls="]);
        // An optional value needs the equals sign.
        assert_eq!(settings("--stale-nonce 600"), ["stale-nonce=", "?"]);
        assert_eq!(settings("--realm"), ["!"]);
    }

    #[test]
    fn a_beginning_that_only_one_option_has_is_enough() {
        assert_eq!(settings("--external=1.2.3.4"), ["external-ip=1.2.3.4"]);
        assert_eq!(settings("--static=x --fing"), ["static-auth-secret=x", "fingerprint="]);
        assert_eq!(settings("--user a:b"), ["user=a:b"], "the whole name of one option");
        for wrong in ["--use", "--cli=1", "--no-such", "--"] {
            assert_eq!(settings(wrong).contains(&"!".to_owned()), wrong != "--", "{wrong}");
        }
    }

    #[test]
    fn short_options_may_stand_together_and_with_their_value() {
        assert_eq!(
            settings("turnserver -nav -p3478 -r example.org -u a:b -uc:d -X 1.2.3.4/10.0.0.5"),
            [
                "lt-cred-mech=",
                "verbose=",
                "listening-port=3478",
                "realm=example.org",
                "user=a:b",
                "user=c:d",
                "external-ip=1.2.3.4/10.0.0.5"
            ]
        );
        assert_eq!(
            settings("-m 2 -q 1 -Q 2 -s 3 -f"),
            ["relay-threads=2", "user-quota=1", "total-quota=2", "max-bps=3", "fingerprint="]
        );
        assert_eq!(settings("-p=3478"), ["!"]);
        assert_eq!(settings("-Y -p"), ["!", "!"]);
    }

    #[test]
    fn a_shell_is_not_imitated() {
        for line in [
            "turnserver --realm=$REALM",
            "turnserver --realm=${REALM:-x}",
            "turnserver -X \"$(curl icanhazip.com)\"",
            "turnserver -r `hostname`",
            "turnserver -a | tee log",
            "sh -c 'exec turnserver -n'",
            "turnserver -u 'open",
        ] {
            assert!(settings(line).contains(&"!".to_owned()), "{line}");
        }
        assert_eq!(settings("-u 'a:$b' -u \"c:\\$d\""), ["user=a:$b", "user=c:$d"]);
    }

    #[test]
    fn a_file_may_contain_a_command_line() {
        let words =
            of_file(b"# a comment\n\nExecStart=/usr/bin/turnserver -n \\\n  -r 'a b'\n").expect("a command");
        let shown: Vec<(String, Option<usize>)> = words
            .into_iter()
            .map(|word| (String::from_utf8_lossy(&word.text).into_owned(), word.line))
            .collect();
        let word = |text: &str, line| (text.to_owned(), Some(line));
        assert_eq!(shown, [word("/usr/bin/turnserver", 3), word("-n", 3), word("-r", 4), word("a b", 4)]);
        assert!(of_file(b"--no-tls\n-v").is_some());
        assert!(of_file(b"--realm \\\nrealm \\\n -v").is_some(), "a value on a line of its own");
        // coturn reads the settings and ignores the first line.
        assert_eq!(of_file(b"-v\nlistening-port=3480\ndenied-peer-ip=10.0.0.0-10.255.255.255\n"), None);
        for settings in ["realm=a", "", "# -n", "-", "listening-ip=1.2.3.4\nturnserver"] {
            assert_eq!(of_file(settings.as_bytes()), None, "{settings}");
        }
    }

    #[test]
    fn the_file_is_named_as_coturn_looks_for_it() {
        let of = |line: &str| {
            let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            match file_argument(&words) {
                FileArgument::Default => "default".to_owned(),
                FileArgument::None => "none".to_owned(),
                FileArgument::Named(file) => String::from_utf8_lossy(file).into_owned(),
            }
        };
        assert_eq!(of("-a -c /etc/x.conf"), "/etc/x.conf");
        assert_eq!(of("-c x -n"), "none");
        assert_eq!(of("-navf -cx"), "default");
    }
}
