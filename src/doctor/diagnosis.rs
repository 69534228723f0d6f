//! What the outcomes mean, in words for somebody who only wants to join a call.

use std::net::IpAddr;

use super::announced::announced;
use super::certificate_note::certificate_note;
use super::finding::{Addressee, Finding, Severity, finding};
use super::in_place::other_server;
use super::name::{Lookup, is_wrong};
use super::outcome::{Outcome, Untested};
use super::quality::quality;
use super::rung::Route;
use super::stage::{Cause, Fault, Stage};
use super::text::span;
use super::tls::Certificate;
use super::unreached::{names, reset, unreached};
use crate::base::browser_ports::GOOD_PORTS;
use crate::base::transport::Transport;
use crate::system::local_addresses::is_private;

/// What a run means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Whether calls will work from this computer.
    pub works: bool,
    /// The verdict first, then what else is worth knowing.
    pub findings: Vec<Finding>,
    /// Who can improve it.
    pub addressee: Option<Addressee>,
}

/// Judges a run. `proxy` is shown as it is.
pub fn diagnose(lookups: &[Lookup], outcomes: &[Outcome], proxy: Option<&str>) -> Diagnosis {
    let facts = Facts { lookups, outcomes, proxy: proxy.unwrap_or("none") };
    let works = outcomes.iter().any(Outcome::works);
    let (mut verdict, addressee) = if works { facts.good() } else { facts.bad() };
    if !works {
        verdict.severity = Severity::Error;
    }
    let mut findings = vec![verdict];
    for note in facts.notes() {
        let says_it = |known: &Finding| {
            known.code == note.code || (known.code, note.code) == ("other_server", "not_the_relay")
        };
        if !findings.iter().any(says_it) {
            findings.push(note);
        }
    }
    Diagnosis { works, findings, addressee }
}

/// Why a relay that answers STUN may not answer a login.
const DROPS_REQUESTS: &str = "Either the relay drops requests, because it is overloaded or too many come from this network at once \
                              (a whole class behind one address): then `hallpass refusals` on the relay says rate_limited. Or a \
                              firewall cuts what it does not know.";

struct Facts<'a> {
    lookups: &'a [Lookup],
    outcomes: &'a [Outcome],
    proxy: &'a str,
}

impl Facts<'_> {
    fn direct(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.route != Route::Proxy)
    }

    /// The best rung that works: direct before proxy, then UDP, TCP, TLS.
    fn best(&self) -> Option<&Outcome> {
        let working = self.outcomes.iter().filter(|outcome| outcome.works());
        working.min_by_key(|outcome| (outcome.route == Route::Proxy, outcome.rung.transport, outcome.route))
    }

    /// The verdict if something works.
    fn good(&self) -> (Finding, Option<Addressee>) {
        let Some(best) = self.best() else { return self.bad() };
        let working = names(self.outcomes.iter().filter(|outcome| {
            outcome.works() && (outcome.route == Route::Proxy) == (best.route == Route::Proxy)
        }));
        if best.route == Route::Proxy {
            let text = format!(
                "Calls will work here, but only through the web proxy {}, over {working}. The browser must be set \
                 to use this proxy. Sound and video may stutter when the network is busy.",
                self.proxy
            );
            return (finding("works_only_through_proxy", text), Some(Addressee::Network));
        }
        if best.rung.transport == Transport::Udp {
            let verdict = match best.untested {
                // Nothing was sent through the relay: a firewall at its relay ports would not show.
                Some(_) => "Calls should work here: this network lets you reach the relay and log in.",
                None => "Calls will work here.",
            };
            let text = format!("{verdict} The best way for sound and video, UDP, is open.");
            return (finding("works", text), None);
        }
        let stutter = "Sound and video may stutter when the network is busy.";
        let udp = || self.direct().filter(|outcome| outcome.rung.transport == Transport::Udp);
        let is_blocked =
            udp().any(|outcome| matches!(outcome.cause_at(Stage::Stun), Some(Cause::NoAnswer(_))));
        let network = Some(Addressee::Network);
        let at_relay = udp().filter(|outcome| outcome.is_relay()).max_by_key(|outcome| outcome.reached);
        let (why, addressee) = match (udp().any(|outcome| outcome.rung.is_given), is_blocked) {
            _ if udp().next().is_none() => ("UDP, the best way, was not tested.".to_owned(), None),
            _ if at_relay.is_some() => behind_stun(at_relay.and_then(|outcome| outcome.fault.as_ref())),
            (true, _) => ("This network does not let UDP through, the best way.".to_owned(), network),
            (false, true) => (
                "UDP, the best way, gets no answer: this network blocks it, or the relay does not offer it."
                    .to_owned(),
                network,
            ),
            (false, false) => (
                "UDP, the best way, is refused: the relay does not offer it, or a firewall rejects it."
                    .to_owned(),
                network,
            ),
        };
        (
            finding("works_without_udp", format!("Calls will work here, over {working}. {why} {stutter}")),
            addressee,
        )
    }

    /// The verdict if nothing works.
    fn bad(&self) -> (Finding, Option<Addressee>) {
        let furthest = self.outcomes.iter().filter(|outcome| outcome.is_relay()).max_by_key(|outcome| {
            (outcome.reached, outcome.route != Route::Proxy, outcome.rung.transport == Transport::Udp)
        });
        if let Some(outcome) = furthest {
            return self.at_the_relay(outcome);
        }
        let through_proxy = self
            .outcomes
            .iter()
            .any(|outcome| outcome.route == Route::Proxy && outcome.reached >= Some(Stage::Tcp));
        if !through_proxy && let Some(found) = self.names_are_wrong() {
            return found;
        }
        if let Some(other) = other_server(self.outcomes) {
            return (other, Some(Addressee::Relay));
        }
        let seen = self.outcomes.iter().find_map(|outcome| Some((outcome, outcome.certificate.as_ref()?)));
        if let Some((outcome, certificate)) = seen {
            return self.of_certificate(outcome, certificate, false);
        }
        let foreign = self.outcomes.iter().find_map(|outcome| {
            let cause = &outcome.fault.as_ref()?.cause;
            matches!(cause, Cause::NotTurn(_) | Cause::NotTls | Cause::BadAnswer(_))
                .then_some((outcome, cause))
        });
        if let Some((outcome, cause)) = foreign {
            let text = format!(
                "Calls will not work here: something else answers in the place of the relay. On {}, {cause}. This \
                 network redirects connections, or the relay's address or port is wrong.",
                outcome.rung
            );
            return (finding("not_the_relay", text), Some(Addressee::Network));
        }
        if let Some(found) = reset(self.lookups, self.outcomes) {
            return found;
        }
        let opened = || self.outcomes.iter().filter(|outcome| outcome.reached >= Some(Stage::Tcp));
        let cause = opened().find_map(|outcome| outcome.fault.as_ref().map(|fault| &fault.cause));
        if let Some(cause) = cause {
            let text = format!(
                "Calls will not work here: connections to the relay open ({}), but nothing passes through them ({cause}). A \
                 firewall looks into connections and stops what it does not know. (If the relay itself closes them, `hallpass top` \
                 there names the limit.)",
                names(opened())
            );
            return (finding("cut_off", text), Some(Addressee::Network));
        }
        self.nothing_answers()
    }

    /// The relay was reached, but something is wrong there.
    fn at_the_relay(&self, outcome: &Outcome) -> (Finding, Option<Addressee>) {
        if outcome.passes() {
            let passing = names(self.outcomes.iter().filter(|outcome| outcome.passes()));
            let text = format!(
                "Calls will not work here: the relay answers on {passing}, and browsers refuse TURN servers on such ports. The relay \
                 has to listen on another one: {GOOD_PORTS}."
            );
            return (finding("port_refused", text), Some(Addressee::Relay));
        }
        let Some(fault) = &outcome.fault else {
            // Without a fault, only a certificate keeps a rung from working.
            return match &outcome.certificate {
                Some(certificate) => self.of_certificate(outcome, certificate, true),
                None => self.nothing_answers(),
            };
        };
        let reached = "The network lets calls through to the relay, but";
        let no = "Calls will not work";
        let relay = Some(Addressee::Relay);
        match &fault.cause {
            Cause::Expired(ago) => {
                let text = format!(
                    "{no} with this login: the user name expired {} ago. Get a new one. If it is new, the clock of this \
                     computer or of the server that made it is wrong. The network is fine as far as this could be tested.",
                    span(*ago)
                );
                (finding("expired", text), None)
            }
            Cause::ClockBehind(least, most) => {
                let text = format!(
                    "The clocks of this computer and of the relay differ by {} to {}: the relay is ahead. If this \
                     computer's clock is right, the relay refuses everybody until its clock is set. If not, set this \
                     computer's clock and test again. The secret is right.",
                    span(*least),
                    span(*most)
                );
                (finding("clock", text), relay)
            }
            cause @ (Cause::WrongCredentials | Cause::NameWithoutTime) => {
                let nameless = match cause {
                    Cause::NameWithoutTime => {
                        " The name carries no time: a login made from the relay's secret is EXPIRY:USER:PASSWORD, as \
                         `hallpass credentials` prints it. Any other name is good only if the relay has a [[user]] of this name \
                         with this password."
                    }
                    _ => "",
                };
                let text = format!(
                    "{no} with this login. {reached} the relay refuses the user name or the password: the secret or the \
                     password is wrong, or it belongs to another relay.{nameless}"
                );
                (finding("wrong_credentials", text), None)
            }
            Cause::Quota => {
                let text = format!(
                    "{no} now. {reached} this user has too many allocations there. Test again in ten minutes."
                );
                (finding("quota", text), relay)
            }
            Cause::Full => {
                let text =
                    format!("{no} now. {reached} the relay has no capacity left, or it is shutting down.");
                (finding("relay_full", text), relay)
            }
            Cause::Redirect(to) => {
                let to = to.map_or_else(|| "another one".to_owned(), |to| to.to_string());
                (finding("redirect", format!("The relay sends clients to {to}. Test that one.")), None)
            }
            Cause::NoData => {
                let text = format!(
                    "{no}. {reached} no data arrives through it. The ports of its relayed addresses may be blocked on \
                     the relay's side, or it announces a wrong address."
                );
                (finding("no_data", text), relay)
            }
            cause @ Cause::NoLargeData(_) => {
                let text = format!(
                    "Sound will work here, video will not: {cause}. A device on the way drops large packets and does \
                     not say so (path MTU)."
                );
                (finding("no_large_data", text), Some(Addressee::Network))
            }
            cause if fault.stage >= Stage::Credentials && !cause.is_blocking() => {
                (finding("relay_refuses", format!("{no}. {reached} the relay refuses: {cause}.")), relay)
            }
            cause @ Cause::NoAnswer(_) if matches!(fault.stage, Stage::Credentials | Stage::Allocation) => {
                let text = format!(
                    "{no} here now: over {}, the relay answers the first question (STUN), but not the next one ({}: {cause}). \
                     {DROPS_REQUESTS} Test again in a minute.",
                    outcome.rung,
                    fault.stage.name()
                );
                (finding("login_unanswered", text), relay)
            }
            cause => {
                let text = format!(
                    "{no} here: {} reaches the relay, but then the connection fails ({}: {cause}). A firewall may \
                     cut what it does not know.",
                    outcome.rung,
                    fault.stage.name()
                );
                (finding("cut_off", text), Some(Addressee::Network))
            }
        }
    }

    /// The names have no addresses, or addresses that cannot be right.
    fn names_are_wrong(&self) -> Option<(Finding, Option<Addressee>)> {
        let network = Some(Addressee::Network);
        let failed = self.lookups.iter().find_map(|lookup| Some((lookup, lookup.addresses.as_ref().err()?)));
        let any = self.lookups.iter().any(|lookup| lookup.addresses.is_ok());
        if let (Some((lookup, cause)), false) = (failed, any) {
            let name = &lookup.name;
            return Some(match cause {
                Cause::NameUnknown => {
                    let text = format!(
                        "Calls will not work here: this network's name service (DNS) does not know {name}. Either the \
                         name is misspelt, or this network hides it."
                    );
                    (finding("name_unknown", text), network)
                }
                cause => {
                    let text = format!(
                        "Calls will not work here: the address of {name} cannot be found ({cause}). Is this computer \
                         connected to the network?"
                    );
                    (finding("no_name_server", text), network)
                }
            });
        }
        let (lookup, address) = self.lookups.iter().find_map(|lookup| {
            let addresses = lookup.addresses.as_ref().ok()?;
            let is_name = lookup.name.parse::<IpAddr>().is_err() && lookup.name != "localhost";
            let all = is_name && !addresses.is_empty() && addresses.iter().all(|&address| is_wrong(address));
            all.then(|| Some((lookup, *addresses.first()?))).flatten()
        })?;
        let name = &lookup.name;
        let begin = format!(
            "Calls will not work here: this network's name service (DNS) says that {name} is at {address}"
        );
        let text = if is_private(address) {
            format!(
                "{begin}, and no relay answers there. This is an address of a private network: if the relay is in this network, it \
                 is off or has other ports; if not, the answer is wrong, as content filters give it."
            )
        } else {
            format!(
                "{begin}, which is no address of the Internet, and no relay answers there. Content filters answer like that."
            )
        };
        Some((finding("wrong_address", text), network))
    }

    /// A certificate that browsers do not accept is the reason. `passes`: TURN works behind it.
    fn of_certificate(
        &self,
        outcome: &Outcome,
        certificate: &Certificate,
        passes: bool,
    ) -> (Finding, Option<Addressee>) {
        let problem = certificate_note(&outcome.rung, certificate);
        let Some((problem, addressee)) = problem else {
            let text = format!(
                "Calls will not work here: {} opens, but the relay does not answer on it. A firewall may let only web \
                 pages through.",
                outcome.rung
            );
            return (finding("cut_off", text), Some(Addressee::Network));
        };
        let verdict = if passes && addressee == Addressee::Relay {
            "Calls will not work here, because browsers refuse the relay's certificate."
        } else {
            "Calls will not work here."
        };
        (finding(problem.code, format!("{verdict} {}", problem.text)), Some(addressee))
    }

    fn nothing_answers(&self) -> (Finding, Option<Addressee>) {
        unreached(self.lookups, self.outcomes)
    }

    /// What else is worth knowing.
    fn notes(&self) -> Vec<Finding> {
        let mut notes = Vec::new();
        let untested =
            |why| self.outcomes.iter().any(|outcome| outcome.works() && outcome.untested == Some(why));
        if untested(Untested::PeersLimited) {
            let text = "The relay refuses to carry data to its own address (403), as a relay does that serves its conference servers \
                        only, which is good. So data through the relay could not be tested from here; all steps before it work.";
            notes.push(finding("data_not_tested", text));
        } else if untested(Untested::OneAllocation) {
            let text = match self.outcomes.iter().any(|outcome| outcome.reached == Some(Stage::Data)) {
                true => {
                    "The relay refused a second allocation at the same time on some ways, so they were tested without data. On the \
                         others data came through. Only this test needs two at a time."
                }
                false => {
                    "The relay gave one allocation and refused a second one at the same time: this user, or all users together, may \
                          have no more. Only this test needs two, so a call may work, but data through the relay could not be tested."
                }
            };
            notes.push(finding("data_not_tested", text));
        }
        if untested(Untested::NoLogin) {
            let text = "The relay gives allocations without a login: everybody can use it, and reach with it what it reaches. So the \
                        login and data through the relay could not be tested from here.";
            notes.push(finding("no_login", text));
        }
        notes.extend(announced(self.outcomes));
        notes.extend(self.best().and_then(quality));
        for outcome in self.outcomes {
            let note = outcome.certificate.as_ref().and_then(|seen| certificate_note(&outcome.rung, seen));
            notes.extend(note.map(|(note, _)| note));
        }
        let large = self
            .outcomes
            .iter()
            .find(|outcome| matches!(outcome.cause_at(Stage::Data), Some(Cause::NoLargeData(_))));
        if let Some(Cause::NoLargeData(len)) = large.and_then(|outcome| outcome.cause_at(Stage::Data)) {
            let over = names(large.into_iter());
            let text = format!(
                "Over {over}, packets of {len} bytes are lost, as video uses them, and small ones arrive."
            );
            notes.push(finding("no_large_data", text));
        }
        notes.extend(self.dead_address());
        notes.extend(self.proxy_note());
        let broken = self.outcomes.iter().find_map(|outcome| match &outcome.fault.as_ref()?.cause {
            cause @ (Cause::NotTurn(_) | Cause::NotTls) => Some((outcome, cause)),
            _ => None,
        });
        if let Some((outcome, cause)) = broken {
            notes.push(finding("not_the_relay", format!("On {}, {cause}.", outcome.rung)));
        }
        notes
    }

    /// An address at which nothing answers, while another one of its family works: of the same relay, or of another one.
    fn dead_address(&self) -> Option<Finding> {
        let at =
            |ip: IpAddr| self.direct().filter(move |outcome| outcome.address.is_some_and(|at| at.ip() == ip));
        let works = |ip: IpAddr| at(ip).any(Outcome::works);
        let addresses = || self.direct().filter_map(|outcome| Some(outcome.address?.ip()));
        let dead = addresses().find(|ip| {
            let other = addresses().any(|other| other.is_ipv4() == ip.is_ipv4() && works(other));
            other && !at(*ip).any(Outcome::is_relay)
        })?;
        let host = at(dead).map(|outcome| outcome.rung.host.as_str()).next()?;
        let is_same = |outcome: &Outcome| {
            let ip = outcome.address.map(|at| at.ip());
            outcome.rung.host == host
                && ip.is_some_and(|ip| ip.is_ipv4() == dead.is_ipv4())
                && outcome.works()
        };
        if !self.direct().any(is_same) {
            let text = format!(
                "None of the ports of {host} answers at {dead}, while another relay works. Browsers try all relays and use those \
                 that work."
            );
            return Some(finding("relay_silent", text));
        }
        let text = format!(
            "The relay has several addresses, and none of its ports answers at {dead}. Browsers that choose this one have \
             no calls."
        );
        Some(finding("address_silent", text))
    }

    /// What the proxy does, if it carries no rung.
    fn proxy_note(&self) -> Option<Finding> {
        let mut tried = self.outcomes.iter().filter(|outcome| outcome.route == Route::Proxy);
        if tried.clone().any(Outcome::works) {
            return None;
        }
        let cause = tried.find_map(|outcome| outcome.fault.as_ref().map(|fault| &fault.cause))?;
        let (code, text) = match cause {
            Cause::ProxyWantsLogin => (
                "proxy_wants_login",
                format!(
                    "The proxy {} asks for a user name and a password (407): --proxy http://USER:PASS@HOST:PORT.",
                    self.proxy
                ),
            ),
            Cause::ProxyRefuses(_) => {
                ("proxy_refuses", format!("The proxy {} does not connect to the relay: {cause}.", self.proxy))
            }
            Cause::NoProxy(_) | Cause::NotAProxy => {
                ("no_proxy", format!("The proxy {} does not work: {cause}.", self.proxy))
            }
            _ => (
                "proxy_cuts_off",
                format!("Through the proxy {}, the relay is not reached: {cause}.", self.proxy),
            ),
        };
        Some(finding(code, text))
    }
}

/// Why UDP fails, although the relay answers over it.
fn behind_stun(fault: Option<&Fault>) -> (String, Option<Addressee>) {
    const FAILS: &str = "UDP, the best way, reaches the relay, but fails then";
    match fault.map(|fault| (fault.stage, &fault.cause)) {
        Some((stage @ (Stage::Credentials | Stage::Allocation), cause @ Cause::NoAnswer(_))) => {
            (format!("{FAILS} ({}: {cause}). {DROPS_REQUESTS}", stage.name()), Some(Addressee::Relay))
        }
        // On the side of the relay, data takes the same way over every transport.
        Some((Stage::Data, cause)) => (format!("{FAILS}: {cause}."), Some(Addressee::Network)),
        Some((_, cause)) if !cause.is_blocking() => (format!("{FAILS}: {cause}."), Some(Addressee::Relay)),
        Some((_, cause)) => (format!("{FAILS}: {cause}."), Some(Addressee::Network)),
        None => (format!("{FAILS}."), Some(Addressee::Network)),
    }
}
