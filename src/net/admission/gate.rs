//! The limits of one worker for streams and descriptors, by class of client.
//!
//! A *place* is one of the `connections_total` streams, or one of the descriptors that the process may open. A
//! *stranger* is a client without an allocation ([`Class::Stranger`]).
//!
//! Strangers and web clients together use at most three quarters of the places, so a quarter is kept for authenticated
//! clients. Web clients use at most half, so they leave a quarter to strangers. Web and authenticated streams together
//! leave an eighth to strangers; otherwise one user with many streams could lock everybody out. A stream that
//! authenticates while there is no room counts as a stranger until there is. Relayed addresses may use all descriptors.
//!
//! The shares of strangers and of the web are divided among the workers, and each worker enforces its part alone,
//! because it can close only its own streams. A stranger can choose its worker: the kernel picks it by a hash over
//! addresses and ports. With a common share, strangers on one worker could fill the whole share. The other workers would
//! then have no stranger to displace for a newcomer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::class::Class;
use super::source::Counted;
use super::state::{Admission, Pressure};
use crate::net::counters::Refusal;

/// One in this many places is kept for authenticated clients, out of reach of strangers and the web.
const KEPT: u32 = 4;
/// One in this many places may belong to the web.
const WEB: u32 = 2;

/// One in this many places is left to strangers by streams of the other classes.
const PASSAGE: u32 = 8;

/// One in this many places may belong to closed connections whose last output is not acknowledged.
const LINGERING: u32 = 8;

/// A limited resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream,
    Descriptor,
}

/// One worker's places. Only the worker's own thread takes them.
#[derive(Debug)]
pub struct Gate {
    admission: Arc<Admission>,
    /// The number of workers that share the places.
    workers: u32,
    /// Places held by this worker, by kind and class.
    held: [[AtomicU32; Class::ALL.len()]; 2],
}

/// The place of one stream. Released when dropped.
#[derive(Debug)]
pub struct Entry {
    source: Option<Counted>,
    descriptor: Descriptor,
    // Declared last and so dropped last: once this place is free, the source and the descriptor are free, too.
    stream: Place,
}

/// The place of one socket. Released when dropped.
#[derive(Debug)]
pub struct Descriptor(Place);

#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    kind: Kind,
    class: Class,
}

impl Gate {
    /// Creates the gate of one of `workers` workers.
    pub fn new(admission: Arc<Admission>, workers: usize) -> Arc<Self> {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        Arc::new(Self { admission, workers, held: Default::default() })
    }

    /// Returns the state that all workers share.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Takes a place for a new stranger. `source` is `None` until a PROXY header names the client; see
    /// [`Entry::set_source`].
    ///
    /// # Errors
    /// The exhausted resource. `Total` and `Descriptors`: closing another stranger of this worker may help.
    pub fn stream(self: &Arc<Self>, source: Option<IpAddr>) -> Result<Entry, Refusal> {
        if self.admission.pressure() != Pressure::None {
            return Err(Refusal::Memory);
        }
        // Checked first: a source at its limit must not displace a stranger.
        let source = match source {
            Some(source) => Counted::take(&self.admission, source)?,
            None => None,
        };
        let descriptor = self.take(Kind::Descriptor, Class::Stranger).ok_or(Refusal::Descriptors)?;
        let stream = self.take(Kind::Stream, Class::Stranger).ok_or(Refusal::Total)?;
        Ok(Entry { source, descriptor: Descriptor(descriptor), stream })
    }

    /// Takes a place for a new relayed address.
    ///
    /// # Errors
    /// The exhausted resource.
    pub fn relay(self: &Arc<Self>) -> Result<Descriptor, Refusal> {
        match self.admission.pressure() {
            Pressure::None => self.socket(Class::Authenticated),
            Pressure::Full | Pressure::Tight => Err(Refusal::Memory),
        }
    }

    /// Takes a place for a new socket on behalf of a client of this class.
    ///
    /// # Errors
    /// `Descriptors` if that class has all it may have.
    pub fn socket(self: &Arc<Self>, class: Class) -> Result<Descriptor, Refusal> {
        self.take(Kind::Descriptor, class).map(Descriptor).ok_or(Refusal::Descriptors)
    }

    /// Returns how many closed connections of this worker may keep their places until the client has acknowledged their last
    /// output: an eighth of its part of the streams and descriptors.
    pub fn lingering_max(&self) -> usize {
        let part = |kind| self.part(self.total(kind) / LINGERING);
        part(Kind::Stream).min(part(Kind::Descriptor)) as usize
    }

    fn take(self: &Arc<Self>, kind: Kind, class: Class) -> Option<Place> {
        if !self.has_room(kind, class) {
            return None;
        }
        let (total, open) = (self.total(kind), self.open(kind));
        open.fetch_update(Relaxed, Relaxed, |n| (n < total).then_some(n + 1)).ok()?;
        let place = Place { gate: Arc::clone(self), kind, class };
        place.count(class);
        Some(place)
    }

    /// Returns whether this worker's part of the shares has room for one more.
    fn has_room(&self, kind: Kind, class: Class) -> bool {
        let total = self.total(kind);
        let held = self.held(kind, Class::Stranger) + self.held(kind, Class::Web);
        let shared = held < self.part(total - total / KEPT);
        match class {
            Class::Stranger => shared && self.leaves_passage(kind),
            Class::Web => shared && self.web_has_room(kind),
            Class::Authenticated => true,
        }
    }

    /// Returns whether this worker may admit one more stranger without using what is kept for the strangers of other
    /// workers. Each worker has its part of an eighth of the streams. It may always fill that part; above it, it admits
    /// strangers only while more than an eighth of all streams is free.
    fn leaves_passage(&self, kind: Kind) -> bool {
        let total = self.total(kind);
        let passage = total / PASSAGE;
        kind == Kind::Descriptor
            || self.held(kind, Class::Stranger) < self.part(passage)
            || self.open(kind).load(Relaxed) < total - passage
    }

    /// Returns whether one more stream may move from the strangers to another class. Counts streams even if `kind` is
    /// `Descriptor`: a stream holds one descriptor, and those of relayed addresses do not count here.
    fn may_settle(&self, kind: Kind) -> bool {
        let total = self.total(kind);
        let settled = self.held(Kind::Stream, Class::Authenticated) + self.held(Kind::Stream, Class::Web);
        settled < self.part(total - total / PASSAGE)
    }

    fn web_has_room(&self, kind: Kind) -> bool {
        self.held(kind, Class::Web) < self.part(self.total(kind) / WEB)
    }

    fn held(&self, kind: Kind, class: Class) -> u32 {
        self.held[kind as usize][class as usize].load(Relaxed)
    }

    /// Returns this worker's part of a share: at least one, or no client could ever connect.
    fn part(&self, share: u32) -> u32 {
        (share / self.workers).max(1)
    }

    fn total(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Stream => match self.admission.rules.load().streams {
                0 => u32::MAX,
                total => total,
            },
            Kind::Descriptor => self.admission.descriptors_max,
        }
    }

    /// Returns the number of open places over all workers.
    fn open(&self, kind: Kind) -> &AtomicU32 {
        match kind {
            Kind::Stream => &self.admission.streams,
            Kind::Descriptor => &self.admission.descriptors,
        }
    }
}

impl Entry {
    /// Sets the source of a stream once it is known.
    ///
    /// # Errors
    /// `Source` if the source is at its limit.
    pub fn set_source(&mut self, source: IpAddr) -> Result<(), Refusal> {
        self.source = Counted::take(&self.stream.gate.admission, source)?;
        Ok(())
    }

    /// Returns the class of client that it serves.
    pub fn class(&self) -> Class {
        self.stream.class
    }

    /// Moves a stranger's stream to the share of web clients.
    ///
    /// # Errors
    /// `Total` or `Descriptors` if the web is at its limit.
    pub fn to_web(&mut self) -> Result<(), Refusal> {
        if self.class() != Class::Stranger {
            return Ok(());
        }
        // The common limit of strangers and web clients needs no check: the stream counts for it already.
        let gate = &self.stream.gate;
        if !gate.web_has_room(Kind::Stream) || !gate.may_settle(Kind::Stream) {
            return Err(Refusal::Total);
        }
        if !gate.web_has_room(Kind::Descriptor) || !gate.may_settle(Kind::Descriptor) {
            return Err(Refusal::Descriptors);
        }
        self.descriptor.0.move_to(Class::Web);
        self.stream.move_to(Class::Web);
        Ok(())
    }

    /// Moves the stream of a client with an allocation out of the strangers' share, if there is room. It still counts
    /// for its source.
    pub fn authenticate(&mut self) {
        let gate = &self.stream.gate;
        if self.class() == Class::Authenticated
            || !gate.may_settle(Kind::Stream)
            || !gate.may_settle(Kind::Descriptor)
        {
            return;
        }
        self.descriptor.0.move_to(Class::Authenticated);
        self.stream.move_to(Class::Authenticated);
    }

    /// Moves the stream of a client without an allocation back into the strangers' share.
    pub fn to_stranger(&mut self) {
        if self.class() == Class::Authenticated {
            self.leave_share();
        }
    }

    /// Moves the stream of a closed connection into the strangers' share, so that it takes no place of clients of its class.
    pub fn leave_share(&mut self) {
        self.descriptor.0.move_to(Class::Stranger);
        self.stream.move_to(Class::Stranger);
    }
}

impl Place {
    fn move_to(&mut self, class: Class) {
        self.discount(self.class);
        self.class = class;
        self.count(class);
    }

    fn count(&self, class: Class) {
        self.gate.held[self.kind as usize][class as usize].fetch_add(1, Relaxed);
        if self.kind == Kind::Stream {
            self.gate.admission.by_class[class as usize].fetch_add(1, Relaxed);
        }
    }

    fn discount(&self, class: Class) {
        self.gate.held[self.kind as usize][class as usize].fetch_sub(1, Relaxed);
        if self.kind == Kind::Stream {
            self.gate.admission.by_class[class as usize].fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.discount(self.class);
        self.gate.open(self.kind).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::admission::Rules;

    fn gate(rules: Rules, descriptors: u32) -> Arc<Gate> {
        Gate::new(Arc::new(Admission::new(rules, descriptors)), 1)
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn strangers(gate: &Arc<Gate>) -> Vec<Entry> {
        (0..100).map_while(|_| gate.stream(None).ok()).collect()
    }

    #[test]
    fn the_limit_of_a_source_does_not_affect_others() {
        let rules =
            Rules { streams: 8, streams_per_source: 2, exempt: vec!["10.0.0.0/8".parse().expect("net")] };
        let gate = gate(rules, 100);
        let first = gate.stream(ip("192.0.2.1")).expect("free");
        let _second = gate.stream(ip("192.0.2.1")).expect("free");
        assert_eq!(gate.stream(ip("192.0.2.1")).err(), Some(Refusal::Source));
        let admission = gate.admission();
        assert_eq!((admission.streams(), admission.descriptors()), (2, (2, 100)), "a refusal takes no place");
        let _exempt = [(); 4].map(|()| gate.stream(ip("10.1.2.3")).expect("exempt"));
        assert_eq!(gate.stream(ip("10.1.2.3")).err(), Some(Refusal::Total), "but it counts in the total");
        assert_eq!(
            gate.stream(ip("192.0.2.1")).err(),
            Some(Refusal::Source),
            "the limit of the source is checked first"
        );
        drop(first);
        let _again = gate.stream(ip("192.0.2.1")).expect("a place is free again");
    }

    #[test]
    fn a_proxied_stream_is_counted_once_its_source_is_known() {
        let gate = gate(Rules { streams_per_source: 1, ..Rules::default() }, 100);
        let mut first = gate.stream(None).expect("free");
        let mut second = gate.stream(None).expect("free");
        first.set_source("192.0.2.1".parse().expect("address")).expect("free");
        assert_eq!(second.set_source("192.0.2.1".parse().expect("address")), Err(Refusal::Source));
        drop(second);
        assert_eq!((gate.admission().streams(), gate.admission().sources.len()), (1, 1));
    }

    #[test]
    fn strangers_leave_a_quarter_to_authenticated_clients() {
        let gate = gate(Rules { streams: 16, ..Rules::default() }, 100);
        let mut held = strangers(&gate);
        assert_eq!((held.len(), gate.stream(None).err()), (12, Some(Refusal::Total)));
        for authenticated in 1..=2 {
            held[authenticated].authenticate();
            held.push(gate.stream(None).expect("a stranger's place is free"));
        }
        held[3].authenticate();
        assert_eq!(
            gate.stream(None).err(),
            Some(Refusal::Total),
            "two places are kept for strangers of other workers"
        );
        let of = |class| gate.admission().streams_of(class);
        assert_eq!(Class::ALL.map(of), [11, 0, 3]);
        drop(held);
        assert_eq!((gate.admission().streams(), Class::ALL.map(of)), (0, [0; 3]));
    }

    #[test]
    fn authenticated_clients_and_the_web_leave_an_eighth_to_strangers() {
        let gate = gate(Rules { streams: 16, ..Rules::default() }, 100);
        let mut settled = Vec::new();
        for number in 0..14 {
            let mut entry = gate.stream(None).expect("a stranger finds a place");
            if number < 3 {
                entry.to_web().expect("the web has room")
            } else {
                entry.authenticate()
            }
            settled.push(entry);
        }
        let mut passing = strangers(&gate);
        assert_eq!(passing.len(), 2);
        passing[0].authenticate();
        assert_eq!((passing[0].class(), passing[1].to_web()), (Class::Stranger, Err(Refusal::Total)));
        drop(settled.pop());
        passing[0].authenticate();
        assert_eq!(passing[0].class(), Class::Authenticated, "a place is free again");

        // The same holds for descriptors of streams; relays may use all descriptors.
        let gate = self::gate(Rules::default(), 16);
        let mut held = Vec::new();
        for _ in 0..14 {
            let mut entry = gate.stream(None).expect("a stranger finds a place");
            entry.authenticate();
            held.push(entry);
        }
        let mut last = gate.stream(None).expect("a stranger finds a place");
        last.authenticate();
        assert_eq!(last.class(), Class::Stranger);
        let _relay = gate.relay().expect("a relay may have the last one");
    }

    #[test]
    fn strangers_of_one_worker_leave_the_other_workers_their_parts() {
        let admission = Arc::new(Admission::new(Rules { streams: 32, ..Rules::default() }, 100));
        let [first, second] = [(); 2].map(|()| Gate::new(Arc::clone(&admission), 2));
        let settle = |gate: &Arc<Gate>| {
            let mut entry = gate.stream(None).expect("a stranger finds a place");
            entry.authenticate();
            assert_eq!(entry.class(), Class::Authenticated);
            entry
        };
        let _settled: Vec<_> = (0..14).flat_map(|_| [settle(&first), settle(&second)]).collect();
        let held = [strangers(&first), strangers(&second)];
        assert_eq!(held.map(|entries| entries.len()), [2, 2]);
    }

    #[test]
    fn the_web_has_half_and_strangers_a_quarter() {
        let gate = gate(Rules { streams: 16, ..Rules::default() }, 100);
        let mut web = Vec::new();
        for _ in 0..8 {
            let mut entry = gate.stream(None).expect("free");
            entry.to_web().expect("the web has room");
            web.push(entry);
        }
        let mut passing = strangers(&gate);
        assert_eq!(passing.len(), 4);
        assert_eq!(passing[0].to_web(), Err(Refusal::Total));
        drop(web.pop());
        passing[0].to_web().expect("a place is free again");
        assert_eq!((passing[0].class(), passing[0].to_web()), (Class::Web, Ok(())), "no change");
    }

    #[test]
    fn descriptors_of_strangers_and_the_web_leave_a_quarter_to_relays() {
        let gate = gate(Rules::default(), 16);
        let mut web = Vec::new();
        while let Ok(mut entry) = gate.stream(None) {
            let Ok(()) = entry.to_web() else { break };
            let Ok(socket) = gate.socket(Class::Web) else { break };
            web.push((entry, socket));
        }
        assert_eq!(web.len(), 4, "each takes two of the web's eight");
        let passing = strangers(&gate);
        assert_eq!((passing.len(), gate.stream(None).err()), (4, Some(Refusal::Descriptors)));
        let relays: Vec<_> = (0..20).map_while(|_| gate.relay().ok()).collect();
        assert_eq!((relays.len(), gate.relay().err()), (4, Some(Refusal::Descriptors)));
        drop((web, passing, relays));
        assert_eq!((gate.admission().streams(), gate.admission().descriptors()), (0, (0, 16)));
        let relays: Vec<_> = (0..20).map_while(|_| gate.relay().ok()).collect();
        assert_eq!((relays.len(), gate.stream(None).err()), (16, Some(Refusal::Descriptors)));
    }

    #[test]
    fn each_worker_has_its_part() {
        let admission = Arc::new(Admission::new(Rules { streams: 16, ..Rules::default() }, 100));
        let [first, second] = [(); 2].map(|()| Gate::new(Arc::clone(&admission), 2));
        let held = [strangers(&first), strangers(&second)];
        assert_eq!(held.map(|entries| entries.len()), [6, 6]);
        // Even with fewer places than workers, each worker admits one stranger.
        admission.set_rules(Rules { streams: 1, ..Rules::default() });
        let one = strangers(&first);
        assert_eq!((one.len(), strangers(&second).len()), (1, 0));
    }

    #[test]
    fn memory_pressure_refuses_newcomers() {
        let gate = gate(Rules::default(), 16);
        for pressure in [Pressure::Full, Pressure::Tight] {
            gate.admission().set_pressure(pressure);
            assert_eq!(gate.admission().pressure(), pressure);
            assert_eq!(gate.stream(None).err(), Some(Refusal::Memory));
            assert_eq!(gate.relay().err(), Some(Refusal::Memory));
            gate.socket(Class::Web).expect("established clients stay served");
        }
        gate.admission().set_pressure(Pressure::None);
        gate.relay().expect("memory pressure cleared");
    }
}
