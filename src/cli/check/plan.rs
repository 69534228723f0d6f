//! Says what the server will do with a good configuration: how clients reach it, what it relays from, whom it serves, and
//! which limits a school meets first.

use std::fmt::Write;

use ipnet::IpNet;

use crate::base::family::Family;
use crate::base::network::shown;
use crate::cli::endpoints::Endpoint;
use crate::cli::output::counted;
use crate::cli::serve::relays::Relays;
use crate::config::{Config, Host, Listener};
use crate::system::addresses::Addresses;
use crate::turn::settings::RelayAddress;

/// Requests without credentials by which a browser joins: one for each URL of the relay.
const REQUESTS_PER_CLIENT: u32 = 4;

/// Returns the plan. `certificate` is the first name in the certificate.
pub fn text(config: &Config, machine: &Addresses, certificate: Option<&str>) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "realm     {}", config.realm);
    listeners(config, certificate, &mut text);
    if machine.is_whole {
        relays(&Relays::new(config, machine).addresses(), &mut text);
    }
    let ports = &config.relay.ports;
    let count = u32::from(*ports.end()) - u32::from(*ports.start()) + 1;
    let _ = writeln!(
        text,
        "ports     {}-{} over UDP, which the firewall must let in: {count} allocations for each address",
        ports.start(),
        ports.end()
    );
    for Host { name, secrets, revoked, peers } in &config.hosts {
        let peers = match peers {
            Some(peers) => format!("reaches {}", joined(peers)),
            None => "reaches what [peers] allows: add its media servers as `peers`".to_owned(),
        };
        let revoked = match revoked.len() {
            0 => String::new(),
            count => format!(" ({count} revoked)"),
        };
        let _ = writeln!(text, "host      {name}: {}{revoked}, {peers}", counted(secrets.len(), "secret"));
    }
    if !config.users.is_empty() {
        let _ = writeln!(text, "users     {} with a fixed password", config.users.len());
    }
    if let Some(acme) = &config.acme {
        let ways: Vec<&str> = acme.challenges.iter().map(|challenge| challenge.name()).collect();
        let (names, ways) = (acme.domains.join(", "), ways.join(" or "));
        let _ = writeln!(text, "acme      {names} from {} by {ways}", acme.directory);
    }
    for redirect in &config.redirect {
        let _ = writeln!(text, "redirect  {} to https, over plain HTTP", redirect.address);
    }
    limits(config, &mut text);
    if let Some(admin) = &config.admin {
        let _ = writeln!(text, "admin     {} for the dashboard, metrics, sessions and refusals", admin.url());
    }
    text
}

fn listeners(config: &Config, certificate: Option<&str>, text: &mut String) {
    let name = certificate
        .filter(|name| !name.starts_with('*'))
        .or_else(|| config.realm.contains('.').then_some(&config.realm));
    for listener in &config.listen {
        let own = || Endpoint {
            transport: listener.transport,
            port: listener.address.port(),
            server: name
                .filter(|_| !listener.address.ip().is_loopback())
                .map_or_else(|| listener.address.ip().to_string(), str::to_owned),
        };
        let url = match &listener.public {
            None => own().turn_url(),
            Some(public) if public.is_empty() => "nothing, because public is empty".to_owned(),
            Some(public) => {
                let urls: Vec<String> = public.iter().map(|one| Endpoint::from(one).turn_url()).collect();
                urls.join(" or ")
            }
        };
        let _ = writeln!(
            text,
            "listen    {} {}: clients write {url}{}",
            listener.transport,
            listener.address,
            shared(config, listener)
        );
    }
}

/// Returns what else a listener serves.
fn shared(config: &Config, listener: &Listener) -> String {
    let mut with = Vec::new();
    match (listener.proxies.is_empty(), &listener.public) {
        (true, _) => {}
        (false, None) => {
            with.push("behind a proxy, whose port clients write instead: add `public`".to_owned())
        }
        (false, Some(_)) => with.push("behind a proxy".to_owned()),
    }
    if listener.web {
        let servers: Vec<String> = [("HTTP/1.1", config.web.http1), ("HTTP/2", config.web.h2)]
            .into_iter()
            .filter_map(|(protocol, server)| Some(format!("{protocol} to {}", server?)))
            .collect();
        with.push(match servers.is_empty() {
            true => "shared with the built-in site".to_owned(),
            false => format!("shared with the web, {}", servers.join(" and ")),
        });
    }
    if let Some(quic) = listener.quic {
        with.push(format!("shared with HTTP/3 at {quic}"));
    }
    if with.is_empty() { String::new() } else { format!(" ({})", with.join("; ")) }
}

fn relays(relays: &[RelayAddress], text: &mut String) {
    let outside: Vec<&RelayAddress> = relays.iter().filter(|relay| !relay.only_local).collect();
    for relay in &outside {
        let announced = match relay.announced == relay.local {
            true => String::new(),
            false => format!(", announced to clients as {}", relay.announced),
        };
        let _ = writeln!(text, "relay     from {}{announced}", relay.local);
    }
    let has = |family| outside.iter().any(|relay| Family::of(relay.announced) == family);
    let families = match (has(Family::V4), has(Family::V6)) {
        (true, true) => "IPv4 and IPv6: every client reaches media servers of both families",
        (true, false) => "IPv4 alone: a client on IPv6 is served, and reaches media servers by IPv4",
        (false, true) => "IPv6 alone: most clients and media servers need an IPv4 address, too",
        (false, false) => return,
    };
    let _ = writeln!(text, "families  {families}");
}

/// Names the limits that a school behind one address meets first, and those of one user.
fn limits(config: &Config, text: &mut String) {
    let limits = &config.limits;
    let mut school = Vec::new();
    if limits.unauthenticated_per_source > 0 {
        school.push(format!(
            "{} pupils join in a second (unauthenticated_per_source)",
            limits.unauthenticated_per_source / REQUESTS_PER_CLIENT
        ));
    }
    if limits.connections_per_source > 0 {
        school.push(format!("{} connections (connections_per_source)", limits.connections_per_source));
    }
    if !school.is_empty() {
        let _ = writeln!(text, "limits    a school behind one address: {}", school.join(", "));
    }
    let mut user = Vec::new();
    if limits.allocations_per_user > 0 {
        user.push(format!("{} allocations (allocations_per_user)", limits.allocations_per_user));
    }
    if limits.kbit_per_allocation > 0 {
        user.push(format!("{} kbit/s each (kbit_per_allocation)", limits.kbit_per_allocation));
    }
    if !user.is_empty() {
        let _ = writeln!(text, "          one user: {}", user.join(", "));
    }
}

fn joined(networks: &[IpNet]) -> String {
    networks.iter().map(shown).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::system::local_addresses::LocalAddress;

    fn plan(text: &str, addresses: &[&str], certificate: Option<&str>) -> String {
        let loaded = config::parse(text, "f", Path::new("")).unwrap_or_else(|report| panic!("{report}"));
        let local = addresses.iter().map(|address| LocalAddress {
            leads_out: true,
            preferred: true,
            ..LocalAddress::unknown(address.parse().expect("literal"))
        });
        let own = addresses.iter().map(|address| IpNet::from(address.parse::<IpAddr>().expect("literal")));
        let machine = Addresses { own: own.collect(), local: local.collect(), is_whole: true };
        super::text(&loaded.config, &machine, certificate)
    }

    #[test]
    fn it_names_urls_addresses_hosts_and_limits() {
        let config = "realm='relay'\nexternal_ip=['203.0.113.9/10.0.0.5']\n\
            [[listen]]\ntransport='udp'\naddress='0.0.0.0:3479'\n\
            [[listen]]\ntransport='tls'\naddress='0.0.0.0:443'\nweb=true\n\
            [web]\nhttp1='127.0.0.1:81'\nproxy_protocol='v1'\n\
            [[host]]\nname='ping'\nsecret='0123456789abcdef'\npeers=['198.51.100.20']\n\
            [admin]\naddress='127.0.0.1:9641'\n";
        let text = plan(config, &["10.0.0.5"], Some("relay.example.org"));
        for line in [
            "listen    udp 0.0.0.0:3479: clients write turn:relay.example.org:3479\n",
            "clients write turns:relay.example.org:443?transport=tcp (shared with the web, HTTP/1.1 to 127.0.0.1:81)\n",
            "relay     from 10.0.0.5, announced to clients as 203.0.113.9\n",
            "families  IPv4 alone: ",
            "ports     49152-65535 over UDP, which the firewall must let in: 16384 allocations",
            "host      ping: 1 secret, reaches 198.51.100.20\n",
            "limits    a school behind one address: 125 pupils join in a second (unauthenticated_per_source), 8000 ",
            "          one user: 500 allocations (allocations_per_user), 50000 kbit/s each",
            "admin     http://127.0.0.1:9641/ for the dashboard, metrics, sessions and refusals\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn without_a_name_the_url_has_the_address() {
        let config = "realm='relay'\n[[listen]]\ntransport='tcp'\naddress='[2a01:4f8::1]:3479'\n\
            [[host]]\nname='ping'\nsecret='0123456789abcdef'\n";
        let text = plan(config, &["2a01:4f8::1"], Some("*.example.org"));
        assert!(text.contains("clients write turn:[2a01:4f8::1]:3479?transport=tcp\n"), "{text}");
        assert!(
            text.contains("families  IPv6 alone") && text.contains("add its media servers as `peers`"),
            "{text}"
        );
    }
}
