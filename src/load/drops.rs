//! Datagrams that the kernel dropped because a socket of the load was full.

use std::collections::HashSet;
use std::fs;

/// Returns how many datagrams the open UDP sockets on these ports have dropped; 0 if /proc cannot be read.
pub fn dropped(ports: &HashSet<u16>) -> u64 {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().map(|table| count(table, ports)).sum()
}

/// Adds up the last column of the rows with these local ports: `sl local_address ... drops`.
fn count(table: &str, ports: &HashSet<u16>) -> u64 {
    let of_row = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (_, port) = words.nth(1)?.rsplit_once(':')?;
        let is_ours = ports.contains(&u16::from_str_radix(port, 16).ok()?);
        is_ours.then(|| words.last()?.parse::<u64>().ok()).flatten()
    };
    table.lines().skip(1).filter_map(of_row).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_sockets_count() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 11 2 0000000000000000 7
 1235: 00000000:0D97 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 12 2 0000000000000000 40
 1236: 00000000:ABCD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 13 2 0000000000000000 5
";
        assert_eq!(count(table, &HashSet::from([8080, 0xabcd])), 12);
        assert_eq!(count("", &HashSet::from([8080])), 0);
    }

    #[test]
    fn a_full_socket_is_seen() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let ports = HashSet::from([socket.local_addr().expect("bound").port()]);
        assert_eq!(dropped(&ports), 0);
        while dropped(&ports) == 0 {
            for _ in 0..1000 {
                socket.send_to(&[0; 1000], socket.local_addr().expect("bound")).expect("sent");
            }
        }
    }
}
