//! The sizes of TLS records.

/// The largest plaintext of a record (RFC 8446 section 5.1).
pub const RECORD_MAX: usize = 16 << 10;
/// Unprocessed bytes kept per client. A full record has 16.6 KB; a ClientHello with post-quantum key shares and a
/// long session ticket stays below 4 KB, no matter how many records it is split into.
pub const INCOMING_MAX: usize = 20 << 10;
/// Upper bound on the bytes that sealing adds to the plaintext of a record: header, tag and explicit nonce.
const SEAL_OVERHEAD: usize = 64;

/// Returns the maximum size of `plaintext` bytes after [`Tls::seal`](super::tls::Tls::seal). Includes up to three records
/// besides the full ones: the rest of the plaintext, and records that TLS itself sends first, such as a key update.
pub const fn sealed_max(plaintext: usize) -> usize {
    plaintext + (plaintext / RECORD_MAX + 3) * SEAL_OVERHEAD
}
