//! What the time in the name of a login says about the clocks.

use super::diagnosis::Diagnosis;
use super::finding::{Finding, finding};
use super::login::LIFETIME;
use super::text::span;

/// Seconds beyond the usual lifetime from which on a clock may be wrong. A time zone is no reason: names have the time of UTC.
const TOLERANCE: u64 = 3_600;

/// The largest error of a clock that was set to local time in place of UTC, in seconds. Larger ones are rare, and a wrong password is
/// not.
const CLOCK_ERROR_MAX: u64 = 14 * 3_600;

/// Adds a note behind the verdict. `left`: for how many seconds the name is still valid by this computer's clock.
pub fn add_note(diagnosis: &mut Diagnosis, left: Option<u64>) {
    let is_refused = diagnosis.findings.first().is_some_and(|verdict| verdict.code == "wrong_credentials");
    let note = left.and_then(|left| if is_refused { refused(left) } else { ahead(left) });
    if let Some(note) = note {
        diagnosis.findings.insert(diagnosis.findings.len().min(1), note);
    }
}

fn refused(left: u64) -> Option<Finding> {
    let text = format!(
        "Or the relay's clock is ahead by more than {}, for which the login is still valid by this computer's clock: for the relay \
         it has expired then. `date -u` on both tells.",
        span(left)
    );
    (left <= CLOCK_ERROR_MAX).then(|| finding("relay_clock", text))
}

fn ahead(left: u64) -> Option<Finding> {
    let text = format!(
        "By this computer's clock, the login is valid for another {}. If it was made for a day, as by hallpass credentials, one of \
         the two clocks is wrong; if that of the relay is ahead, it refuses the users of servers whose clock is right. `date -u` on \
         both tells.",
        span(left)
    );
    (left > LIFETIME + TOLERANCE).then(|| finding("login_valid_long", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(verdict: &'static str, left: Option<u64>) -> Vec<&'static str> {
        let findings = vec![finding(verdict, "."), finding("data_not_tested", ".")];
        let mut diagnosis = Diagnosis { works: true, findings, addressee: None };
        add_note(&mut diagnosis, left);
        diagnosis.findings.iter().map(|finding| finding.code).collect()
    }

    /// A relay whose clock is 25 hours ahead issues a login that this computer takes for one of 49 hours.
    #[test]
    fn a_login_shows_that_a_clock_is_wrong() {
        assert_eq!(noted("works", Some(49 * 3_600)), ["works", "login_valid_long", "data_not_tested"]);
        assert_eq!(noted("works", Some(LIFETIME)), ["works", "data_not_tested"]);
        assert_eq!(noted("works", None), ["works", "data_not_tested"]);
        let refused = noted("wrong_credentials", Some(3_600));
        assert_eq!(refused, ["wrong_credentials", "relay_clock", "data_not_tested"]);
        // Of a login for a day, the password is wrong much more often than a clock is a day ahead.
        let refused = noted("wrong_credentials", Some(LIFETIME - 60));
        assert_eq!(refused, ["wrong_credentials", "data_not_tested"]);
        assert_eq!(noted("wrong_credentials", None), ["wrong_credentials", "data_not_tested"]);
    }
}
