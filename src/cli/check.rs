//! `hallpass check`: reports problems of a configuration, and of this host with --live.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use socket2::{Domain, Protocol, Socket, Type};

use super::args::CheckArgs;
use super::output::{fail, print, print_stderr};
use super::serve::kernel;
use super::serve::listening::{lacks_ipv6, no_family};
use super::{certificate, this_host};
use crate::config::{self, Config, Examined, Host, Report, Severity};
use crate::system::addresses::{self, Addresses};
use crate::system::port_holder::{PortSpace, who_holds};

/// Checks the configuration and prints a summary, or all problems.
pub(super) fn run(args: CheckArgs) -> ExitCode {
    let Examined { report, config } = config::examine(&args.config);
    let mut found = Found::default();
    found.report(&report);
    let Some(config) = config else { return found.fail(&report.file) };
    for (severity, line) in certificate::problems(&config, &report.file) {
        found.add(severity, &line);
    }
    // A configuration with errors has defaults in place of the wrong values: comparing it with this machine would mislead.
    if !report.has_errors() {
        let machine = machine(&report.file, &mut found);
        found.report(&this_host::in_full(&config, &machine, &report.file));
        found.report(&kernel::check(&config, &report.file));
        if args.live {
            found.live(&live(&config, &report.file, &machine));
        }
    }
    if found.errors + found.on_this_host > 0 {
        return found.fail(&report.file);
    }
    let mut text = summary(&config);
    let verdict = match found.warnings {
        0 => "good".to_owned(),
        count => format!("good, with {}", counted(count, "warning")),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {verdict}", report.file);
    print(text.as_bytes())
}

/// Prints problems and counts them.
#[derive(Default)]
struct Found {
    errors: usize,
    warnings: usize,
    /// Sockets that cannot be opened.
    on_this_host: usize,
}

impl Found {
    fn add(&mut self, severity: Severity, text: &str) {
        print_stderr(text);
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
    }

    fn report(&mut self, report: &Report) {
        report.texts().for_each(|(severity, text)| self.add(severity, &text));
    }

    fn live(&mut self, problems: &[String]) {
        print_stderr(&problems.concat());
        self.on_this_host += problems.len();
    }

    /// Prints the counts, and returns the exit status of a failure.
    fn fail(&self, file: &str) -> ExitCode {
        let on_this_host = format!("{} on this host", counted(self.on_this_host, "problem"));
        match (self.errors, self.on_this_host) {
            (0, _) => fail(&format!("{file}: {on_this_host}"), "fix the problems above and check again"),
            (errors, live) => {
                let also = if live == 0 { String::new() } else { format!(", and {on_this_host}") };
                let errors = counted(errors, "error");
                fail(&format!("{file}: {errors}{also}"), "fix the lines above and check again")
            }
        }
    }
}

/// Returns the addresses of this machine. If they cannot be listed, adds a warning and returns none.
fn machine(file: &str, found: &mut Found) -> Addresses {
    addresses::read().unwrap_or_else(|error| {
        let message =
            format!("cannot list this machine's addresses ({error}), so the configured ones are not checked");
        let mut report = Report { file: file.to_owned(), problems: Vec::new() };
        report.add(Severity::Warning, "", message, "run this check as root on the relay itself");
        found.report(&report);
        Addresses::default()
    })
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Describes the configuration, defaults included.
fn summary(config: &Config) -> String {
    let mut text = format!("realm   {}\n", config.realm);
    for listener in &config.listen {
        let _ = writeln!(text, "listen  {} {}", listener.transport, listener.address);
    }
    let addresses = if config.relay.addresses.is_empty() {
        "the listening addresses".to_owned()
    } else {
        joined(&config.relay.addresses)
    };
    let ports = &config.relay.ports;
    let _ = writeln!(text, "relay   {addresses}, ports {}-{}", ports.start(), ports.end());
    for Host { name, secrets, revoked, peers } in &config.hosts {
        let peers = peers.as_ref().map_or("according to [peers]".to_owned(), |peers| joined(peers));
        let secrets = counted(secrets.len(), "secret");
        let revoked =
            if revoked.is_empty() { String::new() } else { format!(" ({} revoked)", revoked.len()) };
        let _ = writeln!(text, "host    {name}: {secrets}{revoked}, peers {peers}");
    }
    if !config.users.is_empty() {
        let _ = writeln!(text, "users   {} with a fixed password", config.users.len());
    }
    if let Some(admin) = &config.admin {
        let _ = writeln!(text, "admin   http://{}/metrics", admin.address);
    }
    text
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Opens and closes a socket on every address that this machine has. Returns the problems as text.
fn live(config: &Config, file: &str, machine: &Addresses) -> Vec<String> {
    let mut problems = Vec::new();
    for listener in config.listen.iter().filter(|listener| machine.may_have(listener.address.ip())) {
        let space = PortSpace::of(listener.transport);
        if let Err(error) = open_listener(space, listener.address, !config.is_dual_stack(listener)) {
            let what = format!(
                "{file}:{}: error: listen {} {}",
                listener.line, listener.transport, listener.address
            );
            problems.push(explain(&what, space, listener.address, &error));
        }
    }
    for address in config.relay.addresses.iter().filter(|address| machine.may_have(**address)) {
        let address = SocketAddr::new(*address, 0);
        if let Err(error) = open(PortSpace::Udp, address, true) {
            let what = format!("{file}: error: relay.addresses {}", address.ip());
            problems.push(explain(&what, PortSpace::Udp, address, &error));
        }
    }
    if let Some(address) = config.admin.as_ref().map(|admin| admin.address)
        && let Err(error) = open(PortSpace::Tcp, address, true)
    {
        problems.push(explain(&format!("{file}: error: admin {address}"), PortSpace::Tcp, address, &error));
    }
    problems
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

/// Formats a problem with its remedy.
fn explain(what: &str, space: PortSpace, address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => match who_holds(space, address) {
            Some(holder) => {
                format!("occupied by {} (pid {}): stop it, or choose another port", holder.name, holder.pid)
            }
            None => "occupied by a process of another user: run this check as root to see which".to_owned(),
        },
        io::ErrorKind::AddrNotAvailable => {
            format!("this host does not have the address {}: `ip address` lists its addresses", address.ip())
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: the systemd unit grants it; run this check as root"
                .to_owned()
        }
        _ if no_family(error) => lacks_family(address.ip()),
        _ => "choose another address or port".to_owned(),
    };
    format!("{what}: {error}\n    {remedy}\n")
}

fn lacks_family(ip: IpAddr) -> String {
    format!("this host has no IPv{}: write an address of the other family", if ip.is_ipv4() { 4 } else { 6 })
}
