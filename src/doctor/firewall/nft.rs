//! What `nft -j list ruleset` prints (libnftables-json(5)).

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::{Chain, Hook, Match, Rule, Ruleset, Set, Verdict};
use crate::base::family::Family;

/// Statements that neither decide nor restrict.
const HARMLESS: [&str; 5] = ["counter", "log", "mangle", "notrack", "continue"];

/// Reads a ruleset. `None` if the text is no JSON of nft.
pub fn parse(text: &str) -> Option<Ruleset> {
    let document: Value = serde_json::from_str(text).ok()?;
    let objects = document.get("nftables")?.as_array()?;
    let mut rules = Ruleset::default();
    let table = |object: &Value| Some(format!("{} {}", word(object, "family")?, word(object, "table")?));
    // Chains of arp and bridge see no packet of the relay.
    // The kernel does not run the chains of a dormant table. One flag is a string, several are a list. nft 1.0.6 prints the name of
    // the table instead of the flag, so a flag that is not known counts as this one.
    let is_dormant = |object: &Value| {
        let is_other = |flag: &Value| flag == "owner" || flag == "persist";
        object.get("flags").and_then(members).is_some_and(|flags| !flags.iter().all(is_other))
    };
    let dormant: Vec<_> = objects
        .iter()
        .filter_map(|object| object.get("table"))
        .filter(|object| is_dormant(object))
        .map(|object| (word(object, "family"), word(object, "name")))
        .collect();
    let is_ours = |object: &Value| {
        matches!(word(object, "family"), Some("inet" | "ip" | "ip6"))
            && !dormant.contains(&(word(object, "family"), word(object, "table")))
    };
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let is_at_card = matches!(word(chain, "hook"), Some("ingress" | "egress"));
        if let Some(table) = table(chain).filter(|table| is_at_card && !rules.at_card.contains(table)) {
            rules.at_card.push(table);
        }
    }
    for chain in objects.iter().filter_map(|object| object.get("chain")).filter(|chain| is_ours(chain)) {
        let (Some(table), Some(name)) = (table(chain), word(chain, "name")) else { continue };
        // Chains of type nat see packets only to translate them.
        let hook = match (word(chain, "type"), word(chain, "hook")) {
            (Some("nat"), _) => None,
            (_, Some("input" | "prerouting")) => Some(Hook::In),
            (_, Some("output" | "postrouting")) => Some(Hook::Out),
            _ => None,
        };
        let policy_drops = word(chain, "policy") == Some("drop");
        rules.chains.insert((table, name.to_owned()), Chain { hook, policy_drops, rules: Vec::new() });
    }
    for rule in objects.iter().filter_map(|object| object.get("rule")).filter(|rule| is_ours(rule)) {
        let (Some(table), Some(name)) = (table(rule), word(rule, "chain")) else { continue };
        let shown = format!(
            "the rule with handle {} (nft -a list chain {table} {name})",
            rule.get("handle").unwrap_or(&Value::Null)
        );
        let family = match word(rule, "family") {
            Some("ip") => vec![Match::Family(Set::of(vec![Family::V4]))],
            Some("ip6") => vec![Match::Family(Set::of(vec![Family::V6]))],
            _ => Vec::new(),
        };
        let statements = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        rules.has_untracked |= statements.iter().any(|statement| statement.get("notrack").is_some());
        if let Some(chain) = rules.chains.get_mut(&(table, name.to_owned())) {
            chain.rules.extend(read(statements, family, &shown));
        }
    }
    Some(only_families(rules))
}

/// A chain of a table for one family drops nothing of the other one, not even by its policy.
fn only_families(mut rules: Ruleset) -> Ruleset {
    for ((table, _), chain) in &mut rules.chains {
        let other = match table.split(' ').next() {
            Some("ip") => Family::V6,
            Some("ip6") => Family::V4,
            _ => continue,
        };
        let matches = vec![Match::Family(Set::of(vec![other]))];
        chain.rules.insert(0, Rule { matches, verdict: Verdict::Accept, shown: String::new() });
    }
    rules
}

/// Reads the statements of a rule; those with a verdict map are several rules here.
fn read(statements: &[Value], mut matches: Vec<Match>, shown: &str) -> Vec<Rule> {
    let rule =
        |matches: &[Match], verdict| Rule { matches: matches.to_vec(), verdict, shown: shown.to_owned() };
    for statement in statements {
        let Some((name, content)) = statement.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        match name.as_str() {
            "match" => matches.extend(condition(content)),
            "vmap" => {
                let entries = content.get("data").and_then(members).unwrap_or_default();
                let of_entry = |entry: &Value| {
                    let (key, member) = (content.get("key")?, entry.get(0)?);
                    let restricted = condition(&json!({ "op": "==", "left": key, "right": member }));
                    let verdict = verdict(entry.get(1)?).unwrap_or(Verdict::Unknown);
                    Some(rule(&[matches.clone(), restricted].concat(), verdict))
                };
                let all: Vec<Rule> = entries.iter().filter_map(of_entry).collect();
                // A named map, whose entries are listed elsewhere.
                return if all.is_empty() { vec![rule(&matches, Verdict::Unknown)] } else { all };
            }
            harmless if HARMLESS.contains(&harmless) => {}
            _ => match verdict(statement) {
                Some(verdict) => return vec![rule(&matches, verdict)],
                // limit, xt, set and others may restrict.
                None => matches.push(Match::Unknown),
            },
        }
    }
    Vec::new()
}

/// Reads a statement that decides.
fn verdict(statement: &Value) -> Option<Verdict> {
    let (name, content) = statement.as_object()?.iter().next()?;
    let target = || word(content, "target").unwrap_or_default().to_owned();
    Some(match name.as_str() {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        "return" => Verdict::Return,
        "queue" => Verdict::Unknown,
        _ => return None,
    })
}

/// Reads a match statement.
fn condition(content: &Value) -> Vec<Match> {
    let is_not = match word(content, "op") {
        Some("==" | "in") | None => false,
        Some("!=") => true,
        _ => return vec![Match::Unknown],
    };
    let (Some(left), Some(right)) = (content.get("left"), content.get("right")) else {
        return vec![Match::Unknown];
    };
    let words =
        || members(right).map(|all| Set { is_not, members: all.iter().map(shown).collect::<Vec<_>>() });
    let ports = || {
        let all: Option<Vec<_>> = members(right)?.iter().map(range).collect();
        Some(Set { is_not, members: all? })
    };
    let or_unknown = |known: Option<Match>| known.unwrap_or(Match::Unknown);
    if let Some(payload) = left.get("payload") {
        let (protocol, field) = (word(payload, "protocol").unwrap_or_default(), word(payload, "field"));
        let field = or_unknown(match field {
            Some("dport") => ports().map(Match::Destination),
            Some("sport") => ports().map(Match::Source),
            Some("protocol" | "nexthdr") => words().map(protocols),
            _ => None,
        });
        // A match on a field of a header also requires that protocol.
        return match protocol {
            "th" => vec![field],
            "ip" => vec![Match::Family(Set::of(vec![Family::V4])), field],
            "ip6" => vec![Match::Family(Set::of(vec![Family::V6])), field],
            other => vec![Match::Protocol(Set::of(vec![other.to_owned()])), field],
        };
    }
    if let Some(key) = left.get("meta").and_then(|meta| word(meta, "key")) {
        return vec![or_unknown(match key {
            "l4proto" => words().map(protocols),
            "iifname" | "iif" | "oifname" | "oif" => words().map(Match::Interface),
            "nfproto" => words().map(|set| {
                let family = |name: &String| if name == "ipv6" { Family::V6 } else { Family::V4 };
                Match::Family(Set { is_not: set.is_not, members: set.members.iter().map(family).collect() })
            }),
            _ => None,
        })];
    }
    let is_state = left.get("ct").and_then(|ct| word(ct, "key")) == Some("state");
    vec![or_unknown(if is_state { words().map(Match::State) } else { None })]
}

/// Protocols have names or numbers.
fn protocols(set: Set<String>) -> Match {
    let name = |number: String| match number.as_str() {
        "17" => "udp".to_owned(),
        "6" => "tcp".to_owned(),
        _ => number,
    };
    Match::Protocol(Set { is_not: set.is_not, members: set.members.into_iter().map(name).collect() })
}

/// The members of a right-hand side; `None` if they are in a named set.
fn members(right: &Value) -> Option<Vec<Value>> {
    let all = match right {
        Value::Array(all) => all.clone(),
        Value::Object(object) if object.contains_key("set") => object.get("set")?.as_array()?.clone(),
        one => vec![one.clone()],
    };
    let is_named = |one: &Value| one.as_str().is_some_and(|name| name.starts_with('@'));
    (!all.iter().any(is_named)).then_some(all)
}

fn range(value: &Value) -> Option<RangeInclusive<u16>> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => Some(port(first)?..=port(last)?),
        Some(_) => None,
        None => port(value).map(|port| port..=port),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn word<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::super::{Dropped, Packet};
    use super::*;

    /// A ruleset as nft 1.0.6 prints it: an input chain with these rules and this policy.
    fn rules(policy: &str, expressions: &[&str]) -> Ruleset {
        let rules: Vec<String> = expressions
            .iter()
            .zip(1..)
            .map(|(expr, handle)| {
                format!(
                    r#"{{"rule": {{"family": "inet", "table": "f", "chain": "i", "handle": {handle}, "expr": [{expr}]}}}}"#
                )
            })
            .collect();
        let text = format!(
            r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}},
            {{"table": {{"family": "inet", "name": "f", "handle": 1}}}},
            {{"chain": {{"family": "inet", "table": "f", "name": "i", "type": "filter", "hook": "input", "prio": 0, "policy": "{policy}"}}}},
            {}]}}"#,
            rules.join(",")
        );
        parse(text.trim_end_matches(", ]}")).unwrap_or_else(|| panic!("{text}"))
    }

    /// As nft 1.0.6 prints `table netdev n { chain c { type filter hook ingress device eth0 priority 0; udp dport 3479 drop; } }`.
    #[test]
    fn chains_at_the_network_card_are_named() {
        let text = r#"{"nftables": [{"table": {"family": "netdev", "name": "n", "handle": 2}},
            {"chain": {"family": "netdev", "table": "n", "name": "c", "handle": 1, "dev": "eth0", "type": "filter", "hook": "ingress",
            "prio": 0, "policy": "accept"}},
            {"chain": {"family": "inet", "table": "f", "name": "i", "type": "filter", "hook": "input", "prio": 0, "policy": "accept"}}]}"#;
        let found = parse(text).expect("JSON of nft");
        assert_eq!((found.at_card, found.chains.len()), (vec!["netdev n".to_owned()], 1));
        assert_eq!(rules("accept", &[LOOPBACK]).at_card, Vec::<String>::new());
    }

    const PACKET: Packet<'static> =
        Packet { family: Family::V4, hook: Hook::In, protocol: "udp", interface: Some("eth0"), is_new: true };
    const ESTABLISHED: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}"#;
    const LOOPBACK: &str =
        r#"{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "lo"}}, {"accept": null}"#;
    const STATES: &str = r#"{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": null}], ["established", {"accept": null}]]}}}"#;

    fn udp(field: &str, ports: &str, then: &str) -> String {
        format!(
            r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "udp", "field": "{field}"}}}}, "right": {ports}}}}}, {{"{then}": null}}"#
        )
    }

    fn dropped(rules: &Ruleset) -> Option<Dropped> {
        rules.dropped(PACKET, &(49152..=65535))
    }

    #[test]
    fn a_policy_that_forgets_the_relayed_addresses() {
        let listener = udp("dport", "3478", "accept");
        let found = dropped(&rules("drop", &[ESTABLISHED, LOOPBACK, STATES, &listener])).expect("dropped");
        assert_eq!(found.ports, [49152..=65535]);
        assert_eq!(found.by, "the policy of chain i in table inet f");
        let range = udp("dport", r#"{"range": [49152, 65535]}"#, "accept");
        assert_eq!(dropped(&rules("drop", &[ESTABLISHED, &range])), None);
        let half = udp("dport", r#"{"set": [3478, {"range": [49152, 60000]}]}"#, "accept");
        assert_eq!(dropped(&rules("drop", &[&half])).map(|found| found.ports), Some(vec![60001..=65535]));
    }

    #[test]
    fn only_the_ports_that_are_dropped_are_named() {
        let two = udp("dport", r#"{"set": [50000, 60000, {"range": [61000, 61010]}]}"#, "drop");
        let found = dropped(&rules("accept", &[&two])).expect("dropped");
        assert_eq!(found.ports, [50000..=50000, 60000..=60000, 61000..=61010]);
    }

    /// A rule for packets without connection tracking, as busy UDP servers have it.
    #[test]
    fn packets_may_be_untracked_if_a_rule_exempts_them_from_tracking() {
        let accept = ESTABLISHED.replace("\"related\"", "\"related\", \"untracked\"");
        assert!(dropped(&rules("drop", &[&accept])).is_some(), "nothing is untracked");
        let exempt = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": {"range": [1024, 65535]}}}, {"notrack": null}"#;
        assert_eq!(dropped(&rules("drop", &[exempt, &accept])), None);
        assert!(
            dropped(&rules("drop", &[exempt, ESTABLISHED])).is_some(),
            "neither new nor untracked may pass"
        );
    }

    #[test]
    fn answers_pass_a_rule_for_established_connections() {
        let rules = rules("drop", &[ESTABLISHED]);
        let answer = Packet { is_new: false, ..PACKET };
        assert!(dropped(&rules).is_some());
        assert_eq!(rules.dropped(answer, &(49152..=65535)), None);
    }

    #[test]
    fn a_dormant_table_drops_nothing() {
        let text = |flags: &str| {
            format!(
                r#"{{"nftables": [{{"table": {{"family": "inet", "name": "f", "handle": 1{flags}}}}},
                {{"chain": {{"family": "inet", "table": "f", "name": "i", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}}}]}}"#
            )
        };
        let of = |flags: &str| dropped(&parse(&text(flags)).expect("a ruleset"));
        assert!(of("").is_some() && of(r#", "flags": "owner""#).is_some());
        assert_eq!(of(r#", "flags": "f""#), None, "nft 1.0.6");
        assert_eq!(of(r#", "flags": "dormant""#), None);
        assert_eq!(of(r#", "flags": ["dormant", "owner"]"#), None);
    }

    #[test]
    fn a_rule_that_drops_the_relayed_addresses() {
        let range = udp("dport", r#"{"range": [40000, 65535]}"#, "drop");
        let found = dropped(&rules("accept", &[LOOPBACK, &range])).expect("dropped");
        assert_eq!(found.by, "the rule with handle 2 (nft -a list chain inet f i)");
        let tcp = range.replace("udp", "tcp");
        assert_eq!(dropped(&rules("accept", &[&tcp])), None);
        let source = udp("sport", "53", "drop");
        assert_eq!(dropped(&rules("accept", &[&source])), None, "the sender's port may be another one");
    }

    #[test]
    fn what_may_be_accepted_is_not_reported() {
        for maybe in [
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}, {"accept": null}"#,
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": "@media"}}, {"accept": null}"#,
            r#"{"limit": {"rate": 5, "burst": 5, "per": "second"}}, {"accept": null}"#,
            r#"{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}"#,
            r#"{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@zones"}}"#,
            r#"{"jump": {"target": "elsewhere"}}"#,
        ] {
            assert_eq!(dropped(&rules("drop", &[maybe])), None, "{maybe}");
        }
        let tcp_from_somewhere = r#"{"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}, {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.1"}}, {"accept": null}"#;
        assert!(dropped(&rules("drop", &[tcp_from_somewhere])).is_some());
    }

    #[test]
    fn other_text_is_no_ruleset() {
        assert_eq!(parse("table ip filter {"), None);
        assert_eq!(parse("{}"), None);
        assert_eq!(parse(r#"{"nftables": [{"metainfo": {}}]}"#), Some(Ruleset::default()));
    }
}
