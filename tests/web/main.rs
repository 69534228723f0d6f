//! Port 443 shared with the web: real web servers, HTTP clients and proxies with a real relay.
#![allow(clippy::disallowed_methods, reason = "third-party programs are waited for on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod behind;
mod below;
mod check;
mod proxied;
mod quic;
mod shared;
mod site;
mod site_files;

use std::process::Command;
use std::time::Duration;

use support::plan::{LOCAL_V4, Plan};
use support::tool::run_command;

const LIMIT: Duration = Duration::from_secs(30);

/// A plan on 127.0.0.1 whose TLS port is shared with the web of `table`.
fn plan(table: &str) -> Plan {
    let mut plan = Plan::on(&[LOCAL_V4], &["127.0.0.0/8"]);
    plan.tls = "web = true".to_owned();
    plan.tables = table.to_owned();
    plan
}

/// Runs curl, which must succeed; returns its output.
fn curl(args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--max-time", "20"]).args(args);
    let ended = run_command(command, LIMIT);
    assert!(ended.success, "curl {args:?}:\n{}", ended.output);
    ended.output
}
