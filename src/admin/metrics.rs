//! Metrics in the text format of Prometheus. At each scrape every [`MetricSource`] adds its metrics.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Most series in one scrape. Further series are dropped and counted in `hallpass_metrics_series_dropped`.
const MAX_SERIES: usize = 10_000;
/// Longest label value in bytes.
const MAX_LABEL: usize = 128;

/// How often a time was measured, by its length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    /// Upper bounds, ascending, each with the number of times up to it.
    pub buckets: Vec<(Duration, u64)>,
    /// The number of all times.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

/// A source of metrics. It is called at each scrape on the control thread, so it must not wait for a worker.
pub trait MetricSource: Send + Sync {
    /// Adds its metrics.
    fn collect(&self, out: &mut Snapshot);
}

/// The metrics of one scrape.
///
/// Label values must come from a small set that the operator knows (host names, transports, reasons). User ids and
/// addresses are never labels.
#[derive(Debug, Default)]
pub struct Snapshot {
    families: BTreeMap<&'static str, Family>,
    /// Lines of the text format, which are series for Prometheus.
    series: usize,
    dropped: u64,
}

impl Snapshot {
    /// Adds a number that only grows; by convention its name ends in `_total`. Values with the same name and labels are
    /// added up.
    pub fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.add(name, help, MetricType::COUNTER, labels, Value::Number(value as f64));
    }

    /// Adds a histogram of times; by convention its name ends in `_seconds`. It counts as one series for each bucket and three
    /// more. The same name and labels may be added once.
    pub fn histogram(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], times: Times) {
        self.add(name, help, MetricType::HISTOGRAM, labels, Value::Times(times));
    }

    /// Adds a time that only grows, in seconds; by convention its name ends in `_seconds_total`.
    pub fn counter_of_time(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&str, &str)],
        value: Duration,
    ) {
        self.add(name, help, MetricType::COUNTER, labels, Value::Number(value.as_secs_f64()));
    }

    /// Adds a number that goes up and down. Values with the same name and labels are added up.
    pub fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.add(name, help, MetricType::GAUGE, labels, Value::Number(value));
    }

    /// Renders `/metrics` (exposition format 0.0.4), sorted by name and labels.
    ///
    /// # Errors
    /// The error of the encoder.
    pub fn render(mut self) -> Result<String, prometheus::Error> {
        let dropped = self.dropped;
        if dropped > 0 {
            // This series exceeds the limit on purpose: it shows that others are missing.
            self.series = 0;
            let help =
                "Series dropped from this scrape: over the limit, an invalid name, or a name with two types.";
            self.gauge("hallpass_metrics_series_dropped", help, &[], dropped as f64);
        }
        let families: Vec<_> = self.families.into_iter().map(|(name, f)| f.into_proto(name)).collect();
        TextEncoder::new().encode_to_string(&families)
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
        labels: &[(&str, &str)],
        value: Value,
    ) {
        let room = self.series + value.series() <= MAX_SERIES;
        let family = match self.families.entry(name) {
            Entry::Occupied(family) if family.get().kind == kind => family.into_mut(),
            Entry::Vacant(place) if room && is_name(name) => {
                place.insert(Family { kind, help: help.to_owned(), series: BTreeMap::new() })
            }
            _ => {
                self.dropped += 1;
                return;
            }
        };
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), cut(value).to_owned())).collect();
        match family.series.entry(labels) {
            Entry::Occupied(mut known) => match (known.get_mut(), value) {
                (Value::Number(sum), Value::Number(value)) => *sum += value,
                _ => self.dropped += 1,
            },
            Entry::Vacant(place) if room => {
                self.series += value.series();
                place.insert(value);
            }
            Entry::Vacant(_) => self.dropped += 1,
        }
    }
}

/// The label names and values of one series.
type Labels = Vec<(String, String)>;

/// The value of one series of a counter or gauge, or of one histogram.
#[derive(Debug)]
enum Value {
    Number(f64),
    Times(Times),
}

impl Value {
    /// The number of lines in the text format: a histogram has one for each bucket, and `+Inf`, `_sum` and `_count`.
    fn series(&self) -> usize {
        match self {
            Self::Number(_) => 1,
            Self::Times(times) => times.buckets.len() + 3,
        }
    }
}

#[derive(Debug)]
struct Family {
    kind: MetricType,
    help: String,
    series: BTreeMap<Labels, Value>,
}

impl Family {
    fn into_proto(self, name: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help);
        family.set_field_type(self.kind);
        family.set_metric(self.series.into_iter().map(|(l, value)| metric(l, self.kind, value)).collect());
        family
    }
}

fn metric(labels: Labels, kind: MetricType, value: Value) -> Metric {
    let pair = |(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name);
        pair.set_value(value);
        pair
    };
    let mut metric = Metric::from_label(labels.into_iter().map(pair).collect());
    match value {
        Value::Times(times) => metric.set_histogram(times.into_proto()),
        Value::Number(value) if kind == MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        Value::Number(value) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

impl Times {
    fn into_proto(self) -> Histogram {
        let bucket = |(bound, count): (Duration, u64)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = Histogram::default();
        histogram.set_bucket(self.buckets.into_iter().map(bucket).collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum.as_secs_f64());
        histogram
    }
}

/// Collects the metrics of every source and renders them.
///
/// # Errors
/// The error of the encoder.
pub fn render(sources: &[std::sync::Arc<dyn MetricSource>]) -> Result<String, prometheus::Error> {
    let mut snapshot = Snapshot::default();
    sources.iter().for_each(|source| source.collect(&mut snapshot));
    snapshot.render()
}

/// Shortens a label value to [`MAX_LABEL`] bytes.
fn cut(value: &str) -> &str {
    let end = (0..=MAX_LABEL.min(value.len())).rev().find(|&at| value.is_char_boundary(at));
    &value[..end.unwrap_or(0)]
}

/// Returns whether Prometheus accepts the name of a metric.
fn is_name(name: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphabetic() || matches!(c, b'_' | b':');
    name.bytes().next().is_some_and(letter) && name.bytes().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_the_text_format() {
        let mut snapshot = Snapshot::default();
        snapshot.counter("hallpass_drops_total", "packets not relayed", &[("reason", "permission")], 3);
        snapshot.gauge("hallpass_allocations", "live allocations", &[], 12.0);
        snapshot.counter("hallpass_drops_total", "packets not relayed", &[("reason", "a\"b\\c\nd")], 1);
        snapshot.counter("hallpass_drops_total", "packets not relayed", &[("reason", "permission")], 4);
        snapshot.counter_of_time("process_cpu_seconds_total", "time", &[], Duration::from_millis(1250));
        let expected = "\
# HELP hallpass_allocations live allocations
# TYPE hallpass_allocations gauge
hallpass_allocations 12
# HELP hallpass_drops_total packets not relayed
# TYPE hallpass_drops_total counter
hallpass_drops_total{reason=\"a\\\"b\\\\c\\nd\"} 1
hallpass_drops_total{reason=\"permission\"} 7
# HELP process_cpu_seconds_total time
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.25
";
        assert_eq!(snapshot.render().unwrap(), expected);
        assert_eq!(Snapshot::default().render().unwrap(), "");
    }

    #[test]
    fn a_histogram_has_a_line_for_each_bucket() {
        let times = |count| Times {
            buckets: vec![(Duration::from_micros(100), 3), (Duration::from_millis(5), 4)],
            count,
            sum: Duration::from_micros(12_500),
        };
        let mut snapshot = Snapshot::default();
        snapshot.histogram("turn_seconds", "turns", &[("worker", "0")], times(5));
        snapshot.histogram("turn_seconds", "turns", &[("worker", "0")], times(9));
        let expected = "\
# HELP hallpass_metrics_series_dropped Series dropped from this scrape: over the limit, an invalid name, or a name with two types.
# TYPE hallpass_metrics_series_dropped gauge
hallpass_metrics_series_dropped 1
# HELP turn_seconds turns
# TYPE turn_seconds histogram
turn_seconds_bucket{worker=\"0\",le=\"0.0001\"} 3
turn_seconds_bucket{worker=\"0\",le=\"0.005\"} 4
turn_seconds_bucket{worker=\"0\",le=\"+Inf\"} 5
turn_seconds_sum{worker=\"0\"} 0.0125
turn_seconds_count{worker=\"0\"} 5
";
        assert_eq!(snapshot.render().unwrap(), expected);
        let mut full = Snapshot::default();
        (0..MAX_SERIES - 4).for_each(|i| full.counter("a_total", "a", &[("i", &i.to_string())], 1));
        full.histogram("turn_seconds", "five lines", &[], times(1));
        full.gauge("still", "room", &[], 1.0);
        let text = full.render().unwrap();
        assert!(text.contains("still 1\n") && !text.contains("turn_seconds"));
    }

    #[test]
    fn series_above_the_limit_or_with_two_types_are_dropped_and_counted() {
        let mut snapshot = Snapshot::default();
        (0..MAX_SERIES + 5).for_each(|i| snapshot.counter("a_total", "a", &[("i", &i.to_string())], 1));
        snapshot.gauge("a_total", "now a gauge", &[], 1.0);
        snapshot.gauge("late", "no room", &[], 1.0);
        let text = snapshot.render().unwrap();
        assert_eq!(text.lines().filter(|l| l.starts_with("a_total{")).count(), MAX_SERIES);
        assert!(text.ends_with("hallpass_metrics_series_dropped 7\n"), "{}", &text[text.len() - 200..]);

        let mut snapshot = Snapshot::default();
        snapshot.counter("9 lives", "no name", &[], 1);
        snapshot.counter("b_total", "b", &[("l", &"ä".repeat(100))], 1);
        let text = snapshot.render().unwrap();
        assert!(text.contains(&format!("b_total{{l=\"{}\"}} 1", "ä".repeat(64))), "{text}");
        assert!(text.contains("series_dropped 1\n") && !text.contains("lives"));
    }
}
