//! Hallpass beside Debian's coturn on this machine: `cargo bench --bench side_by_side`.
//!
//! The server under test has core 0 to itself, `hallpass load` core 1. Every row is measured with fresh servers, one
//! after the other (A B A B ...), round by round; the table shows medians, their spread and the ratio. See
//! benches/README.md for the method and for what the figures were.

mod quota;
mod rows;
mod server;

use std::process::{Command, ExitCode};

use quota::HalfCore;
use rows::{Figure, ROWS, Row};
use serde_json::Value;
use server::{Kind, Server};

/// The options after `--`.
struct Choice {
    rounds: usize,
    seconds: f64,
    only: Option<String>,
}

fn choice() -> Result<Choice, String> {
    let mut choice = Choice { rounds: 5, seconds: 2.0, only: None };
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => choice.rounds = value()?.parse().map_err(|_| "--rounds: a number")?,
            "--seconds" => choice.seconds = value()?.parse().map_err(|_| "--seconds: a number")?,
            "--only" => choice.only = Some(value()?),
            _ => return Err(format!("{arg} is unknown; there are --rounds N, --seconds S and --only NAME")),
        }
    }
    Ok(choice)
}

fn main() -> ExitCode {
    let choice = match choice() {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| choice.only.as_ref().is_none_or(|only| row.name.contains(only))).collect();
    let mut figures: Vec<[Vec<Measured>; 2]> = rows.iter().map(|_| Default::default()).collect();
    for round in 1..=choice.rounds {
        for (row, figures) in rows.iter().zip(&mut figures) {
            for (kind, figures) in [Kind::Hallpass, Kind::Coturn].into_iter().zip(figures) {
                eprintln!("round {round} of {}: {} with {}", choice.rounds, row.name, kind.name());
                match measure(row, kind, choice.seconds) {
                    Ok(measured) => figures.push(measured),
                    Err(error) => eprintln!("  {error}"),
                }
            }
        }
    }
    print(&rows, &figures);
    ExitCode::SUCCESS
}

/// The results of one run.
#[derive(Clone, Copy, Debug)]
struct Measured {
    figure: f64,
    p99: Option<f64>,
    /// The share of time in which the generator was busy: near 1 it is the bottleneck.
    busy: f64,
}

fn measure(row: &Row, kind: Kind, seconds: f64) -> Result<Measured, String> {
    // Declared first, so dropped last: its control group can be removed once the server has ended.
    let _half;
    let server = Server::start(kind)?;
    if row.half {
        _half = HalfCore::of(server.pid())
            .map_err(|error| format!("cannot limit the server to half a core: {error}"))?;
    }
    let load = |args: &[&str], seconds: f64| -> Result<Value, String> {
        let transport = if args.contains(&"tls") || args[0] == "handshakes" { "tls" } else { "udp" };
        let output = Command::new("taskset")
            .args(["-c", "1", env!("CARGO_BIN_EXE_hallpass"), "load"])
            .args(args)
            .args(["--server", &server.address(transport), "--secret", server::SECRET, "--insecure"])
            .args(["--tls-name", "relay.test", "--json", "--quiet"])
            .args(["--server-pid", &server.pid().to_string()])
            .args(["--duration", &seconds.to_string(), "--warm-up", "0.5"])
            .output()
            .map_err(|error| format!("taskset: {error}"))?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        match report["errors"].as_object() {
            Some(errors) if errors.is_empty() => Ok(report),
            _ => Err(report["errors"].to_string()),
        }
    };
    let number = |value: &Value| value.as_f64().ok_or_else(|| "a figure is missing".to_owned());
    let report = load(row.load, seconds)?;
    let lossless = report["loss_ratio"].as_f64().is_none_or(|loss| loss <= rows::LOSS_MAX);
    if !lossless {
        return Err(format!("lost {}", report["loss_ratio"]));
    }
    let rss = |when: &str| number(&report["server"][when]);
    let figure = match row.figure {
        Figure::Rate => number(report.get("packets_per_second").unwrap_or(&report["operations_per_second"]))?,
        Figure::CpuPerUnit => number(&report["server"]["cpu_us_per_unit"])?,
        Figure::RssEach => {
            (rss("rss_during")? - rss("rss_before")?) / 1024.0 / number(&report["allocations"])?
        }
        Figure::RssKept => (rss("rss_after")? - rss("rss_before")?) / 1024.0 / 1024.0,
        Figure::Growth { fewer } => {
            let few = load(fewer, seconds)?;
            number(&report["server"]["cpu_us_per_unit"])? / number(&few["server"]["cpu_us_per_unit"])?
        }
    };
    let busy = number(&report["generator"]["busy"])?;
    Ok(Measured { figure, p99: report["latency_us"]["p99"].as_f64(), busy })
}

fn print(rows: &[&Row], figures: &[[Vec<Measured>; 2]]) {
    println!("| row | Hallpass | coturn | ratio | goal | p99 us, Hallpass / coturn | generator busy |");
    println!("|---|---|---|---|---|---|---|");
    for (row, [ours, theirs]) in rows.iter().zip(figures) {
        let of = |measured: &[Measured]| spread(measured.iter().map(|m| m.figure).collect());
        let ratio = match (median(ours, |m| m.figure), median(theirs, |m| m.figure)) {
            (Some(a), Some(b)) if b != 0.0 => format!("{:.2}", a / b),
            _ => "-".to_owned(),
        };
        let p99 = |measured: &[Measured]| {
            median(measured, |m| m.p99.unwrap_or(f64::NAN)).map_or("-".to_owned(), |p99| format!("{p99:.0}"))
        };
        let busy = |measured: &[Measured]| median(measured, |m| m.busy * 100.0).unwrap_or(f64::NAN);
        println!(
            "| {} ({}) | {} | {} | {ratio} | {} | {} / {} | {:.0} % / {:.0} % |",
            row.name,
            row.figure.unit(),
            of(ours),
            of(theirs),
            row.goal,
            p99(ours),
            p99(theirs),
            busy(ours),
            busy(theirs),
        );
    }
}

fn median(measured: &[Measured], of: impl Fn(&Measured) -> f64) -> Option<f64> {
    let mut values: Vec<f64> = measured.iter().map(of).filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Median, minimum and maximum.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let digits = |value: f64| {
        if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
    };
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(middle), Some(most)) => {
            format!("{} ({} to {})", digits(*middle), digits(*least), digits(*most))
        }
        _ => "failed".to_owned(),
    }
}
