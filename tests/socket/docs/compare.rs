//! Compares the output that a page shows with the real one: words must agree, what is measured may differ.

/// Stands for any number of lines, or for any text within a line.
const GAP: &str = "...";
/// Units of what is measured.
const UNITS: [&str; 13] = [
    "s", "ms", "us", "%", "seconds", "second", "minutes", "minute", "hours", "hour", "days", "day",
    "requests",
];

/// Checks that `real` has the shown lines, in their order and without others between them, except where a line `...` stands.
///
/// # Errors
/// The first shown line that is missing.
pub fn compare(shown: &[String], real: &str) -> Result<(), String> {
    let real: Vec<&str> = real.lines().map(str::trim_end).collect();
    let (mut at, mut is_gap) = (0, false);
    for line in shown {
        if line.trim() == GAP {
            is_gap = true;
            continue;
        }
        let found = real[at..].iter().position(|other| fits(line, other));
        match found {
            Some(skipped) if skipped == 0 || is_gap => at += skipped + 1,
            _ => return Err(format!("not printed here: {line}")),
        }
        is_gap = false;
    }
    match real.get(at).filter(|_| !is_gap) {
        Some(line) => Err(format!("also printed: {line}")),
        None => Ok(()),
    }
}

fn fits(shown: &str, real: &str) -> bool {
    let real = masked(real);
    let pieces: Vec<String> = shown.split(GAP).map(masked).collect();
    let (first, last) = (&pieces[0], &pieces[pieces.len() - 1]);
    if pieces.len() == 1 {
        return real == *first;
    }
    let Some(mut rest) = real.strip_prefix(first.as_str()) else { return false };
    for piece in &pieces[1..pieces.len() - 1] {
        match rest.find(piece.as_str()) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

/// Returns the line with single spaces, and with `#` for numbers that are measured: those with a colon, a hyphen or a point,
/// such as times and ports, those before a unit, those after a decimal in a table, process ids, and the values of metrics that are
/// not zero.
fn masked(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let bare =
        |at: usize| words.get(at).map_or("", |word| word.trim_matches(|c: char| ",.:;()\"".contains(c)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_decimal =
        |text: &str| text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let mut is_row = false;
    let masked = words.iter().enumerate().map(|(at, word)| {
        // The columns of a table follow each other.
        is_row = is_decimal(bare(at)) || is_row && is_number(bare(at));
        let is_pid = at > 0 && bare(at - 1) == "pid";
        let is_value = at > 0 && words[at - 1].starts_with("hallpass_") && *word != "0";
        let is_one = is_row || is_pid || is_value || UNITS.contains(&bare(at + 1));
        match is_measured(word) || is_number(bare(at)) && is_one {
            true => digits_hidden(word),
            false => (*word).to_owned(),
        }
    });
    masked.collect::<Vec<_>>().join(" ")
}

/// Whether a word is a time, a date, an address with a port, a duration such as `1m`, or a decimal.
fn is_measured(word: &str) -> bool {
    let letters: Vec<char> = word.chars().collect();
    let between = letters
        .windows(3)
        .any(|three| three[0].is_ascii_digit() && ":.-".contains(three[1]) && three[2].is_ascii_digit());
    let is_duration = word.len() > 1
        && word.ends_with(['s', 'm', 'h'])
        && word[..word.len() - 1].chars().all(|c| c.is_ascii_digit());
    let is_address =
        word.split(['.', '/']).filter(|part| part.parse::<u8>().is_ok()).count() >= 4 && !word.contains(':');
    (between && !is_address) || is_duration
}

fn digits_hidden(word: &str) -> String {
    let mut hidden = String::new();
    for letter in word.chars() {
        match letter {
            '0'..='9' if hidden.ends_with('#') => {}
            '0'..='9' => hidden.push('#'),
            other => hidden.push(other),
        }
    }
    // A decimal may be a whole number another time.
    hidden.replace("#.#", "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn words_must_agree_and_measured_numbers_may_differ() {
        let real = "2026-11-28T10:00:00Z INFO a b=203.0.113.5:4711 in 12 ms\nerror 403: port 443\nlast";
        assert_eq!(
            compare(&lines("2027-01-01T11:11:11Z INFO a b=203.0.113.5:1 in 7 ms\n...\nlast"), real),
            Ok(())
        );
        assert_eq!(compare(&lines("...\nerror 403: port 443\nlast"), real), Ok(()));
        assert_eq!(compare(&lines("... INFO a b=...\n..."), real), Ok(()));
        assert!(compare(&lines("...\nerror 403: port 444\nlast"), real).is_err());
        assert!(compare(&lines("...\nerror 401: port 443\nlast"), real).is_err());
        assert!(compare(&lines("...\nerror 403: port 443"), real).is_err(), "a line more");
        assert!(compare(&lines("error 403: port 443\nlast"), real).is_err(), "a line less");
        assert!(compare(&lines("...\nlast\nerror 403: port 443"), real).is_err(), "another order");
    }

    #[test]
    fn an_address_without_a_port_must_agree() {
        assert!(compare(&lines("the peer 10.1.2.3 is denied"), "the peer 10.1.2.4 is denied").is_err());
        assert_eq!(compare(&lines("5s  ann (found in 0.4 ms)."), "12s ann (found in 16 ms)."), Ok(()));
        assert_eq!(compare(&lines("by nginx (pid 301): move it"), "by nginx (pid 7): move it"), Ok(()));
        assert_eq!(compare(&lines("TLS 443  0.4  61  2  -"), "TLS 443  0.1  245  12  -"), Ok(()));
        assert!(compare(&lines("TLS 443  0.4  61"), "TLS 444  0.4  61").is_err());
        assert_eq!(
            compare(&lines("hallpass_drops_total{a=\"b\"} 5"), "hallpass_drops_total{a=\"b\"} 17"),
            Ok(())
        );
        assert!(compare(&lines("hallpass_ready 1"), "hallpass_ready 0").is_err());
    }
}
