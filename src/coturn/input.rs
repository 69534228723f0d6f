//! What is imported.

/// What is imported.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// The name and the content of the file.
    pub file: Option<(&'a str, &'a [u8])>,
    /// The arguments of turnserver, with or without its name.
    pub arguments: &'a [Vec<u8>],
    /// Whether coturn's default database exists on this machine; it may contain secrets and users.
    pub has_default_database: bool,
    /// Whether listeners are written for the ports of NAT discovery.
    pub alternative_ports: bool,
}
