//! What differs between two configurations, for the operator. Secrets are never shown.

use std::fmt::{Debug, Display};

use super::limits::LIMITS;
use super::types::{Acme, Admin, AdminTls, Config, Host, Listener, Site, TlsFiles, User};

/// Returns a line for each difference: the key, and what changes. A file that the configuration names, such as the
/// certificate, may have changed as well.
pub fn difference(before: &Config, after: &Config) -> Vec<String> {
    let mut lines = Lines::default();
    lines.value("realm", &before.realm, &after.realm);
    let external = |config: &Config| -> Vec<String> {
        let text = |ip: &super::ExternalIp| match ip.private {
            Some(private) => format!("{}/{private}", ip.public),
            None => ip.public.to_string(),
        };
        config.external_ip.iter().map(text).collect()
    };
    lines.list("external_ip", &external(before), &external(after));
    lines.value("strict_channels", &before.strict_channels, &after.strict_channels);
    lines.value("icmp_to_clients", &before.icmp_to_clients, &after.icmp_to_clients);
    lines.value("privacy", &before.privacy, &after.privacy);
    listeners(before, after, &mut lines);
    lines.list("relay.addresses", &before.relay.addresses, &after.relay.addresses);
    let ports = |config: &Config| format!("{}-{}", config.relay.ports.start(), config.relay.ports.end());
    lines.value("relay.ports", &ports(before), &ports(after));
    lines.shown("relay.default_family", &before.relay.default_family, &after.relay.default_family);
    files("tls", before.tls.as_ref(), after.tls.as_ref(), &mut lines);
    let certificate = |files: &TlsFiles| files.cert.display().to_string();
    let certificates = |config: &Config| config.certificates.iter().map(certificate).collect::<Vec<_>>();
    lines.list("tls.certificate", &certificates(before), &certificates(after));
    acme(before.acme.as_ref(), after.acme.as_ref(), &mut lines);
    let redirects = |config: &Config| config.redirect.iter().map(|one| one.address).collect::<Vec<_>>();
    lines.list("redirect.address", &redirects(before), &redirects(after));
    lines.option("web.http1", before.web.http1, after.web.http1);
    lines.option("web.h2", before.web.h2, after.web.h2);
    lines.shown("web.proxy_protocol", &before.web.proxy_protocol, &after.web.proxy_protocol);
    lines.changed("web.passthrough", before.web.passthrough != after.web.passthrough);
    site(&before.site, &after.site, &mut lines);
    hosts(&before.hosts, &after.hosts, &mut lines);
    users(&before.users, &after.users, &mut lines);
    lines.list("peers.allow", &before.peers.allow, &after.peers.allow);
    lines.list("peers.deny", &before.peers.deny, &after.peers.deny);
    let (mut limits, mut next) = (before.limits.clone(), after.limits.clone());
    for limit in LIMITS {
        let (from, to) = (*(limit.field)(&mut limits), *(limit.field)(&mut next));
        lines.value(&format!("limits.{}", limit.key), &from, &to);
    }
    lines.list(
        "limits.connections_exempt",
        &before.limits.connections_exempt,
        &after.limits.connections_exempt,
    );
    let (drain, next) = (&before.drain, &after.drain);
    lines.list("drain.alternate_server", &drain.alternate_server, &next.alternate_server);
    lines.list("drain.tcp_alternate_server", &drain.tcp_alternate_server, &next.tcp_alternate_server);
    lines.list("drain.tls_alternate_server", &drain.tls_alternate_server, &next.tls_alternate_server);
    lines.shown("log.format", &before.log.format, &after.log.format);
    lines.value("log.level", &before.log.level.as_str(), &after.log.level.as_str());
    admin(before.admin.as_ref(), after.admin.as_ref(), &mut lines);
    let path = |config: &Config| config.control_socket.as_ref().map(|path| path.display().to_string());
    lines.option("control.socket", path(before), path(after));
    lines.0
}

/// The lines so far.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn value<T: PartialEq + Display>(&mut self, key: &str, before: &T, after: &T) {
        if before != after {
            self.0.push(format!("{key}: {before} -> {after}"));
        }
    }

    /// For words of the configuration, whose `Debug` output is the word.
    fn shown<T: PartialEq + Debug>(&mut self, key: &str, before: &T, after: &T) {
        if before != after {
            let word = |value: &T| format!("{value:?}").to_lowercase();
            self.0.push(format!("{key}: {} -> {}", word(before), word(after)));
        }
    }

    fn option<T: PartialEq + Display>(&mut self, key: &str, before: Option<T>, after: Option<T>) {
        let text = |value: Option<T>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        self.value(key, &text(before), &text(after));
    }

    fn list<T: PartialEq + Display>(&mut self, key: &str, before: &[T], after: &[T]) {
        let missing = |from: &[T], of: &[T]| -> Vec<String> {
            of.iter().filter(|item| !from.contains(item)).map(ToString::to_string).collect()
        };
        let (added, removed) = (missing(before, after), missing(after, before));
        let parts = [("added", added), ("removed", removed)].map(|(what, items)| match items.is_empty() {
            true => String::new(),
            false => format!("{what} {}", items.join(" ")),
        });
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        match parts.is_empty() {
            false => self.0.push(format!("{key}: {}", parts.join("; "))),
            true => self.changed(key, before != after),
        }
    }

    fn changed(&mut self, key: &str, is_changed: bool) {
        if is_changed {
            self.0.push(format!("{key}: changed"));
        }
    }

    /// For lists of secrets: how many.
    fn secrets(&mut self, key: &str, before: &[String], after: &[String]) {
        let missing = |from: &[String], of: &[String]| of.iter().filter(|item| !from.contains(item)).count();
        match (missing(before, after), missing(after, before)) {
            (0, 0) => self.changed(key, before != after),
            (added, 0) => self.0.push(format!("{key}: {added} added")),
            (0, removed) => self.0.push(format!("{key}: {removed} removed")),
            (added, removed) => self.0.push(format!("{key}: {added} added, {removed} removed")),
        }
    }
}

/// The name of a listener in messages.
fn listener_name(listener: &Listener) -> String {
    format!("listen {} {}", listener.transport, listener.address)
}

fn listeners(before: &Config, after: &Config, lines: &mut Lines) {
    let find = |config: &Config, wanted: &Listener| {
        let mut listeners = config.listen.iter();
        let found =
            listeners.find(|one| one.transport == wanted.transport && one.address == wanted.address).cloned();
        // The line in the file does not matter.
        found.map(|listener| Listener { line: wanted.line, ..listener })
    };
    for listener in &after.listen {
        match find(before, listener) {
            None => lines.0.push(format!("{}: added", listener_name(listener))),
            Some(old) => lines.changed(&listener_name(listener), old != *listener),
        }
    }
    for listener in before.listen.iter().filter(|listener| find(after, listener).is_none()) {
        lines.0.push(format!("{}: removed", listener_name(listener)));
    }
}

fn files(key: &str, before: Option<&TlsFiles>, after: Option<&TlsFiles>, lines: &mut Lines) {
    let path = |files: Option<&TlsFiles>, of: fn(&TlsFiles) -> &std::path::PathBuf| {
        files.map(|files| of(files).display().to_string())
    };
    lines.option(&format!("{key}.cert"), path(before, |it| &it.cert), path(after, |it| &it.cert));
    lines.option(&format!("{key}.key"), path(before, |it| &it.key), path(after, |it| &it.key));
    let accepts = |files: Option<&TlsFiles>| files.is_some_and(|files| files.accept_expired);
    lines.value(&format!("{key}.accept_expired"), &accepts(before), &accepts(after));
}

fn acme(before: Option<&Acme>, after: Option<&Acme>, lines: &mut Lines) {
    let (Some(before), Some(after)) = (before, after) else {
        return lines.changed("acme", before.is_some() != after.is_some());
    };
    lines.list("acme.domains", &before.domains, &after.domains);
    lines.list("acme.contact", &before.contact, &after.contact);
    lines.value("acme.directory", &before.directory, &after.directory);
    lines.option("acme.profile", before.profile.as_ref(), after.profile.as_ref());
    let names = |acme: &Acme| acme.challenges.iter().map(|one| one.name()).collect::<Vec<_>>();
    lines.list("acme.challenges", &names(before), &names(after));
    lines.value("acme.state", &before.state.display().to_string(), &after.state.display().to_string());
    let file = |acme: &Acme| acme.ca_file.as_ref().map(|file| file.display().to_string());
    lines.option("acme.ca_file", file(before), file(after));
}

fn site(before: &Site, after: &Site, lines: &mut Lines) {
    lines.value("site.enabled", &before.enabled, &after.enabled);
    lines.option("site.title", before.title.as_ref(), after.title.as_ref());
    lines.changed("site.text", before.text != after.text);
    lines.shown("site.language", &before.language, &after.language);
    lines.option("site.imprint", before.imprint.as_ref(), after.imprint.as_ref());
    let directory = |site: &Site| site.directory.as_ref().map(|path| path.display().to_string());
    lines.option("site.directory", directory(before), directory(after));
    lines.option("site.check", before.check.as_ref(), after.check.as_ref());
    lines.option("site.address", before.address, after.address);
}

fn hosts(before: &[Host], after: &[Host], lines: &mut Lines) {
    for host in after {
        let key = |name: &str| format!("host.{}.{name}", host.name);
        let Some(old) = before.iter().find(|old| old.name == host.name) else {
            lines.0.push(format!("host.{}: added", host.name));
            continue;
        };
        lines.secrets(&key("secret"), &old.secrets, &host.secrets);
        lines.secrets(&key("revoked"), &old.revoked, &host.revoked);
        match (&old.peers, &host.peers) {
            (Some(old), Some(peers)) => lines.list(&key("peers"), old, peers),
            (old, peers) => lines.changed(&key("peers"), old != peers),
        }
    }
    for host in before.iter().filter(|host| after.iter().all(|other| other.name != host.name)) {
        lines.0.push(format!("host.{}: removed", host.name));
    }
}

fn users(before: &[User], after: &[User], lines: &mut Lines) {
    for user in after {
        match before.iter().find(|old| old.name == user.name) {
            None => lines.0.push(format!("user.{}: added", user.name)),
            Some(old) => lines.changed(&format!("user.{}", user.name), old != user),
        }
    }
    for user in before.iter().filter(|user| after.iter().all(|other| other.name != user.name)) {
        lines.0.push(format!("user.{}: removed", user.name));
    }
}

fn admin(before: Option<&Admin>, after: Option<&Admin>, lines: &mut Lines) {
    let (Some(before), Some(after)) = (before, after) else {
        let what = if after.is_some() { "added" } else { "removed" };
        if before.is_some() != after.is_some() {
            lines.0.push(format!("admin: {what}"));
        }
        return;
    };
    lines.value("admin.address", &before.address, &after.address);
    lines.list("admin.names", &before.names, &after.names);
    lines.changed("admin.token_file", before.token != after.token);
    match (&before.tls, &after.tls) {
        (AdminTls::Own(before), AdminTls::Own(after)) => files("admin", Some(before), Some(after), lines),
        (before, after) => lines.changed("admin.cert", before != after),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const BASE: &str = "realm = 'a.example'\n[[listen]]\ntransport = 'udp'\naddress = '192.0.2.1:3478'\n\
        [[host]]\nname = 'ping'\nsecret = 'the-first-secret-of-ping'\npeers = ['198.51.100.20']\n";

    fn config(text: &str) -> Config {
        parse(text, "f", Path::new("")).unwrap_or_else(|report| panic!("{report}")).config
    }

    fn changes(replacements: &[(&str, &str)], tail: &str) -> Vec<String> {
        let mut text = BASE.to_owned();
        for (from, to) in replacements {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        difference(&config(BASE), &config(&(text + tail)))
    }

    #[test]
    fn equal_configurations_have_no_difference_wherever_the_lines_are() {
        assert!(changes(&[("[[listen]]", "\n\n[[listen]]")], "").is_empty());
    }

    #[test]
    fn values_are_shown_and_secrets_are_not() {
        let lines = changes(
            &[
                ("a.example", "b.example"),
                (
                    "secret = 'the-first-secret-of-ping'",
                    "secrets = ['another-secret-of-ping', 'the-first-secret-of-ping']",
                ),
                ("198.51.100.20", "198.51.100.21"),
            ],
            "[limits]\nmss = 1200\n[log]\nlevel = 'debug'\n[[user]]\nname = 'eve'\npassword = 'the-password-of-eve'\n\
             [web]\nhttp1 = '127.0.0.1:81'\n[admin]\n",
        );
        assert_eq!(
            lines,
            [
                "realm: a.example -> b.example",
                "web.http1: none -> 127.0.0.1:81",
                "host.ping.secret: 1 added",
                "host.ping.peers: added 198.51.100.21/32; removed 198.51.100.20/32",
                "user.eve: added",
                "limits.mss: 0 -> 1200",
                "log.level: info -> debug",
                "admin: added",
            ]
        );
    }

    #[test]
    fn listeners_and_hosts_come_and_go() {
        let more = "[[listen]]\ntransport = 'tls'\naddress = '0.0.0.0:5349'\n[[host]]\nname = 'pong'\nsecret = \
                    'the-first-secret-of-pong'\n";
        let lines = changes(&[], more);
        assert_eq!(lines, ["listen tls 0.0.0.0:5349: added", "host.pong: added"]);
        let back = difference(&config(&(BASE.to_owned() + more)), &config(BASE));
        assert_eq!(back, ["listen tls 0.0.0.0:5349: removed", "host.pong: removed"]);
        let with =
            |key: &str| config(&(BASE.to_owned() + &more.replace("[[host]]", &format!("{key}\n[[host]]"))));
        assert_eq!(difference(&with(""), &with("plain = false")), ["listen tls 0.0.0.0:5349: changed"]);
    }

    /// A key that is compared nowhere would change without a word.
    #[test]
    fn whatever_differs_has_a_line() {
        let before = config(BASE);
        let mut after = before.clone();
        after.hosts[0].secrets = vec!["another-secret-of-ping".to_owned()];
        let told = difference(&before, &after);
        assert_eq!(told, ["host.ping.secret: 1 added, 1 removed"]);
        after.hosts.clone_from(&before.hosts);
        after.privacy = true;
        after.icmp_to_clients = true;
        after.strict_channels = true;
        after.relay.ports = 50_000..=60_000;
        after.limits.connections_exempt.clear();
        let told = difference(&before, &after);
        assert_eq!(told.len(), 5, "{told:?}");
    }
}
