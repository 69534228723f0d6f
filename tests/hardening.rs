//! The shipped systemd unit, rated by systemd-analyze.

use std::process::Command;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/hallpass.service");

/// Limit of the exposure in tenths of systemd's points: 0 is fully confined, 100 is unconfined.
const EXPOSURE_MAX: u32 = 20;

fn judged(threshold: u32) -> (bool, String) {
    let judged = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", &format!("--threshold={threshold}"), UNIT])
        .output();
    let judged = judged
        .unwrap_or_else(|error| panic!("systemd-analyze: {error}: run .ci/packages, which installs it"));
    let said =
        String::from_utf8_lossy(&judged.stdout).into_owned() + &String::from_utf8_lossy(&judged.stderr);
    (judged.status.success(), said)
}

#[test]
fn the_exposure_of_the_unit_is_low() {
    let (good, said) = judged(EXPOSURE_MAX);
    println!("row 28: {}", said.lines().rfind(|line| line.contains("exposure")).unwrap_or("?"));
    assert!(good && said.contains("Overall exposure level"), "{said}");
    assert!(!said.contains("Failed to parse"), "systemd 252 of Debian 12 cannot parse it all: {said}");
    assert!(!judged(0).0, "systemd-analyze ignores --threshold: no unit has an exposure of 0");
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
    ] {
        assert!(lines.contains(&promised), "{promised} is missing");
    }
}
