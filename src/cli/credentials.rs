//! `hallpass credentials`: user name and password for a while, ready to paste.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use super::args::{CredentialsArgs, Tool};
use super::{Endpoint, choose_host, embedded_endpoints, endpoints, load_config, print, shell_word};
use crate::config::{Config, Transport};
use crate::system::clock;
use crate::turn::rest;

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
    let from_secret = |secret: &str| of_secret(secret, &args.user, args.ttl);
    let Some(path) = &args.config else {
        let secret = args.secret.as_deref().unwrap_or_default();
        if secret.is_empty() {
            return Err(super::fail("the secret is empty", "give the secret that the server has"));
        }
        let server = args.server.as_deref().unwrap_or("127.0.0.1");
        return Ok((from_secret(secret), embedded_endpoints(server)));
    };
    let config = load_config(path)?;
    let endpoints = endpoints(&config, false, |listener| match &args.server {
        Some(server) => server.clone(),
        None => reachable(&config, listener),
    });
    let fixed = config.users.iter().find(|user| user.name == args.user && args.host.is_none());
    if let Some(user) = fixed {
        let (username, password) = (user.name.clone(), user.password.clone());
        return Ok((Credentials { username, password, ttl: None }, endpoints));
    }
    let host = choose_host(&config, args.host.as_deref())?;
    // The configuration refuses a host without a secret; the first is the newest.
    let newest = host.secrets.first().map_or("", String::as_str);
    Ok((from_secret(newest), endpoints))
}

/// REST credentials of `user` for `ttl` seconds.
pub(super) fn of_secret(secret: &str, user: &str, ttl: u32) -> Credentials {
    let username = rest::username(clock::unix_seconds().saturating_add(ttl.into()), user);
    let password = rest::password(secret, &username);
    Credentials { username, password, ttl: Some(ttl) }
}

/// Where a client of this listener connects to when nobody says: its own address; for a listener on every
/// address the public one, else loopback.
fn reachable(config: &Config, listener: SocketAddr) -> String {
    let ip = listener.ip();
    let announced = config.external_ip.iter().find(|entry| match entry.private {
        Some(private) => private == ip || ip.is_unspecified() && private.is_ipv4() == ip.is_ipv4(),
        None => !ip.is_loopback() && entry.public.is_ipv4() == ip.is_ipv4(),
    });
    match announced {
        Some(entry) => entry.public.to_string(),
        None if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        None if ip.is_unspecified() => "::1".to_owned(),
        None => ip.to_string(),
    }
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
