//! What is wrong with a rung, in one line.

use super::outcome::Outcome;
use super::tls::Verdict;
use crate::base::browser_ports::browsers_use;

/// What is wrong with a rung; `None` if nothing is.
pub fn problem(outcome: &Outcome) -> Option<String> {
    let certificate = outcome.certificate.as_ref().filter(|seen| !seen.verdict.is_accepted()).map(|seen| {
        let issuer = seen.issuer();
        match &seen.verdict {
            Verdict::Expired => format!("the certificate from \"{issuer}\" has expired"),
            Verdict::NotYetValid => format!("the certificate from \"{issuer}\" is not valid yet"),
            Verdict::OtherName => format!("the certificate from \"{issuer}\" is for another name"),
            Verdict::SelfSigned => "the certificate is signed with its own key".to_owned(),
            Verdict::UnknownIssuer => {
                format!("the certificate is from \"{issuer}\", not from a public authority")
            }
            Verdict::Forged => {
                format!("the certificate claims to be from \"{issuer}\", which did not sign it")
            }
            Verdict::Invalid(error) => format!("the certificate is not valid: {error}"),
            Verdict::Public | Verdict::Added | Verdict::Unchecked => String::new(),
        }
    });
    let fault = outcome.fault.as_ref().map(|fault| format!("{}: {}", fault.stage.name(), fault.cause));
    match (certificate, fault) {
        (None, None) if !browsers_use(outcome.rung.port) => {
            Some("it works, but browsers refuse TURN servers on this port".to_owned())
        }
        (None, fault) => fault,
        (Some(certificate), None) => Some(format!("TLS: {certificate}")),
        (Some(certificate), Some(fault)) => Some(format!("TLS: {certificate}; then {fault}")),
    }
}
