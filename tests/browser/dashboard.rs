//! The dashboard in a real Chromium: what it shows of real traffic, that names of clients are text, keys, errors, and what
//! axe-core says about it.

use crate::support::beside_others;
use crate::support::chromium::{Chromium, Tab};
use crate::support::client::{Client, Link};
use crate::support::credentials::rest;
use crate::support::echo::Echo;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A name that is code to a page that makes HTML out of it. Without quotes, which names are shown with a backslash before.
const HOSTILE: &str = "w_<img src=x onerror=alert(1)><script>document.title=7</script>";
/// Where axe-core may be; `HALLPASS_AXE` names another file.
pub const AXE: [&str; 3] = [
    "/usr/share/nodejs/axe-core/axe.min.js",
    "/usr/local/lib/node_modules/axe-core/axe.min.js",
    "/usr/lib/node_modules/axe-core/axe.min.js",
];

/// Waits until a condition of the page is true. The condition is checked whenever the page changes, and the page asks the
/// server more often than it would by itself.
fn wait(browser: &mut Chromium, tab: &Tab, condition: &str) {
    let script = format!(
        "new Promise((found) => {{
            const ask = () => document.dispatchEvent(new Event('visibilitychange'));
            const asking = setInterval(ask, 500);
            const end = (result) => {{ clearInterval(asking); found(result); }};
            const look = () => {{ if ({condition}) end(true); }};
            new MutationObserver(look).observe(document, {{
                subtree: true, childList: true, characterData: true, attributes: true }});
            setTimeout(() => end(document.body.innerText), 30000);
            look();
        }})"
    );
    let found = browser.evaluate(tab, &script);
    assert_eq!(found, true, "never: {condition}\ncomplaints: {:#?}", browser.complaints());
}

fn text(browser: &mut Chromium, tab: &Tab, selector: &str) -> String {
    let script = format!("document.querySelector({selector:?}).textContent");
    browser.evaluate(tab, &script).as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
}

/// Presses Tab from the first element of the page to the last. Returns the accessible name of each element that got the
/// focus.
fn focus_order(browser: &mut Chromium, tab: &Tab) -> Vec<String> {
    // Whatever can be focused before it would come after the last.
    browser.evaluate(tab, "document.querySelector('.skip').focus()");
    let mut names = vec!["Skip to the content".to_owned()];
    for _ in 0..80 {
        browser.press(tab, "Tab", None);
        let described = browser.evaluate(
            tab,
            "(() => { const e = document.activeElement;
                if (e === document.body) return null;
                const label = e.labels?.[0]?.textContent;
                const style = getComputedStyle(e.matches('.choice input') ? e.nextElementSibling : e);
                if (style.outlineStyle === 'none') return 'WITHOUT A VISIBLE FOCUS ' + e.id;
                return (e.getAttribute('aria-label') || label || e.textContent).trim(); })()",
        );
        match described.as_str() {
            // Without a window there is nothing else to focus, so the first element is next.
            Some(name) if names.first().is_some_and(|first| first == name) => return names,
            Some(name) => names.push(name.to_owned()),
            None => return names,
        }
    }
    panic!("the focus never leaves the page: {names:?}");
}

/// Runs axe-core in light and dark, on a desktop and on a phone. Returns what it finds serious.
pub fn axe(browser: &mut Chromium, tab: &Tab, program: &str) -> Vec<Value> {
    let mut serious = Vec::new();
    for (scheme, width, height) in [("light", 1280, 800), ("dark", 390, 844)] {
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.command(tab, "Emulation.setEmulatedMedia", scheme);
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        browser.command(tab, "Emulation.setDeviceMetricsOverride", size);
        let overflow = "document.documentElement.scrollWidth > window.innerWidth";
        assert_eq!(browser.evaluate(tab, overflow), false, "wider than {width}");
        let script = format!(
            "{program};axe.run(document, {{ resultTypes: ['violations'] }}).then((found) => found.violations.map(
                ({{ id, impact, nodes }}) => ({{ id, impact, nodes: nodes.map((node) => node.failureSummary) }})))"
        );
        let violations = browser.evaluate(tab, &script);
        let violations = violations.as_array().expect("a list").clone();
        serious.extend(violations.into_iter().filter(|one| one["impact"] != "minor"));
    }
    serious
}

#[test]
fn the_dashboard_shows_traffic_refusals_and_sessions_and_treats_names_as_text() {
    let _turn = beside_others();
    let mut server = Server::start(&Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]));
    let mut browser = Chromium::start(server.files());
    let tab = browser.open(&format!("http://{}/", server.admin()));
    wait(&mut browser, &tab, "document.querySelector('#verdict').dataset.level === 'good'");
    assert_eq!(text(&mut browser, &tab, "#verdict-title"), "All is well");
    assert_eq!(text(&mut browser, &tab, "#refusals-count"), "none since the start");

    // A call, with packets until the page shows them.
    let peer = Echo::start(LOCAL_V4);
    let link = Link::open(Transport::Tls, server.v4(Transport::Tls));
    let mut client = Client::log_in(link, server.credentials(HOSTILE));
    client.allocate().expect("good credentials");
    assert_eq!(client.bind(0x4000, peer.address()), 0);
    for _ in 0..100 {
        client.send_to(peer.address(), &[7; 1000]);
        let _ = client.receive().expect("the echo");
    }
    let refused = Client::log_in(
        Link::open(Transport::Udp, server.v4(Transport::Udp)),
        rest("another secret", HOSTILE, 600),
    )
    .allocate();
    assert_eq!(refused, Err(401));
    assert!(server.wait_log(std::time::Duration::from_secs(20), |log| log.contains("wrong_password")));
    wait(&mut browser, &tab, "document.querySelectorAll('#refusals li').length === 1");

    wait(&mut browser, &tab, "document.querySelectorAll('#traffic .area').length === 2");
    let areas = browser.evaluate(
        &tab,
        "[...document.querySelectorAll('#traffic .area')].map((area) => [area.getAttribute('class'), area.getBBox().height])",
    );
    let areas = areas.as_array().expect("a list").clone();
    // TLS, up and down.
    assert!(areas.iter().all(|area| area[0] == "area c3" && area[1].as_f64() > Some(20.0)), "{areas:?}");
    let peak = text(&mut browser, &tab, "#traffic-peak");
    assert!(peak.starts_with("Highest: ") && peak.contains("bit/s from clients at "), "{peak}");
    assert_eq!(text(&mut browser, &tab, "#tile-users"), "1");
    let days = text(&mut browser, &tab, "#tile-certificate");
    assert!(days.ends_with("days"), "{days}");

    let refusal = text(&mut browser, &tab, "#refusals li");
    for part in [
        "wrong_password (401)",
        HOSTILE,
        "allocate over UDP from 127.0.0.1:",
        "Next step: compare the secret",
    ] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }

    // With the keyboard alone: all sessions, and back in time in a chart.
    browser.evaluate(&tab, "document.querySelector('#sessions-user').focus()");
    browser.press(&tab, "Enter", Some("\r"));
    wait(&mut browser, &tab, "document.querySelectorAll('#sessions tbody').length === 1");
    let session = text(&mut browser, &tab, "#sessions tbody");
    assert!(session.contains(HOSTILE) && session.contains("TLS") && session.contains("packets"), "{session}");
    browser.evaluate(&tab, "document.querySelector('#traffic .plot').focus()");
    browser.press(&tab, "Home", None);
    let spoken = "document.querySelector('#packets .plot').getAttribute('aria-valuetext')";
    let spoken = browser.evaluate(&tab, spoken);
    assert!(spoken.as_str().is_some_and(|text| text.contains("TLS to clients")), "{spoken}");
    assert!(!spoken.as_str().is_some_and(|text| text.starts_with("now")), "every chart follows: {spoken}");
    browser.press(&tab, "Escape", None);
    assert_eq!(text(&mut browser, &tab, "#traffic .when"), "now");

    let order = focus_order(&mut browser, &tab);
    let expected = [
        "Skip to the content",
        "Last hour",
        "Traffic: moment shown",
        "Sockets: moment shown",
        "User, host or address",
        "wrong_password1",
        "Part of the user’s name",
        "Show sessions",
        "User",
        "Metrics",
    ];
    let places: Vec<_> = expected.iter().map(|name| order.iter().position(|found| found == name)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} of {order:#?}");
    assert!(order.iter().all(|name| !name.is_empty() && !name.contains("WITHOUT")), "{order:#?}");

    // No name became code, and the page broke none of its own rules.
    let harmless =
        "document.title !== '7' && document.querySelectorAll('img, script:not([src])').length === 0";
    assert_eq!(browser.evaluate(&tab, harmless), true);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());

    let program = std::env::var_os("HALLPASS_AXE").map(PathBuf::from);
    match program.or_else(|| AXE.iter().map(PathBuf::from).find(|path| path.exists())) {
        None => eprintln!("axe-core: not installed; npm install --global axe-core"),
        Some(path) => {
            let program = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let serious = axe(&mut browser, &tab, &program);
            assert!(serious.is_empty(), "{serious:#?}");
        }
    }

    // The server goes away, and the page says so.
    server.signal("INT");
    assert!(server.wait_exit(std::time::Duration::from_secs(20)).is_some());
    wait(&mut browser, &tab, "document.querySelector('#verdict').dataset.level === 'bad'");
    assert_eq!(text(&mut browser, &tab, "#verdict-title"), "No answer from the server");
    assert!(text(&mut browser, &tab, "#problems").contains("The figures below are from"));
}
