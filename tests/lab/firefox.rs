//! Headless Firefox: opens a page that makes the call and posts the result.

use crate::support::process::Process;
use crate::support::server::Server;
use crate::support::tool::run_ok;
use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);

/// Serves the page on loopback, which browsers treat as a secure context, and prints what the page posts.
const SITE: &str = "\
import http.server, sys
page = open(sys.argv[1], 'rb').read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path == '/'
        self.send_response(200 if found else 404)
        self.send_header('Content-Type', 'text/html')
        self.end_headers()
        self.wfile.write(page if found else b'')
    def do_POST(self):
        print('RESULT', self.rfile.read(int(self.headers['Content-Length'])).decode(), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), Handler)
print('bound', flush=True)
server.serve_forever()
";

/// No prompts, no telemetry, a fake camera.
const PREFERENCES: &[&str] = &[
    "\"media.navigator.streams.fake\", true",
    "\"media.navigator.permission.disabled\", true",
    "\"media.peerconnection.ice.obfuscate_host_addresses\", false",
    "\"app.update.enabled\", false",
    "\"browser.shell.checkDefaultBrowser\", false",
    "\"browser.safebrowsing.downloads.enabled\", false",
    "\"browser.safebrowsing.malware.enabled\", false",
    "\"browser.safebrowsing.phishing.enabled\", false",
    "\"datareporting.policy.dataSubmissionEnabled\", false",
    "\"network.captive-portal-service.enabled\", false",
    "\"network.connectivity-service.enabled\", false",
    "\"network.proxy.allow_hijacking_localhost\", false",
    "\"toolkit.telemetry.enabled\", false",
    "\"services.settings.server\", \"http://127.0.0.1:1\"",
];

/// Evaluates `script` in `namespace` with further `preferences` and returns what it resolves to.
pub fn run(namespace: &str, server: &Server, preferences: &[String], script: &str) -> Value {
    let files = server.files();
    let profile = files.path("firefox");
    fs::create_dir_all(&profile).expect("a profile");
    let lines = PREFERENCES.iter().map(|line| (*line).to_owned()).chain(preferences.iter().cloned());
    let lines: String = lines.map(|line| format!("user_pref({line});\n")).collect();
    fs::write(profile.join("user.js"), lines).expect("preferences");
    // Firefox rejects untrusted certificates for TURN too.
    let database = format!("sql:{}", profile.display());
    let certificate = files.path("ca.pem").display().to_string();
    run_ok("certutil", &["-N", "-d", &database, "--empty-password"], LIMIT);
    run_ok("certutil", &["-A", "-d", &database, "-n", "relay", "-t", "CP,,", "-i", &certificate], LIMIT);

    let post = "(result) => fetch('/', { method: 'POST', body: JSON.stringify(result) })";
    let page = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><script>\n(async () => {{ {} }})()\
         .catch((error) => ({{ error: `${{error}}` }})).then({post});\n</script>",
        script.replace("\ncall(", "\nreturn call(")
    );
    let page = files.write("firefox.html", &page);
    let inside = |program: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, program]).env("HOME", files.path("home"));
        command
    };
    let mut command = inside("/usr/bin/python3");
    command.args(["-c", SITE]).arg(&page);
    let site = Process::spawn(command);
    assert!(site.wait_output(LIMIT, |log| log.contains("bound")), "{}", site.output());
    let mut command = inside("firefox-esr");
    command.args(["--headless", "--no-remote", "--profile"]).arg(&profile).arg("http://127.0.0.1:8000/");
    let browser = Process::spawn(command);
    let posted = site.wait_output(LIMIT, |log| log.contains("RESULT ") && log.ends_with('\n'));
    assert!(posted, "Firefox posted nothing:\n{}\nserver:\n{}", browser.output(), server.log());
    let output = site.output();
    let result = output.lines().find_map(|line| line.strip_prefix("RESULT ")).expect("a result");
    serde_json::from_str(result).unwrap_or_else(|error| panic!("{error}: {result}"))
}
