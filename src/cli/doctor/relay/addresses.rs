//! Which addresses the relay announces, why, and whether they come back to it.

use std::io;
use std::net::IpAddr;

use super::site::{Site, problems, untested};
use crate::cli::loaded;
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
    if !loaded::matters(&site.not_loaded) {
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
    let same_family = |relay: &&RelayAddress| relay.announced.is_ipv4() == public.is_ipv4();
    let relay = site.relays.iter().find(same_family).filter(|relay| is_private(relay.announced))?;
    Some(Finding::error(
        "no_external_ip",
        format!(
            "{name} is at {public}, and the relay announces {}, which no machine outside can reach: a router translates \
             addresses (NAT), and there is no external_ip",
            relay.announced
        ),
        format!("write external_ip = [\"{public}/{}\"], and reload", relay.local),
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
                    "test from another network: hallpass doctor turn:NAME --secret-file FILE",
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
