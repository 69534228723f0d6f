//! Every refused request has a reason for the operator, and the answer does not reveal it.

use hallpass::base::transport::Transport;
use hallpass::turn::action::{DropReason, OpenError};
use hallpass::turn::identity::near_miss;
use hallpass::turn::identity::refusal::{Reason, Refusal};

use crate::codec::*;
use crate::rig::*;

/// A name that is valid at the start.
const NAME: &str = "1700003600:w_ann";

impl Rig {
    /// Returns the only refusal that was reported since the last call.
    fn refusal(&mut self) -> Refusal {
        assert_eq!(self.refusals.len(), 1, "{:?}", self.refusals);
        self.refusals.remove(0)
    }

    /// Returns the label and the sentence of that refusal.
    fn why(&mut self) -> (&'static str, String) {
        let reason = self.refusal().reason;
        (reason.name(), reason.to_string())
    }

    fn counted(&self, reason: &str) -> u64 {
        let index = Reason::NAMES.iter().position(|&name| name == reason).expect("a reason");
        let counters = self.server.counters();
        let hosts = self.settings.hosts.iter().map(|host| Some(host.id)).chain([None]);
        let all =
            hosts.flat_map(|host| Transport::ALL.map(|transport| counters.refused(host, transport, index)));
        all.sum()
    }
}

/// Returns why a client with this name, and a password from this secret, gets a 401.
fn unauthenticated(rig: &mut Rig, name: &str, secret: &str) -> Reason {
    let user = rig.rest(client(40_000), secret, name);
    assert_eq!(rig.bare(&user.at, &user.seal(Msg::allocate())).code(), 401, "{name}");
    let refusal = rig.refusal();
    assert_eq!((&*refusal.user, refusal.host.is_none(), refusal.request), (name, true, "allocate"));
    assert_eq!(refusal.five_tuple, user.at.five_tuple);
    refusal.reason
}

#[test]
fn the_first_request_of_a_client_and_an_old_nonce_are_no_failures() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    rig.skip(3_700);
    assert_eq!(rig.bare(&alice.at, &alice.seal(Msg::request(REFRESH))).code(), 438);
    assert!(rig.refusals.is_empty());
    assert_eq!((rig.counted("first_request"), rig.counted("expired_nonce")), (1, 1));
}

#[test]
fn names_and_passwords_are_refused_for_different_reasons() {
    let mut rig = Rig::new();
    let secrets = 3;
    for (name, reason, words) in [
        (
            NAME,
            Reason::WrongPassword { secrets },
            "fits none of the 3 secrets; the user name has not expired",
        ),
        ("1699999990:w_ann", Reason::ExpiredName { seconds: 10 }, "expired 10 s ago"),
        ("1700003600000:w_ann", Reason::FarExpiry { secrets, days: 19_656_291 }, "expires in 19656291 days"),
        ("w_ann", Reason::MalformedName { is_swapped: false }, "does not begin with a time"),
        ("w_ann:1700003600", Reason::MalformedName { is_swapped: true }, "ends with a time"),
        ("alice", Reason::WrongPassword { secrets: 0 }, "the password is wrong"),
    ] {
        let found = unauthenticated(&mut rig, name, "another secret");
        assert_eq!(found, reason, "{name}");
        assert!(found.to_string().contains(words), "{found}");
    }
    assert_eq!((rig.counted("wrong_password"), rig.counted("malformed_name")), (2, 2));
    let mut rig = Rig::with(|settings| settings.hosts.iter_mut().for_each(|host| host.secrets.clear()));
    assert_eq!(unauthenticated(&mut rig, "w_ann", "any"), Reason::UnknownUser);
}

#[test]
fn a_nonce_of_another_server_is_named() {
    let mut rig = Rig::new();
    let mut alice = rig.alice();
    alice.nonce = b"obMatJos2gAAAmadeelsewhere".to_vec();
    assert_eq!(rig.bare(&alice.at, &alice.seal(Msg::allocate())).code(), 438);
    assert_eq!(rig.why().0, "foreign_nonce");
}

#[test]
fn a_secret_that_nearly_fits_is_explained() {
    let secret = "c2VjcmV0IG9mIHBpbmc9PQ==";
    for (theirs, words) in [
        ("c2VjcmV0IG9mIHBpbmc9PQ=", "without the equals sign at its end"),
        ("c2VjcmV0IG9mIHBpbmc9PQ", "without the equals sign at its end"),
        ("c2VjcmV0IG9mIHBpbmc9PQ===", "and more equals signs"),
        ("c2VjcmV0IG9mIHBpbmc9PQ==\n", "and a newline at its end"),
        ("c2VjcmV0IG9mIHBpbmc9PQ==\r", "and a carriage return"),
        ("\"c2VjcmV0IG9mIHBpbmc9PQ==\"", "in quotes"),
        ("secret of ping==", "after decoding it from Base64"),
    ] {
        for style in [Style::Old, Style::Sha256] {
            let mut rig = Rig::with(|settings| settings.hosts[0].secrets = vec![secret.to_owned()]);
            let user = rig.rest(client(40_000), theirs, NAME).with_style(style);
            assert_eq!(rig.bare(&user.at, &user.seal(Msg::allocate())).code(), 401);
            let request = rig.refusal().message.expect("kept");
            let found = near_miss::find(&rig.settings, &request).expect("an explanation");
            let text = found.to_string();
            assert!(text.contains("the secret of north") && text.contains(words), "{text}");
        }
    }
    let mut rig = Rig::new();
    let user = rig.rest(client(40_000), "quite another", NAME);
    rig.bare(&user.at, &user.seal(Msg::allocate()));
    let request = rig.refusal().message.expect("kept");
    assert_eq!(near_miss::find(&rig.settings, &request), None);
}

#[test]
fn a_denied_peer_is_named_with_the_rule() {
    let mut rig = Rig::with(|settings| settings.peers.deny = vec!["192.0.2.52/32".parse().expect("literal")]);
    let alice = rig.allocated();
    for (peer, rule) in [
        (DENIED, "10.0.0.1 is not allowed: private addresses"),
        ("192.0.2.52:1", "192.0.2.52 is not allowed: [peers] deny has 192.0.2.52/32"),
        ("198.51.100.1:3478", "198.51.100.1 is not allowed: "),
    ] {
        assert_eq!(rig.bind(&alice, 0x4000, peer), 403, "{peer}");
        let refusal = rig.refusal();
        let text = refusal.reason.to_string();
        assert!(text.contains(rule), "{text}");
        let (_, host) = refusal.host.expect("a host");
        assert_eq!(
            (&*host, refusal.request, refusal.reason.name()),
            ("north", "channel_bind", "peer_denied")
        );
        // Of one user and reason, one refusal is reported in 200 s.
        assert_eq!(rig.bind(&alice, 0x4000, peer), 403);
        assert!(rig.refusals.is_empty());
        rig.skip(201);
    }
    let mut rig = Rig::new();
    let ann = rig.rest(client(40_001), "south-new", NAME);
    assert_eq!(rig.ask(&ann, Msg::allocate()).code(), 0);
    assert_eq!(rig.permit(&ann, &[PEER]), 403);
    let (name, text) = rig.why();
    assert_eq!(name, "peer_denied");
    assert!(text.contains("192.0.2.50 is not allowed: it is not in `peers` of the host"), "{text}");
}

#[test]
fn each_limit_is_named_with_its_value() {
    for (change, reason, words) in [
        (
            (|settings| settings.limits.allocations_per_user = 1)
                as fn(&mut hallpass::turn::settings::Settings),
            "user_allocations",
            "the user has 1 allocations",
        ),
        (|settings| settings.limits.allocations_per_host = 1, "host_allocations", "of the host have 1"),
        (|settings| settings.limits.allocations_total = 1, "total_allocations", "there are 1 allocations"),
    ] {
        let mut rig = Rig::with(change);
        let _first = rig.allocated();
        let second = rig.alice_at(client(40_007));
        assert!(matches!(rig.ask(&second, Msg::allocate()).code(), 486 | 508));
        let (name, text) = rig.why();
        assert_eq!(name, reason);
        assert!(text.contains(words), "{text}");
    }
    let mut rig = Rig::with(|settings| settings.limits.permissions_per_allocation = 1);
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER, OTHER_PEER]), 508);
    assert_eq!(rig.why().0, "permissions");
}

#[test]
fn other_refusals_are_named() {
    let mut rig = Rig::with(|settings| settings.relay_addresses.truncate(1));
    let alice = rig.alice();
    let ipv6 = Msg::allocate().attr(REQUESTED_FAMILY, &[2, 0, 0, 0]);
    assert_eq!(rig.ask(&alice, ipv6).code(), 440);
    assert_eq!(rig.why(), ("no_family", "this relay has no IPv6 address".to_owned()));
    rig.failures.extend([Err(OpenError::Unavailable); 8]);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 508);
    assert_eq!(rig.why().0, "no_socket");
    rig.failures.clear();
    assert_eq!(rig.refresh(&alice, 600).code(), 437);
    assert_eq!(rig.why().0, "no_allocation");
    rig.server.handle_drain(true);
    let bob = rig.login(client(40_009), "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 508);
    assert_eq!(rig.why().0, "draining");
}

/// The answer is the same whatever the reason is.
#[test]
fn answers_do_not_reveal_the_reason() {
    let mut rig = Rig::new();
    let mut sizes = [NAME, "1699999990:w_ann", "1700003600:unknown", "w_ann:170000360"].map(|name| {
        let user = rig.rest(client(40_000), "another secret", name);
        let answer = rig.bare(&user.at, &user.seal(Msg::allocate()));
        (answer.code(), answer.get(NONCE).map(<[u8]>::len), answer.get(REALM).map(<[u8]>::to_vec))
    });
    sizes.sort();
    assert_eq!(sizes[0], sizes[3]);
}

/// A flood is counted, and a bounded number of it is reported.
#[test]
fn a_flood_of_refusals_is_reported_in_part_and_counted_whole() {
    let mut rig = Rig::with(|settings| settings.limits.unauthenticated_per_source = 0);
    let floods = 5_000;
    for number in 0..floods {
        let at = client_at(Transport::Udp, &format!("203.0.{}.{}:1", number / 250, number % 250 + 1));
        let user = rig.rest(at, "another secret", "1699999990:w_ann");
        rig.bare(&user.at, &user.seal(Msg::allocate()));
    }
    assert_eq!((rig.refusals.len(), rig.counted("expired_name")), (50, floods));
    let mut rig = Rig::with(|settings| settings.limits.unauthenticated_per_source = 10);
    for port in 0..50 {
        let _ = rig.exchange(&client(41_000 + port), &Msg::allocate().bytes());
    }
    assert!(rig.dropped(DropReason::Throttled) >= 30);
    let reported: Vec<_> = rig.refusals.iter().map(|refusal| refusal.reason.name()).collect();
    assert_eq!(reported, ["rate_limited"]);
}

/// Anybody behind a school's address can use up its budget for reports with made-up names, but not unnoticed.
#[test]
fn what_one_source_hides_is_reported_with_its_number() {
    let mut rig = Rig::new();
    for number in 0..100 {
        let name = format!("1700003600:w_{number}");
        let user = rig.rest(client(40_000 + number), "guess", &name);
        assert_eq!(rig.bare(&user.at, &user.seal(Msg::allocate())).code(), 401);
        rig.skip(u64::from(number % 10 == 9));
    }
    let told = rig.refusals.len();
    assert!(
        (30..=32).contains(&told) && rig.refusals.iter().all(|refusal| refusal.unreported == 0),
        "{told}"
    );
    rig.wait(60);
    let last = rig.refusals.pop().expect("one for all others");
    assert_eq!((rig.refusals.len(), told + 1 + last.unreported as usize), (told, 100));
    assert_eq!((&*last.user, last.reason.name()), ("1700003600:w_30", "wrong_password"));
    rig.wait(600);
    assert_eq!(rig.refusals.len(), told, "once");
}
