//! Datagrams that get no answer.

use crate::support::beside_others;
use crate::support::client::udp_from;
use crate::support::plan::{LOCAL_V4, Plan, Transport};
use crate::support::server::{Server, skip_on_coturn};
use crate::support::stun::{
    BINDING_INDICATION, BINDING_REQUEST, BINDING_SUCCESS, DATA, FINGERPRINT, Message, SEND_INDICATION,
    XOR_PEER_ADDRESS, binding_request, message, xor_value,
};
use std::net::SocketAddr;

/// Each is followed by a valid request on the same socket, whose answer must be the first.
#[test]
fn datagrams_that_are_no_request_get_no_answer() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let address = server.v4(Transport::Udp);
    let peer = xor_value(address);
    let mut wrong_length = binding_request(1);
    wrong_length[3] = 4;
    let unanswered = [
        ("an indication", message(BINDING_INDICATION, 1, &[])),
        ("a response", message(BINDING_SUCCESS, 1, &[])),
        ("an error response", message(0x0111, 1, &[(0x0009, &[0, 0, 4, 0])])),
        ("a wrong fingerprint", message(BINDING_REQUEST, 1, &[(FINGERPRINT, &[1, 2, 3, 4])])),
        ("Send without allocation", message(SEND_INDICATION, 1, &[(XOR_PEER_ADDRESS, &peer), (DATA, b"x")])),
        ("ChannelData without allocation", vec![0x40, 0, 0, 4, 1, 2, 3, 4]),
        ("a wrong length field", wrong_length),
        ("another protocol", vec![0xFF; 40]),
        ("one byte", vec![0]),
        ("an empty datagram", vec![]),
    ];
    for (number, (what, bytes)) in (100..).zip(unanswered) {
        is_silent(address, what, &bytes, number);
    }
}

/// RFC 3489 had no magic cookie; RFC 8489 no longer supports its requests.
#[test]
fn a_wrong_magic_cookie_gets_no_answer() {
    let _turn = beside_others();
    if skip_on_coturn("ignoring requests of RFC 3489") {
        return;
    }
    let server = Server::start(&Plan::loopback());
    let mut request = binding_request(1);
    request[4] ^= 0xFF;
    is_silent(server.v4(Transport::Udp), "another magic cookie", &request, 2);
}

fn is_silent(address: SocketAddr, what: &str, bytes: &[u8], number: u64) {
    let socket = udp_from(LOCAL_V4, address);
    socket.send(bytes).unwrap();
    socket.send(&binding_request(number)).unwrap();
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).unwrap_or_else(|error| panic!("after {what}: {error}"));
    let answer = Message::parse(&answer[..len]);
    assert_eq!((answer.kind, answer.id), (BINDING_SUCCESS, number), "{what} was answered: {answer:?}");
}
