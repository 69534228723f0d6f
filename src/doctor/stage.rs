//! How far a rung came, and why it came no further.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::text::{self, clean};
use crate::client::{Failure, Refusal};

/// The stages of a rung in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The name has an address. A rung through a proxy needs the proxy's name only.
    Name,
    /// The connection is open, through the proxy if there is one.
    Tcp,
    /// The TLS handshake is over.
    Tls,
    /// The server answers STUN requests.
    Stun,
    /// The server accepts the credentials.
    Credentials,
    /// The server grants an allocation.
    Allocation,
    /// The server permits the peer.
    Permission,
    /// The peer's data arrived.
    Data,
}

impl Stage {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Stun => "STUN",
            Self::Credentials => "credentials",
            Self::Allocation => "allocation",
            Self::Permission => "permission",
            Self::Data => "data",
        }
    }

    /// Its name in JSON.
    pub fn code(self) -> String {
        self.name().to_ascii_lowercase()
    }
}

/// The stage that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first stage that was not passed.
    pub stage: Stage,
    /// What happened there.
    pub cause: Cause,
}

/// Why a stage failed. `Display` is a sentence without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The name service says that the name does not exist.
    NameUnknown,
    /// No name server answered.
    NoNameServer,
    /// Nothing came back in this time.
    NoAnswer(Duration),
    /// An ICMP error or a TCP reset in answer to the first packet.
    Refused,
    /// The connection was reset.
    Reset,
    /// The other side closed the connection.
    Closed,
    /// This computer or a router has no route to the address.
    Unreachable,
    /// A router on the way, or this computer in its own network, says that the host is not there.
    HostAway,
    /// The address is of a family that this computer does not have; it has the other one.
    OtherFamily,
    /// This computer refuses to send, usually because of a local firewall.
    NotPermitted,
    /// Another error of the system.
    System(String),
    /// The proxy itself cannot be reached.
    NoProxy(Box<Cause>),
    /// The proxy asks for a user name and a password (407).
    ProxyWantsLogin,
    /// The proxy's answer to CONNECT.
    ProxyRefuses(u16),
    /// What answers at the proxy's address is no HTTP proxy.
    NotAProxy,
    /// What answers does not speak TLS.
    NotTls,
    /// The TLS handshake failed.
    TlsFailed(String),
    /// What answers speaks another protocol than TURN.
    NotTurn(&'static str),
    /// The answer is malformed, or asks for credentials in a way that no client can answer.
    BadAnswer(String),
    /// Answers came, but without the integrity that only the server can make.
    Untrusted(String),
    /// 401 to a signed request.
    WrongCredentials,
    /// 401 to a signed request with a fixed user name that has no expiry time.
    NameWithoutTime,
    /// 401 to a signed request, and by this computer's clock the user name expired this many seconds ago.
    Expired(u64),
    /// 401 to credentials that expire tomorrow, success with ones that expire later: the relay's clock is ahead of this
    /// computer's by a number of seconds between these two.
    ClockBehind(u64, u64),
    /// 486: the user has too many allocations.
    Quota,
    /// 508: the server has no address, port or memory left, or is shutting down.
    Full,
    /// 300: the server sends clients to another one.
    Redirect(Option<SocketAddr>),
    /// Another error response.
    Refusal {
        /// Its code.
        code: u16,
        /// Its reason phrase, cleaned.
        reason: String,
    },
    /// The peer is permitted, but none of its packets arrived.
    NoData,
    /// Small packets arrive, packets of this length do not.
    NoLargeData(usize),
}

impl Cause {
    /// The cause that an error response names.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        match refusal.code {
            300 => Self::Redirect(refusal.alternate_server),
            401 => Self::WrongCredentials,
            486 => Self::Quota,
            508 => Self::Full,
            code => Self::Refusal { code, reason: clean(&refusal.reason) },
        }
    }

    /// The cause of a request without a usable answer within `limit`.
    pub fn of_failure(failure: &Failure, limit: Duration) -> Self {
        match failure {
            Failure::TimedOut => Self::NoAnswer(limit),
            Failure::Untrusted(discard) => Self::Untrusted(discard.to_string()),
            Failure::BadAnswer(_) | Failure::BadChallenge(_) => Self::BadAnswer(failure.to_string()),
            Failure::Broken => Self::NotTurn("an unknown protocol"),
        }
    }

    /// The cause that an error of the system names.
    pub fn of_error(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused,
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => Self::Reset,
            Kind::UnexpectedEof => Self::Closed,
            Kind::HostUnreachable => Self::HostAway,
            Kind::NetworkUnreachable | Kind::AddrNotAvailable => Self::Unreachable,
            Kind::PermissionDenied => Self::NotPermitted,
            _ => Self::System(clean(&error.to_string())),
        }
    }

    /// Its name in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameUnknown => "name_unknown",
            Self::NoNameServer => "no_name_server",
            Self::NoAnswer(_) => "no_answer",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Unreachable => "unreachable",
            Self::HostAway => "host_away",
            Self::OtherFamily => "other_family",
            Self::NotPermitted => "not_permitted",
            Self::System(_) => "system_error",
            Self::NoProxy(_) => "no_proxy",
            Self::ProxyWantsLogin => "proxy_wants_login",
            Self::ProxyRefuses(_) => "proxy_refuses",
            Self::NotAProxy => "not_a_proxy",
            Self::NotTls => "not_tls",
            Self::TlsFailed(_) => "tls_failed",
            Self::NotTurn(_) => "not_turn",
            Self::BadAnswer(_) => "bad_answer",
            Self::Untrusted(_) => "untrusted_answer",
            Self::WrongCredentials => "wrong_credentials",
            Self::NameWithoutTime => "name_without_time",
            Self::Expired(_) => "expired",
            Self::ClockBehind(..) => "clock_behind",
            Self::Quota => "quota",
            Self::Full => "server_full",
            Self::Redirect(_) => "redirect",
            Self::Refusal { .. } => "refusal",
            Self::NoData => "no_data",
            Self::NoLargeData(_) => "no_large_data",
        }
    }

    /// Whether the network swallowed or refused packets, as a firewall does.
    pub fn is_blocking(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Refused | Self::Reset | Self::Closed | Self::NotPermitted)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameUnknown => f.write_str("the name is unknown here"),
            Self::NoNameServer => f.write_str("no name server (DNS) answers"),
            Self::NoAnswer(limit) => write!(f, "no answer in {}", text::seconds(*limit)),
            Self::Refused => f.write_str("refused: nothing listens there, or a firewall rejects it"),
            Self::Reset => f.write_str("the connection was reset"),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Unreachable => f.write_str("there is no route to the address"),
            Self::HostAway => f.write_str("a router says that no host is there"),
            Self::OtherFamily => f.write_str("this computer has no address of this family"),
            Self::NotPermitted => f.write_str("a firewall on this computer forbids it"),
            Self::System(error) => f.write_str(error),
            Self::NoProxy(cause) => write!(f, "the proxy is not reachable: {cause}"),
            Self::ProxyWantsLogin => f.write_str("the proxy asks for a user name and a password (407)"),
            Self::ProxyRefuses(code) => write!(f, "the proxy refuses to connect there ({code})"),
            Self::NotAProxy => f.write_str("what answers at the proxy's address is no HTTP proxy"),
            Self::NotTls => f.write_str("what answers does not speak TLS"),
            Self::TlsFailed(error) => write!(f, "the handshake failed: {error}"),
            Self::NotTurn(what) => write!(f, "what answers is no TURN server, but {what}"),
            Self::BadAnswer(error) => write!(f, "unusable answer: {error}"),
            Self::Untrusted(error) => write!(f, "not the server's answer: {error}"),
            Self::WrongCredentials => f.write_str("the relay refuses the user name or the password (401)"),
            Self::NameWithoutTime => f.write_str(
                "the relay refuses the user name or the password (401); the name carries no time, as one made from a secret does",
            ),
            Self::Expired(ago) => write!(f, "the user name expired {} ago (401)", text::span(*ago)),
            Self::ClockBehind(least, most) => write!(
                f,
                "this computer's clock is behind the relay's by {} to {} (401)",
                text::span(*least),
                text::span(*most)
            ),
            Self::Quota => f.write_str("this user has too many allocations already (486)"),
            Self::Full => f.write_str("the relay has no capacity left or is shutting down (508)"),
            Self::Redirect(None) => f.write_str("the relay sends clients to another server (300)"),
            Self::Redirect(Some(to)) => write!(f, "the relay sends clients to {to} (300)"),
            Self::Refusal { code, reason } if reason.is_empty() => write!(f, "the relay answers {code}"),
            Self::Refusal { code, reason } => write!(f, "the relay answers {code} ({reason})"),
            Self::NoData => f.write_str("the relay accepts data, but none of it arrives"),
            Self::NoLargeData(len) => write!(f, "packets of {len} bytes are lost, small ones arrive"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_causes() {
        use std::io::{Error, ErrorKind as Kind};
        let cause = |kind: Kind| Cause::of_error(&Error::from(kind));
        assert_eq!(cause(Kind::ConnectionRefused), Cause::Refused);
        assert_eq!(cause(Kind::BrokenPipe), Cause::Reset);
        assert_eq!(cause(Kind::NetworkUnreachable), Cause::Unreachable);
        assert!(matches!(cause(Kind::OutOfMemory), Cause::System(_)));
    }

    #[test]
    fn reasons_of_a_server_are_cleaned() {
        let refusal = Refusal { code: 437, reason: "a\x1b[31m\nb".to_owned(), ..Refusal::default() };
        assert_eq!(Cause::of_refusal(&refusal).to_string(), "the relay answers 437 (a?[31m?b)");
        let quota = Refusal { code: 486, ..Refusal::default() };
        assert_eq!(Cause::of_refusal(&quota), Cause::Quota);
        assert_eq!(Cause::ClockBehind(86_400, 172_800).to_string().matches("day").count(), 2);
    }

    #[test]
    fn stages_are_in_order() {
        assert!(Stage::Name < Stage::Tcp && Stage::Credentials < Stage::Allocation);
        assert_eq!((Stage::Tls.name(), Stage::Tls.code()), ("TLS", "tls".to_owned()));
    }
}
