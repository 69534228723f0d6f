//! Every listener of the running server, up to data through it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::site::{Site, untested};
use crate::base::family::Family;
use crate::cli::live::Attempt;
use crate::cli::output::counted;
use crate::config::{Config, Listener};
use crate::doctor::check::Check;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::inspection::{Door, Inspection, Room, Seen};
use crate::doctor::login::Login;
use crate::doctor::outcome::{Outcome, Untested};
use crate::doctor::rung::Rung;
use crate::doctor::stage::{Cause, Stage};
use crate::doctor::text::list;
use crate::system::kernel_tables;
use crate::turn::settings::RelayAddress;

/// What to do if the server refuses everybody.
const DRAINS: &str = "`hallpass top --once` says whether it drains (then `hallpass drain --cancel` ends that), and `hallpass refusals` \
                      what it lacks";

/// The code of the finding that the server refuses a secret of the file.
const SECRET_NOT_LOADED: &str = "secret_not_loaded";
/// From more ways than this on, all of them are not listed.
const MANY: usize = 3;

/// Maximum number of listeners and of logins that are tried.
const DOORS_MAX: usize = 32;
const LOGINS_MAX: usize = 16;

/// Adds the listeners that can be reached from here, each with the first login, and the first listener with every other one.
pub fn plan(site: &Site<'_>, inspection: &mut Inspection) {
    inspection.logins = logins(site).into_iter().map(|(_, login)| login).collect();
    inspection.room = room(&site.config);
    let is_open = |listener: &&Listener| {
        // Of a process that this user cannot see, its answers tell whether it is the relay.
        let tried = site
            .tried
            .iter()
            .find(|tried| tried.line == Some(listener.line) && tried.address == listener.address);
        tried.is_some_and(|tried| match &tried.attempt {
            Attempt::Served { .. } => true,
            Attempt::Failed { error, holder: None } => {
                let is_denied = error.kind() == ErrorKind::PermissionDenied;
                error.kind() == ErrorKind::AddrInUse || is_denied && site.is_limited()
            }
            _ => false,
        })
    };
    let open: Vec<&Listener> = site.config.listen.iter().filter(is_open).collect();
    let doors = open
        .iter()
        .flat_map(|listener| places(site, listener).into_iter().map(|at| door(site, listener, at)));
    inspection.doors = doors.take(DOORS_MAX).collect();
    if let Some(first) = inspection.doors.first().cloned() {
        let others = (1..inspection.logins.len()).map(|login| Door { login, ..first.clone() });
        inspection.doors.extend(others.collect::<Vec<_>>());
    }
    let outside: Vec<Door> = site.relays.iter().filter_map(|relay| outside(site, &open, relay)).collect();
    inspection.doors.extend(outside);
}

/// What to try over loopback if nothing answers at this machine's own addresses, and no connection opens: strict rules for the
/// interface lo drop packets that the machine sends to itself there, and none of clients. `None` if something answered.
pub fn over_loopback(site: &Site<'_>, inspection: &Inspection, seen: &Seen) -> Option<Inspection> {
    let tried =
        || seen.doors.iter().filter(|(door, _)| door.login == 0 && !door.is_outside && !door.is_proxied);
    let is_shut = |outcome: &Outcome| {
        let cause = outcome.fault.as_ref().map(|fault| &fault.cause);
        !outcome.is_relay()
            && outcome.reached <= Some(Stage::Name)
            && matches!(cause, Some(Cause::NoAnswer(_)))
    };
    if site.hangs || tried().next().is_none() || !tried().all(|(_, outcome)| is_shut(outcome)) {
        return None;
    }
    let is_wildcard = |port: u16| {
        let mut listeners = site.config.listen.iter().filter(|one| one.address.port() == port);
        listeners.all(|one| one.address.ip().is_unspecified())
    };
    let mut doors: Vec<Door> = Vec::new();
    for (door, _) in
        tried().filter(|(door, _)| !door.address.ip().is_loopback() && is_wildcard(door.address.port()))
    {
        let loopback: IpAddr =
            if door.address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let door = Door { address: SocketAddr::new(loopback, door.address.port()), ..door.clone() };
        if !doors.contains(&door) {
            doors.push(door);
        }
    }
    let inspection = Inspection {
        logins: inspection.logins.clone(),
        room: inspection.room,
        doors,
        ..Inspection::default()
    };
    (!inspection.doors.is_empty()).then_some(inspection)
}

/// The note that takes the place of the first outcomes, if `second`, over loopback, has answers. Data between relayed addresses of
/// this machine meets the same rules, so its loss says nothing.
pub fn strict_loopback(second: &mut Seen) -> Option<Finding> {
    for (_, outcome) in &mut second.doors {
        outcome.fault = outcome.fault.take().filter(|fault| fault.cause != Cause::NoData);
    }
    second.doors.iter().any(|(_, outcome)| outcome.is_relay()).then(|| {
        untested(
            "own_packets_dropped",
            "rules of this machine drop what it sends to its own addresses, as strict rules for the interface lo do. That keeps no \
             client away; the listeners were tested at 127.0.0.1 and ::1 instead",
            "test from another machine, with what hallpass credentials --command doctor prints",
        )
    })
}

/// How many allocations the ports and the quotas leave room for.
fn room(config: &Config) -> Room {
    let least = |limits: &[u32]| {
        let least = limits.iter().copied().filter(|limit| *limit > 0).min();
        usize::try_from(least.unwrap_or(0)).unwrap_or(0)
    };
    let limits = &config.limits;
    let ports = u32::try_from(config.relay.ports.len()).unwrap_or(u32::MAX);
    Room {
        all: least(&[ports, limits.allocations_total]),
        each: least(&[limits.allocations_per_user, limits.allocations_per_host]),
    }
}

/// The hosts and users, with their names. First those whose users reach relayed addresses, so that data can be sent.
fn logins(site: &Site<'_>) -> Vec<(String, Login)> {
    let (limited, open): (Vec<_>, Vec<_>) = site.config.hosts.iter().partition(|host| host.peers.is_some());
    let of = |host: &crate::config::Host| {
        let secret = host.secrets.first()?.clone();
        Some((format!("host {}", host.name), Login::Secret(secret)))
    };
    let users = site.config.users.iter().filter(|user| user.host.is_none());
    let users = users.map(|user| {
        let login = Login::Fixed { name: user.name.clone(), password: user.password.clone() };
        (format!("user {}", user.name), login)
    });
    let hosts = |hosts: Vec<&crate::config::Host>| hosts.into_iter().filter_map(of).collect::<Vec<_>>();
    hosts(open).into_iter().chain(users).chain(hosts(limited)).take(LOGINS_MAX).collect()
}

/// The addresses of this machine at which a listener is reached: for a wildcard the best one of each family that it serves.
fn places(site: &Site<'_>, listener: &Listener) -> Vec<IpAddr> {
    let ip = listener.address.ip();
    if !ip.is_unspecified() {
        return vec![ip];
    }
    if !listener.proxies.is_empty() {
        // Only a source that is trusted gets in.
        let loopback =
            if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        return vec![loopback];
    }
    let serves = |family| Family::of(ip) == family || site.config.is_dual_stack(listener);
    let best = |family| {
        let relay = site.relays.iter().map(|relay| relay.local).find(|local| Family::of(*local) == family);
        let loopback: IpAddr =
            if family == Family::V4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        relay.or_else(|| site.machine.have(loopback).then_some(loopback))
    };
    Family::ALL.into_iter().filter(|family| serves(*family)).filter_map(best).collect()
}

fn door(site: &Site<'_>, listener: &Listener, ip: IpAddr) -> Door {
    let port = listener.address.port();
    let host = site.name().unwrap_or_else(|| ip.to_string());
    Door {
        rung: Rung { host, transport: listener.transport, port, is_given: true },
        address: SocketAddr::new(ip, port),
        login: 0,
        is_proxied: !listener.proxies.is_empty(),
        is_outside: false,
    }
}

/// An announced address that is not this machine's: the router must send packets to it back.
fn outside(site: &Site<'_>, open: &[&Listener], relay: &RelayAddress) -> Option<Door> {
    if relay.announced == relay.local || site.machine.have(relay.announced) {
        return None;
    }
    let fits = |listener: &&&Listener| listener.proxies.is_empty() && !listener.address.ip().is_loopback();
    let listener = open.iter().filter(fits).min_by_key(|listener| listener.transport)?;
    Some(Door { is_outside: true, ..door(site, listener, relay.announced) })
}

/// Judges the outcomes, and returns those of the listeners for the table. What `firewall` explains is not said again.
pub fn check(
    site: &Site<'_>,
    inspection: &Inspection,
    seen: &Seen,
    firewall: &Check,
) -> (Check, Vec<Outcome>) {
    let mut check = Check::of("listeners");
    let logins = logins(site);
    let here = || seen.doors.iter().filter(|(door, _)| door.login == 0 && !door.is_outside);
    let first = || here().filter(|(door, outcome)| !is_hidden(door, outcome));
    check.findings.extend(here().filter(|(door, outcome)| is_hidden(door, outcome)).map(|(door, _)| {
        untested(
            "listener_behind_proxy",
            format!("{} expects a proxy, and none of the trusted ones is on this machine", door.rung),
            "test it from outside, through the proxy: hallpass doctor turns:NAME --secret-file FILE",
        )
    }));
    let is_explained = firewall.severity() == Some(Severity::Error);
    // With whether the relay answers STUN there.
    let mut failures: Vec<(Vec<&Door>, &Cause, bool)> = Vec::new();
    for (door, outcome) in first() {
        let Some(fault) = &outcome.fault else { continue };
        let is_of_firewall = matches!(fault.cause, Cause::NoData | Cause::NoAnswer(_) | Cause::NotPermitted);
        if !(is_explained && is_of_firewall) {
            // What is wrong with several listeners is said once.
            let same = |(_, cause, answers): &&mut (Vec<&Door>, &Cause, bool)| {
                **cause == fault.cause && *answers == outcome.is_relay()
            };
            match failures.iter_mut().find(same) {
                Some((doors, ..)) => doors.push(door),
                None => failures.push((vec![door], &fault.cause, outcome.is_relay())),
            }
        }
    }
    let is_hung = does_not_answer(first().map(|(_, outcome)| outcome), site.hangs);
    if is_hung {
        failures.clear();
        if !site.hangs {
            let text = "connections to its listeners open, and nothing answers on them or over UDP";
            check.findings.push(hangs(site.running(), text));
        }
    }
    let whose = logins.first().map_or("", |(whose, _)| whose);
    let all = first().count();
    let is_closed = gives_nobody(first().map(|(_, outcome)| outcome));
    check.findings.extend(failures.iter().map(|(doors, cause, answers)| match cause {
        Cause::Full if is_closed => full(&places_of(doors, all), true),
        Cause::NoAnswer(_) if *answers => unanswered(&places_of(doors, all), cause, whose),
        cause => failure(site, (doors, all), cause, whose),
    }));
    let good = first().filter(|(_, outcome)| outcome.fault.is_none()).count();
    if good < all {
        check.elsewhere = firewall.severity();
    }
    if let Some((whose, _)) = logins.first().filter(|_| first().next().is_some()) {
        let data = if first().any(|(_, outcome)| outcome.reached == Some(Stage::Data)) {
            "carry data"
        } else {
            "give allocations"
        };
        check
            .facts
            .push(format!("{good} of {} {data} with the login of {whose}", counted(first().count(), "way")));
    }
    if !is_hung {
        others(&logins, seen, &mut check);
    }
    if site.not_loaded.matters() {
        said_by_difference(&mut check);
    }
    let limited = first().any(|(_, outcome)| outcome.untested == Some(Untested::PeersLimited));
    if limited {
        check.findings.push(untested(
            "data_not_tested",
            "the users of each host reach only the peers of that host, which is good, so no data was sent through the relay",
            "add a [[user]] without host for tests, or hold a test call",
        ));
    }
    let is_planned = !inspection.doors.is_empty();
    if !is_planned {
        check.findings.push(untested(
            "listeners_not_tested",
            "no listener is open, so none was tested",
            "start the server and run this command again",
        ));
    }
    let mut outcomes: Vec<Outcome> = first().map(|(_, outcome)| outcome.clone()).collect();
    outcomes.sort_by(|a, b| (&a.rung, a.route).cmp(&(&b.rung, b.route)));
    (check, outcomes)
}

/// That the server has not loaded the file explains that it refuses the secrets of the file.
fn said_by_difference(check: &mut Check) {
    let before = check.findings.len();
    check.findings.retain(|finding| finding.code != SECRET_NOT_LOADED);
    if check.findings.len() < before {
        check.elsewhere = Some(Severity::Error);
    }
}

/// Whether every way is silent, and not because of a firewall: connections open, or the control socket is silent as well.
fn does_not_answer<'a>(outcomes: impl Iterator<Item = &'a Outcome>, is_known: bool) -> bool {
    let (mut any, mut opens) = (false, is_known);
    for outcome in outcomes {
        let cause = outcome.fault.as_ref().map(|fault| &fault.cause);
        if outcome.is_relay() || !matches!(cause, Some(Cause::NoAnswer(_))) {
            return false;
        }
        any = true;
        opens |= outcome.rung.transport.is_stream() && outcome.reached >= Some(Stage::Tcp);
    }
    any && opens
}

/// The running server takes connections, and answers nothing.
pub fn hangs(running: Option<u32>, seen: &str) -> Finding {
    let pid = running.map_or_else(String::new, |pid| format!(" (pid {pid})"));
    let (state, step) = match running.filter(|pid| kernel_tables::is_stopped(*pid)) {
        Some(pid) => (". It is stopped by a signal", format!("kill -CONT {pid}")),
        None => (
            "",
            "see what it does: systemctl status hallpass, and its log. If it does not recover, systemctl restart hallpass, which ends \
             all calls"
                .to_owned(),
        ),
    };
    Finding::error("server_hangs", format!("the running server{pid} does not answer: {seen}{state}"), step)
}

/// Whether a listener behind a proxy let this machine in no further: it is none of the trusted ones.
fn is_hidden(door: &Door, outcome: &Outcome) -> bool {
    door.is_proxied && outcome.fault.as_ref().is_some_and(|fault| fault.stage <= Stage::Stun)
}

/// Judges the logins but the first.
fn others(logins: &[(String, Login)], seen: &Seen, check: &mut Check) {
    let (mut good, mut unanswered) = (Vec::new(), Vec::new());
    for (door, outcome) in seen.doors.iter().filter(|(door, _)| door.login > 0) {
        let Some((whose, _)) = logins.get(door.login) else { continue };
        let fault = outcome.fault.as_ref().filter(|fault| fault.stage <= Stage::Credentials);
        match fault {
            Some(fault) if is_refused(&fault.cause) => {
                check.findings.push(refused(&places_of(&[door], 1), &fault.cause, whose));
            }
            // Silence does not say that the secret is another one.
            Some(_) => unanswered.push(whose.clone()),
            None => good.push(whose.clone()),
        }
    }
    if !good.is_empty() {
        check.facts.push(format!("the login of {} is accepted, too", list(&good)));
    }
    if !unanswered.is_empty() {
        check.findings.push(Finding::warning(
            "login_unanswered",
            format!("the relay did not answer the login of {}, so it was not tested", list(&unanswered)),
            "run this command again when fewer requests arrive; `hallpass refusals` says which are dropped, and why",
        ));
    }
}

/// Whether the relay judged the login and refused it.
fn is_refused(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::WrongCredentials | Cause::NameWithoutTime | Cause::Expired(_) | Cause::ClockBehind(..)
    )
}

fn refused(places: &str, cause: &Cause, whose: &str) -> Finding {
    Finding::error(
        SECRET_NOT_LOADED,
        format!(
            "the login of {whose} in the configuration fails on {places}: {cause}. The running server has another configuration"
        ),
        "systemctl reload hallpass; its log says whether the configuration was accepted",
    )
}

/// The rungs with their addresses, each address once: `UDP 3478 and TLS 443 at 192.0.2.1`. If there are many and no other,
/// their number: `all 6 ways`.
fn places_of(doors: &[&Door], all: usize) -> String {
    if doors.len() == all && all > MANY {
        return format!("all {all} ways");
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for door in doors {
        if !addresses.contains(&door.address.ip()) {
            addresses.push(door.address.ip());
        }
    }
    let rungs = |ip: IpAddr| {
        let at = doors.iter().filter(|door| door.address.ip() == ip).map(|door| door.rung.to_string());
        format!("{} at {ip}", list(&at.collect::<Vec<_>>()))
    };
    list(&addresses.into_iter().map(rungs).collect::<Vec<_>>())
}

fn failure(site: &Site<'_>, (doors, all): (&[&Door], usize), cause: &Cause, whose: &str) -> Finding {
    let (places, ports) = (places_of(doors, all), &site.config.relay.ports);
    match cause {
        cause if is_refused(cause) => refused(&places, cause, whose),
        Cause::NoAnswer(_) | Cause::Refused | Cause::Unreachable | Cause::HostAway | Cause::NotPermitted => {
            Finding::error(
                "listener_silent",
                format!("{places}: no answer even to this machine itself ({cause})"),
                "a firewall on this machine may drop it: `nft list ruleset`; else the log of the server says what it lacks",
            )
        }
        Cause::NoData | Cause::NoLargeData(_) => Finding::error(
            "no_data",
            format!("{places}: {cause}, although both ends are on this machine"),
            format!(
                "a firewall on this machine may drop UDP {}-{}, the relay ports: `nft list ruleset`",
                ports.start(),
                ports.end()
            ),
        ),
        Cause::Full => full(&places, false),
        Cause::Quota => Finding::warning(
            "listener_full",
            format!("{places}: {cause}"),
            "another run of this command may go on; else `hallpass refusals` names the limit",
        ),
        Cause::Redirect(_) => Finding::warning("listener_full", format!("{places}: {cause}"), DRAINS),
        cause => Finding::error(
            "listener_fails",
            format!("{places}: {cause}"),
            "the log of the server says why: journalctl -u hallpass",
        ),
    }
}

/// The relay answers STUN and not the login: its limits drop requests, and no firewall does.
fn unanswered(places: &str, cause: &Cause, whose: &str) -> Finding {
    Finding::error(
        "login_unanswered",
        format!("{places}: the relay answers STUN, but not the login of {whose} ({cause})"),
        "it drops requests while more arrive than its limits allow: `hallpass refusals` says which, and why",
    )
}

/// Whether every way ends with 508: then no client has calls.
fn gives_nobody<'a>(mut outcomes: impl Iterator<Item = &'a Outcome>) -> bool {
    outcomes.all(|outcome| outcome.fault.as_ref().is_some_and(|fault| fault.cause == Cause::Full))
}

/// The relay lacks something, or drains. `is_closed`: it gives nobody an allocation.
fn full(places: &str, is_closed: bool) -> Finding {
    let next_step = DRAINS;
    let text = format!("{places}: {}", Cause::Full);
    match is_closed {
        true => {
            Finding::error("listener_full", format!("no listener gives an allocation. {text}"), next_step)
        }
        false => Finding::warning("listener_full", text, next_step),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;
    use crate::doctor::rung::Route;
    use crate::doctor::stage::Fault;

    #[test]
    fn each_way_is_named_once() {
        let doors: Vec<Door> = ["192.0.2.10:3478", "[::1]:3478", "192.0.2.10:443", "[::1]:443"]
            .map(|address| {
                let address: SocketAddr = address.parse().expect("literal");
                let rung = Rung {
                    host: "relay".to_owned(),
                    transport: Transport::Tcp,
                    port: address.port(),
                    is_given: true,
                };
                Door { rung, address, login: 0, is_proxied: false, is_outside: false }
            })
            .into();
        let all: Vec<&Door> = doors.iter().collect();
        assert_eq!(places_of(&all, 4), "all 4 ways");
        assert_eq!(places_of(&all, 5), "TCP 3478 and TCP 443 at 192.0.2.10 and TCP 3478 and TCP 443 at ::1");
        assert_eq!(places_of(&all[..1], 1), "TCP 3478 at 192.0.2.10");
    }

    /// Silence, as during a flood, is no proof of another configuration.
    #[test]
    fn only_a_refused_login_says_that_the_configuration_differs() {
        let login = || Login::Secret("s".to_owned());
        let logins: Vec<(String, Login)> =
            ["host a", "host b", "host c", "host d"].map(|whose| (whose.to_owned(), login())).into();
        let rung = Rung { host: "r".to_owned(), transport: Transport::Udp, port: 3479, is_given: true };
        let address: SocketAddr = "192.0.2.10:3479".parse().expect("literal");
        let seen = |login, cause: Option<Cause>| {
            let door = Door { rung: rung.clone(), address, login, is_proxied: false, is_outside: false };
            let fault = cause.map(|cause| Fault { stage: Stage::Credentials, cause });
            (door, Outcome { fault, ..Outcome::new(rung.clone(), Route::Direct(Family::V4), None) })
        };
        let silent = || Some(Cause::NoAnswer(std::time::Duration::from_secs(5)));
        let doors = vec![seen(1, silent()), seen(2, Some(Cause::WrongCredentials)), seen(3, silent())];
        let mut check = Check::of("listeners");
        others(&logins, &Seen { doors, ..Seen::default() }, &mut check);
        let codes: Vec<_> = check.findings.iter().map(|one| (one.code, one.severity)).collect();
        let expected = [("secret_not_loaded", Severity::Error), ("login_unanswered", Severity::Warning)];
        assert_eq!(codes, expected);
        assert!(check.findings[0].text.contains("host c"), "{check:?}");
        assert!(check.findings[1].text.contains("the login of host b and host d"), "{check:?}");
        let remedy = check.findings[1].remedy.as_deref().unwrap_or_default();
        assert!(remedy.contains("hallpass refusals") && !remedy.contains("reload"), "{remedy}");
    }

    /// A process that was stopped takes connections: the kernel does that.
    #[test]
    fn a_server_that_hangs_is_no_firewall() {
        let silent = Cause::NoAnswer(std::time::Duration::from_secs(5));
        let outcome = |transport, reached, cause: &Cause| {
            let host = "relay.example.org".to_owned();
            let rung = Rung { host, transport, port: 3478, is_given: true };
            let fault = Some(Fault { stage: Stage::Stun, cause: cause.clone() });
            Outcome { fault, reached, ..Outcome::new(rung, Route::Direct(Family::V4), None) }
        };
        let udp = outcome(Transport::Udp, Some(Stage::Name), &silent);
        let open = outcome(Transport::Tcp, Some(Stage::Tcp), &silent);
        let dropped = outcome(Transport::Tcp, Some(Stage::Name), &silent);
        assert!(does_not_answer([&udp, &open].into_iter(), false));
        assert!(!does_not_answer([&udp, &dropped].into_iter(), false), "a firewall may do that");
        assert!(does_not_answer([&udp, &dropped].into_iter(), true));
        let answered = outcome(Transport::Udp, Some(Stage::Stun), &silent);
        assert!(!does_not_answer([&answered, &open].into_iter(), true));
        assert!(!does_not_answer([&udp, &outcome(Transport::Tcp, None, &Cause::Refused)].into_iter(), true));
        assert!(!does_not_answer([].into_iter(), true));
        let found = hangs(None, "silence");
        assert_eq!((found.code, found.severity), ("server_hangs", Severity::Error));
        assert!(!found.text.contains("firewall") && !found.remedy.unwrap_or_default().contains("nft"));
    }

    /// A timer that runs the doctor must not stay green while no client gets an allocation.
    #[test]
    fn a_relay_that_gives_nobody_an_allocation_is_an_error() {
        let outcome = |cause: Option<Cause>| {
            let host = "relay.example.org".to_owned();
            let rung = Rung { host, transport: Transport::Udp, port: 3478, is_given: true };
            let fault = cause.map(|cause| Fault { stage: Stage::Allocation, cause });
            Outcome { fault, ..Outcome::new(rung, Route::Direct(Family::V4), None) }
        };
        let full_one = outcome(Some(Cause::Full));
        assert!(gives_nobody([&full_one, &full_one].into_iter()));
        assert!(!gives_nobody([&full_one, &outcome(None)].into_iter()));
        assert!(!gives_nobody([&full_one, &outcome(Some(Cause::Quota))].into_iter()));
        assert_eq!(full("UDP 3478", true).severity, Severity::Error);
        assert_eq!(full("UDP 3478", false).severity, Severity::Warning);
    }
}
