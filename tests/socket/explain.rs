//! "Why did she fail?" and "who is connected?": the log, the admin pages, the commands that read them, and the metrics.

use crate::support::beside_others;
use crate::support::client::{Client, Link};
use crate::support::credentials::{Credentials, named, rest};
use crate::support::echo::Echo;
use crate::support::http::get;
use crate::support::plan::{LOCAL_V4, Plan, SECRET, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::run_command;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
/// A secret as `openssl rand -base64 32` makes it. It ends with an equals sign, which is easily lost.
const CUT: &str = "c2VjcmV0IG9mIHBpbmcsIGFzIG9wZW5zc2wgd3JpdGU=";

/// Returns what a command that asks the server prints.
fn printed(server: &Server, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(arguments).arg("--admin").arg(server.admin().to_string());
    let ended = run_command(command, LIMIT);
    assert!(ended.success, "{arguments:?}: {}", ended.output);
    ended.output
}

/// Runs a command that asks a server where none is.
pub fn names_what_it_cannot_ask(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args(arguments).args(["--admin", "127.0.0.1:9"]);
    let ended = run_command(command, LIMIT);
    assert!(
        !ended.success && ended.output.contains("cannot ask the server at 127.0.0.1:9"),
        "{}",
        ended.output
    );
}

/// Tries to allocate over UDP. Returns the error code of the answer.
fn refused(server: &Server, credentials: Credentials) -> u16 {
    let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
    Client::log_in(link, credentials).allocate().expect_err("a refusal")
}

/// Waits until the log has all these words in one line.
fn wait_line(server: &Server, words: &[&str]) {
    let found =
        server.wait_log(LIMIT, |log| log.lines().any(|line| words.iter().all(|word| line.contains(word))));
    assert!(found, "no line with {words:?}:\n{}", server.log());
}

#[test]
fn every_refusal_is_explained() {
    let _turn = beside_others();
    if skip_on_coturn("reasons of refusals") {
        return;
    }
    let plan = Plan {
        limits: "allocations_per_user = 1".to_owned(),
        tables: format!("[[host]]\nname = \"ping\"\nsecret = \"{CUT}\"\npeers = [\"127.0.0.2\"]\n"),
        ..Plan::loopback()
    };
    let server = Server::start(&plan);
    let expired = rest(SECRET, "w_late", -3600);
    let cases: [(&str, Credentials, &[&str]); 6] = [
        (
            "wrong_password",
            rest("another secret", "w_wrong", 600),
            &["fits none of the 2 secrets", "turn-stun-servers.xml"],
        ),
        (
            "wrong_password",
            rest(&format!("{SECRET}\n"), "w_newline", 600),
            &["the secret of test and a newline at its end"],
        ),
        ("expired_name", expired, &["expired 36", "compare the clocks"]),
        (
            "wrong_password",
            rest(CUT.trim_end_matches('='), "w_cut", 600),
            &["the secret of ping without the equals sign at its end"],
        ),
        ("malformed_name", named(SECRET, "w_swapped:1999999999"), &["ends with a time", "EXPIRY:USER"]),
        ("far_expiry", named("another", "1999999999000:w_millis"), &["in milliseconds"]),
    ];
    for (reason, credentials, words) in cases {
        let user =
            credentials.username.split(':').find(|part| part.starts_with("w_")).expect("a user").to_owned();
        assert_eq!(refused(&server, credentials), 401, "{user}");
        let reason_field = format!("reason=\"{reason}\"");
        wait_line(
            &server,
            &[&["INFO refusal:", user.as_str(), "transport=\"udp\"", &reason_field], words].concat(),
        );
        let listed = printed(&server, &["refusals", "--user", &user]);
        assert!(listed.contains(&format!("{reason} (401)")), "{listed}");
        assert!(words.iter().all(|word| listed.contains(word)), "{listed}");
    }

    // A user with an allocation: a denied peer, and the limit of its allocations.
    let open = || Link::open(Transport::Tcp, server.v4(Transport::Tcp));
    let mut ann = Client::log_in(open(), server.credentials("w_ann"));
    ann.allocate().expect("good credentials");
    assert_eq!(ann.permit("10.1.2.3:7000".parse().expect("literal")), 403);
    wait_line(
        &server,
        &["host=test", "w_ann", "10.1.2.3 is not allowed: private addresses", "add it to [peers] allow"],
    );
    assert_eq!(Client::log_in(open(), server.credentials("w_ann")).allocate(), Err(486));
    wait_line(&server, &["the user has 1 allocations, as many as allowed", "limits.allocations_per_user"]);

    // A user of a host whose conference server has moved to another address.
    let mut moved = Client::log_in(open(), rest(CUT, "w_moved", 600));
    moved.allocate().expect("good credentials");
    assert_eq!(moved.permit("127.0.0.1:7000".parse().expect("literal")), 403);
    wait_line(
        &server,
        &[
            "host=ping",
            "w_moved",
            "127.0.0.1 is not allowed: it is not in `peers` of the host",
            "add it to `peers`",
        ],
    );

    let page: serde_json::Value =
        serde_json::from_str(&get(server.admin(), "/refusals?host=test").1).expect("JSON");
    let reasons: Vec<_> =
        page["refusals"].as_array().expect("a list").iter().map(|one| &one["reason"]).collect();
    assert_eq!(reasons, ["user_allocations", "peer_denied"], "the latest first");
    let metrics = get(server.admin(), "/metrics").1;
    for series in [
        "{reason=\"first_request\",host=\"\",transport=\"udp\"} 6",
        "{reason=\"wrong_password\",host=\"\",transport=\"udp\"} 3",
        "{reason=\"peer_denied\",host=\"test\",transport=\"tcp\"} 1",
        "{reason=\"user_allocations\",host=\"test\",transport=\"tcp\"} 1",
    ] {
        assert!(metrics.contains(&format!("hallpass_refusals_total{series}\n")), "{series}\n{metrics}");
    }
}

/// A server with the secret of another host, and one with a revoked secret.
#[test]
fn a_peer_of_another_host_and_a_revoked_secret_are_told() {
    let _turn = beside_others();
    if skip_on_coturn("reasons of refusals") {
        return;
    }
    let old = "an old secret of tuit that leaked";
    let tables = format!(
        "[[host]]\nname = \"ping\"\nsecret = \"{CUT}\"\npeers = [\"127.0.0.2\"]\n\
         [[host]]\nname = \"tuit\"\nsecret = \"the present secret of tuit\"\nrevoked = [\"{old}\"]\npeers = [\"127.0.0.9\"]\n"
    );
    let server = Server::start(&Plan { tables, ..Plan::loopback() });
    let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
    let mut swapped = Client::log_in(link, rest(CUT, "w_swapped", 600));
    swapped.allocate().expect("good credentials");
    assert_eq!(swapped.permit("127.0.0.9:7000".parse().expect("literal")), 403);
    wait_line(&server, &["host=ping", "w_swapped", "it is in `peers` of tuit", "the secret of another host"]);
    for user in ["w_a", "w_b", "w_c"] {
        assert_eq!(refused(&server, rest(old, user, 600)), 401);
    }
    wait_line(&server, &["w_c", "it was made with a revoked secret of tuit", "write the present secret"]);
    wait_line(&server, &["WARN", "3 users at 1 address", "made with a revoked or removed secret of tuit"]);
    assert!(!server.log().contains("fit no secret"), "{}", server.log());
}

/// Three users with the wrong secret make a warning that names the host, once after each reload.
#[test]
fn a_secret_that_does_not_match_is_told_once_after_a_reload() {
    let _turn = beside_others();
    if skip_on_coturn("warnings about secrets") {
        return;
    }
    let monitor = "[[user]]\nname = \"monitor\"\npassword = \"a password of the tests\"\nhost = \"test\"\n";
    let server = Server::start(&Plan { tables: monitor.to_owned(), ..Plan::loopback() });
    // A test on the relay itself has the secret of the file, so it says nothing about that of BigBlueButton.
    let log_in = |user: &str| {
        let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
        let mut client = Client::log_in(link, server.credentials(user));
        client.allocate().expect("good credentials");
        client
    };
    let mut doctor = log_in("doctor");
    assert_eq!(doctor.permit("10.1.2.3:7000".parse().expect("literal")), 403);
    wait_line(&server, &["doctor", "(test by hallpass doctor", "next step: nothing"]);
    let fail = |users: [&str; 4]| {
        for user in users {
            assert_eq!(refused(&server, rest("another secret", user, 600)), 401);
        }
    };
    fail(["w_a", "w_b", "w_c", "w_d"]);
    let words =
        ["WARN", "3 users at 1 address were refused since the start", "no user of test has succeeded"];
    wait_line(&server, &words);
    server.signal("HUP");
    wait_line(&server, &["the new configuration is in use"]);
    fail(["w_e", "w_f", "w_g", "w_h"]);
    wait_line(
        &server,
        &["WARN", "3 users at 1 address were refused since the reload", "turn-stun-servers.xml of test"],
    );
    wait_line(&server, &["refusal", "w_h"]);
    assert_eq!(server.log().matches("were refused since the").count(), 2, "{}", server.log());
    let warnings = || -> Vec<serde_json::Value> {
        let page: serde_json::Value =
            serde_json::from_str(&get(server.admin(), "/overview").1).expect("JSON");
        let all = page["problems"].as_array().expect("a list").clone();
        all.into_iter().filter(|one| one["text"].to_string().contains("were refused since")).collect()
    };
    let [warning] = &warnings()[..] else { panic!("one warning, the latest") };
    let file = server.files().path("hallpass.toml");
    let command = format!("hallpass bbb-xml --config {} --public-name ", file.display());
    assert!(warning["next_step"].to_string().contains(&command), "{warning}");
    // Users with a fixed password prove nothing about the secret.
    let link = Link::open(Transport::Udp, server.v4(Transport::Udp));
    let fixed =
        Credentials { username: "monitor".to_owned(), password: "a password of the tests".to_owned() };
    Client::log_in(link, fixed).allocate().expect("good credentials");
    assert_eq!(refused(&server, rest("another secret", "w_still", 600)), 401);
    wait_line(&server, &["refusal", "w_still"]);
    assert_eq!(warnings().len(), 1, "it stays");
    // The repair.
    let _pupil = log_in("w_i");
    wait_line(&server, &["users of test succeed: the warning about secrets is over"]);
    assert_eq!(warnings().len(), 0, "it has left the dashboard");
    let listed = printed(&server, &["refusals", "--host", "test"]);
    assert!(listed.contains("without those whose password fits no secret"), "{listed}");
}

/// Without a secret, only the names of the configuration are known.
#[test]
fn a_user_that_nobody_has_configured_is_named() {
    let _turn = beside_others();
    if skip_on_coturn("reasons of refusals") {
        return;
    }
    let hosts = "[[user]]\nname = \"teacher\"\npassword = \"a password of the tests\"\n";
    let server = Server::start(&Plan { hosts: hosts.to_owned(), ..Plan::loopback() });
    let stranger = Credentials { username: "w_stranger".to_owned(), password: "any".to_owned() };
    assert_eq!(refused(&server, stranger), 401);
    let words = ["w_stranger", "no [[user]] has this name", "add a [[user]]", "reason=\"unknown_user\""];
    wait_line(&server, &words);
}

/// Media beyond a limit is dropped, and the drops name the limit.
#[test]
fn a_bandwidth_limit_is_named() {
    let _turn = beside_others();
    if skip_on_coturn("reasons of drops") {
        return;
    }
    for (limit, reason) in
        [("kbit_per_allocation", "allocation"), ("kbit_per_user", "user"), ("kbit_per_host", "host")]
    {
        let server = Server::start(&Plan { limits: format!("{limit} = 100"), ..Plan::loopback() });
        let link = Link::open(Transport::Tcp, server.v4(Transport::Tcp));
        let mut ann = Client::log_in(link, server.credentials("w_ann"));
        ann.allocate().expect("good credentials");
        let peer = Echo::start(LOCAL_V4);
        assert_eq!(ann.bind(0x4000, peer.address()), 0);
        // 100 kbit are 12,500 bytes; this is four times as much.
        (0..50).for_each(|_| ann.send_on(0x4000, &[7; 1000]));
        assert_eq!(ann.refresh(0), 0);
        let metrics = get(server.admin(), "/metrics").1;
        let series = format!("hallpass_drops_total{{reason=\"{reason}_over_rate\"}} ");
        let drops = metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("a counter");
        assert!(drops.parse::<f64>().expect("a number") >= 30.0, "{limit}: {drops}");
    }
}

/// The server that issues the credentials is a day behind: names with a lifetime of an hour expired 23 hours ago.
#[test]
fn a_clock_that_is_a_day_behind_is_told() {
    let _turn = beside_others();
    if skip_on_coturn("warnings about clocks") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    for user in ["w_a", "w_b", "w_c", "w_d", "w_e"] {
        let mut issuer = Command::new("faketime");
        issuer.args(["-f", "-1d", env!("CARGO_BIN_EXE_hallpass"), "credentials", "--json", "--ttl", "3600"]);
        issuer.args(["--secret", SECRET, "--user", user, "--server", "127.0.0.1"]);
        let issued: serde_json::Value =
            serde_json::from_str(&run_command(issuer, LIMIT).output).expect("credentials");
        let [username, password] = ["username", "credential"]
            .map(|key| issued["iceServers"][0][key].as_str().expect(key).to_owned());
        assert_eq!(refused(&server, Credentials { username, password }), 401);
    }
    wait_line(&server, &["w_a", "the user name expired 828", "compare the clocks of both hosts"]);
    wait_line(
        &server,
        &["WARN", "the names of 5 users at 1 address all expired about 23 hours ago", "clock"],
    );
}

/// `privacy` hides names and addresses on the pages and in the log.
#[test]
fn with_privacy_users_have_pseudonyms() {
    let _turn = beside_others();
    if skip_on_coturn("privacy") {
        return;
    }
    let server = Server::start(&Plan { top: "privacy = true".to_owned(), ..Plan::loopback() });
    assert_eq!(refused(&server, rest("another secret", "w_wrong", 600)), 401);
    wait_line(&server, &["refusal", "user=\"user-", "client=-"]);
    let mut ann =
        Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), server.credentials("w_ann"));
    ann.allocate().expect("good credentials");
    assert_eq!(ann.bind(0x4000, "127.0.0.1:9".parse().expect("literal")), 0);
    for text in [get(server.admin(), "/refusals").1, get(server.admin(), "/sessions").1] {
        assert!(text.contains("\"user\": \"user-") && text.contains("\"client\": \"-\""), "{text}");
        assert!(
            !["w_wrong", "w_ann", "127.0.0.1:9\""].iter().any(|private| text.contains(private)),
            "{text}"
        );
    }
}

#[test]
fn sessions_are_listed_with_their_traffic_and_what_looks_wrong() {
    let _turn = beside_others();
    if skip_on_coturn("the list of sessions") {
        return;
    }
    let plan = Plan {
        limits: "allocations_per_user = 5".to_owned(),
        tables: "[log]\nlevel = \"debug\"".to_owned(),
        ..Plan::loopback()
    };
    let server = Server::start(&plan);
    assert_eq!(printed(&server, &["sessions"]), "no sessions\n");
    let peer = Echo::start(LOCAL_V4);
    let mut clients = Vec::new();
    for (user, transport) in [("w_ann", Transport::Udp), ("w_bob", Transport::Tls)] {
        let mut client =
            Client::log_in(Link::open(transport, server.v4(transport)), server.credentials(user));
        client.allocate().expect("good credentials");
        assert_eq!(client.bind(0x4000, peer.address()), 0);
        client.send_to(peer.address(), &[7; 100]);
        let _ = client.receive().expect("the echo");
        clients.push(client);
    }
    wait_line(&server, &["DEBUG", "session", "began", "user=\"w_bob\"", "transport=\"tls\""]);
    let listed = printed(&server, &["sessions"]);
    assert!(listed.starts_with("HOST  USER   VIA  CLIENT"), "{listed}");
    for line in ["test  w_bob  tls", "test  w_ann  udp"] {
        let line = listed.lines().find(|found| found.starts_with(line)).expect("a line for each");
        assert!(line.contains("1 / 100 B  1 / 100 B  127.0.0.1"), "{line}");
    }
    assert!(listed.ends_with("2 sessions\n"), "{listed}");
    let one = printed(&server, &["sessions", "--user", "ann"]);
    assert!(one.contains("w_ann") && !one.contains("w_bob") && one.ends_with("1 of 2 sessions\n"), "{one}");
    let page: serde_json::Value =
        serde_json::from_str(&printed(&server, &["sessions", "--host", "test", "--json"])).expect("JSON");
    assert_eq!((&page["total"], &page["complete"]), (&2.into(), &true.into()));
    assert_eq!(page["sessions"][0]["relayed"][0]["channels"], 1);
    drop(clients);
    names_what_it_cannot_ask(&["sessions"]);
}

/// The printed commands work for a host whose users reach only its peers.
#[test]
fn the_printed_uclient_commands_work_with_a_list_of_peers() {
    let _turn = beside_others();
    if skip_on_coturn("the credentials command") {
        return;
    }
    let host =
        "[[host]]\nname = \"bbb\"\nsecret = \"the secret of a host with peers\"\npeers = [\"127.0.0.1\"]\n";
    let server = Server::start(&Plan { tables: host.to_owned(), ..Plan::loopback() });
    let config = server.files().path("hallpass.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command.args([
        "credentials",
        "--host",
        "bbb",
        "--command",
        "uclient",
        "--server",
        "127.0.0.1",
        "--config",
    ]);
    let lines = run_command(
        {
            command.arg(&config);
            command
        },
        LIMIT,
    );
    assert!(
        lines.success && lines.output.starts_with("# Users of this host reach only its peers"),
        "{}",
        lines.output
    );
    let udp = lines
        .output
        .lines()
        .find(|line| line.starts_with("turnutils_uclient -c"))
        .expect("a command for UDP");
    let mut shell = Command::new("sh");
    shell.args(["-c", udp]);
    let ended = run_command(shell, LIMIT);
    assert!(ended.success && !ended.output.contains("error"), "{}", ended.output);
    assert_eq!(get(server.admin(), "/refusals").1.matches("\"reason\"").count(), 0);
}
