//! The connection of a request, to see whether somebody still waits for the answer.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::net::{RecvFlags, recv};
use tokio::net::UnixListener;

/// The client of a connection to the control socket.
#[derive(Clone, Debug)]
pub struct Caller(Option<Arc<OwnedFd>>);

impl Caller {
    /// Whether it has closed the connection. Without a descriptor to look at, it counts as waiting.
    pub fn is_gone(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let Some(socket) = &self.0 else { return false };
        match recv(socket, &mut [0; 1], flags) {
            Ok((_, read)) => read == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().as_fd().try_clone_to_owned().ok().map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_caller_that_closed_its_connection_is_gone() {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let caller = Caller(Some(Arc::new(far.into())));
        assert!(!caller.is_gone());
        near.write_all(b"more").expect("written");
        assert!(!caller.is_gone(), "it has not read everything yet");
        let (near, far) = UnixStream::pair().expect("a pair");
        drop(near);
        assert!(Caller(Some(Arc::new(far.into()))).is_gone());
    }
}
