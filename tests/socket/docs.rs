//! The documentation: every command in it runs on a machine of its own, as it is printed, and prints what the page shows.
//!
//! The words after a fence (```` ```console nginx ````) name the state of the machine; see `settings`.

mod compare;
mod lesson;
mod machine;
mod page;
mod settings;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::Parser;
use clap::error::ErrorKind;
use hallpass::cli::args::Cli;

use crate::support::beside_others;
use crate::support::credentials::rest;
use crate::support::server::skip_on_coturn;
use machine::Where;
use page::{Block, Part};
use settings::{SETTINGS, Stage};

const INSTALLATION: &str = "README.md";
/// For the administrator of a relay.
const PAGES: [&str; 8] = [
    "docs/bigbluebutton.md",
    "docs/operating.md",
    "docs/troubleshooting.md",
    "docs/metrics.md",
    "docs/addresses.md",
    "docs/sizing.md",
    "docs/security-evidence.md",
    "docs/ansible.md",
];
/// For the administrator of a school's network.
const SCHOOL: &str = "docs/school-network.md";
/// About installation: tests/packages runs their commands, on a machine that systemd boots. The commands of the page about the test
/// page need a visitor: tests/web runs them.
const INSTALLED: [&str; 5] = [
    "docs/install.md",
    "docs/certificates.md",
    "docs/web-server.md",
    "docs/from-coturn.md",
    "docs/test-page.md",
];

/// Commands that no test can run, and why. Those that end with a blank or an equals sign stand for every command that begins so.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo ", "builds the program, or runs the tests, this one included"),
    ("bash .ci/packages ", "builds the program"),
    ("bash .ci/test", "runs all tests, this one included"),
    ("HALLPASS_TEST_SERVER=", "runs other tests"),
    ("systemctl restart bbb-web", "the machine of the test has no BigBlueButton"),
    ("systemctl enable --now hallpass-bbb-xml.timer", "the machine of the test has no systemd"),
    ("install -m 644 -t /etc/systemd/system ", "tests/packages runs it"),
    ("hallpass bbb-xml --config relay.toml ", "tests/cli/bbb_xml.rs runs it"),
    ("scp ", "needs another machine"),
    ("hallpass load lesson ", "takes minutes"),
    ("hallpass top", "shows a screen"),
    ("hallpass top --config ", "shows a screen"),
    ("hallpass top --once --json | jq ", "not every machine has jq"),
    ("hallpass doctor --public-name ", "tests/doctor/on_relay.rs runs it"),
    ("hallpass drain ", "needs systemd; tests/socket/control.rs runs it"),
    ("ssh ", "needs another machine"),
    ("cp -rL conf/ansible ", "prepares the control node of Ansible; tests/ansible does the same"),
    ("ansible-playbook ", "tests/ansible runs the playbook"),
    ("ansible-vault ", "tests/ansible encrypts the vault"),
    ("curl -H \"Authorization: Bearer ", "asks from another machine; tests/socket/admin.rs does the same"),
];

/// What the package does to `/etc`. tests/packages installs the package itself.
const PACKAGE: &str = "systemd-sysusers $PWD/conf/sysusers.conf && systemd-tmpfiles --create $PWD/conf/tmpfiles.conf && \
                       install -m 640 -g hallpass conf/hallpass.toml /etc/hallpass/hallpass.toml";

/// What is added to a command, so that it measures for a shorter time.
const SHORTER: (&str, &str) =
    ("hallpass load traffic ", "hallpass load traffic --duration 0.3 --warm-up 0.1 ");

fn is_run(command: &str) -> bool {
    !NOT_RUN.iter().any(|(known, _)| is_meant(known, command))
}

/// Whether an entry of [`NOT_RUN`] stands for this command.
fn is_meant(known: &str, command: &str) -> bool {
    command == known || known.ends_with([' ', '=']) && command.starts_with(known)
}

/// Runs one command. systemd would start and signal the relay; here the test does.
fn run(stage: &mut Stage, place: Where, command: &str) -> Result<String, String> {
    match command {
        "apt install ./target/packages/hallpass_*.deb" => drop(stage.machine.sh(place, PACKAGE)),
        "systemctl enable --now hallpass" => stage.machine.serve(),
        "systemctl reload hallpass" => stage.machine.signal("HUP", "the new configuration is in use"),
        _ => {
            let (begin, shorter) = SHORTER;
            let ended = stage.machine.run(place, &command.replace(begin, shorter));
            return if ended.success { Ok(ended.output) } else { Err(ended.output) };
        }
    }
    Ok(String::new())
}

/// Runs the commands of a block and adds what is wrong to the report.
fn follow(stage: &mut Stage, block: &Block, report: &mut String) {
    let is_known = |setting: &str| SETTINGS.iter().any(|known| known.name == setting);
    if let Some(unknown) = block.setting.split(' ').find(|setting| !is_known(setting)) {
        let _ =
            writeln!(report, "{}: no setting {unknown:?}; see tests/socket/docs/settings.rs", block.place);
        return;
    }
    stage.within(&block.setting, |stage, place| {
        for step in block.steps.iter().filter(|step| is_run(&step.command)) {
            let (ended, output) = match run(stage, place, &step.command) {
                Ok(output) => (Ok(()), output),
                // Where the page shows output, that says whether the command should fail.
                Err(output) if step.shown.is_empty() => (Err("it fails".to_owned()), output),
                Err(output) => (Ok(()), output),
            };
            let compared = match step.shown.is_empty() {
                true => Ok(()),
                false => compare::compare(&step.shown, &output),
            };
            if let Err(problem) = ended.and(compared) {
                let _ =
                    writeln!(report, "{}: {}\n{problem}; its output:\n{output}", block.place, step.command);
            }
        }
    });
}

/// Installs the relay as the README says: its commands in their order, and its configuration.
fn install(stage: &mut Stage, report: &mut String) {
    for part in page::parts(INSTALLATION) {
        match part {
            Part::Configuration(text) => stage.install(&text),
            Part::Commands(block) => follow(stage, &block, report),
        }
    }
    assert!(stage.machine.is_serving(), "the README no longer starts the relay: {report}");
}

/// The commands of a page: those in blocks, and requests to the relay in its sentences.
fn blocks(page: &str) -> impl Iterator<Item = Block> {
    let fenced = page::parts(page).into_iter().filter_map(|part| match part {
        Part::Commands(block) => Some(block),
        Part::Configuration(_) => None,
    });
    fenced.chain(page::in_sentences(page, "curl "))
}

#[test]
fn the_commands_for_the_administrator_of_a_relay_run() {
    let _turn = beside_others();
    if skip_on_coturn("the documentation") {
        return;
    }
    let (mut stage, mut report) = (Stage::new(), String::new());
    install(&mut stage, &mut report);
    stage.machine.serve();
    lesson::hold(&stage.machine, &stage.secret());
    log_in(&mut stage);
    let mut all: Vec<Block> = PAGES.into_iter().flat_map(blocks).collect();
    // The order of the pages, but first those that look at the lesson.
    all.sort_by_key(|block| settings::restarts(&block.setting));
    for block in &all {
        follow(&mut stage, block, &mut report);
    }
    assert!(report.is_empty(), "{report}");
}

/// Sets the variable `LOGIN` of commands, as `hallpass credentials --command doctor` prints it.
fn log_in(stage: &mut Stage) {
    let login = rest(&stage.secret(), "w_admin", 86_400);
    stage.machine.login = format!("{}:{}", login.username, login.password);
}

#[test]
fn the_commands_for_the_administrator_of_a_school_run() {
    let _turn = beside_others();
    if skip_on_coturn("the documentation") {
        return;
    }
    let (mut stage, mut report) = (Stage::new(), String::new());
    install(&mut stage, &mut report);
    log_in(&mut stage);
    blocks(SCHOOL).for_each(|block| follow(&mut stage, &block, &mut report));
    assert!(report.is_empty(), "{report}");
}

/// No page is forgotten, and nothing stays on the lists that no page needs.
#[test]
fn the_lists_of_this_test_are_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known: Vec<&str> = PAGES.into_iter().chain([INSTALLATION, SCHOOL]).collect();
    for entry in fs::read_dir(root.join("docs")).expect("docs").flatten() {
        let page = format!("docs/{}", entry.file_name().to_string_lossy());
        let is_known = known.iter().chain(&INSTALLED).any(|known| *known == page);
        assert!(!page.ends_with(".md") || is_known, "{page}: add it to PAGES");
    }
    let blocks: Vec<Block> = known.iter().flat_map(|page| blocks(page)).collect();
    let commands = || blocks.iter().flat_map(|block| &block.steps).map(|step| &step.command);
    for (known, reason) in NOT_RUN {
        let is_used = commands().any(|command| is_meant(known, command));
        assert!(is_used, "no page has the command {known:?} ({reason})");
    }
    for setting in SETTINGS {
        let is_used = blocks.iter().any(|block| block.setting.split(' ').any(|name| name == setting.name));
        assert!(is_used, "no block has the setting {:?}", setting.name);
    }
    let operating = fs::read_to_string(root.join("docs/operating.md")).expect("a page");
    for page in known
        .iter()
        .chain(&INSTALLED)
        .filter_map(|page| page.strip_prefix("docs/"))
        .filter(|page| *page != "operating.md")
    {
        assert!(operating.contains(&format!("({page}")), "docs/operating.md has no link to {page}");
    }
}

/// Pages with command lines of `hallpass`, all of the project's.
fn all_pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for directory in ["", "docs/", "certs/", "benches/", "fuzz/", "tests/"] {
        let entries = fs::read_dir(root.join(directory)).expect("a directory").flatten();
        let names = entries.map(|entry| format!("{directory}{}", entry.file_name().to_string_lossy()));
        pages.extend(names.filter(|name| name.ends_with(".md")));
    }
    pages
}

/// Every subcommand and flag in every page exists. Sentences name commands without all of their arguments.
#[test]
fn every_command_line_of_hallpass_is_understood() {
    let (mut seen, mut report) = (0, String::new());
    for page in all_pages().iter().filter(|page| *page != "CHANGELOG.md") {
        for (place, words) in page::hallpass_commands(page) {
            seen += 1;
            let Err(error) = Cli::try_parse_from(&words) else { continue };
            let is_short = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayHelp
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            if !is_short {
                let _ = writeln!(report, "{place}: {}\n{error}", words.join(" "));
            }
        }
    }
    assert!(seen > 30, "only {seen} command lines found");
    assert!(report.is_empty(), "{report}");
}
