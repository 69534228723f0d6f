//! `hallpass credentials`: user name and password for a while, ready to paste.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use super::args::{CredentialsArgs, Tool};
use super::{Endpoint, choose_host, embedded_endpoints, endpoints, load_config, print, shell_word};
use crate::base::transport::Transport;
use crate::config::{Config, Exposure, ExternalIp, Listener, read_secret};
use crate::system::{clock, interfaces};
use crate::turn::identity::rest;

/// What a client logs in with.
pub(super) struct Credentials {
    username: String,
    password: String,
    /// Seconds; `None` = until the configuration changes.
    ttl: Option<u32>,
}

impl Credentials {
    /// User name and password.
    pub(super) fn into_login(self) -> (String, String) {
        (self.username, self.password)
    }
}

/// Prints them.
pub(super) fn run(args: CredentialsArgs) -> ExitCode {
    let (credentials, endpoints) = match make(&args) {
        Ok(made) => made,
        Err(code) => return code,
    };
    let text = match (args.json, args.command) {
        (true, _) => ice_servers(&credentials, &endpoints),
        (false, Some(Tool::Uclient)) => uclient(&credentials, &endpoints),
        (false, None) => for_people(&credentials, &endpoints),
    };
    print(text.as_bytes())
}

fn make(args: &CredentialsArgs) -> Result<(Credentials, Vec<Endpoint>), ExitCode> {
    let Some(path) = &args.config else {
        let secret = shared_secret(args.secret.as_deref(), args.secret_file.as_deref())?;
        let server = args.server.as_deref().unwrap_or("127.0.0.1");
        return Ok((of_secret(&secret, &args.user, args.ttl), embedded_endpoints(server)));
    };
    let config = load_config(path)?;
    let fixed = config.users.iter().find(|user| user.name == args.user && args.host.is_none());
    let credentials = match fixed {
        Some(user) => Credentials { username: user.name.clone(), password: user.password.clone(), ttl: None },
        None => {
            let host = choose_host(&config, args.host.as_deref())?;
            // The configuration refuses a host without a secret; the first is the newest.
            of_secret(host.secrets.first().map_or("", String::as_str), &args.user, args.ttl)
        }
    };
    Ok((credentials, places(&config, args.server.as_deref())?))
}

/// Where the listeners are reached: at `server`, or at the addresses that [`reachable`] finds.
fn places(config: &Config, server: Option<&str>) -> Result<Vec<Endpoint>, ExitCode> {
    let address = |listener: &Listener| match server {
        Some(server) => Some(server.to_owned()),
        None => reachable(config, listener).map(|ip| ip.to_string()),
    };
    if let Some(lost) = config.listen.iter().find(|listener| address(listener).is_none()) {
        return Err(super::fail(
            &format!(
                "the listener {} {} is on every address, and this machine has none that others can reach",
                lost.transport, lost.address
            ),
            "add --server NAME, the name or address that clients know; --server 127.0.0.1 to try it on this machine",
        ));
    }
    // The line above proves that each has one.
    Ok(endpoints(config, false, |listener| address(listener).unwrap_or_default()))
}

/// The shared secret of a command line: the argument itself, or the first line of the file; `-` is standard input.
pub(super) fn shared_secret(argument: Option<&str>, file: Option<&Path>) -> Result<String, ExitCode> {
    let secret = match file {
        None => argument.unwrap_or_default().to_owned(),
        Some(path) if path == Path::new("-") => read_secret(io::stdin().lock()).map_err(|error| {
            super::fail(
                &format!("cannot read the secret from standard input: {error}"),
                "write the secret as one line",
            )
        })?,
        Some(path) => {
            if let Some(exposure) = Exposure::of_file(path) {
                super::tell(&format!("hallpass: warning: {exposure}\n"));
            }
            File::open(path).and_then(read_secret).map_err(|error| {
                super::fail(
                    &format!("cannot read the secret from {}: {error}", path.display()),
                    "give --secret-file a file whose first line is the server's secret",
                )
            })?
        }
    };
    if secret.is_empty() {
        return Err(super::fail("the secret is empty", "give the secret that the server has"));
    }
    Ok(secret)
}

/// REST credentials of `user` for `ttl` seconds.
pub(super) fn of_secret(secret: &str, user: &str, ttl: u32) -> Credentials {
    let username = rest::username(clock::unix_seconds().saturating_add(ttl.into()), user);
    let password = rest::password(secret, &username);
    Credentials { username, password, ttl: Some(ttl) }
}

/// Where a client of this listener connects to when nobody says: `external_ip`, else its own address. For a listener on
/// every address it is the one of `[relay] addresses`, else the one that this machine reaches others from; IPv4 goes
/// first, which more clients have. `None` = this machine has no such address.
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
            .or_else(|| interfaces::toward_outside(v4))
    };
    let known = if ip.is_unspecified() { None } else { Some(ip) };
    families.iter().find_map(announced).or(known).or_else(|| families.iter().find_map(own))
}

pub(super) fn for_people(credentials: &Credentials, endpoints: &[Endpoint]) -> String {
    let valid = match credentials.ttl {
        Some(ttl) => format!("{ttl} seconds from now"),
        None => "as long as the configuration has them".to_owned(),
    };
    let mut text = format!(
        "username  {}\npassword  {}\nvalid     {valid}\n",
        credentials.username, credentials.password
    );
    for endpoint in endpoints {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "url       {}", endpoint.turn_url());
    }
    text
}

pub(super) fn ice_servers(credentials: &Credentials, endpoints: &[Endpoint]) -> String {
    let urls: Vec<String> = endpoints.iter().map(Endpoint::turn_url).collect();
    let json = serde_json::json!({
        "iceServers": [{
            "urls": urls,
            "username": credentials.username,
            "credential": credentials.password,
        }]
    });
    format!("{json:#}\n")
}

/// Two clients relayed to each other, so that no peer has to be allowed: 0 lost is a good result.
pub(super) fn uclient(credentials: &Credentials, endpoints: &[Endpoint]) -> String {
    let mut text = String::new();
    for endpoint in endpoints {
        let transport = match endpoint.transport {
            Transport::Udp => "",
            Transport::Tcp => " -t",
            Transport::Tls => " -t -S",
        };
        let _ = writeln!(
            text,
            "turnutils_uclient{transport} -y -c -n 20 -p {} -u {} -w {} {}",
            endpoint.port,
            shell_word(&credentials.username),
            shell_word(&credentials.password),
            shell_word(&endpoint.server),
        );
    }
    text
}
