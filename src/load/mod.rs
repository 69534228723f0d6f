//! Load for a TURN server: `hallpass load`.
//!
//! [`run`] drives an `engine` of `client`s (each decides what a [`crate::client::Client`] requests next), `links`
//! (their sockets, shared where one machine can act as many hosts) and `port`s of peers. A packet carries its client
//! and its time of sending (`media`), so `flow` counts it without a table. Everything runs on one thread, in batches,
//! so that the server is the bottleneck.

#![forbid(unsafe_code)]

mod cause;
mod client;
mod drops;
mod engine;
mod flow;
mod latency;
pub mod lesson;
mod links;
mod media;
pub mod options;
mod port;
pub mod process;
pub mod report;
mod stream;
mod timeline;
pub mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::base::transport::Transport;
use crate::client::Credentials;
use engine::{Engine, SlotEvent};
use flow::Schedule;
use latency::Latency;
use media::Direction;
pub use media::LEN as SIZE_MIN;
use options::{Action, Options};
use process::{Processes, Sample};
use report::{Packets, Quantiles, Report, Server};

/// Maximum number of clients that allocate, or release, at once.
const STARTING: u32 = 64;
/// Time for packets in flight at the end of a run, in nanoseconds.
const DRAIN: u64 = 500_000_000;
/// Time for all clients to release their allocations, in nanoseconds.
const RELEASE: u64 = 10_000_000_000;
/// Time for the answer to a Binding request, in nanoseconds.
const ANSWER: u64 = 1_000_000_000;
/// Bursts sent in one turn before arrived packets are read.
const BURSTS: u32 = 64;
/// Binding requests per stream: a server may close streams that never authenticate.
const BINDINGS_PER_STREAM: u32 = 50;

/// The state of a run, for display.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// The phase.
    pub phase: &'static str,
    /// Completed units of the phase.
    pub done: u64,
    /// The total of the units; 0 if the phase is limited by time only.
    pub of: u64,
    /// Packets sent but not arrived so far.
    pub missing: u64,
    /// Time since the phase began.
    pub elapsed: Duration,
}

/// Receives the state of a run several times a second.
pub trait Progress {
    /// Displays `status`.
    fn update(&mut self, status: &Status);
}

/// Runs the load that `options` describe. `clock`: nanoseconds, monotonic.
///
/// # Errors
/// The run cannot start: a process in `server_pids` does not exist, a socket cannot be opened, or credentials or TLS
/// settings are invalid. What the server refuses is counted in the report.
pub fn run(options: &Options, clock: fn() -> u64, progress: &mut dyn Progress) -> io::Result<Report> {
    let slots = match options.action {
        Action::Traffic | Action::Idle => options.allocations,
        Action::Setups | Action::Bindings | Action::Handshakes => options.concurrency,
        Action::Churn => options.allocations.min(options.total),
    };
    let login = Credentials::new(&options.username, &options.password).map_err(io::Error::other)?;
    let mut run = Run {
        engine: Engine::new(&options.connect, slots.max(1), clock)?,
        options: options.clone(),
        login: Arc::new(login),
        server: Processes::new(&options.server_pids)?,
        own: Processes::new(&[std::process::id()])?,
        progress,
        clock,
        shown: 0,
    };
    let before = run.server.sample();
    let mut report = match options.action {
        Action::Traffic => run.traffic(),
        Action::Setups | Action::Bindings | Action::Handshakes => run.operations(),
        Action::Idle => run.idle(),
        Action::Churn => run.churn(),
    };
    let after = run.server.sample();
    if run.server.is_empty() {
        report.server = None;
    } else if let Some(server) = &mut report.server {
        (server.rss_before, server.rss_after) = (before.rss, after.rss);
    }
    report.action = options.action.name();
    report.transport = options.connect.routes[0].transport.name();
    report.server_address = options.connect.routes[0].address.to_string();
    report.errors = run.engine.errors;
    Ok(report)
}

struct Run<'p> {
    engine: Engine,
    options: Options,
    login: Arc<Credentials>,
    server: Processes,
    own: Processes,
    progress: &'p mut dyn Progress,
    clock: fn() -> u64,
    /// When progress was last shown.
    shown: u64,
}

/// The state when measuring began.
struct Start {
    at: u64,
    server: Sample,
    own: Sample,
    idle: u64,
}

impl Run<'_> {
    fn traffic(&mut self) -> Report {
        let ready = self.set_up(self.options.allocations);
        let mut report = Report { allocations: ready.len() as u64, ..Report::default() };
        if ready.is_empty() {
            return report;
        }
        let (warm_up, duration) = (self.options.warm_up, self.options.duration);
        let start = (self.clock)();
        let from = start + nanos(warm_up);
        let until = from + nanos(duration);
        self.engine.flow.measure(from, until);
        let mut pacing = Pacing::new(&self.options, ready.len(), start);
        self.send_until(&mut pacing, &ready, from, "warming up");
        let begun = self.begin();
        self.engine.flow.late = 0;
        self.send_until(&mut pacing, &ready, until, "measuring");
        self.end(&begun, &mut report);
        let drained = (self.clock)() + DRAIN;
        while self.engine.flow.missing() > 0 && self.engine.now < drained {
            self.engine.turn(drained);
        }
        let flow = &self.engine.flow;
        report.packets = Some(Packets {
            sent: Direction::ALL.map(|way| flow.sent_count(way)),
            received: Direction::ALL.map(|way| flow.received_count(way)),
            delivered: flow.delivered(),
        });
        report.latency = Quantiles::of(&flow.latency);
        report.late = Duration::from_nanos(flow.late);
        self.tear_down();
        report
    }

    fn send_until(&mut self, pacing: &mut Pacing, ready: &[usize], until: u64, phase: &'static str) {
        let start = self.engine.now;
        while self.engine.now < until {
            let due = pacing.send(&mut self.engine, &self.options, ready).min(until);
            self.engine.turn(due);
            self.engine.slot_events.clear();
            self.show(phase, start, self.engine.flow.delivered(), 0);
        }
    }

    /// Runs cycles, Binding requests or handshakes: in succession in each slot, in parallel across slots.
    fn operations(&mut self) -> Report {
        let (warm_up, duration) = (self.options.warm_up, self.options.duration);
        let slots = self.engine.slots();
        let mut started = vec![0; slots];
        for slot in 0..slots {
            self.start_operation(slot as u32, &mut started);
        }
        // The next number of a slot is its last one plus the number of slots.
        let mut numbers: Vec<u32> = (0..slots as u32).collect();
        let from = (self.clock)() + nanos(warm_up);
        let until = from + nanos(duration);
        let (mut begun, mut done, mut latency) = (None, 0, Latency::default());
        while self.engine.now < until {
            if begun.is_none() && self.engine.now >= from {
                begun = Some(self.begin());
            }
            self.engine.turn(until);
            self.show("measuring", from, done, 0);
            if self.options.action == Action::Bindings {
                self.ask_again(&mut started, &mut numbers);
            }
            let mut events = std::mem::take(&mut self.engine.slot_events);
            for (slot, event) in events.drain(..) {
                match (self.options.action, event) {
                    (Action::Setups, SlotEvent::Ready) => {
                        self.engine.release(slot);
                        continue;
                    }
                    (Action::Bindings, SlotEvent::Open) => {
                        started[slot] = self.engine.now;
                        self.engine.ask(numbers[slot]);
                        continue;
                    }
                    (_, SlotEvent::Failed(_)) => {}
                    _ if begun.is_some() => {
                        done += 1;
                        latency.record(self.engine.now.saturating_sub(started[slot]));
                    }
                    _ => {}
                }
                numbers[slot] = numbers[slot].wrapping_add(slots as u32);
                let asks = self.options.action == Action::Bindings && !matches!(event, SlotEvent::Failed(_));
                let last = (numbers[slot] / slots as u32).is_multiple_of(BINDINGS_PER_STREAM);
                if asks && !(last && self.options.connect.routes[0].transport != Transport::Udp) {
                    started[slot] = self.engine.now;
                    self.engine.ask(numbers[slot]);
                } else {
                    self.engine.clear(slot);
                    self.start_operation(numbers[slot], &mut started);
                }
            }
            events.append(&mut self.engine.slot_events);
            self.engine.slot_events = events;
        }
        let mut report = Report { operations: Some(done), ..Report::default() };
        if let Some(begun) = begun {
            self.end(&begun, &mut report);
        }
        report.latency = Quantiles::of(&latency);
        self.tear_down();
        report
    }

    /// Repeats Binding requests without an answer under a new number: the request or its answer was lost.
    fn ask_again(&mut self, started: &mut [u64], numbers: &mut [u32]) {
        let slots = started.len() as u32;
        for (slot, started) in started.iter_mut().enumerate() {
            if self.engine.now > *started + ANSWER && self.engine.is_asking(slot) {
                self.engine.fail("Binding: no answer");
                *started = self.engine.now;
                numbers[slot] = numbers[slot].wrapping_add(slots);
                self.engine.ask(numbers[slot]);
            }
        }
    }

    fn start_operation(&mut self, number: u32, started: &mut [u64]) {
        let slot = number as usize % started.len();
        started[slot] = self.engine.now;
        match self.options.action {
            Action::Setups => self.engine.start(number, 0, &self.login),
            Action::Bindings => {
                if self.engine.open(slot, 0) {
                    self.engine.ask(number);
                }
            }
            _ => {
                self.engine.open(slot, 0);
            }
        }
    }

    fn idle(&mut self) -> Report {
        let ready = self.set_up(self.options.allocations);
        let mut report = Report { allocations: ready.len() as u64, ..Report::default() };
        let begun = self.begin();
        let until = self.engine.now + nanos(self.options.duration);
        while self.engine.now < until {
            self.engine.turn(until);
            self.show("holding", begun.at, 0, 0);
        }
        self.end(&begun, &mut report);
        self.tear_down();
        report
    }

    fn churn(&mut self) -> Report {
        let (total, at_once) = (self.options.total, self.engine.slots() as u32);
        let begun = self.begin();
        let (mut made, mut rss_during, mut first) = (0, 0, 0);
        while first < total {
            let count = at_once.min(total - first);
            made += self.set_up_from(first, count).len() as u64;
            rss_during = self.server.sample().rss.max(rss_during);
            self.tear_down();
            first += count;
        }
        let mut report =
            Report { allocations: u64::from(at_once), operations: Some(made), ..Report::default() };
        self.end(&begun, &mut report);
        if let Some(server) = &mut report.server {
            server.rss_during = rss_during;
        }
        report
    }

    fn set_up(&mut self, count: u32) -> Vec<usize> {
        self.set_up_from(0, count)
    }

    /// Creates `count` allocations; returns the slots that became ready.
    fn set_up_from(&mut self, first: u32, count: u32) -> Vec<usize> {
        let (mut started, mut settled, mut ready) = (0, 0, Vec::new());
        let begun = (self.clock)();
        while settled < count {
            while started < count && started - settled < STARTING {
                self.engine.start(first + started, 0, &self.login);
                started += 1;
            }
            self.engine.turn(u64::MAX);
            for (slot, event) in self.engine.slot_events.drain(..) {
                settled += 1;
                if event == SlotEvent::Ready {
                    ready.push(slot);
                }
            }
            self.show("allocating", begun, u64::from(settled), u64::from(count));
        }
        ready.sort_unstable();
        ready
    }

    /// Makes every client release its allocation.
    fn tear_down(&mut self) {
        let begun = (self.clock)();
        let mut open: Vec<usize> =
            (0..self.engine.slots()).filter(|&slot| self.engine.is_ready(slot)).collect();
        let (all, mut running, mut done) = (open.len() as u64, 0, 0);
        while (done < all || running > 0) && self.engine.now < begun + RELEASE {
            while running < STARTING
                && let Some(slot) = open.pop()
            {
                self.engine.release(slot);
                running += 1;
            }
            self.engine.turn(begun + RELEASE);
            let mut events = std::mem::take(&mut self.engine.slot_events);
            for (slot, event) in events.drain(..) {
                if matches!(event, SlotEvent::Done | SlotEvent::Failed(_)) {
                    self.engine.clear(slot);
                    (running, done) = (running - 1, done + 1);
                }
            }
            self.show("releasing", begun, done, all);
        }
        (0..self.engine.slots()).for_each(|slot| self.engine.clear(slot));
        self.engine.slot_events.clear();
    }

    fn begin(&mut self) -> Start {
        let (server, own) = (self.server.sample(), self.own.sample());
        Start { at: (self.clock)(), server, own, idle: self.engine.idle }
    }

    /// Adds to the report what was used since `begun`, and the server's current memory.
    fn end(&mut self, begun: &Start, report: &mut Report) {
        let (server, own) = (self.server.sample(), self.own.sample());
        report.elapsed = Duration::from_nanos((self.clock)() - begun.at);
        let idle = Duration::from_nanos(self.engine.idle - begun.idle).as_secs_f64();
        let busy = 1.0 - idle / report.elapsed.as_secs_f64().max(1e-9);
        report.generator = (own.cpu - begun.own.cpu, busy.clamp(0.0, 1.0));
        let cpu = server.cpu - begun.server.cpu;
        report.server = Some(Server { cpu, rss_during: server.rss, ..Server::default() });
    }

    fn show(&mut self, phase: &'static str, begun: u64, done: u64, of: u64) {
        /// 100 ms, in nanoseconds.
        const PERIOD: u64 = 100_000_000;
        let now = self.engine.now;
        if now - self.shown.min(now) >= PERIOD {
            self.shown = now;
            let elapsed = Duration::from_nanos(now.saturating_sub(begun));
            let missing = self.engine.flow.missing();
            self.progress.update(&Status { phase, done, of, missing, elapsed });
        }
    }
}

/// When packets are sent: by one schedule for each direction, or as fast as packets arrive.
enum Pacing {
    Paced([Option<Schedule>; 2]),
    /// The next allocation by direction; `None`: the direction is unused.
    Saturating([Option<usize>; 2]),
}

impl Pacing {
    fn new(options: &Options, allocations: usize, start: u64) -> Self {
        if options.saturate {
            return Self::Saturating(options.rates.map(|rate| (rate > 0.0).then_some(0)));
        }
        let seeds = [1, 2];
        Self::Paced(
            [0, 1]
                .map(|way| Schedule::new(start, allocations, options.rates[way], options.burst, seeds[way])),
        )
    }

    /// Sends the packets that are due or allowed; returns when the next one is due.
    fn send(&mut self, engine: &mut Engine, options: &Options, ready: &[usize]) -> u64 {
        let Options { burst, window, size, .. } = *options;
        let send = |engine: &mut Engine, way: Direction, slot: usize| {
            for _ in 0..burst {
                engine.send(way, slot, size, engine.now);
            }
        };
        match self {
            Pacing::Paced(schedules) => {
                let mut next = u64::MAX;
                for (schedule, way) in schedules.iter_mut().zip(Direction::ALL) {
                    let Some(schedule) = schedule else { continue };
                    for _ in 0..BURSTS {
                        let due = schedule.due();
                        let Some(allocation) = schedule.take(engine.now) else { break };
                        engine.flow.late = engine.flow.late.max(engine.now - due);
                        send(engine, way, ready[allocation]);
                    }
                    next = next.min(schedule.due());
                }
                next
            }
            Pacing::Saturating(turns) => {
                for (turn, way) in turns.iter_mut().zip(Direction::ALL) {
                    let Some(turn) = turn else { continue };
                    while engine.flow.in_flight(way) + u64::from(burst) <= u64::from(window) {
                        let before = engine.flow.in_flight(way);
                        send(engine, way, ready[*turn % ready.len()]);
                        *turn += 1;
                        if engine.flow.in_flight(way) == before {
                            break;
                        }
                    }
                }
                engine.now
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
