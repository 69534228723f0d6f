//! One server without a network, driven directly.
#![allow(dead_code)] // each test target that includes this file uses a different part of it

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hallpass::base::time::{Instant, Now};
use hallpass::turn::action::{Action, FromClient, OpenError, RelayId, Session};
use hallpass::turn::address::OnWire;
use hallpass::turn::change::TableChange;
use hallpass::turn::counters::Counters;
use hallpass::turn::five_tuple::Client;
use hallpass::turn::identity::rest;
use hallpass::turn::server::Server;
use hallpass::turn::settings::Settings;
use hallpass::turn::shared::Shared;

use super::stun::{self, Login, REALM_NAME, Reader, SECRET, Writer};

/// The wall clock when the monotonic clock is 0.
pub const EPOCH: u64 = 1_700_000_000;

pub struct Rig {
    pub server: Server,
    pub shared: Arc<Shared>,
    pub now: Now,
    pub replies: Vec<Reader>,
    pub opens: Vec<(RelayId, SocketAddr)>,
    pub closed: Vec<RelayId>,
    pub ended: Vec<Session>,
    pub changes: Vec<TableChange>,
    next_id: u64,
}

impl Rig {
    pub fn new(settings: Settings) -> Self {
        let shared = Arc::new(Shared::new(&[7; 32]));
        let server =
            Server::new(Arc::new(settings), Arc::clone(&shared), Arc::new(Counters::default()), [9; 32]);
        Self {
            server,
            shared,
            now: Now { instant: Instant::from_nanos(1_000_000_000), unix: EPOCH },
            replies: Vec::new(),
            opens: Vec::new(),
            closed: Vec::new(),
            ended: Vec::new(),
            changes: Vec::new(),
            next_id: 0,
        }
    }

    /// Advances the time without calling `handle_timeout`.
    pub fn wait(&mut self, span: Duration) {
        self.now.instant = self.now.instant + span;
        self.now.unix += span.as_secs();
    }

    pub fn id(&mut self) -> [u8; 12] {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        id
    }

    pub fn nonce(&self, client: Client) -> String {
        self.shared.nonces.make(self.now.instant, client.five_tuple.client, Default::default())
    }

    /// Feeds one message and collects its effects.
    pub fn feed(&mut self, client: Client, bytes: &[u8]) -> FromClient {
        let verdict = self.server.handle_client(self.now, client, bytes);
        self.draw();
        verdict
    }

    /// Signs and feeds a request; returns the answer's code (0: success), if there is an answer already.
    pub fn ask(&mut self, client: Client, login: &Login, request: Writer) -> Option<u16> {
        let nonce = self.nonce(client);
        self.replies.clear();
        self.feed(client, &request.signed(login, nonce.as_bytes()));
        self.replies.last().and_then(Reader::code)
    }

    pub fn timeout(&mut self) {
        self.server.handle_timeout(self.now);
        self.draw();
    }

    /// Opens all pending sockets.
    pub fn open(&mut self, outcome: Result<(), OpenError>) {
        for (relay, _) in std::mem::take(&mut self.opens) {
            self.server.handle_relay_opened(self.now, relay, outcome);
        }
        self.draw();
    }

    pub fn draw(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                Action::Reply { message, .. } => {
                    self.replies.push(Reader::parse(&message).expect("a well-formed answer"));
                }
                Action::OpenRelay { relay, address: OnWire(address) } => self.opens.push((relay, address)),
                Action::CloseRelay { relay } => {
                    self.opens.retain(|(opening, _)| *opening != relay);
                    self.closed.push(relay);
                }
                Action::Ended(session) => self.ended.push(*session),
                Action::Reviewed(_) | Action::Refused(_) | Action::Began(_) => {}
                Action::Changed(change) => self.changes.push(*change),
            }
        }
    }

    /// Creates an allocation with open sockets; returns the announced relayed addresses.
    pub fn allocate(&mut self, client: Client, login: &Login, more: &[(u16, Vec<u8>)]) -> Vec<SocketAddr> {
        let id = self.id();
        assert_eq!(self.ask(client, login, stun::allocate(id, more)), None, "waits for its socket");
        self.open(Ok(()));
        let reply = self.replies.last().expect("an answer");
        assert_eq!(reply.code(), Some(0), "{reply:?}");
        reply.addresses(stun::RELAYED)
    }
}

/// Returns a REST login that is valid for decades.
pub fn login(user: &str) -> Login {
    let name = rest::username(EPOCH + (1 << 30), user);
    Login::new(&name, &rest::password(SECRET, &name), REALM_NAME)
}
