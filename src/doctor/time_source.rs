//! Another machine's clock: the Date of a web server, or the answer of an NTP server.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use hyper::{HeaderMap, header};
use tokio::net::UdpSocket;

use super::link::within;
use super::name::look_up;
use super::stage::Cause;
use super::watch::now;
use super::web::{Protocol, ask};
use crate::base::calendar::days_since_1970;
use crate::base::turn_url::{place, split};
use crate::system::{clock, entropy};

/// Limit for the name and for the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds from 1900, where NTP begins (RFC 5905 section 6), to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;
const NTP_LEN: usize = 48;
/// No leap second announced, version 4, mode 3 (client); the answer has mode 4 (RFC 5905 section 7.3).
const NTP_CLIENT: u8 = 0x23;
const NTP_SERVER: u8 = 4;
/// Where the answer repeats the transmit timestamp of the request, and has its own.
const NTP_ORIGIN: usize = 24;
const NTP_TRANSMIT: usize = 40;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A machine whose clock is compared with this one's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSource {
    kind: Kind,
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Ntp,
}

/// By how many seconds this machine's clock is ahead; negative if it is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub i64);

/// Why a text names no time source. `Display` says what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSource(&'static str);

impl fmt::Display for BadSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadSource {}

impl FromStr for TimeSource {
    type Err = BadSource;

    /// Parses `http://HOST[:PORT]` or `ntp://HOST[:PORT]`.
    ///
    /// # Errors
    /// [`BadSource`].
    fn from_str(text: &str) -> Result<Self, BadSource> {
        let wrong = BadSource("write http://HOST or ntp://HOST, with :PORT if it is not 80 or 123");
        let (scheme, place) = text.split_once("://").ok_or(wrong)?;
        let (kind, usual) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "ntp" => (Kind::Ntp, 123),
            "https" => return Err(BadSource("write http: the Date is read without TLS")),
            _ => return Err(wrong),
        };
        let (host, port) = split(place.trim_end_matches('/')).map_err(|_| wrong)?;
        Ok(Self { kind, host, port: port.unwrap_or(usual) })
    }
}

impl fmt::Display for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl TimeSource {
    /// Returns it as it is written, with its port.
    pub fn url(&self) -> String {
        let scheme = if self.kind == Kind::Http { "http" } else { "ntp" };
        format!("{scheme}://{}", place(&self.host, self.port))
    }

    /// Compares the clocks.
    ///
    /// # Errors
    /// The source cannot be reached, or its answer has no time.
    pub async fn offset(&self) -> Result<Offset, Cause> {
        let found = look_up(&self.host, PATIENCE).await.addresses?;
        let ip = *found.first().ok_or(Cause::NameUnknown)?;
        let (address, until) = (SocketAddr::new(ip, self.port), now() + PATIENCE);
        let theirs = match self.kind {
            Kind::Http => within(PATIENCE, until, self.http(address)).await??,
            Kind::Ntp => within(PATIENCE, until, ntp(address)).await??,
        };
        Ok(Offset(clock::unix_seconds().cast_signed() - theirs))
    }

    async fn http(&self, address: SocketAddr) -> Result<i64, Cause> {
        let response = ask(address, Protocol::Http1, None, &self.host, "/").await?;
        time_of(response.headers()).ok_or_else(|| Cause::System("the answer has no Date".to_owned()))
    }
}

/// The time of an answer. One from a cache has the Date of the first time that it was sent, and an Age (RFC 9111 section 5.1).
fn time_of(headers: &HeaderMap) -> Option<i64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let age = text(header::AGE).and_then(|age| age.trim().parse::<u32>().ok()).unwrap_or(0);
    Some(parse_date(text(header::DATE)?)?.saturating_add(age.into()))
}

/// Asks an NTP server (RFC 5905) for its time, once.
async fn ntp(address: SocketAddr) -> Result<i64, Cause> {
    let failed = |error: std::io::Error| Cause::of_error(&error);
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    // A random number in place of this machine's time: the answer must repeat it.
    let cookie = entropy::key().map_err(|error| Cause::System(error.to_string()))?[0].to_be_bytes();
    let mut request = [0; NTP_LEN];
    request[0] = NTP_CLIENT;
    request[NTP_TRANSMIT..].copy_from_slice(&cookie);
    socket.send(&request).await.map_err(failed)?;
    let mut answer = [0; 512];
    loop {
        let len = socket.recv(&mut answer).await.map_err(failed)?;
        if let Some(time) = parse_ntp(answer.get(..len).unwrap_or_default(), cookie) {
            return Ok(time);
        }
    }
}

/// Returns the server's time in seconds since 1970; `None` if this is not a synchronized server's answer to the request with
/// this cookie.
fn parse_ntp(answer: &[u8], cookie: [u8; 8]) -> Option<i64> {
    let (&first, &stratum) = (answer.first()?, answer.get(1)?);
    let origin = answer.get(NTP_ORIGIN..NTP_ORIGIN + 8)?;
    let seconds = answer.get(NTP_TRANSMIT..)?.first_chunk::<4>()?;
    let is_answer = first & 7 == NTP_SERVER && (1..16).contains(&stratum) && origin == cookie;
    // The era ends in 2036; a small number belongs to the next one.
    let seconds = u64::from(u32::from_be_bytes(*seconds));
    let seconds = if seconds < NTP_EPOCH { seconds + (1 << 32) } else { seconds };
    is_answer.then(|| (seconds - NTP_EPOCH).cast_signed())
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).
fn parse_date(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split([' ', ':']).collect();
    let [_, day, month, year, hours, minutes, seconds, "GMT"] = words[..] else { return None };
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as i64;
    let (day, year): (i64, i64) = (day.parse().ok()?, year.parse().ok()?);
    let is_date = (1..=31).contains(&day) && (1970..=9999).contains(&year);
    let part = |text: &str| text.parse::<i64>().ok().filter(|number| (0..=60).contains(number));
    let time = part(hours)? * 3600 + part(minutes)? * 60 + part(seconds)?;
    is_date.then(|| days_since_1970(year, month, day) * 86_400 + time)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy that keeps answers for minutes is no wrong clock.
    #[test]
    fn the_age_of_a_cached_answer_counts() {
        let date = || (header::DATE, "Thu, 01 Jan 1970 00:16:40 GMT".parse().expect("a value"));
        let of =
            |headers: Vec<(header::HeaderName, header::HeaderValue)>| time_of(&headers.into_iter().collect());
        assert_eq!(of(vec![date()]), Some(1000));
        assert_eq!(of(vec![date(), (header::AGE, "400".parse().expect("a value"))]), Some(1400));
        assert_eq!(of(vec![date(), (header::AGE, "x".parse().expect("a value"))]), Some(1000));
        assert_eq!(of(vec![(header::AGE, "400".parse().expect("a value"))]), None);
    }

    #[test]
    fn dates_of_web_servers() {
        // From `date -u -d ... +%s`.
        assert_eq!(parse_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_date("Thu, 29 Feb 2024 23:59:59 GMT"), Some(1_709_251_199));
        for wrong in
            ["", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 40 Nov 1994 08:49:37 GMT", "x 1 Nov 1994 a:b:c GMT"]
        {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn answers_of_time_servers() {
        let cookie = *b"12345678";
        let answer = |first: u8, stratum: u8, seconds: u32| {
            let mut bytes = [0; NTP_LEN];
            (bytes[0], bytes[1]) = (first, stratum);
            bytes[NTP_ORIGIN..NTP_ORIGIN + 8].copy_from_slice(&cookie);
            bytes[NTP_TRANSMIT..NTP_TRANSMIT + 4].copy_from_slice(&seconds.to_be_bytes());
            bytes
        };
        // 2024-02-29 23:59:59 UTC, and 2036-02-07 06:28:17 UTC in the next era.
        let seconds = 1_709_251_199_u32.wrapping_add(NTP_EPOCH as u32);
        assert_eq!(parse_ntp(&answer(0x24, 2, seconds), cookie), Some(1_709_251_199));
        assert_eq!(parse_ntp(&answer(0x24, 2, 1), cookie), Some(2_085_978_497));
        for (wrong, why) in [
            (answer(0x23, 2, seconds), "a request"),
            (answer(0x24, 0, seconds), "a kiss of death"),
            (answer(0x24, 16, seconds), "not synchronized"),
        ] {
            assert_eq!(parse_ntp(&wrong, cookie), None, "{why}");
        }
        assert_eq!(parse_ntp(&answer(0x24, 2, seconds), *b"87654321"), None);
        assert_eq!(parse_ntp(&answer(0x24, 2, seconds)[..40], cookie), None);
    }

    #[test]
    fn sources_as_they_are_written() {
        let parse =
            |text: &str| text.parse::<TimeSource>().map(|source| (source.kind, source.host, source.port));
        assert_eq!(parse("http://bbb.example.org/"), Ok((Kind::Http, "bbb.example.org".to_owned(), 80)));
        assert_eq!(parse("ntp://[2001:db8::1]:124"), Ok((Kind::Ntp, "2001:db8::1".to_owned(), 124)));
        for wrong in ["", "pool.ntp.org", "https://a", "ftp://a", "ntp://", "http://a/b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
