//! coturn's test client and its counters.

use super::plan::Transport;
use super::server::Server;
use super::tool::run_command;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// How often uclient is started while it draws one channel number for two peers. Each of its allocations binds two peers
/// to numbers drawn from 4,096, and a number can have only one peer (RFC 8656 section 12.2): one session in 4,096 is
/// refused, so a run of two hundred fails once in twenty.
const DRAWS: usize = 4;

/// One run of `turnutils_uclient`.
pub struct Uclient {
    address: SocketAddr,
    transport: Transport,
    sessions: u32,
    messages: u32,
    options: Vec<String>,
    namespace: Option<String>,
    limit: Duration,
}

/// The totals that a run prints at its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Totals {
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub dropped: u64,
}

impl Uclient {
    /// `sessions` clients that send `messages` each, paired with RTCP allocations unless `-c` is given.
    pub fn new(address: SocketAddr, transport: Transport, sessions: u32, messages: u32) -> Uclient {
        let limit = Duration::from_secs(60);
        Uclient { address, transport, sessions, messages, options: Vec::new(), namespace: None, limit }
    }

    pub fn options(mut self, options: &[&str]) -> Uclient {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Sends to one peer, which must echo.
    pub fn peer(self, peer: SocketAddr) -> Uclient {
        self.options(&["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()])
    }

    pub fn inside(mut self, namespace: &str) -> Uclient {
        self.namespace = Some(namespace.to_owned());
        self
    }

    pub fn limit(mut self, limit: Duration) -> Uclient {
        self.limit = limit;
        self
    }

    /// Runs it with credentials of `server` and fails unless every message came back.
    pub fn must_lose_nothing(self, server: &Server) {
        let expected = u64::from(self.sessions) * u64::from(self.messages);
        let (totals, output) = self.run(server);
        let enough = totals.as_ref().is_some_and(|totals| {
            totals.sent == expected && totals.dropped == 0 && totals.received == expected
        });
        assert!(enough, "uclient missed messages: {totals:?}\n{}", tail(&output));
    }

    /// Runs it; returns `None` instead of totals if it could not allocate or bind a channel.
    pub fn run(self, server: &Server) -> (Option<Totals>, String) {
        let mut ended = self.run_once(server);
        for _ in 1..DRAWS {
            let is_odd_channel = ended.0.is_none() && ended.1.contains("channel bind: error 400");
            if !is_odd_channel && !self.left_one_unread(ended.0.as_ref()) {
                break;
            }
            ended = self.run_once(server);
        }
        ended
    }

    /// Over TCP and TLS, uclient reads one message for each event. If two arrive together, which happens on a busy machine, the
    /// last one of a session is never read.
    fn left_one_unread(&self, totals: Option<&Totals>) -> bool {
        let lost = totals.map_or(0, |totals| totals.sent - totals.received);
        self.transport != Transport::Udp && (1..=u64::from(self.sessions)).contains(&lost)
    }

    fn run_once(&self, server: &Server) -> (Option<Totals>, String) {
        let credentials = server.credentials("uclient");
        let mut command = match &self.namespace {
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, "turnutils_uclient"]);
                command
            }
            None => Command::new("turnutils_uclient"),
        };
        match self.transport {
            Transport::Udp => &mut command,
            Transport::Tcp => command.arg("-t"),
            Transport::Tls => command.args(["-t", "-S"]),
        };
        command.args(["-u", &credentials.username, "-w", &credentials.password]);
        command.args(["-m", &self.sessions.to_string(), "-n", &self.messages.to_string()]);
        command.args(["-p", &self.address.port().to_string()]).args(&self.options);
        command.arg(self.address.ip().to_string());
        let ended = run_command(command, self.limit);
        let totals = if ended.success { parse(&ended.output) } else { None };
        (totals, ended.output)
    }
}

fn parse(output: &str) -> Option<Totals> {
    // Lines with running totals contain `msz=`, the final ones do not.
    let sums = output.lines().rfind(|line| line.contains("tot_send_msgs=") && !line.contains("msz="))?;
    let losses = output.lines().rfind(|line| line.contains("Total lost packets"))?;
    Some(Totals {
        sent: number_after(sums, "tot_send_msgs=")?,
        received: number_after(sums, "tot_recv_msgs=")?,
        lost: number_after(losses, "Total lost packets ")?,
        dropped: number_after(losses, "total send dropped ")?,
    })
}

fn number_after(line: &str, label: &str) -> Option<u64> {
    let rest = line.split_once(label)?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn tail(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
