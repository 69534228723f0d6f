//! `hallpass load`: puts load on a TURN server and reports the result.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use super::args::{LoadAction, LoadArgs, LoadTransport, LoadVia};
use super::credentials;
use super::output::{FAILURE, fail, print};
use super::progress_line::ProgressLine;
use crate::base::transport::Transport;
use crate::load::options::{Action, Options, Target, Via};
use crate::load::report::Report;
use crate::load::{Progress, Status};
use crate::system::{clock, limits};

/// Lifetime of a run's credentials; longer than any run.
const TTL_SECONDS: u32 = 2 * 86_400;

/// Runs the load and prints the report.
pub(super) fn run(args: &LoadArgs) -> ExitCode {
    let options = match options(args) {
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

fn options(args: &LoadArgs) -> Result<Options, ExitCode> {
    let address = resolve(&args.server)?;
    let host = args.server.rsplit_once(':').map_or("", |(host, _)| host);
    let (username, password) = login(args)?;
    let transport = match (args.action, args.transport) {
        (LoadAction::Handshakes, _) | (_, LoadTransport::Tls) => Transport::Tls,
        (_, LoadTransport::Tcp) => Transport::Tcp,
        (_, LoadTransport::Udp) => Transport::Udp,
    };
    if args.action == LoadAction::Traffic && args.from_client == 0.0 && args.from_peer == 0.0 {
        return Err(fail("both directions send 0 packets", "set --from-client or --from-peer above 0"));
    }
    Ok(Options {
        action: match args.action {
            LoadAction::Traffic => Action::Traffic,
            LoadAction::Setups => Action::Setups,
            LoadAction::Bindings => Action::Bindings,
            LoadAction::Handshakes => Action::Handshakes,
            LoadAction::Idle => Action::Idle,
            LoadAction::Churn => Action::Churn,
        },
        target: Target {
            address,
            transport,
            tls_name: args.tls_name.clone().unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned()),
            insecure: args.insecure,
        },
        username,
        password,
        // A process that is listed twice is counted once.
        server_pids: args
            .server_pid
            .iter()
            .flat_map(|pids| pids.0.iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        duration: Duration::from_secs_f64(args.duration),
        warm_up: Duration::from_secs_f64(args.warm_up),
        allocations: args.allocations,
        concurrency: args.concurrency,
        window: args.window.max(args.burst),
        rates: [args.from_client, args.from_peer],
        size: args.size as usize,
        burst: args.burst,
        trains: args.trains,
        via: match args.via {
            LoadVia::Channel => Via::Channel,
            LoadVia::Indication => Via::Indication,
        },
        saturate: args.saturate,
        total: args.total,
        peer_address: args.peer_address,
        own_sockets: args.own_sockets,
    })
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
