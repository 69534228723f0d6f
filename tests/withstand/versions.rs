//! The TLS versions and features on offer, tested with OpenSSL's client.

use crate::support::beside_others;
use crate::support::files::Directory;
use crate::support::plan::{Plan, Transport};
use crate::support::process::Process;
use crate::support::server::Server;
use crate::support::tool::run_command;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

fn s_client(server: &Server, options: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &server.v4(Transport::Tls).to_string()]).args(options);
    command
}

/// Returns the output of a run; without input it ends after the handshake.
fn asked(server: &Server, options: &[&str]) -> String {
    run_command(s_client(server, options), LIMIT).output
}

fn agreed(output: &str) -> bool {
    output.contains("New, TLSv") && !output.contains("Cipher is (NONE)")
}

/// Row 18.
#[test]
fn only_tls_1_2_and_1_3_and_only_aead_suites() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    // OpenSSL no longer offers these by default.
    let old = "DEFAULT:@SECLEVEL=0";
    let cases: [(&str, &[&str], bool); 12] = [
        ("TLS 1.3", &["-tls1_3", "-servername", "relay.test"], true),
        ("TLS 1.2", &["-tls1_2", "-servername", "relay.test"], true),
        ("TLS 1.3 without SNI", &["-tls1_3", "-noservername"], true),
        ("TLS 1.2 without SNI", &["-tls1_2", "-noservername"], true),
        ("TLS 1.2, AES-GCM", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], true),
        ("TLS 1.2, ChaCha20", &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true),
        ("TLS 1.1", &["-tls1_1", "-cipher", old], false),
        ("TLS 1.0", &["-tls1", "-cipher", old], false),
        ("CBC with SHA-256", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], false),
        ("CBC with SHA-384", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], false),
        ("CBC with SHA-1", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA"], false),
        ("CCM with a short tag", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM8"], false),
    ];
    let mut faults = Vec::new();
    for (what, options, expected) in cases {
        let output = asked(&server, options);
        if agreed(&output) != expected {
            faults.push(format!("{what}: agreed is {}", !expected));
        }
        if expected && !output.contains("Compression: NONE") {
            faults.push(format!("{what}: compression is not said to be NONE"));
        }
    }
    println!("row 18: {} offers, wrongly answered: {faults:?}", cases.len());
    assert!(faults.is_empty(), "{faults:?}");
}

/// Row 18: no early data, because no ticket allows any.
#[test]
fn no_early_data() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let files = Directory::new("session");
    let path = files.path("session.pem").display().to_string();
    let (process, mut stdin, _) = Process::spawn_piped(s_client(&server, &["-tls1_3", "-sess_out", &path]));
    // Tickets follow the handshake; `Q` ends the client.
    let ticket = crate::machine::until(Duration::from_secs(3), || std::path::Path::new(&path).exists());
    let _ = stdin.write_all(b"Q\n");
    drop(process);
    let early = match ticket {
        None => None,
        Some(_) => {
            let mut show = Command::new("openssl");
            show.args(["sess_id", "-in", &path, "-noout", "-text"]);
            let text = run_command(show, LIMIT).output;
            text.lines()
                .find_map(|line| line.trim().strip_prefix("Max Early Data:").map(|n| n.trim().to_owned()))
        }
    };
    println!("row 18: a ticket: {}, early data: {early:?}", ticket.is_some());
    assert!(early.as_deref().unwrap_or("0") == "0", "{early:?}");
}

/// Row 18.
#[test]
fn no_renegotiation() {
    let _turn = beside_others();
    let server = Server::start(&Plan::loopback());
    let mut command = s_client(&server, &["-tls1_2"]);
    command.args(["-state"]);
    let (mut process, mut stdin, mut stdout) = Process::spawn_piped(command);
    // A line with this letter starts a renegotiation.
    stdin.write_all(b"R\n").unwrap();
    let shown = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut stdout, &mut text);
        text
    });
    let told = process.wait_output(LIMIT, |log| {
        log.contains("no renegotiation") || log.contains("alert") || log.contains("error")
    });
    drop(stdin);
    let exit = process.wait_exit(LIMIT);
    let log = process.output();
    drop(process);
    let text = shown.join().unwrap();
    println!("row 18: renegotiation refused: {told}");
    assert!(
        text.contains("RENEGOTIATING") || log.contains("RENEGOTIATING"),
        "no renegotiation was started:\n{text}\n{log}"
    );
    assert!(told && exit.is_some(), "{exit:?}\n{text}\n{log}");
    let finished = log.matches("SSL negotiation finished successfully").count();
    assert!(finished <= 2, "a second handshake was completed:\n{log}");
}
