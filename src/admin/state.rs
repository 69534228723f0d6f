//! The state of the server at one moment, as the dashboard and its rules read it.

use std::net::IpAddr;

use super::history::Reading;

/// Reads the state of the running server.
pub trait StateSource: Send + Sync {
    /// Returns the figures of this moment; `None` until the workers have started.
    fn reading(&self) -> Option<Reading>;
    /// Returns the rest of the state; `None` until the workers have started.
    fn state(&self) -> Option<State>;
    /// Returns the time in seconds since 1970.
    fn now(&self) -> u64;
    /// Returns the time of the monotonic clock in nanoseconds.
    fn monotonic(&self) -> u64;
}

/// The program and its start.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The version.
    pub version: &'static str,
    /// The commit, in release builds.
    pub revision: Option<&'static str>,
    /// Its start in seconds since 1970.
    pub started: u64,
}

/// The state of the server.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The certificate for clients; `None` if it cannot be read.
    pub certificate: Option<Certificate>,
    /// The certificates for clients that ask for other names.
    pub more_certificates: Vec<Certificate>,
    /// The renewal of the first one; `None` if the server does not renew it by itself.
    pub renewal: Option<Renewal>,
    /// The last reload of the configuration.
    pub configuration_reload: Reload,
    /// The last reload of the certificate.
    pub certificate_reload: Reload,
    /// Whether a drain is running.
    pub is_draining: bool,
    /// Seconds until the drain closes remaining clients; `None` without a deadline.
    pub drain_seconds: Option<u64>,
    /// Memory pressure: 0 none, 1 new clients are refused, 2 queues are cut too.
    pub memory_pressure: u8,
    /// Limit on sockets.
    pub descriptors_max: u64,
    /// Relay ports in use.
    pub relay_ports: u64,
    /// Threads that relay.
    pub workers: usize,
    /// Names of the hosts.
    pub hosts: Vec<String>,
    /// What is limited, besides memory.
    pub limits: Vec<Limit>,
    /// Whether clients get no relayed IPv4 address, only an IPv6 one.
    pub lacks_ipv4: bool,
    /// Whether `[web]` names a server.
    pub has_web_server: bool,
    /// A name of the configuration that no certificate has.
    pub misnamed: Option<Misnamed>,
    /// The last peer that this machine has no route to. With `privacy`, it is not known.
    pub no_route_to: Option<IpAddr>,
    /// The source of the last connection to a listener that did not come from the proxy of that listener. With `privacy`, it is not
    /// known.
    pub untrusted_from: Option<IpAddr>,
}

/// Certificates that lack a name of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misnamed {
    /// That name.
    pub missing: String,
    /// The names that they have.
    pub names: String,
}

/// A resource with its limit.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its name.
    pub name: &'static str,
    /// How much is in use.
    pub used: u64,
    /// The limit; 0: there is none.
    pub limit: u64,
    /// What raises it.
    pub next_step: &'static str,
}

/// A certificate.
#[derive(Clone, Debug, Default)]
pub struct Certificate {
    /// Its first name.
    pub name: String,
    /// The end of its validity in seconds since 1970.
    pub not_after: i64,
    /// Seconds before that when the operator must act.
    pub soon: u64,
    /// Whether it is signed with its own key.
    pub is_self_signed: bool,
}

/// The renewal of a certificate by the server itself.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// The next attempt in seconds since 1970.
    pub next: Option<u64>,
    /// Whether a reload changes nothing about that time.
    pub is_limited: bool,
    /// Why the last attempt failed, with what to do.
    pub error: Option<String>,
}

/// The last reload of one thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reload {
    /// Whether it succeeded.
    pub is_successful: bool,
    /// The last success in seconds since 1970.
    pub succeeded: u64,
}
