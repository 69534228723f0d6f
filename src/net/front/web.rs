//! Hands web clients to their back ends: a web server, another TLS server, or the built-in site.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use super::connections::Connections;
use super::first_bytes::{Visit, Web};
use super::quic::Flows;
use super::splice::Splice;
use crate::base::time::Instant;
use crate::net::admission::{Class, Descriptor, Gate};
use crate::net::counters::{CloseReason, Counters, Decision, Stage};
use crate::net::scratch::Buffers;
use crate::net::stream::outbox::Kind;
use crate::net::stream::tls::Protocol;
use crate::net::syscall::Epoll;
use crate::net::token::Token;
use crate::turn::five_tuple::FiveTuple;
use crate::wire::proxy_protocol::{self, Addresses};

/// The answer to an HTTP/1.1 client if even the built-in site is unavailable.
const BAD_GATEWAY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Hands connections to their back ends.
pub struct WebDoor {
    epoll: Rc<Epoll>,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    /// The back ends of web clients; `None`: web clients are refused.
    web: Option<Arc<Web>>,
}

/// The state that a handover needs: the connections, the flows that may make room, and the buffer of the last read.
pub struct Room<'a> {
    pub connections: &'a mut Connections,
    pub flows: &'a mut Flows,
    pub buffers: &'a mut Buffers,
}

impl Room<'_> {
    /// Counts a connection in the share of the web, displacing another if needed; returns `false` if it must be
    /// closed.
    fn enter(&mut self, token: Token, now: Instant) -> bool {
        let Self { connections, flows, buffers } = self;
        let output = &mut buffers.output;
        let entered = connections.with_web_room(token, now, flows, output, |all| all.count_for_web(token));
        if entered.is_err() {
            connections.mark_closing(token, CloseReason::TooMany);
        }
        entered.is_ok()
    }

    /// Takes a descriptor for a socket to the back end of this client.
    fn place(&mut self, gate: &Arc<Gate>, token: Token, now: Instant) -> io::Result<Descriptor> {
        let Self { connections, flows, buffers } = self;
        let output = &mut buffers.output;
        let place = connections.with_web_room(token, now, flows, output, |_| gate.socket(Class::Web));
        place.map_err(|_| io::ErrorKind::QuotaExceeded.into())
    }
}

impl WebDoor {
    /// Creates the component; `web` names the back ends, and without it web clients are refused.
    pub fn new(epoll: Rc<Epoll>, gate: Arc<Gate>, counters: Arc<Counters>, web: Option<Arc<Web>>) -> Self {
        Self { epoll, gate, counters, web }
    }

    /// Returns the back ends of web clients.
    pub fn into_rules(self) -> Option<Arc<Web>> {
        self.web
    }

    /// Replaces the back ends for new connections.
    pub fn set(&mut self, web: Arc<Web>) {
        self.web = Some(web);
    }

    /// Hands a client to its back end. `room.buffers` holds everything that the client has sent so far.
    pub fn hand_over(&self, room: &mut Room<'_>, token: Token, now: Instant) {
        let Some(connection) = room.connections.get(token) else { return };
        let Some(web) = &self.web else { return room.connections.mark_closing(token, CloseReason::Garbage) };
        connection.reached(Stage::Web);
        // Without TLS, the built-in site redirects to HTTPS.
        let (protocol, back_end) = match connection.lacks_tls() {
            true => (Protocol::Http1, None),
            false => web.back_end(connection.negotiated(), room.buffers.plain.bytes()),
        };
        let decision = match (back_end, protocol) {
            _ if connection.lacks_tls() => Decision::Redirect,
            (None, _) => Decision::Site,
            (_, Protocol::H2) => Decision::H2,
            _ => Decision::Http1,
        };
        self.counters.decided(decision).add(1);
        if !room.enter(token, now) {
            return;
        }
        match back_end {
            Some(to) => self.splice(room, token, (protocol, to), now),
            None => self.visit_site(room, token, (protocol, false), now),
        }
    }

    /// Forwards a TLS connection, without terminating it, to the server at `to`. The caller charges the time as a step of a
    /// handshake: thousands of such ClientHellos may come at once.
    pub fn pass_through(&self, room: &mut Room<'_>, token: Token, to: SocketAddr, now: Instant) {
        self.counters.decided(Decision::PassThrough).add(1);
        if room.enter(token, now) {
            self.splice(room, token, (Protocol::Tls, to), now);
        }
    }

    /// Connects a client to the web server at `to`. [`Splice::take`] forwards the client's bytes later.
    fn splice(
        &self,
        room: &mut Room<'_>,
        token: Token,
        (protocol, to): (Protocol, SocketAddr),
        now: Instant,
    ) {
        let Some(connection) = room.connections.get(token) else { return };
        connection.reached(Stage::Web);
        let mut header = Vec::new();
        if let Some(version) = self.web.as_ref().and_then(|web| web.proxy_protocol) {
            let FiveTuple { client, server, .. } = connection.client.five_tuple;
            let addresses = Addresses { source: client, destination: server };
            proxy_protocol::write(version, addresses, &mut header);
        }
        let place = room.place(&self.gate, token, now);
        let Some(connection) = room.connections.get(token) else { return };
        let spliced = place
            .and_then(|place| Splice::connect(place, to, protocol, header, now))
            .and_then(|splice| connection.splice_to(&self.epoll, token, splice, now));
        match spliced {
            // The client is not read until the web server has accepted the connection.
            Ok(()) => room.connections.spliced(token),
            Err(_) if protocol == Protocol::Tls => room.connections.mark_closing(token, CloseReason::BackEnd),
            Err(_) => {
                self.counters.back_end_down.add(1);
                self.visit_site(room, token, (protocol, true), now);
            }
        }
    }

    /// Hands a client to the built-in site, or closes its connection if that fails. `down` tells whether the client's
    /// web server was unreachable.
    fn visit_site(
        &self,
        room: &mut Room<'_>,
        token: Token,
        (protocol, down): (Protocol, bool),
        now: Instant,
    ) {
        if self.open_visit(room, token, (protocol, down), now).is_ok() {
            return room.connections.spliced(token);
        }
        if protocol == Protocol::Http1 {
            let _ = room.connections.push(token, &[BAD_GATEWAY], Kind::Control, now);
            room.connections.write(token, now, &mut room.buffers.output);
        }
        room.connections.mark_closing(token, if down { CloseReason::BackEnd } else { CloseReason::TooMany });
    }

    /// Splices a client to the built-in site through a socket pair, which no other program can connect to.
    ///
    /// # Errors
    /// `QuotaExceeded` if the descriptor limit has no room for both sockets; `ConnectionRefused` if the site is full or
    /// the client's connection is closed; otherwise the error of the system call.
    fn open_visit(
        &self,
        room: &mut Room<'_>,
        token: Token,
        (protocol, down): (Protocol, bool),
        now: Instant,
    ) -> io::Result<()> {
        let (our_place, place) = (room.place(&self.gate, token, now)?, room.place(&self.gate, token, now)?);
        let (ours, stream) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        stream.set_nonblocking(true)?;
        let (Some(web), Some(connection)) = (&self.web, room.connections.get(token)) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let FiveTuple { client, server, .. } = connection.client.five_tuple;
        let (secure, hello) = (!connection.lacks_tls(), connection.hello());
        if !web.site.visit(Visit { stream, client, server, protocol, secure, down, hello, place }) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        connection.splice_to(&self.epoll, token, Splice::to_site(our_place, ours, protocol, now), now)
    }

    /// Hands a client whose web server is unreachable to the built-in site, unless its TLS is passed through.
    pub fn back_end_down(&self, room: &mut Room<'_>, token: Token, now: Instant) {
        self.counters.back_end_down.add(1);
        match room.connections.get(token).and_then(|connection| connection.splice()).map(Splice::protocol) {
            Some(Protocol::Tls) => room.connections.mark_closing(token, CloseReason::BackEnd),
            Some(protocol) => self.visit_site(room, token, (protocol, true), now),
            None => {}
        }
    }
}
