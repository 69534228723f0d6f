//! The test page's two requests: who gets a login, what it is good for, and what becomes of a result.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::credentials::Credentials;
use crate::support::http;
use crate::support::plan::{LOCAL_V4, Transport, free_port};
use crate::support::server::Server;
use crate::support::tls;
use crate::support::tool::run;
use crate::{LIMIT, curl, plan};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};

const CHROMIUM: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

/// The fields that the page sends.
const OWN: [&str; 4] = ["-H", "x-check: 1", "-H", "content-type: application/json"];

/// Sends `body` to a path of the page; returns the status and the answer.
fn post(server: &Server, path: &str, more: &[&str], body: &str) -> (String, Value) {
    let url = format!("https://{}/check/{path}", server.v4(Transport::Tls));
    let all = [more, &["--data", body, "-w", "\n%{http_code}", &url]].concat();
    let answer = curl(&all);
    let (body, status) = answer.rsplit_once('\n').expect("a status");
    (status.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn only_the_page_itself_gets_a_login() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let ask = |more: &[&str]| post(&server, "credentials", more, "{}").0;
    assert_eq!(ask(&OWN), "200");
    assert_eq!(ask(&[&OWN[..], &["-H", "sec-fetch-site: same-origin"]].concat()), "200");
    // What a page of another site can send without asking, and with a lie that only other programs can tell.
    assert_eq!(ask(&["-H", "content-type: text/plain"]), "403");
    assert_eq!(ask(&["-H", "content-type: application/json"]), "403");
    assert_eq!(ask(&["-H", "x-check: 1", "-H", "content-type: text/plain"]), "403");
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(ask(&[&OWN[..], &["-H", &format!("sec-fetch-site: {site}")]].concat()), "403", "{site}");
    }
    // A preflight is not answered with a consent.
    let url = format!("https://{}/check/credentials", server.v4(Transport::Tls));
    let preflight = [
        "-i",
        "-X",
        "OPTIONS",
        "-H",
        "Origin: https://elsewhere.example",
        "-H",
        "Access-Control-Request-Headers: x-check",
    ];
    let head = curl(&[&preflight[..], &[&url]].concat()).to_ascii_lowercase();
    assert!(head.starts_with("http/2 405") && !head.contains("access-control"), "{head}");
    let head = curl(&["-i", &url]).to_ascii_lowercase();
    assert!(head.starts_with("http/2 405") && head.contains("allow: post"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");
}

/// What browsers say about who asks. A program can say anything, but it gets no more by that than by opening the page.
#[test]
fn pages_of_other_origins_get_no_login_and_leave_no_result() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let port = server.v4(Transport::Tls).port();
    let own = format!("https://127.0.0.1:{port}");
    for path in ["credentials", "result"] {
        let ask = |more: &[&str]| post(&server, path, &[&OWN[..], more].concat(), "{}").0;
        let good = if path == "credentials" { "200" } else { "400" };
        assert_eq!(ask(&["-H", &format!("origin: {own}")]), good);
        for origin in [
            "https://elsewhere.example",
            "https://127.0.0.1",
            "https://127.0.0.1:1",
            &format!("http://127.0.0.1:{port}"),
            &format!("https://127.0.0.1.elsewhere.example:{port}"),
            &format!("https://elsewhere.example@127.0.0.1:{port}"),
            "null",
            "",
        ] {
            // curl sends an empty field only with a semicolon.
            let field = if origin.is_empty() { "origin;".to_owned() } else { format!("origin: {origin}") };
            assert_eq!(ask(&["-H", &field]), "403", "{path}: {origin}");
        }
        let both = ["-H", &format!("origin: {own}"), "-H", "origin: https://elsewhere.example"];
        assert_eq!(ask(&both), "403", "{path}: two origins");
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(&["-X", method]), "405", "{path}: {method}");
        }
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "text/json"] {
            let field = format!("content-type: {kind}");
            let status = post(&server, path, &["-H", "x-check: 1", "-H", &field], "{}").0;
            assert_eq!(status, "403", "{path}: {kind}");
        }
    }
}

/// Each answer of the page, over both versions of HTTP, whatever becomes of the request.
#[test]
fn every_answer_keeps_other_sites_out() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let base = format!("https://{}/check", server.v4(Transport::Tls));
    let credentials = format!("{base}/credentials");
    let login = [&OWN[..], &["--data", "{}", &credentials]].concat();
    let refused = ["--data", "{}", &credentials];
    let (page, script, words, nothing) = (
        format!("{base}/"),
        format!("{base}/main.js"),
        format!("{base}/lang/de.json"),
        format!("{base}/nothing"),
    );
    let requests: [(&[&str], &str); 8] = [
        (&[&page], "200"),
        (&[&script], "200"),
        (&[&words], "200"),
        (&[&nothing], "404"),
        (&[&base], "308"),
        (&[&credentials], "405"),
        (&login, "200"),
        (&refused, "403"),
    ];
    for version in ["--http1.1", "--http2"] {
        for (request, status) in &requests {
            let answer = curl(&[&[version, "-i"], *request].concat()).to_ascii_lowercase();
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            let words: Vec<&str> = head.lines().next().expect("a status").split(' ').collect();
            assert_eq!(words[1], *status, "{request:?}: {head}");
            let field = |name: &str| {
                let all: Vec<&str> =
                    head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
                assert!(all.len() < 2, "{name} twice: {head}");
                all.first().map(|value| value.trim().to_owned())
            };
            let policy = field("content-security-policy").unwrap_or_default();
            let rules: Vec<&str> = policy.split(';').map(str::trim).collect();
            for rule in
                ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
            {
                assert!(rules.contains(&rule), "{request:?}: {rule} in {policy}");
            }
            for word in ["unsafe", "*", "http:", "https:", "data:", "blob:"] {
                assert!(!policy.contains(word), "{request:?}: {word} in {policy}");
            }
            assert_eq!(field("x-content-type-options").as_deref(), Some("nosniff"), "{request:?}");
            assert_eq!(field("x-frame-options").as_deref(), Some("deny"), "{request:?}");
            assert_eq!(field("referrer-policy").as_deref(), Some("no-referrer"), "{request:?}");
            assert_eq!(field("cross-origin-resource-policy").as_deref(), Some("same-origin"), "{request:?}");
            assert_eq!(field("cross-origin-opener-policy").as_deref(), Some("same-origin"), "{request:?}");
            for absent in
                ["set-cookie", "access-control-allow-origin", "access-control-allow-headers", "server"]
            {
                assert_eq!(field(absent), None, "{request:?}");
            }
            let is_file = *status == "200" && !body.contains("password\":");
            let kept = if is_file { "public, max-age=300" } else { "no-store" };
            assert_eq!(field("cache-control").as_deref(), Some(kept), "{request:?}");
        }
    }
    let page = curl(&["-i", &page]);
    let policy =
        page.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).expect("a policy");
    for rule in [
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "trusted-types 'none'",
    ] {
        assert!(policy.contains(rule), "{rule} in {policy}");
    }
}

#[test]
fn a_login_works_on_every_way_for_two_minutes() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let (status, answer) = post(&server, "credentials", &OWN, "{}");
    assert_eq!(status, "200");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (username, password) = (text(&answer["user"]), text(&answer["password"]));
    let expires: u64 = username.split(':').next().and_then(|time| time.parse().ok()).expect("a time");
    let now = answer["time"].as_u64().expect("a time");
    assert!((119..=121).contains(&(expires - now)), "{answer}");
    let port = |transport| server.v4(transport).port();
    let urls: Vec<String> =
        answer["rungs"].as_array().expect("a list").iter().map(|way| text(&way["url"])).collect();
    let [udp, tcp, tls] = [Transport::Udp, Transport::Tcp, Transport::Tls].map(port);
    assert_eq!(
        urls,
        [
            format!("stun:127.0.0.1:{udp}"),
            format!("turn:127.0.0.1:{udp}?transport=udp"),
            format!("turn:127.0.0.1:{tcp}?transport=tcp"),
            // The page was asked for by an address, and the certificate has a name.
            format!("turns:first.test:{tls}?transport=tcp"),
        ]
    );
    assert_eq!(answer["client"], json!({ "address": "127.0.0.1", "family": "ipv4" }));
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let credentials = Credentials { username: username.clone(), password: password.clone() };
        let mut client = Client::log_in(Link::open(transport, server.v4(transport)), credentials);
        client.allocate().unwrap_or_else(|code| panic!("{transport:?}: {code}"));
    }
    // Each login is a user of its own.
    let (_, other) = post(&server, "credentials", &OWN, "{}");
    assert_ne!(other["user"], answer["user"]);
}

#[test]
fn a_thousand_requests_from_one_address_are_limited() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let stream = tls::connect_as(server.v4(Transport::Tls), tls::client_for("localhost", &["http/1.1"]));
    let mut stream = BufReader::new(stream);
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let mut retry = String::new();
    for _ in 0..1000 {
        let request = "POST /check/credentials HTTP/1.1\r\nHost: a\r\nX-Check: 1\r\nContent-Type: application/json\r\n\
                       Content-Length: 2\r\n\r\n{}";
        stream.get_mut().write_all(request.as_bytes()).expect("write");
        let (mut status, mut length) = (String::new(), 0);
        stream.read_line(&mut status).expect("a status");
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a field");
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a length");
            }
            if line.starts_with("retry-after: ") {
                retry.clone_from(&line);
            }
            if line.is_empty() {
                break;
            }
        }
        stream.read_exact(&mut vec![0; length]).expect("a body");
        *counts.entry(status[9..12].to_owned()).or_default() += 1;
    }
    let admitted = counts.get("200").copied().unwrap_or_default();
    assert!((60..120).contains(&admitted) && counts["429"] == 1000 - admitted, "{counts:?}");
    assert_eq!(retry, "retry-after: 1");
}

#[test]
fn a_result_is_found_by_its_code() {
    let _turn = beside_others();
    let server = Server::start(&plan(""));
    let way = format!("tls-{}", server.v4(Transport::Tls).port());
    let body = json!({ "verdict": "no_udp", "rungs": [{ "id": way, "stage": "media", "rtt": 3, "loss": 0.5, "kbit": 4000 }] });
    let chromium = [&OWN[..], &["-A", CHROMIUM]].concat();
    let (status, answer) = post(&server, "result", &chromium, &body.to_string());
    assert_eq!(status, "200", "{answer}");
    let code = answer["code"].as_str().expect("a code").to_owned();
    let (_, page) = http::get(server.admin(), &format!("/checks?code={}", code.to_lowercase()));
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let kept = &page["checks"][0];
    assert_eq!((&kept["code"], &kept["network"]), (&json!(code), &json!("127.0.0.0/24")));
    // curl says that it is a browser, and its ClientHello is not a browser's.
    assert_eq!((&kept["browser"], &kept["intercepted"]), (&json!("Chromium 156"), &json!(true)));
    assert_eq!(kept["rungs"][0]["kbit"], json!(4000.0));
    assert!(!page.to_string().contains("127.0.0.1"), "{page}");
    let admin = server.admin().to_string();
    let said = run(env!("CARGO_BIN_EXE_hallpass"), &["checks", &code, "--admin", &admin], LIMIT);
    assert!(
        said.success && said.output.contains("video lessons work over TLS; UDP is blocked"),
        "{}",
        said.output
    );
    let said = run(env!("CARGO_BIN_EXE_hallpass"), &["checks", "AAAA", "--admin", &admin], LIMIT);
    assert!(!said.success && said.output.contains("no result with the code"), "{}", said.output);
    assert_eq!(http::get(server.admin(), "/checks?x=1").0, 400);
    // What is not a result, too much of it, and not from the page.
    for wrong in ["{}", "", "[1]", &body.to_string().replace("media", "<b>")] {
        assert_eq!(post(&server, "result", &OWN, wrong).0, "400", "{wrong}");
    }
    let long = format!("{{\"verdict\":\"good\",\"rungs\":[]{}}}", " ".repeat(10_000));
    assert_eq!(post(&server, "result", &OWN, &long).0, "400");
    assert_eq!(post(&server, "result", &[], &body.to_string()).0, "403");
}

/// A web server of the operator forwards to an address without TLS, below a path of its own.
#[test]
fn behind_another_web_server_the_visitor_is_the_one_it_names() {
    let _turn = beside_others();
    let port = free_port();
    let _server = Server::start(&plan(&format!(
        "[site]\naddress = \"{LOCAL_V4}:{port}\"\n[web]\nhttp1 = \"127.0.0.1:9\""
    )));
    let base = format!("http://{LOCAL_V4}:{port}/check");
    assert!(curl(&["-i", &base]).to_ascii_lowercase().contains("location: check/\r\n"));
    let page = curl(&[&format!("{base}/")]);
    assert!(page.contains("src=\"main.js\"") && !page.contains("=\"/"), "absolute URLs: {page}");
    let ask = |more: &[&str]| {
        let url = format!("{base}/credentials");
        let answer = curl(&[&OWN[..], more, &["--data", "{}", "-H", "Host: bbb.example.org", &url]].concat());
        serde_json::from_str::<Value>(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    let answer = ask(&["-H", "X-Real-IP: 2001:db8::7"]);
    assert_eq!(answer["client"], json!({ "address": "2001:db8::7", "family": "ipv6" }));
    assert_eq!(
        (&answer["name"], &answer["interception"]["known"]),
        (&json!("bbb.example.org"), &json!(false))
    );
    assert_eq!(ask(&["-H", "X-Real-IP: somebody"])["client"]["address"], "127.0.0.1");
    // On the shared port the field means nothing.
    let direct = Server::start(&plan(""));
    let forged = [&OWN[..], &["-H", "X-Real-IP: 192.0.2.77"]].concat();
    assert_eq!(post(&direct, "credentials", &forged, "{}").1["client"]["address"], "127.0.0.1");
}
