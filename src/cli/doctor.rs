//! `hallpass doctor`: tests whether calls will work, from a client's network or on the relay itself.

mod relay;

use std::process::ExitCode;

use super::args::DoctorArgs;
use super::credentials;
use super::output::{FAILURE, USAGE, fail, print, print_stderr};
use super::progress_line::ProgressLine;
use crate::doctor::json::json;
use crate::doctor::login::Login;
use crate::doctor::markdown::markdown;
use crate::doctor::proxy::{BadProxy, Proxy};
use crate::doctor::rung::rungs;
use crate::doctor::table::{WIDTH, table};
use crate::doctor::{Options, Progress, Status};

/// Where browsers and other programs find their proxy. The first that is set counts.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Tests the relay and prints the report. The exit status is 0 if calls will work.
pub(super) fn run(args: DoctorArgs) -> ExitCode {
    let mut line = ProgressLine::new(!args.quiet);
    let report = if args.urls.is_empty() {
        relay::examine(&args.relay, &mut line)
    } else {
        let options = match options(&args) {
            Ok(options) => options,
            Err(code) => return code,
        };
        crate::doctor::run(options, &mut line)
    };
    line.clear();
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            return fail(&format!("cannot run the test: {error}"), "close other programs and try again");
        }
    };
    let text = match (args.json, args.markdown) {
        (true, _) => json(&report),
        (_, true) => markdown(&report),
        _ => table(&report),
    };
    let printed = print(text.as_bytes());
    if report.diagnosis.works { printed } else { ExitCode::from(FAILURE) }
}

/// Reads secret and proxy.
///
/// # Errors
/// The exit status of wrong usage; the error is already printed.
fn options(args: &DoctorArgs) -> Result<Options, ExitCode> {
    let login = match &args.credentials {
        Some(pair) => match pair.0.parse::<Login>() {
            Ok(login) => login,
            Err(error) => return Err(usage(&format!("--credentials: {error}"), "see --help")),
        },
        None => {
            let secret = credentials::shared_secret(None, args.secret_file.as_deref());
            Login::Secret(secret.map_err(|_| ExitCode::from(USAGE))?)
        }
    };
    let now = crate::system::clock::unix_seconds();
    if let Err(error) = login.credentials(now) {
        return Err(usage(&error.to_string(), "see --help"));
    }
    let rungs = rungs(&args.urls, args.exact);
    let hosts: Vec<&str> = rungs.iter().map(|rung| rung.host.as_str()).collect();
    Ok(Options { proxy: proxy(args, &hosts)?, rungs, login })
}

fn usage(message: &str, next_step: &str) -> ExitCode {
    fail(message, next_step);
    ExitCode::from(USAGE)
}

/// Returns the proxy of the command line, else that of the environment unless `NO_PROXY` excepts the relays.
///
/// # Errors
/// The exit status if the one of the command line cannot be used; the error is already printed.
fn proxy(args: &DoctorArgs, hosts: &[&str]) -> Result<Option<Proxy>, ExitCode> {
    if args.no_proxy {
        return Ok(None);
    }
    if let Some(url) = &args.proxy {
        let proxy = url.0.parse().map(Some);
        return proxy.map_err(|error: BadProxy| usage(&format!("--proxy: {error}"), "see --help"));
    }
    let set = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some((name, value)) = PROXY_VARIABLES.iter().find_map(|name| Some((name, set(name)?))) else {
        return Ok(None);
    };
    let excepted = ["NO_PROXY", "no_proxy"].iter().find_map(set).unwrap_or_default();
    if hosts.iter().all(|host| is_excepted(&excepted, host)) {
        return Ok(None);
    }
    let proxy = value.parse::<Proxy>();
    if let Err(error) = &proxy {
        print_stderr(&format!("hallpass: warning: the proxy in {name} is not tested: {error}\n"));
    }
    Ok(proxy.ok())
}

/// Whether `NO_PROXY` lists the host or a domain above it.
fn is_excepted(list: &str, host: &str) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.trim_start_matches('.').to_ascii_lowercase();
        entry == "*" || host == entry || host.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.'))
    })
}

impl Progress for ProgressLine {
    fn update(&mut self, status: &Status) {
        self.show(|| {
            let text = format!(
                "testing, {} s: {} of {} done; waiting for {}",
                status.elapsed.as_secs(),
                status.done,
                status.of,
                status.waiting.join(", ")
            );
            // A longer line would wrap, and only its last row would be overwritten.
            text.chars().take(WIDTH - 1).collect()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_from_the_proxy() {
        let list = "localhost, .school.test,example.org";
        for host in ["localhost", "a.school.test", "school.test", "example.org", "relay.example.org"] {
            assert!(is_excepted(list, host), "{host}");
        }
        assert!(!is_excepted(list, "myexample.org") && !is_excepted("", "a") && is_excepted("*", "a"));
    }
}
