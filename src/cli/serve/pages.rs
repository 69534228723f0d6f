//! The admin pages. They are served from the start of the process, so that a load balancer sees "not ready" while the
//! certificate is loaded and the listeners are opened.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio_rustls::TlsAcceptor;

use super::metrics::limits::Limits;
use super::metrics::process::{ProcessMetrics, REVISION};
use super::metrics::{ServerMetrics, figures};
use super::sessions::DeferredSessions;
use super::start_error::{self, REPORT_BUG, StartError};
use crate::admin::checks::CheckSource;
use crate::admin::history::Reading;
use crate::admin::refusals::Book;
use crate::admin::sessions::SessionSource;
use crate::admin::state::{Program, State, StateSource};
use crate::admin::{self, Access, Content, Door, Latch, MetricSource, Readiness, Snapshot};
use crate::cert::{ALPN_HTTP1, DeferredStore, TlsConfigs};
use crate::cli::wanted_names::WantedNames;
use crate::config::{Admin, AdminTls, Config};
use crate::site::check::Results;
use crate::system::clock;
use crate::system::port_holder::PortSpace;

/// The steps before the server is ready, in this order. Each latch is dropped when its step is done.
pub struct Starting {
    pub certificate: Latch,
    pub listeners: Latch,
    pub workers: Latch,
}

impl Starting {
    /// Creates the latches of all steps.
    pub fn new(readiness: &Readiness) -> Self {
        Self {
            certificate: readiness.latch("the certificate"),
            listeners: readiness.latch("the listeners"),
            workers: readiness.latch("the workers"),
        }
    }
}

/// The metrics of the server; none until the workers have started.
#[derive(Default)]
pub struct DeferredMetrics(OnceLock<ServerMetrics>);

impl DeferredMetrics {
    /// Starts to serve `metrics`. Later calls have no effect.
    pub fn set(&self, metrics: ServerMetrics) {
        // The server starts once.
        let _ = self.0.set(metrics);
    }
}

impl MetricSource for DeferredMetrics {
    fn collect(&self, out: &mut Snapshot) {
        if let Some(metrics) = self.0.get() {
            metrics.collect(out);
        }
    }
}

impl StateSource for DeferredMetrics {
    fn reading(&self) -> Option<Reading> {
        self.0.get().map(figures::reading)
    }

    fn state(&self) -> Option<State> {
        self.0.get().map(figures::state)
    }

    fn now(&self) -> u64 {
        clock::unix_seconds()
    }

    fn monotonic(&self) -> u64 {
        clock::monotonic_nanos()
    }
}

/// The results of the test page.
struct ShownChecks(Results);

impl CheckSource for ShownChecks {
    fn checks(&self, code: Option<&str>) -> Value {
        self.0.json(code, clock::unix_seconds())
    }
}

/// What the pages show; empty until the workers have started.
#[derive(Default)]
pub struct Shown {
    /// The metrics.
    pub metrics: Arc<DeferredMetrics>,
    /// The sessions.
    pub sessions: Arc<DeferredSessions>,
    /// The refusals.
    pub refusals: Book,
    /// The results of the test page.
    pub checks: Results,
    /// The certificate of the pages. There is none until it is loaded, so connections with TLS fail until then.
    pub certificate: Arc<DeferredStore>,
    /// The limits in use.
    pub limits: Arc<Limits>,
    /// The names that the certificates must have.
    pub wanted: Arc<ArcSwap<WantedNames>>,
}

impl Shown {
    /// Takes the limits of a configuration.
    pub fn set_limits(&self, config: &Config) {
        self.sessions.set_limit(config.limits.allocations_per_user);
        self.limits.set(config);
        self.wanted.store(Arc::new(WantedNames::of(config)));
    }
}

/// Binds the admin address and serves the pages on the current runtime.
///
/// # Errors
/// If the address cannot be bound; if the port is occupied, the next step names the process. If rustls refuses the settings.
pub fn serve(admin: &Admin, shown: &Shown, readiness: Readiness) -> Result<(), StartError> {
    let door = Door {
        names: admin.names.clone(),
        access: admin.token.as_ref().map(|token| Access::new(&token.0)),
        tls: match admin.tls {
            AdminTls::Off => None,
            AdminTls::OfListeners | AdminTls::Own(_) => Some(acceptor(&shown.certificate)?),
        },
    };
    let listener = bind(admin.address)?;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the admin pages are not served: {error}");
            return Ok(());
        }
    };
    let program =
        Program { version: env!("CARGO_PKG_VERSION"), revision: REVISION, started: clock::unix_seconds() };
    let process = Arc::new(ProcessMetrics::new(readiness.clone()));
    let content = Content {
        metrics: vec![process, Arc::clone(&shown.metrics) as Arc<dyn MetricSource>],
        readiness,
        sessions: Arc::clone(&shown.sessions) as Arc<dyn SessionSource>,
        refusals: shown.refusals.clone(),
        checks: Arc::new(ShownChecks(shown.checks.clone())),
        reading: Arc::default(),
        program,
        state: Arc::clone(&shown.metrics) as Arc<dyn StateSource>,
        history: Arc::default(),
    };
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, door, content, std::future::pending()).await {
            tracing::error!("the admin pages are no longer served: {error}");
        }
    });
    Ok(())
}

fn acceptor(certificate: &Arc<DeferredStore>) -> Result<TlsAcceptor, StartError> {
    let configs = TlsConfigs::new(Arc::clone(certificate), &[ALPN_HTTP1]);
    let configs =
        configs.map_err(|error| StartError::new(format!("TLS cannot be set up: {error}"), REPORT_BUG))?;
    Ok(TlsAcceptor::from(configs.with_alpn))
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let message = format!("cannot listen on {address} for the admin pages: {error}");
        start_error::refused(message, &error, PortSpace::Tcp, address)
    })
}
