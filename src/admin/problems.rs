//! The rules that say what is wrong with the server, and what to do next. The dashboard and `hallpass top` show the same list.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::history::{Change, DIRECTIONS, DROPS, REFUSALS};
use super::refusals::Warning;
use super::state::{Certificate, Limit, Misnamed, Renewal, State};
use crate::base::family::Family;
use crate::base::text::{self, duration};
use crate::base::transport::Transport;

const DAY: i64 = 86_400;
/// Recent means this long ago.
pub const RECENT: Duration = Duration::from_secs(300);
/// The time over which a worker must be busy, or make calls wait.
const MINUTE: Duration = Duration::from_secs(60);
/// The time over which traffic must go one way only.
const ONE_WAY: Duration = Duration::from_secs(20);
/// Datagrams in one direction from which on the other one should have some: a second of sound.
const ONE_WAY_PACKETS: u64 = 50;
/// Seconds for which a warning from the log is shown.
const WARNING_SHOWN: u64 = 600;
/// Refusals from which their share of the new sessions says something, and this share. Single clients with a wrong name are
/// normal.
const REFUSALS_MIN: u64 = 3;
const REFUSALS_SHARE: f64 = 0.05;
/// Connections past the proxy of a listener from which they are no single scanner's.
const UNTRUSTED_MIN: u64 = 3;
/// Handshakes that clients end because of the certificate, from which their share of all says something, and this share. A proxy
/// at one school that reads TLS is no fault of the server, but its pupils have no other way.
const DISTRUST_MIN: u64 = 3;
const DISTRUST_SHARE: f64 = 0.1;
/// The share of a limit from which on it is near, and from which on users are about to be refused.
const NEAR: f64 = 0.8;
const FULL: f64 = 0.95;
/// The share of the time at work from which on a worker delays calls.
const BUSY: f64 = 0.9;
/// The share of long turns from which on calls have gaps, and the least number of turns that says so.
const GAPS_SHARE: f64 = 0.01;
const GAPS_MIN: u64 = 2;

/// What the rules judge.
pub struct Seen<'a> {
    /// Why the server is not ready.
    pub not_ready: Option<&'a str>,
    /// The state; `None` until the workers have started.
    pub state: Option<&'a State>,
    /// Seconds since 1970.
    pub now: u64,
    /// Returns what has changed in the last time.
    pub change: &'a dyn Fn(Duration) -> Change,
    /// Workers that failed in the last hour.
    pub restarts: u64,
    /// The warnings about refusals.
    pub warnings: &'a [Warning],
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Calls fail now.
    Bad,
    /// Calls may fail soon, or some fail.
    Warning,
}

/// Something that the operator should know.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How much it matters.
    pub level: Level,
    /// What is wrong.
    pub text: String,
    /// What to do; may be empty.
    pub next_step: String,
}

impl Problem {
    fn new(level: Level, text: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { level, text: text.into(), next_step: next_step.into() }
    }

    /// Returns it as JSON.
    pub fn json(&self) -> Value {
        let level = if self.level == Level::Bad { "bad" } else { "warning" };
        json!({ "level": level, "text": self.text, "next_step": self.next_step })
    }
}

/// Returns everything that is wrong, the worst first.
pub fn all(seen: &Seen<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    readiness(seen.not_ready, seen.state, &mut problems);
    let recent = (seen.change)(RECENT);
    if let Some(state) = seen.state {
        certificates(state, seen.now, &mut problems);
        reloads(state, &mut problems);
        families(state, &mut problems);
        resources(state, &recent, &mut problems);
        workers(&(seen.change)(MINUTE), &mut problems);
        one_way(state, &(seen.change)(ONE_WAY), &mut problems);
    }
    calls(&recent, seen.state, &mut problems);
    web_server(seen.state, &recent, &(seen.change)(MINUTE), &mut problems);
    if seen.restarts > 0 {
        let text = "A worker failed in the last hour, and its calls ended.";
        problems.push(Problem::new(Level::Warning, text, "see the log, and report this bug"));
    }
    for Warning { time, text, next_step, .. } in seen.warnings {
        if seen.now.saturating_sub(*time) < WARNING_SHOWN {
            problems.push(Problem::new(Level::Warning, text, next_step));
        }
    }
    problems.sort_by_key(|problem| problem.level);
    problems
}

/// Returns the number of requests that were refused and should not have been, if the clients are in order.
pub fn refused(change: &Change) -> u64 {
    failed(change).iter().map(|(_, count)| count).sum()
}

/// Returns the refusals of [`refused`] by reason. Refused peers are not among them: browsers try addresses that no relay can reach.
fn failed(change: &Change) -> Vec<(&'static str, u64)> {
    change.named(|detail| {
        let of_kind =
            |kind: usize| matches!(REFUSALS.get(kind), Some(&("credentials" | "limits" | "capacity")));
        let wanted = detail.reasons.iter().filter(|(_, kind, _)| of_kind(*kind));
        wanted.map(|&(reason, _, count)| (reason, count)).collect()
    })
}

fn readiness(not_ready: Option<&str>, state: Option<&State>, problems: &mut Vec<Problem>) {
    let Some(reason) = not_ready else { return };
    let mut add = |level, text: String, next_step: &str| problems.push(Problem::new(level, text, next_step));
    match state {
        Some(State { is_draining: true, drain_seconds, .. }) => {
            let text = match drain_seconds {
                Some(seconds) => {
                    let left = duration(*seconds);
                    format!(
                        "The server drains: it refuses new users, and ends the others in {left} at the latest."
                    )
                }
                None => "The server drains: it refuses new users and keeps the others.".to_owned(),
            };
            add(Level::Warning, text, "nothing if this is meant; otherwise hallpass drain --cancel");
        }
        _ => add(
            Level::Bad,
            format!("The server is not ready: it is {reason}."),
            "if this lasts longer than a few seconds, see the log",
        ),
    }
}

/// Returns what is wrong with the certificates: a server with such a problem is ready, and clients with TLS may be refused.
pub fn of_certificates(state: &State, now: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    certificates(state, now, &mut problems);
    problems
}

fn certificates(state: &State, now: u64, problems: &mut Vec<Problem>) {
    let Some(first) = &state.certificate else { return };
    certificate(first, state.renewal.as_ref(), now, problems);
    for other in &state.more_certificates {
        certificate(other, None, now, problems);
    }
    if let Some(Misnamed { missing, names }) = &state.misnamed {
        let text = format!(
            "The certificate is for {names}, not for {missing}: browsers refuse turns: addresses with {missing}."
        );
        let next_step = format!(
            "put the certificate of {missing} in place, then systemctl reload hallpass; if clients use another name, write that one \
             as realm"
        );
        problems.push(Problem::new(Level::Warning, text, next_step));
    }
}

fn certificate(one: &Certificate, renewal: Option<&Renewal>, now: u64, problems: &mut Vec<Problem>) {
    let Certificate { name, not_after, soon, is_self_signed } = one;
    let left = not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let mut add =
        |level, text: String, next_step: String| problems.push(Problem::new(level, text, next_step));
    let error = renewal.and_then(|renewal| renewal.error.as_deref());
    let next = renewal.and_then(|renewal| renewal.next).map_or_else(String::new, |next| {
        let pause = duration(next.saturating_sub(now));
        match renewal.is_some_and(|renewal| renewal.is_limited) {
            true => format!(
                "; after five failures within an hour the next attempt is in {pause}, also after a reload"
            ),
            false => format!("; the next attempt is in {pause}, and hallpass reload makes one at once"),
        }
    });
    let renew = || match (renewal, error) {
        (None, _) => "renew it, then systemctl reload hallpass".to_owned(),
        (Some(_), None) => {
            "nothing if the next attempt succeeds; hallpass reload makes one at once".to_owned()
        }
        (Some(_), Some(error)) => format!("{error}{next}"),
    };
    let expires = left < i64::try_from(*soon).unwrap_or(i64::MAX);
    if left < 0 {
        let text = format!("The certificate of {name} has expired: browsers refuse turns: addresses.");
        add(Level::Bad, text, renew());
    } else if expires {
        let days = counted((left / DAY).unsigned_abs(), "day");
        add(Level::Warning, format!("The certificate of {name} expires in {days}."), renew());
    }
    match (is_self_signed, renewal) {
        (true, None) => {
            let text = format!("The certificate of {name} is self-signed: browsers refuse turns: addresses.");
            let next_step = "write [tls] with cert and key of a public authority, or [acme] with domains";
            add(Level::Warning, text, next_step.to_owned());
        }
        (true, Some(_)) => {
            let level = if error.is_some() { Level::Bad } else { Level::Warning };
            let text = "There is no certificate yet: a self-signed one serves, which browsers refuse.";
            add(level, text.to_owned(), renew());
        }
        (false, Some(_)) if error.is_some() && left >= 0 && !expires => {
            let text = format!("The certificate of {name} could not be renewed yet.");
            add(Level::Warning, text, renew());
        }
        _ => {}
    }
}

fn reloads(state: &State, problems: &mut Vec<Problem>) {
    for (what, reload) in
        [("configuration", state.configuration_reload), ("certificate", state.certificate_reload)]
    {
        if !reload.is_successful {
            let text = format!("The last reload of the {what} failed; the one before stays in use.");
            problems.push(Problem::new(
                Level::Warning,
                text,
                "the log names the mistake; hallpass check finds it too",
            ));
        }
    }
}

/// A client that names no family asks for IPv4 (RFC 8656 section 7.1), so most get no session.
fn families(state: &State, problems: &mut Vec<Problem>) {
    if state.lacks_ipv4 {
        let text = "This relay has no IPv4 address to relay from: most clients ask for one, and get no session (440).";
        let next_step =
            "give this machine an IPv4 address, or correct [relay] addresses: hallpass check names it";
        problems.push(Problem::new(Level::Bad, text, next_step));
    }
}

fn resources(state: &State, recent: &Change, problems: &mut Vec<Problem>) {
    let mut add = |level, text: String, next_step: &str| problems.push(Problem::new(level, text, next_step));
    const MEMORY: &str = "add memory, or raise limits.memory_mib";
    match state.memory_pressure {
        0 => {}
        1 => add(Level::Bad, "Memory is low: new clients are refused.".to_owned(), MEMORY),
        _ => {
            add(Level::Bad, "Memory is short: new clients are refused and queues are cut.".to_owned(), MEMORY)
        }
    }
    for Limit { name, used, limit, next_step } in state.limits.iter().filter(|limit| limit.limit > 0) {
        let share = *used as f64 / *limit as f64;
        if share >= NEAR {
            let level = if share >= FULL { Level::Bad } else { Level::Warning };
            add(level, format!("{used} of {limit} {name} are in use."), next_step);
        }
    }
    for (lack, count) in recent.named(|detail| detail.lacks.clone()) {
        let text =
            format!("{count} connections or relays were refused {}, for lack of: {lack}.", within(recent));
        let next_step = match lack {
            "connections_per_source" => {
                "a flood, or a whole school behind one address: limits.connections_exempt lists such sources"
            }
            "address" => {
                "[relay] addresses names an address that this machine does not have: hallpass check names it"
            }
            _ => "raise this limit; docs/metrics.md says how",
        };
        add(Level::Bad, text, next_step);
    }
    let cpu = recent.new.cpu.saturating_sub(recent.old.cpu).as_secs_f64();
    let cores = if recent.seconds > 0.0 { cpu / recent.seconds } else { 0.0 };
    if state.workers > 0 && cores > 0.85 * state.workers as f64 {
        let text = format!("The processors are nearly used up: {cores:.1} of {}.", state.workers);
        add(Level::Warning, text, "give the machine more cores, or add a relay");
    }
}

/// Workers that are busy all the time, or whose turns are so long that calls have gaps.
fn workers(change: &Change, problems: &mut Vec<Problem>) {
    let (old, new) = (&change.old.detail.workers, &change.new.detail.workers);
    let mut busy = 0;
    let mut slow = Vec::new();
    for (worker, now) in new.iter().enumerate() {
        let before = old.get(worker).cloned().unwrap_or_default();
        let at_work = now.busy.saturating_sub(before.busy).as_secs_f64();
        busy += usize::from(change.seconds > 1.0 && at_work / change.seconds >= BUSY);
        let (turns, gaps) = (now.turns.saturating_sub(before.turns), now.gaps.saturating_sub(before.gaps));
        if gaps >= GAPS_MIN && gaps as f64 > GAPS_SHARE * turns as f64 {
            slow.push(worker);
        }
    }
    if busy > 0 {
        let text = format!("{busy} of {} workers are busy all the time, so calls are delayed.", new.len());
        let next_step = match busy == new.len() {
            true => "spread users over more relays",
            false => {
                "a few clients send much: hallpass sessions names them; limits.kbit_per_user limits them"
            }
        };
        problems.push(Problem::new(Level::Bad, text, next_step));
    }
    if let Some(worker) = slow.first() {
        let text =
            format!("More than one turn in 100 of worker {worker} takes more than 50 ms: calls have gaps.");
        let next_step = "do other programs need the processor? compare the command top, and the steal time of this machine";
        problems.push(Problem::new(Level::Bad, text, next_step));
    }
}

/// Hosts whose users send media and get none. All transports together: relayed addresses are the same for all, so what comes back to
/// one client came through every firewall, and one client that sends to a closed port is no fault of any.
fn one_way(state: &State, change: &Change, problems: &mut Vec<Problem>) {
    let (old, new) = (&change.old.detail.hosts, &change.new.detail.hosts);
    for (host, (name, now)) in state.hosts.iter().zip(new).enumerate() {
        let before = old.get(host).copied().unwrap_or_default();
        let over = |at: usize| [0, 1].map(|way| now[at][way].saturating_sub(before[at][way]));
        let [sent, back] = [0, 1].map(|way| (0..now.len()).map(|at| over(at)[way]).sum::<u64>());
        if sent >= ONE_WAY_PACKETS && back == 0 {
            let users = Transport::ALL.into_iter().enumerate().filter(|(at, _)| over(*at)[0] > 0);
            let transports = users.map(|(_, transport)| transport.name()).collect::<Vec<_>>().join(", ");
            let text = format!("Nothing comes back from the peers of {name} over {transports}.");
            let next_step = "does the media server of this host run (FreeSWITCH, mediasoup)? If so, do the firewalls of this host, of \
                             its provider and of the media server let UDP to the relay ports through?";
            problems.push(Problem::new(Level::Bad, text, next_step));
        }
    }
}

/// Returns a number with what it counts, such as `2 requests`.
fn counted(count: u64, what: &str) -> String {
    text::counted(usize::try_from(count).unwrap_or(usize::MAX), what)
}

/// Returns the span of a change for a sentence.
fn within(change: &Change) -> String {
    match change.seconds.round() as u64 {
        290.. => "in the last five minutes".to_owned(),
        seconds => format!("in the last {}", duration(seconds)),
    }
}

/// Most datagrams have no route. `peer` is one of their destinations.
fn without_route(peer: Option<IpAddr>) -> (String, String) {
    let Some(peer) = peer else {
        let why = " Most of it because this machine has no route to the peers.";
        return (
            why.to_owned(),
            "ip route get PEER; hallpass doctor asks for a route to each host's peers".to_owned(),
        );
    };
    let family = Family::of(peer).name();
    (
        format!(" Most of it because this machine has no route to {peer} ({family})."),
        format!(
            "ip route get {peer}: add a route, or bring the interface up; hallpass doctor asks for a route to each host's peers"
        ),
    )
}

/// What clients have met in the last minutes.
fn calls(recent: &Change, state: Option<&State>, problems: &mut Vec<Problem>) {
    let mut add = |level, text: String, next_step: &str| problems.push(Problem::new(level, text, next_step));
    let of_kind = |kind: &'static str| {
        let at = REFUSALS.iter().position(|known| *known == kind).unwrap_or(0);
        recent.of(move |reading| reading.refusals[at])
    };
    let capacity = of_kind("capacity");
    if capacity > 0 {
        let text = format!(
            "{} found no port, descriptor or memory {}.",
            counted(capacity, "request"),
            within(recent)
        );
        add(Level::Bad, text, "run hallpass refusals: it says which");
    }
    let failed = failed(recent);
    let count = refused(recent) - capacity;
    let attempts = recent.of(|reading| reading.allocated) + count;
    if let Some((most, _)) = failed.iter().max_by_key(|(_, count)| *count)
        && count >= REFUSALS_MIN
        && count as f64 > REFUSALS_SHARE * attempts as f64
    {
        // One reason may hide others: a secret that was wrong before, and a quota that is full now.
        let mut others: Vec<_> =
            failed.iter().filter(|(name, count)| name != most && *count >= REFUSALS_MIN).collect();
        others.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let others = others.iter().take(2).map(|(name, count)| format!("; {count} for {name}"));
        let others: String = others.collect();
        let text = format!("{count} requests were refused {}, most for {most}{others}.", within(recent));
        add(Level::Warning, text, "run hallpass refusals: it says who, why, and what to do");
    }
    let back = |transport: [u64; DIRECTIONS.len()]| transport[1];
    let from_peers = recent.of(|reading| reading.packets.map(back).iter().sum());
    // Each of doctor's allocations asks for one peer that must be refused.
    let peers = of_kind("peers").saturating_sub(recent.of(|reading| reading.tested));
    if peers >= REFUSALS_MIN && from_peers == 0 {
        let text = format!(
            "{peers} requests for a peer were refused {}, and nothing came back from any peer.",
            within(recent)
        );
        add(Level::Warning, text, "run hallpass refusals: it names the peers");
    }
    let (ended, distrusted) =
        (recent.of(|reading| reading.detail.handshakes), recent.of(|reading| reading.detail.distrusted));
    if distrusted >= DISTRUST_MIN && distrusted as f64 > DISTRUST_SHARE * ended as f64 {
        let text =
            format!("{distrusted} of {ended} TLS clients rejected the certificate {}.", within(recent));
        add(
            Level::Bad,
            text,
            "send them the line that hallpass credentials --command doctor prints: it names the chain, or a proxy",
        );
    }
    let drops = |kinds: [&str; 2]| {
        let wanted = DROPS.iter().enumerate().filter(move |(_, kind)| kinds.contains(*kind));
        wanted.map(|(at, _)| recent.of(|reading| reading.drops[at])).sum::<u64>() as f64
    };
    let lost = drops(["over_rate", "undelivered"]);
    let relayed = recent.of(|reading| reading.packets.iter().flatten().sum()) as f64;
    if lost >= 100.0 && lost > 0.02 * (relayed + lost) {
        let share = 100.0 * lost / (relayed + lost);
        let text = format!("{share:.0} % of the media was dropped {}.", within(recent));
        let level = if share >= 50.0 { Level::Bad } else { Level::Warning };
        let (unsent, no_route) =
            (recent.of(|reading| reading.unsent) as f64, recent.of(|reading| reading.no_route) as f64);
        let over_rate = drops(["over_rate", "over_rate"]);
        let half = lost / 2.0;
        let (why, next_step) = if over_rate > half {
            let step = "hallpass top shows under DROPPED whose limit it is: raise limits.kbit_per_allocation, kbit_per_user or kbit_per_host";
            (" Most of it is beyond a bandwidth limit.".to_owned(), step.to_owned())
        } else if no_route > half {
            without_route(state.and_then(|state| state.no_route_to))
        } else if unsent + no_route > half {
            let why =
                " Most of it because the kernel refuses to send it: a firewall of this machine (output)?";
            let step = "run hallpass doctor: it names a rule, and the command that lets the packets out";
            (why.to_owned(), step.to_owned())
        } else {
            let step = "run hallpass doctor: it finds rules of a firewall; hallpass top shows the reasons under DROPPED";
            (String::new(), step.to_owned())
        };
        add(level, format!("{text}{why}"), &next_step);
    }
    let untrusted = recent.of(|reading| reading.untrusted);
    if untrusted >= UNTRUSTED_MIN {
        let from = state.and_then(|state| state.untrusted_from);
        let from = from.map_or_else(String::new, |from| format!(", the last from {from}"));
        let text = format!(
            "{} to a listener with proxy_protocol did not come from its proxy, and were reset {}{from}.",
            counted(untrusted, "connection"),
            within(recent)
        );
        add(
            Level::Warning,
            text,
            "if that is your load balancer, add it to proxy_protocol; if clients come directly, give them a listener without \
             proxy_protocol; otherwise close the port to others",
        );
    }
}

/// The web server behind a shared port did not answer, and is still configured. `minute` shows whether it does again.
fn web_server(state: Option<&State>, recent: &Change, minute: &Change, problems: &mut Vec<Problem>) {
    let failed = |change: &Change| change.of(|reading| reading.web_unavailable);
    let count = failed(recent);
    let is_back = failed(minute) == 0 && minute.of(|reading| reading.web_clients) > 0;
    if count == 0 || is_back || state.is_some_and(|state| !state.has_web_server) {
        return;
    }
    let text = format!(
        "The web server behind a shared port did not answer {} {}.",
        counted(count, "time"),
        within(recent)
    );
    problems.push(Problem::new(Level::Warning, text, "is the server in [web] running?"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::history::{Detail, History, Reading, Work};
    use crate::admin::overview::{Parts, json as overview};
    use crate::admin::refusals::Cause;
    use crate::admin::state::{Program, Reload, StateSource};

    const NOW: u64 = 1_800_000_000;

    struct Fixed(Option<State>, Reading);

    impl StateSource for Fixed {
        fn reading(&self) -> Option<Reading> {
            self.0.as_ref().map(|_| self.1.clone())
        }

        fn state(&self) -> Option<State> {
            self.0.clone()
        }

        fn now(&self) -> u64 {
            NOW
        }

        fn monotonic(&self) -> u64 {
            600_000_000_000
        }
    }

    fn good() -> State {
        let reload = Reload { is_successful: true, succeeded: NOW };
        State {
            certificate: Some(Certificate {
                name: "relay.example.org".into(),
                not_after: NOW as i64 + 60 * DAY,
                soon: 14 * DAY as u64,
                is_self_signed: false,
            }),
            configuration_reload: reload,
            certificate_reload: reload,
            workers: 2,
            hosts: vec!["ping".to_owned(), "tuit".to_owned()],
            ..State::default()
        }
    }

    /// Returns the levels and texts of the problems. `last` is the reading five minutes after the first one, which is zero.
    fn problems(not_ready: Option<&str>, state: Option<State>, last: Reading) -> Vec<(String, String)> {
        let history = History::default();
        history.record(300_000_000_001, Reading::default());
        history.record(600_000_000_000, last.clone());
        let page = overview(&Parts {
            program: &Program::default(),
            not_ready: not_ready.map(str::to_owned),
            source: &Fixed(state, last),
            history: &history,
            warnings: &[warning(NOW - 601, "old"), warning(NOW - 599, "3 users were refused")],
            refusals: 5,
        });
        let list = page["problems"].as_array().expect("a list");
        let text = |problem: &Value, key: &str| problem[key].as_str().expect("text").to_owned();
        let all = list.iter().map(|problem| (text(problem, "level"), text(problem, "text")));
        all.filter(|(_, text)| text != "3 users were refused").collect()
    }

    fn warning(time: u64, text: &str) -> Warning {
        Warning { cause: Cause::Secrets, time, text: text.to_owned(), next_step: "compare".to_owned() }
    }

    fn limit(used: u64) -> Limit {
        Limit { name: "descriptors", used, limit: 1000, next_step: "raise it" }
    }

    fn only(state: State, last: Reading) -> (String, String) {
        let found = problems(None, Some(state), last);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    #[test]
    fn a_good_server_has_no_problem() {
        let busy = Reading {
            allocated: 100,
            refusals: [5, 500, 0, 0, 0, 9],
            packets: [[1_000_000, 1], [0, 0], [0, 0]],
            drops: [9999, 9999, 9999, 10_000, 0],
            cpu: Duration::from_secs(400),
            detail: Detail {
                reasons: vec![("wrong_password", 0, 5), ("peer_denied", 1, 500)],
                // One client over TCP sends to a closed port; the others of its host are well.
                hosts: vec![[[1_000_000, 1], [900, 0], [0, 0]]],
                handshakes: 41,
                distrusted: 4,
                lacks: vec![("memory", 0)],
                workers: vec![Work { busy: Duration::from_secs(260), turns: 1000, gaps: 10 }],
            },
            ..Reading::default()
        };
        let state = State { limits: vec![limit(799)], ..good() };
        assert_eq!(problems(None, Some(state), busy), []);
    }

    /// A web server that was repaired, or removed from the configuration, is no problem any more.
    #[test]
    fn a_web_server_that_answers_again_is_not_named() {
        let at =
            |web_unavailable, web_clients| Reading { web_unavailable, web_clients, ..Reading::default() };
        let told = |has_web_server, readings: [Reading; 3]| {
            let history = History::default();
            let times = [300_000_000_001, 530_000_000_000, 600_000_000_000];
            let last = readings[2].clone();
            times.into_iter().zip(readings).for_each(|(at, reading)| history.record(at, reading));
            let state = State { has_web_server, ..good() };
            let change = |span| history.change(span, 600_000_000_000, &last).expect("readings");
            let mut problems = Vec::new();
            web_server(Some(&state), &change(RECENT), &change(MINUTE), &mut problems);
            problems.len()
        };
        assert_eq!(told(true, [at(0, 0), at(3, 3), at(3, 3)]), 1, "nobody has come since");
        assert_eq!(told(true, [at(0, 0), at(3, 3), at(3, 5)]), 0, "others were served since");
        assert_eq!(told(true, [at(0, 0), at(3, 3), at(4, 6)]), 1);
        assert_eq!(told(false, [at(0, 0), at(3, 3), at(4, 6)]), 0);
    }

    #[test]
    fn a_start_and_a_drain_are_told_apart() {
        let starting = problems(Some("waiting for the listeners"), None, Reading::default());
        assert_eq!(starting[0].0, "bad");
        assert!(starting[0].1.contains("waiting for the listeners"), "{starting:?}");
        let draining = State { is_draining: true, drain_seconds: Some(60), ..good() };
        let draining = problems(Some("draining"), Some(draining), Reading::default());
        assert_eq!(draining[0].0, "warning");
        assert!(draining[0].1.contains("1m 0s"), "{draining:?}");
    }

    #[test]
    fn each_problem_is_named() {
        let certificate = |days: i64, is_self_signed| State {
            certificate: Some(Certificate {
                name: "a.example".into(),
                not_after: NOW as i64 + days * DAY + 1,
                soon: 14 * DAY as u64,
                is_self_signed,
            }),
            ..good()
        };
        let none = Reading::default;
        let with = |detail| Reading { detail, ..none() };
        let work = |busy, gaps| {
            with(Detail { workers: vec![Work { busy, turns: 1000, gaps }], ..Detail::default() })
        };
        let failed = State { configuration_reload: Reload::default(), ..good() };
        let cases: Vec<(State, Reading, &str, &str)> = vec![
            (certificate(-1, false), none(), "bad", "a.example has expired"),
            (certificate(13, false), none(), "warning", "expires in 13 days"),
            (certificate(1, false), none(), "warning", "expires in 1 day."),
            (certificate(90, true), none(), "warning", "self-signed"),
            (
                State {
                    misnamed: Some(Misnamed {
                        missing: "relay.example.org".into(),
                        names: "www.example.org".into(),
                    }),
                    ..good()
                },
                none(),
                "warning",
                "The certificate is for www.example.org, not for relay.example.org",
            ),
            (State { lacks_ipv4: true, ..good() }, none(), "bad", "no IPv4 address to relay from"),
            (failed, none(), "warning", "reload of the configuration failed"),
            (State { memory_pressure: 1, ..good() }, none(), "bad", "Memory is low"),
            (State { limits: vec![limit(800)], ..good() }, none(), "warning", "800 of 1000 descriptors"),
            (State { limits: vec![limit(950)], ..good() }, none(), "bad", "950 of 1000 descriptors"),
            (good(), Reading { cpu: Duration::from_secs(540), ..none() }, "warning", "1.8 of 2"),
            (
                good(),
                Reading {
                    refusals: [0, 0, 0, 2, 0, 0],
                    ..with(Detail { reasons: vec![("no_port", 3, 2)], ..Detail::default() })
                },
                "bad",
                "2 requests found no port",
            ),
            (
                good(),
                Reading {
                    refusals: [12, 0, 5, 0, 0, 0],
                    allocated: 50,
                    ..with(Detail {
                        reasons: vec![("wrong_password", 0, 12), ("user_allocations", 2, 5)],
                        ..Detail::default()
                    })
                },
                "warning",
                "most for wrong_password; 5 for user_allocations.",
            ),
            (
                good(),
                Reading {
                    refusals: [3, 0, 0, 0, 0, 0],
                    allocated: 50,
                    ..with(Detail {
                        reasons: vec![("expired_name", 0, 1), ("wrong_password", 0, 2)],
                        ..Detail::default()
                    })
                },
                "warning",
                "3 requests were refused in the last five minutes, most for wrong_password.",
            ),
            (
                good(),
                Reading { refusals: [0, 3, 0, 0, 0, 0], ..none() },
                "warning",
                "3 requests for a peer were refused",
            ),
            (
                good(),
                with(Detail { hosts: vec![[[0; 2]; 3], [[0; 2], [0; 2], [50, 0]]], ..Detail::default() }),
                "bad",
                "Nothing comes back from the peers of tuit over tls.",
            ),
            (
                good(),
                with(Detail { handshakes: 134, distrusted: 120, ..Detail::default() }),
                "bad",
                "120 of 134 TLS clients rejected the certificate",
            ),
            (
                good(),
                with(Detail { lacks: vec![("descriptors", 3)], ..Detail::default() }),
                "bad",
                "3 connections or relays were refused in the last five minutes, for lack of: descriptors.",
            ),
            (good(), work(Duration::from_secs(280), 1), "bad", "1 of 1 workers are busy all the time"),
            (
                good(),
                work(Duration::from_secs(1), 11),
                "bad",
                "turn in 100 of worker 0 takes more than 50 ms",
            ),
            (
                good(),
                Reading { drops: [0, 0, 0, 0, 700], unsent: 600, ..none() },
                "bad",
                "100 % of the media was dropped in the last five minutes. Most of it because the kernel refuses to send it",
            ),
            (
                State { no_route_to: Some("198.51.100.20".parse().expect("literal")), ..good() },
                Reading { drops: [0, 0, 0, 0, 700], no_route: 600, ..none() },
                "bad",
                "Most of it because this machine has no route to 198.51.100.20 (IPv4).",
            ),
            (
                good(),
                Reading { drops: [0, 0, 0, 0, 700], no_route: 600, ..none() },
                "bad",
                "Most of it because this machine has no route to the peers.",
            ),
            (
                good(),
                Reading { drops: [0, 0, 0, 700, 10], packets: [[10, 1]; 3], ..none() },
                "bad",
                "Most of it is beyond a bandwidth limit.",
            ),
            (
                good(),
                Reading { drops: [0, 0, 0, 0, 700], packets: [[9499, 1]; 3], ..none() },
                "warning",
                "2 % of the media",
            ),
            (
                State { has_web_server: true, ..good() },
                Reading { web_unavailable: 3, web_clients: 3, ..none() },
                "warning",
                "did not answer 3 times",
            ),
            (
                State { untrusted_from: Some("203.0.113.5".parse().expect("literal")), ..good() },
                Reading { untrusted: 3, ..none() },
                "warning",
                "3 connections to a listener with proxy_protocol did not come from its proxy, and were reset in the last five \
                 minutes, the last from 203.0.113.5.",
            ),
            (good(), Reading { restarts: 1, ..none() }, "warning", "A worker failed"),
        ];
        for (state, last, level, text) in cases {
            let found = only(state, last);
            assert!(found.0 == level && found.1.contains(text), "{text}: {found:?}");
        }
    }
}
