//! Limits of the server that a run may measure instead of its capacity, with the names of their settings.

use std::collections::BTreeMap;

use super::counters::Counters;
use crate::load::cause::Cause;

/// A limit that refused or dropped something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How it was noticed, such as `error 486 for Allocate`.
    pub sign: String,
    /// How often.
    pub count: u64,
    /// What it limits, as a sentence without its period.
    pub meaning: &'static str,
    /// The setting, of Hallpass and, in brackets, of coturn.
    pub setting: &'static str,
}

/// Metric, reason, meaning and setting.
const COUNTED: &[(&str, &str, &str, &str)] = &[
    (DROPS, "user_over_rate", "a user may relay no more", "limits.packets_per_user or limits.kbit_per_user"),
    (
        DROPS,
        "allocation_over_rate",
        "an allocation may relay no more",
        "limits.packets_per_allocation or limits.kbit_per_allocation",
    ),
    (
        DROPS,
        "host_over_rate",
        "all users of a host together may relay no more",
        "limits.packets_per_host or limits.kbit_per_host",
    ),
    (
        DROPS,
        "throttled",
        "one source may send no more requests without credentials",
        "limits.unauthenticated_per_source",
    ),
    (DROPS, "requests_over_rate", "a user may send no more requests", "limits.requests_per_user"),
    (REFUSALS, "user_allocations", "a user may have no more allocations", "limits.allocations_per_user"),
    (REFUSALS, "few_ports", "few relay ports are left for users that hold many", "[relay] ports"),
    (
        REFUSALS,
        "host_allocations",
        "the users of a host may have no more allocations",
        "limits.allocations_per_host",
    ),
    (REFUSALS, "total_allocations", "there may be no more allocations", "limits.allocations_total"),
    (
        REFUSALS,
        "permissions",
        "an allocation may have no more permissions",
        "limits.permissions_per_allocation",
    ),
    (REFUSALS, "channels", "an allocation may have no more channels", "limits.channels_per_allocation"),
    (REFUSALS, "user_permissions", "a user may have no more permissions", "limits.permissions_per_user"),
    (REFUSALS, "memory", "the server may use no more memory", "limits.memory_mib"),
    (REFUSALS, "no_port", "all relay ports are in use", "[relay] ports"),
    (REFUSALS, "no_socket", "the server can open no more sockets", "LimitNOFILE of the systemd unit"),
    (REFUSALS, "peer_denied", PEER, "[peers] allow, or peers of the [[host]]"),
    (REFUSALS, "rate_limited", "a source or a user may send no more requests", THROTTLE),
    (REFUSALS, "draining", "the server drains and takes no new clients", "restart it"),
    (CONNECTIONS, "connections_total", "there may be no more connections", "limits.connections_total"),
    (
        CONNECTIONS,
        "connections_per_source",
        "one source may have no more connections",
        "limits.connections_per_source or limits.connections_exempt",
    ),
    (
        CONNECTIONS,
        "descriptors",
        "the server can open no more connections",
        "LimitNOFILE of the systemd unit",
    ),
    (CONNECTIONS, "memory", "the server may use no more memory", "limits.memory_mib"),
];

const DROPS: &str = "hallpass_drops_total";
const REFUSALS: &str = "hallpass_refusals_total";
const CONNECTIONS: &str = "hallpass_connections_refused_total";
const PEER: &str = "the server does not allow this machine as a peer";
const THROTTLE: &str = "limits.unauthenticated_per_source or limits.requests_per_user";

/// Returns the limits that the server counted, the most frequent first.
pub fn counted(before: &Counters, after: &Counters) -> Vec<Limit> {
    let known = |(metric, reason, count): (&'static str, &str, u64)| {
        let (_, _, meaning, setting) =
            COUNTED.iter().find(|(known, of, ..)| *known == metric && *of == reason)?;
        Some(Limit { sign: format!("{metric}{{reason=\"{reason}\"}}"), count, meaning, setting })
    };
    let mut all: Vec<Limit> = after.since(before).filter_map(known).collect();
    all.sort_by_key(|limit| std::cmp::Reverse(limit.count));
    all
}

/// Returns the limits that error codes show, the most frequent first. An error code may have several causes; then the
/// setting lists them all.
pub fn answered(failed: &BTreeMap<Cause, u64>) -> Vec<Limit> {
    let known = |(cause, &count): (&Cause, &u64)| {
        let Cause::Refused { request, code } = *cause else { return None };
        let (meaning, setting) = match (request, code) {
            ("Allocate", 486) => (
                "a user may have no more allocations",
                "limits.allocations_per_user (coturn: user-quota, total-quota)",
            ),
            ("Allocate", 508) => (
                "the server has no room for more allocations",
                "limits.allocations_per_host, limits.allocations_total, limits.memory_mib, [relay] ports or LimitNOFILE \
                 (coturn: min-port, max-port)",
            ),
            ("CreatePermission" | "ChannelBind", 508) => (
                "a user may have no more permissions",
                "limits.permissions_per_user, limits.permissions_per_allocation or limits.channels_per_allocation",
            ),
            ("CreatePermission" | "ChannelBind", 403) => (
                PEER,
                "[peers] allow, or peers of the [[host]] (coturn: allowed-peer-ip, denied-peer-ip, allow-loopback-peers)",
            ),
            (_, 401) => (
                "the server does not accept the credentials",
                "secret of the [[host]] (coturn: static-auth-secret), or the clock of one of the machines",
            ),
            (_, 300) => ("the server drains and names another one", "restart it"),
            _ => return None,
        };
        Some(Limit { sign: cause.to_string(), count, meaning, setting })
    };
    let mut all: Vec<Limit> = failed.iter().filter_map(known).collect();
    all.sort_by_key(|limit| std::cmp::Reverse(limit.count));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_name_their_setting() {
        let after = Counters::parse(
            "hallpass_drops_total{reason=\"no_channel\"} 900\n\
             hallpass_drops_total{reason=\"user_over_rate\"} 12\n\
             hallpass_refusals_total{host=\"a\",reason=\"user_allocations\",transport=\"udp\"} 20\n",
        );
        let limits = counted(&Counters::default(), &after);
        let settings: Vec<_> = limits.iter().map(|limit| (limit.setting, limit.count)).collect();
        assert_eq!(
            settings,
            [("limits.allocations_per_user", 20), ("limits.packets_per_user or limits.kbit_per_user", 12)]
        );
    }

    #[test]
    fn error_codes_name_the_settings_of_both_servers() {
        let failed = BTreeMap::from([
            (Cause::Refused { request: "Allocate", code: 486 }, 3),
            (Cause::Refused { request: "CreatePermission", code: 403 }, 8),
            (Cause::Refused { request: "Allocate", code: 400 }, 50),
            (Cause::Unanswered { request: "Allocate" }, 9),
            (Cause::Other, 9),
        ]);
        let limits = answered(&failed);
        assert_eq!(limits.len(), 2);
        assert!(limits[0].setting.contains("[peers] allow") && limits[0].setting.contains("allowed-peer-ip"));
        assert_eq!(limits[1].sign, "error 486 for Allocate");
        assert!(limits[1].setting.starts_with("limits.allocations_per_user (coturn: user-quota"));
    }

    #[test]
    fn every_setting_is_one_that_the_server_has() {
        let example = include_str!("../../../conf/hallpass.toml");
        for (_, _, _, setting) in COUNTED {
            for word in setting.split([' ', ',']).filter_map(|word| word.strip_prefix("limits.")) {
                assert!(example.contains(&format!("\n{word} = ")), "{word}");
            }
        }
    }
}
