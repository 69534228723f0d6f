//! Every refused request has a reason for the operator, and the answer does not reveal it.

use std::sync::Arc;

use hallpass::base::transport::Transport;
use hallpass::turn::action::{DropReason, OpenError};
use hallpass::turn::counters::HostRung;
use hallpass::turn::identity::explanation::{Explainer, Explanation};
use hallpass::turn::identity::rate_limit::RateLimit;
use hallpass::turn::identity::refusal::{Reason, Refusal, Sender};
use hallpass::turn::identity::rest::Misshapen;

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
        // A lifetime of a day, and the last number that is taken for one: ten years.
        ("86400:w_ann", Reason::LifetimeName { lifetime: 86_400 }, "begins with 86400"),
        ("315359999:w_ann", Reason::LifetimeName { lifetime: 315_359_999 }, "perhaps a lifetime"),
        ("315360000:w_ann", Reason::ExpiredName { seconds: 1_384_640_000 }, "expired"),
        ("w_ann", Reason::MalformedName { shape: Misshapen::NoTime }, "does not begin with a time"),
        ("w_ann:1700003600", Reason::MalformedName { shape: Misshapen::Swapped }, "ends with a time"),
        (" 1700003600:w_ann", Reason::MalformedName { shape: Misshapen::Blank }, "begins with a blank"),
        ("1700003600%3Aw_ann", Reason::MalformedName { shape: Misshapen::Encoded }, "%3A"),
        ("alice", Reason::WrongPassword { secrets: 0 }, "not that of the [[user]]"),
    ] {
        let found = unauthenticated(&mut rig, name, "another secret");
        assert_eq!(found, reason, "{name}");
        assert!(found.to_string().contains(words), "{found}");
    }
    assert_eq!((rig.counted("wrong_password"), rig.counted("malformed_name")), (2, 4));
    let of_user = Reason::WrongPassword { secrets: 0 }.next_step();
    assert!(of_user.contains("[[user]]") && !of_user.contains("turn-stun-servers.xml"), "{of_user}");
    let mut rig = Rig::with(|settings| settings.hosts.iter_mut().for_each(|host| host.secrets.clear()));
    assert_eq!(unauthenticated(&mut rig, "w_ann", "any"), Reason::UnknownUser);
    assert_eq!(unauthenticated(&mut rig, NAME, "any"), Reason::UnknownUser);
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
        ("c2VjcmV0IG9mIHBpbmc9PQ== ", "and a blank at its end"),
        (" c2VjcmV0IG9mIHBpbmc9PQ==", "and a blank at its beginning"),
        ("c2VjcmV0IG9mIHBpbmc9PQ==\r\n", "and a carriage return and a newline"),
        ("\u{feff}c2VjcmV0IG9mIHBpbmc9PQ==", "and a byte order mark"),
        ("c2VjcmV0IG9mIHBpbmc9PQ%3D%3D", "encoded as in a URL"),
        ("YzJWamNtVjBJRzltSUhCcGJtYzlQUT09", "after encoding it in Base64"),
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
            let text = explained(&rig, &request).expect("an explanation").to_string();
            assert!(text.contains("the secret of north") && text.contains(words), "{text}");
        }
    }
    let mut rig = Rig::new();
    let user = rig.rest(client(40_000), "quite another", NAME);
    rig.bare(&user.at, &user.seal(Msg::allocate()));
    let request = rig.refusal().message.expect("kept");
    assert_eq!(explained(&rig, &request), None);
}

fn explained(rig: &Rig, request: &[u8]) -> Option<Explanation> {
    Explainer::new(Arc::new(rig.settings.clone())).explain(request)
}

/// The request of a client with this name and password that is refused with a wrong password.
fn wrong_request(rig: &mut Rig, port: u16, name: &str, password: &str) -> Box<[u8]> {
    let user = rig.login(client(port), name, password, Style::Old);
    assert_eq!(rig.bare(&user.at, &user.seal(Msg::allocate())).code(), 401);
    rig.refusal().message.expect("kept")
}

/// The clock of a host is judged by the users of that host.
#[test]
fn the_host_of_an_expired_name_is_known() {
    let mut rig = Rig::new();
    let name = "1699990000:w_late";
    let mut issuer = |port, secret: &str| {
        let request = wrong_request(&mut rig, port, name, &rest_password(secret, name));
        rig.skip(201);
        Explainer::new(Arc::new(rig.settings.clone())).issuer(&request)
    };
    assert_eq!(issuer(40_000, "north-secret"), Some("north".into()));
    assert_eq!(issuer(40_001, "never heard of"), None);
}

/// A fixed password and a login of this program say nothing about the secret that an issuer has, and a name that is valid for days
/// says nothing about its clock.
#[test]
fn allocations_are_proof_of_secrets_and_clocks_only_with_names_of_an_issuer() {
    let mut rig = Rig::new();
    let mut proof = |port, name: &str, password: &str| {
        let user = rig.login(client(port), name, password, Style::Old);
        assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0, "{name}");
        let (counters, id) = (rig.server.counters(), rig.settings.hosts[0].id);
        let sum = |of: fn(&HostRung) -> u64| -> u64 {
            Transport::ALL.into_iter().map(|transport| of(counters.host(id, transport))).sum()
        };
        (sum(|rung| rung.issued.get()), sum(|rung| rung.timely.get()))
    };
    let mut rest = |port, name: &str| proof(port, name, &rest_password("north-secret", name));
    assert_eq!(rest(40_000, NAME), (1, 1));
    assert_eq!(rest(40_001, "1700200000:w_bob"), (2, 1), "two days");
    assert_eq!(rest(40_002, "1700003600:doctor"), (2, 1));
    assert_eq!(proof(40_003, "alice", "alice-pw"), (2, 1));
}

#[test]
fn a_password_by_sha256_is_explained() {
    // python3: base64.b64encode(hmac.new(b"north-old", b"1700003600:w_ann", "sha256").digest())
    let mut rig = Rig::with(|settings| settings.hosts[0].secrets = vec!["north-old".to_owned()]);
    let request = wrong_request(&mut rig, 40_000, NAME, "uVLMQ4EhgN0IXltUWe5ZKgyrOsS9iK7Isxm9XZ081QM=");
    let text = explained(&rig, &request).expect("an explanation").to_string();
    assert!(text.contains("the secret of north by HMAC-SHA256"), "{text}");
}

/// The relay knows the secrets that it no longer accepts.
#[test]
fn a_revoked_and_a_removed_secret_are_told() {
    let mut rig = Rig::new();
    let mut explainer = Explainer::new(Arc::new(rig.settings.clone()));
    rig.reload(|settings| {
        settings.hosts[0].secrets = vec!["another".to_owned()];
        settings.hosts[1].secrets = vec!["quite another".to_owned()];
        settings.hosts[1].revoked = vec!["south-new".to_owned()];
    });
    explainer.follow(Arc::new(rig.settings.clone()));
    let mut explain = |port, secret: &str| {
        let request = wrong_request(&mut rig, port, NAME, &rest_password(secret, NAME));
        rig.skip(201);
        explainer.explain(&request)
    };
    assert_eq!(explain(40_000, "south-new"), Some(Explanation::Revoked("south".into())));
    let removed = explain(40_001, "north-secret").expect("an explanation");
    assert_eq!(removed, Explanation::Removed("north".into()));
    assert!(removed.next_step().expect("a step").contains("present secret"));
    assert_eq!(explain(40_002, "never heard of"), None);
}

/// RFC 8656 section 5: an allocation keeps the credentials that it was made with.
#[test]
fn a_new_password_on_the_port_of_an_old_allocation_is_not_called_wrong() {
    for (name, before, after) in [("alice", "alice-pw", "alice-new"), (NAME, "north-secret", "north-next")] {
        let mut rig = Rig::new();
        let password =
            |secret: &str| if name == NAME { rest_password(secret, NAME) } else { secret.to_owned() };
        let old = rig.login(client(40_000), name, &password(before), Style::Old);
        assert_eq!(rig.ask(&old, Msg::allocate()).code(), 0);
        rig.reload(|settings| {
            settings.hosts[0].secrets = vec!["north-next".to_owned()];
            settings.users[0].password = "alice-new".to_owned();
        });
        let new = rig.login(client(40_000), name, &password(after), Style::Old);
        assert_eq!(rig.bare(&new.at, &new.seal(Msg::allocate())).code(), 401);
        let refusal = rig.refusal();
        assert_eq!(refusal.reason, Reason::OtherPassword);
        let text = refusal.reason.to_string();
        assert!(text.contains("not the one that the allocation") && !text.contains("wrong"), "{text}");
        assert!(refusal.reason.next_step().contains("another port"));
        let request = refusal.message.expect("kept");
        assert_eq!(explained(&rig, &request), Some(Explanation::Current));
        let elsewhere = rig.login(client(40_001), name, &password(after), Style::Old);
        assert_eq!(rig.ask(&elsewhere, Msg::allocate()).code(), 0);
    }
}

/// A whole class makes the same mistake at once. With many secrets, strangers with made-up secrets may use up the time of one
/// batch; what was found before is found first.
#[test]
fn each_of_a_class_is_explained_and_the_time_is_bounded() {
    let secret = "c2VjcmV0IG9mIHBpbmc9PQ==";
    let mut rig = Rig::with(|settings| settings.hosts[0].secrets = vec![secret.to_owned()]);
    let mut requests = |theirs: &str, ports: std::ops::Range<u16>| -> Vec<Box<[u8]>> {
        let request = |port| {
            let name = format!("1700003600:w_{port}");
            let request = wrong_request(&mut rig, port, &name, &rest_password(theirs, &name));
            rig.skip(7);
            request
        };
        ports.map(request).collect()
    };
    let class = requests("c2VjcmV0IG9mIHBpbmc9PQ", 40_000..40_012);
    let strangers = requests("of a stranger", 41_000..41_040);
    let mut explainer = Explainer::new(Arc::new(rig.settings.clone()));
    explainer.begin(1000);
    assert!(class.iter().all(|request| matches!(explainer.explain(request), Some(Explanation::Nearly(_)))));
    rig.reload(|settings| {
        settings.hosts[0].secrets = (0..199).map(|number| format!("secret {number}")).collect();
        settings.hosts[0].secrets.push(secret.to_owned());
    });
    let mut explainer = Explainer::new(Arc::new(rig.settings.clone()));
    let mut count = |requests: &[Box<[u8]>], wanted: fn(&Option<Explanation>) -> bool| {
        requests.iter().filter(|request| wanted(&explainer.explain(request))).count()
    };
    assert_eq!(count(&class, |found| matches!(found, Some(Explanation::Nearly(_)))), 12);
    let examined = 40 - count(&strangers, |found| *found == Some(Explanation::NotExamined));
    assert!((1..=2).contains(&examined), "{examined}");
    // The reports of many workers come in many batches.
    let in_batch = |second| {
        explainer.begin(second);
        let explained = strangers.iter().map(|request| explainer.explain(request));
        explained.filter(|found| *found != Some(Explanation::NotExamined)).count()
    };
    let examined = [1001, 1001, 1001, 1002].map(in_batch);
    assert!(matches!(examined, [1..=4, 0, 0, 1..=4]), "{examined:?}");
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

/// What opens a peer depends on the rule that closes it.
#[test]
fn the_next_step_for_a_denied_peer_fits_the_rule() {
    let mut rig = Rig::with(|settings| {
        let net = |text: &str| text.parse().expect("literal");
        settings.peers.deny = vec![net("192.0.2.52/32")];
        settings.peers.own = vec![net("198.51.100.1/32"), net("198.51.100.2/32")];
        settings.peers.services = vec!["198.51.100.1:3478".parse().expect("literal")];
        settings.hosts[1].peers = Some(vec![net("10.0.0.0/7"), net("192.0.2.52/32")]);
    });
    let alice = rig.allocated();
    let ann = rig.rest(client(40_001), "south-new", NAME);
    assert_eq!(rig.ask(&ann, Msg::allocate()).code(), 0);
    for (user, peer, step) in [
        (&alice, "10.0.0.1:7000", "add it to [peers] allow"),
        (&ann, "10.0.0.1:7000", "write the address itself into `peers`"),
        (&ann, "192.0.2.50:7000", "add it to `peers` of this [[host]]"),
        (&ann, "192.0.2.52:7000", "this entry of [peers] deny"),
        (&alice, "198.51.100.1:3478", "nothing: no rule opens"),
        (&alice, "198.51.100.1:53", "if a conference server runs on this machine"),
        (&alice, "198.51.100.2:53", "if a conference server runs on this machine"),
    ] {
        assert_eq!(rig.bind(user, 0x4000, peer), 403, "{peer}");
        let reason = rig.refusal().reason;
        assert!(reason.next_step().contains(step), "{reason}: {}", reason.next_step());
        rig.skip(201);
        assert!([&alice, &ann].iter().all(|user| rig.refresh(user, 600).code() == 0));
    }
}

/// The same user with fresh credentials is not taken for another one behind a proxy.
#[test]
fn an_allocation_of_an_earlier_name_is_not_called_that_of_another_user() {
    let mut rig = Rig::new();
    let earlier = rig.rest(client(40_000), "north-secret", NAME);
    assert_eq!(rig.ask(&earlier, Msg::allocate()).code(), 0);
    for (name, words) in
        [("1700009000:w_ann", "the same user made"), ("1700009000:w_bob", "another user made")]
    {
        let fresh = rig.rest(client(40_000), "north-secret", name);
        assert_eq!(rig.permit(&fresh, &[PEER]), 441);
        let (label, text) = rig.why();
        assert_eq!(label, "not_owner");
        assert!(text.contains(words), "{text}");
    }
}

/// Why an allocation gets no more peers.
#[test]
fn withdrawn_credentials_are_told_apart() {
    for (name, why, change) in [
        (NAME, "the name has expired", (|_| {}) as fn(&mut hallpass::turn::settings::Settings)),
        ("1700090000:w_ann", "the secret of the name was removed", |settings| {
            settings.hosts[0].secrets.clear()
        }),
        ("alice", "the password of the [[user]] has changed", |settings| {
            settings.users[0].password = "another".to_owned();
        }),
    ] {
        let mut rig = Rig::new();
        let password =
            if name == "alice" { "alice-pw".to_owned() } else { rest_password("north-secret", name) };
        let mut user = rig.login(client(40_000), name, &password, Style::Old);
        assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
        rig.reload(change);
        for _ in 0..8 {
            rig.skip(500);
            // A nonce is good for an hour.
            user = rig.login(client(40_000), name, &password, Style::Old);
            assert_eq!(rig.ask(&user, Msg::request(REFRESH)).code(), 0);
        }
        assert_eq!(rig.permit(&user, &[OTHER_PEER]), 403);
        let (label, text) = rig.why();
        assert_eq!(label, "withdrawn");
        assert!(text.contains(why), "{text}");
    }
}

/// The limit that was reached is named with its value, and whether a setting raises it.
#[test]
fn a_rate_limit_is_named_with_its_value() {
    let mut rig = Rig::with(|settings| settings.limits.unauthenticated_per_source = 1_000_000);
    let alice = rig.allocated();
    (0..400).for_each(|_| drop(rig.exchange(&alice.at, &Msg::request(BINDING).bytes())));
    let reason = rig.refusal().reason;
    assert_eq!(reason, Reason::RateLimited { limit: RateLimit::ClientBindings(100) });
    assert!(reason.to_string().contains("more than 100 Bindings a second"), "{reason}");
    assert!(reason.next_step().contains("no setting raises"), "{}", reason.next_step());

    let mut rig = Rig::with(|settings| settings.limits.unauthenticated_per_source = 10);
    (0..50).for_each(|_| drop(rig.exchange(&client(41_000), &Msg::request(BINDING).bytes())));
    assert_eq!(rig.refusal().reason, Reason::RateLimited { limit: RateLimit::SourceBindings(40) });

    let mut rig = Rig::with(|settings| {
        settings.hosts[0].secrets = (0..60_000).map(|number| format!("secret {number}")).collect();
    });
    let user = rig.rest(client(40_000), "guess", NAME);
    (0..3).for_each(|_| drop(rig.exchange(&user.at, &user.seal(Msg::allocate()).bytes())));
    let searched = Reason::RateLimited { limit: RateLimit::SourceSearch(10) };
    assert!(rig.refusals.iter().any(|refusal| refusal.reason == searched), "{:?}", rig.refusals);
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
    let reason = rig.refusal().reason;
    assert_eq!(reason.to_string(), "this relay has no IPv6 address");
    assert!(reason.next_step().starts_with("nothing if the conference server has an IPv4 address"));
    let unknown = Msg::allocate().attr(REQUESTED_FAMILY, &[7, 0, 0, 0]);
    rig.skip(201);
    assert_eq!(rig.ask(&alice, unknown).code(), 440);
    assert!(rig.refusal().reason.next_step().contains("makers of the client"));
    rig.failures.extend([Err(OpenError::InUse); 64]);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 508);
    let reason = rig.refusal().reason;
    assert_eq!((reason.name(), reason), ("no_port", Reason::NoPort { foreign: true }));
    rig.failures.clear();
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

/// Clients that name no family get nothing without an IPv4 address: that must not be ignored.
#[test]
fn a_relay_without_ipv4_is_told() {
    let mut rig = Rig::with(|settings| settings.relay_addresses.retain(|relay| relay.local.is_ipv6()));
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 440);
    let reason = rig.refusal().reason;
    assert_eq!(reason.to_string(), "the client names no address family, and this relay has no IPv4 address");
    assert!(reason.next_step().starts_with("give this machine"), "{}", reason.next_step());
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

/// A handshake proves the address of a client, and so does the nonce of a request whose search is deferred.
#[test]
fn the_handshake_of_a_connection_and_a_nonce_prove_an_address() {
    let mut rig = Rig::with(|settings| {
        settings.hosts[0].secrets = (0..400).map(|number| format!("secret {number}")).collect();
    });
    for (source, transport, expected) in [
        ("203.0.113.6:1", Transport::Udp, Sender::Unproven),
        ("203.0.113.7:1", Transport::Tcp, Sender::Proven),
        ("203.0.113.8:1", Transport::Tls, Sender::Proven),
    ] {
        let at = client_at(transport, source);
        let mut alice = rig.login(at, "alice", "alice-pw", Style::Old);
        alice.nonce = b"of another server".to_vec();
        assert_eq!(rig.bare(&at, &alice.seal(Msg::allocate())).code(), 438);
        assert_eq!(rig.refusal().sender, expected, "{transport:?}");
    }
    let mut deferred = 0;
    for port in 50_000..50_100 {
        let user = rig.rest(client(port), "wrong", "1700003600:w_guess");
        deferred += usize::from(rig.exchange(&user.at, &user.seal(Msg::allocate()).bytes()).is_none());
    }
    assert!(deferred > 0);
    let limited: Vec<_> =
        rig.refusals.iter().filter(|refusal| refusal.reason.name() == "rate_limited").collect();
    assert!(
        !limited.is_empty() && limited.iter().all(|refusal| refusal.sender == Sender::Proven),
        "{limited:?}"
    );
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
