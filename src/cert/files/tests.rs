use super::*;
use crate::cert::{CertStore, Examined};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::sync::atomic::{AtomicU32, Ordering};

const NOW: u64 = 1_800_000_000;

/// A temporary directory, removed when dropped.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("hallpass-cert-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Creates an issuer and a leaf that is valid from 1,000 s before `NOW` to `NOW + lifetime`. Returns leaf, issuer and
/// the leaf's key in PEM.
fn issued(lifetime: i64) -> [String; 3] {
    issued_for(&["relay.example.org"], lifetime)
}

fn issued_for(names: &[&str], lifetime: i64) -> [String; 3] {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds: i64| epoch + std::time::Duration::from_secs(seconds as u64);
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "Test issuer");
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut leaf =
        CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    leaf.not_before = at(NOW as i64 - 1000);
    leaf.not_after = at(NOW as i64 + lifetime);
    let cert = leaf.signed_by(&key, &issuer).unwrap();
    [
        pem("CERTIFICATE", cert.der()),
        pem("CERTIFICATE", ca_cert.der()),
        pem("PRIVATE KEY", &key.serialize_der()),
    ]
}

fn error(result: Result<LoadedCertificate, CertError>) -> String {
    result.err().unwrap().to_string()
}

/// Reads the files and uses what they contain.
fn reload(
    store: &CertStore,
    (chain, key): (&Path, &Path),
    now: u64,
    accept_expired: bool,
) -> Result<Examined, CertError> {
    let examined = store.examine(chain, key, now, accept_expired)?;
    examined.next.iter().for_each(|next| store.replace(Arc::clone(next)));
    Ok(examined)
}

#[test]
fn a_chain_and_its_key_load_without_warnings() {
    let dir = Dir::new();
    let [leaf, ca, key] = issued(90 * 86_400);
    let chain = dir.write("fullchain.pem", format!("a comment\n{leaf}\n{ca}"));
    let loaded = load(&chain, &dir.write("privkey.pem", key), NOW).unwrap();
    assert_eq!(loaded.key.cert.len(), 2);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn odd_times_and_short_chains_are_warnings() {
    let dir = Dir::new();
    let warned = |lifetime: i64, now: u64, whole: bool| {
        let [leaf, ca, key] = issued(lifetime);
        let chain = dir.write("c.pem", if whole { leaf + &ca } else { leaf });
        (load(&chain, &dir.write("k.pem", key), now).unwrap().warnings, chain)
    };
    let (warnings, path) = warned(90 * 86_400, NOW + 87 * 86_400, true);
    assert_eq!(warnings, [Warning::ExpiresSoon(path, 3)]);
    // A quarter of six days is 36 hours.
    assert_eq!(warned(6 * 86_400, NOW + 107 * 3600, true).0, []);
    let (warnings, path) = warned(6 * 86_400, NOW + 109 * 3600, true);
    assert_eq!(warnings, [Warning::ExpiresSoon(path, 1)]);
    let (warnings, path) = warned(0, NOW + 2 * 86_400, true);
    assert_eq!(warnings, [Warning::Expired(path, 2)]);
    let (warnings, path) = warned(90 * 86_400, NOW - 2000, true);
    assert_eq!(warnings, [Warning::NotYetValid(path)]);
    let (warnings, path) = warned(90 * 86_400, NOW, false);
    assert_eq!(warnings, [Warning::LeafOnly(path.clone())]);
    assert!(warnings[0].to_string().starts_with(path.to_str().unwrap()));
}

#[test]
fn each_error_names_the_file_and_the_remedy() {
    let dir = Dir::new();
    let [leaf, ca, key] = issued(90 * 86_400);
    let [.., other_key] = issued(90 * 86_400);
    let chain = dir.write("chain.pem", format!("{leaf}{ca}"));
    let good_key = dir.write("key.pem", &key);
    let missing = dir.0.join("missing.pem");
    let cases = [
        (missing.clone(), good_key.clone(), "missing.pem", "check the path"),
        (chain.clone(), missing, "missing.pem", "check the path"),
        (good_key.clone(), good_key.clone(), "key.pem", "fullchain.pem"),
        (chain.clone(), chain.clone(), "chain.pem", "privkey.pem"),
        (chain.clone(), dir.write("other.pem", other_key), "other.pem", "one renewal"),
        (dir.write("turned.pem", format!("{ca}{leaf}")), good_key.clone(), "turned.pem", "must come first"),
        (dir.write("cut.pem", &leaf[..leaf.len() / 2]), good_key.clone(), "cut.pem", "again"),
        (dir.write("junk.pem", pem("CERTIFICATE", b"junk")), good_key.clone(), "junk.pem", "again"),
        (dir.write("big.pem", vec![b'x'; (1 << 20) + 1]), good_key.clone(), "big.pem", "PEM file"),
        (chain.clone(), dir.write("oddkey.pem", pem("PRIVATE KEY", b"junk")), "oddkey.pem", "ECDSA"),
        (
            chain.clone(),
            dir.write("locked.pem", pem("ENCRYPTED PRIVATE KEY", b"junk")),
            "locked.pem",
            "openssl pkey",
        ),
    ];
    for (chain, key, file, remedy) in cases {
        let text = error(load(&chain, &key, NOW));
        assert!(text.contains(file) && text.contains(remedy), "{file}, {remedy}: {text}");
    }
}

#[test]
fn a_broken_file_keeps_the_certificate_in_use() {
    let dir = Dir::new();
    let [leaf, ca, key] = issued(90 * 86_400);
    let [leaf2, ca2, key2] = issued(90 * 86_400);
    let (chain, key) = (dir.write("c.pem", leaf + &ca), dir.write("k.pem", key));
    let store = super::super::CertStore::new(load(&chain, &key, NOW).unwrap().key);
    let first = store.current();
    // Half of a renewal is on the disk: the new chain with the old key.
    dir.write("c.pem", leaf2 + &ca2);
    assert!(matches!(reload(&store, (&chain, &key), NOW, false), Err(CertError::Mismatch { .. })));
    assert!(Arc::ptr_eq(&store.current(), &first));
    dir.write("k.pem", key2);
    let reloaded = reload(&store, (&chain, &key), NOW, false).unwrap();
    assert!(reloaded.next.is_some() && reloaded.warnings.is_empty(), "{reloaded:?}");
    assert_ne!(store.current().cert[0], first.cert[0]);
}

#[test]
fn unchanged_files_are_no_new_certificate() {
    let dir = Dir::new();
    let [leaf, ca, key] = issued(90 * 86_400);
    let (chain, key) = (dir.write("c.pem", leaf.clone() + &ca), dir.write("k.pem", key));
    let store = super::super::CertStore::new(load(&chain, &key, NOW).unwrap().key);
    let first = store.current();
    assert!(reload(&store, (&chain, &key), NOW, false).unwrap().next.is_none());
    assert!(Arc::ptr_eq(&store.current(), &first), "what is in use stays");
    dir.write("c.pem", leaf);
    assert!(
        reload(&store, (&chain, &key), NOW, false).unwrap().next.is_some(),
        "another chain under the same certificate"
    );
}

#[test]
fn an_expired_certificate_does_not_replace_a_valid_one() {
    let dir = Dir::new();
    let day = 86_400;
    let later = NOW + 10 * day as u64;
    let write = |[leaf, ca, key]: [String; 3]| (dir.write("c.pem", leaf + &ca), dir.write("k.pem", key));
    let (chain, key) = write(issued(90 * day));
    let store = super::super::CertStore::new(load(&chain, &key, NOW).unwrap().key);
    let valid = store.current();
    write(issued(3 * day));
    let refused = reload(&store, (&chain, &key), later, false).unwrap_err().to_string();
    assert!(refused.contains("c.pem: expired 7 days ago") && refused.contains("accept_expired"), "{refused}");
    assert!(Arc::ptr_eq(&store.current(), &valid));
    assert!(reload(&store, (&chain, &key), later, true).unwrap().next.is_some(), "the operator forces it");
    // It may replace one that has expired as well, because its names may be the right ones.
    write(issued(4 * day));
    assert!(reload(&store, (&chain, &key), later, false).unwrap().next.is_some());
}

#[test]
fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    use crate::cert::CertChoice;
    let store = |names: &[&str]| {
        let params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Arc::new(CertStore::new(Arc::new(CertifiedKey::from_der(vec![cert], key, &provider()).unwrap())))
    };
    let default = store(&["relay.example.org", "*.default.example"]);
    let (other, wild) = (store(&["Other.example.org"]), store(&["*.example.org", "a.default.example"]));
    let choice = CertChoice::new(Arc::clone(&default));
    assert!(Arc::ptr_eq(&choice.choose(Some("other.example.org")), &default.current()));
    choice.set_others(vec![Arc::clone(&other), Arc::clone(&wild)]);
    for (name, expected) in [
        (None, &default),
        (Some("relay.example.org"), &default),
        (Some("OTHER.example.org"), &other),
        (Some("third.example.org"), &wild),
        (Some("a.default.example"), &wild),
        (Some("b.default.example"), &default),
        // A wildcard stands for one label.
        (Some("a.b.example.org"), &default),
        (Some("example.org"), &default),
        (Some("unknown.example"), &default),
    ] {
        assert!(Arc::ptr_eq(&choice.choose(name), &expected.current()), "{name:?}");
    }
    assert!(choice.covers("third.example.org") && choice.covers("relay.example.org"));
    assert!(!choice.covers("example.org") && !choice.covers("evil.example"));
}

#[test]
fn a_certificate_is_identified_by_its_authority_and_number() {
    let described = |leaf: &[u8]| crate::cert::identifier(leaf);
    let dir = Dir::new();
    let [leaf, ca, key] = issued(86_400);
    let chain = dir.write("c.pem", leaf + &ca);
    let loaded = load(&chain, &dir.write("k.pem", key), NOW).unwrap();
    // rcgen writes no authorityKeyIdentifier here.
    assert_eq!(described(&loaded.key.cert[0]), None);
    assert_eq!(described(b"junk"), None);
}

/// A renewal for another name would otherwise be noticed only by the clients.
#[test]
fn names_that_a_new_certificate_lacks_are_known() {
    let dir = Dir::new();
    let load_for = |names: &[&str]| {
        let [leaf, ca, key] = issued_for(names, 86_400);
        let chain = dir.write("fullchain.pem", format!("{leaf}{ca}"));
        load(&chain, &dir.write("key.pem", key), NOW).unwrap().key
    };
    let store = CertStore::new(load_for(&["relay.example.org", "www.example.org"]));
    let lost = |names: &[&str]| store.lost_names(&load_for(names));
    assert_eq!(lost(&["relay.example.org", "www.example.org", "new.example.org"]), [""; 0]);
    assert_eq!(lost(&["*.example.org"]), [""; 0]);
    assert_eq!(lost(&["www.example.org"]), ["relay.example.org"]);
    assert_eq!(lost(&["*.example.com"]), ["relay.example.org", "www.example.org"]);
    let own = crate::cert::self_signed(&["first.example.org".into()], &[], NOW).unwrap().key;
    assert_eq!(
        CertStore::new(own).lost_names(&load_for(&["relay.example.org"])),
        [""; 0],
        "nobody trusted it"
    );
}
