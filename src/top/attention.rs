//! What the operator should look at now, the most urgent first, each with the next step.

use super::board::{Board, Bound, Count, NEAR};
use super::number::{millis, percent, short};
use crate::base::text::{duration, wrap};

/// Days before the end of a certificate from which on it is told, as in the rules for Prometheus.
const CERTIFICATE_DAYS: u64 = 14;
/// Refusals in a minute from which on they are told. Single clients with a wrong name are normal.
const REFUSALS: u64 = 3;
/// Clients in a minute that do not accept the certificate, from which on they are told.
const DISTRUST: u64 = 3;
/// The share of the time at work from which on a worker is told.
const BUSY: f64 = 0.9;
/// A turn of this length is a gap in a call, in seconds.
const GAP: f64 = 0.05;
/// The share of the media that is dropped, from which on it is told.
const DROPPED: f64 = 0.02;
/// Packets per second in one direction from which on the other one should have some.
const ONE_WAY: f64 = 5.0;
/// Drops of media for lack of something. Packets that nobody may relay are not among them.
const LOSSES: [&str; 6] =
    ["queue_full", "stale", "send_failed", "allocation_over_rate", "user_over_rate", "host_over_rate"];

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether users are affected now.
    pub is_urgent: bool,
    /// What is wrong.
    pub text: String,
    /// What to do.
    pub step: String,
}

impl Notice {
    /// Creates a notice.
    pub fn new(is_urgent: bool, text: impl Into<String>, step: impl Into<String>) -> Self {
        Self { is_urgent, text: text.into(), step: step.into() }
    }

    /// Returns the notice as lines of at most `width` characters, the first with a mark.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let mark = if self.is_urgent { "! " } else { "* " };
        let text = wrap(&format!("{} -> {}", self.text, self.step), "  ", width.max(20));
        text.lines()
            .enumerate()
            .map(|(at, line)| if at == 0 { format!("{mark}{}", &line[2..]) } else { line.to_owned() })
            .collect()
    }
}

/// Returns what to look at. `unready` is the reason that `/readyz` gives; `unix` is the time in seconds since 1970.
pub fn notices(board: &Board, unready: Option<&str>, unix: u64) -> Vec<Notice> {
    let mut found = Vec::new();
    serving(board, unready, &mut found);
    limits(board, &mut found);
    certificate(board, unix, &mut found);
    workers(board, &mut found);
    clients(board, &mut found);
    let reading = &board.reading;
    if reading.config_failed {
        let text = "the last reload of the configuration failed; the one before stays in use";
        found.push(Notice::new(
            false,
            text,
            "run `hallpass check` with the configuration: it names the mistake",
        ));
    }
    // Those that affect users now come first, otherwise the order is that of the functions above.
    found.sort_by_key(|notice| !notice.is_urgent);
    found
}

fn serving(board: &Board, unready: Option<&str>, found: &mut Vec<Notice>) {
    let reading = &board.reading;
    if reading.draining {
        let left = reading
            .drain_left
            .map_or_else(String::new, |left| format!("; remaining calls end in {}", duration(left)));
        let text = format!("the server drains: it refuses new sessions{left}");
        found.push(Notice::new(true, text, "only a restart ends a drain: systemctl restart hallpass"));
    } else if !reading.ready {
        let reason = unready
            .filter(|reason| !reason.is_empty())
            .map_or_else(String::new, |reason| format!(": {reason}"));
        let text = format!("the server is not ready, so clients cannot be served{reason}");
        found.push(Notice::new(true, text, "see its log: journalctl -u hallpass -n 50"));
    }
}

fn limits(board: &Board, found: &mut Vec<Notice>) {
    match board.reading.pressure {
        0 => {}
        1 => found.push(Notice::new(
            true,
            "memory runs low, so new clients are refused",
            "raise limits.memory_mib, or add memory",
        )),
        _ => found.push(Notice::new(
            true,
            "memory is used up: new clients are refused, and queues of slow clients are cut",
            "raise limits.memory_mib, or add memory",
        )),
    }
    for limited in &board.limits {
        // Memory has its notice above.
        if let Some(share) = limited.share().filter(|share| *share >= NEAR && board.reading.pressure == 0) {
            let text = format!("{} of the limit on {} is used", percent(share), limited.name);
            found.push(Notice::new(share >= 0.95, text, limited.step));
        }
    }
    for Count { reason, recent, .. } in &board.lacks {
        let text = format!("{recent} clients were refused{} for lack of: {reason}", within(board));
        let step = match reason.as_str() {
            "connections_per_source" => {
                "a flood, or a whole school behind one address: limits.connections_exempt lists such sources"
            }
            "address" => {
                "[relay] addresses names an address that this machine does not have: hallpass check names it"
            }
            _ => "raise this limit; docs/metrics.md says how",
        };
        found.push(Notice::new(true, text, step));
    }
}

fn certificate(board: &Board, unix: u64, found: &mut Vec<Notice>) {
    let step = "renew it, then: systemctl kill -s USR2 hallpass";
    if let Some(certificate) = &board.reading.certificate {
        match certificate.expiry.checked_sub(unix) {
            None | Some(0) => {
                found.push(Notice::new(
                    true,
                    format!("the certificate of {} has expired", certificate.name),
                    step,
                ));
            }
            Some(left) if left < CERTIFICATE_DAYS * 86_400 => {
                let text = format!("the certificate of {} expires in {}", certificate.name, duration(left));
                found.push(Notice::new(false, text, step));
            }
            Some(_) => {}
        }
        if board.reading.is_self_signed {
            let text = format!(
                "the certificate of {} is self-signed, so browsers refuse turns: addresses",
                certificate.name
            );
            found.push(Notice::new(false, text, "write [tls] with cert and key of a public authority"));
        }
    }
    if board.reading.certificate_failed {
        let text = "the last reload of the certificate failed; the one before stays in use";
        found.push(Notice::new(false, text, "the log has the reason: journalctl -u hallpass -n 50"));
    }
    let rejected = |count: &&Count| matches!(count.reason.as_str(), "unknown_ca" | "bad_certificate");
    let rejected: u64 = board.handshakes.iter().filter(rejected).map(|count| count.recent).sum();
    if rejected >= DISTRUST {
        let text = format!("{rejected} clients rejected the certificate{}", within(board));
        found.push(Notice::new(
            true,
            text,
            "run `hallpass doctor turns:NAME` from their network: the chain, or a proxy",
        ));
    }
}

fn workers(board: &Board, found: &mut Vec<Notice>) {
    for worker in &board.restarted {
        let text = format!("worker {worker} failed and was restarted; its calls ended");
        found.push(Notice::new(true, text, "report the bug with the log line \"a worker failed\""));
    }
    let busy = board.workers.iter().filter(|load| load.busy.is_some_and(|busy| busy >= BUSY)).count();
    if busy > 0 {
        let text =
            format!("{busy} of {} workers are busy all the time, so calls are delayed", board.workers.len());
        let step = match busy == board.workers.len() {
            true => "spread users over more relays",
            false => {
                "a few clients send much: press 2, or run hallpass sessions; limits.kbit_per_user limits them"
            }
        };
        found.push(Notice::new(true, text, step));
    }
    let gap = |load: &&super::board::Load| match load.turns {
        Some([_, Bound::Below(bound), _]) => bound > GAP,
        Some([_, Bound::Above(_), _]) => true,
        None => false,
    };
    if let Some(load) = board.workers.iter().find(gap) {
        let text = format!(
            "one turn in 100 of worker {} takes more than {}: calls have gaps",
            load.worker,
            millis(GAP)
        );
        found.push(Notice::new(
            true,
            text,
            "do other programs need the processor? compare the command top, and the steal time",
        ));
    }
}

fn clients(board: &Board, found: &mut Vec<Notice>) {
    let (refused, reasons): (u64, Vec<&Count>) = (
        board.refusals.iter().map(|count| count.recent).sum(),
        board.refusals.iter().filter(|count| count.recent > 0).collect(),
    );
    if let Some(most) = reasons.first().filter(|_| refused >= REFUSALS) {
        let text = format!("{refused} requests were refused{}, most for {}", within(board), most.reason);
        found.push(Notice::new(true, text, "who and why: press 3, or run hallpass refusals"));
    }
    for row in &board.rows {
        let (sent, back) = (row.from_client.packets.unwrap_or(0.0), row.from_peer.packets.unwrap_or(0.0));
        if sent >= ONE_WAY && back == 0.0 {
            let text =
                format!("nothing comes back from the peers of {} over {}", row.rung.host, row.rung.transport);
            let step =
                "do the firewalls of this host and of the media server let UDP to the relay ports through?";
            found.push(Notice::new(true, text, step));
        }
    }
    let lost: u64 = board
        .drops
        .iter()
        .filter(|count| LOSSES.contains(&count.reason.as_str()))
        .map(|count| count.recent)
        .sum();
    let relayed = board.sum.from_client.packets.unwrap_or(0.0) + board.sum.from_peer.packets.unwrap_or(0.0);
    let lost_rate = if board.recent > 0.0 { lost as f64 / board.recent } else { 0.0 };
    if lost_rate > 1.0 && lost_rate > DROPPED * (lost_rate + relayed) {
        let text = format!("{} packets of media per second are dropped", short(lost_rate));
        found.push(Notice::new(true, text, "docs/metrics.md explains each reason; press 4 for all of them"));
    }
    if board.web_unavailable > 0 {
        let text = format!(
            "the web server behind the shared port did not answer {} times{}",
            board.web_unavailable,
            within(board)
        );
        found.push(Notice::new(true, text, "check the servers in [web]"));
    }
}

/// Returns the span of "recent" for a sentence.
fn within(board: &Board) -> String {
    match board.recent.round() as u64 {
        55..=65 => " in the last minute".to_owned(),
        seconds => format!(" in the last {}", duration(seconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Instant;
    use crate::top::history::History;
    use crate::top::reading::Reading;
    use crate::turn::action::DropReason;

    /// Computes the board of a healthy server, with lines that differ between two readings ten seconds apart.
    fn board(before: &str, after: &str) -> Board {
        let mut history = History::default();
        for (seconds, text) in [(100, before), (110, after)] {
            let text = format!("hallpass_build_info{{version=\"1\"}} 1\nhallpass_ready 1\n{text}");
            history.add(Reading::of(&text, Instant::from_nanos(seconds * 1_000_000_000)).expect("a server"));
        }
        Board::of(&history).expect("readings")
    }

    fn texts(before: &str, after: &str) -> Vec<String> {
        notices(&board(before, after), None, 1_000_000)
            .into_iter()
            .map(|notice| format!("{} -> {}", notice.text, notice.step))
            .collect()
    }

    #[test]
    fn a_healthy_server_has_no_notice() {
        let relayed =
            "hallpass_relayed_packets_total{host=\"ping\",transport=\"udp\",direction=\"from_client\"} ";
        let back = "hallpass_relayed_packets_total{host=\"ping\",transport=\"udp\",direction=\"from_peer\"} ";
        let text = |n: u64| {
            format!("{relayed}{n}\n{back}{n}\nhallpass_descriptors 79\nhallpass_descriptors_max 100\n")
        };
        assert_eq!(texts(&text(0), &text(1000)), [""; 0]);
    }

    #[test]
    fn each_problem_is_told_with_the_next_step() {
        let cases = [
            ("hallpass_ready 0", "hallpass_ready 0", "not ready"),
            (
                "hallpass_draining 1",
                "hallpass_draining 1\nhallpass_drain_left_seconds 65",
                "calls end in 1m 5s",
            ),
            ("hallpass_memory_pressure 1", "hallpass_memory_pressure 1", "limits.memory_mib"),
            (
                "",
                "hallpass_relay_ports_taken 90\nhallpass_relay_ports_max 100",
                "90 % of the limit on relay ports is used -> widen",
            ),
            (
                "",
                "hallpass_certificate_expiry_timestamp_seconds{name=\"a.example\"} 1086400",
                "a.example expires in 1d 0h -> renew",
            ),
            ("", "hallpass_certificate_expiry_timestamp_seconds{name=\"a.example\"} 999", "has expired"),
            (
                "hallpass_refusals_total{reason=\"x\",host=\"\",transport=\"udp\"} 1",
                "hallpass_refusals_total{reason=\"x\",host=\"\",transport=\"udp\"} 13",
                "12 requests were refused in the last 10s, most for x -> who and why: press 3",
            ),
            (
                "hallpass_tls_handshakes_total{outcome=\"unknown_ca\"} 0",
                "hallpass_tls_handshakes_total{outcome=\"unknown_ca\"} 4",
                "4 clients rejected the certificate",
            ),
            (
                "",
                "hallpass_relayed_packets_total{host=\"ping\",transport=\"udp\",direction=\"from_client\"} 900",
                "nothing comes back from the peers of ping over udp",
            ),
            (
                "hallpass_drops_total{reason=\"queue_full\"} 0",
                "hallpass_drops_total{reason=\"queue_full\"} 900",
                "90 packets of media per second are dropped",
            ),
            (
                "hallpass_worker_restarts_total{worker=\"1\"} 0",
                "hallpass_worker_restarts_total{worker=\"1\"} 1",
                "worker 1 failed",
            ),
            (
                "",
                "hallpass_worker_turn_seconds_bucket{worker=\"0\",le=\"0.25\"} 5\nhallpass_worker_turn_seconds_sum{worker=\"0\"} 9.5",
                "1 of 1 workers are busy",
            ),
            (
                "",
                "hallpass_worker_turn_seconds_bucket{worker=\"0\",le=\"0.25\"} 5",
                "takes more than 50 ms: calls have gaps",
            ),
            ("", "hallpass_config_last_reload_successful 0", "hallpass check"),
            (
                "hallpass_web_unavailable_total 0",
                "hallpass_web_unavailable_total 2",
                "did not answer 2 times",
            ),
            (
                "hallpass_connections_refused_total{reason=\"descriptors\"} 0",
                "hallpass_connections_refused_total{reason=\"descriptors\"} 3",
                "for lack of: descriptors",
            ),
        ];
        for (before, after, expected) in cases {
            let found = texts(before, after);
            assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}");
        }
        let found = notices(&board("", "hallpass_ready 0"), Some("waiting for the listeners"), 0);
        assert!(
            found[0].is_urgent && found[0].text.ends_with("served: waiting for the listeners"),
            "{found:?}"
        );
    }

    #[test]
    fn a_notice_fits_the_width() {
        let lines = Notice::new(true, "one two three four five", "six seven eight").lines(24);
        assert_eq!(lines, ["! one two three four", "  five -> six seven", "  eight"]);
    }

    #[test]
    fn reasons_of_losses_exist() {
        assert!(LOSSES.iter().all(|loss| DropReason::ALL.iter().any(|reason| reason.name() == *loss)));
    }
}
