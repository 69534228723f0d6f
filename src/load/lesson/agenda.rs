//! When which media is due in the lessons: a pure schedule.
//!
//! Every source (a voice, a camera, a shared screen) has its own phase and sends by the clock, no matter how late the
//! packets before were sent. So a slow generator or relay delays packets instead of sending fewer: each counts from the
//! time at which it was due, as for the people who wait for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::shape::Shape;
use crate::load::flow::fraction;
use crate::load::media::Direction;

/// Between two packets of a voice: Opus in WebRTC has frames of 20 ms.
const VOICE_PERIOD: u64 = 20_000_000;
/// The payload of such a packet, in bytes: 30 to 55 kbit/s of Opus with the headers of RTP and SRTP.
const VOICE_SIZES: (u32, u32) = (100, 160);
/// The largest payload of a video packet, in bytes: WebRTC's limit of 1,200 less the headers.
const VIDEO_SIZE: usize = 1_100;
/// Packets of one frame that leave at once, and the pause between two such groups: the pacer of WebRTC works every 5 ms.
const GROUP: u32 = 10;
const PACE: u64 = 5_000_000;

/// A video source.
struct Video {
    /// Nanoseconds between two frames.
    period: u64,
    /// Packets of a frame, and their payload in bytes.
    frame: (u32, usize),
    /// Every which frame is a burst, and its packets.
    burst: (u64, u32),
}

/// A camera with 640 x 480 at 15 frames a second, about 210 kbit/s; a key frame every 5 s.
const CAMERA: Video = Video { period: 66_666_667, frame: (2, 800), burst: (75, 12) };
/// A shared screen at 5 frames a second, about 170 kbit/s; every 10 s a page turns.
const SCREEN: Video = Video { period: 200_000_000, frame: (3, 1_000), burst: (50, 60) };

/// Where media comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The microphone of a participant (`FromClient`), or the voices of all others, mixed by the server (`FromPeer`).
    Voice {
        /// The participant.
        seat: u32,
        /// The direction.
        way: Direction,
    },
    /// A camera.
    Camera {
        /// The lesson.
        lesson: u32,
        /// The seat in the lesson.
        place: u32,
    },
    /// The shared screen of a lesson.
    Screen {
        /// The lesson.
        lesson: u32,
    },
}

/// Packets of one source that are due at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// When, in nanoseconds.
    pub due: u64,
    /// Where they come from.
    pub source: Source,
    /// How many.
    pub packets: u32,
    /// Bytes of payload in each.
    pub size: usize,
}

/// The schedule of all sources.
pub struct Agenda {
    sources: Vec<State>,
    /// The next due time of each source, with its position.
    next: BinaryHeap<Reverse<(u64, u32)>>,
    random: u64,
}

struct State {
    source: Source,
    /// When the current frame is due.
    frame_due: u64,
    /// Its number.
    frame: u64,
    /// Its packets that are not sent yet.
    rest: u32,
}

impl Agenda {
    /// Plans the media of the participants in the first `seats` seats, from `start`. The same arguments make the same
    /// schedule.
    pub fn new(shape: &Shape, seats: u32, start: u64) -> Self {
        let mut sources = Vec::new();
        for seat in 0..seats {
            sources.extend(Direction::ALL.map(|way| Source::Voice { seat, way }));
        }
        for lesson in 0..seats.div_ceil(shape.seats_per_lesson().max(1)) {
            let taken = shape.taken(lesson, seats).len() as u32;
            let cameras = 0..shape.cameras_per_lesson().min(taken);
            sources.extend(cameras.map(|place| Source::Camera { lesson, place }));
            sources.push(Source::Screen { lesson });
        }
        let mut random = u64::from(seats) + 1;
        let sources: Vec<State> = sources
            .into_iter()
            .map(|source| {
                let (video, period) = match source.video() {
                    Some(video) => (Some(video), video.period),
                    None => (None, VOICE_PERIOD),
                };
                let frame_due = start + (fraction(&mut random) * period as f64) as u64;
                // Key frames and pages have their own phases, too.
                let frame = video.map_or(0, |video| (fraction(&mut random) * video.burst.0 as f64) as u64);
                State { source, frame_due, frame, rest: source.packets(frame) }
            })
            .collect();
        let next = sources.iter().enumerate().map(|(index, state)| Reverse((state.frame_due, index as u32)));
        Self { next: next.collect(), sources, random }
    }

    /// Returns when the next burst is due; `u64::MAX` if there is no source.
    pub fn due(&self) -> u64 {
        self.next.peek().map_or(u64::MAX, |Reverse((due, _))| *due)
    }

    /// Returns the next burst if it is due, in the order of time.
    pub fn take(&mut self, now: u64) -> Option<Burst> {
        let mut entry = self.next.peek_mut()?;
        let Reverse((due, index)) = *entry;
        if due > now {
            return None;
        }
        let state = &mut self.sources[index as usize];
        let packets = state.rest.min(GROUP);
        let size = match state.source.video() {
            None => {
                let (least, most) = VOICE_SIZES;
                (least + (fraction(&mut self.random) * f64::from(most - least + 1)) as u32) as usize
            }
            Some(video) if state.source.packets(state.frame) > video.frame.0 => VIDEO_SIZE,
            Some(video) => video.frame.1,
        };
        let burst = Burst { due, source: state.source, packets, size };
        state.rest -= packets;
        let next = if state.rest > 0 {
            due + PACE
        } else {
            state.frame += 1;
            state.rest = state.source.packets(state.frame);
            state.frame_due += state.source.video().map_or(VOICE_PERIOD, |video| video.period);
            state.frame_due
        };
        *entry = Reverse((next, index));
        Some(burst)
    }
}

impl Source {
    fn video(self) -> Option<&'static Video> {
        match self {
            Source::Voice { .. } => None,
            Source::Camera { .. } => Some(&CAMERA),
            Source::Screen { .. } => Some(&SCREEN),
        }
    }

    /// Packets of this frame.
    fn packets(self, frame: u64) -> u32 {
        match self.video() {
            None => 1,
            Some(video) if (frame + 1).is_multiple_of(video.burst.0) => video.burst.1,
            Some(video) => video.frame.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const SHAPE: Shape = Shape { class_size: 3, teachers: 1, cameras: 1 };

    fn bursts(seats: u32, seconds: u64) -> Vec<Burst> {
        let mut agenda = Agenda::new(&SHAPE, seats, 7 * SECOND);
        std::iter::from_fn(|| agenda.take((7 + seconds) * SECOND - 1)).collect()
    }

    #[test]
    fn sources_are_those_of_the_taken_seats() {
        let mut sources: Vec<Source> = bursts(6, 1).iter().map(|burst| burst.source).collect();
        sources.sort_unstable();
        sources.dedup();
        let count = |is: fn(&Source) -> bool| sources.iter().filter(|source| is(source)).count();
        assert_eq!(count(|source| matches!(source, Source::Voice { .. })), 12);
        // The second lesson has only two of its four seats taken.
        assert_eq!(count(|source| matches!(source, Source::Camera { .. })), 4);
        assert_eq!(count(|source| matches!(source, Source::Screen { .. })), 2);
        assert!(bursts(0, 1).is_empty());
    }

    #[test]
    fn rates_are_those_of_the_media() {
        let mut totals: BTreeMap<Source, (u32, usize)> = BTreeMap::new();
        for burst in bursts(4, 20) {
            let (packets, bytes) = totals.entry(burst.source).or_default();
            *packets += burst.packets;
            *bytes += burst.packets as usize * burst.size;
        }
        for (source, (packets, bytes)) in totals {
            let kbit = bytes as f64 * 8.0 / 20.0 / 1000.0;
            match source {
                Source::Voice { .. } => {
                    assert!(packets.abs_diff(1000) <= 1 && (48.0..56.0).contains(&kbit), "{packets} {kbit}");
                }
                Source::Camera { .. } => {
                    assert!(
                        (600..=650).contains(&packets) && (195.0..225.0).contains(&kbit),
                        "{packets} {kbit}"
                    );
                }
                Source::Screen { .. } => {
                    assert!(
                        (405..=420).contains(&packets) && (160.0..185.0).contains(&kbit),
                        "{packets} {kbit}"
                    );
                }
            }
        }
    }

    #[test]
    fn time_never_runs_backwards_and_bursts_are_paced() {
        let all = bursts(8, 12);
        assert!(all.windows(2).all(|pair| pair[0].due <= pair[1].due));
        let pages: Vec<&Burst> = all
            .iter()
            .filter(|burst| burst.source == Source::Screen { lesson: 0 } && burst.packets == GROUP)
            .collect();
        assert!(pages.len() >= 6, "a page turned within 12 s");
        assert!(pages[..6].windows(2).all(|pair| pair[1].due - pair[0].due == PACE));
    }

    #[test]
    fn a_late_caller_gets_all_that_was_due_with_its_times() {
        let punctual: Vec<Burst> = bursts(4, 3);
        let mut agenda = Agenda::new(&SHAPE, 4, 7 * SECOND);
        assert_eq!(agenda.take(7 * SECOND - 1), None);
        let first = agenda.due();
        assert!((7 * SECOND..7 * SECOND + VOICE_PERIOD).contains(&first));
        let late: Vec<Burst> = std::iter::from_fn(|| agenda.take(10 * SECOND - 1)).collect();
        assert_eq!(late, punctual);
    }
}
