//! Resistance to hostile conditions: strangers, greedy clients, forbidden peers, stalled streams, and faults of the
//! machine. Black-box tests over loopback, with figures; row numbers are those of the promises.
#![allow(clippy::disallowed_methods, reason = "how long it takes until a server answers is what is promised")]

#[path = "../support/mod.rs"]
mod support;

mod call;
mod machine;

mod addresses;
mod besieged;
mod blinded;
mod bursts;
mod clock;
mod ends;
mod exposed;
mod framing;
mod half_open;
mod handshakes;
mod log;
mod mutated;
mod mutation;
mod neighbours;
mod peers;
mod places;
mod proxied;
mod quic;
mod reload;
mod reserved;
mod shortage;
mod slow_reader;
mod strangers;
mod takers;
mod tiny;
mod unreachable;
mod versions;
