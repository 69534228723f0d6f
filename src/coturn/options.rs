//! Every option of coturn in one list: its name, its short form, whether it has a value, and what becomes of it.
//!
//! The names are those of coturn 4.6.1 (`long_options` in `mainrelay.c`), and below them those of other versions.

use Argument::{Optional, Required};
use Fate::{Always, Idle, Means, NotOffered, Refused};
use Kind::{Bare, Flag, Hidden, Number, Text};

/// Whether an option of the command line takes a value (getopt_long(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `--name=value` or `--name value`.
    Required,
    /// `--name` or `--name=value`.
    Optional,
}

/// How the value is read and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no; no value means yes (`get_bool_value`).
    Flag,
    /// Yes, whatever the value.
    Bare,
    /// The digits at the start (`atoi`).
    Number,
    /// Text.
    Text,
    /// Text that must not be shown: secrets, passwords, and texts that may contain them.
    Hidden,
}

/// Where the option exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// In coturn 4.6.1.
    Here,
    /// In builds of 4.6.1 with Prometheus. Debian's has none.
    Prometheus,
    /// In older or newer versions only; 4.6.1 ignores the line.
    Other,
}

/// What becomes of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has a meaning here.
    Means(Key),
    /// Hallpass always does this.
    Always(&'static str),
    /// It has no effect here, for this reason.
    Idle(&'static str),
    /// Hallpass does not have this: reason, and what to do.
    NotOffered(&'static str, &'static str),
    /// The line is not taken: reason, and what to do.
    Refused(&'static str, &'static str),
}

/// Options with a meaning here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named like its option")]
pub enum Key {
    AllocationDefaultAddressFamily,
    AllowLoopbackPeers,
    AllowedPeerIp,
    AltListeningPort,
    AltTlsListeningPort,
    AuxServer,
    BpsCapacity,
    Cert,
    DeniedPeerIp,
    ExternalIp,
    KeepAddressFamily,
    ListeningDevice,
    ListeningIp,
    ListeningPort,
    LtCredMech,
    MaxAllocateLifetime,
    MaxBps,
    MaxPort,
    MinPort,
    NoAuth,
    NoDtls,
    NoRfc5780,
    NoTcp,
    NoTcpRelay,
    NoTls,
    NoUdp,
    NoUdpRelay,
    OAuth,
    Pkey,
    PkeyPwd,
    Prometheus,
    PrometheusPort,
    Realm,
    RelayIp,
    RestApiSeparator,
    StaticAuthSecret,
    StunOnly,
    TcpProxyPort,
    TlsListeningPort,
    TotalQuota,
    UseAuthSecret,
    User,
    UserQuota,
    UserDb,
}

/// One option.
#[derive(Debug)]
pub struct Row {
    /// The long name.
    pub name: &'static str,
    /// The short name, without the dash.
    pub short: Option<u8>,
    /// Whether it takes a value on the command line.
    pub argument: Argument,
    /// How its value is read.
    pub kind: Kind,
    /// Where it exists.
    pub version: Version,
    /// What becomes of it.
    pub fate: Fate,
}

const fn row(name: &'static str, short: &str, argument: Argument, kind: Kind, fate: Fate) -> Row {
    let short = if short.is_empty() { None } else { Some(short.as_bytes()[0]) };
    Row { name, short, argument, kind, version: Version::Here, fate }
}

const fn of(version: Version, row: Row) -> Row {
    Row { version, ..row }
}

const LOG: &str = "logs go to standard output, which is the journal under systemd";
const CLI: &str = "there is no telnet interface; see hallpass sessions and hallpass top";
const WEB: &str = "there is no web admin; the dashboard is at the address of [admin]";
const TLS: &str =
    "TLS 1.2 and 1.3 with their AEAD ciphers only; clients that offer nothing but CBC ciphers fail";
const OLD: &str = "SSL and TLS 1.0 and 1.1 are not offered";
const PROCESS: &str = "the systemd unit decides this";
const NONCE: &str = "a nonce lasts an hour, and clients get a new one by themselves";
const STUN: &str = "answers follow RFC 8489";
const REALMS: &str = "there is one realm and no database";
const DATABASE: (&str, &str) = (
    "there is no database: users and secrets in it are not imported",
    "print its secrets with turnadmin -S -r REALM, and add a line static-auth-secret=... for each",
);

/// Every option.
pub static OPTIONS: &[Row] = &[
    row("listening-device", "d", Required, Text, Means(Key::ListeningDevice)),
    row("listening-port", "p", Required, Number, Means(Key::ListeningPort)),
    row("tls-listening-port", "", Required, Number, Means(Key::TlsListeningPort)),
    row("alt-listening-port", "", Required, Number, Means(Key::AltListeningPort)),
    row("alt-tls-listening-port", "", Required, Number, Means(Key::AltTlsListeningPort)),
    row("tcp-proxy-port", "", Required, Number, Means(Key::TcpProxyPort)),
    row("listening-ip", "L", Required, Text, Means(Key::ListeningIp)),
    row("relay-device", "i", Required, Text, Idle("relayed sockets are bound to the relay addresses")),
    row("relay-ip", "E", Required, Text, Means(Key::RelayIp)),
    row("external-ip", "X", Required, Text, Means(Key::ExternalIp)),
    row(
        "relay-threads",
        "m",
        Required,
        Number,
        Idle("there is one worker for each core; [limits] workers sets another number"),
    ),
    row("min-port", "", Required, Number, Means(Key::MinPort)),
    row("max-port", "", Required, Number, Means(Key::MaxPort)),
    row("lt-cred-mech", "a", Optional, Flag, Means(Key::LtCredMech)),
    row("no-auth", "z", Optional, Flag, Means(Key::NoAuth)),
    row("user", "u", Required, Hidden, Means(Key::User)),
    row("userdb", "b", Required, Hidden, Means(Key::UserDb)),
    row("db", "b", Required, Hidden, Means(Key::UserDb)),
    row("psql-userdb", "e", Required, Hidden, Means(Key::UserDb)),
    row("sql-userdb", "e", Required, Hidden, Means(Key::UserDb)),
    row("mysql-userdb", "M", Required, Hidden, Means(Key::UserDb)),
    row("mongo-userdb", "J", Required, Hidden, Means(Key::UserDb)),
    row("redis-userdb", "N", Required, Hidden, Means(Key::UserDb)),
    row(
        "redis-statsdb",
        "O",
        Required,
        Hidden,
        Refused("statistics are not written to Redis", "read /metrics of the address in [admin] instead"),
    ),
    of(Version::Prometheus, row("prometheus", "", Optional, Bare, Means(Key::Prometheus))),
    of(Version::Prometheus, row("prometheus-port", "", Optional, Number, Means(Key::PrometheusPort))),
    of(
        Version::Prometheus,
        row("prometheus-username-labels", "", Optional, Bare, Idle("no metric has a user's name")),
    ),
    row("use-auth-secret", "", Optional, Bare, Means(Key::UseAuthSecret)),
    row("static-auth-secret", "", Required, Hidden, Means(Key::StaticAuthSecret)),
    row("no-auth-pings", "", Optional, Bare, Idle(REALMS)),
    row("no-dynamic-ip-list", "", Optional, Bare, Idle(REALMS)),
    row("no-dynamic-realms", "", Optional, Bare, Idle(REALMS)),
    row("secret-ts-exp-time", "", Optional, Text, Idle("coturn ignores it as well")),
    row("realm", "r", Required, Text, Means(Key::Realm)),
    row("server-name", "", Required, Text, Idle("coturn uses it for OAuth alone")),
    row("oauth", "", Optional, Flag, Means(Key::OAuth)),
    row("user-quota", "q", Required, Number, Means(Key::UserQuota)),
    row("total-quota", "Q", Required, Number, Means(Key::TotalQuota)),
    row("max-bps", "s", Required, Number, Means(Key::MaxBps)),
    row("bps-capacity", "B", Required, Number, Means(Key::BpsCapacity)),
    row("verbose", "v", Optional, Flag, Idle("each call is a line of the log when it ends")),
    row(
        "Verbose",
        "V",
        Optional,
        Flag,
        Idle("each call is a line of the log when it ends; [log] level = \"debug\" logs more"),
    ),
    row("daemon", "o", Optional, Flag, Idle("the server stays in the foreground, and systemd runs it")),
    row("prod", "", Optional, Flag, Idle("SOFTWARE is not sent to clients without credentials")),
    row(
        "no-software-attribute",
        "",
        Optional,
        Flag,
        Idle("SOFTWARE is not sent to clients without credentials"),
    ),
    row("fingerprint", "f", Optional, Flag, Idle("clients do not need FINGERPRINT in answers")),
    row("check-origin-consistency", "", Optional, Flag, Idle("browsers no longer send ORIGIN")),
    row("no-udp", "", Optional, Flag, Means(Key::NoUdp)),
    row("no-tcp", "", Optional, Flag, Means(Key::NoTcp)),
    row("no-tls", "", Optional, Flag, Means(Key::NoTls)),
    row("no-dtls", "", Optional, Flag, Means(Key::NoDtls)),
    row("no-udp-relay", "", Optional, Flag, Means(Key::NoUdpRelay)),
    row("no-tcp-relay", "", Optional, Flag, Means(Key::NoTcpRelay)),
    row("stale-nonce", "", Optional, Number, Idle(NONCE)),
    row("max-allocate-lifetime", "", Optional, Number, Means(Key::MaxAllocateLifetime)),
    row(
        "channel-lifetime",
        "",
        Optional,
        Number,
        Idle("channels last 600 s, as RFC 8656 says, and clients refresh them"),
    ),
    row(
        "permission-lifetime",
        "",
        Optional,
        Number,
        Idle("permissions last 300 s, as RFC 8656 says, and clients refresh them"),
    ),
    row("stun-only", "S", Optional, Flag, Means(Key::StunOnly)),
    row(
        "no-stun",
        "",
        Optional,
        Flag,
        NotOffered("Binding requests are answered", "leave stun: URLs out of the clients' configuration"),
    ),
    row("cert", "", Required, Text, Means(Key::Cert)),
    row("pkey", "", Required, Text, Means(Key::Pkey)),
    row("pkey-pwd", "", Required, Hidden, Means(Key::PkeyPwd)),
    row(
        "log-file",
        "l",
        Required,
        Text,
        Idle("logs go to the journal: move rules for this file, such as logrotate's"),
    ),
    row("no-stdout-log", "", Optional, Flag, Idle(LOG)),
    row("syslog", "", Optional, Flag, Idle(LOG)),
    row("simple-log", "", Optional, Flag, Idle(LOG)),
    row("new-log-timestamp", "", Optional, Bare, Idle("log lines have the time in RFC 3339")),
    row("new-log-timestamp-format", "", Required, Text, Idle("log lines have the time in RFC 3339")),
    row("aux-server", "", Required, Text, Means(Key::AuxServer)),
    row("udp-self-balance", "", Optional, Flag, Idle("the kernel spreads clients over the workers")),
    row(
        "alternate-server",
        "",
        Required,
        Text,
        NotOffered(
            "coturn sends every client to another server; this one serves its clients itself",
            "point the clients at the other servers, or name them in [drain] for maintenance",
        ),
    ),
    row(
        "tls-alternate-server",
        "",
        Required,
        Text,
        NotOffered(
            "coturn sends every client to another server; this one serves its clients itself",
            "point the clients at the other servers, or name them in [drain] for maintenance",
        ),
    ),
    row("rest-api-separator", "C", Required, Text, Means(Key::RestApiSeparator)),
    row("max-allocate-timeout", "", Required, Number, Idle("idle connections have limits of their own")),
    row("no-multicast-peers", "", Optional, Flag, Always("multicast peers are always refused")),
    row("allow-loopback-peers", "", Optional, Flag, Means(Key::AllowLoopbackPeers)),
    row("allowed-peer-ip", "", Required, Text, Means(Key::AllowedPeerIp)),
    row("denied-peer-ip", "", Required, Text, Means(Key::DeniedPeerIp)),
    row("cipher-list", "", Required, Text, Idle(TLS)),
    row("pidfile", "", Required, Text, Idle("there is no such file: systemd knows the process")),
    row(
        "secure-stun",
        "",
        Optional,
        Flag,
        NotOffered(
            "Binding requests need no credentials",
            "leave stun: URLs out of the clients' configuration",
        ),
    ),
    row(
        "CA-file",
        "",
        Required,
        Text,
        NotOffered(
            "TLS clients are not asked for a certificate; they need TURN credentials all the same",
            "if only clients with a certificate may connect, put a TLS proxy in front that checks it",
        ),
    ),
    row("dh-file", "", Required, Text, Idle(TLS)),
    row("proc-user", "", Required, Text, Idle(PROCESS)),
    row("proc-group", "", Required, Text, Idle(PROCESS)),
    row(
        "mobility",
        "",
        Optional,
        Flag,
        NotOffered(
            "mobility (RFC 8016) is not offered",
            "nothing: browsers do not use it and restart ICE instead",
        ),
    ),
    row("no-cli", "", Optional, Flag, Always(CLI)),
    row("cli-ip", "", Required, Text, Idle(CLI)),
    row("cli-port", "", Required, Number, Idle(CLI)),
    row("cli-password", "", Required, Hidden, Idle(CLI)),
    row("web-admin", "", Optional, Flag, Idle(WEB)),
    row("web-admin-ip", "", Required, Text, Idle(WEB)),
    row("web-admin-port", "", Required, Number, Idle(WEB)),
    row("web-admin-listen-on-workers", "", Optional, Flag, Idle(WEB)),
    row(
        "server-relay",
        "",
        Optional,
        Flag,
        Refused(
            "clients would receive from peers that they have given no permission",
            "nothing: RFC 8656 requires permissions, and browsers ask for them",
        ),
    ),
    row("cli-max-output-sessions", "", Required, Number, Idle(CLI)),
    row("ec-curve-name", "", Required, Text, Idle(TLS)),
    row("dh566", "", Optional, Flag, Idle(TLS)),
    row("dh1066", "", Optional, Flag, Idle(TLS)),
    row("ne", "", Required, Number, Idle("there is one way to use the network")),
    row("no-sslv2", "", Optional, Bare, Always(OLD)),
    row("no-sslv3", "", Optional, Bare, Always(OLD)),
    row("no-tlsv1", "", Optional, Flag, Always(OLD)),
    row("no-tlsv1_1", "", Optional, Flag, Always(OLD)),
    row(
        "no-tlsv1_2",
        "",
        Optional,
        Flag,
        NotOffered("TLS 1.2 stays on, with AEAD ciphers", "nothing: clients that can use TLS 1.3 do so"),
    ),
    row("secret-key-file", "", Required, Text, Idle(REALMS)),
    row("keep-address-family", "K", Optional, Flag, Means(Key::KeepAddressFamily)),
    row("allocation-default-address-family", "A", Required, Text, Means(Key::AllocationDefaultAddressFamily)),
    row(
        "acme-redirect",
        "",
        Required,
        Text,
        NotOffered(
            "ACME challenges are not redirected",
            "let the ACME client use port 80, or share the TLS port with a web server: web = true and [web]",
        ),
    ),
    row("log-binding", "", Optional, Flag, Idle("Binding requests are counted in /metrics and not logged")),
    row("no-rfc5780", "", Optional, Bare, Means(Key::NoRfc5780)),
    row("no-stun-backward-compatibility", "", Optional, Flag, Idle(STUN)),
    row("response-origin-only-with-rfc5780", "", Optional, Flag, Idle(STUN)),
    row("version", "", Optional, Bare, Idle("coturn prints its version and exits")),
    row("syslog-facility", "", Required, Text, Idle(LOG)),
    // Other versions.
    of(
        Version::Other,
        row("no-loopback-peers", "", Optional, Flag, Always("loopback peers are always refused")),
    ),
    of(Version::Other, row("rfc5780", "", Optional, Flag, Idle("NAT discovery (RFC 5780) is not offered"))),
    of(Version::Other, row("stun-backward-compatibility", "", Optional, Flag, Idle(STUN))),
    of(Version::Other, row("software-attribute", "", Optional, Flag, Idle(STUN))),
    of(
        Version::Other,
        row("prometheus-address", "", Required, Text, Idle("[admin] has an address of its own")),
    ),
    of(Version::Other, row("prometheus-path", "", Required, Text, Idle("the path is /metrics"))),
    of(
        Version::Other,
        row("prometheus-session-id-labels", "", Optional, Flag, Idle("no metric has a session's id")),
    ),
    of(Version::Other, row("cpus", "", Required, Number, Idle("there is one worker for each core"))),
    of(
        Version::Other,
        row(
            "sock-buf-size",
            "",
            Required,
            Number,
            Idle("sizes of socket buffers follow the kernel's limits"),
        ),
    ),
    of(
        Version::Other,
        row("drop-invalid-packets", "", Optional, Flag, Always("invalid packets are dropped")),
    ),
    of(
        Version::Other,
        row("unauthorized-ratelimit", "", Optional, Flag, Always("see [limits] unauthenticated_per_source")),
    ),
    of(
        Version::Other,
        row(
            "unauthorized-ratelimit-requests",
            "",
            Required,
            Number,
            Idle("see [limits] unauthenticated_per_source"),
        ),
    ),
    of(
        Version::Other,
        row(
            "unauthorized-ratelimit-window",
            "",
            Required,
            Number,
            Idle("see [limits] unauthenticated_per_source"),
        ),
    ),
    of(Version::Other, row("dh2066", "", Optional, Flag, Idle(TLS))),
    of(Version::Other, row("raw-public-keys", "", Optional, Flag, Idle(TLS))),
    of(Version::Other, row("tls-ciphersuites", "", Required, Text, Idle(TLS))),
    of(Version::Other, row("no-http", "", Optional, Flag, Idle(WEB))),
    of(Version::Other, row("mysql-db", "", Required, Hidden, Refused(DATABASE.0, DATABASE.1))),
];

/// The option of this name.
pub fn find(name: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| row.name == name)
}

/// The option of 4.6.1 with this short name.
pub fn find_short(short: u8) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| row.short == Some(short))
}

/// Longest misspelled name that is compared. The longest option has 40.
const NAME_BYTES_MAX: usize = 64;

/// The option whose name is nearest to a misspelled one. None is near a long text, whose comparison would take long.
pub fn suggest(name: &str) -> Option<&'static str> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let near = OPTIONS.iter().map(|row| (strsim::damerau_levenshtein(name, row.name), row.name));
    near.filter(|(distance, name)| *distance <= (name.len() / 4).max(1)).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_once_and_texts_are_no_sentences() {
        for (index, row) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
            let texts = match row.fate {
                Means(_) => [""; 2],
                Always(text) | Idle(text) => [text, ""],
                NotOffered(text, remedy) | Refused(text, remedy) => [text, remedy],
            };
            assert!(texts.iter().all(|text| !text.ends_with('.')), "{}: {texts:?}", row.name);
            // A flag of another fate than these could be switched off without a notice.
            assert!(row.kind != Hidden || row.argument == Required, "{}", row.name);
        }
    }

    #[test]
    fn short_names_are_those_of_coturn() {
        // `c` names the file, `n` and `h` have no long name.
        let known = b"dpLEXimlrubBeMJNOqQsCKAvVofzaS";
        for short in known {
            assert!(find_short(*short).is_some(), "-{}", char::from(*short));
        }
        let ours: std::collections::BTreeSet<u8> = OPTIONS.iter().filter_map(|row| row.short).collect();
        assert_eq!(ours.len(), known.len());
    }

    #[test]
    fn a_misspelled_name_is_recognized() {
        assert_eq!(suggest("static-auth-secrets"), Some("static-auth-secret"));
        assert_eq!(suggest("relm"), Some("realm"));
        assert_eq!(suggest("no-such-option"), None);
    }
}
