//! Splits a Rust file into what the rules need: code without strings and comments, comments without code, and where
//! the tests begin. Offsets and line breaks stay where they were.

/// A Rust file to check.
pub struct Source {
    /// From the root of the project, with `/`.
    pub path: String,
    /// The code; comments and the inside of strings are blank.
    pub code: String,
    /// The comments; everything else is blank.
    pub comments: String,
    /// The first line (from 1) of the tests at the bottom; one past the last line when there are none.
    pub tests_from: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let mut source = Self { path: path.to_owned(), code, comments, tests_from: 0 };
        source.tests_from = source.find_tests();
        source
    }

    pub fn lines(&self) -> usize {
        self.code.lines().count()
    }

    /// The line (from 1) of a byte of `code` or `comments`.
    pub fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// The code before the tests.
    pub fn tested_code(&self) -> &str {
        let end: usize = self.code.split_inclusive('\n').take(self.tests_from - 1).map(str::len).sum();
        &self.code[..end]
    }

    fn find_tests(&self) -> usize {
        let parts: Vec<&str> = self.path.split('/').collect();
        if parts[0] != "src" || parts.iter().any(|p| matches!(*p, "tests" | "tests.rs")) {
            return 1;
        }
        let lines: Vec<&str> = self.code.lines().map(str::trim).collect();
        let begins = |i: usize| {
            // `#[cfg(test)]` starts the tests only in front of a `mod`; on any other item, the code goes on after it.
            let follows = lines[i + 1..].iter().find(|l| !l.is_empty() && !l.starts_with("#["));
            lines[i].starts_with("#[cfg(test)]")
                && (lines[i].contains("mod ") || follows.is_some_and(|l| l.starts_with("mod ")))
        };
        (0..lines.len()).find(|&i| begins(i)).map_or(lines.len() + 1, |i| i + 1)
    }
}

/// Returns the offsets of `word` as a whole word, not as a part of a longer name.
pub fn find_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back().is_some_and(name) && word.starts_with(name);
        let after = text[at + word.len()..].chars().next().is_some_and(name) && word.ends_with(name);
        !(before || after)
    })
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    RawText(usize),
}

/// Splits `text` into code and comments, each as long as `text`.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut comments) = (Vec::new(), Vec::new());
    let mut state = State::Code;
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        // How many bytes this step takes, and where they go.
        let (step, to_code, to_comments, next) = match state {
            State::Code if rest.starts_with(b"//") => (2, false, false, State::LineComment),
            State::Code if rest.starts_with(b"/*") => (2, false, false, State::BlockComment(1)),
            State::Code => match raw_start(bytes, at) {
                Some((length, hashes)) => (length, true, false, State::RawText(hashes)),
                None if rest[0] == b'"' => (1, true, false, State::Text),
                None if rest[0] == b'\'' => (char_length(text, at), true, false, State::Code),
                None => (1, true, false, State::Code),
            },
            State::LineComment if rest[0] == b'\n' => (1, true, true, State::Code),
            State::LineComment => (1, false, true, state),
            State::BlockComment(depth) if rest.starts_with(b"/*") => {
                (2, false, false, State::BlockComment(depth + 1))
            }
            State::BlockComment(1) if rest.starts_with(b"*/") => (2, false, false, State::Code),
            State::BlockComment(depth) if rest.starts_with(b"*/") => {
                (2, false, false, State::BlockComment(depth - 1))
            }
            State::BlockComment(_) => (1, false, true, state),
            State::Text if rest[0] == b'\\' => (2, false, false, state),
            State::Text if rest[0] == b'"' => (1, true, false, State::Code),
            State::RawText(hashes) if closes(rest, hashes) => (1 + hashes, true, false, State::Code),
            State::Text | State::RawText(_) => (1, false, false, state),
        };
        // A character literal is blank inside, as a string is.
        let literal = state == State::Code && rest[0] == b'\'' && step > 1;
        for &byte in rest.iter().take(step) {
            let line_break = byte == b'\n';
            code.push(if line_break || (to_code && !literal) { byte } else { b' ' });
            comments.push(if line_break || to_comments { byte } else { b' ' });
        }
        at += step;
        state = next;
    }
    // A multi-byte character is taken or blanked as a whole, so both are UTF-8 again.
    (String::from_utf8_lossy(&code).into_owned(), String::from_utf8_lossy(&comments).into_owned())
}

/// Returns the length of a raw string's opening (`r"`, `r#"`, `br##"` and so on) and its number of hashes.
fn raw_start(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    if at > 0 && name(&bytes[at - 1]) {
        return None;
    }
    let prefix = [&b"br"[..], b"cr", b"r"].into_iter().find(|p| bytes[at..].starts_with(p))?;
    let rest = &bytes[at + prefix.len()..];
    let hashes = rest.iter().take_while(|&&b| b == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some((prefix.len() + hashes + 1, hashes))
}

fn closes(rest: &[u8], hashes: usize) -> bool {
    rest[0] == b'"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&b| b == b'#')
}

/// Returns the length of the character literal that begins here; 1 for a lifetime.
fn char_length(text: &str, at: usize) -> usize {
    let rest = &text[at + 1..];
    let mut chars = rest.char_indices();
    match chars.next() {
        Some((_, '\\')) => {
            let end = rest.char_indices().skip(2).find(|(_, c)| *c == '\'');
            end.map_or(1, |(end, _)| end + 2)
        }
        Some(_) => match chars.next() {
            Some((end, '\'')) => end + 2,
            _ => 1,
        },
        None => 1,
    }
}

#[test]
fn takes_a_file_apart() {
    let text = "let a = \"x // \\\" y\"; // dbg\nlet b = r#\"\" /*\"#; /* one /* two */ */ let c = '\"'; let d: &'a str;\n";
    let (code, comments) = split(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(code.lines().next().unwrap().trim_end(), "let a = \"         \";");
    let second = code.lines().nth(1).unwrap();
    assert!(second.contains("let b = r#\"    \"#;") && second.contains("let d: &'a str;"), "{second}");
    assert_eq!(comments.lines().next().unwrap().trim(), "dbg");
    assert!(comments.lines().nth(1).unwrap().contains("one    two"), "{comments}");
}

#[test]
fn finds_whole_words_and_the_tests() {
    assert_eq!(find_word("unsafe_code unsafe munsafe", "unsafe").collect::<Vec<_>>(), [12]);
    let from = |path: &str, text: &str| Source::new(path, text).tests_from;
    assert_eq!(from("src/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests;\n"), 2);
    assert_eq!(from("src/a.rs", "#[cfg(test)]\nuse x;\nfn f() {}\n"), 4);
    assert_eq!(from("src/a/tests.rs", "fn f() {}\n"), 1);
    assert_eq!(from("tests/a.rs", "fn f() {}\n"), 1);
}
