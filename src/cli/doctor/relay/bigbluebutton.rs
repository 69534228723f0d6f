//! BigBlueButton's list of servers: whether bbb-web can read it, and whether it says what the relay serves.

use std::net::IpAddr;
use std::path::Path;

use super::files::unreadable;
use super::names;
use super::site::{Site, once, untested};
use crate::cli::bbb_xml::{Difference, Relay, Servers, compare};
use crate::cli::output::{counted, shell_word};
use crate::config::{Exposure, SERVICE_FILE};
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::text::list;
use crate::system::account::Account;

/// The command that corrects the entries for `name`. All that it would choose by itself is written out: without the name it might add
/// entries for another one, and keep the wrong ones.
fn write(site: &Site<'_>, host: &str, name: &str, path: &Path) -> String {
    let mut command = "hallpass bbb-xml".to_owned();
    let mut add = |option: &str, value: &str| {
        command += &format!(" --{option} {}", shell_word(value));
    };
    if site.args.config != Path::new(SERVICE_FILE) {
        add("config", &site.args.config.display().to_string());
    }
    if site.config.hosts.len() > 1 {
        add("host", host);
    }
    add("public-name", name);
    add("output", &path.display().to_string());
    format!("correct it with `{command}`, which keeps other servers, and restart bbb-web")
}

/// A list that cannot be read cannot be merged either.
const ANEW: &str = "correct the file, or write it anew with `hallpass bbb-xml --output FILE --replace`, which keeps no other server, \
                    and restart bbb-web";

/// Judges the list; `None` without one.
pub fn check(site: &Site<'_>, seen: &Seen) -> Option<Check> {
    let xml = site.xml.as_ref()?;
    let (mut check, file) = (Check::of("BigBlueButton"), xml.path.display());
    check.findings.extend(permissions(site, &xml.path));
    let servers = match &xml.servers {
        Ok(servers) => servers,
        Err(reason) => {
            check.findings.push(Finding::error("xml_invalid", format!("{file}: {reason}"), ANEW));
            return Some(check);
        }
    };
    let hosts = xml.hosts();
    check.facts.push(format!("{file} lists {}", list(&hosts)));
    let ours = names::ours(site, seen, &hosts);
    if ours.is_empty() {
        let name = site.args.public_name.as_deref();
        let host = site.config.hosts.first().map_or("HOST", |host| &*host.name);
        check.findings.push(Finding::error(
            "xml_lacks_relay",
            format!("{file} has no TURN server at {}, so no browser uses it", name.unwrap_or("this relay")),
            format!(
                "{}; if the relay has a name that does not lead here, write --public-name NAME",
                write(site, host, name.unwrap_or("NAME"), &xml.path)
            ),
        ));
    }
    for name in &ours {
        check.findings.extend(differences(site, servers, name, &xml.path));
    }
    check.findings.extend(other_relays(site, seen, &hosts, &xml.path));
    Some(check)
}

/// Whether bbb-web's user can read the file, and nobody else can.
fn permissions(site: &Site<'_>, path: &Path) -> Vec<Finding> {
    let user = &site.args.bbb_user;
    let mut findings = Vec::new();
    let exposure = Exposure::of_file(path);
    findings.extend(exposure.map(|Exposure { message, .. }| {
        let remedy = format!("chown root:{user} {0} && chmod 640 {0}", path.display());
        Finding::warning("xml_exposed", format!("{message}, which holds a secret"), remedy)
    }));
    let Some(account) = Account::named(user) else {
        findings.push(untested(
            "xml_reader_unknown",
            format!("this machine has no user {user}, so it is not known whether bbb-web can read the file"),
            "run this command where bbb-web runs, or write its user as --bbb-user NAME",
        ));
        return findings;
    };
    match account.try_to_read(&[path.to_path_buf()]) {
        Ok(tried) => {
            let denied = tried.into_iter().filter_map(Result::err);
            findings.extend(denied.filter_map(|why| unreadable("xml_unreadable", &account, path, &why)));
        }
        Err(error) => findings.push(untested(
            "xml_reader_unknown",
            format!("whether user {user} can read {} was not tested: {error}", path.display()),
            "run this command as root",
        )),
    }
    findings
}

/// Compares the entries for `name` with the host whose secret they have.
fn differences(site: &Site<'_>, servers: &Servers, name: &str, path: &Path) -> Vec<Finding> {
    let file = path.display();
    let hosts = &site.config.hosts;
    let owner = hosts.iter().find(|host| servers.has_secret(name, &host.secrets));
    let Some(owner_or_first) = owner.or_else(|| hosts.first()) else { return Vec::new() };
    let host = &owner_or_first.name;
    let all = compare(servers, &Relay::new(&site.config, owner_or_first, name, None, false));
    let urls = |is: fn(&Difference) -> Option<&String>| -> Vec<String> {
        all.iter().filter_map(is).cloned().collect()
    };
    let of = |urls: Vec<String>| (!urls.is_empty()).then(|| list(&urls));
    let write = || write(site, host, name, path);
    let mut findings = Vec::new();
    let is_other = |one: &Difference| matches!(one, Difference::OtherSecret(_));
    let others = urls(|one| match one {
        Difference::OtherSecret(url) => Some(url),
        _ => None,
    });
    if let Some(urls) = of(others) {
        let whose = match hosts.len() {
            1 => format!("the one of host {host}"),
            _ => format!("one of the {}", counted(hosts.len(), "host")),
        };
        let some = if owner.is_some() { " (other entries have it)" } else { "" };
        findings.push(Finding::error(
            "xml_other_secret",
            format!(
                "{file}: the secret of {urls} is not {whose}{some}, so the relay refuses every user of it"
            ),
            write(),
        ));
    }
    let old = urls(|one| match one {
        Difference::OlderSecret(url) => Some(url),
        _ => None,
    });
    findings.extend(of(old).map(|urls| {
        Finding::warning(
            "xml_older_secret",
            format!("{file}: {urls} has an older secret of host {host}"),
            write(),
        )
    }));
    let missing = urls(|one| match one {
        Difference::Missing(url) => Some(url),
        _ => None,
    });
    findings.extend(of(missing).map(|urls| {
        Finding::warning("xml_lacks_url", format!("{file} lacks {urls}, which the relay serves"), write())
    }));
    let unknown = urls(|one| match one {
        Difference::NoListener(url) => Some(url),
        _ => None,
    });
    findings.extend(of(unknown).map(|urls| {
        Finding::error("xml_unknown_url", format!("{file} has {urls}, and no listener serves it"), write())
    }));
    let double = all.iter().any(|one| matches!(one, Difference::Several(..)));
    // Two entries of which one has another secret are reported by that.
    if double && !all.iter().any(is_other) {
        let text = format!("{file} lists a URL of {name} several times");
        findings.push(Finding::warning("xml_double", text, write()));
    }
    findings
}

/// The other relays: those of `--other-relay`, and those that clients are sent to during a drain.
fn other_relays(site: &Site<'_>, seen: &Seen, hosts: &[String], path: &Path) -> Vec<Finding> {
    let drain = &site.config.drain;
    let alternates =
        drain.alternate_server.iter().chain(&drain.tcp_alternate_server).chain(&drain.tls_alternate_server);
    let alternates =
        alternates.map(|server| server.ip()).filter(|ip| !site.is_ours(*ip)).map(|ip| ip.to_string());
    let others = once(site.args.other_relay.iter().cloned().chain(alternates));
    let addresses_of = |name: &str| -> Vec<IpAddr> {
        let lookup = seen.names.iter().find(|lookup| lookup.name == name);
        let found = lookup.and_then(|lookup| lookup.addresses.clone().ok()).unwrap_or_default();
        name.parse().into_iter().chain(found).collect()
    };
    let is_listed = |other: &String| {
        let wanted = addresses_of(other);
        hosts.iter().any(|host| host == other || addresses_of(host).iter().any(|ip| wanted.contains(ip)))
    };
    let missing = others.into_iter().filter(|other| !is_listed(other));
    missing
        .map(|other| {
            Finding::warning(
                "xml_lacks_relay",
                format!(
                    "{} has no TURN server at {other}, so browsers do not use that relay",
                    path.display()
                ),
                "calls go over the relays that are listed. Add it with `hallpass bbb-xml --output FILE` and that relay's configuration as --config, and restart bbb-web",
            )
        })
        .collect()
}
