//! What the built-in site serves: its own pages, or the operator's files.

use crate::support::beside_others;
use crate::support::files::Directory;
use crate::support::plan::Transport;
use crate::support::server::Server;
use crate::{curl, plan};
use std::fs;
use std::time::Duration;

fn head(protocol: &str, url: &str, more: &[&str]) -> String {
    curl(&[&[protocol, "-i", url], more].concat()).to_ascii_lowercase()
}

#[test]
fn the_pages_have_strict_headers_and_are_compressed_and_kept() {
    let _turn = beside_others();
    let server = Server::start(&plan(
        "[site]\ntitle = \"A <school>\"\nlanguage = \"de\"\nimprint = \"Example Street 1\"",
    ));
    let base = format!("https://{}", server.v4(Transport::Tls));
    let page = curl(&[&format!("{base}/")]);
    assert!(page.contains("<h1>A &lt;school&gt;</h1>") && page.contains("Example Street 1"), "{page}");
    for protocol in ["--http1.1", "--http2"] {
        for path in ["/", "/check/", "/check/main.js", "/nowhere"] {
            let answer = head(protocol, &format!("{base}{path}"), &[]);
            for field in [
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
                "frame-ancestors 'none'",
                "cross-origin-resource-policy: same-origin",
                "default-src 'none'",
            ] {
                assert!(answer.contains(field), "{path}: {field} in {answer}");
            }
            for field in ["unsafe-", "set-cookie", "strict-transport-security", "server:", "hallpass"] {
                assert!(!answer.contains(field), "{path}: {field} in {answer}");
            }
        }
        let script = format!("{base}/check/main.js");
        let first = head(protocol, &script, &["--compressed"]);
        assert!(
            first.contains("content-encoding: gzip") && first.contains("vary: accept-encoding"),
            "{first}"
        );
        assert!(first.contains("import { words"), "curl has decompressed it");
        let plain = head(protocol, &script, &[]);
        let tag = plain.split("etag: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a tag");
        let again = head(protocol, &script, &["-H", &format!("If-None-Match: {tag}")]);
        assert!(again.contains(" 304") && !again.contains("content-length: 5"), "{again}");
        let length = format!("content-length: {}", plain.split_once("\r\n\r\n").expect("a body").1.len());
        let alone = curl(&[protocol, "--head", &script]).to_ascii_lowercase();
        assert!(alone.contains(&length), "{length} in {alone}");
        for (path, kind) in [
            ("/robots.txt", "text/plain"),
            ("/favicon.ico", "image/svg+xml"),
            ("/check/lang/fr.json", "json"),
        ] {
            let answer = head(protocol, &format!("{base}{path}"), &[]);
            assert!(answer.contains(" 200") && answer.contains(kind), "{path}: {answer}");
        }
    }
    // Everything that the page loads, before compression.
    let files = [
        "",
        "style.css",
        "main.js",
        "rung.js",
        "media.js",
        "verdict.js",
        "letter.js",
        "view.js",
        "language.js",
        "lang/en.json",
    ];
    let bytes: usize = files.iter().map(|file| curl(&[&format!("{base}/check/{file}")]).len()).sum();
    assert!((20_000..100_000).contains(&bytes), "{bytes}");
}

#[test]
fn the_operators_files_take_the_place_of_the_pages() {
    let _turn = beside_others();
    let files = Directory::new("site");
    fs::create_dir(files.path("sub")).expect("a directory");
    files.write("index.html", "<!DOCTYPE html><title>mine</title>");
    files.write("sub/index.html", "below");
    files.write(".secret", "hidden");
    let directory = files.path("").display().to_string();
    let server = Server::start(&plan(&format!("[site]\ndirectory = {directory:?}\ncheck = \"/tools/test\"")));
    let base = format!("https://{}", server.v4(Transport::Tls));
    let status = |path: &str| {
        curl(&["--path-as-is", &format!("{base}{path}"), "-o", "/dev/null", "-w", "%{http_code}"])
    };
    assert!(curl(&[&format!("{base}/")]).contains("mine"));
    let seen = [
        "/",
        "/sub/",
        "/sub",
        "/.secret",
        "/%2esecret",
        "/../index.html",
        "/sub/..%2findex.html",
        "/check",
        "/tools/test/",
    ]
    .map(status);
    assert_eq!(seen, ["200", "200", "308", "404", "404", "404", "404", "404", "200"]);
    let answer = head("--http1.1", &format!("{base}/"), &[]);
    assert!(answer.contains("last-modified: ") && answer.contains("default-src 'self'"), "{answer}");
    // A reload reads them again.
    files.write("index.html", "<!DOCTYPE html><title>changed</title>");
    server.signal("HUP");
    assert!(server.wait_log(Duration::from_secs(20), |log| log.contains("the new configuration is in use")));
    assert!(curl(&[&format!("{base}/")]).contains("changed"));
}

#[test]
fn the_site_can_be_switched_off() {
    let _turn = beside_others();
    let server = Server::start(&plan("[site]\nenabled = false"));
    let base = format!("https://{}", server.v4(Transport::Tls));
    for path in ["/", "/check/", "/robots.txt"] {
        let answer = head("--http1.1", &format!("{base}{path}"), &[]);
        assert!(
            answer.starts_with("http/1.1 404") && answer.contains("connection: close"),
            "{path}: {answer}"
        );
    }
}
