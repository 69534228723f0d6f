//! Readiness, reload, shutdown and watchdog messages to systemd (`sd_notify(3)`).
//!
//! Nothing here stops or delays the server: without systemd every call does nothing, a message that cannot be sent is
//! dropped, and the socket never blocks.

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;

/// Longest STATUS= text in bytes.
const MAX_STATUS: usize = 512;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` of this process.
    pub fn from_env() -> Self {
        Self::from_vars(std::process::id(), |name| std::env::var_os(name))
    }

    fn from_vars(pid: u32, var: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| var(name)?.into_string().ok();
        let meant_for_us = text("WATCHDOG_PID").is_none_or(|p| p.parse() == Ok(pid));
        let micros = text("WATCHDOG_USEC").and_then(|t| t.parse().ok()).filter(|&us: &u64| us > 0);
        let watchdog = micros.filter(|_| meant_for_us).map(Duration::from_micros);
        Self { target: var("NOTIFY_SOCKET").and_then(|path| connect(&path)), watchdog }
    }

    /// Whether systemd expects messages.
    pub fn is_active(&self) -> bool {
        self.target.is_some()
    }

    /// The interval for [`Self::watchdog`]: half of what systemd tolerates. `None` if it has no watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.target.as_ref().and(self.watchdog).map(|limit| limit / 2)
    }

    /// Reports that every listener accepts, or that a reload is complete.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Reports that a reload begins. `Type=notify-reload` compares the time with that of its request.
    pub fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_nanos() / 1000));
    }

    /// Reports that the server shuts down or drains.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Reports that the server is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// Sets the line in `systemctl status`. Control characters become spaces, because a line break would begin a new
    /// assignment.
    pub fn status(&self, text: &str) {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=MAX_STATUS.min(clean.len())).rev().find(|&at| clean.is_char_boundary(at));
        self.send(&format!("STATUS={}", &clean[..end.unwrap_or(0)]));
    }

    fn send(&self, message: &str) {
        if let Some((socket, target)) = &self.target
            && let Err(error) = socket.send_to_addr(message.as_bytes(), target)
        {
            tracing::debug!(%error, "a message to systemd was not sent");
        }
    }
}

/// Opens a socket for an address; `@name` is in the abstract namespace. Other transports of systemd (vsock) are for virtual
/// machines and not supported.
fn connect(path: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(path),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().and_then(|s| s.set_nonblocking(true).map(|()| s));
    match (socket, address) {
        (Ok(socket), Ok(address)) => Some((socket, address)),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, ?path, "NOTIFY_SOCKET cannot be used: systemd gets no messages from this server");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(vars: &[(&str, &str)]) -> Notifier {
        Notifier::from_vars(42, |name| {
            vars.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn speaks_to_a_socket_in_the_file_system() {
        let path = std::env::temp_dir().join(format!("hallpass-notify-{}", std::process::id()));
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        notifier.ready();
        notifier.stopping();
        notifier.status("5 calls\nREADY=0\r\u{7}");
        assert_eq!(receive(&systemd), "READY=1");
        assert_eq!(receive(&systemd), "STOPPING=1");
        assert_eq!(receive(&systemd), "STATUS=5 calls READY=0  ");
        std::fs::remove_file(&path).unwrap();
        notifier.ready(); // the receiver is gone: no panic, no error
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let name = format!("hallpass-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", &format!("@{name}"))]);
        let before = clock::monotonic_nanos() / 1000;
        notifier.reloading();
        let text = receive(&systemd);
        let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
        assert!(micros >= before && micros <= clock::monotonic_nanos() / 1000);
        notifier.watchdog();
        assert_eq!(receive(&systemd), "WATCHDOG=1");
        notifier.status(&"ä".repeat(600));
        assert_eq!(receive(&systemd), format!("STATUS={}", "ä".repeat(256)));
    }

    #[test]
    fn a_full_queue_never_blocks() {
        let path = std::env::temp_dir().join(format!("hallpass-notify-full-{}", std::process::id()));
        let _never_read = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
        (0..10_000).for_each(|_| notifier.watchdog());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn watchdog_is_half_the_limit_and_only_for_us() {
        let socket = ("NOTIFY_SOCKET", "@somewhere");
        let interval = |vars: &[(&str, &str)]| notifier(vars).watchdog_interval();
        assert_eq!(interval(&[socket, ("WATCHDOG_USEC", "3000000")]), Some(Duration::from_millis(1500)));
        let ours = [socket, ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "42")];
        assert_eq!(interval(&ours), Some(Duration::from_secs(1)));
        assert_eq!(interval(&[socket, ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "43")]), None);
        assert_eq!(interval(&[socket, ("WATCHDOG_USEC", "0")]), None);
        assert_eq!(interval(&[socket, ("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "2000000")]), None);
    }

    #[test]
    fn without_systemd_nothing_happens() {
        for notifier in [
            notifier(&[]),
            notifier(&[("NOTIFY_SOCKET", "vsock:2:9999")]),
            notifier(&[("NOTIFY_SOCKET", "")]),
        ] {
            assert!(!notifier.is_active());
            notifier.ready();
        }
    }
}
