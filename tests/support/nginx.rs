//! nginx as the back end, as on a BigBlueButton host: HTTP/1.1 on one port and HTTP/2 without TLS on another, both
//! with the PROXY protocol.

use super::certs::{self, Kind};
use super::files::Directory;
use super::plan::{LOCAL_V4, free_port};
use super::process::Process;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

pub struct Nginx {
    pub http1: SocketAddr,
    pub h2: SocketAddr,
    /// TLS, with a certificate for `other.test`.
    pub tls: SocketAddr,
    _process: Process,
    files: Directory,
}

impl Nginx {
    /// Starts it with the page `hello` at `/` and `size` bytes at `/big`.
    pub fn start(size: usize) -> Nginx {
        Nginx::start_in(None, size)
    }

    /// Does the same in a network namespace, on the ports of a BigBlueButton host.
    pub fn start_in(namespace: Option<&str>, size: usize) -> Nginx {
        let files = Directory::new("nginx");
        let ports = match namespace {
            Some(_) => [81, 82, 8443],
            None => [(); 3].map(|()| free_port()),
        };
        let [http1, h2, tls] = ports.map(|port| SocketAddr::new(LOCAL_V4, port));
        files.write("index.html", "hello");
        fs::write(files.path("big"), content(size)).expect("a file");
        let dir = files.path("").display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; user root; pid {dir}/pid; error_log stderr notice;\n\
             events {{ }}\n\
             http {{ {temporary} client_max_body_size 0;\n\
             log_format seen '$remote_addr:$remote_port $server_protocol $status';\n\
             access_log {dir}/access.log seen;\n\
             set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;\n\
             server {{ listen {http1} proxy_protocol; listen {h2} http2 proxy_protocol; root {dir};\n\
             location /up/ {{ dav_methods PUT; create_full_put_path on; }} }}\n\
             server {{ listen {tls} ssl; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key;\n\
             return 200 \"the other one\"; }} }}\n"
        );
        certs::write(Kind::Good, "other.test", &files.path("cert"), &files.path("key"));
        let config = files.write("nginx.conf", &config);
        let mut command = Command::new(if namespace.is_some() { "ip" } else { "/usr/sbin/nginx" });
        if let Some(namespace) = namespace {
            command.args(["netns", "exec", namespace, "/usr/sbin/nginx"]);
        }
        command.arg("-c").arg(config).arg("-p").arg(files.path("")).args(["-e", "stderr"]);
        let process = Process::spawn(command);
        // nginx listens before it logs its event method.
        let up = process.wait_output(LIMIT, |log| log.contains("event method"));
        assert!(up, "nginx did not start:\n{}", process.output());
        Nginx { http1, h2, tls, _process: process, files }
    }

    /// Returns the content that was uploaded to `/up/NAME`.
    pub fn uploaded(&self, name: &str) -> Vec<u8> {
        fs::read(self.files.path("up").join(name)).expect("an upload")
    }

    /// Waits for a line in the access log, which is written after the answer.
    pub fn wait_log(&self, line: &str) {
        let end = Instant::now() + LIMIT;
        while !self.log().contains(line) {
            assert!(Instant::now() < end, "no {line:?} in\n{}", self.log());
            std::thread::yield_now();
        }
    }

    /// Returns the lines `address:port protocol status` of all requests so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.files.path("access.log")).unwrap_or_default()
    }
}

/// Returns bytes without repetition.
pub fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}
