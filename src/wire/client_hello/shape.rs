//! What is typical of a kind of browser in a ClientHello, in a few bytes. Kinds of browsers differ in it more than
//! versions of one do, and a device that opens TLS connections and makes new ones has a kind of its own.

use super::records::{
    CLIENT_HELLO, EXTENSION_ALPN, EXTENSION_SERVER_NAME, Progress, Reader, message_length, protocols,
    reassemble,
};

const EXTENSION_GROUPS: u16 = 10;
const EXTENSION_VERSIONS: u16 = 43;
const TLS_1_3: u16 = 0x0304;
/// X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem), and its predecessor X25519Kyber768.
const POST_QUANTUM: [u16; 2] = [0x11ec, 0x6399];

/// The ALPN protocols in a ClientHello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// No extension.
    #[default]
    Absent,
    /// `h2`, then `http/1.1`: what browsers send for a page.
    Web,
    /// Only `http/1.1`.
    Http1,
    /// Any other list.
    Other,
}

/// Extensions that tell kinds of clients apart, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions(u16);

/// An extension of [`Extensions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// status_request (RFC 6066).
    StatusRequest,
    /// signed_certificate_timestamp (RFC 6962).
    CertificateTimestamps,
    /// encrypt_then_mac (RFC 7366), which OpenSSL sends and no browser does.
    EncryptThenMac,
    /// compress_certificate (RFC 8879).
    CompressCertificate,
    /// record_size_limit (RFC 8449).
    RecordSizeLimit,
    /// delegated_credential (RFC 9345).
    DelegatedCredential,
    /// application_settings, which only browsers of the Chromium family send (draft-vvv-tls-alps).
    ApplicationSettings,
    /// encrypted_client_hello (RFC 9849).
    EncryptedHello,
}

/// The numbers of the extensions (IANA TLS ExtensionType Values).
const NUMBERS: [(u16, Extension); 9] = [
    (5, Extension::StatusRequest),
    (18, Extension::CertificateTimestamps),
    (22, Extension::EncryptThenMac),
    (27, Extension::CompressCertificate),
    (28, Extension::RecordSizeLimit),
    (34, Extension::DelegatedCredential),
    (17_513, Extension::ApplicationSettings),
    (17_613, Extension::ApplicationSettings),
    (0xfe0d, Extension::EncryptedHello),
];

impl Extensions {
    /// Whether the extension is there.
    pub fn have(self, extension: Extension) -> bool {
        self.0 & 1 << extension as u16 != 0
    }

    /// Adds an extension.
    #[must_use]
    pub fn with(self, extension: Extension) -> Self {
        Self(self.0 | 1 << extension as u16)
    }
}

/// The shape of a ClientHello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Whether a cipher suite and an extension are reserved values (GREASE, RFC 8701).
    pub grease: bool,
    /// Whether TLS 1.3 is offered.
    pub tls_1_3: bool,
    /// Whether a server name is sent.
    pub server_name: bool,
    /// Whether a hybrid post-quantum group is offered.
    pub post_quantum: bool,
    /// The protocols.
    pub alpn: Alpn,
    /// The first cipher suites, without reserved values.
    pub suites: [u16; 3],
    /// Known extensions.
    pub extensions: Extensions,
}

/// Returns the shape of the ClientHello at the start of a stream; `None` if it is not complete or not valid.
pub fn shape(bytes: &[u8]) -> Option<Shape> {
    match message_length(bytes) {
        Progress::Whole(length) => parse(&reassemble(bytes, length)),
        Progress::Unfinished | Progress::Never => None,
    }
}

/// Whether the number is reserved so that servers learn to ignore unknown ones (RFC 8701).
fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

fn parse(message: &[u8]) -> Option<Shape> {
    let mut body = Reader(message.get(4..).filter(|_| message[0] == CLIENT_HELLO)?);
    body.take(2 + 32)?; // legacy_version, random
    body.vector8()?; // legacy_session_id
    let mut shape = Shape::default();
    let suites = numbers(body.vector16()?);
    for (slot, suite) in shape.suites.iter_mut().zip(suites.iter().filter(|&&suite| !is_grease(suite))) {
        *slot = *suite;
    }
    body.vector8()?; // legacy_compression_methods
    if body.0.is_empty() {
        return Some(shape);
    }
    let mut extensions = Reader(body.vector16()?);
    let mut reserved = false;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.vector16()?;
        match kind {
            EXTENSION_SERVER_NAME => shape.server_name = true,
            EXTENSION_ALPN => shape.alpn = alpn(&protocols(&mut Reader(content))?),
            EXTENSION_GROUPS => {
                let groups = numbers(Reader(content).vector16()?);
                shape.post_quantum = groups.iter().any(|group| POST_QUANTUM.contains(group));
            }
            EXTENSION_VERSIONS => shape.tls_1_3 = numbers(Reader(content).vector8()?).contains(&TLS_1_3),
            _ => reserved |= is_grease(kind),
        }
        if let Some((_, known)) = NUMBERS.iter().find(|(number, _)| *number == kind) {
            shape.extensions = shape.extensions.with(*known);
        }
    }
    shape.grease = reserved && suites.iter().any(|&suite| is_grease(suite));
    Some(shape)
}

fn alpn(protocols: &[Vec<u8>]) -> Alpn {
    match protocols {
        [first, second] if first == b"h2" && second == b"http/1.1" => Alpn::Web,
        [only] if only == b"http/1.1" => Alpn::Http1,
        _ => Alpn::Other,
    }
}

/// The big-endian numbers of two bytes in a list. A last odd byte is left out.
fn numbers(list: &[u8]) -> Vec<u16> {
    list.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello in one record, from its suites and extensions.
    fn hello(suites: &[u16], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let list = |numbers: &[u16]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
        let long = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
        let all: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), long(content.clone())].concat())
            .collect();
        let body = [vec![3, 3], vec![7; 32], vec![0], long(list(suites)), vec![1, 0], long(all)].concat();
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[1][..], &length[1..], &body].concat();
        [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), &message].concat()
    }

    #[test]
    fn a_chromium_hello_has_reserved_values_and_a_hybrid_group() {
        let bytes = hello(
            &[0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b],
            &[
                (0x4a4a, vec![]),
                (0, vec![0, 4, 0, 0, 1, b'a']),
                (43, vec![6, 0xba, 0xba, 3, 4, 3, 3]),
                (10, vec![0, 6, 0x2a, 0x2a, 0x11, 0xec, 0, 29]),
                (16, b"\x00\x0c\x02h2\x08http/1.1".to_vec()),
                (27, vec![2, 0, 2]),
                (17_613, vec![0, 3, 2, b'h', b'2']),
                (0x6a6a, vec![0]),
            ],
        );
        let shape = shape(&bytes).expect("whole");
        assert!(shape.grease && shape.tls_1_3 && shape.post_quantum && shape.server_name);
        assert_eq!((shape.alpn, shape.suites), (Alpn::Web, [0x1301, 0x1302, 0x1303]));
        let extensions = shape.extensions;
        assert!(
            extensions.have(Extension::CompressCertificate)
                && extensions.have(Extension::ApplicationSettings)
        );
        assert!(!extensions.have(Extension::EncryptThenMac) && !extensions.have(Extension::RecordSizeLimit));
        assert_eq!(super::shape(&bytes[..bytes.len() - 1]), None, "incomplete");
    }

    #[test]
    fn a_plain_library_has_neither() {
        let bytes = hello(&[0x1302, 0x1303, 0x1301], &[(22, vec![]), (43, vec![2, 3, 3])]);
        let shape = shape(&bytes).expect("whole");
        assert!(!shape.grease && !shape.tls_1_3 && !shape.post_quantum && !shape.server_name);
        assert_eq!((shape.alpn, shape.suites), (Alpn::Absent, [0x1302, 0x1303, 0x1301]));
        assert!(shape.extensions.have(Extension::EncryptThenMac));
    }

    #[test]
    fn lengths_that_do_not_fit_are_no_hello() {
        let bytes = hello(&[0x1301], &[(10, vec![0, 9, 0, 29])]);
        assert_eq!(shape(&bytes), None);
        assert_eq!(shape(b"GET / HTTP/1.1\r\n"), None);
        assert!(size_of::<Shape>() <= 16, "every connection has one");
    }
}
