//! The relay as its clients meet it: workers in this process, real sockets on the loopback, UDP, TCP and TLS.
#![allow(clippy::disallowed_methods, reason = "real sockets are waited for on the real clock")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hallpass::net::counters::{CloseReason, Stage};
use hallpass::net::syscall::{Datagram, SendBatch};
use hallpass::net::{self, Command, Exit, Handle, Listener, TlsChooser};
use hallpass::turn::action::Drop;
use hallpass::turn::counters::{Counters, HostRung};
use hallpass::turn::five_tuple::Transport;
use hallpass::turn::rest;
use hallpass::turn::server::Server;
use hallpass::turn::settings::{Host, HostId, Limits, PeerRules, RelayAddress, Settings};
use hallpass::turn::shared::Shared;
use hallpass::turn::time::{Instant, Now};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, LongTermKeyCredentials, MessageIntegrityCredentials, MessageWrite,
    MessageWriteExt, MessageWriteVec,
};

const REALM: &str = "relay.test";
const SECRET: &str = "north";
/// No answer takes longer on a loopback, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Now { instant: Instant::from_nanos(since.as_nanos() as u64), unix: since.as_secs() }
}

/// Seconds that one test moves its clock ahead.
static AHEAD: AtomicU64 = AtomicU64::new(0);

fn clock_ahead() -> Now {
    let Now { instant, unix } = clock();
    Now { instant: instant + Duration::from_secs(AHEAD.load(Relaxed)), unix }
}

/// A running relay.
struct Relay {
    handle: Handle,
    counters: Vec<Arc<Counters>>,
    addresses: Vec<SocketAddr>,
    roots: Arc<RootCertStore>,
}

impl Relay {
    fn start(streams_total: u32) -> Self {
        Self::start_with(streams_total, clock)
    }

    fn start_with(streams_total: u32, clock: fn() -> Now) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listeners = Transport::ALL
            .map(|transport| Listener::new(transport, (loopback, 0).into()))
            .into_iter()
            .chain([
                // A wildcard listener has to answer from the address that was reached.
                Listener::new(Transport::Udp, "[::]:0".parse().expect("address")),
            ])
            .collect();
        let settings = net::Settings { listeners, workers: 2, streams_total, ..Default::default() };
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
                peers: Some(vec!["127.0.0.0/8".parse().expect("prefix")]),
            }],
            users: Vec::new(),
            relay_addresses: vec![RelayAddress {
                local: loopback,
                announced: loopback,
                only_if_reached: false,
            }],
            relay_ports: 49152..=65535,
            peers: PeerRules { allow: vec!["127.0.0.0/8".parse().expect("prefix")], ..Default::default() },
            limits: Limits::default(),
            alternates: Default::default(),
            strict_channels: false,
        });
        let shared = Arc::new(Shared::new(&[7; 32], [loopback], 49152..=65535));
        let counters: Vec<Arc<Counters>> = (0..2).map(|_| Arc::default()).collect();
        let servers = counters.iter().enumerate().map(|(number, counters)| {
            let (settings, shared) = (Arc::clone(&protocol), Arc::clone(&shared));
            // Each relay of this process draws other ports.
            let seed = [(addresses[0].port() as u8).wrapping_add(number as u8); 32];
            Server::new(settings, shared, Arc::clone(counters), seed)
        });

        let own = rcgen::generate_simple_self_signed([REALM.to_owned()]).expect("certificate");
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("key");
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).expect("root");
        let tls = ServerConfig::builder().with_no_client_auth();
        let tls = Arc::new(tls.with_single_cert(vec![own.cert.der().clone()], key).expect("config"));
        let chooser: Arc<dyn TlsChooser> = Arc::new(tls);
        let servers = servers.collect();
        let handle = net::spawn(&settings, sockets, servers, clock, Some(chooser), None).expect("spawn");
        Self { handle, counters, addresses, roots: Arc::new(roots) }
    }

    fn connect(&self, transport: Transport) -> Client {
        let address = self.addresses[transport.index()];
        let link = match transport {
            Transport::Udp => return Client::udp(address),
            Transport::Tcp => Link::Tcp(tcp(address)),
            Transport::Tls => {
                let config = ClientConfig::builder().with_root_certificates(Arc::clone(&self.roots));
                let name = ServerName::try_from(REALM).expect("name");
                let client = ClientConnection::new(Arc::new(config.with_no_client_auth()), name);
                Link::Tls(Box::new(StreamOwned::new(client.expect("client"), tcp(address))))
            }
        };
        Client::new(link)
    }

    fn stop(self) {
        self.handle.send(&Command::Stop);
        let exits = self.handle.join();
        assert_eq!(exits.len(), 2);
        assert!(exits.iter().all(|Exit { failure, .. }| failure.is_none()), "{exits:?}");
    }

    /// Looks until the workers have got so far.
    fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let start = std::time::Instant::now();
        while !reached(self) {
            assert!(start.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    fn closed(&self, transport: Transport, reason: CloseReason) -> u64 {
        let closed = |c: &net::counters::Counters| -> u64 {
            Stage::ALL.iter().map(|&stage| c.streams(transport).closed(stage, reason).get()).sum()
        };
        self.handle.counters().iter().map(|counters| closed(counters)).sum()
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.counters.iter().map(|counters| counters.dropped(reason).get()).sum()
    }
}

fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A TURN client that does one thing after the other.
struct Client {
    link: Link,
    bytes: Vec<u8>,
    name: String,
    key: IntegrityKey,
    nonce: Vec<u8>,
    transaction: u32,
}

impl Client {
    fn udp(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        socket.connect(server).expect("connect");
        socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
        Self::new(Link::Udp(socket))
    }

    fn new(link: Link) -> Self {
        let name = rest::username(clock().unix + 3600, "w_test");
        let password = rest::password(SECRET, &name);
        let credentials = LongTermKeyCredentials::new(name.clone(), password, REALM.into());
        let key = MessageIntegrityCredentials::from(credentials).make_key(IntegrityAlgorithm::Sha1);
        Self { link, bytes: Vec::new(), name, key, nonce: Vec::new(), transaction: 0 }
    }

    /// The connection below everything.
    fn stream(&self) -> &TcpStream {
        match &self.link {
            Link::Tls(stream) => &stream.sock,
            Link::Tcp(stream) => stream,
            Link::Udp(_) => panic!("a stream"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Udp(socket) => assert_eq!(socket.send(bytes).expect("send"), bytes.len()),
            Link::Tcp(stream) => stream.write_all(bytes).expect("send"),
            Link::Tls(stream) => stream.write_all(bytes).expect("send"),
        }
    }

    fn read(&mut self) -> io::Result<usize> {
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
    fn receive(&mut self) -> Vec<u8> {
        loop {
            if let Some(&[first, _, high, low]) = self.bytes.first_chunk() {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let len = if first < 4 { 20 + length } else { 4 + length };
                let whole = if matches!(self.link, Link::Udp(_)) { len } else { len.next_multiple_of(4) };
                if self.bytes.len() >= whole {
                    let mut message: Vec<u8> = self.bytes.drain(..whole).collect();
                    assert!(message[len..].iter().all(|&byte| byte == 0), "padding is zero");
                    message.truncate(len);
                    return message;
                }
            }
            assert_ne!(self.read().expect("a message"), 0, "the end");
        }
    }

    fn request(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        self.transaction += 1;
        let mut message = MessageWriteVec::new();
        let mut bytes = Vec::new();
        let mut append = |kind: u16, value: &[u8]| {
            bytes.extend(kind.to_be_bytes());
            bytes.extend((value.len() as u16).to_be_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        };
        attributes.iter().for_each(|(kind, value)| append(*kind, value));
        if !self.nonce.is_empty() {
            append(0x0006, self.name.as_bytes());
            append(0x0014, REALM.as_bytes());
            append(0x0015, &self.nonce);
        }
        let mut head = method.to_be_bytes().to_vec();
        head.extend((bytes.len() as u16).to_be_bytes());
        head.extend(0x2112_a442_u32.to_be_bytes());
        head.extend([0; 8]);
        head.extend(self.transaction.to_be_bytes());
        message.push_data(&head);
        message.push_data(&bytes);
        if !self.nonce.is_empty() {
            message.add_message_integrity_with_key(&self.key, IntegrityAlgorithm::Sha1).expect("fits");
        }
        message.finish()
    }

    /// Sends a request and gives the answer; media that comes before it is left out.
    fn ask(&mut self, method: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let request = self.request(method, attributes);
        self.send(&request);
        loop {
            let message = self.receive();
            if message[0] < 4 && message[8..20] == request[8..20] {
                return message;
            }
        }
    }

    fn allocate(&mut self) -> SocketAddr {
        let transport: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
        let challenge = self.ask(0x0003, &[transport]);
        assert_eq!(error_code(&challenge), Some(401));
        self.nonce = attribute(&challenge, 0x0015).expect("NONCE").to_vec();
        let answer = self.ask(0x0003, &[transport]);
        assert_eq!(answer[..2], [0x01, 0x03], "{:?}", error_code(&answer));
        xor_address(attribute(&answer, 0x0016).expect("XOR-RELAYED-ADDRESS"))
    }

    fn bind(&mut self, channel: u16, peer: SocketAddr) {
        let number = [&channel.to_be_bytes()[..], &[0, 0]].concat();
        let answer = self.ask(0x0009, &[(0x000c, &number), (0x0012, &xored(peer))]);
        assert_eq!(answer[..2], [0x01, 0x09], "{:?}", error_code(&answer));
    }

    fn send_channel(&mut self, channel: u16, payload: &[u8]) {
        let mut message = [channel.to_be_bytes(), (payload.len() as u16).to_be_bytes()].concat();
        message.extend_from_slice(payload);
        if !matches!(self.link, Link::Udp(_)) {
            message.resize(message.len().next_multiple_of(4), 0);
        }
        self.send(&message);
    }

    /// Waits for the server to close.
    fn reads_the_end(&mut self) -> bool {
        loop {
            match self.read() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return matches!(error.kind(), io::ErrorKind::ConnectionReset),
            }
        }
    }
}

fn attribute(message: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(20..)?;
    while let [high, low, length_high, length_low, ..] = *rest {
        let len = usize::from(u16::from_be_bytes([length_high, length_low]));
        let value = rest.get(4..4 + len)?;
        if u16::from_be_bytes([high, low]) == kind {
            return Some(value);
        }
        rest = rest.get(4 + len.next_multiple_of(4)..)?;
    }
    None
}

fn error_code(message: &[u8]) -> Option<u16> {
    attribute(message, 0x0009).map(|value| u16::from(value[2]) * 100 + u16::from(value[3]))
}

fn xored(address: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(address) = address else { panic!("these tests speak IPv4") };
    let mut value = vec![0, 1];
    value.extend((address.port() ^ 0x2112).to_be_bytes());
    value.extend((u32::from(*address.ip()) ^ 0x2112_a442).to_be_bytes());
    value
}

fn xor_address(value: &[u8]) -> SocketAddr {
    let port = u16::from_be_bytes([value[2], value[3]]) ^ 0x2112;
    let ip = u32::from_be_bytes([value[4], value[5], value[6], value[7]]) ^ 0x2112_a442;
    (Ipv4Addr::from(ip), port).into()
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let address = socket.local_addr().expect("local");
    (socket, address)
}

fn receive_at(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    let (len, from) = peer.recv_from(&mut buffer).expect("a datagram");
    buffer.truncate(len);
    (buffer, from)
}

/// Relays both ways on a channel and by indications, in all sizes that matter.
fn relays_both_ways(client: &mut Client) {
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
    assert_eq!(attribute(&data, 0x0013), Some(&b"and back"[..]));
    assert_eq!(attribute(&data, 0x0012).map(xor_address), Some(other_address));
}

#[test]
fn every_transport_relays_both_ways() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        relays_both_ways(&mut client);
        assert_eq!(client.ask(0x0004, &[(0x000d, &[0; 4])])[..2], [0x01, 0x04]);
        relay.until("the allocation is gone", |relay| relay.handle.allocations() == 0);
    }
    relay.stop();
}

#[test]
fn a_dual_stack_wildcard_answers_from_the_address_that_was_reached() {
    let relay = Relay::start(0);
    // A connected socket hears no other address.
    relays_both_ways(&mut Client::udp(relay.addresses[3]));
    relay.stop();
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        let relayed = client.allocate();
        client.bind(0x4abc, address);
        for number in 0..100_u32 {
            client.send_channel(0x4abc, &number.to_be_bytes());
        }
        for number in 0..100_u32 {
            assert_eq!(receive_at(&peer).0, number.to_be_bytes());
        }
        for number in 0..100_u32 {
            peer.send_to(&number.to_be_bytes(), relayed).expect("send");
        }
        for number in 0..100_u32 {
            assert_eq!(client.receive()[4..], number.to_be_bytes());
        }
    }
    relay.stop();
}

/// Sends all payloads as one datagram that the kernel cuts, each behind `head`.
fn send_train(socket: &UdpSocket, to: SocketAddr, head: &[u8], payloads: &[Vec<u8>]) {
    let mut train = payloads.iter().map(|payload| Datagram { head, payload, to, source: None });
    let mut refused = |error: io::Error| panic!("{error}");
    let sent = SendBatch::new(true).send(socket.as_fd(), false, &mut train, &mut refused);
    assert_eq!(sent, payloads.len());
}

#[test]
fn trains_of_datagrams_are_relayed_one_by_one() {
    let relay = Relay::start(0);
    // Numbered, of one size, as a burst of video is; together less than a socket's buffer takes.
    let payloads: Vec<Vec<u8>> = (0..21).map(|number| vec![number; 101]).collect();
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        let relayed = client.allocate();
        client.bind(0x4001, address);
        send_train(&peer, relayed, &[], &payloads);
        for payload in &payloads {
            let message = client.receive();
            assert_eq!(message[..4], [0x40, 0x01, 0, 101]);
            assert_eq!(message[4..], payload[..]);
        }
        if let Link::Udp(socket) = &client.link {
            send_train(socket, relay.addresses[0], &[0x40, 0x01, 0, 101], &payloads);
            for payload in &payloads {
                assert_eq!(receive_at(&peer), (payload.clone(), relayed));
            }
        }
        // Without a channel, each gets a header of its own.
        let (other, other_address) = self::peer();
        let answer = client.ask(0x0008, &[(0x0012, &xored(other_address))]);
        assert_eq!(answer[..2], [0x01, 0x08], "{:?}", error_code(&answer));
        send_train(&other, relayed, &[], &payloads);
        for payload in &payloads {
            let data = client.receive();
            assert_eq!(data[..2], [0x00, 0x17]);
            assert_eq!(attribute(&data, 0x0013), Some(&payload[..]));
            assert_eq!(attribute(&data, 0x0012).map(xor_address), Some(other_address));
        }
    }
    relay.stop();
}

#[test]
fn an_allocation_belongs_to_one_worker() {
    const EACH: u64 = 30;
    let relay = Relay::start(0);
    // What each worker did: allocations made, packets from clients and from peers, datagrams that its sockets had.
    let done = |relay: &Relay| -> Vec<[u64; 4]> {
        let sockets = relay.handle.counters();
        let of = |(protocol, sockets): (&Arc<Counters>, &Arc<net::counters::Counters>)| {
            let sum = |of: fn(&HostRung) -> u64| {
                Transport::ALL.iter().map(|&rung| of(protocol.host(HostId(0), rung))).sum()
            };
            let made = sum(|rung| rung.allocated.get());
            let (from_client, from_peer) =
                (sum(|rung| rung.from_client.packets.get()), sum(|rung| rung.from_peer.packets.get()));
            [made, from_client, from_peer, sockets.datagrams.get()]
        };
        relay.counters.iter().zip(&sockets).map(of).collect()
    };
    let mut owners = [0_u32; 2];
    // The kernel spreads clients by a hash of their addresses: one worker may have the first several.
    for attempt in 0.. {
        assert!(attempt < 200, "all clients come to one worker");
        let mut client = relay.connect(Transport::ALL[attempt % Transport::ALL.len()]);
        let (peer, address) = peer();
        let before = done(&relay);
        let relayed = client.allocate();
        client.bind(0x4001, address);
        let made = done(&relay);
        let owner = (0..2).find(|&n| made[n][0] > before[n][0]).expect("one of them made it");
        for number in 0..EACH as u8 {
            client.send_channel(0x4001, &[number; 8]);
            assert_eq!(receive_at(&peer), (vec![number; 8], relayed));
            peer.send_to(&[number; 8], relayed).expect("send");
            assert_eq!(client.receive()[4..], [number; 8]);
        }
        let after = done(&relay);
        assert_eq!(after[1 - owner], before[1 - owner], "the other worker saw nothing of it");
        let [_, from_client, from_peer, _] = made[owner];
        assert_eq!(after[owner][1..3], [from_client + EACH, from_peer + EACH]);
        owners[owner] += 1;
        if owners.iter().all(|&count| count >= 3) {
            break;
        }
    }
    relay.stop();
}

#[test]
fn messages_cut_anywhere_are_put_together() {
    let relay = Relay::start(0);
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        client.allocate();
        client.bind(0x4000, address);
        let mut stream = Vec::new();
        for len in [5_u8, 0, 7, 255] {
            stream.extend([0x40, 0, 0, len]);
            stream.extend(vec![len; usize::from(len)]);
            stream.resize(stream.len().next_multiple_of(4), 0);
        }
        for piece in stream.chunks(3) {
            client.send(piece);
        }
        for len in [5_u8, 0, 7, 255] {
            assert_eq!(receive_at(&peer).0, vec![len; usize::from(len)]);
        }
    }
    relay.stop();
}

#[test]
fn an_allocation_goes_with_its_stream() {
    let relay = Relay::start(0);
    for transport in [Transport::Tcp, Transport::Tls] {
        for reset in [false, true] {
            let mut client = relay.connect(transport);
            let relayed = client.allocate();
            relay.until("the allocation is there", |relay| relay.handle.allocations() == 1);
            let socket = client.stream();
            let closed_before = relay.closed(transport, CloseReason::Closed);
            if reset {
                socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("linger");
                drop(client);
                relay.until("reset", |relay| relay.closed(transport, CloseReason::Reset) == 1);
            } else {
                // Half of it is enough.
                socket.shutdown(std::net::Shutdown::Write).expect("half close");
                assert!(client.reads_the_end());
                let closed = |relay: &Relay| relay.closed(transport, CloseReason::Closed) > closed_before;
                relay.until("closed", closed);
            }
            relay.until("the allocation is gone", |relay| relay.handle.allocations() == 0);
            relay.until("the port is free", |_| UdpSocket::bind(relayed).is_ok());
        }
    }
    relay.stop();
}

/// Sockets tell of news once: whatever one look leaves over must be taken without another word.
#[test]
fn more_than_a_turn_takes_is_taken_to_the_end() {
    let relay = Relay::start(0);
    for transport in Transport::ALL {
        let mut client = relay.connect(transport);
        let (peer, address) = peer();
        client.allocate();
        client.bind(0x4000, address);
        // Three reads of a stream, and several looks at a listener that starts with sixteen datagrams.
        let payloads: Vec<Vec<u8>> = (0..120).map(|n| vec![n; 800]).collect();
        match &client.link {
            Link::Udp(socket) => {
                let (head, to) = ([0x40, 0, 3, 32], socket.peer_addr().expect("server"));
                let mut all =
                    payloads.iter().map(|payload| Datagram { head: &head, payload, to, source: None });
                let sent =
                    SendBatch::new(false).send(socket.as_fd(), false, &mut all, &mut |e| panic!("{e}"));
                assert_eq!(sent, payloads.len());
            }
            _ => {
                let messages: Vec<u8> =
                    payloads.iter().flat_map(|payload| [&[0x40, 0, 3, 32], &payload[..]].concat()).collect();
                client.send(&messages);
                // The end stands right behind them.
                client.stream().shutdown(std::net::Shutdown::Write).expect("half close");
            }
        }
        for payload in &payloads {
            assert_eq!(receive_at(&peer).0, *payload);
        }
        if transport.is_stream() {
            assert!(client.reads_the_end());
            relay.until("the allocation is gone", |relay| relay.handle.allocations() <= 1);
        }
    }
    relay.stop();
}

#[test]
fn what_is_not_turn_is_closed_at_once() {
    let relay = Relay::start(0);
    for (transport, garbage) in [
        (Transport::Tcp, b"GET / HTTP/1.1\r\n\r\n".as_slice()),
        (Transport::Tcp, b"\x16\x03\x01\x00\xff\x01"),
        (Transport::Tcp, b"\x00\x01\x00\x00not the cookie"),
        (Transport::Tls, b"GET / HTTP/1.1\r\n\r\n"),
        (Transport::Tls, b"\xff\xff\xff\xff\xff"),
    ] {
        let mut client = Client::new(Link::Tcp(tcp(relay.addresses[transport.index()])));
        client.send(garbage);
        assert!(client.reads_the_end());
    }
    relay.until("counted", |relay| {
        relay.closed(Transport::Tcp, CloseReason::Garbage) == 3
            && relay.closed(Transport::Tls, CloseReason::TlsFailed) == 2
    });
    relay.stop();
}

#[test]
fn streams_beyond_the_limit_are_refused_and_a_free_place_is_given_again() {
    let relay = Relay::start(2);
    let mut first = relay.connect(Transport::Tcp);
    let mut second = relay.connect(Transport::Tls);
    first.allocate();
    second.allocate();
    let mut third = relay.connect(Transport::Tcp);
    assert!(third.reads_the_end());
    drop(first);
    relay.until("closed", |relay| relay.closed(Transport::Tcp, CloseReason::Closed) == 1);
    relay.connect(Transport::Tcp).allocate();
    relay.stop();
}

#[test]
fn a_client_that_does_not_read_is_bounded_and_others_are_served() {
    let relay = Relay::start(0);
    let mut slow = relay.connect(Transport::Tls);
    let (peer, address) = peer();
    let relayed = slow.allocate();
    slow.bind(0x4000, address);
    let mut other = relay.connect(Transport::Udp);
    let other_relayed = other.allocate();
    other.bind(0x4000, address);
    let mut sent = 0_u32;
    while relay.dropped(Drop::QueueFull) < 500 {
        for _ in 0..20 {
            let mut payload = vec![0; 1100];
            payload[..4].copy_from_slice(&sent.to_be_bytes());
            peer.send_to(&payload, relayed).expect("send");
            sent += 1;
        }
        peer.send_to(b"bystander", other_relayed).expect("send");
        assert_eq!(other.receive()[4..], *b"bystander");
        assert!(sent < 1_000_000, "nothing is ever dropped");
    }
    // It reads again: whole messages in order, and an answer.
    let mut last = None;
    let request = slow.request(0x0001, &[]);
    slow.send(&request);
    loop {
        let message = slow.receive();
        if message[0] < 4 {
            assert_eq!((message[..2].to_vec(), &message[8..20]), (vec![0x01, 0x01], &request[8..20]));
            break;
        }
        assert_eq!(message.len(), 1104);
        let number = u32::from_be_bytes(*message[4..].first_chunk().expect("number"));
        assert!(last.is_none_or(|last| last < number), "order is kept");
        last = Some(number);
    }
    assert!(last.is_some());
    relay.stop();
}

#[test]
fn an_unreachable_peer_is_reported_and_does_not_stop_the_relay() {
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    let (closed, closed_address) = self::peer();
    drop(closed);
    let relayed = client.allocate();
    client.bind(0x4000, address);
    client.bind(0x4001, closed_address);
    for _ in 0..5 {
        client.send_channel(0x4001, b"anybody?");
        client.send_channel(0x4000, b"hello");
        assert_eq!(receive_at(&peer), (b"hello".to_vec(), relayed));
    }
    relay.until("counted", |relay| relay.handle.counters().iter().any(|c| c.icmp.get() > 0));
    let icmp = client.receive();
    assert_eq!(icmp[..2], [0x00, 0x17]);
    assert_eq!(attribute(&icmp, 0x0012).map(xor_address), Some(closed_address));
    relay.stop();
}

#[test]
fn unfinished_handshakes_and_idle_streams_end_and_allocations_stay() {
    let relay = Relay::start_with(0, clock_ahead);
    let mut shy = Client::new(Link::Tcp(tcp(relay.addresses[Transport::Tls.index()])));
    let mut idle = relay.connect(Transport::Tcp);
    let mut working = relay.connect(Transport::Tls);
    working.allocate();
    let open = |relay: &Relay, transport| -> u64 {
        relay.handle.counters().iter().map(|c| c.streams(transport).open.get()).sum()
    };
    relay.until("accepted", |relay| open(relay, Transport::Tcp) + open(relay, Transport::Tls) == 3);
    // A command makes the workers look at the clock.
    AHEAD.store(11, Relaxed);
    relay.handle.send(&Command::Drain(false));
    assert!(shy.reads_the_end());
    relay.until("counted", |relay| relay.closed(Transport::Tls, CloseReason::HandshakeTimeout) == 1);
    assert_eq!(open(&relay, Transport::Tcp), 1);
    AHEAD.store(100, Relaxed);
    relay.handle.send(&Command::Drain(false));
    assert!(idle.reads_the_end());
    relay.until("counted", |relay| relay.closed(Transport::Tcp, CloseReason::Idle) == 1);
    let (_peer, address) = peer();
    working.bind(0x4000, address);
    relay.stop();
}

/// Runs in a process of its own, which has few descriptors.
#[test]
fn without_descriptors_listeners_rest_and_packets_go_on() {
    const NAME: &str = "without_descriptors_listeners_rest_and_packets_go_on";
    if std::env::var_os(NAME).is_none() {
        let me = std::env::current_exe().expect("own path");
        let few = "ulimit -n 64; exec \"$0\" --exact \"$1\"";
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", few]).arg(me).arg(NAME).env(NAME, "1").output().expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    let relayed = client.allocate();
    client.bind(0x4000, address);
    let sum = |relay: &Relay, counter: fn(&net::counters::Counters) -> u64| -> u64 {
        relay.handle.counters().iter().map(|counters| counter(counters)).sum()
    };
    let mut crowd = Vec::new();
    while let Ok(stream) = TcpStream::connect(relay.addresses[1]) {
        crowd.push(stream);
    }
    relay.until("a pause", |relay| sum(relay, |c| c.accept_paused.get()) > 0);
    let wakeups = sum(&relay, |c| c.wakeups.get());
    let pauses = sum(&relay, |c| c.accept_paused.get());
    for _ in 0..50 {
        client.send_channel(0x4000, b"on");
        assert_eq!(receive_at(&peer), (b"on".to_vec(), relayed));
        peer.send_to(b"and on", relayed).expect("send");
        assert_eq!(client.receive()[4..], *b"and on");
    }
    relay.until("more pauses", |relay| sum(relay, |c| c.accept_paused.get()) >= pauses + 4);
    assert!(sum(&relay, |c| c.wakeups.get()) - wakeups < 300, "the workers spin");
    drop(crowd);
    relay.connect(Transport::Tcp).allocate();
    relay.stop();
}

#[test]
fn draining_refuses_new_allocations_and_keeps_the_running_ones() {
    let relay = Relay::start(0);
    let mut client = relay.connect(Transport::Udp);
    let (peer, address) = peer();
    let relayed = client.allocate();
    client.bind(0x4000, address);
    relay.handle.send(&Command::Drain(true));
    let mut late = relay.connect(Transport::Tcp);
    let transport: (u16, &[u8]) = (0x0019, &[17, 0, 0, 0]);
    let challenge = late.ask(0x0003, &[transport]);
    late.nonce = attribute(&challenge, 0x0015).expect("NONCE").to_vec();
    assert_eq!(error_code(&late.ask(0x0003, &[transport])), Some(508));
    client.send_channel(0x4000, b"still here");
    assert_eq!(receive_at(&peer), (b"still here".to_vec(), relayed));
    relay.stop();
    assert!(UdpSocket::bind(relayed).is_ok(), "stopping closes everything");
}
