//! A relay of the package that gets its own certificate: what the unit lets it write, and which ports it may bind.

use crate::install_package;
use crate::machine::{Machine, NAME};
use crate::support::certs::{self, Kind};

/// pebble, as the authority, with a DNS server that has the machine's own address for every name.
const AUTHORITY: &str = "systemctl stop nginx apache2 2>/dev/null || true
systemd-run --quiet --unit=dns pebble-challtestsrv -http01 '' -https01 '' -tlsalpn01 '' -defaultIPv6 '' \\
    -dns01 127.0.0.1:8053 -management 127.0.0.1:8055
systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 pebble -strict -config /srv/pebble.json -dnsserver 127.0.0.1:8053
timeout 60 sh -c 'until curl --silent --insecure https://localhost:14000/dir; do sleep 0.1; done'";

const PEBBLE: &str = r#"{ "pebble": {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/srv/pebble.crt",
    "privateKey": "/srv/pebble.key",
    "httpPort": 80,
    "tlsPort": 443,
    "ocspResponderURL": "",
    "certificateValidityPeriod": 2592000
} }"#;

/// Three lines of [acme], and the authority of the test.
fn configuration(challenge: &str) -> String {
    format!(
        "realm = \"{NAME}\"\n[[listen]]\ntransport = \"tls\"\naddress = \"0.0.0.0:443\"\nweb = true\n\
         [relay]\naddresses = [\"198.51.100.10\"]\n\
         [acme]\ndomains = [\"{NAME}\"]\ncontact = \"mailto:admin@example.org\"\nchallenges = \"{challenge}\"\n\
         directory = \"https://localhost:14000/dir\"\nca_file = \"/etc/hallpass/authority.pem\"\n\
         [redirect]\naddress = \"0.0.0.0:80\"\n\
         [[host]]\nname = \"bbb\"\nsecret_file = \"/etc/hallpass/bbb.secret\"\n"
    )
}

#[test]
fn the_unit_lets_a_relay_get_its_own_certificate() {
    let needed = ["pebble", "pebble-challtestsrv", "curl"];
    let Some(machine) = install_package("certificates by ACME", &needed) else { return };
    let made = certs::made(Kind::Good, "localhost");
    for (file, text) in [
        ("srv/pebble.json", PEBBLE),
        ("srv/pebble.crt", &made.cert),
        ("srv/pebble.key", &made.key),
        ("etc/hallpass/authority.pem", &made.ca),
    ] {
        machine.write(file, text);
    }
    machine.sh(AUTHORITY);
    machine.sh("openssl rand -base64 32 | install -m 640 -g hallpass /dev/stdin /etc/hallpass/bbb.secret");
    machine.write("etc/hallpass/hallpass.toml", &configuration("http-01"));
    machine.sh("test ! -e /var/lib/hallpass; systemctl start hallpass");
    obtained(&machine, 1);
    // A new name makes another certificate, by the other challenge.
    let more = configuration("tls-alpn-01").replace("domains = [", "domains = [\"www.example.org\", ");
    machine.write("etc/hallpass/hallpass.toml", &more);
    machine.sh("systemctl reload hallpass");
    obtained(&machine, 2);
    machine.sh("dpkg --purge hallpass; test ! -e /var/lib/hallpass; test ! -e /etc/hallpass");
}

/// Waits until so many certificates have been obtained, and checks their files and port 80.
fn obtained(machine: &Machine, count: usize) {
    let wait = format!(
        "until [ $(journalctl --no-pager --output=cat --unit=hallpass | grep -c 'acme: new certificate') -ge {count} ]; do sleep 0.2; done"
    );
    let ended = machine.run(&format!("timeout 60 sh -c \"{}\"", wait.replace('$', "\\$")));
    assert!(ended.success, "certificate {count}:\n{}", machine.journal());
    let owner = machine.sh("ps -o user= -p $(systemctl show --property MainPID --value hallpass)");
    assert_eq!(owner.trim(), "hallpass");
    let directories = machine.sh("find /var/lib/hallpass -type d -printf '%u %m\\n' | sort -u");
    let files = machine.sh("find /var/lib/hallpass -type f -printf '%u %m\\n' | sort -u");
    assert_eq!((directories.as_str(), files.as_str()), ("hallpass 700\n", "hallpass 600\n"));
    let head = machine.sh(&format!("curl --silent --head --connect-to ::127.0.0.1: http://{NAME}/check"));
    assert!(head.contains("308") && head.contains(&format!("location: https://{NAME}/check")), "{head}");
    let shown = format!(
        "timeout 60 sh -c 'until openssl s_client -connect 127.0.0.1:443 -servername {NAME} </dev/null 2>/dev/null | \
         openssl x509 -noout -issuer | grep -q Pebble; do sleep 0.2; done'"
    );
    assert!(machine.run(&shown).success, "the certificate is not in use:\n{}", machine.journal());
}
