//! The task that gets the first certificate and renews it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::http::Https;
use super::issue::{self, Issued};
use super::pending::Pending;
use super::schedule::{Attempts, Validity, nap};
use super::settings::Settings;
use super::status::Status;
use super::store::Store;
use crate::base::calendar::utc;
use crate::base::text::duration;
use crate::cert;
use crate::system::clock;

/// Limit of a whole attempt. Authorities validate within seconds, and a slow one within minutes.
const ATTEMPT_TIME: Duration = Duration::from_secs(600);
/// Interval of the questions for the renewal window (RFC 9773 section 4.3), and after a failure.
const WINDOW_INTERVAL: u64 = 6 * 3600;
/// Interval at which the files are read again: the operator may have removed or replaced them.
const FILES_INTERVAL: u64 = 3600;

/// The renewal. It does nothing until it is started.
#[derive(Debug)]
pub struct Renewal {
    orders: watch::Sender<Order>,
    pending: Arc<Pending>,
    status: Arc<Status>,
}

/// What to do.
#[derive(Clone, Debug, Default)]
struct Order {
    settings: Option<Settings>,
    /// Changes if the operator asks for an attempt now.
    number: u64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { orders: watch::Sender::new(Order::default()), pending: Arc::default(), status: Arc::default() }
    }
}

impl Renewal {
    /// Starts the task on the current runtime.
    pub fn start(&self, settings: Option<Settings>) {
        self.follow(settings);
        let task = Task {
            pending: Arc::clone(&self.pending),
            status: Arc::clone(&self.status),
            window: None,
            hurry: false,
            number: self.orders.borrow().number,
        };
        tokio::spawn(task.run(self.orders.subscribe()));
    }

    /// Takes the settings of a reload. If the last attempt failed, another one is made at once, within the limit of an hour.
    pub fn follow(&self, settings: Option<Settings>) {
        self.status.update(|view| view.is_on = settings.is_some());
        self.orders.send_modify(|order| *order = Order { settings, number: order.number + 1 });
    }

    /// Returns the answers to challenges.
    pub fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }

    /// Returns the state for the operator.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }
}

/// The certificate on the disk.
struct Current {
    validity: Validity,
    /// The random share for its renewal: from its bytes, so it needs no state.
    share: u32,
    identifier: Option<cert::Identifier>,
    /// Whether it has all names.
    is_complete: bool,
}

/// The window that the authority suggests for a certificate.
#[derive(Clone)]
struct Window {
    of: cert::Identifier,
    times: Option<(u64, u64)>,
    ask_again: u64,
}

struct Task {
    pending: Arc<Pending>,
    status: Arc<Status>,
    window: Option<Window>,
    /// Whether the operator asked for an attempt.
    hurry: bool,
    /// The number of the last order.
    number: u64,
}

impl Task {
    async fn run(mut self, mut orders: watch::Receiver<Order>) {
        loop {
            let Order { settings, number } = orders.borrow_and_update().clone();
            self.hurry |= std::mem::replace(&mut self.number, number) != number;
            let Some(settings) = settings else {
                self.status.update(|view| (view.next, view.error) = (None, None));
                if orders.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if self.step(&settings, &mut orders).await.is_err() {
                return;
            }
        }
    }

    /// Waits for the next attempt and makes it, or returns earlier after a new order.
    ///
    /// # Errors
    /// The server ends.
    async fn step(&mut self, settings: &Settings, orders: &mut watch::Receiver<Order>) -> Result<(), ()> {
        let store = Store::new(settings.state.clone());
        let (of_store, for_read) = (store.clone(), settings.clone());
        let read = move || (of_store.attempts(), current(&of_store, &for_read, clock::unix_seconds()));
        let Ok((mut attempts, mut current)) = spawn_blocking(read).await else { return Err(()) };
        attempts.begin(&what(settings));
        if std::mem::take(&mut self.hurry) {
            attempts.skip_pause();
        }
        if let Some(current) = &mut current {
            self.ask_window(settings, &store, current).await;
        }
        // A certificate of another authority or kind is replaced at once.
        let is_from_elsewhere = attempts.issued.as_ref().is_some_and(|issued| *issued != origin(settings));
        let due = match &current {
            Some(current) if current.is_complete && !is_from_elsewhere => {
                current.validity.renew_at(current.share)
            }
            _ => 0,
        };
        let begun = clock::unix_seconds();
        let next = due.max(attempts.earliest(begun));
        self.status.update(|view| {
            (view.next, view.error) = (Some(next.max(begun)), attempts.error.clone());
            view.is_limited = attempts.is_limited(begun);
        });
        loop {
            let now = clock::unix_seconds();
            if next <= now {
                break;
            }
            let ask_again = self.window.as_ref().map_or(u64::MAX, |window| window.ask_again);
            if now >= ask_again || now.abs_diff(begun) >= FILES_INTERVAL {
                return Ok(());
            }
            tokio::select! {
                changed = orders.changed() => return changed.map_err(drop),
                () = sleep(nap(now, next)) => {}
            }
        }
        self.attempt(settings, store, attempts, current).await;
        Ok(())
    }

    /// Asks for the renewal window if it is time. Without an answer, the usual time stays.
    async fn ask_window(&mut self, settings: &Settings, store: &Store, current: &mut Current) {
        let Some(identifier) = current.identifier.clone() else { return };
        let now = clock::unix_seconds();
        let known = self.window.as_ref().filter(|window| window.of == identifier && now < window.ask_again);
        // Without an account no certificate came from the authority.
        if known.is_none() && store.account().is_some_and(|saved| saved.directory == settings.directory) {
            let (times, pause) = match renewal_window(settings, store, &identifier).await {
                Ok((times, pause)) => (Some(times), pause.clamp(FILES_INTERVAL, 4 * WINDOW_INTERVAL)),
                Err(failure) => {
                    tracing::debug!("acme: no renewal window: {failure}");
                    (None, WINDOW_INTERVAL)
                }
            };
            // A failure does not make an earlier answer wrong.
            let before = self.window.take().filter(|window| window.of == identifier);
            let times = times.or(before.and_then(|window| window.times));
            self.window = Some(Window { of: identifier.clone(), times, ask_again: now + pause });
        }
        let window = self.window.as_ref().filter(|window| window.of == identifier);
        current.validity.window = window.and_then(|window| window.times);
    }

    async fn attempt(
        &self,
        settings: &Settings,
        store: Store,
        mut attempts: Attempts,
        current: Option<Current>,
    ) {
        let turn = attempts.in_a_row as usize;
        attempts.fail(clock::unix_seconds(), share());
        attempts.error = Some("the attempt was interrupted".to_owned());
        let https = spawn_blocking({
            let ca_file = settings.ca_file.clone();
            move || Https::new(ca_file.as_deref())
        });
        let (result, wait_until) = match (save(&store, &attempts).await, https.await) {
            (Err(error), _) => (Err(Failure::State(error)), None),
            (Ok(()), Ok(Ok(https))) => {
                // Only an authority with a window wants to know the certificate before, and only once.
                let replaces = current.filter(|current| current.validity.window.is_some() && turn == 0);
                let replaces = replaces.and_then(|current| current.identifier);
                let made = timeout(ATTEMPT_TIME, self.issue(settings, &store, &https, replaces, turn)).await;
                (made.unwrap_or(Err(Failure::TimeOut)), https.retry_at())
            }
            (Ok(()), Ok(Err(failure))) => (Err(failure), None),
            (Ok(()), Err(_)) => return,
        };
        self.pending.clear();
        let domains = settings.domains.join(", ");
        let now = clock::unix_seconds();
        match result {
            Ok((from, until)) => {
                attempts.succeed(now, until.saturating_sub(from));
                attempts.issued = Some(origin(settings));
                self.status.update(|view| view.issued += 1);
                let until = utc(until);
                tracing::info!("acme: new certificate for {domains}, valid until {until}");
            }
            Err(failure) => {
                if failure.is_account_unknown() {
                    // The next attempt makes a new one.
                    let _ = store.forget_account();
                }
                if failure.is_unheard() {
                    attempts.forget_last();
                }
                attempts.explain(failure.to_string(), now, wait_until);
                self.status.update(|view| view.failed += 1);
                let pause = duration(attempts.earliest(now).saturating_sub(now));
                tracing::error!("acme: no new certificate for {domains}: {failure}; next attempt in {pause}");
            }
        }
        if let Err(error) = save(&store, &attempts).await {
            tracing::error!("acme: {}", Failure::State(error));
            // The file may say too little, so wait as long as after a failure.
            sleep(Duration::from_secs(60)).await;
        }
    }

    /// Gets a certificate and installs it. Returns its validity in seconds since 1970.
    async fn issue(
        &self,
        settings: &Settings,
        store: &Store,
        https: &Https,
        replaces: Option<cert::Identifier>,
        turn: usize,
    ) -> Result<(u64, u64), Failure> {
        let account = issue::account(settings, store, https).await?;
        let issued = issue::issue(settings, &account, replaces.as_ref(), turn, &self.pending).await?;
        let Issued { chain, key, validity } = issued;
        let (store, name) = (store.clone(), settings.domains[0].clone());
        let installed = spawn_blocking(move || store.install(&name, &chain, &key)).await;
        installed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Failure::State)?;
        Ok(validity)
    }
}

async fn save(store: &Store, attempts: &Attempts) -> io::Result<()> {
    let (store, attempts) = (store.clone(), attempts.clone());
    let saved = spawn_blocking(move || store.save_attempts(&attempts)).await;
    saved.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Returns the window and the seconds until the next question.
async fn renewal_window(
    settings: &Settings,
    store: &Store,
    identifier: &cert::Identifier,
) -> Result<((u64, u64), u64), Failure> {
    let https = Https::new(settings.ca_file.as_deref())?;
    let account = issue::account(settings, store, &https).await?;
    let identifier = instant_acme::CertificateIdentifier::new(
        identifier.authority.as_slice().into(),
        identifier.serial.as_slice().into(),
    );
    let (info, pause) = account.renewal_info(&identifier).await?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let window = info.suggested_window;
    Ok(((seconds(window.start.unix_timestamp()), seconds(window.end.unix_timestamp())), pause.as_secs()))
}

/// What an attempt depends on: a change of it is a reason to try at once.
fn what(settings: &Settings) -> String {
    let Settings { domains, directory, profile, challenges, contact, ca_file, .. } = settings;
    format!("{directory} {domains:?} {contact:?} {profile:?} {challenges:?} {ca_file:?}")
}

/// Where a certificate comes from.
fn origin(Settings { directory, profile, .. }: &Settings) -> String {
    format!("{directory} {profile:?}")
}

/// Reads the certificate on the disk; `None` if there is none that can be used.
fn current(store: &Store, settings: &Settings, now: u64) -> Option<Current> {
    let (chain, key) = store.files(&settings.domains[0]);
    let loaded = cert::load(&chain, &key, now).ok()?;
    let leaf = loaded.key.cert.first()?;
    let described = cert::describe(leaf)?;
    let names = cert::dns_names(leaf);
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let hash = Sha256::digest(leaf);
    let share = hash.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    Some(Current {
        validity: Validity {
            not_before: seconds(described.not_before),
            not_after: seconds(described.not_after),
            window: None,
        },
        share,
        identifier: cert::identifier(leaf),
        is_complete: settings
            .domains
            .iter()
            .all(|domain| names.iter().any(|name| name.eq_ignore_ascii_case(domain))),
    })
}

/// A random number. Without randomness nothing is random, which only makes relays return together.
fn share() -> u32 {
    crate::system::entropy::key().map_or(0, |key| key[0] as u32)
}
