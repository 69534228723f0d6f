//! Checks of a configuration against the addresses of this machine: what a file alone does not show.

use std::net::IpAddr;

use crate::config::{Config, OwnBackEnd, Problem, Report, Severity};
use crate::system::addresses::Addresses;

/// Returns the problems that a configuration has on a machine with these addresses. `file` is its name in messages.
pub fn check(config: &Config, machine: &Addresses, file: &str) -> Report {
    let mut report = Report { file: file.to_owned(), problems: Vec::new() };
    let is_here = |ip: IpAddr| machine.own.iter().any(|own| own.contains(&ip));
    for OwnBackEnd { key, server, listener, from } in config.own_back_ends(is_here) {
        report.problems.push(Problem {
            severity: Severity::Error,
            line: from.map(|from| from.line),
            key: key.to_owned(),
            message: format!(
                "{server} is this relay's own listener {} {}: it would forward to itself",
                listener.transport, listener.address
            ),
            remedy: OwnBackEnd::REMEDY.to_owned(),
        });
    }
    report
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const HOST: &str = "[[host]]\nname='h'\nsecret='0123456789abcdef'\n";

    fn machine() -> Addresses {
        let own = ["127.0.0.0/8", "::1/128", "203.0.113.10/32", "2001:db8::10/128"];
        Addresses {
            own: own.map(|net| net.parse().expect("literal")).into(),
            local: Vec::new(),
            is_whole: true,
        }
    }

    fn problems(text: &str) -> Vec<String> {
        let loaded = config::parse(&format!("{text}{HOST}"), "f", Path::new("")).expect("good in itself");
        check(&loaded.config, &machine(), "f").texts().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_back_end_at_our_own_listener_is_refused_however_it_is_written() {
        let shared = |listen: &str, server: &str| {
            problems(&format!(
                "[[listen]]\ntransport='tls'\naddress='{listen}'\nweb=true\n[web]\nproxy_protocol='v1'\n\
                 passthrough={{'bbb.example.org'='{server}'}}\n"
            ))
        };
        for (listen, server) in [
            ("0.0.0.0:443", "203.0.113.10:443"),
            ("[::]:443", "203.0.113.10:443"),
            ("[::]:443", "[2001:db8::10]:443"),
            ("0.0.0.0:443", "[::ffff:203.0.113.10]:443"),
        ] {
            let told = shared(listen, server);
            assert_eq!(told.len(), 1, "{listen} {server}: {told:?}");
            let told = &told[0];
            assert!(told.starts_with("f: error: web.passthrough: "), "{told}");
            assert!(
                told.contains(&format!("own listener tls {listen}: it would forward to itself")),
                "{told}"
            );
        }
        for (listen, server) in [
            ("0.0.0.0:443", "203.0.113.11:443"),
            ("0.0.0.0:443", "203.0.113.10:444"),
            ("0.0.0.0:443", "[2001:db8::10]:443"),
            ("203.0.113.10:443", "127.0.0.1:443"),
        ] {
            assert_eq!(shared(listen, server), [""; 0], "{listen} {server}");
        }
    }

    #[test]
    fn the_http3_server_is_a_back_end_too() {
        let udp = |quic: &str| {
            let text = format!("[[listen]]\ntransport='udp'\naddress='[::]:443'\nquic='{quic}'\n{HOST}");
            config::parse(&text, "f", Path::new(""))
        };
        for quic in ["127.0.0.1:443", "[::1]:443", "0.0.0.0:443"] {
            let refused = udp(quic).expect_err("certain without a look at the machine").to_string();
            assert!(
                refused.contains(&format!("f:3: error: listen.quic: {quic} is this relay's")),
                "{refused}"
            );
        }
        let told = check(&udp("203.0.113.10:443").expect("good").config, &machine(), "f").to_string();
        assert!(told.starts_with("f:3: error: listen.quic: 203.0.113.10:443 is this relay's"), "{told}");
        assert!(!check(&udp("127.0.0.1:8443").expect("good").config, &machine(), "f").has_errors());
    }
}
