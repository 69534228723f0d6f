//! The switch between coturn and Hallpass on a relay host, when steps fail, when it is interrupted, and when others start coturn.

use crate::install_package;
use crate::machine::{Machine, NAME};

/// coturn on ports that anybody may open.
const TURNSERVER: &str = "listening-port=3478
tls-listening-port=5349
listening-ip=198.51.100.10
use-auth-secret
static-auth-secret=dG9wLXNlY3JldC1mb3ItdGVzdHMtb25seS0wMTIzNDU=
realm=relay.example.org
cert=/etc/turnserver/fullchain.pem
pkey=/etc/turnserver/privkey.pem
no-cli
";
/// Hallpass starts once `interrupt.py` has done its work.
const WAIT: &str = "[Service]
ExecStartPre=+/bin/sh -c 'until [ -e /srv/disturbed ]; do sleep 0.05; done'
";
/// Waits until the command has ended that another program started, whatever became of its terminal.
const END: &str = "flock /run/hallpass-takeover-coturn.lock true";
const TAKEOVER: &str = "hallpass-takeover-coturn --public-name relay.example.org";
const COTURN: [[&str; 2]; 2] = [["inactive", "disabled"], ["active", "enabled"]];
const HALLPASS: [[&str; 2]; 2] = [["active", "enabled"], ["inactive", "disabled"]];
const DROP_IN: &str = "etc/systemd/system/coturn.service.d/hallpass.conf";

/// A relay host on which coturn serves, with an imported configuration.
fn host(what: &str) -> Option<Machine> {
    let machine = install_package(what, &["python3", "nft"])?;
    machine.sh(&format!(
        "install -d -o turnserver /etc/turnserver && \
         install -o turnserver -m 600 /etc/letsencrypt/live/{NAME}/*.pem /etc/turnserver/"
    ));
    machine.write("etc/turnserver.conf", TURNSERVER);
    machine.write("srv/interrupt.py", include_str!("takeover/interrupt.py"));
    machine.sh("systemctl enable --quiet --now coturn");
    machine.sh(
        "hallpass import-coturn /etc/turnserver.conf --output /etc/hallpass/hallpass.toml --force
         sed -i 's#^cert = .*#cert = \"/etc/hallpass/fullchain.pem\"#; s#^key = .*#key = \"/etc/hallpass/privkey.pem\"#' \
             /etc/hallpass/hallpass.toml
         chown hallpass: /etc/hallpass/hallpass.toml",
    );
    Some(machine)
}

#[track_caller]
fn serves(machine: &Machine, [hallpass, coturn]: [[&str; 2]; 2]) {
    machine.services(hallpass, coturn);
    assert_eq!(machine.path(DROP_IN).exists(), hallpass[0] == "active", "the drop-in");
}

#[track_caller]
fn interrupt(machine: &Machine, how: &str, text: &str, command: &str) {
    machine.sh(&format!("rm -f disturbed; python3 interrupt.py {how} '{text}' '{command}'; {END}"));
}

/// Whatever ends the takeover half-way, coturn serves afterwards.
#[test]
fn an_interrupted_takeover_goes_back_to_coturn() {
    let Some(machine) = host("an interrupted takeover") else { return };
    // Otherwise it may be over before anything disturbs it.
    machine.sh("mkdir /run/systemd/system/hallpass.service.d");
    machine.write("run/systemd/system/hallpass.service.d/wait.conf", WAIT);
    machine.sh("systemctl daemon-reload");
    let piped = format!("{TAKEOVER} 2>&1 | tee log");
    for (how, step, command) in [
        ("terminal", "2. coturn stops", TAKEOVER),
        ("terminal", "3. Hallpass starts", TAKEOVER),
        ("terminal", "3. Hallpass starts", &piped),
        ("keys", "2. coturn stops", TAKEOVER),
        ("keys", "3. Hallpass starts", TAKEOVER),
        ("keys", "3. Hallpass starts", &piped),
        ("reader", "2. coturn stops", TAKEOVER),
        ("reader", "3. Hallpass starts", TAKEOVER),
    ] {
        println!("{how} at {step}: {command}");
        interrupt(&machine, how, step, command);
        serves(&machine, COTURN);
    }
    // Killed, and tried again: it knows that coturn served before.
    machine.sh(&format!(
        "rm disturbed; mkfifo wait; {TAKEOVER} >wait 2>&1 & grep -qm 1 '3. Hallpass' wait; kill -KILL $!; touch disturbed; {END}"
    ));
    drop_packets(&machine);
    machine.fails(TAKEOVER, "coturn is as it was");
    serves(&machine, COTURN);
    machine.sh("nft flush ruleset");
    machine.sh(TAKEOVER);
    serves(&machine, HALLPASS);
}

/// Makes the listeners deaf, in a way that only a test of the running relay shows.
fn drop_packets(machine: &Machine) {
    machine
        .sh("nft 'add table inet deaf; add chain inet deaf input { type filter hook input priority 0; }; \
                add rule inet deaf input ip saddr 198.51.100.10 th dport { 3478, 5349 } drop'");
}

/// What is known before is said before: no call ends for it.
#[test]
fn a_takeover_that_must_fail_does_not_stop_coturn() {
    let Some(machine) = host("a takeover that must fail") else { return };
    let file = "/etc/hallpass/hallpass.toml";
    let coturn = machine.pid("coturn");
    let refused = |command: &str, why: &str| {
        let said = machine.fails(command, "nothing has changed");
        assert!(said.contains(why), "{said}");
        assert!(!said.contains("2. coturn stops"), "{said}");
        assert_eq!(machine.pid("coturn"), coturn);
        serves(&machine, COTURN);
    };
    for command in ["check --live", "doctor", "serve --config /etc/hallpass/hallpass.toml"] {
        let advice = "run hallpass-takeover-coturn to switch to Hallpass";
        let ended = machine.run(&format!("hallpass {command}")).output;
        let said: Vec<&str> = ended.split_whitespace().collect();
        assert!(said.join(" ").contains(advice), "{command}: {ended}");
    }
    let said = machine.sh("hallpass doctor --before-start --public-name relay.example.org");
    assert!(said.contains("Nothing that shows before the start is wrong."), "{said}");
    machine.fails("hallpass doctor --before-start --public-name other.example.org", "Calls would fail");
    refused("hallpass-takeover-coturn --public-name other.example.org", "not for other.example.org");
    refused("hallpass-takeover-coturn --publicname other.example.org", "unexpected argument");
    machine.write("srv/list.xml", "<beans></beans>");
    refused(&format!("{TAKEOVER} --bbb-xml /srv/list.xml"), "list.xml");
    // The ports of the example of the package, which nobody's URL names.
    machine.sh(&format!("cp {file} kept; sed -i 's/:3478\"/:3479\"/' {file}"));
    refused(TAKEOVER, "coturn serves tcp 3478, udp 3478 and");
    machine.sh(&format!("cp kept {file}; chown hallpass: {file}"));

    // The other way round: coturn that cannot start does not end Hallpass.
    machine.sh(TAKEOVER);
    let hallpass = machine.pid("hallpass");
    let undo = "hallpass-takeover-coturn --undo";
    machine.sh("systemctl mask --quiet coturn");
    machine.fails(undo, "nothing has changed: coturn.service is masked");
    machine.sh(
        "systemctl unmask --quiet coturn; chmod 600 /etc/turnserver.conf; chown root: /etc/turnserver.conf",
    );
    machine.fails(undo, "user turnserver cannot read /etc/turnserver.conf");
    assert_eq!(machine.pid("hallpass"), hallpass);
    serves(&machine, HALLPASS);
    machine.sh("chmod 644 /etc/turnserver.conf; echo no-tcp=maybe >>/etc/turnserver.conf");
    machine.fails(undo, "coturn did not start; Hallpass serves again");
    serves(&machine, HALLPASS);
    machine.sh("sed -i /maybe/d /etc/turnserver.conf");
    // Signals do not stop it half-way.
    for how in ["keys", "terminal"] {
        let half_way = "( while systemctl is-active --quiet hallpass; do :; done; echo half-way ) &";
        interrupt(&machine, how, "half-way", &format!("{half_way} exec {undo}"));
        serves(&machine, COTURN);
        machine.sh(TAKEOVER);
        serves(&machine, HALLPASS);
    }
}

/// A Hallpass that ran beside coturn goes on after a takeover that fails, with its calls.
#[test]
fn a_failed_takeover_keeps_a_hallpass_beside_coturn() {
    let Some(machine) = host("Hallpass beside coturn") else { return };
    let file = "/etc/hallpass/hallpass.toml";
    machine.sh(&format!("cp {file} kept; sed -i 's/:3478\"/:3488\"/; s/:5349\"/:5359\"/' {file}; systemctl enable --quiet --now hallpass"));
    let (both, pid) = ([["active", "enabled"]; 2], machine.pid("hallpass"));
    machine.sh(&format!("cp kept {file}; chown hallpass: {file}"));
    // A third program has one of the ports once coturn leaves it.
    machine.sh("mkdir -p /run/systemd/system/coturn.service.d");
    machine.write(
        "run/systemd/system/coturn.service.d/thief.conf",
        "[Service]\nExecStartPre=+-/usr/bin/systemctl stop thief\nExecStopPost=+/usr/bin/systemctl start thief\n",
    );
    let thief = "import socket; s = socket.create_server(('198.51.100.10', 5349)); \
                 import os; n = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); n.connect(os.environ['NOTIFY_SOCKET']); \
                 n.send(b'READY=1'); s.accept()";
    machine.write("srv/thief.py", thief);
    machine.write(
        "run/systemd/system/thief.service",
        "[Service]\nType=notify\nExecStart=/usr/bin/python3 /srv/thief.py\n",
    );
    machine.sh("systemctl daemon-reload");
    let said = machine.fails(TAKEOVER, "coturn is as it was");
    assert!(said.contains("Hallpass cannot open its ports"), "{said}");
    machine.services(both[0], both[1]);
    assert_eq!(machine.pid("hallpass"), pid, "its calls go on");
    machine.sh("rm -r /run/systemd/system/coturn.service.d; systemctl daemon-reload");

    // Now it fails when Hallpass has coturn's ports already, which it cannot have beside coturn.
    drop_packets(&machine);
    let said =
        machine.fails(TAKEOVER, "coturn is as it was. Hallpass ran beside it with another configuration");
    machine.services(["inactive", "enabled"], both[1]);
    assert!(said.contains("calls would not work"), "{said}");
    machine.sh("nft flush ruleset");
    // Without failures it takes coturn's ports by a reload, and its calls go on.
    machine.sh(&format!("sed -i 's/:3478\"/:3488\"/; s/:5349\"/:5359\"/' {file}; systemctl start hallpass"));
    let pid = machine.pid("hallpass");
    machine.sh(&format!("cp kept {file}; chown hallpass: {file}; {TAKEOVER}"));
    serves(&machine, HALLPASS);
    assert_eq!(machine.pid("hallpass"), pid);
}

/// Nightly jobs and renewal hooks restart coturn; it stays away while Hallpass is in its place.
#[test]
fn nobody_starts_coturn_beside_hallpass() {
    let Some(machine) = host("jobs that start coturn") else { return };
    let job = "0 4 * * * root systemctl restart coturn\n";
    machine.write("etc/cron.d/nightly", job);
    machine.write("etc/letsencrypt/renewal-hooks/deploy/relay", "#!/bin/sh\nsystemctl restart coturn\n");
    machine.write("etc/systemd/system/night.timer", "[Timer]\nOnCalendar=04:00\nUnit=coturn.service\n");
    let said = machine.sh(TAKEOVER);
    for named in ["/etc/cron.d/nightly\n", "/deploy/relay\n", "/etc/systemd/system/night.timer\n"] {
        assert!(said.contains(named), "{named}: {said}");
    }
    assert!(!said.contains("coturn.service\n"), "{said}");
    let restart = job.split_once("root ").expect("a command").1;
    machine.sh(restart);
    machine.sh("systemctl enable --quiet --now coturn");
    machine.services(HALLPASS[0], ["inactive", "enabled"]);
    let log = machine.sh("journalctl --no-pager --unit=coturn");
    assert!(log.contains("not started: Hallpass serves in the place of coturn. To go back:"), "{log}");
    // Again: coturn is off, and the options are tested.
    machine.sh(TAKEOVER);
    serves(&machine, HALLPASS);
    machine.fails("hallpass-takeover-coturn --public-name other.example.org", "not for other.example.org");
    machine.fails("hallpass-takeover-coturn --publicname other.example.org", "unexpected argument");
    // coturn that tries to start in spite of all.
    machine.sh(&format!(
        "sed -i /ExecCondition/d /{DROP_IN}; systemctl daemon-reload; systemctl start --no-block coturn"
    ));
    let said = machine.sh(TAKEOVER);
    assert!(said.contains("Hallpass serves already and coturn is off"), "{said}");
    serves(&machine, HALLPASS);
    // A pause of Hallpass.
    machine.sh(restart);
    machine.sh("kill -KILL $(systemctl show --property MainPID --value hallpass); systemctl restart coturn");
    machine.wait_active("hallpass");
    serves(&machine, HALLPASS);

    // Without Hallpass, coturn is what it was, and a later installation enables nothing.
    let said = machine.sh("dpkg --remove hallpass");
    assert!(said.contains("Now neither serves") && said.contains("systemctl start coturn"), "{said}");
    assert!(!machine.path(DROP_IN).exists());
    assert_eq!(machine.sh("systemctl is-enabled coturn"), "enabled\n");
    machine.sh("systemctl start coturn");
    let said = machine.sh("dpkg -i hallpass_*.deb");
    assert!(said.contains("coturn keeps running"), "{said}");
    serves(&machine, COTURN);
    // Where coturn did not start at boot before, it does not after.
    machine.sh(&format!("systemctl disable --quiet coturn; {TAKEOVER}"));
    machine.sh("ln -sf /usr/lib/hallpass/certbot-renewal /etc/letsencrypt/renewal-hooks/deploy/hallpass");
    let said = machine.sh("dpkg --purge hallpass");
    assert!(said.contains("systemctl enable --now coturn"), "{said}");
    assert_eq!(machine.run("systemctl is-enabled coturn").output, "disabled\n");
    assert_eq!(
        machine
            .sh("ls -A /etc/letsencrypt/renewal-hooks/deploy; ls /etc/systemd/system/ | grep coturn || true"),
        "relay\n"
    );
}

/// What the pages install from the package is in it.
#[test]
fn the_package_has_what_the_pages_install() {
    let Some(machine) = host("the timer of BigBlueButton's list") else { return };
    machine.sh(&crate::page::commands("bigbluebutton.md", "After upgrades", 0));
    machine.sh("systemd-analyze verify /etc/systemd/system/hallpass-bbb-xml.timer");
    machine.sh("install -m 644 /usr/share/hallpass/sysctl.conf /etc/sysctl.d/60-hallpass.conf");
    machine.sh("nft --check --file /usr/share/hallpass/nftables.conf");
}
