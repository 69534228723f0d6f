//! The syntax of `turnserver.conf` as coturn 4.6.1 reads it (`read_config_file`, `parse_arg_string`): bytes to items,
//! without their meaning.

/// Bytes that coturn reads at once (`fgets` into 1,024 bytes). A longer line is read as several.
const PART_BYTES: usize = 1023;
/// Some editors on Windows write it at the start of a file. coturn takes it for a part of the first name.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where an item is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The first and the last argument of the command line, from 1.
    pub arguments: Option<(usize, usize)>,
}

impl Place {
    /// A line of the file.
    pub fn line(line: usize) -> Self {
        Self { line: Some(line), arguments: None }
    }
}

/// A line of the file, a part of an overlong one, or an option of the command line with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

impl Item {
    /// A line of a command line on which no argument starts.
    pub fn without_argument(line: usize) -> Self {
        let content = Content::Idle("no argument starts here");
        Self { place: Place::line(line), content }
    }

    /// Marks an item that coturn does not read.
    pub fn ignore(&mut self) {
        if !matches!(self.content, Content::Blank | Content::Comment) {
            self.content = Content::Idle("with -n, coturn reads no file");
        }
    }
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but blanks.
    Blank,
    /// A comment.
    Comment,
    /// A part of the command line that is not about the server, in words.
    Idle(&'static str),
    /// A name and its value.
    Setting(Setting),
    /// Something that coturn does not read as an option.
    Fault(Fault),
}

/// A name and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The name as written, or the long name of an option of the command line.
    pub name: String,
    /// The value without the blanks around it and without a pair of double quotes; empty if there is none.
    pub value: Vec<u8>,
    /// Whether a byte order mark preceded the name.
    pub marked: bool,
    /// Whether this is a part of a line that is too long for coturn.
    pub cut: bool,
}

/// Something that coturn does not read as an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong. Never contains a value.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
    /// Whether the import is refused: coturn would not start, or would read something else than is written.
    pub fatal: bool,
}

/// Reads a file. Every line is at least one item.
pub fn read(file: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    for (index, line) in file.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let marked = index == 0 && line.starts_with(BYTE_ORDER_MARK);
        let line = if marked { &line[BYTE_ORDER_MARK.len()..] } else { line };
        let cut = line.len() > PART_BYTES;
        // Without its mark, the first line may be empty.
        let parts: Vec<&[u8]> = if line.is_empty() { vec![line] } else { line.chunks(PART_BYTES).collect() };
        for part in parts {
            let content = match content(part) {
                Content::Setting(setting) => Content::Setting(Setting { marked, cut, ..setting }),
                other => other,
            };
            items.push(Item { place: Place::line(index + 1), content });
        }
    }
    items
}

/// Reads one line.
fn content(line: &[u8]) -> Content {
    // To coturn a zero byte ends the line.
    let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n')).unwrap_or(line.len());
    let text = trim_end(&line[start..]);
    match text.first() {
        None => Content::Blank,
        Some(b'#') => Content::Comment,
        Some(_) => Content::Setting(setting(text)),
    }
}

/// Divides a line at the first blank, tab or `=`. The whole run of these characters separates name and value.
fn setting(text: &[u8]) -> Setting {
    let is_separator = |byte: &u8| matches!(byte, b' ' | b'\t' | b'=');
    let end = text.iter().position(is_separator).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let value = rest.iter().position(|byte| !is_separator(byte)).map_or(&b""[..], |start| &rest[start..]);
    let name = String::from_utf8_lossy(name).into_owned();
    Setting { name, value: unquoted(value).to_vec(), ..Setting::default() }
}

/// Takes off one pair of double quotes. The first quote goes even if there is no second one.
fn unquoted(value: &[u8]) -> &[u8] {
    match value.strip_prefix(b"\"") {
        None => value,
        Some(inside) => inside.strip_suffix(b"\"").unwrap_or(inside),
    }
}

/// Removes white space as `isspace` has it, which includes the carriage return of a Windows editor.
fn trim_end(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only setting of a line, as name and value.
    fn one(line: &[u8]) -> (String, String) {
        match &read(line)[..] {
            [Item { content: Content::Setting(setting), .. }] => {
                (setting.name.clone(), String::from_utf8(setting.value.clone()).expect("text"))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_run_of_separators_divides_a_line() {
        for (line, name, value) in [
            ("realm=a", "realm", "a"),
            ("\t realm \t= = a b = c \r\n", "realm", "a b = c"),
            ("relay-ip 10.0.0.5", "relay-ip", "10.0.0.5"),
            ("min-port==50000", "min-port", "50000"),
            ("static-auth-secret=YWJj=\n", "static-auth-secret", "YWJj="),
            ("static-auth-secret=plain # no comment", "static-auth-secret", "plain # no comment"),
            ("no-cli", "no-cli", ""),
            ("no-cli=", "no-cli", ""),
            ("; no comment", ";", "no comment"),
            ("=value", "", "value"),
        ] {
            assert_eq!(one(line.as_bytes()), (name.to_owned(), value.to_owned()), "{line:?}");
        }
    }

    #[test]
    fn one_pair_of_double_quotes_is_taken_off() {
        for (line, value) in [
            ("realm=\"a\"  \r\n", "a"),
            ("realm=\"\"a\"\"", "\"a\""),
            ("realm=\" a \"", " a "),
            ("realm=\"a", "a"),
            ("realm=a\"", "a\""),
            ("realm=\"a\" # b", "a\" # b"),
            ("realm='a'", "'a'"),
            ("realm=\u{201d}a\u{201d}", "\u{201d}a\u{201d}"),
            ("realm=\"", ""),
        ] {
            assert_eq!(one(line.as_bytes()).1, value, "{line:?}");
        }
    }

    #[test]
    fn every_line_is_an_item() {
        let contents: Vec<Content> =
            read(b"\n \t\r\n  # x\n\r\n#").into_iter().map(|item| item.content).collect();
        assert_eq!(
            contents,
            [Content::Blank, Content::Blank, Content::Comment, Content::Blank, Content::Comment]
        );
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\xef\xbb\xbf").len(), 1);
    }

    #[test]
    fn a_byte_order_mark_is_taken_off_and_noted() {
        let items = read(b"\xef\xbb\xbfverbose\r\nverbose");
        let marked: Vec<(String, bool)> = items
            .into_iter()
            .map(|item| match item.content {
                Content::Setting(setting) => (setting.name, setting.marked),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(marked, [("verbose".to_owned(), true), ("verbose".to_owned(), false)]);
    }

    #[test]
    fn a_line_of_more_than_1023_bytes_is_several() {
        let long = format!("static-auth-secret={}\nrealm=a\n", "x".repeat(1100));
        let items = read(long.as_bytes());
        let lines: Vec<Option<usize>> = items.iter().map(|item| item.place.line).collect();
        assert_eq!(lines, [Some(1), Some(1), Some(2)]);
        let cut = |item: &Item| matches!(&item.content, Content::Setting(setting) if setting.cut);
        assert_eq!(items.iter().map(cut).collect::<Vec<_>>(), [true, true, false]);
        // With its line break it is exactly as long as one read.
        assert_eq!(read(format!("realm={}\n", "x".repeat(1016)).as_bytes()).len(), 1);
    }
}
