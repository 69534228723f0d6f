//! Messages for tests: the RFCs' own and captured ones from `tests/vectors`, and a writer of arbitrary ones.

use super::message::{HEADER_LEN, MAGIC_COOKIE};

/// The transaction id of messages from [`message`].
pub const ID: [u8; 12] = *b"transaction.";

macro_rules! vectors {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub fn $name() -> Vec<u8> {
            hex(include_str!(concat!("../../tests/vectors/", $file, ".hex")))
        })*

        /// All of these messages.
        pub fn all() -> Vec<Vec<u8>> {
            vec![$($name()),*]
        }
    };
}
vectors! {
    rfc5769_request = "rfc5769-2.1-request",
    rfc5769_ipv4 = "rfc5769-2.2-ipv4-response",
    rfc5769_ipv6 = "rfc5769-2.3-ipv6-response",
    rfc5769_long_term = "rfc5769-2.4-long-term",
    rfc8489_sha256 = "rfc8489-b.1-sha256",
    chromium_binding = "chromium-binding",
    chromium_allocate = "chromium-allocate",
    chromium_allocate_authenticated = "chromium-allocate-authenticated",
    chromium_create_permission = "chromium-create-permission",
    chromium_channel_bind = "chromium-channel-bind",
    chromium_send = "chromium-send",
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A message with these attributes, padded with zeros, and no integrity.
pub fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = [&kind.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE, &ID].concat();
    for (kind, value) in attributes {
        message.extend(kind.to_be_bytes());
        message.extend((value.len() as u16).to_be_bytes());
        message.extend(*value);
        message.resize(message.len().next_multiple_of(4), 0);
    }
    set_length(&mut message);
    message
}

/// Sets the length field to the length of the attributes.
pub fn set_length(message: &mut [u8]) {
    let length = (message.len() - HEADER_LEN) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}
