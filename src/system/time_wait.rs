//! Whether new connections may take the port of one that has ended within the last minute (TIME_WAIT).

/// The value of `net.ipv4.tcp_tw_reuse`, for IPv6 too: 0 never, 1 always, 2 on loopback alone; `None` if it cannot be read.
pub fn reuse() -> Option<u8> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse").ok()?;
    text.trim().parse().ok()
}
