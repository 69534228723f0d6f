//! The server's certificate, and the choice of TLS settings for each client.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::metrics::reload::LastReload;
use crate::cert::{self, CertStore, TlsConfigs};
use crate::config::{Admin, AdminTls, Config, Exposure, TlsFiles, Web};
use crate::net::{Choice, TlsChooser};
use crate::system::{clock, files};
use crate::wire::client_hello::{self, Peek};

/// The certificate in use. A reload replaces it.
pub struct Certificate {
    store: Arc<CertStore>,
    /// The SHA-256 fingerprint of a self-signed certificate; `None` if the certificate comes from files.
    pub fingerprint: Option<String>,
    /// That of the admin pages, if they have one of their own, and its files.
    of_admin: Option<(Arc<CertStore>, TlsFiles)>,
    /// The files that are followed.
    followed: Arc<ArcSwap<Vec<PathBuf>>>,
}

/// Certificates that were read and are not used yet: the store of each, its files and their content.
pub struct NextCertificates(Vec<(Arc<CertStore>, TlsFiles, cert::Examined)>);

struct Chooser {
    turn: TlsConfigs,
    /// For ports shared with the web.
    shared: TlsConfigs,
    passthrough: BTreeMap<String, SocketAddr>,
}

impl TlsChooser for Chooser {
    fn choose(&self, received: &[u8], shared: bool) -> Choice {
        match client_hello::peek(received) {
            Peek::Found(hello) if shared => {
                let to = hello.server_name.as_ref().and_then(|name| self.passthrough.get(name));
                match to {
                    Some(&to) => Choice::PassThrough(to),
                    None => Choice::Config(Arc::clone(self.shared.choose(&hello.alpn))),
                }
            }
            Peek::Found(hello) => Choice::Config(Arc::clone(self.turn.choose(&hello.alpn))),
            Peek::NeedMore => Choice::NeedMore,
            Peek::NotTls => Choice::NotTls,
        }
    }
}

impl Certificate {
    /// Loads the configured files, or creates a self-signed certificate.
    ///
    /// # Errors
    /// A message for the operator if the files cannot be used. It names the file and the remedy.
    pub fn first(config: &Config) -> Result<Self, String> {
        let of_admin = match &config.admin {
            Some(Admin { tls: AdminTls::Own(files), .. }) => Some((load(files)?, files.clone())),
            _ => None,
        };
        if let Some(files) = &config.tls {
            return Ok(Self { store: load(files)?, fingerprint: None, of_admin, followed: Arc::default() });
        }
        let now = clock::unix_seconds();
        let addresses: Vec<_> = config.external_ip.iter().map(|external| external.public).collect();
        let names = [config.realm.clone()];
        let made = cert::self_signed(&names, &addresses, now)
            .or_else(|_| cert::self_signed(&[], &addresses, now))
            .map_err(|error| format!("cannot create a self-signed certificate: {error}"))?;
        let store = Arc::new(CertStore::new(made.key));
        Ok(Self { store, fingerprint: Some(made.fingerprint), of_admin, followed: Arc::default() })
    }

    /// Returns the chooser that the workers consult for each TLS client. On a shared port HTTP/2 is offered if a web server
    /// speaks it or the built-in site answers all web clients. On other ports the server agrees to every protocol that an
    /// intermediate proxy may have put into the ClientHello.
    ///
    /// # Errors
    /// A message for the operator if rustls refuses the settings.
    pub fn chooser(&self, web: &Web) -> Result<Arc<dyn TlsChooser>, String> {
        let turn = [cert::ALPN_TURN, cert::ALPN_HTTP1, cert::ALPN_H2];
        let mut shared = vec![cert::ALPN_TURN];
        if web.h2.is_some() || web.http1.is_none() {
            shared.push(cert::ALPN_H2);
        }
        shared.push(cert::ALPN_HTTP1);
        let configs = |alpn: &[&[u8]]| {
            TlsConfigs::new(Arc::clone(&self.store), alpn)
                .map_err(|error| format!("TLS cannot be set up: {error}"))
        };
        let passthrough = web.passthrough.clone();
        Ok(Arc::new(Chooser { turn: configs(&turn)?, shared: configs(&shared)?, passthrough }))
    }

    /// Reads the files again, those of the admin pages too, but does not use them yet. Replacing a valid certificate by an
    /// expired one is an error, unless `accept_expired`.
    ///
    /// # Errors
    /// A message for each certificate that cannot be used.
    pub fn examine(&self, files: Option<&TlsFiles>) -> Result<NextCertificates, Vec<String>> {
        let of_listeners = files.map(|files| (&self.store, files));
        let of_admin = self.of_admin.as_ref().map(|(store, files)| (store, files));
        let now = clock::unix_seconds();
        let (mut next, mut errors) = (Vec::new(), Vec::new());
        for (store, files) in of_listeners.into_iter().chain(of_admin) {
            match store.examine(&files.cert, &files.key, now, files.accept_expired) {
                Ok(examined) => next.push((Arc::clone(store), files.clone(), examined)),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() { Ok(NextCertificates(next)) } else { Err(errors) }
    }

    /// Reads the files again and uses them. New handshakes use the new certificate; open connections keep theirs. After an
    /// error, which is logged, the certificates in use stay. The result is recorded in `last`.
    pub fn reload(&self, files: Option<&TlsFiles>, last: &LastReload) {
        use_or_keep(self.examine(files), last);
    }

    /// Does the same after a change of the files, but says nothing if they still have the certificates in use.
    pub fn follow_up(&self, files: Option<&TlsFiles>, last: &LastReload) {
        match self.examine(files) {
            Ok(next) if next.0.iter().all(|(_, _, examined)| examined.next.is_none()) => last.settle(),
            examined => use_or_keep(examined, last),
        }
    }

    /// Follows the files on a thread of its own: a message says that they have changed and can be read.
    ///
    /// # Errors
    /// The error of starting the thread.
    pub fn follow(&self, files: Option<&TlsFiles>) -> io::Result<mpsc::Receiver<()>> {
        self.follow_instead(files);
        files::follow(Arc::clone(&self.followed))
    }

    /// Follows other files from now on, and those of the admin pages as before.
    pub fn follow_instead(&self, files: Option<&TlsFiles>) {
        let of_admin = self.of_admin.as_ref().map(|(_, files)| files);
        let files =
            files.into_iter().chain(of_admin).flat_map(|files| [files.cert.clone(), files.key.clone()]);
        self.followed.store(Arc::new(files.collect()));
    }

    /// Returns the store of the certificate in use.
    pub fn store(&self) -> Arc<CertStore> {
        Arc::clone(&self.store)
    }

    /// Returns the store of the certificate in use, unless it is self-signed.
    pub fn of_files(&self) -> Option<Arc<CertStore>> {
        self.fingerprint.is_none().then(|| self.store())
    }

    /// Returns the store of the certificate of the admin pages, if they use TLS.
    pub fn store_for_admin(&self) -> Arc<CertStore> {
        Arc::clone(self.of_admin.as_ref().map_or(&self.store, |(store, _)| store))
    }
}

/// Uses the certificates that were read, or logs why those in use stay.
fn use_or_keep(examined: Result<NextCertificates, Vec<String>>, last: &LastReload) {
    match examined {
        Ok(next) => drop(next.use_now(last)),
        Err(errors) => {
            errors.iter().for_each(|error| tracing::error!("the certificate in use stays: {error}"));
            last.record(false, clock::unix_seconds());
        }
    }
}

/// # Errors
/// A message for the operator if the files cannot be used.
fn load(files: &TlsFiles) -> Result<Arc<CertStore>, String> {
    let loaded = cert::load(&files.cert, &files.key, clock::unix_seconds());
    let loaded = loaded.map_err(|error| error.to_string())?;
    warn(&loaded.warnings, files);
    Ok(Arc::new(CertStore::new(loaded.key)))
}

impl NextCertificates {
    /// Uses the certificates for new handshakes, and records that in `last`. Returns the changes, for the operator.
    pub fn use_now(self, last: &LastReload) -> Vec<String> {
        let mut changes = Vec::new();
        if !self.0.is_empty() {
            last.record(true, clock::unix_seconds());
        }
        for (store, files, examined) in self.0 {
            warn(&examined.warnings, &files);
            let cert = files.cert.display();
            match examined.next {
                Some(next) => {
                    let lost = store.lost_names(&next);
                    if !lost.is_empty() {
                        let lost = lost.join(", ");
                        tracing::warn!(
                            %cert,
                            "the new certificate is not for {lost}, as the one before was: browsers refuse turns: URLs with these \
                             names. If clients use one of them, put the right certificate back"
                        );
                        changes.push(format!("certificate {cert}: not for {lost} any more"));
                    }
                    store.replace(next);
                    tracing::info!(%cert, "new certificate in use");
                    changes.push(format!("certificate {cert}: changed"));
                }
                None => tracing::debug!(%cert, "the files contain the certificate that is in use"),
            }
        }
        changes
    }
}

/// Logs warnings about a certificate, and about a key file that others can read.
fn warn(warnings: &[cert::files::Warning], files: &TlsFiles) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(exposure) = Exposure::of_file(&files.key) {
        tracing::warn!("tls: {exposure}");
    }
}
