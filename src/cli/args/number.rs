//! Parsers of numbers with a unit.

/// Parses a duration in seconds, up to one day.
///
/// # Errors
/// A message for the user if `text` is not such a number.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Parses the lifetime of credentials in seconds, up to ten years.
///
/// # Errors
/// A message for the user if `text` is not such a number.
pub fn lifetime(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(seconds) if (1..=315_360_000).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 1 to 315360000, such as 3600 for an hour".to_owned()),
    }
}

/// Parses the packets per second of one allocation, up to 10 million.
///
/// # Errors
/// A message for the user if `text` is not such a number.
pub fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("write a number of packets per second from 0 to 10000000".to_owned()),
    }
}

/// Parses a share in per cent.
///
/// # Errors
/// A message for the user if `text` is not such a number.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a number of per cent from 0 to 100".to_owned()),
    }
}

/// Parses a latency in milliseconds, up to a minute.
///
/// # Errors
/// A message for the user if `text` is not such a number.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    match text.trim_end_matches("ms").trim().parse() {
        Ok(ms) if (0.001..=60_000.0).contains(&ms) => Ok(ms),
        _ => Err("write a number of milliseconds from 0.001 to 60000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_have_their_unit_and_have_bounds() {
        assert_eq!((percent("0.5 %"), milliseconds("20ms")), (Ok(0.5), Ok(20.0)));
        assert_eq!((seconds("1.5"), rate("0")), (Ok(1.5), Ok(0.0)));
        assert_eq!(lifetime("3600"), Ok(3600));
        assert!(["1h", "0", "-5"].iter().all(|text| lifetime(text).is_err_and(|told| told.contains("3600"))));
        assert!(percent("101").is_err() && milliseconds("0").is_err() && milliseconds("NaN").is_err());
        assert!(seconds("-1").is_err() && rate("1e9").is_err());
    }
}
