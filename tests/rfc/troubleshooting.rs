//! `docs/troubleshooting.md` has every text that the log has for a refusal.

use std::collections::BTreeSet;

use hallpass::base::family::Family;
use hallpass::turn::identity::near_miss::{Difference, NearMiss};
use hallpass::turn::identity::peer_policy::denial::Denial;
use hallpass::turn::identity::refusal::Reason;

const PAGE: &str = include_str!("../../docs/troubleshooting.md");

/// Texts of a reason that the code chooses among, from its source: each `what` in quotes.
fn choices(source: &str, marks: &[&str]) -> Vec<String> {
    let quoted = |rest: &str| rest.split('"').nth(1).map(str::to_owned);
    let after = |mark: &&str| -> Vec<String> { source.split(mark).skip(1).filter_map(quoted).collect() };
    marks.iter().flat_map(after).collect()
}

/// One of each reason, with 7 for every number, and every text that it may have.
fn every_reason() -> Vec<Reason> {
    let (peer, family) = ("192.0.2.1".parse().expect("literal"), Some(Family::V6));
    let mut all = vec![
        Reason::FirstRequest,
        Reason::ExpiredNonce,
        Reason::ForeignNonce,
        Reason::WrongPassword { secrets: 7 },
        Reason::WrongPassword { secrets: 0 },
        Reason::FarExpiry { secrets: 7, days: 7 },
        Reason::FarExpiry { secrets: 7, days: 7_000_000 },
        Reason::ExpiredName { seconds: 7 },
        Reason::MalformedName { is_swapped: false },
        Reason::MalformedName { is_swapped: true },
        Reason::UnknownUser,
        Reason::UnknownRealm,
        Reason::MalformedCredentials,
        Reason::UnknownAttribute,
        Reason::UnsupportedTransport,
        Reason::NoAllocation,
        Reason::HasAllocation,
        Reason::NotOwner,
        Reason::NoFamily { family },
        Reason::NoFamily { family: None },
        Reason::NoAddress,
        Reason::PeerFamily { peer },
        Reason::AllocationFamily,
        Reason::PeerDenied { peer, denial: Denial::NotListed },
        Reason::Withdrawn { peer },
        Reason::UserAllocations { limit: 7 },
        Reason::FewPorts { held: 7 },
        Reason::HostAllocations { limit: 7 },
        Reason::TotalAllocations { limit: 7 },
        Reason::Permissions { limit: 7 },
        Reason::Channels { limit: 7 },
        Reason::UserPermissions { limit: 7 },
        Reason::Memory,
        Reason::NoPort,
        Reason::NoSocket,
        Reason::NoReservation,
        Reason::Draining,
        Reason::Alternate,
    ];
    let requests = [
        include_str!("../../src/turn/request/mod.rs"),
        include_str!("../../src/turn/request/allocate.rs"),
        include_str!("../../src/turn/request/channel.rs"),
        include_str!("../../src/turn/request/permission.rs"),
    ];
    let malformed =
        requests.iter().flat_map(|source| choices(source, &["malformed(", "Reason::Malformed { what:"]));
    let answer = include_str!("../../src/turn/request/answer.rs");
    let over_rate = answer.split("fn drop_over_rate").nth(1).and_then(|rest| rest.split("note(").next());
    let over_rate = choices(over_rate.expect("the function"), &["=>"]);
    assert_eq!(over_rate.len(), 3, "{over_rate:?}");
    // The texts live as long as the program, as those of the server do.
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    all.extend(malformed.map(|what| Reason::Malformed { what: leak(what) }));
    all.extend(over_rate.into_iter().map(|what| Reason::RateLimited { what: leak(what) }));
    all
}

/// Every text that the log has for a refusal is in the page, with its code and the next step, and no other.
#[test]
fn the_page_has_every_text_of_every_reason() {
    let table = PAGE.split("| reason | code | the log says | next step |\n").nth(1).expect("the table");
    let documented: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    let mut expected: Vec<String> = every_reason()
        .iter()
        .map(|reason| {
            let code = reason.code().map_or_else(|| "none".to_owned(), |code| code.number().to_string());
            let text =
                reason.to_string().replace("7000000", "N").replace('7', "N").replace("192.0.2.1", "ADDRESS");
            let text = text.replace(&Denial::NotListed.to_string(), "RULE");
            format!("| `{}` | {code} | {text} | {} |", reason.name(), reason.next_step())
        })
        .collect();
    expected.sort();
    expected.dedup();
    let names = |rows: &[String]| -> BTreeSet<String> {
        rows.iter().filter_map(|row| row.split('`').nth(1).map(str::to_owned)).collect()
    };
    let all: BTreeSet<String> = Reason::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(names(&expected), all, "add the new reason to every_reason()");
    let missing: Vec<_> = expected.iter().filter(|row| !documented.contains(&row.as_str())).collect();
    assert!(missing.is_empty(), "missing in docs/troubleshooting.md:\n{missing:#?}");
    let others: Vec<_> =
        documented.iter().filter(|row| !expected.iter().any(|known| known == *row)).collect();
    assert!(
        others.is_empty(),
        "docs/troubleshooting.md has rows that the program does not print:\n{others:#?}"
    );
    for rule in [
        Denial::NotListed,
        Denial::Denied("192.0.2.0/24".parse().expect("literal")),
        Denial::Closed("private addresses"),
        Denial::Own,
        Denial::Service,
    ] {
        let text = rule.to_string().replace('`', "'");
        assert!(PAGE.contains(&format!("| `{text}` |")), "no rule {text:?} in docs/troubleshooting.md");
    }
    for difference in [
        Difference::LacksEquals,
        Difference::MoreEquals,
        Difference::Newline,
        Difference::CarriageReturn,
        Difference::Quoted,
        Difference::Decoded,
    ] {
        let text = NearMiss { host: "HOST".into(), difference }.to_string();
        assert!(PAGE.contains(&format!("- *{text}*\n")), "no {text:?} in docs/troubleshooting.md");
    }
}
