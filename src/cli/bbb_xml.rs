//! `hallpass bbb-xml`: the list of STUN and TURN servers that BigBlueButton sends to browsers.

mod compare;
mod document;
mod install;
mod merge;
mod reader;
mod relay;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use super::args::BbbXmlArgs;
use super::endpoints::{choose_host, default_config, load_config};
use super::output::{USAGE, fail, print, print_stderr, shell_word};
use crate::base::text::clean;
use crate::config::{Config, Exposure};

pub(super) use compare::{Difference, compare};
pub(super) use reader::{Servers, read};
pub(super) use relay::Relay;

use install::Place;
use merge::Merged;
use reader::read_stream;

/// What to do about a file that bbb-web would not load.
const ANEW: &str = "correct the file; or write it anew with --output, --replace and one --config for each relay, because \
                    --replace keeps no other server";
const AS_ROOT: &str = "run this command as root";
/// Longest line with text of the file, in characters.
const LINE_MAX: usize = 500;

/// Prints the file, writes it, or compares an existing one with the configurations.
pub(super) fn run(mut args: BbbXmlArgs) -> ExitCode {
    if args.config.is_empty() {
        args.config.push(default_config());
    }
    let relays = match relays(&args) {
        Ok(relays) => relays,
        Err(code) => return code,
    };
    match (&args.verify, &args.output) {
        (Some(path), _) => verify(path, &relays, &args),
        (None, Some(path)) => write(path, &relays, &args),
        (None, None) => match document::document(&relays) {
            Ok(text) => print(text.as_bytes()),
            Err(error) => fail(&format!("cannot write XML: {error}"), "report this as a bug"),
        },
    }
}

/// Reads the configurations, and reports what is left out of the list.
///
/// # Errors
/// The exit status; the error is already printed.
fn relays(args: &BbbXmlArgs) -> Result<Vec<Relay>, ExitCode> {
    let (configs, names, hosts) = (args.config.len(), args.public_name.len(), args.host.len());
    let fits = |count: usize| count <= 1 && configs == 1 || count == 0 || count == configs;
    // One configuration may serve several relays that differ in nothing but their names.
    if !(fits(names) || configs == 1) || !(fits(hosts) || hosts == 1) {
        let message = format!(
            "{configs} times --config, {names} times --public-name and {hosts} times --host do not fit together"
        );
        fail(
            &message,
            "write --public-name and --host once for each --config, in the same order, or leave them out",
        );
        return Err(ExitCode::from(USAGE));
    }
    let mut relays: Vec<(&Path, Relay)> = Vec::new();
    for number in 0..configs.max(names) {
        let Some(path) = args.config.get(number).or_else(|| args.config.last()) else { continue };
        let config = load_config(path)?;
        let host = args.host.get(number).or_else(|| args.host.first());
        let host = choose_host(&config, host.map(String::as_str))?;
        let name = match args.public_name.get(number) {
            Some(name) => name.clone(),
            None => name_of(&config, path)?,
        };
        let relay = Relay::new(&config, host, &name, Some(args.ttl.to_string()), args.all);
        report_left_out(path, &relay);
        if relay.wanted.is_empty() {
            let message = format!("{}: there is no URL that browsers could use", path.display());
            return Err(fail(&message, "add a listener, or `public` to one; see the lines above"));
        }
        if let Some((other, _)) = relays.iter().find(|(_, other)| is_mixed_up(other, &relay)) {
            let message =
                format!("the relays of {} and {} have the same name or URL", other.display(), path.display());
            let next =
                "write the name of each as --public-name NAME, once for each --config, in the same order";
            return Err(fail(&message, next));
        }
        relays.push((path, relay));
    }
    Ok(relays.into_iter().map(|(_, relay)| relay).collect())
}

/// Whether it could not be told which of the two relays an entry belongs to.
fn is_mixed_up(one: &Relay, other: &Relay) -> bool {
    one.name == other.name || one.wanted.iter().any(|endpoint| other.serves(endpoint))
}

/// Returns the relay's name without --public-name: the realm, else the host of the first `public`.
///
/// # Errors
/// The exit status if there is neither; the error is already printed.
fn name_of(config: &Config, path: &Path) -> Result<String, ExitCode> {
    let is_name = |name: &str| name.contains('.') && super::args::server_name(name).is_ok();
    let public = || {
        let all = config.listen.iter().flat_map(|listener| listener.public.iter().flatten());
        all.map(|public| public.host.clone()).next()
    };
    let realm = Some(config.realm.clone()).filter(|realm| is_name(realm));
    realm.or_else(public).ok_or_else(|| {
        let message = format!("{}: the realm {:?} is not the name of a relay", path.display(), config.realm);
        fail(&message, "add the name under which browsers reach the relay: --public-name relay.example.org")
    })
}

fn report_left_out(path: &Path, relay: &Relay) {
    let path = path.display();
    for (endpoint, why) in &relay.left_out {
        print_stderr(&format!("{path}: left out {}: {why}\n", endpoint.turn_url()));
    }
    for listener in &relay.hidden {
        print_stderr(&format!(
            "{path}: left out {listener}: only a proxy may connect to it; write the proxy's URL as `public` in that [[listen]]\n"
        ));
    }
}

/// Writes the file if it has to change, and reports what changed.
fn write(path: &Path, relays: &[Relay], args: &BbbXmlArgs) -> ExitCode {
    match try_to_write(path, relays, args) {
        Ok(report) => {
            let code = print(report.as_bytes());
            if let Some((message, next)) = install::unreadable(path, &args.bbb_user) {
                return fail(&message, &next);
            }
            code
        }
        Err((message, next)) => fail(&message, &next),
    }
}

/// Returns the report.
///
/// # Errors
/// What is wrong, and the next step. Then the file is unchanged.
fn try_to_write(path: &Path, relays: &[Relay], args: &BbbXmlArgs) -> Result<String, install::Failure> {
    let shown = path.display();
    let place = Place::find(path)?;
    let old = match place.text() {
        Ok(old) => old,
        Err(_) if args.replace => None,
        Err(reason) => {
            let next = if is_denied(path) { AS_ROOT } else { ANEW };
            return Err((about(path, &reason).trim_end().to_owned(), format!("nothing was changed: {next}")));
        }
    };
    let merged = match &old {
        Some(old) if !args.replace => merge::merge(old, relays)
            .map_err(|reason| (format!("{shown}: {reason}"), format!("nothing was changed: {ANEW}")))?,
        _ => {
            let text = document::document(relays)
                .map_err(|error| (format!("cannot write XML: {error}"), "report this as a bug".to_owned()))?;
            let lost = old.as_ref().map(|old| merge::lost(old, relays)).unwrap_or_default();
            let lost = lost.iter().map(|url| format!("removed {url}: --replace"));
            let urls = relays.iter().flat_map(|relay| {
                relay.stun().into_iter().chain(relay.wanted.iter().map(|endpoint| endpoint.turn_url()))
            });
            Merged {
                changes: lost.chain(urls.map(|url| format!("lists {url}"))).collect(),
                kept: Vec::new(),
                text,
            }
        }
    };
    if !place.write(old.as_deref(), &merged.text, &args.bbb_user)? {
        return Ok(format!("{shown}: unchanged\n"));
    }
    let mut report = String::new();
    for line in merged.changes.into_iter().chain(merged.kept.iter().map(|url| format!("kept {url}"))) {
        report.push_str(&about(path, &line));
    }
    if old.as_deref() == Some(&merged.text) {
        report.push_str(&format!("{shown}: owner and mode corrected\n"));
    }
    report.push_str(&format!(
        "{shown}: written; bbb-web must be restarted, best while no meeting is running: systemctl restart bbb-web\n"
    ));
    Ok(report)
}

/// Whether the path is a pipe that a shell or a parent opened: `-`, /dev/stdin or /dev/fd/N.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin") || path.starts_with("/dev/fd")
}

/// A line about the file. What is written in the file must not control a terminal.
fn about(path: &Path, text: &str) -> String {
    format!("{}: {}\n", path.display(), clean(text, LINE_MAX))
}

fn is_denied(path: &Path) -> bool {
    // To open a FIFO would wait for a writer.
    path.is_file() && File::open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Compares a file with the configurations.
fn verify(path: &Path, relays: &[Relay], args: &BbbXmlArgs) -> ExitCode {
    let shown = path.display();
    let is_stream = is_stream(path);
    let servers = match if is_stream { read_stream(path) } else { read(path) } {
        Ok(servers) => servers,
        Err(reason) => {
            let next = match path.exists() {
                _ if is_stream => "give it a list that bbb-web would load".to_owned(),
                _ if is_denied(path) => AS_ROOT.to_owned(),
                true => ANEW.to_owned(),
                false => format!(
                    "BigBlueButton has it as /etc/bigbluebutton/turn-stun-servers.xml: run this command there, or here with a copy of \
                     it. If there is none yet, {}",
                    remedy(path, args)
                ),
            };
            return fail(about(path, &reason).trim_end(), &next);
        }
    };
    let mut has_fault = false;
    let mut lacking = String::new();
    for relay in relays {
        let differences = compare(&servers, relay);
        for difference in &differences {
            let note = if difference.is_fault() { "" } else { "note: " };
            print_stderr(&about(path, &format!("{note}{difference}")));
            has_fault |= difference.is_fault();
        }
        let missing = relay.wanted.iter().filter(|endpoint| {
            differences.iter().any(|one| *one == Difference::Missing(endpoint.turn_url()))
        });
        match missing.count() {
            0 => {}
            count => {
                let all = relay.wanted.len();
                lacking.push_str(&format!("; of {} it lists {} of {all} URLs", relay.name, all - count));
            }
        }
    }
    for url in compare::others(&servers, relays) {
        print_stderr(&about(path, &format!("note: {url}: another server, not compared")));
    }
    let exposure = Exposure::of_file(path).filter(|_| !is_stream);
    if let Some(exposure) = &exposure {
        print_stderr(&format!("{}, which holds a secret\n", exposure.message));
    }
    if let Some((message, next)) = install::unreadable(path, &args.bbb_user).filter(|_| !is_stream) {
        return fail(&message, &next);
    }
    if has_fault {
        return fail(&format!("{shown} differs from the configuration"), &remedy(path, args));
    }
    if exposure.is_some() {
        return fail(&format!("{shown} has the wrong mode"), &remedy(path, args));
    }
    print(format!("{shown}: matches the configuration{lacking}\n").as_bytes())
}

/// The command that corrects the file and keeps what it says about other servers.
fn remedy(path: &Path, args: &BbbXmlArgs) -> String {
    let mut line = "hallpass bbb-xml".to_owned();
    let mut add = |option: &str, value: &str| line.push_str(&format!(" --{option} {}", shell_word(value)));
    for config in &args.config {
        add("config", &config.display().to_string());
    }
    args.public_name.iter().for_each(|name| add("public-name", name));
    args.host.iter().for_each(|host| add("host", host));
    if args.ttl != super::args::BBB_XML_TTL {
        add("ttl", &args.ttl.to_string());
    }
    if args.bbb_user != super::args::BBB_USER {
        add("bbb-user", &args.bbb_user);
    }
    match is_stream(path) {
        true => add("output", "FILE"),
        false => add("output", &path.display().to_string()),
    }
    let every = if args.all { " --all" } else { "" };
    format!("this corrects it and keeps other servers: {line}{every}; then restart bbb-web")
}
