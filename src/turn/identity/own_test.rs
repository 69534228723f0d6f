//! Recognises the test logins of this program on the machine of the relay, so that they do not count as users of a host.
//!
//! A name alone says nothing: a client may have any. An address alone says nothing either: behind a proxy on this machine, all
//! clients may have it. Both together are a test. A client elsewhere cannot have the relay's own address: the kernel drops such
//! packets, and a login needs an answer.

use crate::turn::five_tuple::FiveTuple;

/// The users of `hallpass doctor` and `hallpass load`. In a lesson, a number follows.
const TESTERS: [&str; 2] = ["doctor", "load"];

/// The users of the logins that `hallpass credentials` prints and of `hallpass doctor`, wherever they are used.
const TRIALS: [&str; 2] = ["hallpass", "doctor"];

/// Returns whether a request with this user name, as sent, is a test by this program from this machine.
pub fn is_own_test(name: &str, five_tuple: &FiveTuple) -> bool {
    let (client, server) = (five_tuple.client.ip(), five_tuple.server.ip());
    // A connection to an own address has the same address as its source.
    let is_local = client == server || client.is_loopback();
    is_local && is_named(name, &TESTERS)
}

/// Returns whether an allocation of this user says nothing about whether the users of a host succeed: that of a test, of
/// `hallpass doctor` on any machine, or with a login that `hallpass credentials` prints. All of these have the relay's own secret.
pub fn is_trial(name: &str, five_tuple: &FiveTuple) -> bool {
    is_own_test(name, five_tuple) || is_named(name, &TRIALS)
}

fn is_named(name: &str, names: &[&str]) -> bool {
    let Some((expiry, user)) = name.split_once(':') else { return false };
    let user = match user.rsplit_once('-') {
        Some((user, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            user
        }
        _ => user,
    };
    expiry.bytes().all(|byte| byte.is_ascii_digit()) && names.contains(&user)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::transport::Transport;

    #[test]
    fn a_test_has_both_the_name_and_the_address() {
        let from = |client: &str, server: &str, name: &str| {
            let socket = |ip: &str| (ip.parse::<std::net::IpAddr>().expect("literal"), 3478).into();
            let (client, server) = (socket(client), socket(server));
            is_own_test(name, &FiveTuple { transport: Transport::Udp, client, server })
        };
        assert!(from("192.0.2.10", "192.0.2.10", "1999999999:doctor"));
        assert!(from("::1", "::1", "1999999999:load-17"));
        assert!(!from("203.0.113.5", "192.0.2.10", "1999999999:doctor"), "a pupil of this name");
        assert!(
            !from("127.0.0.1", "127.0.0.1", "1999999999:w_ann"),
            "a pupil behind a proxy on this machine"
        );
        assert!(!from("127.0.0.1", "127.0.0.1", "1999999999:w_doctor"));
        assert!(!from("127.0.0.1", "127.0.0.1", "doctor"), "a name without a time");
        assert!(
            !from("203.0.113.5", "192.0.2.10", "1999999999:hallpass"),
            "its refusals are shown like others"
        );
    }

    #[test]
    fn a_login_of_this_program_is_a_trial_from_anywhere() {
        let at = |ip: [u8; 4]| std::net::SocketAddr::from((ip, 3478));
        let (client, server) = (at([203, 0, 113, 5]), at([192, 0, 2, 10]));
        let five_tuple = FiveTuple { transport: Transport::Tls, client, server };
        assert!(is_trial("1999999999:hallpass", &five_tuple));
        assert!(
            is_trial("1999999999:doctor", &five_tuple),
            "it has the secret of the relay, not of BigBlueButton"
        );
        assert!(!is_trial("1999999999:load", &five_tuple), "a pupil of this name");
        assert!(!is_trial("1999999999:w_hallpass", &five_tuple));
    }
}
