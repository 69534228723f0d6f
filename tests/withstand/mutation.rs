//! Generates messages that are almost valid, from a seed.

use crate::support::client::channel_data;
use crate::support::stun::{
    ALLOCATE, BINDING_REQUEST, CHANNEL_BIND, CHANNEL_NUMBER, CREATE_PERMISSION, DATA, FINGERPRINT, LIFETIME,
    MESSAGE_INTEGRITY, NONCE, REALM_ATTRIBUTE, REFRESH, REQUESTED_FAMILY, REQUESTED_TRANSPORT,
    SEND_INDICATION, Session, USERNAME, XOR_PEER_ADDRESS, message, xor_value,
};

/// Pseudo-random numbers, reproducible by seed (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }
}

pub struct Mutation {
    pub bytes: Vec<u8>,
}

const METHODS: [u16; 6] =
    [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND, BINDING_REQUEST, SEND_INDICATION];
/// All attributes of STUN and TURN, and some unknown ones.
const KINDS: [u16; 30] = [
    0x0001, 0x0006, 0x0008, 0x0009, 0x000A, 0x000C, 0x000D, 0x0012, 0x0013, 0x0014, 0x0015, 0x0016, 0x0017,
    0x0018, 0x0019, 0x001A, 0x001B, 0x001C, 0x001D, 0x001E, 0x0020, 0x0022, 0x0024, 0x7FFF, 0x8000, 0x8002,
    0x8003, 0x8022, 0x8028, 0xFFFF,
];
const NUMBERS: [u32; 10] = [0, 1, 17, 600, 0xFF, 0x4000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_0000, u32::MAX];

type Attribute = (u16, Vec<u8>);

impl Mutation {
    /// Generates the next message. With a session, three of four are signed after the mutation, so that they pass
    /// authentication.
    pub fn new(random: &mut Random, session: Option<&Session>) -> Mutation {
        if random.below(12) == 0 {
            return Mutation { bytes: channel(random) };
        }
        let method = if random.below(16) == 0 { random.next() as u16 & 0x3FFF } else { random.one(&METHODS) };
        let mut attributes = usual(random, method);
        let signs = session.filter(|_| method != BINDING_REQUEST && random.below(4) > 0);
        if random.below(8) > 0 {
            for _ in 0..=random.below(3) {
                change(random, &mut attributes);
            }
        }
        let mut id = random.next();
        if id == u64::MAX {
            id = 0;
        }
        let mut bytes = match signs {
            Some(session) => sign(random, session, method, id, &attributes),
            None => {
                if random.below(2) == 0 {
                    attributes.extend(strangers_login(random));
                }
                message(method, id, &borrowed(&attributes))
            }
        };
        if random.below(5) == 0 {
            damage(random, &mut bytes);
        }
        Mutation { bytes }
    }
}

fn borrowed(attributes: &[Attribute]) -> Vec<(u16, &[u8])> {
    attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect()
}

fn peer(random: &mut Random) -> Vec<u8> {
    let last = random.below(4) as u8 + 1;
    xor_value(([127, 0, 0, last], 9).into())
}

/// Returns the usual attributes of a request of this method.
fn usual(random: &mut Random, method: u16) -> Vec<Attribute> {
    match method {
        ALLOCATE => vec![(REQUESTED_TRANSPORT, vec![17, 0, 0, 0])],
        REFRESH => vec![(LIFETIME, vec![0, 0, 2, 88])],
        CREATE_PERMISSION => (0..=random.below(3)).map(|_| (XOR_PEER_ADDRESS, peer(random))).collect(),
        CHANNEL_BIND => {
            let number = vec![0x40, random.below(8) as u8, 0, 0];
            vec![(CHANNEL_NUMBER, number), (XOR_PEER_ADDRESS, peer(random))]
        }
        SEND_INDICATION => vec![(XOR_PEER_ADDRESS, peer(random)), (DATA, random.bytes(200))],
        _ => Vec::new(),
    }
}

fn strangers_login(random: &mut Random) -> Vec<Attribute> {
    vec![
        (USERNAME, random.bytes(40)),
        (REALM_ATTRIBUTE, b"relay.test".to_vec()),
        (NONCE, random.bytes(60)),
        (MESSAGE_INTEGRITY, random.bytes(20)),
    ]
}

/// Applies a change that keeps the message a sequence of attributes.
fn change(random: &mut Random, attributes: &mut Vec<Attribute>) {
    let at = random.below(attributes.len());
    match random.below(9) {
        0 => attributes.insert(at, (random.one(&KINDS), random.bytes(40))),
        1 => attributes.push((random.next() as u16, random.bytes(8))),
        2 if !attributes.is_empty() => drop(attributes.remove(at)),
        3 if !attributes.is_empty() => attributes[at].0 = random.one(&KINDS),
        4 if !attributes.is_empty() => {
            let again = attributes[at].clone();
            attributes.push(again);
        }
        5 if attributes.get(at).is_some_and(|(_, value)| !value.is_empty()) => {
            let byte = random.below(attributes[at].1.len());
            attributes[at].1[byte] ^= 1 << random.below(8);
        }
        6 if !attributes.is_empty() => {
            let length = random.one(&[0, 1, 3, 4, 5, 8, 19, 20, 21, 200, 764]);
            attributes[at].1.resize(length, 0);
        }
        7 if !attributes.is_empty() => attributes[at].1 = random.one(&NUMBERS).to_be_bytes().to_vec(),
        8 => attributes.push((REQUESTED_FAMILY, vec![random.one(&[0, 1, 2, 3]), 0, 0, 0])),
        _ => attributes.reverse(),
    }
}

/// Builds a signed message. Sometimes appends an attribute after MESSAGE-INTEGRITY, or a wrong FINGERPRINT.
fn sign(random: &mut Random, session: &Session, method: u16, id: u64, attributes: &[Attribute]) -> Vec<u8> {
    let mut bytes = session.signed(method, id, &borrowed(attributes));
    if random.below(8) == 0 {
        let trailing = random.one(&KINDS);
        append(&mut bytes, trailing, &random.bytes(20));
    }
    if random.below(16) == 0 {
        append(&mut bytes, FINGERPRINT, &random.bytes(4));
    }
    bytes
}

fn append(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(kind.to_be_bytes());
    bytes.extend((value.len() as u16).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0xEE);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Changes bytes regardless of attribute boundaries.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            3 => bytes.truncate(at),
            4 => {
                let more = random.bytes(24);
                bytes.splice(at..at, more);
            }
            _ if bytes.len() > 24 => {
                // Length fields: of the message, and of its first attribute.
                let field = random.one(&[2, 22]);
                bytes[field..field + 2].copy_from_slice(&(random.next() as u16).to_be_bytes());
            }
            _ => bytes.push(0),
        }
    }
}

fn channel(random: &mut Random) -> Vec<u8> {
    let number = if random.below(2) == 0 { 0x4000 } else { 0x4000 | random.next() as u16 & 0x3FFF };
    let mut bytes = channel_data(number, &random.bytes(300));
    if random.below(4) == 0 {
        damage(random, &mut bytes);
    }
    bytes
}
