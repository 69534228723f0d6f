//! The classes of client, each with its own share of streams and descriptors.

/// The class of client that a stream or a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// In a handshake, on a shared port before its first byte, or a TURN client without an allocation. Also a client
    /// with an allocation, while the share of authenticated clients has no room for it.
    Stranger,
    /// A web client, its back end, or a QUIC flow.
    Web,
    /// A TURN client with an allocation, or its relayed address.
    Authenticated,
}

impl Class {
    /// All classes, in the order of their numbers.
    pub const ALL: [Class; 3] = [Class::Stranger, Class::Web, Class::Authenticated];

    /// Returns the label in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Stranger => "stranger",
            Class::Web => "web",
            Class::Authenticated => "authenticated",
        }
    }
}
