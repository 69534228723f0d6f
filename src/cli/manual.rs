//! `hallpass manual`: a man page for the program and one for each command, with the sections of man-pages(7).
//!
//! The texts come from `--help`. clap_mangen alone would put everything after the options into a section EXTRA and refer
//! to pages that do not exist.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command, CommandFactory};
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

use super::args::{Cli, ManualArgs};
use super::output;

/// The name of the program. The names of all pages start with it.
const PROGRAM: &str = "hallpass";
/// The section of user commands.
const SECTION: &str = "1";
/// The date of the last change to the texts, for `.TH`. The date of the build would make builds irreproducible.
const CHANGED: &str = "2026-11-29";

/// Prefixes that mark special paragraphs in the part of a help text after the options.
const EXAMPLES: &str = "Examples:";
const EXIT_STATUS: &str = "Exit status: ";
const SIGNALS: &str = "Signals: ";

/// Names and meanings of environment variables, for the pages of the program and of `serve`.
const ENVIRONMENT: [(&str, &str); 3] = [
    (
        "HALLPASS_LOG",
        "Overrides the log level of the configuration: error, warn, info, debug, trace or off. MODULE=LEVEL sets the level \
         of one module; separate entries by commas, such as info,hallpass::net=debug.",
    ),
    (
        "JOURNAL_STREAM",
        "Set by systemd. If present, log lines have no time stamp, because the journal adds one.",
    ),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "Set by systemd: the socket for readiness and status messages, and the interval of the watchdog.",
    ),
];
/// The same for the page of `doctor`.
const DOCTOR_ENVIRONMENT: [(&str, &str); 3] = [
    ("HTTPS_PROXY, ALL_PROXY", "The HTTP proxy that is tried without --proxy, in capital or small letters."),
    ("NO_PROXY", "Names and domains, separated by commas, for which the environment's proxy is not tried."),
    ("SSL_CERT_FILE", "A file with the trusted authorities in PEM format, instead of the system's."),
];
/// The same for the page of `top`.
const TOP_ENVIRONMENT: [(&str, &str); 2] = [
    ("NO_COLOR", "If set and not empty, no colours are used."),
    ("TERM", "With \"dumb\", the numbers are printed once, as with --once."),
];
/// Names and meanings of files, for the pages of the program and of commands that read a configuration.
const FILES: [(&str, &str); 1] = [(
    "/etc/hallpass/hallpass.toml",
    "The configuration that the systemd unit uses. The example file of the project documents every key with its default. \
     Paths in the configuration are relative to its directory.",
)];

/// One man page.
struct Page {
    /// The name without the section, such as `hallpass-serve`.
    name: String,
    /// The page in roff.
    text: String,
}

/// Prints one page, or writes all of them into a directory.
pub(super) fn run(args: ManualArgs) -> ExitCode {
    let pages = pages();
    if let Some(directory) = args.directory {
        return write(&pages, &directory);
    }
    let name = args.command.map_or_else(|| PROGRAM.to_owned(), |command| format!("{PROGRAM}-{command}"));
    match pages.iter().find(|page| page.name == name) {
        Some(page) => output::print(page.text.as_bytes()),
        None => {
            let names: Vec<_> =
                pages.iter().filter_map(|page| page.name.split_once('-')).map(|(_, of)| of).collect();
            output::fail(&format!("there is no page {name}"), &format!("write one of: {}", names.join(", ")))
        }
    }
}

fn write(pages: &[Page], directory: &Path) -> ExitCode {
    for page in pages {
        let path = directory.join(format!("{}.{SECTION}", page.name));
        if let Err(error) = fs::write(&path, &page.text) {
            let message = format!("cannot write {}: {error}", path.display());
            return output::fail(&message, "name an existing directory that you may write to");
        }
    }
    ExitCode::SUCCESS
}

fn pages() -> Vec<Page> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Fills in the full names and the usage lines of the commands.
    program.build();
    let commands: Vec<&Command> =
        program.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let others = |name: &str| {
        let all = commands.iter().map(|command| page_name(command));
        let mut all: Vec<String> = all.chain([PROGRAM.to_owned()]).filter(|other| other != name).collect();
        all.sort_unstable();
        all
    };
    let each = [&program].into_iter().chain(commands.iter().copied());
    each.map(|command| {
        let name = page_name(command);
        Page { text: text(command, &program, &others(&name)), name }
    })
    .collect()
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or(PROGRAM).to_owned()
}

/// Renders the page of `command`, which is `program` or one of its commands.
fn text(command: &Command, program: &Command, see_also: &[String]) -> String {
    let is_program = command.get_name() == program.get_name();
    let name = page_name(command);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let help = Help::of(command);
    let mut page = Roff::new();
    let source = format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", [name.to_uppercase().as_str(), SECTION, CHANGED, &source, "User Commands"]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {about}"))]);
    page.control("SH", ["SYNOPSIS"]).text(synopsis(command));
    page.control("SH", ["DESCRIPTION"]).text([roman(format!("{about}."))]);
    for paragraph in &help.paragraphs {
        describe(&mut page, paragraph);
    }
    if let Some(signals) = &help.signals {
        page.control("SS", ["Signals"]).text([roman(signals)]);
    }
    if is_program {
        page.control("SS", ["Commands"]);
        for sub in program.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            item(&mut page, reference(&page_name(sub)), &about);
        }
    }
    page.control("SH", ["OPTIONS"]);
    let (named, positional): (Vec<_>, Vec<_>) =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).partition(|arg| !arg.is_positional());
    positional.into_iter().chain(named).for_each(|arg| option(&mut page, arg));
    page.control("SH", ["EXIT STATUS"]);
    let exit_status = help.exit_status.or_else(|| Help::of(program).exit_status).unwrap_or_default();
    for one in exit_status.trim_end_matches('.').split(", ") {
        let (number, meaning) = one.split_once(' ').unwrap_or((one, ""));
        item(&mut page, vec![bold(number)], meaning);
    }
    let environment: &[(&str, &str)] = match command.get_name() {
        _ if is_program => &ENVIRONMENT,
        "serve" => &ENVIRONMENT,
        "doctor" => &DOCTOR_ENVIRONMENT,
        "top" => &TOP_ENVIRONMENT,
        _ => &[],
    };
    if !environment.is_empty() {
        page.control("SH", ["ENVIRONMENT"]);
        environment.iter().for_each(|(name, meaning)| item(&mut page, vec![bold(*name)], meaning));
    }
    if is_program || command.get_arguments().any(|arg| arg.get_id() == "config") {
        page.control("SH", ["FILES"]);
        FILES.iter().for_each(|(name, meaning)| item(&mut page, vec![italic(*name)], meaning));
    }
    page.control("SH", ["EXAMPLES"]).control("EX", []);
    help.examples.iter().for_each(|line| {
        page.text([roman(line)]);
    });
    page.control("EE", []);
    page.control("SH", ["SEE ALSO"]);
    for (index, other) in see_also.iter().enumerate() {
        let mut line = reference(other);
        line.extend((index + 1 < see_also.len()).then(|| roman(",")));
        page.text(line);
    }
    page.render()
}

/// Formats a reference to a page, such as `hallpass-serve(1)`.
fn reference(name: &str) -> Vec<Inline> {
    vec![bold(name), roman(format!("({SECTION})"))]
}

/// Formats the usage line of `--help` with the name in bold.
fn synopsis(command: &Command) -> Vec<Inline> {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let name = command.get_bin_name().unwrap_or(PROGRAM);
    vec![bold(name), roman(usage.strip_prefix(name).unwrap_or(usage))]
}

/// Adds a list entry: a term and its description.
fn item(page: &mut Roff, head: Vec<Inline>, text: &str) {
    page.control("TP", []).text(head).text([roman(text)]);
}

/// Adds an option or an argument with its value, its help text, its choices and its default.
fn option(page: &mut Roff, arg: &Arg) {
    let mut head = Vec::new();
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    for (index, flag) in short.into_iter().chain(long).enumerate() {
        head.extend((index > 0).then(|| roman(", ")));
        head.push(bold(flag));
    }
    if arg.get_action().takes_values() {
        head.extend((!head.is_empty()).then(|| roman(" ")));
        let names = arg.get_value_names().unwrap_or_default();
        head.push(italic(names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")));
    }
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default() + ".";
    // The values of a flag are true and false, which are not part of the command line.
    if arg.get_action().takes_values() {
        let values = arg.get_possible_values();
        let words: Vec<&str> =
            values.iter().filter(|value| !value.is_hide_set()).map(|value| value.get_name()).collect();
        if !words.is_empty() {
            text += &format!(" One of {}.", words.join(", "));
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !defaults.is_empty() {
            text += &format!(" Default: {}.", defaults.join(", "));
        }
    }
    item(page, head, &text);
}

/// Adds a paragraph of a help text: lines of `name   meaning` become a list, all others are text.
fn describe(page: &mut Roff, paragraph: &[String]) {
    let items: Option<Vec<_>> = paragraph.iter().map(|line| line.split_once("  ")).collect();
    match items {
        Some(items) => {
            for (name, meaning) in items {
                item(page, vec![bold(name.trim())], &format!("{}.", meaning.trim()));
            }
        }
        None => {
            page.control("PP", []);
            paragraph.iter().for_each(|line| {
                page.text([roman(line)]);
            });
        }
    }
}

/// The part of a help text after the options, divided by subject.
#[derive(Default)]
struct Help {
    paragraphs: Vec<Vec<String>>,
    signals: Option<String>,
    exit_status: Option<String>,
    examples: Vec<String>,
}

impl Help {
    fn of(command: &Command) -> Self {
        let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut help = Self::default();
        for paragraph in text.split("\n\n") {
            let joined = || paragraph.split('\n').collect::<Vec<_>>().join(" ");
            if let Some(examples) = paragraph.strip_prefix(EXAMPLES) {
                help.examples =
                    examples.trim_start_matches('\n').lines().map(|line| line.trim().to_owned()).collect();
            } else if paragraph.starts_with(EXIT_STATUS) {
                help.exit_status = Some(joined()[EXIT_STATUS.len()..].to_owned());
            } else if paragraph.starts_with(SIGNALS) {
                help.signals = Some(joined()[SIGNALS.len()..].to_owned());
            } else if !paragraph.is_empty() {
                help.paragraphs.push(paragraph.lines().map(str::to_owned).collect());
            }
        }
        help
    }
}
