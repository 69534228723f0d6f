//! What the machine is like before a block of commands, by the words after the fence.

use std::fs;

use super::lesson;
use super::machine::{CONFIGURATION, Machine, Where};
use crate::support::certs::Kind;

/// How to bring the machine into a state, and back.
pub struct Setting {
    pub name: &'static str,
    pub place: Where,
    /// Whether it ends the relay, which then forgets what happened before.
    pub restarts: bool,
    make: fn(&mut Stage),
    undo: fn(&mut Stage),
}

/// The machine and what is running on it for a block.
pub struct Stage {
    pub machine: Machine,
    running: Vec<crate::support::process::Process>,
    /// The relay's configuration between blocks.
    configuration: String,
}

const XML: &str = "bigbluebutton/turn-stun-servers.xml";
/// Replaces the certificate by one that an inspector makes.
const FILTER: &str = "\
made='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9'
$made -subj '/O=School/CN=Filter CA' -keyout filter.key -out filter.pem
$made -CA filter.pem -CAkey filter.key -subj /CN=relay.example.org -addext subjectAltName=DNS:relay.example.org \
    -addext basicConstraints=critical,CA:FALSE -keyout /etc/hallpass/privkey.pem -out /etc/hallpass/fullchain.pem";
const NOTHING: fn(&mut Stage) = |_| {};
const FORGET: fn(&mut Stage) = |stage| stage.restore();

pub const SETTINGS: &[Setting] = &[
    Setting { name: "", place: Where::Relay, restarts: false, make: NOTHING, undo: NOTHING },
    Setting { name: "school", place: Where::School, restarts: false, make: NOTHING, undo: NOTHING },
    // The files of a certificate that nobody renewed.
    Setting {
        name: "expired",
        place: Where::Relay,
        restarts: false,
        make: |stage| stage.machine.install_certificate(Kind::Expired),
        undo: FORGET,
    },
    Setting {
        name: "leaf-only",
        place: Where::Relay,
        restarts: false,
        make: |stage| stage.machine.install_certificate(Kind::LeafOnly),
        undo: FORGET,
    },
    Setting {
        name: "other-name",
        place: Where::School,
        restarts: true,
        make: |stage| {
            stage.machine.install_certificate(Kind::OtherName);
            stage.machine.serve();
        },
        undo: serve_again,
    },
    // nginx got port 443 first.
    Setting {
        name: "nginx",
        place: Where::Relay,
        restarts: true,
        make: |stage| {
            stage.machine.stop();
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temporary = temporary.map(|kind| format!("{kind}_temp_path {kind};")).concat();
            let server = "server { listen 443; listen [::]:443; }";
            let text = format!("pid nginx.pid; events {{ }} http {{ access_log off; {temporary} {server} }}");
            stage.machine.write("nginx.conf", &text);
            let line = "nginx -p \"$PWD\" -c nginx.conf -e stderr -g 'daemon off; error_log stderr notice;'";
            stage.running.push(stage.machine.start(Where::Relay, line, "start worker process "));
        },
        undo: |stage| {
            stage.running.clear();
            stage.machine.serve();
        },
    },
    Setting {
        name: "refused-port",
        place: Where::Relay,
        restarts: false,
        make: |stage| stage.configure(|text| text.replace("[::]:443", "[::]:444")),
        undo: FORGET,
    },
    // A host behind 1:1 NAT without external_ip.
    Setting {
        name: "nat",
        place: Where::Relay,
        restarts: false,
        make: |stage| {
            stage.machine.sh(Where::Relay, "ip address add 10.0.0.5/24 dev wan");
            stage.configure(|text| text.replace("[::]", "10.0.0.5"));
        },
        undo: |stage| {
            stage.machine.sh(Where::Relay, "ip address del 10.0.0.5/24 dev wan");
            stage.restore();
        },
    },
    // The XML on the BigBlueButton host has another secret.
    Setting {
        name: "other-secret",
        place: Where::Relay,
        restarts: false,
        make: |stage| {
            let file = stage.machine.etc(XML);
            let text = fs::read_to_string(&file).expect("the file of the README");
            fs::write(file, text.replace(&stage.secret(), "the secret of another relay")).expect("the file");
        },
        undo: |stage| {
            let file = stage.machine.etc(XML);
            let text = fs::read_to_string(&file).expect("the file");
            fs::write(file, text.replace("the secret of another relay", &stage.secret())).expect("the file");
        },
    },
    Setting {
        name: "draining",
        place: Where::Relay,
        restarts: true,
        make: |stage| {
            stage.machine.signal("USR1", "drain");
            lesson::come_late(&stage.machine, &stage.secret());
        },
        undo: |stage| stage.machine.serve(),
    },
    // The web server behind the shared port has ended.
    Setting {
        name: "web-away",
        place: Where::Relay,
        restarts: true,
        make: |stage| {
            stage.configure(|text| {
                let shared = text.replace("\"[::]:443\"", "\"[::]:443\"\nweb = true");
                format!("{shared}\n[web]\nhttp1 = \"127.0.0.1:81\"\n")
            });
            stage.machine.serve();
        },
        undo: serve_again,
    },
    // `hallpass load` brings its own peers.
    Setting { name: "load", place: Where::School, restarts: true, make: allow_load, undo: serve_again },
    Setting { name: "load-here", place: Where::Relay, restarts: true, make: allow_load, undo: serve_again },
    // The firewall of the school drops UDP.
    Setting {
        name: "no-udp",
        place: Where::School,
        restarts: false,
        make: |stage| {
            let rules = "nft add table inet wall\n\
                         nft add chain inet wall out '{ type filter hook input priority 0; }'\n\
                         nft add rule inet wall out iifname wan meta l4proto udp drop";
            stage.machine.sh(Where::Relay, rules);
        },
        undo: |stage| {
            stage.machine.sh(Where::Relay, "nft delete table inet wall");
        },
    },
    // The school's firewall opens TLS, so its computers get a certificate from an authority that only the school knows. Here the
    // relay itself presents it.
    Setting {
        name: "inspected",
        place: Where::School,
        restarts: false,
        make: |stage| {
            stage.machine.sh(Where::Relay, FILTER);
            stage.machine.until_certificate_in_use();
        },
        undo: |stage| {
            stage.restore();
            stage.machine.until_certificate_in_use();
        },
    },
    // The school has no IPv4, and the relay no IPv6.
    Setting {
        name: "ipv6",
        place: Where::School,
        restarts: false,
        make: |stage| {
            let lines = "ip address flush dev wan\n\
                         ip address add 2001:db8:5::5/64 dev wan nodad\n\
                         ip route add default via 2001:db8:5::1 dev wan";
            stage.machine.sh(Where::School, lines);
        },
        undo: |stage| {
            let lines = "ip address flush dev wan\n\
                         ip address add 198.51.100.20/24 dev wan\n\
                         ip address add 203.0.113.5/32 dev wan\n\
                         ip route replace 198.51.100.0/24 dev wan src 203.0.113.5";
            stage.machine.sh(Where::School, lines);
        },
    },
];

fn allow_load(stage: &mut Stage) {
    stage.configure(|text| {
        let text = text.replace("[\"198.51.100.20\"]", "[\"203.0.113.5\", \"127.0.0.1\"]");
        text.replace(lesson::LIMITS, "")
    });
    stage.machine.serve();
}

fn serve_again(stage: &mut Stage) {
    stage.restore();
    stage.machine.serve();
}

impl Stage {
    pub fn new() -> Stage {
        Stage { machine: Machine::new(), running: Vec::new(), configuration: String::new() }
    }

    /// Makes this the configuration of the relay, with its certificate.
    pub fn install(&mut self, configuration: &str) {
        self.configuration = format!("{configuration}\n{}", lesson::LIMITS);
        self.restore();
    }

    /// Runs `body` in the setting of a block. Words that other settings need stand before the last one.
    pub fn within(&mut self, names: &str, body: impl FnOnce(&mut Stage, Where)) {
        let settings: Vec<&Setting> = names.split(' ').map(find).collect();
        let place = settings.last().map_or(Where::Relay, |last| last.place);
        settings.iter().for_each(|setting| (setting.make)(self));
        body(self, place);
        settings.iter().rev().for_each(|setting| (setting.undo)(self));
    }

    fn configure(&mut self, change: impl FnOnce(&str) -> String) {
        let changed = change(&self.configuration);
        assert_ne!(changed, self.configuration, "the configuration of the README has changed");
        fs::write(self.machine.etc("hallpass/hallpass.toml"), changed).expect(CONFIGURATION);
    }

    fn restore(&mut self) {
        fs::write(self.machine.etc("hallpass/hallpass.toml"), &self.configuration).expect(CONFIGURATION);
        self.machine.sh(Where::Relay, "chmod 640 /etc/hallpass/hallpass.toml");
        self.machine.install_certificate(Kind::Good);
    }

    pub fn secret(&self) -> String {
        let text =
            fs::read_to_string(self.machine.etc("hallpass/ping.secret")).expect("the secret of the README");
        text.trim_end().to_owned()
    }
}

fn find(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("no setting {name:?}"))
}

/// Whether a block with these settings ends the relay.
pub fn restarts(names: &str) -> bool {
    names.split(' ').any(|name| SETTINGS.iter().any(|setting| setting.name == name && setting.restarts))
}
