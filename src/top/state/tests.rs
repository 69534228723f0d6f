use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::keys::Action;
use super::lists::Order;
use super::*;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// Users with their bytes, after `seconds`.
fn answers(users: &[(&str, u64)], seconds: u64) -> Answers {
    let session = |&(user, rate): &(&str, u64)| {
        json!({
            "host": "ping", "user": user, "transport": "udp", "client": format!("192.0.2.{rate}:5"), "seconds": 100 - rate,
            "from_client": { "packets": 1, "bytes": rate * seconds }, "from_peer": { "packets": 1, "bytes": 0 },
            "relayed": [{ "address": "198.51.100.1:50000" }], "hints": if user == "bob" { vec!["!"] } else { vec![] },
        })
    };
    let metrics = "hallpass_build_info{version=\"1\"} 1
hallpass_allocations{host=\"a\",transport=\"udp\"} 3\nhallpass_allocations{host=\"b\",transport=\"udp\"} 9
hallpass_allocations{host=\"a\",transport=\"tls\"} 5\n";
    Answers {
        metrics: metrics.to_owned(),
        sessions: Some(
            json!({ "sessions": users.iter().map(session).collect::<Vec<_>>(), "total": users.len() }),
        ),
        ..Answers::default()
    }
}

fn state() -> State {
    let mut state = State::new("here".to_owned(), Theme::new(false));
    let users = [("ann", 10), ("bob", 20), ("cat", 30)];
    state.take(answers(&users, 10), at(10), 0);
    state.take(answers(&users, 20), at(20), 0);
    state
}

fn press(state: &mut State, code: KeyCode) -> Action {
    let action = state.on_key(KeyEvent::new(code, KeyModifiers::NONE));
    // As the drawing does.
    let lines = state.shown_sessions().len();
    state.cursor().show(lines, 2);
    action
}

fn users(state: &State) -> Vec<&str> {
    state.shown_sessions().iter().map(|session| session.user.as_str()).collect()
}

#[test]
fn sessions_are_sorted_by_each_order_and_reversed() {
    let mut state = state();
    press(&mut state, KeyCode::Char('2'));
    assert_eq!(users(&state), ["cat", "bob", "ann"], "by traffic");
    press(&mut state, KeyCode::Char('r'));
    assert_eq!(users(&state), ["ann", "bob", "cat"]);
    press(&mut state, KeyCode::Char('r'));
    let mut orders = Vec::new();
    for _ in 0..6 {
        orders.push((state.order(View::Sessions).expect("an order").0, users(&state)[0].to_owned()));
        press(&mut state, KeyCode::Char('s'));
    }
    let expected = [
        (Order::Traffic, "cat"),
        (Order::Hints, "bob"),
        (Order::Age, "cat"),
        (Order::User, "ann"),
        (Order::Host, "ann"),
        (Order::Transport, "ann"),
    ];
    assert_eq!(orders, expected.map(|(order, user)| (order, user.to_owned())));
    assert_eq!(state.order(View::Sessions), Some((Order::Traffic, false)), "around again");
}

#[test]
fn traffic_is_sorted_and_filtered() {
    let mut state = state();
    let rungs = |state: &State| -> Vec<String> {
        state.rows().iter().map(|row| format!("{} {}", row.rung.host, row.rung.transport)).collect()
    };
    assert_eq!(rungs(&state), ["b udp", "a tls", "a udp"], "without traffic by sessions");
    for _ in 0..3 {
        press(&mut state, KeyCode::Char('s'));
    }
    assert_eq!(rungs(&state), ["a tls", "a udp", "b udp"], "by host");
    for c in "/TLS".chars() {
        press(&mut state, KeyCode::Char(c));
    }
    assert_eq!(rungs(&state), ["a tls"], "capital letters do not matter");
    press(&mut state, KeyCode::Esc);
    assert_eq!((rungs(&state).len(), state.filter.as_str(), state.is_typing), (3, "", false));
}

#[test]
fn a_filter_is_typed_kept_and_removed() {
    let mut state = state();
    press(&mut state, KeyCode::Char('2'));
    for c in "/Bo\u{1b}q".chars() {
        assert_eq!(press(&mut state, KeyCode::Char(c)), Action::Draw, "q belongs to the filter");
    }
    assert_eq!((state.filter.as_str(), users(&state).len()), ("Boq", 0));
    press(&mut state, KeyCode::Backspace);
    assert_eq!(users(&state), ["bob"], "capital letters do not matter");
    press(&mut state, KeyCode::Enter);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Action::Quit);
    press(&mut state, KeyCode::Esc);
    assert_eq!(users(&state).len(), 3);
    press(&mut state, KeyCode::Char('/'));
    for _ in 0..200 {
        press(&mut state, KeyCode::Char('x'));
    }
    assert_eq!(state.filter.len(), 60);
}

#[test]
fn the_selection_follows_its_session() {
    let mut state = state();
    press(&mut state, KeyCode::Char('2'));
    press(&mut state, KeyCode::Down);
    press(&mut state, KeyCode::Enter);
    let Some(Overlay::Detail(id)) = state.overlay.clone() else { panic!("{:?}", state.overlay) };
    assert_eq!(
        state.sessions.as_ref().and_then(|all| all.get(&id)).map(|one| one.user.as_str()),
        Some("bob")
    );
    press(&mut state, KeyCode::Esc);
    // Now dan has more traffic than bob.
    state.take(answers(&[("ann", 10), ("bob", 20), ("cat", 30), ("dan", 40)], 30), at(30), 0);
    state.take(answers(&[("ann", 10), ("bob", 20), ("cat", 30), ("dan", 40)], 40), at(40), 0);
    state.follow_selection();
    assert_eq!(users(&state)[2], "bob");
    assert_eq!(state.cursor().at, 2);
    state.cursor().show(4, 2);
    press(&mut state, KeyCode::End);
    assert_eq!((state.cursor().at, state.cursor().offset), (3, 2));
    press(&mut state, KeyCode::Home);
    press(&mut state, KeyCode::Up);
    assert_eq!((state.cursor().at, state.cursor().offset), (0, 0));
    state.take(answers(&[], 50), at(50), 0);
    assert_eq!(press(&mut state, KeyCode::Enter), Action::Draw);
    assert_eq!(state.overlay, None, "there is nothing to open");
}

#[test]
fn sessions_are_wanted_only_while_they_are_shown_and_rarely() {
    let mut state = state();
    assert_eq!(state.wanted(at(100)), Wanted::default());
    assert_eq!(press(&mut state, KeyCode::Char('2')), Action::Ask);
    assert!(!state.wanted(at(24)).sessions && state.wanted(at(25)).sessions);
    press(&mut state, KeyCode::Tab);
    assert_eq!(state.wanted(at(100)), Wanted { sessions: false, refusals: true });
    press(&mut state, KeyCode::Left);
    assert_eq!(state.view, View::Sessions);
    press(&mut state, KeyCode::Char('p'));
    assert_eq!(
        (state.is_paused, press(&mut state, KeyCode::Char('3'))),
        (true, Action::Draw),
        "it stands still"
    );
    assert_eq!((press(&mut state, KeyCode::Char(' ')), state.is_paused), (Action::Ask, false));
}

#[test]
fn control_keys() {
    let mut state = state();
    let mut control = |c: char| state.on_key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
    let expected = [Action::Quit, Action::Redraw, Action::Suspend, Action::Draw];
    assert_eq!(['c', 'l', 'z', 'x'].map(&mut control), expected);
}
