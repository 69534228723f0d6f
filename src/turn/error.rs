//! The error codes of RFC 8489 section 14.8 and RFC 8656 section 19.

/// A STUN error code that this server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 300: the client should use another server.
    TryAlternate,
    /// 400: the request is malformed.
    BadRequest,
    /// 401: no or wrong credentials.
    Unauthenticated,
    /// 403: the peer may not be reached.
    Forbidden,
    /// 420: a required attribute is not known.
    UnknownAttribute,
    /// 437: no allocation on this five-tuple, or one already.
    AllocationMismatch,
    /// 438: the nonce is not valid, or no longer valid.
    StaleNonce,
    /// 440: no relayed address of this family.
    AddressFamilyNotSupported,
    /// 441: another user made the allocation.
    WrongCredentials,
    /// 442: only UDP is relayed.
    UnsupportedTransportProtocol,
    /// 443: the allocation has no relayed address of this family.
    PeerAddressFamilyMismatch,
    /// 486: the user has reached its limit of allocations.
    AllocationQuotaReached,
    /// 508: the server is full or has no such port.
    InsufficientCapacity,
}

impl Code {
    /// The number in ERROR-CODE.
    pub const fn number(self) -> u16 {
        match self {
            Code::TryAlternate => 300,
            Code::BadRequest => 400,
            Code::Unauthenticated => 401,
            Code::Forbidden => 403,
            Code::UnknownAttribute => 420,
            Code::AllocationMismatch => 437,
            Code::StaleNonce => 438,
            Code::AddressFamilyNotSupported => 440,
            Code::WrongCredentials => 441,
            Code::UnsupportedTransportProtocol => 442,
            Code::PeerAddressFamilyMismatch => 443,
            Code::AllocationQuotaReached => 486,
            Code::InsufficientCapacity => 508,
        }
    }
}
