//! The admin pages. They are served from the start of the process on, so that a load balancer is told "not yet" while
//! the certificate is read and the listeners are opened.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};

use super::Failure;
use super::metrics::Numbers;
use crate::admin::{self, Latch, Readiness, Snapshot, Source};
use crate::config::Admin;
use crate::system::port_holder::Protocol;

/// What has to happen before the server is ready, in this order. Each latch is dropped when its part is done.
pub struct Starting {
    pub certificate: Latch,
    pub listeners: Latch,
    pub workers: Latch,
}

impl Starting {
    /// Nothing is done yet.
    pub fn new(readiness: &Readiness) -> Self {
        Self {
            certificate: readiness.latch("the certificate"),
            listeners: readiness.latch("the listeners"),
            workers: readiness.latch("the workers"),
        }
    }
}

/// The figures of `/metrics`: none before the workers have started.
#[derive(Default)]
pub struct Figures(OnceLock<Numbers>);

impl Figures {
    /// From now on there are some. Later calls change nothing.
    pub fn begin(&self, numbers: Numbers) {
        // There is one start.
        let _ = self.0.set(numbers);
    }
}

impl Source for Figures {
    fn collect(&self, out: &mut Snapshot) {
        if let Some(numbers) = self.0.get() {
            numbers.collect(out);
        }
    }
}

/// Binds the admin address and serves it on the runtime that this is called on.
///
/// # Errors
/// The address cannot be bound: who holds it, or what to write instead.
pub fn serve(admin: &Admin, figures: Arc<Figures>, readiness: Readiness) -> Result<(), Failure> {
    let listener = bind(admin.address)?;
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the admin pages are not served: {error}");
            return Ok(());
        }
    };
    let names = admin.names.clone();
    let sources: Vec<Arc<dyn Source>> = vec![figures];
    tokio::spawn(async move {
        if let Err(error) = admin::serve(listener, names, sources, readiness, std::future::pending()).await {
            tracing::error!("the admin pages are no longer served: {error}");
        }
    });
    Ok(())
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| {
        let message = format!("cannot listen on {address} for the admin pages: {error}");
        super::refused(&message, &error, Protocol::Tcp, address)
    })
}
