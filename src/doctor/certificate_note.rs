//! What a certificate that browsers do not accept means.

use super::finding::{Addressee, Finding, finding};
use super::rung::Rung;
use super::text::{date, list};
use super::tls::{Certificate, Verdict};
use crate::base::turn_url::place;

/// Words in the names of authorities of devices that inspect TLS.
const OF_DEVICES: [&str; 12] = [
    "filter",
    "proxy",
    "inspect",
    "firewall",
    "gateway",
    "school",
    "forti",
    "sophos",
    "zscaler",
    "palo alto",
    "squid",
    "untrust",
];

/// What is wrong with a certificate, and who can change it.
pub(super) fn certificate_note(rung: &Rung, certificate: &Certificate) -> Option<(Finding, Addressee)> {
    let (issuer, at) = (certificate.issuer(), place(&rung.host, rung.port));
    let dates = certificate.chain.first().map(|leaf| (leaf.not_before, leaf.not_after));
    let day = |unix: Option<i64>| unix.map(date).unwrap_or_default();
    let (network, relay) = (Addressee::Network, Addressee::Relay);
    let inspection = "A device in this network opens encrypted connections to inspect them (TLS inspection)";
    Some(match &certificate.verdict {
        Verdict::Public | Verdict::Unchecked => return None,
        Verdict::Added => (
            finding(
                "inspected",
                format!(
                    "The certificate at {at} is from \"{issuer}\", not from a public authority; it is valid only because \
                     this authority was added to this computer. {inspection}, or the relay belongs to your organization."
                ),
            ),
            network,
        ),
        // As relays do that lack their chain, and some devices that inspect.
        Verdict::UnknownIssuer if is_leaf_alone(certificate) => (
            finding(
                "intercepted",
                format!(
                    "The certificate at {at} is from \"{issuer}\", not from a public authority, or it came without the certificate of \
                     that authority, so browsers refuse it. Either the relay lacks its chain: its administrator writes fullchain.pem as \
                     cert. Or a device in this network opens encrypted connections to inspect them (TLS inspection). A test from another \
                     network, such as a phone's, tells: with the same issuer there, it is the relay."
                ),
            ),
            Addressee::Either,
        ),
        Verdict::UnknownIssuer => (
            finding(
                "intercepted",
                format!(
                    "The certificate at {at} is from \"{issuer}\", not from a public authority, so browsers refuse it. \
                     {inspection}, or the relay's certificate is from a private authority or lacks its chain. A test from \
                     another network, such as a phone's, tells: with the same issuer there, ask the administrator of the relay."
                ),
            ),
            network,
        ),
        Verdict::Forged => (
            finding(
                "intercepted",
                format!(
                    "The certificate at {at} claims to be from \"{issuer}\", which did not sign it, so browsers refuse it. \
                     {inspection}."
                ),
            ),
            network,
        ),
        Verdict::SelfSigned => (
            finding(
                "self_signed",
                format!(
                    "The certificate at {at} is signed with its own key (\"{issuer}\"), so browsers refuse it. The relay \
                     needs a certificate of a public authority; if it has one, a device in this network replaces it."
                ),
            ),
            relay,
        ),
        Verdict::Expired => (
            finding(
                "certificate_expired",
                format!(
                    "The certificate at {at} expired on {}. (If this computer's clock is wrong, set it.)",
                    day(dates.map(|(_, end)| end))
                ),
            ),
            relay,
        ),
        Verdict::NotYetValid => (
            finding(
                "certificate_not_yet_valid",
                format!(
                    "The certificate at {at} is valid from {} on, so this computer's clock is probably behind. Set it.",
                    day(dates.map(|(begin, _)| begin))
                ),
            ),
            relay,
        ),
        Verdict::OtherName => {
            let names = certificate.chain.first().map(|leaf| list(&leaf.names)).unwrap_or_default();
            let text = format!(
                "The certificate at {at} is for {}, issued by \"{issuer}\": another server answers there, or the relay's \
                 certificate lacks the name.",
                if names.is_empty() { "another name" } else { &names }
            );
            (finding("certificate_for_other_name", text), relay)
        }
        Verdict::Invalid(error) => {
            (finding("certificate_invalid", format!("The certificate at {at} is not valid: {error}.")), relay)
        }
    })
}

/// Whether a certificate of another issuer came without the issuer's, and nothing in the issuer's name says that a device made it.
fn is_leaf_alone(certificate: &Certificate) -> bool {
    let issuer = certificate.issuer().to_lowercase();
    let is_alone = matches!(&certificate.chain[..], [leaf] if !leaf.is_self_issued);
    is_alone && !OF_DEVICES.iter().any(|word| issuer.contains(word))
}
