//! Measures processes of this machine, CPU time and memory, from /proc.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

/// A set of processes, including all of their threads.
pub struct Processes {
    pids: Vec<u32>,
    /// Nanoseconds on a CPU and waiting for one by process and thread; ended threads keep their last values.
    threads: HashMap<(u32, u32), [u64; 2]>,
}

/// Resource use of the processes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Time in which threads could have run but had no CPU.
    pub waited: Duration,
    /// Resident memory in bytes.
    pub rss: u64,
}

impl Processes {
    /// Starts to measure `pids`.
    ///
    /// # Errors
    /// The error of /proc for the first process that does not exist.
    pub fn new(pids: &[u32]) -> io::Result<Self> {
        for pid in pids {
            fs::metadata(format!("/proc/{pid}/task"))
                .map_err(|error| io::Error::new(error.kind(), format!("there is no process {pid}")))?;
        }
        Ok(Self { pids: pids.to_vec(), threads: HashMap::new() })
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
    }

    /// Takes a sample. An ended process keeps its CPU time and has no memory.
    pub fn sample(&mut self) -> Sample {
        let mut rss = 0;
        for &pid in &self.pids {
            for thread in threads_of(pid) {
                if let Some(nanos) = times_of(pid, thread) {
                    self.threads.insert((pid, thread), nanos);
                }
            }
            rss += rss_of(pid).unwrap_or(0);
        }
        let [cpu, waited] =
            [0, 1].map(|kind| Duration::from_nanos(self.threads.values().map(|times| times[kind]).sum()));
        Sample { cpu, waited, rss }
    }
}

/// Describes this machine: processor, cores and kernel, as far as /proc names them.
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

fn threads_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Reads the first two fields of schedstat: nanoseconds on a CPU, and nanoseconds waiting for one.
fn times_of(pid: u32, thread: u32) -> Option<[u64; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
    let mut words = text.split_ascii_whitespace();
    Some([words.next()?.parse().ok()?, words.next()?.parse().ok()?])
}

fn rss_of(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let mut processes = Processes::new(&[std::process::id()]).expect("this process exists");
        let before = processes.sample();
        assert!(before.rss > 1 << 20);
        let mut work = 1_u64;
        while processes.sample().cpu <= before.cpu {
            (0..100_000_u64).for_each(|n| work = std::hint::black_box(work.wrapping_mul(n | 1)));
        }
    }

    #[test]
    fn a_missing_process_is_an_error() {
        // Larger than any pid_max.
        let error = Processes::new(&[1 << 30]).err().expect("no such process");
        assert!(error.to_string().contains(&(1 << 30).to_string()));
    }
}
