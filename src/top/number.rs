//! Numbers in few characters.

use super::board::Bound;

/// Returns a number with at most six characters: `0.4`, `12`, `9999`, `12.3k`, `4.5M`.
pub fn short(value: f64) -> String {
    match value.max(0.0) {
        value if value < 0.05 => "0".to_owned(),
        value if value < 9.95 => format!("{value:.1}").trim_end_matches(".0").to_owned(),
        value if value < 9999.5 => format!("{value:.0}"),
        value if value < 999_950.0 => format!("{:.1}k", value / 1e3),
        value if value < 999_950_000.0 => format!("{:.1}M", value / 1e6),
        value => format!("{:.1}G", value / 1e9),
    }
}

/// Returns bits per second with their unit: `0`, `1.5 kbit/s`, `41.2 Mbit/s`.
pub fn bits(value: f64) -> String {
    match value.max(0.0) {
        value if value < 0.5 => "0".to_owned(),
        value if value < 999.5 => format!("{value:.0} bit/s"),
        value if value < 9_950.0 => format!("{:.1} kbit/s", value / 1e3),
        value if value < 999_500.0 => format!("{:.0} kbit/s", value / 1e3),
        value if value < 999_950_000.0 => format!("{:.1} Mbit/s", value / 1e6),
        value => format!("{:.1} Gbit/s", value / 1e9),
    }
}

/// Returns a number that is not known yet as a dash.
pub fn or_dash(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), format)
}

/// Returns a share of 1 in percent.
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Returns a time in milliseconds without needless digits: `0.1 ms`, `2.5 ms`, `50 ms`.
pub fn millis(seconds: f64) -> String {
    format!("{} ms", (seconds * 1e5).round() / 100.0)
}

/// Returns a duration that is known by its bucket: `<0.1 ms`, `>250 ms`.
pub fn bound(bound: Bound) -> String {
    match bound {
        Bound::Below(seconds) => format!("<{}", millis(seconds)),
        Bound::Above(seconds) => format!(">{}", millis(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_characters() {
        let numbers = [0.0, 0.04, 0.44, 2.99, 9.96, 9999.0, 12_345.0, 4.5e6, 7e9, -1.0, f64::NAN];
        let expected = ["0", "0", "0.4", "3", "10", "9999", "12.3k", "4.5M", "7.0G", "0", "0"];
        assert_eq!(numbers.map(short), expected);
        let expected = ["0", "999 bit/s", "1.5 kbit/s", "64 kbit/s", "41.2 Mbit/s", "2.0 Gbit/s"];
        assert_eq!([0.0, 999.0, 1500.0, 64_000.0, 41.23e6, 2e9].map(bits), expected);
        assert_eq!([0.0001, 0.0025, 0.05].map(millis), ["0.1 ms", "2.5 ms", "50 ms"]);
        assert_eq!((or_dash(None, short), percent(0.815)), ("-".to_owned(), "82 %".to_owned()));
        assert_eq!([Bound::Below(0.005), Bound::Above(0.25)].map(bound), ["<5 ms", ">250 ms"]);
    }
}
