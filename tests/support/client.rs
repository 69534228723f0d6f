//! A TURN client with handwritten messages over any transport, cheap enough for thousands of them.

use super::codec;
use super::credentials::Credentials;
use super::plan::Transport;
use super::stun::{
    ALLOCATE, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, DATA, DATA_INDICATION, LIFETIME, Message,
    NONCE, REFRESH, REQUESTED_TRANSPORT, SEND_INDICATION, Session, UDP, XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS, allocate_request, message, xor_value_in,
};
use super::tls::{self, TlsStream};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(10);
/// Datagrams that [`Client::echo`] sends before it waits for their echoes.
const BURST: u32 = 20;

/// A link to the server.
pub enum Link {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<TlsStream>),
}

impl Link {
    pub fn open(transport: Transport, server: SocketAddr) -> Link {
        let ip: IpAddr = if server.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
        match transport {
            Transport::Udp => Link::Udp(udp_from(ip, server)),
            Transport::Tcp => Link::Tcp(tcp_from(ip, server)),
            Transport::Tls => Link::Tls(Box::new(tls::connect(server))),
        }
    }

    pub fn wait_at_most(&self, limit: Duration) {
        let limit = Some(limit.max(Duration::from_micros(1)));
        match self {
            Link::Udp(socket) => socket.set_read_timeout(limit),
            Link::Tcp(stream) => stream.set_read_timeout(limit),
            Link::Tls(stream) => stream.sock.set_read_timeout(limit),
        }
        .unwrap();
    }

    /// Closes a connection with a reset.
    pub fn reset(self) {
        let socket = match &self {
            Link::Udp(_) => return,
            Link::Tcp(stream) => SockRef::from(stream),
            Link::Tls(stream) => SockRef::from(&stream.sock),
        };
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Ends the sending direction of a connection.
    pub fn end_sending(&self) {
        // An error means that it is closed already, which is equivalent.
        let _ = match self {
            Link::Udp(_) => Ok(()),
            Link::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Link::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        };
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Link::Udp(socket) => socket.send(bytes).map(|_| ()),
            Link::Tcp(stream) => stream.write_all(bytes),
            Link::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Link::Udp(socket) => socket.recv(buffer),
            Link::Tcp(stream) => stream.read(buffer),
            Link::Tls(stream) => stream.read(buffer),
        }
    }
}

/// Returns a UDP socket on `ip`, connected to `server`.
pub fn udp_from(ip: IpAddr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((ip, 0)).unwrap_or_else(|error| panic!("{ip}: {error}"));
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    socket
}

/// A connection from `ip` to `server`.
pub fn tcp_from(ip: IpAddr, server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&server.into()).unwrap_or_else(|error| panic!("{server}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Returns the length of the message at the start of a stream, with padding; `None` while it is unknown.
pub fn framed(bytes: &[u8]) -> Option<usize> {
    codec::framed(bytes).map(|(_, padded)| padded)
}

/// Builds ChannelData, padded for streams.
pub fn channel_data(number: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = codec::channel_data(number, payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A client with a nonce.
pub struct Client {
    pub link: Link,
    pub session: Session,
    unread: Vec<u8>,
    last_id: u64,
}

impl Client {
    /// Takes the nonce from the 401 to an Allocate without credentials.
    pub fn join(link: Link, session: &Session) -> Client {
        Client::try_join(link, session)
            .unwrap_or_else(|error| panic!("no answer to an Allocate without credentials: {error}"))
    }

    pub fn try_join(link: Link, session: &Session) -> io::Result<Client> {
        let mut client = Client { link, session: session.renewed(b""), unread: Vec::new(), last_id: 1 };
        client.link.send(&allocate_request(1))?;
        let refused = Message::parse(&client.receive()?);
        assert_eq!(refused.error_code(), Some(401), "{refused:?}");
        client.session = session.renewed(refused.attribute(NONCE).expect("a nonce"));
        Ok(client)
    }

    /// Returns a client of a user without other clients.
    pub fn log_in(link: Link, credentials: Credentials) -> Client {
        Client::join(link, &Session::new(credentials, b""))
    }

    /// Receives one whole message: STUN or ChannelData.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 16 << 10];
        if matches!(self.link, Link::Udp(_)) {
            let len = self.link.read(&mut buffer)?;
            return Ok(buffer[..len].to_vec());
        }
        loop {
            if let Some(len) = framed(&self.unread).filter(|&len| len <= self.unread.len()) {
                let rest = self.unread.split_off(len);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            match self.link.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => self.unread.extend_from_slice(&buffer[..len]),
            }
        }
    }

    /// Returns the id of the next request.
    pub fn next_id(&self) -> u64 {
        self.last_id + 1
    }

    /// Builds a signed request; returns it with its id.
    pub fn request(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> (u64, Vec<u8>) {
        self.last_id += 1;
        (self.last_id, self.session.signed(kind, self.last_id, attributes))
    }

    /// Sends a request and returns the answer; skips data of peers before it.
    pub fn try_ask(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> io::Result<Message> {
        let (id, request) = self.request(kind, attributes);
        self.link.send(&request)?;
        loop {
            let bytes = self.receive()?;
            if bytes[0] < 4 {
                let answer = Message::parse(&bytes);
                if answer.id == id && answer.kind & 0x0100 != 0 {
                    return Ok(answer);
                }
            }
        }
    }

    pub fn ask(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> Message {
        self.try_ask(kind, attributes).unwrap_or_else(|error| panic!("no answer to {kind:#06x}: {error}"))
    }

    /// Sends a request and returns the error code, 0 for success.
    pub fn code(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> u16 {
        self.ask(kind, attributes).error_code().unwrap_or(0)
    }

    /// Allocates; returns the relayed address, or the error code.
    pub fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let answer = self.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &UDP)]);
        match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(answer.xor_address(XOR_RELAYED_ADDRESS).expect("a relayed address")),
        }
    }

    /// Refreshes the allocation; 0 seconds end it.
    pub fn refresh(&mut self, seconds: u32) -> u16 {
        self.code(REFRESH, &[(LIFETIME, &seconds.to_be_bytes())])
    }

    pub fn permit(&mut self, peer: SocketAddr) -> u16 {
        let peer = xor_value_in(peer, self.next_id());
        self.code(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &peer)])
    }

    pub fn bind(&mut self, number: u16, peer: SocketAddr) -> u16 {
        let (number, peer) = self.channel(number, peer);
        self.code(CHANNEL_BIND, &[(CHANNEL_NUMBER, &number), (XOR_PEER_ADDRESS, &peer)])
    }

    /// Returns a signed ChannelBind.
    pub fn bind_request(&mut self, number: u16, peer: SocketAddr) -> Vec<u8> {
        let (number, peer) = self.channel(number, peer);
        self.request(CHANNEL_BIND, &[(CHANNEL_NUMBER, &number), (XOR_PEER_ADDRESS, &peer)]).1
    }

    /// Returns the values of CHANNEL-NUMBER and XOR-PEER-ADDRESS for the next request.
    fn channel(&self, number: u16, peer: SocketAddr) -> ([u8; 4], Vec<u8>) {
        let [high, low] = number.to_be_bytes();
        ([high, low, 0, 0], xor_value_in(peer, self.next_id()))
    }

    pub fn send_to(&mut self, peer: SocketAddr, payload: &[u8]) {
        let attributes = [(XOR_PEER_ADDRESS, &xor_value_in(peer, 0)[..]), (DATA, payload)];
        self.link.send(&message(SEND_INDICATION, 0, &attributes)).unwrap();
    }

    pub fn send_on(&mut self, number: u16, payload: &[u8]) {
        self.link.send(&channel_data(number, payload)).unwrap();
    }

    /// Sends `count` numbered datagrams to an echoing peer in bursts and fails unless all come back in order.
    pub fn echo(&mut self, peer: SocketAddr, count: u32) {
        for start in (0..count).step_by(BURST as usize) {
            let numbers = start..count.min(start + BURST);
            numbers.clone().for_each(|number| self.send_to(peer, &numbered(number)));
            for number in numbers {
                let data = Message::parse(&self.receive().expect("data from the peer"));
                assert_eq!(data.kind, DATA_INDICATION, "{data:?}");
                assert_eq!(data.attribute(DATA), Some(&numbered(number)[..]), "number {number}");
            }
        }
    }
}

/// Returns bytes of varying length, not always a multiple of four.
fn numbered(number: u32) -> Vec<u8> {
    let length = 4 + (number % 400) as usize;
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}
