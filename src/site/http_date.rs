//! Dates as HTTP writes them (RFC 9110 section 5.6.7).

use crate::base::calendar::civil;

/// The first of January 1970 was a Thursday.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Writes a time in seconds since 1970.
pub(super) fn text(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil(i64::try_from(days).unwrap_or_default());
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[(month - 1).rem_euclid(12) as usize]);
    let (hours, minutes) = (seconds % 86_400 / 3600, seconds % 3600 / 60);
    format!("{weekday}, {day:02} {month} {year} {hours:02}:{minutes:02}:{:02} GMT", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_that_of_the_standard() {
        assert_eq!(text(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
    }
}
