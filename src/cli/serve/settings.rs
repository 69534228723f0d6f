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
use crate::turn::identity::directory::Credential;
use crate::turn::settings::{
    Alternates, Confined, Host, Limits, PeerRules, Rate, Rates, RelayAddress, Settings, StaticUser,
};
use crate::wire::proxy_protocol::Version;

/// Descriptors kept for the process itself: listeners and event loops of the workers, files at a reload, and the admin
/// pages. If the admin pages have their maximum of 64 connections, some of these may wait for a descriptor.
const DESCRIPTORS_KEPT: u64 = 64;
/// Minimum number of descriptors for clients, even if the limit of the process leaves fewer.
const DESCRIPTORS_MIN: u32 = 8;

/// The name under which static users without a host are counted.
const USERS: &str = "users";

/// The name under which users of the test page are counted.
const TEST_PAGE: &str = "(test page)";

/// What a user of the test page may take: eight ways with two ends, of which some browsers open two allocations each; and so much
/// that the page can tell a slow line from one that is fast enough for a lesson.
const OF_TEST_PAGE: Confined = Confined {
    allocations_per_user: 40,
    allocations: 2000,
    rates: Rates {
        allocation: Rate { kbit: 30_000, packets: 10_000 },
        user: Rate { kbit: 60_000, packets: 20_000 },
        host: Rate { kbit: 300_000, packets: 100_000 },
    },
};

/// Users of the test page may hold one part in this many of what all clients may hold.
const PART_OF_TEST_PAGE: u32 = 8;
/// But never fewer than one test needs: eight ways with two ends.
const ALLOCATIONS_OF_A_TEST: u32 = 16;

/// Names of hosts by number. A host keeps its number across reloads, because counters and running allocations refer to it.
/// Two hosts are the same if they have the same name, or if the new one has a new name and one of the old one's secrets.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    names: Vec<Arc<str>>,
    /// The secrets that each host had when it was last configured, by number.
    secrets: Vec<Vec<Credential>>,
}

/// Whether a host with this name and these secrets is the one with this number.
type Rule = fn(&HostNames, &str, &[Credential], HostId) -> bool;

impl HostNames {
    /// The names of all hosts since the start, in the order of their numbers. A renamed host has its new name.
    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Returns the numbers of these hosts and assigns one to each new host.
    ///
    /// # Errors
    /// A message for the operator if all numbers are assigned.
    fn assign(&mut self, hosts: &[config::Host]) -> Result<Vec<HostId>, String> {
        let secrets: Vec<Vec<Credential>> = hosts
            .iter()
            .map(|host| host.secrets.iter().map(|secret| Credential::of_secret(secret)).collect())
            .collect();
        let mut ids: Vec<Option<HostId>> = vec![None; hosts.len()];
        // The strongest evidence first: the same name and a shared secret; a new name and a shared secret; the same name. A
        // name that some number already has is not new, so no two numbers ever have the same name.
        let rules: [Rule; 3] = [
            |known, name, secrets, id| known.is_called(id, name) && known.shares(id, secrets),
            |known, name, secrets, id| known.id(name).is_none() && known.shares(id, secrets),
            |known, name, _, id| known.is_called(id, name),
        ];
        for rule in rules {
            for (place, host) in hosts.iter().enumerate() {
                if ids[place].is_some() {
                    continue;
                }
                let is_free = |id: &HostId| !ids.contains(&Some(*id));
                let found =
                    self.ids().filter(is_free).find(|&id| rule(self, &host.name, &secrets[place], id));
                if let Some(id) = found {
                    ids[place] = Some(id);
                    self.names[usize::from(id.0)] = Arc::from(host.name.as_str());
                }
            }
        }
        let mut assigned = Vec::with_capacity(hosts.len());
        for ((host, secrets), id) in hosts.iter().zip(secrets).zip(ids) {
            let id = match id {
                Some(id) => id,
                None => self.add(&host.name)?,
            };
            self.secrets[usize::from(id.0)] = secrets;
            assigned.push(id);
        }
        Ok(assigned)
    }

    /// Returns the number of the host with this name, and assigns one if the name is new.
    ///
    /// # Errors
    /// A message for the operator if all numbers are assigned.
    fn of(&mut self, name: &str) -> Result<HostId, String> {
        self.id(name).map_or_else(|| self.add(name), Ok)
    }

    fn add(&mut self, name: &str) -> Result<HostId, String> {
        // Below HOSTS_MAX, as checked next, so it fits.
        let id = HostId(self.names.len() as u8);
        if self.names.len() >= HOSTS_MAX {
            return Err(format!(
                "more than {HOSTS_MAX} host names since the start; restart the server to forget unused names"
            ));
        }
        self.names.push(Arc::from(name));
        self.secrets.push(Vec::new());
        Ok(id)
    }

    fn ids(&self) -> impl Iterator<Item = HostId> {
        (0..self.names.len() as u8).map(HostId)
    }

    fn id(&self, name: &str) -> Option<HostId> {
        self.ids().find(|&id| self.is_called(id, name))
    }

    fn name(&self, id: HostId) -> Arc<str> {
        Arc::clone(&self.names[usize::from(id.0)])
    }

    fn is_called(&self, id: HostId, name: &str) -> bool {
        *self.names[usize::from(id.0)] == *name
    }

    fn shares(&self, id: HostId, secrets: &[Credential]) -> bool {
        self.secrets[usize::from(id.0)].iter().any(|secret| secrets.contains(secret))
    }
}

/// The number of workers: the configured one, or `cores` if that is 0.
pub fn workers(config: &config::Config, cores: usize) -> usize {
    if config.limits.workers == 0 { cores } else { config.limits.workers as usize }
}

/// The part of the settings that depends on this machine and not on the configuration.
pub struct Machine {
    /// Number of workers.
    pub workers: usize,
    /// Its addresses now.
    pub addresses: Addresses,
    /// The secret of the logins for the test page, new at each start.
    pub page_secret: String,
}

/// Returns the settings of the protocol, with these addresses to relay from.
///
/// # Errors
/// A message for the operator if there are more host names than numbers.
pub fn protocol(
    config: &config::Config,
    machine: &Machine,
    relay_addresses: Vec<RelayAddress>,
    names: &mut HostNames,
) -> Result<Settings, String> {
    // A configuration that is refused leaves no names behind.
    let mut known = names.clone();
    let ids = known.assign(&config.hosts)?;
    let mut hosts = Vec::new();
    for (host, id) in config.hosts.iter().zip(ids) {
        hosts.push(Host {
            id,
            name: known.name(id),
            secrets: host.secrets.clone(),
            revoked: host.revoked.clone(),
            peers: host.peers.clone(),
            confined: None,
        });
    }
    let mut users = Vec::new();
    for user in &config.users {
        let host = user.host.as_deref().unwrap_or(USERS);
        let id = known.of(host)?;
        if hosts.iter().all(|host| host.id != id) {
            hosts.push(Host {
                id,
                name: known.name(id),
                secrets: Vec::new(),
                revoked: Vec::new(),
                peers: None,
                confined: None,
            });
        }
        users.push(StaticUser { name: user.name.clone(), password: user.password.clone(), host: id });
    }
    // Without a free number, the test page says that the relay refuses its login.
    if let Some(id) = has_test_page(config).then(|| known.of(TEST_PAGE).ok()).flatten()
        && hosts.iter().all(|host| host.id != id)
    {
        hosts.push(Host {
            id,
            name: known.name(id),
            secrets: vec![machine.page_secret.clone()],
            revoked: Vec::new(),
            peers: None,
            confined: Some(of_test_page(config, &relay_addresses)),
        });
    }
    for (before, after) in names.all().iter().zip(known.all()).filter(|(before, after)| before != after) {
        tracing::info!("host {before:?} is now {after:?}: its calls, quotas and counters continue");
    }
    *names = known;
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
        alternates: Alternates::new(
            config.drain.alternate_server.clone(),
            config.drain.tcp_alternate_server.clone(),
            config.drain.tls_alternate_server.clone(),
        ),
        strict_channels: config.strict_channels,
        icmp_to_clients: config.icmp_to_clients,
    })
}

/// Whether browsers can open the test page.
fn has_test_page(config: &config::Config) -> bool {
    let config::Site { enabled, check, address, .. } = &config.site;
    let is_reached = address.is_some() || config.listen.iter().any(|listener| listener.web);
    *enabled && check.is_some() && is_reached
}

/// Returns what users of the test page may take. Strangers are its users, so all together leave seven eighths of the relayed ports,
/// and of the allocations that the operator allows in all.
fn of_test_page(config: &config::Config, addresses: &[RelayAddress]) -> Confined {
    let ports = config.relay.ports.clone().count().saturating_mul(addresses.len().max(1));
    let ports = u32::try_from(ports).unwrap_or(u32::MAX);
    let room = [ports, config.limits.allocations_total].into_iter().filter(|&room| room > 0).min();
    let most = room.map_or(u32::MAX, |room| (room / PART_OF_TEST_PAGE).max(ALLOCATIONS_OF_A_TEST));
    Confined { allocations: OF_TEST_PAGE.allocations.min(most), ..OF_TEST_PAGE }
}

/// Returns the settings of the network side.
pub fn network(config: &config::Config, workers: usize, machine: &Addresses) -> net::Settings {
    let listeners = config.listen.iter().map(|listener| net::Listener {
        transport: listener.transport,
        address: listener.address,
        only_v6: !config.is_dual_stack(listener),
        proxies: listener.proxies.clone(),
        web: listener.web,
        // A TCP port accepts TLS only with a certificate from files: clients refuse a self-signed one.
        either: listener.either && (listener.transport == Transport::Tls || config.tls.is_some()),
        quic: listener.quic,
        awaited: !machine.may_have(listener.address.ip()),
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

/// Returns the web servers behind shared ports. Where there is none, `site` answers.
pub fn web(config: &config::Web, site: Arc<dyn Site>) -> Arc<net::Web> {
    let proxy_protocol = match config.proxy_protocol {
        config::ProxyProtocol::None => None,
        config::ProxyProtocol::V1 => Some(Version::V1),
        config::ProxyProtocol::V2 => Some(Version::V2),
    };
    Arc::new(net::Web { http1: config.http1, h2: config.h2, proxy_protocol, site })
}

/// Returns the peer policy: the operator's lists, the addresses of this machine, and the addresses of its services.
fn peer_rules(config: &config::Config, machine: &[IpNet], relays: &[RelayAddress]) -> PeerRules {
    // These are the server's own addresses even if the kernel does not list them.
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

/// Every address that the server or its back ends listen on: listeners, admin address, back ends of shared ports.
fn services(config: &config::Config) -> Vec<SocketAddr> {
    let listeners = config.listen.iter().flat_map(|listener| [Some(listener.address), listener.quic]);
    let web = [config.web.http1, config.web.h2]
        .into_iter()
        .chain(config.web.passthrough.values().copied().map(Some));
    let admin = config.admin.as_ref().map(|admin| admin.address);
    listeners.chain(web).chain([admin, config.site.address]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of these hosts, each written as `NAME SECRET...`.
    fn assigned(names: &mut HostNames, hosts: &[&str]) -> Vec<u8> {
        let host = |text: &&str| {
            let mut words = text.split(' ').map(str::to_owned);
            let name = words.next().expect("a name");
            config::Host { name, secrets: words.collect(), revoked: Vec::new(), peers: None }
        };
        let hosts: Vec<config::Host> = hosts.iter().map(host).collect();
        names.assign(&hosts).expect("room").into_iter().map(|id| id.0).collect()
    }

    fn called(names: &HostNames) -> Vec<&str> {
        names.all().iter().map(|name| &**name).collect()
    }

    #[test]
    fn a_host_keeps_its_number_under_a_new_name_or_with_new_secrets() {
        let mut names = HostNames::default();
        assert_eq!(assigned(&mut names, &["ping a", "pong b"]), [0, 1]);
        assert_eq!(assigned(&mut names, &["pong b", "ping a"]), [1, 0], "another order");
        assert_eq!(assigned(&mut names, &["ping fresh a", "pong b"]), [0, 1], "rotated");
        assert_eq!(
            assigned(&mut names, &["ping fresh", "pong c"]),
            [0, 1],
            "one secret removed, the other replaced"
        );
        assert_eq!(assigned(&mut names, &["renamed newest fresh", "pong c"]), [0, 1]);
        assert_eq!(called(&names), ["renamed", "pong"]);
        assert_eq!(assigned(&mut names, &["pong c"]), [1]);
        assert_eq!(assigned(&mut names, &["ping newest", "pong c"]), [0, 1], "back under its first name");
        assert_eq!(assigned(&mut names, &["other d", "pong c"]), [2, 1], "neither name nor secret");
        assert_eq!(called(&names), ["ping", "pong", "other"]);
    }

    #[test]
    fn a_name_can_pass_to_another_host() {
        let mut names = HostNames::default();
        assert_eq!(assigned(&mut names, &["ping a"]), [0]);
        assert_eq!(assigned(&mut names, &["ping b", "pong a"]), [1, 0], "the secret decides");
        assert_eq!(called(&names), ["pong", "ping"]);
        assert_eq!(assigned(&mut names, &["ping a", "pong b"]), [1, 0], "swapped: both names are known");
        assert_eq!(
            assigned(&mut names, &["one a b"]),
            [0],
            "two hosts become one, which keeps the first number"
        );
        assert_eq!(assigned(&mut names, &["one a", "two b"]), [0, 2]);
        assert_eq!(called(&names), ["one", "ping", "two"]);
    }

    #[test]
    fn users_of_the_test_page_are_confined() {
        let machine = Machine { workers: 1, addresses: Addresses::default(), page_secret: "page".to_owned() };
        let config = config::Config::embedded("secret".to_owned());
        let of = |config: &config::Config| {
            let made = protocol(config, &machine, Vec::new(), &mut HostNames::default()).expect("room");
            made.hosts
                .into_iter()
                .filter(|host| host.confined.is_some())
                .map(|host| host.secrets)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&config), [["page"]]);
        let without = |site: config::Site| config::Config { site, ..config.clone() };
        assert!(of(&without(config::Site { check: None, ..config::Site::default() })).is_empty());
        assert!(of(&without(config::Site { enabled: false, ..config::Site::default() })).is_empty());
    }

    #[test]
    fn a_configuration_that_is_refused_leaves_no_names_behind() {
        let mut names = HostNames::default();
        let host = |n: usize| config::Host {
            name: format!("host {n}"),
            secrets: vec![format!("secret {n}")],
            revoked: Vec::new(),
            peers: None,
        };
        let with = |hosts: std::ops::Range<usize>| config::Config {
            hosts: hosts.map(host).collect(),
            site: config::Site { check: None, ..config::Site::default() },
            ..config::Config::embedded("secret".to_owned())
        };
        let machine = Machine { workers: 1, addresses: Addresses::default(), page_secret: "page".to_owned() };
        let mut protocol =
            |config| protocol(&config, &machine, Vec::new(), &mut names).map(|it| it.hosts.len());
        assert_eq!(protocol(with(0..150)), Ok(150));
        assert!(protocol(with(150..250)).is_err_and(|message| message.contains("more than 200 host names")));
        assert_eq!(protocol(with(150..200)), Ok(50), "the numbers are free");
    }
}
