//! Runs a program to its end, with a time limit.

use super::process::Process;
use std::process::Command;
use std::time::Duration;

/// The output of a program, and whether it succeeded.
pub struct Ended {
    pub output: String,
    pub success: bool,
}

/// Runs `program`; after `limit` it is killed and the test fails with its output.
pub fn run(program: &str, args: &[&str], limit: Duration) -> Ended {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, limit)
}

/// Does the same as [`run`] for a prepared command.
pub fn run_command(command: Command, limit: Duration) -> Ended {
    let shown = format!("{command:?}");
    let mut process = Process::spawn(command);
    let exit = process.wait_exit(limit);
    let output = process.output();
    match exit {
        Some(exit) => Ended { output, success: exit.success() },
        None => panic!("{shown} did not end within {limit:?}"),
    }
}

/// Runs a program that must succeed and returns what it printed.
pub fn run_ok(program: &str, args: &[&str], limit: Duration) -> String {
    let ended = run(program, args, limit);
    assert!(ended.success, "{program} {args:?} failed:\n{}", ended.output);
    ended.output
}
