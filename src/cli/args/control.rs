//! The commands that steer the running server through its control socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

pub const RELOAD_EXAMPLES: &str = "\
Reads the configuration, the secrets and the certificates again, and waits until they are in use. Prints each change. If \
anything is wrong or needs a restart, nothing is applied. No call is interrupted, except those of a revoked secret, a removed \
user, or a peer or an address that is no longer allowed.

Examples:
  hallpass reload
  hallpass reload --config /etc/hallpass/hallpass.toml      if [control] names another socket

Exit status: 0 applied, 1 refused: the configuration in use stays, 2 wrong usage.";

pub const DRAIN_EXAMPLES: &str = "\
Refuses new users, or sends them to the relays in [drain], and shows who is left. A user with an allocation may make more, as \
an ICE restart does. After the time of --for the remaining sessions end. The server keeps running, and serves new users again \
after --cancel or a restart. Users of UDP that have sent nothing for five minutes are not waited for: nothing can be relayed \
for them. Ctrl-C ends the display; the drain goes on.

Examples:
  hallpass drain --for 45m && systemctl restart hallpass
  hallpass drain --no-wait
  hallpass drain --cancel

Exit status: 0 nobody is left, or done with --no-wait or --cancel; 1 failed, interrupted or cancelled, 2 wrong usage.";

/// The longest time of a drain.
const DRAIN_MAX: Duration = Duration::from_secs(86_400);

/// How the running server is reached.
#[derive(Args, Debug)]
pub struct ControlArgs {
    /// Control socket of the server. Default: /run/hallpass/control.sock
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Configuration file to read the path of the socket from
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Print the answer of the server as JSON
    #[arg(long)]
    pub json: bool,
}

/// `hallpass reload`.
#[derive(Args, Debug)]
pub struct ReloadArgs {
    /// The server.
    #[command(flatten)]
    pub server: ControlArgs,
}

/// `hallpass drain`.
#[derive(Args, Debug)]
pub struct DrainArgs {
    /// Let running calls go on for this long at most, such as 90s, 45m or 1h30m. Default: `limits.drain_seconds`
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub limit: Option<Duration>,
    /// End the drain: new users are served again
    #[arg(long, conflicts_with_all = ["limit", "no_wait"])]
    pub cancel: bool,
    /// Begin the drain, show who is there, and do not wait
    #[arg(long)]
    pub no_wait: bool,
    /// The server.
    #[command(flatten)]
    pub server: ControlArgs,
}

/// Reads a time: numbers with the units h, m and s.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write numbers with the units h, m or s, such as 90s, 45m or 1h30m".to_owned();
    let (mut seconds, mut number) = (0_u64, String::new());
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let part: u32 = number.parse().map_err(|_| wrong())?;
        number.clear();
        seconds += u64::from(part) * unit;
    }
    let time = Duration::from_secs(seconds);
    match number.is_empty() && !text.is_empty() {
        false => Err(wrong()),
        true if time.is_zero() || time > DRAIN_MAX => Err("write a time from 1s to 24h".to_owned()),
        true => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        let seconds = |text| time(text).map(|time| time.as_secs());
        for (text, expected) in [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("24h", 86_400)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for wrong in ["", "45", "m", "1h30", "5x", "-5m", "1.5h", "99999999999s"] {
            assert!(seconds(wrong).is_err_and(|error| error.contains("45m")), "{wrong}");
        }
        for wrong in ["0s", "25h", "4000000h"] {
            assert!(seconds(wrong).is_err_and(|error| error.contains("24h")), "{wrong}");
        }
    }
}
