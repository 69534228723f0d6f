//! The server's certificate, and the choice of TLS settings for each client.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::sync::mpsc;

use super::metrics::reload::LastReload;
use crate::acme::Pending;
use crate::cert::challenge::ALPN_CHALLENGE;
use crate::cert::{self, CertChoice, CertStore, TlsConfigs};
use crate::config::{Admin, AdminTls, Config, Exposure, TlsFiles, Web};
use crate::net::{Choice, TlsChooser};
use crate::system::{clock, files};
use crate::wire::client_hello::{self, ClientHello, Peek};

/// The certificates in use. A reload replaces them.
pub struct Certificate {
    /// The default one.
    store: Arc<CertStore>,
    /// The default one and those of `[[tls.certificate]]`.
    choice: Arc<CertChoice>,
    /// The files of the latter.
    others: ArcSwap<Vec<(TlsFiles, Arc<CertStore>)>>,
    /// The handshakes that an authority makes to validate a name.
    pending: Arc<Pending>,
    /// The SHA-256 fingerprint of a self-signed certificate; `None` if the certificate comes from files.
    pub fingerprint: Option<String>,
    /// That of the admin pages, if they have one of their own, and its files.
    of_admin: Option<(Arc<CertStore>, TlsFiles)>,
    /// The files that are followed.
    followed: Arc<ArcSwap<Vec<PathBuf>>>,
}

/// Certificates that were read and are not used yet.
pub struct NextCertificates {
    /// The store of each, its files and their content.
    read: Vec<(Arc<CertStore>, TlsFiles, cert::Examined)>,
    /// All of `[[tls.certificate]]`.
    others: Vec<(TlsFiles, Arc<CertStore>)>,
}

struct Chooser {
    turn: TlsConfigs,
    /// For ports shared with the web.
    shared: TlsConfigs,
    passthrough: BTreeMap<String, SocketAddr>,
    pending: Arc<Pending>,
}

impl TlsChooser for Chooser {
    fn choose(&self, received: &[u8], shared: bool) -> Choice {
        match client_hello::peek(received) {
            Peek::Found(hello) => {
                let to = hello.server_name.as_ref().and_then(|name| self.passthrough.get(name));
                match (self.challenge(&hello), to) {
                    (Some(config), _) => Choice::Config(config),
                    (None, Some(&to)) if shared => Choice::PassThrough(to),
                    (None, _) if shared => Choice::Config(Arc::clone(self.shared.choose(&hello.alpn))),
                    (None, _) => Choice::Config(Arc::clone(self.turn.choose(&hello.alpn))),
                }
            }
            Peek::NeedMore => Choice::NeedMore,
            Peek::NotTls => Choice::NotTls,
        }
    }
}

impl Chooser {
    /// Returns the settings for a validation by TLS-ALPN-01 that is awaited.
    fn challenge(&self, hello: &ClientHello) -> Option<Arc<ServerConfig>> {
        let is_challenge = matches!(&*hello.alpn, [only] if only == ALPN_CHALLENGE);
        if is_challenge { self.pending.handshake(hello.server_name.as_ref()?) } else { None }
    }
}

impl Certificate {
    /// Loads the configured files, or creates a self-signed certificate. That serves also until `[acme]` has got the first one.
    ///
    /// # Errors
    /// A message for the operator if the files cannot be used. It names the file and the remedy.
    pub fn first(config: &Config, pending: Arc<Pending>) -> Result<Self, String> {
        let of_admin = match &config.admin {
            Some(Admin { tls: AdminTls::Own(files), .. }) => Some((load(files)?, files.clone())),
            _ => None,
        };
        let others = config.certificates.iter().map(|files| Ok((files.clone(), load(files)?)));
        let others: Vec<_> = others.collect::<Result<_, String>>()?;
        let (store, fingerprint) = Self::default_one(config)?;
        let choice = Arc::new(CertChoice::new(Arc::clone(&store)));
        choice.set_others(others.iter().map(|(_, store)| Arc::clone(store)).collect());
        let others = ArcSwap::from_pointee(others);
        Ok(Self { store, choice, others, pending, fingerprint, of_admin, followed: Arc::default() })
    }

    /// Returns the default certificate, and the fingerprint of a self-signed one.
    fn default_one(config: &Config) -> Result<(Arc<CertStore>, Option<String>), String> {
        match (&config.tls, &config.acme) {
            (Some(files), None) => return Ok((load(files)?, None)),
            (Some(files), Some(_)) => match load(files) {
                Ok(store) => return Ok((store, None)),
                Err(_) if !files.cert.exists() => tracing::warn!(
                    "no certificate yet: a self-signed one, which browsers refuse, serves until the authority of [acme] has \
                     issued the first"
                ),
                // The next attempt replaces it.
                Err(error) => tracing::error!("{error}; a self-signed certificate serves meanwhile"),
            },
            (None, _) => {}
        }
        let now = clock::unix_seconds();
        let addresses: Vec<_> = config.external_ip.iter().map(|external| external.public).collect();
        let names = config.acme.as_ref().map_or(vec![config.realm.clone()], |acme| acme.domains.clone());
        let made = cert::self_signed(&names, &addresses, now)
            .or_else(|_| cert::self_signed(&[], &addresses, now))
            .map_err(|error| format!("cannot create a self-signed certificate: {error}"))?;
        Ok((Arc::new(CertStore::new(made.key)), Some(made.fingerprint)))
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
            TlsConfigs::new(Arc::clone(&self.choice), alpn)
                .map_err(|error| format!("TLS cannot be set up: {error}"))
        };
        let passthrough = web.passthrough.clone();
        let (turn, shared) = (configs(&turn)?, configs(&shared)?);
        Ok(Arc::new(Chooser { turn, shared, passthrough, pending: Arc::clone(&self.pending) }))
    }

    /// Reads the files again, those of the admin pages too, but does not use them yet. Replacing a valid certificate by an
    /// expired one is an error, unless `accept_expired`.
    ///
    /// # Errors
    /// A message for each certificate that cannot be used.
    pub fn examine(&self, config: &Config) -> Result<NextCertificates, Vec<String>> {
        self.examine_with(config, false)
    }

    /// Returns why a start with this configuration is refused. Unlike a reload, it accepts expired certificates.
    pub fn start_errors(&self, config: &Config) -> Vec<String> {
        self.examine_with(config, true).err().unwrap_or_default()
    }

    fn examine_with(&self, config: &Config, accept_expired: bool) -> Result<NextCertificates, Vec<String>> {
        // Until the first certificate of [acme] is there, or one for other names, the one in use stays.
        let is_awaited = |files: &&TlsFiles| config.acme.is_none() || files.cert.exists();
        let of_listeners = config.tls.as_ref().filter(is_awaited).map(|files| (&self.store, files));
        let of_admin = self.of_admin.as_ref().map(|(store, files)| (store, files));
        let now = clock::unix_seconds();
        let accept = |files: &TlsFiles| accept_expired || files.accept_expired;
        let (mut next, mut errors) = (Vec::new(), Vec::new());
        for (store, files) in of_listeners.into_iter().chain(of_admin) {
            match store.examine(&files.cert, &files.key, now, accept(files)) {
                Ok(examined) => next.push((Arc::clone(store), files.clone(), examined)),
                Err(error) => errors.push(error.to_string()),
            }
        }
        let (known, mut others) = (self.others.load(), Vec::new());
        for files in &config.certificates {
            let same = known.iter().find(|(known, _)| known.cert == files.cert && known.key == files.key);
            match same {
                Some((_, store)) => match store.examine(&files.cert, &files.key, now, accept(files)) {
                    Ok(examined) => {
                        next.push((Arc::clone(store), files.clone(), examined));
                        others.push((files.clone(), Arc::clone(store)));
                    }
                    Err(error) => errors.push(error.to_string()),
                },
                None => match load(files) {
                    Ok(store) => others.push((files.clone(), store)),
                    Err(error) => errors.push(error),
                },
            }
        }
        if errors.is_empty() { Ok(NextCertificates { read: next, others }) } else { Err(errors) }
    }

    /// Reads the files again and uses them. New handshakes use the new certificate; open connections keep theirs. After an
    /// error, which is logged, the certificates in use stay. The result is recorded in `last`.
    pub fn reload(&self, config: &Config, last: &LastReload) {
        self.use_or_keep(self.examine(config), last);
    }

    /// Does the same after a change of the files, but says nothing if they still have the certificates in use.
    pub fn follow_up(&self, config: &Config, last: &LastReload) {
        match self.examine(config) {
            Ok(next) if next.read.iter().all(|(_, _, examined)| examined.next.is_none()) => last.settle(),
            examined => self.use_or_keep(examined, last),
        }
    }

    /// Follows the files on a thread of its own: a message says that they have changed and can be read.
    ///
    /// # Errors
    /// The error of starting the thread.
    pub fn follow(&self, config: &Config) -> io::Result<mpsc::Receiver<()>> {
        self.follow_instead(config);
        files::follow(Arc::clone(&self.followed))
    }

    /// Follows other files from now on, and those of the admin pages as before.
    pub fn follow_instead(&self, config: &Config) {
        let of_admin = self.of_admin.as_ref().map(|(_, files)| files);
        let all = config.tls.iter().chain(&config.certificates).chain(of_admin);
        let files = all.flat_map(|files| [files.cert.clone(), files.key.clone()]);
        self.followed.store(Arc::new(files.collect()));
    }

    /// Returns the certificates in use.
    pub fn choice(&self) -> Arc<CertChoice> {
        Arc::clone(&self.choice)
    }

    /// Returns the store of the default certificate, if the configuration asks for one of its own.
    pub fn configured(&self, config: &Config) -> Option<Arc<CertStore>> {
        config.tls.as_ref().map(|_| Arc::clone(&self.store))
    }

    /// Returns the store of the certificate of the admin pages, if they use TLS.
    pub fn store_for_admin(&self) -> Arc<CertStore> {
        Arc::clone(self.of_admin.as_ref().map_or(&self.store, |(store, _)| store))
    }

    /// Uses the certificates that were read, or logs why those in use stay.
    fn use_or_keep(&self, examined: Result<NextCertificates, Vec<String>>, last: &LastReload) {
        match examined {
            Ok(next) => drop(self.use_now(next, last)),
            Err(errors) => {
                errors.iter().for_each(|error| tracing::error!("the certificate in use stays: {error}"));
                last.record(false, clock::unix_seconds());
            }
        }
    }

    /// Uses the certificates for new handshakes, and records that in `last`. Returns the changes, for the operator.
    pub fn use_now(&self, next: NextCertificates, last: &LastReload) -> Vec<String> {
        let mut changes = Vec::new();
        let NextCertificates { read, others } = next;
        if !read.is_empty() {
            last.record(true, clock::unix_seconds());
        }
        self.choice.set_others(others.iter().map(|(_, store)| Arc::clone(store)).collect());
        self.others.store(Arc::new(others));
        for (store, files, examined) in read {
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

/// # Errors
/// A message for the operator if the files cannot be used.
fn load(files: &TlsFiles) -> Result<Arc<CertStore>, String> {
    let loaded = cert::load(&files.cert, &files.key, clock::unix_seconds());
    let loaded = loaded.map_err(|error| error.to_string())?;
    warn(&loaded.warnings, files);
    Ok(Arc::new(CertStore::new(loaded.key)))
}

/// Logs warnings about a certificate, and about a key file that others can read.
fn warn(warnings: &[cert::files::Warning], files: &TlsFiles) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if let Some(exposure) = Exposure::of_file(&files.key) {
        tracing::warn!("tls: {exposure}");
    }
}
