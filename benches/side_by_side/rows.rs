//! The rows of the benchmark.

/// Packet loss up to which a run counts as lossless.
pub const LOSS_MAX: f64 = 0.001;

/// The figure of a run that is compared.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    /// Packets or operations per second.
    Rate,
    /// Microseconds of the server's CPU for each packet or operation.
    CpuPerUnit,
    /// KiB of resident memory for each idle allocation.
    RssEach,
    /// MiB of resident memory that remain.
    RssKept,
    /// CPU per packet, divided by the same with fewer allocations at the same total rate.
    Growth {
        /// The load with fewer allocations.
        fewer: &'static [&'static str],
    },
}

impl Figure {
    pub fn unit(self) -> &'static str {
        match self {
            Figure::Rate => "a second",
            Figure::CpuPerUnit => "us of CPU each",
            Figure::RssEach => "KiB each",
            Figure::RssKept => "MiB kept",
            Figure::Growth { .. } => "times the CPU of 100",
        }
    }
}

/// One row of the table.
pub struct Row {
    pub name: &'static str,
    pub figure: Figure,
    /// The goal for the ratio, or for the figure of Hallpass if it has a unit.
    pub goal: &'static str,
    /// The arguments of `hallpass load`.
    pub load: &'static [&'static str],
    /// Whether the server is limited to half of its core.
    pub half: bool,
}

const fn row(name: &'static str, figure: Figure, goal: &'static str, load: &'static [&'static str]) -> Row {
    Row { name, figure, goal, load, half: false }
}

/// Creates a row with the server limited to half a core.
const fn half(name: &'static str, goal: &'static str, load: &'static [&'static str]) -> Row {
    Row { name, figure: Rate, goal, load, half: true }
}

use Figure::{CpuPerUnit, Growth, Rate, RssEach, RssKept};

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    half("udp, one flow, half a core", ">= 1.8", &["traffic", "--allocations", "1", "--saturate"]),
    half("udp, 1,000 allocations, half a core", ">= 1.8", &["traffic", "--allocations", "1000", "--saturate"]),
    half("udp video, highest rate, half a core", ">= 1.8", &["traffic", "--allocations", "100", "--size", "1100", "--burst", "5", "--saturate"]),
    row("udp, one flow", Rate, "(generator)", &["traffic", "--allocations", "1", "--saturate"]),
    row("udp, one flow of trains", Rate, ">= 1.8", &["traffic", "--allocations", "1", "--saturate", "--burst", "16", "--trains"]),
    row("udp, 1,000 allocations", Rate, "(generator)", &["traffic", "--allocations", "1000", "--saturate"]),
    row("udp, 1,000 x (25+25)/s of 160 B", CpuPerUnit, "<= 0.75", &["traffic", "--allocations", "1000"]),
    row("udp video down, 100 x 500/s, bursts of 5 x 1,100 B", CpuPerUnit, "<= 0.6", &["traffic", "--allocations", "100", "--from-client", "0", "--from-peer", "500", "--size", "1100", "--burst", "5"]),
    row("udp video up, the same", CpuPerUnit, "<= 0.6", &["traffic", "--allocations", "100", "--from-client", "500", "--from-peer", "0", "--size", "1100", "--burst", "5"]),
    row("udp video, highest rate", Rate, "(generator)", &["traffic", "--allocations", "100", "--size", "1100", "--burst", "5", "--saturate"]),
    row("udp video of trains, highest rate", Rate, ">= 1.8", &["traffic", "--allocations", "100", "--size", "1100", "--burst", "5", "--saturate", "--trains"]),
    row("udp, one flow, cost at saturation", CpuPerUnit, "<= 0.56", &["traffic", "--allocations", "1", "--saturate"]),
    row("udp, Send and Data indications, 1,000 x (25+25)/s", CpuPerUnit, "", &["traffic", "--allocations", "1000", "--via", "indication"]),
    row("tcp, 1,000 clients, 25,000/s", CpuPerUnit, "<= 0.6", &["traffic", "--allocations", "1000", "--transport", "tcp", "--from-client", "12.5", "--from-peer", "12.5"]),
    row("tls, 1,000 clients, 25,000/s", CpuPerUnit, "<= 0.6", &["traffic", "--allocations", "1000", "--transport", "tls", "--from-client", "12.5", "--from-peer", "12.5"]),
    row("tls video down, 100 x 500/s, bursts of 5 x 1,100 B", CpuPerUnit, "<= 0.55", &["traffic", "--allocations", "100", "--transport", "tls", "--from-client", "0", "--from-peer", "500", "--size", "1100", "--burst", "5"]),
    row("tls video up, the same", CpuPerUnit, "<= 0.65", &["traffic", "--allocations", "100", "--transport", "tls", "--from-client", "500", "--from-peer", "0", "--size", "1100", "--burst", "5"]),
    row("set-ups, udp", Rate, ">= 2.5", &["setups"]),
    row("set-ups, udp, cost", CpuPerUnit, "70 us", &["setups", "--concurrency", "8"]),
    row("set-ups, tls", Rate, ">= 1.8", &["setups", "--transport", "tls"]),
    row("Bindings", Rate, ">= 1.3", &["bindings", "--concurrency", "64"]),
    row("TLS handshakes", Rate, ">= 1.3", &["handshakes", "--concurrency", "16"]),
    row("idle UDP allocations, 10,000", RssEach, "<= 0.15", &["idle", "--allocations", "10000"]),
    row("idle TLS clients, 2,000", RssEach, "<= 0.25", &["idle", "--allocations", "2000", "--transport", "tls"]),
    row("50,000 allocations come and gone", RssKept, "12 MiB", &["churn", "--allocations", "10000", "--total", "50000"]),
    row("10,000 allocations against 100 at 40,000/s", Growth { fewer: &["traffic", "--allocations", "100", "--from-client", "200", "--from-peer", "200"] }, "1.2 times", &["traffic", "--allocations", "10000", "--from-client", "2", "--from-peer", "2"]),
];
