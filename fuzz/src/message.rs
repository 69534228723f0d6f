//! STUN messages: the strict parser, the attributes, and answers parsed again.

use hallpass::wire::attribute::{is_understood, kind};
use hallpass::wire::message::{
    ATTRIBUTE_HEADER_LEN, HEADER_LEN, IntegrityAlgorithm, IntegrityKey, Message, MessageClass, method,
};
use hallpass::wire::request::{Credentials, Request, UNKNOWN_MAX, unknown_required};
use hallpass::wire::response::{Reason, Response};
use hallpass::wire::{WireError, demux, indication};
use stun_types::message::LongTermKeyCredentials;

use super::bytes::{address, take};

/// Uses the input as a message, and as the contents of an answer.
pub fn message(data: &[u8]) {
    match Message::parse(data) {
        Ok(message) => {
            view(data, &message);
            neighbours(data, &message);
            requests(&message);
            rewritten(&message);
        }
        // Bytes with valid framing are a message unless their content is invalid.
        Err(error) => assert!(!is_framed(data) || is_about_content(error), "{error:?}"),
    }
    answer(data);
}

/// RFC 8489 section 5, implemented independently.
fn is_framed(data: &[u8]) -> bool {
    data.len() >= HEADER_LEN
        && data[0] & 0xc0 == 0
        && data[4..8] == [0x21, 0x12, 0xa4, 0x42]
        && usize::from(u16::from_be_bytes([data[2], data[3]])) + HEADER_LEN == data.len()
        && data.len().is_multiple_of(4)
}

fn is_about_content(error: WireError) -> bool {
    matches!(
        error,
        WireError::AttributeOverrun
            | WireError::TooManyAttributes
            | WireError::FingerprintNotLast
            | WireError::FingerprintMismatch
    )
}

fn view(data: &[u8], message: &Message<'_>) {
    assert!(is_framed(data));
    // On a port with other protocols, STUN has the first bytes 0 to 3 (RFC 7983), which suffice for TURN.
    assert_eq!(demux::classify(data[0]) == demux::Kind::Stun, data[0] < 4);
    assert_eq!(message.bytes(), data);
    assert_eq!(message.transaction_id(), data[8..20]);
    let mut end = HEADER_LEN;
    for attribute in message.attributes() {
        assert_eq!(attribute.offset, end, "attributes without gaps");
        let range = attribute.value_range();
        assert_eq!(&data[range.clone()], attribute.value);
        assert_eq!(u16::from_be_bytes([data[end], data[end + 1]]), attribute.kind);
        let first = message.attribute(attribute.kind).expect("there is one");
        assert!(first.offset <= attribute.offset, "the first of its type");
        let protects = [kind::MESSAGE_INTEGRITY, kind::MESSAGE_INTEGRITY_SHA256, kind::FINGERPRINT]
            .contains(&first.kind);
        assert!(!protects, "only attributes before the integrity");
        end = range.end.next_multiple_of(4);
    }
    if message.has_fingerprint() {
        assert_eq!(data[data.len() - 8..data.len() - 4], [0x80, 0x28, 0, 4], "the last one");
    }
    let integrity = message.integrity();
    assert_eq!(integrity.is_some(), message.has_sha1() || message.has_sha256());
    for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
        assert!(!message.verify(&key("somebody else"), algorithm), "the wrong key");
    }
}

/// With a changed length or transaction, the same FINGERPRINT is invalid.
fn neighbours(data: &[u8], message: &Message<'_>) {
    assert_eq!(Message::parse(&data[..data.len() - 4]).err(), Some(shorter(data.len() - 4)));
    let mut other = data.to_vec();
    other.extend([0; 4]);
    assert_eq!(Message::parse(&other).err(), Some(WireError::Length));
    other.truncate(data.len());
    other[8 + usize::from(data[19] % 12)] ^= 1 << (data[18] % 8);
    let parsed = Message::parse(&other);
    if message.has_fingerprint() {
        assert_eq!(parsed.err(), Some(WireError::FingerprintMismatch));
    } else {
        assert!(parsed.is_ok(), "any transaction id is valid");
    }
}

fn shorter(len: usize) -> WireError {
    if len < HEADER_LEN { WireError::Short } else { WireError::Length }
}

fn requests(message: &Message<'_>) {
    let unknown = unknown_required(message);
    let kinds = unknown.kinds();
    assert!(kinds.len() <= UNKNOWN_MAX && unknown.is_empty() == kinds.is_empty());
    for (index, kind) in kinds.iter().enumerate() {
        assert!(!is_understood(*kind) && message.attribute(*kind).is_some());
        assert!(!kinds[..index].contains(kind), "named once");
    }
    let all = message.attributes().all(|attribute| is_understood(attribute.kind));
    assert_eq!(all, unknown.is_empty());
    if let Ok(credentials) = Credentials::parse(message) {
        let value = |kind| message.attribute(kind).map(|attribute| attribute.value);
        assert_eq!(credentials.username.map(str::as_bytes), value(kind::USERNAME));
        assert_eq!(credentials.realm.map(str::as_bytes), value(kind::REALM));
        assert_eq!(credentials.nonce, value(kind::NONCE));
        assert_eq!(credentials.userhash.as_ref().map(|hash| &hash[..]), value(kind::USERHASH));
        assert!(credentials.username.is_none_or(|name| name.len() <= 763));
    }
    let number = |kind| {
        let value = message.attribute(kind).map(|attribute| attribute.value);
        value.map(|value| u32::from_be_bytes(value.try_into().expect("four bytes")))
    };
    match Request::parse(message) {
        Ok(Request::Allocate(allocate)) => {
            assert_eq!(allocate.lifetime, number(kind::LIFETIME));
            assert_eq!(allocate.transport.map(u32::from), number(kind::REQUESTED_TRANSPORT).map(|n| n >> 24));
            assert_eq!(allocate.dont_fragment, message.attribute(kind::DONT_FRAGMENT).is_some());
            assert_eq!(allocate.even_port.is_some(), message.attribute(kind::EVEN_PORT).is_some());
        }
        Ok(Request::Refresh(refresh)) => assert_eq!(refresh.lifetime, number(kind::LIFETIME)),
        Ok(Request::CreatePermission(permission)) => {
            let there = message.attributes().filter(|a| a.kind == kind::XOR_PEER_ADDRESS).count();
            assert_eq!(permission.peers().count(), there, "every address or none");
        }
        Ok(Request::ChannelBind(bind)) => {
            assert_eq!(bind.number.map(u32::from), number(kind::CHANNEL_NUMBER).map(|n| n >> 16));
            assert_eq!(bind.peer.is_some(), message.attribute(kind::XOR_PEER_ADDRESS).is_some());
        }
        Ok(Request::Binding) => assert_eq!(message.method(), method::BINDING),
        Ok(Request::Other(other)) => assert_eq!(other, message.method()),
        Err(bad) => assert!(message.attribute(bad.0).is_some(), "the bad attribute is present"),
    }
    if let Ok(send) = indication::parse_send(message) {
        assert!(indication::is_send(message));
        let value = message.attribute(kind::DATA).expect("there").value;
        assert_eq!(&message.bytes()[send.payload], value);
    }
}

/// Attributes rewritten into a new message read the same.
fn rewritten(message: &Message<'_>) {
    let mut bytes = message.bytes()[..HEADER_LEN].to_vec();
    for attribute in message.attributes() {
        bytes.extend(attribute.kind.to_be_bytes());
        bytes.extend((attribute.value.len() as u16).to_be_bytes());
        bytes.extend(attribute.value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = (bytes.len() - HEADER_LEN) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let again = Message::parse(&bytes).expect("what was read can be written");
    assert!(again.attributes().eq(message.attributes()));
    assert_eq!((again.method(), again.class()), (message.method(), message.class()));
    assert_eq!(again.integrity(), None);
    assert_eq!(Request::parse(&again).is_ok(), Request::parse(message).is_ok());
}

fn key(password: &str) -> IntegrityKey {
    LongTermKeyCredentials::new("user".into(), password.into(), "realm".into())
        .make_key(IntegrityAlgorithm::Sha1)
}

/// An answer from these bytes reads as it was written, and its integrity detects one flipped bit.
fn answer(mut data: &[u8]) {
    let data = &mut data;
    let [choices, code, realm, nonce] = take(data);
    let (asked, id) = (u16::from_be_bytes(take(data)) & 0xfff, take::<12>(data));
    let address = address(data);
    // Lossy text may be three times as long, and a REALM has at most 763 bytes.
    let (realm, rest) = data.split_at(data.len().min(usize::from(realm)).min(250));
    let (nonce, _) = rest.split_at(rest.len().min(usize::from(nonce)));
    let realm = String::from_utf8_lossy(realm);
    let code = 300 + u16::from(code);
    let mut response = if choices & 1 == 0 {
        Response::success(asked, id).xor_mapped_address(address).xor_relayed_address(address)
    } else {
        Response::error(asked, id, code, if choices & 2 == 0 { Reason::Empty } else { Reason::Phrase })
    };
    response = response.realm(&realm).nonce(nonce).lifetime(code.into());
    let key = key("right");
    let algorithm = if choices & 4 == 0 { IntegrityAlgorithm::Sha1 } else { IntegrityAlgorithm::Sha256 };
    let (is_signed, has_fingerprint) = (choices & 8 != 0, choices & 16 != 0);
    let bytes = response.finish(is_signed.then_some((&key, algorithm)), has_fingerprint);

    let message = Message::parse(&bytes).expect("an answer is a message");
    let class = if choices & 1 == 0 { MessageClass::Success } else { MessageClass::Error };
    assert_eq!((message.class(), message.method(), message.transaction_id()), (class, asked, id));
    assert_eq!(message.has_fingerprint(), has_fingerprint);
    let credentials = Credentials::parse(&message).expect("well-formed");
    assert_eq!((credentials.realm, credentials.nonce), (Some(&*realm), Some(nonce)));
    if choices & 1 == 1 {
        let value = message.attribute(kind::ERROR_CODE).expect("there").value;
        assert_eq!(u16::from(value[2]) * 100 + u16::from(value[3]), code);
    } else {
        let value = message.attribute(kind::XOR_MAPPED_ADDRESS).expect("there").value;
        assert_eq!(value.len(), if address.is_ipv4() { 8 } else { 20 });
    }
    assert_eq!(message.integrity(), is_signed.then_some(algorithm));
    assert_eq!(message.verify(&key, algorithm), is_signed);
    if is_signed && !has_fingerprint {
        let mut other = bytes.clone();
        let places = [8, HEADER_LEN + ATTRIBUTE_HEADER_LEN, other.len() - 1];
        other[places[usize::from(nonce.len() as u8 % 3)]] ^= 1 << (choices >> 5);
        let other = Message::parse(&other).expect("the frame is whole");
        assert!(!other.verify(&key, algorithm), "one bit was changed");
    }
}
