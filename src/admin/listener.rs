//! A listener that limits the number of connections, and the bytes and the time of each.
//!
//! Each connection carries one small request (the router answers `Connection: close`), so one byte limit and two deadlines
//! cover the TLS handshake, slow headers, slow bodies and slow readers. Connections are accepted at once, also when all places
//! are taken: see [`places`](super::places).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::places::{Place, Places, Ticket};

/// Pause after a failed accept, which usually means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Limits on connections to the admin pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections of one source (an IPv4 address or an IPv6 /64) at the same time.
    pub of_source: usize,
    /// Bytes read from one connection: TLS handshake, request line, headers and body.
    pub request_bytes: usize,
    /// Time from accept to the last byte of the head of the request, including the TLS handshake.
    pub head: Duration,
    /// Time from accept to the last byte of the response.
    pub time: Duration,
}

/// Accepts connections within limits.
pub(super) struct BoundedListener {
    inner: TcpListener,
    tls: Option<TlsAcceptor>,
    limits: AdminLimits,
    places: Places,
}

impl BoundedListener {
    /// Without `tls`, connections are plain.
    pub(super) fn new(inner: TcpListener, tls: Option<TlsAcceptor>, limits: AdminLimits) -> Self {
        Self { inner, tls, limits, places: Places::new(limits.connections, limits.of_source) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection<BoundedStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection<BoundedStream>, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    // Without a place, the connection is closed.
                    let Some(ticket) = self.places.take(address.ip()) else { continue };
                    let accepted = Instant::now();
                    let deadline = Box::pin(tokio::time::sleep_until(accepted + self.limits.head));
                    let stream = BoundedStream {
                        stream,
                        left: self.limits.request_bytes,
                        deadline,
                        end: accepted + self.limits.time,
                        ticket,
                    };
                    return (Connection::new(stream, self.tls.as_ref()), address);
                }
                Err(error) => {
                    tracing::debug!(%error, "the admin listener cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails when it exceeds its time or its bytes.
#[derive(Debug)]
pub(super) struct BoundedStream {
    stream: TcpStream,
    left: usize,
    /// First that of the head, then `end`.
    deadline: Pin<Box<Sleep>>,
    end: Instant,
    ticket: Ticket,
}

impl BoundedStream {
    /// Returns its place.
    pub(super) fn place(&self) -> &Arc<Place> {
        self.ticket.place()
    }

    /// Checks the deadline and the place.
    ///
    /// # Errors
    /// `TimedOut` after the deadline; `ConnectionAborted` if a newcomer has the place.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.ticket.place().is_lost(cx) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        while self.deadline.as_mut().poll(cx).is_ready() {
            if !self.ticket.place().has_asked() || self.deadline.deadline() >= self.end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.deadline.as_mut().reset(self.end);
        }
        Ok(())
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let got = buf.filled().len() - before;
        match this.left.checked_sub(got) {
            Some(left) => this.left = left,
            None => return Poll::Ready(Err(io::Error::other("request too large"))),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        Pin::new(&mut this.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
