//! Whether a text is well-formed XML 1.0, where the parser of `reader` accepts more than bbb-web's does.

use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};

/// Checks what the parser does not: characters, the declaration, comments, tags, references, and text outside of the root.
///
/// # Errors
/// A message for the operator with the line.
pub fn check(text: &str) -> Result<(), String> {
    // The parser does not count a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.starts_with('\u{feff}') {
        return Err("not XML: line 1: there are two byte order marks; remove both".to_owned());
    }
    characters(text)?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let mut depth = 0usize;
    loop {
        let start = position(reader.buffer_position());
        let wrong = |what: &str| Err(format!("not XML: line {}: {what}", line_of(text, start)));
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => return wrong(&error.to_string()),
        };
        let end = position(reader.buffer_position());
        let source = text.get(start..end).unwrap_or_default();
        match event {
            Event::Decl(_) if start > 0 => {
                return wrong("<?xml is only allowed as the very first characters");
            }
            Event::Decl(_) if !is_declaration(source) => {
                return wrong("the declaration is not <?xml version=\"1.0\" encoding=\"UTF-8\"?>");
            }
            Event::PI(instruction) => {
                let target = instruction.target();
                if target.eq_ignore_ascii_case("xml") || !target.starts_with(is_name_start) {
                    return wrong("a processing instruction without a permitted name");
                }
            }
            Event::DocType(_) => {
                return Err(format!("line {}: a DOCTYPE is not understood; remove it", line_of(text, start)));
            }
            Event::Start(_) | Event::Empty(_) if !is_tag(source) => {
                return wrong(
                    "the attributes of a tag are NAME=\"VALUE\", with blanks between them, without <",
                );
            }
            Event::Start(element) | Event::Empty(element) => {
                for attribute in element.attributes() {
                    let value = attribute
                        .map_err(|error| error.to_string())
                        .and_then(|one| {
                            one.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())
                        })
                        .map_err(|error| format!("not XML: line {}: {error}", line_of(text, start)))?;
                    if !value.chars().all(is_permitted) {
                        return wrong("a reference to a character that XML does not permit");
                    }
                }
                // An empty element has no end of its own.
                depth = depth.saturating_add(usize::from(!source.ends_with("/>")));
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(_) if source.contains("]]>") => return wrong("]]> in a text"),
            Event::Text(_) if depth == 0 && !is_blank(source) => return wrong("text outside of <beans>"),
            Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                Ok(meant) if meant.is_none_or(is_permitted) => {}
                _ => return wrong("a reference to a character that XML does not permit"),
            },
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

/// The number of the line that contains the byte `at`.
pub fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).bytes().filter(|&byte| byte == b'\n').count().saturating_add(1)
}

/// Whether a text has only what XML calls white space.
pub fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Converts a position. The file has at most 1 MiB.
fn position(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn characters(text: &str) -> Result<(), String> {
    match text.char_indices().find(|(_, one)| !is_permitted(*one)) {
        None => Ok(()),
        Some((at, one)) => Err(format!(
            "not XML: line {}: the character U+{:04X} is not permitted; remove it",
            line_of(text, at),
            u32::from(one)
        )),
    }
}

/// XML 1.0 section 2.2, `Char`.
fn is_permitted(one: char) -> bool {
    matches!(one, '\t' | '\n' | '\r') || one >= ' ' && !matches!(one, '\u{fffe}' | '\u{ffff}')
}

fn is_name_start(one: char) -> bool {
    one.is_ascii_alphabetic() || matches!(one, '_' | ':') || !one.is_ascii()
}

fn is_name(name: &str) -> bool {
    let is_part = |one: char| is_name_start(one) || one.is_ascii_digit() || matches!(one, '-' | '.');
    name.starts_with(is_name_start) && name.chars().all(is_part)
}

/// XML 1.0 section 2.8, `XMLDecl`.
fn is_declaration(source: &str) -> bool {
    let attributes = source.strip_prefix("<?xml").and_then(|rest| rest.strip_suffix("?>"));
    let Some(attributes) = attributes.and_then(attributes_of) else { return false };
    let mut attributes = attributes.into_iter().peekable();
    let is_version = |value: &str| matches!(value, "1.0" | "1.1");
    let mut take = |name: &str| attributes.next_if(|(found, _)| *found == name).map(|(_, value)| value);
    let (version, _, standalone) = (take("version"), take("encoding"), take("standalone"));
    version.is_some_and(is_version)
        && standalone.is_none_or(|value| matches!(value, "yes" | "no"))
        && attributes.next().is_none()
}

/// XML 1.0 section 3.1, `STag` and `EmptyElemTag`.
fn is_tag(source: &str) -> bool {
    let Some(inside) = source.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) else { return false };
    let inside = inside.strip_suffix('/').unwrap_or(inside);
    let end = inside.find(|one: char| is_blank(one.encode_utf8(&mut [0; 4]))).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    is_name(name) && attributes_of(rest).is_some_and(|all| all.iter().all(|(_, value)| !value.contains('<')))
}

/// Reads names and values, each after a blank; `None` if they are anything else.
fn attributes_of(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        let next = trim_start(rest);
        if next.is_empty() {
            return Some(found);
        }
        let (name, value) = next.split_once('=')?;
        let name = name.trim_end_matches([' ', '\t', '\r', '\n']);
        let value = trim_start(value);
        let quote = value.chars().next().filter(|one| matches!(one, '"' | '\''))?;
        let (value, after) = value.get(1..)?.split_once(quote)?;
        if next.len() == rest.len() || !is_name(name) {
            return None;
        }
        found.push((name, value));
        rest = after;
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}
