//! The command line, run as a program.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

#[path = "cli/bbb_xml.rs"]
mod bbb_xml;
// Only the certificates: these tests need no server.
#[allow(dead_code)]
#[path = "support/certs.rs"]
mod certs;

use certs::Kind;

const SECRET: &str = "first&secret<of>\"ping'";

/// A temporary directory, removed with its contents when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hallpass-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        self.mode(name, 0o600);
        path.to_str().unwrap().to_owned()
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// UDP (IPv4 and IPv6), TCP and TLS; two hosts, the first with two secrets; one static user. Valid on every machine,
    /// because it relays from 127.0.0.1 behind 1:1 NAT.
    fn config(&self) -> String {
        self.file(
            "hallpass.toml",
            &format!(
                "realm = 'relay.example.org'\nexternal_ip = ['203.0.113.10/127.0.0.1']\n\
                 [[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:5349'\n\
                 [[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:3479'\n\
                 [[listen]]\ntransport = 'udp'\naddress = '[::]:3479'\n\
                 [[listen]]\ntransport = 'tcp'\naddress = '0.0.0.0:3479'\n\
                 [relay]\naddresses = ['127.0.0.1']\n\
                 [[host]]\nname = 'ping'\nsecrets = ['''{SECRET}''', 'second-secret-of-ping']\n\
                 [[host]]\nname = 'tuit'\nsecret = 'secret-of-tuit-itself'\n\
                 [[user]]\nname = 'fixed'\npassword = 'fixed-password'\n"
            ),
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hallpass(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hallpass")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn good(args: &[&str]) -> String {
    let output = hallpass(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

#[track_caller]
fn bad(code: i32, args: &[&str]) -> String {
    let output = hallpass(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}{}", stdout(&output), stderr(&output));
    stderr(&output)
}

/// Runs a Python program on `input` and returns its output. A failed assertion in it fails the test.
#[track_caller]
fn python(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs python3: apt install python3");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\non {input}", stderr(&output));
    stdout(&output).trim_end().to_owned()
}

const HMAC: &str = "import sys,hmac,hashlib,base64\n\
    print(base64.b64encode(hmac.new(sys.argv[1].encode(),sys.argv[2].encode(),hashlib.sha1).digest()).decode())";

/// Returns the value after a label of the text output.
#[track_caller]
fn field<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(label));
    line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or_else(|| panic!("no {label} in {text}"))
}

#[test]
fn every_command_has_help_with_an_example() {
    let all = good(&["--help"]);
    for command in
        ["serve", "check", "credentials", "bbb-xml", "import-coturn", "doctor", "completions", "manual"]
    {
        assert!(all.contains(command), "{all}");
        let help = good(&[command, "--help"]);
        assert!(help.contains(&format!("Usage: hallpass {command}")), "{help}");
        assert!(help.contains("Examples:\n  hallpass "), "{help}");
    }
    assert_eq!(good(&["--version"]), format!("hallpass {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    bad(2, &[]);
    bad(2, &["chek"]);
    bad(2, &["check", "file"]);
    bad(2, &["credentials", "--secret", "s", "--config", "c"]);
    bad(2, &["credentials", "--secret", "s", "--ttl", "0"]);
    bad(2, &["import-coturn", "turnserver.conf", "--force"]);
    bad(2, &["serve", "--config", "a", "--coturn-config", "b"]);
    let usage = bad(2, &["credentials", "--secret", "s", "--server", "relay.example.org:3478"]);
    assert!(usage.contains("without scheme or port"), "{usage}");
}

/// Without --config these commands use the service's file and name it, even if there is none.
#[test]
fn the_configuration_of_the_service_is_the_default() {
    for command in ["check", "credentials", "bbb-xml"] {
        let output = hallpass(&[command]);
        let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(
            format!("{stdout}{stderr}").contains("/etc/hallpass/hallpass.toml"),
            "{command}: {stdout}{stderr}"
        );
        assert_ne!(output.status.code(), Some(2), "{command}");
    }
}

/// A closed standard output is no /dev/null, which may be open for reading, too.
#[test]
fn a_result_is_not_lost_without_a_word() {
    let run = |redirected: &str| {
        let line = format!("exec {} credentials --secret s {redirected}", env!("CARGO_BIN_EXE_hallpass"));
        Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap()
    };
    let closed = run(">&-");
    assert_eq!(closed.status.code(), Some(1));
    assert!(stderr(&closed).contains("standard output is closed"), "{}", stderr(&closed));
    for good in [">/dev/null", "1<>/dev/null", "<&- 2>&-"] {
        assert!(run(good).status.success(), "{good}");
    }
}

/// Nobody writes to the pipe: an error after some seconds, with a word before. `<(command)` works.
#[test]
fn a_pipe_without_a_writer_ends_the_command() {
    let scratch = Scratch::new("pipe");
    let pipe = scratch.0.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    let text = fs::read_to_string(scratch.config()).unwrap();
    certs::write(Kind::Good, "one", &scratch.0.join("one.pem"), &scratch.0.join("one.key"));
    let of_cert = scratch.file("cert.toml", &format!("{text}[tls]\ncert = 'pipe'\nkey = 'one.key'\n"));
    let of_key = scratch.file("key.toml", &format!("{text}[tls]\ncert = 'one.pem'\nkey = 'pipe'\n"));
    let of_secret = scratch
        .file("secret.toml", &text.replace("secret = 'secret-of-tuit-itself'", "secret_file = 'pipe'"));
    let admin = ["--admin", "https://127.0.0.1:9", "--ca-file", pipe];
    let lines: [&[&str]; 7] = [
        &["check", "--config", &of_cert],
        &["check", "--config", &of_key],
        &["check", "--config", &of_secret],
        &["check", "--config", pipe],
        &["sessions", admin[0], admin[1], admin[2], admin[3]],
        &["sessions", "--token-file", pipe],
        &["credentials", "--secret-file", pipe],
    ];
    let start = |args: &&[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.args(*args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let all: Vec<_> = lines.iter().map(start).collect();
    for (line, child) in lines.iter().zip(all) {
        let output = child.wait_with_output().unwrap();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {told}");
        assert!(told.contains("pipe is a named pipe: waiting 5 s for its writer"), "{line:?}: {told}");
        assert!(told.contains("nobody wrote it to its end within 5 s"), "{line:?}: {told}");
    }
    let line = format!("{} check --config <(cat {})", env!("CARGO_BIN_EXE_hallpass"), scratch.config());
    let output = Command::new("bash").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn completions_for_every_shell() {
    for (shell, sign) in
        [("bash", "complete -F"), ("zsh", "#compdef hallpass"), ("fish", "complete -c hallpass")]
    {
        let script = good(&["completions", shell]);
        assert!(script.contains(sign) && script.contains("bbb-xml"), "{shell}: {script}");
    }
    let scratch = Scratch::new("completions");
    let script = scratch.file("hallpass.bash", &good(&["completions", "bash"]));
    let status = Command::new("bash").args(["-n", &script]).status().unwrap();
    assert!(status.success(), "bash refuses the script");
}

/// The sections of pages for commands according to man-pages(7).
const SECTIONS: [&str; 9] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "EXIT STATUS",
    "ENVIRONMENT",
    "FILES",
    "EXAMPLES",
    "SEE ALSO",
];

#[test]
fn man_pages_refer_to_pages_that_exist_and_have_the_usual_sections() {
    let scratch = Scratch::new("manual");
    let directory = scratch.0.to_str().unwrap();
    good(&["manual", "--directory", directory]);
    let mut pages: Vec<String> = fs::read_dir(&scratch.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    let commands = [
        "bbb-xml",
        "check",
        "checks",
        "completions",
        "credentials",
        "doctor",
        "drain",
        "import-coturn",
        "load",
        "manual",
        "refusals",
        "reload",
        "serve",
        "sessions",
        "top",
    ];
    let expected: Vec<String> = commands.iter().map(|command| format!("hallpass-{command}.1")).collect();
    assert_eq!(pages, [&expected[..], &["hallpass.1".to_owned()]].concat());
    for page in &pages {
        let text = fs::read_to_string(scratch.0.join(page)).unwrap();
        let sections: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix(".SH "))
            .map(|name| name.trim_matches('"'))
            .collect();
        assert!(sections.iter().all(|section| SECTIONS.contains(section)), "{page}: {sections:?}");
        let order: Vec<_> =
            sections.iter().map(|one| SECTIONS.iter().position(|known| known == one)).collect();
        assert!(order.is_sorted(), "{page}: {sections:?}");
        for always in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(sections.contains(&always), "{page}: {sections:?}");
        }

        let output = Command::new("groff")
            .args(["-man", "-ww", "-z", page])
            .current_dir(&scratch.0)
            .output()
            .expect("this test needs groff: apt install groff-base");
        assert!(output.status.success() && output.stderr.is_empty(), "{page}: {}", stderr(&output));
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning", page])
            .current_dir(&scratch.0)
            .output()
            .expect("this test needs mandoc: apt install mandoc");
        assert!(output.status.success(), "{page}: {}{}", stdout(&output), stderr(&output));

        let shown = Command::new("groff")
            .args(["-man", "-T", "ascii", "-P-cbou", "-rLL=2000n", page])
            .current_dir(&scratch.0)
            .output()
            .unwrap();
        let shown = stdout(&shown);
        let referred: Vec<String> = shown
            .split_whitespace()
            .filter_map(|word| word.trim_end_matches([',', '.']).strip_suffix("(1)"))
            .map(|name| format!("{}.1", name.to_lowercase()))
            .collect();
        assert!(referred.len() > commands.len(), "{page}: {referred:?} in {shown}");
        for other in &referred {
            assert!(pages.contains(other), "{page} refers to {other}");
        }
    }
    let read = |page: &str| fs::read_to_string(scratch.0.join(page)).unwrap();
    assert_eq!(good(&["manual"]), read("hallpass.1"));
    assert_eq!(good(&["manual", "serve"]), read("hallpass-serve.1"));
    assert!(read("hallpass-bbb-xml.1").contains("\\-\\-public\\-name"));
    assert!(read("hallpass-serve.1").contains("HALLPASS_LOG"));
    let unknown = bad(1, &["manual", "sreve"]);
    assert!(
        unknown.contains("no page hallpass-sreve")
            && unknown.contains("bbb-xml, import-coturn, doctor, load"),
        "{unknown}"
    );
    let nowhere = bad(1, &["manual", "--directory", "/nonexistent/man1"]);
    assert!(nowhere.contains("/nonexistent/man1/hallpass.1"), "{nowhere}");
}

/// Returns the number of warnings in the verdict of `check`, without those about the settings of this machine's kernel.
fn warnings(output: &Output) -> usize {
    let (verdict, problems) = (stdout(output), stderr(output));
    let all = problems.matches(": warning: ").count();
    let counted = match all {
        0 => "good\n".to_owned(),
        1 => "good, with 1 warning\n".to_owned(),
        all => format!("good, with {all} warnings\n"),
    };
    assert!(verdict.ends_with(&counted), "{verdict}{problems}");
    all - problems.matches(": warning: kernel: ").count()
}

#[test]
fn check_reports_success_or_each_problem_with_its_line() {
    let scratch = Scratch::new("check");
    let config = scratch.config();
    let output = hallpass(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("listen    udp [::]:3479: clients write turn:")
            && text.contains("host      ping: 2 secrets"),
        "{text}"
    );
    assert_eq!(warnings(&output), 1, "{text}");
    assert!(stderr(&output).contains("hallpass.toml:5: warning: tls: no certificate"), "{}", stderr(&output));
    assert!(!text.contains(SECRET) && !stderr(&output).contains(SECRET), "no secret is shown");

    scratch.mode("hallpass.toml", 0o644);
    let output = hallpass(&["check", "--config", &config]);
    assert_eq!(warnings(&output), 2, "{}", stdout(&output));
    assert!(stderr(&output).contains("toml:19: warning: host.secrets: every user of"), "{}", stderr(&output));

    let broken = scratch.file("broken.toml", "realm = 'r'\n[limits]\nworkrs = 2\n");
    let text = bad(1, &["check", "--config", &broken]);
    assert!(
        text.contains("broken.toml:3: error: limits.workrs: unknown key\n    did you mean `workers`?"),
        "{text}"
    );
    assert!(text.contains("error: listen: no listener") && text.contains("error: host: no client"), "{text}");
    assert!(text.ends_with("3 errors\n    fix the lines above and check again\n"), "{text}");

    let text = bad(1, &["check", "--config", scratch.0.join("absent.toml").to_str().unwrap()]);
    assert!(text.contains("No such file"), "{text}");
}

#[test]
fn check_reads_the_certificate_too() {
    let scratch = Scratch::new("certificate");
    for name in ["one", "two"] {
        let file = |extension: &str| scratch.0.join(format!("{name}.{extension}"));
        certs::write(Kind::Good, name, &file("pem"), &file("key"));
    }
    let with = |cert: &str, key: &str| {
        let text = fs::read_to_string(scratch.config()).unwrap().replace("relay.example.org", "relay");
        scratch.file("tls.toml", &format!("{text}[tls]\ncert = '{cert}'\nkey = '{key}'\n"))
    };
    assert!(good(&["check", "--config", &with("one.pem", "one.key")]).contains("tls.toml: good"));
    // A certificate for another name: clients that use the realm as the relay's name are refused.
    let text = fs::read_to_string(with("one.pem", "one.key")).unwrap();
    let named = scratch.file("named.toml", &text.replace("realm = 'relay'", "realm = 'relay.example.org'"));
    let output = hallpass(&["check", "--config", &named]);
    assert_eq!(warnings(&output), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("not for relay.example.org: browsers refuse"), "{}", stderr(&output));
    scratch.mode("one.key", 0o644);
    let output = hallpass(&["check", "--config", &with("one.pem", "one.key")]);
    let warning = stderr(&output);
    assert_eq!(warnings(&output), 1, "{}", stdout(&output));
    assert!(warning.contains("warning: tls.key: every user of this host may read "), "{warning}");
    assert!(warning.contains("one.key; chmod 640 "), "{warning}");
    let text = bad(1, &["check", "--config", &with("one.pem", "two.key")]);
    assert!(text.contains("error: tls.key: ") && text.contains("two.key: the key is not that of"), "{text}");
    // The server would start with it, so it is no error, but nobody may read past it.
    certs::write(Kind::Expired, "old", &scratch.0.join("old.pem"), &scratch.0.join("old.key"));
    let output = hallpass(&["check", "--config", &with("old.pem", "old.key")]);
    assert!(output.status.success() && stderr(&output).contains("expired 1 day ago"), "{}", stderr(&output));
    let verdict = stdout(&output);
    assert!(verdict.contains("old.pem HAS EXPIRED: browsers refuse turns: URLs"), "{verdict}");
    assert!(!verdict.contains("good"), "{verdict}");
    let text = bad(1, &["check", "--config", &with("absent.pem", "one.key")]);
    assert!(text.contains("absent.pem") && text.contains("check the path"), "{text}");
}

/// An error in one part of the file does not hide errors in the others.
#[test]
fn one_run_reports_all_errors() {
    let scratch = Scratch::new("all");
    let broken = scratch.file(
        "all.toml",
        "realm = 'turn:relay.example.org'\n\
         [[listen]]\ntransport = 'tls'\naddress = '127.0.0.1:5349'\n\
         [[host]]\nname = 'ping'\nsecret_file = 'absent.secret'\n\
         [tls]\ncert = 'absent.pem'\nkey = 'absent.key'\n",
    );
    for command in ["check", "serve"] {
        let text = bad(1, &[command, "--config", &broken]);
        for error in [
            "all.toml:1: error: realm: ",
            "all.toml:7: error: host.secret_file: ",
            "all.toml:9: error: tls.cert: ",
        ] {
            assert_eq!(text.matches(error).count(), 1, "{command}, {error}: {text}");
        }
    }
    let text = bad(1, &["check", "--config", &broken]);
    assert!(text.ends_with("all.toml: 3 errors\n    fix the lines above and check again\n"), "{text}");
}

#[test]
fn check_live_names_the_process_that_occupies_a_port() {
    let scratch = Scratch::new("live");
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = |udp: u16, tcp: u16| {
        format!(
            "[[listen]]\ntransport = 'udp'\naddress = '127.0.0.1:{udp}'\n\
             [[listen]]\ntransport = 'tcp'\naddress = '127.0.0.1:{tcp}'\n\
             [relay]\naddresses = ['127.0.0.2']\n[[host]]\nname = 'h'\nsecret = '0123456789abcdef'\n"
        )
    };
    let (udp_port, tcp_port) = (udp.local_addr().unwrap().port(), tcp.local_addr().unwrap().port());
    let path = scratch.file("live.toml", &config(udp_port, tcp_port));
    good(&["check", "--config", &path]);
    let text = bad(1, &["check", "--config", &path, "--live"]);
    let pid = std::process::id();
    for (line, transport, port) in [(3, "udp", udp_port), (6, "tcp", tcp_port)] {
        assert!(
            text.contains(&format!("live.toml:{line}: error: listen {transport} 127.0.0.1:{port}: ")),
            "{text}"
        );
    }
    assert_eq!(text.matches(&format!("(pid {pid}): choose another port, or move ")).count(), 2, "{text}");

    // Swapped, both ports are free: each is in use in the other protocol only.
    let path = scratch.file("free.toml", &config(tcp_port, udp_port));
    let text = good(&["check", "--config", &path, "--live"]);
    assert!(text.ends_with("free.toml: good\n"), "{text}");
}

#[test]
fn credentials_agree_with_an_independent_implementation() {
    let scratch = Scratch::new("credentials");
    let config = scratch.config();
    let common = ["--server", "127.0.0.1", "--user", "w_x1", "--ttl", "600"];
    let from_config = good(&[&["credentials", "--config", &config, "--host", "ping"], &common[..]].concat());
    let from_secret = good(&[&["credentials", "--secret", "s\u{e9}cret"], &common[..]].concat());
    let now: u64 = python("import time; print(int(time.time()))", &[], "").parse().unwrap();
    for (text, secret) in [(&from_config, SECRET), (&from_secret, "s\u{e9}cret")] {
        let username = field(text, "username");
        assert_eq!(field(text, "password"), python(HMAC, &[secret, username], ""));
        let (expiry, user) = username.split_once(':').unwrap();
        assert_eq!(user, "w_x1");
        let expiry: u64 = expiry.parse().unwrap();
        assert!((now + 500..=now + 601).contains(&expiry), "{expiry} is not 600 s after {now}");
    }
    let fixed = good(&["credentials", "--config", &config, "--user", "fixed", "--server", "127.0.0.1"]);
    assert_eq!((field(&fixed, "username"), field(&fixed, "password")), ("fixed", "fixed-password"));

    let text = bad(1, &["credentials", "--config", &config]);
    assert!(text.contains("several hosts") && text.contains("--host NAME, one of: ping, tuit"), "{text}");
    let text = bad(1, &["credentials", "--config", &config, "--host", "pong"]);
    assert!(text.contains("no host \"pong\"") && text.contains("ping, tuit"), "{text}");
}

#[test]
fn credentials_as_json_are_ice_servers() {
    let scratch = Scratch::new("json");
    let config = scratch.config();
    let args =
        ["credentials", "--config", &config, "--host", "ping", "--server", "relay.example.org", "--json"];
    let program = "import sys,json,hmac,hashlib,base64\n\
        (s,) = json.load(sys.stdin)['iceServers']\n\
        m = hmac.new(sys.argv[1].encode(), s['username'].encode(), hashlib.sha1)\n\
        assert s['credential'] == base64.b64encode(m.digest()).decode()\n\
        print('\\n'.join(s['urls']))";
    let urls = python(program, &[SECRET], &good(&args));
    assert_eq!(
        urls.lines().collect::<Vec<_>>(),
        [
            "turn:relay.example.org:3479",
            "turn:relay.example.org:3479?transport=tcp",
            "turns:relay.example.org:5349?transport=tcp"
        ]
    );
}

#[test]
fn credentials_as_commands_are_quoted_for_a_shell() {
    let scratch = Scratch::new("uclient");
    let config = scratch.config();
    // A listener on one address is reached at that address.
    let text = fs::read_to_string(&config).unwrap();
    let config =
        scratch.file("named.toml", &text.replace("0.0.0.0", "192.0.2.1").replace("[::]", "[2001:db8::1]"));
    let args =
        ["credentials", "--config", &config, "--host", "ping", "--user", "it's me", "--command", "uclient"];
    let program = "import sys,shlex,hmac,hashlib,base64\n\
        for line in sys.stdin:\n\
        \x20   w = shlex.split(line)\n\
        \x20   user, password = w[w.index('-u') + 1], w[w.index('-w') + 1]\n\
        \x20   m = hmac.new(sys.argv[1].encode(), user.encode(), hashlib.sha1)\n\
        \x20   assert password == base64.b64encode(m.digest()).decode()\n\
        \x20   assert user.split(':')[1] == \"it's me\" and w[0] == 'turnutils_uclient' and '-y' in w\n\
        \x20   print('-t' in w, '-S' in w, w[w.index('-p') + 1], w[-1])";
    let lines = python(program, &[SECRET], &good(&args));
    let lines: Vec<&str> = lines.lines().collect();
    let expected = [
        "False False 3479 192.0.2.1",
        "False False 3479 2001:db8::1",
        "True False 3479 192.0.2.1",
        "True True 5349 192.0.2.1",
    ];
    assert_eq!(lines, expected);
}

/// Runs `hallpass` in a network namespace with loopback and what `set_up` adds.
fn hallpass_in_network(set_up: &str, args: &[&str]) -> Output {
    let shell = format!("set -e\nip link set lo up\n{set_up}\nexec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &shell, "sh", env!("CARGO_BIN_EXE_hallpass")]).args(args);
    command.stdin(Stdio::null()).output().expect("this test needs unshare: apt install util-linux")
}

#[test]
fn credentials_name_an_address_that_others_reach() {
    let scratch = Scratch::new("outside");
    let of = |address: &str, more: &str| {
        let listen = format!("[[listen]]\ntransport = 'udp'\naddress = '{address}:3478'\n");
        let host = "[[host]]\nname = 'h'\nsecret = '0123456789abcdef'\n";
        scratch.file("outside.toml", &format!("{more}\n{listen}{host}"))
    };
    let urls = |set_up: &str, config: &str| {
        let output = hallpass_in_network(set_up, &["credentials", "--config", config]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        field(&stdout(&output), "url").to_owned()
    };
    let link = |name: &str, address: &str| {
        format!(
            "ip link add {name} type veth peer name {name}p\nip link set {name}p up\nip link set {name} up\n\
             ip address add {address} dev {name}\n"
        )
    };
    let v4 = &link("d0", "198.18.7.2/24");
    let v6 = &link("d1", "2001:db8:7::2/64 nodad");
    let two = format!("{v4}{}ip route add default via 198.18.8.1", link("d2", "198.18.8.2/24"));
    assert_eq!(urls(v4, &of("[::]", "")), "turn:198.18.7.2:3478");
    assert_eq!(urls(v4, &of("0.0.0.0", "")), "turn:198.18.7.2:3478");
    assert_eq!(urls(&two, &of("[::]", "")), "turn:198.18.8.2:3478", "the address with the default route");
    assert_eq!(urls(v6, &of("[::]", "")), "turn:[2001:db8:7::2]:3478");
    assert_eq!(
        urls(&format!("{v4}\n{v6}"), &of("[::]", "")),
        "turn:198.18.7.2:3478",
        "IPv4 comes first, because more clients have it"
    );
    let external = "external_ip = ['203.0.113.10']";
    assert_eq!(urls("", &of("[::]", external)), "turn:203.0.113.10:3478");
    assert_eq!(
        urls("", &of("127.0.0.1", "")),
        "turn:127.0.0.1:3478",
        "the address of a listener on loopback is used"
    );

    let output = hallpass_in_network("", &["credentials", "--config", &of("[::]", "")]);
    let text = stderr(&output);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{text}");
    assert!(text.contains("the listener udp [::]:3478") && text.contains("add --server NAME"), "{text}");
}

#[test]
fn credentials_for_tls_have_the_name_in_the_certificate() {
    let scratch = Scratch::new("tls-name");
    let (cert, key) = (scratch.0.join("c.pem"), scratch.0.join("c.key"));
    certs::write(Kind::Good, "relay.example.org", &cert, &key);
    let config = |address: &str| {
        let text = format!(
            "[tls]\ncert = '{}'\nkey = '{}'\n[[listen]]\ntransport = 'tls'\naddress = '{address}:5349'\n\
             [[host]]\nname = 'h'\nsecret = '0123456789abcdef'\n",
            cert.display(),
            key.display()
        );
        scratch.file("tls.toml", &text)
    };
    let url = |arguments: &[&str]| {
        field(&good(&[&["credentials", "--config"], arguments].concat()), "url").to_owned()
    };
    assert_eq!(url(&[&config("192.0.2.1")]), "turns:relay.example.org:5349?transport=tcp");
    assert_eq!(url(&[&config("192.0.2.1"), "--server", "192.0.2.9"]), "turns:192.0.2.9:5349?transport=tcp");
    assert_eq!(url(&[&config("127.0.0.1")]), "turns:127.0.0.1:5349?transport=tcp");
    let uclient = good(&["credentials", "--command", "uclient", "--config", &config("192.0.2.1")]);
    assert!(uclient.contains(" -t -S -y -c "), "{uclient}");
}

#[test]
fn a_secret_comes_from_a_file_or_from_standard_input() {
    let scratch = Scratch::new("secret-file");
    let password = |output: Output| {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        let (username, password) = (field(&text, "username").to_owned(), field(&text, "password").to_owned());
        assert_eq!(password, python(HMAC, &["the secret", &username], ""));
        stderr(&output)
    };
    for content in ["the secret", "the secret\n", "the secret\r\n", "the secret\na second line\n"] {
        let file = scratch.file("secret", content);
        assert_eq!(password(hallpass(&["credentials", "--secret-file", &file])), "");
        let stdin = fs::File::open(&file).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
            .args(["credentials", "--secret-file", "-"])
            .stdin(stdin)
            .output()
            .unwrap();
        assert_eq!(password(output), "");
    }
    let file = scratch.file("secret", "the secret\n");
    scratch.mode("secret", 0o644);
    let warning = password(hallpass(&["credentials", "--secret-file", &file]));
    assert!(warning.contains("every user of this host may read") && warning.contains("chmod"), "{warning}");

    let empty = scratch.file("empty", "\n");
    assert!(bad(1, &["credentials", "--secret-file", &empty]).contains("the secret is empty"));
    let long = scratch.file("long", &"x".repeat(5000));
    assert!(bad(1, &["credentials", "--secret-file", &long]).contains("not one line of text"));
    let absent = bad(1, &["credentials", "--secret-file", "/nonexistent/secret"]);
    assert!(absent.contains("/nonexistent/secret") && absent.contains("first line"), "{absent}");
    bad(2, &["credentials", "--secret-file", &file, "--secret", "s"]);
    bad(2, &["credentials", "--secret-file", &file, "--host", "ping"]);
    let help = good(&["credentials", "--help"]);
    assert!(help.contains("`ps` shows it"), "{help}");
}

#[test]
fn an_invalid_log_filter_is_an_error_at_the_start() {
    let scratch = Scratch::new("log");
    let config = scratch.config();
    for wrong in ["nonsense", "info,hallpass::net", "hallpass=loudly"] {
        let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
            .args(["serve", "--config", &config])
            .env("HALLPASS_LOG", wrong)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{wrong}: {text}");
        assert!(text.contains(&format!("HALLPASS_LOG is {wrong:?}")), "{text}");
        assert!(text.contains("write error, warn, info, debug, trace or off"), "{text}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_hallpass"))
        .arg("manual")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn an_import_is_written_for_its_owner_and_replaces_nothing_unasked() {
    let scratch = Scratch::new("import");
    let file =
        scratch.file("turnserver.conf", "listening-ip=127.0.0.1\nstatic-auth-secret=0123456789abcdef\n");
    let output = scratch.0.join("hallpass.toml");
    let shown = output.to_str().unwrap();
    let printed = good(&["import-coturn", &file]);
    good(&["import-coturn", &file, "--output", shown]);
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&output, "of the operator").unwrap();
    let exists = bad(1, &["import-coturn", &file, "--output", shown]);
    assert!(exists.contains("add --force") && !exists.contains("0123456789abcdef"), "{exists}");
    assert_eq!(fs::read_to_string(&output).unwrap(), "of the operator");
    good(&["import-coturn", &file, "--output", shown, "--force"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
    // The service still reads a file that is replaced.
    const NOBODY: u32 = 65534;
    chown(&output, Some(0), Some(NOBODY)).unwrap();
    for (mode, kept) in [(0o640, 0o640), (0o644, 0o640), (0o600, 0o600)] {
        fs::set_permissions(&output, fs::Permissions::from_mode(mode)).unwrap();
        let told = hallpass(&["import-coturn", &file, "--output", shown, "--force"]);
        assert!(stderr(&told).contains("with the owner and mode of the file before"), "{}", stderr(&told));
        let data = fs::metadata(&output).unwrap();
        assert_eq!((data.permissions().mode() & 0o777, data.gid()), (kept, NOBODY), "{mode:o}");
    }
    let names: Vec<_> = fs::read_dir(&scratch.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
fn a_refused_import_writes_nothing_and_says_why() {
    let scratch = Scratch::new("import-refused");
    let file = scratch.file("turnserver.conf", "no-auth\n");
    let output = scratch.0.join("hallpass.toml");
    let refused = hallpass(&["import-coturn", &file, "--output", output.to_str().unwrap()]);
    assert_eq!((refused.status.code(), stdout(&refused)), (Some(1), String::new()));
    assert!(stderr(&refused).contains("refused: no-auth") && !output.exists(), "{}", stderr(&refused));
    let served = bad(1, &["serve", "--coturn-config", &file]);
    assert!(served.contains("relays for everybody") && served.contains("import-coturn"), "{served}");
    let missing = bad(1, &["import-coturn", "/nonexistent/turnserver.conf"]);
    assert!(missing.contains("--help"), "{missing}");
}

#[test]
fn arguments_of_coturn_follow_two_dashes_and_the_report_can_be_json() {
    let scratch = Scratch::new("import-arguments");
    let file = scratch.file("own.conf", "user=bob:of-the-file\n");
    let words =
        ["import-coturn", "--json", "--", "turnserver", "-c", &file, "-L", "127.0.0.1", "--user", "alice:pw"];
    let output = hallpass(&words);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for part in ["name = \"alice\"", "name = \"bob\"", "127.0.0.1:3478"] {
        assert!(stdout(&output).contains(part), "{part}: {}", stdout(&output));
    }
    let program =
        "import json,sys; r=json.load(sys.stdin); print(r['imported'], len(r['lines']), r['counts']['kept'])";
    assert_eq!(python(program, &[], &stderr(&output)), "True 5 3");
}
