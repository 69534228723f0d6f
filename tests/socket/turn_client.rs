//! A TURN client of hand-made messages over any of the transports.

use crate::support::credentials::Credentials;
use crate::support::stun::{
    ALLOCATE, CREATE_PERMISSION, DATA, DATA_INDICATION, LIFETIME, Message, NONCE, REFRESH,
    REQUESTED_TRANSPORT, SEND_INDICATION, Session, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, allocate_request,
    message, read_message, xor_value,
};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// A client that knows its nonce.
pub struct TurnClient<S> {
    stream: S,
    session: Session,
    last_id: u64,
}

impl<S: Read + Write> TurnClient<S> {
    /// Sends an Allocate without credentials and takes the nonce from the 401.
    pub fn new(mut stream: S, credentials: Credentials) -> TurnClient<S> {
        stream.write_all(&allocate_request(1)).unwrap();
        let refused = read_message(&mut stream).expect("an answer to the first Allocate");
        assert_eq!(refused.error_code(), Some(401), "{refused:?}");
        let session = Session::new(credentials, refused.attribute(NONCE).expect("a nonce"));
        TurnClient { stream, session, last_id: 1 }
    }

    /// The relayed address, or the error code.
    pub fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let answer = self.ask(ALLOCATE, &[(REQUESTED_TRANSPORT, &[17, 0, 0, 0])]);
        match answer.error_code() {
            Some(code) => Err(code),
            None => Ok(answer.xor_address(XOR_RELAYED_ADDRESS).expect("a relayed address")),
        }
    }

    /// Refreshes the allocation; 0 seconds end it.
    pub fn refresh(&mut self, seconds: u32) {
        let answer = self.ask(REFRESH, &[(LIFETIME, &seconds.to_be_bytes())]);
        assert_eq!(answer.error_code(), None, "Refresh to {seconds} s: {answer:?}");
    }

    pub fn permit(&mut self, peer: SocketAddr) {
        let answer = self.ask(CREATE_PERMISSION, &[(XOR_PEER_ADDRESS, &xor_value(peer))]);
        assert_eq!(answer.error_code(), None, "permission for {peer}: {answer:?}");
    }

    /// Sends `count` numbered datagrams to an echoing peer in bursts and fails unless all come back in order.
    pub fn echo(&mut self, peer: SocketAddr, count: u32) {
        const BURST: u32 = 20;
        let peer = xor_value(peer);
        for start in (0..count).step_by(BURST as usize) {
            let numbers = start..count.min(start + BURST);
            for number in numbers.clone() {
                let attributes = [(XOR_PEER_ADDRESS, peer.as_slice()), (DATA, &payload(number))];
                let indication = message(SEND_INDICATION, u64::from(number), &attributes);
                self.stream.write_all(&indication).unwrap();
            }
            self.stream.flush().unwrap();
            for number in numbers {
                let data = read_message(&mut self.stream).expect("data from the peer");
                assert_eq!(data.kind, DATA_INDICATION, "{data:?}");
                assert_eq!(data.attribute(DATA), Some(payload(number).as_slice()), "number {number}");
            }
        }
    }

    fn ask(&mut self, kind: u16, attributes: &[(u16, &[u8])]) -> Message {
        self.last_id += 1;
        let request = self.session.request(kind, self.last_id, attributes);
        self.stream.write_all(&request).unwrap();
        let answer = read_message(&mut self.stream).expect("an answer");
        assert_eq!(answer.id, self.last_id, "{answer:?}");
        answer
    }
}

/// Bytes of a length that changes, not always a multiple of four.
fn payload(number: u32) -> Vec<u8> {
    let length = 4 + (number % 400) as usize;
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// A UDP socket with the face of a stream: a read never crosses the end of a datagram.
pub struct Datagrams {
    socket: UdpSocket,
    unread: Vec<u8>,
}

pub fn udp(address: SocketAddr) -> Datagrams {
    let local: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    Datagrams { socket, unread: Vec::new() }
}

impl Read for Datagrams {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            self.unread.resize(65536, 0);
            let received = self.socket.recv(&mut self.unread);
            self.unread.truncate(*received.as_ref().unwrap_or(&0));
            received?;
        }
        let length = buffer.len().min(self.unread.len());
        buffer[..length].copy_from_slice(&self.unread[..length]);
        self.unread.drain(..length);
        Ok(length)
    }
}

impl Write for Datagrams {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.send(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
