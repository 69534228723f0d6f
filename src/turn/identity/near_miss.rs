//! Explains a wrong password: the secret that it was made with differs from a configured one in a way that happens often when
//! secrets are copied.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::auth::PasswordAlgorithm;
use super::rest;
use crate::turn::settings::Settings;
use crate::wire::message::Message;
use crate::wire::request::Credentials;

/// The secrets that are tried. Each costs the control thread about 15 us.
const SECRETS_MAX: usize = 200;

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
    /// It is in quotes.
    Quoted,
    /// It was decoded from Base64 first.
    Decoded,
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
            Difference::Quoted => "in quotes",
            Difference::Decoded => "after decoding it from Base64",
        })
    }
}

/// Returns the configured secret that nearly fits a request whose password fits none.
pub fn find(settings: &Settings, request: &[u8]) -> Option<NearMiss> {
    let message = Message::parse(request).ok()?;
    let credentials = Credentials::parse(&message).ok()?;
    let (name, proof) = (credentials.username?, message.integrity()?);
    let algorithm = credentials
        .password_algorithm
        .and_then(PasswordAlgorithm::from_number)
        .unwrap_or(PasswordAlgorithm::Md5);
    let fits = |secret: &[u8]| {
        let password = rest::Secret::of_bytes(secret).password(name);
        message.verify(&algorithm.key(name, &settings.realm, password), proof)
    };
    let secrets =
        settings.hosts.iter().flat_map(|host| host.secrets.iter().map(move |secret| (host, secret)));
    secrets.take(SECRETS_MAX).find_map(|(host, secret)| {
        let (_, difference) = variants(secret).into_iter().find(|(variant, _)| fits(variant))?;
        Some(NearMiss { host: Arc::clone(&host.name), difference })
    })
}

fn variants(secret: &str) -> Vec<(Vec<u8>, Difference)> {
    let text = |text: String, difference| (text.into_bytes(), difference);
    let mut variants = vec![
        text(format!("{secret}="), Difference::MoreEquals),
        text(format!("{secret}=="), Difference::MoreEquals),
        text(format!("{secret}\n"), Difference::Newline),
        text(format!("{secret}\r"), Difference::CarriageReturn),
        text(format!("\"{secret}\""), Difference::Quoted),
        text(format!("'{secret}'"), Difference::Quoted),
    ];
    let bare = secret.trim_end_matches('=');
    if bare.len() < secret.len() {
        variants.push(text(bare.to_owned(), Difference::LacksEquals));
        variants.push(text(secret[..secret.len() - 1].to_owned(), Difference::LacksEquals));
    }
    variants.extend(STANDARD.decode(secret).ok().map(|bytes| (bytes, Difference::Decoded)));
    variants
}
