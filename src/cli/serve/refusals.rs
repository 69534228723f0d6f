//! Says why clients are refused: in the log and on the admin pages, and with a warning if many fail for one reason.

mod alarm;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::field;

use super::client_names::ClientNames;
use crate::admin::refusals::{Book, Cause, Entry, Proof, Warning};
use crate::base::host::HostId;
use crate::base::transport::Transport;
use crate::turn::counters::Counters;
use crate::turn::error::Code;
use crate::turn::identity::near_miss::{self, NearMiss};
use crate::turn::identity::own_test::is_own_test;
use crate::turn::identity::refusal::{Reason, Refusal, Sender};
use crate::turn::settings::Settings;
use alarm::{Clocks, Secrets};

/// Refusals handled at once, so that a flood does not delay the control thread.
const AT_ONCE: usize = 64;
/// Wrong passwords explained at once: each may take 5 ms with 200 secrets.
const EXPLAINED_AT_ONCE: usize = 4;

/// The refusals that the workers report.
pub struct Refusals {
    book: Book,
    names: ClientNames,
    settings: Arc<Settings>,
    counters: Vec<Arc<Counters>>,
    hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    secrets: Secrets,
    clocks: Clocks,
    /// The command that compares the secrets.
    compare: String,
    /// The hosts that the warning about secrets names.
    open: Option<Vec<Arc<str>>>,
    /// Allocations of each host at the last wrong password.
    before_last: Vec<u64>,
}

impl Refusals {
    /// Keeps refusals in `book`. `compare` is the command that compares the secrets with those of BigBlueButton.
    pub fn new(
        book: Book,
        names: ClientNames,
        settings: Arc<Settings>,
        counters: Vec<Arc<Counters>>,
        hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
        compare: String,
        now: u64,
    ) -> Self {
        let mut refusals = Self {
            book,
            names,
            settings,
            counters,
            hosts,
            secrets: Secrets::default(),
            clocks: Clocks::default(),
            compare,
            open: None,
            before_last: Vec::new(),
        };
        refusals.secrets.begin("start", now, refusals.allocated());
        refusals
    }

    /// Takes new settings.
    pub fn follow(&mut self, settings: Arc<Settings>) {
        self.settings = settings;
    }

    /// Takes the settings of a reload. A secret that does not match is told again.
    pub fn reloaded(&mut self, settings: Arc<Settings>, now: u64) {
        self.follow(settings);
        self.secrets.begin("reload", now, self.allocated());
        self.open = None;
        self.book.settle(Cause::Secrets);
    }

    /// Logs and keeps reported refusals.
    pub fn record(&mut self, reported: impl Iterator<Item = Refusal>, now: u64) {
        let mut explained = 0;
        for refusal in reported.take(AT_ONCE) {
            let near_miss =
                refusal.message.as_ref().filter(|_| explained < EXPLAINED_AT_ONCE).and_then(|message| {
                    explained += 1;
                    near_miss::find(&self.settings, message)
                });
            let entry = self.entry(&refusal, near_miss, now);
            log(&entry);
            self.warn(&refusal, &entry.user, now);
            self.book.add(proof(refusal.sender), refusal.five_tuple.client.ip(), entry);
        }
        self.settle();
    }

    fn entry(&self, refusal: &Refusal, near_miss: Option<NearMiss>, now: u64) -> Entry {
        let Refusal { five_tuple, user, host, request, reason, unreported, .. } = refusal;
        let mut text = reason.text(self.names.are_private());
        if *unreported > 0 {
            text = format!("{text}; {unreported} more refusals of this source were not reported");
        }
        let is_test = is_own_test(user, five_tuple);
        if is_test {
            text.push_str(" (test by hallpass doctor or load on this machine)");
        }
        let next_step = match reason {
            Reason::PeerDenied { .. } if is_test => {
                "nothing: hallpass doctor tests that this peer is refused"
            }
            _ => reason.next_step(),
        };
        Entry {
            time: now,
            host: host.as_ref().map_or_else(String::new, |(_, name)| name.to_string()),
            user: self.names.user(user),
            client: self.names.address(five_tuple.client),
            transport: five_tuple.transport.name(),
            request,
            reason: reason.name(),
            code: reason.code().map(Code::number),
            text: match near_miss {
                Some(near_miss) => format!("{text}; {near_miss}"),
                None => text,
            },
            next_step: next_step.to_owned(),
        }
    }

    /// Gives a warning, in the log and on the pages.
    fn tell(&self, cause: Cause, text: String, now: u64) {
        let next_step = match cause {
            Cause::Secrets => format!(
                "compare: {}; if they agree, was the relay reloaded since? hallpass doctor tells",
                self.compare
            ),
            Cause::Clocks => "compare both clocks: date -u".to_owned(),
        };
        let end = if text.ends_with('?') { "" } else { ";" };
        tracing::warn!("{text}{end} next step: {next_step}");
        self.book.warn(Warning { cause, time: now, text, next_step });
    }

    /// Ends the warning about secrets once users of every host that it names have succeeded since the last refusal.
    fn settle(&mut self) {
        let Some(open) = &self.open else { return };
        let silent = self.hosts_without_success(&self.before_last);
        if open.iter().all(|host| !silent.contains(host)) {
            tracing::info!("users of {} succeed: the warning about secrets is over", open.join(", "));
            self.open = None;
            self.book.settle(Cause::Secrets);
        }
    }

    /// Warns if this refusal is one of many with the same cause.
    fn warn(&mut self, refusal: &Refusal, user: &str, now: u64) {
        if is_own_test(&refusal.user, &refusal.five_tuple) {
            return;
        }
        match refusal.reason {
            Reason::WrongPassword { secrets } if secrets > 0 => {
                if let Some(alarm) =
                    self.secrets.refused(user, &refusal.five_tuple.client.ip().to_string(), now)
                {
                    let silent = self.hosts_without_success(&alarm.before);
                    self.tell(Cause::Secrets, alarm.text(&silent), now);
                    self.open = Some(silent).filter(|silent| !silent.is_empty());
                }
                self.before_last = self.allocated();
            }
            Reason::ExpiredName { seconds } => {
                if let Some(text) = self.clocks.expired(user, seconds, now) {
                    self.tell(Cause::Clocks, text, now);
                }
            }
            _ => {}
        }
    }

    /// Returns the number of allocations that the users of each host have made since the start, without tests on this machine:
    /// these have the secret of this file, and say nothing about BigBlueButton's.
    fn allocated(&self) -> Vec<u64> {
        let of_host = |number: usize| -> u64 {
            let rungs = Transport::ALL.into_iter().flat_map(|transport| {
                self.counters.iter().map(move |counters| counters.host(HostId(number as u8), transport))
            });
            rungs.map(|rung| rung.allocated.get().wrapping_sub(rung.tested.get())).fold(0, u64::wrapping_add)
        };
        (0..self.hosts.load().len()).map(of_host).collect()
    }

    /// Returns the hosts that nobody has made an allocation for since the numbers `before`.
    fn hosts_without_success(&self, before: &[u64]) -> Vec<Arc<str>> {
        let (hosts, now) = (self.hosts.load(), self.allocated());
        let configured = |name: &Arc<str>| {
            self.settings.hosts.iter().any(|host| host.name == *name && !host.secrets.is_empty())
        };
        let silent = |&(number, name): &(usize, &Arc<str>)| {
            configured(name) && now.get(number) == Some(before.get(number).unwrap_or(&0))
        };
        hosts.iter().enumerate().filter(silent).map(|(_, name)| Arc::clone(name)).collect()
    }
}

fn proof(sender: Sender) -> Proof {
    match sender {
        Sender::Unproven => Proof::None,
        Sender::Proven => Proof::Address,
        Sender::Authenticated => Proof::Credentials,
    }
}

/// Logs one refusal.
fn log(entry: &Entry) {
    tracing::info!(
        target: "refusal",
        host = (!entry.host.is_empty()).then(|| field::display(&entry.host)),
        user = entry.user,
        transport = entry.transport,
        client = %entry.client,
        request = entry.request,
        reason = entry.reason,
        "{}; next step: {}",
        entry.text,
        entry.next_step
    );
}
