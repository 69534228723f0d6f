//! Who holds the ports of the configuration.

use std::io;

use super::site::{Site, untested};
use crate::cli::live::{Attempt, Tried};
use crate::cli::output::counted;
use crate::doctor::check::{ANOTHER_SERVER, Check};
use crate::doctor::finding::Finding;

/// Hallpass does not run, and one other program has the ports of all listeners.
fn another_server(site: &Site<'_>) -> Option<Finding> {
    let mut listeners = site.tried.iter().filter(|tried| tried.transport.is_some());
    let holder = |tried: &Tried| match &tried.attempt {
        Attempt::Failed { holder, .. } => holder.as_ref().map(|holder| holder.name.clone()),
        _ => None,
    };
    let first = listeners.next()?;
    let name = holder(first)?;
    listeners.all(|tried| holder(tried).as_deref() == Some(&name)).then(|| {
        Finding::error(
            ANOTHER_SERVER,
            format!(
                "hallpass is not running; {name} has the ports of all its listeners, and serves in its place"
            ),
            first.remedy(),
        )
    })
}

/// Judges what happened when the addresses were opened.
pub fn check(site: &Site<'_>) -> Check {
    let mut check = Check::of("ports");
    let running = site.running();
    let listeners = || site.tried.iter().filter(|tried| tried.transport.is_some());
    let served = |tried: &&Tried| matches!(tried.attempt, Attempt::Served { .. });
    if let Some(pid) = running {
        check.facts.push(format!(
            "hallpass (pid {pid}) has {} of {} open",
            listeners().filter(served).count(),
            // Those whose address this machine does not have were not tried, and serve nobody.
            counted(site.config.listen.len(), "listener")
        ));
    }
    if let Some(instead) = another_server(site) {
        check.findings.push(instead);
        return check;
    }
    for tried in &site.tried {
        match &tried.attempt {
            Attempt::Failed { error, holder } => check.findings.push(match holder {
                Some(holder) => Finding::error(
                    "port_taken",
                    format!("{}: {} (pid {}) has this port", tried.what, holder.name, holder.pid),
                    tried.remedy(),
                ),
                None if error.kind() == io::ErrorKind::AddrInUse => untested(
                    "port_holder_unknown",
                    format!("{}: a process of another user has this port", tried.what),
                    "run this command as root to see which",
                ),
                None if site.is_limited() && error.kind() == io::ErrorKind::PermissionDenied => untested(
                    "port_holder_unknown",
                    format!(
                        "{}: this user may not open this port, so it is not known who has it",
                        tried.what
                    ),
                    "run this command as root to see who",
                ),
                None => Finding::error("port_unusable", format!("{}: {error}", tried.what), tried.remedy()),
            }),
            Attempt::Free if running.is_some() && tried.transport.is_some() => {
                check.findings.push(Finding::error(
                    "listener_closed",
                    format!("{}: the running server does not have it open", tried.what),
                    "systemctl reload hallpass opens it, and no call ends; if it stays closed, the log says why",
                ));
            }
            Attempt::Free | Attempt::Served { .. } => {}
        }
    }
    // Otherwise the reason why it is not running is among the findings.
    let is_free = listeners().all(|tried| matches!(tried.attempt, Attempt::Free));
    if running.is_none() && is_free {
        check.findings.push(Finding::error(
            "not_running",
            "hallpass is not running, so nothing was sent through it",
            "systemctl start hallpass; if it does not start, `journalctl -u hallpass` says why",
        ));
    }
    check
}
