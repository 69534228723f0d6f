//! Resistance to hostile conditions: strangers, greedy clients, forbidden peers, stalled streams, and faults of the
//! machine. Black-box tests over loopback that print what they measure. A stranger is a client that has not
//! authenticated. Row N, in comments and in the output, is promise N of SECURITY.md.
#![allow(clippy::disallowed_methods, reason = "the promises include times, measured on the real clock")]

#[path = "../support/mod.rs"]
mod support;

use support::call;

mod machine;
mod many_users;
mod steady;

mod addresses;
mod bursts;
mod bursts_udp;
mod clock;
mod connection_limits;
mod deferred;
mod ends;
mod exposed;
mod floods;
mod framing;
mod half_open;
mod handshakes;
mod kernel_memory;
mod lingering;
mod log;
mod log_flood;
mod mutated;
mod mutation;
mod neighbours;
mod page_loads;
mod page_logins;
mod peers;
mod proxied;
mod quic;
mod reload;
mod reserved;
mod shortage;
mod slow_reader;
mod strangers;
mod tiny;
mod tls_records;
mod unreachable;
mod user_limits;
mod versions;
