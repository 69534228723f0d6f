//! Where clients connect: addresses, ports, TLS, and the ports that coturn opens without being told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::transport::Transport;
use crate::coturn::input::Input;
use crate::coturn::meaning::Listen;
use crate::coturn::options::Key;
use crate::coturn::report::Status;
use crate::coturn::values::{self, NotAnAddress};
use crate::coturn::work::Work;

const PORT: u16 = 3478;
const TLS_PORT: u16 = 5349;
/// Most addresses of one kind. Each has up to six listeners, and every listener has a socket for each worker.
const ADDRESSES_MAX: usize = 1000;

/// What the other parts need to know about listeners.
pub(super) struct Network {
    /// Addresses of `listening-ip`.
    pub addresses: Vec<IpAddr>,
}

/// The transports that are switched off, and the ports.
struct Plan {
    udp: bool,
    tcp: bool,
    tls: bool,
    /// Whether coturn would open UDP on the TLS port, for DTLS.
    udp_on_tls_port: bool,
    port: u16,
    tls_port: u16,
    proxy: Option<u16>,
}

/// Translates listeners and the certificate.
pub(super) fn translate(work: &mut Work, input: &Input<'_>) -> Network {
    let addresses = addresses(work);
    devices(work, &addresses);
    let plan = plan(work);
    listen(work, &addresses, &plan);
    alternatives(work, &addresses, &plan, input);
    aux_servers(work, &plan);
    if work.meaning.listen.is_empty() {
        work.refuse(
            "no listener is left",
            "remove no-udp or no-tcp, or name a certificate with cert and pkey",
        );
    }
    work.from(
        "listen",
        &[
            Key::ListeningIp,
            Key::ListeningPort,
            Key::TlsListeningPort,
            Key::TcpProxyPort,
            Key::AuxServer,
            Key::NoUdp,
            Key::NoTcp,
            Key::NoTls,
        ],
    );
    work.from("tls", &[Key::Cert, Key::Pkey]);
    Network { addresses }
}

/// Reads an address that clients or peers depend on. Judges the item if it is none.
pub(super) fn address(work: &mut Work, index: usize) -> Option<IpAddr> {
    match values::address(work.value(index)) {
        Ok(address) if address.is_multicast() => {
            work.refuse_whole(index, "a multicast address", "write an address of this machine");
            None
        }
        Ok(address) => Some(address.to_canonical()),
        Err(NotAnAddress::Name) => {
            work.refuse_name(index);
            None
        }
        Err(NotAnAddress::Nothing) => {
            let reason = "coturn finds no address in it and ignores the line";
            let remedy = "write one address, without port, prefix, brackets or comment";
            work.judge(index, Status::WithoutEffect, reason, Some(remedy.to_owned()));
            None
        }
    }
}

fn addresses(work: &mut Work) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let all = work.all(Key::ListeningIp);
    if let Some(&index) = all.get(ADDRESSES_MAX) {
        let message = format!("{} addresses to listen on; {ADDRESSES_MAX} are possible", all.len());
        work.refuse_whole(
            index,
            &message,
            "without listening-ip, one listener serves all addresses of the machine",
        );
        return addresses;
    }
    for index in all {
        match address(work, index) {
            Some(ip) if addresses.contains(&ip) => work.idle(index, "listed twice"),
            Some(ip) => {
                work.kept(index, format!("[[listen]] address {ip}"));
                addresses.push(ip);
            }
            None => {}
        }
    }
    addresses
}

fn devices(work: &mut Work, addresses: &[IpAddr]) {
    let Some(index) = work.last(Key::ListeningDevice) else { return };
    if addresses.is_empty() {
        let reason =
            "listeners are not bound to an interface, and without listening-ip they are on all addresses";
        let remedy =
            "write the addresses of the interface as [[listen]] address, or let a firewall close the others";
        work.judge(index, Status::NotOffered, reason, Some(remedy.to_owned()));
    } else {
        work.idle(index, "listeners are bound to their addresses");
    }
}

/// Reads a port. Judges the item.
fn port(work: &mut Work, key: Key, default: u16, what: &str) -> u16 {
    let Some(index) = work.last(key) else { return default };
    let leading = values::leading(work.value(index));
    match u16::try_from(leading.number) {
        Ok(port) if port > 0 => {
            let reason = if leading.whole {
                format!("{what} {port}")
            } else {
                format!("{what} {port}; the number ends at the first other character")
            };
            work.kept(index, reason);
            port
        }
        _ => {
            work.refuse_whole(index, "not a port", "write a number from 1 to 65535");
            default
        }
    }
}

fn plan(work: &mut Work) -> Plan {
    let transport = |work: &mut Work, key, name: &str| {
        let off = work.set(key);
        off.into_iter().for_each(|index| work.kept(index, format!("no {name} listener")));
        off.is_none()
    };
    let udp = transport(work, Key::NoUdp, "UDP");
    let tcp = transport(work, Key::NoTcp, "TCP");
    let wants_tls = transport(work, Key::NoTls, "TLS");
    let no_dtls = work.set(Key::NoDtls);
    no_dtls.into_iter().for_each(|index| work.kept(index, "DTLS is never offered"));
    let no_dtls = no_dtls.is_some();
    let has_proxy = work.last(Key::TcpProxyPort).is_some();
    let proxy = has_proxy.then(|| port(work, Key::TcpProxyPort, PORT, "TCP behind a proxy on port"));
    let certificate = certificate(work, wants_tls && !has_proxy, wants_tls || !no_dtls);
    let dtls = certificate && !no_dtls;
    let tls = certificate && wants_tls && !has_proxy;
    let listening_port = port(work, Key::ListeningPort, PORT, "port");
    let tls_port = match (tls || dtls, work.last(Key::TlsListeningPort)) {
        (false, Some(index)) => {
            let remedy = "for TLS, name a certificate with cert and pkey; where a proxy such as haproxy ends TLS, nothing";
            work.judge(index, Status::WithoutEffect, "there is no TLS listener", Some(remedy.to_owned()));
            TLS_PORT
        }
        _ => port(work, Key::TlsListeningPort, TLS_PORT, "TLS on port"),
    };
    if dtls {
        work.note(
            "coturn speaks DTLS on its UDP ports; hallpass does not",
            "nothing: browsers do not use DTLS towards a relay",
        );
        if !udp {
            let message = format!(
                "in spite of no-udp, coturn serves plain UDP on the TLS port {tls_port}; hallpass does not"
            );
            work.note(message, "if clients use it, add a [[listen]] with transport = \"udp\" and this port");
        }
    }
    Plan { udp, tcp, tls, udp_on_tls_port: udp && dtls, port: listening_port, tls_port, proxy }
}

/// Reads certificate and key. `tls` says whether they are for a TLS listener, `any` whether coturn reads them at all.
fn certificate(work: &mut Work, tls: bool, any: bool) -> bool {
    let (cert, key) = (work.last(Key::Cert), work.last(Key::Pkey));
    let password = work.last(Key::PkeyPwd);
    let path = |work: &Work, index: Option<usize>| {
        index.and_then(|index| values::text(work.value(index)).map(str::to_owned))
    };
    let paths =
        (path(work, cert).filter(|path| !path.is_empty()), path(work, key).filter(|path| !path.is_empty()));
    let used = match &paths {
        (Some(cert), Some(key)) if tls => {
            work.meaning.tls = Some((cert.clone(), key.clone()));
            true
        }
        _ => false,
    };
    for (index, path) in [(cert, &paths.0), (key, &paths.1)] {
        let Some(index) = index else { continue };
        match path {
            None => work.judge(
                index,
                Status::WithoutEffect,
                "not a path, so coturn has no TLS listener",
                Some("name the certificate with cert and its key with pkey".to_owned()),
            ),
            Some(_) if !used => {
                let reason = if tls { "without both cert and pkey there is no TLS listener" } else { "there is no TLS listener" };
                work.judge(index, Status::WithoutEffect, reason, Some("for TLS, name both cert and pkey".to_owned()));
            }
            Some(path) if path.starts_with('/') => {
                let reason = "[tls]; the user that runs hallpass must be able to read the file";
                work.kept(index, reason);
            }
            Some(_) => work.differs(
                index,
                "coturn looks in its working directory and in /etc; here the path is relative to the configuration file",
                "write the whole path",
            ),
        }
    }
    if let Some(index) = password {
        if used && !work.value(index).is_empty() {
            let remedy =
                "decrypt the key once: openssl pkey -in KEY -out NEWKEY, mode 0600, and name NEWKEY in [tls]";
            work.judge(
                index,
                Status::NotOffered,
                "keys with a password cannot be read",
                Some(remedy.to_owned()),
            );
        } else {
            work.idle(index, "there is no key with a password");
        }
    }
    if !used {
        let written = cert.is_some() || key.is_some();
        work.note(
            if written { "no TLS listener: TLS is switched off, or cert or pkey is missing" } else { "no TLS listener, because there is no certificate" },
            "if a proxy such as haproxy ends TLS for turns:NAME:443, write public = \"turns:NAME:443?transport=tcp\" at the tcp listener, \
             so that bbb-xml lists it; without a PROXY header, all its clients are one source to the limits",
        );
    }
    any && paths.0.is_some() && paths.1.is_some()
}

fn listen(work: &mut Work, addresses: &[IpAddr], plan: &Plan) {
    for ip in bound(addresses) {
        add(work, *ip, plan, plan.port, plan.tls_port);
    }
    if plan.proxy.is_some() {
        let index = work.last(Key::TcpProxyPort);
        if let Some(index) = index {
            work.differs(
                index,
                "coturn believes the PROXY header of everybody; here this machine's own proxies are trusted",
                "write the address of your proxy into proxy_protocol if it is on another machine",
            );
        }
    }
}

/// Returns the addresses to bind: those of `listening-ip`, or all.
fn bound(addresses: &[IpAddr]) -> &[IpAddr] {
    const ALL: &[IpAddr] = &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    if addresses.is_empty() { ALL } else { addresses }
}

/// Adds the listeners of one address.
fn add(work: &mut Work, ip: IpAddr, plan: &Plan, port: u16, tls_port: u16) {
    let mut push = |transport, port, only_tls, proxies: Vec<IpAddr>| {
        let listen = Listen { transport, address: SocketAddr::new(ip, port), only_tls, proxies };
        if !work.meaning.listen.iter().any(|other| other.has_the_port_of(&listen)) {
            work.meaning.listen.push(listen);
        }
    };
    if plan.udp {
        push(Transport::Udp, port, false, Vec::new());
    }
    match plan.proxy {
        Some(proxy) if plan.tcp => {
            let mut trusted = vec![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
            trusted.extend((!ip.is_unspecified() && !ip.is_loopback()).then_some(ip));
            push(Transport::Tcp, proxy, false, trusted);
        }
        Some(_) => {}
        None if plan.tcp => push(Transport::Tcp, port, false, Vec::new()),
        None => {}
    }
    if plan.tls {
        push(Transport::Tls, tls_port, !plan.tcp, Vec::new());
    }
    if plan.udp_on_tls_port {
        push(Transport::Udp, tls_port, false, Vec::new());
    }
}

/// The second ports, which NAT discovery (RFC 5780) needs, and on which coturn serves TURN in full.
fn alternatives(work: &mut Work, addresses: &[IpAddr], plan: &Plan, input: &Input<'_>) {
    let (_, no_discovery) = (work.last(Key::NoRfc5780), work.all(Key::NoRfc5780).last().copied());
    // Only the form without a private address switches it off.
    let is_single = |work: &Work, index: usize| !work.value(index).contains(&b'/');
    let announced = work.all(Key::ExternalIp).into_iter().any(|index| is_single(work, index));
    let served = no_discovery.is_none() && !announced && addresses.len() != 1;
    if let Some(index) = no_discovery {
        work.kept(index, "NAT discovery (RFC 5780) is never offered, and there is no second port");
    }
    let second = |work: &mut Work, key, port: u16| -> u16 {
        let next = port.checked_add(1).unwrap_or(port);
        let Some(index) = work.last(key) else { return next };
        let leading = values::leading(work.value(index));
        let port = u16::try_from(leading.number).ok().filter(|port| *port > 0).unwrap_or(next);
        match (served, input.alternative_ports) {
            (false, _) => {
                work.idle(index, "coturn does not open it either: it needs two addresses and no external-ip")
            }
            (true, true) => work.kept(index, format!("[[listen]] on port {port}")),
            (true, false) => work.judge(
                index,
                Status::NotOffered,
                "the second port is for NAT discovery (RFC 5780), which is not offered",
                Some(format!("if clients use port {port}, import with --alternative-ports")),
            ),
        }
        port
    };
    let port = second(work, Key::AltListeningPort, plan.port);
    let tls_port = second(work, Key::AltTlsListeningPort, plan.tls_port);
    if !served || plan.proxy.is_some() && !plan.udp {
        return;
    }
    let before = std::mem::take(&mut work.meaning.listen);
    let second_plan = Plan { proxy: None, tcp: plan.tcp && plan.proxy.is_none(), ..*plan };
    bound(addresses).iter().for_each(|ip| add(work, *ip, &second_plan, port, tls_port));
    let mut found = std::mem::replace(&mut work.meaning.listen, before);
    found.retain(|listen| !work.meaning.listen.iter().any(|other| other.has_the_port_of(listen)));
    if found.is_empty() {
        return;
    }
    let mut ports: Vec<String> =
        found.iter().map(|listen| format!("{} {}", listen.transport, listen.address.port())).collect();
    ports.sort();
    ports.dedup();
    let ports = ports.join(", ");
    match input.alternative_ports {
        true => work.meaning.listen.extend(found),
        false => {
            work.note(
                format!(
                    "with two addresses, coturn also serves clients on {ports}, the ports of NAT discovery"
                ),
                "if clients or a firewall count on them, import with --alternative-ports",
            );
            work.meaning.alternatives = found;
        }
    }
}

fn aux_servers(work: &mut Work, plan: &Plan) {
    let all = work.all(Key::AuxServer);
    if let Some(&index) = all.get(ADDRESSES_MAX) {
        let message = format!("{} auxiliary servers; {ADDRESSES_MAX} are possible", all.len());
        return work.refuse_whole(index, &message, "write fewer of them");
    }
    for index in all {
        let text = String::from_utf8_lossy(work.value(index)).trim().to_owned();
        let address = text.parse::<SocketAddr>().ok();
        let Some(address) = address.filter(|address| address.port() > 0 && !address.ip().is_multicast())
        else {
            work.refuse_whole(
                index,
                "not an address with a port",
                "write 203.0.113.10:443 or [2001:db8::10]:443",
            );
            continue;
        };
        let aux = Plan { udp_on_tls_port: false, tls: plan.tls && !plan.tcp, ..*plan };
        let aux = Plan { tcp: plan.tcp && plan.proxy.is_none(), proxy: None, ..aux };
        add(work, address.ip(), &aux, address.port(), address.port());
        work.kept(index, format!("[[listen]] {address}"));
    }
}
