//! Finds the process that occupies a port, for the error message of a listener that cannot be opened.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::base::transport::Transport;

/// The name of the server's process.
pub const PROGRAM: &str = "hallpass";
/// The name of coturn's process.
pub const COTURN: &str = "turnserver";

/// A space of port numbers. Those of UDP and TCP are separate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSpace {
    /// UDP. Bound sockets occupy a port.
    Udp,
    /// TCP. Listening sockets occupy a port.
    Tcp,
}

impl PortSpace {
    /// The space of a listener's port.
    pub const fn of(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp | Transport::Tls => Self::Tcp,
        }
    }
}

/// A process with a socket on the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// The name in the kernel, at most 15 bytes. The process chose it, so it is escaped: it must not add lines or control a
    /// terminal.
    pub name: String,
}

/// Returns the process whose socket prevents binding `address`. `None` if there is none, or if it belongs to another user:
/// only root can see that process.
pub fn who_holds(space: PortSpace, address: SocketAddr) -> Option<Holder> {
    let tables = match space {
        PortSpace::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        PortSpace::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let mut inodes = Vec::new();
    for table in tables {
        // A kernel without IPv6 has no table for it.
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().skip(1).filter_map(|line| conflicting(line, space, address)));
    }
    if inodes.is_empty() { None } else { process_with(&inodes) }
}

/// Returns the inode of the socket in a line of a /proc/net table if the socket prevents binding `wanted`.
fn conflicting(line: &str, space: PortSpace, wanted: SocketAddr) -> Option<u64> {
    const TCP_LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    let conflicts = local.port() == wanted.port()
        && (space == PortSpace::Udp || state == TCP_LISTEN)
        && overlap(local.ip(), wanted.ip());
    conflicts.then_some(inode)
}

/// Whether sockets bound to these addresses conflict.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    // The unspecified IPv6 address covers IPv4 too, unless the socket is IPv6 only, which the table does not show.
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}

/// Parses `0100007F:0D97`: each 32-bit word of the address in the host's byte order, then the port as a number.
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

/// Returns the first process that has one of these sockets open.
fn process_with(inodes: &[u64]) -> Option<Holder> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        let open = fs::read_dir(process.join("fd")).ok()?;
        let holds =
            open.flatten().any(|fd| socket_inode(&fd.path()).is_some_and(|inode| inodes.contains(&inode)));
        let name = || escaped(&fs::read(process.join("comm")).unwrap_or_default());
        holds.then(|| Holder { pid, name: name() })
    })
}

/// Returns a name in /proc for a message, without the line break that the kernel adds.
fn escaped(name: &[u8]) -> String {
    let name = name.strip_suffix(b"\n").unwrap_or(name);
    String::from_utf8_lossy(name).escape_debug().to_string()
}

/// Returns the inode of a descriptor in /proc if it is a socket.
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
    fn only_conflicting_sockets_count() {
        let line = |state: &str| {
            format!(
                "  12: 0100007F:0D97 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  0 0 4711 2"
            )
        };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listening = line("0A");
        assert_eq!(conflicting(&listening, PortSpace::Tcp, at("127.0.0.1:3479")), Some(4711));
        assert_eq!(conflicting(&listening, PortSpace::Tcp, at("0.0.0.0:3479")), Some(4711));
        assert_eq!(conflicting(&listening, PortSpace::Tcp, at("[::]:3479")), Some(4711));
        assert_eq!(conflicting(&listening, PortSpace::Tcp, at("127.0.0.2:3479")), None);
        assert_eq!(conflicting(&listening, PortSpace::Tcp, at("127.0.0.1:3478")), None);
        assert_eq!(conflicting(&line("01"), PortSpace::Tcp, at("127.0.0.1:3479")), None, "a connection");
        assert_eq!(conflicting(&line("07"), PortSpace::Udp, at("127.0.0.1:3479")), Some(4711));
    }

    #[test]
    fn a_name_neither_adds_lines_nor_controls_a_terminal() {
        assert_eq!(escaped(b"\x1b[2J\nok\n\n"), "\\u{1b}[2J\\nok\\n");
        assert_eq!(escaped("nginx: \u{202e}\n".as_bytes()), "nginx: \\u{202e}");
        assert_eq!(escaped(b"\xff(sd-pam)\n"), "\u{fffd}(sd-pam)");
    }

    #[test]
    fn this_process_is_found_behind_its_own_ports() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // No other test has an address there, so nobody takes the port once it is closed.
        let tcp = TcpListener::bind("127.83.0.1:0").unwrap();
        for (space, address) in
            [(PortSpace::Udp, udp.local_addr().unwrap()), (PortSpace::Tcp, tcp.local_addr().unwrap())]
        {
            let holder = who_holds(space, address).unwrap();
            assert_eq!(holder.pid, std::process::id());
            assert!(!holder.name.is_empty());
        }
        let address = tcp.local_addr().unwrap();
        drop(tcp);
        assert_eq!(who_holds(PortSpace::Tcp, address), None);
    }
}
