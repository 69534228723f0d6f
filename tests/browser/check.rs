//! The test page of the built-in site in a real Chromium: keyboard, languages, no code from outside, and what axe-core says.

use crate::dashboard::{AXE, axe};
use crate::support::beside_others;
use crate::support::chromium::{Chromium, Tab};
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::Server;
use serde_json::{Value, json};
use std::path::PathBuf;

fn server() -> Server {
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.tls = "web = true".to_owned();
    Server::start(&plan)
}

/// Waits until a condition of the page is true.
fn wait(browser: &mut Chromium, tab: &Tab, condition: &str) {
    let script = format!(
        "new Promise((found) => {{
            const look = setInterval(() => {{ if ({condition}) end(true); }}, 50);
            const end = (result) => {{ clearInterval(look); found(result); }};
            setTimeout(() => end(document.body.innerText), 40000);
        }})"
    );
    let found = browser.evaluate(tab, &script);
    assert_eq!(found, true, "never: {condition}\ncomplaints: {:#?}", browser.complaints());
}

fn text(browser: &mut Chromium, tab: &Tab, selector: &str) -> String {
    let script = format!("document.querySelector({selector:?}).textContent");
    browser.evaluate(tab, &script).as_str().unwrap_or_else(|| panic!("no {selector}")).to_owned()
}

const FINISHED: &str = "document.documentElement.dataset.state === 'finished'";

#[test]
fn the_page_works_with_keyboard_and_screen_reader_in_every_language() {
    let _turn = beside_others();
    let server = server();
    let mut browser = Chromium::start(server.files());
    let tab = browser.open(&format!("https://localhost:{}/check", server.v4(Transport::Tls).port()));
    wait(&mut browser, &tab, FINISHED);
    assert_eq!(text(&mut browser, &tab, "#headline"), "Video lessons will work here");
    let states = browser
        .evaluate(&tab, "[...document.querySelectorAll('.way .state')].map((state) => state.textContent)");
    assert_eq!(states, json!(["Answered", "Works", "Works", "Works"]));

    // Nothing has moved while the results came.
    let shifts = browser.evaluate(
        &tab,
        "Promise.race([
            new Promise((found) => new PerformanceObserver((list) => found(list.getEntries().reduce((sum, one) => sum + one.value, 0)))
                .observe({ type: 'layout-shift', buffered: true })),
            new Promise((found) => setTimeout(() => found(0), 1000))])",
    );
    assert!(shifts.as_f64() < Some(0.1), "layout shift {shifts}");

    // The order of the keyboard.
    browser.evaluate(&tab, "document.querySelector('.skip').focus()");
    let mut order = Vec::new();
    for _ in 0..5 {
        browser.press(&tab, "Tab", None);
        let id = browser.evaluate(&tab, "document.activeElement.id");
        order.push(id.as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(order, ["language", "again", "letter", "copy", "save"]);
    let spoken = browser.evaluate(
        &tab,
        "document.querySelector('#headline').closest('[aria-live]').getAttribute('aria-live')",
    );
    assert_eq!(spoken, "polite");

    for (language, headline) in [
        ("de", "Videounterricht funktioniert hier"),
        ("fr", "Les cours en vidéo fonctionneront ici"),
        ("es", "Las clases por vídeo funcionarán aquí"),
    ] {
        let choose = format!(
            "(() => {{ const select = document.querySelector('#language'); select.value = '{language}';
                select.dispatchEvent(new Event('change')); }})()"
        );
        browser.evaluate(&tab, &choose);
        wait(&mut browser, &tab, &format!("document.documentElement.lang === '{language}'"));
        assert_eq!(text(&mut browser, &tab, "#headline"), headline);
        let missing = "document.body.innerText.match(/\\b(page|verdict|ways|facts|letter|reasons|faults)\\.\\w+|[{}]/)?.[0] ?? null";
        assert_eq!(browser.evaluate(&tab, missing), Value::Null, "a text is missing in {language}");
    }

    let program = std::env::var_os("HALLPASS_AXE").map(PathBuf::from);
    match program.or_else(|| AXE.iter().map(PathBuf::from).find(|path| path.exists())) {
        None => eprintln!("axe-core: not installed; npm install --global axe-core"),
        Some(path) => {
            let program = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let serious = axe(&mut browser, &tab, &program);
            assert!(serious.is_empty(), "{serious:#?}");
        }
    }

    // Once more, with the keyboard.
    browser.evaluate(&tab, "document.querySelector('#again').focus()");
    browser.press(&tab, "Enter", Some("\r"));
    wait(&mut browser, &tab, "document.documentElement.dataset.state === 'running'");
    wait(&mut browser, &tab, FINISHED);
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

/// Notes what would be heard: nodes that are connected to the loudspeaker, and media elements.
const LISTEN: &str = "
    window.heard = [];
    window.contexts = 0;
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (to, ...more) {
        if (to instanceof AudioDestinationNode) window.heard.push('loudspeaker');
        return connect.call(this, to, ...more);
    };
    const play = HTMLMediaElement.prototype.play;
    HTMLMediaElement.prototype.play = function () { window.heard.push('play'); return play.call(this); };
    window.AudioContext = class extends AudioContext {
        constructor(...all) { super(...all); window.contexts += 1; }
    };";

#[test]
fn the_page_needs_no_gesture_and_makes_no_sound() {
    let _turn = beside_others();
    let server = server();
    let mut browser = Chromium::start(server.files());
    let tab = browser.open("about:blank");
    browser.command(&tab, "Page.addScriptToEvaluateOnNewDocument", json!({ "source": LISTEN }));
    browser.go(&tab, &format!("https://localhost:{}/check/", server.v4(Transport::Tls).port()));
    wait(&mut browser, &tab, FINISHED);
    let active = browser.evaluate(&tab, "navigator.userActivation.hasBeenActive");
    assert_eq!(active, false, "the test needs a visitor who has touched nothing");
    assert_eq!(text(&mut browser, &tab, "#headline"), "Video lessons will work here");
    // A browser would say that it does not allow sound yet.
    assert_eq!(browser.evaluate(&tab, "window.contexts"), 0);

    // After a gesture there is a tone in the call, and still nothing is heard.
    browser.evaluate(&tab, "document.querySelector('#again').focus()");
    browser.press(&tab, "Enter", Some("\r"));
    wait(&mut browser, &tab, "document.documentElement.dataset.state === 'running'");
    wait(&mut browser, &tab, FINISHED);
    assert_eq!(browser.evaluate(&tab, "window.contexts > 0"), true);
    assert_eq!(browser.evaluate(&tab, "window.heard"), json!([]));
    assert_eq!(browser.evaluate(&tab, "document.querySelectorAll('audio, video').length"), 0);
    // Everything came from this server, and was small.
    let loaded = browser.evaluate(
        &tab,
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
            .map((one) => [new URL(one.name).origin === location.origin, one.decodedBodySize])",
    );
    let loaded = loaded.as_array().expect("a list");
    assert!(loaded.iter().all(|one| one[0] == true), "{loaded:?}");
    let bytes: u64 = loaded.iter().filter_map(|one| one[1].as_u64()).sum();
    assert!((20_000..100_000).contains(&bytes), "{bytes} bytes in {} files", loaded.len());
    assert_eq!(
        browser.evaluate(&tab, "document.cookie + Object.keys(localStorage) + Object.keys(sessionStorage)"),
        ""
    );
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());
}

#[test]
fn without_javascript_the_page_says_so() {
    let _turn = beside_others();
    let server = server();
    let mut browser = Chromium::start(server.files());
    let tab = browser.open("about:blank");
    browser.command(&tab, "Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    let url = format!("https://localhost:{}/check/?lang=de", server.v4(Transport::Tls).port());
    browser.go(&tab, &url);
    let seen = browser.evaluate(&tab, "document.body.innerText");
    let seen = seen.as_str().expect("a text");
    assert!(
        seen.contains("This test needs JavaScript") && seen.contains("Dieser Test braucht JavaScript"),
        "{seen}"
    );
    assert!(!seen.contains("Testing the connection"), "{seen}");
}
