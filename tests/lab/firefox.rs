//! Headless Firefox: opens a page that makes the call and posts the result.

use crate::support::firefox::make_profile;
use crate::support::process::Process;
use crate::support::server::Server;
use serde_json::Value;
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

/// Evaluates `script` in `namespace` with further `preferences` and returns what it resolves to.
pub fn run(namespace: &str, server: &Server, preferences: &[String], script: &str) -> Value {
    let files = server.files();
    let profile = files.path("firefox");
    make_profile(&profile, &files.path("ca.pem"), preferences);

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
