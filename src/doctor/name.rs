//! Names: which addresses the network's name service returns.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::stage::Cause;
use super::text::clean;
use super::watch::Watch;
use crate::system::local_addresses::is_private;

/// Maximum number of addresses that are kept of one name.
const ADDRESSES_MAX: usize = 8;

/// The addresses of a name, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name, or an address that needed no lookup.
    pub name: String,
    /// Its addresses in the order of the system, without duplicates.
    pub addresses: Result<Vec<IpAddr>, Cause>,
    /// How long the lookup took.
    pub took: Duration,
}

impl Lookup {
    /// The name with its addresses: `relay.example.org (192.0.2.1)`. An address that needed no lookup is alone.
    pub fn with_addresses(&self) -> String {
        let addresses = self.addresses.as_deref().unwrap_or_default();
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        if all.is_empty() || all == [self.name.as_str()] {
            self.name.clone()
        } else {
            format!("{} ({})", self.name, all.join(", "))
        }
    }
}

/// Looks a name up with the system's resolver, for `limit` at most. The system does not let a lookup be cancelled, so it may
/// continue on its thread.
pub async fn look_up(name: &str, limit: Duration) -> Lookup {
    let watch = Watch::start();
    let addresses = match name.parse::<IpAddr>() {
        Ok(address) => Ok(vec![address]),
        Err(_) => match tokio::time::timeout(limit, tokio::net::lookup_host((name, 0))).await {
            Err(_) => Err(Cause::NoNameServer),
            Ok(Err(error)) => Err(cause(&error)),
            Ok(Ok(found)) => {
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in found.map(|found| found.ip().to_canonical()) {
                    if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                        addresses.push(address);
                    }
                }
                if addresses.is_empty() { Err(Cause::NameUnknown) } else { Ok(addresses) }
            }
        },
    };
    Lookup { name: name.to_owned(), addresses, took: watch.elapsed() }
}

/// Tells a name that does not exist from a name service that does not answer. std has no error kinds for that, only the texts
/// of gai_strerror(3), which are in English because the program sets no locale.
fn cause(error: &io::Error) -> Cause {
    let text = error.to_string();
    // EAI_AGAIN of glibc and musl.
    if text.contains("Temporary failure") || text.contains("Try again") {
        return Cause::NoNameServer;
    }
    // EAI_NONAME and EAI_NODATA of glibc and musl.
    let unknown =
        ["not known", "No address associated", "does not resolve", "no usable address", "has no usable"];
    if unknown.iter().any(|words| text.contains(words)) {
        return Cause::NameUnknown;
    }
    Cause::System(clean(&text))
}

/// Whether a relay on the Internet cannot have this address.
pub fn is_wrong(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    address.is_loopback() || address.is_unspecified() || link_local || is_private(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_texts() {
        let of =
            |text: &str| cause(&io::Error::other(format!("failed to lookup address information: {text}")));
        assert_eq!(of("Name or service not known"), Cause::NameUnknown);
        assert_eq!(of("No address associated with hostname"), Cause::NameUnknown);
        assert_eq!(of("Name does not resolve"), Cause::NameUnknown);
        assert_eq!(of("Temporary failure in name resolution"), Cause::NoNameServer);
        assert!(matches!(of("Non-recoverable failure in name resolution"), Cause::System(_)));
    }
}
