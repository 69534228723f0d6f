//! Chooses the addresses to relay from, and the address that clients see for each.
//!
//! Candidates are `[relay] addresses`; without that key, the addresses of the listeners, and for a wildcard listener those
//! of this machine that are reachable from outside. A client gets the address that it connected to, if it is among them,
//! else the first one of the family that it asks for, so their order matters.
//!
//! A short outage does not disturb running calls. Without a default route, the last known properties of the addresses stay
//! in force. An address that the machine loses gets no new allocations, but keeps the existing ones for a few seconds.

use std::net::IpAddr;
use std::time::Duration;

use crate::admin::{Latch, Readiness};
use crate::base::time::Instant;
use crate::config::{Config, ExternalIp};
use crate::system::addresses::Addresses;
use crate::system::local_addresses::{LocalAddress, is_private};
use crate::turn::settings::RelayAddress;

/// How long allocations outlive their address, in case it returns: some DHCP clients remove an address to renew it, and an
/// IPv6 address is checked for duplicates for a second.
const GRACE: Duration = Duration::from_secs(3);

/// The addresses to relay from now.
#[derive(Debug, Default)]
pub struct Relays {
    choice: Choice,
    /// The configuration keys that the choice is based on.
    rules: Rules,
    /// The addresses and their properties; for each family, as of the last time that there was a default route.
    known: Vec<LocalAddress>,
    /// The choice that was logged last.
    logged: Option<Choice>,
    /// Delays readiness while clients on other machines cannot be served.
    missing: Option<Latch>,
}

/// The chosen addresses, and what an operator should know about the choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Choice {
    /// In order of preference.
    addresses: Vec<RelayAddress>,
    /// Addresses that this machine has lost, and the time when their allocations end.
    away: Vec<(RelayAddress, Instant)>,
    /// Messages about configured addresses that cannot be used now.
    notes: Vec<String>,
    /// Whether the clients of the listeners can get an allocation.
    serves: bool,
    /// Whether they can get one on IPv4.
    serves_ipv4: bool,
}

/// The configuration keys that concern relay addresses.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rules {
    addresses: Vec<IpAddr>,
    external: Vec<ExternalIp>,
}

impl Rules {
    fn of(config: &Config) -> Self {
        Self { addresses: config.relay.addresses.clone(), external: config.external_ip.clone() }
    }
}

impl Relays {
    /// The message while clients on other machines cannot be served.
    const NO_IPV4: &str = "this relay has no IPv4 address to relay from: clients that ask for one, as most do, are refused (440); give \
                           this machine an IPv4 address, or correct [relay] addresses";
    pub const NOTHING: &str = "this machine has no address to relay from for clients on other machines: their Allocate \
                               requests are refused until it gets one, or until [relay] addresses names one";

    /// Chooses among the addresses of this machine.
    pub fn new(config: &Config, machine: &Addresses) -> Self {
        let (choice, rules) = (choose(config, machine), Rules::of(config));
        Self { choice, rules, known: machine.local.clone(), ..Self::default() }
    }

    /// Chooses again at `now`. An address that the operator removed is dropped at once; one that the machine lost, after
    /// [`GRACE`].
    pub fn follow(&mut self, config: &Config, machine: &Addresses, now: Instant) {
        let rules = Rules::of(config);
        let kept = if rules == self.rules { self.kept(now) } else { Vec::new() };
        let is_kept = |ip: IpAddr| kept.iter().any(|(relay, _)| relay.local == ip);
        let judged = self.with_last_known(machine, is_kept);
        let mut choice = choose(config, &judged);
        let is_lost = |ip: IpAddr| is_kept(ip) && judged.local.iter().all(|one| one.address != ip);
        let lost: Vec<_> = self.known.iter().copied().filter(|one| is_lost(one.address)).collect();
        self.known = judged.local.into_iter().chain(lost).collect();
        choice.away = kept.into_iter().filter(|(relay, _)| choice.may_keep(relay)).collect();
        (self.choice, self.rules) = (choice, rules);
    }

    /// The addresses that may have allocations, and the time until which these may outlive their address.
    fn kept(&self, now: Instant) -> Vec<(RelayAddress, Instant)> {
        let chosen = self.choice.addresses.iter().map(|&relay| (relay, now + GRACE));
        let away = self.choice.away.iter().filter(|(_, until)| *until > now);
        chosen.chain(away.copied()).collect()
    }

    /// Returns the addresses of this machine. In a family without a default route they have their last known properties:
    /// without a route every interface seems to lead to the Internet, and a container bridge could replace the address in
    /// use. For the same reason a new private address does not count as leading there. This applies only while this machine
    /// has the address that the kernel last preferred, or that address is in its grace.
    fn with_last_known(&self, machine: &Addresses, is_kept: impl Fn(IpAddr) -> bool) -> Addresses {
        let mut judged = machine.clone();
        for is_v4 in [true, false] {
            let is_preferred = |one: &&LocalAddress| one.preferred && one.address.is_ipv4() == is_v4;
            let known = self.known.iter().find(is_preferred).map(|one| one.address);
            let holds = known.is_some_and(|ip| machine.have(ip) || is_kept(ip));
            if !holds || machine.local.iter().any(|one| is_preferred(&one)) {
                continue;
            }
            for one in judged.local.iter_mut().filter(|one| one.address.is_ipv4() == is_v4) {
                match self.known.iter().find(|known| known.address == one.address) {
                    Some(known) => (one.leads_out, one.preferred) = (known.leads_out, known.preferred),
                    None => one.leads_out &= !is_private(one.address),
                }
            }
        }
        judged
    }

    /// Whether the grace of an address has ended: call [`follow`](Self::follow) again.
    pub fn is_due(&self, now: Instant) -> bool {
        self.choice.away.iter().any(|(_, until)| *until <= now)
    }

    /// The addresses to relay from. Lost ones are included as `only_local`, so that they keep their allocations. They get no
    /// new ones, because they are not loopback addresses.
    pub fn addresses(&self) -> Vec<RelayAddress> {
        let away = self.choice.away.iter().map(|&(relay, _)| RelayAddress { only_local: true, ..relay });
        self.choice.addresses.iter().copied().chain(away).collect()
    }

    /// Messages about configured addresses that cannot be used now.
    pub fn notes(&self) -> &[String] {
        &self.choice.notes
    }

    /// Whether the clients of the listeners can get an allocation.
    pub fn serve(&self) -> bool {
        self.choice.serves
    }

    /// Whether clients are served, but those that ask for IPv4 get no allocation.
    pub fn lack_ipv4(&self) -> bool {
        self.choice.serves && !self.choice.serves_ipv4
    }

    /// Logs the choice if it has changed, and delays readiness while there is no address. Call it when the choice is in use.
    pub fn tell(&mut self, readiness: &Readiness) {
        if self.logged.as_ref() == Some(&self.choice) {
            return;
        }
        let known = self.logged.as_ref().map(|logged| logged.notes.as_slice()).unwrap_or_default();
        for note in self.choice.notes.iter().filter(|note| !known.contains(note)) {
            tracing::warn!("{note}");
        }
        let listed = |relays: &mut dyn Iterator<Item = &RelayAddress>| {
            relays.map(describe).collect::<Vec<_>>().join(" ")
        };
        let away = listed(&mut self.choice.away.iter().map(|(relay, _)| relay));
        tracing::info!(
            addresses = listed(&mut self.choice.addresses.iter()),
            away = (!away.is_empty()).then_some(away),
            "relaying from"
        );
        let lacked_ipv4 = self.logged.as_ref().is_some_and(|logged| logged.serves && !logged.serves_ipv4);
        if self.lack_ipv4() && !lacked_ipv4 {
            tracing::warn!("{}", Self::NO_IPV4);
        }
        if self.choice.serves {
            self.missing = None;
        } else if self.missing.is_none() {
            tracing::warn!("{}", Self::NOTHING);
            self.missing = Some(readiness.latch("an address to relay from"));
        }
        self.logged = Some(self.choice.clone());
    }
}

/// Formats a relay address for the log.
fn describe(relay: &RelayAddress) -> String {
    match relay.local == relay.announced {
        true => relay.local.to_string(),
        false => format!("{} (announced as {})", relay.local, relay.announced),
    }
}

fn choose(config: &Config, machine: &Addresses) -> Choice {
    let mut choice = Choice::default();
    for ip in named(config) {
        if machine.have(ip) {
            choice.add(config, ip, ip.is_loopback() && config.relay.addresses.is_empty());
        } else {
            choice
                .notes
                .push(format!("{ip} is not an address of this machine now: nothing is relayed from it"));
        }
    }
    if config.relay.addresses.is_empty() {
        let mut candidates: Vec<_> = machine.local.iter().filter(|one| is_wanted(config, one)).collect();
        candidates.sort_by_key(|one| rank(config, one));
        for one in candidates {
            choice.add(config, one.address, one.address.is_loopback());
        }
    }
    let is_local = config.listen.iter().all(|listener| listener.address.ip().is_loopback());
    let mut serving = choice.addresses.iter().filter(|relay| is_local || !relay.only_local);
    choice.serves = serving.clone().next().is_some();
    choice.serves_ipv4 = serving.any(|relay| relay.announced.is_ipv4());
    choice
}

impl Choice {
    /// Whether a lost address may keep its allocations during the grace. It may not if a chosen address announces the same:
    /// clients of one would receive media for clients of the other.
    fn may_keep(&self, relay: &RelayAddress) -> bool {
        let replaces =
            |chosen: &RelayAddress| chosen.local == relay.local || chosen.announced == relay.announced;
        !relay.only_local && !self.addresses.iter().any(replaces)
    }

    /// Adds an address, unless another one announces the same: clients of one would receive media for clients of the other.
    fn add(&mut self, config: &Config, local: IpAddr, only_local: bool) {
        let announced = announced(config, local);
        let same = |known: &&RelayAddress| known.local == local || known.announced == announced;
        match self.addresses.iter().find(same) {
            None => self.addresses.push(RelayAddress { local, announced, only_local }),
            Some(known) if known.local == local => {}
            Some(known) => self.notes.push(format!(
                "{local} would announce {announced} like {}: nothing is relayed from it; write external_ip = \
                 [\"{announced}/{}\", \"ANOTHER/{local}\"]",
                known.local, known.local
            )),
        }
    }
}

/// The addresses that the configuration names: those to relay from, or else those to listen on.
fn named(config: &Config) -> Vec<IpAddr> {
    if !config.relay.addresses.is_empty() {
        return config.relay.addresses.clone();
    }
    let listening = config.listen.iter().map(|listener| listener.address.ip());
    listening.filter(|ip| !ip.is_unspecified()).collect()
}

/// Whether a wildcard listener covers this address and the address is suitable for relaying.
fn is_wanted(config: &Config, one: &LocalAddress) -> bool {
    let is_v4 = one.address.is_ipv4();
    let covers = config.listen.iter().any(|listener| match listener.address.ip() {
        IpAddr::V4(ip) => is_v4 && ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified() && (!is_v4 || config.is_dual_stack(listener)),
    });
    covers && (one.leads_out || is_mapped(config, one.address) || one.address.is_loopback())
}

/// The order of preference, by these criteria in turn: loopback, which is for local clients, is last; addresses that the
/// operator mapped come first; public before private; permanent before temporary; the kernel's own choice before others.
fn rank(config: &Config, one: &LocalAddress) -> (bool, bool, bool, bool, bool) {
    (
        one.address.is_loopback(),
        !is_mapped(config, one.address),
        is_private(announced_by_all(config, one)),
        one.passing,
        !one.preferred,
    )
}

/// What this address announces. An `external_ip` without a private address counts only for the address that the kernel
/// prefers.
fn announced_by_all(config: &Config, one: &LocalAddress) -> IpAddr {
    if one.preferred { announced(config, one.address) } else { one.address }
}

/// The address that clients see: the `external_ip` of this address, or else that of its family, or else the address itself.
fn announced(config: &Config, local: IpAddr) -> IpAddr {
    let of_family = |external: &&ExternalIp| {
        let fits = external.public.is_ipv4() == local.is_ipv4() && !local.is_loopback();
        external.private.is_none() && fits
    };
    let mut pairs = config.external_ip.iter().filter(|external| external.private == Some(local));
    let external = pairs.next().or_else(|| config.external_ip.iter().find(of_family));
    external.map_or(local, |external| external.public)
}

/// Whether an `external_ip` pair names this address as the private one.
fn is_mapped(config: &Config, local: IpAddr) -> bool {
    config.external_ip.iter().any(|external| external.private == Some(local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::config::Listener;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("literal")
    }

    /// A machine with these addresses. `+` marks one that leads to the Internet, `*` one that the kernel also prefers.
    fn machine(addresses: &[&str]) -> Addresses {
        let mut machine = Addresses::default();
        for text in ["127.0.0.1", "::1"].iter().chain(addresses) {
            let address = ip(text.trim_start_matches(['+', '*']));
            machine.own.push(address.into());
            machine.local.push(LocalAddress {
                address,
                passing: false,
                leads_out: text.starts_with(['+', '*']),
                preferred: text.starts_with('*'),
            });
        }
        machine.own.sort_unstable();
        machine
    }

    fn config(listen: &[&str]) -> Config {
        let listener = |at: &&str| Listener::new(Transport::Udp, at.parse().expect("literal"), 0);
        Config { listen: listen.iter().map(listener).collect(), ..Config::embedded("secret".to_owned()) }
    }

    fn external(text: &str) -> ExternalIp {
        let (public, private) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(ip(b))));
        ExternalIp { public: ip(public), private }
    }

    /// The choice as `LOCAL>ANNOUNCED`, without loopback.
    fn chosen(config: &Config, machine: &Addresses) -> Vec<String> {
        let choice = choose(config, machine);
        let shown = choice.addresses.iter().filter(|relay| !relay.only_local);
        shown.map(|relay| format!("{}>{}", relay.local, relay.announced)).collect()
    }

    #[test]
    fn the_address_of_a_container_bridge_is_not_chosen() {
        let machine = machine(&["172.17.0.1", "*203.0.113.5", "*2001:db8::5"]);
        let expected = ["203.0.113.5>203.0.113.5", "2001:db8::5>2001:db8::5"];
        assert_eq!(chosen(&config(&["[::]:3479"]), &machine), expected);
        assert_eq!(chosen(&config(&["0.0.0.0:3479"]), &machine), expected[..1]);
    }

    #[test]
    fn public_precedes_private_and_permanent_precedes_temporary() {
        let mut host = machine(&["*10.0.0.5", "+203.0.113.5", "+fd00::5", "*2001:db8::1", "+2001:db8::2"]);
        host.local
            .iter_mut()
            .filter(|one| one.address == ip("2001:db8::1"))
            .for_each(|one| one.passing = true);
        let chosen = chosen(&config(&["[::]:3479"]), &host);
        let order: Vec<&str> = chosen.iter().filter_map(|one| one.split('>').next()).collect();
        assert_eq!(order, ["203.0.113.5", "2001:db8::2", "2001:db8::1", "10.0.0.5", "fd00::5"]);
    }

    #[test]
    fn no_two_addresses_announce_the_same() {
        let host = machine(&["+10.0.0.4", "*10.0.0.5"]);
        let mut config = config(&["0.0.0.0:3479"]);
        config.external_ip = vec![external("203.0.113.50")];
        assert_eq!(chosen(&config, &host), ["10.0.0.5>203.0.113.50"], "the one that the kernel sends from");
        let notes = choose(&config, &host).notes;
        assert!(notes[0].contains("10.0.0.4 would announce 203.0.113.50 like 10.0.0.5"), "{notes:?}");
        assert!(notes[0].contains(r#"["203.0.113.50/10.0.0.5", "ANOTHER/10.0.0.4"]"#), "{notes:?}");
        config.external_ip = vec![external("203.0.113.51/10.0.0.4"), external("203.0.113.50")];
        let expected = ["10.0.0.4>203.0.113.51", "10.0.0.5>203.0.113.50"];
        assert_eq!(
            (chosen(&config, &host), choose(&config, &host).notes),
            (expected.map(String::from).into(), vec![])
        );
    }

    #[test]
    fn a_configured_address_is_used_while_the_machine_has_it() {
        let mut config = config(&["0.0.0.0:3479"]);
        config.relay.addresses = vec![ip("203.0.113.5"), ip("203.0.113.6")];
        let host = machine(&["*203.0.113.5", "+203.0.113.7"]);
        assert_eq!(chosen(&config, &host), ["203.0.113.5>203.0.113.5"]);
        assert!(choose(&config, &host).notes[0].starts_with("203.0.113.6 is not an address of this machine"));
        let gone = choose(&config, &machine(&["*203.0.113.7"]));
        assert!(!gone.serves && gone.addresses.is_empty());
    }

    #[test]
    fn without_an_address_that_leads_out_only_local_clients_are_served() {
        let offline = machine(&[]);
        assert!(!choose(&config(&["0.0.0.0:3479"]), &offline).serves);
        let local = choose(&config(&["127.0.0.1:3479"]), &offline);
        assert!(local.serves && local.serves_ipv4 && local.addresses[0].only_local);
        // Loopback is no IPv4 address for clients on other machines.
        let ipv6 = choose(&config(&["[::]:3479"]), &machine(&["*2001:db8::1"]));
        assert!(ipv6.serves && !ipv6.serves_ipv4, "{ipv6:?}");
        assert!(choose(&config(&["[::]:3479"]), &machine(&["*2001:db8::1", "*192.0.2.1"])).serves_ipv4);
        // A private address that does not lead out is used if `external_ip` maps it.
        let mut mapped = config(&["0.0.0.0:3479"]);
        mapped.external_ip = vec![external("203.0.113.9/10.9.0.9")];
        assert_eq!(chosen(&mapped, &machine(&["10.9.0.9"])), ["10.9.0.9>203.0.113.9"]);
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// The addresses for new allocations, and the lost ones that keep their allocations.
    fn relayed(relays: &Relays) -> (Vec<String>, Vec<String>) {
        let of = |only_local: bool| {
            let all = relays.addresses().into_iter().filter(|relay| !relay.local.is_loopback());
            let fit = all.filter(|relay| relay.only_local == only_local);
            fit.map(|relay| format!("{}>{}", relay.local, relay.announced)).collect()
        };
        (of(false), of(true))
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    /// Without a default route both addresses look alike, and the first one in the list would be chosen.
    #[test]
    fn losing_the_default_route_does_not_change_the_choice() {
        let mut config = config(&["[::]:3479"]);
        let (with, without) = (machine(&["10.8.0.1", "*10.0.0.5"]), machine(&["+10.8.0.1", "+10.0.0.5"]));
        let alone = (list(&["10.0.0.5>10.0.0.5"]), list(&[]));
        let mut relays = Relays::new(&config, &with);
        let another = machine(&["+10.8.0.1", "+10.8.0.2", "+10.0.0.5"]);
        for (second, machine) in [&with, &without, &another, &without, &with].into_iter().enumerate() {
            relays.follow(&config, machine, at(100 * second as u64));
            assert_eq!(relayed(&relays), alone, "step {second}");
        }
        config.external_ip = vec![external("203.0.113.50")];
        let both = [machine(&["+10.0.0.4", "*10.0.0.5"]), machine(&["+10.0.0.4", "+10.0.0.5"])];
        let mut relays = Relays::new(&config, &both[0]);
        relays.follow(&config, &both[1], at(1));
        assert_eq!(relayed(&relays), (list(&["10.0.0.5>203.0.113.50"]), list(&[])));
        // A new default route decides again.
        relays.follow(&config, &machine(&["*10.0.0.4", "+10.0.0.5"]), at(2));
        assert_eq!(relayed(&relays).0, list(&["10.0.0.4>203.0.113.50"]));
        // If the machine loses the preferred address itself, its last known properties no longer apply.
        let mut relays = Relays::new(&config, &with);
        relays.follow(&config, &machine(&["+10.8.0.1"]), at(1));
        assert_eq!(relayed(&relays), (list(&[]), list(&["10.0.0.5>203.0.113.50"])), "during the grace");
        relays.follow(&config, &machine(&["+10.8.0.1"]), at(5));
        assert_eq!(relayed(&relays), (list(&["10.8.0.1>203.0.113.50"]), list(&[])));
    }

    #[test]
    fn a_lost_address_keeps_its_calls_during_the_grace() {
        let mut config = config(&["[::]:3479"]);
        let with = machine(&["*203.0.113.5", "+203.0.113.6", "*2001:db8::5"]);
        let without = machine(&["*203.0.113.5", "*2001:db8::5"]);
        let all = list(&["203.0.113.5>203.0.113.5", "2001:db8::5>2001:db8::5", "203.0.113.6>203.0.113.6"]);
        let mut relays = Relays::new(&config, &with);
        assert_eq!(relayed(&relays), (all.clone(), list(&[])));
        relays.follow(&config, &without, at(10));
        assert_eq!(relayed(&relays), (all[..2].to_vec(), all[2..].to_vec()), "no new allocations");
        assert!(!relays.is_due(at(12)));
        relays.follow(&config, &with, at(12));
        assert_eq!(relayed(&relays), (all.clone(), list(&[])), "it is back");
        relays.follow(&config, &without, at(20));
        relays.follow(&config, &without, at(22));
        assert!(relays.is_due(at(23)), "choosing again does not extend the grace");
        relays.follow(&config, &without, at(23));
        assert_eq!(relayed(&relays), (all[..2].to_vec(), list(&[])));
        assert!(!relays.is_due(at(30)));
        // A change of the configuration takes effect at once.
        relays.follow(&config, &with, at(40));
        config.relay.addresses = vec![ip("203.0.113.5")];
        relays.follow(&config, &with, at(41));
        assert_eq!(relayed(&relays), (all[..1].to_vec(), list(&[])));
    }

    #[test]
    fn an_address_that_announces_the_same_ends_the_calls_of_a_lost_one_at_once() {
        let mut config = config(&["0.0.0.0:3479"]);
        config.external_ip = vec![external("203.0.113.50")];
        let mut relays = Relays::new(&config, &machine(&["*10.0.0.5"]));
        relays.follow(&config, &machine(&["*10.0.0.9"]), at(1));
        assert_eq!(relayed(&relays), (list(&["10.0.0.9>203.0.113.50"]), list(&[])), "both announce the same");
    }
}
