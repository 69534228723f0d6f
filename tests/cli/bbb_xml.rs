//! `hallpass bbb-xml` with real files. The tests run as root, as an administrator does; user nobody stands for bbb-web's.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{SECRET, Scratch, bad, good, hallpass, python, stderr, stdout};

const OTHER: &str = "the-secret-of-socket";
/// User and group that Debian has everywhere: nobody, nogroup.
const NOBODY: u32 = 65534;
/// What bbb-web does with the file (BigBlueButton's resources.groovy, TurnServer.java and StunTurnService.java): Spring loads the
/// beans, and each TURN server that the service refers to gets a user name and a password. Prints URL, user name, password.
const BBB_WEB: &str = "\
import sys, hmac, hashlib, base64
import xml.etree.ElementTree as E
ns = '{http://www.springframework.org/schema/beans}'
root = E.parse(sys.argv[1]).getroot()
assert root.tag == ns + 'beans'
where = root.get('{http://www.w3.org/2001/XMLSchema-instance}schemaLocation')
assert where == ns[1:-1] + ' ' + ns[1:-1] + '/spring-beans-2.5.xsd', where
beans = {b.get('id'): b for b in root}
assert len(beans) == len(root) and all(b.tag == ns + 'bean' for b in root)
p = 'org.bigbluebutton.web.services.turn.'
service = beans['stunTurnService']
assert service.get('class') == p + 'StunTurnService'
for prop in service:
    assert prop.tag == ns + 'property' and [c.tag for c in prop] == [ns + 'set']
    for ref in prop[0]:
        bean = beans[ref.get('bean')]
        args = {int(a.get('index')): a.get('value') for a in bean}
        if prop.get('name') == 'stunServers':
            assert bean.get('class') == p + 'StunServer'
            print(args[0])
        else:
            assert prop.get('name') == 'turnServers' and bean.get('class') == p + 'TurnServer'
            user = str(1764400000 + int(args[2])) + ':w_abc'
            mac = hmac.new(args[0].encode(), user.encode(), hashlib.sha1).digest()
            print(args[1], user, base64.b64encode(mac).decode())
";

/// The configurations of two relays, and BigBlueButton's file, which does not exist yet.
struct Site {
    scratch: Scratch,
    relay: String,
    socket: String,
}

impl Site {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let relay = scratch.config();
        let socket = scratch.file(
            "socket.toml",
            &format!(
                "realm = 'socket.example.org'\nexternal_ip = ['203.0.113.10/127.0.0.1']\n[[listen]]\ntransport = 'udp'\naddress = '0.0.0.0:3478'\n\
                 [[listen]]\ntransport = 'tcp'\naddress = '127.0.0.1:3478'\nproxy_protocol = ['127.0.0.1']\n\
                 public = 'turns:socket.example.org:443?transport=tcp'\n\
                 [relay]\naddresses = ['127.0.0.1']\n[[host]]\nname = 'ping'\nsecret = '{OTHER}'\n"
            ),
        );
        fs::create_dir(scratch.0.join("etc")).unwrap();
        Self { scratch, relay, socket }
    }

    fn xml(&self) -> PathBuf {
        self.scratch.0.join("etc/turn-stun-servers.xml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.xml()).unwrap()
    }

    /// The arguments that put these relays into the file.
    fn arguments<'a>(&'a self, configs: &[&'a str], more: &[&'a str]) -> Vec<String> {
        let mut all: Vec<String> =
            ["bbb-xml", "--host", "ping", "--bbb-user", "nobody"].map(str::to_owned).into();
        all.extend(configs.iter().flat_map(|config| ["--config".to_owned(), (*config).to_owned()]));
        all.extend(more.iter().map(|word| (*word).to_owned()));
        all
    }

    fn output(&self, configs: &[&str], more: &[&str]) -> Output {
        let file = self.xml().display().to_string();
        let all = self.arguments(configs, &[&["--output", &file], more].concat());
        hallpass(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[track_caller]
    fn write(&self, configs: &[&str], more: &[&str]) -> String {
        let output = self.output(configs, more);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).replace(&format!("{}: ", self.xml().display()), "")
    }

    #[track_caller]
    fn refused(&self, configs: &[&str], more: &[&str]) -> String {
        let output = self.output(configs, more);
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), String::new()), "{}", stderr(&output));
        assert!(!stderr(&output).contains(SECRET) && !stderr(&output).contains(OTHER), "{}", stderr(&output));
        stderr(&output)
    }

    /// Exit status and output of a verification, without the path.
    fn verify(&self, configs: &[&str]) -> (i32, String) {
        let file = self.xml().display().to_string();
        let all = self.arguments(configs, &["--verify", &file]);
        let output = hallpass(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let said = stdout(&output) + &stderr(&output);
        (output.status.code().unwrap(), said.replace(&format!("{file}: "), ""))
    }

    /// What bbb-web makes of the file.
    fn in_bbb_web(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            python(BBB_WEB, &[self.xml().to_str().unwrap()], "").lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.scratch.0.join("etc")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[track_caller]
fn is_owned(path: &Path, user: u32, group: u32, mode: u32) {
    let data = fs::symlink_metadata(path).unwrap();
    let found = (data.uid(), data.gid(), data.mode() & 0o7777);
    assert_eq!(found, (user, group, mode), "{}: {found:?}", path.display());
}

/// The credentials that bbb-web derives from a secret for a URL.
fn issued(url: &str, secret: &str) -> String {
    let user = format!("{}:w_abc", 1_764_400_000 + 86_400);
    let password = python(super::HMAC, &[secret, &user], "");
    format!("{url} {user} {password}")
}

#[test]
fn two_relays_share_one_file() {
    let site = Site::new("xml-two");
    let written = site.write(&[&site.relay], &[]);
    assert!(written.starts_with("lists stun:relay.example.org:3479\n"), "{written}");
    assert!(
        written.ends_with("restarted, best while no meeting is running: systemctl restart bbb-web\n"),
        "{written}"
    );
    is_owned(&site.xml(), 0, NOBODY, 0o640);
    let alone = site.text();
    assert_eq!(site.write(&[&site.relay], &[]), "unchanged\n");

    let both = site.write(&[&site.socket], &[]);
    for line in [
        "added stun:socket.example.org:3478\n",
        "added turn:socket.example.org:3478\n",
        "added turns:socket.example.org:443?transport=tcp\n",
        "kept turns:relay.example.org:5349?transport=tcp\n",
        "written; bbb-web must be restarted",
    ] {
        assert!(both.contains(line), "{line} in {both}");
    }
    assert_eq!(
        site.in_bbb_web(),
        [
            "stun:relay.example.org:3479".to_owned(),
            "stun:socket.example.org:3478".to_owned(),
            issued("turn:relay.example.org:3479", SECRET),
            issued("turn:relay.example.org:3479?transport=tcp", SECRET),
            issued("turn:socket.example.org:3478", OTHER),
            issued("turns:relay.example.org:5349?transport=tcp", SECRET),
            issued("turns:socket.example.org:443?transport=tcp", OTHER),
        ]
    );
    for configs in [&[site.relay.as_str()][..], &[&site.socket], &[&site.relay, &site.socket]] {
        let (code, said) = site.verify(configs);
        assert!(code == 0 && said.contains("matches the configuration\n"), "{said}");
        assert_eq!(site.write(configs, &[]), "unchanged\n");
    }
    // At once is the same as one after the other, apart from the order.
    let merged = site.in_bbb_web();
    fs::remove_file(site.xml()).unwrap();
    site.write(&[&site.relay, &site.socket], &[]);
    assert_eq!(site.in_bbb_web(), merged);
    let replaced = site.write(&[&site.relay], &["--replace"]);
    assert!(replaced.contains("removed turn:socket.example.org:3478: --replace\n"), "{replaced}");
    assert_eq!(site.text(), alone);
    assert_eq!(site.names(), ["turn-stun-servers.xml"], "no temporary file is left");
}

#[test]
fn an_upgrade_that_resets_the_file_is_noticed_and_corrected() {
    let site = Site::new("xml-upgrade");
    site.write(&[&site.relay, &site.socket], &[]);
    let reset = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<beans xmlns=\"http://www.springframework.org/schema/beans\"\n  \
        xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"\n  xsi:schemaLocation=\"http://www.springframework.org/schema/beans \
        http://www.springframework.org/schema/beans/spring-beans-2.5.xsd\">\n  <!-- servers of the package -->\n  \
        <bean id=\"stun1\" class=\"org.bigbluebutton.web.services.turn.StunServer\">\n    \
        <constructor-arg index=\"0\" value=\"stun:stun.example.net\"/>\n  </bean>\n  \
        <bean id=\"stunTurnService\" class=\"org.bigbluebutton.web.services.turn.StunTurnService\">\n    \
        <property name=\"stunServers\">\n      <set>\n        <ref bean=\"stun1\"/>\n      </set>\n    </property>\n    \
        <property name=\"turnServers\">\n      <set>\n      </set>\n    </property>\n  </bean>\n</beans>\n";
    fs::write(site.xml(), reset).unwrap();
    let (code, said) = site.verify(&[&site.relay, &site.socket]);
    assert_eq!(code, 1, "{said}");
    for name in ["relay", "socket"] {
        let line = format!("{name}.example.org: no TURN URL of this relay, so no browser uses it\n");
        assert!(said.contains(&line), "{said}");
    }
    // The advice is a command that works and keeps what is there.
    let advice = said.lines().find_map(|line| line.split("other servers: ").nth(1)).expect("an advice");
    let line = advice.split(';').next().unwrap().replacen("hallpass", env!("CARGO_BIN_EXE_hallpass"), 1);
    let output = Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{line}: {}", stderr(&output));
    assert_eq!(site.verify(&[&site.relay, &site.socket]).0, 0);
    assert_eq!(site.in_bbb_web().len(), 8);
    assert!(
        site.text().contains("  <!-- servers of the package -->\n  <bean id=\"stun1\""),
        "{}",
        site.text()
    );
}

#[test]
fn owner_and_mode_let_bbb_web_read_and_nobody_else() {
    let site = Site::new("xml-owner");
    site.write(&[&site.relay], &[]);
    for ((user, group, mode), (new_user, new_group, new_mode)) in [
        // As an editor of root leaves it: others could read the secret, and without them bbb-web could not.
        ((0, 0, 0o644), (0, NOBODY, 0o640)),
        ((0, 0, 0o600), (0, NOBODY, 0o640)),
        ((0, NOBODY, 0o666), (0, NOBODY, 0o660)),
        ((NOBODY, 0, 0o604), (NOBODY, 0, 0o600)),
    ] {
        chown(site.xml(), Some(user), Some(group)).unwrap();
        fs::set_permissions(site.xml(), fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = site.verify(&[&site.relay]);
        if mode == 0o600 {
            assert!(code == 1 && said.contains("bbb-web then silently uses its own list"), "{said}");
        } else {
            assert!(code == 1 && said.contains("every user of this host may read"), "{said}");
        }
        let written = site.write(&[&site.relay], &[]);
        assert!(written.starts_with("owner and mode corrected\nwritten;"), "{written}");
        is_owned(&site.xml(), new_user, new_group, new_mode);
        assert_eq!(site.write(&[&site.relay], &[]), "unchanged\n");
    }
    // bbb-web's user may not enter the directory.
    let directory = site.scratch.0.join("etc");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    let output = site.output(&[&site.relay], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("may not enter") && stdout(&output).contains("unchanged"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn check_and_credentials_name_the_public_url_too() {
    let site = Site::new("xml-public");
    let plan = good(&["check", "--config", &site.socket]);
    let url = "turns:socket.example.org:443?transport=tcp";
    assert!(plan.contains(&format!("tcp 127.0.0.1:3478: clients write {url} (behind a proxy)")), "{plan}");
    assert!(good(&["credentials", "--config", &site.socket]).contains(&format!("url       {url}\n")));
    let here = good(&["credentials", "--config", &site.socket, "--server", "127.0.0.1"]);
    assert!(here.contains("url       turn:127.0.0.1:3478?transport=tcp\n") && !here.contains(url), "{here}");
}

#[test]
fn a_list_may_come_through_a_pipe() {
    let site = Site::new("xml-pipe");
    site.write(&[&site.relay], &[]);
    let run = |file: &str, text: &str| {
        let program = env!("CARGO_BIN_EXE_hallpass");
        let line = format!(
            "{program} bbb-xml --host ping --config {} --bbb-user nobody --verify {file}",
            site.relay
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), stdout(&output) + &stderr(&output))
    };
    for file in ["-", "/dev/stdin"] {
        assert_eq!(run(file, &site.text()), (0, format!("{file}: matches the configuration\n")));
        let (code, said) = run(file, &site.text().replace(":5349", ":5350"));
        assert!(code == 1 && said.contains("--output FILE; then restart bbb-web"), "{said}");
        assert_eq!(run(file, "<beans/>").0, 1);
    }
}

#[test]
fn a_symbolic_link_stays_and_its_target_is_written() {
    let site = Site::new("xml-link");
    let target = site.scratch.0.join("target.xml");
    symlink("../target.xml", site.xml()).unwrap();
    site.write(&[&site.relay], &[]);
    assert!(fs::symlink_metadata(site.xml()).unwrap().is_symlink());
    is_owned(&target, 0, NOBODY, 0o640);
    fs::set_permissions(&target, fs::Permissions::from_mode(0o440)).unwrap();
    site.write(&[&site.socket], &[]);
    is_owned(&target, 0, NOBODY, 0o440);
    assert_eq!(site.in_bbb_web().len(), 7);
    assert_eq!(site.names(), ["turn-stun-servers.xml"]);
}

#[test]
fn after_an_error_the_old_file_is_there_and_no_other() {
    let site = Site::new("xml-errors");
    site.write(&[&site.socket], &[]);
    let good = site.text();
    let unchanged = |what: &str| {
        assert_eq!(site.text(), good, "{what}");
        assert_eq!(site.names(), ["turn-stun-servers.xml"], "{what}");
    };
    // A directory that cannot be written to, even by root, in a mount namespace of its own.
    let directory = site.scratch.0.join("etc").display().to_string();
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let output = site.xml().display().to_string();
    let arguments = site.arguments(&[&site.relay], &["--output", &output]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &directory, env!("CARGO_BIN_EXE_hallpass")]);
    let output = command.args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("Read-only file system (os error 30); the old file is unchanged"));
    unchanged("read-only directory");
    // Hostile or broken files are never merged into.
    let broken = [
        ("<!DOCTYPE beans [<!ENTITY a \"&a;&a;\">]><beans>&a;</beans>".to_owned(), ""),
        (good.replace("</beans>", ""), "cut off"),
        (good.replace("stunTurnService", "other"), "no bean stunTurnService"),
        ("<beans>".repeat(100_000), "cut off"),
        ("\0".repeat(100), ""),
        ("x".repeat((1 << 20) + 1), "larger than 1 MiB"),
        (String::new(), "no element <beans>"),
    ];
    for (text, reason) in broken {
        fs::write(site.xml(), &text).unwrap();
        let said = site.refused(&[&site.relay], &[]);
        assert!(said.contains(reason) && said.contains("nothing was changed"), "{said}");
        assert_eq!(site.text(), text);
    }
    // Text of the file that would clear the screen is shown, but not obeyed.
    fs::write(site.xml(), good.replace("turn:socket", "turn:&#155;2J\u{9b}2Jsocket")).unwrap();
    let kept = site.write(&[&site.relay], &[]);
    assert!(kept.contains("kept turn:?2J?2Jsocket.example.org:3478") && !kept.contains('\u{9b}'), "{kept}");
    let (_, said) = site.verify(&[&site.relay]);
    assert!(said.contains("note: turn:?2J?2Jsocket") && !said.contains('\u{9b}'), "{said}");
    let replaced = site.write(&[&site.relay], &["--replace"]);
    assert!(replaced.contains("written") && !replaced.contains('\u{9b}'), "{replaced}");
    fs::write(site.xml(), &good).unwrap();
    // Configurations with an error, and files that are none.
    let wrong = site.scratch.file("wrong.toml", "realm = 5\n");
    assert!(site.refused(&[&site.socket, &wrong], &[]).contains("the configuration is refused"));
    unchanged("wrong configuration");
    let fifo = site.scratch.0.join("fifo").display().to_string();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let said = bad(1, &["bbb-xml", "--host", "ping", "--config", &site.relay, "--verify", &fifo]);
    assert!(said.contains("is not a regular file"), "{said}");
    fs::create_dir(site.scratch.0.join("etc/directory")).unwrap();
    for (file, said) in [
        (site.scratch.0.join("etc/directory"), "is not a regular file"),
        (PathBuf::from("/dev/null"), "is not a regular file"),
        (site.scratch.0.join("absent/file.xml"), "name a file in an existing directory"),
    ] {
        let file = file.display().to_string();
        let all = site.arguments(&[&site.relay], &["--output", &file]);
        let found = bad(1, &all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(found.contains(said), "{found}");
    }
    fs::remove_dir(site.scratch.0.join("etc/directory")).unwrap();
    unchanged("other files");
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let site = Site::new("xml-full");
    let directory = site.scratch.0.join("etc");
    // In a mount namespace of its own, so that nothing stays mounted. One page holds the file; a second has no room.
    let script = format!(
        "mount -t tmpfs -o size=8k none {0} && {1} bbb-xml --host ping --config {2} --output {0}/a.xml && \
         cp {0}/a.xml {3}/before && head -c 4096 /dev/zero >{0}/fill; ls {0} >{3}/names; \
         {1} bbb-xml --host ping --config {4} --output {0}/a.xml; echo status $?; \
         cmp {0}/a.xml {3}/before && ls {0} | cmp - {3}/names && echo same",
        directory.display(),
        env!("CARGO_BIN_EXE_hallpass"),
        site.socket,
        site.scratch.0.display(),
        site.relay,
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let said = stdout(&output);
    assert!(said.ends_with("status 1\nsame\n"), "{said}{}", stderr(&output));
    assert!(stderr(&output).contains("free some space on the disk"), "{}", stderr(&output));
}

/// An administrator who forgets sudo changes nothing, and is told so.
#[test]
fn without_root_nothing_is_lost() {
    let site = Site::new("xml-user");
    site.write(&[&site.socket], &[]);
    let before = site.text();
    for file in [&site.relay, &site.socket] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let directory = site.scratch.0.join("etc");
    let run = |configs: &str, file: &Path| {
        let program = env!("CARGO_BIN_EXE_hallpass");
        let copy = site.scratch.0.join("hallpass");
        if !copy.exists() {
            fs::copy(program, &copy).unwrap();
        }
        let line =
            format!("{} bbb-xml --host ping --config {configs} --output {}", copy.display(), file.display());
        let user = ["--reuid", "1", "--regid", "1", "--clear-groups", "sh", "-c", &line];
        Command::new("setpriv").args(user).output().unwrap()
    };
    // The file is not readable, the directory not writable.
    let output = run(&site.relay, &site.xml());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("run this command as root"), "{}", stderr(&output));
    // Readable, but of another owner, in a directory where the user may write.
    fs::set_permissions(site.xml(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let output = run(&site.relay, &site.xml());
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("the old file is unchanged"), "{}", stderr(&output));
    assert_eq!((site.text(), site.names()), (before, vec!["turn-stun-servers.xml".to_owned()]));
    // A file of the user's own.
    let own = directory.join("own.xml");
    let output = run(&site.relay, &own);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let data = fs::metadata(&own).unwrap();
    assert_eq!((data.uid(), data.mode() & 0o007), (1, 0));
}

#[test]
fn what_is_left_out_and_what_is_ambiguous_is_said() {
    let site = Site::new("xml-left-out");
    let listener = |transport: &str, rest: &str| format!("[[listen]]\ntransport = '{transport}'\n{rest}\n");
    let odd = site.scratch.file(
        "odd.toml",
        &format!(
            "realm = 'relay.example.org'\n{}{}{}{}{}[relay]\naddresses = ['127.0.0.1']\n\
             [[host]]\nname = 'ping'\nsecret = '0123456789abcdef'\n",
            listener("udp", "address = '0.0.0.0:3479'"),
            listener("udp", "address = '0.0.0.0:3478'"),
            listener("udp", "address = '0.0.0.0:443'"),
            listener("tcp", "address = '0.0.0.0:5060'"),
            listener("tcp", "address = '10.0.0.1:3478'\nproxy_protocol = ['10.0.0.2']"),
        ),
    );
    let output = hallpass(&["bbb-xml", "--config", &odd]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output).replace(&format!("{odd}: "), "");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("left out turn:relay.example.org:3479: browsers make allocations"),
        "{said}"
    );
    assert!(
        lines[1].starts_with("left out turn:relay.example.org:5060?transport=tcp: browsers refuse"),
        "{said}"
    );
    assert!(lines[2].starts_with("left out tcp 10.0.0.1:3478 (line 16): only a proxy"), "{said}");
    let urls = stdout(&output).matches("value=\"turn:").count();
    assert_eq!((urls, stdout(&output).matches("value=\"stun:").count()), (2, 1), "{}", stdout(&output));
    assert_eq!(good(&["bbb-xml", "--config", &odd, "--all"]).matches("value=\"turn:").count(), 3);

    let unnamed = site
        .scratch
        .file("unnamed.toml", &fs::read_to_string(&odd).unwrap().replace("relay.example.org", "r"));
    assert!(bad(1, &["bbb-xml", "--config", &unnamed]).contains("--public-name relay.example.org"));
    let same = bad(1, &["bbb-xml", "--config", &odd, "--config", &odd]);
    assert!(same.contains("have the same name or URL") && same.contains("--public-name NAME"), "{same}");
    let names = ["--public-name", "a.example.org", "--public-name", "b.example.org"];
    let capitals = good(&["bbb-xml", "--config", &odd, "--public-name", "Relay.Example.org"]);
    assert!(capitals.contains("turn:relay.example.org:3478"), "{capitals}");
    let two = good(&[&["bbb-xml", "--config", &odd], &names[..]].concat());
    assert!(two.contains("turn:a.example.org:3478") && two.contains("turn:b.example.org:3478"), "{two}");
    let usage =
        bad(2, &[&["bbb-xml", "--config", &odd, "--config", &odd, "--config", &odd], &names[..]].concat());
    assert!(usage.contains("do not fit together"), "{usage}");
    bad(2, &["bbb-xml", "--config", &odd, "--output", "f", "--verify", "f"]);
    bad(2, &["bbb-xml", "--config", &odd, "--replace"]);
}

#[test]
fn bbb_xml_has_the_shape_that_bbb_web_reads() {
    let scratch = Scratch::new("xml");
    let config = scratch.config();
    let xml = good(&["bbb-xml", "--config", &config, "--public-name", "relay.example.org", "--host", "ping"]);
    let program = "import sys\nimport xml.etree.ElementTree as E\n\
        ns = '{http://www.springframework.org/schema/beans}'\n\
        root = E.fromstring(sys.stdin.read())\n\
        assert root.tag == ns + 'beans'\n\
        where = root.get('{http://www.w3.org/2001/XMLSchema-instance}schemaLocation')\n\
        assert where == ns[1:-1] + ' ' + ns[1:-1] + '/spring-beans-2.5.xsd', where\n\
        beans = {b.get('id'): b for b in root}\n\
        assert len(beans) == len(root) and all(b.tag == ns + 'bean' for b in root)\n\
        p = 'org.bigbluebutton.web.services.turn.'\n\
        service = beans.pop('stunTurnService')\n\
        assert service.get('class') == p + 'StunTurnService'\n\
        for prop in service:\n\
        \x20   assert prop.tag == ns + 'property' and [c.tag for c in prop] == [ns + 'set']\n\
        \x20   for ref in prop[0]:\n\
        \x20       bean = beans.pop(ref.get('bean'))\n\
        \x20       args = {a.get('index'): a.get('value') for a in bean}\n\
        \x20       kind = bean.get('class')[len(p):]\n\
        \x20       if kind == 'TurnServer': assert args['0'] == sys.argv[1] and args['2'] == '86400', args\n\
        \x20       print(prop.get('name'), kind, args['0' if kind == 'StunServer' else '1'])\n\
        assert not beans and [q.get('name') for q in service][2] == 'remoteIceCandidates'";
    let found = python(program, &[SECRET], &xml);
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [
            "stunServers StunServer stun:relay.example.org:3479",
            "turnServers TurnServer turn:relay.example.org:3479",
            "turnServers TurnServer turn:relay.example.org:3479?transport=tcp",
            "turnServers TurnServer turns:relay.example.org:5349?transport=tcp"
        ]
    );
}

#[test]
fn bbb_xml_verifies_a_file() {
    let scratch = Scratch::new("verify");
    let config = scratch.config();
    let write = ["bbb-xml", "--config", &config, "--public-name", "relay.example.org", "--host", "ping"];
    let xml = good(&write);
    let verify = |file: &str| -> Vec<String> {
        write.iter().copied().chain(["--verify", file]).map(str::to_owned).collect()
    };
    let same = verify(&scratch.file("same.xml", &xml));
    let same: Vec<&str> = same.iter().map(String::as_str).collect();
    assert!(good(&same).ends_with("same.xml: matches the configuration\n"));

    let other = verify(&scratch.file("other.xml", &xml.replace(":5349", ":443")));
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    let text = bad(1, &other);
    assert!(text.contains("note: turns:relay.example.org:5349?transport=tcp: missing"), "{text}");
    assert!(text.contains("turns:relay.example.org:443?transport=tcp: no listener"), "{text}");
    assert!(text.ends_with("then restart bbb-web\n"), "{text}");

    let tuit: Vec<&str> = same.iter().map(|word| if *word == "ping" { "tuit" } else { word }).collect();
    let text = bad(1, &tuit);
    assert!(
        text.contains("has a secret that is not this host's") && !text.contains("first&secret"),
        "{text}"
    );
    let absent: Vec<&str> = write.iter().copied().chain(["--verify", "/nonexistent.xml"]).collect();
    assert!(bad(1, &absent).contains("cannot read it"));
}
