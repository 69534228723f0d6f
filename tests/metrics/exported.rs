//! What a running server exports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::client::{Client, Link};
use crate::support::files::Directory;
use crate::support::http::get;
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::tool::run_ok;

/// Metrics that exist although no server of these tests exports them, with the reason.
pub const ABSENT: &[(&str, &str)] = &[
    ("hallpass_metrics_series_dropped", "only with more than 10,000 series; tested in admin::metrics"),
    ("hallpass_allocations_max", "only with limits.allocations_total; tested in cli::serve::metrics::limits"),
];

/// Labels that only a release build has.
pub const OF_RELEASES: &[(&str, &str)] = &[("hallpass_build_info", "revision")];

const LIMIT: Duration = Duration::from_secs(20);

/// All samples of one name.
#[derive(Clone, Debug, Default)]
pub struct Family {
    pub kind: String,
    /// The values of each label.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    pub values: Vec<f64>,
}

/// Families by name.
pub type Families = BTreeMap<String, Family>;

/// Reads `/metrics`.
pub fn scrape(server: &Server) -> String {
    let (status, text) = get(server.admin(), "/metrics");
    assert_eq!(status, 200, "{text}");
    text
}

/// Waits until one sample of `name` fulfils `holds`, and returns it.
pub fn wait_for(server: &Server, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
    let end = Instant::now() + LIMIT;
    loop {
        let families = parse(&scrape(server));
        let values = families.get(name).map_or(&[][..], |family| &family.values);
        if let Some(value) = values.iter().find(|&&value| holds(value)) {
            return *value;
        }
        assert!(Instant::now() < end, "{name} is {values:?}; the log:\n{}", server.log());
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// The endings of a histogram's series.
const OF_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Returns the name under which a series is declared: that of its histogram, or its own.
pub fn base<'a>(families: &Families, name: &'a str) -> &'a str {
    let bases = OF_HISTOGRAM.iter().filter_map(|end| name.strip_suffix(end));
    let is_histogram = |base: &&str| families.get(*base).is_some_and(|family| family.kind == "histogram");
    bases.clone().find(is_histogram).unwrap_or(name)
}

/// Parses the text format of Prometheus. Label values of these tests need no escapes.
pub fn parse(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').expect("name and type");
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if !line.starts_with('#') && !line.is_empty() {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let family = families.entry(base(&families, name).to_owned()).or_default();
            family.values.push(value.parse().unwrap_or_else(|_| panic!("not a number: {line}")));
            for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').expect("label and value");
                let values = family.labels.entry(label.to_owned()).or_default();
                values.insert(value.trim_matches('"').to_owned());
            }
        }
    }
    families
}

/// The text of a server with a session, and of the same server while it drains.
pub static SCRAPES: LazyLock<[String; 2]> = LazyLock::new(|| {
    let files = Directory::new("control");
    let socket = files.path("control.sock");
    let tables = format!("[control]\nsocket = {socket:?}\n");
    let server = Server::start(&Plan { tables, ..Plan::loopback() });
    let link = Link::open(Transport::Tls, server.v4(Transport::Tls));
    let mut client = Client::log_in(link, server.credentials("somebody"));
    client.allocate().expect("an allocation");
    let serving = scrape(&server);
    let program = env!("CARGO_BIN_EXE_hallpass");
    run_ok(program, &["drain", "--no-wait", "--socket", socket.to_str().expect("UTF-8")], LIMIT);
    wait_for(&server, "hallpass_drain_left_seconds", |seconds| seconds > 0.0);
    let draining = scrape(&server);
    drop(client);
    [serving, draining]
});

/// What a server exports, in any state.
pub fn exported() -> Families {
    let [mut families, draining] = SCRAPES.each_ref().map(|text| parse(text));
    for (name, family) in draining {
        families.entry(name).or_insert(family);
    }
    families
}

/// The names of all metrics that exist.
pub fn known() -> BTreeSet<String> {
    let absent = ABSENT.iter().map(|(name, _)| (*name).to_owned());
    let families = exported();
    let histograms = families.iter().filter(|(_, family)| family.kind == "histogram");
    let series = histograms.flat_map(|(name, _)| OF_HISTOGRAM.map(|end| format!("{name}{end}")));
    series.chain(families.keys().cloned()).chain(absent).collect()
}

#[test]
fn an_exception_is_removed_once_the_metric_is_exported() {
    let families = exported();
    for (name, reason) in ABSENT {
        assert!(!families.contains_key(*name), "remove {name} ({reason}) from ABSENT: it is exported");
    }
}

#[test]
fn counters_end_in_total_and_nothing_else_does() {
    for (name, family) in exported() {
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name} is a {}", family.kind);
        assert!(!name.ends_with("_created"), "{name}");
        assert!(name.starts_with("hallpass_") || name.starts_with("process_"), "{name}");
    }
}
