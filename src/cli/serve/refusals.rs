//! Says why clients are refused: in the log and on the admin pages, and with a warning if many fail for one reason.

mod alarm;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::field;

use super::client_names::ClientNames;
use crate::admin::refusals::{Book, Cause, Entry, Proof, Warning};
use crate::base::host::HostId;
use crate::base::transport::Transport;
use crate::cli::certificate;
use crate::cli::output::shell_word;
use crate::config::Config;
use crate::turn::counters::{Counter, Counters, HostRung};
use crate::turn::error::Code;
use crate::turn::identity::explanation::{Explainer, Explanation};
use crate::turn::identity::own_test::{is_own_test, is_trial};
use crate::turn::identity::peer_policy::denial::Denial;
use crate::turn::identity::refusal::{Reason, Refusal, Sender};
use crate::turn::settings::{Host, Settings};
use alarm::{Clocks, Secrets};

/// Refusals handled at once, so that a flood does not delay the control thread.
const AT_ONCE: usize = 64;
/// Seconds without a wrong password after which a warning is over that came although users of every host succeeded.
const QUIET: u64 = 120;

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
    comparison: Comparison,
    open: Option<Open>,
    /// Allocations of each host at the last wrong password, and when that was.
    last: (Vec<u64>, u64),
}

/// The warning about secrets that is shown.
#[derive(Debug)]
struct Open {
    /// The hosts whose users must succeed.
    hosts: Vec<Arc<str>>,
    /// Whether users of these hosts succeeded all the time. Then it is over when no wrong password has come for [`QUIET`].
    is_beside_success: bool,
}

/// How the secrets are compared with those of BigBlueButton.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The file of the configuration.
    pub config: String,
    /// The name of the relay, if it is sure. The realm may be another one.
    pub name: Option<String>,
}

/// Where BigBlueButton has its list.
const LIST: &str = "/etc/bigbluebutton/turn-stun-servers.xml";

impl Comparison {
    /// Takes the name of the relay from this configuration: that of a `public` URL, or else the first one in the certificate.
    pub fn new(file: String, config: &Config) -> Self {
        let of_urls = config.listen.iter().flat_map(|listener| listener.public.iter().flatten());
        let of_urls = of_urls.map(|public| public.host.clone()).next();
        let is_name = |name: &String| !name.starts_with('*');
        Self { config: file, name: of_urls.or_else(|| certificate::examine(config).name().filter(is_name)) }
    }

    /// The command for this machine. `host`: which one, if there are several; an empty one is not known.
    fn command(&self, host: Option<&str>) -> String {
        let Self { config, name } = self;
        let name = name.as_deref().map_or_else(|| "NAME".to_owned(), shell_word);
        let host = match host {
            None => String::new(),
            Some("") => " --host NAME".to_owned(),
            Some(host) => format!(" --host {}", shell_word(host)),
        };
        let line = format!("hallpass bbb-xml --config {config}{host} --public-name {name} --verify");
        // On another machine, usually.
        match Path::new(LIST).exists() {
            true => format!("{line} {LIST}"),
            false => format!("ssh root@BIGBLUEBUTTON cat {LIST} | {line} -"),
        }
    }
}

impl Refusals {
    /// Keeps refusals in `book`.
    pub fn new(
        book: Book,
        names: ClientNames,
        settings: Arc<Settings>,
        counters: Vec<Arc<Counters>>,
        hosts: Arc<ArcSwap<Vec<Arc<str>>>>,
        comparison: Comparison,
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
            comparison,
            open: None,
            last: (Vec::new(), now),
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
    pub fn reloaded(&mut self, settings: Arc<Settings>, comparison: Comparison, now: u64) {
        self.comparison = comparison;
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
            let explanation = match refusal.reason {
                // Its secret may be right: then there is nothing to explain.
                Reason::ExpiredName { .. } => None,
                _ => refusal.message.as_ref().and_then(|message| self.explainer.explain(message)),
            };
            let entry = self.entry(&refusal, explanation.as_ref(), now);
            log(&entry);
            self.warn(&refusal, explanation.as_ref(), &entry.user, now);
            self.book.add(proof(refusal.sender), refusal.five_tuple.client.ip(), entry);
        }
        self.settle(now);
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
        } else if is_trial(user, five_tuple) && self.is_own_peer(reason) {
            next_step = "nothing: hallpass doctor asks for the relay's own address, and a relay with `peers` refuses that";
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
    fn tell(&self, cause: Cause, text: String, next_step: String, now: u64) {
        let end = if text.ends_with('?') { "" } else { ";" };
        tracing::warn!("{text}{end} next step: {next_step}");
        self.book.warn(Warning { cause, time: now, text, next_step });
    }

    /// The next step of a warning about secrets. `hosts`: those that may be to blame.
    fn compare(&self, hosts: &[Arc<str>]) -> String {
        let host = match (hosts, self.settings.hosts.iter().filter(|host| has_users(host)).count()) {
            (_, 0 | 1) => None,
            ([host], _) => Some(&**host),
            _ => Some(""),
        };
        let command = self.comparison.command(host);
        format!("compare: {command}; if they agree, was the relay reloaded since? hallpass doctor tells")
    }

    /// Ends the warning about secrets once users of every host that it names have succeeded since the last refusal.
    fn settle(&mut self, now: u64) {
        let Some(Open { hosts, is_beside_success }) = &self.open else { return };
        let (before, at) = &self.last;
        let silent = without_success(&self.successes(before));
        let is_quiet = !is_beside_success || now.saturating_sub(*at) >= QUIET;
        if is_quiet && hosts.iter().all(|host| !silent.contains(host)) {
            tracing::info!("users of {} succeed: the warning about secrets is over", hosts.join(", "));
            self.open = None;
            self.book.settle(Cause::Secrets);
        }
    }

    /// Whether a peer is refused that is an address of this relay.
    fn is_own_peer(&self, reason: &Reason) -> bool {
        let Reason::PeerDenied { peer, .. } = reason else { return false };
        self.settings.relay_addresses.iter().any(|relay| [relay.local, relay.announced].contains(peer))
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
                        alarm.map(|alarm| (alarm.outdated(host), vec![Arc::clone(host)], false))
                    }
                    None => self.secrets.refused(user, source, now).map(|alarm| {
                        let hosts = self.successes(&alarm.before);
                        let silent = without_success(&hosts);
                        let all = || hosts.iter().map(|(name, _)| Arc::clone(name)).collect();
                        let is_beside_success = silent.is_empty();
                        (
                            alarm.text(&hosts),
                            if is_beside_success { all() } else { silent },
                            is_beside_success,
                        )
                    }),
                };
                if let Some((text, hosts, is_beside_success)) = told {
                    self.tell(Cause::Secrets, text, self.compare(&hosts), now);
                    self.open = Some(Open { hosts, is_beside_success });
                }
                self.last = (self.allocated(), now);
            }
            Reason::ExpiredName { seconds } => {
                let host = refusal.message.as_ref().and_then(|message| self.explainer.issuer(message));
                // A login of the test page, which a reader has left open.
                if host.as_ref().is_some_and(|host| self.is_of_test_page(host)) {
                    return;
                }
                let timely = self.timely(host.as_ref());
                let user = (user, source, host);
                if let Some(text) = self.clocks.expired(user, seconds, now, timely) {
                    self.tell(Cause::Clocks, text, "compare both clocks: date -u".to_owned(), now);
                }
            }
            _ => {}
        }
    }

    /// Returns the number of allocations that the users of each host have made since the start, with names that its secret verified.
    /// Tests have the secret of this file, and a `[[user]]` has a password: neither says anything about BigBlueButton's secret.
    fn allocated(&self) -> Vec<u64> {
        (0..self.hosts.load().len()).map(|host| self.sum(host, |rung| &rung.issued)).collect()
    }

    /// Returns how many of them had names that expire within a day, for this host, or for all if it is not known: under a clock
    /// that is a day ahead, such a name has expired.
    fn timely(&self, host: Option<&Arc<str>>) -> u64 {
        let hosts = self.hosts.load();
        let chosen = hosts.iter().enumerate().filter(|(_, name)| host.is_none_or(|host| host == *name));
        chosen.map(|(number, _)| self.sum(number, |rung| &rung.timely)).fold(0, u64::wrapping_add)
    }

    fn is_of_test_page(&self, name: &str) -> bool {
        self.settings.hosts.iter().any(|host| &*host.name == name && host.confined.is_some())
    }

    /// Returns the sum of a counter of one host.
    fn sum(&self, host: usize, counter: fn(&HostRung) -> &Counter) -> u64 {
        let rungs = Transport::ALL.into_iter().flat_map(|transport| {
            self.counters.iter().map(move |counters| counters.host(HostId(host as u8), transport))
        });
        rungs.map(|rung| counter(rung).get()).fold(0, u64::wrapping_add)
    }

    /// Returns the hosts with a secret, and whether a user has made an allocation since the numbers `before`.
    fn successes(&self, before: &[u64]) -> Vec<(Arc<str>, bool)> {
        let (hosts, now) = (self.hosts.load(), self.allocated());
        let configured =
            |name: &Arc<str>| self.settings.hosts.iter().any(|host| host.name == *name && has_users(host));
        let all = hosts.iter().enumerate().filter(|(_, name)| configured(name));
        all.map(|(number, name)| (Arc::clone(name), now.get(number) > before.get(number).or(Some(&0))))
            .collect()
    }
}

/// Whether a server with a secret of this host issues logins. Those of the test page come from this process.
fn has_users(host: &Host) -> bool {
    !host.secrets.is_empty() && host.confined.is_none()
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
        Sender::Authenticated | Sender::Confined => Proof::Credentials,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::serve::settings::{self, HostNames, Machine};
    use crate::system::addresses::Addresses;

    /// Nobody may ever use the test page: a warning about secrets must not wait for one of its users, nor ask which host.
    #[test]
    fn the_host_of_the_test_page_has_no_users() {
        let machine = Machine { workers: 1, addresses: Addresses::default(), page_secret: "page".to_owned() };
        let mut names = HostNames::default();
        let config = Config::embedded("secret".to_owned());
        let made = settings::protocol(&config, &machine, Vec::new(), &mut names).expect("room");
        assert!(made.hosts.len() > 1 && made.hosts.iter().any(|host| host.confined.is_some()));
        let hosts = Arc::new(ArcSwap::from_pointee(names.all().to_vec()));
        let comparison = Comparison { config: "h.toml".to_owned(), name: None };
        let client_names = ClientNames::default();
        let refusals =
            Refusals::new(Book::default(), client_names, Arc::new(made), Vec::new(), hosts, comparison, 1);
        let silent = without_success(&refusals.successes(&[]));
        assert_eq!(silent.len(), 1, "{silent:?}");
        assert!(!refusals.compare(&silent).contains("--host"));
    }

    /// The list is on another machine, and with several hosts the command needs one.
    #[test]
    fn the_command_that_compares_the_secrets_is_whole() {
        let comparison =
            Comparison { config: "/etc/h.toml".to_owned(), name: Some("relay.example.org".to_owned()) };
        assert_eq!(
            comparison.command(None),
            "ssh root@BIGBLUEBUTTON cat /etc/bigbluebutton/turn-stun-servers.xml | hallpass bbb-xml --config /etc/h.toml \
             --public-name relay.example.org --verify -"
        );
        assert!(comparison.command(Some("ping")).contains("/etc/h.toml --host ping --public-name"));
        assert!(comparison.command(Some("")).contains("/etc/h.toml --host NAME --public-name"));
        let nameless = Comparison { name: None, ..comparison };
        assert!(nameless.command(None).contains("--public-name NAME --verify"), "never the realm");
    }
}
