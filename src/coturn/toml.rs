//! Writes a configuration of Hallpass, with a comment for each part that names the lines it comes from.

use std::fmt::Write;

use super::meaning::{Listen, Meaning};
use crate::base::network::shown;
use crate::base::text::is_hidden;
use crate::base::transport::Transport;

/// The name of the one `[[host]]`.
const HOST: &str = "default";
/// The port on which everybody expects a website.
const HTTPS: u16 = 443;

/// Writes the configuration. `source` is the name of what was imported. It contains secrets.
pub fn text(meaning: &Meaning, source: &str) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# Written by hallpass import-coturn from {}.\n# This file contains secrets: only the user that runs hallpass should be able to read it.\n",
        comment(source)
    );
    top(meaning, &mut out);
    for listen in &meaning.listen {
        listener(listen, "", &mut out);
    }
    if !meaning.alternatives.is_empty() {
        out.push_str("# coturn also serves clients on the ports of NAT discovery:\n");
        for listen in &meaning.alternatives {
            listener(listen, "#", &mut out);
        }
    }
    relay(meaning, &mut out);
    if let Some((cert, key)) = &meaning.tls {
        origin(meaning, "tls", &mut out);
        let _ = writeln!(out, "[tls]\ncert = {}\nkey = {}\n", quoted(cert), quoted(key));
    }
    credentials(meaning, &mut out);
    peers(meaning, &mut out);
    if !meaning.limits.is_empty() {
        out.push_str("[limits]\n");
        for (key, value) in &meaning.limits {
            origin(meaning, key, &mut out);
            let _ = writeln!(out, "{key} = {value}");
        }
        out.push('\n');
    }
    if let Some(port) = meaning.admin {
        origin(meaning, "admin", &mut out);
        out.push_str("# the dashboard, and what hallpass sessions and hallpass top ask\n");
        let _ = writeln!(out, "[admin]\naddress = \"127.0.0.1:{port}\"");
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn top(meaning: &Meaning, out: &mut String) {
    if let Some(realm) = &meaning.realm {
        origin(meaning, "realm", out);
        let _ = writeln!(out, "realm = {}", quoted(realm));
    }
    if !meaning.external_ip.is_empty() {
        origin(meaning, "external_ip", out);
        let _ = writeln!(out, "external_ip = {}", list(&meaning.external_ip));
    }
    if meaning.realm.is_some() || !meaning.external_ip.is_empty() {
        out.push('\n');
    }
    origin(meaning, "listen", out);
}

fn listener(listen: &Listen, mark: &str, out: &mut String) {
    let _ = writeln!(
        out,
        "{mark}[[listen]]\n{mark}transport = \"{}\"\n{mark}address = \"{}\"",
        listen.transport, listen.address
    );
    if listen.only_tls && listen.transport == Transport::Tls {
        let _ = writeln!(out, "{mark}plain = false");
    }
    if listen.transport == Transport::Tls && listen.address.port() == HTTPS {
        let _ = writeln!(
            out,
            "{mark}# a page answers browsers and others that take this for a website\n{mark}web = true"
        );
    }
    if !listen.proxies.is_empty() {
        let _ = writeln!(out, "{mark}proxy_protocol = {}", list(&listen.proxies));
    }
    out.push('\n');
}

fn relay(meaning: &Meaning, out: &mut String) {
    if meaning.relay_addresses.is_empty() && meaning.ports.is_none() && meaning.default_family.is_none() {
        return;
    }
    out.push_str("[relay]\n");
    if !meaning.relay_addresses.is_empty() {
        origin(meaning, "relay.addresses", out);
        let _ = writeln!(out, "addresses = {}", list(&meaning.relay_addresses));
    }
    if let Some(ports) = &meaning.ports {
        origin(meaning, "relay.ports", out);
        let _ = writeln!(out, "ports = \"{}-{}\"", ports.start(), ports.end());
    }
    if let Some(family) = meaning.default_family {
        origin(meaning, "relay.default_family", out);
        let _ = writeln!(out, "default_family = \"{family}\"");
    }
    out.push('\n');
}

fn credentials(meaning: &Meaning, out: &mut String) {
    if !meaning.secrets.is_empty() {
        origin(meaning, "secret", out);
        let _ = writeln!(out, "[[host]]\nname = \"{HOST}\"");
        let _ = match meaning.secrets.as_slice() {
            [secret] => writeln!(out, "secret = {}", quoted(secret)),
            secrets => writeln!(out, "secrets = {}", list(secrets)),
        };
        if meaning.policy.only_allowed {
            origin(meaning, "peers", out);
            let peers: Vec<String> = meaning.policy.allow.iter().map(shown).collect();
            let _ = writeln!(out, "peers = {}", list(&peers));
        }
        out.push('\n');
    }
    if !meaning.users.is_empty() || !meaning.users_without_password.is_empty() {
        origin(meaning, "user", out);
    }
    for (name, password) in &meaning.users {
        let _ = writeln!(out, "[[user]]\nname = {}\npassword = {}\n", quoted(name), quoted(password));
    }
    for name in &meaning.users_without_password {
        let _ = writeln!(
            out,
            "# This user needs a new password:\n#[[user]]\n#name = {}\n#password = \"\"\n",
            quoted(name)
        );
    }
}

fn peers(meaning: &Meaning, out: &mut String) {
    let policy = &meaning.policy;
    // The list of the host says it all.
    if policy.only_allowed && !meaning.secrets.is_empty() {
        return;
    }
    if !policy.closed.is_empty() {
        let _ = writeln!(
            out,
            "# coturn lets clients reach private networks. Here they are denied: add the addresses of your media servers to\n\
             # allow. Everything that coturn leaves open: {}",
            list(&policy.closed)
        );
    } else if policy.allow.is_empty() && policy.deny.is_empty() {
        return;
    }
    out.push_str("[peers]\n");
    if !policy.allow.is_empty() || !policy.deny.is_empty() {
        origin(meaning, "peers", out);
    }
    let _ = writeln!(out, "allow = {}", list(&policy.allow));
    if !policy.deny.is_empty() {
        let _ = writeln!(out, "deny = {}", list(&policy.deny));
    }
    out.push('\n');
}

/// Writes which lines a key comes from.
fn origin(meaning: &Meaning, key: &str, out: &mut String) {
    if let Some(origin) = meaning.origins.get(key) {
        let _ = writeln!(out, "# {}", comment(origin));
    }
}

/// Makes a text fit for a comment.
fn comment(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '?' } else { c }).collect()
}

/// Writes a list of strings.
fn list(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// Writes a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_toml() {
        for text in ["plain", "a\"b\\c", "tab\tline\n\u{7f}\u{1b}", "m\u{fc}nchen \u{202e}", ""] {
            let source = format!("a = {}", quoted(text));
            let table = toml::de::DeTable::parse(&source).expect("TOML");
            let value = table.get_ref().get("a").expect("the key");
            assert_eq!(value.get_ref().as_str(), Some(text));
        }
    }

    #[test]
    fn the_name_of_the_source_stays_in_its_comment() {
        let written = text(&Meaning::default(), "a\nrealm = \"b\"");
        assert!(written.lines().all(|line| line.starts_with('#') || line.is_empty()), "{written}");
    }
}
