//! The school: its network, the relay outside, and a call between them.

use crate::firefox;
use crate::support::chromium::{Chromium, Setting};
use crate::support::namespace::{Lab, SERVER};
use crate::support::plan::{Plan, Transport};
use crate::support::server::Server;
use crate::support::tool::run_ok;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// The relay's name, as browsers and firewalls know it.
pub const NAME: &str = "relay.test";
/// Ports for UDP, TCP and TLS. Schools allow outgoing connections to the last two.
pub const PORTS: [u16; 3] = [3478, 80, 443];
/// Documentation and benchmark ranges, which the policy refuses unless they are allowed.
pub const RANGE: &str = "198.18.0.0/15";

/// The browser of a call.
#[derive(Clone, Copy, Debug)]
pub enum Browser {
    Chromium,
    Firefox,
}

pub struct School {
    pub lab: Lab,
    pub browser: Browser,
    /// Where clients find the relay.
    pub address: IpAddr,
    /// Command line flags of Chromium, or preferences of Firefox.
    pub flags: Vec<String>,
    /// Whether the test page is opened by the relay's address instead of its name.
    pub by_address: bool,
    /// Options of the call.
    pub call: Value,
}

impl School {
    /// Creates a school with an open network.
    pub fn new() -> School {
        School {
            lab: Lab::new(),
            browser: Browser::Chromium,
            address: SERVER.into(),
            by_address: false,
            flags: Vec::new(),
            call: json!({}),
        }
    }

    /// Returns the plan of a relay with UDP, TCP and TLS.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::on(&[SERVER.into()], &[RANGE]);
        plan.namespace = Some(self.lab.server.clone());
        plan.ports = Some(PORTS);
        plan.name = Some(NAME);
        plan
    }

    /// Returns the script of a call that offers every transport.
    fn script(&self, server: &Server) -> String {
        let credentials = server.credentials("w_school");
        let [udp, tcp, tls] = PORTS;
        let host =
            if self.address.is_ipv6() { format!("[{}]", self.address) } else { self.address.to_string() };
        let urls = json!([
            format!("turn:{host}:{udp}?transport=udp"),
            format!("turn:{host}:{tcp}?transport=tcp"),
            format!("turns:{NAME}:{tls}?transport=tcp"),
        ]);
        let ice =
            json!([{ "urls": urls, "username": credentials.username, "credential": credentials.password }]);
        format!("{}\ncall({ice}, {})", include_str!("../support/call.js"), self.call)
    }

    /// Makes a call; returns the browser's statistics once media has flowed in both directions.
    pub fn call(&self, server: &Server) -> Value {
        self.lab.client_knows(NAME, self.address);
        let script = self.script(server);
        let result = match self.browser {
            Browser::Chromium => {
                let setting = Setting { namespace: Some(&self.lab.client), flags: self.flags.clone() };
                Chromium::start_in(server.files(), &setting).run(&script)
            }
            Browser::Firefox => firefox::run(&self.lab.client, server, &self.flags, &script),
        };
        assert_eq!(result["error"], Value::Null, "the call failed: {result:#}\nserver:\n{}", server.log());
        for end in ["caller", "callee"] {
            assert_eq!(result[end]["localType"], "relay", "{result:#}");
            assert!(result[end]["bytesReceived"].as_u64() > Some(0), "{result:#}");
        }
        assert_eq!(result["echo"], "round trip", "{result:#}");
        assert!(result["callee"]["framesDecoded"].as_u64() >= Some(30), "{result:#}");
        result
    }

    /// Makes a call and asserts that one of `transports` carried it.
    pub fn call_over(&self, server: &Server, transports: &[Transport]) -> Value {
        let result = self.call(server);
        for end in ["caller", "callee"] {
            let used = result[end]["relayProtocol"].as_str().unwrap_or_default().to_owned();
            let expected = transports.iter().any(|transport| format!("{transport:?}").to_lowercase() == used);
            assert!(expected, "{end} used {used:?} instead of {transports:?}: {result:#}");
        }
        result
    }

    /// Returns the relay's `/metrics`.
    pub fn metrics(&self, server: &Server) -> String {
        let url = format!("http://{}/metrics", server.admin());
        let inside =
            ["netns", "exec", &self.lab.server, "curl", "--silent", "--fail", "--max-time", "5", &url];
        run_ok("ip", &inside, Duration::from_secs(10))
    }
}

/// Returns the value of a series.
pub fn value(metrics: &str, series: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
}
