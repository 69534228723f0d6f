//! Listeners whose address this machine does not have yet, and listeners on `[::]` if the kernel has no IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::admin::{Latch, Readiness};
use crate::base::transport::Transport;
use crate::config::Config;
use crate::net;
use crate::system::addresses::Addresses;

/// The listeners whose address this machine does not have. They are already bound, so they serve clients as soon as it does;
/// but without IPv6 in the kernel nothing is bound to an IPv6 address.
#[derive(Debug, Default)]
pub struct Awaited {
    lacks_ipv6: bool,
    /// The listeners that the log reports as missing their address.
    logged: Vec<(Transport, SocketAddr)>,
    /// Delays readiness while a listener has no address.
    missing: Option<Latch>,
}

impl Awaited {
    pub fn new(lacks_ipv6: bool) -> Self {
        Self { lacks_ipv6, ..Self::default() }
    }

    /// Returns whether nothing is bound to this address for want of IPv6. On `[::]` IPv4 is served.
    fn is_unbound(&self, ip: IpAddr) -> bool {
        self.lacks_ipv6 && ip.is_ipv6() && !ip.is_unspecified()
    }

    /// Leaves out the listeners that cannot be bound for want of IPv6, as at the start.
    pub fn fit(&self, network: &mut net::Settings) {
        if self.lacks_ipv6 {
            without_ipv6(network);
        }
    }

    /// Logs which listeners start or stop waiting for their address.
    pub fn tell(&mut self, config: &Config, machine: &Addresses, readiness: &Readiness) {
        let is_absent = |ip| self.is_unbound(ip) || !machine.may_have(ip);
        let absent = config.listen.iter().filter(|listener| is_absent(listener.address.ip()));
        let absent: Vec<_> = absent.map(|listener| (listener.transport, listener.address)).collect();
        for (transport, address) in absent.iter().filter(|one| !self.logged.contains(one)) {
            match self.is_unbound(address.ip()) {
                true => tracing::warn!(
                    "listen {transport} {address}: this machine has no IPv6, so no client is served there; restart the \
                     server once it has"
                ),
                false => tracing::warn!(
                    "listen {transport} {address}: this machine does not have the address yet; it serves clients there \
                     as soon as it does"
                ),
            }
        }
        for (transport, address) in self.logged.iter().filter(|one| !absent.contains(one)) {
            tracing::info!("listen {transport} {address}: this machine has the address now");
        }
        match absent.is_empty() {
            true => self.missing = None,
            false => {
                self.missing.get_or_insert_with(|| readiness.latch("the address of a listener"));
            }
        }
        self.logged = absent;
    }
}

/// Binds the listeners. If the kernel has no IPv6, those on `[::]` serve IPv4 only, and those on other IPv6 addresses are
/// left out. Also returns whether that is so.
///
/// # Errors
/// The error of [`net::bind`]; without IPv6 also if no listener is left.
pub fn bind(network: &mut net::Settings) -> Result<(Vec<net::WorkerSockets>, bool), net::BindError> {
    match net::bind(network) {
        Err(error) if lacks_ipv6(error.address.ip(), &error.source) => {
            tracing::warn!("this machine has no IPv6 ({}): listeners on [::] serve IPv4 alone", error.source);
            without_ipv6(network);
            if network.listeners.is_empty() {
                return Err(error);
            }
            Ok((net::bind(network)?, true))
        }
        bound => Ok((bound?, false)),
    }
}

/// Moves the listeners on `[::]` to `0.0.0.0`, and removes those that are IPv6-only or on another IPv6 address.
fn without_ipv6(network: &mut net::Settings) {
    network.listeners.retain_mut(|listener| {
        let is_any = listener.address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        if is_any {
            listener.address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        }
        !(is_any && listener.only_v6 || listener.address.is_ipv6())
    });
}

/// Whether a socket for this address could not be opened because the kernel lacks IPv6.
pub fn lacks_ipv6(ip: IpAddr, error: &io::Error) -> bool {
    // If only its addresses are switched off, a listener waits for one, but nothing can be bound to all of them.
    let none_at_all = ip.is_unspecified() && error.kind() == io::ErrorKind::AddrNotAvailable;
    ip.is_ipv6() && (none_at_all || no_family(error))
}

/// Whether the kernel lacks the family of a socket that could not be opened.
pub fn no_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::settings;

    #[test]
    fn without_ipv6_a_listener_for_both_families_serves_ipv4() {
        let text = "[[listen]]\ntransport='udp'\naddress='[::]:1'\n[[listen]]\ntransport='udp'\naddress='[::]:2'\n\
            [[listen]]\ntransport='udp'\naddress='0.0.0.0:2'\n[[listen]]\ntransport='udp'\n\
            address='[2001:db8::1]:3'\n[[host]]\nname='h'\nsecret='0123456789abcdef'\n";
        let config = crate::config::parse(text, "f", std::path::Path::new("")).expect("good").config;
        let mut network = settings::network(&config, 1, &Addresses::default());
        without_ipv6(&mut network);
        let left: Vec<String> = network.listeners.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(left, ["0.0.0.0:1", "0.0.0.0:2"]);
    }

    #[test]
    fn readiness_waits_for_each_address() {
        let mut config = Config::embedded("secret".to_owned());
        let at = |text: &str| text.parse::<SocketAddr>().expect("literal");
        config.listen[0].address = at("203.0.113.5:3478");
        config.listen[1].address = at("203.0.113.6:3478");
        let machine = |own: &[&str]| Addresses {
            own: own.iter().map(|ip| ip.parse::<IpAddr>().expect("literal").into()).collect(),
            is_whole: true,
            ..Addresses::default()
        };
        let (mut awaited, readiness) = (Awaited::default(), Readiness::default());
        let mut is_ready = |machine: &Addresses| {
            awaited.tell(&config, machine, &readiness);
            readiness.check().is_ok()
        };
        assert!(!is_ready(&machine(&["203.0.113.5"])));
        assert!(is_ready(&machine(&["203.0.113.5", "203.0.113.6"])));
        assert!(!is_ready(&machine(&["203.0.113.6"])));
        assert!(is_ready(&Addresses::default()), "an address can be missing in an incomplete list");
        config.listen[0].address = at("[2001:db8::1]:3478");
        Awaited::new(false).tell(&config, &Addresses::default(), &readiness);
        assert!(readiness.check().is_ok());
        let mut awaited = Awaited::new(true);
        awaited.tell(&config, &Addresses::default(), &readiness);
        assert!(readiness.check().is_err(), "nothing is bound to it");
    }
}
