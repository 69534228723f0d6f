//! Compares the kernel's settings with what UDP listeners need. `conf/sysctl.conf` has the right ones.

use std::path::Path;

use crate::base::transport::Transport;
use crate::config::{Config, Report, Severity, Web};
use crate::net::WorkerSockets;
use crate::net::socket::Buffers;
use crate::system::neighbours::{UnresolvedLimit, largest_unresolved_limit};
use crate::system::time_wait;

/// The value in `conf/sysctl.conf`: ten small packets, enough for the milliseconds in which an address is resolved.
const UNRESOLVED_BYTES: u64 = 8192;
/// A limit above this is reported. It leaves some choice: with it, 500 silent neighbours fill a send buffer of 4 MiB.
const UNRESOLVED_BYTES_MAX: u64 = 2 * UNRESOLVED_BYTES;
/// Where the packages install `conf/sysctl.conf`.
const INSTALLED: [&str; 2] = ["/etc/sysctl.d/60-hallpass.conf", "/usr/lib/sysctl.d/60-hallpass.conf"];

/// How to apply all of `conf/sysctl.conf`, which is installed at one of `places` or nowhere.
fn install(places: &[&str]) -> String {
    match places.iter().find(|place| Path::new(place).exists()) {
        Some(place) => format!(
            "{place} has it, and is not applied: run `sysctl --system`; in a container, set it on the host"
        ),
        None => {
            "install conf/sysctl.conf as /etc/sysctl.d/60-hallpass.conf and run `sysctl --system`".to_owned()
        }
    }
}

/// Returns the settings that endanger the clients of this configuration, as warnings. `file` is its name in messages.
pub fn check(config: &Config, file: &str) -> Report {
    let (buffers, limit) = (Buffers::probe().ok(), largest_unresolved_limit());
    let mut report = compare(config, buffers, limit.as_ref(), file);
    web(config, time_wait::reuse(), &mut report);
    report
}

/// Reports that a web server on another machine runs out of ports.
fn web(config: &Config, reuse: Option<u8>, report: &mut Report) {
    let Web { http1, h2, passthrough, .. } = &config.web;
    let mut servers = http1.iter().chain(h2).chain(passthrough.values());
    if let Some(server) = servers.find(|server| !server.ip().is_loopback())
        && reuse.is_some_and(|reuse| reuse != 1)
    {
        report.add(
            Severity::Warning,
            "kernel",
            format!(
                "the web server {server} is on another machine: beyond 470 connections a second, which a single client can \
                 make, no local port is left, and visitors get 502"
            ),
            format!("set net.ipv4.tcp_tw_reuse to 1: {}", install(&INSTALLED)),
        );
    }
}

fn compare(config: &Config, buffers: Option<Buffers>, limit: Option<&UnresolvedLimit>, file: &str) -> Report {
    let mut report = Report { file: file.to_owned(), problems: Vec::new() };
    let Some(buffers) = buffers.filter(|_| serves_others(config)) else { return report };
    if let Some(message) = too_small(buffers) {
        report.add(Severity::Warning, "kernel", message, enlarge());
    }
    if let Some(UnresolvedLimit { bytes, setting }) = limit
        && *bytes > UNRESOLVED_BYTES_MAX
    {
        // The kernel doubles the size of a buffer, and counts both in this unit.
        let neighbours = 2 * buffers.send as u64 / bytes;
        report.add(
            Severity::Warning,
            "kernel",
            format!(
                "{setting} is {bytes}: packets to {neighbours} vanished clients of the relay's own subnet fill the send \
                 buffer of a UDP listener, and then every client loses packets"
            ),
            format!(
                "set net.ipv4.neigh.default.unres_qlen_bytes and net.ipv6.neigh.default.unres_qlen_bytes to \
                 {UNRESOLVED_BYTES}: {}",
                install(&INSTALLED)
            ),
        );
    }
    report
}

/// Logs one line if the UDP listeners have smaller buffers than requested. `is_built_in`: whether there is no
/// configuration file; then it is a debug line, because that configuration is for tests.
pub fn log(config: &Config, sockets: &[WorkerSockets], is_built_in: bool) {
    let buffers = Buffers::of_listeners(sockets).filter(|_| serves_others(config));
    if let Some(message) = buffers.and_then(too_small) {
        match is_built_in {
            true => tracing::debug!("{message}; {}", enlarge()),
            false => tracing::warn!("{message}; {}", enlarge()),
        }
    }
}

/// Whether a UDP listener serves clients on other machines.
fn serves_others(config: &Config) -> bool {
    let mut udp = config.listen.iter().filter(|listener| listener.transport == Transport::Udp);
    udp.any(|listener| !listener.address.ip().is_loopback())
}

fn too_small(buffers: Buffers) -> Option<String> {
    let Buffers { receive, send } = buffers;
    buffers.are_small().then(|| {
        format!(
            "the kernel limits the buffers of a UDP listener to {receive} bytes (receive) and {send} (send) instead of \
             {}: bursts of packets are lost",
            Buffers::REQUESTED
        )
    })
}

fn enlarge() -> String {
    format!("set net.core.rmem_max and net.core.wmem_max to {}: {}", Buffers::REQUESTED, install(&INSTALLED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Buffers = Buffers { receive: Buffers::REQUESTED, send: Buffers::REQUESTED };
    const DEFAULT: Buffers = Buffers { receive: 212_992, send: 212_992 };

    fn warnings(listen: &str, buffers: Buffers, limit: u64) -> Vec<String> {
        let mut config = Config::embedded("0123456789abcdef".to_owned());
        config.listen.iter_mut().for_each(|listener| listener.address = listen.parse().expect("literal"));
        let limit = UnresolvedLimit { bytes: limit, setting: "net.a.b".to_owned() };
        let report = compare(&config, Some(buffers), Some(&limit), "f");
        assert!(!report.has_errors());
        report.texts().map(|(_, text)| text).collect()
    }

    #[test]
    fn the_recommended_settings_are_good() {
        assert_eq!(warnings("[::]:3478", GOOD, UNRESOLVED_BYTES), [""; 0]);
        assert_eq!(warnings("[::]:3478", GOOD, UNRESOLVED_BYTES_MAX), [""; 0]);
        let example = include_str!("../../../conf/sysctl.conf");
        let value = |name: &str| {
            let line = example.lines().find_map(|line| line.trim_start_matches('-').strip_prefix(name));
            line.and_then(|rest| rest.trim_start_matches(" = ").parse::<u64>().ok())
        };
        for name in ["net.core.rmem_max", "net.core.wmem_max"] {
            assert_eq!(value(name), Some(Buffers::REQUESTED as u64), "{name}");
        }
        for family in ["ipv4", "ipv6"] {
            let name = format!("net.{family}.neigh.default.unres_qlen_bytes");
            assert_eq!(value(&name), Some(UNRESOLVED_BYTES), "{name}");
        }
    }

    #[test]
    fn an_installed_file_is_applied_and_not_installed_again() {
        assert!(
            install(&["/nonexistent"])
                .starts_with("install conf/sysctl.conf as /etc/sysctl.d/60-hallpass.conf")
        );
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/sysctl.conf");
        let told = install(&["/nonexistent", own]);
        assert!(
            told.starts_with(&format!("{own} has it, and is not applied: run `sysctl --system`")),
            "{told}"
        );
    }

    #[test]
    fn each_of_the_kernels_defaults_is_a_warning_with_figures_and_remedy() {
        let [buffers, neighbours] = &warnings("[::]:3478", DEFAULT, 212_992)[..] else {
            panic!("two warnings")
        };
        for part in [
            "f: warning: kernel: ",
            "to 212992 bytes (receive) and 212992 (send) instead of 4194304",
            "rmem_max",
            "60-hallpass.conf",
        ] {
            assert!(buffers.contains(part), "{buffers}");
        }
        for part in [
            "f: warning: kernel: net.a.b is 212992: packets to 2 vanished clients",
            "to 8192: install conf/sysctl.conf",
        ] {
            assert!(neighbours.contains(part), "{neighbours}");
        }
        let half = Buffers { send: 212_992, ..GOOD };
        assert!(
            warnings("192.0.2.1:3478", half, 0)[0].contains("to 4194304 bytes (receive) and 212992 (send)")
        );
        assert!(warnings("192.0.2.1:3478", GOOD, 212_992)[0].contains(" 39 vanished clients"));
    }

    #[test]
    fn a_web_server_on_another_machine_needs_ports() {
        let warnings = |server: &str, reuse| {
            let mut config = Config::embedded("0123456789abcdef".to_owned());
            config.web.h2 = Some(server.parse().expect("literal"));
            let mut report = Report { file: "f".to_owned(), problems: Vec::new() };
            web(&config, reuse, &mut report);
            report.to_string()
        };
        let told = warnings("192.0.2.9:443", Some(2));
        assert!(
            told.contains("192.0.2.9:443 is on another machine") && told.contains("tcp_tw_reuse to 1"),
            "{told}"
        );
        for (server, reuse) in
            [("192.0.2.9:443", Some(1)), ("192.0.2.9:443", None), ("127.0.0.1:82", Some(2))]
        {
            assert_eq!(warnings(server, reuse), "", "{server}");
        }
    }

    #[test]
    fn listeners_on_loopback_need_none_of_it() {
        assert_eq!(warnings("127.0.0.1:3478", DEFAULT, 212_992), [""; 0]);
        assert_eq!(warnings("[::1]:3478", DEFAULT, 212_992), [""; 0]);
    }
}
