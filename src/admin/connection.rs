//! A connection to the admin pages, with TLS or without.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

/// A connection. The first read makes the TLS handshake, so that a slow client does not delay the next one.
pub(super) enum Connection<S> {
    /// Without TLS.
    Plain(S),
    /// In the handshake.
    Handshake(Box<Accept<S>>),
    /// After it.
    Tls(Box<TlsStream<S>>),
    /// The handshake failed.
    Failed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Without `tls`, the connection is plain.
    pub(super) fn new(stream: S, tls: Option<&TlsAcceptor>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Handshake(Box::new(tls.accept(stream))),
        }
    }

    /// Returns the stream below; `None` after a failed handshake.
    pub(super) fn get_ref(&self) -> Option<&S> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Handshake(accept) => accept.get_ref(),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Failed => None,
        }
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// The handshake or the stream failed.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Self::Handshake(accept) = self {
            // A handshake may not be polled again after its end.
            match ready!(Pin::new(accept.as_mut()).poll(cx)) {
                Ok(stream) => *self = Self::Tls(Box::new(stream)),
                Err(error) => {
                    *self = Self::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Calls a method of the stream after the handshake.
macro_rules! forward {
    ($self:ident, $cx:ident, $stream:ident => $call:expr) => {{
        let this = $self.get_mut();
        ready!(this.poll_ready($cx))?;
        match this {
            Self::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Self::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            // `poll_ready` has left the handshake.
            Self::Handshake(_) | Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }};
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, cx, stream => stream.poll_read(cx, buf))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, cx, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, cx, stream => stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Handshake(_) | Self::Failed => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, cx, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, cx, stream => stream.poll_shutdown(cx))
    }
}
