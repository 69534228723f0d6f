//! Refusals: why a request was not granted, in words for the operator.
//!
//! The reason is decided where it is known, as a value. The answer contains only its error code ([`Reason::code`]): the RFCs
//! define no more, and a client without credentials must learn no more.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::peer_policy::denial::Denial;
use crate::base::family::Family;
use crate::base::host::HostId;
use crate::turn::error::Code;
use crate::turn::five_tuple::FiveTuple;

/// What the sender of a refused request has proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Nothing: over UDP its address may be forged.
    Unproven,
    /// Its address, by a nonce.
    Proven,
    /// That it is a user.
    Authenticated,
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
    /// The request itself, if the password was wrong: [`near_miss`](super::near_miss) explains it.
    pub message: Option<Box<[u8]>>,
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
    /// No secret gives this password.
    WrongPassword { secrets: usize } = "wrong_password", Unauthenticated;
    /// The same, and the time in the user name is more than a year ahead, by so many days.
    FarExpiry { secrets: usize, days: u64 } = "far_expiry", Unauthenticated;
    /// The time in the user name has passed, by so many seconds.
    ExpiredName { seconds: u64 } = "expired_name", Unauthenticated;
    /// The user name does not begin with a time, as the names of TURN REST do, and there is no static user of this name.
    MalformedName { is_swapped: bool } = "malformed_name", Unauthenticated;
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
    /// Another user made the allocation.
    NotOwner = "not_owner", WrongCredentials;
    /// The relay has no address of this family.
    NoFamily { family: Option<Family> } = "no_family", AddressFamilyNotSupported;
    /// The relay has no address at all.
    NoAddress = "no_address", InsufficientCapacity;
    /// The allocation has no relayed address of the peer's family.
    PeerFamily { peer: IpAddr } = "peer_family", PeerAddressFamilyMismatch;
    /// The allocation has no relayed address of the family that the client names.
    AllocationFamily = "allocation_family", PeerAddressFamilyMismatch;
    /// The policy denies the peer.
    PeerDenied { peer: IpAddr, denial: Denial } = "peer_denied", Forbidden;
    /// The name has expired or its secret is no longer configured, so no peer is added.
    Withdrawn { peer: IpAddr } = "withdrawn", Forbidden;
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
    /// All relay ports are in use.
    NoPort = "no_port", InsufficientCapacity;
    /// No socket could be opened: descriptors or memory ran out.
    NoSocket = "no_socket", InsufficientCapacity;
    /// The reservation does not exist or has expired, or there are too many.
    NoReservation = "no_reservation", InsufficientCapacity;
    /// A source, a client or a user sent more requests than its limits permit. There is no answer.
    RateLimited { what: &'static str } = "rate_limited",;
    /// The server drains, and there is no other one.
    Draining = "draining", InsufficientCapacity;
    /// The server drains and names another one.
    Alternate = "alternate", TryAlternate;
}

/// Days ahead from which on a time is probably in milliseconds: such a time of today is 20 million days ahead.
const MILLISECONDS: u64 = 1_000_000;

impl Reason {
    /// Returns this reason in words; without the peer's address if it `is_private`, because a peer may be another client.
    pub fn text(&self, is_private: bool) -> String {
        match self {
            Reason::PeerFamily { .. } if is_private => {
                "the allocation has no relayed address of the peer's family".to_owned()
            }
            // The entry may name the peer alone.
            Reason::PeerDenied { denial: Denial::Denied(_), .. } if is_private => {
                "the peer is not allowed: [peers] deny has it".to_owned()
            }
            Reason::PeerDenied { denial, .. } if is_private => format!("the peer is not allowed: {denial}"),
            Reason::Withdrawn { .. } if is_private => {
                "the name has expired or its secret was removed, so the peer is not added".to_owned()
            }
            _ => self.to_string(),
        }
    }

    /// The labels of the reasons that are no failures: the client continues by itself, as the RFCs say.
    pub const CONTINUES: [&'static str; 3] = ["first_request", "expired_nonce", "alternate"];

    /// Returns whether something is wrong.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Reason::FirstRequest | Reason::ExpiredNonce | Reason::Alternate)
    }

    /// Returns what the operator can do next.
    pub fn next_step(&self) -> &'static str {
        match self {
            Reason::FirstRequest | Reason::ExpiredNonce | Reason::Alternate => {
                "nothing: the client continues by itself"
            }
            Reason::ForeignNonce => {
                "nothing if it happens once, after a restart or a change of the client's address; the client tries again"
            }
            Reason::WrongPassword { .. } => {
                "compare the secret of the host with the one in the client's turn-stun-servers.xml, to the last character; if both are \
                 the same, was the relay reloaded since? hallpass doctor tells"
            }
            Reason::ExpiredName { .. } => {
                "the client needs new credentials; if many clients are off by the same time, compare the clocks of both hosts"
            }
            Reason::FarExpiry { days, .. } if *days >= MILLISECONDS => {
                "the time is in seconds since 1970, not in milliseconds; look at what issues the credentials"
            }
            Reason::FarExpiry { .. } => {
                "compare the secret, as for a wrong password; and look at the clock and the lifetime of what issues the \
                 credentials"
            }
            Reason::MalformedName { .. } => {
                "a name of TURN REST is EXPIRY:USER with the expiry in seconds since 1970; look at what issues the credentials"
            }
            Reason::UnknownUser => {
                "add a [[user]] with this name, or give a [[host]] the secret of the credentials"
            }
            Reason::RateLimited { .. } => {
                "if honest clients share this address, raise the limit; see hallpass_drops_total for how many are concerned"
            }
            Reason::UnknownRealm => {
                "the client takes the realm from the server's answer: look for a fixed realm in it"
            }
            Reason::MalformedCredentials | Reason::Malformed { .. } | Reason::UnknownAttribute => {
                "report it to the makers of the client"
            }
            Reason::UnsupportedTransport => "the client must ask for UDP relaying",
            Reason::NoAllocation | Reason::HasAllocation => {
                "nothing if it happens once, after a restart or a change of the client's address"
            }
            Reason::NotOwner => {
                "two users share one client address and port: look at the proxy in front of the relay"
            }
            Reason::NoFamily { .. } => {
                "give this machine an address of this family, or ignore it: clients use the other one"
            }
            Reason::NoAddress => "see `hallpass check`: this machine has no address to relay from",
            Reason::PeerFamily { .. } | Reason::AllocationFamily => {
                "nothing: the client uses its relayed address of the other family"
            }
            Reason::PeerDenied { .. } => {
                "if this is an address of the host's BigBlueButton server, add it to `peers` of this [[host]] and reload"
            }
            Reason::Withdrawn { .. } => "the client needs new credentials for another peer",
            Reason::UserAllocations { .. } => {
                "raise limits.allocations_per_user if many people share this user name"
            }
            Reason::FewPorts { .. } => {
                "raise the number of [relay] ports, or find out why one user holds so many"
            }
            Reason::HostAllocations { .. } => "raise limits.allocations_per_host, or add a relay",
            Reason::TotalAllocations { .. } => "raise limits.allocations_total, or add a relay",
            Reason::Permissions { .. } => "raise limits.permissions_per_allocation if the client is honest",
            Reason::Channels { .. } => "raise limits.channels_per_allocation if the client is honest",
            Reason::UserPermissions { .. } => "raise limits.permissions_per_user if the client is honest",
            Reason::Memory => "add memory, or raise limits.memory_mib",
            Reason::NoPort => "raise the number of [relay] ports, or add a relay",
            Reason::NoSocket => "raise LimitNOFILE in the systemd unit; see the log for other causes",
            Reason::NoReservation => "the client must use a reserved port within 30 s",
            Reason::Draining => "start the server again, or name another one under [drain]",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::FirstRequest => f.write_str("the first request of a client has no credentials"),
            Reason::ExpiredNonce => f.write_str("the nonce is older than an hour"),
            Reason::ForeignNonce => {
                f.write_str("the nonce was not made by this server for this address and port")
            }
            Reason::WrongPassword { secrets: 0 } => f.write_str("the password is wrong"),
            Reason::WrongPassword { secrets } => {
                write!(f, "the password {}; the user name has not expired", fits_none(*secrets))
            }
            Reason::ExpiredName { seconds } => write!(f, "the user name expired {seconds} s ago"),
            Reason::FarExpiry { secrets, days } => {
                write!(f, "the password {}, and the user name expires in {days} days", fits_none(*secrets))
            }
            Reason::MalformedName { is_swapped: true } => {
                f.write_str("the user name ends with a time, but must begin with it")
            }
            Reason::MalformedName { is_swapped: false } => {
                f.write_str("the user name does not begin with a time, and no [[user]] has this name")
            }
            Reason::UnknownUser => f.write_str("no [[user]] has this name, and no [[host]] has a secret"),
            Reason::RateLimited { what } => f.write_str(what),
            Reason::UnknownRealm => f.write_str("the credentials are for another realm"),
            Reason::MalformedCredentials => {
                f.write_str("the credentials are incomplete or contradict each other")
            }
            Reason::Malformed { what } => f.write_str(what),
            Reason::UnknownAttribute => f.write_str("the request has a required attribute that is not known"),
            Reason::UnsupportedTransport => {
                f.write_str("the client asks for a relay protocol other than UDP")
            }
            Reason::NoAllocation => f.write_str("the client has no allocation"),
            Reason::HasAllocation => f.write_str("the client has an allocation already"),
            Reason::NotOwner => {
                f.write_str("another user made the allocation of this client address and port")
            }
            Reason::NoFamily { family: Some(family) } => {
                write!(f, "this relay has no {} address", family.name())
            }
            Reason::NoFamily { family: None } => {
                f.write_str("the client asks for an address family that does not exist")
            }
            Reason::NoAddress => f.write_str("this relay has no address to relay from"),
            Reason::PeerFamily { peer } => {
                write!(f, "the allocation has no relayed address of the family of {peer}")
            }
            Reason::AllocationFamily => f.write_str("the allocation has no relayed address of this family"),
            Reason::PeerDenied { peer, denial } => write!(f, "the peer {peer} is not allowed: {denial}"),
            Reason::Withdrawn { peer } => {
                write!(f, "the name has expired or its secret was removed, so the peer {peer} is not added")
            }
            Reason::UserAllocations { limit } => {
                write!(f, "the user has {limit} allocations, as many as allowed")
            }
            Reason::FewPorts { held } => {
                write!(f, "few ports are left, and the user holds {held} allocations")
            }
            Reason::HostAllocations { limit } => {
                write!(f, "the users of the host have {limit} allocations, as many as allowed")
            }
            Reason::TotalAllocations { limit } => {
                write!(f, "there are {limit} allocations, as many as allowed")
            }
            Reason::Permissions { limit } => {
                write!(f, "the allocation has {limit} permissions, as many as allowed")
            }
            Reason::Channels { limit } => {
                write!(f, "the allocation has {limit} channels, as many as allowed")
            }
            Reason::UserPermissions { limit } => {
                write!(f, "the user has {limit} permissions and channels, as many as allowed")
            }
            Reason::Memory => f.write_str("memory is low"),
            Reason::NoPort => f.write_str("all relay ports are in use"),
            Reason::NoSocket => f.write_str("no relay socket could be opened"),
            Reason::NoReservation => {
                f.write_str("the port reservation does not exist, has expired or is refused")
            }
            Reason::Draining => f.write_str("the server drains and takes no new users"),
            Reason::Alternate => f.write_str("the server drains and sends clients to another one"),
        }
    }
}

fn fits_none(secrets: usize) -> String {
    match secrets {
        1 => "does not fit the secret".to_owned(),
        count => format!("fits none of the {count} secrets"),
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
                .chain([Reason::PeerFamily { peer }, Reason::Withdrawn { peer }])
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
