//! The operator's configuration in the terms of the protocol and of the network side.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::host::{HOSTS_MAX, HostId};
use crate::config;
use crate::net;
use crate::net::admission::Rules;
use crate::net::front::first_bytes::Site;
use crate::system::{interfaces, limits};
use crate::turn::settings::{
    Alternates, Host, Limits, PeerRules, Rate, Rates, RelayAddress, Settings, StaticUser,
};
use crate::wire::proxy_protocol::Version;

/// Descriptors for ourselves: listeners and loops of the workers, certificates and configuration at a reload, and the admin
/// pages, of whose 64 connections some may have to wait then.
const DESCRIPTORS_KEPT: u64 = 64;
/// With a limit that leaves less than this, clients still get so many.
const DESCRIPTORS_MIN: u32 = 8;

/// Static users without a host of their own are counted under this name.
const USERS: &str = "users";

/// Names of hosts by number. A number stays with its name across reloads, because counters go by it.
#[derive(Debug, Default)]
pub struct HostNames {
    names: Vec<Arc<str>>,
}

impl HostNames {
    /// Every name so far, in the order of its number.
    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }

    fn id(&mut self, name: &str) -> Result<(HostId, Arc<str>), String> {
        let index = match self.names.iter().position(|known| **known == *name) {
            Some(index) => index,
            None if self.names.len() < HOSTS_MAX => {
                self.names.push(Arc::from(name));
                self.names.len() - 1
            }
            None => {
                return Err(format!(
                    "more than {HOSTS_MAX} host names since the start; restart to begin counting anew"
                ));
            }
        };
        // Below HOSTS_MAX, so it fits.
        Ok((HostId(index as u8), Arc::clone(&self.names[index])))
    }
}

/// How many workers there are. `cores` is what they are when the operator names no number.
pub fn workers(config: &config::Config, cores: usize) -> usize {
    if config.limits.workers == 0 { cores } else { config.limits.workers as usize }
}

/// What the settings take from this machine and not from the configuration.
pub struct Machine {
    /// How many workers there are.
    pub workers: usize,
    /// Where to relay from. The pool of ports is made for these addresses, so they stay for the life of the process.
    pub relays: Vec<RelayAddress>,
    /// What the kernel delivers to this machine now.
    pub own: Vec<IpNet>,
}

/// What the protocol needs.
///
/// # Errors
/// A sentence for the operator.
pub fn protocol(
    config: &config::Config,
    machine: &Machine,
    names: &mut HostNames,
) -> Result<Settings, String> {
    let mut hosts = Vec::new();
    for host in &config.hosts {
        let (id, name) = names.id(&host.name)?;
        hosts.push(Host {
            id,
            name,
            secrets: host.secrets.clone(),
            revoked: host.revoked.clone(),
            peers: host.peers.clone(),
        });
    }
    let mut users = Vec::new();
    for user in &config.users {
        let host = user.host.as_deref().unwrap_or(USERS);
        let (id, name) = names.id(host)?;
        if hosts.iter().all(|known| known.id != id) {
            hosts.push(Host { id, name, secrets: Vec::new(), revoked: Vec::new(), peers: None });
        }
        users.push(StaticUser { name: user.name.clone(), password: user.password.clone(), host: id });
    }
    let relay_addresses: Vec<_> = machine.relays.iter().map(|relay| announce(config, *relay)).collect();
    let limits = &config.limits;
    Ok(Settings {
        realm: config.realm.clone(),
        hosts,
        users,
        peers: peer_rules(config, &machine.own, &relay_addresses),
        relay_addresses,
        relay_ports: config.relay.ports.clone(),
        limits: Limits {
            allocations_per_user: limits.allocations_per_user,
            allocations_per_host: limits.allocations_per_host,
            allocations_total: limits.allocations_total,
            // The kernel spreads the ports of a source over the workers, and each counts for itself.
            unauthenticated_per_source: limits
                .unauthenticated_per_source
                .div_ceil(machine.workers.max(1) as u32),
            requests_per_user: limits.requests_per_user,
            permissions_per_user: limits.permissions_per_user,
            permissions_per_allocation: limits.permissions_per_allocation,
            channels_per_allocation: limits.channels_per_allocation,
            lifetime_max: Duration::from_secs(limits.lifetime_max_seconds.into()),
            rates: Rates {
                allocation: Rate { kbit: limits.kbit_per_allocation, packets: limits.packets_per_allocation },
                user: Rate { kbit: limits.kbit_per_user, packets: limits.packets_per_user },
                host: Rate { kbit: limits.kbit_per_host, packets: limits.packets_per_host },
            },
        },
        alternates: Alternates {
            plain: config.drain.alternate_server.clone(),
            tls: config.drain.tls_alternate_server.clone(),
        },
        strict_channels: config.strict_channels,
        icmp_to_clients: config.icmp_to_clients,
    })
}

/// What the network side needs.
pub fn network(config: &config::Config, workers: usize) -> net::Settings {
    let listeners = config.listen.iter().map(|listener| net::Listener {
        transport: listener.transport,
        address: listener.address,
        only_v6: !config.is_dual_stack(listener),
        proxies: listener.proxies.clone(),
        web: listener.web,
        quic: listener.quic,
    });
    net::Settings {
        listeners: listeners.collect(),
        workers,
        mss: u16::try_from(config.limits.mss).unwrap_or(u16::MAX),
        admission: admission(&config.limits),
        descriptors: descriptors(limits::open_files(), limits::files_open()),
        privacy: config.privacy,
    }
}

/// How many streams there may be.
pub fn admission(limits: &config::Limits) -> Rules {
    Rules {
        streams: limits.connections_total,
        streams_per_source: limits.connections_per_source,
        exempt: limits.connections_exempt.clone(),
    }
}

/// How many descriptors clients, peers and web servers may have; `None` = no limit.
fn descriptors(limit: u64, open: u64) -> Option<u32> {
    let left = limit.checked_sub(open.saturating_add(DESCRIPTORS_KEPT)).map(|left| u32::try_from(left).ok());
    left.unwrap_or(Some(0)).map(|left| left.max(DESCRIPTORS_MIN))
}

/// What web clients get on shared ports; `site` answers where no web server does.
pub fn web(config: &config::Web, site: Arc<dyn Site>) -> Arc<net::Web> {
    let proxy_protocol = match config.proxy_protocol {
        config::ProxyProtocol::None => None,
        config::ProxyProtocol::V1 => Some(Version::V1),
        config::ProxyProtocol::V2 => Some(Version::V2),
    };
    Arc::new(net::Web { http1: config.http1, h2: config.h2, proxy_protocol, site })
}

/// Where to relay from: what the operator named, else where clients come in; on a wildcard that is every address of
/// this machine, loopback only for clients on loopback. [`protocol`] adds what clients are told.
///
/// # Errors
/// A sentence for the operator.
pub fn relay_addresses(config: &config::Config) -> Result<Vec<RelayAddress>, String> {
    let mut addresses = Vec::new();
    let mut add = |address: IpAddr, only_if_reached: bool| {
        if addresses.iter().all(|known: &RelayAddress| known.local != address) {
            addresses.push(RelayAddress { local: address, announced: address, only_if_reached });
        }
    };
    if !config.relay.addresses.is_empty() {
        config.relay.addresses.iter().for_each(|&address| add(address, false));
        return Ok(addresses);
    }
    let mut wildcards = (false, false);
    for listener in &config.listen {
        match listener.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => wildcards.0 = true,
            IpAddr::V6(ip) if ip.is_unspecified() => {
                wildcards.1 = true;
                wildcards.0 |= config.is_dual_stack(listener);
            }
            ip => add(ip, ip.is_loopback()),
        }
    }
    if wildcards != (false, false) {
        let own = interfaces::addresses()
            .map_err(|error| format!("cannot list this machine's addresses: {error}"))?;
        for ip in own.into_iter().map(|interface| interface.address) {
            let wanted = if ip.is_ipv4() { wildcards.0 } else { wildcards.1 };
            if wanted && (ip.is_loopback() || interfaces::reachable_from_outside(ip)) {
                add(ip, ip.is_loopback());
            }
        }
    }
    // A server that listens on one family only still relays to it.
    match addresses.is_empty() {
        true => Err("no address to relay from: name one in [relay] addresses".to_owned()),
        false => Ok(addresses),
    }
}

/// The same with the address that clients are told: `external_ip` of the same family.
fn announce(config: &config::Config, relay: RelayAddress) -> RelayAddress {
    let local = relay.local;
    let fits = |external: &&config::ExternalIp| match external.private {
        Some(private) => private == local,
        None => external.public.is_ipv4() == local.is_ipv4() && !local.is_loopback(),
    };
    let announced = config.external_ip.iter().find(fits).map_or(local, |external| external.public);
    RelayAddress { announced, ..relay }
}

fn peer_rules(config: &config::Config, machine: &[IpNet], relays: &[RelayAddress]) -> PeerRules {
    // Even if the kernel lists nothing, what is listened on, relayed from and announced is ours.
    let relays = relays.iter().flat_map(|relay| [relay.local, relay.announced]);
    let external = config.external_ip.iter().map(|external| external.public);
    let listening = config.listen.iter().map(|listener| listener.address.ip());
    let named = relays.chain(external).chain(listening).filter(|ip| !ip.is_unspecified());
    let mut own: Vec<IpNet> = named.map(IpNet::from).chain(machine.iter().copied()).collect();
    own.sort_unstable();
    own.dedup();
    let config::Peers { allow, deny } = &config.peers;
    PeerRules { allow: allow.clone(), deny: deny.clone(), own, services: services(config) }
}

/// Every address that listens for us: our listeners, the admin address, and the back ends of shared ports.
fn services(config: &config::Config) -> Vec<SocketAddr> {
    let listeners = config.listen.iter().flat_map(|listener| [Some(listener.address), listener.quic]);
    let web = [config.web.http1, config.web.h2]
        .into_iter()
        .chain(config.web.passthrough.values().copied().map(Some));
    let admin = config.admin.as_ref().map(|admin| admin.address);
    listeners.chain(web).chain([admin]).flatten().collect()
}
