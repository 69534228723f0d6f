//! What somebody sees who starts the server without a configuration: what runs, and how to try it at once.

use crate::cli::credentials;
use crate::config::Config;

/// How long the printed credentials are good: a day, as BigBlueButton's.
const TTL_SECONDS: u32 = 86_400;
const USER: &str = "demo";

/// The text.
pub fn text(config: &Config, fingerprint: Option<&str>) -> String {
    let secret = config.hosts.first().and_then(|host| host.secrets.first()).map_or("", String::as_str);
    let made = credentials::of_secret(secret, USER, TTL_SECONDS);
    let endpoints = crate::cli::embedded_endpoints("127.0.0.1");
    let certificate = fingerprint.unwrap_or("from files");
    format!(
        "No configuration: serving an embedded default, to be tried and not to be left running.\n\
         \x20 udp and tcp on 3479, tls on 5349; metrics and health on http://{admin}\n\
         \x20 a self-made certificate, SHA-256 {certificate}\n\
         \x20 loopback peers are allowed, in this mode only\n\
         \x20 a new secret at each start: {secret}\n\
         \n\
         Credentials, good for a day:\n\
         {people}\n\
         For a browser:\n\
         {json}\n\
         To try it, in another terminal (from Debian's package coturn; TLS last):\n\
         {uclient}\n",
        admin = config.admin.as_ref().map_or_else(|| "-".to_owned(), |admin| admin.address.to_string()),
        people = credentials::for_people(&made, &endpoints),
        json = credentials::ice_servers(&made, &endpoints),
        uclient = credentials::uclient(&made, &endpoints),
    )
}
