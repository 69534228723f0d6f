//! Checks every answer of a server, and all servers after every step.

use std::collections::HashMap;

use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::DropReason;
use hallpass::turn::counters::ERROR_CODES;
use hallpass::turn::five_tuple::{Client, FiveTuple};

use crate::invariant::{Checked, Invariant, ensure};
use crate::model::{Ask, Model, Proof, SECOND};
use crate::stun::{self, Id, Reader};
use crate::world::World;

/// A request as the client built it.
pub struct Request {
    pub client: Client,
    pub ask: Ask,
    pub proof: Proof,
    pub nonce: Option<Vec<u8>>,
    pub name: String,
    pub secret: String,
    pub realm: String,
}

/// The state of a five-tuple when a request arrived.
#[derive(Debug)]
pub struct Before {
    allocation: Option<(String, Id, bool)>,
    v4: bool,
    v6: bool,
}

impl Before {
    pub fn of(model: &Model, now: u64, five_tuple: &FiveTuple) -> Self {
        let found = model.allocations.get(five_tuple);
        let alive = |v4: bool| {
            let mut relays = found.iter().flat_map(|allocation| &allocation.relays);
            relays.any(|relay| relay.local.is_ipv4() == v4 && relay.expires > now)
        };
        let (v4, v6) = (alive(true), alive(false));
        let found = found.filter(|_| v4 || v6);
        Self { allocation: found.map(|a| (a.name.clone(), a.transaction, a.opening)), v4, v6 }
    }
}

/// Observed events, to compare with the counters.
#[derive(Debug, Default)]
pub struct Seen {
    pub errors: HashMap<u16, u64>,
    pub drops: HashMap<DropReason, u64>,
    pub from_client: u64,
    pub from_peer: u64,
    pub allocated: u64,
    pub ended: u64,
    pub succeeded: u64,
}

impl World {
    /// Checks one answer: its destination, whether the client may get it, and its effect on the model.
    pub fn judge(&mut self, to: Client, reply: &Reader, asked: Option<(Id, &Before)>) -> Checked {
        if reply.kind == stun::DATA_INDICATION {
            // An ICMP error, for a client with a permission for the peer.
            let peer = reply.addresses(stun::PEER).first().map(|&peer| self.model.to_local(peer));
            let allocation = self.model.allocations.get(&to.five_tuple);
            let permitted = peer.zip(allocation).is_some_and(|(peer, allocation)| {
                allocation.client == to
                    && allocation.permissions.get(&peer.ip()).is_some_and(|&end| end > self.now)
            });
            return ensure(permitted, Invariant::OnlyPermittedDataIsRelayed, || {
                format!("{reply:?} to {to:?}")
            });
        }
        let fits = Invariant::AnswersFitTheirRequest;
        let Some(request) = self.requests.get(&reply.id) else {
            return ensure(false, fits, || format!("no request for {reply:?}"));
        };
        let code = reply.code().unwrap_or(999);
        let detail = || {
            format!(
                "{code} to {:?} of {} ({:?}), before: {asked:?}",
                request.ask, to.five_tuple, request.proof
            )
        };
        ensure(request.client == to, Invariant::NothingIsMisrouted, detail)?;
        ensure(code == 0 || ERROR_CODES.contains(&code), fits, detail)?;
        if let Some(nonce) = reply.get(stun::NONCE) {
            self.nonces.entry(nonce.to_vec()).or_insert(self.now);
        }
        if let (401 | 438, Some((_, before))) = (code, asked) {
            // A client with an allocation keeps the realm of its key.
            let holder = before.allocation.as_ref().and_then(|(name, ..)| self.realms.get(name));
            let realm = holder.unwrap_or(&self.settings.realm);
            let is_right = reply.get(stun::REALM) == Some(realm.as_bytes());
            ensure(is_right, Invariant::AllocationsAgree, detail)?;
        }
        match asked {
            Some((_, before)) if request.ask != Ask::Binding => match self.expected_login(request, before) {
                Some(refusal) => ensure(code == refusal, Invariant::BadCredentialsGetNothing, detail)?,
                None => {
                    ensure(!matches!(code, 401 | 438), Invariant::AllocationsAgree, detail)?;
                    ensure(self.allowed(request, before, reply.id, code), fits, detail)?;
                }
            },
            Some(_) => ensure(code == 0, fits, detail)?,
            None => {
                ensure(matches!(code, 0 | 508) && matches!(request.ask, Ask::Allocate { .. }), fits, detail)?
            }
        }
        if code != 0 {
            *self.seen.errors.entry(code).or_default() += 1;
            return Ok(());
        }
        self.seen.succeeded += 1;
        let (ask, now) = (request.ask.clone(), self.now);
        if let Ask::Allocate { .. } = ask {
            let was_opening = self.model.allocations.get(&to.five_tuple).is_some_and(|a| a.opening);
            self.seen.allocated += u64::from(was_opening);
            return self.model.allocated(now, &to.five_tuple, &ask, reply);
        }
        if matches!(ask, Ask::Permit(_)) && self.forgets_permissions() {
            return Ok(());
        }
        self.model.succeeded(now, &to.five_tuple, &ask, reply)
    }

    /// Returns the error code that RFC 8489 section 9.2.4 requires for the credentials; `None` if they are valid.
    fn expected_login(&self, request: &Request, before: &Before) -> Option<u16> {
        let Some(nonce) = &request.nonce else { return Some(401) };
        let made = self.nonces.get(nonce).copied().unwrap_or(0);
        if self.now / SECOND - made / SECOND >= 3600 {
            return Some(438);
        }
        let holds = before.allocation.as_ref().is_some_and(|(name, ..)| *name == request.name);
        let good = match request.proof {
            Proof::None | Proof::WrongPassword => false,
            Proof::Until(end) => {
                let is_known = self.secrets.contains(&request.secret) && request.realm == self.settings.realm;
                holds || (end > self.unix() && is_known)
            }
        };
        (!good).then_some(401)
    }

    /// Returns whether RFC 8656 allows this code for a request with valid credentials.
    fn allowed(&self, request: &Request, before: &Before, id: Id, code: u16) -> bool {
        let owned = match &before.allocation {
            Some((name, _, false)) if *name == request.name => 0,
            Some((_, _, false)) => 441,
            _ => 437,
        };
        if let Ask::Allocate { .. } = &request.ask {
            return match &before.allocation {
                Some((name, transaction, opening)) if *name == request.name && *transaction == id => {
                    code == 0 && !opening
                }
                Some(_) => code == 437,
                None if self.draining && !self.model.may_hold(&request.name) => code == 508,
                // Unit tests of the pool and the quota test whether there is room.
                None => matches!(code, 486 | 508),
            };
        }
        if owned != 0 {
            return code == owned;
        }
        let has_family = |peer: &std::net::SocketAddr| if peer.is_ipv4() { before.v4 } else { before.v6 };
        let permissions = self.model.allocations.get(&request.client.five_tuple).map(|a| &a.permissions);
        let held = |local: std::net::SocketAddr| {
            permissions.is_some_and(|held| held.get(&local.ip()).is_some_and(|&end| end > self.now))
        };
        let fits = |withdrawn: bool| {
            let refused = |peer: &std::net::SocketAddr| {
                self.model.is_refused(*peer) || (withdrawn && !held(self.model.to_local(*peer)))
            };
            let unreachable =
                |peer: &std::net::SocketAddr| !self.model.port_is_open(self.model.to_local(*peer));
            match &request.ask {
                Ask::Permit(peers) if !peers.iter().all(has_family) => code == 443,
                Ask::Permit(peers) if peers.iter().any(refused) => code == 403,
                // A number or peer that is bound elsewhere is reported first (RFC 8656 section 12.2).
                Ask::Bind(_, peer) if !has_family(peer) => matches!(code, 400 | 443),
                Ask::Bind(_, peer) if refused(peer) || unreachable(peer) => matches!(code, 400 | 403),
                Ask::Bind(..) => matches!(code, 0 | 400),
                _ => code == 0,
            }
        };
        let is_removed = !self.secrets.contains(&request.secret);
        match request.proof {
            // The name expires within this second, measured from its verification.
            Proof::Until(end) if end == self.unix() && !is_removed => fits(false) || fits(true),
            Proof::Until(end) => fits(end < self.unix() || is_removed),
            _ => fits(false),
        }
    }

    /// Checks all servers from outside; `thorough`: also which server has which client.
    pub fn check(&self, thorough: bool) -> Checked {
        let (taken, expected) = (self.shared.ports.taken(), self.model.taken.len());
        ensure(taken == expected, Invariant::PortsAreAccountedFor, || {
            format!("{taken} taken, {expected} known")
        })?;
        let relays: usize = self.model.allocations.values().map(|a| a.relays.len()).sum();
        let opening = self.model.allocations.values().any(|a| a.opening);
        let sum = relays + self.model.reservations.len();
        ensure(taken == sum || opening, Invariant::PortsAreAccountedFor, || {
            format!("{taken} taken, {sum} in use")
        })?;
        let (total, places) = (self.shared.quota.total() as usize, self.model.places());
        ensure(total == places, Invariant::QuotaIsExact, || format!("quota {total}, {places} places"))?;
        let known = self.model.allocations.len();
        let held: usize = self.workers.iter().map(|worker| worker.server.allocations()).sum();
        ensure(held == known, Invariant::AllocationsAgree, || format!("{held} held, {known} known"))?;
        self.check_counters()?;
        for n in (0..self.clients.len()).filter(|_| thorough) {
            self.check_client(n)?;
        }
        Ok(())
    }

    fn check_client(&self, n: usize) -> Checked {
        let client = &self.clients[n];
        let from = client.at.five_tuple;
        // A client whose stream closed stays in the model until the server learns of it.
        let at = self.model.allocations.get(&from).map_or(client.at, |allocation| allocation.client);
        let on = |worker: &&crate::world::Worker| worker.server.has_allocation(&at);
        let servers = self.workers.iter().filter(on).count();
        let known = usize::from(self.model.allocations.contains_key(&from));
        let truth = Invariant::AllocationsAgree;
        ensure(servers == known, truth, || format!("{from} is on {servers} servers, expected {known}"))?;
        let believes = client.belief.as_ref().is_some_and(|belief| belief.until > self.now);
        ensure(!believes || servers == 1, truth, || format!("{from} believes {:?}", client.belief))
    }

    fn check_counters(&self) -> Checked {
        let counters = || self.workers.iter().map(|worker| worker.server.counters());
        let agree = |what: &str, counted: u64, seen: u64| {
            ensure(counted == seen, Invariant::CountersAgree, || {
                format!("{what}: counted {counted}, seen {seen}")
            })
        };
        for code in ERROR_CODES {
            let seen = self.seen.errors.get(&code).copied().unwrap_or(0);
            agree("errors", counters().map(|c| c.errors(code)).sum(), seen)?;
        }
        for &reason in DropReason::ALL {
            let seen = self.seen.drops.get(&reason).copied().unwrap_or(0);
            agree(reason.name(), counters().map(|c| c.dropped(reason).get()).sum(), seen)?;
        }
        let hosts = || counters().flat_map(|c| Transport::ALL.map(|transport| c.host(HostId(0), transport)));
        agree("from_client", hosts().map(|r| r.from_client.packets.get()).sum(), self.seen.from_client)?;
        agree("from_peer", hosts().map(|r| r.from_peer.packets.get()).sum(), self.seen.from_peer)?;
        agree("allocated", hosts().map(|r| r.allocated.get()).sum(), self.seen.allocated)?;
        let alive = self.model.allocations.values().filter(|allocation| !allocation.opening).count() as u64;
        agree("allocations", hosts().map(|r| r.allocations.get()).sum(), alive)?;
        agree("ended", self.seen.ended, self.seen.allocated - alive)
    }
}
