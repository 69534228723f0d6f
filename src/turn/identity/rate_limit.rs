//! The limit that a request without an answer ran into, for the operator.

use std::fmt;

/// A limit of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimit {
    /// Requests without good credentials of one source to one worker, a second: its share of `limits.unauthenticated_per_source`.
    Source(u32),
    /// Bindings of one source, a second, by the same setting.
    SourceBindings(u32),
    /// Requests a second from the address of a client with an allocation over UDP that its key does not verify.
    Client(u32),
    /// Bindings a second from such an address.
    ClientBindings(u32),
    /// Requests of one user, a second, by `limits.requests_per_user`.
    User(u32),
    /// Bindings of one user, a second, by the same setting.
    UserBindings(u32),
    /// Milliseconds a second for searching the secret of a password, for the clients of one source.
    SourceSearch(u32),
    /// The same for many sources together.
    Search(u32),
    /// Milliseconds until a client may repeat a request whose search was deferred.
    Repetition(u32),
}

impl RateLimit {
    /// Returns what the operator can do next.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::Source(_) | Self::SourceBindings(_) => {
                "if honest clients share this address, raise limits.unauthenticated_per_source; see hallpass_drops_total for how \
                 many are concerned"
            }
            Self::User(_) | Self::UserBindings(_) => {
                "if many people share this user name, raise limits.requests_per_user; see hallpass_drops_total for how many are \
                 concerned"
            }
            Self::Client(_) | Self::ClientBindings(_) => {
                "no setting raises this limit: the client is faulty, or somebody forges its address"
            }
            Self::SourceSearch(_) | Self::Search(_) | Self::Repetition(_) => {
                "no setting raises this limit: clients try again; `hallpass refusals --reason wrong_password` says who uses the \
                 time up"
            }
        }
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = "limits.unauthenticated_per_source";
        let user = "limits.requests_per_user";
        match self {
            Self::Source(limit) => {
                write!(
                    f,
                    "the source sends one worker more than {limit} requests without good credentials a second, its share of \
                     {source}"
                )
            }
            Self::SourceBindings(limit) => {
                write!(
                    f,
                    "the source sends one worker more than {limit} Bindings a second, by its share of {source}"
                )
            }
            Self::Client(limit) => {
                write!(
                    f,
                    "the client, which has an allocation, sends more than {limit} requests a second with a wrong key"
                )
            }
            Self::ClientBindings(limit) => {
                write!(f, "the client, which has an allocation, sends more than {limit} Bindings a second")
            }
            Self::User(limit) => write!(f, "the user sends more than {limit} requests a second ({user})"),
            Self::UserBindings(limit) => {
                write!(f, "the user sends more than {limit} Bindings a second ({user})")
            }
            Self::SourceSearch(millis) => {
                write!(f, "searching the secrets for this source has used up its {millis} ms of this second")
            }
            Self::Search(millis) => {
                write!(
                    f,
                    "searching the secrets for all sources has used up their {millis} ms of this second"
                )
            }
            Self::Repetition(millis) => {
                write!(
                    f,
                    "the client, whose secret could not be searched for in time, tried again within {millis} ms"
                )
            }
        }
    }
}
