//! Shared by the tests with real programs: a server, the tools that talk to it, and handwritten bytes. Nothing here
//! calls the server's code: the tests treat the binary as a black box.
//!
//! `HALLPASS_TEST_SERVER=coturn` runs the same tests against Debian's `turnserver`, to tell a broken test from a
//! broken server. Tests of behaviour specific to Hallpass print a note and return early.

// Every test binary includes this whole module and uses a part of it.
#![allow(dead_code)]

pub mod call;
pub mod certs;
pub mod chromium;
pub mod client;
pub mod codec;
pub mod credentials;
pub mod echo;
pub mod files;
pub mod firefox;
pub mod http;
pub mod namespace;
pub mod nginx;
pub mod plan;
pub mod proc;
pub mod process;
pub mod sealer;
pub mod server;
pub mod stun;
pub mod tls;
pub mod tool;
pub mod uclient;
pub mod wall_clock;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// Returns the lock of a test that may run in parallel with others.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the lock of a test that loads the whole machine, so that it and other tests do not disturb each other.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
