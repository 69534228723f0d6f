//! The names under which clients reach the relay.

use std::net::IpAddr;

use super::site::{Site, once, untested};
use crate::base::family::Family;
use crate::config::Listener;
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::name::Lookup;
use crate::doctor::stage::Cause;

/// The names to look up: the relay's, those in BigBlueButton's list, and those of other relays.
pub fn wanted(site: &Site<'_>) -> Vec<String> {
    let args = site.args;
    let of_xml = site.xml.iter().flat_map(|xml| xml.hosts());
    once(args.public_name.iter().chain(&args.other_relay).cloned().chain(of_xml))
}

/// The names in `hosts` that are this relay's: the given one, and those that lead to this machine.
pub fn ours(site: &Site<'_>, seen: &Seen, hosts: &[String]) -> Vec<String> {
    let is_ours = |host: &&String| {
        let leads_here = |lookup: &Lookup| {
            lookup
                .addresses
                .as_ref()
                .is_ok_and(|all| all.iter().any(|ip| site.is_ours(*ip) && !ip.is_loopback()))
        };
        Some(*host) == site.args.public_name.as_ref()
            || seen.names.iter().any(|lookup| lookup.name == **host && leads_here(lookup))
    };
    hosts.iter().filter(is_ours).cloned().collect()
}

/// Whether an address may be that of a proxy or load balancer in front of the relay: a listener trusts it, or clients reach
/// every listener elsewhere.
fn is_of_proxy(listeners: &[Listener], ip: IpAddr) -> bool {
    let trusts = |listener: &Listener| listener.proxies.iter().any(|network| network.contains(&ip));
    listeners.iter().any(trusts) || listeners.iter().all(|listener| listener.public.is_some())
}

fn elsewhere(name: &str, stranger: IpAddr) -> Finding {
    Finding::error(
        "name_elsewhere",
        format!("{name} is at {stranger}, which is neither an address of this machine nor in external_ip"),
        "correct the DNS. If a router that translates addresses (NAT) has that one, write it as external_ip. If a proxy or load \
         balancer has it, write proxy_protocol and public for the listeners behind it, and no external_ip: media does not come \
         that way",
    )
}

/// Judges where the public name leads.
pub fn check(site: &Site<'_>, seen: &Seen) -> Check {
    let mut check = Check::of("name");
    let Some(name) = &site.args.public_name else {
        check.findings.push(untested(
            "name_not_tested",
            "the name under which clients reach the relay is not known",
            "write it as --public-name NAME",
        ));
        return check;
    };
    let Some(lookup) = seen.names.iter().find(|lookup| lookup.name == *name) else { return check };
    let addresses = match &lookup.addresses {
        Ok(addresses) => addresses,
        Err(Cause::NoNameServer) => {
            check.findings.push(untested(
                "name_not_tested",
                format!("no name server (DNS) answers this machine, so the address of {name} is not known"),
                "correct /etc/resolv.conf",
            ));
            return check;
        }
        Err(cause) => {
            check.findings.push(Finding::error(
                "name_unknown",
                format!("the address of {name} cannot be found here: {cause}"),
                "add it to the DNS, or correct --public-name",
            ));
            return check;
        }
    };
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    check.facts.push(format!("{name} is {}", all.join(", ")));
    // Debian's installer writes the name of a machine with 127.0.1.1 into that file.
    if addresses.iter().all(IpAddr::is_loopback) && name != "localhost" {
        check.findings.push(untested(
            "name_not_tested",
            format!(
                "on this machine {name} is {}, so it is not known where it leads outside",
                all.join(", ")
            ),
            "remove the name from /etc/hosts, or test from another network: hallpass doctor turn:NAME",
        ));
        return check;
    }
    let strangers: Vec<&IpAddr> = addresses.iter().filter(|ip| !site.is_ours(**ip)).collect();
    // Behind NAT without external_ip, that is what is reported.
    let is_translated =
        site.relays.iter().all(|relay| crate::system::local_addresses::is_private(relay.announced));
    let is_known = site.machine.is_whole && !is_translated;
    if let Some(stranger) = strangers.first().filter(|_| is_known) {
        if is_of_proxy(&site.config.listen, **stranger) {
            check.facts.push(format!("{stranger} is a proxy in front of this relay"));
        } else {
            check.findings.push(elsewhere(name, **stranger));
        }
    }
    for family in Family::ALL {
        let has = addresses.iter().any(|ip| Family::of(*ip) == family);
        let listens = site.config.listen.iter().any(|listener| {
            let ip = listener.address.ip();
            Family::of(ip) == family || site.config.is_dual_stack(listener)
        });
        if has && !listens {
            let shown = if family == Family::V4 { "IPv4" } else { "IPv6" };
            check.findings.push(Finding::error(
                "family_not_served",
                format!(
                    "{name} has an {shown} address, and no listener serves {shown}: such clients get no answer"
                ),
                format!("add listeners on an {shown} address, or remove that address from the DNS"),
            ));
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;

    /// `external_ip` with the address of a load balancer would send media there, and it forwards no UDP.
    #[test]
    fn the_name_of_a_load_balancer_is_no_fault() {
        let listener = |transport| Listener::new(transport, "11.38.0.1:5349".parse().unwrap(), 1);
        let [balancer, other]: [IpAddr; 2] = ["11.38.0.2", "203.0.113.9"].map(|ip| ip.parse().unwrap());
        let proxies = vec!["11.38.0.2/32".parse().unwrap()];
        let behind = Listener { proxies, ..listener(Transport::Tls) };
        let beside = [behind.clone(), listener(Transport::Udp)];
        assert!(is_of_proxy(&beside, balancer) && !is_of_proxy(&beside, other));
        let elsewhere_only = [Listener { public: Some(Vec::new()), ..listener(Transport::Tls) }];
        assert!(is_of_proxy(&elsewhere_only, other));
        assert!(!is_of_proxy(&[listener(Transport::Udp)], other));
        let remedy = elsewhere("relay.example.org", other).remedy.unwrap_or_default();
        assert!(remedy.contains("If a proxy or load balancer has it, write proxy_protocol"), "{remedy}");
    }
}
