use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::turn::action::Review;
use crate::turn::five_tuple::{FiveTuple, Link};
use crate::turn::identity::account::Account;
use crate::turn::identity::peer_policy::Reach;
use crate::turn::settings::{Limits, PeerRules, RelayAddress};

const HOST: HostId = HostId(0);

fn settings(peers: PeerRules) -> Settings {
    let host = |id, name: &str| Host {
        id,
        name: name.into(),
        secrets: Vec::new(),
        revoked: Vec::new(),
        peers: None,
        confined: None,
    };
    let local = Ipv4Addr::LOCALHOST.into();
    Settings {
        icmp_to_clients: false,
        realm: "realm".into(),
        hosts: vec![host(HOST, "here")],
        users: Vec::new(),
        relay_addresses: vec![RelayAddress { local, announced: local, only_local: false }],
        default_family: Default::default(),
        relay_ports: 49_152..=65_535,
        peers,
        limits: Limits::default(),
        alternates: Default::default(),
        strict_channels: false,
    }
}

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

/// A state with an allocation that has one relay.
struct Bench {
    state: State,
    client: Client,
    relay: RelayId,
}

/// Adds an allocation of the client at this port that expires then. Returns the client and the relay.
fn add(state: &mut State, port: u16, expires: Instant) -> (Client, RelayId) {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let five_tuple = FiveTuple { transport: Transport::Tcp, client: address(port), server: address(2) };
    let identity = Arc::new(Identity::for_test("ann", HOST));
    let account = Account::User("ann".into());
    let place = state.shared.quota.take(HOST, &account, &Limits::default()).expect("no limit");
    let client = Client { five_tuple, link: Link(port.into()) };
    let allocation = state.table.add_allocation(client, identity, at(0), place, false);
    let local = address(50_000 + port);
    let (relay, owner) = state.table.add_relay(allocation, OnWire(local), Announced(local), expires);
    state.deadlines.push(expires, owner);
    state.table.mark_open(relay);
    (client, relay)
}

impl Bench {
    fn new() -> Self {
        let shared = Arc::new(Shared::new(&[7; 32]));
        let settings = Arc::new(settings(PeerRules::default()));
        let mut state = State::new(settings, shared, Arc::default(), [7; 32]);
        let (client, relay) = add(&mut state, 1, at(3600));
        Self { state, client, relay }
    }

    fn permit(&mut self, ip: IpAddr) {
        let (_, owner) = self.state.table.permit(self.relay, ip, Reach::All, at(0), at(300));
        owner.into_iter().for_each(|owner| self.state.deadlines.push(at(300), owner));
    }

    fn reach(&self, ip: IpAddr) -> Option<Reach> {
        let route = self.state.table.route_from_send(&self.client, OnWire::new(ip, 9), at(1));
        route.ok().map(|route| route.reach)
    }

    fn is_permitted(&self, ip: IpAddr) -> bool {
        self.state.table.is_permitted(self.relay, ip, at(1))
    }

    /// Applies these rules. Returns what the review ended, and the number of pages after the first one.
    fn apply(&mut self, peers: PeerRules) -> (Review, usize) {
        self.state.apply(at(1), Arc::new(settings(peers)));
        let mut pages = 0;
        while self.state.next_deadline() == Some(Instant::default()) {
            self.state.continue_review(at(1));
            pages += 1;
        }
        let reviewed = std::iter::from_fn(|| self.state.next_action()).find_map(|action| match action {
            Action::Reviewed(review) => Some(review),
            _ => None,
        });
        (reviewed.unwrap_or_default(), pages)
    }
}

/// Each refresh to an earlier end would leave another deadline, and every end of an allocation looks at all of them.
#[test]
fn ever_shorter_lifetimes_leave_few_deadlines() {
    let mut bench = Bench::new();
    for second in (600..3600).rev() {
        bench.state.refresh_relay(bench.relay, at(second));
        assert!(bench.state.deadlines.len() <= 2 + 1024 + 1, "{}", bench.state.deadlines.len());
    }
    let now = |second| Now { instant: at(second), unix: second };
    bench.state.refresh_relay(bench.relay, at(700));
    bench.state.expire(now(699));
    assert!(bench.state.table.relay(bench.relay).is_some(), "the last refresh counts");
    bench.state.refresh_relay(bench.relay, at(699));
    bench.state.expire(now(699));
    assert!(bench.state.table.relay(bench.relay).is_none());
    assert!(bench.state.deadlines.len() <= 2 + 1024 + 1);
}

fn peer(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0B00_0000 + number).into()
}

/// The addresses of a machine change with every container: only permissions for these addresses are judged again.
#[test]
fn a_new_own_address_ends_the_permissions_for_it_alone() {
    let mut bench = Bench::new();
    (0..5000).for_each(|number| bench.permit(peer(number)));
    let own = |numbers: &[u32]| PeerRules {
        own: numbers.iter().map(|&number| peer(number).into()).collect(),
        ..PeerRules::default()
    };
    assert_eq!(bench.apply(PeerRules::default()), (Review::default(), 0), "nothing has changed");
    let (review, pages) = bench.apply(own(&[7, 9]));
    assert_eq!((review, pages), (Review::default(), 0), "they reach relayed addresses there");
    assert_eq!([7, 8].map(|number| bench.reach(peer(number))), [Some(Reach::OwnRelayed), Some(Reach::All)]);
    bench.apply(own(&[9]));
    assert_eq!([7, 9].map(|number| bench.reach(peer(number))), [Some(Reach::All), Some(Reach::OwnRelayed)]);
}

#[test]
fn new_rules_are_applied_a_page_at_a_time() {
    let mut bench = Bench::new();
    (0..5000).for_each(|number| bench.permit(peer(number)));
    let deny = |net: &str| PeerRules { deny: vec![net.parse().expect("literal")], ..PeerRules::default() };
    // A second change within the review: what the first one concerns is judged by both.
    bench.state.apply(at(1), Arc::new(settings(deny("11.0.0.0/8"))));
    assert!(bench.state.next_deadline() == Some(Instant::default()));
    assert!(!bench.is_permitted(peer(0)) && bench.is_permitted(peer(4999)));
    let (review, pages) = bench.apply(PeerRules::default());
    assert!(review.permissions < 4000 && pages == 2, "{review:?} in {pages} pages");
    assert!(bench.is_permitted(peer(4999)));
    let (review, _) = bench.apply(deny("11.0.16.0/20"));
    assert_eq!(review.permissions, 5000 - 4096);
    assert!(!bench.is_permitted(peer(4999)));
}

/// Clients choose when their allocations, permissions and channels end, and packets wait until what ends at one moment is removed.
#[test]
fn one_page_of_removals_has_few_entries_however_many_end_at_once() {
    const ALLOCATIONS: u16 = 40;
    const EACH: u32 = 500;
    let setup = || {
        let mut bench = Bench::new();
        let all: Vec<_> = (0..ALLOCATIONS).map(|port| add(&mut bench.state, 10 + port, at(600))).collect();
        for &(_, relay) in &all {
            bench.relay = relay;
            (0..EACH).for_each(|number| bench.permit(peer(number)));
        }
        (bench, all.into_iter().map(|(client, _)| client).collect::<Vec<_>>())
    };
    // Returns the most entries, and the most relays, that one page removed.
    let pages = |state: &mut State, seconds| {
        let mut most = (0, 0);
        let mut before = state.table.owners();
        while state.next_deadline().is_some_and(|next| next <= at(seconds)) {
            state.begin_removals(at(seconds));
            state.expire(Now { instant: at(seconds), unix: seconds });
            let actions = std::iter::from_fn(|| state.next_action());
            let relays = actions.filter(|action| matches!(action, Action::CloseRelay { .. })).count();
            let owners = state.table.owners();
            most = (most.0.max(before - owners), most.1.max(relays));
            before = owners;
        }
        most
    };
    let (mut bench, _) = setup();
    let of_permissions = pages(&mut bench.state, 300);
    assert!(
        of_permissions.0 > 2000 && of_permissions.0 <= 2048 && of_permissions.1 == 0,
        "{of_permissions:?}"
    );
    assert_eq!(bench.state.table.len(), 1 + usize::from(ALLOCATIONS));
    let (mut bench, _) = setup();
    // The permissions come first, and with them nothing but the relays is left.
    assert!(pages(&mut bench.state, 600).1 <= 2048 / 16 + 1);
    assert_eq!(bench.state.table.len(), 1);
    let (mut bench, clients) = setup();
    clients.iter().for_each(|client| bench.state.leave(at(1), client, EndReason::Reset));
    assert_eq!(bench.state.table.len(), 1 + usize::from(ALLOCATIONS) - 4, "500 entries and a relay each");
    let of_streams = pages(&mut bench.state, 1);
    assert!(of_streams.0 <= 4 * (EACH as usize + 1), "{of_streams:?}");
    assert_eq!(bench.state.table.len(), 1);
}
