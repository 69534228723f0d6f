//! Opens listeners and relay sockets and sets their options.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::common_change::CommonChange;
use super::syscall::{self, Fragmentation};
use super::{Listener, Settings};
use crate::base::transport::Transport;
use crate::turn::action::OpenError;

/// Send and receive buffer of a UDP listener, capped by net.core.rmem_max and wmem_max: 50 ms of 500,000 packets/s.
const LISTENER_BUFFER: usize = 4 << 20;
/// Receive buffer of a relayed address, capped likewise: a media server on this machine sends a frame of 150 packets at once. The
/// kernel takes memory only for what waits.
const RELAY_BUFFER: usize = 512 << 10;
/// Streams waiting to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;
/// Detects dead clients within a minute: 30 s of silence, then three probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent bytes may stay unacknowledged; longer than any outage a call survives.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes the kernel may hold unsent per stream. The rest waits in the outbox, which can drop stale media.
const NOT_SENT_LOW_WATER: u32 = 16 << 10;

/// A bound UDP socket for clients.
#[derive(Debug)]
pub struct UdpListener {
    /// The socket, non-blocking.
    pub socket: UdpSocket,
    /// The bound address.
    pub local: SocketAddr,
    /// Whether it is bound to all addresses, so that every datagram carries the local address that it reached.
    pub wildcard: bool,
    /// The QUIC server that shares the port.
    pub quic: Option<SocketAddr>,
}

/// A bound TCP socket for clients.
#[derive(Debug)]
pub struct StreamListener {
    /// The socket, non-blocking.
    pub socket: TcpListener,
    /// The bound address.
    pub local: SocketAddr,
    /// TCP or TLS.
    pub transport: Transport,
    /// Sources trusted to send a PROXY header, which is then required; empty: any client, no PROXY header.
    pub proxies: Vec<IpNet>,
    /// Whether web clients share the port.
    pub web: bool,
    /// Whether both TLS and plain clients are accepted, regardless of `transport`.
    pub either: bool,
}

/// The listeners of one worker.
#[derive(Debug, Default)]
pub struct WorkerSockets {
    /// UDP listeners.
    pub udp: Vec<UdpListener>,
    /// TCP and TLS listeners.
    pub streams: Vec<StreamListener>,
}

impl StreamListener {
    /// Applies new settings, unless they are those of another listener.
    pub fn change(&mut self, change: &CommonChange) {
        if let Some(mss) = change.mss {
            // Within the bounds of the configuration, so it cannot fail. Connections that are accepted from now on inherit it.
            let _ = SockRef::from(&self.socket).set_tcp_mss(u32::from(mss));
        }
        let mut updated = change.updated.iter().filter(|updated| updated.transport.is_stream());
        if let Some(updated) = updated.find(|updated| updated.address == self.local) {
            (self.transport, self.web, self.either) = (updated.transport, updated.web, updated.either);
            self.proxies.clone_from(&updated.proxies);
        }
    }
}

impl WorkerSockets {
    /// Takes over a change, so that the successor of a failed worker has the same listeners.
    pub fn change(&mut self, spare: WorkerSockets, revived: Vec<UdpListener>, change: &CommonChange) {
        self.streams.retain(|listener| !change.closed_streams.contains(&listener.local));
        self.streams.iter_mut().for_each(|listener| listener.change(change));
        self.streams.extend(spare.streams);
        self.udp.retain(|listener| !change.removed.iter().any(|(address, _)| *address == listener.local));
        self.udp.extend(spare.udp);
        self.udp.extend(revived);
        for updated in change.updated.iter().filter(|updated| !updated.transport.is_stream()) {
            let listener = self.udp.iter_mut().find(|listener| listener.local == updated.address);
            listener.into_iter().for_each(|listener| listener.quic = updated.quic);
        }
    }

    /// Duplicates the sockets for the successor of a failed worker. While either copy is open, the port stays bound and
    /// the kernel keeps sending each client to the same worker.
    ///
    /// # Errors
    /// The error of `dup(2)`: the process is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let udp = self
            .udp
            .iter()
            .map(|listener| Ok(UdpListener { socket: listener.socket.try_clone()?, ..*listener }));
        let streams = self.streams.iter().map(|listener| {
            let (socket, proxies) = (listener.socket.try_clone()?, listener.proxies.clone());
            Ok(StreamListener { socket, proxies, ..*listener })
        });
        Ok(Self { udp: udp.collect::<io::Result<_>>()?, streams: streams.collect::<io::Result<_>>()? })
    }
}

/// A listener that could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// The configured address.
    pub address: SocketAddr,
    /// The configured transport.
    pub transport: Transport,
    /// The error of the kernel.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {} {}: {}", self.transport, self.address, self.source)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds every listener once per worker, before any thread starts. With port 0 the kernel's choice for the first
/// worker holds for all.
///
/// # Errors
/// [`BindError`] for the first listener that cannot be opened: the port is in use (also by another instance), the
/// address is not local, or the port is privileged.
pub fn bind(settings: &Settings) -> Result<Vec<WorkerSockets>, BindError> {
    let mut workers: Vec<WorkerSockets> = Vec::new();
    workers.resize_with(settings.workers.max(1), WorkerSockets::default);
    for listener in &settings.listeners {
        let failed = |source| BindError { address: listener.address, transport: listener.transport, source };
        // With SO_REUSEPORT alone, a second instance of the same user could share the port and take half of the
        // clients. So each port is first opened without it.
        if listener.address.port() != 0 {
            listening(listener, false, settings.mss).map_err(failed)?;
        }
        let mut address = listener.address;
        for worker in &mut workers {
            let socket =
                listening(&Listener { address, ..listener.clone() }, true, settings.mss).map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            let local = local.as_socket().ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
            address.set_port(local.port());
            if listener.transport.is_stream() {
                worker.streams.push(StreamListener {
                    socket: socket.into(),
                    local,
                    transport: listener.transport,
                    proxies: listener.proxies.clone(),
                    web: listener.web,
                    either: listener.either,
                });
            } else {
                let wildcard = local.ip().is_unspecified();
                worker.udp.push(UdpListener { socket: socket.into(), local, wildcard, quic: listener.quic });
            }
        }
    }
    Ok(workers)
}

/// The buffers of a UDP listener in bytes, as the kernel granted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// The receive buffer; net.core.rmem_max limits it.
    pub receive: usize,
    /// The send buffer; net.core.wmem_max limits it.
    pub send: usize,
}

impl Buffers {
    /// The size that a listener requests for each.
    pub const REQUESTED: usize = LISTENER_BUFFER;

    /// Returns the buffers that a listener gets on this machine.
    ///
    /// # Errors
    /// The error of `socket(2)` or `getsockopt(2)`.
    pub fn probe() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        request_buffers(&socket);
        Self::of(SockRef::from(&socket))
    }

    /// Returns the buffers of the open UDP listeners, which are all alike; `None` if there are none.
    pub fn of_listeners(workers: &[WorkerSockets]) -> Option<Self> {
        let listener = workers.iter().flat_map(|worker| &worker.udp).next()?;
        Self::of(SockRef::from(&listener.socket)).ok()
    }

    fn of(socket: SockRef<'_>) -> io::Result<Self> {
        // The kernel doubles the size that is requested, to make room for its own overhead.
        Ok(Self { receive: socket.recv_buffer_size()? / 2, send: socket.send_buffer_size()? / 2 })
    }

    /// Returns whether one of them is smaller than requested.
    pub fn are_small(self) -> bool {
        self.receive.min(self.send) < Self::REQUESTED
    }
}

/// Requests [`LISTENER_BUFFER`] for both buffers. The kernel grants as much as its limits allow.
fn request_buffers(socket: &Socket) {
    // Smaller buffers are reported at the start (`Buffers`).
    let _ = socket.set_recv_buffer_size(LISTENER_BUFFER);
    let _ = socket.set_send_buffer_size(LISTENER_BUFFER);
}

fn listening(listener: &Listener, shared: bool, mss: u16) -> io::Result<Socket> {
    let address = listener.address;
    let (kind, protocol) = if listener.transport.is_stream() {
        (Type::STREAM, Protocol::TCP)
    } else {
        (Type::DGRAM, Protocol::UDP)
    };
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(listener.only_v6)?;
    }
    socket.set_reuse_port(shared)?;
    if listener.awaited {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    if listener.transport.is_stream() {
        // Allows for connections of an earlier run in TIME_WAIT. On UDP it would share the port with other processes.
        socket.set_reuse_address(true)?;
        set_stream_options(&socket, mss)?;
        socket.bind(&address.into())?;
        // Also in the first, exclusive attempt: two sockets can bind the same port, but not both listen.
        socket.listen(BACKLOG)?;
    } else {
        request_buffers(&socket);
        syscall::set_fragmentation(&socket, false, Fragmentation::Allowed)?;
        if address.is_ipv6() {
            syscall::set_fragmentation(&socket, true, Fragmentation::Allowed)?;
        }
        if address.ip().is_unspecified() {
            syscall::enable_packet_info(&socket, address.is_ipv6())?;
            if address.is_ipv6() {
                // Allows answers from addresses that exist only as a local route. The address that a datagram reached
                // is always local.
                socket.set_freebind_v6(true)?;
            }
        }
        // Best effort: without it every datagram arrives alone.
        let _ = syscall::enable_coalescing(&socket);
        socket.bind(&address.into())?;
    }
    Ok(socket)
}

/// Sets the options on the listener: on Linux every accepted stream inherits them, which saves calls per stream.
fn set_stream_options(socket: &Socket, mss: u16) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)?;
    if mss != 0 {
        socket.set_tcp_mss(u32::from(mss))?;
    }
    Ok(())
}

/// Binds one relayed address, exclusively. With `coalescing`, datagrams of one peer may arrive in one message.
///
/// # Errors
/// [`OpenError::InUse`] if another port may work, [`OpenError::NoAddress`] if the address is not this machine's, else
/// [`OpenError::Unavailable`].
pub fn relay(address: SocketAddr, coalescing: bool) -> Result<UdpSocket, OpenError> {
    let open = || {
        let kind = Type::DGRAM.nonblocking();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        syscall::set_fragmentation(&socket, address.is_ipv6(), Fragmentation::Allowed)?;
        syscall::set_error_queue(&socket, address.is_ipv6(), true)?;
        if coalescing {
            syscall::enable_coalescing(&socket)?;
        }
        // Best effort: the kernel gives at most net.core.rmem_max.
        let _ = socket.set_recv_buffer_size(RELAY_BUFFER);
        match socket.bind(&address.into()) {
            // An address that exists only as a local route belongs to no interface, so the kernel refuses it without
            // freebind. The caller has checked that the address is local.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && address.is_ipv6() => {
                socket.set_freebind_v6(true)?;
                socket.bind(&address.into())?;
            }
            bound => bound?,
        }
        Ok(socket.into())
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => OpenError::InUse,
        io::ErrorKind::AddrNotAvailable => OpenError::NoAddress,
        _ => OpenError::Unavailable,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn settings(transport: Transport, address: SocketAddr, workers: usize) -> Settings {
        let listener = Listener { only_v6: true, ..Listener::new(transport, address) };
        Settings { listeners: vec![listener], workers, mss: 1200, ..Settings::default() }
    }

    #[test]
    fn workers_share_a_port_exclusively() {
        for transport in Transport::ALL {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let address = address.parse().expect("address");
                let workers = bind(&settings(transport, address, 3)).expect("bind");
                let locals: Vec<SocketAddr> = workers
                    .iter()
                    .flat_map(|w| w.udp.iter().map(|l| l.local).chain(w.streams.iter().map(|l| l.local)))
                    .collect();
                assert_eq!(locals.len(), 3);
                assert!(locals.iter().all(|local| *local == locals[0] && local.port() != 0));
                let error = bind(&settings(transport, locals[0], 1)).expect_err("the port is taken");
                assert_eq!((error.address, error.transport), (locals[0], transport));
                assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
                assert!(error.to_string().contains(&locals[0].to_string()));
            }
        }
    }

    #[test]
    fn buffers_are_read_back() {
        let limit = |name: &str| {
            let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).expect("a limit");
            text.trim().parse::<usize>().expect("a number").min(LISTENER_BUFFER)
        };
        let granted = Buffers { receive: limit("rmem_max"), send: limit("wmem_max") };
        assert_eq!(Buffers::probe().expect("a socket"), granted);
        let address = "127.0.0.1:0".parse().expect("address");
        let of = |transport| Buffers::of_listeners(&bind(&settings(transport, address, 2)).expect("bind"));
        assert_eq!((of(Transport::Udp), of(Transport::Tcp)), (Some(granted), None));
        let requested = Buffers { receive: Buffers::REQUESTED, send: Buffers::REQUESTED };
        assert!(!requested.are_small());
        assert!(Buffers { receive: 212_992, ..requested }.are_small());
        assert!(Buffers { send: 212_992, ..requested }.are_small());
    }

    #[test]
    fn accepted_streams_inherit_the_options() {
        let address = "127.0.0.1:0".parse().expect("address");
        let workers = bind(&settings(Transport::Tcp, address, 1)).expect("bind");
        let listener = &workers[0].streams[0];
        let _client = TcpStream::connect(listener.local).expect("connect");
        listener.socket.set_nonblocking(false).expect("blocking");
        let accepted = Socket::from(listener.socket.accept().expect("accept").0);
        assert!(accepted.tcp_nodelay().expect("nodelay"));
        assert!(accepted.keepalive().expect("keepalive"));
        assert_eq!(accepted.tcp_keepalive_time().expect("idle"), KEEPALIVE_IDLE);
        assert_eq!(accepted.tcp_user_timeout().expect("timeout"), Some(USER_TIMEOUT));
        assert_eq!(accepted.tcp_notsent_lowat().expect("low water"), NOT_SENT_LOW_WATER);
        assert!(accepted.tcp_mss().expect("mss") <= 1200);
    }

    #[test]
    fn a_relayed_address_is_bound_exclusively() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = relay(address.parse().expect("address"), true).expect("bind");
            let taken = first.local_addr().expect("local");
            assert_eq!(relay(taken, false).err(), Some(OpenError::InUse));
        }
        // No host has an address of TEST-NET-1.
        assert_eq!(relay("192.0.2.1:0".parse().expect("address"), false).err(), Some(OpenError::NoAddress));
    }
}
