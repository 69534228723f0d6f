//! Reads the fields of a certificate (RFC 5280 section 4.1) that warnings and metrics need: validity, issuer, subject and
//! the first name. Not used for decisions about trust; rustls parses the certificate itself.

use std::net::{Ipv4Addr, Ipv6Addr};

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const EXTENSIONS: u8 = 0xa3;
/// dNSName and iPAddress of a GeneralName (section 4.2.1.6).
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

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
    let mut body = from_issuer(der)?;
    let issuer = body.expect(SEQUENCE)?;
    let mut validity = Der(body.expect(SEQUENCE)?);
    let subject = body.expect(SEQUENCE)?;
    let not_before = time(validity.next()?)?;
    let not_after = time(validity.next()?)?;
    Some(Summary { not_before, not_after, self_issued: issuer == subject })
}

/// Returns the first DNS name or IP address in the subjectAltName of a certificate (section 4.2.1.6), which is what
/// clients compare; `None` if there is none.
pub(super) fn first_name(der: &[u8]) -> Option<String> {
    let mut fields = from_issuer(der)?;
    let extensions = std::iter::from_fn(|| fields.next()).find(|&(tag, _)| tag == EXTENSIONS)?.1;
    let mut extensions = Der(Der(extensions).expect(SEQUENCE)?);
    let mut names = loop {
        let mut extension = Der(extensions.expect(SEQUENCE)?);
        if extension.expect(OBJECT_IDENTIFIER)? == SUBJECT_ALT_NAME {
            let (tag, mut value) = extension.next()?;
            if tag == BOOLEAN {
                value = extension.expect(OCTET_STRING)?; // after `critical`
            }
            break Der(Der(value).expect(SEQUENCE)?);
        }
    };
    std::iter::from_fn(|| names.next()).find_map(name)
}

/// Returns a GeneralName as text, if it is a DNS name or an IP address.
fn name((tag, content): (u8, &[u8])) -> Option<String> {
    match tag {
        // An IA5String, so it is ASCII; a control character would be invalid.
        DNS_NAME if content.iter().all(u8::is_ascii_graphic) => String::from_utf8(content.to_vec()).ok(),
        IP_ADDRESS => {
            let v4 = <[u8; 4]>::try_from(content).map(|octets| Ipv4Addr::from(octets).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(content).map(|octets| Ipv6Addr::from(octets).to_string()))
                .ok()
        }
        _ => None,
    }
}

/// Returns the fields of a certificate from the issuer on.
fn from_issuer(der: &[u8]) -> Option<Der<'_>> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut body = Der(certificate.expect(SEQUENCE)?);
    if body.0.first() == Some(&VERSION) {
        body.next()?;
    }
    body.expect(INTEGER)?; // serialNumber
    body.expect(SEQUENCE)?; // signature
    Some(body)
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

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar. Years are counted from March, so that the leap
/// day is the last day of a year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + day_of_year - 719_468
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
        for end in 0..der.len() {
            assert_eq!((summary(&der[..end]), first_name(&der[..end])), (None, None));
        }
        for at in 0..der.len() {
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = der.clone();
                broken[at] = value;
                let _ = (summary(&broken), first_name(&broken));
            }
        }
    }

    #[test]
    fn the_first_name_or_address_is_read() {
        let made = |names: &[&str], addresses: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let made = super::super::self_signed(&names, &addresses, 1_800_000_000).unwrap();
            first_name(&made.key.cert[0])
        };
        assert_eq!(made(&["a.example", "b.example"], &["192.0.2.1"]).as_deref(), Some("a.example"));
        assert_eq!(made(&[], &["192.0.2.1"]).as_deref(), Some("192.0.2.1"));
        assert_eq!(made(&[], &["2001:db8::1"]).as_deref(), Some("2001:db8::1"));
        let general = |content: &[u8]| name((DNS_NAME, content));
        assert_eq!(general(b"a\nb"), None, "not a name");
        assert_eq!(name((IP_ADDRESS, b"12345")), None);
    }
}
