//! Texts: words of others made safe to show, times in words, lines of limited width.

use std::time::Duration;

use crate::base::calendar::civil;
pub use crate::base::text::wrap;

/// Maximum length of a text from the network, in characters.
const SHOWN_MAX: usize = 80;
const DAY: u64 = 86_400;

/// Makes text from the network safe to show, and cuts long text.
pub fn clean(text: &str) -> String {
    crate::base::text::clean(text, SHOWN_MAX)
}

/// A span of seconds in words: `3 days`, `1 hour`, `40 seconds`.
pub fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        3600.. => (seconds / 3600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A limit in seconds: `5 s`, `2.5 s`.
pub fn seconds(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    if tenths.is_multiple_of(10) {
        format!("{} s", tenths / 10)
    } else {
        format!("{}.{} s", tenths / 10, tenths % 10)
    }
}

/// A measured time in milliseconds, with one decimal below ten.
pub fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 9.95 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// A date in UTC, such as `2026-11-28`, from seconds since 1970.
pub fn date(unix: i64) -> String {
    let (year, month, day) = civil(unix.div_euclid(DAY as i64));
    format!("{year:04}-{month:02}-{day:02}")
}

/// A date with hours and minutes in UTC, such as `2026-11-28 19:05 UTC`.
pub fn date_and_time(unix: u64) -> String {
    let minutes = unix % DAY / 60;
    format!("{} {:02}:{:02} UTC", date(unix.cast_signed()), minutes / 60, minutes % 60)
}

/// Joins words as a sentence does: `a`, `a and b`, `a, b and c`.
pub fn list(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_cannot_write_to_the_terminal() {
        assert_eq!(clean(&"a".repeat(200)).len(), SHOWN_MAX + 3);
    }

    #[test]
    fn times_are_in_words() {
        assert_eq!(
            [span(0), span(1), span(61), span(7200), span(259_200)],
            ["0 seconds", "1 second", "1 minute", "2 hours", "3 days"]
        );
        assert_eq!([seconds(Duration::from_secs(5)), seconds(Duration::from_millis(2460))], ["5 s", "2.5 s"]);
        assert_eq!([millis(Duration::from_micros(1234)), millis(Duration::from_millis(45))], ["1.2", "45"]);
    }

    #[test]
    fn dates_agree_with_date_1() {
        // Left-hand sides from `date -u -d ... +%s`.
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(1_709_251_199), "2024-02-29");
        assert_eq!(date(-86_400), "1969-12-31");
        assert_eq!(date(253_402_300_799), "9999-12-31");
        assert_eq!(date_and_time(1_709_251_199), "2024-02-29 23:59 UTC");
    }

    #[test]
    fn lines_are_short() {
        let wrapped = wrap("one two three four\nfive", "  ", 11);
        assert_eq!(wrapped, "  one two\n  three\n  four\n  five\n");
        assert_eq!(wrap("averyverylongword b", "", 5), "averyverylongword\nb\n");
        assert_eq!(wrap("a\n\nb", "  ", 9), "  a\n\n  b\n");
        assert_eq!(list(&["a".into(), "b".into(), "c".into()]), "a, b and c");
    }
}
