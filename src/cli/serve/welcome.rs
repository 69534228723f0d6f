//! The text on standard output after a start without a configuration: listeners, credentials and test commands.

use crate::cli::{credentials, endpoints};
use crate::config::{Config, EMBEDDED_TLS_PORT};

/// Lifetime of the printed credentials: one day, like those of BigBlueButton.
const TTL_SECONDS: u32 = 86_400;
const USER: &str = "demo";

/// Returns the text.
pub fn text(config: &Config, fingerprint: Option<&str>) -> String {
    let secret = config.hosts.first().and_then(|host| host.secrets.first()).map_or("", String::as_str);
    let made = credentials::of_secret(secret, USER, TTL_SECONDS);
    let endpoints = endpoints::embedded_endpoints("127.0.0.1");
    let certificate = fingerprint.unwrap_or("from files");
    format!(
        "No configuration: running the built-in default, which is for tests and not for permanent use.\n\
         \x20 udp and tcp on 3479, tls on 5349; dashboard and metrics on {admin}\n\
         \x20 self-signed certificate, SHA-256 {certificate}\n\
         \x20 loopback peers are allowed (only without a configuration)\n\
         \x20 test page: https://127.0.0.1:{tls}/check; the browser warns about the certificate\n\
         \x20 secret, new at each start: {secret}\n\
         \n\
         Credentials, valid for one day:\n\
         {text}\n\
         For a browser:\n\
         {json}\n\
         To test it, run in another terminal (Debian package coturn; the last line is TLS):\n\
         {uclient}\n",
        tls = EMBEDDED_TLS_PORT,
        admin = config.admin.as_ref().map_or_else(|| "-".to_owned(), |admin| admin.url()),
        text = credentials::as_text(&made, &endpoints),
        json = credentials::ice_servers(&made, &endpoints),
        uclient = credentials::uclient(&made, &endpoints),
    )
}
