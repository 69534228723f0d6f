//! One HTTP/1.1 GET.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Returns the status code and the body of `path` at `address`.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    get_as(address, &address.to_string(), path)
}

/// Does the same with this Host field.
pub fn get_as(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .unwrap_or_else(|error| panic!("no HTTP at {address}: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    get_over(stream, host, path, "")
}

/// Does the same over an open connection, with further header lines, each with its line break.
pub fn get_over(mut stream: impl Read + Write, host: &str, path: &str, lines: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("GET {path}: {error}"));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head:?}")), body.to_owned())
}
