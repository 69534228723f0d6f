//! Converts the configuration into the settings of the protocol and of the network side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::host::{HOSTS_MAX, HostId};
use crate::base::transport::Transport;
use crate::config;
use crate::net;
use crate::net::admission::Rules;
use crate::net::front::first_bytes::Site;
use crate::system::addresses::Addresses;
use crate::system::limits;
use crate::turn::settings::{
    Alternates, Host, Limits, PeerRules, Rate, Rates, RelayAddress, Settings, StaticUser,
};
use crate::wire::proxy_protocol::Version;

/// Descriptors kept for the process itself: listeners and event loops of the workers, files at a reload, and the admin
/// pages. If all 64 connections of the admin pages are open, some may have to wait.
const DESCRIPTORS_KEPT: u64 = 64;
/// Descriptors for clients even if the limit of the process leaves fewer.
const DESCRIPTORS_MIN: u32 = 8;

/// The name under which static users without a host are counted.
const USERS: &str = "users";

/// Names of hosts by number. A name keeps its number across reloads, because counters are indexed by it.
#[derive(Debug, Default)]
pub struct HostNames {
    names: Vec<Arc<str>>,
}

impl HostNames {
    /// All names since the start, in the order of their numbers.
    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Returns the number of a name and assigns one to a new name.
    ///
    /// # Errors
    /// The text for the operator if all numbers are assigned.
    fn id(&mut self, name: &str) -> Result<(HostId, Arc<str>), String> {
        let index = match self.names.iter().position(|known| **known == *name) {
            Some(index) => index,
            None if self.names.len() < HOSTS_MAX => {
                self.names.push(Arc::from(name));
                self.names.len() - 1
            }
            None => {
                return Err(format!(
                    "more than {HOSTS_MAX} host names since the start; restart the server to forget unused names"
                ));
            }
        };
        // Below HOSTS_MAX, so it fits.
        Ok((HostId(index as u8), Arc::clone(&self.names[index])))
    }
}

/// The number of workers: that of the configuration, else `cores`.
pub fn workers(config: &config::Config, cores: usize) -> usize {
    if config.limits.workers == 0 { cores } else { config.limits.workers as usize }
}

/// The part of the settings that depends on this machine and not on the configuration.
pub struct Machine {
    /// Number of workers.
    pub workers: usize,
    /// Its addresses now.
    pub addresses: Addresses,
}

/// Returns the settings of the protocol, with these addresses to relay from.
///
/// # Errors
/// The text for the operator if there are more host names than numbers.
pub fn protocol(
    config: &config::Config,
    machine: &Machine,
    relay_addresses: Vec<RelayAddress>,
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
    let limits = &config.limits;
    Ok(Settings {
        realm: config.realm.clone(),
        hosts,
        users,
        peers: peer_rules(config, &machine.addresses.own, &relay_addresses),
        relay_addresses,
        default_family: config.relay.default_family,
        relay_ports: config.relay.ports.clone(),
        limits: Limits {
            allocations_per_user: limits.allocations_per_user,
            allocations_per_host: limits.allocations_per_host,
            allocations_total: limits.allocations_total,
            // The kernel distributes the ports of a source over the workers, and each worker counts by itself.
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

/// Returns the settings of the network side.
pub fn network(config: &config::Config, workers: usize) -> net::Settings {
    let listeners = config.listen.iter().map(|listener| net::Listener {
        transport: listener.transport,
        address: listener.address,
        only_v6: !config.is_dual_stack(listener),
        proxies: listener.proxies.clone(),
        web: listener.web,
        // Without a certificate of its own a TCP port has nothing to show.
        either: listener.either && (listener.transport == Transport::Tls || config.tls.is_some()),
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

/// Returns the limits on streams.
pub fn admission(limits: &config::Limits) -> Rules {
    Rules {
        streams: limits.connections_total,
        streams_per_source: limits.connections_per_source,
        exempt: limits.connections_exempt.clone(),
    }
}

/// The number of descriptors for clients, peers and web servers; `None` for no limit.
fn descriptors(limit: u64, open: u64) -> Option<u32> {
    let left = limit.checked_sub(open.saturating_add(DESCRIPTORS_KEPT)).map(|left| u32::try_from(left).ok());
    left.unwrap_or(Some(0)).map(|left| left.max(DESCRIPTORS_MIN))
}

/// Returns the web servers behind shared ports. `site` answers where there is none.
pub fn web(config: &config::Web, site: Arc<dyn Site>) -> Arc<net::Web> {
    let proxy_protocol = match config.proxy_protocol {
        config::ProxyProtocol::None => None,
        config::ProxyProtocol::V1 => Some(Version::V1),
        config::ProxyProtocol::V2 => Some(Version::V2),
    };
    Arc::new(net::Web { http1: config.http1, h2: config.h2, proxy_protocol, site })
}

/// Returns the peer policy: the operator's lists, the addresses of this machine and our services.
fn peer_rules(config: &config::Config, machine: &[IpNet], relays: &[RelayAddress]) -> PeerRules {
    // These are addresses of ours even if the kernel lists none.
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

/// Every address that our services listen on: listeners, the admin address, and the back ends of shared ports.
fn services(config: &config::Config) -> Vec<SocketAddr> {
    let listeners = config.listen.iter().flat_map(|listener| [Some(listener.address), listener.quic]);
    let web = [config.web.http1, config.web.h2]
        .into_iter()
        .chain(config.web.passthrough.values().copied().map(Some));
    let admin = config.admin.as_ref().map(|admin| admin.address);
    listeners.chain(web).chain([admin]).flatten().collect()
}
