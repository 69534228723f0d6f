//! A child process that is always reaped; its output is kept, and shown if the test fails.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Output {
    text: String,
    open_pipes: usize,
}

/// What a process has printed so far, on both of its streams.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Output>, Condvar)>);

impl Log {
    fn follow(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        log.0.0.lock().unwrap().open_pipes += 1;
        thread::spawn(move || {
            let mut lines = BufReader::new(pipe);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                log.0.0.lock().unwrap().text.push_str(&String::from_utf8_lossy(&line));
                log.0.1.notify_all();
                line.clear();
            }
            log.0.0.lock().unwrap().open_pipes -= 1;
            log.0.1.notify_all();
        })
    }
}

/// A running child, leader of its own process group. Dropping it kills the group and reaps the child.
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both output streams captured.
    pub fn spawn(command: Command) -> Process {
        let mut process = Process::start(command, Stdio::null());
        let stdout = process.child.stdout.take().expect("stdout is piped");
        process.log.follow(stdout);
        process
    }

    /// Starts `command` and hands over its standard input and output; only its errors are captured.
    pub fn spawn_piped(command: Command) -> (Process, ChildStdin, ChildStdout) {
        let mut process = Process::start(command, Stdio::piped());
        let stdin = process.child.stdin.take().expect("stdin is piped");
        let stdout = process.child.stdout.take().expect("stdout is piped");
        (process, stdin, stdout)
    }

    fn start(mut command: Command, stdin: Stdio) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let log = Log::default();
        log.follow(child.stderr.take().expect("stderr is piped"));
        Process { name, child, log, exit: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        self.log.0.0.lock().unwrap().text.clone()
    }

    /// Waits until `found` returns true for the output. Returns `false` after `limit`, or if the process closed its
    /// output.
    pub fn wait_output(&self, limit: Duration, mut found: impl FnMut(&str) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut output = self.log.0.0.lock().unwrap();
        loop {
            if found(&output.text) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || output.open_pipes == 0 {
                return false;
            }
            output = self.log.0.1.wait_timeout(output, left).unwrap().0;
        }
    }

    /// Sends a signal by name ("TERM", "HUP") to the process alone.
    pub fn signal(&self, name: &str) {
        assert!(self.exit.is_none(), "{} has ended already", self.name);
        send_signal(name, &self.pid().to_string());
    }

    /// Returns the exit status once both streams are closed and the process has ended; `None` after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        self.wait_output(limit, |_| false);
        // The streams close a moment before the process can be reaped.
        while self.exit.is_none() && Instant::now() < end {
            self.exit = self.child.try_wait().expect("our own child");
            thread::yield_now();
        }
        self.exit
    }

    /// Returns whether the process is running.
    pub fn is_running(&mut self) -> bool {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("our own child");
        }
        self.exit.is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group exists as long as any member runs, so its number cannot have been reused.
        if self.exit.is_none() {
            send_signal("KILL", &format!("-{}", self.pid()));
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("---- output of {} ----\n{}\n----", self.name, self.output());
        }
    }
}

fn send_signal(name: &str, target: &str) {
    let sent = Command::new("/bin/kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "cannot run /bin/kill: install procps");
}
