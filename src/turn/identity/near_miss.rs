//! Explains a wrong password: the secret that it was made with differs from a configured one in a way that happens often when
//! secrets are copied.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::rest::Issuer;

/// How the secret of the credentials differs from the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It lacks the equals signs at the end.
    LacksEquals,
    /// It has one or two equals signs more at the end.
    MoreEquals,
    /// It has a newline at the end.
    Newline,
    /// It has a carriage return at the end, as in a file of Windows.
    CarriageReturn,
    /// It has both at the end.
    CrLf,
    /// It has a blank at the end.
    TrailingBlank,
    /// It has a blank at the beginning.
    LeadingBlank,
    /// It begins with a byte order mark, as files of some editors do.
    ByteOrderMark,
    /// It is in quotes.
    Quoted,
    /// It is encoded as in a URL: `%3D` instead of the equals sign.
    UrlEncoded,
    /// It was encoded in Base64 once more.
    Encoded,
    /// It was decoded from Base64 first.
    Decoded,
    /// It is the same, but the password is an HMAC with SHA-256.
    Sha256,
}

/// A configured secret that nearly fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The host that has it.
    pub host: Arc<str>,
    /// How the other one differs.
    pub difference: Difference,
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, difference } = self;
        write!(f, "it was made with the secret of {host} ")?;
        f.write_str(match difference {
            Difference::LacksEquals => "without the equals sign at its end",
            Difference::MoreEquals => "and more equals signs at its end",
            Difference::Newline => "and a newline at its end",
            Difference::CarriageReturn => "and a carriage return at its end",
            Difference::CrLf => "and a carriage return and a newline at its end",
            Difference::TrailingBlank => "and a blank at its end",
            Difference::LeadingBlank => "and a blank at its beginning",
            Difference::ByteOrderMark => "and a byte order mark at its beginning",
            Difference::Quoted => "in quotes",
            Difference::UrlEncoded => "encoded as in a URL (%3D)",
            Difference::Encoded => "after encoding it in Base64",
            Difference::Decoded => "after decoding it from Base64",
            Difference::Sha256 => "by HMAC-SHA256 instead of HMAC-SHA1",
        })
    }
}

/// Returns the secrets that are often used by mistake instead of this one.
pub fn variants(secret: &str) -> Vec<(Issuer, Difference)> {
    let text = |text: String, difference| (Issuer::Sha1(text.into_bytes()), difference);
    let mut variants = vec![
        text(format!("{secret}\n"), Difference::Newline),
        text(format!("{secret}\r\n"), Difference::CrLf),
        text(format!("{secret}\r"), Difference::CarriageReturn),
        text(format!("{secret} "), Difference::TrailingBlank),
        text(format!(" {secret}"), Difference::LeadingBlank),
        text(format!("\u{feff}{secret}"), Difference::ByteOrderMark),
        text(format!("\"{secret}\""), Difference::Quoted),
        text(format!("'{secret}'"), Difference::Quoted),
        text(format!("{secret}="), Difference::MoreEquals),
        text(format!("{secret}=="), Difference::MoreEquals),
        text(STANDARD.encode(secret), Difference::Encoded),
        (Issuer::Sha256(secret.as_bytes().to_vec()), Difference::Sha256),
    ];
    let bare = secret.trim_end_matches('=');
    if bare.len() < secret.len() {
        variants.push(text(bare.to_owned(), Difference::LacksEquals));
        variants.push(text(secret[..secret.len() - 1].to_owned(), Difference::LacksEquals));
    }
    let encoded = secret.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    if encoded != secret {
        variants.push(text(encoded, Difference::UrlEncoded));
    }
    variants.extend(STANDARD.decode(secret).ok().map(|bytes| (Issuer::Sha1(bytes), Difference::Decoded)));
    variants
}
