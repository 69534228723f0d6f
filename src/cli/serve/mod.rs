//! `hallpass serve`: the one place that knows every part and joins them.

mod addresses;
mod drain;
mod metrics;
mod pages;
mod pressure;
mod relays;
mod settings;
mod site;
mod tls;
mod welcome;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval};

use super::args::ServeArgs;
use super::{fail, tell};
use crate::admin::Readiness;
use crate::base::time::{self, Now};
use crate::base::transport::Transport;
use crate::config::{self, Config, LogFormat, Severity};
use crate::net::front::first_bytes::Site;
use crate::net::{self, Command, Handle};
use crate::system::addresses::{self as machine, Addresses};
use crate::system::port_holder::{Protocol, who_holds};
use crate::system::systemd::Notifier;
use crate::system::{clock, entropy, limits, logging};
use crate::turn::counters::Counters;
use crate::turn::server::Server;
use crate::turn::shared::Shared;
use drain::{Drain, Left};
use metrics::Numbers;
use pages::{Figures, Starting};
use pressure::Watch;
use relays::Relays;
use settings::{HostNames, Machine};
use tls::Certificate;

/// How often the control side looks whether a drain is over or a worker has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How often memory and descriptors are looked at.
const LOOK_AT_MEMORY: Duration = Duration::from_secs(1);
/// Log lines a second in the long run; a call's end is one line, so this is far above normal.
const LOG_LINES_PER_SECOND: u32 = 1000;

/// Serves until a signal ends it.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    match start(args.config) {
        Ok(code) => code,
        Err((message, next_step)) => fail(&message, &next_step),
    }
}

/// What went wrong, and the next step.
type Failure = (String, String);

fn start(path: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let config = read(path.as_deref())?;
    let _log = logging::start(&logging::Settings {
        format: match config.log.format {
            LogFormat::Text => logging::Format::Text,
            LogFormat::Json => logging::Format::Json,
        },
        level: config.log.level.as_str().to_owned(),
        lines_per_second: LOG_LINES_PER_SECOND,
    })
    .map_err(|error| (error.to_string(), error.next_step().to_owned()))?;
    let files = limits::raise_open_files();
    tracing::debug!(before = files.before, after = files.after, "descriptor limit");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        (format!("the control side does not start: {error}"), "see the limits".to_owned())
    })?;
    runtime.block_on(serve(path, config))
}

/// Answers on the admin address from now on, sets everything else up meanwhile, and serves.
async fn serve(path: Option<PathBuf>, config: Config) -> Result<ExitCode, Failure> {
    let (readiness, figures) = (Readiness::default(), Arc::<Figures>::default());
    let starting = Starting::new(&readiness);
    if let Some(admin) = &config.admin {
        pages::serve(admin, Arc::clone(&figures), readiness.clone())?;
    }
    let (finished, start) = oneshot::channel();
    let site = site::built_in(tokio::runtime::Handle::current());
    let set_up = move || {
        // Nobody waits when the runtime is gone, and then the process ends.
        let _ = finished.send(set_up(path, config, starting, site));
    };
    // Reading files and opening sockets blocks, and the admin pages answer meanwhile.
    thread::Builder::new()
        .name("start".to_owned())
        .spawn(set_up)
        .map_err(|error| (format!("no thread: {error}"), "see the limits of this service".to_owned()))?;
    let start = start.await.map_err(|_| ("the start failed".to_owned(), "report this".to_owned()))?;
    let (served, numbers) = start?;
    figures.begin(numbers);
    Ok(served.run(readiness).await)
}

/// Certificate, listeners and workers, in this order; blocks.
fn set_up(
    path: Option<PathBuf>,
    mut config: Config,
    starting: Starting,
    site: Arc<dyn Site>,
) -> Result<(Served, Numbers), Failure> {
    let certificate =
        Certificate::first(&config).map_err(|message| (message, "fix [tls] cert and key".into()))?;
    drop(starting.certificate);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = settings::workers(&config, cores);
    let network = settings::network(&config, workers);
    let sockets = match net::bind(&network) {
        Err(error) if config.fallback_to_ipv4 && no_ipv6(&error) => {
            config.without_ipv6();
            net::bind(&settings::network(&config, workers))
        }
        bound => bound,
    };
    let sockets = sockets.map_err(|error| taken(&error))?;
    drop(starting.listeners);

    let mut names = HostNames::default();
    let machine = Machine { workers, addresses: addresses::at_start() };
    let relays = Relays::new(&config, &machine.addresses);
    let protocol = settings::protocol(&config, &machine, relays.addresses(), &mut names)
        .map_err(|message| (message, "name fewer hosts".to_owned()))?;
    if path.is_none() {
        print(&welcome::text(&config, certificate.fingerprint.as_deref()));
    }
    let no_entropy = |error: entropy::EntropyError| (error.to_string(), "see the kernel's log".to_owned());
    let shared = Arc::new(Shared::new(&entropy::seed().map_err(no_entropy)?));
    let protocol = Arc::new(protocol);
    let counters: Vec<Arc<Counters>> = sockets.iter().map(|_| Arc::default()).collect();
    let mut servers = Vec::new();
    for counters in &counters {
        let seed = entropy::seed().map_err(no_entropy)?;
        servers.push(Server::new(Arc::clone(&protocol), Arc::clone(&shared), Arc::clone(counters), seed));
    }
    let chooser = certificate.chooser(&config.web).map_err(|message| (message, "report this".to_owned()))?;
    let web = settings::web(&config.web, Arc::clone(&site));
    let workers = net::spawn(&network, sockets, servers, now, Some(chooser), Some(web)).map_err(|error| {
        (format!("the workers do not start: {error}"), "see the limits of this service".into())
    })?;
    drop(starting.workers);

    let hosts = Arc::new(ArcSwap::from_pointee(names.all().to_vec()));
    let drain = Drain::default();
    let watch = Watch::new(Arc::clone(workers.admission()), config.limits.memory_mib);
    let numbers = Numbers {
        protocol: counters,
        network: workers.counters(),
        admission: Arc::clone(workers.admission()),
        drain: drain.progress(),
        shared: Arc::clone(&shared),
        hosts: Arc::clone(&hosts),
        started: clock::unix_seconds(),
    };
    let notifier = Notifier::from_env();
    let served = Served {
        path,
        config,
        machine,
        relays,
        certificate,
        site,
        workers,
        names,
        hosts,
        notifier,
        shared,
        drain,
        watch,
    };
    Ok((served, numbers))
}

/// The clock of the workers, read once a turn.
fn now() -> Now {
    Now { instant: time::Instant::from_nanos(clock::monotonic_nanos()), unix: clock::unix_seconds() }
}

fn read(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else {
        let secret =
            entropy::secret().map_err(|error| (error.to_string(), "see the kernel's log".to_owned()))?;
        return Ok(Config { admin: Some(config::Admin::default()), ..Config::embedded(secret) });
    };
    match config::read(path) {
        Ok(loaded) => {
            tell(&loaded.warnings.to_string());
            Ok(loaded.config)
        }
        Err(report) => {
            tell(&report.to_string());
            Err((
                "the configuration is refused".to_owned(),
                format!("fix it; `{}` says the same", super::check_line(path)),
            ))
        }
    }
}

fn no_ipv6(error: &net::BindError) -> bool {
    let unsupported = [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable];
    error.address.is_ipv6()
        && (unsupported.contains(&error.source.kind())
            || error.source.raw_os_error() == Some(libc::EAFNOSUPPORT))
}

/// Names the port, and who holds it.
fn taken(error: &net::BindError) -> Failure {
    let protocol = if error.transport == Transport::Udp { Protocol::Udp } else { Protocol::Tcp };
    refused(&error.to_string(), &error.source, protocol, error.address)
}

fn refused(message: &str, source: &io::Error, protocol: Protocol, address: SocketAddr) -> Failure {
    let next_step = match source.kind() {
        io::ErrorKind::AddrInUse => match who_holds(protocol, address) {
            Some(holder) => format!(
                "port {} is held by {} (pid {}): stop it, or write another port",
                address.port(),
                holder.name,
                holder.pid
            ),
            None => format!("port {} is held by a process that this user may not see", address.port()),
        },
        io::ErrorKind::AddrNotAvailable => "write an address of this machine".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; the shipped unit has it".to_owned()
        }
        _ => "see `hallpass check --live`".to_owned(),
    };
    (message.to_owned(), next_step)
}

/// A line for whoever started us. A closed standard output does not stop a relay.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// The running server as its control side sees it.
struct Served {
    path: Option<PathBuf>,
    config: Config,
    machine: Machine,
    relays: Relays,
    certificate: Certificate,
    site: Arc<dyn Site>,
    workers: Handle,
    names: HostNames,
    hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    notifier: Notifier,
    shared: Arc<Shared>,
    drain: Drain,
    watch: Watch,
}

/// What the operator asks for by signal.
struct Signals {
    reload: Signal,
    certificate: Signal,
    drain: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
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

impl Served {
    async fn run(mut self, readiness: Readiness) -> ExitCode {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("no signals: {error}"), "see the limits of this service"),
        };
        let mut own = match machine::follow(self.machine.addresses.clone()) {
            Ok(own) => own,
            Err(error) => return fail(&format!("no thread: {error}"), "see the limits of this service"),
        };
        // The listeners were bound before the workers began: whoever connects from now on is served.
        self.relays.tell(&readiness);
        self.notifier.ready();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), listeners = self.config.listen.len(), "serving");

        let mut look = interval(LOOK);
        let mut look_at_memory = interval(LOOK_AT_MEMORY);
        let mut watchdog = self.notifier.watchdog_interval().map(interval);
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.reload(&readiness),
                _ = signals.certificate.recv() => self.certificate.reload(self.config.tls.as_ref()),
                _ = signals.drain.recv() => {
                    self.drain(&readiness, None, "no new allocations; the server stays");
                }
                _ = signals.interrupt.recv() => return self.stop("interrupted"),
                _ = signals.terminate.recv() => {
                    if self.drain.ends() {
                        return self.stop("asked a second time");
                    }
                    let patience = Duration::from_secs(self.config.limits.drain_seconds.into());
                    self.notifier.stopping();
                    let until = Some(Instant::now() + patience);
                    self.drain(&readiness, until, "no new allocations; the server ends with the last one");
                }
                Ok(()) = own.changed() => self.follow(own.borrow_and_update().clone(), &readiness),
                () = tick(watchdog.as_mut()) => self.notifier.watchdog(),
                _ = look_at_memory.tick() => self.watch.look(),
                _ = look.tick() => {
                    if let Some(exit) = self.workers.next_exit(Duration::ZERO) {
                        let failure = exit.failure.unwrap_or_else(|| "ended without a reason".to_owned());
                        tracing::error!(worker = exit.worker, "a worker failed: {failure}");
                        self.stop("a worker failed");
                        return fail(&format!("worker {} failed: {failure}", exit.worker), "see the log; report this");
                    }
                    if let Some(why) = self.look_at_drain() {
                        return self.stop(why);
                    }
                }
            }
        }
    }

    fn drain(&mut self, readiness: &Readiness, until: Option<Instant>, what: &str) {
        tracing::info!(allocations = self.workers.allocations(), "draining: {what}");
        self.drain.begin(until);
        readiness.drain();
        self.workers.send(&Command::Drain(true));
    }

    /// Says how far a drain is; gives why it is over, if it is.
    fn look_at_drain(&mut self) -> Option<&'static str> {
        let left = Left {
            clients: self.shared.quota.users(),
            allocations: self.workers.allocations(),
            connections: self.workers.admission().streams(),
        };
        let now = Instant::now();
        if let Some((text, due)) = self.drain.tell(left, now) {
            self.notifier.status(&text);
            if due {
                tracing::info!("{text}");
            }
        }
        self.drain.over(left, now)
    }

    fn stop(self, why: &str) -> ExitCode {
        tracing::info!(allocations = self.workers.allocations(), "stopping: {why}");
        self.notifier.stopping();
        self.workers.send(&Command::Stop);
        match self.workers.join().iter().all(|exit| exit.failure.is_none()) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// Reads the configuration and the certificate again. What is wrong changes nothing and is said.
    fn reload(&mut self, readiness: &Readiness) {
        self.notifier.reloading();
        // They are followed all the time; this is for a kernel that announces nothing.
        match machine::read() {
            Ok(addresses) => self.machine.addresses = addresses,
            Err(error) => tracing::warn!("reload: cannot list this machine's addresses: {error}"),
        }
        match self.path.as_deref().map(config::read) {
            None => tracing::info!("reload: nothing to read, there is no configuration file"),
            Some(Ok(loaded)) => self.apply(loaded, readiness),
            Some(Err(report)) => {
                log(&report);
                tracing::error!("reload: the configuration in use stays");
            }
        }
        self.certificate.reload(self.config.tls.as_ref());
        self.notifier.ready();
    }

    /// Has the workers follow the addresses of this machine: to relay from, and that no peer may have.
    fn follow(&mut self, addresses: Addresses, readiness: &Readiness) {
        if self.machine.addresses.own != addresses.own {
            addresses::tell(&self.machine.addresses.own, &addresses.own);
        }
        self.machine.addresses = addresses;
        self.relays.follow(&self.config, &self.machine.addresses);
        match settings::protocol(&self.config, &self.machine, self.relays.addresses(), &mut self.names) {
            Ok(protocol) => {
                self.workers.send(&Command::Settings(Arc::new(protocol)));
                self.relays.tell(readiness);
            }
            // The names of the running configuration have their numbers already.
            Err(message) => tracing::error!("the addresses in use stay: {message}"),
        }
    }

    fn apply(&mut self, loaded: config::Loaded, readiness: &Readiness) {
        log(&loaded.warnings);
        let mut next = loaded.config;
        for kept in keep_what_is_bound(&self.config, &mut next) {
            tracing::warn!("reload: {kept} takes effect at the next restart");
        }
        self.relays.follow(&next, &self.machine.addresses);
        match settings::protocol(&next, &self.machine, self.relays.addresses(), &mut self.names) {
            Ok(protocol) => {
                self.relays.tell(readiness);
                self.hosts.store(Arc::new(self.names.all().to_vec()));
                self.workers.send(&Command::Settings(Arc::new(protocol)));
                self.workers.admission().set_rules(settings::admission(&next.limits));
                self.watch.set_budget(next.limits.memory_mib);
                if self.config.web != next.web {
                    self.apply_web(&next.web);
                }
                self.config = next;
                tracing::info!("reload: the new configuration is in use");
            }
            Err(message) => {
                self.relays.follow(&self.config, &self.machine.addresses);
                tracing::error!("reload: the configuration in use stays: {message}");
            }
        }
    }
}

impl Served {
    fn apply_web(&self, web: &config::Web) {
        match self.certificate.chooser(web) {
            Ok(chooser) => {
                self.workers.send(&Command::Web(settings::web(web, Arc::clone(&self.site))));
                self.workers.send(&Command::Tls(chooser));
            }
            Err(message) => tracing::error!("reload: the web servers in use stay: {message}"),
        }
    }
}

/// Writes each problem of a configuration to the log, at the level of its severity.
fn log(report: &config::Report) {
    for (severity, text) in report.texts() {
        for line in text.lines() {
            match severity {
                Severity::Error => tracing::error!("{line}"),
                Severity::Warning => tracing::warn!("{line}"),
            }
        }
    }
}

/// Puts back what running sockets hold to, and names it.
fn keep_what_is_bound(running: &Config, next: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let places = |config: &Config| -> Vec<_> {
        let listen = config.listen.iter().cloned();
        // The line in the file does not matter.
        listen.map(|listener| config::Listener { line: 0, ..listener }).collect()
    };
    if places(running) != places(next) {
        kept.push("[[listen]]");
    }
    next.listen.clone_from(&running.listen);
    if running.admin != next.admin {
        kept.push("[admin]");
        next.admin.clone_from(&running.admin);
    }
    if running.log != next.log {
        kept.push("[log]");
        next.log = running.log;
    }
    if running.privacy != next.privacy {
        kept.push("privacy");
        next.privacy = running.privacy;
    }
    let of = |config: &Config| (config.limits.workers, config.limits.mss);
    if of(running) != of(next) {
        kept.push("[limits] workers or mss");
        (next.limits.workers, next.limits.mss) = of(running);
    }
    kept
}

async fn tick(timer: Option<&mut tokio::time::Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}
