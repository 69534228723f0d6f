//! Runs lessons: the one part with sockets, a clock and processes to watch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::{Agenda, Burst, Source};
use super::attendance::{Attendance, Command};
use super::counters::Counters;
use super::limit::{answered, counted};
use super::outcome::{Moment, Outcome, Setting};
use super::ramp::{Ramp, Task};
use super::shape::{Role, mix};
use super::step::{Generator, ServerUse, Step};
use crate::client::Credentials;
use crate::load::cause::Cause;
use crate::load::drops::dropped;
use crate::load::engine::{Engine, SlotEvent};
use crate::load::latency::Latency;
use crate::load::media::Direction;
use crate::load::options::Connect;
use crate::load::process::Processes;
use crate::load::report::Quantiles;
use crate::load::timeline::Timeline;

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// Time for packets in flight at the end of a measurement, in nanoseconds.
const DRAIN: u64 = 500_000_000;
/// A measurement waits this long at most until no packet is overdue by more than the second figure, in nanoseconds.
const CATCH_UP: u64 = 5_000_000_000;
const OVERDUE: u64 = 20_000_000;
/// Packets sent in one turn before arrived packets are read.
const PACKETS: u32 = 512;
/// How often progress is shown, in nanoseconds.
const PROGRESS: u64 = 100_000_000;

/// What to run.
pub struct Options {
    /// The circumstances, for the report.
    pub setting: Setting,
    /// The ways to the server. All participants have sockets of their own.
    pub connect: Connect,
    /// The share of the participants that uses each route.
    pub weights: Vec<u32>,
    /// What the participants log in with.
    pub login: Login,
    /// The numbers of pupils to measure.
    pub ramp: Ramp,
    /// The largest of them.
    pub pupils_max: u32,
    /// The time that packets flow before a measurement.
    pub warm_up: Duration,
    /// The length of a measurement.
    pub duration: Duration,
    /// The server's processes, if it runs on this machine.
    pub server_pids: Vec<u32>,
}

/// What participants log in with.
pub enum Login {
    /// A name for each participant (TURN REST).
    Each {
        /// The shared secret.
        secret: String,
        /// When the names expire, in seconds since 1970.
        expires: u64,
        /// The beginning of the user part; a number follows.
        user: String,
    },
    /// One name for all.
    Shared(Arc<Credentials>),
}

/// The part of a measurement that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Participants join, or leave.
    Joining,
    /// Packets flow but do not count yet.
    WarmingUp,
    /// Packets count.
    Measuring,
    /// Everybody leaves.
    Leaving,
}

/// The state of a run, for display.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// The measurement.
    pub task: Task,
    /// Its part.
    pub phase: Phase,
    /// Allocations with packets.
    pub open: usize,
    /// Allocations that have not joined yet.
    pub waiting: usize,
    /// Time since the measured interval began, and its length.
    pub elapsed: (Duration, Duration),
    /// Packets per second, megabits per second and the share of lost packets so far.
    pub rates: (f64, f64, f64),
}

/// Watches a run.
pub trait Watch {
    /// Displays the state, several times a second.
    fn status(&mut self, status: &Status);
    /// Displays a measurement that has ended.
    fn step(&mut self, step: &Step);
    /// Reads the server's counters; `None` if it cannot be asked. Not called while a measurement runs.
    fn counters(&mut self) -> Option<Counters>;
}

/// Runs all measurements. `clock`: nanoseconds, monotonic.
///
/// # Errors
/// The run cannot start: a process in `server_pids` does not exist, a socket cannot be opened, or credentials or TLS
/// settings are invalid. What the server refuses is part of the outcome.
pub fn run(mut options: Options, clock: fn() -> u64, watch: &mut dyn Watch) -> io::Result<Outcome> {
    let shape = options.setting.shape;
    let seats = shape.seats(options.pupils_max);
    let slots = shape.slots(options.pupils_max).max(1);
    let mut engine = Engine::new(&options.connect, slots, clock)?;
    let start = clock();
    engine.flow.timeline = Some(Box::new(Timeline::new(start)));
    let mut ramp = options.ramp.clone();
    let first = ramp.next().unwrap_or(Task { pupils: 0, is_confirmation: false });
    options.setting.has_counters = watch.counters().is_some();
    let mut school = School {
        routes: mix(&options.weights, seats),
        logins: vec![None; seats as usize],
        rounds: vec![0; slots as usize],
        attendance: Attendance::new(shape, slots),
        agenda: Agenda::new(&shape, 0, start),
        seats: 0,
        lateness: Latency::default(),
        server: Processes::new(&options.server_pids)?,
        moments: Vec::new(),
        cpu: Duration::ZERO,
        start,
        shown: 0,
        task: first,
        measured: (0, 0),
        engine,
        options,
        watch,
        clock,
    };
    // A name that no request can carry would fail for everybody.
    school.login(0)?;
    school.cpu = school.server.sample().cpu;
    let mut steps = Vec::new();
    while let Some(task) = ramp.next() {
        let step = school.measure(task)?;
        school.watch.step(&step);
        ramp.record(step.is_good());
        steps.push(step);
    }
    school.attendance.set_seats(0, school.engine.now);
    while !school.attendance.is_settled() {
        school.turn(u64::MAX, Phase::Leaving)?;
    }
    Ok(school.outcome(steps, &ramp))
}

struct School<'w> {
    options: Options,
    engine: Engine,
    attendance: Attendance,
    agenda: Agenda,
    /// Seats that are taken in the current step.
    seats: u32,
    /// The route of each participant.
    routes: Vec<u8>,
    /// The credentials of each participant, once they are used.
    logins: Vec<Option<Arc<Credentials>>>,
    /// How often each slot was used.
    rounds: Vec<u32>,
    /// Delays between due time and sending in the measured interval.
    lateness: Latency,
    server: Processes,
    /// Allocations with packets, and the server's CPU in cores, at the end of each second.
    moments: Vec<(usize, Option<f64>)>,
    /// The server's CPU time at the last of them.
    cpu: Duration,
    start: u64,
    /// When progress was last shown.
    shown: u64,
    task: Task,
    /// Begin and end of the measured interval.
    measured: (u64, u64),
    watch: &'w mut dyn Watch,
    clock: fn() -> u64,
}

impl School<'_> {
    /// Measures one number of pupils.
    fn measure(&mut self, task: Task) -> io::Result<Step> {
        let shape = self.options.setting.shape;
        let before = self.watch.counters();
        let now = (self.clock)();
        self.task = task;
        self.seats = shape.seats(task.pupils);
        self.agenda = Agenda::new(&shape, self.seats, now);
        self.attendance.set_seats(self.seats, now);
        while !self.attendance.is_settled() {
            self.turn(u64::MAX, Phase::Joining)?;
        }
        let warm = self.engine.now + nanos(self.options.warm_up);
        // After a step that overloaded this machine, packets may still be overdue.
        while self.engine.now < warm
            || (self.agenda.due().saturating_add(OVERDUE) < self.engine.now
                && self.engine.now < warm + CATCH_UP)
        {
            self.turn(warm.max(self.engine.now), Phase::WarmingUp)?;
        }
        let drops = dropped(&self.engine.udp_ports());
        let from = (self.clock)();
        let until = from + nanos(self.options.duration);
        self.measured = (from, until);
        self.engine.flow.start_again(from, until);
        self.lateness.clear();
        let rejoin = self.options.setting.rejoin.map(nanos);
        self.attendance.set_rejoins(rejoin, from);
        let (used, idle) = (self.server.sample(), self.engine.idle);
        while self.engine.now < until {
            self.turn(until, Phase::Measuring)?;
        }
        let sample = self.server.sample();
        let elapsed = Duration::from_nanos((self.clock)() - from);
        let idle = Duration::from_nanos(self.engine.idle - idle).as_secs_f64();
        self.attendance.set_rejoins(None, until);
        while self.engine.flow.missing() > 0 && self.engine.now < until + DRAIN {
            self.turn(until + DRAIN, Phase::Measuring)?;
        }
        // What this program could not send in time counts as lost: participants would miss it, too.
        while let Some(burst) = self.agenda.take(until - 1) {
            self.lateness.record(self.engine.now.saturating_sub(burst.due));
            self.emit(&burst, false);
        }
        let joins = self.attendance.take_joins();
        let flow = &self.engine.flow;
        let mut step = Step {
            pupils: task.pupils,
            participants: self.seats,
            allocations: self.seats * shape.slots_per_seat(),
            is_confirmation: task.is_confirmation,
            began: Duration::from_nanos(from - self.start),
            elapsed,
            sent: Direction::ALL.map(|way| flow.sent_count(way)).iter().sum(),
            received: Direction::ALL.map(|way| flow.received_count(way)).iter().sum(),
            delivered: (flow.delivered(), flow.delivered_bytes()),
            latency: Quantiles::of(&flow.latency),
            lateness: Quantiles::of(&self.lateness),
            joined: joins.done,
            join_time: Quantiles::of(&joins.took),
            server: (!self.server.is_empty()).then(|| ServerUse {
                cores: (sample.cpu - used.cpu).as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
                waited: (sample.waited - used.waited).as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
                rss: sample.rss,
            }),
            generator: Generator {
                busy: (1.0 - idle / elapsed.as_secs_f64().max(1e-9)).clamp(0.0, 1.0),
                dropped: dropped(&self.engine.udp_ports()).saturating_sub(drops),
                unopened: joins.failed.get(&Cause::Unopened).copied().unwrap_or(0),
            },
            limits: answered(&joins.failed),
            failed: joins.failed,
            errors: std::mem::take(&mut self.engine.errors),
            ..Step::default()
        };
        // Counters tell more than error codes.
        if let (Some(before), Some(after)) = (before, self.watch.counters()) {
            let limits = counted(&before, &after);
            step.limits = if limits.is_empty() { step.limits } else { limits };
        }
        step.verdict = step.judge(&self.options.setting.bounds);
        Ok(step)
    }

    /// Sends what is due, receives what arrived, and lets participants join and leave; sleeps until about `until` at most.
    fn turn(&mut self, until: u64, phase: Phase) -> io::Result<()> {
        let mut packets = 0;
        while packets < PACKETS
            && let Some(burst) = self.agenda.take(self.engine.now)
        {
            self.lateness.record(self.engine.now - burst.due);
            packets += self.emit(&burst, true);
        }
        while let Some(command) = self.attendance.poll(self.engine.now) {
            match command {
                Command::Join(slot) => self.join(slot)?,
                Command::Release(slot) => self.engine.release(slot as usize),
                Command::GiveUp(slot) => self.engine.clear(slot as usize),
            }
        }
        let second = self.start + (self.moments.len() as u64 + 1) * SECOND;
        let due = until.min(second).min(self.agenda.due()).min(self.attendance.due());
        self.engine.turn(due);
        let now = self.engine.now;
        let mut events = std::mem::take(&mut self.engine.slot_events);
        for (slot, event) in events.drain(..) {
            // There are fewer slots than 2^32.
            let number = slot as u32;
            match event {
                SlotEvent::Open => {}
                SlotEvent::Ready => self.attendance.on_ready(number, now),
                SlotEvent::Done => {
                    self.engine.clear(slot);
                    self.attendance.on_done(number);
                }
                SlotEvent::Failed(cause) => self.attendance.on_failed(number, cause),
            }
        }
        events.append(&mut self.engine.slot_events);
        self.engine.slot_events = events;
        if now >= second {
            self.note_second(now - second + SECOND);
        }
        self.show(phase);
        Ok(())
    }

    /// Sends the packets of a burst to all whom they reach, or only counts them as due; returns how many.
    fn emit(&mut self, burst: &Burst, sends: bool) -> u32 {
        let shape = self.options.setting.shape;
        let (lesson, place, role) = match burst.source {
            Source::Voice { seat, way } => {
                return self.emit_to(shape.slot(seat, Role::Sound), way, burst, sends);
            }
            Source::Camera { lesson, place } => (lesson, place, Role::Camera(place)),
            Source::Screen { lesson } => (lesson, 0, Role::Screen),
        };
        let taken = shape.taken(lesson, self.seats);
        let publisher = taken.start + place;
        let own = shape.slot(publisher, role);
        if !self.attendance.is_open(own) {
            return 0;
        }
        let mut packets = self.emit_to(own, Direction::FromClient, burst, sends);
        for viewer in taken.filter(|seat| *seat != publisher) {
            packets += self.emit_to(shape.slot(viewer, role), Direction::FromPeer, burst, sends);
        }
        packets
    }

    fn emit_to(&mut self, slot: u32, way: Direction, burst: &Burst, sends: bool) -> u32 {
        if !self.attendance.is_open(slot) {
            return 0;
        }
        for _ in 0..burst.packets {
            if !sends || !self.engine.send(way, slot as usize, burst.size, burst.due) {
                // It was due and never arrives.
                self.engine.flow.sent(way, burst.due);
            }
        }
        burst.packets
    }

    fn join(&mut self, slot: u32) -> io::Result<()> {
        let seat = self.options.setting.shape.seat_of(slot);
        let login = self.login(seat)?;
        let slots = self.engine.slots() as u32;
        let round = &mut self.rounds[slot as usize];
        // The number of a client is that of its slot plus a multiple of all slots.
        *round = (*round + 1) % (u32::MAX / slots);
        let number = slot + *round * slots;
        self.engine.start(number, usize::from(self.routes[seat as usize]), &login);
        Ok(())
    }

    /// Returns the credentials of a participant.
    fn login(&mut self, seat: u32) -> io::Result<Arc<Credentials>> {
        let (secret, expires, user) = match &self.options.login {
            Login::Shared(credentials) => return Ok(Arc::clone(credentials)),
            Login::Each { secret, expires, user } => (secret, *expires, user),
        };
        let Some(place) = self.logins.get_mut(seat as usize) else {
            return Err(io::Error::other("there is no pupil"));
        };
        if let Some(login) = place {
            return Ok(Arc::clone(login));
        }
        let login =
            Credentials::rest(secret, expires, &format!("{user}-{}", seat + 1)).map_err(io::Error::other)?;
        Ok(Arc::clone(place.insert(Arc::new(login))))
    }

    /// Stores the state at the end of a second, which took `nanos`.
    fn note_second(&mut self, nanos: u64) {
        let cpu = (!self.server.is_empty()).then(|| {
            let cpu = self.server.sample().cpu;
            let used = cpu - std::mem::replace(&mut self.cpu, cpu);
            used.as_secs_f64() * SECOND as f64 / nanos as f64
        });
        let open = self.attendance.open_count();
        let missed = usize::try_from(nanos / SECOND).unwrap_or(1).clamp(1, 3600);
        self.moments.extend(std::iter::repeat_n((open, cpu), missed));
    }

    fn show(&mut self, phase: Phase) {
        let now = self.engine.now;
        if now < self.shown + PROGRESS {
            return;
        }
        self.shown = now;
        let (from, until) = self.measured;
        let flow = &self.engine.flow;
        let elapsed = Duration::from_nanos(now.min(until).saturating_sub(from));
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let sent: u64 = Direction::ALL.iter().map(|&way| flow.sent_count(way)).sum();
        self.watch.status(&Status {
            task: self.task,
            phase,
            open: self.attendance.open_count(),
            waiting: self.attendance.waiting(),
            elapsed: (elapsed, self.options.duration),
            rates: (
                flow.delivered() as f64 / seconds,
                flow.delivered_bytes() as f64 * 8.0 / 1e6 / seconds,
                flow.missing() as f64 / sent.max(1) as f64,
            ),
        });
    }

    fn outcome(mut self, steps: Vec<Step>, ramp: &Ramp) -> Outcome {
        let timeline = self.engine.flow.timeline.take();
        let seconds = timeline.map_or(Vec::new(), |timeline| timeline.finish(self.engine.now));
        let moments = self.moments.iter().enumerate().map(|(index, &(allocations, server_cpu))| Moment {
            allocations,
            packets: seconds.get(index).copied().unwrap_or_default(),
            server_cpu,
        });
        Outcome { moments: moments.collect(), setting: self.options.setting, steps, found: ramp.found() }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}
