use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::base::family::DefaultFamily;
use crate::base::transport::Transport;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A valid configuration of 8 lines; `extra` starts on line 9.
fn with(extra: &str) -> String {
    format!(
        "realm = \"relay.example.org\"\n\n[[listen]]\ntransport = \"udp\"\naddress = \"0.0.0.0:3479\"\n\
         [[host]]\nname = \"ping\"\nsecret = \"{SECRET}\"\n{extra}"
    )
}

fn load(text: &str) -> Result<Loaded, Report> {
    parse(text, "hallpass.toml", Path::new("/nonexistent"))
}

fn good(text: &str) -> Config {
    match load(text) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("refused:\n{report}"),
    }
}

/// Asserts a problem on this line whose message and remedy contain these words.
#[track_caller]
fn assert_problem(text: &str, severity: Severity, line: usize, message: &str, remedy: &str) {
    let report = load(text).map_or_else(|report| report, |loaded| loaded.warnings);
    let found = report.problems.iter().any(|problem| {
        problem.severity == severity
            && problem.line.unwrap_or(0) == line
            && format!("{}: {}", problem.key, problem.message).contains(message)
            && problem.remedy.contains(remedy)
    });
    assert!(found, "no {severity:?} on line {line} with {message:?} and {remedy:?} in:\n{report}");
}

#[track_caller]
fn assert_error(text: &str, line: usize, message: &str, remedy: &str) {
    assert_problem(text, Severity::Error, line, message, remedy);
    assert!(load(text).is_err(), "an error must refuse the configuration");
}

#[track_caller]
fn assert_warning(text: &str, line: usize, message: &str, remedy: &str) {
    assert_problem(text, Severity::Warning, line, message, remedy);
    assert!(load(text).is_ok(), "a warning must not refuse the configuration:\n{}", load(text).unwrap_err());
}

/// A temporary directory, removed with its contents when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hallpass-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str, mode: u32) {
        fs::write(self.0.join(name), content).unwrap();
        fs::set_permissions(self.0.join(name), Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_minimal_configuration_has_every_default() {
    let loaded = load(&with("")).unwrap();
    assert_eq!(loaded.warnings.to_string(), "");
    let config = loaded.config;
    let listener = Listener::new(Transport::Udp, "0.0.0.0:3479".parse().unwrap(), 5);
    let host = Host { name: "ping".into(), secrets: vec![SECRET.into()], revoked: vec![], peers: None };
    let expected = Config {
        realm: "relay.example.org".into(),
        listen: vec![listener],
        hosts: vec![host],
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(config.limits.unauthenticated_per_source, 500);
    assert_eq!(config.relay.ports, 49152..=65535);
    assert_eq!(config.relay.default_family, DefaultFamily::V4);
}

#[test]
fn every_key_is_read() {
    let text = "realm = 'r'\nexternal_ip = ['203.0.113.10/10.0.0.5', '2001:db8::1']\nstrict_channels = true\nicmp_to_clients = true\nprivacy = true\n\
        [[listen]]\ntransport = 'tls'\naddress = '[::]:443'\n\
        [relay]\naddresses = ['10.0.0.5', 'fd00::5']\nports = '50000-50999'\ndefault_family = 'client'\nmode = 'sockets'\n\
         [tls]\ncert = 'chain.pem'\nkey = '/k.pem'\naccept_expired = true\n\
        [[host]]\nname = 'h'\nsecret = 'aaaaaaaaaaaaaaaa'\nsecrets = ['bbbbbbbbbbbbbbbb']\nrevoked = ['cccccccccccccccc']\npeers = ['8.8.8.8', '9.0.0.0/8']\n\
        [[user]]\nname = 'u'\npassword = 'p'\nhost = 'h'\n\
        [peers]\nallow = ['127.0.0.0/8']\ndeny = ['0.0.0.0/0']\n\
        [limits]\nallocations_per_user = 1\nallocations_per_host = 15\nallocations_total = 2\nunauthenticated_per_source = 3\nrequests_per_user = 17\npermissions_per_user = 18\nkbit_per_allocation = 9\npackets_per_allocation = 10\n\
        kbit_per_user = 11\npackets_per_user = 12\nkbit_per_host = 13\npackets_per_host = 14\nmss = 1200\nworkers = 4\n\
        permissions_per_allocation = 5\nchannels_per_allocation = 6\nconnections_total = 7\nconnections_per_source = 16\nconnections_exempt = ['10.0.0.0/8']\nmemory_mib = 512\nlifetime_max_seconds = 600\ndrain_seconds = 8\n\
        [drain]\nalternate_server = ['203.0.113.11:3478', '[2001:db8::11]:3478']\ntcp_alternate_server = ['203.0.113.12:443']\ntls_alternate_server = ['203.0.113.11:443']\n\
        [log]\nformat = 'json'\nlevel = 'debug'\n[admin]\naddress = '127.0.0.1:9000'\nnames = ['Relay.example.org']\n";
    let config = good(text);
    assert!(config.strict_channels && config.icmp_to_clients && config.privacy);
    assert_eq!(config.external_ip[0].private, Some("10.0.0.5".parse().unwrap()));
    assert_eq!(config.external_ip[1], ExternalIp { public: "2001:db8::1".parse().unwrap(), private: None });
    assert_eq!(config.relay.addresses.len(), 2);
    assert_eq!(config.relay.ports, 50000..=50999);
    assert_eq!(config.relay.default_family, DefaultFamily::Client);
    assert_eq!(
        config.tls,
        Some(TlsFiles {
            cert: "/nonexistent/chain.pem".into(),
            key: "/k.pem".into(),
            accept_expired: true,
            lines: (15, 16)
        }),
        "relative to the file's directory"
    );
    assert_eq!(config.hosts[0].secrets, ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"]);
    assert_eq!(config.hosts[0].revoked, ["cccccccccccccccc"]);
    let peers = ["8.8.8.8/32".parse().unwrap(), "9.0.0.0/8".parse().unwrap()];
    assert_eq!(config.hosts[0].peers.as_deref(), Some(&peers[..]));
    assert_eq!(config.users[0].host.as_deref(), Some("h"));
    assert_eq!(config.peers.allow, ["127.0.0.0/8".parse().unwrap()]);
    assert_eq!(config.peers.deny, ["0.0.0.0/0".parse().unwrap()]);
    let limits = Limits {
        allocations_per_user: 1,
        allocations_per_host: 15,
        allocations_total: 2,
        unauthenticated_per_source: 3,
        requests_per_user: 17,
        kbit_per_allocation: 9,
        packets_per_allocation: 10,
        kbit_per_user: 11,
        packets_per_user: 12,
        kbit_per_host: 13,
        packets_per_host: 14,
        mss: 1200,
        workers: 4,
        permissions_per_allocation: 5,
        channels_per_allocation: 6,
        permissions_per_user: 18,
        connections_total: 7,
        connections_per_source: 16,
        connections_exempt: vec!["10.0.0.0/8".parse().unwrap()],
        memory_mib: 512,
        lifetime_max_seconds: 600,
        drain_seconds: 8,
    };
    assert_eq!(config.limits, limits);
    let server = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let alternates = Drain {
        alternate_server: vec![server("203.0.113.11:3478"), server("[2001:db8::11]:3478")],
        tcp_alternate_server: vec![server("203.0.113.12:443")],
        tls_alternate_server: vec![server("203.0.113.11:443")],
    };
    assert_eq!(config.drain, alternates);
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
    let admin = Admin {
        address: server("127.0.0.1:9000"),
        names: vec!["relay.example.org".into()],
        ..Admin::default()
    };
    assert_eq!(config.admin, Some(admin));
    assert_eq!(good(&with("[admin]\n")).admin, Some(Admin::default()));
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_lines() {
    let report = load("realn = 'x'\n[[listen]]\ntransport = 'quic'\naddress = 'here'\n[limits]\nmss = 7\n")
        .unwrap_err();
    let lines: Vec<_> = report.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [None, Some(1), Some(3), Some(4), Some(6)], "{report}");
    let text = report.to_string();
    assert!(
        text.starts_with("hallpass.toml: error: host: no client can use this relay\n    write a [[host]]"),
        "{text}"
    );
    assert!(
        text.contains("hallpass.toml:1: error: realn: unknown key\n    did you mean `realm`?\n"),
        "{text}"
    );
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    assert_error(&with("[limits]\nworker = 3"), 10, "limits.worker: unknown key", "did you mean `workers`?");
    assert_error(&with("secert_file = 'x'"), 9, "host.secert_file", "did you mean `secret_file`?");
    assert_error(&with("[relais]\n"), 9, "relais", "did you mean `relay`?");
    assert_error(
        &with("strict_channels = true"),
        9,
        "host.strict_channels",
        "belongs to the top of the file",
    );
    assert_error(&with("[relay]\nmss = 1200"), 10, "relay.mss", "belongs to [limits]");
    assert_error(&with("[relay]\ndefault_family = 'inet6'"), 10, "is not a choice", "\"ipv6\", \"client\"");
    assert_error(&with("[log]\nzzz = 1"), 10, "log.zzz", "the keys of [log] are format, level");
}

#[test]
fn syntax_errors_have_a_line_and_a_remedy() {
    assert_error("realm = relay.example.org\n", 1, "", "key = \"");
    assert_error(&with("name = \"again\"\n"), 9, "duplicate key", "[[listen]] and [[host]]");
    assert_error("a = 'b'\nrealm = \"open\n\n", 2, "", "quotes");
    let report = load("realm = \n[limits\nworkers = 1\n").unwrap_err();
    assert!(report.problems.iter().any(|p| p.line == Some(1)), "{report}");
    assert!(report.problems.iter().any(|p| p.line == Some(2)), "{report}");
}

const SHARED: &str = "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:443'\nweb = true\n";

#[test]
fn a_port_is_shared_with_the_web() {
    let table = "[web]\nhttp1 = '127.0.0.1:81'\nh2 = '127.0.0.1:82'\nproxy_protocol = 'v1'\n\
                 passthrough = { 'BBB.example.org' = '127.0.0.1:8443', 'b.example' = '[::1]:8443' }";
    let config = load(&with(&format!("{SHARED}{table}"))).expect("good").config;
    let address = |text: &str| text.parse::<std::net::SocketAddr>().expect("address");
    assert!(config.listen.iter().any(|listener| listener.web && listener.transport == Transport::Tls));
    let passthrough = [("b.example", "[::1]:8443"), ("bbb.example.org", "127.0.0.1:8443")];
    assert_eq!(
        config.web,
        Web {
            http1: Some(address("127.0.0.1:81")),
            h2: Some(address("127.0.0.1:82")),
            proxy_protocol: ProxyProtocol::V1,
            passthrough: passthrough.map(|(name, to)| (name.to_owned(), address(to))).into(),
        }
    );
}

#[test]
fn mistakes_about_shared_and_proxied_ports_are_reported() {
    let table = |lines: &str| with(&format!("{SHARED}[web]\n{lines}"));
    assert_error(&table("http1 = 'localhost:81'"), 14, "is not an address with a port", "127.0.0.1:81");
    assert_error(&table("http1 = '127.0.0.1:443'"), 13, "own listener on line 11", "the web server");
    assert_error(&table("proxy_protocol = 'v3'"), 14, "is not a choice", "\"v1\", \"v2\"");
    assert_error(&table("passthrough = { 'a b' = '127.0.0.1:1' }"), 14, "is not a host name", "whole name");
    assert_error(&table("passthrough = { 'a' = 1 }"), 14, "an integer is not accepted here", "quotes");
    assert_error(&table("passthrough = 'a'"), 14, "a string is not accepted here", "a table");
    let twice = "passthrough = { 'a.b' = '127.0.0.1:1', 'A.b' = '127.0.0.1:2' }";
    assert_error(&table(twice), 14, "a.b is listed twice", "remove one");
    let listen = |transport: &str, line: &str| {
        with(&format!("[[listen]]\ntransport = '{transport}'\naddress = '0.0.0.0:1'\n{line}"))
    };
    assert_error(&listen("tcp", "web = true"), 12, "only a TLS port", "transport = \"tls\"");
    assert_error(
        &listen("udp", "proxy_protocol = ['10.0.0.1']"),
        12,
        "not supported over UDP",
        "\"tcp\" or \"tls\"",
    );
    assert_error(
        &listen("tls", "quic = '127.0.0.1:1'"),
        12,
        "QUIC needs a UDP listener",
        "transport = \"udp\"",
    );
    assert_warning(
        &listen("udp", "quic = '127.0.0.1:2'"),
        12,
        "every visitor as this host",
        "public content only",
    );
    assert_error(&listen("tcp", "proxy_protocol = []"), 12, "trusts no proxy", "address of the proxy");
    assert_error(&listen("tcp", "proxy_protocol = ['10.0.0.1/8']"), 12, "is not a prefix", "10.0.0.0/8");
    assert_warning(
        &listen("tcp", "proxy_protocol = ['0.0.0.0/0']"),
        12,
        "claim any address",
        "address of the proxy",
    );
    assert_warning(&with("[web]\nhttp1 = '127.0.0.1:81'"), 9, "no listener is shared", "web = true");
    assert_warning(&table("h2 = '127.0.0.1:82'"), 14, "built-in site", "web.http1");
}

#[test]
fn a_web_server_without_a_proxy_header_is_a_warning() {
    let table = |lines: &str| with(&format!("{SHARED}[web]\n{lines}"));
    let remedy = "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol";
    assert_warning(&table("http1 = '127.0.0.1:81'"), 13, "every visitor as this host", remedy);
    assert_warning(&table("h2 = '127.0.0.1:82'"), 13, "X-Forwarded-For", "proxy_protocol = \"v1\"");
    let written = table("http1 = '127.0.0.1:81'\nproxy_protocol = 'none'");
    assert_warning(&written, 15, "web.proxy_protocol: without a PROXY header", remedy);
    let passthrough = table("passthrough = { 'a.b' = '127.0.0.1:1' }");
    assert_warning(&passthrough, 13, "every visitor as this host", remedy);
    for silent in ["http1 = '127.0.0.1:81'\nproxy_protocol = 'v1'", "proxy_protocol = 'none'"] {
        let loaded = load(&table(silent)).expect("good");
        assert!(!loaded.warnings.to_string().contains("visitor"), "{}", loaded.warnings);
    }
}

#[test]
fn types_are_checked() {
    assert_error(&with("[limits]\nworkers = \"2\""), 10, "a string is not accepted here", "whole number");
    assert_error(&with("[limits]\nworkers = 2.5"), 10, "a float is not accepted here", "whole number");
    assert_error(&with("peers = '1.1.1.1'"), 9, "a string is not accepted here", "list");
    assert_error(&with("peers = [\n'1.1.1.1',\n7]"), 11, "an integer is not accepted here", "quotes");
    assert_error("privacy = 'yes'", 1, "privacy", "true or false");
    assert_error("limits = 5", 1, "an integer is not accepted here", "a table that starts with [limits]");
    assert_error("[listen]\ntransport = 'udp'", 1, "a table is not accepted here", "double brackets");
}

#[test]
fn numbers_are_bounded() {
    assert_error(
        &with("[limits]\nmss = 9"),
        10,
        "9 is out of range",
        "536 to 8960, or 0 for the kernel's choice",
    );
    assert_error(&with("[limits]\nworkers = -1"), 10, "-1 is out of range", "1 to 256");
    assert_error(&with("[limits]\nchannels_per_allocation = 0"), 10, "out of range", "1 to 16384");
    assert_error(
        &with("[limits]\nallocations_total = 99999999999999999999"),
        10,
        "out of range",
        "4294967295",
    );
    assert_error(&with("[limits]\nallocations_total = 4294967296"), 10, "out of range", "4294967295");
    assert_eq!(good(&with("[limits]\nallocations_total = 0x10")).limits.allocations_total, 16);
    let drain = |servers: &str| with(&format!("[drain]\nalternate_server = [{servers}]"));
    assert_error(&drain("'relay2'"), 10, "drain.alternate_server", "203.0.113.11:3479");
    assert_error(
        &drain("'0.0.0.0:3478'"),
        10,
        "cannot be sent to this address",
        "address of the other relay",
    );
    assert_error(&drain("'203.0.113.11:1', '203.0.113.11:1'"), 10, "is listed twice", "remove");
    let many: Vec<String> = (1..=65).map(|port| format!("'203.0.113.11:{port}'")).collect();
    assert_error(&drain(&many.join(",")), 10, "more than 64 servers", "in turn");
    let several = good(&drain("'203.0.113.11:1', '[2001:db8::1]:1', '203.0.113.12:1'")).drain;
    assert_eq!(several.alternate_server.len(), 3);
    assert_eq!(several.tcp_alternate_server, several.alternate_server, "TCP uses UDP's servers by default");
    let own = format!("{}\ntcp_alternate_server = ['203.0.113.13:443']", drain("'203.0.113.11:1'"));
    assert_eq!(good(&own).drain.tcp_alternate_server, ["203.0.113.13:443".parse().unwrap()]);
    assert_warning(&with("[limits]\nlifetime_max_seconds = 60"), 10, "default lifetime", "600");
}

#[test]
fn the_realm_is_short_to_limit_amplification() {
    let of = |length: usize| with("").replace("relay.example.org", &"r".repeat(length));
    assert_eq!(good(&of(52)).realm.len(), 52);
    assert_error(&of(53), 1, "53 bytes, more than 52", "amplifies");
    assert_error(&of(0), 1, "the realm is empty", "relay.example.org");
    assert_error(
        &with("").replace("relay.", "relay\\t"),
        1,
        "control character",
        "write the name of the relay",
    );
}

#[test]
fn external_ip_is_one_address_per_family_or_pairs() {
    let of = |list: &str| format!("external_ip = {list}\n{}", with(""));
    assert_error(&of("['relay.example.org']"), 1, "is not an address", "203.0.113.10/10.0.0.5");
    assert_error(&of("['203.0.113.10/fd00::1']"), 1, "mixes IPv4 and IPv6", "same family");
    assert_error(
        &of("['203.0.113.10', '203.0.113.11']"),
        1,
        "overlaps with an earlier entry",
        "public/private",
    );
    assert_error(&of("['0.0.0.0']"), 1, "0.0.0.0 cannot be a destination", "clients outside");
    for swapped in ["10.0.0.5/203.0.113.10", "fd00::5/2001:db8::10"] {
        assert_warning(
            &of(&format!("['{swapped}']")),
            1,
            "private address in place of a public one",
            "public address first",
        );
    }
    let pairs = good(&of("['203.0.113.10/10.0.0.1', '203.0.113.11/10.0.0.2', '2001:db8::1']"));
    assert_eq!(pairs.external_ip.len(), 3);
    let unknown = format!("{}[relay]\naddresses = ['10.0.0.9']\n", of("['203.0.113.10/10.0.0.1']"));
    assert_warning(&unknown, 1, "matches no address", "add \"10.0.0.1\" to relay.addresses (line 11)");
}

#[test]
fn listeners_need_a_transport_and_a_distinct_address() {
    let second = |transport: &str, address: &str| {
        with(&format!("[[listen]]\ntransport = \"{transport}\"\naddress = \"{address}\"\n"))
    };
    assert_error(&second("dtls", "0.0.0.0:1"), 10, "\"dtls\" is not a choice", "\"udp\", \"tcp\", \"tls\"");
    assert_error(
        &second("tcp", "relay.example.org:3478"),
        11,
        "is not an address",
        "names are not looked up",
    );
    assert_error(&second("tcp", "0.0.0.0:0"), 11, "port 0", "0.0.0.0:3479");
    assert_error(&second("udp", "0.0.0.0:3479"), 11, "already the listener on line 5", "remove one");
    assert_eq!(good(&second("tcp", "0.0.0.0:3479")).listen.len(), 2);
    let tls_and_tcp =
        second("tcp", "0.0.0.0:3479") + "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:3479'";
    assert_error(&tls_and_tcp, 14, "already the listener on line 11", "another port");
    assert_error(&with("[[listen]]\n"), 9, "no transport", "transport = ");
    assert_error(&with("[[listen]]\n"), 9, "no address", "address = ");
    assert_error("realm = 'x'", 0, "no listener", "write [[listen]]");
    let admin = second("tcp", "127.0.0.1:9641") + "[admin]\n";
    assert_error(&admin, 11, "also the admin address", "another port");
}

#[test]
fn a_port_that_browsers_refuse_is_a_warning() {
    let on = |address: &str, more: &str| {
        with(&format!("[[listen]]\ntransport = 'tcp'\naddress = '{address}'\n{more}\n"))
    };
    for port in [22, 53, 81, 465, 993, 1023, 5060, 6000, 6667, 10080] {
        let told = format!("browsers refuse TURN servers on port {port}");
        assert_warning(&on(&format!("0.0.0.0:{port}"), ""), 11, &told, "443");
    }
    for port in [80, 443, 1024, 3478, 5349] {
        assert_eq!(load(&on(&format!("0.0.0.0:{port}"), "")).unwrap().warnings.problems, [], "{port}");
    }
    // Clients see the port of the proxy.
    let behind = on("10.0.0.5:444", "proxy_protocol = ['10.0.0.9']");
    assert_eq!(load(&behind).unwrap().warnings.problems, []);
    assert_eq!(load(&on("127.0.0.1:444", "")).unwrap().warnings.problems, []);
}

#[test]
fn a_realm_is_no_url() {
    let of = |realm: &str| with("").replace("realm = \"relay.example.org\"", &format!("realm = '{realm}'"));
    for url in
        ["https://relay.example.org/", "turn:relay.example.org:3478", "TURNS:relay.example.org", "x://y"]
    {
        assert_error(&of(url), 1, "is a URL, and a realm is a name", "realm = \"relay.example.org\"");
    }
    for name in ["relay.example.org", "turn", "turn.example.org", "Relay of the schools: north", "a/b"] {
        assert_eq!(good(&of(name)).realm, name);
    }
}

#[test]
fn relay_ports_stay_clear_of_udp_listeners() {
    let of = |ports: &str| with(&format!("[relay]\nports = \"{ports}\"\n"));
    assert_error(
        &of("3000-4000"),
        10,
        "contains port 3479 of the UDP listener on line 5",
        "ports = \"3480-4000\"",
    );
    assert_error(&of("3000-3479"), 10, "contains port 3479", "ports = \"3000-3478\"");
    let tcp = of("3000-4000").replace("\"udp\"", "\"tcp\"");
    assert_eq!(good(&tcp).relay.ports, 3000..=4000, "TCP and UDP ports are independent");
    let elsewhere = of("3000-4000").replace("0.0.0.0", "10.0.0.1") + "addresses = ['10.0.0.2']";
    assert_eq!(good(&elsewhere).relay.ports, 3000..=4000, "a listener on another address does not conflict");
    let dual = of("3000-4000").replace("0.0.0.0", "[::]") + "addresses = ['10.0.0.2']";
    assert_error(&dual, 10, "contains port 3479", "3480-4000");
    assert_error(&with("").replace("3479", "50000"), 5, "contains port 50000", "50001-65535");
    assert_warning(&of("1000-1100"), 10, "below 1024", "49152-65535");
    assert_error(&of("5000"), 10, "not a range", "49152-65535");
    assert_error(&of("5000-70000"), 10, "not a range", "49152-65535");
    assert_error(&of("5000-4000"), 10, "not a range", "lower port first");
    assert_error(&of("0-4000"), 10, "not a range", "port 0");
    assert_error(
        &with("[relay]\naddresses = ['0.0.0.0']"),
        10,
        "cannot be a relay address",
        "address of this host",
    );
    assert_error(&with("[relay]\naddresses = ['10.0.0.1:5']"), 10, "is not an address", "without a port");
    assert_error(&with("[relay]\naddresses = ['10.0.0.1', '10.0.0.1']"), 10, "is listed twice", "remove");
    for word in ["xdp", "", "Auto"] {
        let text = with(&format!("[relay]\nmode = '{word}'"));
        assert_error(&text, 10, "is not a choice", "write one of \"auto\", \"sockets\"");
    }
}

#[test]
fn both_relay_modes_mean_the_same_configuration() {
    let of = |mode: &str| good(&with(&format!("[relay]\nmode = '{mode}'")));
    assert_eq!(of("auto"), of("sockets"), "a reload from one to the other changes nothing");
    assert_eq!(of("auto"), good(&with("[relay]\n")));
}

#[test]
fn tls_needs_both_files_and_a_listener() {
    let listener = "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:5349'\n";
    assert_warning(&with(listener), 11, "self-signed", "write [tls]");
    assert_error(
        &with("[tls]\ncert = 'c.pem'"),
        10,
        "tls.key: tls.cert is set without tls.key",
        "add tls.key",
    );
    assert_error(
        &with("[tls]\nkey = 'k.pem'"),
        10,
        "tls.cert: tls.key is set without tls.cert",
        "add tls.cert",
    );
    let with_certificate = |listener: &str| with(&format!("[tls]\ncert = 'c'\nkey = 'k'\n{listener}"));
    assert_warning(&with_certificate(""), 9, "no listener uses it", "[[listen]]");
    let tcp = "[[listen]]\ntransport = 'tcp'\naddress = '0.0.0.0:3479'\n";
    assert!(load(&with_certificate(tcp)).expect("good").warnings.problems.is_empty());
    assert_warning(&with_certificate(&format!("{tcp}tls = false")), 9, "no listener uses it", "[[listen]]");
    assert_error(&with("[tls]\ncert = ''\nkey = 'k'"), 10, "the path is empty", "path of the cert");
}

#[test]
fn secrets_are_checked() {
    let of = |secret: &str| with("").replace(SECRET, secret);
    assert_error(&of(""), 8, "the secret is empty", "openssl rand");
    assert_error(&of("0123456789abcdef\\n"), 8, "control character", "openssl rand");
    assert_warning(&of("short"), 8, "5 bytes, so anyone", "at least 16 bytes");
    assert_warning(&of("0123456789abcdef "), 8, "ends with a blank", "remove");
    assert_eq!(load(&of("0123456789abcdef")).unwrap().warnings.problems, []);
    assert_error(&with("").replace("secret = ", "#"), 6, "no secret", "write secret =");
    assert_error(&with("secrets = []").replace("secret = ", "#"), 6, "no secret", "write secret =");
    let twice = with(&format!("[[host]]\nname = 'tuit'\nsecrets = ['x', '{SECRET}']\n"));
    assert_error(&twice, 11, "the same secret as on line 8, under another host", "give each host its own");
    let superfluous = with(&format!("secrets = ['{SECRET}']\n"));
    assert_warning(&superfluous, 9, "the same secret as on line 8", "remove one");
    assert_eq!(good(&superfluous).hosts[0].secrets.len(), 1);
    for text in [of("short"), twice] {
        let report = load(&text).map_or_else(|report| report, |loaded| loaded.warnings).to_string();
        assert!(!report.contains(SECRET) && !report.contains("short"), "a report shows no secret: {report}");
    }
}

#[test]
fn a_revoked_secret_is_valid_nowhere() {
    const LEAKED: &str = "leaked-0123456789abcdef";
    let own = with(&format!("secrets = ['{LEAKED}']\nrevoked = ['{LEAKED}']\n"));
    assert_error(&own, 10, "both valid and revoked", "a new one");
    // The revoking host is listed before or after the host where the secret is valid.
    let host = |name: &str, rest: &str| {
        format!("[[host]]\nname = '{name}'\nsecret = 'secret-of-{name}-itself'\n{rest}")
    };
    let valid = format!("secrets = ['{LEAKED}']\n");
    let revoked = format!("revoked = ['{LEAKED}']\n");
    let earlier = with(&(host("pong", &revoked) + &host("tuit", &valid)));
    let later = with(&(host("tuit", &valid) + &host("pong", &revoked)));
    for (text, line, valid) in [(&earlier, 12, 16), (&later, 16, 12)] {
        let told = format!("revoked for the host \"pong\" and valid for the host \"tuit\", on line {valid}");
        assert_error(text, line, &told, "new secret");
        assert!(!load(text).unwrap_err().to_string().contains(LEAKED), "no secret is shown");
    }
    assert_eq!(good(&with(&host("pong", &revoked))).hosts[1].revoked, [LEAKED]);
}

#[test]
fn secret_files_are_read_by_their_first_line() {
    let scratch = Scratch::new("secrets");
    scratch.file("new", "new-secret-of-the-host\r\nnot this\n", 0o600);
    scratch.file("old", "old-secret-of-the-host", 0o604);
    scratch.file("long", &"x".repeat(5000), 0o600);
    let text = with("secret_files = ['new', 'old']\n").replace("secret = ", "#");
    let loaded = parse(&text, "f", &scratch.0).unwrap();
    assert_eq!(loaded.config.hosts[0].secrets, ["new-secret-of-the-host", "old-secret-of-the-host"]);
    let warnings = loaded.warnings.to_string();
    assert!(
        warnings.contains("f:9: warning: host.secret_files: every user of this host may read "),
        "{warnings}"
    );
    assert!(
        warnings.contains("\n    chmod 640 ") && warnings.contains("the group of the user"),
        "{warnings}"
    );
    assert_eq!(loaded.warnings.problems.len(), 1, "{warnings}");

    // A secret in the place of the file's name is not shown.
    let secret = "k8JQpN0c3q+T1vYx5Zr7aLw2MeB9uHdS";
    let report =
        parse(&with(&format!("secret_file = '{secret}='")), "f", &scratch.0).unwrap_err().to_string();
    assert!(report.contains("looks like the secret") && !report.contains(secret), "{report}");
    assert!(report.contains("secret = "), "{report}");
    // One of 64 begins with a slash, and is no path.
    for secret in ["/8JQpN0c3q+T1vYx5Zr7aLw2MeB9uHdSk8JQpN0c3q4=", "/8JQpN0c3q/T1vYx5Zr7aLw2MeB9uHdS"] {
        for line in [format!("secret_file = '{secret}'"), format!("peers = ['192.0.2.1', '{secret}']")] {
            let report = parse(&with(&line), "f", &scratch.0).unwrap_err().to_string();
            assert!(report.contains("looks like") && !report.contains("JQpN0c3q"), "{report}");
        }
    }
    for path in
        ["ping.secret", "/etc/hallpass/secrets/relay01/ping2026", "/etc/Hallpass/Secrets/relay01/Ping2026"]
    {
        let report =
            parse(&with(&format!("secret_file = '{path}'")), "f", &scratch.0).unwrap_err().to_string();
        assert!(report.contains(path), "{report}");
    }

    // A byte order mark or a key before the secret is an error.
    let refused = |name: &str, text: &str| {
        scratch.file(name, text, 0o600);
        parse(&with(&format!("secret_file = '{name}'")), "f", &scratch.0).unwrap_err().to_string()
    };
    let report = refused("marked", "\u{feff}new-secret-of-the-host\n");
    assert!(
        report.starts_with("f:9: error: host.secret_file: ") && report.contains("byte order mark"),
        "{report}"
    );
    let fixed = report.split("sed -i ").nth(1).expect("the remedy");
    let fix = format!("sed -i {}", fixed.lines().next().expect("a command"));
    assert!(std::process::Command::new("sh").args(["-c", &fix]).status().unwrap().success(), "{fix}");
    assert_eq!(fs::read(scratch.0.join("marked")).unwrap(), b"new-secret-of-the-host\n", "{fix}");
    for line in ["static-auth-secret=new-secret-of-the-host", " secret = \"new-secret-of-the-host\""] {
        let report = refused("copied", line);
        assert!(
            report.contains("is a whole line of a configuration") && !report.contains("new-"),
            "{report}"
        );
        assert!(report.contains("keep only what follows the = sign"), "{report}");
        assert!(read_secret(line.as_bytes()).unwrap_err().to_string().contains("write the secret alone"));
    }
    assert!(read_secret("\u{feff}x".as_bytes()).unwrap_err().to_string().contains("byte order mark"));
    assert_eq!(read_secret(&b"secretary=and-her-secret\n"[..]).unwrap(), "secretary=and-her-secret");

    let report = parse(&with("secret_file = 'absent'"), "f", &scratch.0).unwrap_err().to_string();
    assert!(report.starts_with("f:9: error: host.secret_file: cannot read "), "{report}");
    assert!(
        report.contains("/absent: No such file") && report.contains("openssl rand -base64 32 | install -m 6"),
        "{report}"
    );
    let report = parse(&with("secret_file = 'long'"), "f", &scratch.0).unwrap_err().to_string();
    assert!(report.contains("is not one line of text"), "{report}");
    let report = parse(&with("secret_file = '.'"), "f", &scratch.0).unwrap_err().to_string();
    assert!(report.contains("name a regular file"), "{report}");
}

#[test]
fn a_configuration_that_others_may_read_or_change_is_a_warning() {
    let scratch = Scratch::new("exposed");
    scratch.file("secret", SECRET, 0o600);
    let warnings = |text: &str, mode: u32| {
        scratch.file("hallpass.toml", text, mode);
        read(&scratch.0.join("hallpass.toml")).expect("good").warnings.to_string()
    };
    let inline = with("");
    let apart = inline.replace(&format!("secret = \"{SECRET}\""), "secret_file = 'secret'");
    let user = format!("{apart}[[user]]\nname = 'bob'\npassword = 'p'\n");
    let several =
        inline.replace("secret = ", "secrets = [").replace(&format!("{SECRET}\""), &format!("{SECRET}\"]"));
    for (text, line, key) in
        [(&inline, 8, "host.secret"), (&several, 8, "host.secrets"), (&user, 11, "user.password")]
    {
        let told = warnings(text, 0o644);
        assert!(
            told.contains(&format!("toml:{line}: warning: {key}: every user of this host may read ")),
            "{told}"
        );
        assert!(
            told.contains("chmod 640 ") && told.contains("chmod 600") && !told.contains(SECRET),
            "{told}"
        );
        assert_eq!(warnings(text, 0o660), "", "access by the group is allowed");
    }
    assert_eq!(warnings(&apart, 0o644), "", "the file contains no secret");
    let told = warnings(&apart, 0o642);
    assert!(told.contains("hallpass.toml: warning: every user of this host may change "), "{told}");
    let told = warnings(&inline, 0o666);
    assert!(told.contains("may read and change ") && told.contains("which holds this secret"), "{told}");
}

#[test]
fn hosts_have_distinct_names_and_a_maximum_number() {
    let second = |name: &str| with(&format!("[[host]]\nname = '{name}'\nsecret = 'another-secret-here'\n"));
    assert_error(&second("ping"), 10, "already the host on line 7", "secrets = [");
    assert_error(&second(""), 10, "not a name", "1 to 64 bytes");
    assert_error(&with("[[host]]\nsecret = 'another-secret-here'"), 9, "no name", "name = ");
    assert_warning(&with("peers = []"), 9, "can reach no peer", "addresses of the host");
    let many = |count: usize| -> String {
        (0..count).map(|n| format!("[[host]]\nname = 'h{n}'\nsecret = 'secret-of-the-host-{n}'\n")).collect()
    };
    assert_eq!(good(&with(&many(199))).hosts.len(), 200);
    assert_error(
        &with(&many(200)),
        9 + 3 * 199,
        "201 hosts are more than the maximum of 200",
        "second relay",
    );
    assert_error(
        "realm = 'x'\n[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:1'",
        0,
        "no client can use",
        "[[host]]",
    );
}

#[test]
fn peers_are_prefixes_and_opened_ranges_are_warnings() {
    assert_warning(
        &with("peers = [\n'10.1.2.3']"),
        10,
        "opens 10.1.2.3/32 within 10.0.0.0/8",
        "media servers",
    );
    assert_warning(&with("[peers]\nallow = ['127.0.0.0/8']"), 10, "loopback", "remove");
    assert_warning(&with("[peers]\nallow = ['9.9.9.9']\ndeny = ['9.9.9.9/32']"), 10, "deny wins", "remove");
    assert_eq!(load(&with("[peers]\nallow = ['0.0.0.0/0']")).unwrap().warnings.problems, []);
    assert_error(
        &with("[peers]\nallow = ['10.0.0.1/8']"),
        10,
        "is not a prefix",
        "\"10.0.0.0/8\", or \"10.0.0.1\"",
    );
    assert_error(&with("[peers]\ndeny = ['bbb.example.org']"), 10, "is not a prefix", "write an address");
    assert_error(&with("[peers]\ndeny = ['::ffff:10.0.0.1']"), 10, "is not a prefix", "IPv4 address itself");
}

#[test]
fn static_users_differ_from_rest_names() {
    let of = |name: &str, rest: &str| with(&format!("[[user]]\nname = '{name}'\n{rest}\n"));
    assert_error(&of("123:bob", "password = 'p'"), 10, "looks like a REST user name", "[[host]]");
    assert_eq!(good(&of("x1:bob", "password = 'p'")).users[0].host, None);
    assert_error(&of("bob", ""), 9, "no password", "password = ");
    assert_error(&of("bob", "password = ''"), 11, "the password is empty", "openssl");
    assert_error(
        &of("bob", "password = 'p'\nhost = 'pong'"),
        12,
        "no [[host]] named \"pong\"",
        "did you mean \"ping\"?",
    );
    let twice = of("bob", "password = 'p'\n[[user]]\nname = 'bob'\npassword = 'q'");
    assert_error(&twice, 13, "already the user on line 10", "another name");
}

#[test]
fn log_and_admin_are_checked() {
    assert_error(&with("[log]\nlevel = 'loud'"), 10, "\"loud\" is not a choice", "\"info\"");
    assert_error(&with("[log]\nformat = 'xml'"), 10, "\"xml\" is not a choice", "\"text\", \"json\"");
    assert_error(&with("[admin]\naddress = '9641'"), 10, "is not an address", "127.0.0.1:9641");
    for name in ["relay.example.org:9641", "127.0.0.1", ""] {
        assert_error(
            &with(&format!("[admin]\nnames = ['{name}']")),
            10,
            "is not a host name",
            "without a port",
        );
    }
}

#[test]
fn an_admin_address_that_others_reach_needs_a_token_and_a_certificate() {
    let scratch = Scratch::new("admin");
    scratch.file("token", "0123456789abcdef\nsecond line\n", 0o400);
    scratch.file("short", "0123456789abcde\n", 0o400);
    scratch.file("blank", "0123456789 abcdef\n", 0o400);
    let load = |more: &str| parse(&with(more), "hallpass.toml", &scratch.0);
    let told = |more: &str| load(more).expect_err("refused").to_string();

    let neither = told("[admin]\naddress = '10.0.0.5:9641'\n");
    for part in [
        "hallpass.toml:10: error: admin.address: other machines may reach 10.0.0.5",
        "write address = \"127.0.0.1:9641\", or token_file = ",
        "openssl rand -base64 32 >/etc/hallpass/admin.token",
        "hallpass.toml:10: error: admin.address: 10.0.0.5 needs TLS, and there is no certificate",
        "-addext subjectAltName=IP:10.0.0.5",
    ] {
        assert!(neither.contains(part), "{part}: {neither}");
    }
    let own = "cert = 'a.pem'\nkey = 'a.key'\n";
    assert!(!told(&format!("[admin]\naddress = '[::]:9641'\n{own}")).contains("needs TLS"));
    let bare = "[admin]\naddress = '[::]:9641'\ntoken_file = 'token'\n";
    assert!(told(bare).contains(":: needs TLS"), "{}", told(bare));

    let admin = |more: &str| load(more).expect("good").config.admin.expect("an admin address");
    let shared = admin(&format!("{bare}[tls]\ncert = 'c.pem'\nkey = 'c.key'\n"));
    assert_eq!((shared.token, shared.tls), (Some(Token("0123456789abcdef".into())), AdminTls::OfListeners));
    let (cert, key) = (scratch.0.join("a.pem"), scratch.0.join("a.key"));
    let files = |lines| {
        AdminTls::Own(TlsFiles { cert: cert.clone(), key: key.clone(), accept_expired: false, lines })
    };
    assert_eq!(admin(&format!("{bare}{own}")).tls, files((12, 13)));
    // On loopback both are optional.
    assert_eq!(admin(&format!("[admin]\n{own}")).tls, files((10, 11)));
    let token = admin("[admin]\ntoken_file = 'token'\n");
    assert_eq!((token.tls.clone(), token.token.is_some()), (AdminTls::Off, true));
    assert!(!format!("{token:?}").contains("0123456789"), "{token:?}");

    for (file, message) in
        [("short", "has 15 bytes"), ("blank", "contains a blank"), ("absent", "cannot read")]
    {
        let told = told(&format!("[admin]\ntoken_file = '{file}'\n"));
        assert!(
            told.contains("hallpass.toml:10: error: admin.token_file") && told.contains(message),
            "{told}"
        );
    }
    assert!(told("[admin]\ncert = 'a.pem'\n").contains("admin.cert is set without admin.key"));
}

#[test]
fn a_path_that_is_no_configuration_is_an_error() {
    let scratch = Scratch::new("files");
    let absent = read(&scratch.0.join("absent.toml")).unwrap_err().to_string();
    assert!(absent.contains("absent.toml: error: cannot read the configuration: No such file"), "{absent}");
    assert!(absent.contains("start from the example"), "{absent}");
    fs::write(scratch.0.join("latin1.toml"), b"realm = 'a'\n# caf\xe9\n").unwrap();
    let latin1 = read(&scratch.0.join("latin1.toml")).unwrap_err().to_string();
    assert!(latin1.contains("latin1.toml:2: error: not UTF-8"), "{latin1}");
    fs::write(scratch.0.join("big.toml"), "#".repeat(2 << 20)).unwrap();
    assert!(read(&scratch.0.join("big.toml")).unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn the_example_is_good_and_shows_every_key_with_its_default() {
    let text = include_str!("../../conf/hallpass.toml");
    let scratch = Scratch::new("example");
    scratch.file("secret", "secret-of-the-example-host\n", 0o400);
    let here = text.replace("/etc/hallpass/ping.secret", "secret");
    let loaded = parse(&here, "conf/hallpass.toml", &scratch.0).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.config.hosts[0].secrets, ["secret-of-the-example-host"]);
    assert_eq!(loaded.config.limits, Limits::default(), "values shown are the defaults");
    assert_eq!(loaded.config.log, Config::default().log);
    assert_eq!(loaded.config.relay.ports, Config::default().relay.ports);
    assert_eq!(loaded.config.admin, Some(Admin::default()));
    for (table, keys) in walk::TABLES {
        assert!(text.contains(table), "{table} is missing");
        for key in keys {
            let shown = text.lines().map(|line| line.trim_start_matches(['#', ' ', '[']));
            let nested = format!("{}.{key}", table.trim_matches(['[', ']']));
            let is_shown = |line: &str| line.starts_with(key) || line.starts_with(&nested);
            assert!(shown.clone().any(is_shown), "{table} {key} is missing");
        }
    }
}

#[test]
fn the_control_socket_has_an_absolute_path_in_an_existing_directory() {
    let control = |path: &str| with(&format!("[control]\nsocket = '{path}'"));
    assert_eq!(
        good(&control("/tmp/hallpass.sock")).control_socket,
        Some(PathBuf::from("/tmp/hallpass.sock"))
    );
    assert_eq!(good(&with("[control]")).control_socket, None);
    assert_error(&control("control.sock"), 10, "not absolute", "/run/hallpass/control.sock");
    assert_error(
        &control("/nonexistent/a.sock"),
        10,
        "no directory /nonexistent",
        "RuntimeDirectory=hallpass",
    );
    assert_error(&control(&format!("/tmp/{}", "a".repeat(100))), 10, "longer than 95 bytes", "write socket");
}

#[test]
fn a_tls_port_can_refuse_plain_clients_and_a_tcp_port_tls_clients() {
    let listener = |transport: &str, key: &str| {
        format!("[[listen]]\ntransport = '{transport}'\naddress = '0.0.0.0:5000'\n{key}\n")
    };
    for (transport, key) in [("tls", "plain"), ("tcp", "tls")] {
        let either =
            |line: &str| load(&with(&listener(transport, line))).expect("good").config.listen[1].either;
        assert!(either("") && either(&format!("{key} = true")) && !either(&format!("{key} = false")));
    }
    for (transport, key, of) in
        [("tls", "tls", "tcp"), ("tcp", "plain", "tls"), ("udp", "plain", "tls"), ("udp", "tls", "tcp")]
    {
        let report = load(&with(&listener(transport, &format!("{key} = true")))).expect_err("refused");
        let told = report.to_string();
        assert!(told.contains(&format!("only a listener with transport = \"{of}\" has this key")), "{told}");
    }
}

#[test]
fn a_listener_may_be_reached_elsewhere() {
    let on = |transport: &str, public: &str| {
        with(&format!("[[listen]]\ntransport = '{transport}'\naddress = '127.0.0.1:5000'\n{public}\n"))
    };
    let public = |transport, public: &str| {
        let all = good(&on(transport, public)).listen[1].public.clone();
        all.map(|all| {
            all.into_iter()
                .map(|one| format!("{} {} {}", one.transport, one.host, one.port))
                .collect::<Vec<_>>()
        })
    };
    let one = |text: &str| Some(vec![text.to_owned()]);
    assert_eq!(public("tcp", ""), None);
    assert_eq!(public("tcp", "public = []"), Some(Vec::new()));
    assert_eq!(
        public("tcp", "public = 'turns:Relay.example.org:443?transport=tcp'"),
        one("tls relay.example.org 443")
    );
    assert_eq!(public("tcp", "public = 'relay.example.org:443'"), one("tcp relay.example.org 443"));
    assert_eq!(public("udp", "public = '[2001:db8::1]'"), one("udp 2001:db8::1 5000"));
    assert_eq!(public("tls", "public = 'turn:r?transport=tcp'"), one("tcp r 3478"));
    assert_eq!(
        public("tcp", "public = ['r', 'turns:r']"),
        Some(vec!["tcp r 5000".to_owned(), "tls r 5349".to_owned()])
    );
    let wrong = |transport, public: &str, message, remedy| {
        assert_error(&on(transport, &format!("public = {public}")), 12, message, remedy);
    };
    wrong("tcp", "'turn:r:443'", "is a URL of UDP", "add ?transport=tcp");
    wrong("udp", "'turns:r:443'", "not a URL of UDP", "write turn:");
    wrong("tls", "'turn:r?transport=tcp'\nplain = false", "a URL without TLS", "plain = false");
    wrong("tcp", "['r', 'r:5000']", "is listed twice", "remove one");
    wrong("tcp", "'https://r/'", "a web address", "turns:relay.example.org:443");
    wrong("tcp", "'stun:r'", "a STUN URL", "turns:relay.example.org:443");
    wrong("tcp", "'turns:r?transport=udp'", "DTLS", "transport=tcp");
    wrong("tcp", "'a b'", "is not accepted", "relay.example.org:443");
    wrong("tcp", "443", "an integer is not accepted here", "a string in quotes");
    assert_warning(&on("tcp", "public = 'r:5060'"), 12, "browsers refuse TURN servers on port 5060", "443");
    // Nobody but the proxy sees the listener's own port.
    let behind = on("tcp", "public = 'turns:r:443'").replace("127.0.0.1:5000", "0.0.0.0:444");
    assert_eq!(load(&behind).unwrap().warnings.problems, []);
}

#[test]
fn too_much_nesting_is_an_error_on_its_line() {
    for deep in [format!("name = {}", "[".repeat(200)), format!("[a{}]", ".a".repeat(200))] {
        let text = format!("realm = 'r'\n[[host]]\n{deep}\n[log]\n");
        let report = parse(&text, "hallpass.toml", Path::new("/nonexistent")).expect_err("refused");
        let told = report.problems.iter().find(|problem| problem.message.contains("recurs"));
        let told = told.unwrap_or_else(|| panic!("{report}"));
        assert_eq!(told.line, Some(3), "{report}");
        assert!(told.remedy.contains("nested"), "{}", told.remedy);
    }
}

/// A configuration with a TLS listener on this port, and `extra` from line 12 on.
fn with_tls(port: u16, extra: &str) -> String {
    with(&format!("[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:{port}'\n{extra}"))
}

#[test]
fn three_lines_get_a_certificate() {
    let text = with_tls(
        443,
        "[acme]\ndomains = ['Relay.example.org.', 'www.example.org']\ncontact = 'mailto:a@example.org'\n",
    );
    let loaded = load(&text).unwrap();
    assert_eq!(loaded.warnings.to_string(), "");
    let (acme, tls) = (loaded.config.acme.expect("acme"), loaded.config.tls.expect("its files"));
    assert_eq!(acme.domains, ["relay.example.org", "www.example.org"]);
    assert_eq!((&*acme.directory, acme.profile), ("https://acme-v02.api.letsencrypt.org/directory", None));
    assert_eq!(acme.challenges, [Challenge::TlsAlpn01]);
    assert_eq!(tls.cert, acme.state.join("acme/relay.example.org/fullchain.pem"));
    assert_eq!(tls.key, acme.state.join("acme/relay.example.org/privkey.pem"));
    let challenges = |text: &str| good(text).acme.expect("acme").challenges;
    let acme = "[acme]\ndomains = 'relay.example.org'\n";
    let port_80 = "[redirect]\naddress = '[::]:80'\n";
    assert_eq!(challenges(&with_tls(5349, &format!("{acme}{port_80}"))), [Challenge::Http01]);
    assert_eq!(
        challenges(&with_tls(443, &format!("{acme}{port_80}"))),
        [Challenge::TlsAlpn01, Challenge::Http01]
    );
    let forwarded = format!("public = 'turns:relay.example.org:443?transport=tcp'\n{acme}");
    assert_eq!(challenges(&with_tls(5349, &forwarded)), [Challenge::TlsAlpn01]);
    let chosen = format!("{acme}challenges = ['http-01', 'tls-alpn-01']\n{port_80}");
    assert_eq!(challenges(&with_tls(5349, &chosen)), [Challenge::Http01, Challenge::TlsAlpn01]);
}

#[test]
fn mistakes_in_acme_name_line_and_remedy() {
    let wrong = |lines: &str, line, message, remedy| {
        assert_error(&with_tls(443, &format!("[acme]\n{lines}\n")), line, message, remedy);
    };
    wrong("domains = ['*.example.org']", 13, "is a wildcard", "certbot");
    wrong("domains = ['192.0.2.1']", 13, "is an address", "the name that clients connect to");
    wrong("domains = ['2001:db8::1']", 13, "is an address", "the name");
    wrong("domains = ['r\u{e4}lay.example.org']", 13, "not plain ASCII", "xn--");
    wrong("domains = ['localhost']", 13, "not a public host name", "relay.example.org");
    wrong("domains = ['a.example.org', 'A.example.org']", 13, "a.example.org is listed twice", "remove one");
    wrong("domains = []", 13, "no name for the certificate", "domains = [");
    wrong("contact = 'mailto:a@b.org'", 12, "no name for the certificate", "domains = [");
    let many: Vec<String> = (0..101).map(|number| format!("'n{number}.example.org'")).collect();
    wrong(&format!("domains = [{}]", many.join(", ")), 13, "101 names", "remove names");
    let wrong = |lines: &str, message, remedy| {
        let text = with_tls(443, &format!("[acme]\ndomains = 'relay.example.org'\n{lines}\n"));
        assert_error(&text, 14, message, remedy);
    };
    wrong("contact = 'a@example.org'", "not the URL of an e-mail address", "mailto:");
    wrong("directory = 'http://ca.example.org/'", "not an https:// URL", "https://");
    wrong("directory = 'https://'", "not an https:// URL", "https://");
    wrong("challenges = 'dns-01'", "not a challenge that this server can answer", "http-01");
    wrong("challenges = []", "no challenge", "write");
    wrong("challenges = ['http-01', 'http-01']", "listed twice", "remove one");
    wrong("state = ''", "the path is empty", "write a path");
    wrong("domain = 'x'", "unknown key", "did you mean `domains`?");
    let acme = "[acme]\ndomains = 'relay.example.org'\n";
    assert_error(&with_tls(5349, acme), 12, "the authority cannot reach this server", "[redirect]");
    let http = format!("{acme}challenges = 'http-01'\n");
    assert_error(&with_tls(443, &http), 12, "http-01 needs port 80", "write [redirect]");
    let both = format!("{acme}[tls]\ncert = 'a'\nkey = 'b'\n");
    assert_error(&with_tls(443, &both), 15, "the certificate comes from [acme]", "remove cert and key");
}

#[test]
fn redirects_and_further_certificates_are_checked() {
    let address = |address: &str| with_tls(443, &format!("[redirect]\naddress = {address}\n"));
    assert_eq!(good(&address("'[::]:80'")).redirect.len(), 1);
    assert_eq!(good(&address("['0.0.0.0:80', '[::]:80']")).redirect.len(), 2);
    assert_error(&address("'80'"), 13, "is not an address with a port", "[::]:80");
    assert_error(&address("['[::]:80', '[::]:80']"), 13, "listed twice", "remove one");
    assert_error(&address("'0.0.0.0:443'"), 13, "is also the listener on line", "another port");
    assert_error(&with_tls(443, "[redirect]\n"), 12, "no address", "[::]:80");
    let more =
        |lines: &str| with_tls(443, &format!("[tls]\ncert = 'a'\nkey = 'b'\n[[tls.certificate]]\n{lines}\n"));
    assert_eq!(good(&more("cert = 'c'\nkey = 'd'")).certificates[0].cert, Path::new("/nonexistent/c"));
    assert_error(&more("cert = 'c'"), 16, "tls.certificate.cert is set without tls.certificate.key", "add");
    assert_error(&more(""), 15, "no certificate", "cert and key");
    let twice = more("cert = 'c'\nkey = 'd'\n[[tls.certificate]]\ncert = 'c'\nkey = 'd'");
    assert_error(&twice, 19, "listed twice", "remove one");
}
