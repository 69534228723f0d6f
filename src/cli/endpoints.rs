//! For commands that read a configuration: its hosts, and the endpoints that clients connect to.

use std::path::Path;
use std::process::ExitCode;

use super::output::{check_line, fail, print_stderr};
use crate::base::transport::Transport;
use crate::config::{self, Config, EMBEDDED_PORT, EMBEDDED_TLS_PORT, Host, Listener, Loaded};

/// Reads a configuration for a command. Warnings are ignored; `check` shows them.
///
/// # Errors
/// The exit status if the configuration has errors; they are already printed.
pub fn load_config(path: &Path) -> Result<Config, ExitCode> {
    match config::read(path) {
        Ok(Loaded { config, .. }) => Ok(config),
        Err(report) => {
            print_stderr(&report.to_string());
            Err(fail(
                "the configuration is refused",
                &format!("fix the lines above; this command checks the file: {}", check_line(path)),
            ))
        }
    }
}

/// Returns the named host, or the only one if no name is given.
///
/// # Errors
/// The exit status if there is no such host, no host at all, or several hosts and no name; the error is already printed.
pub fn choose_host<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Host, ExitCode> {
    let names = || config.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, config.hosts.as_slice()) {
        (_, []) => Err(fail(
            "the configuration has no [[host]], so there is no secret",
            "add one with name and secret; `credentials` also accepts the name of a [[user]] as --user",
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

/// How a client reaches the relay: transport, server and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The transport.
    pub transport: Transport,
    /// The port.
    pub port: u16,
    /// A name, an IPv4 address or an IPv6 address without brackets.
    pub server: String,
}

impl Endpoint {
    /// The TURN URL (RFC 7065). Without a parameter a `turn` URL means UDP.
    pub fn turn_url(&self) -> String {
        let place = format!("{}:{}", bracketed(&self.server), self.port);
        match self.transport {
            Transport::Udp => format!("turn:{place}"),
            Transport::Tcp => format!("turn:{place}?transport=tcp"),
            Transport::Tls => format!("turns:{place}?transport=tcp"),
        }
    }

    /// The STUN URL (RFC 7064); `None` for TCP and TLS: browsers send STUN over UDP only.
    pub fn stun_url(&self) -> Option<String> {
        let place = format!("{}:{}", bracketed(&self.server), self.port);
        (self.transport == Transport::Udp).then(|| format!("stun:{place}"))
    }
}

fn bracketed(server: &str) -> String {
    if server.contains(':') { format!("[{server}]") } else { server.to_owned() }
}

/// Returns the endpoints of the listeners without duplicates: UDP first, then TCP, then TLS. `server` returns the name or
/// address of each. With `public`, loopback listeners are left out unless there are no others.
pub fn endpoints(config: &Config, public: bool, server: impl Fn(&Listener) -> String) -> Vec<Endpoint> {
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

/// Returns the endpoints of a server without a configuration.
pub fn embedded_endpoints(server: &str) -> Vec<Endpoint> {
    [(Transport::Udp, EMBEDDED_PORT), (Transport::Tcp, EMBEDDED_PORT), (Transport::Tls, EMBEDDED_TLS_PORT)]
        .map(|(transport, port)| Endpoint { transport, port, server: server.to_owned() })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_in_order_and_without_duplicates() {
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
