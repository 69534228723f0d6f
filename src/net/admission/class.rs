//! The classes of client, each with its own share of streams and descriptors.

/// The class of client that a stream or a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Not known yet: in a handshake, on a shared port before its first byte, or TURN without credentials so far.
    Stranger,
    /// A web client, its back end, or a QUIC flow.
    Web,
    /// A TURN client with verified credentials.
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
