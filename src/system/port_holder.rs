//! Who holds a port: what an operator wants to know when a listener cannot be opened.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// UDP and TCP ports are separate spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Bound sockets count.
    Udp,
    /// Listening sockets count.
    Tcp,
}

/// A process with a socket on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, at most 15 bytes, as the kernel keeps it.
    pub name: String,
}

/// The process whose socket is in the way of binding `address`. `None` = nobody, or a process of another user,
/// which only root may look into.
pub fn who_holds(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let tables = match protocol {
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let mut inodes = Vec::new();
    for table in tables {
        // Without IPv6 in the kernel its table is absent.
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| conflicting(line, protocol, address)));
    }
    if inodes.is_empty() { None } else { process_with(&inodes) }
}

/// The inode of the socket on this line of a /proc/net table when it is in the way of `wanted`.
fn conflicting(line: &str, protocol: Protocol, wanted: SocketAddr) -> Option<u64> {
    const TCP_LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let in_the_way = local.port() == wanted.port()
        && (protocol == Protocol::Udp || state == TCP_LISTEN)
        && overlap(local.ip(), wanted.ip());
    in_the_way.then_some(inode)
}

fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    // The unspecified IPv6 address covers IPv4 too unless the socket says otherwise, which the table hides.
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}

/// `0100007F:0D97`: each 32-bit word of the address in the host's byte order, the port as a number.
fn parse_address(field: &str) -> Option<SocketAddr> {
    let (address, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The first process that has one of these sockets open.
fn process_with(inodes: &[u64]) -> Option<Holder> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let open = fs::read_dir(process.join("fd")).ok()?;
        let holds =
            open.flatten().any(|fd| socket_inode(&fd.path()).is_some_and(|inode| inodes.contains(&inode)));
        let name = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
        holds.then(|| Holder { pid, name: name() })
    })
}

fn socket_inode(fd: &Path) -> Option<u64> {
    let target = fs::read_link(fd).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_the_kernel_tables_are_understood() {
        assert_eq!(parse_address("0100007F:0D97"), Some("127.0.0.1:3479".parse().unwrap()));
        let v6 = "B80D0120000000000000000001000000:01BB";
        assert_eq!(parse_address(v6), Some("[2001:db8::1]:443".parse().unwrap()));
        for bad in ["", "0100007F", "01:02", "0100007G:0001", "0100007F:10000", "é100007F:0001"] {
            assert_eq!(parse_address(bad), None, "{bad}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_sockets_in_the_way_count() {
        let line = |state: &str| {
            format!(
                "  12: 0100007F:0D97 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  0 0 4711 2"
            )
        };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listening = line("0A");
        assert_eq!(conflicting(&listening, Protocol::Tcp, at("127.0.0.1:3479")), Some(4711));
        assert_eq!(conflicting(&listening, Protocol::Tcp, at("0.0.0.0:3479")), Some(4711));
        assert_eq!(conflicting(&listening, Protocol::Tcp, at("[::]:3479")), Some(4711));
        assert_eq!(conflicting(&listening, Protocol::Tcp, at("127.0.0.2:3479")), None);
        assert_eq!(conflicting(&listening, Protocol::Tcp, at("127.0.0.1:3478")), None);
        assert_eq!(conflicting(&line("01"), Protocol::Tcp, at("127.0.0.1:3479")), None, "a connection");
        assert_eq!(conflicting(&line("07"), Protocol::Udp, at("127.0.0.1:3479")), Some(4711));
    }

    #[test]
    fn this_process_is_found_behind_its_own_ports() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        for (protocol, address) in
            [(Protocol::Udp, udp.local_addr().unwrap()), (Protocol::Tcp, tcp.local_addr().unwrap())]
        {
            let holder = who_holds(protocol, address).unwrap();
            assert_eq!(holder.pid, std::process::id());
            assert!(!holder.name.is_empty());
        }
        let address = tcp.local_addr().unwrap();
        drop(tcp);
        assert_eq!(who_holds(Protocol::Tcp, address), None);
    }
}
