//! The test page, opened in real browsers in networks that let little through. `HALLPASS_SHOTS=DIRECTORY` keeps pictures of it.

use crate::school::{Browser, NAME, School};
use crate::support::alone;
use crate::support::certs::{self, Kind};
use crate::support::chromium::{Chromium, Setting, Tab};
use crate::support::firefox::Firefox;
use crate::support::namespace::CLIENT;
use crate::support::server::Server;
use crate::support::tool::run_ok;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const MIDDLEBOX: &str = include_str!("middlebox.py");
const INTERCEPTOR: &str = include_str!("interceptor.py");
const PROXY: &str = include_str!("proxy.py");
const LINE: &str = include_str!("line.py");
const FORWARD: &str = "filter hook forward priority 0";
/// The test itself takes 15 s at most. Before it, the page is loaded.
const TOOK_MAX_MS: f64 = 20_000.0;

/// Waits until the test has finished and returns what the page shows.
const SEEN: &str = "new Promise((found) => {
    const text = (selector, root = document) => root.querySelector(selector).textContent.trim();
    const seen = () => ({
        state: document.documentElement.dataset.state,
        took: performance.now(),
        level: document.querySelector('#verdict').dataset.level,
        headline: text('#headline'),
        explanation: text('#explanation'),
        code: text('#code'),
        address: text('#fact-address'),
        encryption: text('#fact-encryption'),
        letter: text('#letter'),
        ways: [...document.querySelectorAll('.way')].map((way) => [
            way.querySelector('h3').firstChild.textContent, text('.state', way), text('.figures', way)]),
    });
    const end = (answer) => { clearInterval(looking); found(answer); };
    const looking = setInterval(() => document.documentElement.dataset.state === 'finished' && end(seen()), 100);
    setTimeout(() => end(seen()), 45000);
})";

/// Starts a relay whose TLS port has the page.
fn relay(school: &School) -> Server {
    let mut plan = school.plan();
    plan.tls = "web = true".to_owned();
    Server::start(&plan)
}

/// Opens the page in the school and returns what it shows at the end. `label` names the pictures.
fn visit(school: &School, server: &Server, label: &str) -> Value {
    school.lab.client_knows(NAME, school.address);
    // Chromium finds a name for UDP only with a name server, which the school lacks: the tests that need UDP use the address.
    let host = if school.by_address { school.address.to_string() } else { NAME.to_owned() };
    let url = format!("https://{host}/check");
    let seen = match school.browser {
        Browser::Chromium => {
            let setting = Setting { namespace: Some(&school.lab.client), flags: school.flags.clone() };
            let mut browser = Chromium::start_in(server.files(), &setting);
            let tab = browser.open(&url);
            let seen = browser.evaluate(&tab, SEEN);
            if let Some(directory) = std::env::var_os("HALLPASS_SHOTS").map(PathBuf::from) {
                shoot(&mut browser, &tab, &directory, label);
            }
            assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
            seen
        }
        Browser::Firefox => {
            let mut browser =
                Firefox::start_in(server.files(), &school.lab.client, &server.files().path("ca.pem"));
            browser.open(&url);
            browser.wait(SEEN)
        }
    };
    assert_eq!(seen["state"], "finished", "{seen:#}\nserver:\n{}", server.log());
    assert!(seen["took"].as_f64() < Some(TOOK_MAX_MS), "{seen:#}");
    eprintln!("{label}: {seen:#}");
    seen
}

/// Pictures: a desktop in English, a phone in German in the dark.
fn shoot(browser: &mut Chromium, tab: &Tab, directory: &std::path::Path, label: &str) {
    for (device, language, scheme, width, height) in
        [("desktop", "en", "light", 1100, 900), ("phone", "de", "dark", 390, 844)]
    {
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.command(tab, "Emulation.setEmulatedMedia", scheme);
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.command(tab, "Emulation.setDeviceMetricsOverride", size);
        let script = format!(
            "new Promise((found) => {{
                const select = document.querySelector('#language');
                select.value = '{language}';
                select.dispatchEvent(new Event('change'));
                const look = () => document.documentElement.lang === '{language}' ? found(document.documentElement.scrollHeight)
                    : setTimeout(look, 50);
                look();
            }})"
        );
        let length = browser.evaluate(tab, &script);
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": length, "scale": 1 });
        let picture = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = browser.command(tab, "Page.captureScreenshot", picture);
        let file = directory.join(format!("{label}-{device}.png.base64"));
        std::fs::write(file, picture["data"].as_str().unwrap_or_default()).expect("a picture");
    }
}

/// The state of each way, by its name.
fn way<'a>(seen: &'a Value, name: &str) -> &'a str {
    let ways = seen["ways"].as_array().expect("a list");
    let found = ways.iter().find(|way| way[0] == name).unwrap_or_else(|| panic!("no {name} in {seen:#}"));
    found[1].as_str().expect("a text")
}

#[track_caller]
fn says(seen: &Value, field: &str, parts: &[&str]) {
    let text = seen[field].as_str().unwrap_or_default();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {field}: {seen:#}");
    }
}

fn everything_works(browser: Browser, label: &str) {
    let _turn = alone();
    let by_address = matches!(browser, Browser::Chromium);
    let school = School { browser, by_address, ..School::new() };
    let server = relay(&school);
    let seen = visit(&school, &server, label);
    assert_eq!((&seen["headline"], &seen["level"]), (&json!("Video lessons will work here"), &json!("good")));
    for name in ["UDP 3478", "TCP 80", "TLS 443"] {
        assert_eq!(way(&seen, name), "Works", "{seen:#}");
    }
    assert_eq!(way(&seen, "Address"), "Answered", "{seen:#}");
    assert_eq!(seen["address"], json!(CLIENT.to_string()));
    says(&seen, "encryption", &["Nobody seems to open them"]);
    says(&seen, "explanation", &["UDP 3478"]);
    says(&seen, "letter", &["found nothing to change", "198.18.2.2", seen["code"].as_str().expect("a code")]);
    let url = format!("http://{}/checks", server.admin());
    let inside = ["netns", "exec", &school.lab.server, "curl", "--silent", "--fail", "--max-time", "5", &url];
    let kept = run_ok("ip", &inside, Duration::from_secs(10));
    for part in [seen["code"].as_str().expect("a code"), "198.18.1.0/24", "\"verdict\": \"good\""] {
        assert!(kept.contains(part), "{part} in {kept}");
    }
}

#[test]
fn an_open_network() {
    everything_works(Browser::Chromium, "open");
}

#[test]
fn an_open_network_in_firefox() {
    everything_works(Browser::Firefox, "open-firefox");
}

#[test]
fn udp_is_blocked() {
    let _turn = alone();
    let school = School::new();
    school.lab.firewall(FORWARD, &["meta l4proto udp drop"]);
    let server = relay(&school);
    let seen = visit(&school, &server, "no-udp");
    says(&seen, "headline", &["will work here, through the encrypted path"]);
    says(&seen, "explanation", &["This works: TLS 443", "UDP, the best way, is blocked"]);
    assert_eq!((way(&seen, "UDP 3478"), way(&seen, "Address")), ("Blocked: no answer", "Blocked: no answer"));
    says(&seen, "letter", &["Please allow", "- UDP port 3478 to relay.test", "- TLS 443: Works"]);
    assert!(!seen["letter"].as_str().is_some_and(|text| text.contains("TCP port 443")), "{seen:#}");
}

#[test]
fn only_port_443_is_open() {
    let _turn = alone();
    let school = School::new();
    school.lab.firewall(FORWARD, &["iifname client tcp dport 443 accept", "iifname client drop"]);
    let server = relay(&school);
    let seen = visit(&school, &server, "only-443");
    says(&seen, "headline", &["will work here, through the encrypted path"]);
    assert_eq!((way(&seen, "TCP 80"), way(&seen, "TLS 443")), ("Blocked: no answer", "Works"));
    says(&seen, "letter", &["- UDP port 3478", "- TCP port 80"]);
}

#[test]
fn an_http_proxy_is_the_only_way_out() {
    let _turn = alone();
    let mut school = School::new();
    let [a, b, c, _] = CLIENT.octets();
    let gateway = format!("{a}.{b}.{c}.1");
    let server = relay(&school);
    let proxy = school.lab.start_in_router(PROXY, &[&gateway, &school.address.to_string()]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    school.flags.push(format!("--proxy-server=http://{gateway}:3128"));
    let seen = visit(&school, &server, "proxy");
    says(&seen, "headline", &["will work here, through the encrypted path"]);
    assert_eq!((way(&seen, "UDP 3478"), way(&seen, "TLS 443")), ("Blocked: no answer", "Works"));
    assert!(proxy.output().contains("connected"), "{}", proxy.output());
}

#[test]
fn a_foreign_authority_opens_tls() {
    let _turn = alone();
    let school = School::new();
    let server = relay(&school);
    let (cert, key) = (server.files().path("foreign.pem"), server.files().path("foreign.key"));
    certs::write(Kind::SelfSigned, NAME, &cert, &key);
    let [cert, key] = [cert, key].map(|path| path.display().to_string());
    let interceptor = school.lab.start_in_router(INTERCEPTOR, &["9000", &cert, &key, NAME]);
    school
        .lab
        .firewall("nat hook prerouting priority -100", &["iifname client tcp dport 443 redirect to :9000"]);
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let seen = visit(&school, &server, "intercepted");
    says(&seen, "headline", &["will not work here"]);
    says(&seen, "explanation", &["likely opens encrypted connections to inspect them"]);
    says(&seen, "encryption", &["likely opens and inspects them", "GREASE", "HTTP/2"]);
    says(&seen, "letter", &["exempt from TLS inspection", "likely opened and inspected"]);
    assert!(interceptor.output().contains("opened"), "{}", interceptor.output());
}

#[test]
fn two_percent_of_the_packets_are_lost() {
    let _turn = alone();
    let school = School { by_address: true, ..School::new() };
    let _line = school.lab.lengthen_client_link(LINE, 20, 2);
    let server = relay(&school);
    let seen = visit(&school, &server, "loss");
    says(&seen, "headline", &["will work here, but not well"]);
    says(&seen, "explanation", &["UDP 3478", "% of the packets are lost"]);
    assert_eq!(seen["level"], "warn");
}

/// A firewall that lets through what offers HTTP in its ClientHello, and nothing else.
#[test]
fn only_the_page_gets_through() {
    let _turn = alone();
    let school = School::new();
    let middlebox = school.lab.start_in_router(MIDDLEBOX, &["9000", NAME, "web"]);
    school.lab.firewall(
        "nat hook prerouting priority -100",
        &["iifname client meta l4proto tcp redirect to :9000"],
    );
    school.lab.firewall(FORWARD, &["iifname client drop"]);
    let server = relay(&school);
    let seen = visit(&school, &server, "blocked");
    assert_eq!(
        (&seen["headline"], &seen["level"]),
        (&json!("Video lessons will not work here"), &json!("bad"))
    );
    says(&seen, "explanation", &["lets only web pages through"]);
    says(&seen, "letter", &["- UDP port 3478", "- TCP port 443 (TLS) to relay.test", "must not expect HTTP"]);
    says(&seen, "encryption", &["Nobody seems to open them"]);
    assert!(middlebox.output().contains("refused"), "{}", middlebox.output());
}
