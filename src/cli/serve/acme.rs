//! Connects `[acme]` and `[redirect]` with the rest of the server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};

use super::listening::lacks_ipv6;
use super::start_error::{self, StartError};
use crate::acme::{self, Pending};
use crate::base::transport::Transport;
use crate::cert::CertChoice;
use crate::config::{Challenge, Config};
use crate::redirect::{self, Rules};
use crate::system::port_holder::PortSpace;

/// Connections that wait for the control thread.
const BACKLOG: i32 = 128;
/// The port in URLs with https.
const HTTPS_PORT: u16 = 443;

/// Returns the settings of `[acme]`.
pub fn settings(config: &Config) -> Option<acme::Settings> {
    let acme = config.acme.as_ref()?;
    let challenge = |challenge: &Challenge| match challenge {
        Challenge::TlsAlpn01 => acme::Challenge::TlsAlpn01,
        Challenge::Http01 => acme::Challenge::Http01,
    };
    Some(acme::Settings {
        domains: acme.domains.clone(),
        contact: acme.contact.clone(),
        directory: acme.directory.clone(),
        profile: acme.profile.clone(),
        challenges: acme.challenges.iter().map(challenge).collect(),
        state: acme.directory_of_state(),
        ca_file: acme.ca_file.clone(),
    })
}

/// The listeners of `[redirect]`, and what they answer.
pub struct Redirects {
    listeners: Vec<TcpListener>,
    rules: Arc<RedirectRules>,
}

impl Redirects {
    /// Binds the addresses.
    ///
    /// # Errors
    /// An address cannot be bound; if the port is occupied, the next step names the process.
    pub fn bind(
        config: &Config,
        pending: Arc<Pending>,
        certificates: Arc<CertChoice>,
    ) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        for one in &config.redirect {
            listeners.push(bind(one.address, !config.is_dual_stack_redirect(one)).map_err(|error| {
                let message = format!("cannot listen on {} for [redirect]: {error}", one.address);
                start_error::refused(message, &error, PortSpace::Tcp, one.address)
            })?);
        }
        let rules =
            RedirectRules { pending, certificates, of_config: ArcSwap::from_pointee(OfConfig::new(config)) };
        Ok(Self { listeners, rules: Arc::new(rules) })
    }

    /// Serves the listeners on the current runtime.
    pub fn serve(&mut self) {
        for listener in self.listeners.drain(..) {
            let rules: Arc<dyn Rules> = Arc::clone(&self.rules) as _;
            if let Err(error) = redirect::serve(listener, rules) {
                tracing::error!("plain HTTP is not served: {error}");
            }
        }
    }

    /// Follows a reload. The addresses stay.
    pub fn follow(&self, config: &Config) {
        self.rules.of_config.store(Arc::new(OfConfig::new(config)));
    }
}

/// Binds the address as the server and `hallpass check --live` do. On a host without IPv6, `[::]` means `0.0.0.0`.
fn bind(address: SocketAddr, only_v6: bool) -> std::io::Result<TcpListener> {
    match open(address, only_v6) {
        Err(error) if !only_v6 && lacks_ipv6(address.ip(), &error) => {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), true)
        }
        opened => opened,
    }
}

fn open(address: SocketAddr, only_v6: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What the answers on port 80 depend on.
struct RedirectRules {
    pending: Arc<Pending>,
    certificates: Arc<CertChoice>,
    of_config: ArcSwap<OfConfig>,
}

/// The part that a reload may change.
struct OfConfig {
    domains: Vec<String>,
    port: u16,
}

impl OfConfig {
    fn new(config: &Config) -> Self {
        let domains = config.acme.as_ref().map_or_else(Vec::new, |acme| acme.domains.clone());
        Self { domains, port: https_port(config) }
    }
}

/// Returns the port of the website: 443 if any client reaches the server there, else that of the first shared port.
fn https_port(config: &Config) -> u16 {
    let shared = config.listen.iter().filter(|listener| listener.web);
    let ports: Vec<u16> = shared
        .flat_map(|listener| match &listener.public {
            None => vec![listener.address.port()],
            Some(public) => {
                let tls = public.iter().filter(|public| public.transport == Transport::Tls);
                tls.map(|public| public.port).collect()
            }
        })
        .collect();
    match ports.first() {
        Some(&first) if !ports.contains(&HTTPS_PORT) => first,
        _ => HTTPS_PORT,
    }
}

impl Rules for RedirectRules {
    fn file(&self, token: &str) -> Option<String> {
        self.pending.file(token)
    }

    fn is_ours(&self, host: &str) -> bool {
        self.of_config.load().domains.iter().any(|domain| domain == host) || self.certificates.covers(host)
    }

    fn port(&self) -> u16 {
        self.of_config.load().port
    }
}
