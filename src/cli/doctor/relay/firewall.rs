//! Rules of this machine's firewall that drop the relay's packets.

mod remedy;

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use self::remedy::{Wanted, remedy};
use super::site::{Site, is_reached_directly, untested};
use crate::base::family::Family;
use crate::base::transport::Transport;
use crate::cli::output::counted;
use crate::config::{Challenge, Listener, Redirect};
use crate::doctor::check::Check;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::firewall::{Dropped, Hook, Packet, Ruleset, iptables, nft};
use crate::doctor::inspection::Seen;
use crate::doctor::text::list;
use crate::system::addresses::Addresses;
use crate::system::interfaces;
use crate::system::local_addresses::toward_outside;
use crate::turn::settings::RelayAddress;

/// Where the programs are; the PATH of users often lacks the first two.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// Time for a program to list the rules. Ten thousand rules take some 0.1 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest list of rules that is read.
const RULES_MAX: u64 = 32 << 20;
/// Maximum number of port ranges in a message.
const RANGES_SHOWN: usize = 5;

/// Judges the rules of nftables and iptables.
pub fn check(site: &Site<'_>, seen: &Seen) -> Check {
    let mut check = Check::of("firewall");
    let mut rulesets: Vec<Ruleset> = Vec::new();
    for (program, arguments, family) in [
        ("nft", &["-j", "list", "ruleset"][..], None),
        ("iptables-save", &[], Some(Family::V4)),
        ("ip6tables-save", &[], Some(Family::V6)),
    ] {
        let Some(path) =
            DIRECTORIES.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists())
        else {
            continue;
        };
        let read = run(&path, arguments).map(|text| match family {
            None => nft::parse(&text),
            Some(family) => Some(iptables::parse(&text, family)),
        });
        match read {
            Ok(Some(rules)) => {
                check.facts.push(format!("{program}: {}", counted(rules.chains.len(), "chain")));
                check.findings.extend(not_judged(&rules));
                rulesets.push(rules);
            }
            Ok(None) => {}
            Err(error) => check.findings.push(untested(
                "firewall_not_read",
                format!("{program} does not list the rules of the firewall: {error}"),
                "run this command as root",
            )),
        }
    }
    if check.facts.is_empty() && check.findings.is_empty() {
        check.facts.push("neither nft nor iptables is installed".to_owned());
    }
    // Tracking is the same for the rules of all tools.
    let has_untracked = rulesets.iter().any(|rules| rules.has_untracked);
    rulesets.iter_mut().for_each(|rules| rules.has_untracked = has_untracked);
    let relays: Vec<Face> = site.relays.iter().map(|relay| Face::of(relay.local)).collect();
    check.findings.extend(judge_relays(&relays, &site.config.relay.ports, &rulesets));
    let served = served(site, seen);
    for hook in [Hook::In, Hook::Out] {
        check.findings.extend(judge_listeners(&served, &rulesets, hook));
    }
    let has_http_challenge =
        site.config.acme.as_ref().is_some_and(|acme| acme.challenges.contains(&Challenge::Http01));
    let of_redirect = judge_listeners(&redirected(site, seen), &rulesets, Hook::In);
    check.findings.extend(of_redirect.into_iter().map(|found| redirect_blocked(found, has_http_challenge)));
    check
}

/// Calls need no plain HTTP.
fn redirect_blocked(found: Finding, has_http_challenge: bool) -> Finding {
    let effect = match has_http_challenge {
        true => "[redirect] answers nobody, and [acme] cannot use the challenge http-01",
        false => "[redirect] answers nobody",
    };
    Finding {
        code: "redirect_blocked",
        severity: Severity::Warning,
        text: format!("{}: {effect}", found.text),
        ..found
    }
}

/// Chains at the network card are not understood here, and they see all packets.
fn not_judged(rules: &Ruleset) -> Option<Finding> {
    let tables = rules.at_card.iter().map(|table| format!("table {table}")).collect::<Vec<_>>();
    let first = rules.at_card.first()?;
    Some(untested(
        "firewall_not_judged",
        format!(
            "{} has chains at the network card (ingress or egress), which were not judged: they may drop what the other rules let \
             through",
            list(&tables)
        ),
        &format!("nft list table {first}"),
    ))
}

/// Returns what a program prints.
///
/// # Errors
/// It cannot be started, fails, takes longer than [`PATIENCE`], or prints something else than text.
fn run(path: &Path, arguments: &[&str]) -> io::Result<String> {
    run_within(PATIENCE, path, arguments)
}

fn run_within(patience: Duration, path: &Path, arguments: &[&str]) -> io::Result<String> {
    let mut child = Command::new(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take();
    let (printed, answer) = channel();
    // Ends with the program, or when the program is killed.
    thread::spawn(move || {
        let mut text = String::new();
        let read = output.map_or(Ok(0), |output| output.take(RULES_MAX).read_to_string(&mut text));
        drop(printed.send(read.map(|_| text)));
    });
    let text = answer.recv_timeout(patience);
    if text.is_err() {
        child.kill()?;
    }
    // A program that still writes gets an error, because nobody reads any more.
    let ended = child.wait()?;
    let text = text.map_err(|_| {
        let message = format!("no answer within {patience:?}");
        io::Error::new(io::ErrorKind::TimedOut, message)
    })??;
    if ended.success() { Ok(text) } else { Err(io::Error::other(ended.to_string())) }
}

/// Where packets of clients or peers arrive and leave.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Face {
    family: Family,
    /// The interface, if it is known.
    interface: Option<String>,
}

impl Face {
    fn of(ip: IpAddr) -> Self {
        Self { family: Family::of(ip), interface: interface_of(ip) }
    }

    fn packet(&self, hook: Hook, protocol: &'static str, is_new: bool) -> Packet<'_> {
        Packet { family: self.family, hook, protocol, interface: self.interface.as_deref(), is_new }
    }
}

/// A listener, and where clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Served {
    transport: Transport,
    port: u16,
    faces: Vec<Face>,
}

/// The listeners that clients on other machines reach. A firewall may keep them away from one behind a proxy.
fn served(site: &Site<'_>, seen: &Seen) -> Vec<Served> {
    let outside =
        |listener: &&Listener| !listener.address.ip().is_loopback() && is_reached_directly(listener);
    let public = site.config.listen.iter().filter(outside);
    let of = |listener: &Listener| {
        let is_dual = site.config.is_dual_stack(listener);
        served_at(site, seen, (listener.transport, listener.address), is_dual)
    };
    public.map(of).collect()
}

/// The addresses of `[redirect]` that browsers on other machines reach.
fn redirected(site: &Site<'_>, seen: &Seen) -> Vec<Served> {
    let outside = site.config.redirect.iter().filter(|redirect| !redirect.address.ip().is_loopback());
    let of = |redirect: &Redirect| {
        let is_dual = site.config.is_dual_stack_redirect(redirect);
        served_at(site, seen, (Transport::Tcp, redirect.address), is_dual)
    };
    outside.map(of).collect()
}

/// Where clients reach an address; `is_dual`: over IPv4 and IPv6.
fn served_at(
    site: &Site<'_>,
    seen: &Seen,
    (transport, address): (Transport, SocketAddr),
    is_dual: bool,
) -> Served {
    let ip = address.ip();
    let serves = |family: &Family| Family::of(ip) == *family || is_dual;
    let entrances = |family| entrances(family, named(site, seen), &site.relays, &site.machine);
    let addresses = match ip.is_unspecified() {
        true => Family::ALL.into_iter().filter(serves).flat_map(entrances).collect(),
        false => vec![ip],
    };
    Served { transport, port: address.port(), faces: addresses.into_iter().map(Face::of).collect() }
}

/// Where the relay's name leads, if that is known.
fn named<'a>(site: &Site<'_>, seen: &'a Seen) -> Option<&'a [IpAddr]> {
    let name = site.args.public_name.as_ref()?;
    let lookup = seen.names.iter().find(|lookup| lookup.name == *name)?;
    let addresses = lookup.addresses.as_deref().ok()?;
    // The name of a machine often leads to loopback on that machine.
    (!addresses.iter().all(IpAddr::is_loopback)).then_some(addresses)
}

/// The addresses of this machine by which clients reach a listener on a wildcard address: those of the name, else those that
/// the relay relays from, else those that lead out. None if clients do not come by this family.
fn entrances(
    family: Family,
    named: Option<&[IpAddr]>,
    relays: &[RelayAddress],
    machine: &Addresses,
) -> Vec<IpAddr> {
    let is_of_family = |ip: &IpAddr| Family::of(*ip) == family;
    if named.is_some_and(|named| !named.iter().any(is_of_family)) {
        return Vec::new();
    }
    let own = |ip: &IpAddr| match relays.iter().find(|relay| relay.announced == *ip) {
        Some(relay) => Some(relay.local),
        None => machine.have(*ip).then_some(*ip),
    };
    let of_name: Vec<IpAddr> =
        named.unwrap_or_default().iter().filter(|ip| is_of_family(ip)).filter_map(own).collect();
    if !of_name.is_empty() {
        return of_name;
    }
    let of_relays: Vec<IpAddr> = relays.iter().map(|relay| relay.local).filter(is_of_family).collect();
    if !of_relays.is_empty() {
        return of_relays;
    }
    let leading_out = machine.local.iter().filter(|local| local.leads_out).map(|local| local.address);
    leading_out.filter(is_of_family).collect()
}

/// Listeners whose packets one rule drops.
struct Blocked {
    dropped: Dropped,
    family: Family,
    listeners: Vec<(Transport, u16)>,
    /// Whether clients of another family get through.
    is_partly: bool,
}

/// Judges packets of clients to the listeners, and the answers. What two tools show is one rule, so it is reported once.
fn judge_listeners(served: &[Served], rulesets: &[Ruleset], hook: Hook) -> Vec<Finding> {
    let mut groups: Vec<Blocked> = Vec::new();
    for listener in served {
        let protocol = if listener.transport == Transport::Udp { "udp" } else { "tcp" };
        let families: Vec<Family> = Family::ALL
            .into_iter()
            .filter(|family| listener.faces.iter().any(|face| face.family == *family))
            .collect();
        let blocked: Vec<(Family, Dropped)> = families
            .iter()
            .filter_map(|&family| {
                let faces = || listener.faces.iter().filter(|face| face.family == family);
                let port = listener.port..=listener.port;
                // The first packet of a client is new; what leaves a listener is an answer.
                let of = |face: &Face| {
                    let packet = face.packet(hook, protocol, hook == Hook::In);
                    rulesets.iter().find_map(|rules| rules.dropped(packet, &port))
                };
                // With one way in, clients may get through.
                let first = faces().next().and_then(of)?;
                faces().all(|face| of(face).is_some()).then_some((family, first))
            })
            .collect();
        let is_partly = blocked.len() < families.len();
        for (family, dropped) in blocked {
            let listener = (listener.transport, listener.port);
            match groups.iter_mut().find(|group| group.dropped.by == dropped.by) {
                Some(group) => {
                    group.is_partly |= is_partly;
                    if !group.listeners.contains(&listener) {
                        group.listeners.push(listener);
                    }
                }
                None => groups.push(Blocked { dropped, family, listeners: vec![listener], is_partly }),
            }
        }
    }
    groups.iter().map(|group| blocked(group, hook)).collect()
}

fn blocked(group: &Blocked, hook: Hook) -> Finding {
    let names = group.listeners.iter().map(|(transport, port)| format!("{transport} {port}"));
    let names = list(&names.collect::<Vec<_>>());
    let over = if group.is_partly { format!(" over {}", group.family.name()) } else { String::new() };
    let by = &group.dropped.by;
    let (code, text) = match hook {
        Hook::In => ("listener_blocked", format!("packets of clients to {names} are dropped{over} by {by}")),
        Hook::Out => {
            ("listener_answers_blocked", format!("answers of {names} to clients are dropped{over} by {by}"))
        }
    };
    let ports = |is_udp: bool| {
        let of = |(transport, port): &(Transport, u16)| {
            ((*transport == Transport::Udp) == is_udp).then_some(*port..=*port)
        };
        group.listeners.iter().filter_map(of).collect::<Vec<_>>()
    };
    let mut wanted: Vec<Wanted> = [("udp", true), ("tcp", false)]
        .map(|(protocol, is_udp)| Wanted { protocol, ports: ports(is_udp) })
        .into();
    wanted.retain(|wanted| !wanted.ports.is_empty());
    Finding::error(code, text, remedy(&group.dropped, group.family, hook, &wanted))
}

/// Judges packets between the relay's ports and peers. One finding a code: what one tool shows, the other shows too.
fn judge_relays(faces: &[Face], ports: &RangeInclusive<u16>, rulesets: &[Ruleset]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let wanted = [Wanted { protocol: "udp", ports: vec![ports.clone()] }];
    for (face, rules) in faces.iter().flat_map(|face| rulesets.iter().map(move |rules| (face, rules))) {
        let dropped = |hook, is_new| rules.dropped(face.packet(hook, "udp", is_new), ports);
        if let Some(dropped_in) = dropped(Hook::In, true) {
            let (code, remedy) =
                ("relay_ports_blocked_in", remedy(&dropped_in, face.family, Hook::In, &wanted));
            let text = format!(
                "packets of peers to the relay ports {} are dropped by {}",
                shown(&dropped_in),
                dropped_in.by
            );
            findings.push(match dropped(Hook::In, false) {
                Some(_) => Finding::error(code, text, remedy),
                // ICE sends from both ends, so most calls get through.
                None => Finding::warning(
                    code,
                    format!("{text} until the relay has sent one to the same peer, which delays calls"),
                    remedy,
                ),
            });
        }
        if let Some(dropped) = dropped(Hook::Out, true) {
            findings.push(Finding::error(
                "relay_ports_blocked_out",
                format!(
                    "packets from the relay ports {} to peers are dropped by {}",
                    shown(&dropped),
                    dropped.by
                ),
                remedy(&dropped, face.family, Hook::Out, &wanted),
            ));
        }
    }
    // An error says more than a warning of another address.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut first: Vec<Finding> = Vec::new();
    for finding in findings {
        if first.iter().all(|known| known.code != finding.code) {
            first.push(finding);
        }
    }
    first
}

/// The ports in words: `50000, 60000-60010`.
fn shown(dropped: &Dropped) -> String {
    let one = |ports: &RangeInclusive<u16>| match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    let mut words: Vec<String> = dropped.ports.iter().take(RANGES_SHOWN).map(one).collect();
    if dropped.ports.len() > RANGES_SHOWN {
        words.push("others".to_owned());
    }
    words.join(", ")
}

/// The name of the interface by which packets for this address arrive, if that is sure.
fn interface_of(ip: IpAddr) -> Option<String> {
    let all = interfaces::addresses().ok()?;
    let with = |ip: IpAddr| all.iter().find(|one| one.address == ip).map(|one| one.interface.as_str());
    let way_out = toward_outside(ip.is_ipv4()).and_then(with);
    let is_virtual = |name: &str| !Path::new("/sys/class/net").join(name).join("device").exists();
    arrives_on(ip, with(ip)?, way_out, is_virtual).map(str::to_owned)
}

/// An address on loopback, or on a virtual interface without the way out, may be routed to this machine: then its packets arrive
/// elsewhere.
fn arrives_on<'a>(
    ip: IpAddr,
    on: &'a str,
    way_out: Option<&str>,
    is_virtual: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let is_routed = match on {
        "lo" => !ip.is_loopback(),
        _ => way_out.is_some_and(|out| out != on) && is_virtual(on),
    };
    (!is_routed).then_some(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An anycast or failover address is on `lo` or a dummy interface, and its packets arrive by another one.
    #[test]
    fn a_routed_address_has_no_sure_interface() {
        let ip: IpAddr = "203.0.113.9".parse().unwrap();
        let arrives = |on, way_out| arrives_on(ip, on, way_out, |name| name != "eth1");
        assert_eq!(arrives("lo", Some("eth0")), None);
        assert_eq!(arrives("dummy0", Some("eth0")), None);
        assert_eq!(arrives("eth0", Some("eth0")), Some("eth0"));
        assert_eq!(arrives("eth1", Some("eth0")), Some("eth1"), "a second network");
        assert_eq!(arrives("veth0", None), Some("veth0"));
        assert_eq!(arrives_on("127.0.0.1".parse().unwrap(), "lo", None, |_| true), Some("lo"));
    }

    /// Calls need no plain HTTP, so it is a warning.
    #[test]
    fn a_rule_that_blocks_the_redirect_is_named() {
        let face = Face { family: Family::V4, interface: Some("eth0".to_owned()) };
        let served = [Served { transport: Transport::Tcp, port: 80, faces: vec![face] }];
        let found = judge_listeners(&served, &[table("inet", "input", "drop", &[])], Hook::In);
        let told = redirect_blocked(found.into_iter().next().expect("a finding"), true);
        assert_eq!((told.code, told.severity), ("redirect_blocked", Severity::Warning));
        assert!(told.text.contains("tcp 80") && told.text.contains("http-01"), "{told:?}");
        assert!(judge_listeners(&served, &[table("inet", "input", "accept", &[])], Hook::In).is_empty());
    }

    #[test]
    fn ports_are_shown_as_they_are_dropped() {
        let shown = |ports: Vec<RangeInclusive<u16>>| {
            shown(&Dropped { ports, by: String::new(), table: String::new(), chain: String::new() })
        };
        assert_eq!(shown(vec![50000..=50000, 60000..=60010]), "50000, 60000-60010");
        assert_eq!(shown((0..7).map(|port| port * 2..=port * 2).collect()), "0, 2, 4, 6, 8, others");
    }

    fn relay(ip: &str, announced: &str) -> RelayAddress {
        let (local, announced) = (ip.parse().unwrap(), announced.parse().unwrap());
        RelayAddress { local, announced, only_local: false }
    }

    /// A table as the README's listeners on `[::]` meet it, with these statements in one chain.
    fn table(family: &str, hook: &str, policy: &str, rules: &[&str]) -> Ruleset {
        let rules: Vec<String> = rules
            .iter()
            .map(|rule| format!(r#",{{"rule": {{"family": "{family}", "table": "f", "chain": "c", "handle": 7, "expr": [{rule}]}}}}"#))
            .collect();
        let text = format!(
            r#"{{"nftables": [{{"chain": {{"family": "{family}", "table": "f", "name": "c", "type": "filter", "hook": "{hook}", "prio": 0, "policy": "{policy}"}}}} {}]}}"#,
            rules.concat()
        );
        nft::parse(&text).unwrap_or_else(|| panic!("{text}"))
    }

    fn ports(protocol: &str, field: &str, ports: &str, verdict: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "{protocol}", "field": "{field}"}}}}, "right": {ports}}}}}, {{"{verdict}": null}}"#
        )
    }

    fn readme(families: &[Family]) -> Vec<Served> {
        let faces = |_: &()| {
            families.iter().map(|&family| Face { family, interface: Some("eth0".to_owned()) }).collect()
        };
        [(Transport::Udp, 3479), (Transport::Tcp, 3479), (Transport::Tls, 443)]
            .map(|(transport, port)| Served { transport, port, faces: faces(&()) })
            .into()
    }

    /// Listeners on `[::]` serve IPv4 as well: rules of `iptables` are in a table for IPv4 alone.
    #[test]
    fn rules_for_one_family_drop_clients_of_a_wildcard_listener() {
        let from = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}, "#;
        let udp = format!("{from}{}", ports("udp", "dport", "3479", "drop"));
        let tcp = format!("{from}{}", ports("tcp", "dport", r#"{"set": [443, 3479]}"#, "drop"));
        let rules = [table("ip", "input", "accept", &[&udp, &tcp])];
        let found = judge_listeners(&readme(&Family::ALL), &rules, Hook::In);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert!(
            finding.text.starts_with(
                "packets of clients to udp 3479, tcp 3479 and tls 443 are dropped over IPv4 by the rule"
            ),
            "{finding:?}"
        );
        let remedy = finding.remedy.as_deref().unwrap();
        assert!(remedy.contains("`nft insert rule ip f c udp dport 3479 accept`"), "{remedy}");
        assert!(remedy.contains("`nft insert rule ip f c tcp dport { 3479, 443 } accept`"), "{remedy}");
        assert!(judge_listeners(&readme(&[Family::V6]), &rules, Hook::In).is_empty());
    }

    #[test]
    fn a_shut_family_without_an_address_is_no_fault() {
        let shut = [table("ip6", "input", "drop", &[])];
        assert!(judge_listeners(&readme(&[Family::V4]), &shut, Hook::In).is_empty());
        assert_eq!(judge_listeners(&readme(&Family::ALL), &shut, Hook::In).len(), 1);
        let machine = Addresses { own: vec!["2001:db8::1/128".parse().unwrap()], ..Addresses::default() };
        let relays = [relay("10.0.0.5", "203.0.113.9")];
        let of = |family, named: Option<&[&str]>| {
            let named: Option<Vec<IpAddr>> =
                named.map(|all| all.iter().map(|ip| ip.parse().unwrap()).collect());
            let found = entrances(family, named.as_deref(), &relays, &machine);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(Family::V4, None), ["10.0.0.5"]);
        assert_eq!(of(Family::V6, None), [""; 0], "it has none that leads out");
        assert_eq!(of(Family::V4, Some(&["203.0.113.9"])), ["10.0.0.5"], "behind NAT");
        assert_eq!(of(Family::V6, Some(&["203.0.113.9"])), [""; 0], "no AAAA");
        assert_eq!(of(Family::V6, Some(&["203.0.113.9", "2001:db8::1"])), ["2001:db8::1"]);
    }

    #[test]
    fn answers_of_listeners_may_be_dropped() {
        let relay_ports = ports("udp", "sport", r#"{"range": [49152, 65535]}"#, "accept");
        let rules = [table("inet", "output", "drop", &[&relay_ports])];
        assert!(judge_listeners(&readme(&Family::ALL), &rules, Hook::In).is_empty());
        let found = judge_listeners(&readme(&Family::ALL), &rules, Hook::Out);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.text,
            "answers of udp 3479, tcp 3479 and tls 443 to clients are dropped by the policy of chain c in table inet f"
        );
        assert!(finding.remedy.as_deref().unwrap().contains("tcp sport { 3479, 443 } accept"), "{finding:?}");
        // Answers belong to a connection that a client began.
        let state = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "established"}}, {"accept": null}"#;
        assert!(
            judge_listeners(&readme(&Family::ALL), &[table("inet", "output", "drop", &[state])], Hook::Out)
                .is_empty()
        );
    }

    #[test]
    fn what_two_tools_show_is_said_once() {
        let of_nft = table("ip", "input", "drop", &[]);
        let of_iptables = iptables::parse("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", Family::V4);
        let both = [of_nft, of_iptables];
        assert_eq!(judge_listeners(&readme(&[Family::V4]), &both, Hook::In).len(), 1);
        let faces = [Face { family: Family::V4, interface: None }];
        let found = judge_relays(&faces, &(49152..=65535), &both);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .remedy
                .as_deref()
                .unwrap()
                .contains("`nft insert rule ip f c udp dport 49152-65535 accept`")
        );
    }

    #[test]
    fn a_program_answers_fails_or_is_ended() {
        let shell = Path::new("/bin/sh");
        assert_eq!(run(shell, &["-c", "echo rules"]).unwrap(), "rules\n");
        assert!(run(shell, &["-c", "echo rules; exit 3"]).unwrap_err().to_string().contains('3'));
        // It stops itself, and nobody lets it go on.
        let error = run_within(Duration::from_millis(50), shell, &["-c", "kill -STOP $$"]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }
}
