//! Stream listeners: accept connections, and pause when descriptors or memory run out.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;

use super::door::Expected;
use crate::base::transport::Transport;
use crate::net::common_change::CommonChange;
use crate::net::socket::StreamListener;
use crate::net::syscall::{Epoll, canonical, ready};
use crate::net::token::Token;

/// Connections accepted from one listener per turn.
pub const AT_ONCE: usize = 16;
/// How long a listener pauses when descriptors or memory run out. It stays readable, so without a pause the loop
/// would spin.
pub const REST: Duration = Duration::from_millis(100);

/// The stream listeners of a worker.
pub struct Acceptors {
    epoll: Rc<Epoll>,
    /// By index; `None` once one is closed.
    listeners: Vec<Option<StreamListener>>,
}

/// The result of an accept call.
pub enum Accept {
    /// A connection.
    Accepted(Arrival),
    /// A connection to a listener behind a proxy from an untrusted source; it is closed.
    Untrusted(IpAddr),
    /// A connection that was closed already; the next one may be waiting.
    Gone,
    /// No connection is waiting.
    Nothing,
    /// Descriptors or memory have run out: further calls would fail, too.
    Shortage,
}

/// An accepted connection.
pub struct Arrival {
    /// Its socket.
    pub socket: TcpStream,
    /// Its source, canonical: the client, or its proxy.
    pub client: SocketAddr,
    /// TCP or TLS.
    pub transport: Transport,
    /// What the listener expects of its connections.
    pub expected: Expected,
}

impl Acceptors {
    /// Registers the listeners with `epoll`.
    ///
    /// # Errors
    /// The error of `epoll_ctl(2)`; `InvalidInput` for more than 65,536 listeners.
    pub fn new(epoll: Rc<Epoll>, listeners: Vec<StreamListener>) -> io::Result<Self> {
        let mut acceptors = Self { epoll, listeners: Vec::new() };
        listeners.into_iter().try_for_each(|listener| acceptors.add(listener))?;
        Ok(acceptors)
    }

    /// Adds a listener.
    ///
    /// # Errors
    /// As for [`Acceptors::new`].
    pub fn add(&mut self, listener: StreamListener) -> io::Result<()> {
        let free = self.listeners.iter().position(Option::is_none);
        let index = free.unwrap_or(self.listeners.len());
        let token = Token::Accept(u16::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?);
        self.epoll.add(&listener.socket, token.pack(), ready::READ)?;
        match free {
            Some(index) => self.listeners[index] = Some(listener),
            None => self.listeners.push(Some(listener)),
        }
        Ok(())
    }

    /// Changes listeners that stay, and closes others; connections stay.
    pub fn change(&mut self, change: &CommonChange) {
        for listener in self.listeners.iter_mut().flatten() {
            listener.change(change);
        }
        for slot in &mut self.listeners {
            slot.take_if(|listener| change.closed_streams.contains(&listener.local));
        }
    }

    /// Accepts one connection.
    pub fn accept(&self, index: u16) -> Accept {
        let Some(listener) = self.listener(index) else { return Accept::Nothing };
        let (socket, client) = match listener.socket.accept() {
            Ok((socket, client)) => (socket, canonical(client)),
            Err(error) => return classify(&error),
        };
        let proxied = !listener.proxies.is_empty();
        if proxied && !listener.proxies.iter().any(|trusted| trusted.contains(&client.ip())) {
            reset(&socket);
            return Accept::Untrusted(client.ip());
        }
        let transport = listener.transport;
        let tls = transport == Transport::Tls;
        let expected = Expected { tls, either: listener.either, proxied, web: listener.web };
        Accept::Accepted(Arrival { socket, client, transport, expected })
    }

    /// Pauses a listener until [`Acceptors::resume`].
    pub fn pause(&self, index: u16) {
        self.watch(index, 0);
    }

    /// Resumes a paused listener.
    pub fn resume(&self, index: u16) {
        self.watch(index, ready::READ);
    }

    fn listener(&self, index: u16) -> Option<&StreamListener> {
        self.listeners.get(usize::from(index))?.as_ref()
    }

    fn watch(&self, index: u16, interest: u32) {
        if let Some(listener) = self.listener(index) {
            // `EPOLL_CTL_MOD` allocates no memory, so it cannot fail on a registered socket.
            let _ = self.epoll.modify(&listener.socket, Token::Accept(index).pack(), interest);
        }
    }
}

/// Makes the end of this connection a reset. Otherwise the kernel keeps what a refused client has sent, and its own FIN, until
/// the client acknowledges it.
pub fn reset(socket: &TcpStream) {
    // Best effort.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Classifies the error of an accept call.
fn classify(error: &io::Error) -> Accept {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Accept::Nothing,
        // accept(2): treat pending network errors of the new connection like EAGAIN, by retrying.
        Some(
            libc::EINTR
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM,
        ) => Accept::Gone,
        _ => Accept::Shortage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shortage_pauses_the_listener() {
        let accept = |code| classify(&io::Error::from_raw_os_error(code));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert!(matches!(accept(code), Accept::Shortage));
        }
        assert!(matches!(accept(libc::EAGAIN), Accept::Nothing));
        assert!(matches!(accept(libc::ECONNABORTED), Accept::Gone));
        assert!(matches!(accept(libc::EINTR), Accept::Gone));
    }
}
