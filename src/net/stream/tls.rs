//! TLS over a stream, using rustls without its buffers, so that an idle client holds only its keys.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{AlertDescription, Error};

use super::record::INCOMING_MAX;
use crate::cert::challenge::ALPN_CHALLENGE;
use crate::net::counters::TlsOutcome;
use crate::net::scratch::Scratch;
use crate::wire::client_hello::{Shape, shape};

/// Maximum number of records without data that a client may send after the handshake, such as key updates (RFC 8446
/// section 4.6.3): each has 28 bytes and takes 3 to 8 us. Browsers send none.
const SILENT_MAX: u32 = 16;
/// The client's records that end a handshake: in TLS 1.2 ClientKeyExchange, change_cipher_spec and Finished.
const FINISHING_RECORDS: u32 = 3;
/// Records passed to rustls at once. It returns early only for non-empty records of data, so it would process a whole
/// read full of key updates in one call.
const RECORDS_AT_ONCE: usize = 16;
/// Records of data after which a client may send one more record without data. A key update is due after 2^24 records
/// at the earliest (RFC 8446 section 5.5).
const DATA_PER_SILENT: u32 = 1 << 16;
/// The record type of change_cipher_spec, which a server may send after a HelloRetryRequest and which clients ignore
/// (RFC 8446 appendix D.4).
const CHANGE_CIPHER_SPEC: u8 = 20;
/// The random value of a HelloRetryRequest (RFC 8446 section 4.1.3).
const HELLO_RETRY_REQUEST: [u8; 32] = [
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2,
    0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
];

/// Chooses the configuration for a client by its ClientHello.
pub trait TlsChooser: Send + Sync {
    /// Decides by everything that the client has sent so far. `shared`: whether the port is shared with the web.
    fn choose(&self, received: &[u8], shared: bool) -> Choice;
}

/// The decision of a [`TlsChooser`].
pub enum Choice {
    /// Serve with this configuration.
    Config(Arc<ServerConfig>),
    /// Forward to the TLS server at this address.
    PassThrough(SocketAddr),
    /// The ClientHello is not complete.
    NeedMore,
    /// Not TLS: close the connection.
    NotTls,
}

impl TlsChooser for Arc<ServerConfig> {
    fn choose(&self, _received: &[u8], _shared: bool) -> Choice {
        Choice::Config(Arc::clone(self))
    }
}

/// The protocol of a web client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or older.
    Http1,
    /// HTTP/2.
    H2,
    /// TLS that is passed through.
    Tls,
}

/// The result of processing received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The client sent a close_notify.
    pub closed: bool,
    /// These bytes completed the handshake.
    pub finished: bool,
    /// TLS is passed through to this server; `incoming` holds everything received.
    pub pass_through: Option<SocketAddr>,
}

/// The TLS side of one stream.
#[derive(Default)]
pub struct Tls {
    /// `None` until the ClientHello is complete.
    connection: Option<UnbufferedServerConnection>,
    /// Received, unprocessed bytes: the start of a record or of a handshake message.
    incoming: Vec<u8>,
    /// How many of them rustls was given as whole records. It continues after them, and may have overwritten their headers.
    given: usize,
    /// Whether the ClientHello was answered, other than by a HelloRetryRequest.
    answered: bool,
    established: bool,
    /// Records without data received after the handshake.
    silent: u32,
    /// Records of data received.
    data: u32,
    /// What is typical of a kind of browser in the ClientHello, on a port shared with the web.
    hello: Option<Shape>,
}

impl Tls {
    /// Returns whether the expensive part of a handshake, key exchange and signature, is still ahead: no ClientHello
    /// was answered yet, except by a HelloRetryRequest.
    pub fn begins(&self) -> bool {
        !self.answered
    }

    /// Returns whether the handshake is unfinished.
    pub fn is_handshaking(&self) -> bool {
        !self.established
    }

    /// Returns the web protocol that the client negotiated (RFC 7301); `None` for any other or no protocol.
    pub fn negotiated(&self) -> Option<Protocol> {
        match self.connection.as_ref()?.alpn_protocol()? {
            b"h2" => Some(Protocol::H2),
            b"http/1.1" => Some(Protocol::Http1),
            _ => None,
        }
    }

    /// Returns whether the handshake validates a name for a certificate (RFC 8737). No data follows it.
    pub fn is_validation(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.alpn_protocol() == Some(ALPN_CHALLENGE))
    }

    /// Returns the shape of the ClientHello; `None` on a port for TURN alone.
    pub fn hello(&self) -> Option<Shape> {
        self.hello
    }

    /// Puts the unprocessed bytes in front of the next read.
    pub fn restore(&mut self, incoming: &mut Scratch) {
        incoming.clear();
        // Never more than INCOMING_MAX, for which the scratch is large enough.
        let _ = incoming.append(&self.incoming);
        self.incoming.clear();
    }

    /// Keeps all of `incoming` (see [`Tls::restore`]) unprocessed for later.
    pub fn keep(&mut self, incoming: &Scratch) {
        self.incoming.extend_from_slice(incoming.bytes());
    }

    /// Processes all of `incoming` (see [`Tls::restore`]): appends plaintext to `plain` and records to send to
    /// `output`.
    ///
    /// # Errors
    /// The reason to close the stream, after sending `output`, which may hold an alert. `Garbage` also if the client
    /// updates its keys too often.
    pub fn receive(
        &mut self,
        chooser: &dyn TlsChooser,
        shared: bool,
        incoming: &mut Scratch,
        plain: &mut Scratch,
        output: &mut Scratch,
    ) -> Result<Received, TlsOutcome> {
        let mut received = Received::default();
        let mut consumed = 0;
        if self.connection.is_none() {
            if self.answered {
                // It failed earlier.
                return Err(TlsOutcome::Internal);
            }
            match chooser.choose(incoming.bytes(), shared) {
                Choice::Config(config) => {
                    self.hello = if shared { shape(incoming.bytes()) } else { None };
                    let connection = UnbufferedServerConnection::new(config);
                    self.connection = Some(connection.map_err(|_| TlsOutcome::Internal)?);
                }
                Choice::PassThrough(to) => {
                    received.pass_through = Some(to);
                    return Ok(received);
                }
                Choice::NeedMore => {}
                Choice::NotTls => return Err(TlsOutcome::Garbage),
            }
        }
        if let Some(connection) = &mut self.connection {
            let sent = output.bytes().len();
            let allowed = SILENT_MAX + self.data / DATA_PER_SILENT;
            let progress = process(
                connection,
                incoming.bytes_mut(),
                self.given,
                plain,
                output,
                allowed.saturating_sub(self.silent),
            );
            let is_handshaking = connection.is_handshaking();
            self.answered |= answers(&output.bytes()[sent..]);
            let progress = progress.map_err(|outcome| self.fail(outcome))?;
            (consumed, received.closed) = (progress.consumed, progress.closed);
            self.given = progress.given.saturating_sub(consumed);
            received.finished = !self.established && !is_handshaking;
            self.established |= received.finished;
            self.data = self.data.saturating_add(progress.data);
            self.silent += progress.silent;
        }
        let rest = &incoming.bytes()[consumed..];
        if rest.len() > INCOMING_MAX {
            return Err(self.fail(TlsOutcome::Garbage));
        }
        if rest.is_empty() {
            // An idle client holds no buffer.
            self.incoming = Vec::new();
        } else {
            self.incoming.extend_from_slice(rest);
        }
        Ok(received)
    }

    /// Drops the connection of rustls, which must not be called again: it may expect bytes that are no longer kept.
    fn fail(&mut self, outcome: TlsOutcome) -> TlsOutcome {
        self.connection = None;
        outcome
    }

    /// Seals `plaintext` and appends the records to `output`.
    ///
    /// # Errors
    /// `Internal` without a finished handshake or if `output` is full; the stream must be closed.
    pub fn seal(&mut self, plaintext: &[u8], output: &mut Scratch) -> Result<(), TlsOutcome> {
        self.write(output, |state, room| state.encrypt(plaintext, room).ok())
    }

    /// Appends a close_notify to `output` if the handshake is finished.
    pub fn close(&mut self, output: &mut Scratch) {
        if self.established {
            // Without a close_notify the connection is closed, too.
            let _ = self.write(output, |state, room| state.queue_close_notify(room).ok());
        }
    }

    fn write(
        &mut self,
        output: &mut Scratch,
        mut write: impl FnMut(&mut Writer<'_>, &mut [u8]) -> Option<usize>,
    ) -> Result<(), TlsOutcome> {
        let connection = self.connection.as_mut().ok_or(TlsOutcome::Internal)?;
        loop {
            // Nothing new: an error in the start of the next record is found, and reported, when it is received.
            let UnbufferedStatus { discard, state } =
                connection.process_tls_records(&mut self.incoming[..self.given]);
            match state.map_err(|error| outcome(&error))? {
                ConnectionState::WriteTraffic(mut state) => {
                    let written = write(&mut state, output.spare()).ok_or(TlsOutcome::Internal)?;
                    output.advance(written);
                    return Ok(());
                }
                ConnectionState::EncodeTlsData(mut state) => {
                    let written = state.encode(output.spare()).map_err(|_| TlsOutcome::Internal)?;
                    output.advance(written);
                }
                ConnectionState::TransmitTlsData(state) => state.done(),
                // Received bytes are processed at once, so there is nothing to read, and nothing is written after a
                // close.
                _ => return Err(TlsOutcome::Internal),
            }
            self.incoming.drain(..discard);
            self.given = self.given.saturating_sub(discard);
        }
    }
}

type Writer<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::server::ServerConnectionData>;

/// Returns whether `sent` answers a ClientHello; a HelloRetryRequest requests another one instead (RFC 8446 section
/// 4.1.4). A client that sends both ClientHellos at once gets both answers at once.
fn answers(sent: &[u8]) -> bool {
    // The random value of a ServerHello comes after the headers of record and message and the version.
    let asks_again = |record: &[u8]| record.get(11..43) == Some(&HELLO_RETRY_REQUEST);
    records(sent).any(|record| record.first() != Some(&CHANGE_CIPHER_SPEC) && !asks_again(record))
}

/// Returns the records in `bytes`, with their headers (RFC 8446 section 5.1). The last one may be incomplete.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let &[_, _, _, high, low] = bytes.first_chunk()?;
        let len = 5 + usize::from(u16::from_be_bytes([high, low]));
        let (record, rest) = bytes.split_at(len.min(bytes.len()));
        bytes = rest;
        Some(record)
    })
}

/// The result of [`process`].
#[derive(Default)]
struct Progress {
    /// The bytes consumed.
    consumed: usize,
    /// The end of the whole records given to rustls.
    given: usize,
    /// Whether the client closed.
    closed: bool,
    /// Records of data.
    data: u32,
    /// Records without data after the handshake.
    silent: u32,
}

/// Processes as much of `incoming` as possible, of which rustls was given the first `given` bytes earlier.
///
/// # Errors
/// The cause of an error of rustls, and `Garbage` as soon as more than `silent_max` records after the handshake had no
/// data: one read can hold a thousand of them.
fn process(
    connection: &mut UnbufferedServerConnection,
    incoming: &mut [u8],
    given: usize,
    plain: &mut Scratch,
    output: &mut Scratch,
    silent_max: u32,
) -> Result<Progress, TlsOutcome> {
    let mut progress = Progress { given, ..Progress::default() };
    // Key updates may follow the end of the handshake in the same read.
    let finishing = if connection.is_handshaking() { FINISHING_RECORDS } else { 0 };
    // Whole records given to rustls in this call. They are counted beforehand: rustls decrypts them and joins messages in
    // place, so bytes that the client chose may replace their headers.
    let mut counted = 0;
    // The end of the bytes given to rustls, which may include the start of a record.
    let mut end = given;
    // Whether rustls has processed all whole records that it was given.
    let mut done = true;
    loop {
        if done {
            for record in records(&incoming[end..]).take(RECORDS_AT_ONCE) {
                end += record.len();
                if is_whole(record) {
                    progress.given = end;
                    counted += 1;
                }
            }
        }
        let consumed = progress.consumed;
        let UnbufferedStatus { mut discard, state } =
            connection.process_tls_records(&mut incoming[consumed..end]);
        done = false;
        match state {
            Ok(ConnectionState::ReadTraffic(mut state)) => {
                while let Some(record) = state.next_record() {
                    let record = record.map_err(|error| outcome(&error))?;
                    discard += record.discard;
                    progress.data += 1;
                    plain.append(record.payload).ok_or(TlsOutcome::Internal)?;
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut state)) => {
                let written = state.encode(output.spare()).map_err(|_| TlsOutcome::Internal)?;
                output.advance(written);
            }
            // The owner sends `output` first.
            Ok(ConnectionState::TransmitTlsData(state)) => state.done(),
            Ok(ConnectionState::PeerClosed) => progress.closed = true,
            Ok(ConnectionState::Closed) => (progress.closed, done) = (true, true),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => done = true,
            // Early data is never accepted.
            Ok(_) => return Err(TlsOutcome::Internal),
            Err(error) => {
                encode_alert(connection, &mut incoming[consumed + discard..end], output);
                return Err(outcome(&error));
            }
        }
        progress.consumed += discard;
        if !done {
            continue;
        }
        if !connection.is_handshaking() {
            progress.silent = u32::saturating_sub(counted, progress.data + finishing);
        }
        if progress.silent > silent_max {
            return Err(TlsOutcome::Garbage);
        }
        if progress.closed || end > progress.given || records(&incoming[end..]).next().is_none() {
            return Ok(progress);
        }
    }
}

/// Returns whether a record of [`records`] is complete.
fn is_whole(record: &[u8]) -> bool {
    let &[_, _, _, high, low, ref payload @ ..] = record else { return false };
    payload.len() == usize::from(u16::from_be_bytes([high, low]))
}

/// Appends the alert that rustls has queued after an error. Processing must stop there: rustls would read the offending
/// bytes again, which it treats as a misuse.
fn encode_alert(connection: &mut UnbufferedServerConnection, rest: &mut [u8], output: &mut Scratch) {
    while connection.wants_write() {
        let ConnectionState::EncodeTlsData(mut state) = (match connection.process_tls_records(rest).state {
            Ok(state) => state,
            Err(_) => return,
        }) else {
            return;
        };
        match state.encode(output.spare()) {
            Ok(written) => output.advance(written),
            Err(_) => return,
        }
    }
}

/// Classifies an error by its cause.
fn outcome(error: &Error) -> TlsOutcome {
    match error {
        Error::AlertReceived(AlertDescription::UnknownCA) => TlsOutcome::UnknownCa,
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => TlsOutcome::BadCertificate,
        Error::AlertReceived(_) => TlsOutcome::OtherAlert,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsOutcome::NothingShared,
        Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::DecryptError
        | Error::PeerSentOversizedRecord => TlsOutcome::Garbage,
        _ => TlsOutcome::Internal,
    }
}

#[cfg(test)]
mod tests;
