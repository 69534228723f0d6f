//! What is imported.

/// What is imported.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// The name and the content of the file.
    pub file: Option<(&'a str, &'a [u8])>,
    /// The arguments of turnserver, with or without its name.
    pub arguments: &'a [Vec<u8>],
    /// coturn's default database if this machine has it; it may contain secrets and users.
    pub default_database: Option<&'a str>,
    /// Whether listeners are written for the ports of NAT discovery.
    pub alternative_ports: bool,
}
