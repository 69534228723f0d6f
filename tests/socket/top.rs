//! `hallpass top` beside a server with two sessions: printed once, and in a terminal.

use crate::explain::names_what_it_cannot_ask;
use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::credentials::rest;
use crate::support::echo::Echo;
use crate::support::http::get;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::{run_command, run_ok};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Starts a server on which two users have relayed five packets of 100 bytes each way.
fn server_with_two_sessions() -> (Server, Vec<Client>, Echo) {
    let server = Server::start(&Plan { limits: "allocations_total = 2".to_owned(), ..Plan::loopback() });
    let peer = Echo::start(LOCAL_V4);
    let clients = [("w_ann", Transport::Udp), ("w_bob", Transport::Tls)].map(|(user, transport)| {
        let link = Link::open(transport, server.v4(transport));
        let mut client = Client::log_in(link, server.credentials(user));
        client.allocate().expect("good credentials");
        assert_eq!(client.permit(peer.address()), 0);
        for _ in 0..5 {
            client.send_to(peer.address(), &[7; 100]);
            let _ = client.receive().expect("the echo");
        }
        client
    });
    (server, clients.into(), peer)
}

fn top(server: &Server, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(["top", "--interval", "1", "--admin", &server.admin().to_string()]).args(arguments);
    let ended = run_command(command, LIMIT);
    assert!(ended.success, "{arguments:?}: {}", ended.output);
    ended.output
}

#[test]
fn two_sessions_are_shown_once_as_text_and_as_json() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass top") {
        return;
    }
    let (server, clients, _peer) = server_with_two_sessions();
    // Standard output is no terminal, so it prints once without being told.
    let text = top(&server, &[]);
    for words in [
        &["hallpass 0", "ready"][..],
        &["2 sessions, 2 users, new 0/s, to peers 0, to clients 0"],
        &["! 2 of 2 allocations are in use. -> raise limits.allocations_total"],
        &["test", "udp", "1", "0"],
        &["allocations", "2", "100 %"],
        &["w_ann", "test", "udp", "127.0.0.1:"],
        &["w_bob", "test", "tls", "127.0.0.1:"],
    ] {
        let found = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?}:\n{text}");
    }
    let json = top(&server, &["--once", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(
        (&json["ready"], &json["sessions_total"], &json["users"]),
        (&true.into(), &2.into(), &2.into())
    );
    assert_eq!(json["total"]["sessions"], 2);
    for (user, transport) in [("w_ann", "udp"), ("w_bob", "tls")] {
        let sessions = json["busiest_sessions"].as_array().expect("a list");
        let session = sessions.iter().find(|one| one["user"] == user).expect("the session");
        assert_eq!((&session["transport"], &session["host"]), (&transport.into(), &"test".into()));
        for way in ["from_client", "from_peer"] {
            assert_eq!(
                (&session[way]["packets"], &session[way]["bytes"]),
                (&5.into(), &500.into()),
                "{json:#}"
            );
        }
    }
    // The same list as on the dashboard.
    let overview: Value = serde_json::from_str(&get(server.admin(), "/overview").1).expect("JSON");
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|one| one["text"].to_string()).collect()
    };
    assert_eq!(texts(&json["attention"]), texts(&overview["problems"]));
    let ports = json["limits"].as_array().expect("a list").iter().find(|one| one["name"] == "relay ports");
    assert_eq!(ports.expect("the ports")["used"], 2.0);
    assert!(json["workers"].as_array().is_some_and(|workers| !workers.is_empty()), "{json:#}");
    assert!(json["workers"][0]["busy"].as_f64().is_some_and(|busy| (0.0..=1.0).contains(&busy)), "{json:#}");
    drop(clients);
    names_what_it_cannot_ask(&["top", "--once"]);
}

/// A teacher calls first, and then the program is started.
#[test]
fn what_was_refused_before_it_started_needs_attention() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass top") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    for user in ["w_a", "w_b", "w_c"] {
        let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
        let refused = Client::log_in(link, rest("another secret", user, 600)).allocate();
        assert_eq!(refused, Err(401));
    }
    let text = top(&server, &["--once"]);
    for words in ["3 requests were refused in the last", "most for wrong_password. -> run hallpass refusals"]
    {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{words}: {text}");
    }
    assert!(!text.contains("nothing needs attention"), "{text}");
    let json: Value = serde_json::from_str(&top(&server, &["--once", "--json"])).expect("JSON");
    assert_eq!(json["refused_last_five_minutes"], 3);
}

#[test]
fn in_a_terminal_it_obeys_keys_and_leaves_the_terminal_as_it_was() {
    let _turn = beside_others();
    if skip_on_coturn("hallpass top") {
        return;
    }
    let (server, _clients, _peer) = server_with_two_sessions();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket/top.py");
    let (admin, pid) = (server.admin().to_string(), server.pid().to_string());
    run_ok("python3", &[script, env!("CARGO_BIN_EXE_hallpass"), &admin, &pid], LIMIT);
}
