//! RFC 8489 section 6.2.3, RFC 8656 section 3.1: TLS cipher suites. `cert::TlsConfigs` configures every listener from the
//! provider that is tested here.

use hallpass::cert::provider;
use rustls::CipherSuite::*;

/// RFC 8489 section 6.2.3; RFC 8446 section 9.1.
#[test]
fn s6_2_3_the_required_suites_are_there() {
    let suites: Vec<_> = provider().cipher_suites.iter().map(|suite| suite.suite()).collect();
    for required in [
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TLS13_AES_128_GCM_SHA256,
        TLS13_AES_256_GCM_SHA384,
        TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        assert!(suites.contains(&required), "{required:?}");
    }
}

/// RFC 8489 section 6.2.3; RFC 9325 section 4: every suite has forward secrecy and authenticated encryption.
#[test]
fn s6_2_3_there_is_no_weak_suite() {
    let suites = provider();
    assert!(!suites.cipher_suites.is_empty());
    for suite in &suites.cipher_suites {
        let name = format!("{:?}", suite.suite());
        let forward_secret = name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_");
        let authenticated = name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_");
        assert!(forward_secret && authenticated, "{name}");
    }
}
