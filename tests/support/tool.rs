//! Runs a program to its end, within a deadline.

use super::process::Process;
use std::process::Command;
use std::time::Duration;

/// What a program printed and how it ended.
pub struct Ended {
    pub output: String,
    pub success: bool,
}

/// Runs `program`; past `limit` it is killed and the test fails with all that was printed.
pub fn run(program: &str, args: &[&str], limit: Duration) -> Ended {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command, limit)
}

/// As [`run`], for a command that needs more than arguments.
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
