//! The outcome as one HTML page without scripts and without anything from elsewhere.

use std::fmt::Write;

use super::outcome::{Moment, Outcome, reasons};
use super::plot::{Line, Mark, Plot, escape, svg};
use super::step::{Step, Verdict};
use super::table::{digits, introduction, judgement, lost};

/// The style sheet. The colours of both themes have at least the contrast that WCAG 2.2 AA asks for.
const STYLE: &str = include_str!("page.css");

/// Returns the page.
pub fn page(outcome: &Outcome) -> String {
    let setting = &outcome.setting;
    let mut out = String::new();
    let server = escape(&setting.server);
    let verdict = if outcome.is_answered() { "yes" } else { "no" };
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>How many pupils does {server} carry?</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>How many pupils does {server} carry?</h1>\n\
         <p class=\"answer {verdict}\">{}</p>\n",
        escape(&outcome.answer())
    );
    let notes = outcome.notes();
    if !notes.is_empty() {
        let items: Vec<String> = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
        let _ = writeln!(out, "<ul class=\"notes\">\n{}\n</ul>", items.join("\n"));
    }
    section(&mut out, "pupils", "By number of pupils", "", &over_pupils(outcome));
    let hint = "The shaded spans are the measurements, with their number of pupils above them. Between them pupils join.";
    section(&mut out, "time", "Over time", hint, &over_time(outcome));
    measurements(&mut out, outcome);
    out.push_str("<section aria-labelledby=\"how\">\n<h2 id=\"how\">What was done</h2>\n");
    for paragraph in introduction(setting).iter().skip(1) {
        let _ = writeln!(out, "<p>{}</p>", escape(paragraph));
    }
    let mix: Vec<String> = setting.mix.iter().map(|(name, share)| format!("{name} ({share} %)")).collect();
    let place = if setting.is_local { "the relay's machine" } else { "another machine than the relay's" };
    out.push_str("<dl>\n");
    for (name, text) in [
        ("Relay", setting.server.as_str()),
        ("Transports", &mix.join(", ")),
        ("Begun", &setting.began),
        ("Load from", &format!("{place}: {}", setting.machine)),
        ("Program", &setting.program),
    ] {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(text));
    }
    out.push_str("</dl>\n</section>\n</main>\n</body>\n</html>\n");
    out
}

/// Adds a section with plots; nothing if there are none.
fn section(out: &mut String, id: &str, title: &str, hint: &str, plots: &[Plot]) {
    if plots.is_empty() {
        return;
    }
    let _ = writeln!(out, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>");
    if !hint.is_empty() {
        let _ = writeln!(out, "<p>{}</p>", escape(hint));
    }
    out.push_str("<div class=\"plots\">\n");
    for plot in plots {
        let _ = writeln!(out, "<figure>\n<figcaption>{}", escape(&plot.title));
        for (index, line) in plot.lines.iter().enumerate().filter(|_| plot.lines.len() > 1) {
            let _ = writeln!(
                out,
                "<span class=\"key\"><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><line class=\"line l{index}\" \
                 x1=\"0\" x2=\"26\" y1=\"5\" y2=\"5\"/></svg>{}</span>",
                escape(line.name)
            );
        }
        let _ = write!(out, "</figcaption>\n{}</figure>\n", svg(plot));
    }
    out.push_str("</div>\n");
    let has = |mark: Mark| {
        plots.iter().flat_map(|plot| &plot.lines).any(|line| line.marks.iter().any(|(.., m)| *m == mark))
    };
    if has(Mark::Good) || has(Mark::Broken) {
        let mut words = Vec::new();
        words.extend(has(Mark::Good).then_some("\u{25cf} within the bounds"));
        words.extend(has(Mark::Broken).then_some("\u{2715} not within the bounds"));
        words.extend(has(Mark::Again).then_some("\u{25cb} measured again"));
        let _ = writeln!(out, "<p class=\"marks\">{}</p>", words.join(" &nbsp; "));
    }
    out.push_str("</section>\n");
}

/// A figure of a measurement; `None` if it is unknown.
type Figure<T> = fn(&T) -> Option<f64>;

fn over_pupils(outcome: &Outcome) -> Vec<Plot> {
    let rising: Vec<&Step> = outcome.steps.iter().filter(|step| !step.is_confirmation).collect();
    if rising.len() < 2 {
        return Vec::new();
    }
    let line = |name: &'static str, figure: Figure<Step>, has_marks: bool| {
        let points = rising.iter().map(|step| (f64::from(step.pupils), figure(step))).collect();
        let mark = |step: &Step| match (step.is_good(), step.is_confirmation) {
            (false, _) => Mark::Broken,
            (true, true) => Mark::Again,
            (true, false) => Mark::Good,
        };
        let marks = outcome.steps.iter().filter(|_| has_marks);
        let marks =
            marks.filter_map(|step| Some((f64::from(step.pupils), figure(step)?, mark(step)))).collect();
        Line { name, points, marks }
    };
    let plot = |id, title, unit, lines| plain(id, title, ["pupils", unit], lines);
    let bounds = &outcome.setting.bounds;
    let mut all = vec![
        Plot {
            bound: Some((bounds.loss * 100.0, "bound".to_owned())),
            ..plot("pl", "Lost packets, %", "%", vec![line("lost", |step| Some(step.loss() * 100.0), true)])
        },
        Plot {
            bound: Some((bounds.latency.as_secs_f64() * 1e3, "bound of 99 %".to_owned())),
            is_logarithmic: true,
            ..plot(
                "pd",
                "Latency one way, ms",
                "ms",
                vec![
                    line("99 %", |step| Some(step.latency?.p99 / 1e3), true),
                    line("median", |step| Some(step.latency?.p50 / 1e3), false),
                ],
            )
        },
    ];
    if rising.iter().any(|step| step.server.is_some()) {
        let lines = vec![
            line("relay", |step| Some(step.server?.cores), true),
            line("load generator", |step| Some(step.generator.busy), false),
        ];
        all.push(plot("pc", "Processor, cores in use", "cores", lines));
    }
    all.push(plot(
        "pb",
        "Relayed, Mbit/s of payload",
        "Mbit/s",
        vec![line("relayed", |step| Some(step.mbit()), true)],
    ));
    all
}

/// A plot of these lines alone.
fn plain(id: &'static str, title: &str, axes: [&'static str; 2], lines: Vec<Line>) -> Plot {
    Plot {
        id,
        title: title.to_owned(),
        description: describe(axes[0], axes[1], &lines),
        axes,
        is_logarithmic: false,
        lines,
        bound: None,
        spans: Vec::new(),
    }
}

fn over_time(outcome: &Outcome) -> Vec<Plot> {
    let spans: Vec<(f64, f64, String)> = outcome
        .steps
        .iter()
        .map(|step| {
            let from = step.began.as_secs_f64();
            (from, from + step.elapsed.as_secs_f64(), step.pupils.to_string())
        })
        .collect();
    let line = |name: &'static str, figure: Figure<Moment>| {
        let points = outcome.moments.iter().enumerate();
        // A second is shown at its middle.
        let points = points.map(|(second, moment)| (second as f64 + 0.5, figure(moment))).collect();
        Line { name, points, marks: Vec::new() }
    };
    let plot =
        |id, title, unit, lines| Plot { spans: spans.clone(), ..plain(id, title, ["seconds", unit], lines) };
    let loss = |moment: &Moment| {
        let packets = moment.packets;
        let lost = packets.sent.saturating_sub(packets.received);
        (packets.sent > 0).then(|| lost as f64 / packets.sent as f64 * 100.0)
    };
    let bounds = &outcome.setting.bounds;
    let mut all = vec![
        Plot {
            bound: Some((bounds.loss * 100.0, "bound".to_owned())),
            ..plot("tl", "Lost packets, %", "%", vec![line("lost", loss)])
        },
        Plot {
            bound: Some((bounds.latency.as_secs_f64() * 1e3, "bound of 99 %".to_owned())),
            is_logarithmic: true,
            ..plot(
                "td",
                "Latency one way, ms",
                "ms",
                vec![
                    line("99 %", |moment| Some(moment.packets.latency?.1 / 1e3)),
                    line("median", |moment| Some(moment.packets.latency?.0 / 1e3)),
                ],
            )
        },
    ];
    if outcome.moments.iter().any(|moment| moment.server_cpu.is_some()) {
        all.push(plot(
            "tc",
            "Processor of the relay, cores in use",
            "cores",
            vec![line("relay", |moment| moment.server_cpu)],
        ));
    }
    let mbit = |moment: &Moment| Some(moment.packets.bytes as f64 * 8.0 / 1e6);
    all.push(plot("tb", "Relayed, Mbit/s of payload", "Mbit/s", vec![line("relayed", mbit)]));
    all
}

/// Describes lines in words: their first, last and largest value.
fn describe(of: &str, unit: &str, lines: &[Line]) -> String {
    let one = |line: &Line| {
        let known: Vec<(f64, f64)> = line.points.iter().filter_map(|(x, y)| Some((*x, (*y)?))).collect();
        let (Some(first), Some(last)) = (known.first(), known.last()) else {
            return format!("{}: unknown.", line.name);
        };
        let peak = known.iter().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap_or(last);
        format!(
            "{}: {} {unit} at {:.0} {of}, {} {unit} at {:.0} {of}, at most {} {unit} at {:.0} {of}.",
            line.name,
            digits(first.1),
            first.0,
            digits(last.1),
            last.0,
            digits(peak.1),
            peak.0
        )
    };
    lines.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn measurements(out: &mut String, outcome: &Outcome) {
    out.push_str(
        "<section aria-labelledby=\"all\">\n<h2 id=\"all\">Measurements</h2>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"all\">\n<table>\n<thead>\n<tr>",
    );
    for name in [
        "step",
        "pupils",
        "Mbit/s",
        "packets/s",
        "lost",
        "median, ms",
        "99&nbsp;%, ms",
        "largest, ms",
        "joins, median ms",
        "relay, cores",
        "relay, MiB",
        "generator busy",
        "result",
    ] {
        let _ = write!(out, "<th scope=\"col\">{name}</th>");
    }
    out.push_str("</tr>\n</thead>\n<tbody>\n");
    for (index, step) in outcome.steps.iter().enumerate() {
        let ms = |us: Option<f64>| us.map_or("\u{2013}".to_owned(), |us| digits(us / 1e3));
        let (cpu, rss) = match step.server {
            Some(server) => (format!("{:.2}", server.cores), (server.rss >> 20).to_string()),
            None => ("\u{2013}".to_owned(), "\u{2013}".to_owned()),
        };
        let class = if step.is_good() { "" } else { " class=\"bad\"" };
        let _ = write!(out, "<tr{class}>");
        for text in [
            (index + 1).to_string(),
            step.pupils.to_string(),
            digits(step.mbit()),
            format!("{:.0}", step.packets_per_second()),
            lost(step.loss()),
            ms(step.latency.map(|latency| latency.p50)),
            ms(step.latency.map(|latency| latency.p99)),
            ms(step.latency.map(|latency| latency.max)),
            ms(step.join_time.map(|time| time.p50)),
            cpu,
            rss,
            format!("{:.0} %", step.generator.busy * 100.0),
            judgement(step).to_owned(),
        ] {
            let _ = write!(out, "<td>{}</td>", escape(&text));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
    for (index, step) in outcome.steps.iter().enumerate() {
        if let Verdict::Broken { breaks, .. } = &step.verdict {
            let why = reasons(breaks, &outcome.setting.bounds);
            let _ = writeln!(out, "<p>Step {}, {} pupils: {}.</p>", index + 1, step.pupils, escape(&why));
        }
        for (text, count) in step.errors.iter().take(5) {
            let _ = writeln!(out, "<p>Step {}, error, {count} times: {}</p>", index + 1, escape(text));
        }
    }
    out.push_str("</section>\n");
}
