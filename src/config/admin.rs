//! `[admin]`: the address of the admin pages, and what protects them.

use std::net::SocketAddr;
use std::path::Path;

use super::address::socket_address;
use super::certificate::certificate_files;
use super::secrets::{self, MAKE_ONE, SECRET_SHORT_BYTES};
use super::types::{Admin, AdminTls, Token};
use super::walk::{At, Notes, Section};
use super::web::is_host_name;

const ADDRESS: &str = "\"127.0.0.1:9641\"";
/// Makes a certificate that a browser warns about once, and that Prometheus accepts as `ca_file`.
const MAKE_CERTIFICATE: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj \
                                /CN=hallpass -keyout /etc/hallpass/admin.key -out /etc/hallpass/admin.pem";

/// Reads `[admin]`. Paths are relative to `base`.
pub(super) fn admin(top: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Option<Admin> {
    let section = top.table("admin", "[admin]", notes)?;
    let names = names(&section, notes);
    let token = token(&section, base, notes);
    let files = certificate_files(&section, base, "to use that of [tls]", notes);
    let address = match section.has("address") {
        false => Admin::default().address,
        true => {
            let At { value, line } = socket_address(&section, "address", ADDRESS, notes)?;
            if !value.ip().is_loopback() {
                require_protection(value, line, &section, top, notes);
            }
            value
        }
    };
    let tls = match files {
        Some(files) => AdminTls::Own(files),
        None if address.ip().is_loopback() => AdminTls::Off,
        None => AdminTls::OfListeners,
    };
    Some(Admin { address, names, token, tls })
}

/// Refuses an address that other machines reach without a token and TLS: the pages name users and their addresses.
fn require_protection(
    address: SocketAddr,
    line: usize,
    section: &Section<'_, '_>,
    top: &Section<'_, '_>,
    notes: &mut Notes,
) {
    const KEY: &str = "admin.address";
    if !section.has("token_file") {
        let (ip, port) = (address.ip(), address.port());
        notes.error(
            line,
            KEY,
            format!("other machines may reach {ip}, and the admin pages show who is connected: they need a token"),
            format!(
                "write address = \"127.0.0.1:{port}\", or token_file = \"/etc/hallpass/admin.token\" and put a token into it: \
                 (umask 077; openssl rand -base64 32 >/etc/hallpass/admin.token), owned by the user that runs hallpass; \
                 Prometheus sends it with authorization: {{ credentials_file: FILE }} and scheme: https"
            ),
        );
    }
    let own = section.has("cert") || section.has("key");
    if !own && !top.has("tls") && !top.has("acme") {
        let san = match address.ip().is_unspecified() {
            true => "DNS:relay.example.org".to_owned(),
            false => format!("IP:{}", address.ip()),
        };
        notes.error(
            line,
            KEY,
            format!("{} needs TLS, and there is no certificate", address.ip()),
            format!(
                "write [tls] with cert and key, or a certificate for these pages alone: cert = \"/etc/hallpass/admin.pem\" and \
                 key = \"/etc/hallpass/admin.key\" in [admin]; make one: {MAKE_CERTIFICATE} -addext subjectAltName={san}"
            ),
        );
    }
}

fn names(section: &Section<'_, '_>, notes: &mut Notes) -> Vec<String> {
    let mut names = Vec::new();
    for At { value, line } in section.strings("names", notes).unwrap_or_default() {
        if is_host_name(value) {
            names.push(value.to_ascii_lowercase());
        } else {
            let remedy = "write the name without a port: \"relay.example.org\"; IP addresses need no entry";
            notes.error(line, "admin.names", format!("{value:?} is not a host name"), remedy);
        }
    }
    names
}

/// Reads the token in the first line of `token_file`.
fn token(section: &Section<'_, '_>, base: &Path, notes: &mut Notes) -> Option<Token> {
    const KEY: &str = "admin.token_file";
    let path = section.string("token_file", notes)?;
    let At { value, line } = secrets::from_file(section, "token_file", path, base, notes)?;
    let length = value.len();
    if length < SECRET_SHORT_BYTES {
        let message =
            format!("the token has {length} bytes: with fewer than {SECRET_SHORT_BYTES} it can be guessed");
        notes.error(line, KEY, message, MAKE_ONE);
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = "the token contains a blank or a character that HTTP cannot carry";
        notes.error(line, KEY, message, MAKE_ONE);
    } else {
        return Some(Token(value));
    }
    None
}
