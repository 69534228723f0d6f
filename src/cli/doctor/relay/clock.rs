//! This machine's clock: user names expire by it.

use super::site::{Site, untested};
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::text::span;
use crate::doctor::time_source::Offset;

/// A difference from which on short-lived credentials may fail, in seconds.
const WARN: u64 = 10;
/// A difference from which on pages that were opened a while ago lose their calls, in seconds.
const ERROR: u64 = 300;

/// Judges the difference of the clocks.
pub fn check(site: &Site<'_>, seen: &Seen) -> Check {
    let mut check = Check::of("clock");
    match (&site.args.clock, seen.clock.as_ref()) {
        (Some(source), Some(Ok(Offset(offset)))) => {
            let seconds = offset.unsigned_abs();
            let ahead = if *offset < 0 { "behind" } else { "ahead of" };
            if seconds < WARN {
                check.facts.push(format!("agrees with that of {source}"));
                return check;
            }
            let effect = if *offset < 0 {
                "credentials stay valid longer than they should"
            } else {
                "the relay refuses user names as expired that are not"
            };
            let text =
                format!("this machine's clock is {} {ahead} that of {source}: {effect}", span(seconds));
            // A clock that is behind refuses nobody.
            let make = if seconds < ERROR || *offset < 0 { Finding::warning } else { Finding::error };
            check.findings.push(make(
                "clock_off",
                text,
                "set it, and keep it right: timedatectl set-ntp true".to_owned(),
            ));
        }
        // It was asked for, so it is more than a note.
        (Some(source), Some(Err(cause))) => check.findings.push(Finding::warning(
            "clock_not_compared",
            format!("this machine's clock was not compared: no time came from {}: {cause}", source.url()),
            format!(
                "try another machine, or compare by hand: run date -u here and on {source} at the same time"
            ),
        )),
        _ => check.findings.push(untested(
            "clock_not_compared",
            "this machine's clock was compared with no other",
            "write the BigBlueButton server as --clock http://HOST, or a time server as --clock ntp://HOST",
        )),
    }
    check
}
