//! Checks a configuration against the addresses of this machine.
//!
//! A setting that can never work is an error. One that works once the machine has an address, or that may be intended, is a
//! warning.

use ipnet::IpNet;

use super::serve::relays::Relays;
use crate::base::family::Family;
use crate::base::network::shown;
use crate::config::{Config, OwnBackEnd, Problem, Report, Severity};
use crate::system::addresses::Addresses;
use crate::system::local_addresses::is_private;
use crate::turn::settings::RelayAddress;

/// Maximum number of prefixes that a message lists.
const LISTED: usize = 3;

/// Returns the problems of a configuration with these addresses. `file` is its name in messages.
pub fn check(config: &Config, machine: &Addresses, file: &str) -> Report {
    let mut report = Report { file: file.to_owned(), problems: Vec::new() };
    own_back_ends(config, machine, &mut report);
    if machine.is_whole {
        pairs(config, machine, &mut report);
        let relays = Relays::new(config, machine);
        announced(config, &relays, &mut report);
        peers(config, &relays, &mut report);
    }
    report
}

/// Like [`check`], for a server that is about to start. If this machine has none of the listeners' addresses, that is an
/// error: no client could connect.
pub fn before_start(config: &Config, machine: &Addresses, file: &str) -> Report {
    let mut report = check(config, machine, file);
    if config.listen.iter().all(|listener| !machine.may_have(listener.address.ip())) {
        let consequence = ", nor that of any other listener, so no client can connect";
        absent_listeners(config, machine, Severity::Error, consequence, &mut report);
    }
    report
}

/// Like [`before_start`], and warns about each listener whose address this machine does not have: a reload closes the one
/// that it replaces.
pub fn before_reload(config: &Config, machine: &Addresses, file: &str) -> Report {
    let mut report = before_start(config, machine, file);
    if !report.has_errors() {
        let consequence = ": it serves clients there as soon as it does";
        absent_listeners(config, machine, Severity::Warning, consequence, &mut report);
    }
    report
}

/// Like [`before_reload`], and adds the warnings about relay addresses that a running server logs.
pub fn in_full(config: &Config, machine: &Addresses, file: &str) -> Report {
    let mut report = before_reload(config, machine, file);
    if machine.is_whole {
        let relays = Relays::new(config, machine);
        let nothing = (!relays.serve()).then(|| Relays::NOTHING.to_owned());
        for message in relays.notes().iter().cloned().chain(nothing) {
            let remedy = "write addresses of this machine: `ip address` lists them";
            report.add(Severity::Warning, "relay.addresses", message, remedy);
        }
    }
    report
}

/// Returns the back ends that an address change made this relay's own listeners.
pub fn new_own_back_ends(config: &Config, before: &Addresses, after: &Addresses, file: &str) -> Report {
    let of = |machine| {
        let mut report = Report { file: file.to_owned(), problems: Vec::new() };
        own_back_ends(config, machine, &mut report);
        report
    };
    let (before, mut after) = (of(before), of(after));
    after.problems.retain(|problem| !before.problems.contains(problem));
    after
}

/// Reports every listener whose address this machine does not have.
fn absent_listeners(
    config: &Config,
    machine: &Addresses,
    severity: Severity,
    consequence: &str,
    report: &mut Report,
) {
    for listener in config.listen.iter().filter(|listener| !machine.may_have(listener.address.ip())) {
        let (transport, address) = (listener.transport, listener.address);
        report.problems.push(Problem {
            severity,
            line: (listener.line > 0).then_some(listener.line),
            key: "listen.address".to_owned(),
            message: format!("this machine does not have the address of {transport} {address}{consequence}"),
            remedy: "write an address of this machine: `ip address` lists them".to_owned(),
        });
    }
}

/// Reports back ends that are listeners of this relay.
fn own_back_ends(config: &Config, machine: &Addresses, report: &mut Report) {
    for OwnBackEnd { key, server, listener, from } in config.own_back_ends(|ip| machine.have(ip)) {
        report.problems.push(Problem {
            severity: Severity::Error,
            line: from.map(|from| from.line),
            key: key.to_owned(),
            message: format!(
                "{server} is this relay's own listener {} {}: it would forward to itself",
                listener.transport, listener.address
            ),
            remedy: OwnBackEnd::REMEDY.to_owned(),
        });
    }
}

/// Reports `external_ip` pairs whose private address this machine does not have.
fn pairs(config: &Config, machine: &Addresses, report: &mut Report) {
    for external in &config.external_ip {
        let public = external.public;
        let Some(private) = external.private else { continue };
        if machine.have(private) {
            if !is_private(private) && !private.is_loopback() && !machine.have(public) {
                report.add(
                    Severity::Warning,
                    "external_ip",
                    format!("{private} is a public address of this machine, and the server announces {public} in its place"),
                    "remove the pair, unless a router translates addresses in front of this machine",
                );
            }
            continue;
        }
        if machine.have(public) && !is_private(public) && !public.is_loopback() && is_private(private) {
            // Exchanged, the pair would announce the private one.
            report.add(
                Severity::Error,
                "external_ip",
                format!("{public} is an address of this machine itself, and {private} is none: nothing translates addresses here"),
                format!("remove \"{public}/{private}\": without it the server announces {public}"),
            );
        } else if machine.have(public) {
            report.add(
                Severity::Error,
                "external_ip",
                format!("{public} is an address of this machine, and {private} is not: the pair is swapped"),
                format!("write \"{private}/{public}\": the address that clients see comes first"),
            );
        } else {
            report.add(
                Severity::Warning,
                "external_ip",
                format!("this machine does not have {private}, so the server never announces {public}"),
                format!("write the address of this machine behind {public}: \"{public}/ADDRESS\""),
            );
        }
    }
}

/// Warns about each family in which every announced address is private or loopback.
fn announced(config: &Config, relays: &Relays, report: &mut Report) {
    if config.listen.iter().all(|listener| listener.address.ip().is_loopback()) {
        return;
    }
    let serving = serving(config, relays);
    for family in Family::ALL {
        let all: Vec<_> = serving.iter().filter(|relay| Family::of(relay.announced) == family).collect();
        let is_inner = |relay: &&RelayAddress| is_private(relay.announced) || relay.announced.is_loopback();
        if let Some(first) = all.first().filter(|_| all.iter().all(is_inner)) {
            let RelayAddress { local, announced, .. } = first;
            // In place of a public address: `pairs` reports that.
            if announced != local && !is_private(*local) && !local.is_loopback() {
                continue;
            }
            report.add(
                Severity::Warning,
                "external_ip",
                format!("the server announces {announced}, which is reachable only from its own network"),
                format!(
                    "behind 1:1 NAT write the address that clients outside see, before the first [section]: external_ip = \
                     [\"PUBLIC/{local}\"]"
                ),
            );
        }
    }
}

/// Returns the relay addresses that the clients of the listeners get. Addresses for clients on this machine count only if
/// every listener is on loopback.
fn serving(config: &Config, relays: &Relays) -> Vec<RelayAddress> {
    let is_local = config.listen.iter().all(|listener| listener.address.ip().is_loopback());
    relays.addresses().into_iter().filter(|relay| is_local || !relay.only_local).collect()
}

/// Warns about peers of a family in which this relay has no address.
fn peers(config: &Config, relays: &Relays, report: &mut Report) {
    let serving = serving(config, relays);
    if serving.is_empty() {
        return;
    }
    let of_hosts = config
        .hosts
        .iter()
        .filter_map(|host| Some(("host.peers", format!(" of host {:?}", host.name), host.peers.as_deref()?)));
    let of_all = [("peers.allow", String::new(), config.peers.allow.as_slice())];
    for (key, whose, peers) in of_hosts.chain(of_all) {
        for family in Family::ALL {
            if serving.iter().any(|relay| Family::of(relay.local) == family) {
                continue;
            }
            let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
            // A prefix of length 0 means everything and names no peer in particular.
            let fits = |net: &&IpNet| Family::of(net.addr()) == family && net.prefix_len() > 0;
            let unreached: Vec<String> = peers.iter().filter(fits).map(shown).collect();
            if unreached.is_empty() {
                continue;
            }
            let more = unreached.len().saturating_sub(LISTED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let listed = unreached[..unreached.len().min(LISTED)].join(", ");
            report.add(
                Severity::Warning,
                key,
                format!(
                    "no client reaches the peers {listed}{more}{whose}: this relay has no {name} address"
                ),
                format!("give this machine an {name} address, or remove these peers"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::system::local_addresses::LocalAddress;

    const HOST: &str = "[[host]]\nname='h'\nsecret='0123456789abcdef'\n";

    fn machine() -> Addresses {
        let own = ["127.0.0.0/8", "::1/128", "203.0.113.10/32", "2001:db8::10/128"];
        let address = |text: &str| LocalAddress {
            address: text.parse().expect("literal"),
            passing: false,
            leads_out: true,
            preferred: true,
        };
        Addresses {
            own: own.map(|net| net.parse().expect("literal")).into(),
            local: ["203.0.113.10", "2001:db8::10", "127.0.0.1", "::1"].map(address).into(),
            is_whole: true,
        }
    }

    /// A machine with this address and loopback only.
    fn alone(address: &str) -> Addresses {
        let mut machine = machine();
        machine.local.remove(1);
        machine.local[0].address = address.parse().expect("literal");
        machine.own.truncate(2);
        machine.own.push(machine.local[0].address.into());
        machine
    }

    fn problems(text: &str) -> Vec<String> {
        let loaded = config::parse(&format!("{text}{HOST}"), "f", Path::new("")).expect("good in itself");
        check(&loaded.config, &machine(), "f").texts().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_back_end_at_our_own_listener_is_refused_however_it_is_written() {
        let shared = |listen: &str, server: &str| {
            problems(&format!(
                "[[listen]]\ntransport='tls'\naddress='{listen}'\nweb=true\n[web]\nproxy_protocol='v1'\n\
                 passthrough={{'bbb.example.org'='{server}'}}\n"
            ))
        };
        for (listen, server) in [
            ("0.0.0.0:443", "203.0.113.10:443"),
            ("[::]:443", "203.0.113.10:443"),
            ("[::]:443", "[2001:db8::10]:443"),
            ("0.0.0.0:443", "[::ffff:203.0.113.10]:443"),
        ] {
            let told = shared(listen, server);
            assert_eq!(told.len(), 1, "{listen} {server}: {told:?}");
            let told = &told[0];
            assert!(told.starts_with("f: error: web.passthrough: "), "{told}");
            assert!(
                told.contains(&format!("own listener tls {listen}: it would forward to itself")),
                "{told}"
            );
        }
        for (listen, server) in [
            ("0.0.0.0:443", "203.0.113.11:443"),
            ("0.0.0.0:443", "203.0.113.10:444"),
            ("0.0.0.0:443", "[2001:db8::10]:443"),
            ("203.0.113.10:443", "127.0.0.1:443"),
        ] {
            assert_eq!(shared(listen, server), [""; 0], "{listen} {server}");
        }
    }

    #[test]
    fn a_back_end_that_becomes_our_own_listener_is_told_once() {
        let text = "[[listen]]\ntransport='tls'\naddress='0.0.0.0:443'\nweb=true\n[web]\nproxy_protocol='v1'\n\
            passthrough={'bbb.example.org'='203.0.113.10:443'}\n";
        let config = config::parse(&format!("{text}{HOST}"), "f", Path::new("")).expect("good").config;
        let (before, after) = (alone("203.0.113.11"), machine());
        let told = new_own_back_ends(&config, &before, &after, "f").to_string();
        assert!(told.contains("203.0.113.10:443 is this relay's own listener tls 0.0.0.0:443"), "{told}");
        assert!(new_own_back_ends(&config, &after, &after, "f").problems.is_empty());
        assert!(new_own_back_ends(&config, &after, &before, "f").problems.is_empty());
    }

    #[test]
    fn the_http3_server_is_a_back_end_too() {
        let udp = |quic: &str| {
            let text = format!("[[listen]]\ntransport='udp'\naddress='[::]:443'\nquic='{quic}'\n{HOST}");
            config::parse(&text, "f", Path::new(""))
        };
        for quic in ["127.0.0.1:443", "[::1]:443", "0.0.0.0:443"] {
            let refused =
                udp(quic).expect_err("loopback is known without the machine's addresses").to_string();
            assert!(
                refused.contains(&format!("f:3: error: listen.quic: {quic} is this relay's")),
                "{refused}"
            );
        }
        let told = check(&udp("203.0.113.10:443").expect("good").config, &machine(), "f").to_string();
        assert!(told.starts_with("f:3: error: listen.quic: 203.0.113.10:443 is this relay's"), "{told}");
        assert!(!check(&udp("127.0.0.1:8443").expect("good").config, &machine(), "f").has_errors());
    }

    const ANY: &str = "[[listen]]\ntransport='udp'\naddress='[::]:3478'\n";

    /// Returns the problems that [`in_full`] reports on this machine.
    fn reported(top: &str, listen: &str, more: &str, machine: &Addresses) -> Vec<String> {
        let text = format!("{top}\n{listen}{HOST}{more}");
        let loaded = config::parse(&text, "f", Path::new("")).expect("good in itself");
        in_full(&loaded.config, machine, "f").texts().map(|(_, text)| text).collect()
    }

    #[track_caller]
    fn assert_reported(reported: &[String], expected: &[&[&str]]) {
        let fits = reported.len() == expected.len()
            && reported
                .iter()
                .zip(expected)
                .all(|(text, parts)| parts.iter().all(|part| text.contains(part)));
        assert!(fits, "{expected:?}: {reported:#?}");
    }

    #[test]
    fn a_good_configuration_has_no_problems() {
        assert_reported(&reported("", ANY, "", &machine()), &[]);
        let pairs = "external_ip = ['198.51.100.9/203.0.113.10']";
        assert_reported(
            &reported(
                "external_ip = ['198.51.100.9/10.0.0.5']",
                ANY,
                "peers=['10.1.1.1']",
                &alone("10.0.0.5"),
            ),
            &[],
        );
        let gaps = Addresses { is_whole: false, ..Addresses::default() };
        let named = "[relay]\naddresses=['203.0.113.77']\n";
        assert_reported(&reported(pairs, ANY, named, &gaps), &[]);
    }

    #[test]
    fn an_external_ip_pair_without_an_address_of_this_machine_is_reported() {
        let swapped = "external_ip = ['203.0.113.10/198.51.100.9']";
        let found = reported(swapped, ANY, "", &machine());
        assert_reported(
            &found,
            &[&["f: error: external_ip: ", "swapped", "write \"198.51.100.9/203.0.113.10\""]],
        );
        let late = "external_ip = ['198.51.100.9/10.0.0.5']";
        let found = reported(late, ANY, "", &machine());
        assert_reported(&found, &[&["warning: external_ip: this machine does not have 10.0.0.5"]]);
    }

    /// A leftover of the machine that the relay ran on before.
    #[test]
    fn another_address_in_place_of_a_public_one_is_a_warning() {
        for announced in ["198.51.100.9", "10.9.9.9"] {
            let pair = format!("external_ip = ['{announced}/203.0.113.10']");
            let found = reported(&pair, ANY, "", &machine());
            let text = format!(
                "203.0.113.10 is a public address of this machine, and the server announces {announced}"
            );
            assert_reported(&found, &[&[text.as_str(), "remove the pair"]]);
        }
    }

    #[test]
    fn announcing_a_private_address_is_a_warning() {
        let found = reported("", ANY, "", &alone("10.0.0.5"));
        assert_reported(
            &found,
            &[&["warning: external_ip: the server announces 10.0.0.5", "PUBLIC/10.0.0.5"]],
        );
        assert_reported(&reported("external_ip = ['198.51.100.9']", ANY, "", &alone("10.0.0.5")), &[]);
        let found = reported("external_ip = ['192.168.1.9']", ANY, "", &alone("10.0.0.5"));
        assert_reported(&found, &[&["the server announces 192.168.1.9", "PUBLIC/10.0.0.5"]]);
        // Clients on this machine only.
        let local = "[[listen]]\ntransport='udp'\naddress='127.0.0.1:3478'\n";
        assert_reported(&reported("", local, "", &alone("10.0.0.5")), &[]);
    }

    #[test]
    fn an_address_that_this_machine_does_not_have_is_reported() {
        let absent = "[[listen]]\ntransport='tcp'\naddress='203.0.113.77:3478'\n";
        let found = reported("", absent, "", &machine());
        assert_reported(
            &found,
            &[
                &["f:4: error: listen.address: ", "of tcp 203.0.113.77:3478, nor that of any other"],
                &["warning: relay.addresses: 203.0.113.77 is not an address of this machine now"],
                &["warning: relay.addresses: this machine has no address to relay from"],
            ],
        );
        let found = reported("", &format!("{ANY}{absent}"), "", &machine());
        assert_reported(
            &found,
            &[
                &["f:7: warning: listen.address: ", "serves clients there as soon as it does"],
                &["warning: relay.addresses: 203.0.113.77 is not an address of this machine now"],
            ],
        );
        let reload = |listen: &str| {
            let loaded =
                config::parse(&format!("{listen}{HOST}"), "f", Path::new("")).expect("good in itself");
            before_reload(&loaded.config, &machine(), "f").texts().map(|(_, text)| text).collect::<Vec<_>>()
        };
        // A reload says what the next start says.
        assert_reported(&reload(absent), &[&["f:3: error: listen.address: ", "nor that of any other"]]);
        assert_reported(&reload(&format!("{ANY}{absent}")), &[&["f:6: warning: listen.address: "]]);
        let named = "[relay]\naddresses=['203.0.113.10','2001:db8::77']\n";
        let found = reported("", ANY, named, &machine());
        assert_reported(&found, &[&["relay.addresses: 2001:db8::77 is not an address of this machine now"]]);
    }

    #[test]
    fn peers_of_a_family_that_the_relay_lacks_are_named() {
        let peers =
            "peers=['198.51.100.20','2001:db8:3::1','2001:db8:3::2','2001:db8:4::/64','2001:db8:5::1']\n";
        let found = reported("", ANY, peers, &alone("203.0.113.10"));
        assert_reported(
            &found,
            &[&[
                "warning: host.peers: no client reaches the peers 2001:db8:3::1, 2001:db8:3::2, 2001:db8:4::/64 and 1 more \
             of host \"h\": this relay has no IPv6 address",
            ]],
        );
        let allowed = "[peers]\nallow=['10.2.0.0/16','::/0']\n";
        let found = reported("", ANY, allowed, &alone("2001:db8::10"));
        assert_reported(
            &found,
            &[&["peers.allow: no client reaches the peers 10.2.0.0/16: this relay has no IPv4"]],
        );
    }
}
