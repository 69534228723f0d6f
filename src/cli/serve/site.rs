//! Connects the built-in site to the network side, and gives it what it needs of the relay.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::start_error::{self, StartError};
use crate::base::lock::lock;
use crate::base::transport::Transport;
use crate::cert::{CertStore, trust};
use crate::cli::endpoints::{Audience, endpoints};
use crate::config::{self, Config, Listener, SiteLanguage};
use crate::net::front::first_bytes::{self, Visit};
use crate::net::stream::tls::Protocol;
use crate::site::check::{self, LOGIN_SECONDS, Login, MakeLogin, Rung};
use crate::site::{self, BuiltInSite, Files, Http, Language, Settings, SiteConnection, Visitor};
use crate::system::local_addresses::is_private;
use crate::system::port_holder::PortSpace;
use crate::system::{clock, entropy};
use crate::turn::identity::rest;

/// Connections from the operator's web server at the same time. They take descriptors of those that are kept for the process.
const FORWARDED_MAX: usize = 24;
/// Time without accepting after an error, such as too few descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The next step if the files of the site cannot be read.
const FIX_DIRECTORY: &str = "fix site.directory, or remove it for the built-in page";
/// The part of a user name that differs between logins. 8 letters of Base64 are 48 bits.
const USER_LETTERS: usize = 8;

/// The built-in site, as the server holds it.
pub struct Face {
    site: BuiltInSite,
    /// Makes the logins of the test page.
    secret: String,
    /// What outlives a reload.
    kept: check::Kept,
    /// What is in use, and the certificate that a part of it depends on.
    in_use: Mutex<(Settings, Option<Arc<CertStore>>)>,
}

impl Face {
    /// Creates the site. Its connections are served on `runtime`; `secret` makes the logins of the test page.
    pub fn new(runtime: Handle, secret: String) -> Arc<Self> {
        let settings = Settings::default();
        let site = BuiltInSite::new(runtime, &settings);
        Arc::new(Self { site, secret, kept: check::Kept::default(), in_use: Mutex::new((settings, None)) })
    }

    /// Returns the secret that makes the logins of the test page.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns the results of the test page.
    pub fn results(&self) -> check::Results {
        self.kept.results.clone()
    }

    /// Uses this configuration. `certificate` is that of the listeners, if it comes from files.
    pub fn set(&self, config: &Config, files: Option<Arc<Files>>, certificate: Option<Arc<CertStore>>) {
        let settings = settings(config, files, login(&self.secret), self.kept.clone());
        *lock(&self.in_use) = (settings, certificate);
        self.follow_certificate();
    }

    /// Takes over what depends on the certificate: its name, and whether browsers trust it.
    pub fn follow_certificate(&self) {
        let mut in_use = lock(&self.in_use);
        let (settings, certificate) = &mut *in_use;
        let name = certificate.as_ref().and_then(|store| store.expiry()?.name);
        let name = name.filter(|name| !name.contains('*') && name.parse::<IpAddr>().is_err());
        settings.hsts = match (certificate, &name) {
            (Some(store), Some(name)) => trust::is_public(&store.current().cert, name, clock::unix_seconds()),
            _ => false,
        };
        if let Some(check) = &settings.check {
            settings.check = Some(Arc::new(check::Settings { name, ..check::Settings::clone(check) }));
        }
        self.site.set(settings);
    }

    /// Serves the test page at an address for a web server of the operator.
    ///
    /// # Errors
    /// If the address cannot be bound; if the port is occupied, the next step names the process.
    pub fn listen(&self, address: SocketAddr) -> Result<(), StartError> {
        let bound = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let listener = bound.map_err(|error| {
            let message = format!("cannot listen on {address} for the test page: {error}");
            start_error::refused(message, &error, PortSpace::Tcp, address)
        })?;
        tokio::spawn(accept(listener, self.site.clone()));
        Ok(())
    }
}

async fn accept(listener: TcpListener, site: BuiltInSite) {
    let places = Arc::new(Semaphore::new(FORWARDED_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted =
            listener.accept().await.and_then(|(stream, client)| Ok((stream.local_addr()?, stream, client)));
        let Ok((server, stream, client)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // TLS ends in front of the web server.
        let visitor = Visitor { client, server, secure: true, down: false, forwarded: true, hello: None };
        let stream = Box::new(move || Ok(stream));
        site.serve(SiteConnection { stream, http: Http::One, visitor, place: Box::new(place) });
    }
}

impl first_bytes::Site for Face {
    fn visit(&self, visit: Visit) -> bool {
        let Visit { stream, client, server, protocol, secure, down, hello, place } = visit;
        let http = match protocol {
            Protocol::H2 => Http::Two,
            Protocol::Http1 => Http::One,
            // TLS is not terminated here, so the site cannot answer.
            Protocol::Tls => return false,
        };
        let visitor = Visitor { client, server, secure, down, forwarded: false, hello };
        self.site.serve(SiteConnection { stream: site::unix(stream), http, visitor, place: Box::new(place) })
    }
}

/// Reads the operator's own files, if there are any.
///
/// # Errors
/// A message for the operator.
pub fn files(config: &Config) -> Result<Option<Arc<Files>>, String> {
    let read = |path: &Path| site::directory::read(path).map(Arc::new);
    config.site.directory.as_deref().map(read).transpose().map_err(|error| format!("site.directory: {error}"))
}

/// The same at the start: a page that cannot be read keeps no call from its relay.
pub fn files_at_start(config: &Config) -> Option<Arc<Files>> {
    files(config).unwrap_or_else(|message| {
        tracing::error!(
            "{message}: the built-in page is served; {FIX_DIRECTORY}, then systemctl reload hallpass"
        );
        None
    })
}

fn settings(config: &Config, files: Option<Arc<Files>>, login: MakeLogin, kept: check::Kept) -> Settings {
    let config::Site { enabled, title, text, language, imprint, check, .. } = &config.site;
    let check = check.as_ref().map(|path| {
        Arc::new(check::Settings {
            path: path.clone(),
            rungs: rungs(config),
            addresses: addresses(config),
            name: None,
            login,
            kept,
        })
    });
    Settings {
        off: !enabled,
        title: title.clone(),
        text: text.clone(),
        language: match language {
            SiteLanguage::En => Language::En,
            SiteLanguage::De => Language::De,
            SiteLanguage::Fr => Language::Fr,
            SiteLanguage::Es => Language::Es,
        },
        imprint: imprint.clone(),
        files,
        check,
        hsts: false,
    }
}

/// The ways to this relay for browsers. A listener is reached by the name of the page, unless the page is at another address of
/// this machine than the listener.
fn rungs(config: &Config) -> Vec<Rung> {
    let shares_address = |listener: &Listener| {
        let ip = listener.address.ip();
        let mut of_web = config
            .listen
            .iter()
            .filter(|other| other.web && other.address.is_ipv4() == ip.is_ipv4())
            .peekable();
        of_web.peek().is_none()
            || of_web.any(|web| web.address.ip().is_unspecified() || web.address.ip() == ip)
    };
    let server = |listener: &Listener| {
        let ip = listener.address.ip();
        match ip.is_unspecified() || listener.transport == Transport::Tls || shares_address(listener) {
            true => String::new(),
            false => announced(config, ip).to_string(),
        }
    };
    let endpoints = endpoints(config, Audience::Browsers, server).into_iter();
    let rungs = endpoints.map(|endpoint| Rung {
        transport: endpoint.transport,
        port: endpoint.port,
        host: Some(endpoint.server).filter(|server| !server.is_empty()),
    });
    rungs.collect()
}

/// What clients outside see in place of an address of this machine.
fn announced(config: &Config, ip: IpAddr) -> IpAddr {
    let external = config.external_ip.iter().find(|external| {
        external.public.is_ipv4() == ip.is_ipv4() && external.private.is_none_or(|private| private == ip)
    });
    external.map_or(ip, |external| external.public)
}

/// The addresses to allow in a firewall; empty if the configuration names none.
fn addresses(config: &Config) -> Vec<IpAddr> {
    let listening = config.listen.iter().map(|listener| announced(config, listener.address.ip()));
    let external = config.external_ip.iter().map(|external| external.public);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in external.chain(listening) {
        if !ip.is_unspecified() && !ip.is_loopback() && !is_private(ip) && !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

/// Makes logins with a secret. Each has a user of its own, who reaches only its own relayed addresses.
fn login(secret: &str) -> MakeLogin {
    let secret = rest::Secret::new(secret);
    Arc::new(move || {
        let random = entropy::secret().ok()?;
        let (name, password) = turn_login(&secret, &random[..USER_LETTERS], clock::unix_seconds());
        Some(Login { name, password })
    })
}

/// Returns the user name and the password of a login for one test. `now` is in seconds since 1970.
fn turn_login(secret: &rest::Secret, user: &str, now: u64) -> (String, String) {
    let name = rest::username(now + LOGIN_SECONDS, &format!("check-{user}"));
    let password = secret.password(&name);
    (name, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let text = format!("{text}[[host]]\nname = 'a'\nsecret = '0123456789abcdef'\n");
        config::parse(&text, "f", Path::new("")).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn listen(transport: &str, address: &str, more: &str) -> String {
        format!("[[listen]]\ntransport = '{transport}'\naddress = '{address}'\n{more}\n")
    }

    #[test]
    fn every_listener_for_browsers_is_a_rung() {
        let one_address = config(
            &[
                listen("udp", "198.51.100.10:3479", ""),
                listen("udp", "[2001:db8::10]:3479", ""),
                listen(
                    "tcp",
                    "127.0.0.1:3480",
                    "proxy_protocol = ['127.0.0.1']\npublic = 'turns:relay.example.org'",
                ),
                listen("tls", "198.51.100.10:443", "web = true"),
                listen("tls", "127.0.0.1:5349", ""),
            ]
            .concat(),
        );
        let seen: Vec<_> = rungs(&one_address)
            .into_iter()
            .map(|it| (it.transport, it.port, it.host.unwrap_or_default()))
            .collect();
        assert_eq!(
            seen,
            [
                (Transport::Udp, 3479, String::new()),
                (Transport::Tls, 5349, "relay.example.org".to_owned()),
                (Transport::Tls, 443, String::new()),
            ]
        );
        let two = listen("udp", "198.51.100.11:3479", "") + &listen("tls", "198.51.100.10:443", "web = true");
        assert_eq!(rungs(&config(&two))[0].host.as_deref(), Some("198.51.100.11"));
        assert_eq!(
            addresses(&config(&two)),
            ["198.51.100.11", "198.51.100.10"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn a_login_lasts_two_minutes_and_is_made_with_the_secret() {
        let secret = rest::Secret::new("0123456789abcdef");
        let (name, password) = turn_login(&secret, "abcdefgh", 1_800_000_000);
        assert_eq!(name, "1800000120:check-abcdefgh");
        assert_eq!(password, rest::password("0123456789abcdef", &name));
        let make = login("0123456789abcdef");
        let (one, two) = (make().expect("a login"), make().expect("a login"));
        assert_ne!(one.name, two.name);
    }
}
