//! Refusals: why a request was not granted, in words for the operator.
//!
//! The reason is decided where it is known, as a value. The answer contains only its error code ([`Reason::code`]): the RFCs
//! define no more, and a client without credentials must learn no more.

mod words;

use std::net::IpAddr;
use std::sync::Arc;

use super::peer_policy::denial::Denial;
use super::rate_limit::RateLimit;
use super::rest::Misshapen;
use crate::base::family::Family;
use crate::base::host::HostId;
use crate::turn::error::Code;
use crate::turn::five_tuple::FiveTuple;

/// What the sender of a refused request has proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Nothing: over UDP its address may be forged.
    Unproven,
    /// Its address, by a nonce or the handshake of its connection.
    Proven,
    /// That it is a user.
    Authenticated,
    /// That it is a user of a host of which anybody can be any number of users.
    Confined,
}

/// A refused request.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The client and the address that it reached.
    pub five_tuple: FiveTuple,
    /// The user name as sent; empty if there is none.
    pub user: Arc<str>,
    /// The host whose secret verified, and its name; `None` if none did.
    pub host: Option<(HostId, Arc<str>)>,
    /// The kind of request, as in metrics.
    pub request: &'static str,
    /// What its sender has proven.
    pub sender: Sender,
    /// Why it was refused.
    pub reason: Reason,
    /// How many more refusals of its source were not reported in the minute before. Not 0 in the report about them only.
    pub unreported: u32,
    /// How many more of other sources were not, beyond those that have a report of their own.
    pub elsewhere: u32,
    /// The request itself, if the password was wrong: [`explanation`](super::explanation) explains it.
    pub message: Option<Box<[u8]>>,
}

/// Why the credentials of an allocation are no longer valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// The time in the user name has passed.
    Expired,
    /// The secret, or its host, is no longer configured.
    SecretRemoved,
    /// The `[[user]]` has another password now.
    PasswordChanged,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $({ $($field:ident: $kind:ty),+ })? = $label:literal, $($code:ident)?;)+) => {
        /// Why a request is refused.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name $({ $(#[doc = "See the text."] $field: $kind),+ })?,)+ }

        /// The reasons without their details, to number them.
        #[derive(Clone, Copy)]
        enum Kind { $($name,)+ }

        impl Reason {
            /// Returns the position in [`Reason::NAMES`].
            pub fn index(&self) -> usize {
                let kind = match self { $(Reason::$name { .. } => Kind::$name,)+ };
                kind as usize
            }

            /// The labels of all reasons, in the order of [`Reason::index`].
            pub const NAMES: &'static [&'static str] = &[$($label,)+];

            /// Returns the label in metrics.
            pub fn name(&self) -> &'static str {
                Self::NAMES[self.index()]
            }

            /// Returns the error code of the answer; `None` if there is no answer.
            pub fn code(&self) -> Option<Code> {
                match self { $(Reason::$name { .. } => reasons!(@code $($code)?),)+ }
            }
        }
    };
    (@code) => { None };
    (@code $code:ident) => { Some(Code::$code) };
}

reasons! {
    /// The first request of a client has no credentials: it asks for a nonce. Not a failure.
    FirstRequest = "first_request", Unauthenticated;
    /// A nonce of ours that has expired, as each does after an hour. Not a failure.
    ExpiredNonce = "expired_nonce", StaleNonce;
    /// A nonce that is not ours, or was made for another address and port.
    ForeignNonce = "foreign_nonce", StaleNonce;
    /// None of the secrets gives this password; or it is not that of the `[[user]]`, and the number is 0.
    WrongPassword { secrets: usize } = "wrong_password", Unauthenticated;
    /// The client has an allocation under this name, and the password is not the one that it was made with.
    OtherPassword = "other_password", Unauthenticated;
    /// The same, and the time in the user name is more than a year ahead, by so many days.
    FarExpiry { secrets: usize, days: u64 } = "far_expiry", Unauthenticated;
    /// The time in the user name has passed, by so many seconds.
    ExpiredName { seconds: u64 } = "expired_name", Unauthenticated;
    /// The user name begins with a number that is a lifetime rather than a time.
    LifetimeName { lifetime: u64 } = "lifetime_name", Unauthenticated;
    /// The user name does not begin with a time, as the names of TURN REST do, and there is no static user of this name.
    MalformedName { shape: Misshapen } = "malformed_name", Unauthenticated;
    /// There is no static user of this name, and no host has a secret.
    UnknownUser = "unknown_user", Unauthenticated;
    /// The credentials are for another realm.
    UnknownRealm = "unknown_realm", Unauthenticated;
    /// Attributes of the credentials are missing or contradict each other.
    MalformedCredentials = "malformed_credentials", BadRequest;
    /// An attribute is missing, malformed or not allowed here.
    Malformed { what: &'static str } = "malformed", BadRequest;
    /// A required attribute is not known.
    UnknownAttribute = "unknown_attribute", UnknownAttribute;
    /// Only UDP is relayed.
    UnsupportedTransport = "unsupported_transport", UnsupportedTransportProtocol;
    /// The client has no allocation.
    NoAllocation = "no_allocation", AllocationMismatch;
    /// The client has an allocation already.
    HasAllocation = "has_allocation", AllocationMismatch;
    /// The allocation was made under another user name, which may be an earlier one of the same user.
    NotOwner { is_same_user: bool } = "not_owner", WrongCredentials;
    /// The relay has no address of this family, which the client named unless it `is_default`.
    NoFamily { family: Option<Family>, is_default: bool } = "no_family", AddressFamilyNotSupported;
    /// The relay has no address at all.
    NoAddress = "no_address", InsufficientCapacity;
    /// The allocation has no relayed address of the peer's family.
    PeerFamily { peer: IpAddr } = "peer_family", PeerAddressFamilyMismatch;
    /// The allocation has no relayed address of the family that the client names.
    AllocationFamily = "allocation_family", PeerAddressFamilyMismatch;
    /// The policy denies the peer.
    PeerDenied { peer: IpAddr, denial: Denial } = "peer_denied", Forbidden;
    /// The credentials of the allocation are no longer valid, so no peer is added.
    Withdrawn { peer: IpAddr, why: Withdrawal } = "withdrawn", Forbidden;
    /// `allocations_per_user`.
    UserAllocations { limit: u32 } = "user_allocations", AllocationQuotaReached;
    /// Few ports are left, and the user holds many allocations.
    FewPorts { held: u32 } = "few_ports", AllocationQuotaReached;
    /// `allocations_per_host`.
    HostAllocations { limit: u32 } = "host_allocations", InsufficientCapacity;
    /// `allocations_total`.
    TotalAllocations { limit: u32 } = "total_allocations", InsufficientCapacity;
    /// `permissions_per_allocation`.
    Permissions { limit: u32 } = "permissions", InsufficientCapacity;
    /// `channels_per_allocation`.
    Channels { limit: u32 } = "channels", InsufficientCapacity;
    /// `permissions_per_user`.
    UserPermissions { limit: u32 } = "user_permissions", InsufficientCapacity;
    /// Memory is low.
    Memory = "memory", InsufficientCapacity;
    /// All relay ports are in use, by other programs if they are `foreign`.
    NoPort { foreign: bool } = "no_port", InsufficientCapacity;
    /// No socket could be opened: descriptors or memory ran out.
    NoSocket = "no_socket", InsufficientCapacity;
    /// The reservation does not exist or has expired, or there are too many.
    NoReservation = "no_reservation", InsufficientCapacity;
    /// A source, a client or a user sent more requests than its limits permit. There is no answer.
    RateLimited { limit: RateLimit } = "rate_limited",;
    /// The server drains, and there is no other one.
    Draining = "draining", InsufficientCapacity;
    /// The server drains and names another one.
    Alternate = "alternate", TryAlternate;
}

impl Reason {
    /// The labels of the reasons that are no failures: the client continues by itself, as the RFCs say.
    pub const CONTINUES: [&'static str; 3] = ["first_request", "expired_nonce", "alternate"];

    /// Returns whether something is wrong.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Reason::FirstRequest | Reason::ExpiredNonce | Reason::Alternate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turn::counters::REASONS_MAX;
    use ipnet::IpNet;

    #[test]
    fn with_privacy_no_reason_names_a_peer() {
        let peer = "192.0.2.7".parse().expect("literal");
        let reasons = |peer| {
            [Denial::NotListed, Denial::Denied(IpNet::from(peer)), Denial::Closed("private use"), Denial::Own]
                .map(|denial| Reason::PeerDenied { peer, denial })
                .into_iter()
                .chain([Reason::PeerFamily { peer }, Reason::Withdrawn { peer, why: Withdrawal::Expired }])
        };
        for reason in reasons(peer) {
            assert!(reason.text(false).contains("192.0.2.7"), "{reason}");
            assert!(!reason.text(true).contains("192.0.2.7"), "{}", reason.text(true));
        }
        assert_eq!(Reason::Memory.text(true), "memory is low");
    }

    #[test]
    fn the_labels_of_reasons_that_are_no_failures_are_theirs() {
        let reasons = [Reason::FirstRequest, Reason::ExpiredNonce, Reason::Alternate];
        assert_eq!(reasons.each_ref().map(Reason::name), Reason::CONTINUES);
        assert!(!reasons.iter().any(Reason::is_failure));
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let mut names = Reason::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::NAMES.len());
        assert!(names.len() < REASONS_MAX, "{}", names.len());
        assert_eq!(Reason::NAMES[Reason::Draining.index()], "draining");
    }
}
