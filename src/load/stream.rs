//! One TCP or TLS connection of the load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::stream::Reassembly;
use crate::wire::channel_data::padding;

/// Bytes that may wait for a server that does not read; further media is lost.
const WAITING_MAX: usize = 1 << 20;

/// Buffers that all connections share.
pub struct Buffer {
    raw: Box<[u8]>,
    plain: Box<[u8]>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self { raw: vec![0; 64 << 10].into(), plain: vec![0; 64 << 10].into() }
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Handshaking,
    Open,
}

/// A TCP or TLS connection.
pub struct Stream {
    /// The socket, non-blocking.
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    state: State,
    /// Bytes to write; on TLS connections their records.
    waiting: Vec<u8>,
    /// Reassembles the messages of the server.
    incoming: Reassembly,
}

/// A state change caused by reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// No change.
    None,
    /// The connection is open now.
    Opened,
}

impl Stream {
    /// Starts connecting.
    ///
    /// # Errors
    /// The error of `socket(2)` or `connect(2)`, or an invalid TLS configuration.
    pub fn connect(
        to: SocketAddr,
        tls: Option<(&Arc<rustls::ClientConfig>, &ServerName<'static>)>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        // Closes with a reset, so that thousands of connections do not exhaust the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let tls = tls.map(|(config, name)| ClientConnection::new(Arc::clone(config), name.clone()));
        Ok(Self {
            socket: socket.into(),
            tls: tls.transpose().map_err(io::Error::other)?.map(Box::new),
            state: State::Connecting,
            waiting: Vec::new(),
            incoming: Reassembly::default(),
        })
    }

    /// Returns whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Returns whether to wait until the socket is writable.
    pub fn wants_room(&self) -> bool {
        self.state == State::Connecting || !self.waiting.is_empty()
    }

    /// Queues a message, on TLS as one record like browsers do; returns `false` if too many bytes wait.
    pub fn push(&mut self, pieces: &[&[u8]]) -> bool {
        if self.waiting.len() > WAITING_MAX {
            return false;
        }
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let start = self.waiting.len();
        pieces.iter().for_each(|piece| self.waiting.extend_from_slice(piece));
        self.waiting.resize(start + len + padding(len), 0);
        let Some(tls) = &mut self.tls else { return true };
        let written = tls.writer().write_all(&self.waiting[start..]);
        self.waiting.truncate(start);
        written.is_ok() && self.take_records().is_ok()
    }

    fn take_records(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.waiting)?;
            }
        }
        Ok(())
    }

    /// Writes as many queued bytes as the kernel takes.
    ///
    /// # Errors
    /// The reason why the connection ended.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.state == State::Connecting || self.waiting.is_empty() {
            return Ok(());
        }
        match self.socket.write(&self.waiting) {
            Ok(written) => {
                self.waiting.drain(..written);
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Handles writability, which also ends a connection attempt.
    ///
    /// # Errors
    /// The reason why the connection ended.
    pub fn on_room(&mut self) -> io::Result<Transition> {
        let mut transition = Transition::None;
        if self.state == State::Connecting {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            (self.state, transition) = match self.tls {
                Some(_) => (State::Handshaking, Transition::None),
                None => (State::Open, Transition::Opened),
            };
            self.take_records()?;
        }
        self.flush()?;
        Ok(transition)
    }

    /// Reads once and delivers every whole message.
    ///
    /// # Errors
    /// The reason why the connection ended; `Other` if the server violates TLS or speaks another protocol.
    pub fn on_data(&mut self, buffer: &mut Buffer, deliver: &mut dyn FnMut(&[u8])) -> io::Result<Transition> {
        let len = match self.socket.read(&mut buffer.raw) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if is_transient(&error) => return Ok(Transition::None),
            Err(error) => return Err(error),
        };
        let mut raw = &buffer.raw[..len];
        let Some(tls) = &mut self.tls else {
            self.incoming.take(raw, deliver).map_err(io::Error::other)?;
            return Ok(Transition::None);
        };
        while !raw.is_empty() {
            tls.read_tls(&mut raw)?;
            tls.process_new_packets().map_err(explained)?;
            loop {
                match tls.reader().read(&mut buffer.plain) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(len) => {
                        let taken = self.incoming.take(&buffer.plain[..len], &mut *deliver);
                        taken.map_err(io::Error::other)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        let opened = self.state == State::Handshaking && !tls.is_handshaking();
        self.take_records()?;
        self.flush()?;
        if opened {
            self.state = State::Open;
            return Ok(Transition::Opened);
        }
        Ok(Transition::None)
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Adds the next step to the error of a certificate that this computer does not trust.
fn explained(error: rustls::Error) -> io::Error {
    match error {
        rustls::Error::InvalidCertificate(_) => {
            io::Error::other(format!("{error} (--insecure accepts any certificate, for a test)"))
        }
        error => io::Error::other(error),
    }
}
