//! Reports of made-up runs: the verdict, the texts and their width.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::diagnosis::diagnose;
use super::exchange::Exchange;
use super::finding::{Addressee, Severity};
use super::json::json;
use super::letter::letter;
use super::markdown::markdown;
use super::name::Lookup;
use super::outcome::{Outcome, Untested};
use super::report::Report;
use super::rung::{Route, Rung, rungs};
use super::stage::{Cause, Fault, Stage};
use super::table::table;
use super::tls::{Certificate, Verdict};
use crate::base::family::Family;
use crate::base::transport::Transport;
use crate::cert::{Description, DistinguishedName};

const HOST: &str = "relay.example.org";
const RELAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const SILENT: Cause = Cause::NoAnswer(Duration::from_secs(5));

fn found(address: IpAddr) -> Lookup {
    Lookup { name: HOST.to_owned(), addresses: Ok(vec![address]), took: Duration::from_millis(3) }
}

fn given() -> Vec<Rung> {
    let urls = [
        "turn:relay.example.org:3478",
        "turn:relay.example.org:3478?transport=tcp",
        "turns:relay.example.org:443",
    ];
    rungs(&urls.map(|url| url.parse().unwrap()), true)
}

fn outcome(rung: &Rung, route: Route) -> Outcome {
    let address = (route != Route::Proxy).then(|| SocketAddr::new(RELAY, rung.port));
    let mut outcome = Outcome::new(rung.clone(), route, address);
    outcome.local = Some("10.0.0.7:40000".parse().unwrap());
    outcome
}

fn fails(rung: &Rung, route: Route, reached: Stage, stage: Stage, cause: Cause) -> Outcome {
    let fault = Some(Fault { stage, cause });
    Outcome { reached: Some(reached), fault, ..outcome(rung, route) }
}

fn works(rung: &Rung, route: Route) -> Outcome {
    let ms = Duration::from_millis;
    let trip = Some([ms(12), ms(14), ms(60)]);
    let mut outcome = Outcome { reached: Some(Stage::Data), ..outcome(rung, route) };
    outcome.exchange = Some(Exchange { small: [60, 60], large: [12, 12], trip });
    outcome.mapped = Some("203.0.113.9:40000".parse().unwrap());
    outcome
}

fn certificate(verdict: Verdict) -> Certificate {
    let name = |name: &str| DistinguishedName { common_name: Some(name.to_owned()), organization: None };
    let leaf = Description {
        subject: name(HOST),
        issuer: name("School Filter CA"),
        names: vec![HOST.to_owned()],
        not_before: 1_790_000_000,
        not_after: 1_797_000_000,
        is_self_issued: verdict == Verdict::SelfSigned,
    };
    Certificate { chain: vec![leaf], verdict }
}

/// What rungs do first when a firewall drops everything.
fn dropped(rung: &Rung, route: Route) -> Outcome {
    let stage = if rung.transport == Transport::Udp { Stage::Stun } else { Stage::Tcp };
    fails(rung, route, Stage::Name, stage, SILENT)
}

/// Judges the outcomes and checks what holds for every report: the width, no control characters, valid JSON.
fn report(lookups: Vec<Lookup>, outcomes: Vec<Outcome>) -> Report {
    let proxy = outcomes.iter().any(|outcome| outcome.route == Route::Proxy);
    let proxy = proxy.then(|| "http://proxy.school.example:3128".to_owned());
    let diagnosis = diagnose(&lookups, &outcomes, proxy.as_deref());
    let report = Report {
        relay: None,
        lookups,
        proxy,
        outcomes,
        diagnosis,
        begun: 1_795_000_000,
        took: Duration::from_secs(5),
    };
    let (human, ticket) = (table(&report), markdown(&report));
    for line in human.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for line in letter(&report).unwrap_or_default().lines() {
        assert!(line.chars().count() <= 72, "{line}");
    }
    let text = |c: char| c == '\n' || !c.is_control();
    assert!(human.chars().all(text) && ticket.chars().all(text));
    let value: serde_json::Value = serde_json::from_str(&json(&report)).unwrap();
    assert_eq!(value["works"], report.diagnosis.works);
    report
}

/// The verdict of these outcomes, with what the table says.
fn verdict(lookups: Vec<Lookup>, outcomes: Vec<Outcome>) -> (&'static str, String) {
    let report = report(lookups, outcomes);
    (report.diagnosis.findings[0].code, table(&report))
}

const DIRECT: Route = Route::Direct(Family::V4);

#[test]
fn an_open_network() {
    let all: Vec<Outcome> = given().iter().map(|rung| works(rung, DIRECT)).collect();
    let report = report(vec![found(RELAY)], all);
    assert!(report.diagnosis.works && report.diagnosis.findings.len() == 1, "{:?}", report.diagnosis);
    assert_eq!((report.diagnosis.findings[0].code, letter(&report)), ("works", None));
}

#[test]
fn without_udp_the_letter_asks_for_it() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let all = vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), works(tls, DIRECT)];
    let report = report(vec![found(RELAY)], all);
    assert!(report.diagnosis.works);
    assert_eq!(report.diagnosis.findings[0].code, "works_without_udp");
    let letter = letter(&report).unwrap();
    for part in [
        "relay.example.org (192.0.2.1)",
        "UDP port 3478: the best way",
        "TCP port 443 (TLS)",
        "10.0.0.7, seen by the relay as 203.0.113.9",
        "UDP 3478 to 192.0.2.1: STUN: no answer in 5 s",
    ] {
        let letter = letter.replace("\n  ", " ").replace('\n', " ");
        assert!(letter.contains(part), "{part} in {letter}");
    }
}

#[test]
fn what_is_said_about_udp_is_what_was_seen() {
    let [udp, _, tls] = &given()[..] else { panic!("three rungs") };
    let text = |others: Vec<Outcome>| {
        let all = others.into_iter().chain([works(tls, DIRECT)]).collect();
        report(vec![found(RELAY)], all).diagnosis.findings[0].text.clone()
    };
    let usual = Rung { is_given: false, ..udp.clone() };
    let refused = |rung: &Rung| fails(rung, DIRECT, Stage::Name, Stage::Stun, Cause::Refused);
    assert!(text(vec![]).contains("was not tested"));
    assert!(text(vec![refused(udp)]).contains("does not let UDP through"));
    assert!(text(vec![refused(&usual)]).contains("is refused: the relay does not offer it, or"));
    assert!(text(vec![dropped(&usual, DIRECT)]).contains("gets no answer"));
    let large = fails(udp, DIRECT, Stage::Permission, Stage::Data, Cause::NoLargeData(1200));
    assert!(text(vec![large]).contains("reaches the relay, but fails then"));
}

/// Limits of the relay are no fault of the network: it is not asked to open ports that are open.
#[test]
fn limits_of_the_relay_are_not_the_networks() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let of = |all: Vec<Outcome>| {
        let report = report(vec![found(RELAY)], all);
        let verdict = report.diagnosis.findings[0].clone();
        (verdict.code, verdict.text, report.diagnosis.addressee)
    };
    let reset = |rung: &Rung| fails(rung, DIRECT, Stage::Name, Stage::Tcp, Cause::Reset);
    let (code, text, addressee) = of(vec![reset(tcp), reset(tls)]);
    assert_eq!((code, addressee), ("reset", Some(Addressee::Relay)));
    assert!(text.contains("(TCP 3478 and TLS 443) are opened and reset at once"), "{text}");
    assert!(text.contains("hallpass top") && !text.contains("UDP"), "{text}");
    // The SYN-ACK may win, and then the first write or read meets the reset.
    let late = |rung: &Rung, stage, cause| fails(rung, DIRECT, Stage::Tcp, stage, cause);
    for all in [
        vec![late(tcp, Stage::Stun, Cause::Reset), late(tls, Stage::Tls, Cause::Reset)],
        vec![late(tcp, Stage::Stun, Cause::Closed), reset(tls)],
    ] {
        let (code, text, addressee) = of(all);
        assert_eq!((code, addressee), ("reset", Some(Addressee::Relay)), "{text}");
    }
    // UDP is not let through either: both are said.
    let (code, text, addressee) =
        of(vec![dropped(udp, DIRECT), reset(tcp), late(tls, Stage::Tls, Cause::Reset)]);
    assert_eq!((code, addressee), ("reset", Some(Addressee::Network)), "{text}");
    for part in [
        "does not let UDP through, the best way, and connections",
        "hallpass top",
        "a firewall of this network",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (code, text, addressee) = of([udp, tcp, tls].map(|rung| dropped(rung, DIRECT)).into());
    assert_eq!((code, addressee), ("blocked", Some(Addressee::Network)), "{text}");
    assert!(
        text.contains("neither UDP nor TCP nor TLS") && text.contains("--proxy http://HOST:PORT"),
        "{text}"
    );
    let (_, text, _) = of(vec![dropped(tls, DIRECT)]);
    assert!(text.contains("not over TLS (nothing else was tested)") && !text.contains("UDP"), "{text}");
    let (_, text, _) = of(vec![dropped(tls, DIRECT), dropped(tls, Route::Proxy)]);
    assert!(!text.contains("--proxy"), "{text}");
    let unanswered = fails(udp, DIRECT, Stage::Stun, Stage::Credentials, SILENT);
    let (code, text, addressee) = of(vec![unanswered, works(tls, DIRECT)]);
    assert_eq!((code, addressee), ("works_without_udp", Some(Addressee::Relay)));
    assert!(text.contains("hallpass refusals") && text.contains("rate_limited"), "{text}");
    let full = fails(udp, DIRECT, Stage::Credentials, Stage::Allocation, Cause::Full);
    assert_eq!(of(vec![full, works(tls, DIRECT)]).2, Some(Addressee::Relay));
    let no_data = fails(udp, DIRECT, Stage::Permission, Stage::Data, Cause::NoData);
    assert_eq!(of(vec![no_data, works(tls, DIRECT)]).2, Some(Addressee::Network));
}

/// A wrong external_ip: everything works up to the relayed address, which nobody reaches.
#[test]
fn a_relayed_address_elsewhere_is_a_warning() {
    let udp = &given()[0];
    let with = |relayed: &str| {
        let seen = Outcome { relayed: Some(relayed.parse().unwrap()), ..works(udp, DIRECT) };
        let report = report(vec![found(RELAY)], vec![seen]);
        report.diagnosis.findings.get(1).map(|note| (note.code, note.severity, note.text.clone()))
    };
    let (code, severity, text) = with("10.9.9.9:58499").expect("a warning");
    assert_eq!((code, severity), ("announces_private", Severity::Warning));
    assert!(text.contains("announces 10.9.9.9") && text.contains("it is at 192.0.2.1"), "{text}");
    let (code, _, text) = with("203.0.113.200:58499").expect("a warning");
    assert!(code == "announces_other" && text.contains("reached at 192.0.2.1"), "{text}");
    assert_eq!(with("192.0.2.1:58499"), None);
}

/// Nobody else lets through what browsers do not even try.
#[test]
fn ports_that_browsers_refuse_carry_no_calls() {
    let on = |port| works(&Rung { port, ..given()[2].clone() }, DIRECT);
    let told = report(vec![found(RELAY)], vec![on(444), on(6000)]);
    let (verdict, letter) = (&told.diagnosis.findings[0], letter(&told).unwrap());
    assert_eq!((told.diagnosis.works, verdict.code), (false, "port_refused"));
    assert!(verdict.text.contains("TLS 444 and TLS 6000") && verdict.text.contains("443"), "{verdict:?}");
    assert!(!letter.contains("Please allow"), "{letter}");
    assert!(report(vec![found(RELAY)], vec![on(444), on(443)]).diagnosis.works);
}

#[test]
fn only_the_proxy() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let refused = fails(tcp, Route::Proxy, Stage::Name, Stage::Tcp, Cause::ProxyRefuses(403));
    let mut all: Vec<Outcome> = [udp, tcp, tls].map(|rung| dropped(rung, DIRECT)).into();
    all.extend([refused.clone(), works(tls, Route::Proxy)]);
    let (code, text) = verdict(vec![found(RELAY)], all.clone());
    assert_eq!(code, "works_only_through_proxy", "{text}");
    all.pop();
    let report = report(vec![found(RELAY)], all);
    let codes: Vec<&str> = report.diagnosis.findings.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["blocked", "proxy_refuses"]);
}

#[test]
fn interception_names_the_authority() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let mut opened = works(tls, DIRECT);
    opened.certificate = Some(certificate(Verdict::UnknownIssuer));
    let cut = fails(tls, DIRECT, Stage::Tls, Stage::Stun, Cause::Closed);
    let cut = Outcome { certificate: opened.certificate.clone(), ..cut };
    for intercepted in [opened, cut] {
        let all = vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), intercepted];
        let report = report(vec![found(RELAY)], all);
        assert!(!report.diagnosis.works);
        assert_eq!(report.diagnosis.findings[0].code, "intercepted");
        assert!(
            report.diagnosis.findings[0].text.contains("\"School Filter CA\", not from a public authority")
        );
        assert_eq!(report.diagnosis.addressee, Some(Addressee::Network));
        assert!(letter(&report).unwrap().contains("exempt from TLS inspection"));
    }
    let accepted = Outcome { certificate: Some(certificate(Verdict::Added)), ..works(tls, DIRECT) };
    let report = report(vec![found(RELAY)], vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), accepted]);
    let codes: Vec<&str> = report.diagnosis.findings.iter().map(|one| one.code).collect();
    assert_eq!(codes, ["works_without_udp", "inspected"]);
}

/// A relay without its chain looks like a device that inspects, unless the issuer's name says what it is.
#[test]
fn a_certificate_that_came_alone_may_be_the_relays() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let mut alone = certificate(Verdict::UnknownIssuer);
    alone.chain[0].issuer.common_name = Some("R11".to_owned());
    let opened = Outcome { certificate: Some(alone), ..works(tls, DIRECT) };
    let report = report(vec![found(RELAY)], vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), opened]);
    assert_eq!(report.diagnosis.addressee, Some(Addressee::Either));
    let letter = letter(&report).unwrap();
    assert!(letter.starts_with("Subject: TURN relay") && letter.contains("fullchain.pem"), "{letter}");
    assert!(letter.contains("exempt from TLS inspection"), "{letter}");
}

#[test]
fn names_that_lead_nowhere() {
    let nameless = |cause: Cause| {
        let lookup = Lookup { addresses: Err(cause.clone()), ..found(RELAY) };
        let all = given().into_iter().map(|rung| Outcome {
            fault: Some(Fault { stage: Stage::Name, cause: cause.clone() }),
            ..Outcome::new(rung, DIRECT, None)
        });
        verdict(vec![lookup], all.collect()).0
    };
    assert_eq!(nameless(Cause::NameUnknown), "name_unknown");
    assert_eq!(nameless(Cause::NoNameServer), "no_name_server");
    let blocked = || given().iter().map(|rung| dropped(rung, DIRECT)).collect::<Vec<_>>();
    assert_eq!(verdict(vec![found("127.0.0.1".parse().unwrap())], blocked()).0, "wrong_address");
    let (code, text) = verdict(vec![found("10.1.1.1".parse().unwrap())], blocked());
    assert_eq!(code, "wrong_address");
    let text = text.replace('\n', " ");
    assert!(text.contains("it is off or has other ports") && !text.contains("Content filters"), "{text}");
    assert_eq!(verdict(vec![found(RELAY)], blocked()).0, "blocked");
    let all = |cause: Cause| {
        let each = given();
        let each = each.iter().map(|rung| fails(rung, DIRECT, Stage::Name, Stage::Tcp, cause.clone()));
        verdict(vec![found(RELAY)], each.collect()).0
    };
    assert_eq!(all(Cause::Refused), "refused");
    assert_eq!(all(Cause::Unreachable), "offline");
    assert_eq!(all(Cause::HostAway), "host_away");
    assert_eq!(all(Cause::OtherFamily), "other_family");
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let web = fails(tcp, DIRECT, Stage::Tcp, Stage::Stun, Cause::NotTurn("a web server (HTTP)"));
    let others = vec![dropped(udp, DIRECT), web, dropped(tls, DIRECT)];
    assert_eq!(verdict(vec![found(RELAY)], others).0, "not_the_relay");
}

/// A web server with the relay's own certificate: the relay is off, and the network is not to blame.
#[test]
fn a_web_server_in_place_of_the_relay() {
    let [udp, tcp, tls] = &given()[..] else { panic!("three rungs") };
    let web = Cause::NotTurn("a web server (HTTP)");
    let tls_with = |rung: &Rung, verdict, cause| {
        let seen = fails(rung, DIRECT, Stage::Tls, Stage::Stun, cause);
        Outcome { certificate: Some(certificate(verdict)), ..seen }
    };
    let refused = |rung: &Rung| fails(rung, DIRECT, Stage::Name, Stage::Stun, Cause::Refused);
    let code = |all: Vec<Outcome>| {
        let report = report(vec![found(RELAY)], all);
        (report.diagnosis.findings[0].code, report.diagnosis.addressee)
    };
    let relay = ("other_server", Some(Addressee::Relay));
    for cause in [web.clone(), Cause::Closed, SILENT] {
        let all = vec![refused(udp), refused(tcp), tls_with(tls, Verdict::Public, cause)];
        assert_eq!(code(all.clone()), relay);
        assert_eq!(report(vec![found(RELAY)], all).diagnosis.findings.len(), 1, "said once");
    }
    let of_url =
        vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), tls_with(tls, Verdict::Public, web.clone())];
    assert_eq!(code(of_url.clone()), relay);
    let text = report(vec![found(RELAY)], of_url).diagnosis.findings[0].text.clone();
    assert!(text.contains("on TLS 443, a web server (HTTP) answers in place of the relay"), "{text}");
    // A web server beside a relay that this network blocks, TLS inspection, and a firewall that cuts TLS off.
    let beside = Rung { is_given: false, ..tls.clone() };
    for innocent in [
        tls_with(&beside, Verdict::Public, web.clone()),
        tls_with(tls, Verdict::Added, web),
        tls_with(tls, Verdict::Public, Cause::Closed),
    ] {
        let (code, addressee) = code(vec![dropped(udp, DIRECT), dropped(tcp, DIRECT), innocent]);
        assert!(code != "other_server" && addressee == Some(Addressee::Network), "{code}");
    }
}

/// The letter names usual ports only of a transport that no URL has.
#[test]
fn no_port_is_asked_for_that_nobody_uses() {
    let asked = |url: &str| {
        let all = rungs(&[url.parse().unwrap()], false);
        let report = report(vec![found(RELAY)], all.iter().map(|rung| dropped(rung, DIRECT)).collect());
        letter(&report).unwrap().split("What a test").next().unwrap().replace("\n  ", " ")
    };
    let with_udp = asked("turn:relay.example.org");
    assert!(with_udp.contains("UDP port 3478: the best way") && !with_udp.contains("3479"), "{with_udp}");
    let without = asked("turns:relay.example.org:443");
    assert!(without.contains("TCP port 443 (TLS): the last resort"), "{without}");
    assert!(without.contains("UDP port 3478 (only if the administrator of the relay says"), "{without}");
}

/// Two relays on the command line are not two addresses of one.
#[test]
fn a_silent_relay_beside_another_one() {
    let udp = &given()[0];
    let elsewhere: SocketAddr = "192.0.2.77:3478".parse().unwrap();
    let silent = |host: &str| {
        let rung = Rung { host: host.to_owned(), ..udp.clone() };
        Outcome { address: Some(elsewhere), ..dropped(&rung, DIRECT) }
    };
    for (host, code, words) in [
        (HOST, "address_silent", "The relay has several addresses"),
        (
            "second.example.org",
            "relay_silent",
            "None of the ports of second.example.org answers at 192.0.2.77",
        ),
    ] {
        let report = report(vec![found(RELAY)], vec![works(udp, DIRECT), silent(host)]);
        assert!(report.diagnosis.works);
        let note = &report.diagnosis.findings[1];
        assert!(note.code == code && note.text.contains(words), "{note:?}");
    }
}

#[test]
fn what_the_relay_refuses() {
    let rung = &given()[0];
    let at = |reached, stage, cause| {
        let report = report(vec![found(RELAY)], vec![fails(rung, DIRECT, reached, stage, cause)]);
        assert!(!report.diagnosis.works);
        report.diagnosis.findings[0].code
    };
    let login = |cause| at(Stage::Stun, Stage::Credentials, cause);
    assert_eq!(login(Cause::WrongCredentials), "wrong_credentials");
    assert_eq!(login(Cause::NameWithoutTime), "wrong_credentials");
    let all = vec![fails(rung, DIRECT, Stage::Stun, Stage::Credentials, Cause::NameWithoutTime)];
    let text = report(vec![found(RELAY)], all).diagnosis.findings[0].text.clone();
    assert!(text.contains("The name carries no time") && text.contains("EXPIRY:USER"), "{text}");
    assert_eq!(login(Cause::Expired(90_000)), "expired");
    assert_eq!(login(Cause::ClockBehind(86_400, 172_800)), "clock");
    assert_eq!(login(SILENT), "login_unanswered");
    let all = vec![fails(rung, DIRECT, Stage::Stun, Stage::Credentials, SILENT)];
    let unanswered = report(vec![found(RELAY)], all);
    assert!(unanswered.diagnosis.findings[0].text.contains("rate_limited"), "{:?}", unanswered.diagnosis);
    assert_eq!(unanswered.diagnosis.addressee, Some(Addressee::Relay));
    assert_eq!(login(Cause::Reset), "cut_off");
    let allocation = |cause| at(Stage::Credentials, Stage::Allocation, cause);
    assert_eq!(allocation(Cause::Quota), "quota");
    assert_eq!(allocation(Cause::Full), "relay_full");
    assert_eq!(allocation(Cause::Refusal { code: 440, reason: String::new() }), "relay_refuses");
    assert_eq!(at(Stage::Permission, Stage::Data, Cause::NoData), "no_data");
    assert_eq!(at(Stage::Permission, Stage::Data, Cause::NoLargeData(1200)), "no_large_data");
}

#[test]
fn a_relay_that_serves_its_conference_servers_only_is_good() {
    let all = given().into_iter().map(|rung| Outcome {
        reached: Some(Stage::Allocation),
        untested: Some(Untested::PeersLimited),
        ..outcome(&rung, DIRECT)
    });
    let report = report(vec![found(RELAY)], all.collect());
    assert!(report.diagnosis.works);
    assert!(report.diagnosis.findings[1].text.contains("which is good"), "{:?}", report.diagnosis);
}

/// coturn with `no-auth`: browsers get allocations, and so does everybody else.
#[test]
fn a_relay_without_a_login_works_and_is_open() {
    let seen = Outcome {
        reached: Some(Stage::Allocation),
        untested: Some(Untested::NoLogin),
        ..outcome(&given()[0], DIRECT)
    };
    let report = report(vec![found(RELAY)], vec![seen]);
    assert!(report.diagnosis.works);
    let note = &report.diagnosis.findings[1];
    assert!(note.code == "no_login" && note.text.contains("everybody can use it"), "{note:?}");
}

#[test]
fn certificates_that_browsers_refuse() {
    for (bad, code) in [
        (Verdict::SelfSigned, "self_signed"),
        (Verdict::Forged, "intercepted"),
        (Verdict::Expired, "certificate_expired"),
        (Verdict::NotYetValid, "certificate_not_yet_valid"),
        (Verdict::OtherName, "certificate_for_other_name"),
        (Verdict::Invalid("BadEncoding".to_owned()), "certificate_invalid"),
    ] {
        let seen = Outcome { certificate: Some(certificate(bad)), ..works(&given()[2], DIRECT) };
        let report = report(vec![found(RELAY)], vec![seen]);
        assert_eq!((report.diagnosis.works, report.diagnosis.findings[0].code), (false, code));
    }
}

#[test]
fn losses_are_mentioned() {
    let mut lossy = works(&given()[0], DIRECT);
    lossy.exchange = Some(Exchange { small: [60, 50], ..lossy.exchange.unwrap() });
    let (code, text) = verdict(vec![found(RELAY)], vec![lossy]);
    assert_eq!(code, "works");
    assert!(text.contains("14 % of the packets were lost over UDP 3478"), "{text}");
}
