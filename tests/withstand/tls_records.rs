//! TLS records that no library sends: handshake messages cut into tiny records, errors within a message, and key updates
//! where the server might not count them.

use crate::bursts::every;
use crate::call::Call;
use crate::floods::plan;
use crate::machine::{metric, unread, until};
use crate::support::client::tcp_from;
use crate::support::plan::{LOCAL_V4, Transport};
use crate::support::sealer::{self, Handshake, KEY_UPDATE, Sealer};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::message;
use crate::support::{alone, beside_others};
use crate::tiny::{self, beside};
use rustls::ContentType::{ApplicationData, Handshake as HandshakeType};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ContentType};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const CALL_RATE: u32 = 200;
/// The fourth failure of a worker within a minute ends the process.
const CONNECTIONS: usize = 6;
/// Connections of strangers in each burst of key updates.
const STRANGERS: usize = 20;
const INTERVAL: Duration = Duration::from_millis(250);
/// What each of them sends: whole segments, so that most reads of the server end between two.
const SEGMENTS: usize = 16;
const SEGMENT: usize = 4096;
/// Key updates in a row that rustls accepts.
const IN_A_ROW: usize = 30;
/// The length of a TLS 1.3 record without payload.
const EMPTY: usize = 22;
/// What looks like the header of a record that reaches to the end of any read.
const HEADER: [u8; 5] = [23, 3, 3, 0xff, 0xff];
/// A comprehension-optional attribute that no server knows.
const UNKNOWN: u16 = 0x8022;
const BINDING_INDICATION: u16 = 0x0011;

/// A connection that writes its own records.
struct Stranger {
    stream: TcpStream,
    server: SocketAddr,
}

impl Stranger {
    fn connect(server: &Server) -> Stranger {
        let server = server.v4(Transport::Tls);
        Stranger { stream: tcp_from(LOCAL_V4, server), server }
    }

    /// Continues a handshake until it has `flights` flights of the client, all of them sent but the last.
    fn shake(&mut self, handshake: &mut Handshake, flights: usize) -> Vec<u8> {
        let (mut received, mut buffer) = (0, [0; 16 << 10]);
        for number in 1.. {
            let mut flight = Vec::new();
            while flight.is_empty() {
                flight = handshake.flight(&buffer[..received]).expect("valid TLS");
                if flight.is_empty() {
                    received = self.stream.read(&mut buffer).expect("an answer");
                    assert!(received > 0, "closed within the handshake");
                }
            }
            if number == flights {
                return flight;
            }
            self.stream.write_all(&flight).expect("an open connection");
            received = 0;
        }
        unreachable!("the loop has no end")
    }

    /// Completes a TLS 1.3 handshake.
    fn seal(&mut self, config: &Arc<ClientConfig>) -> Sealer {
        let mut handshake = Handshake::new(Arc::clone(config));
        let finished = self.shake(&mut handshake, 2);
        self.stream.write_all(&finished).expect("an open connection");
        handshake.into_sealer()
    }

    /// Sends bytes and waits until the server has read them.
    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("an open connection");
        self.wait_read();
    }

    fn wait_read(&self) {
        let (SocketAddr::V4(there), SocketAddr::V4(here)) = (self.server, self.stream.local_addr().unwrap())
        else {
            panic!("{}", self.server);
        };
        assert!(until(LIMIT, || unread(there, here) == 0).is_some(), "the server does not read");
    }

    /// Waits until the server closes the connection.
    fn is_closed(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(1..) => {}
                Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                Ok(0) => return true,
            }
        }
    }
}

fn restarts(server: &Server) -> u64 {
    metric(server, "hallpass_worker_restarts_total", "")
}

fn failed(server: &Server) -> u64 {
    metric(server, "hallpass_connections_closed_total", "tls_failed")
}

/// Ends the call and checks that no worker failed.
fn check(what: &str, mut server: Server, call: Call) {
    call.goes_on();
    let report = call.end();
    println!("row 17: {what}: {} workers failed; a call beside them: {report}", restarts(&server));
    assert!(server.is_running());
    assert_eq!(restarts(&server), 0);
    assert_eq!(report.lost(), 0, "{report}");
}

/// Row 17: without keys, as anybody can. The rest of the message, or the end of the stream, arrives in a later read.
#[test]
fn fragmented_handshake_messages_end_no_worker() {
    let _turn = beside_others();
    if skip_on_coturn("fragments of handshake messages") {
        return;
    }
    let server = Server::start(&plan(""));
    let call = Call::over(&server, Transport::Tls, CALL_RATE);
    let config = sealer::config(default_provider(), &TLS12);
    // A ClientKeyExchange that never ends. Joined, its zeros look like the headers of empty records.
    let exchange = [&[16, 0, 0xff, 0xff][..], &[0; 96]].concat();
    let records: Vec<u8> = exchange.iter().flat_map(|&byte| [22, 3, 3, 0, 1, byte]).collect();
    // Between two records, and within one: in its header, before its payload.
    let cuts: [&[usize]; CONNECTIONS / 2] = [&[600], &[200, 400, 600], &[303, 599]];
    for number in 0..CONNECTIONS {
        let mut stranger = Stranger::connect(&server);
        // The server's flight has arrived when there is an answer to it, which is not sent.
        stranger.shake(&mut Handshake::new(Arc::clone(&config)), 2);
        let (mut rest, mut sent) = (&records[..], 0);
        for &cut in cuts[number % cuts.len()] {
            let (part, behind) = rest.split_at(cut - sent);
            stranger.send(part);
            (rest, sent) = (behind, cut);
        }
        match number < cuts.len() {
            true => stranger.send(&[rest, &[22]].concat()),
            false => stranger.stream.shutdown(Shutdown::Write).unwrap(),
        }
        stranger.wait_read();
    }
    let what = format!("a handshake message in records of one byte on {CONNECTIONS} connections");
    check(&what, server, call);
}

/// Row 17: each connection is closed, and closing it does not look for bytes that are gone.
#[test]
fn a_connection_that_fails_within_a_message_ends_no_worker() {
    let _turn = beside_others();
    if skip_on_coturn("errors within TLS messages") {
        return;
    }
    let server = Server::start(&plan(""));
    let call = Call::over(&server, Transport::Tls, CALL_RATE);
    let config = sealer::config(default_provider(), &TLS13);
    // Two key updates in one record; data within a message; a damaged record after an empty one.
    let two = KEY_UPDATE.repeat(2);
    let forms: [&[(ContentType, &[u8])]; 3] = [
        &[(HandshakeType, &two)],
        &[(HandshakeType, &KEY_UPDATE[..1]), (ApplicationData, b"x")],
        &[(HandshakeType, &[]), (ApplicationData, &[])],
    ];
    let mut open = 0;
    for number in 0..CONNECTIONS {
        let mut stranger = Stranger::connect(&server);
        let mut sealer = stranger.seal(&config);
        stranger.wait_read();
        let form = forms[number % forms.len()];
        let mut bytes: Vec<u8> = form.iter().flat_map(|&(typ, payload)| sealer.seal(typ, payload)).collect();
        if number % forms.len() == 2 {
            bytes.last_mut().into_iter().for_each(|last| *last ^= 1);
        }
        stranger.send(&bytes);
        open += usize::from(!stranger.is_closed(LIMIT));
    }
    let counted = failed(&server);
    let what = format!("an error within a message on {CONNECTIONS} connections, {open} of them not closed");
    check(&what, server, call);
    assert_eq!((open, counted), (0, CONNECTIONS as u64));
}

fn update(sealer: &mut Sealer) -> Vec<u8> {
    let record = sealer.seal(HandshakeType, &KEY_UPDATE);
    sealer.change_keys();
    record
}

/// Returns an empty handshake record and data. rustls then keeps bytes that begin within the data, at [`HEADER`].
fn shift(sealer: &mut Sealer) -> Vec<u8> {
    let fill = HEADER.repeat(16);
    let data = message(BINDING_INDICATION, 0, &[(UNKNOWN, &fill)]);
    // As long as the rest of the record of data: the fill, the type and the tag.
    let empty = sealer.seal_padded(HandshakeType, &[], fill.len() + 17 - EMPTY);
    [empty, sealer.seal(ApplicationData, &data)].concat()
}

/// Returns a segment of key updates, and how many it has. The bytes kept before it hide them all in one record.
fn hidden(sealer: &mut Sealer) -> (Vec<u8>, u64) {
    let end = SEGMENT - EMPTY - 256;
    let (mut bytes, mut updates) = (Vec::new(), 0);
    while bytes.len() < end {
        bytes.extend(update(sealer));
        updates += 1;
        if updates % IN_A_ROW as u64 == 0 {
            bytes.extend(sealer.seal(ApplicationData, &[]));
        }
    }
    // The length of the next shift: 97 for the empty record, and a record of 104 bytes.
    let shifted = 97 + EMPTY + 104;
    let fill = SEGMENT - shifted - EMPTY - bytes.len();
    bytes.extend(sealer.seal_padded(ApplicationData, &[], fill));
    bytes.extend(shift(sealer));
    assert_eq!(bytes.len(), SEGMENT);
    (bytes, updates)
}

/// Returns a segment of key updates with data after every 15, one record fewer than the server gives to rustls at once.
fn between_data(sealer: &mut Sealer) -> (Vec<u8>, u64) {
    let (mut bytes, mut updates) = (Vec::new(), 0);
    while bytes.len() < SEGMENT {
        bytes.extend((0..15).flat_map(|_| update(sealer)));
        updates += 15;
        bytes.extend(sealer.seal(ApplicationData, &[0]));
    }
    (bytes, updates)
}

/// Bursts of strangers that all send `first` and then as many key updates as they can. Every connection is closed.
fn bursts(what: &str, first: fn(&mut Sealer) -> Vec<u8>, segment: fn(&mut Sealer) -> (Vec<u8>, u64)) {
    let _turn = alone();
    if skip_on_coturn("a limit on what TLS does after a handshake") {
        return;
    }
    let server = tiny::server();
    let config = sealer::config(default_provider(), &TLS13);
    let (connections, open) = (AtomicU64::new(0), AtomicU64::new(0));
    beside(what, &server, |stop| {
        every(INTERVAL, stop, || {
            let mut updates = 0;
            let prepare = |_| {
                let mut stranger = Stranger::connect(&server);
                let mut sealer = stranger.seal(&config);
                stranger.wait_read();
                stranger.send(&first(&mut sealer));
                let segments = (0..SEGMENTS).map(|_| segment(&mut sealer));
                (stranger, segments.map(|(bytes, count)| (updates += count, bytes).1).collect::<Vec<_>>())
            };
            let mut strangers: Vec<(Stranger, Vec<Vec<u8>>)> = (0..STRANGERS).map(prepare).collect();
            for number in 0..SEGMENTS {
                for (stranger, segments) in &mut strangers {
                    // An error means that the server has closed the connection, as it should.
                    let _ = stranger.stream.write_all(&segments[number]);
                }
            }
            for (stranger, _) in &mut strangers {
                open.fetch_add(u64::from(!stranger.is_closed(Duration::from_secs(2))), Ordering::Relaxed);
            }
            connections.fetch_add(STRANGERS as u64, Ordering::Relaxed);
            updates
        })
    });
    let (connections, open) = (connections.into_inner(), open.into_inner());
    println!("{what}: {connections} connections, {open} of them not closed");
    assert_eq!((open, failed(&server), restarts(&server)), (0, connections, 0));
}

#[test]
fn hidden_key_updates_are_counted() {
    bursts("key updates after an empty handshake record", shift, hidden);
}

#[test]
fn key_updates_between_data_are_counted() {
    bursts("key updates between records of data", |sealer| sealer.seal(ApplicationData, &[0]), between_data);
}
