//! Who joins and who leaves, and when: a pure state machine over the slots of all participants.
//!
//! Joins are paced, because a whole school behind one address joins within a minute or two and not within a second, and
//! servers limit the requests of one source for that reason. While rejoins are on, pupils leave and come back in turn.

use std::collections::{BTreeMap, VecDeque};

use super::shape::Shape;
use crate::load::cause::Cause;
use crate::load::latency::Latency;

/// Nanoseconds between two joins of single allocations: 200 a second, two fifths of what a Hallpass server answers to
/// unauthenticated clients of one source by default.
const JOIN_PACE: u64 = 5_000_000;
/// Allocations that join, or are released, at once.
const AT_ONCE: usize = 64;
/// How long a join may take, in nanoseconds. People reload the page earlier.
const PATIENCE: u64 = 10_000_000_000;
/// How long a release may take, in nanoseconds; then the allocation is left to expire.
const RELEASE_PATIENCE: u64 = 3_000_000_000;
/// Time for packets in flight between the last packet and the release, in nanoseconds.
const GRACE: u64 = 250_000_000;

/// What to do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Create its allocation.
    Join(u32),
    /// Release its allocation.
    Release(u32),
    /// Forget its client: the join, or the release, takes too long.
    GiveUp(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    /// In the queue of joins, as nothing else is.
    Waiting,
    Joining {
        since: u64,
    },
    Open,
    /// In the queue of releases.
    Leaving,
    Releasing {
        since: u64,
    },
    Failed,
}

/// Joins since the counts were last taken.
#[derive(Default)]
pub struct Joins {
    /// Allocations that joined.
    pub done: u64,
    /// Allocations that did not, and those that ended by themselves, by cause.
    pub failed: BTreeMap<Cause, u64>,
    /// How long the joins took, from the first packet to the bound channel.
    pub took: Latency,
}

/// The state of all slots.
pub struct Attendance {
    shape: Shape,
    /// Participants that should be there.
    seats: u32,
    slots: Vec<State>,
    joins: VecDeque<u32>,
    /// Slots that join, with the time since when; some have ended already.
    joining: VecDeque<(u64, u32)>,
    joining_count: usize,
    /// When which slot may be released.
    leaving: VecDeque<(u64, u32)>,
    /// Slots that are being released, with the time since when; some have ended already.
    releasing: VecDeque<(u64, u32)>,
    releasing_count: usize,
    /// The earliest time of the next join.
    next_join: u64,
    /// Nanoseconds between two rejoins of any pupil, and when the next one is; `None` while there are none.
    rejoins: Option<(u64, u64)>,
    /// The pupil whose turn it is.
    turn: u32,
    counts: Joins,
}

impl Attendance {
    /// Creates the state for up to `slots` slots, all empty.
    pub fn new(shape: Shape, slots: u32) -> Self {
        Self {
            shape,
            seats: 0,
            slots: vec![State::Absent; slots as usize],
            joins: VecDeque::new(),
            joining: VecDeque::new(),
            joining_count: 0,
            leaving: VecDeque::new(),
            releasing: VecDeque::new(),
            releasing_count: 0,
            next_join: 0,
            rejoins: None,
            turn: 0,
            counts: Joins::default(),
        }
    }

    /// From now on the participants in the first `seats` seats should be there, and no others. Failed slots try again.
    pub fn set_seats(&mut self, seats: u32, now: u64) {
        self.seats = seats;
        for slot in 0..self.slots.len() as u32 {
            if self.shape.seat_of(slot) < seats {
                self.enter(slot);
            } else {
                self.leave(slot, now);
            }
        }
    }

    /// From now on each pupil leaves and comes back once per `period` nanoseconds; `None`: nobody does.
    pub fn set_rejoins(&mut self, period: Option<u64>, now: u64) {
        self.rejoins = period.map(|period| {
            let each = (period / u64::from(self.seats.max(1))).max(1);
            (each, now + each)
        });
    }

    /// Returns whether nothing is left to join or to release.
    pub fn is_settled(&self) -> bool {
        self.waiting() == 0 && self.leaving.is_empty() && self.releasing_count == 0
    }

    /// Returns the number of allocations that have not joined yet.
    pub fn waiting(&self) -> usize {
        self.joins.len() + self.joining_count
    }

    /// Returns whether packets may flow to and from a slot.
    pub fn is_open(&self, slot: u32) -> bool {
        self.slots[slot as usize] == State::Open
    }

    /// Returns the number of slots with packets.
    pub fn open_count(&self) -> usize {
        self.slots.iter().filter(|state| **state == State::Open).count()
    }

    /// Returns the counts since the last call.
    pub fn take_joins(&mut self) -> Joins {
        std::mem::take(&mut self.counts)
    }

    /// Returns when [`Attendance::poll`] has something to do next.
    pub fn due(&self) -> u64 {
        let join = (!self.joins.is_empty() && self.joining_count < AT_ONCE).then_some(self.next_join);
        let give_up = self.joining.front().map(|(since, _)| since + PATIENCE);
        let forget = self.releasing.front().map(|(since, _)| since + RELEASE_PATIENCE);
        let release = self.leaving.front().filter(|_| self.releasing_count < AT_ONCE).map(|(at, _)| *at);
        let rejoin = self.rejoins.map(|(_, at)| at);
        [join, give_up, forget, release, rejoin].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Returns the next thing to do, if any.
    pub fn poll(&mut self, now: u64) -> Option<Command> {
        self.rejoin(now);
        if let Some(&(at, slot)) = self.leaving.front()
            && at <= now
            && self.releasing_count < AT_ONCE
        {
            self.leaving.pop_front();
            self.releasing.push_back((now, slot));
            self.releasing_count += 1;
            self.slots[slot as usize] = State::Releasing { since: now };
            return Some(Command::Release(slot));
        }
        while let Some(&(since, slot)) = self.joining.front() {
            let is_joining = self.slots[slot as usize] == State::Joining { since };
            if is_joining && now < since + PATIENCE {
                break;
            }
            self.joining.pop_front();
            if is_joining {
                self.on_failed(slot, Cause::Unanswered { request: "Allocate within 10 s" });
                return Some(Command::GiveUp(slot));
            }
        }
        while let Some(&(since, slot)) = self.releasing.front() {
            let is_releasing = self.slots[slot as usize] == State::Releasing { since };
            if is_releasing && now < since + RELEASE_PATIENCE {
                break;
            }
            self.releasing.pop_front();
            if is_releasing {
                self.on_done(slot);
                return Some(Command::GiveUp(slot));
            }
        }
        if self.next_join > now || self.joining_count >= AT_ONCE {
            return None;
        }
        let slot = self.joins.pop_front()?;
        self.slots[slot as usize] = State::Joining { since: now };
        self.joining.push_back((now, slot));
        self.joining_count += 1;
        self.next_join = now + JOIN_PACE;
        Some(Command::Join(slot))
    }

    /// The allocation of a slot is there.
    pub fn on_ready(&mut self, slot: u32, now: u64) {
        if let State::Joining { since } = self.slots[slot as usize] {
            self.joining_count -= 1;
            self.counts.done += 1;
            self.counts.took.record(now.saturating_sub(since));
            self.slots[slot as usize] = State::Open;
            if self.shape.seat_of(slot) >= self.seats {
                self.leave(slot, now);
            }
        }
    }

    /// The allocation of a slot is released.
    pub fn on_done(&mut self, slot: u32) {
        if let State::Releasing { .. } = self.slots[slot as usize] {
            self.releasing_count -= 1;
            self.slots[slot as usize] = State::Absent;
            if self.shape.seat_of(slot) < self.seats {
                self.enter(slot);
            }
        }
    }

    /// The client of a slot failed.
    pub fn on_failed(&mut self, slot: u32, cause: Cause) {
        match self.slots[slot as usize] {
            // It ends in any case.
            State::Releasing { .. } => return self.on_done(slot),
            State::Joining { .. } => self.joining_count -= 1,
            State::Leaving => self.leaving.retain(|(_, other)| *other != slot),
            _ => {}
        }
        self.slots[slot as usize] = State::Failed;
        *self.counts.failed.entry(cause).or_default() += 1;
    }

    fn enter(&mut self, slot: u32) {
        if matches!(self.slots[slot as usize], State::Absent | State::Failed) {
            self.slots[slot as usize] = State::Waiting;
            self.joins.push_back(slot);
        }
    }

    fn leave(&mut self, slot: u32, now: u64) {
        match self.slots[slot as usize] {
            State::Open => {
                self.slots[slot as usize] = State::Leaving;
                self.leaving.push_back((now + GRACE, slot));
            }
            State::Waiting => {
                self.slots[slot as usize] = State::Absent;
                self.joins.retain(|other| *other != slot);
            }
            State::Failed => self.slots[slot as usize] = State::Absent,
            // A slot that joins leaves once it is ready.
            State::Absent | State::Joining { .. } | State::Leaving | State::Releasing { .. } => {}
        }
    }

    /// Makes pupils leave whose turn it is; [`Attendance::on_done`] lets them come back.
    fn rejoin(&mut self, now: u64) {
        /// Coprime to the numbers of seats in use, so that the turns are spread over all lessons.
        const STRIDE: u32 = 7_919;
        while let Some((each, at)) = self.rejoins.filter(|(_, at)| *at <= now) {
            self.rejoins = Some((each, at + each));
            self.turn = (self.turn + STRIDE) % self.seats.max(1);
            let (seat, per_lesson) = (self.turn, self.shape.seats_per_lesson());
            let slots = self.shape.slots_of(seat);
            let is_pupil = seat % per_lesson >= self.shape.teachers;
            if seat < self.seats && is_pupil && slots.clone().all(|slot| self.is_open(slot)) {
                slots.for_each(|slot| self.leave(slot, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SHAPE: Shape = Shape { class_size: 10, teachers: 1, cameras: 1 };
    const LOST: Cause = Cause::Refused { request: "Allocate", code: 486 };

    /// Polls until `until`; every command takes 1 ms. Returns the commands.
    fn run(attendance: &mut Attendance, now: &mut u64, until: u64) -> Vec<Command> {
        let mut commands = Vec::new();
        loop {
            *now = attendance.due().max(*now).min(until);
            while let Some(command) = attendance.poll(*now) {
                commands.push(command);
                *now += 1_000_000;
                match command {
                    Command::Join(slot) => attendance.on_ready(slot, *now),
                    Command::Release(slot) => attendance.on_done(slot),
                    Command::GiveUp(_) => {}
                }
            }
            if *now >= until {
                return commands;
            }
        }
    }

    #[test]
    fn joins_are_paced_and_leaving_packets_have_time_to_arrive() {
        let mut attendance = Attendance::new(SHAPE, SHAPE.slots(20));
        let mut now = SECOND;
        attendance.set_seats(SHAPE.seats(10), now);
        assert_eq!(attendance.waiting(), 44);
        let joins = run(&mut attendance, &mut now, 2 * SECOND);
        assert_eq!(joins, (0..44).map(Command::Join).collect::<Vec<_>>());
        assert!(attendance.is_settled() && attendance.open_count() == 44);
        let counts = attendance.take_joins();
        assert_eq!((counts.done, counts.failed.len()), (44, 0));
        assert!(counts.took.quantile(0.5).is_some_and(|us| (999.0..1002.0).contains(&us)));

        attendance.set_seats(1, now);
        assert!(attendance.is_open(3) && !attendance.is_open(4) && !attendance.is_settled());
        assert_eq!((attendance.due(), attendance.poll(now + GRACE - 1)), (now + GRACE, None));
        let releases = run(&mut attendance, &mut now, 3 * SECOND);
        assert_eq!(releases, (4..44).map(Command::Release).collect::<Vec<_>>());
        assert!(attendance.is_settled());
    }

    #[test]
    fn pupils_leave_and_come_back_in_turn_and_teachers_stay() {
        let mut attendance = Attendance::new(SHAPE, SHAPE.slots(20));
        let mut now = 0;
        attendance.set_seats(SHAPE.seats(20), now);
        run(&mut attendance, &mut now, SECOND);
        attendance.set_rejoins(Some(10 * SECOND), now);
        let commands = run(&mut attendance, &mut now, 11 * SECOND);
        attendance.set_rejoins(None, now);
        let more = run(&mut attendance, &mut now, 13 * SECOND);
        let all: Vec<Command> = commands.into_iter().chain(more).collect();
        let mut left: Vec<u32> = all
            .iter()
            .filter_map(|command| match command {
                Command::Release(slot) => Some(SHAPE.seat_of(*slot)),
                _ => None,
            })
            .collect();
        left.dedup();
        assert_eq!(left.len(), 20, "each of the 20 pupils once in 10 s: {left:?}");
        left.sort_unstable();
        assert_eq!(left, (0..22).filter(|seat| seat % 11 != 0).collect::<Vec<_>>());
        assert!(attendance.is_settled() && attendance.open_count() == 88);
        assert_eq!(attendance.due(), u64::MAX);
    }

    #[test]
    fn failures_are_counted_by_cause_and_tried_again_only_when_asked() {
        let mut attendance = Attendance::new(SHAPE, SHAPE.slots(1));
        attendance.set_seats(1, 0);
        assert_eq!(attendance.poll(0), Some(Command::Join(0)));
        assert_eq!(attendance.poll(0), None, "the next one is paced");
        attendance.on_failed(0, LOST);
        assert_eq!(attendance.poll(JOIN_PACE), Some(Command::Join(1)));
        attendance.on_ready(1, JOIN_PACE);
        attendance.on_failed(1, Cause::Other);
        // The third one is never answered.
        assert_eq!(attendance.poll(2 * JOIN_PACE), Some(Command::Join(2)));
        assert_eq!(attendance.poll(3 * JOIN_PACE), Some(Command::Join(3)));
        attendance.on_ready(3, 4 * JOIN_PACE);
        assert_eq!(attendance.due(), 2 * JOIN_PACE + PATIENCE);
        assert_eq!(attendance.poll(2 * JOIN_PACE + PATIENCE), Some(Command::GiveUp(2)));
        assert!(attendance.is_settled() && attendance.open_count() == 1);
        let failed = attendance.take_joins().failed;
        assert_eq!(failed.values().sum::<u64>(), 3);
        assert_eq!((failed.get(&LOST), failed.get(&Cause::Other)), (Some(&1), Some(&1)));
        attendance.set_seats(1, PATIENCE);
        assert_eq!(attendance.waiting(), 3);
    }

    #[test]
    fn a_participant_who_leaves_while_joining_is_released() {
        let mut attendance = Attendance::new(SHAPE, SHAPE.slots(1));
        attendance.set_seats(1, 0);
        assert_eq!(attendance.poll(0), Some(Command::Join(0)));
        attendance.set_seats(0, 1);
        assert_eq!((attendance.waiting(), attendance.poll(JOIN_PACE)), (1, None));
        attendance.on_ready(0, JOIN_PACE);
        assert_eq!(attendance.poll(JOIN_PACE + GRACE), Some(Command::Release(0)));
        attendance.on_done(0);
        assert!(attendance.is_settled() && attendance.open_count() == 0);
    }
}
