//! RFC 8656 sections 5 to 7: Allocate, step by step.

use std::collections::HashSet;
use std::sync::Arc;

use hallpass::base::family::DefaultFamily;
use hallpass::base::host::HostId;
use hallpass::base::transport::Transport;
use hallpass::turn::action::{EndReason, OpenError};
use hallpass::turn::address::OnWire;
use hallpass::turn::identity::account::Account;
use hallpass::turn::settings::RelayAddress;

use crate::codec::*;
use crate::rig::*;

const TCP: [u8; 4] = [6, 0, 0, 0];
const EVEN: &[u8] = &[0];
const PAIR: &[u8] = &[0x80];

fn bare_allocate() -> Msg {
    Msg::request(ALLOCATE)
}

/// Returns the code of one Allocate to a new server, which must keep nothing of a refused one.
fn code(message: Msg) -> u16 {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let code = rig.ask(&alice, message).code();
    if code != 0 {
        assert_eq!(rig.held(), (0, 0, 0), "nothing of a refused request remains");
    }
    code
}

/// RFC 8656 section 7.2: the answer, attribute by attribute.
#[test]
fn s7_2_success_has_relayed_address_lifetime_and_mapped_address() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig.ask(&alice, Msg::allocate());
    assert_eq!((answer.class, answer.method), (SUCCESS, ALLOCATE));
    let relayed = answer.address(XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.ip().to_string(), RELAY4);
    assert_eq!(rig.asked, [relayed], "bound before the answer");
    assert_eq!(answer.address(XOR_MAPPED_ADDRESS), alice.at.five_tuple.client);
    assert_eq!(answer.secs(), 600);
    assert!(!answer.has(RESERVATION_TOKEN) && !answer.has(ADDRESS_ERROR_CODE));
    assert_eq!(rig.held(), (1, 1, 1));
}

/// RFC 8656 section 7.2: the success response is sent only once the socket is open.
#[test]
fn s7_2_success_is_answered_only_when_the_socket_is_open() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.hold = true;
    let request = alice.seal(Msg::allocate()).bytes();
    assert!(rig.exchange(&alice.at, &request).is_none());
    assert!(rig.exchange(&alice.at, &request).is_none(), "a retransmission waits with it");
    let answer = rig.open_pending().expect("the answer");
    check_signed(&alice, &answer);
    assert_eq!((answer.code(), answer.tid[..] == request[8..20]), (0, true));
}

/// RFC 8656 section 7.2, step 2; section 5: 437 and never 441, for any user.
#[test]
fn s7_2_step_2_five_tuple_in_use_is_437() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 437);
    let bob = rig.login(alice.at, "bob", "bob-pw", Style::Old);
    assert_eq!(rig.ask(&bob, Msg::allocate()).code(), 437);
    // 437 comes before the checks of the request itself (steps 3 to 10).
    assert_eq!(rig.ask(&alice, bare_allocate()).code(), 437);
    assert_eq!(rig.ask(&alice, bare_allocate().attr(REQUESTED_TRANSPORT, &[17])).code(), 437);
    assert_eq!(rig.held(), (1, 1, 1));
}

/// RFC 8656 section 6: the transport is part of the five-tuple.
#[test]
fn s6_one_port_over_udp_tcp_and_tls_has_three_allocations() {
    let mut rig = Rig::new();
    let mut relayed = HashSet::new();
    for transport in Transport::ALL {
        let alice = rig.alice_at(client_at(transport, "203.0.113.5:40000"));
        assert!(relayed.insert(rig.ask(&alice, Msg::allocate()).address(XOR_RELAYED_ADDRESS)));
    }
    assert_eq!(rig.server.allocations(), 3);
}

/// RFC 8656 section 7.2, step 3.
#[test]
fn s7_2_step_3_requested_transport() {
    assert_eq!(code(bare_allocate()), 400, "missing");
    for malformed in [&[][..], &[17], &[17, 0, 0], &[17, 0, 0, 0, 0]] {
        assert_eq!(code(bare_allocate().attr(REQUESTED_TRANSPORT, malformed)), 400, "{malformed:?}");
    }
    for other in [TCP, [0, 0, 0, 0], [1, 0, 0, 0], [255, 0, 0, 0]] {
        assert_eq!(code(bare_allocate().attr(REQUESTED_TRANSPORT, &other)), 442, "{other:?}");
    }
    // Section 18.8: RFFU is ignored.
    assert_eq!(code(bare_allocate().attr(REQUESTED_TRANSPORT, &[17, 0xff, 0xff, 0xff])), 0);
}

/// RFC 8656 section 7.2, step 4: the server can set DF, so DONT-FRAGMENT is accepted.
#[test]
fn s7_2_step_4_dont_fragment_is_accepted() {
    assert_eq!(code(Msg::allocate().attr(DONT_FRAGMENT, b"")), 0);
    assert_eq!(code(Msg::allocate().attr(DONT_FRAGMENT, b"").attr(REQUESTED_FAMILY, &V6)), 0);
}

/// RFC 8656 section 7.2, step 5.
#[test]
fn s7_2_step_5_reservation_token_with_conflicting_attributes_is_400() {
    let token = || Msg::allocate().attr(RESERVATION_TOKEN, &[1; 8]);
    assert_eq!(code(token().attr(EVEN_PORT, EVEN)), 400);
    assert_eq!(code(token().attr(EVEN_PORT, PAIR)), 400);
    assert_eq!(code(token().attr(REQUESTED_FAMILY, &V4)), 400);
    assert_eq!(code(token().attr(ADDITIONAL_FAMILY, &V6)), 400);
    for length in [0, 7, 9] {
        let malformed = Msg::allocate().attr(RESERVATION_TOKEN, &[1; 9][..length]);
        assert_eq!(code(malformed), 400, "section 18.10: eight bytes, not {length}");
    }
    assert_eq!(code(token()), 508, "unknown");
}

/// RFC 8656 section 7.2, steps 6 and 9.
#[test]
fn s7_2_step_6_both_family_attributes_are_400() {
    let both = Msg::allocate().attr(REQUESTED_FAMILY, &V4).attr(ADDITIONAL_FAMILY, &V6);
    assert_eq!(code(both), 400);
    assert_eq!(
        code(Msg::allocate().attr(ADDITIONAL_FAMILY, &V4)),
        400,
        "step 9: IPv6 is the only additional family"
    );
    assert_eq!(code(Msg::allocate().attr(ADDITIONAL_FAMILY, &[3, 0, 0, 0])), 400);
    assert_eq!(code(Msg::allocate().attr(ADDITIONAL_FAMILY, &[2])), 400);
}

/// RFC 8656 section 7.2, step 7; section 18.6: reserved bits are ignored.
#[test]
fn s7_2_step_7_the_requested_family() {
    for (family, is_v4) in
        [(None, true), (Some([1, 0xff, 0xff, 0xff]), true), (Some([2, 0xff, 0xff, 0xff]), false)]
    {
        let mut rig = Rig::new();
        let alice = rig.alice();
        let request =
            family.iter().fold(Msg::allocate(), |request, family| request.attr(REQUESTED_FAMILY, family));
        assert_eq!(rig.ask(&alice, request).address(XOR_RELAYED_ADDRESS).is_ipv4(), is_v4, "{family:?}");
    }
    for unknown in [[0, 0, 0, 0], [3, 0, 0, 0], [255, 0, 0, 0]] {
        assert_eq!(code(Msg::allocate().attr(REQUESTED_FAMILY, &unknown)), 440, "{unknown:?}");
    }
    assert_eq!(code(Msg::allocate().attr(REQUESTED_FAMILY, &[2])), 400, "malformed");
}

/// RFC 8656 section 7.2, step 7: 440 for an unavailable family; a client that requests none does not get IPv6 instead.
#[test]
fn s7_2_step_7_an_unavailable_family_is_440() {
    let mut rig = Rig::with(|settings| settings.relay_addresses.retain(|relay| relay.local.is_ipv4()));
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(REQUESTED_FAMILY, &V6)).code(), 440);
    let mut rig = Rig::with(|settings| settings.relay_addresses.retain(|relay| relay.local.is_ipv6()));
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 440);
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(REQUESTED_FAMILY, &V4)).code(), 440);
    assert_eq!(rig.held(), (0, 0, 0));
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(REQUESTED_FAMILY, &V6)).code(), 0);
}

/// `default_family` applies to clients that request no family, and to those only. If IPv6 is preferred but not available,
/// they get IPv4.
#[test]
fn s7_2_step_7_the_default_family() {
    let clients = ["203.0.113.5:40000", "[2001:db8:9::7]:40000"];
    for (default_family, expected) in [
        (DefaultFamily::V4, [true, true]),
        (DefaultFamily::V6, [false, false]),
        (DefaultFamily::Client, [true, false]),
    ] {
        for (at, is_v4) in clients.into_iter().zip(expected) {
            let relayed = |message: Msg, is_offered: fn(&RelayAddress) -> bool| {
                let mut rig = Rig::with(|settings| {
                    settings.default_family = default_family;
                    settings.relay_addresses.retain(is_offered);
                });
                let alice = rig.alice_at(client_at(Transport::Udp, at));
                let answer = rig.ask(&alice, message);
                match answer.code() {
                    0 => Ok(answer.addresses(XOR_RELAYED_ADDRESS).iter().map(|a| a.is_ipv4()).collect()),
                    code => Err(code),
                }
            };
            let what = format!("{default_family:?}, {at}");
            assert_eq!(relayed(Msg::allocate(), |_| true), Ok(vec![is_v4]), "{what}");
            assert_eq!(
                relayed(Msg::allocate().attr(EVEN_PORT, &[0x80]), |_| true),
                Ok(vec![is_v4]),
                "{what}"
            );
            for (family, is_v4) in [(V4, true), (V6, false)] {
                let named = Msg::allocate().attr(REQUESTED_FAMILY, &family);
                assert_eq!(relayed(named, |_| true), Ok(vec![is_v4]), "{what}");
            }
            let both = Msg::allocate().attr(ADDITIONAL_FAMILY, &V6);
            assert_eq!(relayed(both, |_| true), Ok(vec![true, false]), "{what}");
            assert_eq!(relayed(Msg::allocate(), |relay| relay.local.is_ipv4()), Ok(vec![true]), "{what}");
            let without_v4 = relayed(Msg::allocate(), |relay| relay.local.is_ipv6());
            assert_eq!(without_v4, if is_v4 { Err(440) } else { Ok(vec![false]) }, "{what}");
        }
    }
}

/// RFC 8656 section 5: a client of either family can have a relayed address of either family.
#[test]
fn s5_every_pair_of_families_is_relayed() {
    for at in ["203.0.113.5:40000", "[2001:db8:9::7]:40000"] {
        for (family, peer) in [(V4, PEER), (V6, PEER6)] {
            let mut rig = Rig::new();
            let alice = rig.alice_at(client_at(Transport::Udp, at));
            assert_eq!(rig.ask(&alice, Msg::allocate().attr(REQUESTED_FAMILY, &family)).code(), 0);
            assert_eq!(rig.permit(&alice, &[peer]), 0);
            assert_eq!(rig.send(&alice, peer, b"x").expect("relayed").to, addr(peer));
            assert_eq!(rig.data_from_peer(peer, b"y").expect("relayed").0, alice.at);
        }
    }
}

/// RFC 8656 section 7.2, step 8, and section 18.7: an even port and no reservation.
#[test]
fn s7_2_step_8_even_port_with_r_0() {
    for port in 1..40 {
        let mut rig = Rig::new();
        let alice = rig.alice_at(client(port));
        let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, &[0x7f]));
        assert_eq!(answer.address(XOR_RELAYED_ADDRESS).port() % 2, 0);
        assert!(!answer.has(RESERVATION_TOKEN), "RFFU is ignored, R is 0");
        assert_eq!(rig.held(), (1, 1, 1));
        assert_eq!(rig.refresh(&alice, 0).code(), 0);
        assert_eq!(rig.held(), (0, 0, 0));
    }
}

/// RFC 8656 section 7.2, step 8: an even port, the next one reserved, and a token for it.
#[test]
fn s7_2_step_8_even_port_with_r_1_reserves_the_next() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR));
    let even = answer.address(XOR_RELAYED_ADDRESS);
    assert_eq!(even.port() % 2, 0);
    let token = answer.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
    assert_eq!((token.len(), rig.held()), (8, (1, 2, 2)), "a reserved port has a place in the quota");
    // Another five-tuple, transport and user redeems it, with its own lifetime and DONT-FRAGMENT.
    let bob = rig.login(client_at(Transport::Tls, "203.0.113.9:555"), "bob", "bob-pw", Style::Old);
    let request = || Msg::allocate().attr(RESERVATION_TOKEN, &token);
    let answer = rig.ask(&bob, request().lifetime(900).attr(DONT_FRAGMENT, b""));
    let odd = answer.address(XOR_RELAYED_ADDRESS);
    assert_eq!((odd.ip(), odd.port(), answer.secs()), (even.ip(), even.port() + 1, 900));
    assert!(!answer.has(RESERVATION_TOKEN));
    // Once only.
    let carol = rig.alice_at(client(3));
    assert_eq!(rig.ask(&carol, request()).code(), 508);
    // After the reservation would have ended, both allocations are alive.
    rig.wait(40);
    assert_eq!(rig.held(), (2, 2, 2));
    assert_eq!((rig.refresh(&alice, 0).code(), rig.refresh(&bob, 0).code()), (0, 0));
    assert_eq!(rig.held(), (0, 0, 0));
}

/// RFC 8656 section 7.2: a reservation lasts 30 seconds, then its port is free.
#[test]
fn s7_2_a_reservation_lasts_30_seconds_and_frees_its_port() {
    let pair = |rig: &mut Rig| {
        let alice = rig.alice();
        let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR));
        Msg::allocate().attr(RESERVATION_TOKEN, answer.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN"))
    };
    let mut rig = Rig::new();
    let request = pair(&mut rig);
    rig.wait(29);
    let bob = rig.alice_at(client(2));
    assert_eq!(rig.ask(&bob, request).code(), 0);
    let mut rig = Rig::new();
    let request = pair(&mut rig);
    // The token outlives the allocation that it was sent with.
    let alice = rig.alice();
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    assert_eq!(rig.held(), (0, 1, 1));
    rig.wait(30);
    assert_eq!(rig.held(), (0, 0, 0));
    assert_eq!(rig.ask(&alice, request).code(), 508);
}

/// RFC 8656 section 7.2, step 8.
#[test]
fn s7_2_step_8_an_unavailable_even_port_is_508() {
    assert_eq!(code(Msg::allocate().attr(EVEN_PORT, PAIR).attr(ADDITIONAL_FAMILY, &V6)), 400);
    for (range, pair) in [(50_001..=50_001, false), (50_001..=50_001, true), (50_000..=50_000, true)] {
        let mut rig = Rig::with(|settings| settings.relay_ports = range.clone());
        let alice = rig.alice();
        let value = if pair { PAIR } else { EVEN };
        assert_eq!(rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, value)).code(), 508, "{range:?}");
        assert_eq!(rig.held(), (0, 0, 0));
    }
    assert_eq!(code(Msg::allocate().attr(EVEN_PORT, &[0, 0])), 400, "malformed");
    // REQUESTED-ADDRESS-FAMILY is allowed with R = 1, ADDITIONAL-ADDRESS-FAMILY with R = 0.
    assert_eq!(code(Msg::allocate().attr(EVEN_PORT, PAIR).attr(REQUESTED_FAMILY, &V6)), 0);
    assert_eq!(code(Msg::allocate().attr(EVEN_PORT, EVEN).attr(ADDITIONAL_FAMILY, &V6)), 0);
}

/// RFC 8656 section 7.2, step 9: two relayed addresses, or one and an error code for the other, or none.
#[test]
fn s7_2_step_9_dual_allocations() {
    let dual = || Msg::allocate().attr(ADDITIONAL_FAMILY, &V6);
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig.ask(&alice, dual());
    let relayed = answer.addresses(XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.len(), 2);
    assert_ne!(relayed[0].is_ipv4(), relayed[1].is_ipv4());
    assert!(!answer.has(ADDRESS_ERROR_CODE));
    assert_eq!(rig.held(), (1, 2, 1));

    // The server lacks one family: 440 for it.
    for (is_v4, missing) in [(true, 2), (false, 1)] {
        let mut rig =
            Rig::with(|settings| settings.relay_addresses.retain(|relay| relay.local.is_ipv4() == is_v4));
        let alice = rig.alice();
        let answer = rig.ask(&alice, dual());
        assert_eq!(answer.address(XOR_RELAYED_ADDRESS).is_ipv4(), is_v4);
        let error = answer.get(ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE");
        assert_eq!(error[..4], [missing, 0, 4, 40], "section 18.12: reserved bits are zero");
        assert!(std::str::from_utf8(&error[4..]).expect("UTF-8").len() < 128);
    }

    // The socket of one family cannot be opened: 508 for it. Neither can: the request fails with 508.
    for (failures, missing) in
        [([Err(OpenError::Unavailable), Ok(())], 1), ([Ok(()), Err(OpenError::Unavailable)], 2)]
    {
        let mut rig = Rig::new();
        let alice = rig.alice();
        rig.failures.extend(failures);
        let answer = rig.ask(&alice, dual());
        assert_eq!(answer.address(XOR_RELAYED_ADDRESS).is_ipv6(), missing == 1);
        assert_eq!(answer.get(ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE")[..4], [missing, 0, 5, 8]);
        assert_eq!(rig.held(), (1, 1, 1));
        assert_eq!(rig.refresh(&alice, 0).code(), 0);
        assert_eq!(rig.held(), (0, 0, 0));
    }
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.failures.extend([Err(OpenError::Unavailable), Err(OpenError::Unavailable)]);
    assert_eq!(rig.ask(&alice, dual()).code(), 508);
    assert_eq!(rig.held(), (0, 0, 0));
    assert_eq!(rig.ask(&alice, dual()).code(), 0, "the five-tuple is free");
}

/// RFC 8656 section 7.2, step 9: no port left in one family.
#[test]
fn s7_2_step_9_ports_run_out_in_one_family() {
    let mut rig = Rig::with(|settings| settings.relay_ports = 50_000..=50_000);
    let first = rig.alice_at(client(1));
    assert_eq!(rig.ask(&first, Msg::allocate()).code(), 0);
    let second = rig.alice_at(client(2));
    let answer = rig.ask(&second, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6));
    assert!(answer.address(XOR_RELAYED_ADDRESS).is_ipv6());
    assert_eq!(answer.get(ADDRESS_ERROR_CODE).expect("ADDRESS-ERROR-CODE")[..4], [1, 0, 5, 8]);
    let third = rig.alice_at(client(3));
    assert_eq!(rig.ask(&third, Msg::allocate().attr(ADDITIONAL_FAMILY, &V6)).code(), 508, "neither");
    assert_eq!(rig.ask(&third, Msg::allocate()).code(), 508);
    assert_eq!(rig.held(), (2, 2, 2));
}

/// RFC 8656 section 7.2: in the order of the steps, the first failure is the answer.
#[test]
fn s7_2_checks_come_in_the_order_of_the_section() {
    let token = |message: Msg| message.attr(RESERVATION_TOKEN, &[1; 8]).attr(EVEN_PORT, PAIR);
    let unknown = |message: Msg| message.attr(0x7fff, b"");
    let family = |message: Msg| message.attr(REQUESTED_FAMILY, &[9, 0, 0, 0]);
    // 420 before 400; 442 before 400 of step 5; 400 of step 5 before 440 of step 7; 440 before 508 of step 8.
    assert_eq!(code(unknown(bare_allocate())), 420);
    assert_eq!(code(token(bare_allocate().attr(REQUESTED_TRANSPORT, &TCP))), 442);
    assert_eq!(code(family(token(Msg::allocate()))), 400);
    let mut rig = Rig::with(|settings| settings.relay_ports = 50_001..=50_001);
    let alice = rig.alice();
    assert_eq!(rig.ask(&alice, family(Msg::allocate()).attr(EVEN_PORT, PAIR)).code(), 440);
    // A malformed request is 400 and neither 486 nor 508, even if there is no room (section 7.4).
    let mut rig = Rig::with(|settings| {
        settings.limits.allocations_total = 1;
        settings.limits.allocations_per_user = 1;
    });
    rig.allocated();
    let again = rig.alice_at(client(2));
    assert_eq!(rig.ask(&again, bare_allocate()).code(), 400);
    assert_eq!(rig.ask(&again, Msg::allocate()).code(), 508);
}

/// RFC 8656 section 7.2: a lifetime is at least 600 seconds and at most the maximum.
#[test]
fn s7_2_lifetime_is_clamped() {
    for (wish, granted) in [
        (None, 600),
        (Some(0), 600),
        (Some(1), 600),
        (Some(601), 601),
        (Some(3600), 3600),
        (Some(u32::MAX), 3600),
    ] {
        let mut rig = Rig::new();
        let alice = rig.alice();
        let request = wish.iter().fold(Msg::allocate(), |request, &wish| request.lifetime(wish));
        assert_eq!(rig.ask(&alice, request).secs(), granted, "{wish:?}");
        rig.wait(u64::from(granted) - 1);
        assert_eq!(rig.server.allocations(), 1);
        rig.wait(1);
        assert_eq!(rig.held(), (0, 0, 0));
        assert!(rig.sockets.is_empty());
        assert_eq!(rig.sessions.pop().expect("ended").reason, EndReason::Expired);
    }
    assert_eq!(code(Msg::allocate().attr(LIFETIME, &[1, 2, 3])), 400, "malformed");
}

/// RFC 8656 sections 5 and 7.2: the same success response with the same token, and no second allocation.
#[test]
fn s7_2_a_retransmitted_allocate_gets_the_same_answer() {
    for request in [
        Msg::allocate(),
        Msg::allocate().attr(EVEN_PORT, PAIR),
        Msg::allocate().attr(ADDITIONAL_FAMILY, &V6),
        Msg::allocate().lifetime(1000),
    ] {
        let mut rig = Rig::new();
        let alice = rig.alice();
        let request = alice.seal(request);
        let first = rig.bare(&alice.at, &request);
        let held = rig.held();
        let second = rig.bare(&alice.at, &request);
        assert_eq!(first.bytes, second.bytes);
        rig.wait(3);
        let third = rig.bare(&alice.at, &request);
        for kind in [XOR_RELAYED_ADDRESS, XOR_MAPPED_ADDRESS] {
            assert_eq!(third.addresses(kind), first.addresses(kind));
        }
        assert_eq!(third.get(RESERVATION_TOKEN), first.get(RESERVATION_TOKEN));
        assert_eq!(third.secs() + 3, first.secs(), "the remaining lifetime");
        check_signed(&alice, &third);
        assert_eq!(rig.held(), held);
    }
}

/// RFC 8656 section 7.2: the server does not remember refusals; a repeated request is answered again and changes nothing.
#[test]
fn s7_2_a_retransmitted_refusal_does_no_harm() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let request = alice.seal(bare_allocate());
    assert_eq!(rig.bare(&alice.at, &request).bytes, rig.bare(&alice.at, &request).bytes);
    assert_eq!(rig.held(), (0, 0, 0));
    // A request with the transaction id of another user's Allocate does not get its answer.
    let alice = rig.allocated();
    let bob = rig.login(alice.at, "bob", "bob-pw", Style::Old);
    let mut stolen = Msg::allocate();
    stolen.tid = *b"stolen stole";
    let owner = rig.alice_at(client(2));
    assert_eq!(rig.ask(&owner, stolen.clone()).code(), 0);
    let thief = User { at: owner.at, ..rig.login(owner.at, &bob.name, &bob.password, Style::Old) };
    assert_eq!(rig.ask(&thief, stolen).code(), 437);
}

/// RFC 8656 section 7.2: a port that another program holds is replaced; an address that cannot be bound is 508.
#[test]
fn s7_2_a_port_in_use_elsewhere_is_replaced() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.failures.extend([Err(OpenError::InUse), Err(OpenError::InUse)]);
    let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR));
    let relayed = answer.address(XOR_RELAYED_ADDRESS);
    assert_eq!((rig.asked.len(), rig.asked.last()), (3, Some(&relayed)));
    assert_eq!(rig.asked.iter().collect::<HashSet<_>>().len(), 3, "none is tried twice");
    assert!(rig.asked.iter().all(|address| address.port() % 2 == 0));
    assert_eq!(rig.held(), (1, 2, 2), "the other ports were released");
    // All ports are in use: 508, and every port is released.
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.failures.extend([Err(OpenError::InUse); 1000]);
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR)).code(), 508);
    assert!(rig.asked.len() < 100, "bounded");
    assert_eq!(rig.held(), (0, 0, 0));
    let mut rig = Rig::with(|settings| settings.relay_ports = 50_000..=50_002);
    let alice = rig.alice();
    rig.failures.extend([Err(OpenError::InUse); 3]);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 508, "a small range");
    assert_eq!(rig.held(), (0, 0, 0));
    let mut rig = Rig::new();
    let alice = rig.alice();
    rig.failures.push_back(Err(OpenError::Unavailable));
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 508);
    assert_eq!((rig.asked.len(), rig.held()), (1, (0, 0, 0)));
}

/// A reserved port that another program has taken is lost: 508 (RFC 8656 section 7.2, step 5).
#[test]
fn s7_2_step_5_a_reserved_port_that_cannot_be_bound_is_508() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR));
    let token = answer.get(RESERVATION_TOKEN).expect("RESERVATION-TOKEN").to_vec();
    let bob = rig.alice_at(client(2));
    rig.failures.push_back(Err(OpenError::InUse));
    assert_eq!(rig.ask(&bob, Msg::allocate().attr(RESERVATION_TOKEN, &token)).code(), 508);
    assert_eq!(rig.held(), (1, 1, 1));
}

/// While an Allocate waits for its sockets there is no allocation yet: other requests get 437. If its client disconnects,
/// every port is released.
#[test]
fn s5_a_pending_allocation_does_not_exist_yet() {
    let mut rig = Rig::new();
    let alice = rig.alice_at(client_at(Transport::Tcp, "203.0.113.5:40000"));
    rig.hold = true;
    let request = alice.seal(Msg::allocate().attr(EVEN_PORT, PAIR)).bytes();
    assert!(rig.exchange(&alice.at, &request).is_none());
    assert_eq!(rig.refresh(&alice, 0).code(), 437);
    assert_eq!(rig.permit(&alice, &[PEER]), 437);
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 437);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 437);
    rig.server.handle_client_gone(rig.now, &alice.at, EndReason::Closed);
    assert!(rig.open_pending().is_none(), "its client is gone");
    assert_eq!(rig.held(), (0, 0, 0));
    assert!(rig.sessions.is_empty(), "it never began");
}

/// RFC 8656 sections 6 and 7.2: ports are unique, within the range, and in no order.
#[test]
fn s7_2_relayed_ports_are_unique_random_and_in_the_range() {
    let mut rig = Rig::new();
    let mut ports = Vec::new();
    for port in 1..=300 {
        let alice = rig.alice_at(client(port));
        ports.push(rig.ask(&alice, Msg::allocate()).address(XOR_RELAYED_ADDRESS).port());
    }
    assert!(ports.iter().all(|&port| port >= 49_152));
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 300);
    let rising = ports.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!((90..210).contains(&rising), "{rising} of 299 steps go up");
}

/// RFC 8656 sections 6 and 7.2: a new allocation has neither permissions nor channels of an earlier one.
#[test]
fn s7_2_a_new_allocation_begins_empty() {
    let mut rig = Rig::new();
    let alice = rig.allocated();
    assert_eq!(rig.bind(&alice, 0x4000, PEER), 0);
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    assert_eq!(rig.ask(&alice, Msg::allocate()).code(), 0);
    assert!(rig.send(&alice, PEER, b"x").is_err());
    assert!(rig.channel(&alice, 0x4000, b"x").is_err());
    assert!(rig.data_from_peer(PEER, b"x").is_err());
}

/// RFC 8656 section 5: requests without an allocation get 437, those of another user 441; indications and data are ignored.
#[test]
fn s5_requests_on_the_wrong_five_tuple() {
    let requests = || {
        [
            Msg::request(REFRESH),
            Msg::request(CREATE_PERMISSION).peer(PEER),
            Msg::request(CHANNEL_BIND).channel(0x4000).peer(PEER),
            // The user is checked before the content of the request.
            Msg::request(CREATE_PERMISSION),
            Msg::request(REFRESH).attr(LIFETIME, &[1]),
        ]
    };
    let mut rig = Rig::new();
    let alice = rig.alice();
    for request in requests() {
        assert_eq!(rig.ask(&alice, request).code(), 437);
    }
    assert!(rig.send(&alice, PEER, b"x").is_err());
    assert!(rig.channel(&alice, 0x4000, b"x").is_err());
    let alice = rig.allocated();
    assert_eq!(rig.permit(&alice, &[PEER]), 0);
    let bob = rig.login(alice.at, "bob", "bob-pw", Style::Old);
    for request in requests() {
        assert_eq!(rig.ask(&bob, request).code(), 441);
    }
    assert_eq!(rig.refresh(&bob, 0).code(), 441);
    assert!(rig.send(&alice, PEER, b"x").is_ok(), "untouched");
}

/// RFC 8656 section 7.2, step 8: if no port can be reserved, the request fails and leaves no state.
#[test]
fn s7_2_step_8_without_room_for_a_reservation_it_is_508() {
    let mut rig = Rig::new();
    let alice = rig.alice();
    let shared = Arc::clone(&rig.shared);
    let others = shared.ports.on([addr(PEER6).ip()], 1..=1);
    for n in 0..4096_u64 {
        let account = Account::User(n.to_string().into());
        let place = shared.quota.take(HostId(0), &account, &rig.settings.limits).expect("no limit");
        let ip = addr(PEER6).ip();
        others.reserve(rig.now.instant, n.to_be_bytes(), OnWire::new(ip, 1), place).expect("room");
    }
    let before = rig.held();
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR)).code(), 508);
    assert_eq!((rig.held(), rig.sockets.len(), rig.sessions.len()), (before, 0, 0));
    assert_eq!(rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, &[0])).code(), 0, "without a reservation");
    assert_eq!(rig.refresh(&alice, 0).code(), 0);
    others.cancel(&0_u64.to_be_bytes());
    let answer = rig.ask(&alice, Msg::allocate().attr(EVEN_PORT, PAIR));
    assert!(answer.code() == 0 && answer.has(RESERVATION_TOKEN));
}
