//! Why an attempt failed, and what to do about it.

use std::fmt;
use std::io;

use instant_acme::{Error, Problem};

use crate::base::text::clean;

/// Longest text of an authority in the log, in characters.
const TEXT_MAX: usize = 600;
/// How an error begins if the authority was not reached.
pub const NO_CONNECTION: &str = "no connection to";
const PREFIX: &str = "urn:ietf:params:acme:error:";

/// The reason of a failed attempt. `Display` ends with the next step.
#[derive(Debug)]
pub enum Failure {
    /// The authority refused something, or could not be reached.
    Authority(Error),
    /// A name could not be validated: the name, and what the authority says.
    Name(String, Option<Problem>),
    /// The authority offers no challenge for this name that is configured.
    NoChallenge(String),
    /// The authority has no profile with this name: the name, and those that it has.
    NoProfile(String, Vec<String>),
    /// The authority issued something else than what was ordered.
    Wrong(String),
    /// The attempt took too long.
    TimeOut,
    /// The state cannot be written.
    State(io::Error),
    /// No key or certificate could be made, or the trusted authorities cannot be read.
    Local(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Authority(error)
    }
}

impl Failure {
    /// Whether the authority did not hear of the attempt.
    pub fn is_unheard(&self) -> bool {
        matches!(self, Self::Authority(Error::Other(error)) if error.to_string().starts_with(NO_CONNECTION))
    }

    /// Whether the account is unknown to the authority.
    pub fn is_account_unknown(&self) -> bool {
        matches!(self, Self::Authority(Error::Api(problem)) if kind(problem) == "accountDoesNotExist")
    }
}

fn kind(problem: &Problem) -> &str {
    problem.r#type.as_deref().unwrap_or_default().strip_prefix(PREFIX).unwrap_or_default()
}

fn said(problem: &Problem) -> String {
    let mut all: Vec<&str> = problem.detail.as_deref().into_iter().collect();
    all.extend(problem.subproblems.iter().filter_map(|one| one.detail.as_deref()));
    let text = if all.is_empty() { "no reason".to_owned() } else { all.join("; ") };
    match kind(problem) {
        "" => clean(&text, TEXT_MAX),
        kind => clean(&format!("{text} ({kind})"), TEXT_MAX),
    }
}

/// Returns what to do, by the type of the problem (RFC 8555 section 6.7).
fn remedy(problem: &Problem) -> &'static str {
    match kind(problem) {
        "dns" => "check that the name has an A or AAAA record with the address of this server",
        "connection" | "tls" => {
            "the authority must reach port 443 (tls-alpn-01) or port 80 (http-01) of every address of the name from the \
             internet: check the firewall and the AAAA record"
        }
        "unauthorized" | "incorrectResponse" => {
            "another server answers under this name: check its A and AAAA records, and what else has port 443 or 80"
        }
        "caa" => {
            "the CAA record of the domain does not allow this authority: change it, or choose another [acme] directory"
        }
        "rateLimited" => "wait; the limits are those of the authority",
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "the authority issues nothing for this name: correct [acme] domains"
        }
        "invalidContact" | "unsupportedContact" => "correct [acme] contact",
        "externalAccountRequired" => {
            "this authority needs an account that was made by hand, which is not supported: choose another one"
        }
        "userActionRequired" => "the authority has new terms: read them at its website",
        "invalidProfile" => "correct [acme] profile",
        _ => "if it stays so, see the authority's status page",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(Error::Api(problem)) => {
                write!(f, "the authority refuses: {}; {}", said(problem), remedy(problem))
            }
            Self::Authority(Error::Timeout(_)) | Self::TimeOut => {
                f.write_str("the authority did not finish in time; if it stays so, see its status page")
            }
            Self::Authority(Error::Json(error)) => {
                write!(f, "the answer is not that of an ACME server ({error}); check [acme] directory")
            }
            Self::Authority(Error::Unsupported(what)) => {
                write!(f, "the authority does not support {what}; check [acme] profile and directory")
            }
            Self::Authority(error) => {
                write!(
                    f,
                    "{}; check [acme] directory and the connection to it",
                    clean(&error.to_string(), TEXT_MAX)
                )
            }
            Self::Name(name, Some(problem)) => {
                write!(f, "{name} could not be validated: {}; {}", said(problem), remedy(problem))
            }
            Self::Name(name, None) => {
                write!(
                    f,
                    "{name} could not be validated, and the authority gives no reason; see its status page"
                )
            }
            Self::NoChallenge(name) => write!(
                f,
                "the authority offers none of the configured challenges for {name}; add the other one to [acme] challenges"
            ),
            Self::NoProfile(name, all) if all.is_empty() => write!(
                f,
                "the authority has no profiles, so it cannot issue {}; remove [acme] profile",
                clean(name, TEXT_MAX)
            ),
            Self::NoProfile(name, all) => write!(
                f,
                "the authority has no profile {}; correct [acme] profile: {}",
                clean(name, TEXT_MAX),
                clean(&all.join(", "), TEXT_MAX)
            ),
            Self::Wrong(what) => write!(f, "the authority sent {what}; it is not used"),
            Self::State(error) => write!(
                f,
                "{error}; the user that runs hallpass must be able to write there: StateDirectory=hallpass in the unit, or [acme] state"
            ),
            Self::Local(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}
