//! What a Hallpass server counts about its limits, read from its `/metrics`.

use std::collections::BTreeMap;

/// The metrics that count by reason what a limit refused or dropped.
const METRICS: [&str; 3] =
    ["hallpass_drops_total", "hallpass_refusals_total", "hallpass_connections_refused_total"];

/// Counters by metric and reason, added up over all other labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<(&'static str, String), u64>);

impl Counters {
    /// Reads the text format of Prometheus; everything but these metrics is ignored.
    pub fn parse(text: &str) -> Self {
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('{') else { continue };
            let Some(&metric) = METRICS.iter().find(|metric| **metric == name) else { continue };
            let Some((labels, value)) = rest.rsplit_once('}') else { continue };
            let reason = labels.split(',').find_map(|label| label.strip_prefix("reason=\""));
            let Some(reason) = reason.and_then(|reason| reason.strip_suffix('"')) else { continue };
            let Ok(value) = value.trim().parse::<f64>() else { continue };
            *all.entry((metric, reason.to_owned())).or_default() += value as u64;
        }
        Self(all)
    }

    /// Returns what was counted since `before`: metric, reason and number, without zeros.
    pub fn since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = (&'static str, &'a str, u64)> {
        self.0.iter().filter_map(|(key, &count)| {
            let more = count.saturating_sub(before.0.get(key).copied().unwrap_or(0));
            (more > 0).then_some((key.0, key.1.as_str(), more))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_added_up_over_other_labels() {
        let before = Counters::parse("hallpass_drops_total{reason=\"throttled\"} 4\n");
        let after = Counters::parse(
            "# TYPE hallpass_drops_total counter\n\
             hallpass_drops_total{reason=\"throttled\"} 4\n\
             hallpass_drops_total{reason=\"user_over_rate\"} 12\n\
             hallpass_refusals_total{host=\"a\",reason=\"user_allocations\",transport=\"udp\"} 2\n\
             hallpass_refusals_total{host=\"b\",reason=\"user_allocations\",transport=\"tls\"} 3\n\
             hallpass_requests_total{reason=\"none\"} 9\nhallpass_ready 1\nbroken{\n",
        );
        let more: Vec<_> = after.since(&before).collect();
        assert_eq!(
            more,
            [
                ("hallpass_drops_total", "user_over_rate", 12),
                ("hallpass_refusals_total", "user_allocations", 5)
            ]
        );
        assert_eq!(before.since(&after).count(), 0);
    }
}
