//! The addresses that this machine can send from, and which of them can be reached from outside.
//!
//! Both come from the kernel by netlink (rtnetlink(7)): the addresses, and the route that a packet from each of them to
//! the Internet would take. No packet is sent to the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::net::AddressFamily;

use super::interfaces::{self, reachable_from_outside};
use super::netlink::{Attributes, ROUTE_HEADER, dump, put_attribute, request};
use crate::base::family::Family;

/// A destination that stands for the Internet: the address of a root name server (K), which no private network uses. Only
/// the route to it is looked up.
const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(193, 0, 14, 129);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x7fd, 0, 0, 0, 0, 0, 1);

/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// Returns an address that stands for the Internet, to look up the route to it.
pub fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    }
}

/// An address of this machine that a socket can send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress {
    /// The address.
    pub address: IpAddr,
    /// Whether it will go away: a temporary IPv6 address (RFC 8981), or a deprecated address.
    pub passing: bool,
    /// Whether it can be reached from outside, as far as this machine can tell: it is not private, its route to the
    /// Internet leaves by its own interface, or no address of this machine has a route to the Internet.
    pub leads_out: bool,
    /// Whether the kernel chooses it as the source of packets to the Internet.
    pub preferred: bool,
}

impl LocalAddress {
    /// An address of an interface of which nothing else is known.
    pub fn unknown(address: IpAddr) -> Self {
        Self { address, passing: false, leads_out: reachable_from_outside(address), preferred: false }
    }
}

/// Returns every address that a socket can send from now: those of interfaces, and those that exist only as one of these
/// local routes ([`routes`](super::own_addresses::routes)). Leaves out an address whose check for duplicates is not
/// complete or has failed.
///
/// # Errors
/// `Interrupted` if they kept changing, otherwise the error of the netlink socket, which a seccomp filter may refuse.
pub fn read(routes: &[(IpNet, u8)]) -> io::Result<Vec<LocalAddress>> {
    let mut judged = Judged::default();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let is_v4 = family == AddressFamily::INET;
        let of_interfaces = interface_addresses(family)?.into_iter();
        let of_routes = routes.iter().filter_map(|&(prefix, kind)| {
            let is_address = prefix.prefix_len() == prefix.max_prefix_len();
            let fits = is_address && kind == libc::RTN_LOCAL && prefix.addr().is_ipv4() == is_v4;
            fits.then(|| Found { address: prefix.addr(), interface: None, passing: false })
        });
        judged.add(is_v4, of_interfaces.chain(of_routes), way)?;
    }
    Ok(judged.finish())
}

/// Addresses, and what is known of their routes to the Internet.
#[derive(Default)]
struct Judged {
    found: Vec<LocalAddress>,
    /// Private addresses of interfaces that have no route to the Internet.
    without_way: Vec<IpAddr>,
    /// Whether any address of this machine has a route to the Internet.
    has_way: bool,
}

impl Judged {
    /// Adds the addresses of one family, each once. `way` is [`way`], or its replacement in a test.
    ///
    /// # Errors
    /// The error of `way`. It does not mean that there is no route.
    fn add(
        &mut self,
        is_v4: bool,
        addresses: impl Iterator<Item = Found>,
        way: impl Fn(bool, Option<IpAddr>) -> io::Result<Option<Way>>,
    ) -> io::Result<()> {
        let preferred = way(is_v4, None)?.and_then(|way| way.source);
        self.has_way |= preferred.is_some();
        for Found { address, interface, passing } in addresses {
            if self.found.iter().any(|known| known.address == address) {
                continue;
            }
            let leads_out = reachable_from_outside(address) && self.leads_out(address, interface, &way)?;
            let preferred = preferred == Some(address);
            self.found.push(LocalAddress { address, passing, leads_out, preferred });
        }
        Ok(())
    }

    /// Whether this address can be reached from outside for certain. Notes it in `without_way` if that depends on others.
    ///
    /// # Errors
    /// The error of `way`.
    fn leads_out(
        &mut self,
        address: IpAddr,
        interface: Option<u32>,
        way: impl Fn(bool, Option<IpAddr>) -> io::Result<Option<Way>>,
    ) -> io::Result<bool> {
        // If packets leave by another interface, the address is in an inner network, such as a bridge of containers.
        let found = way(address.is_ipv4(), Some(address))?;
        let leads_out = found.as_ref().is_some_and(|way| way.interface == interface);
        self.has_way |= leads_out;
        if !is_private(address) {
            return Ok(true);
        }
        if found.is_none() && interface.is_some() {
            self.without_way.push(address);
        }
        Ok(leads_out)
    }

    /// Returns the addresses. If none has a route to the Internet, the private ones without a route lead out. If any has
    /// one, in any family or routing table, a network without a route is an inner network.
    fn finish(mut self) -> Vec<LocalAddress> {
        if !self.has_way {
            let without_way = &self.without_way;
            for one in self.found.iter_mut().filter(|one| without_way.contains(&one.address)) {
                one.leads_out = true;
            }
        }
        self.found
    }
}

/// Returns the address of one family at which others reach this machine: the source address of packets to the Internet,
/// otherwise the first address of an interface that is reachable from outside. `None` if there is none.
pub fn toward_outside(v4: bool) -> Option<IpAddr> {
    let preferred = way(v4, None).ok().flatten().and_then(|way| way.source);
    let of_interfaces = interfaces::addresses().unwrap_or_default().into_iter().map(|one| one.address);
    preferred
        .into_iter()
        .chain(of_interfaces)
        .find(|&address| address.is_ipv4() == v4 && reachable_from_outside(address))
}

/// Whether the address is unique only within some private network (RFC 1918, RFC 6598, RFC 4193).
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// An address that the kernel lists.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    address: IpAddr,
    /// The index of its interface; `None` if it exists only as a route.
    interface: Option<u32>,
    passing: bool,
}

fn interface_addresses(family: AddressFamily) -> io::Result<Vec<Found>> {
    let header = [family.as_raw() as u8, 0, 0, 0, 0, 0, 0, 0];
    dump(libc::RTM_GETADDR, &header, libc::RTM_NEWADDR, of_interface)
}

/// The address in an RTM_NEWADDR; `None` if it cannot be sent from yet.
fn of_interface(body: &[u8]) -> Option<Found> {
    let (&[family, _, flags, _, i0, i1, i2, i3], attributes) = body.split_first_chunk::<ADDRESS_HEADER>()?;
    let mut flags = u32::from(flags);
    let (mut local, mut address) = (None, None);
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            libc::IFA_LOCAL => local = ip(family, value),
            libc::IFA_ADDRESS => address = ip(family, value),
            libc::IFA_FLAGS => flags = value.first_chunk().map_or(flags, |&bytes| u32::from_ne_bytes(bytes)),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the address of the other end.
    let address = local.or(address)?;
    if flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED) != 0 && flags & libc::IFA_F_OPTIMISTIC == 0 {
        return None;
    }
    // In IPv4 the bit of IFA_F_TEMPORARY is IFA_F_SECONDARY: a further address in the same network, as good as the first.
    let temporary = address.is_ipv6() && flags & libc::IFA_F_TEMPORARY != 0;
    let passing = temporary || flags & libc::IFA_F_DEPRECATED != 0;
    Some(Found { address, interface: Some(u32::from_ne_bytes([i0, i1, i2, i3])), passing })
}

/// The route of packets to the Internet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Way {
    /// The index of the interface that they leave by.
    interface: Option<u32>,
    /// Their source address.
    source: Option<IpAddr>,
}

/// Returns the route to the Internet from `source`, or from the address that the kernel chooses. `None` if there is none.
///
/// # Errors
/// The error of the netlink socket, unless it means that there is no route.
fn way(is_v4: bool, source: Option<IpAddr>) -> io::Result<Option<Way>> {
    to(outside(if is_v4 { Family::V4 } else { Family::V6 }), source, found_way)
}

/// Whether packets to an address, from an address of this machine, have a route. No packet is sent.
///
/// # Errors
/// The error of the netlink socket, unless it means that there is no route.
pub fn has_route(address: IpAddr, source: IpAddr) -> io::Result<bool> {
    Ok(to(address, Some(source), |_| Some(()))?.is_some())
}

/// Returns the route to an address as `parse` reads it. `None` if there is none.
fn to<T>(
    address: IpAddr,
    source: Option<IpAddr>,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let (family, prefix) = if address.is_ipv4() { (libc::AF_INET, 32) } else { (libc::AF_INET6, 128) };
    let mut body = vec![0; ROUTE_HEADER];
    (body[0], body[1]) = (family as u8, prefix);
    put_attribute(&mut body, libc::RTA_DST, &octets(address));
    if let Some(source) = source {
        body[2] = prefix;
        put_attribute(&mut body, libc::RTA_SRC, &octets(source));
    }
    match request(libc::RTM_GETROUTE, &body, libc::RTM_NEWROUTE, parse) {
        Ok(found) => Ok(found),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL) => Ok(None),
            // The kernel has no such family, or its interfaces are down.
            Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENETDOWN) => Ok(None),
            _ => Err(error),
        },
    }
}

fn found_way(body: &[u8]) -> Option<Way> {
    let (&[family, _, _, _, _, _, _, kind, ..], attributes) = body.split_first_chunk::<ROUTE_HEADER>()?;
    if kind != libc::RTN_UNICAST {
        return None;
    }
    let mut way = Way::default();
    for (kind, value) in Attributes::new(attributes) {
        match kind {
            libc::RTA_OIF => way.interface = value.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes)),
            libc::RTA_PREFSRC => way.source = ip(family, value),
            _ => {}
        }
    }
    Some(way)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(<[u8; 4]>::try_from(value).ok()?.into()),
        libc::AF_INET6 => Some(<[u8; 16]>::try_from(value).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: i32, flags: u8, interface: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family as u8, 24, flags, 0];
        body.extend(interface.to_ne_bytes());
        attributes.iter().for_each(|(kind, value)| put_attribute(&mut body, *kind, value));
        body
    }

    #[test]
    fn this_machine_has_a_route_to_itself() {
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(has_route(own, own).expect("netlink"));
    }

    #[test]
    fn unchecked_addresses_are_left_out_and_temporary_ones_are_marked() {
        let v6: Ipv6Addr = "2001:db8::7".parse().expect("literal");
        let of = |flags: u32| {
            let attributes: [(u16, &[u8]); 2] =
                [(libc::IFA_ADDRESS, &v6.octets()), (libc::IFA_FLAGS, &flags.to_ne_bytes())];
            of_interface(&message(libc::AF_INET6, 0, 3, &attributes))
        };
        let found = |passing| Some(Found { address: v6.into(), interface: Some(3), passing });
        assert_eq!(of(0), found(false));
        assert_eq!(of(libc::IFA_F_TEMPORARY), found(true));
        assert_eq!(of(libc::IFA_F_DEPRECATED), found(true));
        assert_eq!(of(libc::IFA_F_TENTATIVE), None);
        assert_eq!(of(libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC), found(false));
        assert_eq!(of(libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED), None);
    }

    #[test]
    fn a_point_to_point_link_has_the_address_of_the_near_end() {
        let attributes: [(u16, &[u8]); 2] =
            [(libc::IFA_ADDRESS, &[10, 0, 0, 2]), (libc::IFA_LOCAL, &[10, 0, 0, 1])];
        // The bit of a temporary address means "secondary" in IPv4.
        let body = message(libc::AF_INET, libc::IFA_F_SECONDARY as u8, 2, &attributes);
        let expected = Found { address: [10, 0, 0, 1].into(), interface: Some(2), passing: false };
        assert_eq!(of_interface(&body), Some(expected));
        for cut in 0..body.len() {
            let _ = of_interface(&body[..cut]);
        }
    }

    #[test]
    fn a_failed_query_is_an_error_and_not_a_missing_route() {
        let all =
            || [Found { address: [10, 0, 0, 5].into(), interface: Some(2), passing: false }].into_iter();
        let fails = |_, source: Option<IpAddr>| match source {
            None => Err(io::ErrorKind::OutOfMemory.into()),
            Some(_) => Ok(Some(Way { interface: Some(2), source: None })),
        };
        assert!(Judged::default().add(true, all(), fails).is_err(), "which address the kernel prefers");
        let fails = |_, source: Option<IpAddr>| match source {
            None => Ok(Some(Way { interface: Some(2), source: Some([10, 0, 0, 5].into()) })),
            Some(_) => Err(io::ErrorKind::OutOfMemory.into()),
        };
        assert!(Judged::default().add(true, all(), fails).is_err(), "whether an address leads out");
        let mut judged = Judged::default();
        judged.add(true, all(), |_, _| Ok(None)).expect("an answer: there is no route");
        let found = judged.finish();
        assert!(found[0].leads_out && !found[0].preferred);
    }

    #[test]
    fn an_address_without_a_route_leads_out_only_if_no_other_has_one() {
        let found = |text: &str, interface| Found {
            address: text.parse().expect("literal"),
            interface: Some(interface),
            passing: false,
        };
        // A bridge of containers, and an address whose default route is in a table of its own.
        let ipv4 = || [found("172.17.0.1", 2), found("10.9.0.2", 3)].into_iter();
        let by_rule = |_, source: Option<IpAddr>| {
            let fits = source == Some([10, 9, 0, 2].into());
            Ok(fits.then_some(Way { interface: Some(3), source: None }))
        };
        let leading_out = |judged: Judged| -> Vec<String> {
            let found = judged.finish().into_iter().filter(|one| one.leads_out);
            found.map(|one| one.address.to_string()).collect()
        };
        let mut judged = Judged::default();
        judged.add(true, ipv4(), by_rule).expect("answers");
        judged.add(false, [found("fd00:17::1", 2)].into_iter(), |_, _| Ok(None)).expect("answers");
        assert_eq!(leading_out(judged), ["10.9.0.2"]);
        // Only IPv6 has a route to the Internet.
        let mut judged = Judged::default();
        judged.add(true, ipv4(), |_, _| Ok(None)).expect("answers");
        let global = found("2001:db8::2", 3);
        let default = |_, _| Ok(Some(Way { interface: Some(3), source: Some(global.address) }));
        judged.add(false, [found("2001:db8::2", 3)].into_iter(), default).expect("answers");
        assert_eq!(leading_out(judged), ["2001:db8::2"]);
        let mut judged = Judged::default();
        judged.add(true, ipv4(), |_, _| Ok(None)).expect("answers");
        assert_eq!(leading_out(judged), ["172.17.0.1", "10.9.0.2"]);
    }

    #[test]
    fn private_networks() {
        for private in ["10.0.0.1", "172.17.0.1", "192.168.1.1", "100.64.0.1", "100.127.9.9", "fd00::1"] {
            assert!(is_private(private.parse().expect("literal")), "{private}");
        }
        for public in ["100.63.0.1", "100.128.0.1", "172.32.0.1", "203.0.113.1", "2001:db8::1"] {
            assert!(!is_private(public.parse().expect("literal")), "{public}");
        }
    }

    #[test]
    fn this_machine_has_loopback_which_leads_nowhere() {
        let found = read(&[]).expect("netlink");
        let loopback =
            found.iter().find(|one| one.address == IpAddr::from([127, 0, 0, 1])).expect("loopback");
        assert!(!loopback.leads_out && !loopback.passing && !loopback.preferred);
        assert!(found.iter().filter(|one| one.preferred).count() <= 2, "one a family: {found:?}");
    }
}
