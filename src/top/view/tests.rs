//! Screens of several sizes, drawn without a terminal.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use serde_json::{Value, json};

use super::*;
use crate::base::text::is_hidden;
use crate::top::attention::Notice;
use crate::top::state::{Answers, View};
use crate::top::theme::Theme;

const UNIX: u64 = 1_800_000_000;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// The metrics of a server that has been relaying for `seconds`, with this name of a host.
fn metrics(seconds: u64, host: &str) -> String {
    let host = host.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let mut text = format!(
        "hallpass_build_info{{version=\"0.1.0\"}} 1\nhallpass_ready 1\nprocess_start_time_seconds {}
process_cpu_seconds_total {}\nhallpass_clients 90\nhallpass_descriptors 812\nhallpass_descriptors_max 1000
process_resident_memory_bytes 93000000\nhallpass_memory_max_bytes 3000000000
hallpass_relay_ports_taken 130\nhallpass_relay_ports_max 32768\nhallpass_connections_max 10000
hallpass_drops_total{{reason=\"no_permission\"}} {}\n",
        UNIX - 300_000,
        seconds as f64 * 0.4,
        seconds * 3,
    );
    for (transport, rate) in [("udp", 4000), ("tcp", 40), ("tls", 900)] {
        text += &format!("hallpass_allocations{{host=\"{host}\",transport=\"{transport}\"}} {}\n", rate / 20);
        text += &format!(
            "hallpass_allocations_total{{host=\"{host}\",transport=\"{transport}\"}} {}\n",
            seconds * 2
        );
        for direction in ["from_client", "from_peer"] {
            let labels = format!("{{host=\"{host}\",transport=\"{transport}\",direction=\"{direction}\"}}");
            text += &format!("hallpass_relayed_packets_total{labels} {}\n", rate * seconds);
            text += &format!("hallpass_relayed_bytes_total{labels} {}\n", rate * seconds * 900);
        }
    }
    for (reason, rate) in [("first_request", 9), ("wrong_password", 2), ("peer_denied", 0)] {
        text += &format!(
            "hallpass_refusals_total{{reason=\"{reason}\",host=\"{host}\",transport=\"udp\"}} {}\n",
            rate * seconds + 7
        );
    }
    for worker in 0..4 {
        text += &format!(
            "hallpass_worker_turn_seconds_bucket{{worker=\"{worker}\",le=\"0.0001\"}} {}
hallpass_worker_turn_seconds_bucket{{worker=\"{worker}\",le=\"0.0005\"}} {}
hallpass_worker_turn_seconds_bucket{{worker=\"{worker}\",le=\"+Inf\"}} {}
hallpass_worker_turn_seconds_sum{{worker=\"{worker}\"}} {}
hallpass_worker_datagrams_total{{worker=\"{worker}\"}} {}\n",
            seconds * 900,
            seconds * 1000,
            seconds * 1000 + 1,
            seconds as f64 * 0.21 * f64::from(worker),
            seconds * 5000,
        );
    }
    text
}

fn sessions(seconds: u64, user: &str) -> Value {
    let session = |number: u64| {
        json!({
            "host": "ping", "user": format!("{user}{number}"), "transport": if number.is_multiple_of(2) { "udp" } else { "tls" },
            "client": format!("203.0.113.{}:46336", number % 250), "server": "198.51.100.7:3478", "seconds": number * 61,
            "from_client": { "packets": seconds * number, "bytes": seconds * number * 900 },
            "from_peer": { "packets": 0, "bytes": seconds * number * 1100 },
            "relayed": [{
                "address": format!("198.51.100.7:{}", 50_000 + number), "expires_in": 540, "permissions": 2, "channels": 1,
                "peers": ["198.51.100.20", "198.51.100.21"], "bound": ["198.51.100.20:17000"],
            }],
            "hints": if number == 3 { vec!["nothing comes back from the peers: do the firewalls let UDP through?"] } else { vec![] },
            "notes": if number == 4 { vec!["no peer yet: browsers keep unused allocations for a while"] } else { vec![] },
        })
    };
    json!({ "sessions": (1..=40).map(session).collect::<Vec<_>>(), "total": 40, "complete": true })
}

fn refusals(user: &str) -> Value {
    let refusal = |number: u64| {
        json!({
            "time": UNIX - 10 * number, "host": "", "user": format!("{user}{number}"), "client": "203.0.113.5:46336",
            "transport": "udp", "request": "allocate", "reason": "wrong_password", "code": 401,
            "text": "the password fits none of the 2 secrets; the user name has not expired",
            "next_step": "compare the secret of the host with the one in turn-stun-servers.xml, to the last character",
        })
    };
    json!({ "refusals": (1..=30).map(refusal).collect::<Vec<_>>() })
}

/// An overview with two problems.
fn overview(host: &str) -> Value {
    json!({ "refused_recently": 4, "problems": [
        { "level": "bad", "text": format!("Nothing comes back from the peers of {host} over udp."), "next_step": "do the firewalls let UDP through?" },
        { "level": "warning", "text": "4 requests were refused in the last five minutes, most for wrong_password.",
          "next_step": "run hallpass refusals: it says who, why, and what to do" },
    ] })
}

/// A state after two answers, two seconds apart.
fn state(has_colour: bool, host: &str, user: &str) -> State {
    let mut state = State::new("127.0.0.1:9641".to_owned(), Theme::new(has_colour));
    for (seconds, shift) in [(100, 0), (102, 2)] {
        let answers = Answers {
            metrics: metrics(seconds, host),
            overview: overview(host),
            sessions: Some(sessions(seconds, user)),
            refusals: Some(refusals(user)),
        };
        state.take(answers, at(seconds), UNIX + shift);
    }
    state
}

fn press(state: &mut State, codes: &[KeyCode]) {
    for &code in codes {
        state.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

/// Draws the screen; returns its lines.
fn drawn(state: &mut State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test backend");
    terminal.draw(|frame| draw(frame, state, at(103), UNIX + 3)).expect("a drawing");
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    let lines: Vec<String> = (0..height).map(line).collect();
    // `cargo test screens -- --nocapture` shows them to people.
    println!("{}\n{}", "-".repeat(width.into()), lines.join("\n"));
    lines
}

const VIEWS: [char; 5] = ['1', '2', '3', '4', '5'];

#[test]
fn screens_of_80_by_24_show_what_matters() {
    let mut state = state(true, "ping", "w_");
    let words: [&[&str]; 5] = [
        &[
            "ping",
            "udp",
            "200",
            "28.8 Mbit/s",
            "4000",
            "wrong_password",
            "no_permission",
            "descriptors",
            "81 %",
            "63 %",
            "<0.5 ms",
        ],
        &["w_40", "203.0.113.40:46336", "2.2 Mbit/s".trim_start_matches("2.2 "), "40 sessions", "!"],
        &["wrong_password", "w_1", "next step: compare the secret", "fits none"],
        &["refused wrong_password", "dropped no_permission", "LAST 2 S"],
        &["LIMIT ON", "relay ports", "WORKER", "<0.1 ms", "63 %"],
    ];
    for (view, words) in VIEWS.into_iter().zip(words) {
        press(&mut state, &[KeyCode::Char(view)]);
        let lines = drawn(&mut state, 80, 24);
        let all = lines.join("\n");
        for word in words.iter().chain(&[
            "hallpass 0.1.0 at 127.0.0.1:9641, up 3d 11h",
            "ready",
            "247 sessions, 90 users",
            "q quit",
        ]) {
            assert!(all.contains(word), "{word:?} in view {view}:\n{all}");
        }
        assert!(
            all.contains("* 4 requests were refused in the last five minutes, most for wrong_password."),
            "{all}"
        );
    }
}

#[test]
fn screens_of_any_size_and_state_are_drawn() {
    let mut waiting = State::new("127.0.0.1:9641".to_owned(), Theme::new(false));
    let mut state = state(true, "ping", "w_");
    for (width, height) in
        [(120, 40), (80, 24), (40, 10), (20, 4), (10, 3), (1, 1), (300, 100), (80, 5), (21, 60)]
    {
        for view in VIEWS {
            for state in [&mut state, &mut waiting] {
                press(state, &[KeyCode::Char(view)]);
                drawn(state, width, height);
                for keys in [
                    [KeyCode::Enter, KeyCode::End],
                    [KeyCode::Char('?'), KeyCode::PageDown],
                    [KeyCode::Char('a'), KeyCode::Up],
                ] {
                    press(state, &keys);
                    drawn(state, width, height);
                    press(state, &[KeyCode::Esc]);
                }
            }
        }
    }
    press(&mut state, &[KeyCode::Char('1'), KeyCode::Home]);
    let narrow = drawn(&mut state, 40, 10).join("\n");
    assert!(narrow.contains("ping") && narrow.contains("udp") && narrow.contains("ready"), "{narrow}");
}

#[test]
fn a_server_that_does_not_answer_is_told_and_its_last_numbers_stay() {
    let mut state = state(false, "ping", "w_");
    state.take_failure(
        Notice::new(true, "cannot ask the server at 127.0.0.1:9641: Connection refused", "systemctl status"),
        at(101),
    );
    let all = drawn(&mut state, 80, 24).join("\n");
    for word in ["NO ANSWER for 2s", "Connection refused -> systemctl", "247 sessions"] {
        assert!(all.contains(word), "{word}:\n{all}");
    }
    let answers = Answers { metrics: "node_load1 5\n".to_owned(), ..Answers::default() };
    state.take(answers, at(103), UNIX);
    assert!(drawn(&mut state, 80, 24).join("\n").contains("another program answers at 127.0.0.1:9641"));
    // It comes back as another process.
    let restarted =
        metrics(1, "ping").replace(&format!("seconds {}", UNIX - 300_000), &format!("seconds {UNIX}"));
    state.take(Answers { metrics: restarted, ..Answers::default() }, at(104), UNIX + 4);
    let all = drawn(&mut state, 80, 24).join("\n");
    assert!(all.contains("the server was restarted") && !all.contains("NO ANSWER"), "{all}");
}

/// Names of hosts and users reach the terminal without a character that controls it, in every view.
#[test]
fn hostile_names_do_not_reach_the_terminal() {
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}\r\n\u{200b}x";
    let mut state = state(true, evil, evil);
    for view in VIEWS {
        for keys in [&[KeyCode::Char(view)][..], &[KeyCode::Enter], &[KeyCode::Esc, KeyCode::Char('a')]] {
            press(&mut state, keys);
            let lines = drawn(&mut state, 120, 40);
            assert!(!lines.concat().chars().any(is_hidden), "{lines:?}");
        }
    }
    let text = crate::top::report::text(&state, UNIX);
    assert!(!text.chars().any(|c| c != '\n' && is_hidden(c)), "{text:?}");
    assert!(text.contains("?[2J"), "{text}");
}

#[test]
fn without_colours_there_are_none() {
    for (has_colour, expected) in [(true, true), (false, false)] {
        let mut state = state(has_colour, "ping", "w_");
        press(&mut state, &[KeyCode::Char('2')]);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a test backend");
        terminal.draw(|frame| draw(frame, &mut state, at(103), UNIX)).expect("a drawing");
        let cells = terminal.backend().buffer().content();
        let is_coloured = cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(is_coloured, expected);
        assert!(
            cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)),
            "the selection is visible all the same"
        );
    }
}

#[test]
fn a_session_and_a_refusal_are_shown_in_detail() {
    let mut state = state(false, "ping", "w_");
    press(&mut state, &[KeyCode::Char('2'), KeyCode::Char('s')]);
    drawn(&mut state, 80, 24);
    press(&mut state, &[KeyCode::Home, KeyCode::Enter]);
    let all = drawn(&mut state, 80, 24).join("\n");
    for word in [
        "w_3 of ping",
        "203.0.113.3:46336 over tls to 198.51.100.7:3478",
        "198.51.100.20, 198.51.100.21",
        "channels: 1",
        "! nothing comes back",
    ] {
        assert!(all.contains(word), "{word}:\n{all}");
    }
    press(&mut state, &[KeyCode::Char('3')]);
    drawn(&mut state, 80, 24);
    press(&mut state, &[KeyCode::Down, KeyCode::Enter]);
    let all = drawn(&mut state, 80, 24).join("\n");
    for word in [
        "w_2 of an unknown host",
        "allocate, answered 401",
        "fits none of the 2 secrets",
        "next step: compare",
    ] {
        assert!(all.contains(word), "{word}:\n{all}");
    }
    assert_eq!(state.view, View::Refusals);
}
