//! Reads the fields of a certificate (RFC 5280 section 4.1) that warnings and reports need: validity, issuer, subject and
//! names. Not used for decisions about trust; rustls parses the certificate itself.

use std::net::IpAddr;

use crate::base::calendar::days_since_1970;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const BMP_STRING: u8 = 0x1e;
const EXTENSIONS: u8 = 0xa3;
/// The GeneralName choices of subjectAltName (section 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.4.3, 2.5.4.10 and 2.5.29.17 in DER.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 29, 17];
/// 2.5.29.35 in DER, and the tag of keyIdentifier in its value (section 4.2.1.1).
const AUTHORITY_KEY: &[u8] = &[0x55, 29, 35];
const KEY_IDENTIFIER: u8 = 0x80;

/// The fields that warnings need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Whether issuer and subject are the same.
    pub self_issued: bool,
}

/// Reads a certificate. `None` if the bytes are not one.
pub(super) fn summary(der: &[u8]) -> Option<Summary> {
    let Fields { issuer, subject, not_before, not_after, .. } = fields(der)?;
    Some(Summary { not_before, not_after, self_issued: issuer == subject })
}

/// What a person wants to know about a certificate. The texts are as the certificate has them: clean them before they are
/// shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whom it is for.
    pub subject: DistinguishedName,
    /// Who issued it.
    pub issuer: DistinguishedName,
    /// The DNS names and IP addresses in it (subjectAltName), 32 at most.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
    /// Whether issuer and subject are the same.
    pub is_self_issued: bool,
}

/// The parts of a distinguished name that name a person or an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    /// CN.
    pub common_name: Option<String>,
    /// O.
    pub organization: Option<String>,
}

/// Maximum number of names that a description lists.
const NAMES_MAX: usize = 32;
/// Maximum number of DNS names by which a certificate is chosen. Public authorities issue certificates with 100.
const DNS_NAMES_MAX: usize = 1000;

/// Returns the DNS names in a certificate (subjectAltName), 1000 at most.
pub fn dns_names(der: &[u8]) -> Vec<String> {
    let Some(Fields { rest, .. }) = fields(der) else { return Vec::new() };
    alternative_names(rest, DNS_NAMES_MAX, |tag| tag == DNS_NAME).unwrap_or_default()
}

/// What identifies a certificate to its authority (RFC 9773 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifier {
    /// The keyIdentifier of its authority.
    pub authority: Vec<u8>,
    /// Its serial number, as it is encoded.
    pub serial: Vec<u8>,
}

/// Reads the identifier of a certificate. `None` if the bytes are no certificate, or it does not identify its authority.
pub fn identifier(der: &[u8]) -> Option<Identifier> {
    let Fields { serial, rest, .. } = fields(der)?;
    let mut value = Der(Der(extension(rest, AUTHORITY_KEY)?).expect(SEQUENCE)?);
    let authority = value.expect(KEY_IDENTIFIER)?.to_vec();
    Some(Identifier { authority, serial: serial.to_vec() })
}

/// Reads a certificate for display. `None` if the bytes are not one.
pub fn describe(der: &[u8]) -> Option<Description> {
    let Fields { issuer, subject, not_before, not_after, rest, .. } = fields(der)?;
    Some(Description {
        subject: distinguished_name(subject)?,
        issuer: distinguished_name(issuer)?,
        names: alternative_names(rest, NAMES_MAX, |_| true).unwrap_or_default(),
        not_before,
        not_after,
        is_self_issued: issuer == subject,
    })
}

/// The contents of a certificate up to its subject.
struct Fields<'a> {
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    not_before: i64,
    not_after: i64,
    /// The key and the extensions.
    rest: Der<'a>,
}

fn fields(der: &[u8]) -> Option<Fields<'_>> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut body = Der(certificate.expect(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    let serial = body.expect(INTEGER)?;
    body.expect(SEQUENCE)?; // signature
    let issuer = body.expect(SEQUENCE)?;
    let mut validity = Der(body.expect(SEQUENCE)?);
    let subject = body.expect(SEQUENCE)?;
    let not_before = time(validity.next()?)?;
    let not_after = time(validity.next()?)?;
    Some(Fields { serial, issuer, subject, not_before, not_after, rest: body })
}

/// Reads the last common name and organization of a name (section 4.1.2.4).
fn distinguished_name(content: &[u8]) -> Option<DistinguishedName> {
    let (mut name, mut sets) = (DistinguishedName::default(), Der(content));
    while !sets.0.is_empty() {
        let mut set = Der(sets.expect(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            let slot = match attribute.expect(OBJECT_IDENTIFIER)? {
                COMMON_NAME => &mut name.common_name,
                ORGANIZATION => &mut name.organization,
                _ => continue,
            };
            *slot = Some(text(attribute.next()?));
        }
    }
    Some(name)
}

/// Converts a string type to text. Bytes that are not UTF-8 become replacement characters.
fn text((tag, content): (u8, &[u8])) -> String {
    if tag != BMP_STRING {
        return String::from_utf8_lossy(content).into_owned();
    }
    let units = content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

/// Returns the value of an extension from what follows the subject.
fn extension<'a>(mut rest: Der<'a>, wanted: &[u8]) -> Option<&'a [u8]> {
    let extensions = loop {
        if let (EXTENSIONS, content) = rest.next()? {
            break content;
        }
    };
    let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_IDENTIFIER)? != wanted {
            continue;
        }
        // Before the value there may be a BOOLEAN: critical.
        loop {
            if let (OCTET_STRING, content) = extension.next()? {
                return Some(content);
            }
        }
    }
    None
}

/// Reads the names of wanted kinds in subjectAltName (section 4.2.1.6) from what follows the subject.
fn alternative_names(rest: Der<'_>, most: usize, is_wanted: impl Fn(u8) -> bool) -> Option<Vec<String>> {
    let value = extension(rest, SUBJECT_ALT_NAME)?;
    let (mut names, mut all) = (Vec::new(), Der(Der(value).expect(SEQUENCE)?));
    while !all.0.is_empty() && names.len() < most {
        let (tag, content) = all.next()?;
        match (tag, content.len()) {
            _ if !is_wanted(tag) => {}
            (DNS_NAME, _) => names.push(String::from_utf8_lossy(content).into_owned()),
            (IP_ADDRESS, 4) => names.push(IpAddr::from(*content.first_chunk::<4>()?).to_string()),
            (IP_ADDRESS, 16) => names.push(IpAddr::from(*content.first_chunk::<16>()?).to_string()),
            _ => {}
        }
    }
    Some(names)
}

/// The DER elements that are not read yet.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Returns tag and content of the next element. Accepts definite lengths of up to four bytes.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0, |n, &d| n << 8 | usize::from(d)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Returns the content of the next element if it has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

/// Converts UTCTime (years 1950 to 2049) or GeneralizedTime to seconds since 1970. Both are in UTC and have seconds
/// (section 4.1.2.5).
fn time((tag, content): (u8, &[u8])) -> Option<i64> {
    let digits = content.strip_suffix(b"Z").filter(|d| d.iter().all(u8::is_ascii_digit))?;
    let number = |part: &[u8]| part.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(&digits[..2]);
            (if short < 50 { 2000 + short } else { 1900 + short }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    // `rest` is ten digits: MMDDhhmmss.
    let part = |at: usize| number(&rest[at..at + 2]);
    let (month, day) = (part(0), part(2));
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
    fits.then(|| days_since_1970(year, month, day) * 86_400 + part(4) * 3600 + part(6) * 60 + part(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_date_1() {
        // Right-hand sides from `date -u -d ... +%s`.
        assert_eq!(time((UTC_TIME, b"700101000000Z")), Some(0));
        assert_eq!(time((UTC_TIME, b"240229235959Z")), Some(1_709_251_199));
        assert_eq!(time((UTC_TIME, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(time((UTC_TIME, b"500101000000Z")), Some(-631_152_000));
        assert_eq!(time((GENERALIZED_TIME, b"20500301000000Z")), Some(2_529_705_600));
        assert_eq!(time((GENERALIZED_TIME, b"99991231235959Z")), Some(253_402_300_799));
        for wrong in
            [&b"241301000000Z"[..], b"240100000000Z", b"2401010000Z", b"240101000000+0100", b"Z", b""]
        {
            assert_eq!(time((UTC_TIME, wrong)), None, "{wrong:?}");
        }
    }

    #[test]
    fn no_bytes_panic() {
        let made = super::super::self_signed(&["a.example".into()], &[], 1_800_000_000).unwrap();
        let der = made.key.cert[0].to_vec();
        assert!(summary(&der).unwrap().self_issued);
        let described = describe(&der).unwrap();
        assert!(described.is_self_issued && described.issuer == described.subject, "{described:?}");
        assert_eq!(described.names, ["a.example", "localhost", "127.0.0.1", "::1"]);
        for end in 0..der.len() {
            assert_eq!((summary(&der[..end]), describe(&der[..end])), (None, None));
        }
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = der.clone();
                broken[at] = value;
                let _ = (summary(&broken), describe(&broken));
            }
        }
    }
}
