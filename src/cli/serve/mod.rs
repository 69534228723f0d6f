//! `hallpass serve`: runs the server. The only module that connects all others.

mod addresses;
mod client_names;
mod configuration;
mod drain;
pub(super) mod kernel;
pub(super) mod listening;
mod metrics;
mod pages;
mod pressure;
mod refusals;
pub(super) mod relays;
mod sessions;
mod settings;
mod site;
mod start_error;
mod tls;
mod welcome;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval};

use super::args::ServeArgs;
use super::output::fail;
use super::this_host;
use crate::admin::Readiness;
use crate::base::time::{self, Now};
use crate::config::{self, Config, LogFormat};
use crate::net::front::first_bytes::Site;
use crate::net::{self, Command, Handle};
use crate::system::addresses::{self as machine, Addresses};
use crate::system::logging::LogSettings;
use crate::system::systemd::Notifier;
use crate::system::{clock, entropy, limits, logging};
use crate::turn::counters::Counters;
use crate::turn::server::Server;
use crate::turn::shared::Shared;
use client_names::ClientNames;
use configuration::Source;
use drain::{DrainState, Remaining};
use listening::Awaited;
use metrics::ServerMetrics;
use metrics::reload::Reloads;
use pages::{Shown, Starting};
use pressure::Watch;
use refusals::Refusals;
use relays::Relays;
use settings::{HostNames, Machine};
use start_error::{CHECK_UNIT_LIMITS, REPORT_BUG, StartError, bind_failed, no_randomness};
use tls::Certificate;

/// Interval of the checks for the end of a drain, for failed workers and for lost relay addresses.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of the checks of memory and descriptors.
const MEMORY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
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
    let _log = logging::start(&LogSettings {
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
    runtime.block_on(serve(source, config))
}

/// Serves the admin pages, sets up everything else meanwhile, and then serves clients.
async fn serve(source: Source, config: Config) -> Result<ExitCode, StartError> {
    let (readiness, shown) = (Readiness::default(), Arc::<Shown>::default());
    let starting = Starting::new(&readiness);
    if let Some(admin) = &config.admin {
        pages::serve(admin, &shown, readiness.clone())?;
    }
    let (finished, start) = oneshot::channel();
    let site = site::built_in(tokio::runtime::Handle::current());
    let set_up = move || {
        // If the receiver is gone, the process is about to exit.
        let _ = finished.send(set_up(source, config, starting, site, shown));
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
    source: Source,
    config: Config,
    starting: Starting,
    site: Arc<dyn Site>,
    shown: Arc<Shown>,
) -> Result<RunningServer, StartError> {
    let addresses = addresses::at_start();
    // Printed before a certificate error ends the start, so that the operator sees both.
    let fit_check = configuration::refuse_misfits(&config, &source, &addresses);
    let certificate = Certificate::first(&config)
        .map_err(|message| StartError::new(message, "fix cert and key in [tls] or [admin]"))?;
    shown.certificate.set(certificate.store_for_admin());
    fit_check?;
    drop(starting.certificate);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = settings::workers(&config, cores);
    let mut network = settings::network(&config, workers, &addresses);
    let (sockets, lacks_ipv6) = listening::bind(&mut network).map_err(|error| bind_failed(&error))?;
    drop(starting.listeners);
    kernel::log(&config, &sockets, source.is_built_in());

    let mut names = HostNames::default();
    let machine = Machine { workers, addresses };
    let relays = Relays::new(&config, &machine.addresses);
    let protocol = settings::protocol(&config, &machine, relays.addresses(), &mut names)
        .map_err(|message| StartError::new(message, "configure fewer hosts"))?;
    if source.is_built_in() {
        print(&welcome::text(&config, certificate.fingerprint.as_deref()));
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
    let web = settings::web(&config.web, Arc::clone(&site));
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
    shown.set_limits(&config);
    let refusals = Refusals::new(
        shown.refusals.clone(),
        names_shown,
        protocol,
        counters.clone(),
        Arc::clone(&hosts),
        clock::unix_seconds(),
    );
    shown.metrics.set(ServerMetrics {
        protocol: counters,
        network: workers.counters(),
        admission: Arc::clone(workers.admission()),
        drain: drain.progress(),
        shared: Arc::clone(&shared),
        hosts: Arc::clone(&hosts),
        certificate: certificate.store(),
        reloads: Arc::clone(&reloads),
        limits: Arc::clone(&shown.limits),
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
        reloads,
        site,
        workers,
        names,
        hosts,
        notifier,
        shared,
        drain,
        watch,
        refusals,
        shown,
    })
}

/// The clock of the workers. They read it once per iteration of their loop.
fn now() -> Now {
    Now { instant: time::Instant::from_nanos(clock::monotonic_nanos()), unix: clock::unix_seconds() }
}

/// Prints a line to standard output. A closed standard output does not stop the server.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// The running server, as the control thread holds it.
struct RunningServer {
    source: Source,
    config: Config,
    machine: Machine,
    relays: Relays,
    awaited: Awaited,
    /// Whether "ready" was printed.
    is_ready: bool,
    certificate: Certificate,
    reloads: Arc<Reloads>,
    site: Arc<dyn Site>,
    workers: Handle,
    names: HostNames,
    hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    notifier: Notifier,
    shared: Arc<Shared>,
    drain: DrainState,
    watch: Watch,
    refusals: Refusals,
    shown: Arc<Shown>,
}

/// The signals from the operator.
struct Signals {
    reload: Signal,
    certificate: Signal,
    drain: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// The error of installing a signal handler.
    fn new() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            certificate: signal(SignalKind::user_defined2())?,
            drain: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl RunningServer {
    /// Runs until a signal or the failure of a worker ends the server.
    async fn run(mut self, readiness: Readiness) -> ExitCode {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("cannot handle signals: {error}"), CHECK_UNIT_LIMITS),
        };
        let mut addresses = match machine::follow(self.machine.addresses.clone()) {
            Ok(addresses) => addresses,
            Err(error) => return fail(&format!("cannot start a thread: {error}"), CHECK_UNIT_LIMITS),
        };
        // The listeners were bound before the workers started, so a client that connects now is served.
        self.report_addresses(&readiness);
        self.notifier.ready();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), listeners = self.config.listen.len(), "serving");

        let mut check = interval(CHECK_INTERVAL);
        let mut check_memory = interval(MEMORY_CHECK_INTERVAL);
        let mut watchdog = self.notifier.watchdog_interval().map(interval);
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.reload(&readiness),
                _ = signals.certificate.recv() => {
                    self.certificate.reload(self.config.tls.as_ref(), &self.reloads.certificate);
                }
                _ = signals.drain.recv() => {
                    self.drain(&readiness, None, "refusing new allocations; the server keeps running");
                }
                _ = signals.interrupt.recv() => return self.stop("interrupted"),
                _ = signals.terminate.recv() => {
                    if self.drain.exits_at_end() {
                        return self.stop("second SIGTERM");
                    }
                    let limit = Duration::from_secs(self.config.limits.drain_seconds.into());
                    self.notifier.stopping();
                    let deadline = Some(Instant::now() + limit);
                    self.drain(&readiness, deadline, "refusing new allocations; exits when the last one ends");
                }
                Ok(()) = addresses.changed() => self.follow(addresses.borrow_and_update().clone(), &readiness),
                () = tick(watchdog.as_mut()) => self.notifier.watchdog(),
                _ = check_memory.tick() => {
                    if let Some(shortage) = self.watch.check(self.machine.workers) {
                        self.workers.send(&Command::FreeTcpMemory(shortage));
                    }
                }
                _ = check.tick() => {
                    self.refusals.record(self.workers.refusals(), clock::unix_seconds());
                    if self.relays.is_due(now().instant) {
                        self.choose_relays(&readiness);
                    }
                    if let Some(exit) = self.workers.next_exit(Duration::ZERO) {
                        let failure = exit.failure.unwrap_or_else(|| "it exited without a reason".to_owned());
                        tracing::error!(worker = exit.worker, "a worker failed: {failure}");
                        self.stop("a worker failed");
                        return fail(&format!("worker {} failed: {failure}", exit.worker), "see the log, and report this bug");
                    }
                    if let Some(reason) = self.check_drain() {
                        return self.stop(reason);
                    }
                }
            }
        }
    }

    /// Begins a drain, or adds a deadline to the running one.
    fn drain(&mut self, readiness: &Readiness, deadline: Option<Instant>, what: &str) {
        tracing::info!(allocations = self.workers.allocations(), "draining: {what}");
        self.drain.begin(deadline);
        readiness.drain();
        self.workers.send(&Command::Drain(true));
    }

    /// Reports the progress of a drain. Returns the reason to exit if the drain is over.
    fn check_drain(&mut self) -> Option<&'static str> {
        let remaining = Remaining {
            clients: self.shared.quota.users(),
            allocations: self.workers.allocations(),
            connections: self.workers.admission().streams(),
        };
        let now = Instant::now();
        if let Some((text, due)) = self.drain.report(remaining, now) {
            self.notifier.status(&text);
            if due {
                tracing::info!("{text}");
            }
        }
        self.drain.exit_reason(remaining, now)
    }

    /// Stops the workers and waits for them.
    fn stop(self, reason: &str) -> ExitCode {
        tracing::info!(allocations = self.workers.allocations(), "stopping: {reason}");
        self.notifier.stopping();
        self.workers.send(&Command::Stop);
        match self.workers.join().iter().all(|exit| exit.failure.is_none()) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// Reads the configuration and the certificate again. After an error, which is logged, the old one stays in use.
    fn reload(&mut self, readiness: &Readiness) {
        self.notifier.reloading();
        // Changes are followed anyway; reading now applies one that the kernel has not announced.
        match machine::read() {
            Ok(addresses) if addresses != self.machine.addresses => self.follow(addresses, readiness),
            Ok(_) => {}
            Err(error) => tracing::warn!("reload: cannot list this machine's addresses: {error}"),
        }
        match self.source.read_again() {
            None => tracing::info!("reload: there is no configuration file to read"),
            Some(Ok(loaded)) => {
                let is_applied = self.apply(loaded, readiness);
                self.reloads.configuration.record(is_applied, clock::unix_seconds());
            }
            Some(Err(refused)) => {
                refused.log();
                tracing::error!("reload: the configuration in use stays");
                self.reloads.configuration.record(false, clock::unix_seconds());
            }
        }
        self.certificate.reload(self.config.tls.as_ref(), &self.reloads.certificate);
        self.notifier.ready();
    }

    /// Applies the new addresses of this machine: which ones to relay from, and which ones no peer may have.
    fn follow(&mut self, addresses: Addresses, readiness: &Readiness) {
        if self.machine.addresses.own != addresses.own {
            addresses::log_change(&self.machine.addresses.own, &addresses.own);
            let (before, file) = (&self.machine.addresses, self.source.name());
            configuration::log(&this_host::new_own_back_ends(&self.config, before, &addresses, &file));
        }
        self.machine.addresses = addresses;
        self.choose_relays(readiness);
    }

    /// Chooses the relay addresses from this machine's addresses and the time, and sends them to the workers.
    fn choose_relays(&mut self, readiness: &Readiness) {
        self.relays.follow(&self.config, &self.machine.addresses, now().instant);
        match settings::protocol(&self.config, &self.machine, self.relays.addresses(), &mut self.names) {
            Ok(protocol) => {
                let protocol = Arc::new(protocol);
                self.refusals.follow(Arc::clone(&protocol));
                self.workers.send(&Command::Settings(protocol));
                self.report_addresses(readiness);
            }
            // Cannot happen: every host of the running configuration already has a number.
            Err(message) => tracing::error!("the addresses in use stay: {message}"),
        }
    }

    /// Logs which addresses are in use and which are missing. Prints "ready" when nothing is missing for the first time.
    fn report_addresses(&mut self, readiness: &Readiness) {
        self.relays.tell(readiness);
        self.awaited.tell(&self.config, &self.machine.addresses, readiness);
        if !self.is_ready && readiness.check().is_ok() {
            self.is_ready = true;
            print("ready");
        }
    }

    /// Applies a new configuration, except for keys that need a restart. Returns whether all else of it is in use.
    fn apply(&mut self, loaded: config::Loaded, readiness: &Readiness) -> bool {
        configuration::log(&loaded.warnings);
        let mut next = loaded.config;
        for key in configuration::restore_fixed_keys(&self.config, &mut next) {
            tracing::warn!("reload: the change of {key} takes effect at the next restart");
        }
        let misfits = this_host::check(&next, &self.machine.addresses, &self.source.name());
        configuration::log(&misfits);
        if misfits.has_errors() {
            tracing::error!("reload: the configuration in use stays");
            return false;
        }
        let mut is_complete = true;
        let chooser = match (self.config.web != next.web).then(|| self.certificate.chooser(&next.web)) {
            Some(Err(message)) => {
                tracing::error!("reload: the web servers in use stay: {message}");
                // The next reload sees the difference and tries again.
                next.web.clone_from(&self.config.web);
                is_complete = false;
                None
            }
            chooser => chooser.and_then(Result::ok),
        };
        self.relays.follow(&next, &self.machine.addresses, now().instant);
        match settings::protocol(&next, &self.machine, self.relays.addresses(), &mut self.names) {
            Ok(protocol) => {
                self.report_addresses(readiness);
                self.hosts.store(Arc::new(self.names.all().to_vec()));
                let protocol = Arc::new(protocol);
                self.refusals.reloaded(Arc::clone(&protocol), clock::unix_seconds());
                self.shown.set_limits(&next);
                self.workers.send(&Command::Settings(protocol));
                self.workers.admission().set_rules(settings::admission(&next.limits));
                self.watch.set_budget(next.limits.memory_mib);
                if let Some(chooser) = chooser {
                    let web = settings::web(&next.web, Arc::clone(&self.site));
                    self.workers.send(&Command::Web(web));
                    self.workers.send(&Command::Tls(chooser));
                }
                self.config = next;
                tracing::info!("reload: the new configuration is in use");
                is_complete
            }
            Err(message) => {
                self.relays.follow(&self.config, &self.machine.addresses, now().instant);
                tracing::error!("reload: the configuration in use stays: {message}");
                false
            }
        }
    }
}

/// Waits for the next tick. Without a timer it never returns.
async fn tick(timer: Option<&mut tokio::time::Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}
