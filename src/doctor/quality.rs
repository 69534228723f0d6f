//! How well a way carries media, if it does.

use super::finding::{Finding, finding};
use super::outcome::Outcome;
use super::text::millis;

/// Loss and round trip from which on calls suffer (ITU-T G.114 for the delay, which is half of a round trip).
const LOSS: f64 = 0.02;
const TRIP_MS: f64 = 300.0;

/// Loss and delay of the best rung that works, if calls suffer from them.
pub(super) fn quality(best: &Outcome) -> Option<Finding> {
    let exchange = best.exchange?;
    let (loss, median) = (exchange.loss(), exchange.trip.map(|[_, median, _]| median));
    let slow = median.filter(|trip| trip.as_secs_f64() * 1e3 > TRIP_MS);
    let text = match (loss > LOSS, slow) {
        (false, None) => return None,
        (true, None) => format!("{:.0} % of the packets were lost over {}.", loss * 100.0, best.rung),
        (false, Some(trip)) => {
            format!("The way to the relay and back takes {} ms over {}.", millis(trip), best.rung)
        }
        (true, Some(trip)) => format!(
            "{:.0} % of the packets were lost over {}, and the way to the relay and back takes {} ms.",
            loss * 100.0,
            best.rung,
            millis(trip)
        ),
    };
    Some(finding("poor_quality", format!("{text} Calls will suffer.")))
}
