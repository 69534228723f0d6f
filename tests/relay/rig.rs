//! A relay in this process and a blocking TURN client.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::certs::{self, Kind};
use hallpass::base::host::HostId;
use hallpass::base::time::{Instant, Now};
use hallpass::base::transport::Transport;
use hallpass::net::admission::Rules;
use hallpass::net::counters::{CloseReason, Stage};
use hallpass::net::{self, Choice, Command, Exit, Handle, Listener, TlsChooser};
use hallpass::turn::action::DropReason;
use hallpass::turn::counters::Counters;
use hallpass::turn::identity::rest;
use hallpass::turn::server::Server;
use hallpass::turn::settings::{Host, Limits, PeerRules, RelayAddress, Settings};
use hallpass::turn::shared::Shared;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use socket2::{Domain, SockRef, Socket, Type};

#[path = "../support/codec.rs"]
mod codec;

use codec::{Login, Reader, Writer, framed, unxor, xor};

pub const REALM: &str = "relay.test";
pub const SECRET: &str = "north";
/// No answer on loopback takes longer, no matter how busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn clock() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Now { instant: Instant::from_nanos(since.as_nanos() as u64), unix: since.as_secs() }
}

/// Seconds by which one test advances its clock.
pub static AHEAD: AtomicU64 = AtomicU64::new(0);

pub fn clock_ahead() -> Now {
    let Now { instant, unix } = clock();
    Now { instant: instant + Duration::from_secs(AHEAD.load(Relaxed)), unix }
}

/// A running relay.
pub struct Relay {
    pub handle: Handle,
    pub counters: Vec<Arc<Counters>>,
    pub shared: Arc<Shared>,
    pub addresses: Vec<SocketAddr>,
    pub roots: Arc<RootCertStore>,
}

impl Relay {
    pub fn start(streams_total: u32) -> Self {
        Self::start_with(Rules { streams: streams_total, ..Rules::default() }, clock)
    }

    pub fn start_with(admission: Rules, clock: fn() -> Now) -> Self {
        Self::start_on(2, admission, clock)
    }

    pub fn start_on(workers: usize, admission: Rules, clock: fn() -> Now) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listeners = Transport::ALL
            .map(|transport| Listener::new(transport, (loopback, 0).into()))
            .into_iter()
            .chain([
                // A wildcard listener must answer from the address that was reached.
                Listener::new(Transport::Udp, "[::]:0".parse().expect("address")),
            ])
            .collect();
        let settings = net::Settings { listeners, workers, admission, ..Default::default() };
        let sockets = net::bind(&settings).expect("bind");
        let udp = |index: usize| sockets[0].udp[index].local;
        let stream = |index: usize| sockets[0].streams[index].local;
        let wildcard = (Ipv4Addr::new(127, 0, 0, 5), udp(1).port()).into();
        let addresses = vec![udp(0), stream(0), stream(1), wildcard];

        let protocol = Arc::new(Settings {
            realm: REALM.into(),
            hosts: vec![Host {
                id: HostId(0),
                name: "ping".into(),
                secrets: vec![SECRET.into()],
                revoked: Vec::new(),
                peers: Some(vec!["127.0.0.0/8".parse().expect("prefix")]),
                confined: None,
            }],
            users: Vec::new(),
            relay_addresses: vec![RelayAddress { local: loopback, announced: loopback, only_local: false }],
            relay_ports: 49152..=65535,
            peers: PeerRules { allow: vec!["127.0.0.0/8".parse().expect("prefix")], ..Default::default() },
            limits: Limits::default(),
            alternates: Default::default(),
            strict_channels: false,
            default_family: Default::default(),
            icmp_to_clients: true,
        });
        let shared = Arc::new(Shared::new(&[7; 32]));
        let counters: Vec<Arc<Counters>> = (0..workers).map(|_| Arc::default()).collect();
        let servers = counters.iter().enumerate().map(|(number, counters)| {
            let (settings, shared) = (Arc::clone(&protocol), Arc::clone(&shared));
            // Each relay in this process uses different ports.
            let seed = [(addresses[0].port() as u8).wrapping_add(number as u8); 32];
            Server::new(settings, shared, Arc::clone(counters), seed)
        });

        let made = certs::made(Kind::Good, REALM);
        let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).expect("key");
        let chain = CertificateDer::pem_slice_iter(made.cert.as_bytes());
        let chain: Vec<_> = chain.collect::<Result<_, _>>().expect("certificates");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.ca.as_bytes()).expect("certificate")).expect("root");
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(tls.with_single_cert(chain, key).expect("config"));
        let chooser: Arc<dyn TlsChooser> = Arc::new(Trapped(tls));
        let servers = servers.collect();
        let handle = net::spawn(&settings, sockets, servers, clock, Some(chooser), None).expect("spawn");
        Self { handle, counters, shared, addresses, roots: Arc::new(roots) }
    }

    pub fn connect(&self, transport: Transport) -> Client {
        self.connect_naming(REALM, transport)
    }

    /// Does the same; on TLS the client requests this name.
    pub fn connect_naming(&self, name: &'static str, transport: Transport) -> Client {
        let address = self.addresses[transport.index()];
        let link = match transport {
            Transport::Udp => return Client::udp(address),
            Transport::Tcp => Link::Tcp(tcp(address)),
            Transport::Tls => {
                let config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots));
                let name = ServerName::try_from(name).expect("name");
                let client = ClientConnection::new(Arc::new(config.with_no_client_auth()), name);
                Link::Tls(Box::new(StreamOwned::new(client.expect("client"), tcp(address))))
            }
        };
        Client::new(link)
    }

    /// Packets and bytes relayed from peers to clients of this transport.
    pub fn relayed(&self, transport: Transport) -> (u64, u64) {
        let flows = self.counters.iter().map(|counters| &counters.host(HostId(0), transport).from_peer);
        flows.fold((0, 0), |(packets, bytes), flow| (packets + flow.packets.get(), bytes + flow.bytes.get()))
    }

    pub fn stop(self) {
        self.handle.send(&Command::Stop { answer: Duration::ZERO });
        let workers = self.counters.len();
        let exits = self.handle.join();
        assert_eq!(exits.len(), workers);
        assert!(exits.iter().all(|Exit { failure, .. }| failure.is_none()), "{exits:?}");
    }

    /// Waits until `reached` returns true.
    pub fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !reached(self) {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    pub fn closed(&self, transport: Transport, reason: CloseReason) -> u64 {
        self.sum(|c| Stage::ALL.iter().map(|&stage| c.streams(transport).closed(stage, reason).get()).sum())
    }

    /// Sums a counter over all workers.
    pub fn sum(&self, counted: impl Fn(&net::counters::Counters) -> u64) -> u64 {
        self.handle.counters().iter().map(|counters| counted(counters)).sum()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.iter().map(|counters| counters.dropped(reason).get()).sum()
    }
}

/// Always chooses the same configuration. A ClientHello that names [`TRAP`] makes the worker that reads it panic.
struct Trapped(Arc<ServerConfig>);

/// A server name that makes a worker panic.
pub const TRAP: &str = "trap.test";

impl TlsChooser for Trapped {
    fn choose(&self, received: &[u8], shared: bool) -> Choice {
        assert!(!received.windows(TRAP.len()).any(|name| name == TRAP.as_bytes()), "trapped");
        self.0.choose(received, shared)
    }
}

/// Connects from another loopback address.
pub fn tcp_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("bind");
    socket.connect(&address.into()).expect("connect");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Returns whether the server ends a new connection from this address at once, even before `connect(2)` returns.
pub fn is_refused(source: [u8; 4], address: SocketAddr) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("bind");
    match socket.connect(&address.into()) {
        Ok(()) => {
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
            Client::new(Link::Tcp(stream)).reads_the_end()
        }
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

pub enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A blocking TURN client.
pub struct Client {
    pub link: Link,
    pub bytes: Vec<u8>,
    pub login: Login,
    pub nonce: Vec<u8>,
    pub transaction: u32,
}

impl Client {
    pub fn udp(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(server).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self::new(Link::Udp(socket))
    }

    pub fn new(link: Link) -> Self {
        let login = Self::login_of("w_test");
        Self { link, bytes: Vec::new(), login, nonce: Vec::new(), transaction: 0 }
    }

    /// Returns the credentials of a user.
    pub fn login_of(user: &str) -> Login {
        let name = rest::username(clock().unix + 3600, user);
        let password = rest::password(SECRET, &name);
        Login::new(&name, &password, REALM)
    }

    /// Returns the TCP connection below TLS.
    pub fn stream(&self) -> &TcpStream {
        match &self.link {
            Link::Tls(stream) => &stream.sock,
            Link::Tcp(stream) => stream,
            Link::Udp(_) => panic!("UDP is not a stream"),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).expect("send"), bytes.len()),
            Link::Tcp(stream) => stream.write_all(bytes).expect("send"),
            Link::Tls(stream) => stream.write_all(bytes).expect("send"),
        }
    }

    pub fn read(&mut self) -> io::Result<usize> {
        let mut buffer = vec![0; 1 << 16];
        let len = match &mut self.link {
            Link::Udp(socket) => socket.recv(&mut buffer)?,
            Link::Tcp(stream) => stream.read(&mut buffer)?,
            Link::Tls(stream) => stream.read(&mut buffer)?,
        };
        self.bytes.extend_from_slice(&buffer[..len]);
        Ok(len)
    }

    /// The next message, without padding.
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some((len, padded)) = framed(&self.bytes) {
                let whole = if self.is_stream() { padded } else { len };
                if self.bytes.len() >= whole {
                    let mut message: Vec<u8> = self.bytes.drain(..whole).collect();
                    assert!(message[len..].iter().all(|&byte| byte == 0), "padding is zero");
                    message.truncate(len);
                    return message;
                }
            }
            assert_ne!(self.read().expect("a message"), 0, "the stream ended");
        }
    }

    pub fn request(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.transaction += 1;
        let mut id = [0; 12];
        id[8..].copy_from_slice(&self.transaction.to_be_bytes());
        let writer = Writer::new(method, id);
        let writer = attributes.iter().fold(writer, |writer, (kind, value)| writer.raw(*kind, value));
        if self.nonce.is_empty() { writer.plain() } else { writer.signed(&self.login, &self.nonce) }
    }

    /// Sends a request and returns the answer; skips media that arrives before it.
    pub fn ask(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let request = self.request(method, attributes);
        self.send(&request);
        loop {
            let message = self.receive();
            if message[0] < 4 && message[8..20] == request[8..20] {
                return message;
            }
        }
    }

    pub fn allocate(&mut self) -> SocketAddr {
        let transport: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
        let challenge = self.ask(0x0003, &[transport]);
        assert_eq!(error_code(&challenge), Some(401));
        self.nonce = attribute(&challenge, 0x0015).expect("NONCE");
        let answer = self.ask(0x0003, &[transport]);
        assert_eq!(answer[..2], [0x01, 0x03], "{:?}", error_code(&answer));
        xor_address(attribute(&answer, 0x0016).expect("XOR-RELAYED-ADDRESS"))
    }

    pub fn bind(&mut self, channel: u16, peer: SocketAddr) {
        let number = [&channel.to_be_bytes()[..], &[0, 0]].concat();
        let answer = self.ask(0x0009, &[(0x000c, &number), (0x0012, &xored(peer))]);
        assert_eq!(answer[..2], [0x01, 0x09], "{:?}", error_code(&answer));
    }

    pub fn send_channel(&mut self, channel: u16, payload: &[u8]) {
        let mut message = [channel.to_be_bytes(), (payload.len() as u16).to_be_bytes()].concat();
        message.extend_from_slice(payload);
        if !matches!(self.link, Link::Udp(_)) {
            message.resize(message.len().next_multiple_of(4), 0);
        }
        self.send(&message);
    }

    /// Returns whether the link is a stream.
    pub fn is_stream(&self) -> bool {
        !matches!(self.link, Link::Udp(_))
    }

    /// Sends zeros, and returns whether sending fails or the server closes the stream.
    pub fn fails_to_send(&mut self) -> bool {
        let sent = match &mut self.link {
            Link::Tls(stream) => stream.write_all(&[0; 20]),
            Link::Tcp(_) | Link::Udp(_) => panic!("not a TLS client"),
        };
        sent.is_err() || self.reads_the_end()
    }

    /// Waits for the stream to end: closed, reset, or cut off without a close_notify.
    pub fn is_cut_off(&mut self) -> bool {
        let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof];
        match self.read() {
            Ok(len) => len == 0,
            Err(error) => kinds.contains(&error.kind()),
        }
    }

    /// Reads until the server closes or resets the connection.
    pub fn reads_the_end(&mut self) -> bool {
        loop {
            match self.read() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return matches!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
    }
}

pub fn attribute(message: &[u8], kind: u16) -> Option<Vec<u8>> {
    Reader::parse(message)?.get(kind).map(<[u8]>::to_vec)
}

pub fn error_code(message: &[u8]) -> Option<u16> {
    Reader::parse(message)?.code().filter(|&code| code > 0)
}

pub fn xored(address: SocketAddr) -> Vec<u8> {
    assert!(address.is_ipv4(), "only IPv4: its mask is the same in every message");
    xor(address, [0; 12])
}

pub fn xor_address(value: Vec<u8>) -> SocketAddr {
    unxor(&value, [0; 12]).expect("an address")
}

/// A peer with room for everything that a test sends before it reads: the kernel counts about 2.3 KB for a datagram of
/// 800 bytes, so that the usual 208 KiB hold only ninety of them.
pub fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let _ = SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let address = socket.local_addr().expect("local");
    (socket, address)
}

pub fn receive_at(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    let (len, from) = peer.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Relays in both directions: on a channel in sizes from 0 to 9,000 bytes, and by indications.
pub fn relays_both_ways(client: &mut Client) {
    let (peer, address) = peer();
    let relayed = client.allocate();
    client.bind(0x4001, address);
    for len in [0, 1, 2, 3, 4, 160, 1200, 9000] {
        let payload = vec![len as u8; len];
        client.send_channel(0x4001, &payload);
        assert_eq!(receive_at(&peer), (payload.clone(), relayed));
        peer.send_to(&payload, relayed).expect("send");
        let message = client.receive();
        assert_eq!(message[..4], [0x40, 0x01, (len >> 8) as u8, len as u8]);
        assert_eq!(message[4..], payload);
    }
    // A second peer, with a permission only: Send and Data indications.
    let (other, other_address) = self::peer();
    let answer = client.ask(0x0008, &[(0x0012, &xored(other_address))]);
    assert_eq!(answer[..2], [0x01, 0x08], "{:?}", error_code(&answer));
    let nonce = std::mem::take(&mut client.nonce);
    let send = client.request(0x0016, &[(0x0012, &xored(other_address)), (0x0013, b"hello")]);
    client.nonce = nonce;
    client.send(&send);
    assert_eq!(receive_at(&other), (b"hello".to_vec(), relayed));
    other.send_to(b"and back", relayed).expect("send");
    let data = client.receive();
    assert_eq!(data[..2], [0x00, 0x17]);
    assert_eq!(attribute(&data, 0x0013), Some(b"and back".to_vec()));
    assert_eq!(attribute(&data, 0x0012).map(xor_address), Some(other_address));
}
