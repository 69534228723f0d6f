//! Who sits in which lesson, and which allocations each participant has.
//!
//! A participant has an allocation for each of the peer connections that a browser opens in a BigBlueButton lesson: one
//! for the sound, one for the shared screen, one for each camera.

use std::ops::Range;

/// The composition of a lesson.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pupils in a full lesson, at least 1.
    pub class_size: u32,
    /// Teachers in each lesson, each with a camera.
    pub teachers: u32,
    /// Pupils of each lesson with a camera.
    pub cameras: u32,
}

/// What an allocation carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The sound of one participant, both ways.
    Sound,
    /// The shared screen: from the participant in seat 0 of a lesson, to all others.
    Screen,
    /// The camera of the participant in this seat of the lesson: from there, to all others.
    Camera(u32),
}

impl Shape {
    /// Seats of a full lesson. Teachers have the first ones.
    pub fn seats_per_lesson(&self) -> u32 {
        self.teachers + self.class_size
    }

    /// Participants of a full lesson with a camera: those in the first seats.
    pub fn cameras_per_lesson(&self) -> u32 {
        self.teachers + self.cameras.min(self.class_size)
    }

    /// Allocations of each participant.
    pub fn slots_per_seat(&self) -> u32 {
        2 + self.cameras_per_lesson()
    }

    /// Lessons of this many pupils; the last one may be smaller.
    pub fn lessons(&self, pupils: u32) -> u32 {
        pupils.div_ceil(self.class_size)
    }

    /// Participants in all lessons of this many pupils: pupils and teachers.
    pub fn seats(&self, pupils: u32) -> u32 {
        pupils + self.lessons(pupils) * self.teachers
    }

    /// Allocations in all these lessons.
    pub fn slots(&self, pupils: u32) -> u32 {
        self.seats(pupils) * self.slots_per_seat()
    }

    /// The taken seats of one lesson, if `seats` are taken in all.
    pub fn taken(&self, lesson: u32, seats: u32) -> Range<u32> {
        let first = lesson * self.seats_per_lesson();
        first.min(seats)..(first + self.seats_per_lesson()).min(seats)
    }

    /// The slots of the allocations of one participant.
    pub fn slots_of(&self, seat: u32) -> Range<u32> {
        let first = seat * self.slots_per_seat();
        first..first + self.slots_per_seat()
    }

    /// The participant that a slot belongs to.
    pub fn seat_of(&self, slot: u32) -> u32 {
        slot / self.slots_per_seat()
    }

    /// The slot of a participant's allocation with this role.
    pub fn slot(&self, seat: u32, role: Role) -> u32 {
        let index = match role {
            Role::Sound => 0,
            Role::Screen => 1,
            Role::Camera(place) => 2 + place,
        };
        seat * self.slots_per_seat() + index
    }
}

/// Divides participants among routes to the server, in the proportion of `weights`.
///
/// Every beginning of the list has this proportion as well as whole numbers can, so each step of a ramp has it, too.
pub fn mix(weights: &[u32], seats: u32) -> Vec<u8> {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum::<u64>().max(1);
    let mut given = vec![0_u64; weights.len()];
    (1..=u64::from(seats))
        .map(|count| {
            let lack = |route: usize| {
                let due = u64::from(weights[route]) * count;
                due.saturating_sub(given[route] * total)
            };
            // The route that lacks most; the first one if several do.
            let route = (0..weights.len()).rev().max_by_key(|&route| lack(route)).unwrap_or(0);
            given[route] += 1;
            route as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { class_size: 30, teachers: 1, cameras: 3 };

    #[test]
    fn lessons_fill_up_one_after_the_other() {
        assert_eq!([1, 30, 31, 60, 90].map(|pupils| SHAPE.lessons(pupils)), [1, 1, 2, 2, 3]);
        assert_eq!([1, 30, 31, 60, 90].map(|pupils| SHAPE.seats(pupils)), [2, 31, 33, 62, 93]);
        assert_eq!((SHAPE.slots_per_seat(), SHAPE.slots(30)), (6, 186));
        assert_eq!((SHAPE.taken(0, 33), SHAPE.taken(1, 33), SHAPE.taken(2, 33)), (0..31, 31..33, 33..33));
    }

    #[test]
    fn every_allocation_has_one_slot() {
        let mut slots = Vec::new();
        for seat in 0..4 {
            let roles = [Role::Sound, Role::Screen].into_iter().chain((0..4).map(Role::Camera));
            let own: Vec<u32> = roles.map(|role| SHAPE.slot(seat, role)).collect();
            assert_eq!(own, SHAPE.slots_of(seat).collect::<Vec<_>>());
            assert!(own.iter().all(|&slot| SHAPE.seat_of(slot) == seat));
            slots.extend(own);
        }
        assert_eq!(slots, (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn small_classes_have_no_more_cameras_than_pupils() {
        let shape = Shape { class_size: 2, teachers: 0, cameras: 9 };
        assert_eq!((shape.cameras_per_lesson(), shape.slots(5)), (2, 20));
    }

    #[test]
    fn a_mix_has_its_proportion_from_the_beginning() {
        let routes = mix(&[20, 0, 80], 50);
        for count in 1..=50 {
            let of = |route: u8| routes[..count].iter().filter(|&&one| one == route).count() as f64;
            assert_eq!(of(1), 0.0);
            assert!((of(0) - count as f64 * 0.2).abs() <= 1.0, "{count}: {}", of(0));
        }
        assert_eq!(mix(&[1], 3), [0, 0, 0]);
        assert_eq!(mix(&[1, 1], 4), [0, 1, 0, 1]);
    }
}
