//! Which module may import which. The direction is `cli`, then the modules around the core, then `turn`, then `wire`.

use std::collections::BTreeMap;

use crate::Findings;
use crate::source::{Source, find_word};

/// What a top-level module of `src` may use.
struct Rule {
    module: &'static str,
    /// Our other modules, or parts of them.
    ours: &'static [&'static str],
    /// Crates and paths it may not name.
    never: &'static [&'static str],
}

/// Everything that reaches outside the program: sockets, files, threads, clocks, randomness.
const WORLD: &[&str] = &[
    "async",
    "axum",
    "clap",
    "if_addrs",
    "libc",
    "OsRng",
    "prometheus",
    "rustix",
    "rustls",
    "serde",
    "serde_json",
    "socket2",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "toml",
    "tracing_subscriber",
];

const RULES: &[Rule] = &[
    Rule { module: "base", ours: &[], never: WORLD },
    Rule { module: "wire", ours: &[], never: WORLD },
    Rule { module: "turn", ours: &["wire"], never: WORLD },
    Rule {
        module: "config",
        ours: &["system::pipe"],
        never: &["tokio", "rustls", "axum", "prometheus", "socket2", "libc"],
    },
    Rule {
        module: "coturn",
        // Text in, text out: reading and writing files is for the command. serde_json writes the report.
        ours: &["config"],
        never: &[
            "async",
            "axum",
            "clap",
            "libc",
            "prometheus",
            "rustix",
            "rustls",
            "socket2",
            "std::env",
            "std::fs",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::os",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio",
        ],
    },
    Rule { module: "system", ours: &[], never: &["axum", "rustls", "prometheus"] },
    Rule { module: "cert", ours: &["system"], never: &["tokio", "axum", "prometheus", "socket2", "libc"] },
    Rule {
        module: "net",
        ours: &["cert", "system", "turn", "wire"],
        never: &[
            "axum",
            "prometheus",
            "serde",
            "toml",
            "clap",
            "std::time::Instant",
            "std::time::SystemTime",
        ],
    },
    Rule { module: "client", ours: &["turn::identity::rest", "wire"], never: WORLD },
    Rule {
        module: "load",
        ours: &["cert", "client", "net::syscall", "wire"],
        never: &[
            "axum",
            "clap",
            "prometheus",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio",
            "toml",
            "async",
        ],
    },
    Rule {
        module: "doctor",
        ours: &["cert", "client", "system", "wire"],
        never: &["axum", "clap", "libc", "prometheus", "std::time::Instant", "std::time::SystemTime", "toml"],
    },
    Rule {
        module: "acme",
        // The renewal of certificates. serde_json writes its state.
        ours: &["cert", "system"],
        never: &["axum", "clap", "libc", "prometheus", "std::time::Instant", "std::time::SystemTime", "toml"],
    },
    Rule {
        module: "redirect",
        // Plain HTTP. It is handed open listeners.
        ours: &[],
        never: &[
            "axum",
            "clap",
            "libc",
            "prometheus",
            "rustls",
            "std::fs",
            "std::time::Instant",
            "std::time::SystemTime",
            "toml",
        ],
    },
    Rule { module: "admin", ours: &["system"], never: &["rustls", "socket2", "libc", "toml", "clap"] },
    Rule {
        module: "top",
        // What `hallpass top` shows. serde_json reads the answers of the server.
        ours: &[],
        never: &[
            "async",
            "axum",
            "clap",
            "libc",
            "prometheus",
            "rustix",
            "rustls",
            "std::env",
            "std::fs",
            "std::net",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio",
            "toml",
        ],
    },
    Rule {
        module: "site",
        ours: &["system", "wire"],
        // It is handed accepted connections: it does not listen, and TLS is terminated before it.
        never: &["toml", "clap", "prometheus", "rustls", "std::net::TcpListener", "tokio::net::TcpListener"],
    },
    Rule { module: "fleet", ours: &["system", "turn"], never: &["toml", "clap", "axum"] },
    Rule { module: "xdp", ours: &["system", "turn"], never: &["toml", "clap", "axum", "rustls"] },
    Rule {
        module: "cli",
        ours: &[
            "acme", "admin", "cert", "client", "config", "coturn", "doctor", "fleet", "load", "net",
            "redirect", "site", "system", "top", "turn", "wire", "xdp",
        ],
        never: &[],
    },
];

/// Modules that only `cli/serve` may import within `cli`.
const WIRED_BY_SERVE: &[&str] = &["acme", "admin", "fleet", "net", "redirect", "site", "xdp"];

/// Crates that `wire` may use: it only parses and writes messages. `crc` computes FINGERPRINT, `subtle` compares
/// integrity values in constant time.
const WIRE_CRATES: &[&str] =
    &["std", "core", "stun_types", "bytes", "crc", "subtle", "crate", "super", "self"];

pub fn check(source: &Source) -> Findings {
    let parts: Vec<&str> = source.path.split('/').collect();
    let module = match parts[..] {
        ["src", "lib.rs" | "main.rs"] => return Vec::new(),
        ["src", file] => file.trim_end_matches(".rs"),
        ["src", module, ..] => module,
        _ => return Vec::new(),
    };
    let Some(rule) = RULES.iter().find(|r| r.module == module) else {
        return vec![(1, format!("there is no rule for what `{module}` may import: add it to RULES"))];
    };
    let code = source.tested_code();
    let mut all = Vec::new();
    let depth = module_depth(&parts);
    for (at, path) in paths(code) {
        let line = source.line(at);
        if let Some(inside) = inside_crate(&path, depth) {
            let target = inside.split("::").next().unwrap_or_default();
            let known = RULES.iter().any(|r| r.module == target);
            let allowed =
                |part: &&str| inside.strip_prefix(*part).is_some_and(|rest| !rest.starts_with(is_name));
            if known && target != module && target != "base" && !rule.ours.iter().any(allowed) {
                all.push((line, format!("`{module}` may not import `{target}`: {inside}")));
            }
            let serves = source.path.starts_with("src/cli/serve");
            if module == "cli" && !serves && WIRED_BY_SERVE.contains(&target) {
                all.push((line, format!("only cli/serve may import `{target}`")));
            }
        }
        for never in rule.never {
            let hit = path == *never || path.strip_prefix(never).is_some_and(|rest| rest.starts_with("::"));
            if hit || path.ends_with(&format!("::{never}")) {
                all.push((line, format!("`{module}` may not use {never}")));
            }
        }
    }
    for bare in rule.never.iter().filter(|n| matches!(**n, "async" | "OsRng")) {
        all.extend(
            find_word(code, bare).map(|at| (source.line(at), format!("`{module}` may not use {bare}"))),
        );
    }
    if module == "wire" {
        for (at, path) in uses(code) {
            let head = path.split("::").next().unwrap_or_default();
            // `use Name::*` of an enum in the same file begins with a capital.
            if !WIRE_CRATES.contains(&head)
                && !head.starts_with(char::is_uppercase)
                && !names_child(code, head)
            {
                all.push((source.line(at), format!("`wire` may not use the crate {head}")));
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Returns whether the file declares a module or macro `head`, so that `use head` does not name a crate.
fn names_child(code: &str, head: &str) -> bool {
    let declares = |before: &str| before.ends_with("mod") || before.ends_with("macro_rules!");
    find_word(code, head).any(|at| declares(code[..at].trim_end()))
}

/// Returns how many `super` lead from the file's module to the root of the crate.
fn module_depth(parts: &[&str]) -> usize {
    let inside = parts.len() - 1; // without `src`
    if parts.last() == Some(&"mod.rs") { inside - 1 } else { inside }
}

/// Returns `path` relative to the root of the crate; `None` if it does not start there.
fn inside_crate(path: &str, depth: usize) -> Option<&str> {
    let mut rest = path;
    if let Some(inside) = rest.strip_prefix("crate::").or_else(|| rest.strip_prefix("hallpass::")) {
        return Some(inside);
    }
    let mut ups = 0;
    while let Some(inside) = rest.strip_prefix("super::") {
        rest = inside;
        ups += 1;
    }
    (ups >= depth && ups > 0).then_some(rest)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns every path in the code with its offset: the leaves of `use` trees, and the paths in all other code.
pub fn paths(code: &str) -> Vec<(usize, String)> {
    let mut all = uses(code);
    let bytes = code.as_bytes();
    let name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut at = 0;
    while at < bytes.len() {
        let fresh = name(bytes[at]) && (at == 0 || !name(bytes[at - 1]));
        if !fresh {
            at += 1;
            continue;
        }
        let mut end = at;
        while end < bytes.len() && (name(bytes[end]) || code[end..].starts_with("::")) {
            end += if name(bytes[end]) { 1 } else { 2 };
        }
        // The head of a `use` tree is not a path, only its leaves are; and `pub(in path)` imports nothing.
        let is_head = code[at..end].ends_with("::") && code[end..].starts_with(['{', '*']);
        if code[at..end].contains("::") && !is_head && !code[..at].ends_with("(in ") {
            all.push((at, code[at..end].trim_end_matches(':').to_owned()));
        }
        at = end;
    }
    all
}

/// Returns the leaves of every `use` tree.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    for at in find_word(code, "use") {
        let starts_item =
            code[..at].trim_end().ends_with([';', '}', '{', ')', ']']) || code[..at].trim().is_empty();
        let public = code[..at].trim_end().ends_with("pub");
        let Some(end) = code[at..].find(';') else { continue };
        if starts_item || public {
            tree(code, at + "use".len(), at + end, "", &mut all);
        }
    }
    all
}

/// Maps each name that a `use` brings in to its full path. Aliases are ignored: `a::b as c` is listed under `b`.
pub fn named_uses(code: &str) -> BTreeMap<String, String> {
    let leaf = |path: &str| path.rsplit("::").next().unwrap_or_default().to_owned();
    uses(code).into_iter().map(|(_, path)| (leaf(&path), path)).collect()
}

/// Expands a tree: `a::{b, c::d as e}` becomes `a::b` and `a::c::d`.
fn tree(code: &str, from: usize, to: usize, prefix: &str, all: &mut Vec<(usize, String)>) {
    let text = &code[from..to];
    let Some(open) = text.find('{') else {
        let leaf = text.split(" as ").next().unwrap_or_default().trim();
        let at = from + (text.len() - text.trim_start().len());
        if !leaf.is_empty() {
            all.push((at, format!("{prefix}{leaf}").trim_start_matches("::").to_owned()));
        }
        return;
    };
    let head = format!("{prefix}{}", text[..open].trim());
    let inside = from + open + 1;
    let close = code[inside..to].rfind('}').map_or(to, |i| inside + i);
    let (mut start, mut nested) = (inside, 0);
    for (offset, c) in code[inside..close].char_indices() {
        match c {
            '{' => nested += 1,
            '}' => nested -= 1,
            ',' if nested == 0 => {
                tree(code, start, inside + offset, &head, all);
                start = inside + offset + 1;
            }
            _ => {}
        }
    }
    tree(code, start, close, &head, all);
}

#[test]
fn use_trees_are_spelt_out() {
    let leaves = |code: &str| uses(code).into_iter().map(|(_, p)| p).collect::<Vec<_>>();
    assert_eq!(leaves("use a::{b, c::{d as e, f}, g::*};"), ["a::b", "a::c::d", "a::c::f", "a::g::*"]);
    assert_eq!(leaves("fn f() {}\npub use ::x::y;\nuse z;"), ["x::y", "z"]);
    assert_eq!(inside_crate("super::super::turn::x", 2), Some("turn::x"));
    assert_eq!(inside_crate("super::b::x", 2), None);
    assert_eq!(module_depth(&["src", "wire", "mod.rs"]), 1);
    assert_eq!(module_depth(&["src", "wire", "a", "b.rs"]), 3);
}
