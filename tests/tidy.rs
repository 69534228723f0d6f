//! House rules as a test: which module may import which, how long a file may be, what may not be left in the code.
//!
//! Each rule is a function over the text of one file; the tests at the bottom show that it catches what it should.
//! If a rule is in your way, change it here and give the reason. Do not work around it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/manifest.rs"]
mod manifest;
#[path = "tidy/source.rs"]
mod source;

use source::Source;

/// Lines of code without tests that a file may have.
const MAX_LINES: usize = 500;

/// Files over the limit, each with its current length. A number may only shrink; a new entry needs a reason.
const LONGER: &[(&str, usize)] = &[];

/// Where `unsafe` is allowed.
const UNSAFE: &[&str] = &["src/net/syscall.rs", "src/net/syscall/", "src/xdp/"];

/// Where code may print: only the command line writes to the terminal.
const PRINTS: &[&str] = &["src/cli/", "src/main.rs"];

/// Where a TLS client may accept any certificate: `hallpass load --insecure`, tests, and `hallpass doctor`, which reports what
/// is wrong with a certificate instead of ending the handshake. `hallpass sessions` accepts exactly the certificate in the file
/// that the operator names, whatever its name.
const ANY_CERTIFICATE: &[&str] = &["src/load/tls.rs", "src/doctor/tls.rs", "src/cli/running/trust.rs"];

/// Modules with `unsafe` code in a submodule, so they cannot forbid it as a whole.
const NOT_FORBIDDING: &[&str] = &["net", "xdp"];

/// Violations in one file: line number and message.
type Findings = Vec<(usize, String)>;

#[test]
fn the_sources_follow_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut report = String::new();
    let mut seen = 0;
    let mut sources = Vec::new();
    for path in files(root) {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else {
            continue; // not UTF-8 text: no rule applies
        };
        seen += 1;
        let mut findings = machine_paths(&text);
        if path.ends_with(".rs") {
            let source = Source::new(&path, &text);
            findings.extend(check(&source, LONGER));
            sources.push(source);
        }
        if path.ends_with("Cargo.toml") {
            findings.extend(manifest::check(&text));
        }
        for (line, message) in findings {
            let _ = writeln!(report, "{path}:{line}: {message}");
        }
    }
    for (path, _) in LONGER.iter().filter(|(path, _)| !root.join(path).is_file()) {
        let _ = writeln!(report, "{path}: this file no longer exists: remove it from LONGER");
    }
    for (path, message) in circles::check(&sources, circles::OPEN) {
        let _ = writeln!(report, "{path}: {message}");
    }
    assert!(seen > 10, "only {seen} files found under {}", root.display());
    assert!(report.is_empty(), "house rules:\n{report}");
}

/// Applies every rule for Rust files.
fn check(source: &Source, longer: &[(&str, usize)]) -> Findings {
    let mut all = Vec::new();
    all.extend(leftovers(source));
    all.extend(attributes(source));
    all.extend(channels(source));
    all.extend(sleeps(source));
    if source.path.starts_with("src/") {
        all.extend(imports::check(source));
        all.extend(unsafe_code(source));
        all.extend(prints(source));
        all.extend(unchecked_certificates(source));
        all.extend(length(source, longer));
    }
    all
}

/// Returns the files to check, relative to the root, sorted.
fn files(root: &Path) -> Vec<String> {
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in ["src", "tests", "benches", "fuzz/fuzz_targets", "fuzz/src", ".ci", "conf", "certs"] {
        walk(&root.join(dir), &mut found);
    }
    let top = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    found.extend(top.filter(|p| p.extension().is_some_and(|e| e == "md" || e == "toml")));
    let relative = |p: &PathBuf| p.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
    let mut names: Vec<String> = found.iter().filter_map(relative).collect();
    names.sort();
    names
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn within(path: &str, places: &[&str]) -> bool {
    places.iter().any(|p| path == *p || (p.ends_with('/') && path.starts_with(p)))
}

/// Returns a finding for each occurrence of a word of `list` in the code, with its message.
fn words(source: &Source, list: &[(&str, &str)]) -> Findings {
    let hits = |&(word, message): &(&str, &str)| -> Findings {
        source::find_word(&source.code, word)
            .map(|at| (source.line(at), format!("`{word}`: {message}")))
            .collect()
    };
    list.iter().flat_map(hits).collect()
}

fn leftovers(source: &Source) -> Findings {
    let mut all = words(
        source,
        &[
            ("dbg!", "remove it"),
            ("todo!", "finish it"),
            ("unimplemented!", "finish it"),
            ("#[ignore", "let the test run, or delete it"),
        ],
    );
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")] {
        let hits = source::find_word(&source.comments, word);
        all.extend(
            hits.map(|at| (source.line(at), format!("{word} in a comment: do it, or delete the comment"))),
        );
    }
    all
}

fn prints(source: &Source) -> Findings {
    if within(&source.path, PRINTS) {
        return Vec::new();
    }
    let found = words(
        source,
        &[
            ("println!", "use tracing"),
            ("print!", "use tracing"),
            ("eprintln!", "use tracing"),
            ("eprint!", "use tracing"),
        ],
    );
    found.into_iter().filter(|(line, _)| *line < source.tests_from).collect()
}

/// A client that accepts any certificate cannot detect an attacker between it and the server.
fn unchecked_certificates(source: &Source) -> Findings {
    if within(&source.path, ANY_CERTIFICATE) {
        return Vec::new();
    }
    let message = "only load/tls.rs and doctor/tls.rs may accept any certificate";
    let found = words(source, &[("dangerous", message), ("AnyCertificate", message)]);
    found.into_iter().filter(|(line, _)| *line < source.tests_from).collect()
}

fn unsafe_code(source: &Source) -> Findings {
    let mut all = Vec::new();
    if !within(&source.path, UNSAFE) {
        all = words(source, &[("unsafe", "allowed only in net/syscall and xdp")]);
    }
    let parts: Vec<&str> = source.path.split('/').collect();
    let top_module = match parts[..] {
        ["src", module, "mod.rs"] => Some(module),
        _ => None,
    };
    let forbids = source.code.contains("#![forbid(unsafe_code)]");
    if top_module.is_some_and(|m| !NOT_FORBIDDING.contains(&m)) && !forbids {
        all.push((1, "begin the module with #![forbid(unsafe_code)]".into()));
    }
    if source.path == "src/lib.rs" && !source.code.contains("#![deny(unsafe_code)]") && !forbids {
        all.push((1, "begin the crate with #![deny(unsafe_code)]".into()));
    }
    all
}

/// An `allow` or `expect` attribute must have a reason: inside it, or in a comment on its line or the line before.
fn attributes(source: &Source) -> Findings {
    let mut all = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let text = line.trim_start();
        let silences =
            ["#[allow(", "#![allow(", "#[expect(", "#![expect("].iter().any(|a| text.starts_with(a));
        if !silences {
            continue;
        }
        let comment = |n: usize| source.comments.lines().nth(n).is_some_and(|c| !c.trim().is_empty());
        let statement: String = source.code.lines().skip(number).take(4).collect();
        let end = statement.find(")]").unwrap_or(statement.len());
        let reason_inside = statement[..end].contains("reason =");
        if !(reason_inside || comment(number) || (number > 0 && comment(number - 1))) {
            all.push((number + 1, "a silenced lint needs its reason beside it".into()));
        }
    }
    all
}

fn channels(source: &Source) -> Findings {
    let mut all = words(
        source,
        &[("unbounded_channel", "every queue has a limit"), ("unbounded", "every queue has a limit")],
    );
    // Without an argument it is std's channel, which has no limit; tokio's takes a capacity.
    for call in ["mpsc::channel()", "mpsc::channel::<"] {
        let hits = source.code.match_indices(call).map(|(at, _)| at);
        let endless = hits.filter(|&at| {
            let rest = &source.code[at..];
            rest.find('(').is_some_and(|open| rest[open + 1..].trim_start().starts_with(')'))
        });
        all.extend(
            endless.map(|at| (source.line(at), "std's channel has no limit: use sync_channel".into())),
        );
    }
    all
}

/// A test must wait for an event, not for time to pass.
fn sleeps(source: &Source) -> Findings {
    let mut all = words(source, &[("thread::sleep", "wait for the event itself")]);
    let in_tests = words(source, &[("time::sleep", "a test waits for the event itself")]);
    all.extend(in_tests.into_iter().filter(|(line, _)| *line >= source.tests_from));
    all
}

/// Compares the lines of code before the tests with the limit, or with the file's entry in `longer`.
fn length(source: &Source, longer: &[(&str, usize)]) -> Findings {
    let lines = source.lines().min(source.tests_from - 1);
    let listed = longer.iter().find(|(path, _)| *path == source.path).map(|(_, lines)| *lines);
    let message = match listed {
        None if lines > MAX_LINES => {
            format!("{lines} lines without tests, the limit is {MAX_LINES}: split the file")
        }
        Some(most) if lines > most => {
            format!("{lines} lines, up from {most}: a file in LONGER may only shrink")
        }
        Some(_) if lines <= MAX_LINES => "within the limit now: remove it from LONGER".into(),
        Some(most) if lines < most => {
            format!("shrunk from {most} to {lines} lines: lower its number in LONGER")
        }
        _ => return Vec::new(),
    };
    vec![(1, message)]
}

/// Finds paths of a developer's machine, which no file of the project may contain.
fn machine_paths(text: &str) -> Findings {
    let marks =
        [concat!("/wo", "rk/"), concat!("/tmp/", "wt/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let hit = |line: &str| {
        marks.iter().find(|m| {
            // Only at the start of a path: `/net/work/` is another path.
            line.match_indices(**m)
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.'))
        })
    };
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(n, line)| hit(line).map(|m| (n + 1, format!("a path of a developer's machine: {m}"))))
        .collect()
}

/// Returns the findings for a snippet, as `line: message`.
#[cfg(test)]
fn messages(path: &str, text: &str) -> Vec<String> {
    let findings = check(&Source::new(path, text), &[]);
    findings.into_iter().map(|(line, message)| format!("{line}: {message}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn caught(path: &str, text: &str, line: usize, part: &str) {
        let messages = messages(path, text);
        let hit = messages.iter().any(|m| m.starts_with(&format!("{line}: ")) && m.contains(part));
        assert!(hit, "{path}: {text:?} should be caught for {part:?}, but: {messages:?}");
    }

    #[track_caller]
    fn fine(path: &str, text: &str) {
        assert_eq!(messages(path, text), Vec::<String>::new(), "{path}: {text:?}");
    }

    #[test]
    fn leftovers() {
        caught("src/turn/a.rs", "\nfn f() { dbg!(1); }", 2, "dbg!");
        caught("src/turn/a.rs", "fn f() { todo!() }", 1, "todo!");
        caught("src/turn/a.rs", "fn f() { unimplemented!() }", 1, "unimplemented!");
        caught("src/turn/a.rs", "fn f() { println!(\"x\") }", 1, "println!");
        caught("src/turn/a.rs", concat!("\n\n// TO", "DO: later"), 3, "comment");
        caught("src/turn/a.rs", concat!("/* FIX", "ME */"), 1, "comment");
        caught("tests/a.rs", "#[ignore]\nfn f() {}", 1, "ignore");
        fine("src/cli/a.rs", "fn f() { println!(\"x\") }");
        fine("src/turn/a.rs", "// about todo! and dbg!\nfn f() { g(\"dbg!(1) println!()\") }");
        fine("src/turn/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { println!(\"x\") } }");
    }

    #[test]
    fn unsafe_code() {
        caught("src/turn/a.rs", "fn f() { unsafe { g() } }", 1, "unsafe");
        caught("src/turn/mod.rs", "//! Words.", 1, "forbid");
        caught("src/lib.rs", "pub mod turn;", 1, "deny");
        fine("src/turn/mod.rs", "#![forbid(unsafe_code)]");
        fine("src/net/mod.rs", "mod syscall;");
        fine("src/net/syscall.rs", "fn f() { unsafe { g() } }");
        fine("src/turn/a.rs", "// nothing unsafe here\nlet s = \"unsafe\";");
    }

    #[test]
    fn unchecked_certificates() {
        caught("src/site/a.rs", "fn f() { config.dangerous(); }", 1, "certificate");
        caught("src/cli/a.rs", "use crate::load::tls::AnyCertificate;", 1, "certificate");
        fine("src/load/tls.rs", "fn f() { config.dangerous(); }");
        fine("src/cert/tests.rs", "use crate::load::tls::AnyCertificate;");
    }

    #[test]
    fn silenced_lints() {
        caught("src/turn/a.rs", "#[allow(dead_code)]\nfn f() {}", 1, "reason");
        caught("src/turn/a.rs", "fn f() {}\n#[expect(\n    dead_code\n)]\nfn g() {}", 2, "reason");
        caught("tests/a.rs", "#![allow(dead_code)]", 1, "reason");
        fine("src/turn/a.rs", "#[allow(dead_code)] // used by one of two tests\nfn f() {}");
        fine("src/turn/a.rs", "// Used by one of two tests.\n#[allow(dead_code)]\nfn f() {}");
        fine("src/turn/a.rs", "#[expect(dead_code, reason = \"kept for show\")]\nfn f() {}");
    }

    #[test]
    fn unbounded_queues() {
        caught("src/net/a.rs", "fn f() { unbounded_channel(); }", 1, "limit");
        caught("src/net/a.rs", "fn f() { mpsc::channel(); }", 1, "limit");
        caught("src/net/a.rs", "fn f() { std::sync::mpsc::channel::<Vec<u8>>(); }", 1, "limit");
        fine(
            "src/net/a.rs",
            "fn f() { mpsc::channel(16); mpsc::sync_channel::<u8>(4); oneshot::channel(); }",
        );
        fine("src/net/a.rs", "fn f() { mpsc::channel::<u8>(16); }");
    }

    #[test]
    fn sleeping_tests() {
        caught("tests/a.rs", "fn f() { std::thread::sleep(d); }", 1, "event");
        caught("tests/a.rs", "async fn f() { tokio::time::sleep(d).await; }", 1, "event");
        caught(
            "src/net/a.rs",
            "\n#[cfg(test)]\nmod tests { async fn f() { tokio::time::sleep(d).await; } }",
            3,
            "event",
        );
        fine("src/net/a.rs", "async fn f() { tokio::time::sleep(d).await; }");
    }

    #[test]
    fn long_files() {
        let long = |lines: usize| Source::new("src/turn/a.rs", &"fn f() {}\n".repeat(lines));
        assert!(length(&long(500), &[])[..].is_empty());
        assert!(length(&long(501), &[])[0].1.contains("split"));
        let listed = [("src/turn/a.rs", 600)];
        assert!(length(&long(600), &listed).is_empty());
        assert!(length(&long(601), &listed)[0].1.contains("only shrink"));
        assert!(length(&long(590), &listed)[0].1.contains("lower"));
        assert!(length(&long(500), &listed)[0].1.contains("remove it"));
        let tested = "fn f() {}\n".repeat(400) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(400) + "}";
        assert!(length(&Source::new("src/turn/a.rs", &tested), &[]).is_empty());
    }

    #[test]
    fn paths_of_a_machine() {
        assert_eq!(machine_paths(concat!("a\nsee /wo", "rk/x"))[0].0, 2);
        assert_eq!(machine_paths(concat!("`/ho", "me/me/x`")).len(), 1);
        assert!(machine_paths("src/net/worker.rs, ProtectHome=, /etc/hallpass/").is_empty());
        assert!(machine_paths(concat!("net/wo", "rk/x")).is_empty());
    }

    #[test]
    fn dependencies_without_a_reason() {
        let lines = |text: &str| manifest::check(text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines("[dependencies]\na = \"1\" # why\nb = \"2\"\n"), [3]);
        assert_eq!(lines("[dev-dependencies]\na = { version = \"1\", features = [\"#x\"] }"), [2]);
        assert_eq!(lines("[target.'cfg(unix)'.dependencies]\na = \"1\" #"), [2]);
        assert_eq!(lines("[dependencies.a]\nversion = \"1\""), [1]);
        assert_eq!(
            lines("# words\n[dependencies]\n\n# words\na = \"1\" # why\n[profile.release]\nlto = 1"),
            []
        );
    }

    #[test]
    fn imports() {
        caught("src/wire/a.rs", "use crate::turn::Server;", 1, "`wire` may not import `turn`");
        caught("src/wire/a.rs", "use crate::{\n    wire::b,\n    turn::c,\n};", 3, "`turn`");
        caught("src/wire/a.rs", "fn f() { crate::turn::g() }", 1, "`turn`");
        caught("src/wire/a.rs", "use super::super::turn;", 1, "`turn`");
        caught("src/wire/a/b.rs", "use super::super::super::turn::x;", 1, "`turn`");
        caught("src/wire/a.rs", "use tokio::net;", 1, "tokio");
        caught("src/wire/a.rs", "use std::net::UdpSocket;", 1, "UdpSocket");
        caught("src/turn/a.rs", "use crate::config::Config;", 1, "`config`");
        caught("src/turn/a.rs", "use rustls::ServerConfig;", 1, "rustls");
        caught("src/turn/a.rs", "fn f(x: serde::Value) {}", 1, "serde");
        caught("src/turn/a.rs", "use std::time::Instant;", 1, "std::time::Instant");
        caught(
            "src/turn/a.rs",
            "use std::{net::IpAddr, time::{Duration, SystemTime}};",
            1,
            "std::time::SystemTime",
        );
        caught("src/turn/a.rs", "async fn f() {}", 1, "async");
        caught("src/turn/a.rs", "use rand_core::OsRng;", 1, "OsRng");
        caught("src/config/a.rs", "use crate::system::clock;", 1, "`system`");
        caught("src/net/a.rs", "use crate::config::Listen;", 1, "`config`");
        caught("src/net/a.rs", "use axum::Router;", 1, "axum");
        caught("src/admin/a.rs", "use crate::turn::table;", 1, "`turn`");
        caught("src/cli/check.rs", "use crate::net::worker;", 1, "only cli/serve");
        caught("src/strange/a.rs", "use std::fmt;", 1, "no rule");
        caught("src/client/a.rs", "use crate::turn::server::Server;", 1, "`turn`");
        caught("src/client/a.rs", "use crate::turn::time_table;", 1, "`turn`");
        caught("src/client/a.rs", "use std::net::UdpSocket;", 1, "UdpSocket");
        caught("src/load/a.rs", "use crate::net::worker;", 1, "`net`");
        fine(
            "src/wire/a.rs",
            "use super::b;\nuse crate::wire::c;\nuse std::net::SocketAddr;\nuse stun_types::message;",
        );
        fine(
            "src/turn/a.rs",
            "use crate::wire::x;\nuse std::net::IpAddr;\nuse std::time::Duration;\nuse hmac::Hmac;",
        );
        fine("src/turn/a.rs", "// crate::config and tokio::net are far away\nfn f() { \"crate::net::x\" }");
        fine("src/turn/a.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use crate::config::Config; }");
        fine("src/net/a.rs", "use crate::{cert::TlsConfigs, system::clock, turn::Action, wire::demux};");
        fine("src/client/a.rs", "use crate::base::time::Instant;\nuse crate::wire::demux;");
        fine("src/load/a.rs", "use crate::{client::Client, net::syscall::Epoll, base::time::Instant};");
        fine("src/cli/serve.rs", "use crate::{admin, config, net, turn};");
    }
}
