//! When to try: pure rules over times in seconds since 1970.

use std::time::Duration;

use serde_json::{Value, json};

use crate::base::calendar::days_since_1970;

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
/// Let's Encrypt allows five failed validations of a name in an hour.
const FAILURES_PER_HOUR: usize = 5;
/// The pause after the first failure; it doubles with each further one.
const PAUSE_MIN: u64 = MINUTE;
const PAUSE_MAX: u64 = DAY;
/// The pause varies by this part of itself, so that relays that failed together do not return together.
const PAUSE_JITTER: u64 = 4;
/// The longest pause after a success.
const QUIET_MAX: u64 = DAY;
/// Without a hint of the authority, the renewal is at two thirds of the lifetime and up to this part of it later.
const RENEWAL_JITTER: u64 = 20;
/// How long a request to wait is respected. Let's Encrypt's longest limit lasts a week.
const WAIT_MAX: u64 = 7 * DAY;

/// The validity of a certificate, and the window in which its authority wants it renewed (RFC 9773).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
    pub window: Option<(u64, u64)>,
}

impl Validity {
    /// Returns when to renew. `share` of the window or the jitter is chosen at random once for each certificate.
    pub fn renew_at(&self, share: u32) -> u64 {
        let part = |length: u64| (u128::from(length) * u128::from(share) / (1 << 32)) as u64;
        let lifetime = self.not_after.saturating_sub(self.not_before);
        let usual = self.not_before + lifetime / 3 * 2 + part(lifetime / RENEWAL_JITTER);
        match self.window {
            // A window after the end of the certificate would leave clients without one.
            Some((start, end)) if start <= end && start < self.not_after => {
                (start + part(end - start)).min(self.not_after)
            }
            _ => usual,
        }
    }
}

/// The attempts that failed. They are kept over restarts, so that a restart is no way around the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// What was tried: a change of the configuration ends the pause.
    pub what: String,
    /// The last failures, the oldest first.
    failures: Vec<u64>,
    /// Failures since the last success.
    pub in_a_row: u32,
    /// The end of the pause.
    pause_until: u64,
    /// What the authority asked for.
    wait_until: u64,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// The end of the pause after a success.
    quiet_until: u64,
    /// Where the last certificate came from: authority and profile. `None` if that is not known.
    pub issued: Option<String>,
}

impl Attempts {
    /// Counts an attempt as a failure. It is called before the attempt, so that one that is interrupted counts, too.
    pub fn fail(&mut self, now: u64, share: u32) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        let pause = (PAUSE_MIN << (self.in_a_row - 1).min(20)).min(PAUSE_MAX);
        let jitter = (u128::from(pause / PAUSE_JITTER) * u128::from(share) / (1 << 32)) as u64;
        self.pause_until = (now + pause + jitter).min(now + PAUSE_MAX);
        self.failures.push(now);
        let old = self.failures.len().saturating_sub(FAILURES_PER_HOUR);
        self.failures.drain(..old);
    }

    /// Notes why the attempt that was counted failed, and when the authority allows the next one.
    pub fn explain(&mut self, error: String, now: u64, wait_until: Option<u64>) {
        self.error = Some(error);
        self.wait_until = wait_until.map_or(0, |until| until.min(now + WAIT_MAX));
    }

    /// Takes back the failure that was counted last: the authority did not hear of it, so its limits do not count it.
    pub fn forget_last(&mut self) {
        self.failures.pop();
    }

    /// Whether five failures within an hour delay the next attempt, which no reload changes.
    pub fn is_limited(&self, now: u64) -> bool {
        self.failures.len() == FAILURES_PER_HOUR
            && self.failures.first().is_some_and(|first| first + HOUR > now)
    }

    /// Forgets the failures after a success. A certificate that is due at once, because a clock is wrong, is not renewed before
    /// a day, or a third of a shorter `lifetime`: Let's Encrypt issues five with the same names in a week.
    pub fn succeed(&mut self, now: u64, lifetime: u64) {
        let quiet_until = now + QUIET_MAX.min(lifetime / 3);
        *self = Self { what: std::mem::take(&mut self.what), quiet_until, ..Self::default() };
    }

    /// Notes what is tried from now on. Another configuration is tried at once, within the limit of an hour.
    pub fn begin(&mut self, what: &str) {
        if self.what != what {
            what.clone_into(&mut self.what);
            self.skip_pause();
            (self.in_a_row, self.wait_until, self.error) = (0, 0, None);
        }
    }

    /// Ends the pause, because the operator asks for another attempt.
    pub fn skip_pause(&mut self) {
        (self.pause_until, self.quiet_until) = (0, 0);
    }

    /// Returns the earliest time for the next attempt. A time that the clock has jumped back from is not waited for.
    pub fn earliest(&self, now: u64) -> u64 {
        let pause = self.pause_until.min(now + PAUSE_MAX);
        let wait = self.wait_until.min(now + WAIT_MAX);
        let hour = match self.failures.first() {
            Some(first) if self.failures.len() == FAILURES_PER_HOUR => (first + HOUR).min(now + HOUR),
            _ => 0,
        };
        pause.max(wait).max(hour).max(self.quiet_until.min(now + QUIET_MAX))
    }

    /// Returns the text for the state directory.
    pub fn to_json(&self) -> Value {
        json!({
            "what": self.what,
            "failures": self.failures,
            "in_a_row": self.in_a_row,
            "pause_until": self.pause_until,
            "wait_until": self.wait_until,
            "error": self.error,
            "quiet_until": self.quiet_until,
            "issued": self.issued,
        })
    }

    /// Reads what [`Attempts::to_json`] wrote. What is missing counts as nothing.
    pub fn from_json(value: &Value) -> Self {
        let number = |key: &str| value[key].as_u64().unwrap_or(0);
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let failures = value["failures"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        let mut failures: Vec<u64> = failures.collect();
        failures.drain(..failures.len().saturating_sub(FAILURES_PER_HOUR));
        Self {
            what: text("what").unwrap_or_default(),
            failures,
            in_a_row: u32::try_from(number("in_a_row")).unwrap_or(u32::MAX),
            pause_until: number("pause_until"),
            wait_until: number("wait_until"),
            error: text("error"),
            quiet_until: number("quiet_until"),
            issued: text("issued"),
        }
    }
}

/// Reads the value of a Retry-After header (RFC 9110 section 10.2.3): seconds, or a date such as
/// `Fri, 31 Dec 1999 23:59:59 GMT`.
pub fn retry_after(value: &str, now: u64) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(now.saturating_add(seconds));
    }
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = value.split_once(", ")?.1.split(' ');
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let year: i64 = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    let is_date = (1970..10_000).contains(&year) && (1..=31).contains(&day);
    let is_time = [hours, minutes, seconds].iter().all(|part| (0..=60).contains(part));
    let at = days_since_1970(year, month, day) * DAY as i64 + hours * HOUR as i64 + minutes * 60 + seconds;
    (is_date && is_time).then_some(at).and_then(|at| u64::try_from(at).ok())
}

/// Returns how long to sleep before the next look at the clock, which may be set meanwhile.
pub fn nap(now: u64, until: u64) -> Duration {
    Duration::from_secs(until.saturating_sub(now).clamp(1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn renewal_is_at_two_thirds_or_in_the_window() {
        let of = |days: u64, window| Validity { not_before: NOW, not_after: NOW + days * DAY, window };
        assert_eq!(of(90, None).renew_at(0), NOW + 60 * DAY);
        assert_eq!(of(90, None).renew_at(u32::MAX), NOW + 60 * DAY + 90 * DAY / 20 - 1);
        // A certificate of six days: two days are left for failures.
        assert_eq!(of(6, None).renew_at(0), NOW + 4 * DAY);
        let window = Some((NOW + 10 * DAY, NOW + 12 * DAY));
        assert_eq!(of(90, window).renew_at(0), NOW + 10 * DAY);
        assert_eq!(of(90, window).renew_at(1 << 31), NOW + 11 * DAY);
        // The authority wants to revoke it: the window is in the past.
        assert!(of(90, Some((NOW - 2, NOW - 1))).renew_at(7) < NOW);
        // A window that cannot be right.
        assert_eq!(of(90, Some((NOW + 90 * DAY, NOW + 91 * DAY))).renew_at(0), NOW + 60 * DAY);
        assert_eq!(of(90, Some((NOW + 12 * DAY, NOW + 10 * DAY))).renew_at(0), NOW + 60 * DAY);
    }

    #[test]
    fn pauses_grow_from_a_minute_to_a_day_with_five_failures_an_hour_at_most() {
        let (mut attempts, mut now, mut times) = (Attempts::default(), NOW, Vec::new());
        for _ in 0..16 {
            times.push(now - NOW);
            attempts.fail(now, 0);
            now = attempts.earliest(now);
        }
        let minutes: Vec<u64> = times.iter().map(|time| time / MINUTE).collect();
        // The sixth one would come after 31 minutes.
        assert_eq!(minutes[..8], [0, 1, 3, 7, 15, 60, 92, 156], "{minutes:?}");
        assert_eq!(times[15] - times[14], DAY);
        for at in 0..times.len() - 5 {
            assert!(times[at + 5] - times[at] >= HOUR, "{minutes:?}");
        }
        attempts.fail(now, u32::MAX);
        assert_eq!(attempts.earliest(now), now + DAY, "with jitter a day is the most, too");
        let mut one = Attempts::default();
        one.fail(NOW, u32::MAX);
        assert_eq!(one.earliest(NOW), NOW + 74);
    }

    #[test]
    fn an_operator_ends_the_pause_and_not_the_limits() {
        let mut attempts = Attempts::default();
        attempts.begin("a");
        for at in 0..4 {
            attempts.fail(NOW + at, 0);
        }
        attempts.skip_pause();
        assert_eq!(attempts.earliest(NOW + 4), 0);
        attempts.fail(NOW + 4, 0);
        attempts.begin("b");
        assert_eq!((attempts.earliest(NOW + 5), attempts.in_a_row), (NOW + HOUR, 0), "five in an hour");
        attempts.explain("rate limited".into(), NOW + 5, Some(NOW + 5 * HOUR));
        attempts.skip_pause();
        assert_eq!(attempts.earliest(NOW + 5), NOW + 5 * HOUR);
        let kept = Attempts::from_json(&attempts.to_json());
        assert_eq!(kept, attempts);
        // The clock was a year ahead and is right again.
        assert_eq!(attempts.earliest(NOW - 365 * DAY), NOW - 365 * DAY + 7 * DAY);
        attempts.succeed(NOW, 90 * DAY);
        assert_eq!((attempts.earliest(NOW), &*attempts.what), (NOW + DAY, "b"));
        attempts.succeed(NOW, 6 * HOUR);
        assert_eq!(attempts.earliest(NOW), NOW + 2 * HOUR);
        attempts.skip_pause();
        assert_eq!(attempts.earliest(NOW), 0);
        assert_eq!(Attempts::from_json(&Value::Null), Attempts::default());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", NOW), Some(NOW + 120));
        assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT", NOW), Some(946_684_799));
        for wrong in ["", "soon", "Fri, 31 Foo 1999 23:59:59 GMT", "Fri, 31 Dec 1999 23:59", "-5"] {
            assert_eq!(retry_after(wrong, NOW), None, "{wrong}");
        }
    }
}
