//! Chooses the actions of a simulated client: mostly valid, sometimes careless or hostile.

use std::net::SocketAddr;

use hallpass::turn::five_tuple::Client;
use hallpass::turn::identity::rest;
use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use crate::model::{Ask, Proof, SECOND};
use crate::stun::{self, Id, Login};

/// Returns a number from 0 to `n` - 1.
pub fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    rng.next_u64() % n
}

/// Returns true with a probability of `percent`.
pub fn chance(rng: &mut ChaCha8Rng, percent: u64) -> bool {
    below(rng, 100) < percent
}

/// What the client knows about its allocation.
#[derive(Clone, Debug)]
pub struct Belief {
    /// The earliest time at which the allocation may end.
    pub until: u64,
    pub relayed: Vec<SocketAddr>,
}

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub struct Asking {
    pub id: Id,
    pub ask: Ask,
    pub sent: u64,
    pub again: bool,
}

pub struct Participant {
    pub at: Client,
    pub login: Login,
    /// The secret that its password is derived from.
    pub secret: String,
    /// The expiry of its name.
    pub until: u64,
    /// The realm that its key is derived with.
    pub realm: String,
    pub nonce: Option<Vec<u8>>,
    pub belief: Option<Belief>,
    pub channels: Vec<u16>,
    pub token: Option<[u8; 8]>,
    pub asking: Option<Asking>,
    /// Earliest time of the next request, so that no copy of an earlier one is in flight.
    pub quiet_until: u64,
}

/// An action of the client.
#[derive(Clone, Debug)]
pub enum Deed {
    Nothing,
    Ask(Ask, Carelessness),
    Channel(u16),
    Send(SocketAddr),
    Junk(Vec<u8>),
    /// Closes or resets its stream.
    Leave,
    /// Sends nothing for some seconds.
    Sleep(u64),
}

/// How a request is corrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carelessness {
    None,
    Unsigned,
    WrongPassword,
}

impl Participant {
    pub fn new(at: Client) -> Self {
        Self {
            at,
            login: Login::new("", "", ""),
            secret: String::new(),
            until: 0,
            realm: String::new(),
            nonce: None,
            belief: None,
            channels: Vec::new(),
            token: None,
            asking: None,
            quiet_until: 0,
        }
    }

    /// Gets new credentials from the web application; some are about to expire or have expired.
    pub fn log_in(&mut self, rng: &mut ChaCha8Rng, unix: u64, user: usize, secret: &str, realm: &str) {
        self.until = if chance(rng, 5) { unix - 10 } else { unix + 30 + below(rng, 7200) };
        // A name never has two secrets or realms: on a five-tuple in use, the server checks only the first.
        let (secret_number, first_label) = (secret.rsplit(' ').next(), realm.split('.').next());
        let user = format!("w_{user}_{}_{}", secret_number.unwrap_or(""), first_label.unwrap_or(""));
        let name = rest::username(self.until, &user);
        self.login = Login::new(&name, &rest::password(secret, &name), realm);
        self.realm = realm.to_owned();
        self.secret = secret.to_owned();
    }

    pub fn proof(&self, how: Carelessness) -> Proof {
        match how {
            Carelessness::Unsigned => Proof::None,
            Carelessness::WrongPassword => Proof::WrongPassword,
            Carelessness::None => Proof::Until(self.until),
        }
    }

    /// Returns the next action. `others`: relayed addresses of other clients, used as peers.
    pub fn choose(&self, rng: &mut ChaCha8Rng, now: u64, dual: bool, others: &[SocketAddr]) -> Deed {
        let careless = match below(rng, 40) {
            0 => Carelessness::WrongPassword,
            1 => Carelessness::Unsigned,
            _ => Carelessness::None,
        };
        let may_ask = self.asking.is_none() && now >= self.quiet_until;
        let Some(belief) = self.belief.as_ref().filter(|belief| belief.until > now) else {
            return match below(rng, 20) {
                0 => Deed::Channel(0x4000),
                1 => Deed::Send(peer(rng)),
                2 => Deed::Junk(vec![rng.next_u32() as u8; 33]),
                3 if may_ask => Deed::Ask(Ask::Binding, careless),
                4 if may_ask => Deed::Ask(Ask::Refresh { lifetime: 600 }, careless),
                5 => Deed::Sleep(below(rng, 400)),
                _ if may_ask => Deed::Ask(self.allocate(rng, dual), careless),
                _ => Deed::Nothing,
            };
        };
        let near_end = belief.until < now + 120 * SECOND;
        match below(rng, 100) {
            _ if near_end && may_ask && chance(rng, 70) => {
                Deed::Ask(Ask::Refresh { lifetime: lifetime(rng) }, careless)
            }
            0..=19 if may_ask => {
                let count = 1 + below(rng, 3);
                Deed::Ask(Ask::Permit((0..count).map(|_| target(rng, others)).collect()), careless)
            }
            20..=34 if may_ask => {
                Deed::Ask(Ask::Bind(0x4000 + below(rng, 4) as u16, target(rng, others)), careless)
            }
            35..=37 if may_ask => Deed::Ask(Ask::Refresh { lifetime: 0 }, careless),
            38..=41 if may_ask => Deed::Ask(Ask::Refresh { lifetime: lifetime(rng) }, careless),
            42 if may_ask => Deed::Ask(self.allocate(rng, dual), careless),
            43 if self.at.five_tuple.transport.is_stream() => Deed::Leave,
            44 => Deed::Sleep(below(rng, 2000)),
            45..=72 => match self.channels.len() as u64 {
                0 => Deed::Channel(0x4000 + below(rng, 5) as u16),
                count => Deed::Channel(self.channels[below(rng, count) as usize]),
            },
            73 => Deed::Junk(vec![0x40, 0, 0xff, 0xff, 1]),
            _ => Deed::Send(target(rng, others)),
        }
    }

    fn allocate(&self, rng: &mut ChaCha8Rng, dual: bool) -> Ask {
        let lifetime = chance(rng, 50).then(|| lifetime(rng));
        let (v6, pair) = (chance(rng, 20), chance(rng, 10));
        match self.token.filter(|_| chance(rng, 60)) {
            Some(token) => {
                Ask::Allocate { lifetime, pair: false, v6: false, dual: false, token: Some(token) }
            }
            None if pair => Ask::Allocate { lifetime, pair, v6: false, dual: false, token: None },
            None => Ask::Allocate { lifetime, pair, v6, dual: !v6 && dual && chance(rng, 30), token: None },
        }
    }
}

fn lifetime(rng: &mut ChaCha8Rng) -> u32 {
    1 + below(rng, 4000) as u32
}

/// Returns one of ten IPv4 peers, four IPv6 peers and a denied one, each with two ports.
fn peer(rng: &mut ChaCha8Rng) -> SocketAddr {
    let text = match below(rng, 30) {
        0 => "10.0.0.1".to_owned(),
        n @ 1..=7 => format!("2a00:9::{}", n % 4 + 1),
        n => format!("9.9.0.{}", n % 10 + 1),
    };
    SocketAddr::new(text.parse().expect("an address"), 7000 + below(rng, 2) as u16)
}

fn target(rng: &mut ChaCha8Rng, others: &[SocketAddr]) -> SocketAddr {
    match others.len() as u64 {
        count if count > 0 && chance(rng, 25) => others[below(rng, count) as usize],
        _ => peer(rng),
    }
}

/// Encodes the request without credentials.
pub fn encode(id: Id, ask: &Ask) -> stun::Writer {
    match ask {
        Ask::Binding => stun::Writer::new(stun::BINDING, id),
        Ask::Allocate { lifetime, pair, v6, dual, token } => {
            let mut more: Vec<(u16, Vec<u8>)> = Vec::new();
            more.extend(lifetime.map(|secs| (stun::LIFETIME, secs.to_be_bytes().to_vec())));
            more.extend(pair.then(|| (stun::EVEN_PORT, vec![0x80])));
            more.extend(v6.then(|| (stun::FAMILY, vec![2, 0, 0, 0])));
            more.extend(dual.then(|| (stun::ADDITIONAL_FAMILY, vec![2, 0, 0, 0])));
            more.extend(token.map(|token| (stun::RESERVATION, token.to_vec())));
            stun::allocate(id, &more)
        }
        Ask::Refresh { lifetime } => stun::refresh(id, *lifetime),
        Ask::Permit(peers) => stun::create_permission(id, peers),
        Ask::Bind(number, peer) => stun::channel_bind(id, *number, *peer),
    }
}

/// Builds the payload of this number. It starts with the number.
pub fn payload(number: u64) -> Vec<u8> {
    let len = 8 + (number.wrapping_mul(2_654_435_761) >> 7) as usize % 1200;
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((8..len).map(|at| (number as usize).wrapping_mul(31).wrapping_add(at * 7) as u8));
    bytes
}

/// Returns the number of a payload, if it is unchanged.
pub fn recognise(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(*bytes.first_chunk()?);
    (payload(number) == bytes).then_some(number)
}
