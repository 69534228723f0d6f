//! `hallpass check`: reports problems of a configuration, and of this host with --live.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustls::sign::CertifiedKey;
use socket2::{Domain, Protocol, Socket, Type};

use super::args::CheckArgs;
use super::output::{fail, print, print_stderr};
use super::this_host;
use crate::cert;
use crate::config::{self, Config, Exposure, Host, Loaded, Problem, Report, Severity};
use crate::system::port_holder::{PortSpace, who_holds};
use crate::system::{addresses, clock};

/// Signatures that take longer delay packets noticeably. RSA keys with 3072 bits or more exceed it.
const SLOW_SIGNATURE: Duration = Duration::from_millis(1);

/// Checks the configuration and prints a summary or the problems.
pub(super) fn run(args: CheckArgs) -> ExitCode {
    let Loaded { config, warnings } = match config::read(&args.config) {
        Ok(loaded) => loaded,
        Err(report) => {
            print_stderr(&report.to_string());
            let found = counted(report.errors(), "error");
            return fail(
                &format!("{}: {found}", args.config.display()),
                "fix the lines above and check again",
            );
        }
    };
    print_stderr(&warnings.to_string());
    let certificate_warnings = match certificate(&config, &warnings.file) {
        Ok(count) => count,
        Err(code) => return code,
    };
    let misfits = misfits(&config, &warnings.file);
    print_stderr(&misfits.to_string());
    if misfits.has_errors() {
        let found = counted(misfits.errors(), "error");
        return fail(
            &format!("{}: {found} on this host", warnings.file),
            "fix the lines above and check again",
        );
    }
    if args.live {
        let problems = live(&config, &warnings.file);
        if !problems.is_empty() {
            print_stderr(&problems.concat());
            let found = counted(problems.len(), "problem");
            return fail(
                &format!("{}: {found} on this host", warnings.file),
                "free the ports above, or choose other ports",
            );
        }
    }
    let mut text = summary(&config);
    let verdict = match warnings.warnings() + certificate_warnings + misfits.warnings() {
        0 => "good".to_owned(),
        count => format!("good, with {}", counted(count, "warning")),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {verdict}", warnings.file);
    print(text.as_bytes())
}

/// Reads the certificate as the server does and prints its problems. Returns the number of warnings.
///
/// # Errors
/// The exit status, after the error is printed, if the certificate or its key cannot be used.
fn certificate(config: &Config, file: &str) -> Result<usize, ExitCode> {
    let Some(files) = &config.tls else { return Ok(0) };
    match cert::load(&files.cert, &files.key, clock::unix_seconds()) {
        Ok(loaded) => {
            let mut warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            warnings.extend(Exposure::of_file(&files.key).map(|exposure| exposure.to_string()));
            let time = signature_time(&loaded.key);
            if time > SLOW_SIGNATURE {
                warnings.push(slow_key(&files.key, time));
            }
            warnings.iter().for_each(|warning| print_stderr(&format!("{file}: warning: tls: {warning}\n")));
            Ok(warnings.len())
        }
        Err(error) => {
            print_stderr(&format!("{file}: error: tls: {error}\n"));
            Err(fail(&format!("{file}: 1 error"), "fix the certificate or its key and check again"))
        }
    }
}

/// What the configuration gets wrong about this machine, or a warning if its addresses cannot be listed.
fn misfits(config: &Config, file: &str) -> Report {
    match addresses::read() {
        Ok(machine) => this_host::in_full(config, &machine, file),
        Err(error) => Report {
            file: file.to_owned(),
            problems: vec![Problem {
                severity: Severity::Warning,
                line: None,
                key: String::new(),
                message: format!("cannot list this machine's addresses ({error}), so none are checked"),
                remedy: "run this check as root on the relay itself".to_owned(),
            }],
        },
    }
}

/// The median time of a few signatures; zero if signing fails, which [`cert::load`] has ruled out.
fn signature_time(key: &CertifiedKey) -> Duration {
    let mut times = [(); 5].map(|()| {
        let start = clock::monotonic_nanos();
        let signed = cert::sign_once(key);
        let took = clock::monotonic_nanos() - start;
        signed.map_or(Duration::ZERO, |()| Duration::from_nanos(took))
    });
    times.sort_unstable();
    times[times.len() / 2]
}

/// The warning about a key whose signatures are slow.
fn slow_key(path: &Path, time: Duration) -> String {
    format!(
        "{}: a signature with this key takes {:.1} ms, and each TLS handshake delays all calls by one signature; use \
         an ECDSA P-256 key, which takes 0.1 ms or less",
        path.display(),
        time.as_secs_f64() * 1e3
    )
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

/// Opens and closes a socket on every address. Returns the problems as text.
fn live(config: &Config, file: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for listener in &config.listen {
        let space = PortSpace::of(listener.transport);
        if let Err(error) = open(space, listener.address, !config.is_dual_stack(listener)) {
            let what = format!(
                "{file}:{}: error: listen {} {}",
                listener.line, listener.transport, listener.address
            );
            problems.push(explain(&what, space, listener.address, &error));
        }
    }
    for address in &config.relay.addresses {
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
        // The server sets it too: connections in TIME_WAIT do not block the port.
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
        io::ErrorKind::Unsupported => no_family(address.ip()),
        _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => no_family(address.ip()),
        _ => "choose another address or port".to_owned(),
    };
    format!("{what}: {error}\n    {remedy}\n")
}

fn no_family(ip: IpAddr) -> String {
    format!("this host has no IPv{}: write an address of the other family", if ip.is_ipv4() { 4 } else { 6 })
}
