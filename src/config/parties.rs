//! `[[host]]`, `[[user]]` and `[peers]`: who may use the relay, and which peers they may reach.

use std::collections::HashMap;
use std::path::Path;

use ipnet::IpNet;

use super::secrets;
use super::types::{Host, Peers, User};
use super::walk::{At, Notes, Section};
use crate::base::host::HOSTS_MAX;
use crate::base::special_ranges::{self, Judgement, SpecialRange};

/// Longest host name. It is a label value in metrics.
const HOST_NAME_BYTES_MAX: usize = 64;
/// Longest USERNAME (RFC 8489 section 14.3).
const USERNAME_BYTES_MAX: usize = 508;

/// Reads every `[[host]]`.
pub(super) fn hosts(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    let mut seen = secrets::Seen::default();
    let mut revoked = Vec::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let sections = top.tables("host", "[[host]]", notes);
    if let Some(over) = sections.get(HOSTS_MAX) {
        notes.error(
            over.line,
            "host",
            format!("{} hosts are more than the maximum of {HOSTS_MAX}", sections.len()),
            "let hosts share a [[host]], or run a second relay",
        );
    }
    for (number, section) in sections.iter().take(HOSTS_MAX).enumerate() {
        let name = section.string("name", notes);
        match name {
            None if section.has("name") => {}
            None => notes.error(section.line, "host.name", "no name", "write name = \"ping\""),
            Some(At { value, line })
                if value.is_empty()
                    || value.len() > HOST_NAME_BYTES_MAX
                    || value.chars().any(char::is_control) =>
            {
                notes.error(
                    line,
                    "host.name",
                    "not a name",
                    format!("write 1 to {HOST_NAME_BYTES_MAX} bytes without control characters"),
                );
            }
            Some(At { value, line }) => {
                if let Some(first) = names.insert(value, line) {
                    notes.error(
                        line,
                        "host.name",
                        format!("{value:?} is already the host on line {first}"),
                        "give it another name, or move its secrets there: secrets = [\"new\", \"old\"]",
                    );
                }
            }
        }
        let peers = section.prefixes("peers", notes);
        for peer in peers.iter().flatten() {
            warn_opened("host.peers", *peer, notes);
        }
        if peers.as_ref().is_some_and(Vec::is_empty) {
            notes.warn(
                section.line_of("peers", notes),
                "host.peers",
                "the list is empty: users of this host can reach no peer",
                "write the addresses of the host, or remove the key to let [peers] decide",
            );
        }
        let peers = peers.map(|peers| peers.into_iter().map(|peer| peer.value).collect());
        let name = name.map_or(String::new(), |name| name.value.to_owned());
        let secrets = secrets::read(section, number, base, &mut seen, notes);
        revoked.push(secrets::revoked(section, base, notes));
        hosts.push(Host { name, secrets, revoked: Vec::new(), peers });
    }
    // Checked last, because now all valid secrets are known.
    for (number, revoked) in revoked.into_iter().enumerate() {
        let revoked = secrets::check_revoked(revoked, number, &hosts, &seen, notes);
        hosts[number].revoked = revoked;
    }
    hosts
}

/// Reads every `[[user]]`.
pub(super) fn users(top: &Section<'_, '_>, notes: &mut Notes) -> Vec<User> {
    let mut users = Vec::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for section in top.tables("user", "[[user]]", notes) {
        let name = section.string("name", notes);
        let password = section.string("password", notes);
        for (key, remedy) in [("name", "write name = \"test\""), ("password", "write password = \"...\"")] {
            if !section.has(key) {
                notes.error(section.line, &section.key(key), format!("no {key}"), remedy);
            }
        }
        if let Some(At { value, line }) = name {
            if value.is_empty() || value.len() > USERNAME_BYTES_MAX || value.chars().any(char::is_control) {
                let remedy = format!("write 1 to {USERNAME_BYTES_MAX} bytes without control characters");
                notes.error(line, "user.name", "not a user name", remedy);
            }
            let before_colon = value.split_once(':').map(|(before, _)| before);
            if before_colon
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
            {
                notes.error(
                    line,
                    "user.name",
                    format!("{value:?} looks like a REST user name (expiry:user)"),
                    "write a name that does not start with digits and a colon; REST users need only a [[host]] with a secret",
                );
            }
            if let Some(first) = names.insert(value, line) {
                let message = format!("{value:?} is already the user on line {first}");
                notes.error(line, "user.name", message, "give it another name or remove one of the two");
            }
        }
        if let Some(At { value, line }) = password
            && (value.is_empty() || value.chars().any(char::is_control))
        {
            let message = "the password is empty or contains a control character";
            notes.error(line, "user.password", message, "make one: openssl rand -base64 18");
        }
        let host = section.string("host", notes);
        if let Some(At { value, line }) = host {
            check_host_exists(top, value, line, notes);
        }
        if let (Some(name), Some(password)) = (name, password) {
            users.push(User {
                name: name.value.to_owned(),
                password: password.value.to_owned(),
                host: host.map(|host| host.value.to_owned()),
            });
        }
    }
    users
}

/// Reports a `[[user]]` whose host does not exist. Problems of the hosts themselves are reported with the hosts.
fn check_host_exists(top: &Section<'_, '_>, wanted: &str, line: usize, notes: &mut Notes) {
    let mut discarded = Notes::new("");
    let hosts = top.tables("host", "[[host]]", &mut discarded);
    let names: Vec<&str> =
        hosts.iter().filter_map(|host| host.string("name", &mut discarded)).map(|name| name.value).collect();
    if !names.contains(&wanted) {
        let nearest = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, wanted));
        let remedy = match nearest {
            Some(name) => format!("did you mean {name:?}?"),
            None => "add a [[host]] of this name, or remove the key to let [peers] decide".to_owned(),
        };
        notes.error(line, "user.host", format!("there is no [[host]] named {wanted:?}"), remedy);
    }
}

/// Reads `[peers]`.
pub(super) fn peers(top: &Section<'_, '_>, notes: &mut Notes) -> Peers {
    let Some(section) = top.table("peers", "[peers]", notes) else { return Peers::default() };
    let allow = section.prefixes("allow", notes).unwrap_or_default();
    let deny = section.prefixes("deny", notes).unwrap_or_default();
    for entry in &allow {
        warn_opened("peers.allow", *entry, notes);
        if let Some(denied) = deny.iter().find(|denied| denied.value == entry.value) {
            notes.warn(
                entry.line,
                "peers.allow",
                format!("{} is also denied on line {}, and deny wins", entry.value, denied.line),
                "remove one of the two",
            );
        }
    }
    let values = |entries: Vec<At<IpNet>>| entries.into_iter().map(|entry| entry.value).collect();
    Peers { allow: values(allow), deny: values(deny) }
}

/// Warns about an allow entry inside a special-purpose range. An entry that is wider than the range opens nothing of it,
/// because the longest prefix decides.
fn warn_opened(key: &str, entry: At<IpNet>, notes: &mut Notes) {
    let Some(SpecialRange { range, name, judgement, .. }) = special_ranges::covering(entry.value) else {
        return;
    };
    let opens = format!("opens {} within {range} ({name}), which is denied by default", entry.value);
    let (message, remedy) = match judgement {
        Judgement::Closed => {
            (opens, "keep it if these are the media servers' own addresses; otherwise remove it")
        }
        Judgement::ByIpv4Inside => (
            format!("{} opens nothing: {range} ({name}) is judged by the IPv4 address inside", entry.value),
            "write the IPv4 address itself, or remove the entry",
        ),
        Judgement::ClosedAndByIpv4Inside => {
            (opens, "write the IPv4 address inside as an entry too if it is not public, or remove the entry")
        }
    };
    notes.warn(entry.line, key, message, remedy);
}
