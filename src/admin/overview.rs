//! The state of the server at one moment, and what is wrong with it, for the dashboard.

use std::time::Duration;

use serde_json::{Value, json};

use super::history::{History, Increases, Reading};

/// Days before the end of a certificate when the operator must act, as in the log.
const CERTIFICATE_DAYS: i64 = 14;
const DAY: i64 = 86_400;
/// Recent means this long ago.
const RECENT: Duration = Duration::from_secs(300);
const HOUR: Duration = Duration::from_secs(3600);
/// Seconds for which a warning from the log is shown.
const WARNING_SHOWN: u64 = 600;
/// Refusals from which their share of the new sessions says something.
const REFUSALS_MIN: f64 = 10.0;

/// Reads the state of the running server.
pub trait StateSource: Send + Sync {
    /// Returns the figures of this moment; `None` until the workers have started.
    fn reading(&self) -> Option<Reading>;
    /// Returns the rest of the state; `None` until the workers have started.
    fn state(&self) -> Option<State>;
    /// Returns the time in seconds since 1970.
    fn now(&self) -> u64;
    /// Returns the time of the monotonic clock in nanoseconds.
    fn monotonic(&self) -> u64;
}

/// The program and its start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The version.
    pub version: &'static str,
    /// The commit, in release builds.
    pub revision: Option<&'static str>,
    /// Its start in seconds since 1970.
    pub started: u64,
}

/// The state of the server.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The certificate for clients; `None` if it cannot be read.
    pub certificate: Option<Certificate>,
    /// The last reload of the configuration.
    pub configuration_reload: Reload,
    /// The last reload of the certificate.
    pub certificate_reload: Reload,
    /// Whether a drain is running.
    pub is_draining: bool,
    /// Seconds until the drain closes remaining clients; `None` without a deadline.
    pub drain_seconds: Option<u64>,
    /// Memory pressure: 0 none, 1 new clients are refused, 2 queues are cut too.
    pub memory_pressure: u8,
    /// Limit on sockets.
    pub descriptors_max: u64,
    /// Relay ports in use.
    pub relay_ports: u64,
    /// Threads that relay.
    pub workers: usize,
    /// Names of the hosts.
    pub hosts: Vec<String>,
}

/// A certificate.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// Its first name.
    pub name: String,
    /// The end of its validity in seconds since 1970.
    pub not_after: i64,
    /// Whether it is signed with its own key.
    pub is_self_signed: bool,
}

/// The last reload of one thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reload {
    /// Whether it succeeded.
    pub is_successful: bool,
    /// The last success in seconds since 1970.
    pub succeeded: u64,
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Calls fail now.
    Bad,
    /// Calls may fail soon, or some fail.
    Warning,
}

/// Something that the operator should know.
#[derive(Clone, Debug)]
struct Problem {
    level: Level,
    text: String,
    next_step: &'static str,
}

impl Problem {
    fn json(&self) -> Value {
        let level = if self.level == Level::Bad { "bad" } else { "warning" };
        json!({ "level": level, "text": self.text, "next_step": self.next_step })
    }
}

/// The parts that an overview is made of.
pub struct Parts<'a> {
    /// The program.
    pub program: &'a Program,
    /// Why the server is not ready.
    pub not_ready: Option<String>,
    /// The running server.
    pub source: &'a dyn StateSource,
    /// The recent past.
    pub history: &'a History,
    /// The last warnings about refusals, each with its time.
    pub warnings: &'a [(u64, String)],
    /// Refusals reported since the start.
    pub refusals: u64,
}

/// Returns the overview as JSON.
pub fn json(parts: &Parts<'_>) -> Value {
    let Parts { program, not_ready, source, history, warnings, refusals } = parts;
    let (state, reading) = (source.state(), source.reading());
    let now = source.now();
    let recent = history.increases(RECENT, source.monotonic());
    let hour = history.increases(HOUR, source.monotonic());
    let mut problems = Vec::new();
    readiness(not_ready.as_deref(), state.as_ref(), &mut problems);
    if let (Some(state), Some(reading)) = (&state, &reading) {
        certificate(state, now, &mut problems);
        reloads(state, &mut problems);
        resources(state, reading, &recent, &mut problems);
    }
    calls(&recent, &hour, &mut problems);
    for (time, text) in *warnings {
        let age = now.saturating_sub(*time);
        if age < WARNING_SHOWN {
            let text = match age / 60 {
                0 => text.clone(),
                minutes => format!("{text} ({} ago)", counted(minutes as f64, "minute")),
            };
            problems.push(Problem { level: Level::Warning, text, next_step: "" });
        }
    }
    problems.sort_by_key(|problem| problem.level);
    json!({
        "version": program.version,
        "revision": program.revision,
        "started": program.started,
        "now": now,
        "ready": not_ready.is_none(),
        "problems": problems.iter().map(Problem::json).collect::<Vec<_>>(),
        "refusals": refusals,
        "refusals_last_hour": hour.of(&["refusals_"]).round(),
        "state": state.map(|state| state.json()),
        "levels": reading.map(|reading| levels(&reading)),
    })
}

impl State {
    fn json(&self) -> Value {
        let certificate = self.certificate.as_ref().map(|certificate| {
            json!({
                "name": certificate.name,
                "not_after": certificate.not_after,
                "self_signed": certificate.is_self_signed,
            })
        });
        let reload =
            |reload: Reload| json!({ "successful": reload.is_successful, "succeeded": reload.succeeded });
        json!({
            "certificate": certificate,
            "configuration_reload": reload(self.configuration_reload),
            "certificate_reload": reload(self.certificate_reload),
            "draining": self.is_draining,
            "drain_seconds": self.drain_seconds,
            "memory_pressure": self.memory_pressure,
            "descriptors_max": self.descriptors_max,
            "relay_ports": self.relay_ports,
            "workers": self.workers,
            "hosts": self.hosts,
        })
    }
}

fn levels(reading: &Reading) -> Value {
    json!({
        "users": reading.users,
        "allocations": reading.allocations.iter().sum::<u64>(),
        "connections": reading.connections,
        "memory": reading.memory,
        "descriptors": reading.descriptors,
    })
}

fn readiness(not_ready: Option<&str>, state: Option<&State>, problems: &mut Vec<Problem>) {
    let Some(reason) = not_ready else { return };
    let mut add = |level, text: String, next_step| problems.push(Problem { level, text, next_step });
    match state {
        Some(State { is_draining: true, drain_seconds, .. }) => {
            let text = match drain_seconds {
                Some(seconds) => {
                    format!(
                        "The server drains: it refuses new clients, and ends the others in {seconds} s at the latest."
                    )
                }
                None => "The server drains: it refuses new clients and keeps the others.".to_owned(),
            };
            add(Level::Warning, text, "nothing if this is meant; otherwise restart the server");
        }
        _ => add(
            Level::Bad,
            format!("The server is not ready: it is {reason}."),
            "if this lasts longer than a few seconds, see the log",
        ),
    }
}

fn certificate(state: &State, now: u64, problems: &mut Vec<Problem>) {
    let Some(Certificate { name, not_after, is_self_signed }) = &state.certificate else { return };
    let left = not_after.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    let mut add = |level, text: String, next_step| problems.push(Problem { level, text, next_step });
    const RENEW: &str = "renew it, then systemctl reload hallpass";
    if left < 0 {
        add(
            Level::Bad,
            format!("The certificate of {name} has expired: browsers refuse turns: addresses."),
            RENEW,
        );
    } else if left < CERTIFICATE_DAYS * DAY {
        let days = left / DAY;
        let days = counted(days as f64, "day");
        add(Level::Warning, format!("The certificate of {name} expires in {days}."), RENEW);
    }
    if *is_self_signed {
        let text = format!("The certificate of {name} is self-signed: browsers refuse turns: addresses.");
        add(Level::Warning, text, "write [tls] with cert and key of a public authority");
    }
}

fn reloads(state: &State, problems: &mut Vec<Problem>) {
    for (what, reload) in
        [("configuration", state.configuration_reload), ("certificate", state.certificate_reload)]
    {
        if !reload.is_successful {
            problems.push(Problem {
                level: Level::Warning,
                text: format!("The last reload of the {what} failed; the one before stays in use."),
                next_step: "the log names the mistake; hallpass check finds it too",
            });
        }
    }
}

fn resources(state: &State, reading: &Reading, recent: &Increases, problems: &mut Vec<Problem>) {
    let mut add = |level, text: String, next_step| problems.push(Problem { level, text, next_step });
    const MEMORY: &str = "add memory, or raise limits.memory_mib";
    match state.memory_pressure {
        0 => {}
        1 => add(Level::Bad, "Memory is low: new clients are refused.".to_owned(), MEMORY),
        _ => {
            add(Level::Bad, "Memory is short: new clients are refused and queues are cut.".to_owned(), MEMORY)
        }
    }
    if state.descriptors_max > 0 && reading.descriptors * 5 > state.descriptors_max * 4 {
        let text = format!("{} of {} descriptors are in use.", reading.descriptors, state.descriptors_max);
        add(Level::Warning, text, "raise LimitNOFILE= in the systemd unit");
    }
    let cores = recent.of(&["cpu"]) / RECENT.as_secs_f64();
    if state.workers > 0 && cores > 0.85 * state.workers as f64 {
        let text = format!("The processors are nearly used up: {cores:.1} of {}.", state.workers);
        add(Level::Warning, text, "give the machine more cores, or add a relay");
    }
}

/// Returns a number with what it counts, such as `2 requests`.
fn counted(count: f64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1.0 { "" } else { "s" })
}

/// What clients have met in the last minutes.
fn calls(recent: &Increases, hour: &Increases, problems: &mut Vec<Problem>) {
    let mut add = |level, text: String, next_step| problems.push(Problem { level, text, next_step });
    let capacity = recent.of(&["refusals_capacity"]).round();
    if capacity > 0.0 {
        let text = format!(
            "{} found no port, descriptor or memory in the last five minutes.",
            counted(capacity, "request")
        );
        add(Level::Bad, text, "see the refusals below for which");
    }
    let refused = recent.of(&["refusals_credentials", "refusals_limits"]).round();
    if refused >= REFUSALS_MIN && refused > 0.2 * (recent.of(&["allocated"]) + refused) {
        let text = format!("{refused} requests were refused in the last five minutes.");
        add(Level::Warning, text, "the refusals below say why, and what to do");
    }
    let lost = recent.of(&["drops_over_rate", "drops_undelivered"]);
    let relayed = recent.of(&["packets_"]);
    if lost >= 100.0 && lost > 0.02 * (relayed + lost) {
        let share = 100.0 * lost / (relayed + lost);
        let text = format!("{share:.0} % of the media was dropped in the last five minutes.");
        add(Level::Warning, text, "see hallpass_drops_total for the reason; docs/metrics.md explains each");
    }
    let web = recent.of(&["web_unavailable"]).round();
    if web > 0.0 {
        let text = format!(
            "The web server behind a shared port did not answer {} in the last five minutes.",
            counted(web, "time")
        );
        add(Level::Warning, text, "is the server in [web] running?");
    }
    let restarts = hour.of(&["restarts"]).round();
    if restarts > 0.0 {
        let text = "A worker failed in the last hour, and its calls ended.".to_owned();
        add(Level::Warning, text, "see the log, and report this bug");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                is_self_signed: false,
            }),
            configuration_reload: reload,
            certificate_reload: reload,
            descriptors_max: 1000,
            workers: 2,
            ..State::default()
        }
    }

    /// Returns the levels and texts of the problems. `last` is the reading five minutes after the first one, which is zero.
    fn problems(not_ready: Option<&str>, state: Option<State>, last: Reading) -> Vec<(String, String)> {
        let history = History::default();
        history.record(300_000_000_001, Reading::default());
        history.record(600_000_000_000, last.clone());
        let page = json(&Parts {
            program: &Program::default(),
            not_ready: not_ready.map(str::to_owned),
            source: &Fixed(state, last),
            history: &history,
            warnings: &[(NOW - 601, "old".into()), (NOW - 599, "3 users were refused".into())],
            refusals: 5,
        });
        let list = page["problems"].as_array().expect("a list");
        let text = |problem: &Value, key: &str| problem[key].as_str().expect("text").to_owned();
        let all = list.iter().map(|problem| (text(problem, "level"), text(problem, "text")));
        all.filter(|(_, text)| text != "3 users were refused (9 minutes ago)").collect()
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
            refusals: [20, 500, 0, 0, 0, 9],
            packets: [[1_000_000, 0], [0, 0], [0, 0]],
            drops: [9999, 9999, 9999, 10_000, 0],
            cpu: Duration::from_secs(400),
            descriptors: 800,
            ..Reading::default()
        };
        assert_eq!(problems(None, Some(good()), busy), []);
    }

    #[test]
    fn a_start_and_a_drain_are_told_apart() {
        let starting = problems(Some("waiting for the listeners"), None, Reading::default());
        assert_eq!(starting[0].0, "bad");
        assert!(starting[0].1.contains("waiting for the listeners"), "{starting:?}");
        let draining = State { is_draining: true, drain_seconds: Some(60), ..good() };
        let draining = problems(Some("draining"), Some(draining), Reading::default());
        assert_eq!(draining[0].0, "warning");
        assert!(draining[0].1.contains("60 s"), "{draining:?}");
    }

    #[test]
    fn each_problem_is_named() {
        let certificate = |days: i64, is_self_signed| State {
            certificate: Some(Certificate {
                name: "a.example".into(),
                not_after: NOW as i64 + days * DAY + 1,
                is_self_signed,
            }),
            ..good()
        };
        let none = Reading::default;
        let failed = State { configuration_reload: Reload::default(), ..good() };
        let cases: Vec<(State, Reading, &str, &str)> = vec![
            (certificate(-1, false), none(), "bad", "a.example has expired"),
            (certificate(13, false), none(), "warning", "expires in 13 days"),
            (certificate(1, false), none(), "warning", "expires in 1 day."),
            (certificate(90, true), none(), "warning", "self-signed"),
            (failed, none(), "warning", "reload of the configuration failed"),
            (State { memory_pressure: 1, ..good() }, none(), "bad", "Memory is low"),
            (good(), Reading { descriptors: 801, ..none() }, "warning", "801 of 1000 descriptors"),
            (good(), Reading { cpu: Duration::from_secs(540), ..none() }, "warning", "1.8 of 2"),
            (good(), Reading { refusals: [0, 0, 0, 2, 0, 0], ..none() }, "bad", "2 requests found no port"),
            (
                good(),
                Reading { refusals: [30, 0, 0, 0, 0, 0], allocated: 100, ..none() },
                "warning",
                "30 requests were refused",
            ),
            (
                good(),
                Reading { drops: [0, 0, 0, 0, 700], packets: [[9500, 0]; 3], ..none() },
                "warning",
                "2 % of the media",
            ),
            (good(), Reading { web_unavailable: 3, ..none() }, "warning", "did not answer 3 times"),
            (good(), Reading { restarts: 1, ..none() }, "warning", "A worker failed"),
        ];
        for (state, last, level, text) in cases {
            let found = only(state, last);
            assert!(found.0 == level && found.1.contains(text), "{text}: {found:?}");
        }
    }
}
