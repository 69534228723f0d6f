//! `hallpass credentials`: prints a time-limited user name and password, as text, JSON or command lines.

use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use ipnet::IpNet;

use super::args::{CredentialsArgs, Tool};
use super::certificate;
use super::endpoints::{
    Audience, Endpoint, choose_host, default_config, embedded_endpoints, endpoints, load_config,
};
use super::output::{fail, print, print_stderr, shell_word};
use crate::base::transport::Transport;
use crate::config::{Config, Exposure, ExternalIp, Listener, read_secret};
use crate::system::{clock, interfaces, local_addresses, pipe};
use crate::turn::identity::rest;

/// The user name and password that a client logs in with.
pub(super) struct IssuedLogin {
    username: String,
    password: String,
    /// Lifetime in seconds; `None` for a user with a fixed password.
    ttl: Option<u32>,
    /// The only peers that the user may reach; `None` if the host has no list.
    peers: Option<Vec<IpNet>>,
}

impl IssuedLogin {
    /// Returns the user name and the password.
    pub(super) fn into_pair(self) -> (String, String) {
        (self.username, self.password)
    }
}

/// Prints credentials.
pub(super) fn run(args: CredentialsArgs) -> ExitCode {
    let (login, endpoints) = match make(&args) {
        Ok(made) => made,
        Err(code) => return code,
    };
    let text = match (args.json, args.command) {
        (true, _) => ice_servers(&login, &endpoints),
        (false, Some(Tool::Uclient)) => uclient(&login, &endpoints),
        (false, Some(Tool::Doctor)) => doctor(&login, &endpoints),
        (false, None) => as_text(&login, &endpoints),
    };
    print(text.as_bytes())
}

/// Returns the credentials and the endpoints that they are for.
///
/// # Errors
/// The exit status; the error is already printed.
fn make(args: &CredentialsArgs) -> Result<(IssuedLogin, Vec<Endpoint>), ExitCode> {
    if args.secret.is_some() || args.secret_file.is_some() {
        let secret = shared_secret(args.secret.as_deref(), args.secret_file.as_deref())?;
        let server = args.server.as_deref().unwrap_or("127.0.0.1");
        return Ok((of_secret(&secret, &args.user, args.ttl), embedded_endpoints(server)));
    }
    let config = load_config(&args.config.clone().unwrap_or_else(default_config))?;
    let fixed = config.users.iter().find(|user| user.name == args.user && args.host.is_none());
    let login = match fixed {
        Some(user) => {
            let host =
                user.host.as_ref().and_then(|name| config.hosts.iter().find(|host| host.name == *name));
            IssuedLogin {
                username: user.name.clone(),
                password: user.password.clone(),
                ttl: None,
                peers: host.and_then(|host| host.peers.clone()),
            }
        }
        None => {
            let host = choose_host(&config, args.host.as_deref())?;
            // A valid configuration has a secret for each host; the first one is the newest.
            let login = of_secret(host.secrets.first().map_or("", String::as_str), &args.user, args.ttl);
            IssuedLogin { peers: host.peers.clone(), ..login }
        }
    };
    Ok((login, listener_endpoints(&config, args.server.as_deref())?))
}

/// Returns the endpoints of the listeners: at `server`, or at their `public`, the name in the certificate for TLS, and the
/// addresses that [`reachable`] finds.
///
/// # Errors
/// The exit status if a listener has no such address; the error is already printed.
fn listener_endpoints(config: &Config, server: Option<&str>) -> Result<Vec<Endpoint>, ExitCode> {
    let address = |listener: &Listener| match server {
        Some(server) => Some(server.to_owned()),
        None => reachable(config, listener).map(|ip| ip.to_string()),
    };
    let mut elsewhere = config.listen.iter().filter(|listener| listener.public.is_none());
    if let Some(unreachable) = elsewhere.find(|listener| address(listener).is_none()) {
        return Err(fail(
            &format!(
                "the listener {} {} uses every address, and this machine has none that others can reach",
                unreachable.transport, unreachable.address
            ),
            "add --server NAME with the name or address that clients use, or --server 127.0.0.1 for a test on this machine",
        ));
    }
    // Checked above: every listener has an address.
    let audience = if server.is_some() { Audience::Direct } else { Audience::Clients };
    // Clients of TLS compare the name in the URL with the certificate.
    let name = server.is_none().then(|| certificate::examine(config).name()).flatten();
    let name = name.filter(|name| !name.starts_with('*'));
    Ok(endpoints(config, audience, |listener| {
        let is_of_tls = listener.transport == Transport::Tls && !listener.address.ip().is_loopback();
        name.clone().filter(|_| is_of_tls).or_else(|| address(listener)).unwrap_or_default()
    }))
}

/// Returns the shared secret of a command line: the argument itself, or the first line of a file. `-` is standard input.
///
/// # Errors
/// The exit status if the secret cannot be read or is empty; the error is already printed.
pub(super) fn shared_secret(argument: Option<&str>, file: Option<&Path>) -> Result<String, ExitCode> {
    let secret = match file {
        None => argument.unwrap_or_default().to_owned(),
        Some(path) if path == Path::new("-") => read_secret(io::stdin().lock()).map_err(|error| {
            fail(
                &format!("cannot read the secret from standard input: {error}"),
                "write the secret as one line",
            )
        })?,
        Some(path) => {
            if let Some(exposure) = Exposure::of_file(path) {
                print_stderr(&format!("hallpass: warning: {exposure}\n"));
            }
            pipe::open(path).and_then(|(file, _)| read_secret(file)).map_err(|error| {
                fail(
                    &format!("cannot read the secret from {}: {error}", path.display()),
                    "name a file whose first line is the server's secret: --secret-file FILE",
                )
            })?
        }
    };
    if secret.is_empty() {
        return Err(fail("the secret is empty", "use the server's secret"));
    }
    Ok(secret)
}

/// Generates TURN REST credentials of `user` for `ttl` seconds.
pub(super) fn of_secret(secret: &str, user: &str, ttl: u32) -> IssuedLogin {
    let username = rest::username(clock::unix_seconds().saturating_add(ttl.into()), user);
    let password = rest::password(secret, &username);
    IssuedLogin { username, password, ttl: Some(ttl), peers: None }
}

/// Returns the address where clients reach a listener if --server is absent: `external_ip`, else the listener's own address. For
/// a listener on every address: the first of `[relay] addresses` that is reachable from outside, else the source address of
/// packets to the Internet. IPv4 is preferred, because more clients have it. `None` if this machine has no such address.
fn reachable(config: &Config, listener: &Listener) -> Option<IpAddr> {
    let ip = listener.address.ip();
    let families: &[bool] = match (ip.is_ipv4(), config.is_dual_stack(listener)) {
        (false, true) => &[true, false],
        (v4, _) => &[v4],
    };
    let announced = |&v4: &bool| {
        let fits = |entry: &&ExternalIp| match entry.private {
            Some(private) => private == ip || ip.is_unspecified(),
            None => !ip.is_loopback(),
        };
        let mut of_family = config.external_ip.iter().filter(|entry| entry.public.is_ipv4() == v4);
        of_family.find(fits).map(|entry| entry.public)
    };
    let own = |&v4: &bool| {
        let mut relays = config.relay.addresses.iter().copied();
        relays
            .find(|&relay| relay.is_ipv4() == v4 && interfaces::reachable_from_outside(relay))
            .or_else(|| local_addresses::toward_outside(v4))
    };
    let known = if ip.is_unspecified() { None } else { Some(ip) };
    families.iter().find_map(announced).or(known).or_else(|| families.iter().find_map(own))
}

/// Formats credentials as lines of text.
pub(super) fn as_text(login: &IssuedLogin, endpoints: &[Endpoint]) -> String {
    let valid = match login.ttl {
        Some(ttl) => format!("{ttl} seconds from now"),
        None => "until the configuration changes".to_owned(),
    };
    let mut text = format!("username  {}\npassword  {}\nvalid     {valid}\n", login.username, login.password);
    for endpoint in endpoints {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "url       {}", endpoint.turn_url());
    }
    text
}

/// Formats credentials as JSON for RTCPeerConnection.
pub(super) fn ice_servers(login: &IssuedLogin, endpoints: &[Endpoint]) -> String {
    let urls: Vec<String> = endpoints.iter().map(Endpoint::turn_url).collect();
    let json = serde_json::json!({
        "iceServers": [{
            "urls": urls,
            "username": login.username,
            "credential": login.password,
        }]
    });
    format!("{json:#}\n")
}

/// Formats credentials as the command that tests the network of a client. It contains the login, never the secret.
fn doctor(login: &IssuedLogin, endpoints: &[Endpoint]) -> String {
    let urls: Vec<String> = endpoints.iter().map(|endpoint| shell_word(&endpoint.turn_url())).collect();
    let pair = shell_word(&format!("{}:{}", login.username, login.password));
    format!("hallpass doctor {} --exact --credentials {pair}\n", urls.join(" "))
}

/// Formats credentials as command lines of turnutils_uclient. Each runs two clients that reach each other through the
/// relay, so no peer has to be allowed, and the test passes if no packet is lost. Users of a host with a list of peers cannot
/// reach each other: their commands send to the first peer.
pub(super) fn uclient(login: &IssuedLogin, endpoints: &[Endpoint]) -> String {
    let mut text = String::new();
    let target = match login.peers.as_deref() {
        None => "-y -c -n 20".to_owned(),
        Some([]) => {
            return "# The host allows no peer, so no command can send anything: add `peers` to it.\n"
                .to_owned();
        }
        Some([first, ..]) => {
            let peer = first.addr();
            let _ = writeln!(
                text,
                "# Users of this host reach only its peers, so the commands send to {peer}, where nothing answers. They \
                 succeed if\n# they print no error: listener, credentials and peer are good. All packets count as lost, and \
                 each command takes\n# 11 to 17 s. Over TLS, errors of tls_connect are normal: it tries versions of TLS at random, old ones, \
                 too."
            );
            format!("-c -m 1 -n 1 -e {peer} -r 9")
        }
    };
    for endpoint in endpoints {
        let transport = match endpoint.transport {
            Transport::Udp => "",
            Transport::Tcp => " -t",
            Transport::Tls => " -t -S",
        };
        let _ = writeln!(
            text,
            "turnutils_uclient{transport} {target} -p {} -u {} -w {} {}",
            endpoint.port,
            shell_word(&login.username),
            shell_word(&login.password),
            shell_word(&endpoint.server),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_a_school_has_a_login_and_not_the_secret() {
        let login = IssuedLogin {
            username: "1999999999:hallpass".to_owned(),
            password: "b/w=".to_owned(),
            ttl: Some(86_400),
            peers: None,
        };
        let at = |transport, port| Endpoint { transport, port, server: "relay.example.org".to_owned() };
        let line = doctor(&login, &[at(Transport::Udp, 3478), at(Transport::Tls, 443)]);
        let parts: Vec<&str> = line.split_whitespace().map(|part| part.trim_matches('\'')).collect();
        assert_eq!(
            parts,
            [
                "hallpass",
                "doctor",
                "turn:relay.example.org:3478",
                "turns:relay.example.org:443?transport=tcp",
                "--exact",
                "--credentials",
                "1999999999:hallpass:b/w=",
            ]
        );
    }
}
