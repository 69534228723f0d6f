//! Commands that let dropped packets through.

use std::ops::RangeInclusive;

use crate::base::family::Family;
use crate::doctor::firewall::{Dropped, Hook};
use crate::doctor::text::list;

/// Packets that a firewall must let through: a protocol, and ports of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// The ports.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// Returns the whole commands, for the tool whose rule drops the packets, and for ufw.
pub fn remedy(dropped: &Dropped, family: Family, hook: Hook, wanted: &[Wanted]) -> String {
    let commands = |of: &dyn Fn(&Wanted) -> String| list(&wanted.iter().map(of).collect::<Vec<_>>());
    let with_ufw = commands(&|one| ufw(hook, one));
    let (table, chain) = (&dropped.table, &dropped.chain);
    if table == "inet firewalld" && hook == Hook::In {
        let all = commands(&|one| firewalld(one));
        return format!("let them through: {all}, then `firewall-cmd --reload`");
    }
    // Tables of nftables have a family before their name.
    if table.contains(' ') {
        let all = commands(&|one| nft(table, chain, hook, one));
        return format!(
            "let them through before that: {all}, and in /etc/nftables.conf for the next start; with ufw {with_ufw}"
        );
    }
    let all = commands(&|one| iptables(table, chain, family, hook, one));
    format!("let them through before that: {all}, and in the saved rules; with ufw {with_ufw}")
}

fn field(hook: Hook) -> &'static str {
    match hook {
        Hook::In => "dport",
        Hook::Out => "sport",
    }
}

/// The ranges with this between their ends, and between two of them.
fn ranges(ports: &[RangeInclusive<u16>], to: char, between: &str) -> String {
    let one = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}{to}{last}"),
    };
    ports.iter().map(one).collect::<Vec<_>>().join(between)
}

fn nft(table: &str, chain: &str, hook: Hook, wanted: &Wanted) -> String {
    let ports = ranges(&wanted.ports, '-', ", ");
    let ports = if wanted.ports.len() > 1 { format!("{{ {ports} }}") } else { ports };
    format!("`nft insert rule {table} {chain} {} {} {ports} accept`", wanted.protocol, field(hook))
}

fn iptables(table: &str, chain: &str, family: Family, hook: Hook, wanted: &Wanted) -> String {
    let program = if family == Family::V4 { "iptables" } else { "ip6tables" };
    let table = if table == "filter" { String::new() } else { format!("-t {table} ") };
    let ports = ranges(&wanted.ports, ':', ",");
    let option = match wanted.ports.len() {
        0 | 1 => format!("--{}", field(hook)),
        _ => format!("-m multiport --{}s", field(hook)),
    };
    format!("`{program} {table}-I {chain} -p {} {option} {ports} -j ACCEPT`", wanted.protocol)
}

fn ufw(hook: Hook, wanted: &Wanted) -> String {
    let (protocol, ports) = (wanted.protocol, ranges(&wanted.ports, ':', ","));
    match hook {
        Hook::In => format!("`ufw allow {ports}/{protocol}`"),
        Hook::Out => format!("`ufw allow out proto {protocol} from any port {ports}`"),
    }
}

fn firewalld(wanted: &Wanted) -> String {
    let one =
        |range| format!("--add-port={}/{}", ranges(std::slice::from_ref(range), '-', ""), wanted.protocol);
    format!("`firewall-cmd --permanent {}`", wanted.ports.iter().map(one).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(table: &str, chain: &str, family: Family, hook: Hook, wanted: &[Wanted]) -> String {
        let (table, chain) = (table.to_owned(), chain.to_owned());
        remedy(&Dropped { ports: Vec::new(), by: String::new(), table, chain }, family, hook, wanted)
    }

    #[test]
    fn whole_commands_for_each_tool() {
        let relay = [Wanted { protocol: "udp", ports: vec![49152..=65535] }];
        let text = of("inet fw", "c", Family::V4, Hook::In, &relay);
        assert!(text.contains("`nft insert rule inet fw c udp dport 49152-65535 accept`"), "{text}");
        assert!(text.ends_with("with ufw `ufw allow 49152:65535/udp`"), "{text}");
        let text = of("inet fw", "o", Family::V4, Hook::Out, &relay);
        assert!(text.contains("`nft insert rule inet fw o udp sport 49152-65535 accept`"), "{text}");
        assert!(text.ends_with("with ufw `ufw allow out proto udp from any port 49152:65535`"), "{text}");
        let listeners = [
            Wanted { protocol: "udp", ports: vec![3479..=3479] },
            Wanted { protocol: "tcp", ports: vec![443..=443, 3479..=3479] },
        ];
        let text = of("ip f", "i", Family::V4, Hook::In, &listeners);
        assert!(text.contains(
            "i udp dport 3479 accept` and `nft insert rule ip f i tcp dport { 443, 3479 } accept`"
        ));
        assert!(text.ends_with("`ufw allow 3479/udp` and `ufw allow 443,3479/tcp`"), "{text}");
        let text = of("filter", "INPUT", Family::V6, Hook::In, &listeners);
        assert!(text.contains("`ip6tables -I INPUT -p udp --dport 3479 -j ACCEPT`"), "{text}");
        assert!(
            text.contains("`ip6tables -I INPUT -p tcp -m multiport --dports 443,3479 -j ACCEPT`"),
            "{text}"
        );
        let text = of("raw", "OUTPUT", Family::V4, Hook::Out, &relay);
        assert!(text.contains("`iptables -t raw -I OUTPUT -p udp --sport 49152:65535 -j ACCEPT`"), "{text}");
        let text = of("inet firewalld", "filter_INPUT", Family::V4, Hook::In, &listeners);
        assert!(text.contains("--permanent --add-port=443/tcp --add-port=3479/tcp`, then"), "{text}");
    }
}
