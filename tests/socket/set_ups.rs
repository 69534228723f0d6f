//! The broken set-ups that administrators meet, and the tests which prove that each is named. The table in
//! `docs/troubleshooting.md` has the same rows.

use std::fs;
use std::path::Path;

/// A test: its file, and its name.
type Proof = (&'static str, &'static str);

const EXPLAIN: &str = "tests/socket/explain.rs";
const LOGINS: &str = "tests/doctor/logins.rs";
const CLI: &str = "tests/cli.rs";
const BBB_XML: &str = "tests/cli/bbb_xml.rs";
const REFUSALS: &str = "tests/rfc/refusals.rs";
const THIS_HOST: &str = "src/cli/this_host.rs";
const CERTIFICATE: &str = "src/cert/files/tests.rs";
const DOCTOR: &str = "src/doctor/tests.rs";
/// The relay's own examination.
const ON_RELAY: Proof = ("tests/doctor/on_relay.rs", "a_good_host_and_its_faults");
/// Runs the commands of `docs/troubleshooting.md`.
const PAGE: Proof = ("tests/socket/docs.rs", "the_commands_for_the_administrator_of_a_relay_run");

/// Each set-up with its tests.
const SET_UPS: &[(&str, &[Proof])] = &[
    (
        "wrong secret",
        &[
            (EXPLAIN, "every_refusal_is_explained"),
            (EXPLAIN, "a_secret_that_does_not_match_is_told_once_after_a_reload"),
            (LOGINS, "a_wrong_secret"),
        ],
    ),
    (
        "secret cut at its last `=`",
        &[(EXPLAIN, "every_refusal_is_explained"), (REFUSALS, "a_secret_that_nearly_fits_is_explained")],
    ),
    (
        "expired name",
        &[(EXPLAIN, "every_refusal_is_explained"), (LOGINS, "a_name_that_expired_and_one_that_did_not")],
    ),
    (
        "clock off by a day",
        &[
            ON_RELAY,
            (EXPLAIN, "a_clock_that_is_a_day_behind_is_told"),
            (LOGINS, "a_clock_that_is_one_day_or_three_behind"),
        ],
    ),
    ("malformed name", &[(EXPLAIN, "every_refusal_is_explained")]),
    ("unknown user", &[(EXPLAIN, "a_user_that_nobody_has_configured_is_named")]),
    (
        "peer not allowed",
        &[(EXPLAIN, "every_refusal_is_explained"), (REFUSALS, "a_denied_peer_is_named_with_the_rule")],
    ),
    ("BigBlueButton server moved", &[(EXPLAIN, "every_refusal_is_explained"), PAGE]),
    (
        "no `external_ip` behind NAT",
        &[ON_RELAY, (THIS_HOST, "announcing_a_private_address_is_a_warning"), PAGE],
    ),
    (
        "swapped pair in `external_ip`",
        &[ON_RELAY, (THIS_HOST, "an_external_ip_pair_without_an_address_of_this_machine_is_reported")],
    ),
    (
        "`external_ip` of another machine",
        &[
            (THIS_HOST, "another_address_in_place_of_a_public_one_is_a_warning"),
            ("src/cli/doctor/relay/addresses.rs", "an_own_public_address_needs_no_other_one"),
            (DOCTOR, "a_relayed_address_elsewhere_is_a_warning"),
        ],
    ),
    (
        "relay ports blocked by a firewall",
        &[ON_RELAY, ("src/admin/sessions.rs", "the_newest_come_first_with_what_looks_wrong"), PAGE],
    ),
    ("certificate for another name", &[ON_RELAY, (DOCTOR, "certificates_that_browsers_refuse"), PAGE]),
    (
        "certificate without its chain",
        &[ON_RELAY, (CERTIFICATE, "odd_times_and_short_chains_are_warnings"), PAGE],
    ),
    (
        "expired certificate",
        &[
            ON_RELAY,
            (CERTIFICATE, "odd_times_and_short_chains_are_warnings"),
            ("tests/socket/signals.rs", "an_expired_certificate_does_not_replace_a_valid_one"),
            PAGE,
        ],
    ),
    ("key that the service cannot read", &[ON_RELAY, (CLI, "check_reads_the_certificate_too")]),
    ("port held by nginx", &[ON_RELAY, (CLI, "check_live_names_the_process_that_occupies_a_port"), PAGE]),
    (
        "XML that bbb-web cannot read, or of another secret",
        &[ON_RELAY, (BBB_XML, "bbb_xml_verifies_a_file"), PAGE],
    ),
    ("quota of a user", &[(EXPLAIN, "every_refusal_is_explained"), PAGE]),
    ("bandwidth limit", &[(EXPLAIN, "a_bandwidth_limit_is_named"), PAGE]),
    (
        "IPv6-only client",
        &[("tests/doctor/walls.rs", "a_client_with_ipv6_alone_and_a_relay_with_ipv4_alone"), PAGE],
    ),
    ("web back end away", &[ON_RELAY, ("tests/web/site.rs", "an_unreachable_web_server_is_a_502"), PAGE]),
    ("back end that redirects to `:82`", &[ON_RELAY]),
    (
        "port that browsers refuse",
        &[
            ON_RELAY,
            ("src/config/tests.rs", "a_port_that_browsers_refuse_is_a_warning"),
            (DOCTOR, "ports_that_browsers_refuse_carry_no_calls"),
            PAGE,
        ],
    ),
    (
        "second relay missing from the XML",
        &[ON_RELAY, (BBB_XML, "an_upgrade_that_resets_the_file_is_noticed_and_corrected")],
    ),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

#[test]
fn each_broken_set_up_has_tests_that_exist() {
    for (set_up, proofs) in SET_UPS {
        assert!(!proofs.is_empty(), "{set_up}: no test");
        for (path, name) in *proofs {
            let text = read(path);
            let at =
                text.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{set_up}: {path} has no {name}"));
            assert!(text[..at].trim_end().ends_with("#[test]"), "{set_up}: {name} in {path} is no test");
        }
    }
}

#[test]
fn the_page_lists_the_broken_set_ups() {
    let page = read("docs/troubleshooting.md");
    let table = page.split("| set-up | you see | named by |\n").nth(1).expect("the table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let documented: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1).map(str::trim)).collect();
    let known: Vec<&str> = SET_UPS.iter().map(|(set_up, _)| *set_up).collect();
    assert_eq!(documented, known);
    assert_eq!(known.len(), 25);
}
