//! What `iptables-save` and `ip6tables-save` print.

use std::ops::RangeInclusive;

use super::{Chain, Hook, Match, Rule, Ruleset, Set, Verdict};
use crate::base::family::Family;

/// Extensions whose options are read here, or that restrict nothing.
const KNOWN: [&str; 8] = ["udp", "tcp", "multiport", "conntrack", "state", "comment", "icmp", "icmp6"];
/// Targets that do not decide.
const HARMLESS: [&str; 9] =
    ["LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TRACE", "CHECKSUM", "DSCP"];

/// Reads the rules for one family.
pub fn parse(text: &str, family: Family) -> Ruleset {
    let mut rules = Ruleset::default();
    let mut table = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            let hook = match (table.as_str(), name) {
                // Chains of table nat see packets only to translate them.
                ("nat", _) => None,
                (_, "INPUT" | "PREROUTING") => Some(Hook::In),
                (_, "OUTPUT" | "POSTROUTING") => Some(Hook::Out),
                _ => None,
            };
            let chain = Chain { hook, policy_drops: policy == "DROP", rules: vec![other_family(family)] };
            rules.chains.insert((table.clone(), name.to_owned()), chain);
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let Some((name, options)) = words.split_first() else { continue };
            let shown = format!("rule `-A {rest}` in table {table}");
            rules.has_untracked |= options.iter().any(|option| matches!(&**option, "--notrack" | "NOTRACK"));
            if let Some(chain) = rules.chains.get_mut(&(table.clone(), name.clone())) {
                chain.rules.push(rule(options, shown));
            }
        }
    }
    rules
}

/// The chains of one family drop nothing of the other one.
fn other_family(family: Family) -> Rule {
    let other = Family::ALL.into_iter().filter(|one| *one != family).collect();
    Rule { matches: vec![Match::Family(Set::of(other))], verdict: Verdict::Accept, shown: String::new() }
}

/// Divides a line into words; a word in quotation marks may contain blanks.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted, mut is_escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if is_escaped => {
                word.push(c);
                is_escaped = false;
            }
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

fn rule(options: &[String], shown: String) -> Rule {
    let mut rule = Rule { matches: Vec::new(), verdict: Verdict::Continue, shown };
    let mut is_not = false;
    let mut options = options.iter().map(String::as_str);
    while let Some(option) = options.next() {
        if option == "!" {
            is_not = true;
            continue;
        }
        let words = |members| Set { is_not, members };
        let numbers = |members| Set { is_not, members };
        let mut list = || options.next().unwrap_or_default();
        let known = match option {
            "-p" => Some(Match::Protocol(words(vec![list().to_owned()]))),
            "-i" | "-o" => Some(Match::Interface(words(vec![list().to_owned()]))),
            "--dport" | "--dports" => ports(list()).map(|ports| Match::Destination(numbers(ports))),
            "--sport" | "--sports" => ports(list()).map(|ports| Match::Source(numbers(ports))),
            "--ctstate" | "--state" => {
                let states = list().split(',').map(str::to_ascii_lowercase).collect();
                Some(Match::State(words(states)))
            }
            "-m" if KNOWN.contains(&list()) => continue,
            "--comment" => {
                list();
                continue;
            }
            "-j" => {
                rule.verdict = verdict(list());
                continue;
            }
            "-g" => {
                rule.verdict = Verdict::Goto(list().to_owned());
                continue;
            }
            // Options of a target come after it.
            _ if rule.verdict != Verdict::Continue => break,
            _ => None,
        };
        rule.matches.push(known.unwrap_or(Match::Unknown));
        is_not = false;
    }
    rule
}

fn verdict(target: &str) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        "QUEUE" | "NFQUEUE" | "TPROXY" => Verdict::Unknown,
        harmless if HARMLESS.contains(&harmless) => Verdict::Continue,
        chain => Verdict::Jump(chain.to_owned()),
    }
}

/// Reads `80`, `49152:65535`, `80,443` and `:1023`.
fn ports(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let port = |text: &str, absent: u16| if text.is_empty() { Some(absent) } else { text.parse().ok() };
    let range = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        Some(port(first, 0)?..=port(last, u16::MAX)?)
    };
    text.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Dropped, Packet};
    use super::*;

    /// ufw as `iptables-save` shows it, shortened, with these rules of the administrator.
    fn ufw(rules: &str) -> Ruleset {
        let text = format!(
            "# Generated by iptables-save v1.8.9 (nf_tables) on Sat Nov 28 22:00:00 2026\n\
             *filter\n:INPUT DROP [12:720]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :ufw-before-input - [0:0]\n:ufw-user-input - [0:0]\n:ufw-not-local - [0:0]\n\
             -A INPUT -j ufw-before-input\n\
             -A ufw-before-input -i lo -j ACCEPT\n\
             -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n\
             -A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT\n\
             -A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT\n\
             -A ufw-before-input -j ufw-not-local\n\
             -A ufw-before-input -j ufw-user-input\n\
             -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN\n\
             -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix \"[UFW BLOCK] \"\n\
             -A ufw-not-local -j DROP\n\
             {rules}COMMIT\n"
        );
        parse(&text, Family::V4)
    }

    fn dropped(rules: &Ruleset, family: Family) -> Option<Dropped> {
        let packet =
            Packet { family, hook: Hook::In, protocol: "udp", interface: Some("eth0"), is_new: true };
        rules.dropped(packet, &(49152..=65535))
    }

    #[test]
    fn ufw_that_lets_only_the_listeners_in() {
        let listener = "-A ufw-user-input -p udp -m udp --dport 3478 -j ACCEPT\n\
            -A ufw-user-input -p tcp -m multiport --dports 443,3478 -m comment --comment \"the relay's\" -j ACCEPT\n";
        let found = dropped(&ufw(listener), Family::V4).expect("dropped");
        assert_eq!(
            (found.ports, &*found.by),
            (vec![49152..=65535], "the policy of chain INPUT in table filter")
        );
        assert_eq!(dropped(&ufw(listener), Family::V6), None, "these are the rules for IPv4");
        let range = "-A ufw-user-input -p udp -m udp --dport 49152:65535 -j ACCEPT\n";
        assert_eq!(dropped(&ufw(range), Family::V4), None);
        let from = "-A ufw-user-input -s 203.0.113.0/24 -p udp -m udp --dport 49152:65535 -j ACCEPT\n";
        assert_eq!(dropped(&ufw(from), Family::V4), None, "some clients may pass");
    }

    #[test]
    fn rules_that_drop() {
        let rules =
            |rules: &str| parse(&format!("*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n"), Family::V4);
        let drop = "-A INPUT -p udp -m udp --dport 50000: -j DROP\n";
        let found = dropped(&rules(drop), Family::V4).expect("dropped");
        assert_eq!(found.ports, [50000..=65535]);
        assert_eq!(found.by, "rule `-A INPUT -p udp -m udp --dport 50000: -j DROP` in table filter");
        let others = "-A INPUT ! -i eth0 -p udp -j DROP\n-A INPUT -p udp -m limit --limit 5/min -j DROP\n\
            -A INPUT -p udp -j LOG --log-prefix \"a b\"\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n";
        assert_eq!(dropped(&rules(others), Family::V4), None);
    }

    #[test]
    fn packets_may_be_untracked_if_a_rule_exempts_them_from_tracking() {
        let filter = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT\nCOMMIT\n";
        assert!(dropped(&parse(filter, Family::V4), Family::V4).is_some());
        for exempt in ["-j CT --notrack", "-j NOTRACK"] {
            let raw =
                format!("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp {exempt}\nCOMMIT\n{filter}");
            assert_eq!(dropped(&parse(&raw, Family::V4), Family::V4), None, "{exempt}");
        }
    }

    #[test]
    fn any_text_is_read() {
        assert_eq!(parse("", Family::V4), Ruleset::default());
        parse(
            "*\n:\n: a\n-A\n-A x\n*filter\n:INPUT DROP\n-A INPUT -p\n-A INPUT ! -m\n-A INPUT \"",
            Family::V4,
        );
    }
}
