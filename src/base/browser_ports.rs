//! Ports on which browsers use a TURN server.

/// The remedy for a port that browsers refuse.
pub const GOOD_PORTS: &str = "write 443, 80, or a port from 1024 on, such as 3479 or 5349";

/// Ports from 1024 on that browsers refuse: the "bad ports" of the Fetch standard.
const BAD_PORTS: [u16; 19] = [
    1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679,
    6697, 10080,
];

/// Whether browsers connect to a TURN server on this port. Of those below 1024 libwebrtc uses 53, 80 and 443 alone
/// (`TurnPort::AllowedTurnPort`), and 53 is a bad port.
pub fn browsers_use(port: u16) -> bool {
    matches!(port, 80 | 443) || port >= 1024 && !BAD_PORTS.contains(&port)
}
