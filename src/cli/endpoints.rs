//! For commands that read a configuration: its hosts, and the endpoints that clients connect to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::{check_line, fail, print_stderr};
use crate::base::transport::Transport;
use crate::base::turn_url::{TurnUrl, place, split};
use crate::config::{
    self, Config, EMBEDDED_PORT, EMBEDDED_TLS_PORT, Host, Listener, Loaded, Public, SERVICE_FILE,
};

/// The port of STUN URLs without one (RFC 7064 section 3.2).
const STUN_PORT: u16 = 3478;

/// Returns the configuration of the service, for a command without --config, and says so.
pub fn default_config() -> PathBuf {
    print_stderr(&format!("hallpass: without --config: {SERVICE_FILE}\n"));
    PathBuf::from(SERVICE_FILE)
}

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
        let place = place(&self.server, self.port);
        match self.transport {
            Transport::Udp => format!("turn:{place}"),
            Transport::Tcp => format!("turn:{place}?transport=tcp"),
            Transport::Tls => format!("turns:{place}?transport=tcp"),
        }
    }

    /// The STUN URL (RFC 7064); `None` for TCP and TLS: browsers send STUN over UDP only.
    pub fn stun_url(&self) -> Option<String> {
        (self.transport == Transport::Udp).then(|| format!("stun:{}", place(&self.server, self.port)))
    }

    /// Where a browser connects for a TURN URL, which may be written in several ways. `None` if it is no such URL.
    pub fn of_turn_url(url: &str) -> Option<Self> {
        let url: TurnUrl = url.parse().ok()?;
        Some(Self { transport: url.transport(), port: url.port(), server: url.host })
    }

    /// Where a browser sends Bindings for a STUN URL. `None` if it is no such URL, or one of STUN over TLS.
    pub fn of_stun_url(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let (server, port) = split(rest).ok().filter(|_| scheme.eq_ignore_ascii_case("stun"))?;
        Some(Self { transport: Transport::Udp, port: port.unwrap_or(STUN_PORT), server })
    }
}

impl From<&Public> for Endpoint {
    fn from(Public { transport, host, port }: &Public) -> Self {
        Self { transport: *transport, port: *port, server: host.clone() }
    }
}

/// For whom endpoints are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Clients that connect to the listeners themselves: `listen.public` is ignored.
    Direct,
    /// Any client: a listener with `public` is reached there.
    Clients,
    /// Browsers elsewhere: as for clients, without loopback listeners unless there are no others, and without listeners
    /// that only a proxy may connect to and that have no `public`.
    Browsers,
}

/// Whether only a proxy may connect to the listener, and it is not known where clients reach that proxy.
pub fn is_hidden(listener: &Listener) -> bool {
    !listener.proxies.is_empty() && listener.public.is_none()
}

/// Returns the endpoints of the listeners without duplicates: UDP first, then TCP, then TLS. `server` returns the name or
/// address of each that has no `public`.
pub fn endpoints(config: &Config, audience: Audience, server: impl Fn(&Listener) -> String) -> Vec<Endpoint> {
    let is_local = |listener: &Listener| listener.address.ip().is_loopback() && listener.public.is_none();
    let has_public = config.listen.iter().any(|listener| !is_local(listener) && !is_hidden(listener));
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for listener in &config.listen {
        let is_left_out = is_hidden(listener) || has_public && is_local(listener);
        match &listener.public {
            Some(public) if audience != Audience::Direct => {
                endpoints.extend(public.iter().map(Endpoint::from));
            }
            _ if audience == Audience::Browsers && is_left_out => {}
            _ => endpoints.push(Endpoint {
                transport: listener.transport,
                port: listener.address.port(),
                server: server(listener),
            }),
        }
    }
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
        let urls = |audience| -> Vec<String> {
            endpoints(&config, audience, |_| "r".to_owned()).iter().map(Endpoint::turn_url).collect()
        };
        assert_eq!(urls(Audience::Browsers), ["turn:r:3478", "turns:r:443?transport=tcp"]);
        assert_eq!(urls(Audience::Clients), ["turn:r:3478", "turn:r:3479", "turns:r:443?transport=tcp"]);
        assert_eq!(embedded_endpoints("::1")[1].turn_url(), "turn:[::1]:3479?transport=tcp");
        assert_eq!(embedded_endpoints("::1")[0].stun_url().as_deref(), Some("stun:[::1]:3479"));
    }

    #[test]
    fn a_listener_behind_a_proxy_is_where_its_proxy_is() {
        let text = "[[listen]]\ntransport='udp'\naddress='0.0.0.0:3478'\n\
            [[listen]]\ntransport='tcp'\naddress='127.0.0.1:3480'\nproxy_protocol=['127.0.0.1']\n\
            public='turns:Relay.example.org:443?transport=tcp'\n\
            [[listen]]\ntransport='tcp'\naddress='0.0.0.0:3481'\nproxy_protocol=['10.0.0.1']\n\
            [[listen]]\ntransport='tcp'\naddress='0.0.0.0:3482'\npublic=[]\n\
            [[host]]\nname='h'\nsecret='0123456789abcdef'\n";
        let config = config::parse(text, "f", Path::new("")).unwrap().config;
        let urls = |audience| -> Vec<String> {
            endpoints(&config, audience, |_| "r".to_owned()).iter().map(Endpoint::turn_url).collect()
        };
        let behind = "turns:relay.example.org:443?transport=tcp";
        assert_eq!(urls(Audience::Browsers), ["turn:r:3478", behind]);
        assert_eq!(urls(Audience::Clients), ["turn:r:3478", "turn:r:3481?transport=tcp", behind]);
        let [tcp, other, unlisted] = [3480, 3481, 3482].map(|port| format!("turn:r:{port}?transport=tcp"));
        assert_eq!(urls(Audience::Direct), ["turn:r:3478".to_owned(), tcp, other, unlisted]);
    }

    #[test]
    fn urls_that_mean_the_same() {
        let turn = |url| Endpoint::of_turn_url(url).map(|endpoint| endpoint.turn_url());
        assert_eq!(turn("turn:Relay?transport=udp").as_deref(), Some("turn:relay:3478"));
        assert_eq!(turn("turns:relay:443").as_deref(), Some("turns:relay:443?transport=tcp"));
        assert_eq!(turn("stun:relay"), None);
        let stun = |url| Endpoint::of_stun_url(url).and_then(|endpoint| endpoint.stun_url());
        assert_eq!(stun("stun:relay").as_deref(), Some("stun:relay:3478"));
        assert_eq!(stun("stuns:relay"), None);
    }
}
