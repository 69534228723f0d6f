//! The words for a refusal: why, and what the operator can do next.

use std::fmt;

use super::{Reason, Withdrawal};
use crate::base::family::Family;
use crate::turn::identity::peer_policy::denial::Denial;
use crate::turn::identity::rest::Misshapen;

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
            Reason::Withdrawn { why, .. } if is_private => format!("{why}, so the peer is not added"),
            _ => self.to_string(),
        }
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
            Reason::WrongPassword { secrets: 0 } => {
                "compare the password with that of the [[user]] of this name, to the last character"
            }
            Reason::OtherPassword => {
                "an allocation keeps the password that it was made with (RFC 8656 section 5); if the password has changed, \
                 the client must use another port, or wait until the allocation ends"
            }
            Reason::WrongPassword { .. } => {
                "compare the secret of the host with the one in the client's turn-stun-servers.xml, to the last character; if both are \
                 the same, was the relay reloaded since? hallpass doctor tells"
            }
            Reason::ExpiredName { .. } => {
                "the client needs new credentials; if many clients are off by the same time, compare the clocks of both hosts"
            }
            Reason::LifetimeName { .. } => {
                "the time is in seconds since 1970: that of `date +%s` plus the lifetime; look at what issues the credentials"
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
            Reason::RateLimited { limit } => limit.next_step(),
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
            Reason::NotOwner { is_same_user: true } => {
                "the client must use the name that the allocation was made with until it ends (RFC 8656 section 5), or another port"
            }
            Reason::NotOwner { is_same_user: false } => {
                "two users share one client address and port: look at the proxy in front of the relay"
            }
            Reason::NoFamily { family: None, .. } => "report it to the makers of the client",
            Reason::NoFamily { family: Some(Family::V6), is_default: false } => {
                "nothing if the conference server has an IPv4 address: clients use that; else give this machine an IPv6 address"
            }
            Reason::NoFamily { .. } => {
                "give this machine an address of this family: most clients name none, and get no allocation without it"
            }
            Reason::NoAddress => "see `hallpass check`: this machine has no address to relay from",
            Reason::PeerFamily { .. } | Reason::AllocationFamily => {
                "nothing: the client uses its relayed address of the other family"
            }
            Reason::PeerDenied { denial, .. } => denial.next_step(),
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
            Reason::NoPort { foreign: true } => {
                "`ss -lunp` says which program has ports of the range: move it, or the range in [relay] ports"
            }
            Reason::NoPort { foreign: false } => "raise the number of [relay] ports, or add a relay",
            Reason::NoSocket => "raise LimitNOFILE in the systemd unit; see the log for other causes",
            Reason::NoReservation => "the client must use a reserved port within 30 s",
            Reason::Draining => {
                "hallpass drain --cancel ends the drain; or name another server under [drain]"
            }
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
            Reason::WrongPassword { secrets: 0 } => f.write_str("the password is not that of the [[user]]"),
            Reason::OtherPassword => f.write_str(
                "the password is not the one that the allocation of this client address and port was made with",
            ),
            Reason::WrongPassword { secrets } => {
                write!(f, "the password {}; the user name has not expired", fits_none(*secrets))
            }
            Reason::ExpiredName { seconds } => write!(f, "the user name expired {seconds} s ago"),
            Reason::LifetimeName { lifetime } => {
                write!(f, "the user name begins with {lifetime}, which is no time of today but perhaps a lifetime")
            }
            Reason::FarExpiry { secrets, days } => {
                write!(f, "the password {}, and the user name expires in {days} days", fits_none(*secrets))
            }
            Reason::MalformedName { shape: Misshapen::Swapped } => {
                f.write_str("the user name ends with a time, but must begin with it")
            }
            Reason::MalformedName { shape: Misshapen::Blank } => {
                f.write_str("the user name begins with a blank before the time")
            }
            Reason::MalformedName { shape: Misshapen::Encoded } => {
                f.write_str("the user name has %3A instead of the colon after the time")
            }
            Reason::MalformedName { shape: Misshapen::NoTime } => {
                f.write_str("the user name does not begin with a time, and no [[user]] has this name")
            }
            Reason::UnknownUser => f.write_str("no [[user]] has this name, and no [[host]] has a secret"),
            Reason::RateLimited { limit } => write!(f, "{limit}"),
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
            Reason::NotOwner { is_same_user: true } => f.write_str(
                "the same user made the allocation of this client address and port under an earlier name",
            ),
            Reason::NotOwner { is_same_user: false } => {
                f.write_str("another user made the allocation of this client address and port")
            }
            Reason::NoFamily { family: Some(family), is_default: true } => {
                write!(f, "the client names no address family, and this relay has no {} address", family.name())
            }
            Reason::NoFamily { family: Some(family), is_default: false } => {
                write!(f, "this relay has no {} address", family.name())
            }
            Reason::NoFamily { family: None, .. } => {
                f.write_str("the client asks for an address family that does not exist")
            }
            Reason::NoAddress => f.write_str("this relay has no address to relay from"),
            Reason::PeerFamily { peer } => {
                write!(f, "the allocation has no relayed address of the family of {peer}")
            }
            Reason::AllocationFamily => f.write_str("the allocation has no relayed address of this family"),
            Reason::PeerDenied { peer, denial } => write!(f, "the peer {peer} is not allowed: {denial}"),
            Reason::Withdrawn { peer, why } => write!(f, "{why}, so the peer {peer} is not added"),
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
            Reason::NoPort { foreign: true } => f.write_str("other programs have the relay ports that were tried"),
            Reason::NoPort { foreign: false } => f.write_str("all relay ports are in use"),
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

impl fmt::Display for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Withdrawal::Expired => "the name has expired",
            Withdrawal::SecretRemoved => "the secret of the name was removed",
            Withdrawal::PasswordChanged => "the password of the [[user]] has changed",
        })
    }
}
