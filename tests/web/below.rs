//! The test page below a path of a website: a real nginx with the file of the package.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::beside_others;
use crate::support::certs::{self, Kind};
use crate::support::client::{Client, Link};
use crate::support::credentials::Credentials;
use crate::support::files::Directory;
use crate::support::plan::{LOCAL_V4, Transport, free_port};
use crate::support::process::Process;
use crate::support::server::{Server, skip_on_coturn};
use crate::support::tool::run_command;
use crate::{LIMIT, curl, plan};

const INCLUDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/nginx/hallpass-check.conf");
/// The address in the file.
const ADDRESS: &str = "127.0.0.1:9680";
const NAME: &str = "bbb.example.org";

/// Runs nginx with the page at `page`. Returns its address for browsers and the process.
fn nginx(files: &Directory, page: SocketAddr) -> (SocketAddr, Process) {
    let included = fs::read_to_string(INCLUDED).unwrap_or_else(|error| panic!("{INCLUDED}: {error}"));
    assert_eq!(included.matches(ADDRESS).count(), 2, "{INCLUDED}");
    files.write("hallpass-check.conf", &included.replace(ADDRESS, &page.to_string()));
    certs::write(Kind::Good, NAME, &files.path("cert"), &files.path("key"));
    let (browsers, dir) = (SocketAddr::new(LOCAL_V4, free_port()), files.path("").display().to_string());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let config = files.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; user root; pid {dir}/pid; error_log stderr notice;\nevents {{ }}\n\
             http {{ {temporary} access_log off;\n\
             server {{ listen {browsers} ssl http2; server_name {NAME};\n\
             ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key;\n\
             include {dir}/hallpass-check.conf;\nlocation / {{ return 200 \"the website\"; }} }} }}\n"
        ),
    );
    let command = |more: &[&str]| {
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(&config).arg("-p").arg(files.path("")).args(["-e", "stderr"]).args(more);
        command
    };
    let tested = run_command(command(&["-t"]), LIMIT);
    assert!(tested.success && tested.output.contains("test is successful"), "nginx -t:\n{}", tested.output);
    assert!(!tested.output.contains("[warn]"), "nginx -t:\n{}", tested.output);
    let process = Process::spawn(command(&[]));
    let up = process.wait_output(LIMIT, |log| log.contains("event method"));
    assert!(up, "nginx did not start:\n{}", process.output());
    (browsers, process)
}

#[test]
fn the_page_works_below_a_path_of_a_website() {
    let _turn = beside_others();
    if skip_on_coturn("the test page") {
        return;
    }
    let page = SocketAddr::new(LOCAL_V4, free_port());
    let server =
        Server::start(&plan(&format!("[site]\naddress = \"{page}\"\n[web]\nhttp1 = \"127.0.0.1:9\"")));
    let files = Directory::new("nginx-check");
    let (browsers, _nginx) = nginx(&files, page);
    let port = browsers.port();
    let base = format!("https://{NAME}:{port}");
    let resolve = format!("{NAME}:{port}:127.0.0.1");
    let ask = |more: &[&str]| curl(&[&["--resolve", &resolve], more].concat());

    assert_eq!(ask(&[&format!("{base}/")]), "the website");
    let html = ask(&[&format!("{base}/relay-check/")]);
    assert!(html.contains("<title>Connection test</title>"), "{html}");
    for file in html.split('"').filter(|part| [".js", ".css", ".svg"].iter().any(|end| part.ends_with(end))) {
        let url = format!("{base}/relay-check/{file}");
        assert_eq!(ask(&["-o", "/dev/null", "-w", "%{http_code}", &url]), "200", "{file}");
    }
    let origin = format!("origin: {base}");
    let login = |more: &[&str]| {
        let url = format!("{base}/relay-check/credentials");
        let own = ["-H", "x-check: 1", "-H", "content-type: application/json", "--data", "{}"];
        let answer = ask(&[&own[..], more, &["-w", "\n%{http_code}", &url]].concat());
        let (body, status) = answer.rsplit_once('\n').expect("a status");
        (status.to_owned(), serde_json::from_str::<Value>(body).unwrap_or(Value::Null))
    };
    // nginx says who the visitor is, whatever the visitor says.
    let (status, answer) = login(&["-H", &origin, "-H", "X-Real-IP: 192.0.2.7", "--interface", "127.0.0.9"]);
    assert_eq!(status, "200", "{answer}");
    assert_eq!(answer["client"], json!({ "address": "127.0.0.9", "family": "ipv4" }));
    assert_eq!((&answer["name"], &answer["interception"]["known"]), (&json!(NAME), &json!(false)));
    assert_eq!(login(&["-H", "origin: https://elsewhere.example"]).0, "403");
    let text = |key: &str| answer[key].as_str().expect("a text").to_owned();
    let credentials = Credentials { username: text("user"), password: text("password") };
    let mut client = Client::log_in(Link::open(Transport::Udp, server.v4(Transport::Udp)), credentials);
    client.allocate().expect("the login is one of the relay");

    // Visitors have limits of their own, although all come through nginx.
    let refused = (0..200).find(|_| login(&["--interface", "127.0.0.10"]).0 == "429");
    assert!(refused.is_some_and(|number| number >= 60), "{refused:?}");
    assert_eq!(login(&["--interface", "127.0.0.11"]).0, "200");
    let head = ask(&["-i", &format!("{base}/relay-check/")]).to_ascii_lowercase();
    assert!(head.contains("frame-ancestors 'none'") && !head.contains("set-cookie"), "{head}");
}
