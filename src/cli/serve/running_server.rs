//! The running server: its event loop on the control thread, which handles signals, the clock and changes of this machine.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep};

use super::acme::Redirects;
use super::client_names::ClientNames;
use super::compared::Compared;
use super::configuration::Source;
use super::control::{ControlSocket, DrainView, Order};
use super::drain::{DrainState, Remaining};
use super::listeners::Listeners;
use super::listening::Awaited;
use super::metrics::reload::Reloads;
use super::now::now;
use super::outsiders::Outsiders;
use super::pages::Shown;
use super::pressure::Watch;
use super::refusals::{Comparison, Refusals};
use super::relays::Relays;
use super::reload::{self, InUse, Prepared, Reloaded};
use super::settings::{HostNames, Machine};
use super::site::Face;
use super::start_error::CHECK_UNIT_LIMITS;
use super::tls::Certificate;
use super::{acme, addresses, configuration, control, settings};
use crate::acme::Renewal;
use crate::admin::Readiness;
use crate::cli::output::{fail, print_if_open};
use crate::cli::this_host;
use crate::config::Config;
use crate::net::front::ENDING_TIME;
use crate::net::{Command, Handle};
use crate::system::addresses::{self as machine, Addresses};
use crate::system::clock;
use crate::system::logging::LevelSwitch;
use crate::system::systemd::Notifier;
use crate::turn::shared::Shared;

/// Interval of the checks for the end of a drain, for failed workers and for lost relay addresses.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of the checks of memory and descriptors.
const MEMORY_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stopping server answers newcomers if `[drain]` names other servers. A browser whose connection was closed asks
/// again within a second.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Time for the workers to end beyond what they wait for clients.
const STOP_MARGIN: Duration = Duration::from_secs(2);

/// The running server, as the control thread holds it.
pub struct RunningServer {
    pub source: Source,
    pub config: Config,
    pub machine: Machine,
    pub relays: Relays,
    pub awaited: Awaited,
    /// Whether "ready" was printed.
    pub is_ready: bool,
    pub certificate: Certificate,
    pub renewal: Renewal,
    pub redirects: Redirects,
    pub reloads: Arc<Reloads>,
    pub site: Arc<Face>,
    pub workers: Handle,
    pub names: HostNames,
    pub hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    pub notifier: Notifier,
    pub shared: Arc<Shared>,
    pub drain: DrainState,
    pub watch: Watch,
    pub outsiders: Outsiders,
    pub refusals: Refusals,
    pub shown: Arc<Shown>,
    pub control: Option<ControlSocket>,
    pub client_names: ClientNames,
    pub listeners: Listeners,
    pub level: LevelSwitch,
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

    /// Waits for a signal that ends the server.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

impl RunningServer {
    /// Runs until a signal or the failure of a worker ends the server.
    pub async fn run(mut self, readiness: Readiness) -> ExitCode {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => return fail(&format!("cannot handle signals: {error}"), CHECK_UNIT_LIMITS),
        };
        let mut addresses = match machine::follow(self.machine.addresses.clone()) {
            Ok(addresses) => addresses,
            Err(error) => return fail(&format!("cannot start a thread: {error}"), CHECK_UNIT_LIMITS),
        };
        let mut files = match self.certificate.follow(&self.config) {
            Ok(files) => files,
            Err(error) => return fail(&format!("cannot start a thread: {error}"), CHECK_UNIT_LIMITS),
        };
        let mut orders =
            control::serve(self.control.as_ref(), self.workers.sessions(), self.client_names.clone());
        // The listeners were bound before the workers started, so a client that connects now is served.
        self.redirects.serve();
        self.renewal.start(acme::settings(&self.config));
        self.report_addresses(&readiness);
        self.notifier.ready();
        tracing::info!(version = env!("CARGO_PKG_VERSION"), listeners = self.config.listen.len(), "serving");

        let mut check = interval(CHECK_INTERVAL);
        let mut check_memory = interval(MEMORY_CHECK_INTERVAL);
        let mut watchdog = self.notifier.watchdog_interval().map(interval);
        loop {
            tokio::select! {
                _ = signals.reload.recv() => drop(self.reload(&readiness)),
                _ = signals.certificate.recv() => {
                    self.certificate.reload(&self.config, &self.reloads.certificate);
                    self.site.follow_certificate();
                }
                Some(()) = files.recv() => {
                    tracing::debug!("a file of a certificate has changed");
                    self.certificate.follow_up(&self.config, &self.reloads.certificate);
                    self.site.follow_certificate();
                }
                _ = signals.drain.recv() => self.drain(&readiness, None),
                Some(asked) = orders.recv() => {
                    if let Some(order) = asked.still_wanted() {
                        self.obey(order, &readiness);
                    }
                }
                _ = signals.interrupt.recv() => return self.stop("SIGINT", &readiness, &mut signals).await,
                _ = signals.terminate.recv() => return self.stop("SIGTERM", &readiness, &mut signals).await,
                Ok(()) = addresses.changed() => self.follow(addresses.borrow_and_update().clone(), &readiness),
                () = tick(watchdog.as_mut()) => self.notifier.watchdog(),
                _ = check_memory.tick() => {
                    self.listeners.close_unused(&self.workers);
                    self.outsiders.check(&self.workers.counters(), &self.client_names, now().instant);
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
                        self.stop("a worker failed", &readiness, &mut signals).await;
                        return fail(&format!("worker {} failed: {failure}", exit.worker), "see the log, and report this bug");
                    }
                    self.check_drain();
                }
            }
        }
    }

    /// Carries out an order from the control socket.
    fn obey(&mut self, order: Order, readiness: &Readiness) {
        let now = Instant::now();
        let reply = match order {
            Order::Drain { limit, reply } => {
                let configured = Duration::from_secs(self.config.limits.drain_seconds.into());
                let limit = limit.or(Some(configured).filter(|limit| !limit.is_zero()));
                self.drain(readiness, limit.map(|limit| now + limit));
                reply
            }
            Order::CancelDrain(reply) => {
                self.cancel_drain(readiness);
                reply
            }
            Order::ShowDrain(reply) => reply,
            Order::Reload(reply) => {
                // Nobody waits for it any more if this fails.
                let _ = reply.send(self.reload(readiness));
                return;
            }
            Order::Compare(reply) => {
                let machine = &self.machine.addresses;
                let _ = reply.send(Compared::of(&self.source, &self.config, machine, &self.certificate));
                return;
            }
        };
        let view = DrainView { is_draining: self.drain.is_running(), left: self.drain.left(now) };
        // Nobody waits for it any more if this fails.
        let _ = reply.send(view);
    }

    /// Ends the drain: newcomers are served again.
    fn cancel_drain(&mut self, readiness: &Readiness) {
        if self.drain.cancel(Instant::now()) {
            tracing::info!("the drain is cancelled: new clients are served again");
            readiness.set_draining(false);
            self.workers.send(&Command::Drain(false));
            self.notifier.status("serving");
        }
    }

    /// Begins a drain, or replaces the deadline of the running one.
    fn drain(&mut self, readiness: &Readiness, deadline: Option<Instant>) {
        let allocations = self.workers.allocations();
        tracing::info!(allocations, "draining: refusing new clients; the server keeps running");
        self.drain.begin(deadline, Instant::now());
        readiness.set_draining(true);
        self.workers.send(&Command::Drain(true));
    }

    /// Reports the progress of a drain, and ends the remaining sessions once its time is over.
    fn check_drain(&mut self) {
        let remaining = Remaining {
            clients: self.shared.quota.users(),
            allocations: self.workers.allocations(),
            connections: self.workers.admission().streams(),
        };
        let now = Instant::now();
        if self.drain.take_deadline(now) {
            let Remaining { allocations, .. } = remaining;
            tracing::info!(allocations, "the time of the drain is over: the remaining sessions end");
            self.workers.send(&Command::EndSessions);
        }
        if let Some((text, due)) = self.drain.report(remaining, now) {
            self.notifier.status(&text);
            if due {
                tracing::info!("{text}");
            }
        }
    }

    /// Ends every session, tells the clients, and waits for the workers. A second signal ends the wait.
    async fn stop(self, reason: &str, readiness: &Readiness, signals: &mut Signals) -> ExitCode {
        let allocations = self.workers.allocations();
        tracing::info!(allocations, "stopping ({reason}): every session ends");
        self.notifier.stopping();
        readiness.set_draining(true);
        let answer = if self.config.drain.is_empty() { Duration::ZERO } else { ANSWER_TIME };
        self.workers.send(&Command::Stop { answer });
        let (ended, has_ended) = oneshot::channel();
        let wait = move || {
            let is_orderly = self.workers.join().iter().all(|exit| exit.failure.is_none());
            // Nobody waits for it after a second signal.
            let _ = ended.send(is_orderly);
        };
        if let Err(error) = thread::Builder::new().name("stop".to_owned()).spawn(wait) {
            tracing::warn!("the workers are not waited for: cannot start a thread: {error}");
        }
        let is_orderly = tokio::select! {
            is_orderly = has_ended => is_orderly.unwrap_or(false),
            () = sleep(answer.max(ENDING_TIME) + STOP_MARGIN) => {
                tracing::error!("the workers do not end; exiting without them");
                false
            }
            () = signals.end() => {
                tracing::info!("second signal: exiting at once");
                true
            }
        };
        if is_orderly { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Reads the configuration, the secrets and the certificates again, and applies them as a whole or not at all.
    fn reload(&mut self, readiness: &Readiness) -> Reloaded {
        self.notifier.reloading();
        // Changes are followed anyway; reading now applies one that the kernel has not announced.
        match machine::read() {
            Ok(addresses) if addresses != self.machine.addresses => self.follow(addresses, readiness),
            Ok(_) => {}
            Err(error) => tracing::warn!("reload: cannot list this machine's addresses: {error}"),
        }
        let mut reloaded = Reloaded::default();
        let in_use = InUse {
            source: &self.source,
            config: &self.config,
            machine: &self.machine,
            certificate: &self.certificate,
            listeners: &self.listeners,
            redirects: &self.redirects,
            awaited: &self.awaited,
            names: &self.names,
            relays: &mut self.relays,
        };
        let prepared = reload::prepare(in_use, &mut reloaded);
        reloaded.changes.iter().for_each(|change| tracing::info!("reload: {change}"));
        reloaded.problems.iter().for_each(|problem| tracing::error!("reload: {problem}"));
        if let Some(prepared) = prepared {
            reloaded.is_applied = true;
            let of_files = self.apply(prepared, readiness);
            reloaded.changes.extend(of_files);
            tracing::info!("reload: {}", reloaded.result());
            self.level.set(self.config.log.level.as_str());
        } else {
            tracing::error!("reload: {}", reloaded.result());
        }
        self.reloads.configuration.record(reloaded.is_applied, clock::unix_seconds());
        self.notifier.ready();
        reloaded
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
        self.shown.limits.set_lacks_ipv4(self.relays.lack_ipv4());
        self.awaited.tell(&self.config, &self.machine.addresses, readiness);
        if !self.is_ready && readiness.check().is_ok() {
            self.is_ready = true;
            print_if_open(b"ready\n");
        }
    }

    /// Applies a new configuration. Returns what has changed in the files that it names.
    fn apply(&mut self, prepared: Prepared, readiness: &Readiness) -> Vec<String> {
        let Prepared { config, certificates, listeners, redirects, chooser, names, protocol, files } =
            prepared;
        let changes = self.certificate.use_now(certificates, &self.reloads.certificate);
        self.certificate.follow_instead(&config);
        // First, because the renewal may need port 80 at once.
        self.redirects.follow(&config, redirects);
        self.renewal.follow(acme::settings(&config));
        self.names = names;
        self.hosts.store(Arc::new(self.names.all().to_vec()));
        let protocol = Arc::new(protocol);
        let comparison = Comparison::new(self.source.name(), &config);
        self.refusals.reloaded(Arc::clone(&protocol), comparison, clock::unix_seconds());
        self.shown.set_limits(&config);
        self.workers.send(&Command::Settings(protocol));
        self.workers.admission().set_rules(settings::admission(&config.limits));
        self.watch.set_budget(config.limits.memory_mib);
        // Before the web servers: one of them may have the port of a listener that closes.
        self.listeners.apply(listeners, &self.workers);
        if self.config.web != config.web {
            self.workers.send(&Command::Web(settings::web(&config.web, Arc::clone(&self.site) as _)));
            self.workers.send(&Command::Tls(chooser));
        }
        self.site.set(&config, files, self.certificate.configured(&config));
        self.config = config;
        self.report_addresses(readiness);
        changes
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
