//! `[redirect]`: plain HTTP, which sends browsers to https.

use super::address::parse_address;
use super::types::{Config, Redirect};
use super::walk::{Notes, Section};
use crate::base::transport::Transport;

const EXAMPLE: &str = "\"[::]:80\"";

/// Reads `[redirect]`.
pub(super) fn redirect(top: &Section<'_, '_>, notes: &mut Notes) -> Vec<Redirect> {
    const KEY: &str = "redirect.address";
    let Some(section) = top.table("redirect", "[redirect]", notes) else { return Vec::new() };
    let mut all: Vec<Redirect> = Vec::new();
    let listed = section.one_or_more("address", notes);
    if listed.as_ref().is_none_or(Vec::is_empty) {
        notes.error(
            section.line,
            KEY,
            "no address",
            format!("write address = {EXAMPLE}, or remove [redirect]"),
        );
    }
    for one in listed.unwrap_or_default() {
        let Some(at) = parse_address(one, KEY, EXAMPLE, notes) else { continue };
        let next = Redirect { address: at.value, line: at.line };
        if all.contains(&next) {
            notes.error(at.line, KEY, format!("{} is listed twice", at.value), "remove one of the two");
        } else {
            all.push(next);
        }
    }
    all
}

/// Refuses addresses that a listener or the admin pages have.
pub(super) fn check(config: &Config, notes: &mut Notes) {
    for Redirect { address, line } in &config.redirect {
        let taken =
            config.listen.iter().find(|one| one.transport != Transport::Udp && one.address == *address);
        let is_admin = config.admin.as_ref().is_some_and(|admin| admin.address == *address);
        let by = match (taken, is_admin) {
            (Some(listener), _) => format!("the listener on line {}", listener.line),
            (None, true) => "the admin address".to_owned(),
            (None, false) => continue,
        };
        let message = format!("{address} is also {by}");
        notes.error(*line, "redirect.address", message, "give one of the two another port");
    }
}

impl Config {
    /// Whether a redirect on `[::]` serves IPv4 too. It does not if another one on the same port names an IPv4 address.
    pub fn is_dual_stack_redirect(&self, redirect: &Redirect) -> bool {
        let same_port = |other: &&Redirect| other.address.port() == redirect.address.port();
        redirect.address.is_ipv6()
            && redirect.address.ip().is_unspecified()
            && !self.redirect.iter().filter(same_port).any(|other| other.address.is_ipv4())
    }
}
