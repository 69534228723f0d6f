//! Judges whether the connection of a browser was opened on its way: a device that does so makes a TLS connection of its own,
//! with a ClientHello that is not the browser's.

use serde_json::{Value, json};

use crate::wire::client_hello::{Alpn, Extension, Shape};

/// Signs weigh 1 or 2. From this weight on interception is likely: one sign alone may be a setting of the browser.
const LIKELY: u32 = 2;
/// AES first, as processors with instructions for it do; ChaCha20 first, as others do.
const CHROMIUM_SUITES: [[u16; 3]; 2] = [[0x1301, 0x1302, 0x1303], [0x1303, 0x1301, 0x1302]];
const FIREFOX_SUITES: [u16; 3] = [0x1301, 0x1303, 0x1302];
/// The versions from which on a hybrid post-quantum group is offered.
const CHROMIUM_HYBRID: u32 = 131;
const FIREFOX_HYBRID: u32 = 132;
/// Older versions are not judged.
const CHROMIUM_MIN: u32 = 110;
const FIREFOX_MIN: u32 = 115;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chromium(u32),
    Firefox(u32),
    /// Safari, and every browser on an iPhone or iPad.
    WebKit,
    Other,
}

/// The judgement about one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// Whether this kind of browser is known, and TLS ended in this server.
    is_known: bool,
    weight: u32,
    /// The signs, as words that the page translates.
    reasons: Vec<&'static str>,
}

impl Judgement {
    pub fn is_likely(&self) -> bool {
        self.weight >= LIKELY
    }

    pub fn json(&self) -> Value {
        json!({ "known": self.is_known, "likely": self.is_likely(), "reasons": self.reasons })
    }

    fn sign(&mut self, is_there: bool, weight: u32, reason: &'static str) {
        if is_there {
            self.weight += weight;
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }
}

/// Compares a ClientHello with what a browser with this `User-Agent` sends. `has_name`: whether the page was asked for by a name,
/// which browsers send.
pub(super) fn judge(hello: Option<&Shape>, agent: &str, has_name: bool) -> Judgement {
    let mut judgement = Judgement::default();
    let Some(hello) = hello else { return judgement };
    let have = |extension| hello.extensions.have(extension);
    judgement.is_known = true;
    match kind(agent) {
        Kind::Chromium(version) if version >= CHROMIUM_MIN => {
            judgement.sign(!hello.grease, 2, "reserved");
            judgement.sign(version >= CHROMIUM_HYBRID && !hello.post_quantum, 1, "groups");
            judgement.sign(!CHROMIUM_SUITES.contains(&hello.suites), 1, "order");
            let typical = [Extension::CompressCertificate, Extension::ApplicationSettings];
            judgement.sign(typical.into_iter().any(|typical| !have(typical)), 1, "extensions");
        }
        Kind::Firefox(version) if version >= FIREFOX_MIN => {
            judgement.sign(hello.grease, 2, "foreign");
            judgement.sign(version >= FIREFOX_HYBRID && !hello.post_quantum, 1, "groups");
            judgement.sign(hello.suites != FIREFOX_SUITES, 1, "order");
            let typical = [Extension::DelegatedCredential, Extension::RecordSizeLimit];
            judgement.sign(typical.into_iter().all(|typical| !have(typical)), 2, "extensions");
        }
        Kind::WebKit => judgement.sign(!hello.grease, 2, "reserved"),
        Kind::Chromium(_) | Kind::Firefox(_) | Kind::Other => return Judgement::default(),
    }
    judgement.sign(have(Extension::EncryptThenMac), 2, "foreign");
    judgement.sign(!hello.tls_1_3, 2, "version");
    judgement.sign(hello.alpn != Alpn::Web, 1, "alpn");
    judgement.sign(has_name && !hello.server_name, 1, "name");
    judgement
}

/// The kind and version of a browser, for the operator. Nothing else of a `User-Agent` is kept.
pub(super) fn browser(agent: &str) -> String {
    match kind(agent) {
        Kind::Chromium(version) => format!("Chromium {version}"),
        Kind::Firefox(version) => format!("Firefox {version}"),
        Kind::WebKit => "Safari".to_owned(),
        Kind::Other => "other".to_owned(),
    }
}

fn kind(agent: &str) -> Kind {
    let version = |mark: &str| -> Option<u32> {
        let rest = agent.split_once(mark)?.1;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    };
    if ["iPhone", "iPad", "iPod"].iter().any(|device| agent.contains(device)) {
        return Kind::WebKit;
    }
    match (version("Chrome/"), version("Firefox/")) {
        (Some(version), _) => Kind::Chromium(version),
        (None, Some(version)) => Kind::Firefox(version),
        (None, None) if agent.contains("Safari/") && agent.contains("Version/") => Kind::WebKit,
        (None, None) => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client_hello::{Extensions, shape};

    const CHROMIUM: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 \
                            Safari/537.36";
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0";
    const SAFARI: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                          Version/18.5 Safari/605.1.15";
    const CHROME_ON_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like \
                                    Gecko) CriOS/138.0.7204.33 Mobile/15E148 Safari/604.1";

    /// Bytes in a file with hexadecimal digits, as captured on the wire.
    fn captured(hex: &str) -> Shape {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.as_chunks::<2>().0;
        let bytes: Vec<u8> = pairs
            .iter()
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("a byte"))
            .collect();
        shape(&bytes).expect("a whole ClientHello")
    }

    #[test]
    fn a_browser_by_itself_shows_no_sign() {
        let chromium = captured(include_str!("../../wire/client_hello/chromium.hex"));
        let judgement = judge(Some(&chromium), CHROMIUM, true);
        // The sample is a connection for media, which has no ALPN, no application settings and the name of the relay.
        assert!(
            !judgement.reasons.contains(&"reserved") && !judgement.reasons.contains(&"order"),
            "{judgement:?}"
        );
        let page = Shape {
            alpn: Alpn::Web,
            extensions: chromium.extensions.with(Extension::ApplicationSettings),
            ..chromium
        };
        assert_eq!(
            judge(Some(&page), CHROMIUM, true).json(),
            json!({ "known": true, "likely": false, "reasons": [] })
        );
    }

    #[test]
    fn a_library_that_claims_to_be_a_browser_is_likely_an_interceptor() {
        let openssl = captured(include_str!("../../wire/client_hello/openssl_sni_alpn.hex"));
        for agent in [CHROMIUM, FIREFOX, SAFARI, CHROME_ON_IPHONE] {
            let judgement = judge(Some(&openssl), agent, true);
            assert!(judgement.is_likely(), "{agent}: {judgement:?}");
        }
        for agent in ["curl/8.14", "", "Mozilla/5.0 Chrome/90.0", "Firefox/60.0"] {
            assert_eq!(judge(Some(&openssl), agent, true), Judgement::default(), "{agent}");
        }
        assert_eq!(judge(None, CHROMIUM, true), Judgement::default());
    }

    #[test]
    fn one_light_sign_is_not_enough() {
        let firefox = Shape {
            tls_1_3: true,
            server_name: true,
            post_quantum: false,
            alpn: Alpn::Web,
            suites: FIREFOX_SUITES,
            extensions: Extensions::default().with(Extension::RecordSizeLimit),
            ..Shape::default()
        };
        let judgement = judge(Some(&firefox), FIREFOX, true);
        assert_eq!((judgement.is_likely(), judgement.reasons), (false, vec!["groups"]));
    }

    #[test]
    fn of_the_user_agent_only_kind_and_version_are_kept() {
        let kept = [CHROMIUM, FIREFOX, SAFARI, CHROME_ON_IPHONE, "<b>"].map(browser);
        assert_eq!(kept, ["Chromium 156", "Firefox 153", "Safari", "Safari", "other"]);
    }
}
