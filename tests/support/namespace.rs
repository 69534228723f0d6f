//! Four network namespaces: client - router - server, and a peer behind the same router.

use super::process::Process;
use super::tool::{run, run_ok};
use std::cell::RefCell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

// Documentation and benchmark ranges, used only inside the namespaces.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 2);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 2, 2);
pub const PEER: Ipv4Addr = Ipv4Addr::new(198, 18, 3, 2);
/// The network of the peer; the policy denies it by default.
pub const PEER_NET: &str = "198.18.3.0/24";
const PEER_PORT: u16 = 3480;
/// Directories of files that replace those in `/etc` inside a namespace (ip-netns(8)).
const NAMESPACE_FILES: &str = "/etc/netns";
const LIMIT: Duration = Duration::from_secs(20);

const ECHO: &str = "\
import socket, sys
peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
peer.setsockopt(socket.SOL_IP, 10, 0)  # IP_MTU_DISCOVER = IP_PMTUDISC_DONT: large answers may be split
peer.bind((sys.argv[1], int(sys.argv[2])))
print('bound', flush=True)
while True:
    peer.sendto(*peer.recvfrom(65535))
";

/// The namespaces by name. Dropping it, also in a panic, removes them with all their links.
pub struct Lab {
    pub router: String,
    pub client: String,
    pub server: String,
    pub peer: String,
    peer_process: RefCell<Option<Process>>,
}

impl Lab {
    pub fn new() -> Lab {
        let uid = run_ok("id", &["-u"], LIMIT);
        assert_eq!(
            uid.trim(),
            "0",
            "these tests create network namespaces: run `cargo test` as root (sudo -E)"
        );
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |role: &str| format!("hallpass-{}-{number}-{role}", process::id());
        // Built before the first namespace, so that dropping it removes the namespaces if a later step panics.
        let lab = Lab {
            router: name("router"),
            client: name("client"),
            server: name("server"),
            peer: name("peer"),
            peer_process: RefCell::new(None),
        };
        for namespace in lab.namespaces() {
            ip(&["netns", "add", namespace]);
            // Link-local addresses are usable at once; see `wait_until_settled`.
            inside(
                namespace,
                &["sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0"],
            );
            inside(namespace, &["ip", "link", "set", "lo", "up"]);
        }
        lab.connect(&lab.client, "client", CLIENT);
        lab.connect(&lab.server, "server", SERVER);
        lab.connect(&lab.peer, "peer", PEER);
        inside(&lab.router, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        for (namespace, link) in [(&lab.client, "up0"), (&lab.server, "up0"), (&lab.peer, "up0")] {
            wait_until_settled(namespace, link);
        }
        lab
    }

    fn namespaces(&self) -> [&str; 4] {
        [&self.router, &self.client, &self.server, &self.peer]
    }

    /// Adds a link between the router (.1) and `namespace`, with a default route through it.
    fn connect(&self, namespace: &str, link: &str, address: Ipv4Addr) {
        let [a, b, c, _] = address.octets();
        let gateway = format!("{a}.{b}.{c}.1");
        let router = self.router.as_str();
        ip(&[
            "link", "add", link, "netns", router, "type", "veth", "peer", "name", "up0", "netns", namespace,
        ]);
        inside(router, &["ip", "addr", "add", &format!("{gateway}/24"), "dev", link]);
        inside(router, &["ip", "link", "set", link, "up"]);
        inside(namespace, &["ip", "addr", "add", &format!("{address}/24"), "dev", "up0"]);
        inside(namespace, &["ip", "link", "set", "up0", "up"]);
        inside(namespace, &["ip", "route", "add", "default", "via", &gateway]);
    }

    /// Recreates the server's link, so that its interface index is higher than those of interfaces added since.
    pub fn connect_server_again(&self) {
        inside(&self.router, &["ip", "link", "del", "server"]);
        self.connect(&self.server, "server", SERVER);
    }

    /// Gives every link IPv6 addresses beside its IPv4 ones: 2001:db8:N::2, of the router 2001:db8:N::1, where N is 1 at the
    /// client, 2 at the server and 3 at the peer.
    pub fn add_ipv6(&self) {
        shell(&self.router, "sysctl -qw net.ipv6.conf.all.forwarding=1");
        for (number, link, namespace) in
            [(1, "client", &self.client), (2, "server", &self.server), (3, "peer", &self.peer)]
        {
            let net = format!("2001:db8:{number}:");
            shell(&self.router, &format!("ip addr add {net}:1/64 dev {link} nodad"));
            shell(
                namespace,
                &format!("ip addr add {net}:2/64 dev up0 nodad; ip route replace default via {net}:1"),
            );
        }
    }

    /// Adds a chain with `rules` to the firewall at this hook.
    pub fn firewall(&self, hook: &str, rules: &[&str]) {
        let name = hook.replace(' ', "_").replace('-', "");
        let rules = rules.join("; ");
        inside(
            &self.router,
            &["nft", &format!("table ip {name} {{ chain c {{ type {hook}; {rules}; }}; }}")],
        );
    }

    /// Makes the client resolve this name, and no others.
    pub fn client_knows(&self, name: &str, address: IpAddr) {
        self.knows(&self.client, &[(name, &address.to_string())]);
    }

    /// Makes a namespace resolve these names, and no others: `ip netns exec` mounts these files over those in `/etc`.
    pub fn knows(&self, namespace: &str, names: &[(&str, &str)]) {
        let files = PathBuf::from(NAMESPACE_FILES).join(namespace);
        fs::create_dir_all(&files).expect("a directory for the files of a namespace");
        let names: String = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{names}");
        for (file, content) in
            [("hosts", hosts.as_str()), ("resolv.conf", ""), ("nsswitch.conf", "hosts: files\n")]
        {
            fs::write(files.join(file), content).expect("a file of a namespace");
        }
    }

    /// Starts a Python program in the router and waits until it prints `bound`.
    pub fn start_in_router(&self, program: &str, args: &[&str]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.router, "/usr/bin/python3", "-c", program]).args(args);
        let process = Process::spawn(command);
        let up = process.wait_output(LIMIT, |log| log.contains("bound"));
        assert!(up, "the program did not start:\n{}", process.output());
        process
    }

    /// Lowers the MTU of the link between router and client, and suppresses the router's ICMP to the server. The
    /// client knows the MTU and fragments what it sends.
    pub fn narrow_client_link(&self, mtu: u32) {
        let mtu = mtu.to_string();
        inside(&self.router, &["ip", "link", "set", "client", "mtu", &mtu]);
        inside(&self.client, &["ip", "link", "set", "up0", "mtu", &mtu]);
        let rules = "table ip quiet { chain output { type filter hook output priority 0; \
                     icmp type destination-unreachable drop; }; }";
        inside(&self.router, &["nft", rules]);
    }

    /// Adds a delay in milliseconds each way and a loss in percent to the client's link. The Python program `line` forwards
    /// its frames in the router.
    pub fn lengthen_client_link(&self, line: &str, milliseconds: u32, percent: u32) -> Process {
        let [a, b, c, _] = CLIENT.octets();
        let router = |command: &[&str]| inside(&self.router, command);
        router(&["ip", "link", "set", "client", "down"]);
        router(&["ip", "addr", "flush", "dev", "client"]);
        router(&["ip", "link", "set", "client", "name", "near"]);
        router(&["ip", "link", "add", "client", "type", "veth", "peer", "name", "far"]);
        router(&["ip", "addr", "add", &format!("{a}.{b}.{c}.1/24"), "dev", "client"]);
        for link in ["near", "far"] {
            // The router's kernel must not answer ARP at the two ends of the line.
            router(&["ip", "link", "set", link, "arp", "off", "up"]);
        }
        router(&["ip", "link", "set", "client", "up"]);
        for (namespace, link) in [(&self.client, "up0"), (&self.router, "client")] {
            // Without offloads, frames are as on a wire: with checksums, and no longer than the MTU.
            inside(
                namespace,
                &["ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"],
            );
            wait_until_settled(namespace, link);
        }
        self.start_in_router(line, &["near", "far", &milliseconds.to_string(), &percent.to_string()])
    }

    /// Replaces the client's IPv4 by IPv6, and adds IPv6 to the server. Returns the server's IPv6 address.
    pub fn only_ipv6_for_the_client(&self) -> IpAddr {
        inside(&self.router, &["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
        for (namespace, link, net) in [(&self.client, "client", 1), (&self.server, "server", 2)] {
            let address = |last| format!("2001:db8:{net}::{last}/64");
            inside(&self.router, &["ip", "addr", "add", &address(1), "dev", link, "nodad"]);
            inside(namespace, &["ip", "addr", "add", &address(2), "dev", "up0", "nodad"]);
            inside(namespace, &["ip", "route", "add", "default", "via", &format!("2001:db8:{net}::1")]);
        }
        inside(&self.client, &["ip", "-4", "addr", "flush", "dev", "up0"]);
        "2001:db8:2::2".parse().expect("an address")
    }

    /// Starts an echoing peer in its own namespace.
    pub fn start_peer(&self) -> SocketAddr {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.peer, "/usr/bin/python3", "-c", ECHO]);
        command.args([PEER.to_string(), PEER_PORT.to_string()]);
        let process = Process::spawn(command);
        let up = process.wait_output(LIMIT, |log| log.contains("bound"));
        assert!(up, "the peer did not start:\n{}", process.output());
        *self.peer_process.borrow_mut() = Some(process);
        SocketAddr::new(PEER.into(), PEER_PORT)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.peer_process.borrow_mut().take();
        for namespace in self.namespaces() {
            run("ip", &["netns", "del", namespace], LIMIT);
            let _ = fs::remove_dir_all(PathBuf::from(NAMESPACE_FILES).join(namespace));
        }
    }
}

/// Waits until a link is up and has its link-local address. The kernel tells both up to a second later, and a browser takes that
/// for a change of the network, which ends its requests.
fn wait_until_settled(namespace: &str, link: &str) {
    let is_settled = format!(
        "ip -o link show {link} | grep -q 'state UP' && \
         ip -6 -o addr show dev {link} scope link | grep -v tentative | grep -q fe80"
    );
    shell(namespace, &format!("until {is_settled}; do sleep 0.02; done"));
}

fn ip(args: &[&str]) {
    run_ok("ip", args, LIMIT);
}

/// Runs `body` on a thread in the namespace, which has a name or the path of a file in `/proc`. Its sockets stay in that
/// namespace even if another thread uses them.
pub fn within<T: Send>(namespace: &str, body: impl FnOnce() -> T + Send) -> T {
    // An absolute path replaces the directory.
    let file = fs::File::open(PathBuf::from("/run/netns").join(namespace)).expect("the namespace exists");
    let run = || {
        // SAFETY: takes no pointers; affects only this thread, which ends with `body`.
        let moved = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(moved, 0, "{namespace}: {}", std::io::Error::last_os_error());
        body()
    };
    match thread::scope(|scope| scope.spawn(run).join()) {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs lines of shell commands in a namespace.
pub fn shell(namespace: &str, lines: &str) {
    inside(namespace, &["sh", "-e", "-c", lines]);
}

pub fn inside(namespace: &str, command: &[&str]) {
    let mut args = vec!["netns", "exec", namespace];
    args.extend(command);
    run_ok("ip", &args, LIMIT);
}
