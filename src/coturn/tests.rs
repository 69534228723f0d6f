//! The vectors in `tests/vectors/coturn`, which are configurations from installations with what coturn 4.6.1 makes of them; the
//! traps of its syntax and of its rules; and what holds for any input.

use std::net::IpAddr;
use std::path::Path;

use proptest::prelude::*;

use super::report::{Line, Report, Status};
use super::{Import, Input, import};
use crate::base::family::DefaultFamily;
use crate::base::transport::Transport;
use crate::config::{self, Config};

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../tests/vectors/coturn/", $name, ".conf"))
    };
}

fn of_file(file: &[u8]) -> Import {
    import(&Input { file: Some(("turnserver.conf", file)), ..Input::default() })
}

/// Imports settings and parses the result.
#[track_caller]
fn good(file: impl AsRef<[u8]>) -> (Config, Report) {
    let Import { configuration, report } = of_file(file.as_ref());
    let toml = configuration.unwrap_or_else(|| panic!("refused: {}", report.text())).toml;
    let loaded = config::parse(&toml, "hallpass.toml", Path::new(""))
        .unwrap_or_else(|error| panic!("{error}\n{toml}"));
    (loaded.config, report)
}

/// The reasons why settings are not imported, in one text.
#[track_caller]
fn refused(file: impl AsRef<[u8]>) -> String {
    let Import { configuration, report } = of_file(file.as_ref());
    assert!(configuration.is_none(), "imported: {}", report.text());
    report.refusals.iter().map(|note| format!("{}\n{}\n", note.message, note.remedy)).collect()
}

#[test]
fn secrets_and_users_of_the_default_database_are_not_dropped_silently() {
    let of = |file: &str, default_database| {
        let file = Some(("turnserver.conf", file.as_bytes()));
        import(&Input { file, default_database, ..Input::default() }).report
    };
    let secret = "listening-ip=10.20.0.5\nstatic-auth-secret=0123456789abcdef\n";
    let here = Some("/var/lib/turn/turndb");
    let told = of(secret, here);
    notes(
        &told,
        "not offered: coturn also takes secrets and rules for peers from its database /var/lib/turn/turndb",
    );
    notes(&told, "sqlite3 /var/lib/turn/turndb 'select realm, value from turn_secret;");
    let users = of("listening-ip=10.20.0.5\nlt-cred-mech\nuser=a:0123456789\n", here);
    notes(&users, "select realm, name from turnusers_lt");
    for silent in [of(secret, None), of(&format!("{secret}psql-userdb=host=x\n"), here)] {
        assert!(!silent.text().contains("turndb"), "{}", silent.text());
    }
    assert!(refused_with(of("use-auth-secret\n", here)).contains("default database /var/lib/turn/turndb,"));
}

fn refused_with(report: Report) -> String {
    report.refusals.iter().map(|note| format!("{}\n", note.message)).collect()
}

#[test]
fn comments_and_blanks_in_a_row_are_one_line_of_a_folded_report() {
    let (_, report) = good(format!("# one\n\n# three\n{}\n# six\nverbose\n", with("").trim_end()));
    let whole = report.text();
    for number in 1..=7 {
        assert!(whole.contains(&format!("turnserver.conf:{number}: ")), "{whole}");
    }
    let folded = report.folded();
    assert!(
        folded.starts_with("turnserver.conf: lines 1-3: without effect here: comments and blanks\n"),
        "{folded}"
    );
    assert!(folded.contains("turnserver.conf:6: without effect here: a comment\n"), "{folded}");
    assert_eq!(folded.lines().count() + 2, whole.lines().count());
    assert_eq!(folded.lines().last(), whole.lines().last());
}

#[test]
fn a_result_that_no_configuration_may_have_is_refused() {
    let users: String =
        (0..20_000).map(|number| format!("user=user{number}:a-password-{number}\n")).collect();
    let said = refused(format!("lt-cred-mech\nlistening-ip=10.20.0.5\n{users}"));
    assert!(said.contains("a configuration may have 1 MiB"), "{said}");
    let addresses: String =
        (0..20_000).map(|number| format!("listening-ip=10.1.{}.{}\n", number / 250, number % 250)).collect();
    assert!(refused(with(&addresses)).contains("20001 addresses to listen on; 1000 are possible"));
}

#[test]
fn names_that_coturn_does_not_answer_are_no_users() {
    let (config, report) =
        good("lt-cred-mech\nlistening-ip=10.20.0.5\nuser=n : o\nuser=a\"b:c\nuser=d:e f\n");
    let names: Vec<&str> = config.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["d"]);
    is(&report, 3, Status::WithoutEffect, "coturn answers 400");
    is(&report, 4, Status::WithoutEffect, "coturn answers 400");
}

#[test]
fn a_settings_file_whose_first_line_is_an_option_is_read_as_settings() {
    let (config, report) = good(format!("-v\n{}", with("denied-peer-ip=203.0.113.0-203.0.113.255")));
    is(&report, 1, Status::WithoutEffect, "ignores the line");
    is(&report, 4, Status::Kept, "denied");
    assert_eq!(config.peers.deny.len(), 1);
}

#[test]
fn a_denied_address_of_the_relay_is_noted() {
    let (_, report) = good(with("denied-peer-ip=10.20.0.5"));
    notes(&report, "the relay's own address 10.20.0.5");
    let (_, report) = good(with("denied-peer-ip=10.20.0.6"));
    assert!(!report.text().contains("the relay's own address"), "{}", report.text());
}

#[test]
fn numbers_beyond_their_range_are_said_as_they_are_taken() {
    let (_, report) = good(with("user-quota=99999999999"));
    is(&report, 3, Status::Kept, "no relay has that many ports");
    let Import { report, .. } = of_file(with("min-port=0\nmax-port=0").as_bytes());
    is(&report, 3, Status::Refused, "not a port");
    is(&report, 4, Status::Refused, "not a port");
}

/// Settings with a secret.
fn with(lines: &str) -> String {
    format!("static-auth-secret=0123456789abcdef\nlistening-ip=10.20.0.5\n{lines}\n")
}

#[track_caller]
fn line(report: &Report, number: usize) -> &Line {
    report.lines.iter().find(|line| line.place.line == Some(number)).expect("every line is there")
}

#[track_caller]
fn is(report: &Report, number: usize, status: Status, part: &str) {
    let line = line(report, number);
    let text = format!("{} {}", line.reason, line.remedy.as_deref().unwrap_or_default());
    assert!(line.status == status && text.contains(part), "{part}: {line:?}");
}

#[track_caller]
fn notes(report: &Report, part: &str) {
    let found = report.notes.iter().any(|note| format!("{} {}", note.message, note.remedy).contains(part));
    assert!(found, "{part}: {}", report.text());
}

fn listeners(config: &Config) -> Vec<String> {
    let mut listeners: Vec<String> =
        config.listen.iter().map(|listen| format!("{} {}", listen.transport, listen.address)).collect();
    listeners.sort();
    listeners
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn bbb_install_has_a_list_of_peers_and_a_secret_with_padding() {
    let (config, report) = good(vector!("01-bbb-install"));
    assert_eq!(listeners(&config), ["tcp 10.20.0.5:3478", "udp 10.20.0.5:3478"]);
    assert_eq!(texts(&config.relay.addresses), ["10.20.0.5"]);
    assert_eq!(
        (config.relay.ports.clone(), config.relay.default_family),
        (32_769..=65_535, DefaultFamily::Client)
    );
    assert_eq!(
        (config.realm.as_str(), config.external_ip.len(), config.users.len()),
        ("bbb.example.org", 0, 0)
    );
    let [host] = config.hosts.as_slice() else { panic!("one host") };
    assert_eq!(host.secrets, ["dG9wLXNlY3JldC1mb3ItdGVzdHMtb25seS0wMTIzNDU="]);
    assert_eq!(texts(host.peers.as_deref().unwrap_or_default()), ["203.0.113.50/32", "10.20.0.50/32"]);
    assert_eq!((config.peers, config.tls), (config::Peers::default(), None));
    assert_eq!(config.admin.expect("what hallpass sessions asks").address.to_string(), "127.0.0.1:9641");
    is(&report, 9, Status::WithoutEffect, "line of the log");
    is(&report, 12, Status::Kept, "ignores users");
    is(&report, 24, Status::Kept, "always refused");
    notes(&report, "external_ip = [\"PUBLIC/10.20.0.5\"]");
    notes(&report, "turns:NAME:443");
    assert_eq!(report.lines.len(), 30);
}

#[test]
fn the_admin_address_leaves_its_port_to_a_listener() {
    let with_port =
        |port: u16| good(format!("listening-port={port}\nuser=a:b\nlt-cred-mech\nrealm=r\n")).0.admin;
    assert!(with_port(9640).is_some() && with_port(9641).is_none());
}

#[test]
fn jitsi_has_udp_beside_nginx_and_tls_without_plain_tcp() {
    let (config, report) = good(vector!("02-jitsi"));
    assert_eq!(listeners(&config), ["tls [::]:4445", "udp [::]:443", "udp [::]:4445"]);
    assert!(config.listen.iter().all(|listen| listen.transport != Transport::Tls || !listen.either));
    assert_eq!(config.external_ip[0].public, "203.0.113.10".parse::<IpAddr>().expect("literal"));
    assert!(config.relay.addresses.is_empty() && config.hosts[0].peers.is_none());
    assert_eq!(config.tls.expect("a certificate").cert, Path::new("/etc/turn-test/cert.pem"));
    notes(&report, "allow = [\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fc00::/7\"]");
    notes(&report, "DTLS");
    is(&report, 1, Status::WithoutEffect, "comment");
    assert!(!report.text().contains("NAT discovery"), "external-ip switches it off");
}

#[test]
fn nextcloud_talk_has_islands_in_a_denied_range_and_second_ports() {
    let (config, report) = good(vector!("04-nextcloud-talk"));
    assert_eq!(listeners(&config), ["tcp [::]:3478", "tls [::]:443", "udp [::]:3478", "udp [::]:443"]);
    // Those who try the port of websites get a page.
    let with_page: Vec<Transport> =
        config.listen.iter().filter(|listener| listener.web).map(|listener| listener.transport).collect();
    assert_eq!(with_page, [Transport::Tls]);
    assert!(config.listen.iter().all(|listen| !listen.transport.is_stream() || listen.either));
    assert_eq!(config.limits.allocations_total, 100);
    assert_eq!(texts(&config.peers.allow), ["192.0.2.40/32", "192.0.2.41/32"]);
    assert_eq!(texts(&config.peers.deny), ["192.0.2.0/24"]);
    assert_eq!(config.hosts[0].peers, None);
    notes(&report, "tcp 3479, tls 444, udp 3479, udp 444");
    is(&report, 13, Status::WithoutEffect, "CBC");
    is(&report, 15, Status::WithoutEffect, "journal");
    assert!(
        line(&report, 15).option.contains("/var/log/turnserver.log"),
        "the file whose rules have to move"
    );
    let input = Input {
        file: Some(("f", vector!("04-nextcloud-talk"))),
        alternative_ports: true,
        ..Input::default()
    };
    let toml = import(&input).configuration.expect("imported").toml;
    let config = config::parse(&toml, "f", Path::new("")).expect("good").config;
    assert!(listeners(&config).contains(&"udp [::]:3479".to_owned()), "{toml}");
    assert_eq!(config.listen.len(), 8);
}

#[test]
fn odd_syntax_is_read_as_coturn_reads_it() {
    let (config, report) = good(vector!("05-odd-syntax"));
    assert_eq!(listeners(&config), ["tcp 10.20.0.5:3480", "udp 10.20.0.5:3480"]);
    assert_eq!(config.realm, "odd.example.org");
    assert_eq!(config.hosts[0].secrets, ["quoted secret", "'single'", "plain # not a comment"]);
    assert_eq!(config.relay.ports, 50_000..=50_099);
    assert_eq!((config.limits.allocations_total, config.limits.allocations_per_user), (20, 0));
    assert_eq!(texts(&config.peers.deny), ["172.16.0.0/12", "10.20.0.50/32"]);
    is(&report, 1, Status::WithoutEffect, "byte order mark");
    is(&report, 9, Status::Kept, "quotes are a part of the secret");
    is(&report, 10, Status::Kept, "WARNING");
    is(&report, 14, Status::KeptDifferently, "not a number");
    is(&report, 15, Status::WithoutEffect, "off");
    is(&report, 18, Status::WithoutEffect, "no such option");
    is(&report, 22, Status::WithoutEffect, "a comment starts with #");
    is(&report, 23, Status::KeptDifferently, "ignores the line");
    assert!(!report.text().contains("not a comment"), "a part of a secret");
}

#[test]
fn static_users_keep_their_passwords_and_bytes_become_bits() {
    let (config, report) = good(vector!("07-static-users"));
    let users: Vec<(&str, &str)> =
        config.users.iter().map(|user| (user.name.as_str(), user.password.as_str())).collect();
    assert_eq!(users, [("alice", "correct horse"), ("carol", "pass:with:colons")]);
    assert!(config.hosts.is_empty());
    assert_eq!((config.limits.kbit_per_allocation, config.limits.allocations_per_user), (1024, 2));
    assert_eq!(config.limits.lifetime_max_seconds, 600);
    assert_eq!(config.relay.ports, 59_000..=59_100);
    is(&report, 13, Status::Refused, "set a new password for bob");
    is(&report, 25, Status::NotOffered, "8016");
    is(&report, 18, Status::WithoutEffect, "600 s");
    notes(&report, "10.0.0.0/8");
}

#[test]
fn an_open_relay_is_refused_with_the_way_out() {
    let reasons = refused(vector!("09-open-relay"));
    assert!(reasons.contains("relays for everybody") && reasons.contains("static-auth-secret"), "{reasons}");
    is(&of_file(vector!("09-open-relay")).report, 1, Status::WithoutEffect, "no TLS listener");
    for lines in [
        "no-auth",
        "no-auth\nuser=a:b",
        "realm=a",
        "lt-cred-mech=0\nno-cli",
        // The later option switches credentials off.
        "static-auth-secret=0123456789abcdef\nlt-cred-mech=no",
        "static-auth-secret=0123456789abcdef\nno-auth",
        "static-auth-secret=",
    ] {
        refused(lines);
    }
}

#[test]
fn a_command_line_is_read_like_a_file() {
    let (config, report) = good(vector!("10-command-line"));
    let line = String::from_utf8_lossy(vector!("10-command-line")).into_owned();
    let arguments: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    let given = import(&Input { arguments: &arguments, ..Input::default() });
    let toml = given.configuration.expect("imported").toml;
    let of_arguments = config::parse(&toml, "f", Path::new("")).expect("good").config;
    for config in [config, of_arguments] {
        assert_eq!(listeners(&config), ["tcp 10.20.0.5:3478", "udp 10.20.0.5:3478"]);
        assert_eq!(texts(&[config.external_ip[0].public]), ["203.0.113.10"]);
        assert_eq!(config.users.len(), 2);
        let limits = &config.limits;
        assert_eq!(
            (limits.allocations_per_user, limits.allocations_total, limits.kbit_per_allocation),
            (100, 300, 48_000)
        );
        assert_eq!(
            (config.relay.ports.clone(), texts(&config.peers.deny)),
            (49_160..=49_200, vec!["10.0.0.0/8".to_owned()])
        );
        assert!(config.peers.allow.is_empty(), "coturn opens the private half of external-ip");
        assert_eq!(config.admin.expect("metrics").address.to_string(), "127.0.0.1:9641");
    }
    notes(&report, "41 relay ports");
    let covered: Vec<usize> = given
        .report
        .lines
        .iter()
        .filter_map(|line| line.place.arguments)
        .flat_map(|(first, last)| first..=last)
        .collect();
    assert_eq!(covered, (1..=arguments.len()).collect::<Vec<_>>());
}

#[test]
fn secrets_in_a_database_are_refused_with_the_way_out() {
    let reasons = refused(vector!("12-database-only"));
    for part in [
        "/etc/turn-test/turndb",
        "turnadmin -S",
        "-r 'home.example.org'",
        "secret_file",
        "systemctl cat coturn",
    ] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
    let report = of_file(vector!("12-database-only")).report;
    is(&report, 20, Status::NotOffered, "TLS 1.2 stays on");
    is(&report, 21, Status::WithoutEffect, "no web admin");
    is(&report, 23, Status::Refused, "Redis");
    assert!(refused("lt-cred-mech").contains("/var/lib/turn/turndb"), "users of the default database");
    assert!(!refused("use-auth-secret\npsql-userdb=\"host=h password=hidden-password\"").contains("hidden"));
}

#[test]
fn arguments_win_over_the_file_and_lists_add_up() {
    let file = with("realm=a\nexternal-ip=203.0.113.1\ndenied-peer-ip=9.9.9.9");
    let arguments: Vec<Vec<u8>> =
        ["--realm=b", "-X", "203.0.113.2", "--denied-peer-ip=8.8.8.8", "-c", "turnserver.conf"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    let input = Input { file: Some(("f", file.as_bytes())), arguments: &arguments, ..Input::default() };
    let Import { configuration, report } = import(&input);
    let config =
        config::parse(&configuration.expect("imported").toml, "f", Path::new("")).expect("good").config;
    assert_eq!(config.realm, "b");
    // coturn keeps the first one.
    assert_eq!(texts(&[config.external_ip[0].public]), ["203.0.113.1"]);
    assert_eq!(texts(&config.peers.deny), ["9.9.9.9/32", "8.8.8.8/32"]);
    is(&report, 3, Status::WithoutEffect, "replaced: argument 1");
    let unread: Vec<Vec<u8>> = vec![b"-n".to_vec(), b"--static-auth-secret=fedcba9876543210".to_vec()];
    let input = Input { file: Some(("f", file.as_bytes())), arguments: &unread, ..Input::default() };
    let toml = import(&input).configuration.expect("imported").toml;
    assert!(
        !toml.contains("0123456789abcdef") && toml.contains("fedcba9876543210"),
        "-n: the file is not read"
    );
}

#[test]
fn the_last_scalar_counts_and_only_the_first_external_ip() {
    let (config, report) =
        good(with("listening-port=1\nlistening-port=4000\nexternal-ip=203.0.113.1\nexternal-ip=203.0.113.2"));
    assert_eq!(listeners(&config), ["tcp 10.20.0.5:4000", "udp 10.20.0.5:4000"]);
    assert_eq!(config.external_ip.len(), 1);
    is(&report, 3, Status::WithoutEffect, "line 4");
    is(&report, 6, Status::WithoutEffect, "first external-ip");
}

#[test]
fn pairs_and_a_single_external_ip_do_not_clash() {
    let (config, _) = good(with(
        "relay-ip=10.20.0.5\nrelay-ip=10.20.0.6\nexternal-ip=203.0.113.1/10.20.0.5\nexternal-ip=203.0.113.2",
    ));
    let pairs: Vec<String> =
        config.external_ip.iter().map(|pair| format!("{}/{:?}", pair.public, pair.private)).collect();
    assert_eq!(pairs, ["203.0.113.1/Some(10.20.0.5)", "203.0.113.2/Some(10.20.0.6)"]);
}

#[test]
fn a_secret_silences_every_user() {
    let (config, report) = good(with("lt-cred-mech\nuser=alice:password"));
    assert!(config.users.is_empty());
    is(&report, 4, Status::WithoutEffect, "ignores every user");
}

#[test]
fn users_are_read_as_coturn_reads_them() {
    let (config, report) = good("user=a: spaced\nuser=b:1\nuser=b:2\nuser=nocolon\nuser=:x\nuser=c:\n");
    let users: Vec<(&str, &str)> =
        config.users.iter().map(|user| (user.name.as_str(), user.password.as_str())).collect();
    assert_eq!(users, [("a", "spaced"), ("b", "2")]);
    is(&report, 2, Status::WithoutEffect, "replaced: line 3");
    for number in 4..=6 {
        is(&report, number, Status::WithoutEffect, "NAME:PASSWORD");
    }
    assert!(refused("user=bob:0x0bd4cbd8a6f6806b4804cfd89548e9cb\nlt-cred-mech").contains("new password"));
}

#[test]
fn what_coturn_refuses_is_refused() {
    for lines in [
        "no-tcp-relay # a comment",
        "mobility=enabled",
        "bps-capacity=1000",
        "no-udp-relay",
        "stun-only",
        "rest-api-separator=|",
        "listening-port=x",
        "min-port=70000",
        "min-port=5000\nmax-port=4000",
        "no-udp\nno-tcp",
        "external-ip=relay.example.org",
        "denied-peer-ip=example.org",
    ] {
        refused(with(lines));
    }
    for arguments in [["--no-such-option"], ["--use"], ["--realm"], ["-p=3478"]] {
        let arguments: Vec<Vec<u8>> = arguments.iter().map(|text| text.as_bytes().to_vec()).collect();
        let file = with("");
        let input = Input { file: Some(("f", file.as_bytes())), arguments: &arguments, ..Input::default() };
        assert!(import(&input).configuration.is_none(), "{arguments:?}");
    }
}

#[test]
fn variables_and_placeholders_are_to_be_expanded_first() {
    for lines in [
        "external-ip=$(curl icanhazip.com)",
        "realm=${REALM:-x}",
        "realm=<your-realm>",
        "static-auth-secret={{ secret }}",
        "static-auth-secret=[your secret key here]",
    ] {
        assert!(refused(with(lines)).contains("expand it first"), "{lines}");
    }
    let arguments: Vec<Vec<u8>> =
        ["sh", "-c", "turnserver -n"].iter().map(|text| text.as_bytes().to_vec()).collect();
    let import = import(&Input { arguments: &arguments, ..Input::default() });
    assert!(import.configuration.is_none() && import.report.text().contains("expand it first"));
    // An option without effect does not need a value.
    good(with("log-file=$LOG"));
}

#[test]
fn ports_of_listeners_are_not_relay_ports() {
    let (config, report) = good(with("min-port=1024\nmax-port=65535"));
    assert_eq!(config.relay.ports, 3479..=65_535);
    is(&report, 3, Status::KeptDifferently, "without the ports of UDP listeners");
}

#[test]
fn second_ports_need_two_addresses() {
    let second = |lines: &str| {
        let notes = of_file(with(lines).as_bytes()).report.notes;
        notes.iter().any(|note| note.message.contains("NAT discovery"))
    };
    assert!(!second(""), "one address");
    assert!(second("listening-ip=10.20.0.6"));
    assert!(!second("listening-ip=10.20.0.6\nno-rfc5780"), "switched off");
    assert!(!second("listening-ip=10.20.0.6\nexternal-ip=203.0.113.1"));
    assert!(second("listening-ip=10.20.0.6\nexternal-ip=203.0.113.1/10.20.0.5"));
}

#[test]
fn a_proxy_takes_the_place_of_tcp_and_tls() {
    let (config, report) = good(with("tcp-proxy-port=3479\ncert=/c.pem\npkey=/k.pem\nno-udp"));
    assert_eq!(listeners(&config), ["tcp 10.20.0.5:3479"]);
    assert_eq!(texts(&config.listen[0].proxies), ["127.0.0.1/32", "::1/128", "10.20.0.5/32"]);
    is(&report, 3, Status::KeptDifferently, "everybody");
}

#[test]
fn bps_capacity_limits_the_number_of_allocations() {
    let (config, _) = good(with("max-bps=1000\nbps-capacity=10500\ntotal-quota=50"));
    assert_eq!((config.limits.kbit_per_allocation, config.limits.allocations_total), (16, 11));
}

#[test]
fn an_allowed_prefix_that_coturn_ignores_opens_nothing() {
    let (config, report) = good(with("allowed-peer-ip=10.0.0.0/8\ndenied-peer-ip=10.0.0.0-10.255.255.255"));
    assert_eq!(
        (texts(&config.peers.allow), texts(&config.peers.deny)),
        (vec![], vec!["10.0.0.0/8".to_owned()])
    );
    is(&report, 3, Status::WithoutEffect, "ignores the line");
}

#[test]
fn a_list_of_allowed_peers_alone_restricts_nothing() {
    let (config, report) = good(with("allowed-peer-ip=203.0.113.50"));
    assert_eq!(
        (config.hosts[0].peers.clone(), texts(&config.peers.allow)),
        (None, vec!["203.0.113.50/32".to_owned()])
    );
    notes(&report, "restricts nothing");
}

#[test]
fn no_secret_is_in_the_report() {
    let secrets = "static-auth-secret=SENTINEL-1234567890\n#SENTINEL-1234567890\nuser=a:SENTINEL-1234567890\n\
                   cli-password=SENTINEL-1234567890\npkey-pwd=SENTINEL-1234567890\n\
                   psql-userdb=\"host=h password=SENTINEL-1234567890\"\nstatic-auth-secrets=SENTINEL-1234567890\n\
                   SENTINEL-1234567890\nuser=SENTINEL-1234567890\nstatic-auth-secret=secret=SENTINEL-1234567890\n";
    let Import { configuration, report } = of_file(secrets.as_bytes());
    assert!(!report.text().contains("SENTINEL") && !report.json().contains("SENTINEL"), "{}", report.text());
    assert!(configuration.expect("imported").toml.contains("SENTINEL"));
    assert!(report.text().contains("did you mean static-auth-secret?"));
}

#[test]
fn the_report_is_json_as_well() {
    let report = of_file(vector!("07-static-users")).report;
    let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
    assert_eq!(json["imported"], true);
    assert_eq!(json["lines"].as_array().map(Vec::len), Some(26));
    assert_eq!(json["lines"][12]["status"], "refused");
    assert_eq!(json["counts"]["refused"], 1);
}

/// Checks what holds for any input.
fn holds(file: &[u8], arguments: &[Vec<u8>]) {
    let input = Input { file: Some(("turnserver.conf", file)), arguments, ..Input::default() };
    let Import { configuration, report } = import(&input);
    for number in 1..=file.split_inclusive(|&byte| byte == b'\n').count() {
        assert!(report.lines.iter().any(|line| line.place.line == Some(number)), "line {number}");
    }
    for number in 1..=arguments.len() {
        let has = |line: &Line| {
            line.place.line.is_none()
                && line.place.arguments.is_some_and(|(first, last)| (first..=last).contains(&number))
        };
        assert!(report.lines.iter().any(has), "argument {number}");
    }
    assert_eq!(configuration.is_none(), report.is_refused());
    if let Some(configuration) = configuration {
        config::parse(&configuration.toml, "hallpass.toml", Path::new("")).expect("a good configuration");
    }
}

/// A line of an option with a value of some kind.
fn any_line() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = super::options::OPTIONS.iter().map(|row| row.name).collect();
    let name = prop::sample::select(names);
    let value = prop_oneof![
        Just(String::new()),
        "[0-9]{1,6}",
        "[0-9.:/-]{1,20}",
        "[ -~]{0,30}",
        "(10\\.0\\.[0-9]\\.[0-9](-10\\.[0-9]\\.0\\.0)?)",
        "([0-9a-f]{0,4}:){1,7}[0-9a-f]{0,4}",
        "(on|off|yes|no|1|0)",
        "[a-z]{1,5}:[ -~]{1,10}",
    ];
    (
        name,
        prop::sample::select(vec!["=", " ", " = ", "\t", ""]),
        value,
        prop::sample::select(vec!["\n", "\r\n"]),
    )
        .prop_map(|(name, between, value, end)| format!("{name}{between}{value}{end}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_a_report_with_every_line(file in prop::collection::vec(any::<u8>(), 0..2000)) {
        holds(&file, &[]);
    }

    #[test]
    fn any_options_have_a_report_with_every_line(lines in prop::collection::vec(any_line(), 0..20)) {
        holds(format!("static-auth-secret=0123456789abcdef\n{}", lines.concat()).as_bytes(), &[]);
        holds(lines.concat().as_bytes(), &[]);
        let arguments: Vec<Vec<u8>> = lines.iter().map(|line| format!("--{}", line.trim_end()).into_bytes()).collect();
        holds(b"", &arguments);
    }

    #[test]
    fn any_arguments_have_a_report_with_every_one(arguments in prop::collection::vec("-{0,2}[ -~]{0,12}", 0..12)) {
        let arguments: Vec<Vec<u8>> = arguments.into_iter().map(String::into_bytes).collect();
        holds(b"realm=a\n", &arguments);
    }
}
