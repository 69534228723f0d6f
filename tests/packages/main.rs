//! The Debian package, the tarball and the systemd unit: what they contain, and their life on a machine that systemd boots,
//! beside a coturn that runs.
#![allow(clippy::disallowed_methods, reason = "third-party programs are waited for on the real clock")]

#[path = "../socket/docs/compare.rs"]
mod compare;
#[path = "../support/mod.rs"]
mod support;

mod examples;
mod machine;
mod own_certificate;
mod page;
mod switch;
mod takeover;
mod web;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use machine::{Machine, NAME};
use page::commands;
use support::certs::Kind;
use support::files::Directory;
use support::server::skip_on_coturn;
use support::tool::{run, run_command, run_ok};

const LIMIT: Duration = Duration::from_secs(300);
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The package and the tarball of the program under test.
struct Built {
    package: PathBuf,
    tarball: PathBuf,
    _directory: Directory,
}

/// Made once. `Err` is why they cannot be made here.
static BUILT: LazyLock<Result<Built, String>> = LazyLock::new(|| {
    let has_cargo_deb =
        run("sh", &["-c", "PATH=\"$HOME/.cargo/bin:$PATH\" command -v cargo-deb"], LIMIT).success;
    if !has_cargo_deb {
        return Err("cargo-deb is missing: run .ci/packages, which installs it".to_owned());
    }
    let directory = Directory::new("packages");
    let program = directory.path("hallpass");
    run_ok("strip", &["--strip-debug", "-o", text(&program), env!("CARGO_BIN_EXE_hallpass")], LIMIT);
    let mut command = Command::new("bash");
    command.arg(".ci/package").arg(&program).arg(directory.path("made")).current_dir(ROOT);
    command
        .env("CARGO_NET_OFFLINE", "true")
        .env("HALLPASS_PACKAGE_FAST", "1")
        .env_remove("SOURCE_DATE_EPOCH");
    let ended = run_command(command, LIMIT);
    assert!(ended.success, ".ci/package:\n{}", ended.output);
    let made = |end: &str| {
        let mut all = fs::read_dir(directory.path("made")).expect("a directory").flatten();
        all.find(|one| one.file_name().to_string_lossy().ends_with(end)).expect(end).path()
    };
    Ok(Built { package: made(".deb"), tarball: made(".tar.gz"), _directory: directory })
});

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The package and the tarball; `None` after a note if they cannot be made here.
fn built(what: &str) -> Option<&'static Built> {
    if skip_on_coturn(what) {
        return None;
    }
    BUILT.as_ref().map_err(|why| eprintln!("{what}: not tested: {why}")).ok()
}

/// A booted machine with coturn serving on the ports of the examples; `None` after a note if none can be booted here.
fn boot(what: &str) -> Option<Machine> {
    if let Some(why) = machine::missing() {
        eprintln!("{what}: not tested: {why}");
        return None;
    }
    let machine = match Machine::boot() {
        Ok(machine) => machine,
        Err(why) => {
            eprintln!("{what}: not tested: {why}");
            return None;
        }
    };
    machine.write(
        "etc/turnserver.conf",
        "listening-port=3479\ntls-listening-port=5349\nlistening-ip=198.51.100.10\nrealm=r\nno-cli\n",
    );
    machine.sh("systemctl enable --quiet --now coturn");
    Some(machine)
}

/// A booted machine with the package, on which coturn is off; `None` after a note if this machine lacks a program.
pub fn install_package(what: &str, needed: &[&str]) -> Option<Machine> {
    let built = built(what)?;
    if let Some(absent) = needed.iter().find(|program| !run("which", &[program], LIMIT).success) {
        eprintln!("{what}: not tested: {absent} is missing: run .ci/packages, which installs it");
        return None;
    }
    let machine = boot(what)?;
    machine.sh("systemctl disable --quiet --now coturn");
    machine.copy(&built.package);
    machine.sh("dpkg -i hallpass_*.deb");
    machine.obtain_certificate(Kind::Good);
    machine.sh(&format!("RENEWED_LINEAGE=/etc/letsencrypt/live/{NAME} /usr/lib/hallpass/certbot-deploy.sh"));
    Some(machine)
}

/// Writes the example of a relay, its secrets and its certificate, as the pages say.
fn configure(machine: &Machine, prefix: &str) {
    let below_prefix = |text: String| {
        let text = text.replace("/usr/share/", &format!("{prefix}/share/"));
        text.replace("/usr/lib/", &format!("{prefix}/lib/"))
    };
    machine.sh(&below_prefix(commands("install.md", "Configuration", 0)));
    // The machine has no IPv6.
    machine.sh("sed -i 's/, \"2001:db8::20\"//' /etc/hallpass/hallpass.toml");
    machine.obtain_certificate(Kind::Good);
    machine.sh(&below_prefix(commands("certificates.md", "certbot", 2)));
}

/// The same package with another version.
fn other_version(built: &Built, directory: &Directory, version: &str) -> PathBuf {
    let (tree, package) = (directory.path("tree"), directory.path(&format!("hallpass_{version}.deb")));
    run_ok("dpkg-deb", &["-R", text(&built.package), text(&tree)], LIMIT);
    run_ok(
        "sed",
        &["-i", &format!("s/^Version:.*/Version: {version}/"), text(&tree.join("DEBIAN/control"))],
        LIMIT,
    );
    run_ok("dpkg-deb", &["--root-owner-group", "-Zgzip", "-z1", "-b", text(&tree), text(&package)], LIMIT);
    package
}

#[test]
fn the_package_has_all_files_and_lintian_finds_nothing() {
    let Some(built) = built("the package") else { return };
    let files = run_ok("dpkg-deb", &["-c", text(&built.package)], LIMIT);
    let entry = |path: &str| {
        let found = files.lines().find(|line| {
            line.split_whitespace().nth(5).is_some_and(|name| name.trim_start_matches("./") == path)
        });
        found
            .unwrap_or_else(|| panic!("no {path} in\n{files}"))
            .split_whitespace()
            .next()
            .expect("a mode")
            .to_owned()
    };
    for (path, mode) in [
        ("usr/bin/hallpass", "-rwxr-xr-x"),
        ("usr/sbin/hallpass-takeover-coturn", "-rwxr-xr-x"),
        ("usr/lib/systemd/system/hallpass.service", "-rw-r--r--"),
        ("usr/lib/sysusers.d/hallpass.conf", "-rw-r--r--"),
        ("usr/lib/tmpfiles.d/hallpass.conf", "-rw-r--r--"),
        ("usr/lib/sysctl.d/60-hallpass.conf", "-rw-r--r--"),
        ("usr/lib/hallpass/certbot-deploy.sh", "-rwxr-xr-x"),
        ("usr/lib/hallpass/certbot-renewal", "-rwxr-xr-x"),
        ("usr/share/man/man1/hallpass-serve.1.gz", "-rw-r--r--"),
        ("usr/share/man/man8/hallpass-takeover-coturn.8.gz", "-rw-r--r--"),
        ("usr/share/bash-completion/completions/hallpass", "-rw-r--r--"),
        ("usr/share/hallpass/bbb-host.toml", "-rw-r--r--"),
        ("usr/share/hallpass/bbb/hallpass-bbb-xml.service", "-rw-r--r--"),
        ("usr/share/hallpass/nftables.conf", "-rw-r--r--"),
        ("usr/share/hallpass/sysctl.conf", "-rw-r--r--"),
        ("usr/share/doc/hallpass/copyright", "-rw-r--r--"),
    ] {
        assert_eq!(entry(path), mode, "{path}");
    }
    assert!(!files.contains(" ./etc/"), "a file of the package in /etc makes upgrades ask: {files}");
    if run("which", &["lintian"], LIMIT).success {
        // The program of a test is no release build.
        let hide = "--suppress-tags=hardening-no-fortify-functions,hardening-no-pie,hardening-no-relro";
        let ended = run("lintian", &["--fail-on=error,warning", hide, text(&built.package)], LIMIT);
        assert!(ended.success, "lintian:\n{}", ended.output);
    } else {
        eprintln!("lintian: not run: run .ci/packages, which installs it");
    }
}

#[test]
fn the_scripts_pass_shellcheck() {
    let scripts = [
        "conf/deb/postinst",
        "conf/deb/prerm",
        "conf/deb/postrm",
        "conf/hallpass-takeover-coturn",
        "conf/install.sh",
        "certs/renewal-hooks/certbot-renewal",
        ".ci/package",
    ];
    for script in scripts {
        let path = Path::new(ROOT).join(script);
        run_ok("shellcheck", &["-x", "-P", text(&Path::new(ROOT).join(".ci")), text(&path)], LIMIT);
    }
}

/// The life of the package on a host where coturn serves: nothing but the takeover touches coturn.
#[test]
fn the_package_lives_beside_coturn() {
    let Some(built) = built("the life of the package") else { return };
    let Some(machine) = boot("the life of the package") else { return };
    let scratch = Directory::new("versions");
    let package = built.package.file_name().and_then(|name| name.to_str()).expect("a name");
    let newer = other_version(built, &scratch, "99.0-1");
    machine.copy(&built.package);

    // A first installation starts nothing and stops nothing.
    let said = machine.sh(&commands("install.md", "Debian and Ubuntu", 0));
    machine.copy(&newer);
    assert!(said.contains("coturn keeps running") && said.contains("hallpass-takeover-coturn"), "{said}");
    machine.services(["inactive", "disabled"], ["active", "enabled"]);
    let modes = machine.sh("stat -c '%U:%G %a' /etc/hallpass /etc/hallpass/hallpass.toml");
    assert_eq!(modes, "root:hallpass 750\nroot:hallpass 640\n");
    machine.fails("hallpass-takeover-coturn", "nothing has changed");
    machine.services(["inactive", "disabled"], ["active", "enabled"]);

    // The advice of `check` is enough: the service starts with what it says.
    configure(&machine, "/usr");
    machine.sh("rm /etc/hallpass/ping.secret");
    let told = machine.fails("hallpass check --config /etc/hallpass/hallpass.toml", "ping.secret");
    let advice = told.split("put the secret into it: ").nth(1).and_then(|rest| rest.lines().next());
    machine.sh(advice.expect("a command"));
    let said = machine.sh("hallpass check --config /etc/hallpass/hallpass.toml");
    assert!(!said.contains("may not read"), "{said}");

    // Takeover: back to coturn if calls would fail, for good if they work, and back on request.
    machine.fails("hallpass-takeover-coturn --public-name other.example.org", "nothing has changed");
    machine.services(["inactive", "disabled"], ["active", "enabled"]);
    let [takeover, undo] = [0, 1].map(|index| commands("install.md", "From coturn", index));
    machine.sh(&takeover);
    machine.services(["active", "enabled"], ["inactive", "disabled"]);
    machine.sh(&undo);
    machine.services(["inactive", "disabled"], ["active", "enabled"]);
    machine.sh(&takeover);

    // Upgrade and downgrade restart the relay.
    let first = machine.pid("hallpass");
    machine.sh("dpkg -i hallpass_99.0-1.deb");
    machine.wait_active("hallpass");
    let second = machine.pid("hallpass");
    machine.sh(&format!("dpkg -i {package}"));
    machine.wait_active("hallpass");
    let third = machine.pid("hallpass");
    assert!(first != second && second != third, "{first} {second} {third}");
    // A configuration that the new version refuses: the relay that runs keeps running.
    machine.sh("sed -i 's/^realm/raelm/' /etc/hallpass/hallpass.toml");
    let said = machine.sh("dpkg -i hallpass_99.0-1.deb");
    assert!(said.contains("does not accept") && said.contains("raelm"), "{said}");
    assert_eq!(machine.pid("hallpass"), third);
    machine.sh("sed -i 's/^raelm/realm/' /etc/hallpass/hallpass.toml");

    // Removed: the configuration stays. Purged: nothing stays, and coturn was never touched.
    machine.sh("dpkg --remove hallpass");
    assert!(machine.path("etc/hallpass/ping.secret").exists());
    machine.sh("systemctl enable --quiet --now coturn");
    machine.sh("dpkg --purge hallpass");
    let left = machine.sh("find / -xdev -name '*hallpass*' -not -path '/srv/*' -not -path '/proc/*' -path '/[elu]*' -newer /srv/ca.pem || true");
    let left: Vec<&str> =
        left.lines().filter(|path| !path.contains("/dpkg/") && !path.contains("/letsencrypt/")).collect();
    assert!(left.is_empty(), "{left:?}");
    machine.fails("systemctl cat hallpass", "No files found");
    assert_eq!(machine.sh("systemctl is-active coturn; systemctl is-enabled coturn"), "active\nenabled\n");
}

/// The user of the service reads files of its own and of its group, and the relay starts by itself once it can.
#[test]
fn the_service_reads_its_secrets_and_comes_back_by_itself() {
    let Some(machine) = install_package("the unit", &[]) else { return };
    configure(&machine, "/usr");
    let files = "/etc/hallpass/ping.secret /etc/hallpass/tuit.secret /etc/hallpass/privkey.pem";
    for owner in ["chown root:hallpass {} && chmod 640 {}", "chown hallpass:hallpass {} && chmod 600 {}"] {
        machine.sh(&owner.replace("{}", files));
        machine.sh("systemctl restart hallpass");
        machine.sh("hallpass doctor");
    }
    // A reload of systemd waits for the answer of the relay, so it fails where the relay refuses.
    let pid = machine.pid("hallpass");
    machine.sh("sed -i 's/^realm/raelm/' /etc/hallpass/hallpass.toml");
    machine.fails("systemctl reload hallpass", "failed");
    machine.sh("sed -i 's/^raelm/realm/' /etc/hallpass/hallpass.toml; systemctl reload hallpass; hallpass drain --no-wait");
    let said = machine
        .sh("curl --silent http://127.0.0.1:9641/readyz || true; hallpass drain --cancel; hallpass reload");
    assert!(said.contains("draining") && said.contains("in use"), "{said}");
    // A renewed certificate is read by the user of the service.
    machine.obtain_certificate(Kind::Rsa2048);
    machine.sh(&format!(
        "RENEWED_LINEAGE=/etc/letsencrypt/live/{NAME} /etc/letsencrypt/renewal-hooks/deploy/hallpass"
    ));
    machine.sh(&commands("certificates.md", "Without a hook", 0));
    machine.wait_journal("new certificate in use");
    assert_eq!(machine.pid("hallpass"), pid, "{}", machine.journal());
    // Faster than the limit that systemd sets for other units: five starts in ten seconds.
    machine.sh("mkdir -p /run/systemd/system/hallpass.service.d");
    machine.write("run/systemd/system/hallpass.service.d/fast.conf", "[Service]\nRestartSec=100ms\n");
    machine.sh("systemctl daemon-reload");
    let restarts = |least: u32| {
        let shown = "systemctl show --property NRestarts --value hallpass";
        machine.sh(&format!("timeout 60 sh -c 'until [ \"$({shown})\" -ge {least} ]; do sleep 0.1; done'"));
    };
    // Root made a secret that only root can read.
    machine.sh("chown root:root /etc/hallpass/ping.secret; chmod 600 /etc/hallpass/ping.secret");
    machine.fails("systemctl restart hallpass", "control process exited");
    restarts(8);
    let advice = "chgrp hallpass /etc/hallpass/ping.secret && chmod 640 /etc/hallpass/ping.secret";
    assert!(
        machine.journal().contains(&format!("let user hallpass read it: {advice}")),
        "{}",
        machine.journal()
    );
    let warned =
        machine.fails("hallpass check --config /etc/hallpass/hallpass.toml", "which runs the service");
    assert!(
        warned.contains("user hallpass, which runs the service, may not read") && warned.contains(advice),
        "{warned}"
    );
    machine.sh(advice);
    machine.wait_active("hallpass");
    // The only address of the listeners comes late, as after a slow boot.
    machine.sh("sed -i 's/\\[::\\]/198.51.100.10/' /etc/hallpass/hallpass.toml; ip address del 198.51.100.10/24 dev wan");
    machine.fails("systemctl restart hallpass", "control process exited");
    restarts(8);
    machine.sh("ip address add 198.51.100.10/24 dev wan");
    machine.wait_active("hallpass");
    // A directory that root closed.
    machine.sh("chmod 700 /etc/hallpass");
    let warned =
        machine.fails("hallpass check --config /etc/hallpass/hallpass.toml", "which runs the service");
    assert!(warned.contains("may not enter /etc/hallpass (root:hallpass, mode 700)"), "{warned}");
    machine.sh("systemd-tmpfiles --create hallpass.conf");
    machine.sh("timeout 20 systemctl stop hallpass");
}

#[test]
fn the_tarball_installs_and_uninstalls() {
    let Some(built) = built("the tarball") else { return };
    let Some(machine) = boot("the tarball") else { return };
    machine.sh("systemctl disable --quiet --now coturn");
    machine.copy(&built.tarball);
    let said = machine.sh(&commands("install.md", "Other distributions", 0));
    machine.sh("rm hallpass-*.tar.gz && mv hallpass-* unpacked");
    machine.fails("unpacked/install.sh --prefix here", "needs an absolute path");
    assert!(said.contains("Nothing is started"), "{said}");
    configure(&machine, "/usr/local");
    machine.sh(&commands("install.md", "Start", 0));
    machine.sh("man -w hallpass-serve");
    let before = machine.sh("sha256sum /etc/hallpass/*");
    let said = machine.sh("unpacked/install.sh");
    assert!(said.contains("The relay still runs the version before"), "{said}");
    machine.sh("unpacked/install.sh --uninstall");
    assert_eq!(machine.sh("sha256sum /etc/hallpass/*"), before, "the configuration stays");
    machine.fails("command -v hallpass", "");
    machine.fails("systemctl cat hallpass", "No files found");
    let left = machine.sh("find /usr/local /etc/systemd /etc/sysctl.d -name '*hallpass*'");
    assert_eq!(left, "");
}
