//! nginx and haproxy beside the relay, with the files of the package and the commands of docs/web-server.md.

use std::fs;
use std::path::Path;

use crate::machine::{Machine, NAME};
use crate::page::commands;
use crate::{ROOT, install_package};

/// The application behind nginx: it shows what nginx says about the browser.
const APPLICATION: &str = "server {
    listen 127.0.0.1:8080;
    location / {
        return 200 \"$http_x_real_ip $http_x_forwarded_for $http_x_forwarded_proto $http_host $http_upgrade-$http_connection\\n\";
    }
}
";
/// A redirect that nginx makes, with its own idea of scheme and port.
const REDIRECT: &str = "location = /docs { return 302 /docs/; }";

/// Sends a Binding over TLS and prints the answer in hexadecimal. Arguments: the name, and the protocol for ALPN.
const BINDING: &str = "import socket, ssl, sys
context = ssl.create_default_context()
if sys.argv[2:]:
    context.set_alpn_protocols(sys.argv[2:])
plain = socket.create_connection((sys.argv[1], 443), 20)
stream = context.wrap_socket(plain, server_hostname=sys.argv[1])
stream.sendall(bytes.fromhex('000100002112a442') + b'abcdefghijkl')
print(stream.recv(512).hex())
";

#[test]
fn a_website_shares_the_port_through_nginx_or_haproxy() {
    let Some(machine) = install_package("the web servers", &["nginx", "haproxy", "nft", "python3"]) else {
        return;
    };
    machine.write("srv/binding.py", BINDING);
    nginx(&machine);
    bindings(&machine);
    haproxy(&machine);
    firewall(&machine);
}

/// What the application learns from a request to the website.
fn seen(machine: &Machine, options: &str) -> String {
    machine.sh(&format!("curl --silent --show-error --fail {options} https://{NAME}/"))
}

fn nginx(machine: &Machine) {
    let example =
        fs::read_to_string(Path::new(ROOT).join("conf/examples/bbb-host.toml")).expect("the example");
    machine.write("etc/hallpass/hallpass.toml", &example.replace("bbb.example.org", NAME));
    machine.sh("openssl rand -base64 32 | install -m 640 -g hallpass /dev/stdin /etc/hallpass/bbb.secret");
    machine.sh("rm -f /etc/nginx/sites-enabled/* /etc/nginx/conf.d/*");
    machine.write("etc/nginx/conf.d/application.conf", APPLICATION);
    machine.sh(&commands("web-server.md", "nginx behind Hallpass", 0));
    let site = machine.path("etc/nginx/sites-enabled/hallpass.conf");
    let text = fs::read_to_string(&site).expect("the site").replace("bbb.example.org", NAME);
    let location = "location / {\n        include";
    let with_redirect = text.replace(location, &format!("{REDIRECT}\n    {location}"));
    assert_ne!(with_redirect, text, "the example of a site has changed");
    fs::write(&site, with_redirect).expect("the site");
    machine.sh(&commands("web-server.md", "Switch", 0).replace("bbb.example.org", NAME));

    // The application sees the browser, not the relay, whatever the browser claims.
    let forged = "--header 'X-Forwarded-For: 192.0.2.7' --header 'X-Real-IP: 192.0.2.7' --header 'X-Forwarded-Proto: http'";
    for version in ["--http1.1", "--http2"] {
        let options = format!("{version} {forged} --interface 198.51.100.10 --write-out '%{{http_version}}'");
        let number = if version == "--http2" { "2" } else { "1.1" };
        assert_eq!(seen(machine, &options), format!("198.51.100.10 198.51.100.10 https {NAME} -\n{number}"));
    }
    // A websocket.
    let upgrade = "--http1.1 --header 'Connection: Upgrade' --header 'Upgrade: websocket'";
    assert!(seen(machine, upgrade).ends_with("websocket-upgrade\n"), "{}", seen(machine, upgrade));
    // A redirect does not name the local port.
    let head = machine.sh(&format!("curl --silent --head https://{NAME}/docs"));
    assert!(head.contains("ocation: /docs/\r\n"), "{head}");
    let head = machine.sh(&format!("curl --silent --head http://{NAME}/page"));
    assert!(head.contains(&format!("Location: https://{NAME}/page")), "{head}");
}

/// In the place of the shared port: haproxy has the certificate and tells TURN from web.
fn haproxy(machine: &Machine) {
    let file = machine.path("etc/hallpass/hallpass.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    let shared = "[[listen]]\ntransport = \"tls\"\naddress = \"[::]:443\"\nweb = true\n";
    let page = fs::read_to_string(Path::new(ROOT).join("docs/web-server.md")).expect("the page");
    let behind = page.split("## haproxy stays").nth(1).and_then(|rest| rest.split("```toml\n").nth(1));
    let behind = behind.and_then(|rest| rest.split("```").next()).expect("the listener of the page");
    let (before, web) = text.split_once(shared).expect("the shared listener");
    let after = &web[web.find("[relay]").expect("the next section")..];
    fs::write(&file, format!("{before}{behind}\n{after}")).expect("the configuration");
    machine.sh("systemctl restart hallpass");
    machine.sh("cat /etc/hallpass/fullchain.pem /etc/hallpass/privkey.pem >/etc/haproxy/certbundle.pem");
    machine.sh("cp /usr/share/hallpass/haproxy/hallpass.cfg /etc/haproxy/haproxy.cfg");
    machine.sh(&commands("web-server.md", "haproxy stays", 0));
    for version in ["--http1.1", "--http2"] {
        let options = format!("{version} --interface 198.51.100.10");
        assert_eq!(seen(machine, &options), format!("198.51.100.10 198.51.100.10 https {NAME} -\n"));
    }
    bindings(machine);
}

/// TURN whatever the client negotiates, and the relay knows its address.
fn bindings(machine: &Machine) {
    for protocols in ["", "http/1.1", "h2", "stun.turn"] {
        let answer = machine.sh(&format!("python3 binding.py {NAME} {protocols}"));
        // A success response with XOR-MAPPED-ADDRESS 198.51.100.10 (RFC 8489 section 14.2).
        assert!(answer.starts_with("0101") && answer.contains("e721c048"), "{protocols}: {answer}");
    }
}

/// Under the rules of the package, the relay reaches the media servers of its own machine and nothing else there.
fn firewall(machine: &Machine) {
    machine.sh("nft -f /usr/share/hallpass/nftables.conf");
    let send = |user: &str, to: &str| {
        let send = format!("echo packet >/dev/udp/{to}");
        machine.run(&format!("setpriv --reuid={user} --clear-groups bash -c '{send}'")).success
    };
    for (user, to, passes) in [
        ("hallpass", "198.51.100.10/53", false),
        ("hallpass", "198.51.100.10/5060", false),
        ("hallpass", "198.51.100.10/16384", true),
        ("hallpass", "198.51.100.20/53", true),
        ("hallpass", "127.0.0.1/8443", true),
        ("nobody", "198.51.100.10/53", true),
    ] {
        assert_eq!(send(user, to), passes, "{user} to {to}");
    }
    bindings(machine);
}
