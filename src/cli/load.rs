//! `hallpass load`: puts load on a TURN server and reports the result.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

mod lesson;

use super::args::{LessonArgs, LoadAction, LoadArgs, LoadTransport, LoadVia};
use super::credentials;
use super::output::{FAILURE, USAGE, fail, print};
use super::progress_line::ProgressLine;
use crate::base::transport::Transport;
use crate::load::options::{Action, Connect, Options, Target, Via};
use crate::load::report::Report;
use crate::load::{Progress, Status};
use crate::system::{clock, limits};

/// Lifetime of a run's credentials; longer than any run.
const TTL_SECONDS: u32 = 2 * 86_400;

/// Runs the load and prints the report.
pub(super) fn run(args: &LoadArgs) -> ExitCode {
    let action = match args.action {
        LoadAction::Lesson => return lesson::run(args),
        _ if args.scenario.is_some() => return lesson::run(args),
        LoadAction::Traffic => Action::Traffic,
        LoadAction::Setups => Action::Setups,
        LoadAction::Bindings => Action::Bindings,
        LoadAction::Handshakes => Action::Handshakes,
        LoadAction::Idle => Action::Idle,
        LoadAction::Churn => Action::Churn,
    };
    if args.lesson != LessonArgs::default() {
        fail(
            "there is an option of lesson, but the action is another one",
            "write: hallpass load lesson ...",
        );
        return ExitCode::from(USAGE);
    }
    let options = match options(args, action) {
        Ok(options) => options,
        Err(code) => return code,
    };
    // Over TCP and TLS every client needs a descriptor.
    limits::raise_open_files();
    let mut line = ProgressLine::new(!args.quiet && !args.json);
    let result = crate::load::run(&options, clock::monotonic_nanos, &mut line);
    line.clear();
    let report = match result {
        Ok(report) => report,
        Err(error) => return fail(&format!("cannot put load on {}: {error}", args.server), "see --help"),
    };
    let text = if args.json { report.to_json() + "\n" } else { report.to_string() };
    let printed = print(text.as_bytes());
    if has_succeeded(&report, options.action) { printed } else { ExitCode::from(FAILURE) }
}

/// Whether there is a measurement and no error. Lost packets are not errors.
fn has_succeeded(report: &Report, action: Action) -> bool {
    let something = match action {
        Action::Traffic | Action::Idle => report.allocations > 0,
        _ => report.operations.is_some_and(|operations| operations > 0),
    };
    something && report.errors.is_empty()
}

fn options(args: &LoadArgs, action: Action) -> Result<Options, ExitCode> {
    let (username, password) = login(args)?;
    let transport = match action {
        Action::Handshakes => Transport::Tls,
        _ => transport(args.transport),
    };
    if action == Action::Traffic && args.from_client == 0.0 && args.from_peer == 0.0 {
        return Err(fail("both directions send 0 packets", "set --from-client or --from-peer above 0"));
    }
    Ok(Options {
        action,
        connect: Connect {
            routes: vec![target(args, &args.server, transport)?],
            via: via(args),
            trains: args.trains,
            peer_address: args.peer_address,
            own_sockets: args.own_sockets,
        },
        username,
        password,
        server_pids: server_pids(args),
        duration: Duration::from_secs_f64(args.duration),
        warm_up: Duration::from_secs_f64(args.warm_up),
        allocations: args.allocations,
        concurrency: args.concurrency,
        window: args.window.max(args.burst),
        rates: [args.from_client, args.from_peer],
        size: args.size as usize,
        burst: args.burst,
        saturate: args.saturate,
        total: args.total,
    })
}

fn transport(of: LoadTransport) -> Transport {
    match of {
        LoadTransport::Udp => Transport::Udp,
        LoadTransport::Tcp => Transport::Tcp,
        LoadTransport::Tls => Transport::Tls,
    }
}

fn via(args: &LoadArgs) -> Via {
    match args.via {
        LoadVia::Channel => Via::Channel,
        LoadVia::Indication => Via::Indication,
    }
}

/// Returns the way to `server` by this transport.
///
/// # Errors
/// The exit status if the name cannot be resolved; the error is already printed.
fn target(args: &LoadArgs, server: &str, transport: Transport) -> Result<Target, ExitCode> {
    let host = server.rsplit_once(':').map_or("", |(host, _)| host);
    Ok(Target {
        address: resolve(server)?,
        transport,
        tls_name: args.tls_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned()),
        insecure: args.insecure,
    })
}

/// Returns the processes of the server. One that is listed twice is counted once.
fn server_pids(args: &LoadArgs) -> Vec<u32> {
    let all = args.server_pid.iter().flat_map(|pids| pids.0.iter().copied());
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

fn resolve(server: &str) -> Result<SocketAddr, ExitCode> {
    let found = server.to_socket_addrs().map(|mut addresses| addresses.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(fail(
            &format!("{server} resolves to no address"),
            "write an address instead: --server IP:PORT",
        )),
        Err(error) => Err(fail(
            &format!("cannot resolve {server}: {error}"),
            "write it as HOST:PORT, such as relay.example.org:3479 or [2001:db8::1]:3479",
        )),
    }
}

fn login(args: &LoadArgs) -> Result<(String, String), ExitCode> {
    if let (Some(name), Some(password)) = (&args.username, &args.password) {
        return Ok((name.clone(), password.clone()));
    }
    let secret = credentials::shared_secret(args.secret.as_deref(), args.secret_file.as_deref())?;
    Ok(credentials::of_secret(&secret, &args.user, TTL_SECONDS).into_pair())
}

impl Progress for ProgressLine {
    fn update(&mut self, status: &Status) {
        self.show(|| {
            let Status { phase, done, of, missing, elapsed } = *status;
            let of = if of == 0 { String::new() } else { format!(" of {of}") };
            let lost = if missing == 0 { String::new() } else { format!(", {missing} in flight or lost") };
            format!("{phase}: {done}{of}{lost}, {:.0} s", elapsed.as_secs_f64())
        });
    }
}
