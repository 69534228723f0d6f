//! The shipped systemd units, rated by systemd-analyze.

use std::process::Command;

use clap::Parser;
use hallpass::cli::args::Cli;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hallpass.service");
/// Verifies BigBlueButton's list of servers.
const BBB_UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/bbb/hallpass-bbb-xml.service");
const BBB_TIMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/bbb/hallpass-bbb-xml.timer");

/// Limit of the exposure in tenths of systemd's points: 0 is fully confined, 100 is unconfined.
const EXPOSURE_MAX: u32 = 20;

fn judged(unit: &str, threshold: u32) -> (bool, String) {
    let judged = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", &format!("--threshold={threshold}"), unit])
        .output();
    let judged = judged
        .unwrap_or_else(|error| panic!("systemd-analyze: {error}: run .ci/packages, which installs it"));
    let said =
        String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
    (judged.status.success(), said)
}

#[test]
fn the_exposure_of_the_unit_is_low() {
    let (good, said) = judged(UNIT, EXPOSURE_MAX);
    println!("row 28: {}", said.lines().rfind(|line| line.contains("exposure")).unwrap_or("?"));
    assert!(good && said.contains("Overall exposure level"), "{said}");
    assert!(!said.contains("Failed to parse"), "systemd 252 of Debian 12 cannot parse it all: {said}");
    assert!(!judged(UNIT, 0).0, "systemd-analyze ignores --threshold: no unit has an exposure of 0");
}

#[test]
fn the_unit_has_the_documented_settings() {
    let unit = std::fs::read_to_string(UNIT).expect("the unit is readable");
    let lines: Vec<&str> = unit.lines().collect();
    for promised in [
        "User=hallpass",
        "StartLimitIntervalSec=0",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateDevices=yes",
        "MemoryDenyWriteExecute=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "SystemCallFilter=@system-service",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "LimitNOFILE=1048576",
        "WatchdogSec=30",
        "TimeoutStopSec=15",
        "RuntimeDirectory=hallpass",
        "StateDirectory=hallpass",
        "StateDirectoryMode=0700",
    ] {
        assert!(lines.contains(&promised), "{promised} is missing");
    }
}

#[test]
fn the_timer_verifies_bigbluebuttons_list_every_day() {
    let (good, said) = judged(BBB_UNIT, EXPOSURE_MAX);
    assert!(good && said.contains("Overall exposure level"), "{said}");
    let unit = std::fs::read_to_string(BBB_UNIT).expect("the unit is readable");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("a command");
    Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(line.ends_with(" --verify /etc/bigbluebutton/turn-stun-servers.xml"), "{line}");
    let timer = std::fs::read_to_string(BBB_TIMER).expect("the timer is readable");
    let lines: Vec<&str> = timer.lines().collect();
    assert!(lines.contains(&"OnCalendar=daily") && lines.contains(&"WantedBy=timers.target"), "{timer}");
    // A copy beside a program of that name, so that every word of both units is judged.
    let directory = std::env::temp_dir().join(format!("hallpass-units-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (service, timer_copy) =
        (directory.join("hallpass-bbb-xml.service"), directory.join("hallpass-bbb-xml.timer"));
    std::fs::write(&service, unit.replace("/usr/bin/hallpass", env!("CARGO_BIN_EXE_hallpass")))
        .expect("a unit");
    std::fs::write(&timer_copy, timer).expect("a unit");
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&service, &timer_copy]).output();
    let said = String::from_utf8_lossy(&verified.expect("systemd-analyze runs").stderr).into_owned();
    std::fs::remove_dir_all(&directory).expect("our directory");
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("hallpass-")).collect();
    assert_eq!(of_ours, [""; 0], "{said}");
}
