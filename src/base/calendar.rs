//! The proleptic Gregorian calendar. Years are counted from March, so that the leap day is the last day of a year.

/// Converts days since 1970-01-01 to year, month and day.
pub fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01; 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Returns a time in seconds since 1970 as a date to the minute, such as `2026-11-30 09:28 UTC`.
pub fn utc(seconds: u64) -> String {
    let (year, month, day) = civil(i64::try_from(seconds / 86_400).unwrap_or(i64::MAX / 86_400));
    let minutes = seconds % 86_400 / 60;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

/// Days from 1970-01-01 to a date.
pub fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_that_people_can_read() {
        // date -u -d @1796030902
        assert_eq!(utc(1_796_030_902), "2026-11-30 09:28 UTC");
    }

    #[test]
    fn both_directions_agree() {
        // From `date -u -d ... +%s`, divided by 86,400.
        assert_eq!((civil(0), civil(19_782)), ((1970, 1, 1), (2024, 2, 29)));
        for day in (-800_000..3_000_000).step_by(97) {
            let (year, month, of_month) = civil(day);
            assert_eq!(days_since_1970(year, month, of_month), day);
        }
    }
}
