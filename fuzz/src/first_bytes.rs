//! Classification of a packet or a connection by its first bytes: STUN, ChannelData, QUIC, HTTP.

use std::sync::Arc;

use hallpass::net::front::first_bytes::{Site, Visit, Web, is_turn};
use hallpass::net::front::quic;
use hallpass::net::stream::tls::Protocol;
use hallpass::wire::demux::{Kind, classify};
use hallpass::wire::stream::{Framed, next};
use hallpass::wire::{client_hello, proxy_protocol};

struct Nothing;

impl Site for Nothing {
    fn visit(&self, _: Visit) -> bool {
        false
    }
}

/// Passes one start to every classifier.
pub fn first_bytes(data: &[u8]) {
    let Some(&first) = data.first() else { return };
    let (ours, theirs) = (classify(first), quic::classify(first));
    // RFC 9443 section 3: QUIC and STUN never overlap, and only ambiguous first bytes are left open.
    match theirs {
        quic::Kind::Turn => assert!(ours != Kind::ChannelData || !(64..=127).contains(&first)),
        quic::Kind::Either => assert_eq!(ours, Kind::ChannelData),
        quic::Kind::Short => assert_eq!((ours, first & 0xc0), (Kind::ChannelData, 0x40)),
        quic::Kind::Long => assert_eq!((ours, first & 0xc0), (Kind::Other, 0xc0)),
    }
    assert_eq!(is_turn(first), ours == Kind::Stun);
    assert_eq!(is_turn(first), first < 4);

    let garbage = next(data) == Framed::Garbage;
    let hello = client_hello::peek(data) != client_hello::Peek::NotTls;
    let proxy = proxy_protocol::peek(data) != proxy_protocol::Peek::NotProxy;
    // A stream is at most one of TURN, TLS and (unless it is the letter P, a channel's number) PROXY.
    assert!(!hello || garbage, "a record's first byte is 22");
    assert!(!(hello && proxy));
    assert!(!proxy || !is_turn(first));
    if ours == Kind::Other {
        assert!(garbage);
    }
    web(data);
}

/// HTTP/2 is recognised by its preface, from four bytes on and regardless of what follows.
fn web(data: &[u8]) {
    let [http1, h2] = ["127.0.0.1:81", "127.0.0.1:82"].map(|text| text.parse().expect("an address"));
    let web = Web { http1: Some(http1), h2: Some(h2), proxy_protocol: None, site: Arc::new(Nothing) };
    assert_eq!(web.back_end(Some(Protocol::H2), data), (Protocol::H2, Some(h2)));
    let decided = web.back_end(None, data);
    assert_eq!(decided, web.back_end(Some(Protocol::Http1), data));
    let preface = b"PRI * HTTP/2.0\r\n";
    let len = data.len().min(preface.len());
    let is_preface = len >= 4 && data[..len] == preface[..len];
    let expected = if is_preface { (Protocol::H2, Some(h2)) } else { (Protocol::Http1, Some(http1)) };
    assert_eq!(decided, expected);
}
