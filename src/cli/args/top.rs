//! `hallpass top`.

use std::time::Duration;

use clap::Args;

use super::running::AdminAddressArgs;

/// The help text after the options.
pub const TOP_EXAMPLES: &str = "\
Shows who relays how much through which host and transport, what is refused and dropped, how near limits are, how busy \
the workers are, and what needs attention, with the next step. Press ? for the keys. If standard output is no terminal, \
it prints the same once and ends.

Examples:
  hallpass top
  hallpass top --config /etc/hallpass/hallpass.toml
  hallpass top --once
  hallpass top --once --json | jq '.attention[].text'

Exit status: 0 success, 1 the server cannot be asked, 2 wrong usage.";

/// `hallpass top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// The server.
    #[command(flatten)]
    pub address: AdminAddressArgs,
    /// Seconds between two updates, from 1 to 60
    #[arg(long, short, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    pub interval: Duration,
    /// Print the numbers of one interval as plain text and exit
    #[arg(long)]
    pub once: bool,
    /// Print them as JSON; implies --once
    #[arg(long)]
    pub json: bool,
}

/// Reads a number of seconds, which may have a fraction.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, such as 2".to_owned())?;
    match (1.0..=60.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err("write a number from 1 to 60".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_between_a_second_and_a_minute() {
        assert_eq!(interval("2.5"), Ok(Duration::from_millis(2500)));
        for wrong in ["0.9", "61", "-1", "nan", "inf", "1e99", "two", ""] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
