//! Web servers behind a port that is shared with the web.

use super::site::Site;
use crate::config::ProxyProtocol;
use crate::doctor::check::Check;
use crate::doctor::finding::Finding;
use crate::doctor::inspection::Seen;
use crate::doctor::stage::Cause;
use crate::doctor::web::{Protocol, Visit, WebServer};
use crate::wire::proxy_protocol::Version;

/// Status from which on the server says that it is at fault (RFC 9110 section 15.6).
const SERVER_ERROR: u16 = 500;

/// The web servers to visit.
pub fn servers(site: &Site<'_>) -> Vec<WebServer> {
    let config = &site.config;
    if !config.listen.iter().any(|listener| listener.web) {
        return Vec::new();
    }
    let proxy = match config.web.proxy_protocol {
        ProxyProtocol::None => None,
        ProxyProtocol::V1 => Some(Version::V1),
        ProxyProtocol::V2 => Some(Version::V2),
    };
    let host = site.name().unwrap_or_else(|| config.realm.clone());
    let server = |key, address, protocol, host| WebServer { key, address, protocol, proxy, host };
    let http1 = config.web.http1.map(|at| server("web.http1", at, Protocol::Http1, host.clone()));
    let h2 = config.web.h2.map(|at| server("web.h2", at, Protocol::H2, host.clone()));
    let others = config.web.passthrough.iter();
    let others = others.map(|(name, at)| server("web.passthrough", *at, Protocol::PassThrough, name.clone()));
    http1.into_iter().chain(h2).chain(others).collect()
}

/// Judges the visits; `None` without web servers.
pub fn check(site: &Site<'_>, seen: &Seen) -> Option<Check> {
    let mut check = Check::of("web");
    for (server, visit) in &seen.web {
        if let Ok(answer) = &visit.answer {
            let status =
                answer.status.map_or_else(|| "accepts".to_owned(), |status| format!("answers {status}"));
            check.facts.push(format!("{} {} {status}", server.key, server.address));
        }
        check.findings.extend(judge(site, server, visit));
    }
    (!seen.web.is_empty()).then_some(check)
}

fn judge(site: &Site<'_>, server: &WebServer, visit: &Visit) -> Option<Finding> {
    let place = format!("{} {}", server.key, server.address);
    if visit.answers_otherwise == Some(true) {
        let (text, remedy) = match server.proxy {
            Some(_) => (
                format!("{place}: the web server does not understand the PROXY header that the relay sends"),
                "nginx: write proxy_protocol behind its `listen`; or write proxy_protocol = \"none\" in [web]",
            ),
            None => (
                format!("{place}: the web server expects a PROXY header, and the relay sends none"),
                "write proxy_protocol = \"v1\" in [web], and reload",
            ),
        };
        return Some(Finding::error("web_proxy_header", text, remedy));
    }
    match &visit.answer {
        Err(cause) if server.protocol == Protocol::H2 && !is_away(cause) => Some(Finding::error(
            "web_no_http2",
            format!(
                "{place}: the web server answers, but not in HTTP/2: {cause}. Visitors get an empty reply"
            ),
            "nginx: write `http2` behind the address of its `listen`, such as `listen 127.0.0.1:82 http2;`; or remove h2 from [web]",
        )),
        Err(cause) => Some(Finding::error(
            "web_away",
            format!(
                "{place}: the web server does not answer: {cause}. {}",
                match server.protocol {
                    Protocol::PassThrough => "Connections for that name are closed",
                    Protocol::Http1 | Protocol::H2 => "Visitors get 502",
                }
            ),
            "start the web server, or correct its address in [web]; `ss -ltnp` lists who listens where",
        )),
        Ok(answer) => {
            let redirect = answer.redirect.as_ref().filter(|(_, port)| is_inner(site, *port));
            if let Some((location, port)) = redirect {
                return Some(Finding::error(
                    "web_inner_port",
                    format!(
                        "{place}: redirects to {location}; port {port} is an inner one, which browsers cannot reach"
                    ),
                    "nginx: write `port_in_redirect off;` or `absolute_redirect off;` into that server block",
                ));
            }
            let status = answer.status.filter(|status| *status >= SERVER_ERROR)?;
            Some(Finding::warning(
                "web_fails",
                format!("{place}: the web server answers {status}"),
                "its error log says why",
            ))
        }
    }
}

/// Whether nothing answers there, in whatever protocol.
fn is_away(cause: &Cause) -> bool {
    !matches!(cause, Cause::System(text) if text.starts_with("no HTTP: "))
}

/// Whether a port is that of a web server behind the relay, and not one that the relay shares.
fn is_inner(site: &Site<'_>, port: u16) -> bool {
    let (config, web) = (&site.config, &site.config.web);
    let mut inner = web.http1.iter().chain(&web.h2).chain(web.passthrough.values());
    let is_shared = config.listen.iter().any(|listener| listener.web && listener.address.port() == port);
    !is_shared && inner.any(|server| server.port() == port)
}
