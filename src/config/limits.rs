//! `[limits]`: one row for each limit, with key, default, unit, bounds and documentation.
//!
//! The struct, the defaults, the parser and its messages come from the rows. A test checks that conf/hallpass.toml shows
//! exactly what the rows say.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The lifetime that clients count on when they ask for none (RFC 8656 section 3.2).
pub(super) const DEFAULT_LIFETIME_SECONDS: u32 = 600;

const NO_LIMIT: Option<&str> = Some("no limit");
/// Bounds of a limit without a natural maximum.
const ANY: RangeInclusive<u32> = 1..=u32::MAX;

/// One limit that is a number.
#[derive(Debug)]
pub struct LimitRow {
    /// The key in `[limits]`.
    pub key: &'static str,
    /// The value when the key is absent.
    pub default: u32,
    /// What the number counts.
    pub unit: &'static str,
    /// Accepted values besides 0.
    pub bounds: RangeInclusive<u32>,
    /// The meaning of 0; `None` if 0 is refused.
    pub zero: Option<&'static str>,
    /// The documentation, one line of text each.
    pub doc: &'static [&'static str],
    /// The field that holds the value.
    pub(super) field: fn(&mut Limits) -> &mut u32,
}

/// The prefixes of this machine itself.
pub(super) fn loopback() -> Vec<IpNet> {
    vec![
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
    ]
}

macro_rules! limits {
    (
        numbers { $($(#[doc = $doc:literal])+ $key:ident = $default:literal, $unit:literal, $bounds:expr, $zero:expr;)+ }
        prefixes { $(#[doc = $list_doc:literal])+ $list:ident = $list_default:expr; }
    ) => {
        /// `[limits]`. Each field has the unit and the meaning of 0 that its row in [`LIMITS`] states.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $key: u32,)+
            $(#[doc = $list_doc])+
            pub $list: Vec<IpNet>,
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($key: $default,)+ $list: $list_default }
            }
        }

        /// Every limit that is a number, in the order of conf/hallpass.toml.
        pub static LIMITS: &[LimitRow] = &[$(LimitRow {
            key: stringify!($key),
            default: $default,
            unit: $unit,
            bounds: $bounds,
            zero: $zero,
            doc: &[$($doc),+],
            field: |limits| &mut limits.$key,
        }),+];

        /// Every key of `[limits]`.
        pub(super) const KEYS: &[&str] = &[$(stringify!($key),)+ stringify!($list)];

        /// The documentation of the one limit that is a list.
        #[cfg(test)]
        const LIST_DOC: &[&str] = &[$($list_doc),+];
    };
}

limits! {
    numbers {
        /// Allocations of one user. A browser holds up to ten for each peer connection, and in a lesson one peer
        /// connection for each camera that it shows. Raise the limit if many people share a user name. A user name
        /// that is only a time stamp has no limit. The last quarter of the relay ports of an address is kept for users
        /// that hold few of them: at most 1/128 of all, or 16 if that is more. For this rule each time stamp is one user.
        allocations_per_user = 500, "allocations", ANY, NO_LIMIT;
        /// Allocations of all users of a `[[host]]`.
        allocations_per_host = 0, "allocations", ANY, NO_LIMIT;
        /// Allocations in total. Ports, descriptors and memory limit them too.
        allocations_total = 0, "allocations", ANY, NO_LIMIT;
        /// Requests without valid credentials that one source gets answered over UDP; Bindings have four times this
        /// limit. Over TCP and TLS: four times as many requests and a hundred times as many Bindings. A source is an
        /// IPv4 address or an IPv6 /64; a /48 has 8 times the limit, a /32 64 times. A whole school can be one source,
        /// but clients with an allocation do not count. The limit is divided among the workers.
        unauthenticated_per_source = 500, "requests per second", 1..=10_000_000, NO_LIMIT;
        /// Requests with the credentials of one user on each worker. Over TCP and TLS, Bindings have twenty times this
        /// limit. A request of more than 256 bytes counts as several. Over UDP only requests with valid integrity count,
        /// because all others can be forged; a client with an allocation has 50 of those a second, and 100 Bindings.
        requests_per_user = 1000, "requests per second", ANY, NO_LIMIT;
        /// Traffic relayed for one allocation, both directions together. This limit and the next five let one second's
        /// worth arrive at once unless they say less; traffic above that is dropped and counted. A camera needs 1,000 to
        /// 3,000 kbit/s and a shared screen up to 10,000, so calls stay far below the defaults, and no single client
        /// saturates the uplink.
        kbit_per_allocation = 50_000, "kbit per second", ANY, NO_LIMIT;
        /// Datagrams relayed for one allocation, both directions together.
        packets_per_allocation = 20_000, "datagrams per second", ANY, NO_LIMIT;
        /// Traffic relayed for all allocations of one user. This limit and the next three apply once across all
        /// workers, within 1 % per worker.
        kbit_per_user = 0, "kbit per second", ANY, NO_LIMIT;
        /// Datagrams relayed for all allocations of one user. While more datagrams are waiting at a UDP listener than
        /// one read takes, a user has at most 1,000 of them relayed in 20 ms, and fewer if many users send much, so that
        /// calls do not wait behind them; with a limit above 100,000 in proportion more. A lesson with a dozen 1080p
        /// cameras, each sent directly to every participant, has 15,000 a second. The default prevents one user from
        /// keeping a core busy with small datagrams. Raise the limit if many people share a user name.
        packets_per_user = 100_000, "datagrams per second", ANY, NO_LIMIT;
        /// Traffic relayed for all users of a `[[host]]`.
        kbit_per_host = 0, "kbit per second", ANY, NO_LIMIT;
        /// Datagrams relayed for all users of a `[[host]]`.
        packets_per_host = 0, "datagrams per second", ANY, NO_LIMIT;
        /// Largest TCP segment on tcp and tls listeners. 1200 helps clients behind paths that drop large packets. A
        /// reload applies to new connections.
        mss = 0, "bytes", 536..=8960, Some("the kernel's choice");
        /// Worker threads. A change needs a restart.
        workers = 0, "threads", 1..=256, Some("one per core");
        /// Permissions of one allocation.
        permissions_per_allocation = 1000, "permissions", 1..=100_000, None;
        /// Channels of one allocation.
        channels_per_allocation = 1000, "channels", 1..=16_384, None;
        /// Permissions and channels of all allocations of one user. A user name that is only a time stamp counts as one
        /// user. While memory is low, no more are granted.
        permissions_per_user = 20_000, "permissions and channels", ANY, NO_LIMIT;
        /// TCP and TLS connections open at once. A quarter is kept for clients that authenticate, and web clients may
        /// hold half. When all places are taken, the oldest unauthenticated connection is closed.
        connections_total = 10_000, "connections", 1..=1_000_000, None;
        /// TCP and TLS connections open from one IPv4 address or IPv6 /64. A /56 may hold twice as many, a /48 four
        /// times as many. A whole school is one source.
        connections_per_source = 8000, "connections", ANY, NO_LIMIT;
        /// Memory of this process. From nine tenths of it on, new allocations are refused with error 508; above it,
        /// the queues of slow clients are cut. Running calls continue.
        memory_mib = 0, "MiB", 64..=u32::MAX, Some("three quarters of the memory of the machine or unit");
        /// Longest lifetime that an allocation gets before its client must refresh it.
        lifetime_max_seconds = 3600, "seconds", 1..=86_400, None;
        /// How long `hallpass drain` without --for lets running calls go on. Then it ends those that are left. SIGTERM
        /// does not drain: it ends every call at once.
        drain_seconds = 3600, "seconds", 1..=86_400, NO_LIMIT;
    }
    prefixes {
        /// Sources without the limit connections_per_source and without the time limit for TLS handshakes, such as
        /// your own monitoring.
        connections_exempt = loopback();
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;
    use crate::base::network::shown;

    const EXAMPLE: &str = include_str!("../../conf/hallpass.toml");

    /// The lines that conf/hallpass.toml must have between `[limits]` and the next heading.
    fn reference() -> String {
        let mut text = String::from("[limits]\n");
        let mut entry = |doc: &[&str], last: &str, key: &str, value: &str| {
            doc.iter().for_each(|line| writeln!(text, "#{line}").unwrap());
            writeln!(text, "{last}{key} = {value}\n").unwrap();
        };
        for LimitRow { key, default, unit, bounds, zero, doc, .. } in LIMITS {
            let bounds = match (*bounds.start(), *bounds.end()) {
                (1, u32::MAX) => String::new(),
                (first, u32::MAX) => format!(", {first} or more"),
                (first, last) => format!(", {first} to {last}"),
            };
            let zero = zero.map_or(String::new(), |meaning| format!("; 0 = {meaning}"));
            entry(doc, &format!("# Unit: {unit}{bounds}{zero}.\n"), key, &default.to_string());
        }
        let exempt = Limits::default().connections_exempt;
        let exempt: Vec<String> = exempt.iter().map(|net| format!("\"{}\"", shown(net))).collect();
        entry(LIST_DOC, "", "connections_exempt", &format!("[{}]", exempt.join(", ")));
        text
    }

    #[test]
    fn the_example_shows_every_limit_as_its_row_says() {
        let from = EXAMPLE.find("[limits]\n").expect("a table");
        let shown = &EXAMPLE[from..];
        let shown = &shown[..shown.find("# ----").expect("a heading")];
        let expected = reference();
        for (shown, expected) in shown.lines().zip(expected.lines()) {
            assert_eq!(shown, expected, "conf/hallpass.toml should have:\n\n{}", reference());
        }
        assert_eq!(shown, expected, "conf/hallpass.toml should have:\n\n{expected}");
    }

    #[test]
    fn every_row_is_documented_and_its_default_is_accepted() {
        for LimitRow { key, default, unit, bounds, zero, doc, .. } in LIMITS {
            assert!(!unit.is_empty() && doc.last().is_some_and(|last| last.ends_with('.')), "{key}");
            assert!(bounds.contains(default) || *default == 0 && zero.is_some(), "{key} = {default}");
        }
    }

    #[test]
    fn every_row_is_read_into_its_own_field_within_its_bounds() {
        let read = |key: &str, value: u64| {
            let text = format!(
                "[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:3479'\n[[host]]\nname = 'h'\n\
                 secret = '0123456789abcdef'\n[limits]\n{key} = {value}\n"
            );
            crate::config::parse(&text, "f", Path::new("")).map(|loaded| loaded.config.limits)
        };
        for limit in LIMITS {
            let (first, last) = (*limit.bounds.start(), *limit.bounds.end());
            for value in [first, last] {
                let mut expected = Limits::default();
                *(limit.field)(&mut expected) = value;
                assert_eq!(read(limit.key, value.into()).expect("accepted"), expected, "{}", limit.key);
            }
            assert_eq!(read(limit.key, 0).is_ok(), limit.zero.is_some(), "{} = 0", limit.key);
            let refused = read(limit.key, u64::from(last) + 1).expect_err("out of bounds").to_string();
            let reported = format!("write a number of {} from {first} to {last}", limit.unit);
            assert!(refused.contains(&reported), "{refused}");
        }
    }
}
