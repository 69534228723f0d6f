//! Values of options as coturn reads them: numbers, flags, addresses; and texts that something else must replace first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::options::Kind;
use crate::base::text::clean;

/// Longest value that a report shows.
const SHOWN_CHARS: usize = 64;

/// The number at the start of a value (`atoi`): 0 if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// The number.
    pub number: i64,
    /// Whether the value is nothing but this number.
    pub whole: bool,
    /// Whether the value starts with a number.
    pub any: bool,
}

/// Reads the number at the start of a value.
pub fn leading(value: &[u8]) -> Leading {
    let text = value.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let add = |number: i64, digit: &u8| number.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    let number = digits[..end].iter().fold(0, add);
    Leading {
        number: if negative { -number } else { number },
        whole: end > 0 && end == digits.len(),
        any: end > 0,
    }
}

/// Reads yes or no (`get_bool_value`); `None` for a word at which coturn ends.
pub fn flag(value: &[u8]) -> Option<bool> {
    match value {
        [] | [b'1'..=b'9' | b'y' | b'Y' | b't' | b'T', ..] | b"on" | b"ON" | b"On" => Some(true),
        [b'0' | b'n' | b'N' | b'f' | b'F', ..] | b"off" | b"OFF" | b"Off" => Some(false),
        _ => None,
    }
}

/// Why a value is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnAddress {
    /// coturn looks it up as a host name when it starts.
    Name,
    /// coturn finds no address in it and ignores it.
    Nothing,
}

/// Reads an address as coturn does (`make_ioa_addr`): blanks around it are ignored, and nothing is 0.0.0.0.
///
/// # Errors
/// What it is instead.
pub fn address(value: &[u8]) -> Result<IpAddr, NotAnAddress> {
    let Ok(text) = std::str::from_utf8(value) else { return Err(NotAnAddress::Nothing) };
    let text = text.trim_matches(' ');
    if text.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED.into());
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.into());
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(address.into());
    }
    let is_name = text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && text.bytes().any(|byte| byte.is_ascii_alphanumeric());
    Err(if is_name { NotAnAddress::Name } else { NotAnAddress::Nothing })
}

/// Whether a shell, a template engine or a person was to replace this text, or a part of it. In secrets a single `$` is
/// only a character.
pub fn is_placeholder(value: &[u8], kind: Kind) -> bool {
    let text = String::from_utf8_lossy(value);
    let text = text.trim();
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let between = |open: &str, close: &str| text.strip_prefix(open)?.strip_suffix(close);
    if ["${", "$(", "{{", "{%", "<%"].iter().any(|mark| text.contains(mark)) {
        return true;
    }
    if text
        .strip_prefix('$')
        .is_some_and(|name| is_name(name) && !name.starts_with(|c: char| c.is_ascii_digit()))
        || between("`", "`").is_some()
    {
        return true;
    }
    let is_word = |(open, close): (&str, &str)| between(open, close).is_some_and(is_name);
    if [("__", "__"), ("%", "%"), ("@", "@"), ("%%", "%%"), ("@@", "@@")].into_iter().any(is_word) {
        return true;
    }
    let is_phrase = |(open, close): (&str, &str)| {
        between(open, close).is_some_and(|inside| {
            inside.chars().any(char::is_alphabetic)
                && inside.chars().all(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_' | '.' | '\''))
        })
    };
    if is_phrase(("<", ">")) || is_phrase(("[", "]")) && !text.contains(':') {
        return true;
    }
    let starts_name = |rest: &str| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    kind != Kind::Hidden && text.match_indices('$').any(|(at, _)| starts_name(&text[at + 1..]))
}

/// The text of a value that TOML can hold: UTF-8 without control characters.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| !text.chars().any(char::is_control))
}

/// A value for a report.
pub fn shown(value: &[u8]) -> String {
    clean(&String::from_utf8_lossy(value), SHOWN_CHARS)
}

/// A long-term key in place of a password: `0x` and its digits.
pub fn is_key(password: &[u8]) -> bool {
    password.starts_with(b"0x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_at_the_first_other_character() {
        let of = |text: &str| {
            let Leading { number, whole, any } = leading(text.as_bytes());
            (number, whole, any)
        };
        assert_eq!(of("50099        # a comment"), (50_099, false, true));
        assert_eq!(of(" -5"), (-5, true, true));
        assert_eq!(of("+7"), (7, true, true));
        assert_eq!(of("yes"), (0, false, false));
        assert_eq!(of(""), (0, false, false));
        assert_eq!(of("99999999999999999999999"), (i64::MAX, true, true));
    }

    #[test]
    fn flags_have_many_spellings_and_other_words_end_coturn() {
        for yes in ["", "1", "9 lives", "yes", "true", "on", "ON", "y"] {
            assert_eq!(flag(yes.as_bytes()), Some(true), "{yes}");
        }
        for no in ["0", "no", "false", "off", "Off", "never"] {
            assert_eq!(flag(no.as_bytes()), Some(false), "{no}");
        }
        for wrong in ["# x", "oN", "enabled", "'yes'", "-1", "on # x"] {
            assert_eq!(flag(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_are_told_from_names_and_from_nothing() {
        let ip = |text: &str| address(text.as_bytes());
        assert_eq!(ip(" 10.0.0.5 "), Ok("10.0.0.5".parse().expect("literal")));
        assert_eq!(ip("2001:db8::1"), Ok("2001:db8::1".parse().expect("literal")));
        assert_eq!(ip(""), Ok("0.0.0.0".parse().expect("literal")));
        for name in ["relay.example.org", "localhost", "10.1", "010.0.0.1"] {
            assert_eq!(ip(name), Err(NotAnAddress::Name), "{name}");
        }
        for nothing in ["10.0.0.0/8", "10.0.0.1,10.0.0.2", "10.0.0.1 # x", "[::1]", "10.0.0.1:3478"] {
            assert_eq!(ip(nothing), Err(NotAnAddress::Nothing), "{nothing}");
        }
    }

    #[test]
    fn placeholders_are_recognized() {
        for text in [
            "${REALM}",
            "$REALM",
            "a.$DOMAIN",
            "$(detect-external-ip)",
            "`hostname`",
            "{{ secret }}",
            "<your-secret>",
            "[your secret key here]",
            "__DOMAIN__",
            "%DOMAIN%",
            "@REALM@",
            "${X:-y}",
            "{% x %}",
        ] {
            assert!(is_placeholder(text.as_bytes(), Kind::Text), "{text}");
        }
        for text in ["turn.example.org", "a$", "$5", "::1", "10.0.0.1-10.0.0.5", "", "a@b", "50%"] {
            assert!(!is_placeholder(text.as_bytes(), Kind::Text), "{text}");
        }
        for secret in ["pa$word", "a$b$c", "x<y>z", "dG9wLXNlY3JldA==", "p@ss@word", "`"] {
            assert!(!is_placeholder(secret.as_bytes(), Kind::Hidden), "{secret}");
        }
        assert!(is_placeholder(b"$TURN_SECRET", Kind::Hidden));
        assert!(is_placeholder(b"alice:${PASSWORD}", Kind::Hidden));
    }
}
