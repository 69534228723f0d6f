//! Numbers and words for people: durations, sizes, lines of limited width, and characters that must not reach a terminal.

/// Returns whether a character could control a terminal, change the direction of writing, or hide.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Makes text of others safe to show: hidden characters become question marks, and text of more than `max` characters is cut.
pub fn clean(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).map(|c| if is_hidden(c) { '?' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Whether a word looks like a random secret: Base64 or hexadecimal digits of 16 bytes or more. Words with a dot, a colon, a hyphen or
/// a blank do not, so addresses and host names do not.
pub fn is_like_a_secret(word: &str) -> bool {
    let digits = word.trim_end_matches('=');
    digits.len() >= 22
        && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
        && digits.bytes().any(|byte| byte.is_ascii_digit())
}

/// Returns a text, or a dash if it is empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Returns a number with what it counts, such as `2 errors`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns a duration in its two largest units, such as `3h 5m`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Returns a number of bytes in a unit that leaves at most four digits.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = (bytes, 0);
    while scaled.0 >= 10_000 && scaled.1 + 1 < units.len() {
        scaled = (scaled.0 / 1024, scaled.1 + 1);
    }
    format!("{} {}", scaled.0, units[scaled.1])
}

/// Breaks `text` into lines of at most `width` characters that begin with `indent`. A longer word has a line of its own.
pub fn wrap(text: &str, indent: &str, width: usize) -> String {
    let mut out = String::new();
    for paragraph in text.split('\n') {
        let mut line = String::from(indent);
        let mut is_empty = true;
        for word in paragraph.split_whitespace() {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > width {
                out.push_str(line.trim_end());
                out.push('\n');
                line = String::from(indent);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Replaces the characters that have a meaning in HTML and SVG.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_write_to_the_terminal() {
        assert_eq!(clean("School \x1b]0;x\x07 \u{202e}CA", 80), "School ?]0;x? ?CA");
        assert_eq!(clean("M\u{fc}nchen", 7), "M\u{fc}nchen");
        assert_eq!(clean("M\u{fc}nchen", 6), "M\u{fc}nche...");
    }

    #[test]
    fn durations_and_sizes_have_two_units_and_four_digits() {
        assert_eq!([5, 65, 3_700, 90_000].map(duration), ["5s", "1m 5s", "1h 1m", "1d 1h"]);
        assert_eq!([0, 9_999, 10_000, 20 << 20].map(bytes), ["0 B", "9999 B", "9 KiB", "20 MiB"]);
    }
}
