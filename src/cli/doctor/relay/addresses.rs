//! Which addresses the relay announces, why, and whether they come back to it.

use std::io;
use std::net::IpAddr;

use super::routes;
use super::site::{Site, is_reached_directly, problems, untested};
use crate::config;
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::stage::{Cause, Stage};
use crate::doctor::text::list;
use crate::system::local_addresses::is_private;
use crate::turn::settings::RelayAddress;

/// Judges the addresses. `here` compares the configuration with this machine.
pub fn check(site: &Site<'_>, seen: &Seen, here: &config::Report, incomplete: Option<io::Error>) -> Check {
    let mut check = Check::of("addresses");
    for relay in &site.relays {
        let fact = format!("announces {} ({})", relay.announced, reason(site, relay));
        if !check.facts.contains(&fact) {
            check.facts.push(fact);
        }
    }
    let returned = seen.doors.iter().filter(|(door, outcome)| door.is_outside && outcome.fault.is_none());
    check.facts.extend(returned.map(|(door, _)| format!("{} leads back to this relay", door.address.ip())));
    check.findings = problems("addresses", here);
    // Said more precisely below, with the address that the name has.
    let precise = no_external_ip(site, seen);
    if precise.is_some() {
        check.findings.retain(|finding| !finding.text.contains("reachable only from its own network"));
    }
    check.findings.extend(precise);
    check.findings.extend(replaced(site, seen));
    if let Some(error) = incomplete {
        check.findings.push(untested(
            "addresses_not_tested",
            format!(
                "cannot list this machine's addresses ({error}), so the configured ones were not checked"
            ),
            "run this command as root",
        ));
    }
    check.findings.extend(outside(seen));
    check.findings.extend(routes::check(site));
    if !site.not_loaded.matters() {
        check.findings.extend(relayed_elsewhere(&site.relays, seen));
    }
    check
}

/// The running server gives clients another address than the file announces.
fn relayed_elsewhere(relays: &[RelayAddress], seen: &Seen) -> Option<Finding> {
    let is_expected = |ip: IpAddr| ip.is_loopback() || relays.iter().any(|relay| relay.announced == ip);
    let doors = seen.doors.iter().filter(|(door, _)| !door.is_outside);
    let relayed = doors.filter_map(|(_, outcome)| outcome.relayed).map(|relayed| relayed.ip());
    let given = relayed.filter(|_| !relays.is_empty()).find(|ip| !is_expected(*ip))?;
    let mut announced: Vec<String> = Vec::new();
    for relay in relays.iter().filter(|relay| relay.announced.is_ipv4() == given.is_ipv4()) {
        let one = relay.announced.to_string();
        if !announced.contains(&one) {
            announced.push(one);
        }
    }
    let announced = if announced.is_empty() { "no such address".to_owned() } else { list(&announced) };
    Some(Finding::error(
        "relayed_elsewhere",
        format!(
            "the running server gives clients relayed addresses at {given}, and by this file it would announce {announced}: the file \
             differs from what the server runs"
        ),
        "hallpass reload applies the file, and no call ends; then run this command again",
    ))
}

/// Why the relay announces this address.
fn reason(site: &Site<'_>, relay: &RelayAddress) -> String {
    let local = relay.local;
    if relay.announced != local {
        return format!("external_ip for {local}");
    }
    if site.config.relay.addresses.contains(&local) {
        return "in [relay] addresses".to_owned();
    }
    if site.config.listen.iter().any(|listener| listener.address.ip() == local) {
        return "the address of a listener".to_owned();
    }
    "this machine's address towards the Internet".to_owned()
}

/// A private address is announced although the relay's name leads to a public one: the router translates it.
fn no_external_ip(site: &Site<'_>, seen: &Seen) -> Option<Finding> {
    let name = site.args.public_name.as_deref()?;
    let lookup = seen.names.iter().find(|lookup| lookup.name == name)?;
    let public = |ip: &&IpAddr| !is_private(**ip) && !ip.is_loopback() && !site.is_ours(**ip);
    let public = lookup.addresses.as_ref().ok()?.iter().find(public)?;
    // That is the address of a proxy in front of all listeners: media does not come that way.
    if !site.config.listen.iter().any(is_reached_directly) {
        return None;
    }
    let same_family = |relay: &&RelayAddress| relay.announced.is_ipv4() == public.is_ipv4();
    let relay = site.relays.iter().find(same_family).filter(|relay| is_private(relay.announced))?;
    // A swapped pair is reported by itself.
    let is_swapped = |external: &config::ExternalIp| {
        external.private.is_some_and(|private| !site.machine.have(private))
            && site.machine.have(external.public)
    };
    if site.config.external_ip.iter().any(is_swapped) {
        return None;
    }
    let why = match site.config.external_ip.is_empty() {
        true => "there is no external_ip",
        false => "external_ip has no pair for it",
    };
    Some(Finding::error(
        "no_external_ip",
        format!(
            "{name} is at {public}, and the relay announces {}, which no machine outside can reach: a router translates \
             addresses (NAT), and {why}",
            relay.announced
        ),
        format!("write external_ip = [\"{public}/{}\"] before the first [section], and reload", relay.local),
    ))
}

/// The relay's name leads to a public address of this machine, and another one is announced in its place.
fn replaced(site: &Site<'_>, seen: &Seen) -> Option<Finding> {
    let name = site.args.public_name.as_deref()?;
    let lookup = seen.names.iter().find(|lookup| lookup.name == name)?;
    let own = lookup.addresses.as_deref().ok()?;
    let own = own.iter().copied().filter(|ip| site.machine.have(*ip));
    instead(name, own, &site.relays)
}

fn instead(name: &str, own: impl Iterator<Item = IpAddr>, relays: &[RelayAddress]) -> Option<Finding> {
    let mut public = own.filter(|ip| !is_private(*ip) && !ip.is_loopback());
    let relay =
        public.find_map(|ip| relays.iter().find(|relay| relay.local == ip && relay.announced != ip))?;
    let RelayAddress { local, announced, .. } = relay;
    Some(Finding::error(
        "external_ip_wrong",
        format!(
            "{name} is at {local}, a public address of this machine, and the relay announces {announced} in its place: peers send media \
             there"
        ),
        format!("remove the entry for {local} from external_ip, and reload"),
    ))
}

/// Judges the answers of announced addresses that are not this machine's own.
fn outside(seen: &Seen) -> Vec<Finding> {
    let doors = seen.doors.iter().filter(|(door, _)| door.is_outside);
    doors
        .filter_map(|(door, outcome)| {
            let (ip, fault) = (door.address.ip(), outcome.fault.as_ref()?);
            let is_another = matches!(
                fault.cause,
                Cause::WrongCredentials | Cause::NameWithoutTime | Cause::NotTurn(_) | Cause::BadAnswer(_) | Cause::Untrusted(_)
            );
            if is_another || fault.stage == Stage::Credentials {
                return Some(Finding::error(
                    "external_ip_elsewhere",
                    format!("at {ip}, which is in external_ip, something else answers on {}: {}", door.rung, fault.cause),
                    "write the address that this machine has outside, or let the router forward all relay ports to it",
                ));
            }
            (outcome.reached < Some(Stage::Stun)).then(|| {
                untested(
                    "external_ip_not_tested",
                    format!(
                        "packets from here to {ip}, which is in external_ip, do not come back. Many routers do not send \
                         packets back inside (hairpin NAT); or the address is wrong"
                    ),
                    "test from another network, with what hallpass credentials --command doctor prints",
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::family::Family;
    use crate::base::transport::Transport;
    use crate::doctor::inspection::Door;
    use crate::doctor::outcome::Outcome;
    use crate::doctor::rung::{Route, Rung};

    #[test]
    fn an_own_public_address_needs_no_other_one() {
        let relay = |local: &str, announced: &str| {
            let (local, announced) = (local.parse().unwrap(), announced.parse().unwrap());
            [RelayAddress { local, announced, only_local: false }]
        };
        let told = |own: &str, relays: &[RelayAddress]| {
            instead("relay.example.org", [own.parse().unwrap()].into_iter(), relays)
        };
        for wrong in ["203.0.113.200", "10.9.9.9"] {
            let found = told("192.0.2.10", &relay("192.0.2.10", wrong)).expect("an error");
            assert_eq!(found.code, "external_ip_wrong");
            assert!(found.text.contains(&format!("announces {wrong} in its place")), "{found:?}");
            assert!(found.remedy.unwrap_or_default().starts_with("remove the entry for 192.0.2.10"));
        }
        assert_eq!(told("192.0.2.10", &relay("192.0.2.10", "192.0.2.10")), None);
        // Split DNS: inside, the name leads to the private address of a machine behind NAT.
        assert_eq!(told("10.0.0.5", &relay("10.0.0.5", "203.0.113.9")), None);
    }

    #[test]
    fn the_server_gives_what_the_file_announces() {
        let relays = |announced: &str| {
            let (local, announced) = ("11.38.0.1".parse().unwrap(), announced.parse().unwrap());
            [RelayAddress { local, announced, only_local: false }]
        };
        let seen = |relayed: &str| {
            let rung = Rung { host: "r".to_owned(), transport: Transport::Udp, port: 3479, is_given: true };
            let address = "11.38.0.1:3479".parse().unwrap();
            let relayed = Some(relayed.parse().unwrap());
            let outcome = Outcome { relayed, ..Outcome::new(rung.clone(), Route::Direct(Family::V4), None) };
            let door = Door { rung, address, login: 0, is_proxied: false, is_outside: false };
            Seen { doors: vec![(door, outcome)], ..Seen::default() }
        };
        let found = relayed_elsewhere(&relays("203.0.113.9"), &seen("11.38.0.1:50000")).expect("an error");
        assert!(
            found.text.contains("at 11.38.0.1, and by this file it would announce 203.0.113.9"),
            "{found:?}"
        );
        assert!(found.remedy.is_some_and(|remedy| remedy.contains("hallpass reload")));
        assert_eq!(relayed_elsewhere(&relays("203.0.113.9"), &seen("203.0.113.9:50000")), None);
        assert_eq!(relayed_elsewhere(&relays("11.38.0.1"), &seen("127.0.0.1:50000")), None);
    }
}
