//! RFC 8489 section 9.2: the long-term credential mechanism, with the time-limited names of TURN REST.

use std::time::Duration;

use hallpass::base::transport::Transport;
use hallpass::turn::action::DropReason;
use hallpass::turn::five_tuple::Client;
use hallpass::turn::settings::Settings;

use crate::codec::*;
use crate::rig::*;

/// Returns the answer to a request that must fail authentication. The answer must be unsigned and must not name a user.
fn refused(rig: &mut Rig, user: &User, message: &Msg) -> Answer {
    let answer = rig.bare(&user.at, message);
    assert!(!answer.is_signed() && !answer.has(USERNAME) && !answer.has(USERHASH) && !answer.has(SOFTWARE));
    answer
}

/// Checks REALM, NONCE with the cookie, and PASSWORD-ALGORITHMS (RFC 8489 sections 9.2 and 9.2.4).
fn check_challenge(answer: &Answer, code: u16) {
    assert_eq!(answer.code(), code);
    assert_eq!(answer.get(REALM), Some(REALM_TEXT.as_bytes()));
    let nonce = answer.get(NONCE).expect("NONCE");
    assert!(nonce.len() < 128 && nonce.iter().all(u8::is_ascii_graphic), "qdtext");
    assert!(nonce.starts_with(b"obMatJos2gAAA"), "bit 0 is the most significant");
    assert_eq!(answer.get(PASSWORD_ALGORITHMS), Some(&LIST[..]), "SHA-256, then MD5");
    assert!(!answer.has(PASSWORD_ALGORITHM), "RFC 8489 section 14.12");
}

/// RFC 8489 section 9.2.4, first check; RFC 8656 section 7.2.
#[test]
fn s9_2_4_a_request_without_integrity_is_401_with_realm_and_nonce() {
    let mut rig = Rig::new();
    for method in [ALLOCATE, REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
        let answer = rig.bare(&client(40_000), &Msg::request(method).attr(REQUESTED_TRANSPORT, &UDP));
        assert_eq!((answer.class, answer.method), (ERROR, method));
        check_challenge(&answer, 401);
        assert!(!answer.is_signed());
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 section 9.2.4, second check: a 400 that reveals nothing.
#[test]
fn s9_2_4_integrity_without_name_realm_or_nonce_is_400() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let key = alice.key();
    let (name, realm) = (alice.name.as_bytes(), alice.realm.as_bytes());
    for (request, missing) in [
        (Msg::allocate().attr(REALM, realm).attr(NONCE, &alice.nonce), "name"),
        (Msg::allocate().attr(USERNAME, name).attr(NONCE, &alice.nonce), "realm"),
        (Msg::allocate().attr(USERNAME, name).attr(REALM, realm), "nonce"),
    ] {
        for request in [request.clone().sha1(&key), request.sha256(&key)] {
            let answer = refused(&mut rig, &alice, &request);
            assert_eq!(answer.code(), 400, "{missing}");
            assert!(!answer.has(NONCE) && !answer.has(REALM));
        }
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// Leaves static users only: the server then offers USERHASH.
fn without_secrets(settings: &mut Settings) {
    settings.hosts.iter_mut().for_each(|host| host.secrets.clear());
}

/// RFC 8489 section 9.2.2: MD5 and SHA-256 keys, USERHASH (14.4); section 9.2.4: the answer's integrity.
#[test]
fn s9_2_2_every_kind_of_key_works_and_answers_are_signed_in_kind() {
    for style in [Style::Old, Style::Sha256, Style::Hashed, Style::NamedMd5] {
        let mut rig = Rig::with(without_secrets);
        let alice = rig.alice().with_style(style);
        assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0, "{style:?}");
        assert_eq!(rig.refresh(&alice, 600).code(), 0);
        // Errors after authentication are signed as well.
        assert_eq!(rig.ask(&alice, Msg::request(CREATE_PERMISSION)).code(), 400);
        assert_eq!(rig.permit(&alice, &[DENIED]), 403);
        assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 437);
        assert_eq!(rig.ask(&alice, Msg::request(REFRESH).attr(0x7fff, b"")).code(), 420);
    }
}

/// RFC 8489 section 9.2.4: a request that names no algorithm uses an MD5 key, even with MESSAGE-INTEGRITY-SHA256; its answer
/// has MESSAGE-INTEGRITY. If both integrity attributes are present, MESSAGE-INTEGRITY-SHA256 decides.
#[test]
fn s9_2_4_sha256_integrity_decides_and_unnamed_algorithms_are_md5() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let key = alice.key();
    let answer = rig.bare(&alice.at, &alice.named(Msg::request(REFRESH)).sha256(&key));
    assert_eq!(answer.code(), 437);
    check_signed(&alice, &answer);
    let both = alice.named(Msg::request(REFRESH)).sha1(&key).sha256(&key);
    assert_eq!(rig.bare(&alice.at, &both).code(), 437);
    let spoiled = alice.named(Msg::request(REFRESH)).sha1(&key).sha256(b"wrong");
    assert_eq!(refused(&mut rig, &alice, &spoiled).code(), 401, "a correct SHA-1 does not help");
    let ignored = alice.named(Msg::request(REFRESH)).sha1(b"wrong").sha256(&key);
    assert_eq!(rig.bare(&alice.at, &ignored).code(), 437, "SHA-1 is not checked");
}

/// RFC 8489 sections 14.5 and 14.6: integrity is accepted at full length only.
#[test]
fn s14_6_integrity_of_a_wrong_length_is_refused() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let named = || alice.named(Msg::allocate());
    let mac = hmac_sha1(&alice.key(), b"");
    for request in [
        named().attr(MESSAGE_INTEGRITY, &mac[..16]),
        named().attr(MESSAGE_INTEGRITY, b""),
        named().sha256_cut(&alice.key(), 12),
        named().sha256_cut(&alice.key(), 16),
        named().sha256_cut(&alice.key(), 28),
        named().sha256_cut(&alice.key(), 17),
        named().sha256_cut(&alice.key(), 0),
        named().attr(MESSAGE_INTEGRITY_SHA256, &[0; 36]),
    ] {
        let code = refused(&mut rig, &alice, &request).code();
        assert!(matches!(code, 400 | 401), "{code}");
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 section 9.2.4: a wrong name, hash, realm or password gets 401 with all that the client needs to try again.
#[test]
fn s9_2_4_wrong_credentials_are_401_with_a_new_challenge() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let wrong = |change: fn(&mut User), style| {
        let mut user = alice.clone().with_style(style);
        change(&mut user);
        user
    };
    for style in [Style::Old, Style::Sha256, Style::Hashed, Style::NamedMd5] {
        for user in [
            wrong(|user| user.name = "mallory".into(), style),
            wrong(|user| user.password = "guess".into(), style),
            wrong(|user| user.realm = "other.example".into(), style),
            wrong(|user| user.name.clear(), style),
        ] {
            let request = user.seal(Msg::allocate());
            check_challenge(&refused(&mut rig, &user, &request), 401);
        }
    }
    assert_eq!(rig.held(), (0, 0, 0), "no state");
}

/// RFC 8489 section 6.3.1, SECURITY.md promise 6: a failed attempt does not affect the next one on the same five-tuple.
#[test]
fn s6_3_1_failed_authentication_leaves_no_trace() {
    let mut rig = Rig::new();
    let mut alice = rig.alice();
    alice.password = "wrong".into();
    let request = alice.seal(Msg::allocate());
    assert_eq!(refused(&mut rig, &alice, &request).code(), 401);
    assert_eq!((rig.held(), rig.server.poll_timeout()), ((0, 0, 0), None));
    alice.password = "alice-pw".into();
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
}

/// SECURITY.md promise 6: unauthenticated requests leave neither state nor timers.
#[test]
fn unauthenticated_requests_leave_no_state() {
    let mut rig = Rig::with(|settings| settings.limits.unauthenticated_per_source = 0);
    for port in 1..2000 {
        assert_eq!(rig.bare(&client(port), &Msg::allocate()).code(), 401);
    }
    assert_eq!((rig.held(), rig.server.poll_timeout()), ((0, 0, 0), None));
    assert!(rig.asked.is_empty(), "no socket was requested");
}

/// RFC 8489 section 9: attributes after the integrity are ignored.
#[test]
fn s9_attributes_after_integrity_are_ignored() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let key = alice.key();
    // An unknown required attribute, a lifetime, a request for IPv6: no 420, no effect.
    let request = alice
        .named(Msg::allocate())
        .sha1(&key)
        .attr(0x7fff, b"")
        .lifetime(1800)
        .attr(REQUESTED_FAMILY, &V6)
        .fingerprint();
    let answer = rig.bare(&alice.at, &request);
    assert_eq!((answer.code(), answer.secs()), (0, 600));
    assert!(answer.address(XOR_RELAYED_ADDRESS).is_ipv4());
    // After MESSAGE-INTEGRITY-SHA256, too.
    let modern = alice.clone().with_style(Style::Sha256);
    let request =
        modern.seal(Msg::request(REFRESH).lifetime(700)).attr(0x7fff, b"").lifetime(0).fingerprint();
    let answer = rig.bare(&alice.at, &request);
    assert_eq!((answer.code(), answer.secs()), (0, 700));
    // A peer after the integrity is ignored.
    let request = alice.named(Msg::request(CREATE_PERMISSION)).sha1(&key).peer(PEER);
    assert_eq!(rig.bare(&alice.at, &request).code(), 400);
    assert_eq!(rig.send(&alice, PEER, b"x"), Err(DropReason::NoPermission));
}

/// RFC 8489 sections 9.2.4 and 16.1.1: with the cookie, either both algorithm attributes are present and correct, or none
/// is present.
#[test]
fn s9_2_4_bid_down_by_password_algorithms_is_400() {
    let mut rig = Rig::new();
    let alice = rig.alice().with_style(Style::Sha256);
    let old = alice.clone().with_style(Style::Old);
    let key = alice.key();
    let md5_only = [0, 1, 0, 0];
    let swapped = [0, 1, 0, 0, 0, 2, 0, 0];
    let longer = [0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0];
    for request in [
        // One of the two removed.
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHMS, &LIST),
        // The list changed.
        old.named(Msg::allocate())
            .attr(PASSWORD_ALGORITHMS, &md5_only)
            .attr(PASSWORD_ALGORITHM, &[0, 1, 0, 0]),
        old.named(Msg::allocate())
            .attr(PASSWORD_ALGORITHMS, &swapped)
            .attr(PASSWORD_ALGORITHM, &[0, 1, 0, 0]),
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHMS, &longer).attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHMS, b"").attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
        // An algorithm that is not in the list.
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHMS, &LIST).attr(PASSWORD_ALGORITHM, &[0, 3, 0, 0]),
        // Malformed.
        old.named(Msg::allocate()).attr(PASSWORD_ALGORITHMS, &LIST).attr(PASSWORD_ALGORITHM, &[0, 2]),
        old.named(Msg::allocate())
            .attr(PASSWORD_ALGORITHMS, &[0, 2, 0, 9])
            .attr(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
    ] {
        for signed in [request.clone().sha256(&key), request.clone().sha1(&old.key())] {
            assert_eq!(refused(&mut rig, &alice, &signed).code(), 400);
        }
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 section 14.12: parameters and their padding are ignored.
#[test]
fn s14_12_algorithm_parameters_and_their_padding_are_ignored() {
    let mut rig = Rig::new();
    let alice = rig.alice().with_style(Style::Sha256);
    let request = alice
        .clone()
        .with_style(Style::Old)
        .named(Msg::request(REFRESH))
        .attr(PASSWORD_ALGORITHMS, &LIST)
        .attr(PASSWORD_ALGORITHM, &[0, 2, 0, 1, 9, 0xff, 0xff, 0xff])
        .sha256(&alice.key());
    let answer = rig.bare(&alice.at, &request);
    assert_eq!(answer.code(), 437);
    check_signed(&alice, &answer);
}

/// RFC 8489 sections 9.2 and 9.2.4: every invalid nonce is answered by 438 with a valid one.
#[test]
fn s9_2_4_a_bad_nonce_is_438_with_a_good_one() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let mut flipped = alice.nonce.clone();
    let last = flipped.len() - 2;
    flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
    let no_bits = String::from_utf8(alice.nonce.clone()).expect("ASCII").replace("gAAA", "AAAA");
    for nonce in [
        flipped,
        no_bits.into_bytes(),
        alice.nonce[13..].to_vec(), // the cookie stripped
        b"obMatJos2gAAA".to_vec(),
        b"x".to_vec(),
        vec![b'a'; 400],
    ] {
        let mut user = User { nonce, ..alice.clone() };
        let request = user.seal(Msg::allocate());
        let answer = refused(&mut rig, &user, &request);
        check_challenge(&answer, 438);
        user.nonce = answer.get(NONCE).expect("NONCE").to_vec();
        assert_eq!(rig.ask(&user, Msg::request(REFRESH)).code(), 437, "the new nonce is valid");
    }
}

/// RFC 8656 section 5: a nonce expires within the hour.
#[test]
fn s5_a_nonce_expires_hourly() {
    let mut rig = Rig::new();
    let mut alice = rig.alice();
    rig.wait(3590);
    assert_eq!(rig.ask(&alice, Msg::request(REFRESH)).code(), 437);
    rig.wait(10);
    let request = alice.seal(Msg::request(REFRESH));
    let answer = refused(&mut rig, &alice, &request);
    check_challenge(&answer, 438);
    alice.nonce = answer.get(NONCE).expect("NONCE").to_vec();
    assert_eq!(rig.ask(&alice, Msg::request(REFRESH)).code(), 437);
}

/// RFC 8489 section 9.2.4: a nonce belongs to one source address and port.
#[test]
fn s9_2_4_a_nonce_is_good_for_one_address_and_port() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let mut seen = vec![alice.nonce.clone()];
    for at in [
        client(40_001),
        client_at(Transport::Udp, "203.0.113.6:40000"),
        client_at(Transport::Udp, "[2001:db8:9::7]:40000"),
    ] {
        let thief = User { at, ..alice.clone() };
        let request = thief.seal(Msg::allocate());
        let answer = refused(&mut rig, &thief, &request);
        check_challenge(&answer, 438);
        seen.push(answer.get(NONCE).expect("NONCE").to_vec());
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "never the same nonce for two sources");
}

/// RFC 8489 section 9.2.4: bit 1 announces USERHASH. It is set only without TURN REST, whose names the server does not know
/// in advance.
#[test]
fn s9_2_4_username_anonymity_is_announced_only_if_all_users_are_static() {
    let mut rig = Rig::with(without_secrets);
    let nonce = rig.alice().nonce;
    assert!(nonce.starts_with(b"obMatJos2wAAA"), "bits 0 and 1");
    let alice = rig.alice().with_style(Style::Hashed);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    assert!(Rig::new().alice().nonce.starts_with(b"obMatJos2gAAA"), "bit 0");
}

/// RFC 8489 section 14.4: a USERHASH of any length but 32 bytes is malformed.
#[test]
fn s14_4_a_userhash_has_32_bytes() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let hash = sha256(format!("alice:{REALM_TEXT}").as_bytes());
    for wrong in [&hash[..31], &[], &[&hash[..], &[0]].concat()[..]] {
        let request = Msg::allocate()
            .attr(USERHASH, wrong)
            .attr(REALM, REALM_TEXT.as_bytes())
            .attr(NONCE, &alice.nonce)
            .sha1(&alice.key());
        assert_eq!(refused(&mut rig, &alice, &request).code(), 400);
    }
}

/// RFC 8489 section 14.3: names of every legal length, longer ones, and names that are not UTF-8.
#[test]
fn s14_3_long_and_broken_usernames() {
    let mut rig = Rig::new();
    // Clients send up to 508 bytes; RFC 5389 allowed 763. The server accepts both.
    for (len, code) in [(508, 437), (509, 437), (763, 437), (764, 400)] {
        let name = format!("{}:{}", UNIX + 100, "u".repeat(len - 11));
        assert_eq!(name.len(), len);
        let user = rig.rest(client(40_000), "north-secret", &name);
        let request = user.seal(Msg::request(REFRESH));
        assert_eq!(rig.bare(&user.at, &request).code(), code, "{len} bytes");
    }
    let alice = rig.alice();
    for name in [&b"\xff\xfe"[..], &[b'a'; 764]] {
        let request = Msg::allocate()
            .attr(USERNAME, name)
            .attr(REALM, REALM_TEXT.as_bytes())
            .attr(NONCE, &alice.nonce)
            .sha1(&alice.key());
        assert!(matches!(refused(&mut rig, &alice, &request).code(), 400 | 401));
    }
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8489 section 9.2.2: names and passwords are UTF-8.
#[test]
fn s9_2_2_names_and_passwords_beyond_ascii() {
    let mut rig = Rig::with(|settings| {
        settings.users[0].name = "Jürgen".into();
        settings.users[0].password = "paßwort \u{30de}".into();
        without_secrets(settings);
    });
    for style in [Style::Old, Style::Sha256, Style::Hashed] {
        let user = rig.login(client(40_000), "Jürgen", "paßwort \u{30de}", style);
        assert_eq!(rig.ask(&user, Msg::request(REFRESH)).code(), 437, "{style:?}");
    }
}

/// TURN REST: the expiry comes first and is strictly decimal; an expired name is a wrong name.
#[test]
fn rest_names_are_good_until_they_expire() {
    let mut rig = Rig::new();
    let code = |rig: &mut Rig, name: &str| {
        let user = rig.rest(client(40_000), "north-secret", name);
        let request = user.seal(Msg::request(REFRESH));
        rig.bare(&user.at, &request).code()
    };
    assert_eq!(code(&mut rig, &format!("{}:w_x", UNIX + 10)), 437);
    assert_eq!(code(&mut rig, &format!("{}", UNIX + 10)), 437, "without a user");
    assert_eq!(code(&mut rig, &format!("{UNIX}:w_x")), 401, "expired");
    for name in [
        "",
        ":x",
        "+1800000000:x",
        " 1800000000:x",
        "0x7fffffff:x",
        "99999999999999999999999:x",
        "x:1800000000",
    ] {
        assert_eq!(code(&mut rig, name), 401, "{name:?}");
    }
    rig.wait(10);
    assert_eq!(code(&mut rig, &format!("{}:w_x", UNIX + 10)), 401, "expired meanwhile, although cached");
    assert_eq!(rig.held(), (0, 0, 0));
}

/// TURN REST: the secret that verifies the password identifies the host; all secrets of all hosts are valid at once.
#[test]
fn rest_secrets_name_the_host() {
    let mut rig = Rig::new();
    let name = format!("{}:w_x", UNIX + 100);
    for (port, (secret, host)) in
        (1..).zip([("north-secret", "north"), ("south-old", "south"), ("south-new", "south")])
    {
        let user = rig.rest(client(port), secret, &name);
        assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0, "{secret}");
        assert_eq!(rig.refresh(&user, 0).code(), 0);
        assert_eq!(&*rig.sessions.pop().expect("ended").host, host);
    }
    let unknown = rig.rest(client(9), "west-secret", &name);
    let request = unknown.seal(Msg::allocate());
    assert_eq!(refused(&mut rig, &unknown, &request).code(), 401);
}

/// Each host has its own peers: an address allowed for one host is denied for another.
#[test]
fn rest_hosts_have_their_own_peers() {
    let mut rig = Rig::new();
    let name = format!("{}:w_x", UNIX + 100);
    let (north, south) =
        (rig.rest(client(1), "north-secret", &name), rig.rest(client(2), "south-new", &name));
    for user in [&north, &south] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
    }
    assert_eq!((rig.permit(&north, &[PEER]), rig.permit(&south, &[PEER])), (0, 403));
    assert_eq!((rig.permit(&north, &[OTHER_PEER]), rig.permit(&south, &[OTHER_PEER])), (0, 0));
}

/// A running call survives the expiry of its name and a change of secrets; a new allocation with that name is refused.
#[test]
fn rest_expiry_and_rotation_do_not_cut_a_running_call() {
    let mut rig = Rig::new();
    let user = rig.rest(client(1), "north-secret", &format!("{}:w_x", UNIX + 10));
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    rig.wait(100);
    assert_eq!(rig.refresh(&user, 600).code(), 0);
    rig.reload(|settings| settings.hosts[0].secrets = vec!["fresh".into()]);
    assert_eq!(rig.refresh(&user, 600).code(), 0);
    assert_eq!(rig.refresh(&user, 0).code(), 0);
    let request = user.seal(Msg::allocate());
    assert_eq!(refused(&mut rig, &user, &request).code(), 401);
}

/// RFC 8489 section 9.2: a key belongs to one realm. After a reload with a new realm, running calls keep the old one, in
/// requests and in challenges, and new clients get the new one.
#[test]
fn s9_2_a_new_realm_does_not_cut_a_running_call() {
    for style in [Style::Old, Style::Sha256, Style::Hashed] {
        let mut rig = Rig::with(without_secrets);
        let mut alice = rig.alice().with_style(style);
        assert_eq!(rig.ask(&alice, Msg::allocate().lifetime(3600)).code(), 0);
        rig.reload(|settings| settings.realm = "new.example.org".into());
        assert_eq!(rig.refresh(&alice, 3600).code(), 0, "{style:?}: the old realm");
        assert_eq!((rig.permit(&alice, &[PEER]), rig.bind(&alice, 0x4000, OTHER_PEER)), (0, 0));
        rig.wait(3590);
        assert_eq!(rig.refresh(&alice, 3600).code(), 0);
        rig.wait(20);
        let request = alice.seal(Msg::request(REFRESH));
        let stale = refused(&mut rig, &alice, &request);
        assert_eq!((stale.code(), stale.get(REALM)), (438, Some(REALM_TEXT.as_bytes())));
        alice.nonce = stale.get(NONCE).expect("NONCE").to_vec();
        assert_eq!(rig.refresh(&alice, 3600).code(), 0);
        let renewed = User { realm: "new.example.org".into(), ..alice.clone() };
        assert_eq!(rig.refresh(&renewed, 600).code(), 0, "{style:?}: the new realm, with its key");
        let late = rig.login(client(9), "alice", "alice-pw", style);
        assert_eq!(late.realm, "new.example.org");
        assert_eq!(rig.ask(&late, Msg::allocate()).code(), 0);
        let old = User { realm: REALM_TEXT.into(), ..rig.alice_at(client(10)) };
        let request = old.seal(Msg::allocate());
        assert_eq!(refused(&mut rig, &old, &request).code(), 401, "a new client with the old realm");
    }
}

/// RFC 8656 section 6: the server keeps the key and not the password. Its debug output contains no password and no secret.
#[test]
fn s6_passwords_are_not_kept_with_the_allocation() {
    let mut rig = Rig::with(|settings| settings.hosts[1].revoked = vec!["leaked-secret".into()]);
    let name = format!("{}:w_x", UNIX + 100);
    let user = rig.rest(client(1), "north-secret", &name);
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    let printed = format!("{:?}", rig.server);
    assert!(printed.contains(&name) && printed.contains("south"));
    for secret in [&user.password, "north-secret", "south-old", "leaked-secret", "alice-pw"] {
        assert!(!printed.contains(secret), "{secret}");
    }
}

/// RFC 8489 section 9.2.4: USERHASH is accepted only if the nonce offered it, so not with TURN REST.
#[test]
fn s9_2_4_a_userhash_that_was_not_offered_is_401() {
    let mut rig = Rig::new();
    let name = format!("{}:w_x", UNIX + 100);
    let user = rig.rest(client(1), "north-secret", &name);
    assert_eq!(rig.ask(&user, Msg::allocate()).code(), 0);
    for known in [user.with_style(Style::Hashed), rig.alice().with_style(Style::Hashed)] {
        assert_eq!(refused(&mut rig, &known, &known.seal(Msg::allocate())).code(), 401);
    }
}

/// A server whose hosts have 400 additional secrets, so that a search is expensive.
fn with_many_secrets(change: impl FnOnce(&mut Settings)) -> Rig {
    Rig::with(|settings| {
        settings.hosts[0].secrets = (0..400).map(|n| format!("secret {n}")).collect();
        change(settings);
    })
}

/// Returns a client with a valid name that the server has not seen, made with one of the last forty secrets of the host. By its
/// number, it is none that verified lately at its source.
fn good(rig: &mut Rig, from: Client, n: u64) -> User {
    rig.rest(from, &format!("secret {}", 399 - n % 40), &format!("{}:w_{n}", UNIX + 100))
}

/// Returns the code of the answer to a wrong guess, if there is one.
fn guess(rig: &mut Rig, from: Client, expiry: u64) -> Option<u16> {
    let user = rig.rest(from, "wrong", &format!("{expiry}:w_guess"));
    rig.exchange(&from, &user.seal(Msg::allocate()).bytes()).map(|answer| answer.code())
}

/// Counts the wrong guesses of one client until it gets no answer.
fn guesses(rig: &mut Rig, from: Client) -> usize {
    (0..1000).take_while(|_| guess(rig, from, UNIX + 100) == Some(401)).count()
}

/// Searching the secrets of all hosts has a budget per source and in total. Cached names need no search, and expired names
/// are refused before it. Guessing clients do not lock others out.
#[test]
fn searching_for_a_secret_has_a_budget() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let known = good(&mut rig, client(1), 0);
    assert_eq!(rig.ask(&known, Msg::allocate()).code(), 0);
    let of_client = guesses(&mut rig, client(2));
    assert!((10..=25).contains(&of_client), "{of_client} searches of 0.6 ms in 10 ms a second");
    assert_eq!(guess(&mut rig, client(3), UNIX - 1), Some(401), "expired: nothing is tried");
    assert_eq!(rig.refresh(&known, 600).code(), 0, "its key is cached");
    // Another source has its own budget, until all guessing clients have used a sixteenth of the worker.
    let other = |n: usize| client_at(Transport::Udp, &format!("203.0.{n}.9:1"));
    assert!((10..=25).contains(&guesses(&mut rig, other(0))));
    let all: usize = (1..50).map(|n| guesses(&mut rig, other(n))).sum();
    assert!((100..=200).contains(&all), "{all} searches, the first of each source among them");
    let newcomer = good(&mut rig, other(200), 2);
    assert_eq!(rig.ask(&newcomer, Msg::allocate()).code(), 0, "a source that has not guessed");
}

/// A guessing client behind a NAT does not lock out newcomers with the same address, over UDP or a stream, until they
/// have used their own budget. Then they wait, and no stream is closed.
#[test]
fn a_guessing_client_does_not_lock_out_newcomers_of_its_source() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let bogus = rig.rest(client(2), "wrong", &format!("{}:w_guess", UNIX + 100)).seal(Msg::allocate());
    assert!(guesses(&mut rig, client(2)) > 0);
    for n in 0..20 {
        let reason = rig.silent(&client(2), &bogus.bytes());
        assert_eq!(reason, DropReason::Throttled, "it has just been deferred");
        let transport = if n % 2 == 0 { Transport::Udp } else { Transport::Tls };
        let next = good(&mut rig, client_at(transport, &format!("203.0.113.5:{}", 100 + n)), n);
        assert_eq!(rig.ask(&next, Msg::allocate()).code(), 0, "newcomer {n}");
    }
    let mut deferred = 0;
    for n in 100..200 {
        let next = good(&mut rig, client_at(Transport::Tls, &format!("203.0.113.5:{}", 1000 + n)), n);
        let request = next.seal(Msg::allocate()).bytes();
        if rig.exchange(&next.at, &request).is_none() {
            deferred += 1;
            assert!(!DropReason::SearchDeferred.breaks_stream());
            rig.wait(1);
            assert!(rig.exchange(&next.at, &request).is_some(), "repeated a second later");
        }
    }
    assert!(deferred > 0 && rig.dropped(DropReason::Throttled) == 20, "{deferred}");
}

/// Hundreds of sources that each guess once a second count as guessing after the first second. They share a budget then, and
/// sources that have not guessed have another.
#[test]
fn sources_that_guess_again_and_again_do_not_lock_out_others() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let at = |n: usize, port: u16| client_at(Transport::Udp, &format!("203.0.{n}.9:{port}"));
    for round in 1..10 {
        let answered = (0..250).filter(|&n| guess(&mut rig, at(n, round), UNIX + 100).is_some()).count();
        assert!(answered >= 30, "{answered} guesses searched in round {round}");
        if round > 1 {
            let newcomer = good(&mut rig, at(255, round), u64::from(round));
            assert_eq!(rig.ask(&newcomer, Msg::allocate()).code(), 0, "round {round}");
            let seal = newcomer.seal(Msg::allocate()).bytes();
            assert!(rig.exchange(&newcomer.at, &seal).is_some(), "and is cached");
        }
        rig.wait(2);
    }
}

/// How many of 30 newcomers of a school, each with another secret, get in within 16 s, while one password a fifth of a second is
/// wrong there, and each of these sources makes 500 tries a second with a made-up name whenever it is its turn.
fn newcomers_beside(guessers: &[String], school: &str, is_turn: impl Fn(usize, usize) -> bool) -> usize {
    const STEP: Duration = Duration::from_millis(10);
    const PORTS: usize = 100;
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let wrong = |rig: &mut Rig, from: Client| {
        let user = rig.rest(from, "wrong", &format!("{}:w_{}", UNIX + 100, from.five_tuple.client.port()));
        user.seal(Msg::allocate()).bytes()
    };
    let at = |source: &str, port: usize| client_at(Transport::Udp, &format!("{source}:{port}"));
    let mut tries: Vec<Vec<(Client, Vec<u8>)>> = Vec::new();
    for source in guessers {
        let ports = (0..PORTS).map(|port| at(source, 1000 + port));
        tries.push(ports.map(|from| (from, wrong(&mut rig, from))).collect());
    }
    let mut newcomers: Vec<(User, usize, bool)> =
        (0..30).map(|n| (good(&mut rig, at(school, 100 + n), n as u64), 0, false)).collect();
    // When a client tries, in steps after its first time.
    let waits = [0, 50, 150, 350, 750, 1550];
    let unanswered = |rig: &mut Rig, from: &Client, bytes: &[u8]| {
        rig.feed(from, bytes);
        while rig.reply().is_some() {}
    };
    for step in 0..2000 {
        for (source, tries) in tries.iter().enumerate().filter(|(source, _)| is_turn(step, *source)) {
            for n in 0..5 {
                let (from, bytes) = &tries[(step * 5 + n + source) % PORTS];
                unanswered(&mut rig, from, bytes);
            }
        }
        if step % 20 == 0 {
            let from = at(school, 20_000 + step);
            let bytes = wrong(&mut rig, from);
            unanswered(&mut rig, &from, &bytes);
        }
        for (n, (user, tried, is_in)) in newcomers.iter_mut().enumerate() {
            let is_due = waits.get(*tried).is_some_and(|&wait| step == 100 + n * 10 + wait);
            if is_due && !*is_in {
                *tried += 1;
                let answer = rig.exchange(&user.at, &user.seal(Msg::allocate()).bytes());
                *is_in = answer.is_some_and(|answer| answer.code() == 0);
            }
        }
        rig.now.instant = rig.now.instant + STEP;
    }
    newcomers.iter().filter(|(.., is_in)| *is_in).count()
}

/// Guesses at a few other sources use up what all sources have, and somebody's password is wrong at a school. Its newcomers get in:
/// every source has an equal share.
#[test]
fn guesses_elsewhere_do_not_lock_out_newcomers_of_a_school_with_a_wrong_password() {
    let sources = |count: usize| -> Vec<String> { (0..count).map(|n| format!("203.0.{n}.9")).collect() };
    assert_eq!(newcomers_beside(&sources(4), "203.0.113.5", |_, _| true), 30, "four at once");
    // A source that was silent for a second has a full share to use at once.
    let in_turn = |groups: usize| move |step: usize, source: usize| step / 100 % groups == source % groups;
    assert_eq!(newcomers_beside(&sources(8), "203.0.113.5", in_turn(2)), 30, "eight in turn");
    assert_eq!(newcomers_beside(&sources(12), "203.0.113.5", in_turn(3)), 30, "twelve in turn");
}

/// The same for a school and eight other customers of its IPv6 provider.
#[test]
fn guesses_of_a_providers_customers_do_not_lock_out_its_school() {
    let homes: Vec<String> = (1..=8).map(|home| format!("[2003:e5:{home}::9]")).collect();
    assert_eq!(newcomers_beside(&[], "[2003:e5:77::5]", |_, _| true), 30, "nobody guesses elsewhere");
    assert_eq!(newcomers_beside(&homes, "[2003:e5:77::5]", |_, _| true), 30);
    // Two groups of homes in turn, each silent for a second.
    let in_turn = |step: usize, home: usize| step / 100 % 2 == home % 2;
    assert_eq!(newcomers_beside(&homes, "[2003:e5:77::5]", in_turn), 30, "in turn");
    let elsewhere = (0..4).flat_map(|provider| [1, 2].map(|home| format!("[2a0{provider}:e5:{home}::9]")));
    let elsewhere: Vec<String> = elsewhere.collect();
    let in_turn = |step: usize, home: usize| step / 100 % 2 == home % 2;
    assert_eq!(
        newcomers_beside(&elsewhere, "203.0.113.5", in_turn),
        30,
        "two homes of each of four providers, in turn"
    );
}

/// The same for guesses at sites of the school's provider and of others at the same time.
#[test]
fn guesses_of_its_providers_customers_and_of_others_do_not_lock_out_a_school() {
    let of_provider = (1..=14).map(|home| format!("[2003:e5:{home}::9]"));
    let of_others = (1..=14).map(|provider| format!("[2a00:{provider}:1::9]"));
    let all: Vec<String> = of_provider.chain(of_others).collect();
    assert_eq!(newcomers_beside(&all, "[2003:e5:77::5]", |_, _| true), 30);
}

/// Tries of a client with an allocation for another name: they use up nothing of its source, and its own requests go on.
#[test]
fn a_client_with_an_allocation_repeats_no_search() {
    let mut rig = with_many_secrets(|_| {});
    for transport in [Transport::Udp, Transport::Tcp] {
        let from = client_at(transport, "203.0.113.5:7000");
        let known = good(&mut rig, from, 0);
        assert_eq!(rig.ask(&known, Msg::allocate()).code(), 0);
        use_up_searches(&mut rig, Transport::Tcp);
        let other = User { name: format!("{}:w_other", UNIX + 100), ..good(&mut rig, from, 1) };
        let request = other.seal(Msg::request(REFRESH)).bytes();
        assert_eq!(rig.silent(&from, &request), DropReason::SearchDeferred);
        let deferred = rig.dropped(DropReason::SearchDeferred);
        for _ in 0..40 {
            assert_eq!(rig.silent(&from, &request), DropReason::Throttled);
        }
        assert_eq!(rig.dropped(DropReason::SearchDeferred), deferred);
        assert_eq!(rig.refresh(&known, 600).code(), 0, "over {transport:?}");
        rig.wait(3);
    }
}

/// A change of addresses, of this machine or of peers, keeps the cached names; a change of secrets clears them.
#[test]
fn names_stay_known_when_addresses_change() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let known = good(&mut rig, client(1), 0);
    let others = [39, 38].map(|n| good(&mut rig, client(n as u16), n));
    for user in [&known, &others[0], &others[1]] {
        assert_eq!(rig.ask(user, Msg::allocate()).code(), 0);
        assert_eq!(rig.refresh(user, 0).code(), 0);
    }
    let ask = |rig: &mut Rig, user: &User| {
        let answer = rig.exchange(&user.at, &user.seal(Msg::request(REFRESH)).bytes());
        answer.map(|answer| answer.code())
    };
    // Until the source's budget for searches is used up.
    let mut n = 0;
    let mut search = |rig: &mut Rig| {
        n += 1;
        let newcomer = good(rig, client(1000 + n as u16), n);
        ask(rig, &newcomer)
    };
    while search(&mut rig).is_some() {}
    rig.reload(|settings| {
        settings.peers.own.push("192.0.2.200/32".parse().expect("literal"));
        settings.hosts[1].peers = None;
    });
    assert_eq!((search(&mut rig), ask(&mut rig, &known)), (None, Some(437)));
    // Secrets that verified last at the source need no search: the other two are these now.
    assert_eq!(others.each_ref().map(|user| ask(&mut rig, user)), [Some(437); 2]);
    rig.reload(|settings| settings.hosts[0].secrets.push("one more".into()));
    assert_eq!(ask(&mut rig, &known), None);
}

/// Wrong guesses are remembered for half a minute in a separate table, so many guessing sources do not fill the tables of
/// others.
#[test]
fn wrong_guesses_do_not_fill_the_tables_of_others() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    for n in 0..20_000 {
        let from = client_at(Transport::Udp, &format!("100.{}.{}.9:1", n / 256, n % 256));
        assert_eq!(guess(&mut rig, from, UNIX + 100), Some(401));
        if n % 2000 == 0 {
            rig.wait(1);
        }
    }
    let newcomer = |n: &u32| client_at(Transport::Udp, &format!("101.{}.{}.9:1", n / 256, n % 256));
    let served = |n: &u32| rig.exchange(&newcomer(n), &Msg::allocate().bytes()).is_some();
    assert_eq!((0..1000).filter(served).count(), 1000);
    assert_eq!(rig.refresh(&alice, 600).code(), 0);
}

/// A successful search costs as much as a failed one: thousands of valid names of one user do not make the server
/// search without limit, and their source does not count as guessing.
#[test]
fn searches_that_succeed_are_counted() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    // Every request has another expiry, so none of the names is cached.
    let mut end = UNIX + 100;
    let mut searched = |rig: &mut Rig, from: Client| {
        let found = |_: &u64| {
            end += 1;
            let user = rig.rest(from, &format!("secret {}", 399 - end % 40), &format!("{end}:w_one"));
            rig.exchange(&from, &user.seal(Msg::request(REFRESH)).bytes()).is_some()
        };
        (0..1000).take_while(found).count()
    };
    let of_source = searched(&mut rig, client(2));
    assert!((25..=50).contains(&of_source), "{of_source} searches of 0.6 ms in 20 ms a second");
    assert_eq!(rig.dropped(DropReason::SearchDeferred), 1);
    let wrong = rig.rest(client(3), "wrong", &format!("{}:w_guess", UNIX + 100)).seal(Msg::allocate());
    let reason = rig.silent(&client(3), &wrong.bytes());
    assert_eq!(
        reason,
        DropReason::SearchDeferred,
        "its source did not count as guessing, which has another budget"
    );
    // Other sources have their own budget, until the user has used its requests.
    let other = |n: usize| client_at(Transport::Udp, &format!("203.0.{n}.9:1"));
    let all: usize = (0..50).map(|n| searched(&mut rig, other(n))).sum();
    assert!((30..=80).contains(&all), "{all} searches");
    assert!(rig.dropped(DropReason::RequestsOverRate) > 40, "each source tried once more");
}

/// Without an allocation, requests above the limit of a user count for the source.
#[test]
fn requests_over_the_limit_of_a_user_count_for_the_source() {
    let mut rig = Rig::with(|settings| settings.limits.requests_per_user = 10);
    let alice = rig.alice();
    let request = alice.seal(Msg::request(REFRESH)).bytes();
    assert_eq!((0..2000).filter(|_| rig.exchange(&alice.at, &request).is_some()).count(), 10);
    assert_eq!(rig.dropped(DropReason::RequestsOverRate), 499, "alice's own 401 was the first of 500");
    assert_eq!(rig.dropped(DropReason::Throttled), 2000 - 10 - 499);
}

/// A request whose search exceeds the budget counts like any other unauthenticated request.
#[test]
fn requests_beyond_the_search_budget_are_counted() {
    let mut rig = with_many_secrets(|_| {});
    let mut answered = 0;
    for port in 10_000..10_240 {
        answered += usize::from(guess(&mut rig, client(port), UNIX + 100).is_some());
    }
    assert!((10..=50).contains(&answered), "{answered}");
    assert!(rig.dropped(DropReason::SearchDeferred) > 100);
    // Each of them needed two of the 500 requests of its source.
    let served = |_: &u32| rig.exchange(&client(9_999), &Msg::allocate().bytes()).is_some();
    assert_eq!((0..100).filter(served).count(), 20);
}

/// Uses up the searches of the source of these clients, each of which has another port.
fn use_up_searches(rig: &mut Rig, transport: Transport) {
    for port in 50_000..50_200 {
        let from = client_at(transport, &format!("203.0.113.5:{port}"));
        guess(rig, from, UNIX + 100);
    }
}

/// A school has one or two hosts. Somebody behind its address that uses up its searches does not keep out newcomers of these,
/// over any transport. What is remembered survives a reload, and a secret that the reload removes does not.
#[test]
fn secrets_that_verified_lately_at_a_source_need_no_search() {
    let mut rig = with_many_secrets(|settings| settings.limits.unauthenticated_per_source = 0);
    let newcomer = |rig: &mut Rig, transport, port: u16, secret: &str| {
        let from = client_at(transport, &format!("203.0.113.5:{port}"));
        let user = rig.rest(from, secret, &format!("{}:w_{port}", UNIX + 100));
        rig.exchange(&from, &user.seal(Msg::allocate()).bytes()).map(|answer| answer.code())
    };
    for (port, secret) in [(1, "secret 398"), (2, "secret 399")] {
        assert_eq!(newcomer(&mut rig, Transport::Udp, port, secret), Some(0));
    }
    use_up_searches(&mut rig, Transport::Tcp);
    let mut port = 100;
    for transport in Transport::ALL {
        for secret in ["secret 399", "secret 398", "secret 399"] {
            port += 1;
            assert_eq!(newcomer(&mut rig, transport, port, secret), Some(0), "{secret} over {transport:?}");
        }
    }
    assert_eq!(newcomer(&mut rig, Transport::Tls, 200, "secret 397"), None, "not used there before");
    assert_eq!(
        newcomer(&mut rig, Transport::Tls, 201, "wrong"),
        None,
        "no guess is answered without a search"
    );
    rig.reload(|settings| settings.hosts[0].secrets.push("one more".into()));
    assert_eq!(newcomer(&mut rig, Transport::Tls, 202, "secret 399"), Some(0), "after a reload");
    rig.reload(|settings| settings.hosts[0].secrets.retain(|secret| secret != "secret 399"));
    assert_eq!(newcomer(&mut rig, Transport::Tls, 203, "secret 399"), None, "it is removed");
    rig.reload(|settings| settings.hosts[0].revoked.push("secret 398".into()));
    assert_eq!(newcomer(&mut rig, Transport::Tls, 204, "secret 398"), None, "it is revoked");
    rig.wait(3);
    assert_eq!(newcomer(&mut rig, Transport::Tls, 205, "secret 399"), Some(401));
    assert_eq!(newcomer(&mut rig, Transport::Tls, 206, "secret 398"), Some(401));
}

/// Trying again at once gains nothing: it is dropped, and counts neither for the source nor as another deferral. Clients wait for
/// 0.2 s or more before they repeat a request.
#[test]
fn a_deferred_client_is_not_heard_again_within_a_sixth_of_a_second() {
    let mut rig = with_many_secrets(|_| {});
    let known = good(&mut rig, client(1), 0);
    assert_eq!(rig.ask(&known, Msg::allocate()).code(), 0);
    use_up_searches(&mut rig, Transport::Tcp);
    let newcomer = good(&mut rig, client_at(Transport::Tcp, "203.0.113.5:60000"), 1);
    let request = newcomer.seal(Msg::allocate()).bytes();
    assert_eq!(rig.silent(&newcomer.at, &request), DropReason::SearchDeferred);
    let deferred = rig.dropped(DropReason::SearchDeferred);
    for _ in 0..10_000 {
        assert_eq!(rig.silent(&newcomer.at, &request), DropReason::Throttled);
    }
    assert_eq!(rig.dropped(DropReason::SearchDeferred), deferred);
    assert_eq!(rig.bare(&newcomer.at, &Msg::request(BINDING)).code(), 0, "Bindings are answered");
    let other = client_at(Transport::Tcp, "203.0.113.5:60001");
    assert_eq!(rig.bare(&other, &Msg::allocate()).code(), 401, "the source has requests left");
    assert_eq!(rig.refresh(&known, 600).code(), 0);
    rig.now.instant = rig.now.instant + Duration::from_millis(190);
    assert!(rig.exchange(&newcomer.at, &request).is_some(), "its first repetition");
}
