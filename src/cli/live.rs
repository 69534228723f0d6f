//! Opens the addresses of a configuration to see whether the server could, and names the program that prevents it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::serve::listening::{lacks_ipv6, no_family};
use crate::base::transport::Transport;
use crate::config::Config;
use crate::system::addresses::Addresses;
use crate::system::port_holder::{COTURN, Holder, PROGRAM, PortSpace, who_holds};

/// Programs that can share a port with the relay.
const WEB_SERVERS: [&str; 5] = ["nginx", "apache2", "httpd", "caddy", "haproxy"];

/// An address of the configuration, and what happened when it was opened.
#[derive(Debug)]
pub struct Tried {
    /// Key, transport and address, such as `listen udp 0.0.0.0:3478`.
    pub what: String,
    /// Transport of a listener; `None` for relay addresses and the admin address.
    pub transport: Option<Transport>,
    /// The address.
    pub address: SocketAddr,
    /// Line of a listener in the file.
    pub line: Option<usize>,
    /// What happened.
    pub attempt: Attempt,
}

/// What happened when an address was opened.
#[derive(Debug)]
pub enum Attempt {
    /// It could be opened, and was closed again.
    Free,
    /// A running server of this program has it open.
    Served {
        /// Its process id.
        pid: u32,
    },
    /// It cannot be opened.
    Failed {
        /// The error of the system.
        error: io::Error,
        /// The process that has it open, if that is the reason and the process is visible.
        holder: Option<Holder>,
    },
}

/// Opens and closes a socket on every address that this machine has.
pub fn try_addresses(config: &Config, machine: &Addresses) -> Vec<Tried> {
    let mut all = Vec::new();
    for listener in config.listen.iter().filter(|listener| machine.may_have(listener.address.ip())) {
        let (space, address) = (PortSpace::of(listener.transport), listener.address);
        all.push(Tried {
            what: format!("listen {} {address}", listener.transport),
            transport: Some(listener.transport),
            address,
            line: Some(listener.line),
            attempt: judge(space, address, open_listener(space, address, !config.is_dual_stack(listener))),
        });
    }
    let relays = config.relay.addresses.iter().filter(|address| machine.may_have(**address));
    let relays = relays.map(|ip| (format!("relay.addresses {ip}"), PortSpace::Udp, SocketAddr::new(*ip, 0)));
    for redirect in config.redirect.iter().filter(|redirect| machine.may_have(redirect.address.ip())) {
        let (space, address) = (PortSpace::Tcp, redirect.address);
        all.push(Tried {
            what: format!("redirect {address}"),
            transport: None,
            address,
            line: Some(redirect.line),
            attempt: judge(
                space,
                address,
                open_listener(space, address, !config.is_dual_stack_redirect(redirect)),
            ),
        });
    }
    let admin = config.admin.as_ref().map(|admin| admin.address);
    let admin = admin.map(|address| (format!("admin {address}"), PortSpace::Tcp, address));
    for (what, space, address) in relays.chain(admin) {
        let attempt = judge(space, address, open(space, address, true));
        all.push(Tried { what, transport: None, address, line: None, attempt });
    }
    all
}

fn judge(space: PortSpace, address: SocketAddr, opened: io::Result<()>) -> Attempt {
    let Err(error) = opened else { return Attempt::Free };
    let holder = (error.kind() == io::ErrorKind::AddrInUse).then(|| who_holds(space, address)).flatten();
    match holder {
        Some(Holder { pid, name }) if name == PROGRAM => Attempt::Served { pid },
        holder => Attempt::Failed { error, holder },
    }
}

/// Opens a listener as the server does. On a host without IPv6, a dual-stack listener on `[::]` is opened on `0.0.0.0`, and
/// an IPv6-only one is skipped.
fn open_listener(space: PortSpace, address: SocketAddr, only_v6: bool) -> io::Result<()> {
    let any_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
    match open(space, address, only_v6) {
        Err(error) if address.ip().is_unspecified() && lacks_ipv6(address.ip(), &error) => match only_v6 {
            true => Ok(()),
            false => open(space, any_v4, true),
        },
        opened => opened,
    }
}

/// Binds a socket to the address, and listens if it is TCP.
fn open(space: PortSpace, address: SocketAddr, only_v6: bool) -> io::Result<()> {
    let (kind, protocol) = match space {
        PortSpace::Udp => (Type::DGRAM, Protocol::UDP),
        PortSpace::Tcp => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    if space == PortSpace::Tcp {
        // As the server does: connections in TIME_WAIT do not block the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if space == PortSpace::Tcp { socket.listen(1) } else { Ok(()) }
}

impl Tried {
    /// What to do about a failed attempt; empty for another one.
    pub fn remedy(&self) -> String {
        let Attempt::Failed { error, holder } = &self.attempt else { return String::new() };
        let ip = self.address.ip();
        match error.kind() {
            io::ErrorKind::AddrInUse => match holder {
                // A listener shares its port with a web server; the redirect does not.
                Some(Holder { name, pid }) if self.what.starts_with("redirect ") => format!(
                    "occupied by {name} (pid {pid}): remove [redirect] and let {name} redirect to https; [acme] then needs port 443"
                ),
                Some(Holder { name, pid }) if WEB_SERVERS.contains(&name.as_str()) => format!(
                    "occupied by {name} (pid {pid}): choose another port, or let both share this one: move {name} to \
                     127.0.0.1:81, write http1 = \"127.0.0.1:81\" in [web], and web = true for this listener"
                ),
                Some(Holder { name, pid }) if name == COTURN => format!(
                    "occupied by {name} (pid {pid}), which is coturn: run hallpass-takeover-coturn to switch to Hallpass; to \
                     keep both, choose another port"
                ),
                Some(Holder { name, pid }) => {
                    format!("occupied by {name} (pid {pid}): choose another port, or move {name} to another one")
                }
                None => {
                    "occupied by a process of another user: run this check as root to see which".to_owned()
                }
            },
            io::ErrorKind::AddrNotAvailable => {
                format!("this host does not have the address {ip}: `ip address` lists its addresses")
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need CAP_NET_BIND_SERVICE: the systemd unit grants it; run this check as root"
                    .to_owned()
            }
            _ if no_family(error) => lacks_family(ip),
            _ => "choose another address or port".to_owned(),
        }
    }
}

fn lacks_family(ip: IpAddr) -> String {
    format!("this host has no IPv{}: write an address of the other family", if ip.is_ipv4() { 4 } else { 6 })
}
