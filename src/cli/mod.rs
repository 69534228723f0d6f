//! The command line: one file a command.
#![forbid(unsafe_code)]

pub mod args;
mod bbb_xml;
mod check;
mod credentials;
mod load;
mod manual;
mod serve;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::base::transport::Transport;
use crate::config::{self, Config, EMBEDDED_PORT, EMBEDDED_TLS_PORT, Host, Listener, Loaded};
use args::{Cli, Command};

/// Exit status of a bad configuration, a difference or a failure; wrong usage is 2, which clap sees to.
const FAILURE: u8 = 1;

/// Parses the command line and carries it out.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Credentials(args) => credentials::run(args),
        Command::BbbXml(args) => bbb_xml::run(args),
        Command::Load(args) => load::run(&args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "hallpass", &mut script);
            print(&script)
        }
        Command::Manual(args) => manual::run(args),
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure of ours.
fn print(bytes: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write to standard output: {error}"), "give it another target"),
    }
}

/// Writes to standard error; there is nowhere left to complain when that fails.
fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says what is wrong and the next step.
fn fail(message: &str, next_step: &str) -> ExitCode {
    tell(&format!("hallpass: {message}\n    {next_step}\n"));
    ExitCode::from(FAILURE)
}

/// Reads a configuration for a command that only needs it to be good: warnings are left to `check`.
fn load_config(path: &Path) -> Result<Config, ExitCode> {
    match config::read(path) {
        Ok(Loaded { config, .. }) => Ok(config),
        Err(report) => {
            tell(&report.to_string());
            Err(fail(
                "the configuration is refused",
                &format!("mend it until this is silent: {}", check_line(path)),
            ))
        }
    }
}

fn check_line(path: &Path) -> String {
    format!("hallpass check --config {}", shell_word(&path.display().to_string()))
}

/// The named host, or the only one.
fn choose_host<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Host, ExitCode> {
    let names = || config.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.hosts.as_slice()) {
        (_, []) => Err(fail(
            "the configuration has no [[host]], so there is no secret",
            "write one with name and secret; `credentials` also takes --user with the name of a [[user]]",
        )),
        (None, [host]) => Ok(host),
        (None, _) => {
            Err(fail("the configuration has several hosts", &format!("add --host NAME, one of: {}", names())))
        }
        (Some(name), hosts) => hosts.iter().find(|host| host.name == name).ok_or_else(|| {
            fail(&format!("there is no host {name:?}"), &format!("write one of: {}", names()))
        }),
    }
}

/// A place to reach the relay at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    transport: Transport,
    port: u16,
    /// Name, IPv4 address or IPv6 address without brackets.
    server: String,
}

impl Endpoint {
    /// RFC 7065; UDP is what a `turn` URL without a parameter means.
    fn turn_url(&self) -> String {
        let place = format!("{}:{}", bracketed(&self.server), self.port);
        match self.transport {
            Transport::Udp => format!("turn:{place}"),
            Transport::Tcp => format!("turn:{place}?transport=tcp"),
            Transport::Tls => format!("turns:{place}?transport=tcp"),
        }
    }

    /// RFC 7064; only over UDP does it tell a client anything.
    fn stun_url(&self) -> Option<String> {
        let place = format!("{}:{}", bracketed(&self.server), self.port);
        (self.transport == Transport::Udp).then(|| format!("stun:{place}"))
    }
}

fn bracketed(server: &str) -> String {
    if server.contains(':') { format!("[{server}]") } else { server.to_owned() }
}

/// Where clients reach the listeners: UDP first, then TCP, then TLS; IPv4 and IPv6 listeners of one port once.
/// Loopback listeners are left out of a `public` list unless there are no others.
fn endpoints(config: &Config, public: bool, server: impl Fn(&Listener) -> String) -> Vec<Endpoint> {
    let has_public = config.listen.iter().any(|listener| !listener.address.ip().is_loopback());
    let mut endpoints: Vec<Endpoint> = config
        .listen
        .iter()
        .filter(|listener| !(public && has_public && listener.address.ip().is_loopback()))
        .map(|listener| Endpoint {
            transport: listener.transport,
            port: listener.address.port(),
            server: server(listener),
        })
        .collect();
    endpoints.sort_by_key(|endpoint| endpoint.transport);
    let mut once: Vec<Endpoint> = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        if !once.contains(&endpoint) {
            once.push(endpoint);
        }
    }
    once
}

/// The listeners of a server without a configuration.
fn embedded_endpoints(server: &str) -> Vec<Endpoint> {
    [(Transport::Udp, EMBEDDED_PORT), (Transport::Tcp, EMBEDDED_PORT), (Transport::Tls, EMBEDDED_TLS_PORT)]
        .map(|(transport, port)| Endpoint { transport, port, server: server.to_owned() })
        .into()
}

/// One word of a shell command, quoted where it must be.
fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:=+,@%".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_survive_a_shell() {
        for text in ["plain", "", "it's", "a b", "$HOME `id` \"x\" \\", "*", "1764:w_é"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn endpoints_are_in_order_and_stand_once() {
        let text = "[[listen]]\ntransport='tls'\naddress='0.0.0.0:443'\n[[listen]]\ntransport='udp'\naddress='0.0.0.0:3478'\n\
            [[listen]]\ntransport='udp'\naddress='127.0.0.1:3479'\n[[listen]]\ntransport='udp'\naddress='[::]:3478'\n\
            [[host]]\nname='h'\nsecret='0123456789abcdef'\n";
        let config = config::parse(text, "f", Path::new("")).unwrap().config;
        let urls = |public| -> Vec<String> {
            endpoints(&config, public, |_| "r".to_owned()).iter().map(Endpoint::turn_url).collect()
        };
        assert_eq!(urls(true), ["turn:r:3478", "turns:r:443?transport=tcp"]);
        assert_eq!(urls(false), ["turn:r:3478", "turn:r:3479", "turns:r:443?transport=tcp"]);
        assert_eq!(embedded_endpoints("::1")[1].turn_url(), "turn:[::1]:3479?transport=tcp");
        assert_eq!(embedded_endpoints("::1")[0].stun_url().as_deref(), Some("stun:[::1]:3479"));
    }
}
