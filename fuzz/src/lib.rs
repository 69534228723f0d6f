//! The harness of every fuzzing target. A harness asserts what must hold for any input; it is called by
//! libFuzzer through `fuzz_targets/` and by `cargo test --test fuzz`, which replays and mutates the seeds.

mod bytes;
mod client;
mod client_hello;
mod config;
mod coturn;
mod credentials;
mod datagram;
mod first_bytes;
mod message;
mod proxy_protocol;
mod server;
mod stream;
mod tls;

pub use client::client;
pub use client_hello::client_hello;
pub use config::config;
pub use coturn::coturn;
pub use credentials::credentials;
pub use datagram::datagram;
pub use first_bytes::first_bytes;
pub use message::message;
pub use proxy_protocol::proxy_protocol;
pub use server::server;
pub use stream::stream;
pub use tls::tls;

/// A harness: it panics if an assertion fails for these bytes.
pub type Harness = fn(&[u8]);

/// Every target by the name of its directory of seeds.
pub const TARGETS: [(&str, Harness); 12] = [
    ("message", message),
    ("datagram", datagram),
    ("stream", stream),
    ("client_hello", client_hello),
    ("proxy_protocol", proxy_protocol),
    ("first_bytes", first_bytes),
    ("config", config),
    ("credentials", credentials),
    ("server", server),
    ("client", client),
    ("tls", tls),
    ("coturn", coturn),
];
