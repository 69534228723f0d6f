//! Reads the text format of Prometheus (exposition format 0.0.4).
//!
//! A line that is not a sample is left out: a newer server may write something that this program does not know.

use std::borrow::Cow;

/// Most samples read. A server writes at most 10,000.
const SAMPLES_MAX: usize = 20_000;
/// Most labels of a sample. Ours have four.
const LABELS_MAX: usize = 16;

/// One line.
#[derive(Debug, PartialEq)]
pub struct Sample<'a> {
    /// The name of the series.
    pub name: &'a str,
    labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value, which may be infinite or not a number.
    pub value: f64,
}

impl Sample<'_> {
    /// Returns the value of a label; empty if it is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }

    /// Returns the value as a count: at least 0, and 0 if it is not a number.
    pub fn count(&self) -> u64 {
        self.value as u64
    }
}

/// Returns the samples of a text.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter_map(sample).take(SAMPLES_MAX)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_matches([' ', '\t']);
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_at(line.find(['{', ' ', '\t'])?);
    if !is_name(name) {
        return None;
    }
    let rest = rest.trim_start_matches([' ', '\t']);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    // A time stamp may follow the value.
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

fn is_name(name: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphabetic() || matches!(c, b'_' | b':');
    name.bytes().next().is_some_and(letter) && name.bytes().all(|c| letter(c) || c.is_ascii_digit())
}

/// The labels of a sample, and the text after them.
type Labels<'a> = (Vec<(&'a str, Cow<'a, str>)>, &'a str);

/// Reads the labels after the opening brace. Returns `None` if they are malformed.
fn labels(mut rest: &str) -> Option<Labels<'_>> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_name(name) || labels.len() == LABELS_MAX {
            return None;
        }
        let (value, after) = quoted(after.trim_start_matches([' ', '\t']).strip_prefix('"')?)?;
        labels.push((name, value));
        rest = after.trim_start_matches([' ', '\t']);
        rest = match rest.strip_prefix(',') {
            Some(after) => after,
            None if rest.starts_with('}') => rest,
            None => return None,
        };
    }
}

/// Reads a value up to its closing quote and resolves `\\`, `\"` and `\n`.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if let Some(after) = text[end..].strip_prefix('"') {
        return Some((Cow::Borrowed(&text[..end]), after));
    }
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('\\' | '"') => value.push(c),
                // Not an escape: both characters belong to the value, as for Prometheus.
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name, labels and value.
    type Found = (String, Vec<(String, String)>, f64);

    fn one(line: &str) -> Option<Found> {
        let mut all = samples(line);
        let first = all.next()?;
        assert_eq!(all.next(), None);
        let labels =
            first.labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        Some((first.name.to_owned(), labels, first.value))
    }

    #[test]
    fn samples_with_and_without_labels() {
        assert_eq!(one("a_total 12"), Some(("a_total".into(), vec![], 12.0)));
        assert_eq!(one(" a 1.5e3 1700000000000\r"), Some(("a".into(), vec![], 1500.0)));
        let labels = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(one("a{} 1"), Some(("a".into(), vec![], 1.0)));
        assert_eq!(
            one("a{x=\"1\", y = \"a} b\\\"\\\\\\n,\\t\",} +Inf"),
            Some(("a".into(), labels(&[("x", "1"), ("y", "a} b\"\\\n,\\t")]), f64::INFINITY))
        );
        assert_eq!(
            samples("a{le=\"0.5\"} 3").next().map(|s| (s.label("le").to_owned(), s.count())),
            Some(("0.5".into(), 3))
        );
        assert_eq!(samples("a NaN").next().map(|s| s.count()), Some(0));
    }

    #[test]
    fn what_is_no_sample_is_left_out() {
        for line in [
            "",
            "# HELP a b",
            "a",
            "a{",
            "a{x} 1",
            "a{x=1} 1",
            "a{x=\"1} 1",
            "a{x=\"1\"y=\"2\"} 1",
            "9a 1",
            "a one",
            "{} 1",
            "a{x=\"\\",
        ] {
            assert_eq!(one(line), None, "{line}");
        }
        assert_eq!(samples(&"a 1\n".repeat(SAMPLES_MAX + 5)).count(), SAMPLES_MAX);
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            samples(&text).for_each(drop);
            samples(&String::from_utf8_lossy(&bytes)).for_each(drop);
        }

        #[test]
        fn damaged_lines_do_not_either(line in "a[a{}=\"\\\\ ,n1\u{e9}\u{1b}]{0,40}") {
            samples(&line).for_each(drop);
        }

        /// Any value of a label comes back as it was, and the values beside it, too.
        #[test]
        fn every_value_of_a_label_is_read_as_it_was_written(value in any::<String>(), number in any::<u32>()) {
            // As the server does.
            let escaped = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            let text = format!("a{{x=\"{escaped}\",y=\"z\"}} {number}\n");
            let found: Vec<_> = samples(&text).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!((found[0].label("x"), found[0].label("y")), (value.as_str(), "z"));
            prop_assert_eq!(found[0].count(), u64::from(number));
        }
    }
}
