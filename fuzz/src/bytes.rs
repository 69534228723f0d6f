//! Shared helpers that read values from the input.

use std::net::{IpAddr, SocketAddr};

/// Takes the next `N` bytes; zeros after the end of the input.
pub fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    let len = N.min(data.len());
    taken[..len].copy_from_slice(&data[..len]);
    *data = &data[len..];
    taken
}

/// Takes an address of either family.
pub fn address(data: &mut &[u8]) -> SocketAddr {
    let [family] = take(data);
    let port = u16::from_be_bytes(take(data));
    let ip = match family % 2 {
        0 => IpAddr::from(take::<4>(data)),
        _ => IpAddr::from(take::<16>(data)),
    };
    SocketAddr::new(ip, port)
}

/// Splits the input into pieces, whose lengths cycle through `sizes`.
pub fn pieces<'a>(sizes: &'a [u8], data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let sizes: &[u8] = if sizes.is_empty() { &[0] } else { sizes };
    let mut rest = data;
    sizes.iter().cycle().map_while(move |&size| {
        let (piece, behind) = rest.split_at_checked(usize::from(size) + 1).unwrap_or((rest, &[]));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}
