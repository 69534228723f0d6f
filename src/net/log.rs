//! What workers say: in a normal day one line for every allocation that ended, and nothing else.

use super::syscall::Offloads;
use crate::turn::action::{Review, Session};

/// The part of a REST user name behind `expiry:`, which is the same all day; other names as they are.
fn user(name: &str) -> &str {
    match name.split_once(':') {
        Some((expiry, user)) if !expiry.is_empty() && expiry.bytes().all(|b| b.is_ascii_digit()) => user,
        _ => name,
    }
}

/// Logs it. With `privacy`, without the client's address.
pub fn session(session: &Session, privacy: bool) {
    let five_tuple = session.five_tuple;
    let client = if privacy { String::from("-") } else { five_tuple.client.to_string() };
    let relayed: Vec<String> = session.relayed.iter().map(ToString::to_string).collect();
    tracing::info!(
        target: "session",
        host = %session.host,
        // The user chose it: no line may be broken by it, and no terminal driven.
        user = %user(&session.user).escape_debug(),
        transport = five_tuple.transport.name(),
        client = %client,
        relayed = %relayed.join(","),
        seconds = session.duration.as_secs(),
        from_client_packets = session.from_client.packets,
        from_client_bytes = session.from_client.bytes,
        from_peer_packets = session.from_peer.packets,
        from_peer_bytes = session.from_peer.bytes,
        reason = session.reason.name(),
        "ended"
    );
}

/// Says what new settings ended on one worker.
pub fn reviewed(review: Review) {
    let Review { permissions, allocations } = review;
    tracing::info!(
        permissions,
        allocations,
        "reload: ended permissions for peers that are denied now, and allocations whose secret is revoked"
    );
}

/// Says that a worker failed and the next one takes its place, without its calls.
pub fn worker_failed(worker: usize, failure: &str, allocations: u64) {
    tracing::error!(
        worker,
        allocations,
        "a worker failed: {failure}. Its calls ended, those of other workers go on, and it starts again; please report this"
    );
}

/// Says which helps of the kernel are missing. Everything works without them, for more CPU.
pub fn missing(offloads: Offloads) {
    if !offloads.segmentation {
        tracing::info!("the kernel does not segment UDP (Linux 4.18): every datagram is sent alone");
    }
    if !offloads.coalescing {
        tracing::info!("the kernel does not coalesce UDP (Linux 5.0): every datagram is received alone");
    }
}

/// Says that a network card could not do what the kernel offered.
pub fn segmentation_refused() {
    tracing::info!("a network card computes no UDP checksums: from now on every datagram is sent alone");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_left_out_of_the_user() {
        assert_eq!(user("1700000000:w_abc"), "w_abc");
        assert_eq!(user("1700000000:a:b"), "a:b");
        for whole in ["alice", "alice:bob", ":bob", ""] {
            assert_eq!(user(whole), whole);
        }
    }
}
