//! One port for HTTP and TURN: nginx as the back end, curl and TURN clients in front.

use crate::support::echo::Echo;
use crate::support::files::Directory;
use crate::support::http;
use crate::support::nginx::{Nginx, content};
use crate::support::plan::{LOCAL_V4, Transport};
use crate::support::server::Server;
use crate::support::stun::{allocate_request, read_message};
use crate::support::uclient::Uclient;
use crate::support::{alone, beside_others, tls};
use crate::{curl, plan};
use std::fs;
use std::io::Write;
use std::thread;

fn behind(nginx: &Nginx, version: &str) -> Server {
    let Nginx { http1, h2, .. } = nginx;
    let web = format!("[web]\nhttp1 = \"{http1}\"\nh2 = \"{h2}\"\nproxy_protocol = \"{version}\"");
    Server::start(&plan(&web))
}

#[test]
fn nginx_sees_the_browsers_own_address() {
    let _turn = beside_others();
    let nginx = Nginx::start(0);
    for version in ["v1", "v2"] {
        let server = behind(&nginx, version);
        let url = format!("https://{}/", server.v4(Transport::Tls));
        for (protocol, seen) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
            let printed = curl(&[protocol, &url, "-w", " %{local_ip}:%{local_port}"]);
            let (page, address) = printed.split_once(' ').expect("page and address");
            assert_eq!(page, "hello");
            nginx.wait_log(&format!("{address} {seen} 200"));
        }
    }
}

#[test]
fn large_bodies_arrive_whole_both_ways() {
    let _turn = beside_others();
    const SIZE: usize = 30_000_000;
    let nginx = Nginx::start(SIZE);
    let server = behind(&nginx, "v1");
    let files = Directory::new("download");
    let (from, to) = (files.path("sent"), files.path("received"));
    fs::write(&from, content(SIZE)).expect("a file");
    let address = server.v4(Transport::Tls);
    for protocol in ["--http1.1", "--http2"] {
        curl(&[protocol, &format!("https://{address}/big"), "-o", to.to_str().unwrap()]);
        assert!(fs::read(&to).expect("downloaded") == content(SIZE), "{protocol}: the download differs");
        curl(&[protocol, "-T", from.to_str().unwrap(), &format!("https://{address}/up/{protocol}")]);
        assert!(nginx.uploaded(protocol) == content(SIZE), "{protocol}: the upload differs");
    }
}

#[test]
fn turn_works_with_any_negotiated_protocol() {
    let _turn = beside_others();
    let nginx = Nginx::start(0);
    let server = behind(&nginx, "v1");
    let offers: [&[&str]; 6] =
        [&[], &["stun.turn"], &["http/1.1"], &["h2", "http/1.1"], &["h2"], &["nobody/knows"]];
    for alpn in offers {
        let mut client = tls::connect_as(server.v4(Transport::Tls), tls::client_for("localhost", alpn));
        client.write_all(&allocate_request(5)).expect("write");
        let answer = read_message(&mut client).unwrap_or_else(|error| panic!("{alpn:?}: {error}"));
        assert_eq!((answer.id, answer.error_code()), (5, Some(401)), "{alpn:?}");
    }
    assert_eq!(nginx.log(), "", "no byte of TURN reached the web server");
}

#[test]
fn media_is_relayed_while_pages_are_fetched() {
    let _turn = alone();
    let nginx = Nginx::start(50_000_000);
    let server = behind(&nginx, "v1");
    let echo = Echo::start(LOCAL_V4);
    let address = server.v4(Transport::Tls);
    let url = format!("https://{address}/big");
    let downloads = thread::spawn(move || {
        for protocol in ["--http1.1", "--http2"] {
            let size = curl(&[protocol, &url, "-o", "/dev/null", "-w", "%{size_download}"]);
            assert_eq!(size, "50000000");
        }
    });
    let client = Uclient::new(address, Transport::Tls, 4, 50).options(&["-c"]);
    client.peer(echo.address()).must_lose_nothing(&server);
    downloads.join().expect("both downloads");
    let (_, metrics) = http::get(server.admin(), "/metrics");
    for line in ["{client=\"http1\"} 1", "{client=\"h2\"} 1"] {
        assert!(metrics.contains(&format!("hallpass_shared_port_clients_total{line}")), "{metrics}");
    }
}
