//! The certificate: whether browsers accept it under the names that they use, and whether the running server has it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use super::names;
use super::site::{Site, once, untested};
use crate::base::text::counted;
use crate::base::transport::Transport;
use crate::cert::{CertError, Description, Warning};
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::text::{date, list, span};
use crate::doctor::tls::{Certificate, Trust, Verdict, shown};
use crate::system::clock;

const RELOAD: &str = "its log says why it does not use them; systemctl reload hallpass tries again";

/// Judges the files of the configuration and the certificate of the running server.
pub fn check(site: &Site<'_>, seen: &Seen) -> Check {
    let mut check = Check::of("certificate");
    let examined = &site.certificate;
    let valid = valid_now(seen);
    match &examined.error {
        Some(CertError::Read(path, error))
            if site.is_limited() && error.kind() == ErrorKind::PermissionDenied =>
        {
            check.findings.push(untested(
                "certificate_not_tested",
                format!("this user may not read {}", path.display()),
                "run this command as root",
            ));
        }
        Some(error) if valid.is_some() => {
            let found = divided(Finding::warning, "certificate_unusable_in_files", &error.to_string());
            check.findings.push(Finding {
                text: format!(
                    "{}. The running server keeps the certificate from before, so calls work now, but not after a restart",
                    found.text
                ),
                remedy: found.remedy.map(|remedy| format!("{remedy}; do not restart before")),
                ..found
            });
        }
        Some(error) => {
            check.findings.push(divided(Finding::error, "certificate_unusable", &error.to_string()));
        }
        None => {}
    }
    check.findings.extend(examined.warnings.iter().map(|found| match (&valid, found) {
        (Some(served), Warning::Expired(path, days)) => not_renewed(served, path, *days),
        _ => warning(found),
    }));
    check.findings.extend(examined.key_warnings.iter().map(|text| divided(Finding::warning, "key", text)));
    for more in &examined.more {
        let code = if more.is_of_admin() { "admin_certificate" } else { "more_certificates" };
        let errors = more.error.iter().map(|error| (Finding::error as fn(_, _, _) -> _, error.to_string()));
        let warnings =
            more.warnings.iter().map(|found| (Finding::warning as fn(_, _, _) -> _, found.to_string()));
        check.findings.extend(errors.chain(warnings).map(|(make, text)| divided(make, code, &text)));
    }
    if examined.is_awaited {
        check.findings.push(Finding::error(
            "certificate_awaited",
            "[acme] has no certificate yet: a self-signed one serves, which browsers refuse",
            "the log of the server says why; the authority must reach port 443 or 80 of each name from the internet",
        ));
    }
    let Some(key) = &examined.key else { return check };
    let names = wanted(site, seen);
    // The verdict about the chain does not depend on the name that is asked for first.
    let first = names.first().cloned().unwrap_or_else(|| "localhost".to_owned());
    let Some(judged) = Trust::of_this_computer().judge(&key.cert, &first) else { return check };
    let Some(leaf) = judged.chain.first() else { return check };
    check.facts.push(describe(&judged, leaf));
    check.findings.extend(trust(&judged, &examined.warnings));
    check.findings.extend(other_name(site, leaf, &names));
    let has_expired = examined.warnings.iter().any(|warning| matches!(warning, Warning::Expired(..)));
    if valid.is_none() || !has_expired {
        check.findings.extend(not_loaded(seen, leaf));
    }
    check
}

/// Divides a message with its next step after a semicolon.
fn divided(make: fn(&'static str, String, String) -> Finding, code: &'static str, message: &str) -> Finding {
    let (text, remedy) = message.split_once("; ").unwrap_or((message, "replace the files"));
    make(code, text.to_owned(), remedy.to_owned())
}

fn warning(warning: &Warning) -> Finding {
    let text = warning.to_string();
    match warning {
        Warning::Expired(..) => divided(Finding::error, "certificate_expired", &text),
        Warning::ExpiresSoon(..) => divided(Finding::warning, "certificate_expires_soon", &text),
        Warning::NotYetValid(..) => divided(Finding::error, "certificate_not_yet_valid", &text),
        Warning::LeafOnly(..) => divided(Finding::error, "certificate_without_chain", &text),
    }
}

/// The names that the certificate must have: the relay's, and those in the TLS URLs of BigBlueButton's list.
fn wanted(site: &Site<'_>, seen: &Seen) -> Vec<String> {
    let of_xml: Vec<String> = site.xml.iter().flat_map(|xml| xml.tls_hosts()).collect();
    let of_xml = names::ours(site, seen, &of_xml);
    once(site.args.public_name.iter().cloned().chain(of_xml))
}

fn describe(judged: &Certificate, leaf: &Description) -> String {
    let names = if leaf.names.is_empty() { shown(&leaf.subject) } else { list(&leaf.names) };
    let left = leaf.not_after.saturating_sub_unsigned(clock::unix_seconds());
    let left = match u64::try_from(left) {
        Ok(left) => format!("{} left", span(left)),
        Err(_) => "expired".to_owned(),
    };
    format!("for {names}; from {}; until {}, {left}", judged.issuer(), date(leaf.not_after))
}

/// What is wrong with the chain, unless one of the warnings says so already.
fn trust(judged: &Certificate, warnings: &[Warning]) -> Option<Finding> {
    let issuer = judged.issuer();
    let lacks_chain = warnings.iter().any(|warning| matches!(warning, Warning::LeafOnly(_)));
    match &judged.verdict {
        Verdict::SelfSigned => Some(Finding::error(
            "certificate_self_signed",
            "the certificate is signed with its own key, so browsers refuse it",
            "get one from a public authority, for example with certbot",
        )),
        Verdict::UnknownIssuer if !lacks_chain => Some(Finding::error(
            "certificate_untrusted",
            format!(
                "the certificate is from \"{issuer}\", which this machine does not trust, or one of its issuers is missing; \
                 browsers refuse it"
            ),
            "write the whole chain (fullchain.pem) of a public authority; SSL_CERT_FILE names further trusted ones",
        )),
        Verdict::Forged | Verdict::Invalid(_) => Some(Finding::error(
            "certificate_invalid",
            format!(
                "the certificate from \"{issuer}\" is not valid ({}), so browsers refuse it",
                judged.verdict.code()
            ),
            "get a new certificate",
        )),
        _ => None,
    }
}

fn other_name(site: &Site<'_>, leaf: &Description, names: &[String]) -> Option<Finding> {
    let missing: Vec<String> = names.iter().filter(|name| !covers(&leaf.names, name)).cloned().collect();
    let has = if leaf.names.is_empty() { "no name".to_owned() } else { list(&leaf.names) };
    if !missing.is_empty() {
        let missing = list(&missing);
        return Some(Finding::error(
            "certificate_for_other_name",
            format!("the certificate is for {has}, not for {missing}, so browsers refuse it"),
            format!("get a certificate that has {missing}, or let clients use a name that it has"),
        ));
    }
    // The realm is no address, but where it looks like one and no name is known, the two should agree.
    let realm = &site.config.realm;
    let differs = names.is_empty() && realm.contains('.') && !covers(&leaf.names, realm);
    differs.then(|| {
        Finding::warning(
            "certificate_for_other_name",
            format!("the certificate is for {has}, not for {realm}, the realm of the configuration"),
            "write the name that clients use as --public-name NAME to see whether that is a mistake",
        )
    })
}

/// Whether one of the names of a certificate is this one (RFC 9525 section 6.3).
fn covers(names: &[String], wanted: &str) -> bool {
    let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
    let address = wanted.parse::<IpAddr>().ok();
    names.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        match (name.strip_prefix("*."), address) {
            (_, Some(address)) => name.parse() == Ok(address),
            (Some(domain), None) => {
                wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain)
            }
            (None, None) => name == wanted,
        }
    })
}

/// The certificates of the running server.
fn served(seen: &Seen) -> impl Iterator<Item = &Description> {
    let tls = seen.doors.iter().filter(|(door, _)| door.rung.transport == Transport::Tls);
    tls.filter_map(|(_, outcome)| outcome.certificate.as_ref()?.chain.first())
}

/// Returns the certificate of the running server if all that it presents are valid now.
fn valid_now(seen: &Seen) -> Option<Description> {
    let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
    let mut valid = served(seen).peekable();
    let first = valid.peek().copied().cloned();
    valid.all(|leaf| (leaf.not_before..=leaf.not_after).contains(&now)).then_some(first)?
}

/// The files have an expired certificate, which a restart would use and a reload refuses.
fn not_renewed(served: &Description, path: &Path, days: u64) -> Finding {
    Finding::warning(
        "certificate_expired_in_files",
        format!(
            "{}: expired {} ago. The running server still has a valid one, until {}, so calls work now. After a restart it would \
             have the expired one, which browsers refuse",
            path.display(),
            counted(usize::try_from(days).unwrap_or(usize::MAX), "day"),
            date(served.not_after)
        ),
        "renew it, then systemctl reload hallpass; do not restart before",
    )
}

/// The running server has another certificate than the files.
fn not_loaded(seen: &Seen, leaf: &Description) -> Option<Finding> {
    let old = served(seen).find(|served| *served != leaf)?;
    let names = if old.names.is_empty() { shown(&old.subject) } else { list(&old.names) };
    Some(Finding::warning(
        "certificate_not_loaded",
        format!(
            "the running server has another certificate than the files: one for {names} that is valid until {}",
            date(old.not_after)
        ),
        RELOAD,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_certificates() {
        let names = ["Relay.example.org", "*.school.example", "192.0.2.1"].map(str::to_owned);
        for name in ["relay.example.org", "RELAY.example.org.", "a.school.example", "192.0.2.1"] {
            assert!(covers(&names, name), "{name}");
        }
        for name in
            ["example.org", "a.b.school.example", "school.example", ".school.example", "192.0.2.2", ""]
        {
            assert!(!covers(&names, name), "{name}");
        }
    }
}
