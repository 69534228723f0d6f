//! QUIC beside TURN on one UDP port: datagrams there and back.

use std::ops::Range;

use super::Worker;
use crate::net::batch::Payload;
use crate::net::quic::{Kind, classify};
use crate::net::syscall::BATCH;
use crate::net::token::Token;
use crate::turn::action::Drop;
use crate::turn::five_tuple::Client;

/// Datagrams taken from one flow per turn.
const PER_FLOW: usize = 16;

impl Worker {
    /// Whether a client's datagram is QUIC's; then it was dealt with.
    pub(super) fn is_quic(&mut self, index: u16, frame: usize, range: &Range<usize>, client: Client) -> bool {
        let Some(to) = self.udp.get(usize::from(index)).and_then(|listener| listener.quic) else {
            return false;
        };
        let datagram = &self.received.frames[frame].bytes()[range.clone()];
        let Some(&first) = datagram.first() else { return false };
        let theirs = match classify(first) {
            Kind::Turn => false,
            // Where QUIC and ChannelData look alike, the allocation decides; without one, the flow does, and without
            // either RFC 9443: channels up to 0x4FFF are TURN's. A port without flows pays nothing for the question.
            Kind::Either => self.quic.has(&client) && !self.server.has_allocation(&client),
            Kind::Short => !self.server.has_allocation(&client),
            Kind::Long => true,
        };
        if !theirs {
            return false;
        }
        match self.quic.forward(&self.epoll, &self.ties.gate, (client, to), datagram, self.now.instant) {
            Ok(None) => {}
            Ok(Some(token)) => {
                self.tidy_timers();
                self.look_after_flow(token);
            }
            Err(_) => self.server.counters().dropped(Drop::QuicRefused).add(1),
        }
        true
    }

    /// Takes a share from a QUIC server for one client.
    pub(super) fn on_quic(&mut self, token: Token) {
        if BATCH - self.frames_used < PER_FLOW {
            self.flush();
            self.frames_used = 0;
        }
        let first = self.frames_used;
        let Some((socket, client)) = self.quic.get(token, self.now.instant) else { return };
        // Nothing there, or the server is away: its silence ends the flow.
        let Ok(count) = self.received.receive(socket, first, PER_FLOW) else { return };
        self.frames_used += count;
        let Some(Token::Udp(index)) = Token::unpack(client.link.0) else { return };
        for frame in first..first + count {
            self.quic.answered(token, self.received.frames[frame].bytes());
            let whole = 0..self.received.frames[frame].bytes().len();
            self.push(self.for_client(index, client, None, Payload::Frame(frame, whole)));
        }
    }

    pub(super) fn look_after_flow(&mut self, token: Token) {
        if let Some(end) = self.quic.life(token, self.now.instant) {
            self.timers.set(end, token);
        }
    }
}
