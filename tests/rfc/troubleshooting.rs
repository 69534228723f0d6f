//! `docs/troubleshooting.md` has every text that the log has for a refusal.

use std::collections::BTreeSet;

use hallpass::base::family::Family;
use hallpass::turn::identity::explanation::Explanation;
use hallpass::turn::identity::near_miss::{Difference, NearMiss};
use hallpass::turn::identity::peer_policy::denial::Denial;
use hallpass::turn::identity::rate_limit::RateLimit;
use hallpass::turn::identity::refusal::{Reason, Withdrawal};
use hallpass::turn::identity::rest::Misshapen;

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
        Reason::OtherPassword,
        Reason::FarExpiry { secrets: 7, days: 7 },
        Reason::FarExpiry { secrets: 7, days: 7_000_000 },
        Reason::ExpiredName { seconds: 7 },
        Reason::LifetimeName { lifetime: 7 },
        Reason::UnknownUser,
        Reason::UnknownRealm,
        Reason::MalformedCredentials,
        Reason::UnknownAttribute,
        Reason::UnsupportedTransport,
        Reason::NoAllocation,
        Reason::HasAllocation,
        Reason::NotOwner { is_same_user: false },
        Reason::NotOwner { is_same_user: true },
        Reason::NoFamily { family, is_default: false },
        Reason::NoFamily { family: Some(Family::V4), is_default: false },
        Reason::NoFamily { family: Some(Family::V4), is_default: true },
        Reason::NoFamily { family: None, is_default: false },
        Reason::NoAddress,
        Reason::PeerFamily { peer },
        Reason::AllocationFamily,
        Reason::UserAllocations { limit: 7 },
        Reason::FewPorts { held: 7 },
        Reason::HostAllocations { limit: 7 },
        Reason::TotalAllocations { limit: 7 },
        Reason::Permissions { limit: 7 },
        Reason::Channels { limit: 7 },
        Reason::UserPermissions { limit: 7 },
        Reason::Memory,
        Reason::NoPort { foreign: false },
        Reason::NoPort { foreign: true },
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
    // The texts live as long as the program, as those of the server do.
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    all.extend(malformed.map(|what| Reason::Malformed { what: leak(what) }));
    let limits = [
        RateLimit::Source(7),
        RateLimit::SourceBindings(7),
        RateLimit::Client(50),
        RateLimit::ClientBindings(100),
        RateLimit::Repetition(166),
    ];
    let others =
        [RateLimit::User(7), RateLimit::UserBindings(7), RateLimit::SourceSearch(7), RateLimit::Search(7)];
    all.extend(limits.into_iter().chain(others).map(|limit| Reason::RateLimited { limit }));
    let shapes = [Misshapen::NoTime, Misshapen::Swapped, Misshapen::Blank, Misshapen::Encoded];
    all.extend(shapes.map(|shape| Reason::MalformedName { shape }));
    let whys = [Withdrawal::Expired, Withdrawal::SecretRemoved, Withdrawal::PasswordChanged];
    all.extend(whys.map(|why| Reason::Withdrawn { peer, why }));
    all.extend(denials().map(|denial| Reason::PeerDenied { peer, denial }));
    all
}

/// One of each rule that denies a peer.
fn denials() -> [Denial; 7] {
    [
        Denial::NotListed,
        Denial::Denied("198.51.100.0/24".parse().expect("literal")),
        Denial::Closed("private addresses"),
        Denial::TooBroad("private addresses"),
        Denial::Own,
        Denial::NotRelayed,
        Denial::Service,
    ]
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
            let text = denials().iter().fold(text, |text, denial| text.replace(&denial.to_string(), "RULE"));
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
    for rule in denials() {
        let text = rule.to_string().replace('`', "'");
        assert!(PAGE.contains(&format!("| `{text}` |")), "no rule {text:?} in docs/troubleshooting.md");
    }
    let nearly = [
        Difference::LacksEquals,
        Difference::MoreEquals,
        Difference::Newline,
        Difference::CarriageReturn,
        Difference::CrLf,
        Difference::TrailingBlank,
        Difference::LeadingBlank,
        Difference::ByteOrderMark,
        Difference::Quoted,
        Difference::UrlEncoded,
        Difference::Encoded,
        Difference::Decoded,
        Difference::Sha256,
    ];
    let nearly = nearly.map(|difference| Explanation::Nearly(NearMiss { host: "HOST".into(), difference }));
    let others = [
        Explanation::Current,
        Explanation::Revoked("HOST".into()),
        Explanation::Removed("HOST".into()),
        Explanation::NotExamined,
    ];
    for explanation in nearly.iter().chain(&others) {
        let text = explanation.to_string();
        assert!(PAGE.contains(&format!("- *{text}*\n")), "no {text:?} in docs/troubleshooting.md");
    }
}
