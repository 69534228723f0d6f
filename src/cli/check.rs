//! `hallpass check`: reports problems of a configuration, and of this host with --live.

mod plan;

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use socket2::{Domain, Protocol, Socket, Type};

use super::args::CheckArgs;
use super::output::{counted, fail, print, print_stderr};
use super::serve::kernel;
use super::serve::listening::{lacks_ipv6, no_family};
use super::{certificate, this_host};
use crate::config::{self, Config, Examined, Report, Severity};
use crate::system::addresses::{self, Addresses};
use crate::system::port_holder::{Holder, PortSpace, who_holds};

/// The name of the server's process.
const PROGRAM: &str = "hallpass";
/// Programs that can share a port with the relay.
const WEB_SERVERS: [&str; 5] = ["nginx", "apache2", "httpd", "caddy", "haproxy"];

/// Checks the configuration and prints what the server will do, or all problems.
pub(super) fn run(args: CheckArgs) -> ExitCode {
    let Examined { report, config } = config::examine(&args.config);
    let mut found = Found::default();
    found.report(&report);
    let Some(config) = config else { return found.fail(&report.file) };
    let certificate = certificate::examine(&config, &report.file);
    for (severity, line) in &certificate.problems {
        found.add(*severity, line);
    }
    let mut known = None;
    // A configuration with errors has defaults in place of the wrong values: comparing it with this machine would mislead.
    if !report.has_errors() {
        let machine = machine(&report.file, &mut found);
        found.report(&this_host::in_full(&config, &machine, &report.file));
        found.report(&kernel::check(&config, &report.file));
        if args.live {
            found.live = live(&config, &report.file, &machine);
            print_stderr(&found.live.problems.concat());
        }
        known = Some(machine);
    }
    if found.errors + found.live.problems.len() > 0 {
        return found.fail(&report.file);
    }
    let mut text = plan::text(&config, &known.unwrap_or_default(), certificate.name.as_deref());
    if let Some(pid) = found.live.running {
        let _ = writeln!(
            text,
            "running   hallpass (pid {pid}) already serves {} of these addresses",
            found.live.served
        );
    }
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
    live: Live,
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

    /// Prints the counts, and returns the exit status of a failure.
    fn fail(&self, file: &str) -> ExitCode {
        let live = self.live.problems.len();
        let on_this_host = format!("{} on this host", counted(live, "problem"));
        match (self.errors, live) {
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

/// What opening the sockets showed.
#[derive(Default)]
struct Live {
    /// What is wrong, with remedies.
    problems: Vec<String>,
    /// The running server that occupies addresses of the configuration, and how many.
    running: Option<u32>,
    served: usize,
}

impl Live {
    /// Adds the error of opening `address`, unless the running server serves it.
    fn add(&mut self, what: &str, space: PortSpace, address: SocketAddr, error: &io::Error) {
        let holder = (error.kind() == io::ErrorKind::AddrInUse).then(|| who_holds(space, address)).flatten();
        match holder {
            Some(holder) if holder.name == PROGRAM => {
                self.running = Some(holder.pid);
                self.served += 1;
            }
            holder => self.problems.push(explain(what, address, error, holder.as_ref())),
        }
    }
}

/// Opens and closes a socket on every address that this machine has.
fn live(config: &Config, file: &str, machine: &Addresses) -> Live {
    let mut live = Live::default();
    for listener in config.listen.iter().filter(|listener| machine.may_have(listener.address.ip())) {
        let space = PortSpace::of(listener.transport);
        if let Err(error) = open_listener(space, listener.address, !config.is_dual_stack(listener)) {
            let what = format!(
                "{file}:{}: error: listen {} {}",
                listener.line, listener.transport, listener.address
            );
            live.add(&what, space, listener.address, &error);
        }
    }
    for address in config.relay.addresses.iter().filter(|address| machine.may_have(**address)) {
        let address = SocketAddr::new(*address, 0);
        if let Err(error) = open(PortSpace::Udp, address, true) {
            live.add(
                &format!("{file}: error: relay.addresses {}", address.ip()),
                PortSpace::Udp,
                address,
                &error,
            );
        }
    }
    if let Some(address) = config.admin.as_ref().map(|admin| admin.address)
        && let Err(error) = open(PortSpace::Tcp, address, true)
    {
        live.add(&format!("{file}: error: admin {address}"), PortSpace::Tcp, address, &error);
    }
    live
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
fn explain(what: &str, address: SocketAddr, error: &io::Error, holder: Option<&Holder>) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => match holder {
            Some(Holder { name, pid }) if WEB_SERVERS.contains(&name.as_str()) => format!(
                "occupied by {name} (pid {pid}): choose another port, or let both share this one: move {name} to \
                 127.0.0.1:81, name that in [web], and write web = true here"
            ),
            Some(Holder { name, pid }) => {
                format!("occupied by {name} (pid {pid}): choose another port, or move {name} to another one")
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
