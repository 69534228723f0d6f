//! A BigBlueButton host is taken over from coturn, and given back, by the commands of docs/from-coturn.md. Browsers of a school join
//! at each stage by what the stand-in of bbb-web hands out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::LIMIT;
use crate::machine::{self as relay, Machine};
use crate::page::follow;
use crate::support::certs::Kind;
use crate::support::chromium::{Chromium, Setting};
use crate::support::files::Directory;
use crate::support::firefox::Firefox;
use crate::support::process::Process;
use crate::support::tool::{run, run_command, run_ok};

const NAME: &str = "bbb.example.org";
const ADDRESS: &str = "198.51.100.20";
const SCHOOL: &str = "203.0.113.5";
const PAGE: &str = "from-coturn.md";
/// The whole way, there and back.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// How long the website may be away when port 443 changes hands; a browser tries again for longer.
const AWAY_LIMIT: f64 = 20.0;

/// The secret of coturn and of the list.
const SECRET: &str = "dG9wLXNlY3JldC1mb3ItdGVzdHMtb25seS0wMTIzNDU=";

/// What bbb-install writes into `/etc/turnserver.conf`. `TLS` stands for what an Ansible role adds to it where nginx has port 443:
/// TLS in coturn itself.
const TURNSERVER: &str = "listening-port=PORT
TLSlistening-ip=198.51.100.20
relay-ip=198.51.100.20
min-port=32769
max-port=65535
verbose
fingerprint
lt-cred-mech
use-auth-secret
static-auth-secret=SECRET
realm=bbb.example.org
KEYSkeep-address-family
no-cli
no-tlsv1
no-tlsv1_1
no-loopback-peers
no-multicast-peers
denied-peer-ip=0.0.0.0-255.255.255.255
denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
allowed-peer-ip=198.51.100.20
";
const TLS: &str = "tls-listening-port=5349\n";
const KEYS: &str = "cert=/etc/turnserver/fullchain.pem\npkey=/etc/turnserver/privkey.pem\n";

/// URLs of coturn where nginx has port 443.
const URLS: [&str; 3] = [
    "turn:bbb.example.org:3479",
    "turn:bbb.example.org:3479?transport=tcp",
    "turns:bbb.example.org:5349?transport=tcp",
];
/// URLs that bbb-install writes.
const INSTALLED_URLS: [&str; 2] = ["turn:bbb.example.org:3478", SHARED_URL];
/// What Hallpass adds.
const SHARED_URL: &str = "turns:bbb.example.org:443?transport=tcp";

/// nginx on a BigBlueButton host without haproxy.
const SITE: &str = "server {
    listen 80;
    listen [::]:80;
    server_name bbb.example.org;
    return 301 https://$host$request_uri;
}

server {
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    server_name bbb.example.org;
    ssl_certificate /etc/letsencrypt/live/bbb.example.org/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/bbb.example.org/privkey.pem;

    # As in BigBlueButton's own site.
    set $real_scheme $scheme;
    location / {
        include /etc/nginx/application.conf;
        proxy_set_header X-Forwarded-Proto $real_scheme;
    }
    include /usr/share/bigbluebutton/nginx/*.nginx;
    include /etc/bigbluebutton/nginx/*.nginx;
}
";
const APPLICATION: &str = "proxy_pass http://127.0.0.1:8090;
proxy_set_header Host $host;
proxy_set_header X-Real-IP $remote_addr;
";
/// A file of BigBlueButton, and one of Greenlight, that its site includes.
const INCLUDED: [(&str, &str); 2] = [
    (
        "usr/share/bigbluebutton/nginx/web.nginx",
        "location /bigbluebutton/ {
    include /etc/nginx/application.conf;
    proxy_set_header X-Forwarded-Proto $real_scheme;
}
",
    ),
    (
        "etc/bigbluebutton/nginx/greenlight-v3.nginx",
        "location /cable {
    include /etc/nginx/application.conf;
    proxy_set_header X-Forwarded-Proto $scheme;
}
",
    ),
];
/// What Ansible roles leave behind: a restart every night, and a hook for certbot.
const NIGHTLY: &str = "0 4 * * * root systemctl restart coturn\n";
const HOOK: &str = "#!/bin/sh
install -o turnserver -m 600 \"$RENEWED_LINEAGE\"/*.pem /etc/turnserver/
systemctl restart coturn
";
/// bbb-install's hook.
const HAPROXY_HOOK: &str = "#!/bin/bash -e
cat /etc/letsencrypt/live/bbb.example.org/{fullchain,privkey}.pem >/etc/haproxy/certbundle.pem
systemctl reload haproxy
";
/// The same behind haproxy, as bbb-install writes it.
const INSTALLED_LISTEN: &str = "listen 127.0.0.1:81 proxy_protocol;
    listen 127.0.0.1:82 http2 proxy_protocol;
    listen [::1]:81;
    listen [::1]:82 http2;
    set_real_ip_from 127.0.0.1;
    real_ip_header proxy_protocol;";

/// A relay of its own, as SRCF's, with TLS on port 443.
const RELAY: &str = "listening-port=3478
tls-listening-port=443
listening-ip=198.51.100.10
fingerprint
lt-cred-mech
use-auth-secret
static-auth-secret=SECRET
realm=relay.example.org
cert=/etc/turnserver/fullchain.pem
pkey=/etc/turnserver/privkey.pem
no-tlsv1
no-tlsv1_1
no-cli
";
/// On such hosts coturn may open port 443.
const RELAY_UNIT: &str = "[Service]\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n";

const UNIT: &str = "[Service]
Type=notify
User=bigbluebutton
ExecStart=/usr/bin/python3 /srv/bbb_web.py
TimeoutStopSec=2
";

/// bbb-web's list of servers, as the templates of BigBlueButton have it.
fn list(urls: &[&str]) -> String {
    let class = "org.bigbluebutton.web.services.turn";
    let bean = |(number, url): (usize, &&str)| {
        format!(
            "    <bean id=\"turn{number}\" class=\"{class}.TurnServer\">\n\
             \x20       <constructor-arg index=\"0\" value=\"{SECRET}\"/>\n\
             \x20       <constructor-arg index=\"1\" value=\"{url}\"/>\n\
             \x20       <constructor-arg index=\"2\" value=\"86400\"/>\n    </bean>\n"
        )
    };
    let beans: String = urls.iter().enumerate().map(bean).collect();
    let references: String =
        (0..urls.len()).map(|number| format!("                <ref bean=\"turn{number}\" />\n")).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <beans xmlns=\"http://www.springframework.org/schema/beans\"\n\
         \x20      xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"\n\
         \x20      xsi:schemaLocation=\"http://www.springframework.org/schema/beans\n\
         \x20         http://www.springframework.org/schema/beans/spring-beans-2.5.xsd\">\n\
         {beans}\
         \x20   <bean id=\"stunTurnService\" class=\"{class}.StunTurnService\">\n\
         \x20       <property name=\"stunServers\">\n            <set>\n            </set>\n        </property>\n\
         \x20       <property name=\"turnServers\">\n            <set>\n{references}            </set>\n        </property>\n\
         \x20   </bean>\n</beans>\n"
    )
}

/// The network of a school, linked with the host; its only computer.
struct School {
    namespace: String,
    files: Directory,
}

impl School {
    fn new(machine: &Machine) -> School {
        let namespace = format!("hallpass-{}-school", std::process::id());
        run_ok("ip", &["netns", "add", &namespace], LIMIT);
        let school = School { namespace, files: Directory::new("school") };
        let etc = school.etc();
        fs::create_dir_all(&etc).expect("a directory");
        // Chromium asks for the name of a TURN server with a dot at its end.
        let hosts = format!("127.0.0.1 localhost\n{ADDRESS} {NAME} {NAME}.\n");
        fs::write(etc.join("hosts"), hosts).expect("a file");
        fs::write(etc.join("resolv.conf"), "").expect("a file");
        fs::write(etc.join("nsswitch.conf"), "hosts: files\n").expect("a file");
        fs::copy(machine.path("srv/ca.pem"), school.authority()).expect("the authority");
        machine.connect(&school.namespace, ADDRESS);
        let lines = format!(
            "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.up0.accept_dad=0; \
             ip link set lo up; ip address add {SCHOOL}/32 dev up0; ip link set up0 up; \
             ip route add 198.51.100.0/24 dev up0 src {SCHOOL}"
        );
        run_ok("ip", &["netns", "exec", &school.namespace, "sh", "-e", "-c", &lines], LIMIT);
        school
    }

    /// Replaces files of `/etc` (ip-netns(8)).
    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.namespace)
    }

    fn authority(&self) -> PathBuf {
        self.files.path("ca.pem")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }
}

impl Drop for School {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.namespace], LIMIT);
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// The two browsers, which stay open.
struct Browsers {
    chromium: Chromium,
    firefox: Firefox,
}

/// URL, and the transport that the browser used.
type Rungs = BTreeMap<String, String>;

impl Browsers {
    fn start(school: &School) -> Browsers {
        // Chromium starts in the background.
        let setting = Setting { namespace: Some(&school.namespace), flags: Vec::new() };
        let chromium = Chromium::start_in(&school.files, &setting);
        Browsers {
            chromium,
            firefox: Firefox::start_in(&school.files, &school.namespace, &school.authority()),
        }
    }

    /// Opens the website in both, and makes a call through each server that it hands out.
    fn join(&mut self, urls: &[&str]) {
        let scripts = scripts();
        let page = format!("https://{NAME}/");
        let Browsers { chromium, firefox } = self;
        let [of_chromium, of_firefox] = thread::scope(|scope| {
            let other = scope.spawn(|| {
                firefox.open(&page);
                firefox.evaluate(&scripts, "join()")
            });
            let tab = chromium.open(&page);
            let one = chromium.evaluate(&tab, &format!("{scripts}\njoin()"));
            [one, other.join().expect("Firefox")]
        });
        judge("Chromium", &of_chromium, urls);
        judge("Firefox", &of_firefox, urls);
    }
}

/// A call in a tab of Chromium that runs while `body` does, is cut and comes back by itself. Prints for how long it was silent.
fn during_a_call(browsers: &mut Browsers, body: impl FnOnce()) {
    let tab = browsers.chromium.open(&format!("https://{NAME}/"));
    let begun = browsers.chromium.evaluate(&tab, &format!("{}\nbegin()", scripts()));
    assert_eq!(begun, true);
    body();
    let ended = browsers.chromium.evaluate(&tab, "window.running");
    assert_eq!(ended["error"], Value::Null, "{ended:#}");
    let silent = ended["resumed"][0].as_u64().expect("milliseconds");
    println!(
        "{:6.1} s  from when a browser sees the cut until its call goes on",
        Duration::from_millis(silent).as_secs_f64()
    );
}

fn scripts() -> String {
    [include_str!("../support/call.js"), include_str!("takeover/join.js")].concat()
}

/// Each of these URLs was handed out and carried a call, and no other was.
#[track_caller]
fn judge(browser: &str, joined: &Value, urls: &[&str]) {
    let rungs = joined["rungs"].as_array().unwrap_or_else(|| panic!("{browser}: {joined:#}"));
    let mut seen = Rungs::new();
    for rung in rungs {
        assert_eq!(rung["error"], Value::Null, "{browser}: {rung:#}");
        assert_eq!(rung["echo"], "round trip", "{browser}: {rung:#}");
        assert!(rung["callee"]["framesDecoded"].as_u64() >= Some(30), "{browser}: {rung:#}");
        for end in ["caller", "callee"] {
            assert_eq!(rung[end]["localType"], "relay", "{browser}: {rung:#}");
        }
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        seen.insert(text(&rung["url"]), text(&rung["caller"]["relayProtocol"]));
    }
    let transport = |url: &str| match (url.starts_with("turns:"), url.ends_with("?transport=tcp")) {
        (true, _) => "tls",
        (false, true) => "tcp",
        (false, false) => "udp",
    };
    let wanted: Rungs = urls.iter().map(|url| ((*url).to_owned(), transport(url).to_owned())).collect();
    assert_eq!(seen, wanted, "{browser}");
}

/// Puts the certificate where coturn can read it.
fn give_coturn_the_certificate(machine: &Machine, name: &str) {
    machine.obtain_certificate_for(Kind::Good, name);
    machine.write("etc/cron.d/coturn-restart", NIGHTLY);
    let hook = "etc/letsencrypt/renewal-hooks/deploy/coturn";
    machine.write(hook, HOOK);
    machine.sh(&format!(
        "install -d -o turnserver /etc/turnserver && chmod 755 /{hook} && \
         sed '/systemctl/d' /{hook} | RENEWED_LINEAGE=/etc/letsencrypt/live/{name} sh"
    ));
}

/// Makes the machine a BigBlueButton host with coturn, on which nginx has port 443. It has no network yet.
fn furnish(machine: &Machine) {
    machine.sh(&format!("echo {ADDRESS} {NAME} >>/etc/hosts"));
    give_coturn_the_certificate(machine, NAME);
    let file = TURNSERVER.replace("PORT", "3479").replace("TLS", TLS).replace("KEYS", KEYS);
    machine.write("etc/turnserver.conf", &file.replace("SECRET", SECRET));
    machine.sh("rm -f /etc/nginx/sites-enabled/* /etc/nginx/conf.d/*");
    machine.write("etc/nginx/sites-available/bigbluebutton", SITE);
    machine.write("etc/nginx/application.conf", APPLICATION);
    machine.sh("mkdir -p /etc/bigbluebutton/nginx /usr/share/bigbluebutton/nginx");
    for (file, text) in INCLUDED {
        machine.write(file, text);
    }
    machine.sh("ln -s ../sites-available/bigbluebutton /etc/nginx/sites-enabled/bigbluebutton");
    machine.sh("groupadd --system bigbluebutton; useradd --system -g bigbluebutton bigbluebutton");
    write_list(machine, &URLS);
    machine.write("srv/bbb_web.py", include_str!("takeover/bbb_web.py"));
    machine.write("etc/systemd/system/bbb-web.service", UNIT);
    machine.sh("systemctl daemon-reload");
}

/// Writes bbb-web's list with the owner and mode that bbb-install gives it.
fn write_list(machine: &Machine, urls: &[&str]) {
    let file = "etc/bigbluebutton/turn-stun-servers.xml";
    machine.write(file, &list(urls));
    machine.sh(&format!("chown root:bigbluebutton /{file} && chmod 640 /{file}"));
}

/// Makes the host one on which haproxy has port 443.
fn install_haproxy(machine: &Machine) {
    let file = TURNSERVER.replace("PORT", "3478").replace("TLS", "").replace("KEYS", "");
    machine.write("etc/turnserver.conf", &file.replace("SECRET", SECRET));
    let site = SITE.replace("    listen [::]:443 ssl http2;\n", "").replace("$scheme", "https");
    let site = site.replace("listen 443 ssl http2;", INSTALLED_LISTEN);
    machine.write("etc/nginx/sites-available/bigbluebutton", &site);
    for (file, text) in INCLUDED {
        machine.write(file, &text.replace("$scheme", "$real_scheme"));
    }
    let hook = "etc/letsencrypt/renewal-hooks/deploy/haproxy";
    machine.write(hook, HAPROXY_HOOK);
    machine.sh(&format!("chmod 755 /{hook}"));
    let live = format!("/etc/letsencrypt/live/{NAME}");
    machine.sh(&format!("cat {live}/fullchain.pem {live}/privkey.pem >/etc/haproxy/certbundle.pem"));
    machine.write("etc/haproxy/haproxy.cfg", include_str!("takeover/haproxy.cfg"));
    write_list(machine, &INSTALLED_URLS);
    machine.sh("systemctl restart nginx coturn bbb-web && systemctl enable --quiet --now haproxy");
}

/// Prints how long each step took.
struct Watch {
    began: Instant,
    last: Instant,
}

impl Watch {
    fn start() -> Watch {
        let now = Instant::now();
        Watch { began: now, last: now }
    }

    fn step(&mut self, what: &str) {
        let now = Instant::now();
        println!("{:6.1} s  {what}", now.duration_since(self.last).as_secs_f64());
        self.last = now;
    }

    /// Ends with the sum, which must be within the limits.
    fn end(self, visitor: Visitor) {
        let (all, away) = (self.began.elapsed(), visitor.longest_absence());
        println!("{:6.1} s  in all; the website was away for {away:.1} s at most", all.as_secs_f64());
        assert!(all < TIME_LIMIT, "{all:?}");
        assert!(away < AWAY_LIMIT, "the website was away for {away} s");
    }
}

/// The website as the school sees it, and the longest time that it was away.
struct Visitor(Process);

impl Visitor {
    fn start(school: &School) -> Visitor {
        let mut command = school.command("/usr/bin/python3");
        command.arg("-c").arg(include_str!("takeover/visitor.py")).arg(NAME).arg(school.authority());
        Visitor(Process::spawn(command))
    }

    fn longest_absence(self) -> f64 {
        let output = self.0.output();
        let last = output.lines().next_back().and_then(|line| line.strip_prefix("away for "));
        last.and_then(|seconds| seconds.parse().ok()).expect("two visits")
    }
}

fn read(machine: &Machine, file: &str) -> String {
    fs::read_to_string(machine.path(file)).expect("a file")
}

/// What bbb-web learns about the browser is right, in the site and in the files that it includes.
fn assert_web(school: &School) {
    for path in ["", "bigbluebutton/api", "cable"] {
        let mut command = school.command("curl");
        let page = format!("https://{NAME}/{path}");
        command.args(["--silent", "--show-error", "--fail", &page, "--cacert"]).arg(school.authority());
        let seen = run_command(command, LIMIT).output;
        assert!(seen.contains(&format!("{SCHOOL} https {NAME}\n")), "{page}: {seen}");
    }
}

/// coturn or Hallpass serves and will serve after the next boot; the other is off.
fn assert_serves(machine: &Machine, hallpass: bool) {
    let [on, off] = [["active", "enabled"], ["inactive", "disabled"]];
    if hallpass { machine.services(on, off) } else { machine.services(off, on) }
}

#[test]
fn a_bigbluebutton_host_is_taken_over_and_given_back() {
    let what = "the takeover of a BigBlueButton host";
    let Some(built) = crate::built(what) else { return };
    let programs = ["nginx", "haproxy", "python3", "chromium", "firefox-esr", "certutil"];
    if let Some(absent) = programs.iter().find(|program| !run("which", &[program], LIMIT).success) {
        eprintln!("{what}: not tested: {absent} is missing: run .ci/packages, which installs it");
        return;
    }
    let Some(machine) = crate::boot(what) else { return };
    let mut watch = Watch::start();
    furnish(&machine);
    let school = School::new(&machine);
    machine.sh("systemctl restart coturn nginx bbb-web");
    let mut browsers = Browsers::start(&school);
    watch.step("(before: a host with coturn, two browsers)");
    browsers.join(&URLS);
    watch.step("(before: both join through coturn)");

    // nginx has port 443.
    let mut watch = Watch::start();
    let visitor = Visitor::start(&school);
    machine.copy(&built.package);
    follow(&machine, PAGE, "Install", 0);
    assert_serves(&machine, false);
    watch.step("install");
    follow(&machine, PAGE, "Copies for the way back", 0);
    follow(&machine, PAGE, "Import", 0);
    follow(&machine, PAGE, "Certificate", 0);
    assert_serves(&machine, false);
    watch.step("import, certificate");
    follow(&machine, PAGE, "Who has port 443?", 0);
    during_a_call(&mut browsers, || {
        watch.step("a call begins");
        follow(&machine, PAGE, "Switch where nginx has port 443", 0);
        watch.step("coturn to Hallpass");
    });
    assert_serves(&machine, true);
    watch.step("the call goes on");
    browsers.join(&URLS);
    watch.step("both join by the list that coturn left");
    follow(&machine, PAGE, "Switch where nginx has port 443", 1);
    follow(&machine, PAGE, "Switch where nginx has port 443", 2);
    follow(&machine, PAGE, "Switch where nginx has port 443", 3);
    follow(&machine, PAGE, "Switch where nginx has port 443", 4);
    assert_web(&school);
    watch.step("port 443 from nginx");
    follow(&machine, PAGE, "BigBlueButton's list", 0);
    watch.step("BigBlueButton's list");
    // coturn serves plain UDP on its port for TLS, so Hallpass does, too; the list does not need it.
    browsers.join(&[&URLS[..], &[SHARED_URL]].concat());
    watch.step("both join through every rung");
    // Months later, the copies of the certificate have expired.
    machine.sh("rm /etc/turnserver/*.pem");
    follow(&machine, PAGE, "The way back", 0);
    follow(&machine, PAGE, "The way back", 1);
    assert_serves(&machine, false);
    assert_web(&school);
    for (file, text) in INCLUDED {
        assert_eq!(read(&machine, file), text);
    }
    watch.step("the way back");
    browsers.join(&URLS);
    watch.step("both join through coturn");
    watch.end(visitor);

    // haproxy has it.
    install_haproxy(&machine);
    assert_web(&school);
    browsers.join(&INSTALLED_URLS);
    let mut watch = Watch::start();
    let visitor = Visitor::start(&school);
    follow(&machine, PAGE, "Copies for the way back", 0);
    machine.sh("hallpass import-coturn /etc/turnserver.conf --output /etc/hallpass/hallpass.toml --force");
    follow(&machine, PAGE, "Certificate", 0);
    watch.step("import, certificate");
    follow(&machine, PAGE, "Switch where haproxy has port 443", 0);
    follow(&machine, PAGE, "Switch where haproxy has port 443", 1);
    assert_serves(&machine, true);
    assert_web(&school);
    watch.step("coturn and haproxy to Hallpass");
    browsers.join(&INSTALLED_URLS);
    watch.step("both join by the list that bbb-install left");
    follow(&machine, PAGE, "BigBlueButton's list", 0);
    watch.step("BigBlueButton's list");
    let [udp, shared] = INSTALLED_URLS;
    browsers.join(&[udp, "turn:bbb.example.org:3478?transport=tcp", shared]);
    watch.step("both join through every rung");
    machine.sh("rm /etc/turnserver/*.pem /etc/haproxy/certbundle.pem");
    follow(&machine, PAGE, "The way back", 0);
    follow(&machine, PAGE, "The way back", 2);
    assert_serves(&machine, false);
    assert_web(&school);
    watch.step("the way back");
    browsers.join(&INSTALLED_URLS);
    watch.step("both join through coturn and haproxy");
    watch.end(visitor);
    follow(&machine, PAGE, "The way back", 3);
    machine.sh("nginx -t");
    machine.fails("systemctl cat hallpass", "No files found");
    assert_eq!(machine.sh("systemctl is-active coturn haproxy"), "active\nactive\n");
}

#[test]
fn a_relay_host_is_taken_over_and_given_back() {
    let Some(machine) = crate::install_package("the takeover of a relay host", &[]) else { return };
    give_coturn_the_certificate(&machine, relay::NAME);
    machine.write("etc/turnserver.conf", &RELAY.replace("SECRET", SECRET));
    machine.sh("mkdir -p /etc/systemd/system/coturn.service.d; rm -f /etc/hallpass/*.pem");
    machine.write("etc/systemd/system/coturn.service.d/port.conf", RELAY_UNIT);
    machine.sh("systemctl daemon-reload; systemctl enable --quiet --now coturn");
    let mut watch = Watch::start();
    follow(&machine, PAGE, "The relay: import", 0);
    follow(&machine, PAGE, "The relay: switch", 0);
    assert_serves(&machine, false);
    follow(&machine, PAGE, "The relay: switch", 1);
    assert_serves(&machine, true);
    watch.step("coturn to Hallpass");
    let page = machine.sh("curl --silent --insecure --head https://relay.example.org/");
    assert!(page.starts_with("HTTP/2 200"), "{page}");
    machine.sh("rm /etc/turnserver/*.pem");
    follow(&machine, PAGE, "The relay: the way back", 0);
    assert_serves(&machine, false);
    watch.step("the way back");
    // coturn carries data again.
    let url = format!("turns:{}:443", relay::NAME);
    machine.sh(&format!("echo {SECRET} >secret && hallpass doctor --secret-file secret --exact {url}"));
}
