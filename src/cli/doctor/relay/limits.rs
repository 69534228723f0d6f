//! Limits of the kernel and of the service, and ranges of ports that overlap.

use std::ops::RangeInclusive;
use std::path::Path;

use super::site::{Site, problems};
use crate::cli::serve::kernel;
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::system::account::Account;
use crate::system::kernel_tables::{self, Tracking};

/// The directory of BigBlueButton's settings.
const BIGBLUEBUTTON: &str = "/etc/bigbluebutton";
/// The ports of its media servers: FreeSWITCH and mediasoup.
const MEDIA_PORTS: RangeInclusive<u16> = 16384..=32768;
/// Descriptors beyond which more are never too few.
const DESCRIPTORS_ENOUGH: u64 = 65_536;

/// Judges the limits. `file` is the name of the configuration.
pub fn check(site: &Site<'_>, file: &str) -> Check {
    let mut check = Check::of("limits");
    check.findings = problems("kernel", &kernel::check(&site.config, file));
    let ports = &site.config.relay.ports;
    let descriptors = site.running().and_then(kernel_tables::descriptors_of);
    if let Some(max) = descriptors {
        let shown = if max == u64::MAX { "any number of".to_owned() } else { max.to_string() };
        check.facts.push(format!("{shown} descriptors for {} relay ports", len(ports)));
        check.findings.extend(few_descriptors(max, ports));
    }
    if let Some(tracking) = kernel_tables::tracking() {
        check.facts.push(format!("{} of {} tracked connections", tracking.count, tracking.max));
        check.findings.extend(few_flows(tracking, ports));
    }
    if let Some(ephemeral) = kernel_tables::ephemeral_ports() {
        let shared = overlap(ports, &ephemeral);
        if shared > 0 {
            check.facts.push(format!(
                "{shared} relay ports are shared with this machine's own connections; one in use is skipped"
            ));
        }
        let taken = |port: &u16| ephemeral.contains(port) && !kernel_tables::is_reserved(*port);
        let listeners = site.config.listen.iter().map(|listener| listener.address.port());
        if let Some(port) = listeners.into_iter().find(|port| taken(port)) {
            check.findings.push(Finding::warning(
                "port_may_be_taken",
                format!(
                    "port {port} of a listener is among those that the kernel gives to outgoing connections ({}-{}): at a \
                     restart another program may have it",
                    ephemeral.start(),
                    ephemeral.end()
                ),
                format!("sysctl -w net.ipv4.ip_local_reserved_ports={port}, and the same line in /etc/sysctl.d"),
            ));
        }
    }
    let has_bigbluebutton =
        Path::new(BIGBLUEBUTTON).is_dir() || Account::named(&site.args.bbb_user).is_some();
    if has_bigbluebutton {
        check.findings.extend(media_ports(ports));
    }
    check
}

fn len(ports: &RangeInclusive<u16>) -> u64 {
    u64::from(*ports.end()) - u64::from(*ports.start()) + 1
}

/// Number of ports in both.
fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> u64 {
    let (first, last) = (*a.start().max(b.start()), *a.end().min(b.end()));
    if first <= last { len(&(first..=last)) } else { 0 }
}

fn few_descriptors(max: u64, ports: &RangeInclusive<u16>) -> Option<Finding> {
    // A client on TCP or TLS needs a second one.
    let wanted = (2 * len(ports)).min(DESCRIPTORS_ENOUGH);
    (max < wanted).then(|| {
        Finding::warning(
            "few_descriptors",
            format!("the running server may open {max} files; each client needs up to two, so some would be refused"),
            "write LimitNOFILE=1048576 into the unit and restart the server; if the unit has it, this machine allows no more: \
             raise the limit of the container, or fs.nr_open",
        )
    })
}

fn few_flows(Tracking { count, max }: Tracking, ports: &RangeInclusive<u16>) -> Option<Finding> {
    let enlarge = "sysctl -w net.netfilter.nf_conntrack_max=262144, and the same line in /etc/sysctl.d";
    if count >= max / 5 * 4 {
        let text = format!(
            "the firewall tracks {count} connections of at most {max}: beyond that, packets of new ones are dropped"
        );
        return Some(Finding::error("conntrack_full", text, enlarge));
    }
    // Each client has a connection to the relay, and one from there to its peer.
    (max < 2 * len(ports)).then(|| {
        let text = format!(
            "the firewall tracks at most {max} connections, fewer than {} relay ports need",
            len(ports)
        );
        Finding::warning("conntrack_small", text, enlarge)
    })
}

fn media_ports(ports: &RangeInclusive<u16>) -> Option<Finding> {
    let shared = overlap(ports, &MEDIA_PORTS);
    (shared > 0).then(|| {
        Finding::warning(
            "relay_ports_of_bigbluebutton",
            format!(
                "BigBlueButton on this machine uses the ports {}-{} for media, and {shared} of them are relay ports",
                MEDIA_PORTS.start(),
                MEDIA_PORTS.end()
            ),
            "write [relay] ports = \"32769-65535\"",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap() {
        assert!(media_ports(&(49152..=65535)).is_none() && media_ports(&(32769..=65535)).is_none());
        assert!(media_ports(&(32768..=65535)).is_some_and(|one| one.text.contains("and 1 of them")));
        assert_eq!([overlap(&(1..=9), &(10..=20)), overlap(&(1..=10), &(10..=20))], [0, 1]);
        assert_eq!(len(&(0..=u16::MAX)), 65_536);
    }

    #[test]
    fn tables_that_are_too_small() {
        let ports = 49152..=65535;
        let code = |finding: Option<Finding>| finding.map(|finding| finding.code);
        assert_eq!(code(few_descriptors(1024, &ports)), Some("few_descriptors"));
        assert_eq!(code(few_descriptors(32_768, &ports)), None);
        let flows = |count, max| code(few_flows(Tracking { count, max }, &ports));
        assert_eq!(flows(10, 262_144), None);
        assert_eq!(flows(10, 8192), Some("conntrack_small"));
        assert_eq!(flows(250_000, 262_144), Some("conntrack_full"));
    }
}
