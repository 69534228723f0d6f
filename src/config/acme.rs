//! `[acme]`: a certificate that the server gets and renews by itself (RFC 8555).

use std::path::{Path, PathBuf};

use super::types::{Acme, Challenge, Config, TlsFiles};
use super::walk::{At, Notes, Section};
use super::web::is_host_name;
use crate::base::transport::Transport;

/// The directory of Let's Encrypt.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// The state directory of the systemd unit.
const DEFAULT_STATE: &str = "/var/lib/hallpass";
/// systemd names the state directories of the unit in it, separated by colons.
const STATE_VARIABLE: &str = "STATE_DIRECTORY";
/// Let's Encrypt issues no certificate with more names.
const DOMAINS_MAX: usize = 100;
/// The port that the authority connects to, by RFC 8737 section 3.
const TLS_PORT: u16 = 443;

/// Reads `[acme]`. Paths are relative to `base`. The challenges are empty if the key is absent.
pub(super) fn acme(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Option<Acme> {
    let section = top.table("acme", "[acme]", notes)?;
    let domains = domains(&section, notes);
    let contact = contact(&section, notes);
    let directory = directory(&section, notes);
    let profile = section.string("profile", notes).map(|at| at.value.to_owned());
    let path = |key: &str, notes: &mut Notes| {
        let At { value, line } = section.string(key, notes)?;
        if value.is_empty() {
            notes.error(line, &section.key(key), "the path is empty", "write a path, or remove the key");
        }
        Some(base.join(value))
    };
    let (state, ca_file) = (path("state", notes), path("ca_file", notes));
    let challenges = challenges(&section, notes);
    if domains.is_empty() {
        return None;
    }
    Some(Acme {
        domains,
        contact,
        directory,
        profile,
        challenges,
        state: state.unwrap_or_else(default_state),
        ca_file,
    })
}

fn default_state() -> PathBuf {
    let given = std::env::var(STATE_VARIABLE).ok();
    let first = given.as_deref().and_then(|all| all.split(':').next()).filter(|path| !path.is_empty());
    PathBuf::from(first.unwrap_or(DEFAULT_STATE))
}

fn domains(section: &Section<'_, '_>, notes: &mut Notes) -> Vec<String> {
    const KEY: &str = "acme.domains";
    const EXAMPLE: &str = "domains = [\"relay.example.org\"]";
    let mut domains: Vec<String> = Vec::new();
    let listed = section.one_or_more("domains", notes);
    if listed.as_ref().is_none_or(Vec::is_empty) {
        let line = section.line_of("domains", notes);
        notes.error(line, KEY, "no name for the certificate", format!("write {EXAMPLE}"));
    }
    for At { value, line } in listed.unwrap_or_default() {
        let name = value.trim_end_matches('.').to_ascii_lowercase();
        if name.starts_with("*.") {
            let message = format!("{value:?} is a wildcard, which an authority issues only through DNS");
            notes.error(
                line,
                KEY,
                message,
                "write each name, or let certbot get this certificate and write [tls]",
            );
        } else if name.parse::<std::net::IpAddr>().is_ok() {
            let message = format!("{value:?} is an address, and this certificate is for names");
            notes.error(line, KEY, message, "write the name that clients connect to");
        } else if !name.is_ascii() {
            let message = format!("{value:?} is not plain ASCII");
            notes.error(line, KEY, message, "write the name in its xn-- form");
        } else if !is_host_name(&name) || !name.contains('.') || name.contains('_') {
            let message = format!("{value:?} is not a public host name");
            notes.error(line, KEY, message, format!("write the whole name: {EXAMPLE}"));
        } else if domains.contains(&name) {
            notes.error(line, KEY, format!("{name} is listed twice"), "remove one of the two");
        } else {
            domains.push(name);
        }
    }
    if domains.len() > DOMAINS_MAX {
        let line = section.line_of("domains", notes);
        let message = format!("{} names, and a certificate has at most {DOMAINS_MAX}", domains.len());
        notes.error(line, KEY, message, "remove names that no client uses");
    }
    domains
}

fn contact(section: &Section<'_, '_>, notes: &mut Notes) -> Vec<String> {
    let mut contact = Vec::new();
    for At { value, line } in section.one_or_more("contact", notes).unwrap_or_default() {
        let address = value.strip_prefix("mailto:").unwrap_or_default();
        let is_address =
            address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
                && address.bytes().all(|byte| byte.is_ascii_graphic() && !b",?<>".contains(&byte));
        if is_address {
            contact.push(value.to_owned());
        } else {
            let remedy = "write contact = \"mailto:admin@example.org\"";
            notes.error(
                line,
                "acme.contact",
                format!("{value:?} is not the URL of an e-mail address"),
                remedy,
            );
        }
    }
    contact
}

fn directory(section: &Section<'_, '_>, notes: &mut Notes) -> String {
    let Some(At { value, line }) = section.string("directory", notes) else { return LETS_ENCRYPT.to_owned() };
    let host = value.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or_default());
    let is_url = host.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && value.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_url {
        let remedy = format!("write the URL from the authority's documentation: \"{LETS_ENCRYPT}\"");
        notes.error(line, "acme.directory", format!("{value:?} is not an https:// URL"), remedy);
    }
    value.to_owned()
}

fn challenges(section: &Section<'_, '_>, notes: &mut Notes) -> Vec<Challenge> {
    const KEY: &str = "acme.challenges";
    const REMEDY: &str = "write \"tls-alpn-01\", \"http-01\" or both, or remove the key";
    let mut challenges = Vec::new();
    let listed = section.one_or_more("challenges", notes);
    if listed.as_ref().is_some_and(Vec::is_empty) {
        let line = section.line_of("challenges", notes);
        notes.error(line, KEY, "no challenge, so no certificate can be issued", REMEDY);
    }
    for At { value, line } in listed.unwrap_or_default() {
        match [Challenge::TlsAlpn01, Challenge::Http01].into_iter().find(|one| one.name() == value) {
            Some(one) if challenges.contains(&one) => {
                notes.error(line, KEY, format!("{value} is listed twice"), "remove one of the two");
            }
            Some(one) => challenges.push(one),
            None => notes.error(
                line,
                KEY,
                format!("{value:?} is not a challenge that this server can answer"),
                REMEDY,
            ),
        }
    }
    challenges
}

/// Completes `[acme]` by the other tables: chooses the challenges if the file names none, and sets the files of the
/// certificate as if they were in `[tls]`.
pub(super) fn complete(config: &mut Config, top: &Section<'_, '_>, notes: &mut Notes) {
    let Some(acme) = &mut config.acme else { return };
    let line = top.line_of("acme", notes);
    let can_tls = config
        .listen
        .iter()
        .any(|one| one.transport == Transport::Tls || one.transport == Transport::Tcp && one.either);
    let on_443 = config.listen.iter().any(|one| {
        let is_tls = one.transport == Transport::Tls || one.transport == Transport::Tcp && one.either;
        let is_public = one
            .public
            .iter()
            .flatten()
            .any(|public| public.transport == Transport::Tls && public.port == TLS_PORT);
        is_tls && (one.address.port() == TLS_PORT || is_public)
    });
    let can_http = !config.redirect.is_empty();
    if acme.challenges.is_empty() {
        let usable = [(Challenge::TlsAlpn01, on_443), (Challenge::Http01, can_http)];
        acme.challenges = usable.into_iter().filter(|(_, usable)| *usable).map(|(one, _)| one).collect();
        if acme.challenges.is_empty() {
            notes.error(
                line,
                "acme",
                "the authority cannot reach this server: it connects to port 443 or port 80",
                "write a [[listen]] with transport = \"tls\" and address = \"[::]:443\", or [redirect] with address = \"[::]:80\"",
            );
        }
    } else {
        if acme.challenges.contains(&Challenge::TlsAlpn01) && !can_tls {
            let remedy = "write a [[listen]] with transport = \"tls\" and address = \"[::]:443\"";
            notes.error(line, "acme.challenges", "tls-alpn-01 needs a TLS listener", remedy);
        }
        if acme.challenges.contains(&Challenge::Http01) && !can_http {
            let remedy = "write [redirect] with address = \"[::]:80\", or remove http-01";
            notes.error(line, "acme.challenges", "http-01 needs port 80", remedy);
        }
    }
    if let Some(tls) = &config.tls {
        let message = "the certificate comes from [acme], and [tls] names another one";
        notes.error(tls.lines.0, "tls.cert", message, "remove cert and key from [tls], or remove [acme]");
        return;
    }
    config.tls = Some(acme.files(line));
}

impl Acme {
    /// The files of the certificate. They are missing until the first one is issued.
    fn files(&self, line: usize) -> TlsFiles {
        let directory = self.directory_of_state().join(&self.domains[0]);
        TlsFiles {
            cert: directory.join("fullchain.pem"),
            key: directory.join("privkey.pem"),
            accept_expired: false,
            lines: (line, line),
        }
    }
}
