//! Firewall rules of this machine that drop the relay's packets.
//!
//! [`nft`] and [`iptables`] translate what the two programs print into [`Ruleset`]; [`Ruleset::dropped`] says which ports it
//! drops for certain. A rule whose effect depends on anything else than ports, protocol, connection state and interface
//! counts as one that may accept: nothing is reported that is only possible.

pub mod iptables;
pub mod nft;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::base::family::Family;

/// How deep chains may call each other; the kernel of nftables allows 16.
const DEPTH_MAX: usize = 16;
/// Maximum number of ports that are tried.
const SAMPLES_MAX: usize = 512;
/// Maximum number of rules that one packet passes.
const STEPS_MAX: u32 = 20_000;

/// The rules of one tool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Chains by table and name.
    pub chains: BTreeMap<(String, String), Chain>,
    /// Tables with chains at the network card, before or behind all others: these are not read.
    pub at_card: Vec<String>,
    /// Whether a rule exempts packets from connection tracking. The state of any packet may then be `untracked`.
    pub has_untracked: bool,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; `None` for a chain that only others enter.
    pub hook: Option<Hook>,
    /// What happens to a packet that no rule decides.
    pub policy_drops: bool,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Where the kernel enters a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets for this machine, before or at `input`.
    In,
    /// Packets of this machine, at `output` or later.
    Out,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
    /// The rule for a person.
    pub shown: String,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The protocol is one of these, in small letters.
    Protocol(Set<String>),
    /// The family.
    Family(Set<Family>),
    /// The source port.
    Source(Set<RangeInclusive<u16>>),
    /// The destination port.
    Destination(Set<RangeInclusive<u16>>),
    /// The state of the connection is one of these, in small letters.
    State(Set<String>),
    /// The interface that the packet arrives on or leaves by.
    Interface(Set<String>),
    /// Something that is not known here.
    Unknown,
}

/// Members, or with `is_not` everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    /// Whether the members are excluded.
    pub is_not: bool,
    /// The members.
    pub members: Vec<T>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Lets the packet through this chain and those that called it.
    Accept,
    /// Drops or rejects it.
    Drop,
    /// Goes on in another chain of the table, and comes back.
    Jump(String),
    /// Goes on in another chain of the table.
    Goto(String),
    /// Goes back to the chain that called this one.
    Return,
    /// Nothing that decides, such as counting.
    Continue,
    /// Something that is not known here.
    Unknown,
}

/// A packet that the relay needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its family.
    pub family: Family,
    /// Whether it arrives or leaves.
    pub hook: Hook,
    /// Its protocol: `udp` or `tcp`.
    pub protocol: &'a str,
    /// The interface towards the outside, if it is known.
    pub interface: Option<&'a str>,
    /// Whether it is the first one of its connection, and not an answer.
    pub is_new: bool,
}

/// Ports whose packets are dropped, and the rule that does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Their ranges, in order.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The rule for a person.
    pub by: String,
    /// The table of the chain that the kernel enters; in nftables with its family: `inet filter`.
    pub table: String,
    /// That chain. A rule before all others of it decides first.
    pub chain: String,
}

/// What may happen to a packet in a chain. Several are possible if a condition is not known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fates {
    /// It may be accepted.
    accepted: bool,
    /// It may be dropped, by this rule.
    dropped: Option<String>,
    /// It may leave the chain undecided.
    undecided: bool,
}

/// One packet on its way through the rules.
struct Walk<'a> {
    packet: Packet<'a>,
    port: u16,
    /// [`Ruleset::has_untracked`].
    has_untracked: bool,
    /// Rules that may still be looked at: chains can call each other many times.
    steps: Cell<u32>,
}

/// Whether a condition holds. The greatest of several is that of all together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holds {
    Yes,
    Maybe,
    No,
}

impl Ruleset {
    /// Returns which of the relay's `ports` are dropped for certain. Those of a packet that arrives are its destination, those
    /// of one that leaves its source.
    pub fn dropped(&self, packet: Packet<'_>, ports: &RangeInclusive<u16>) -> Option<Dropped> {
        let mut dropped: Option<Dropped> = None;
        let mut is_in_range = false;
        for port in self.samples(ports) {
            let Some(((table, chain), by)) = self.fate(packet, port) else {
                is_in_range = false;
                continue;
            };
            let all =
                &mut dropped.get_or_insert_with(|| Dropped { ports: Vec::new(), by, table, chain }).ports;
            match all.last_mut().filter(|_| is_in_range) {
                Some(last) => *last = *last.start()..=port,
                None => all.push(port..=port),
            }
            is_in_range = true;
        }
        dropped
    }

    /// The ports at which a rule may begin or cease to apply: between two of them all ports have one fate.
    fn samples(&self, ports: &RangeInclusive<u16>) -> Vec<u16> {
        let mut samples = vec![*ports.start(), *ports.end()];
        for rule in self.chains.values().flat_map(|chain| &chain.rules) {
            for condition in &rule.matches {
                let (Match::Source(set) | Match::Destination(set)) = condition else { continue };
                for range in set.members.iter().take(SAMPLES_MAX) {
                    let (first, last) = (*range.start(), *range.end());
                    samples.extend([first, first.saturating_sub(1), last, last.saturating_add(1)]);
                }
            }
        }
        samples.retain(|port| ports.contains(port));
        samples.sort_unstable();
        samples.dedup();
        samples.truncate(SAMPLES_MAX);
        samples
    }

    /// Returns the rule that drops the packet for certain, with the table and chain that the kernel enters.
    fn fate(&self, packet: Packet<'_>, port: u16) -> Option<((String, String), String)> {
        // Each chain that the kernel enters decides by itself, and one drop is enough.
        self.chains.iter().filter(|(_, chain)| chain.hook == Some(packet.hook)).find_map(|(name, chain)| {
            let has_untracked = self.has_untracked;
            let walk = Walk { packet, port, has_untracked, steps: Cell::new(STEPS_MAX) };
            let fates = self.pass(name, chain, &walk, 0);
            let by = match (fates.accepted, fates.undecided) {
                (true, _) => None,
                (false, true) => {
                    let policy = || format!("the policy of chain {} in table {}", name.1, name.0);
                    chain.policy_drops.then(policy)
                }
                (false, false) => fates.dropped,
            };
            by.map(|by| (name.clone(), by))
        })
    }

    fn pass(&self, name: &(String, String), chain: &Chain, walk: &Walk<'_>, depth: usize) -> Fates {
        let unknown = || Fates { accepted: true, undecided: true, ..Fates::default() };
        let mut fates = Fates::default();
        for rule in &chain.rules {
            let Some(steps) = walk.steps.get().checked_sub(1) else { return unknown() };
            walk.steps.set(steps);
            let holds = rule.matches.iter().map(|one| one.holds(walk)).max();
            let holds = holds.unwrap_or(Holds::Yes);
            if holds == Holds::No {
                continue;
            }
            let of_rule = match &rule.verdict {
                Verdict::Accept => Fates { accepted: true, ..Fates::default() },
                Verdict::Drop => Fates { dropped: Some(rule.shown.clone()), ..Fates::default() },
                Verdict::Return | Verdict::Continue => Fates { undecided: true, ..Fates::default() },
                Verdict::Unknown => unknown(),
                Verdict::Jump(target) | Verdict::Goto(target) => {
                    let key = (name.0.clone(), target.clone());
                    match self.chains.get(&key).filter(|_| depth < DEPTH_MAX) {
                        Some(next) => self.pass(&key, next, walk, depth + 1),
                        None => unknown(),
                    }
                }
            };
            fates.accepted |= of_rule.accepted;
            fates.dropped = fates.dropped.or(of_rule.dropped);
            let ends_chain = matches!(rule.verdict, Verdict::Return | Verdict::Goto(_));
            fates.undecided |= ends_chain && of_rule.undecided;
            let goes_on = !ends_chain && of_rule.undecided;
            if holds == Holds::Yes && !goes_on {
                return fates;
            }
        }
        Fates { undecided: true, ..fates }
    }
}

impl Match {
    fn holds(&self, walk: &Walk<'_>) -> Holds {
        let (packet, port) = (walk.packet, walk.port);
        let of = |holds: bool| if holds { Holds::Yes } else { Holds::No };
        // The other end has any port.
        let far = |set: &Set<RangeInclusive<u16>>| match set.members.contains(&(0..=u16::MAX)) {
            true => of(!set.is_not),
            false => Holds::Maybe,
        };
        match self {
            Self::Protocol(set) => of(set.has(|name| name == packet.protocol)),
            Self::Family(set) => of(set.has(|family| *family == packet.family)),
            Self::State(set) => {
                let tracked = set.has(|state| state == if packet.is_new { "new" } else { "established" });
                let untracked = set.has(|state| state == "untracked");
                if walk.has_untracked && tracked != untracked { Holds::Maybe } else { of(tracked) }
            }
            Self::Source(set) if packet.hook == Hook::Out => of(set.has(|range| range.contains(&port))),
            Self::Destination(set) if packet.hook == Hook::In => of(set.has(|range| range.contains(&port))),
            Self::Source(set) | Self::Destination(set) => far(set),
            Self::Interface(set) => match packet.interface {
                Some(name) => of(set.has(|one| is_interface(one, name))),
                // From outside, it is not loopback.
                None if set.members.iter().all(|one| one == "lo") => of(set.is_not),
                None => Holds::Maybe,
            },
            Self::Unknown => Holds::Maybe,
        }
    }
}

impl<T> Set<T> {
    /// Only these.
    pub fn of(members: Vec<T>) -> Self {
        Self { is_not: false, members }
    }

    fn has(&self, is: impl Fn(&T) -> bool) -> bool {
        self.members.iter().any(is) != self.is_not
    }
}

/// Whether a pattern with an optional `+` or `*` at its end means this interface.
fn is_interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix(['+', '*']) {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}
