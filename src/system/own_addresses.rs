//! Which prefixes the kernel delivers to this machine.
//!
//! They are the prefixes of its local routes: the addresses of interfaces, and prefixes added by `ip route add local` that
//! no interface has.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::net::AddressFamily;

use super::interfaces;
use super::netlink::{Attributes, ROUTE_HEADER, dump};

/// Routing tables that apply to every packet. Local routes in other tables depend on a rule: transparent proxies mark
/// packets for a table whose default route is local, which does not make every address one of this machine.
const TABLES: [u8; 3] = [libc::RT_TABLE_LOCAL, libc::RT_TABLE_MAIN, libc::RT_TABLE_DEFAULT];
/// Routes whose packets are delivered to this machine.
const DELIVERED: [u8; 2] = [libc::RTN_LOCAL, libc::RTN_ANYCAST];

/// Returns the prefixes whose packets the kernel delivers to this machine, sorted: those of `routes`, and the addresses of
/// interfaces.
///
/// # Errors
/// The error of listing the interfaces.
pub fn prefixes(routes: &[(IpNet, u8)]) -> io::Result<Vec<IpNet>> {
    let interfaces = interfaces::addresses()?.into_iter().map(|one| one.address.into());
    let mut own: Vec<IpNet> = interfaces.chain(routes.iter().map(|&(prefix, _)| prefix)).collect();
    own.sort_unstable();
    own.dedup();
    Ok(own)
}

/// Returns the routes whose packets are delivered to this machine, as prefix and kind (`RTN_...`).
///
/// # Errors
/// `Interrupted` if they kept changing, otherwise the error of the netlink socket, which a seccomp filter may refuse.
pub fn routes() -> io::Result<Vec<(IpNet, u8)>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let mut header = [0; ROUTE_HEADER];
        header[0] = family.as_raw() as u8;
        routes.extend(dump(libc::RTM_GETROUTE, &header, libc::RTM_NEWROUTE, own_prefix)?);
    }
    Ok(routes)
}

/// Returns the prefix of a route whose packets are delivered to this machine, and its kind. `None` for any other route.
pub fn own_prefix(route: &[u8]) -> Option<(IpNet, u8)> {
    let (&[family, prefix, _, _, table, _, _, kind, ..], attributes) =
        route.split_first_chunk::<ROUTE_HEADER>()?;
    if !DELIVERED.contains(&kind) || !TABLES.contains(&table) {
        return None;
    }
    let address =
        Attributes::new(attributes).find(|(kind, _)| *kind == libc::RTA_DST).map(|(_, value)| value);
    // A default route has no destination attribute.
    let prefix = match i32::from(family) {
        libc::AF_INET => {
            let octets = address.map_or(Ok([0; 4]), <[u8; 4]>::try_from).ok()?;
            Ipv4Net::new(Ipv4Addr::from(octets), prefix).ok()?.into()
        }
        libc::AF_INET6 => {
            let octets = address.map_or(Ok([0; 16]), <[u8; 16]>::try_from).ok()?;
            Ipv6Net::new(Ipv6Addr::from(octets), prefix).ok()?.into()
        }
        _ => return None,
    };
    Some((prefix, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(family: i32, prefix: u8, table: u8, kind: u8, destination: &[u8]) -> Vec<u8> {
        let mut route = vec![family as u8, prefix, 0, 0, table, 0, 0, kind, 0, 0, 0, 0];
        // RTA_TABLE precedes RTA_DST, and an attribute of odd length is padded.
        route.extend([&5_u16.to_ne_bytes()[..], &15_u16.to_ne_bytes(), &[table, 0, 0, 0]].concat());
        let length = (4 + destination.len()) as u16;
        route.extend([&length.to_ne_bytes()[..], &libc::RTA_DST.to_ne_bytes(), destination].concat());
        route
    }

    #[test]
    fn only_local_routes_are_own_prefixes() {
        let (local, main) = (libc::RT_TABLE_LOCAL, libc::RT_TABLE_MAIN);
        let own = |route: &[u8]| own_prefix(route).map(|(net, _)| net.to_string());
        let v4 = |table, kind| route(libc::AF_INET, 24, table, kind, &[203, 0, 113, 0]);
        assert_eq!(own(&v4(local, libc::RTN_LOCAL)).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(own(&v4(main, libc::RTN_LOCAL)).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(own(&v4(100, libc::RTN_LOCAL)), None, "a table that only a rule selects");
        assert_eq!(own(&v4(main, libc::RTN_UNICAST)), None);
        assert_eq!(own(&v4(local, libc::RTN_BROADCAST)), None);
        let mut v6 = [0; 16];
        (v6[0], v6[15]) = (0x2a, 7);
        let v6 = route(libc::AF_INET6, 128, local, libc::RTN_ANYCAST, &v6);
        assert_eq!(own(&v6).as_deref(), Some("2a00::7/128"));
        let default = &v4(main, libc::RTN_LOCAL)[..ROUTE_HEADER];
        assert_eq!(own(&[&default[..1], &[0], &default[2..]].concat()).as_deref(), Some("0.0.0.0/0"));
        for cut in 0..v6.len() {
            let _ = own(&v6[..cut]);
        }
        assert_eq!(own(&route(libc::AF_INET, 24, local, libc::RTN_LOCAL, &[1, 2, 3])), None);
        assert_eq!(own(&route(libc::AF_INET, 33, local, libc::RTN_LOCAL, &[1, 2, 3, 4])), None);
    }

    #[test]
    fn the_kernel_lists_loopback_as_a_prefix_and_every_interface_address() {
        let own = prefixes(&routes().unwrap()).unwrap();
        assert!(own.contains(&"127.0.0.0/8".parse().unwrap()), "{own:?}");
        for one in interfaces::addresses().unwrap() {
            assert!(own.contains(&one.address.into()), "{one:?} of {own:?}");
        }
        assert!(own.is_sorted());
    }
}
