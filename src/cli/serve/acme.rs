//! Connects `[acme]` and `[redirect]` with the rest of the server.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::AbortHandle;

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
    bound: NextRedirects,
    served: Vec<(Place, AbortHandle)>,
    rules: Arc<RedirectRules>,
}

/// Listeners that are bound and not served yet.
pub type NextRedirects = Vec<(Place, TcpListener)>;

/// What a listener is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    address: SocketAddr,
    /// Whether a listener on `[::]` leaves IPv4 to another one.
    only_v6: bool,
}

impl Place {
    fn all(config: &Config) -> impl Iterator<Item = Self> + '_ {
        config
            .redirect
            .iter()
            .map(|one| Self { address: one.address, only_v6: !config.is_dual_stack_redirect(one) })
    }

    fn bind(self) -> Result<(Self, TcpListener), StartError> {
        let Self { address, only_v6 } = self;
        let listener = bind(address, only_v6).map_err(|error| {
            let message = format!("cannot listen on {address} for [redirect]: {error}");
            start_error::refused(message, &error, PortSpace::Tcp, address)
        })?;
        Ok((self, listener))
    }
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
        let bound = Place::all(config).map(Place::bind).collect::<Result<_, _>>()?;
        let rules =
            RedirectRules { pending, certificates, of_config: ArcSwap::from_pointee(OfConfig::new(config)) };
        Ok(Self { bound, served: Vec::new(), rules: Arc::new(rules) })
    }

    /// Serves the listeners on the current runtime.
    pub fn serve(&mut self) {
        for (place, listener) in self.bound.drain(..) {
            let rules: Arc<dyn Rules> = Arc::clone(&self.rules) as _;
            match redirect::serve(listener, rules) {
                Ok(task) => self.served.push((place, task)),
                Err(error) => tracing::error!("plain HTTP is not served on {}: {error}", place.address),
            }
        }
    }

    /// Binds the addresses of a reload that are new.
    ///
    /// # Errors
    /// A message for the operator if one cannot be bound.
    pub fn prepare(&self, config: &Config) -> Result<NextRedirects, String> {
        let is_new = |place: &Place| self.served.iter().all(|(served, _)| served != place);
        let bind = |place: Place| {
            let port = place.address.port();
            place.bind().map_err(|error| {
                match self.served.iter().any(|(own, _)| own.address.port() == port) {
                    true => {
                        format!("{}; this server has the port at another address: restart it", error.message)
                    }
                    false => format!("{}; {}", error.message, error.next_step),
                }
            })
        };
        Place::all(config).filter(is_new).map(bind).collect()
    }

    /// Follows a reload: serves the listeners that [`Redirects::prepare`] has bound, and closes those that are not configured
    /// any more.
    pub fn follow(&mut self, config: &Config, next: NextRedirects) {
        self.rules.of_config.store(Arc::new(OfConfig::new(config)));
        self.served.retain(|(place, task)| {
            let stays = Place::all(config).any(|other| other == *place);
            if !stays {
                task.abort();
            }
            stays
        });
        self.bound = next;
        self.serve();
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
