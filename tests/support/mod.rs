//! What the tests with real programs share: a server to talk to, the tools that talk to it, and bytes made
//! by hand. Nothing here calls the server's code: what is tested is the binary, seen from outside.
//!
//! `HALLPASS_TEST_SERVER=coturn` runs the same tests against Debian's `turnserver`, to tell a broken test
//! from a broken server. Tests of what only Hallpass promises say so and then end early.

// Every test binary includes this module whole and uses its own part of it.
#![allow(dead_code)]

pub mod certs;
pub mod chromium;
pub mod client;
pub mod codec;
pub mod credentials;
pub mod echo;
pub mod files;
pub mod http;
pub mod namespace;
pub mod nginx;
pub mod plan;
pub mod process;
pub mod server;
pub mod stun;
pub mod tls;
pub mod tool;
pub mod uclient;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that may run beside others.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that loads the whole machine, so that it disturbs no other test and none disturbs it.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
