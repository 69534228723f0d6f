//! The names that the certificate must have, as far as the configuration shows them.

use crate::base::transport::Transport;
use crate::config::{Config, Listener};

/// Names by which clients reach the relay over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedNames {
    /// In `public` of a TLS listener.
    public: Vec<String>,
    /// The realm, if it looks like the relay's name and nothing else says which name that is.
    realm: Option<String>,
    /// Whether any listener speaks TLS.
    pub is_tls_used: bool,
}

impl WantedNames {
    /// Reads a configuration.
    pub fn of(config: &Config) -> Self {
        let is_tls = |listener: &&Listener| {
            listener.transport == Transport::Tls && !listener.address.ip().is_loopback()
        };
        let tls = || config.listen.iter().filter(is_tls);
        let urls = tls().flat_map(|listener| listener.public.iter().flatten());
        // A proxy that ends TLS has a certificate of its own; then the listener is one for TCP.
        let of_tls = urls.filter(|public| public.transport == Transport::Tls);
        let is_named_by_realm = config.realm.contains('.') && tls().any(|listener| listener.public.is_none());
        Self {
            public: of_tls.map(|public| public.host.clone()).collect(),
            realm: is_named_by_realm.then(|| config.realm.clone()),
            is_tls_used: config
                .listen
                .iter()
                .any(|listener| listener.transport == Transport::Tls || listener.either),
        }
    }

    /// Returns a name that is not among those of the certificates. A realm may also be the domain of a name. A certificate without
    /// names is another problem.
    pub fn missing(&self, names: &[String]) -> Option<&str> {
        if names.is_empty() {
            return None;
        }
        let of_public = self.public.iter().find(|wanted| !names.iter().any(|name| covers(name, wanted)));
        let of_realm = self.realm.iter().find(|realm| {
            let is_domain_of = |name: &str| {
                let host = name.to_ascii_lowercase();
                host.strip_suffix(&realm.to_ascii_lowercase()).is_some_and(|host| host.ends_with('.'))
            };
            !names.iter().any(|name| covers(name, realm) || is_domain_of(name))
        });
        of_public.or(of_realm).map(String::as_str)
    }
}

/// Whether a name of a certificate is this one (RFC 9525 section 6.3).
fn covers(name: &str, wanted: &str) -> bool {
    let (name, wanted) = (name.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    match name.strip_prefix("*.") {
        Some(domain) => wanted.split_once('.').is_some_and(|(label, of)| !label.is_empty() && of == domain),
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Public;

    fn config(realm: &str, public: Option<&str>) -> Config {
        let mut listener = Listener::new(Transport::Tls, "192.0.2.1:443".parse().expect("literal"), 1);
        let of = |host: &str| vec![Public { transport: Transport::Tls, host: host.to_owned(), port: 443 }];
        listener.public = public.map(of);
        Config { realm: realm.to_owned(), listen: vec![listener], ..Config::default() }
    }

    #[test]
    fn a_certificate_for_another_name_is_noticed() {
        let missing = |realm: &str, public: Option<&str>, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            WantedNames::of(&config(realm, public)).missing(&names).map(str::to_owned)
        };
        let relay = Some("relay.example.org".to_owned());
        let of = |names: &[&str]| missing("relay.example.org", None, names);
        assert_eq!(of(&["www.example.org"]), relay);
        assert_eq!(of(&["*.example.com", "xrelay.example.org"]), relay);
        assert_eq!(of(&["www.example.org", "Relay.example.org"]), None);
        assert_eq!((of(&["*.example.org"]), of(&[])), (None, None));
        assert_eq!(missing("example.org", None, &["relay.example.org"]), None, "the domain of the name");
        assert_eq!(missing("hallpass", None, &["relay.example.org"]), None);
        // URLs that the file itself names decide.
        let public = Some("relay.example.org");
        assert_eq!(missing("example.com", public, &["relay.example.org"]), None);
        assert_eq!(missing("example.com", public, &["www.example.org"]), relay);
    }
}
