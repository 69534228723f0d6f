//! The options of `hallpass load lesson`.

use std::path::PathBuf;

use clap::Args;

use super::number;
use crate::base::transport::Transport;
use crate::cli::admin_url::AdminUrl;

/// The options of `hallpass load lesson`. Each is optional, so that one given with another action is noticed.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Options of lesson")]
pub struct LessonArgs {
    /// Pupils; with --ramp, in the first step. Default: 30
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub pupils: Option<u32>,
    /// Teachers in each lesson, each with a camera. Default: 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=20))]
    pub teachers: Option<u32>,
    /// Pupils in one lesson; more pupils make more lessons. Default: 30, or --pupils without --ramp if that is less
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub class_size: Option<u32>,
    /// Pupils with a camera in each lesson. Everybody in the lesson sees all cameras. Default: 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub cameras: Option<u32>,
    /// How often each pupil leaves and comes back; 0 is never. Default: 120
    #[arg(long, value_name = "SECONDS", value_parser = number::seconds)]
    pub rejoin: Option<f64>,
    /// Transports of the participants with their shares, such as udp=20,tls=80, instead of --transport
    #[arg(long, value_name = "SHARES", value_parser = mix, conflicts_with = "transport")]
    pub mix: Option<Mix>,
    /// Address of the server for TCP. Default: --server
    #[arg(long, value_name = "HOST:PORT")]
    pub tcp_server: Option<String>,
    /// Address of the server for TLS. Default: --server
    #[arg(long, value_name = "HOST:PORT")]
    pub tls_server: Option<String>,
    /// Raise the number of pupils until a bound is broken, then measure the last good number again
    #[arg(long)]
    pub ramp: bool,
    /// Pupils added in each step. Default: --pupils
    #[arg(long, value_name = "N", requires = "ramp", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub step: Option<u32>,
    /// The largest number of pupils to measure. Default: 3000
    #[arg(long, value_name = "N", requires = "ramp", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub max_pupils: Option<u32>,
    /// The largest acceptable share of lost packets. Default: 0.5
    #[arg(long, value_name = "PERCENT", value_parser = number::percent)]
    pub max_loss: Option<f64>,
    /// The largest acceptable latency through the relay, one way, of 99 % of the packets. Default: 50
    #[arg(long, value_name = "MILLISECONDS", value_parser = number::milliseconds)]
    pub max_latency: Option<f64>,
    /// Admin address of a Hallpass server that wants no token, to name the limits that it applied
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<AdminUrl>,
    /// Write a page with plots into this file
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// Transports with their shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(pub Vec<(Transport, u32)>);

/// Parses shares such as `udp=20,tls=80`.
///
/// # Errors
/// A message for the user if a transport is unknown or listed twice, or if no share is above 0.
fn mix(text: &str) -> Result<Mix, String> {
    let mut all: Vec<(Transport, u32)> = Vec::new();
    for part in text.split(',') {
        let (name, share) = part.split_once('=').ok_or("write shares such as udp=20,tls=80")?;
        let known = Transport::ALL.into_iter().find(|transport| transport.name() == name.trim());
        let transport = known.ok_or_else(|| format!("{name:?} is not udp, tcp or tls"))?;
        let share = share.trim().parse().ok().filter(|share| *share <= 1_000_000);
        let share = share.ok_or_else(|| format!("the share of {name} is not a number up to 1000000"))?;
        if all.iter().any(|(other, _)| *other == transport) {
            return Err(format!("{name} is listed twice"));
        }
        if share > 0 {
            all.push((transport, share));
        }
    }
    if all.is_empty() { Err("all shares are 0".to_owned()) } else { Ok(Mix(all)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_mistakes_explained() {
        let Mix(all) = mix("udp=20, tls=80,tcp=0").expect("shares");
        assert_eq!(all, [(Transport::Udp, 20), (Transport::Tls, 80)]);
        for (bad, said) in [
            ("udp", "such as"),
            ("dtls=1", "\"dtls\" is not"),
            ("udp=-1", "share of udp"),
            ("udp=1,udp=2", "twice"),
            ("udp=0", "all shares"),
        ] {
            let error = mix(bad).expect_err(bad);
            assert!(error.contains(said), "{bad}: {error}");
        }
    }
}
