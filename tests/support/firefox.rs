//! Headless Firefox in a network namespace, driven by Marionette, its remote protocol: JSON over TCP, each message after its length.

use super::files::Directory;
use super::namespace::within;
use super::process::Process;
use super::tool::run_ok;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(90);
const PORT: u16 = 2828;

/// No prompts, no requests of its own, a fake camera.
pub const PREFERENCES: &[&str] = &[
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

/// Makes a profile with [`PREFERENCES`] and `more`, which trusts the authority in this file. Firefox rejects other certificates for
/// TURN too.
pub fn make_profile(profile: &Path, authority: &Path, more: &[String]) {
    fs::create_dir_all(profile).expect("a profile");
    let lines = PREFERENCES.iter().map(|line| (*line).to_owned()).chain(more.iter().cloned());
    let lines: String = lines.map(|line| format!("user_pref({line});\n")).collect();
    fs::write(profile.join("user.js"), lines).expect("preferences");
    let database = format!("sql:{}", profile.display());
    let authority = authority.display().to_string();
    run_ok("certutil", &["-N", "-d", &database, "--empty-password"], LIMIT);
    run_ok("certutil", &["-A", "-d", &database, "-n", "relay", "-t", "CP,,", "-i", &authority], LIMIT);
}

/// A running browser with one tab.
pub struct Firefox {
    process: Process,
    stream: TcpStream,
    last_id: u64,
}

impl Firefox {
    /// Starts a browser with a new profile inside `files`.
    pub fn start_in(files: &Directory, namespace: &str, authority: &Path) -> Firefox {
        let profile = files.path("firefox");
        make_profile(&profile, authority, &[format!("\"marionette.port\", {PORT}")]);
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            namespace,
            "firefox-esr",
            "--headless",
            "--no-remote",
            "--marionette",
        ]);
        command.arg("--profile").arg(&profile).env("HOME", files.path("home"));
        let process = Process::spawn(command);
        let up = process.wait_output(LIMIT, |log| log.contains("Listening on port"));
        assert!(up, "Firefox does not start:\n{}", process.output());
        let stream = within(namespace, || TcpStream::connect(("127.0.0.1", PORT))).expect("Marionette");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut firefox = Firefox { process, stream, last_id: 0 };
        let hello = firefox.read();
        assert_eq!(hello["marionetteProtocol"], 3, "{hello}");
        firefox.ask("WebDriver:NewSession", json!({}));
        firefox.ask("WebDriver:SetTimeouts", json!({ "script": 80_000, "pageLoad": 60_000 }));
        firefox
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.ask("WebDriver:Navigate", json!({ "url": url }));
    }

    /// Evaluates declarations and then an expression in the page, and returns what the expression resolves to.
    pub fn evaluate(&mut self, declarations: &str, expression: &str) -> Value {
        // In a script of the page, because Marionette's own scripts see the page through wrappers.
        let inside = format!(
            "{declarations}\n(async () => {expression})().catch((error) => ({{ error: `${{error}}` }}))\
             .then((result) => document.dispatchEvent(new CustomEvent('done', {{ detail: JSON.stringify(result) }})));"
        );
        let script = "const [inside, finish] = arguments;\
             document.addEventListener('done', ({ detail }) => finish(detail), { once: true });\
             const script = document.createElement('script');\
             script.textContent = inside;\
             document.documentElement.append(script);";
        let answer = self.ask("WebDriver:ExecuteAsyncScript", json!({ "script": script, "args": [inside] }));
        let text = answer["value"].as_str().unwrap_or_else(|| panic!("no result: {answer}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Evaluates an expression beside the page, whose policy may forbid scripts, and returns what it resolves to.
    pub fn wait(&mut self, expression: &str) -> Value {
        let script = format!(
            "const [finish] = arguments; ({expression}).then((seen) => finish(JSON.stringify(seen)));"
        );
        let answer = self.ask("WebDriver:ExecuteAsyncScript", json!({ "script": script, "args": [] }));
        let text = answer["value"].as_str().unwrap_or_else(|| panic!("no result: {answer}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let message = json!([0, self.last_id, method, params]).to_string();
        let sent = write!(self.stream, "{}:{message}", message.len());
        sent.unwrap_or_else(|error| panic!("Firefox is gone: {error}\n{}", self.process.output()));
        let answer = self.read();
        assert_eq!((&answer[1], &answer[2]), (&json!(self.last_id), &Value::Null), "{method}: {answer}");
        answer[3].clone()
    }

    fn read(&mut self) -> Value {
        let mut length = 0;
        loop {
            match self.byte() {
                b':' => break,
                digit => length = length * 10 + usize::from(digit - b'0'),
            }
        }
        let mut message = vec![0; length];
        let read = self.stream.read_exact(&mut message);
        read.unwrap_or_else(|error| panic!("no answer from Firefox: {error}\n{}", self.process.output()));
        serde_json::from_slice(&message).expect("JSON")
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        let read = self.stream.read_exact(&mut byte);
        read.unwrap_or_else(|error| panic!("no answer from Firefox: {error}\n{}", self.process.output()));
        byte[0]
    }
}
