//! The gzip format (RFC 1952) around deflated data.

use crc::{CRC_32_ISO_HDLC, Crc};
use miniz_oxide::deflate::compress_to_vec;

/// The checksum of gzip (RFC 1952 section 8).
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
/// Magic number, deflate, no flags, no time, best compression, made on any system (RFC 1952 section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
/// The best that deflate does, because it is done once.
const LEVEL: u8 = 9;

/// Compresses `bytes`.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = HEADER.to_vec();
    gzip.extend_from_slice(&compress_to_vec(bytes, LEVEL));
    gzip.extend_from_slice(&CRC.checksum(bytes).to_le_bytes());
    // The length modulo 2^32, as the format says.
    gzip.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    gzip
}

#[cfg(test)]
mod tests {
    use super::*;
    use miniz_oxide::inflate::decompress_to_vec;

    #[test]
    fn what_is_compressed_comes_back() {
        let text = "a page about a page about a page. ".repeat(40);
        let gzip = compress(text.as_bytes());
        assert!(gzip.len() < text.len() / 5, "{}", gzip.len());
        let deflated = &gzip[HEADER.len()..gzip.len() - 8];
        assert_eq!(decompress_to_vec(deflated).expect("whole"), text.as_bytes());
        // The checksum of "123456789" is in every description of this CRC.
        let nine = compress(b"123456789");
        assert_eq!(nine[nine.len() - 8..], [0x26, 0x39, 0xf4, 0xcb, 9, 0, 0, 0]);
    }
}
