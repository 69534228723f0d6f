//! One run of the doctor.

use crate::support::files::Directory;
use crate::support::plan::SECRET;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The doctor promises to end within this time, whatever the network does.
const LIMIT: Duration = Duration::from_secs(20);

/// How to run the doctor.
pub struct Examination {
    /// The program and what runs it.
    words: Vec<String>,
    variables: Vec<(String, String)>,
    files: Directory,
    login: Vec<String>,
}

impl Examination {
    /// With the secret of the tests.
    pub fn new() -> Examination {
        let files = Directory::new("doctor");
        let secret = files.write("secret", &format!("{SECRET}\n"));
        Examination {
            words: vec![env!("CARGO_BIN_EXE_hallpass").to_owned()],
            variables: Vec::new(),
            login: vec!["--secret-file".to_owned(), secret.display().to_string()],
            files,
        }
    }

    /// Without a login, on the relay itself.
    pub fn without_login() -> Examination {
        Examination { login: Vec::new(), ..Examination::new() }
    }

    /// From a network namespace.
    pub fn inside(mut self, namespace: &str) -> Examination {
        self.words.splice(0..0, ["ip", "netns", "exec", namespace].map(str::to_owned));
        self
    }

    /// With the authority of a server's certificate as the only one that this computer trusts.
    pub fn trusting(self, authority: &Path) -> Examination {
        let authority = authority.display().to_string();
        self.with_variable("SSL_CERT_FILE", &authority)
    }

    pub fn with_variable(mut self, name: &str, value: &str) -> Examination {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another secret.
    pub fn with_secret(mut self, secret: &str) -> Examination {
        self.login[1] = self.files.write("secret", secret).display().to_string();
        self
    }

    /// With a user name and a password.
    pub fn with_credentials(mut self, pair: &str) -> Examination {
        self.login = vec!["--credentials".to_owned(), pair.to_owned()];
        self
    }

    /// Runs the doctor to its end; it must be fast, and must not print a secret.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).arg("doctor").args(args).args(&self.login).stdin(Stdio::null());
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().cloned());
        let begun = Instant::now();
        let output = command.output().expect("the doctor runs");
        let took = begun.elapsed();
        assert!(took < LIMIT, "the doctor took {took:?}");
        let printed = [&output.stdout[..], &output.stderr].concat();
        let printed = String::from_utf8(printed).expect("text");
        assert!(!printed.contains(SECRET), "a secret is printed: {printed}");
        output
    }

    /// Runs the doctor and returns its JSON. The exit status must agree with it.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}"));
        let expected = if json["works"] == true { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(expected), "{json:#}{errors}");
        json
    }
}

/// The rung of this transport, port and way.
#[track_caller]
pub fn rung<'a>(json: &'a Value, transport: &str, port: u16, way: &str) -> &'a Value {
    let mut all = json["rungs"].as_array().expect("rungs").iter();
    let found = all.find(|one| one["transport"] == transport && one["port"] == port && one["way"] == way);
    found.unwrap_or_else(|| panic!("no {transport} {port} {way} in {json:#}"))
}

/// The codes of all findings, the verdict first.
pub fn codes(json: &Value) -> Vec<&str> {
    let all = json["findings"].as_array().expect("findings");
    all.iter().map(|one| one["code"].as_str().expect("a code")).collect()
}

/// The letter as one line.
#[track_caller]
pub fn letter(json: &Value) -> String {
    let letter = json["letter"].as_str().unwrap_or_else(|| panic!("no letter in {json:#}"));
    letter.split_whitespace().collect::<Vec<_>>().join(" ")
}
