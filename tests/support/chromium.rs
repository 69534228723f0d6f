//! Chromium, driven through its debugging pipe: JSON commands and events, each ended by a zero byte.

use super::files::Directory;
use super::process::Process;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The pipe is expected on descriptors 3 and 4, but only standard input and output can be piped.
const SHELL: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2";

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--ignore-certificate-errors",
    // The relay is on loopback, which WebRTC excludes otherwise.
    "--allow-loopback-in-peer-connection",
    "--remote-debugging-pipe",
];

/// The environment of a browser.
#[derive(Default)]
pub struct Setting<'a> {
    /// The network namespace; `None`: the current one.
    pub namespace: Option<&'a str>,
    pub flags: Vec<String>,
}

pub struct Chromium {
    process: Process,
    commands: ChildStdin,
    answers: Receiver<Value>,
    /// An empty page of a secure origin.
    page: String,
    last_id: u64,
    /// Errors of pages so far: in the console, of the network, of their policies, and exceptions.
    complaints: Vec<Value>,
}

/// A page in a tab of its own.
pub struct Tab {
    session: String,
}

impl Chromium {
    /// Starts a browser with a new profile inside `files`.
    pub fn start(files: &Directory) -> Chromium {
        Chromium::start_in(files, &Setting::default())
    }

    /// Starts a browser with `setting`.
    pub fn start_in(files: &Directory, setting: &Setting<'_>) -> Chromium {
        let profile = files.path("profile");
        let mut command = Command::new(if setting.namespace.is_some() { "ip" } else { "sh" });
        if let Some(namespace) = setting.namespace {
            command.args(["netns", "exec", namespace, "sh"]);
        }
        command.args(["-c", SHELL, "sh"]).args(FLAGS).args(&setting.flags);
        command.arg(format!("--user-data-dir={}", profile.display()));
        // Ignore the user's own settings and certificates.
        command.env("HOME", files.path("home"));
        let (process, commands, pipe) = Process::spawn_piped(command);
        let page = match setting.namespace {
            // The page server of the test is outside that namespace. A file is a secure context, too.
            Some(_) => format!("file://{}", files.write("page.html", "<!DOCTYPE html>").display()),
            None => format!("http://{}/", serve_empty_page()),
        };
        Chromium { process, commands, answers: follow(pipe), page, last_id: 0, complaints: Vec::new() }
    }

    /// Evaluates `script` in an empty page on 127.0.0.1, a secure context, and returns what it resolves to.
    pub fn run(&mut self, script: &str) -> Value {
        let page = self.page.clone();
        let tab = self.open(&page);
        self.evaluate(&tab, script)
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) -> Tab {
        let created = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": created["targetId"], "flatten": true });
        let attached = self.ask(None, "Target.attachToTarget", target);
        let tab = Tab { session: attached["sessionId"].as_str().expect("a session").to_owned() };
        for domain in ["Page", "Runtime", "Log"] {
            self.command(&tab, &format!("{domain}.enable"), json!({}));
        }
        self.go(&tab, url);
        tab
    }

    /// Opens another page in the same tab and waits until it is loaded.
    pub fn go(&mut self, tab: &Tab, url: &str) {
        self.command(tab, "Page.setLifecycleEventsEnabled", json!({ "enabled": true }));
        let begun = self.command(tab, "Page.navigate", json!({ "url": url }));
        // The load of the page before it may be reported late.
        self.wait(|message| {
            let params = &message["params"];
            message["method"] == "Page.lifecycleEvent"
                && params["name"] == "load"
                && params["loaderId"] == begun["loaderId"]
        });
    }

    /// Evaluates `script` in a page and returns what it resolves to.
    pub fn evaluate(&mut self, tab: &Tab, script: &str) -> Value {
        let evaluate = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        let answer = self.command(tab, "Runtime.evaluate", evaluate);
        assert_eq!(answer["exceptionDetails"], Value::Null, "the page threw: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// Presses a key and releases it. `text` is what the key writes, if anything.
    pub fn press(&mut self, tab: &Tab, key: &str, text: Option<&str>) {
        let mut down =
            json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": key_code(key) });
        if let Some(text) = text {
            down["text"] = text.into();
        }
        self.command(tab, "Input.dispatchKeyEvent", down);
        self.command(tab, "Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key, "code": key }));
    }

    /// Sends any command of the protocol for a page.
    pub fn command(&mut self, tab: &Tab, method: &str, params: Value) -> Value {
        let session = tab.session.clone();
        self.ask(Some(&session), method, params)
    }

    /// The errors of all pages so far.
    pub fn complaints(&self) -> &[Value] {
        &self.complaints
    }

    fn ask(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let sent = self.commands.write_all(format!("{command}\0").as_bytes());
        sent.unwrap_or_else(|error| panic!("chromium is gone: {error}\n{}", self.process.output()));
        let answer = self.wait(|message| message["id"] == id);
        assert_eq!(answer["error"], Value::Null, "{method}: {answer}");
        answer["result"].clone()
    }

    fn wait(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(message) if wanted(&message) => return message,
                Ok(message) => self.complaints.extend(complaint(&message)),
                Err(error) => panic!("no answer from chromium: {error}\n{}", self.process.output()),
            }
        }
    }
}

/// Returns what an event says about an error of a page.
fn complaint(event: &Value) -> Option<Value> {
    let params = &event["params"];
    let is_one = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
        "Log.entryAdded" => params["entry"]["level"] == "error",
        _ => false,
    };
    is_one.then(|| params.clone())
}

/// The code of a key on Windows, which Chromium uses on all systems for keys that write nothing.
fn key_code(key: &str) -> u32 {
    match key {
        "Tab" => 9,
        "Enter" => 13,
        "Escape" => 27,
        " " => 32,
        "End" => 35,
        "Home" => 36,
        "ArrowLeft" => 37,
        "ArrowRight" => 39,
        _ => panic!("no code for {key}"),
    }
}

/// Reads the browser's messages until it ends.
fn follow(pipe: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::sync_channel(256);
    thread::spawn(move || {
        for message in BufReader::new(pipe).split(0).map_while(Result::ok) {
            let parsed = serde_json::from_slice(&message).unwrap_or(Value::Null);
            if sender.send(parsed).is_err() {
                return;
            }
        }
    });
    receiver
}

/// An HTTP server that answers everything with an empty page, for as long as the test binary runs.
fn serve_empty_page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\nConnection: close\r\n\r\n\
                  <!DOCTYPE html>";
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}
