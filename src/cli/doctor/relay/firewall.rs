//! Rules of this machine's firewall that drop the relay's packets.

use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::site::{Site, untested};
use crate::base::family::Family;
use crate::base::transport::Transport;
use crate::cli::output::counted;
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::firewall::{Dropped, Hook, Packet, Ruleset, iptables, nft};
use crate::system::interfaces;

/// Where the programs are; the PATH of users often lacks the first two.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// Time for a program to list the rules. Ten thousand rules take some 0.1 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest list of rules that is read.
const RULES_MAX: u64 = 32 << 20;
/// Maximum number of port ranges in a message.
const RANGES_SHOWN: usize = 5;

/// Judges the rules of nftables and iptables.
pub fn check(site: &Site<'_>) -> Check {
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
    for finding in rulesets.iter().flat_map(|rules| judge(site, rules)) {
        if check.findings.iter().all(|known| known.code != finding.code) {
            check.findings.push(finding);
        }
    }
    check
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

fn judge(site: &Site<'_>, rules: &Ruleset) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ports = &site.config.relay.ports;
    for relay in &site.relays {
        let interface = interface_of(relay.local);
        let packet = |hook| Packet {
            family: Family::of(relay.local),
            hook,
            protocol: "udp",
            interface: interface.as_deref(),
            is_new: true,
        };
        let answer = Packet { is_new: false, ..packet(Hook::In) };
        if let Some(dropped) = rules.dropped(packet(Hook::In), ports) {
            let code = "relay_ports_blocked_in";
            findings.push(if rules.dropped(answer, ports).is_some() {
                let text = format!(
                    "packets of peers to the relay ports {} are dropped by {}",
                    shown(&dropped),
                    dropped.by
                );
                Finding::error(code, text, accept("dport", ports))
            } else {
                // ICE sends from both ends, so most calls get through.
                let text = format!(
                    "packets of peers to the relay ports {} are dropped by {} until the relay has sent one to the same peer, \
                     which delays calls",
                    shown(&dropped),
                    dropped.by
                );
                Finding::warning(code, text, accept("dport", ports))
            });
        }
        if let Some(dropped) = rules.dropped(packet(Hook::Out), ports) {
            findings.push(Finding::error(
                "relay_ports_blocked_out",
                format!(
                    "packets from the relay ports {} to peers are dropped by {}",
                    shown(&dropped),
                    dropped.by
                ),
                accept("sport", ports),
            ));
        }
    }
    let is_public = |ip: IpAddr| !ip.is_loopback();
    for listener in site.config.listen.iter().filter(|listener| is_public(listener.address.ip())) {
        let (ip, port) = (listener.address.ip(), listener.address.port());
        let protocol = if listener.transport == Transport::Udp { "udp" } else { "tcp" };
        let interface = interface_of(ip);
        let packet = Packet {
            family: Family::of(ip),
            hook: Hook::In,
            protocol,
            interface: interface.as_deref(),
            is_new: true,
        };
        if let Some(dropped) = rules.dropped(packet, &(port..=port)) {
            findings.push(Finding::error(
                "listener_blocked",
                format!("packets of clients to {} {port} are dropped by {}", listener.transport, dropped.by),
                format!("let them in before that: with nftables `{protocol} dport {port} accept`"),
            ));
        }
    }
    findings
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

fn accept(field: &str, ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    format!(
        "let them through before that: with nftables `udp {field} {first}-{last} accept`, with ufw `ufw allow \
         {first}:{last}/udp`"
    )
}

/// The name of the interface with this address.
fn interface_of(ip: IpAddr) -> Option<String> {
    let all = interfaces::addresses().ok()?;
    all.into_iter().find(|one| one.address == ip).map(|one| one.interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_they_are_dropped() {
        let shown = |ports: Vec<RangeInclusive<u16>>| shown(&Dropped { ports, by: String::new() });
        assert_eq!(shown(vec![50000..=50000, 60000..=60010]), "50000, 60000-60010");
        assert_eq!(shown((0..7).map(|port| port * 2..=port * 2).collect()), "0, 2, 4, 6, 8, others");
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
