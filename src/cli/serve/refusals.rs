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
use crate::turn::identity::explanation::{Explainer, Explanation};
use crate::turn::identity::own_test::is_own_test;
use crate::turn::identity::peer_policy::denial::Denial;
use crate::turn::identity::refusal::{Reason, Refusal, Sender};
use crate::turn::settings::{Host, Settings};
use alarm::{Clocks, Secrets};

/// Refusals handled at once, so that a flood does not delay the control thread.
const AT_ONCE: usize = 64;

/// The refusals that the workers report.
pub struct Refusals {
    book: Book,
    names: ClientNames,
    settings: Arc<Settings>,
    counters: Vec<Arc<Counters>>,
    hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
    explainer: Explainer,
    secrets: Secrets,
    outdated: Secrets,
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
            explainer: Explainer::new(Arc::clone(&settings)),
            book,
            names,
            settings,
            counters,
            hosts,
            secrets: Secrets::default(),
            outdated: Secrets::default(),
            clocks: Clocks::default(),
            compare,
            open: None,
            before_last: Vec::new(),
        };
        refusals.begin("start", now, refusals.allocated());
        refusals
    }

    /// Takes new settings.
    pub fn follow(&mut self, settings: Arc<Settings>) {
        self.explainer.follow(Arc::clone(&settings));
        self.settings = settings;
    }

    /// Takes the settings of a reload. A secret that does not match is told again.
    pub fn reloaded(&mut self, settings: Arc<Settings>, now: u64) {
        let secrets_of = |settings: &Settings, name: &Arc<str>| {
            let host = settings.hosts.iter().find(|host| host.name == *name);
            host.map(|host| (host.secrets.clone(), host.revoked.clone()))
        };
        // Users that have succeeded with secrets that stay prove them right.
        let hosts = self.hosts.load();
        let before = hosts.iter().zip(self.allocated()).enumerate().map(|(number, (name, now))| {
            match secrets_of(&self.settings, name) == secrets_of(&settings, name) {
                true => self.secrets.before().get(number).copied().unwrap_or(0),
                false => now,
            }
        });
        let before: Vec<u64> = before.collect();
        self.follow(settings);
        self.begin("reload", now, before);
        self.open = None;
        self.book.settle(Cause::Secrets);
    }

    fn begin(&mut self, event: &'static str, now: u64, before: Vec<u64>) {
        self.outdated.begin(event, now, Vec::new());
        self.secrets.begin(event, now, before);
    }

    /// Logs and keeps reported refusals.
    pub fn record(&mut self, reported: impl Iterator<Item = Refusal>, now: u64) {
        self.explainer.begin(now);
        for refusal in reported.take(AT_ONCE) {
            let explanation = refusal.message.as_ref().and_then(|message| self.explainer.explain(message));
            let entry = self.entry(&refusal, explanation.as_ref(), now);
            log(&entry);
            self.warn(&refusal, explanation.as_ref(), &entry.user, now);
            self.book.add(proof(refusal.sender), refusal.five_tuple.client.ip(), entry);
        }
        self.settle();
    }

    fn entry(&self, refusal: &Refusal, explanation: Option<&Explanation>, now: u64) -> Entry {
        let Refusal { five_tuple, user, host, request, reason, unreported, elsewhere, .. } = refusal;
        let mut text = reason.text(self.names.are_private());
        if *unreported > 0 {
            text = format!("{text}; {unreported} more refusals of this source were not reported");
        }
        if *elsewhere > 0 {
            text = format!("{text}; nor were {elsewhere} of many other sources");
        }
        let is_test = is_own_test(user, five_tuple);
        if is_test {
            text.push_str(" (test by hallpass doctor or load on this machine)");
        }
        let mut next_step = reason.next_step();
        if let Some(explanation) = explanation {
            text = format!("{text}; {explanation}");
            next_step = explanation.next_step().unwrap_or(next_step);
        }
        if is_test && matches!(reason, Reason::PeerDenied { .. }) {
            next_step = "nothing: hallpass doctor tests that this peer is refused";
        } else if let Some(other) = self.host_of_peer(refusal) {
            text = format!("{text}; it is in `peers` of {other}");
            next_step = "if the client came from the server of that host, correct the secret there: it has the secret of another \
                         host";
        }
        Entry {
            time: now,
            host: host.as_ref().map_or_else(String::new, |(_, name)| name.to_string()),
            user: self.names.user(user),
            client: self.names.address(five_tuple.client),
            transport: five_tuple.transport.name(),
            request,
            reason: reason.name(),
            code: reason.code().map(Code::number),
            text,
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
        let silent = without_success(&self.successes(&self.before_last));
        if open.iter().all(|host| !silent.contains(host)) {
            tracing::info!("users of {} succeed: the warning about secrets is over", open.join(", "));
            self.open = None;
            self.book.settle(Cause::Secrets);
        }
    }

    /// Returns another host whose users reach the peer that is refused. A server with the secret of another host is a likely
    /// cause.
    fn host_of_peer(&self, refusal: &Refusal) -> Option<&Arc<str>> {
        let Reason::PeerDenied { peer, denial } = refusal.reason else { return None };
        if !matches!(denial, Denial::NotListed | Denial::Closed(_)) {
            return None;
        }
        let has = |host: &&Host| host.peers.iter().flatten().any(|net| net.contains(&peer));
        self.settings.hosts.iter().find(has).map(|host| &host.name)
    }

    /// Warns if this refusal is one of many with the same cause.
    fn warn(&mut self, refusal: &Refusal, explanation: Option<&Explanation>, user: &str, now: u64) {
        if is_own_test(&refusal.user, &refusal.five_tuple) {
            return;
        }
        let source = refusal.five_tuple.client.ip();
        match refusal.reason {
            Reason::WrongPassword { secrets } if secrets > 0 => {
                let told = match explanation.and_then(Explanation::outdated) {
                    Some(host) => {
                        let alarm = self.outdated.refused(user, source, now);
                        alarm.map(|alarm| (alarm.outdated(host), vec![Arc::clone(host)]))
                    }
                    None => self.secrets.refused(user, source, now).map(|alarm| {
                        let hosts = self.successes(&alarm.before);
                        (alarm.text(&hosts), without_success(&hosts))
                    }),
                };
                if let Some((text, silent)) = told {
                    self.tell(Cause::Secrets, text, now);
                    self.open = Some(silent).filter(|silent| !silent.is_empty());
                }
                self.before_last = self.allocated();
            }
            Reason::ExpiredName { seconds } => {
                if let Some(text) = self.clocks.expired(user, source, seconds, now) {
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

    /// Returns the hosts with a secret, and whether a user has made an allocation since the numbers `before`.
    fn successes(&self, before: &[u64]) -> Vec<(Arc<str>, bool)> {
        let (hosts, now) = (self.hosts.load(), self.allocated());
        let configured = |name: &Arc<str>| {
            self.settings.hosts.iter().any(|host| host.name == *name && !host.secrets.is_empty())
        };
        let all = hosts.iter().enumerate().filter(|(_, name)| configured(name));
        all.map(|(number, name)| (Arc::clone(name), now.get(number) > before.get(number).or(Some(&0))))
            .collect()
    }
}

/// Returns the hosts without a user that succeeded.
fn without_success(hosts: &[(Arc<str>, bool)]) -> Vec<Arc<str>> {
    let silent = hosts.iter().filter(|(_, succeeded)| !succeeded);
    silent.map(|(name, _)| Arc::clone(name)).collect()
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
