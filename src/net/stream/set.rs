//! All streams of a worker, by token.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpStream};

use super::class::{Order, left};
use super::{INTEREST, Phase, Stream, WriteOutcome, write};
use crate::net::admission::Entry;
use crate::net::counters::{CloseReason, Stage};
use crate::net::outbox::{BYTES_MAX, BYTES_MAX_TIGHT, Kind, Outbox, Pushed};
use crate::net::scratch::Buffers;
use crate::net::syscall::Epoll;
use crate::net::token::{Generation, Token};
use crate::turn::five_tuple::{Client, FiveTuple, Link};
use crate::turn::time::Instant;

/// Empty outboxes kept for the next stream that writes.
const SPARE_OUTBOXES: usize = 64;

/// What a listener expects of those who connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// TLS.
    pub tls: bool,
    /// A PROXY header before all else.
    pub proxied: bool,
    /// Perhaps a web client.
    pub web: bool,
}

/// All streams of a worker.
#[derive(Default)]
pub struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that got something to write in this turn, or room to write.
    dirty: Vec<Token>,
    /// Whether memory is so low that less may wait for each.
    tight: bool,
    pub(super) strangers: Order,
    pub(super) web: Order,
    /// How many web clients a source has.
    pub(super) web_by_source: HashMap<IpAddr, u32>,
    // Moved as they are between here and the streams, where the box keeps an idle stream small.
    #[allow(clippy::vec_box, reason = "the same boxes go back and forth")]
    spare: Vec<Box<Outbox>>,
}

#[derive(Default)]
struct Slot {
    stream: Option<Stream>,
    generation: Generation,
}

impl Streams {
    /// Takes in an accepted connection; gives its token.
    ///
    /// # Errors
    /// The kernel cannot watch it.
    pub fn insert(
        &mut self,
        epoll: &Epoll,
        socket: TcpStream,
        five_tuple: FiveTuple,
        kind: Expected,
        entry: Entry,
        now: Instant,
    ) -> io::Result<Token> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
        };
        let generation = self.slots[slot as usize].generation;
        let token = Token::Stream { slot, generation };
        if let Err(error) = epoll.add(&socket, token.pack(), INTEREST) {
            self.free.push(slot);
            return Err(error);
        }
        self.slots[slot as usize].stream = Some(Stream {
            client: Client { five_tuple, link: Link(token.pack()) },
            socket,
            tls: kind.tls.then(Box::default),
            preface: kind.proxied.then(Vec::new),
            phase: if kind.web { Phase::Undecided } else { Phase::Turn },
            partial: Vec::new(),
            outbox: None,
            unsent: Vec::new(),
            interest: INTEREST,
            dirty: false,
            doomed: false,
            greeted: false,
            allocated: false,
            stage: Stage::Accepted,
            turn: 0,
            unproven: 0,
            proven: false,
            renewed: false,
            unproven_bytes: 0,
            strained: 0,
            active: now,
            looked_after: None,
            hurried: false,
            entry,
        });
        self.arrived(token);
        Ok(token)
    }

    /// The stream of a token, or of the token of its web server; `None` when it was closed meanwhile, or is about to be.
    pub fn get(&mut self, token: Token) -> Option<&mut Stream> {
        let (Token::Stream { slot, generation } | Token::BackEnd { slot, generation }) = token else {
            return None;
        };
        let slot = self.slots.get_mut(slot as usize)?;
        slot.stream.as_mut().filter(|stream| slot.generation == generation && !stream.doomed)
    }

    /// Whether this token's stream is open.
    pub fn is_open(&self, token: Token) -> bool {
        let Token::Stream { slot, generation } = token else { return false };
        self.slots.get(slot as usize).is_some_and(|s| s.stream.is_some() && s.generation == generation)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The source of a stream whose ClientHello has not been answered, which makes its next bytes expensive.
    pub fn greets(&mut self, token: Token) -> Option<IpAddr> {
        let stream = self.get(token)?;
        let begins = stream.tls.as_ref().is_some_and(|tls| tls.begins());
        begins.then(|| stream.client.five_tuple.client.ip())
    }

    /// Has the stream watched for nothing until it is read again; `false` when that is so already, or it is gone.
    pub fn mute(&mut self, epoll: &Epoll, token: Token) -> bool {
        let Some(stream) = self.get(token).filter(|stream| stream.interest != 0) else { return false };
        stream.interest = 0;
        // Changing what is watched takes no memory: it cannot fail on a socket that is watched.
        epoll.modify(&stream.socket, token.pack(), 0).is_ok()
    }

    /// Says whether memory is so low that less may wait for each stream.
    pub fn set_tight(&mut self, tight: bool) {
        self.tight = tight;
    }

    /// Queues one whole message, given in pieces. `None` when the stream is gone.
    pub fn push(&mut self, token: Token, message: &[&[u8]], kind: Kind, now: Instant) -> Option<Pushed> {
        let mut spare = std::mem::take(&mut self.spare);
        let bytes_max = if self.tight { BYTES_MAX_TIGHT } else { BYTES_MAX };
        let pushed = self.get(token).map(|stream| {
            let outbox = stream.outbox.get_or_insert_with(|| spare.pop().unwrap_or_default());
            let newly = !std::mem::replace(&mut stream.dirty, true);
            (outbox.push(message, kind, now, bytes_max), newly)
        });
        self.spare = spare;
        let (pushed, newly) = pushed?;
        if newly {
            self.dirty.push(token);
        }
        Some(pushed)
    }

    /// Notes that the stream can be written to again.
    pub fn unblock(&mut self, token: Token) {
        if let Some(stream) = self.get(token)
            && !std::mem::replace(&mut stream.dirty, true)
        {
            self.dirty.push(token);
        }
    }

    /// The next stream that has something to write.
    pub fn next_dirty(&mut self) -> Option<Token> {
        self.dirty.pop()
    }

    /// Writes what waits for this stream, and has it watched for room if something is left.
    pub fn write(
        &mut self,
        epoll: &Epoll,
        token: Token,
        now: Instant,
        buffers: &mut Buffers,
    ) -> WriteOutcome {
        let Some(stream) = self.get(token) else { return WriteOutcome::default() };
        stream.dirty = false;
        let mut outcome = stream.write(now, &mut buffers.output);
        outcome.settled(stream.settle(epoll, token.back_end(), now, &mut buffers.output));
        let (blocked, interest) = (stream.is_waiting(), stream.wants());
        if interest != stream.interest {
            stream.interest = interest;
            if epoll.modify(&stream.socket, token.pack(), interest).is_err() {
                outcome.end.get_or_insert(CloseReason::Reset);
            }
        }
        if !blocked && let Some(mut outbox) = stream.outbox.take() {
            outbox.clear();
            if self.spare.len() < SPARE_OUTBOXES {
                self.spare.push(outbox);
            }
        }
        outcome
    }

    /// Has no more to do with it; `false` when that was so already. [`Streams::remove`] follows at the end of the
    /// turn.
    pub fn doom(&mut self, token: Token) -> bool {
        self.get(token).map(|stream| stream.doomed = true).is_some()
    }

    /// Closes the stream, with a last word where TLS has one. Gives whose it was and how far it got.
    pub fn remove(&mut self, token: Token, buffers: &mut Buffers) -> Option<(Client, Stage)> {
        let Token::Stream { slot: index, generation } = token else { return None };
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation == generation)?;
        let mut stream = slot.stream.take()?;
        left(&mut self.web_by_source, &stream);
        slot.generation = generation.next();
        self.free.push(index);
        if let Some(tls) = &mut stream.tls
            && stream.unsent.is_empty()
        {
            buffers.output.clear();
            tls.close(&mut buffers.output);
            // It is closed whether the word gets through or not.
            let _ = write(&stream.socket, buffers.output.bytes());
        }
        Some((stream.client, stream.stage))
    }

    /// Every open one.
    pub fn tokens(&self) -> Vec<Token> {
        let open = self.slots.iter().enumerate().filter(|(_, slot)| slot.stream.is_some());
        open.map(|(index, slot)| Token::Stream { slot: index as u32, generation: slot.generation }).collect()
    }
}
