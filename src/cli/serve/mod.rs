//! `hallpass serve`: runs the server. The only module that connects all others.

mod acme;
mod addresses;
mod census;
mod client_names;
mod compared;
mod configuration;
mod control;
mod drain;
pub(super) mod kernel;
mod listeners;
pub(super) mod listening;
mod metrics;
mod now;
mod outsiders;
mod pages;
mod pressure;
mod refusals;
pub(super) mod relays;
mod reload;
mod running_server;
mod sessions;
mod settings;
mod site;
mod start_error;
mod tls;
mod welcome;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::args::ServeArgs;
use super::output::{fail, print_if_open};
use crate::acme::Renewal;
use crate::admin::Readiness;
use crate::config::{Config, LogFormat};
use crate::net;
use crate::system::logging::{LevelSwitch, LogSettings};
use crate::system::systemd::Notifier;
use crate::system::{clock, entropy, limits, logging};
use crate::turn::counters::Counters;
use crate::turn::server::Server;
use crate::turn::shared::Shared;
use acme::Redirects;
use client_names::ClientNames;
use configuration::Source;
use control::ControlSocket;
use drain::DrainState;
use listeners::Listeners;
use listening::Awaited;
use metrics::ServerMetrics;
use metrics::reload::Reloads;
use now::now;
use outsiders::Outsiders;
use pages::{Shown, Starting};
use pressure::Watch;
use refusals::{Comparison, Refusals};
use relays::Relays;
use running_server::RunningServer;
use settings::{HostNames, Machine};
use site::Face;
use start_error::{CHECK_UNIT_LIMITS, REPORT_BUG, StartError, bind_failed, no_randomness};
use tls::Certificate;

/// Limit on the average number of log lines per second. The end of a call is one line, so normal load stays far below.
const LOG_LINES_PER_SECOND: u32 = 1000;

/// Serves until a signal or a failure ends the server.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    match start(Source::of(args)) {
        Ok(code) => code,
        Err(StartError { message, next_step }) => fail(&message, &next_step),
    }
}

/// Reads the configuration, starts the log and serves.
fn start(source: Source) -> Result<ExitCode, StartError> {
    let config = source.read()?;
    let log = logging::start(&LogSettings {
        format: match config.log.format {
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        },
        level: config.log.level.as_str().to_owned(),
        lines_per_second: LOG_LINES_PER_SECOND,
    })
    .map_err(|error| StartError::new(&error, error.next_step()))?;
    let files = limits::raise_open_files();
    tracing::debug!(before = files.before, after = files.after, "descriptor limit");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        StartError::new(format!("cannot start the control thread's runtime: {error}"), CHECK_UNIT_LIMITS)
    })?;
    runtime.block_on(serve(source, config, log.level()))
}

/// Serves the admin pages, sets up everything else meanwhile, and then serves clients.
async fn serve(source: Source, config: Config, level: LevelSwitch) -> Result<ExitCode, StartError> {
    let site = Face::new(tokio::runtime::Handle::current(), entropy::secret().map_err(no_randomness)?);
    let shown = Arc::new(Shown { checks: site.results(), ..Shown::default() });
    let readiness = Readiness::default();
    let starting = Starting::new(&readiness);
    if let Some(admin) = &config.admin {
        pages::serve(admin, &shown, readiness.clone())?;
    }
    let (finished, start) = oneshot::channel();
    if let Some(address) = config.site.address {
        site.listen(address)?;
    }
    let set_up = move || {
        // If the receiver is gone, the process is about to exit.
        let _ = finished.send(set_up((source, config), level, starting, site, shown));
    };
    // Reading files and opening sockets blocks, so it has its own thread: the admin pages answer meanwhile.
    thread::Builder::new()
        .name("start".to_owned())
        .spawn(set_up)
        .map_err(|error| StartError::new(format!("cannot start a thread: {error}"), CHECK_UNIT_LIMITS))?;
    let start =
        start.await.map_err(|_| StartError::new("the start thread ended without a result", REPORT_BUG))?;
    Ok(start?.run(readiness).await)
}

/// Sets up certificate, listeners and workers, in this order. Blocks.
fn set_up(
    (source, config): (Source, Config),
    level: LevelSwitch,
    starting: Starting,
    site: Arc<Face>,
    shown: Arc<Shown>,
) -> Result<RunningServer, StartError> {
    let addresses = addresses::at_start();
    // Printed before a certificate error ends the start, so that the operator sees both.
    let fit_check = configuration::refuse_misfits(&config, &source, &addresses);
    let renewal = Renewal::default();
    let certificate = Certificate::first(&config, renewal.pending()).map_err(|message| {
        StartError::new(message, "do that, or correct cert and key in [tls] or [admin]")
    })?;
    shown.certificate.set(certificate.store_for_admin());
    fit_check?;
    site.set(&config, site::files_at_start(&config), certificate.configured(&config));
    // Before the listeners: two servers with one control socket must not share the clients.
    let control = config.control_socket.clone().or_else(control::default_path);
    let control = control.map(|path| ControlSocket::open(&path)).transpose()?;
    drop(starting.certificate);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = settings::workers(&config, cores);
    let mut network = settings::network(&config, workers, &addresses);
    let (sockets, lacks_ipv6) = listening::bind(&mut network).map_err(|error| bind_failed(&error))?;
    let redirects = Redirects::bind(&config, renewal.pending(), certificate.choice())?;
    drop(starting.listeners);
    kernel::log(&config, &sockets, source.is_built_in());

    let mut names = HostNames::default();
    let machine = Machine { workers, addresses, page_secret: site.secret().to_owned() };
    let relays = Relays::new(&config, &machine.addresses);
    let protocol = settings::protocol(&config, &machine, relays.addresses(), &mut names)
        .map_err(|message| StartError::new(message, "configure fewer hosts"))?;
    if source.is_built_in() {
        // A closed standard output does not stop the server.
        print_if_open(format!("{}\n", welcome::text(&config, certificate.fingerprint.as_deref())).as_bytes());
    }
    let shared = Arc::new(Shared::new(&entropy::seed().map_err(no_randomness)?));
    let protocol = Arc::new(protocol);
    let counters: Vec<Arc<Counters>> = sockets.iter().map(|_| Arc::default()).collect();
    let mut servers = Vec::new();
    for counters in &counters {
        let seed = entropy::seed().map_err(no_randomness)?;
        servers.push(Server::new(Arc::clone(&protocol), Arc::clone(&shared), Arc::clone(counters), seed));
    }
    let chooser = certificate.chooser(&config.web).map_err(|message| StartError::new(message, REPORT_BUG))?;
    let web = settings::web(&config.web, Arc::clone(&site) as _);
    let workers = net::spawn(&network, sockets, servers, now, Some(chooser), Some(web))
        .map_err(|error| StartError::new(format!("the workers do not start: {error}"), CHECK_UNIT_LIMITS))?;
    drop(starting.workers);

    let hosts = Arc::new(ArcSwap::from_pointee(names.all().to_vec()));
    let drain = DrainState::default();
    let reloads = Arc::new(Reloads::at_start(clock::unix_seconds()));
    let watch = Watch::new(Arc::clone(workers.admission()), config.limits.memory_mib);
    let names_shown = match config.privacy {
        true => ClientNames::private(entropy::key().map_err(no_randomness)?),
        false => ClientNames::default(),
    };
    shown.sessions.set(workers.sessions(), names_shown.clone());
    let client_names = names_shown.clone();
    shown.set_limits(&config);
    let refusals = Refusals::new(
        shown.refusals.clone(),
        names_shown,
        protocol,
        counters.clone(),
        Arc::clone(&hosts),
        Comparison::new(source.name(), &config),
        clock::unix_seconds(),
    );
    shown.metrics.set(ServerMetrics {
        protocol: counters,
        network: workers.counters(),
        admission: Arc::clone(workers.admission()),
        drain: drain.progress(),
        shared: Arc::clone(&shared),
        hosts: Arc::clone(&hosts),
        certificates: certificate.choice(),
        acme: renewal.status(),
        reloads: Arc::clone(&reloads),
        limits: Arc::clone(&shown.limits),
        wanted: Arc::clone(&shown.wanted),
        is_private: client_names.are_private(),
        relayed: Default::default(),
    });
    let notifier = Notifier::from_env();
    Ok(RunningServer {
        source,
        config,
        machine,
        relays,
        awaited: Awaited::new(lacks_ipv6),
        is_ready: false,
        certificate,
        renewal,
        redirects,
        reloads,
        site,
        workers,
        names,
        hosts,
        notifier,
        shared,
        drain,
        watch,
        outsiders: Outsiders::default(),
        refusals,
        shown,
        control,
        client_names,
        listeners: Listeners::new(&network),
        level,
    })
}
