#!/usr/bin/env python3
"""Compares Hallpass with haproxy, as BigBlueButton configures it, on a port 443 that TURN and a website share.

    cargo build --release && python3 benches/shared_port.py [--rounds 3] [--megabytes 200]

nginx serves one file on loopback, over HTTP/1.1 and HTTP/2, both with PROXY v1. In front of it is haproxy (one
thread, the split by ALPN) or Hallpass, on core 0; nginx and curl run on core 1. The figure is the CPU time of the
server's threads for one download. Then, with Hallpass only, 50 TLS clients relay 50 packets/s each way on the same
port, first alone and then beside two endless downloads: the figure is the latency one way.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HALLPASS = ROOT / "target/release/hallpass"
SECRET = "a secret of the benchmark"
# Seconds until a server must listen.
PATIENCE = 20


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def on_core(core, *command):
    return ["taskset", "-c", str(core), *map(str, command)]


class Running:
    """A process that is killed at the end of the `with` block."""

    def __init__(self, command, port, directory):
        self.log = open(Path(directory) / f"log-{port}", "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        self.port = port

    def __enter__(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                pass
        self.process.kill()
        raise SystemExit(f"{self.process.args}: does not listen\n{Path(self.log.name).read_text()}")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def cpu_ms(self):
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def nginx(directory, http1, h2, megabytes):
    with open(directory / "big", "wb") as file:
        file.truncate(megabytes << 20)
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"daemon off; master_process off; user root; pid {directory}/pid; error_log stderr;\n"
        f"events {{ }}\nhttp {{ {temporary} access_log off; sendfile on;\n"
        f"server {{ listen 127.0.0.1:{http1} proxy_protocol; listen 127.0.0.1:{h2} http2 proxy_protocol;\n"
        f"root {directory}; }} }}\n"
    )
    return Running(on_core(1, "nginx", "-c", directory / "nginx.conf", "-p", directory), http1, directory)


def haproxy(directory, port, http1, h2):
    (directory / "haproxy.cfg").write_text(
        "global\n nbthread 1\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n"
        f"frontend web\n bind 127.0.0.1:{port} ssl crt {directory}/bundle.pem alpn h2,http/1.1,stun.turn\n"
        " use_backend h2 if { ssl_fc_alpn h2 }\n default_backend http1\n"
        f"backend http1\n server nginx 127.0.0.1:{http1} send-proxy\n"
        f"backend h2\n server nginx 127.0.0.1:{h2} send-proxy\n"
    )
    return Running(on_core(0, "haproxy", "-db", "-f", directory / "haproxy.cfg"), port, directory)


def hallpass(directory, port, http1, h2):
    (directory / "hallpass.toml").write_text(
        f'realm = "relay.test"\n[[listen]]\ntransport = "tls"\naddress = "127.0.0.1:{port}"\nweb = true\n'
        f'[web]\nhttp1 = "127.0.0.1:{http1}"\nh2 = "127.0.0.1:{h2}"\nproxy_protocol = "v1"\n'
        f'[tls]\ncert = "{directory}/cert.pem"\nkey = "{directory}/key.pem"\n'
        f'[[host]]\nname = "bench"\nsecret = "{SECRET}"\n[peers]\nallow = ["127.0.0.0/8"]\n'
    )
    return Running(on_core(0, HALLPASS, "serve", "--config", directory / "hallpass.toml"), port, directory)


def curl(port, protocol):
    return on_core(
        1, "curl", "--silent", "--show-error", "--fail", "--insecure", f"--http{protocol}", "--output", "/dev/null",
        f"https://127.0.0.1:{port}/big",
    )


def spread(values):
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def relay_latency(port, downloads):
    loads = [
        subprocess.Popen(["sh", "-c", "while :; do \"$@\" || exit; done", "curl", *curl(port, "1.1")])
        for _ in range(downloads)
    ]
    command = on_core(
        1, HALLPASS, "load", "traffic", "--server", f"127.0.0.1:{port}", "--transport", "tls", "--tls-name", "relay.test",
        "--insecure", "--secret", SECRET, "--allocations", 50, "--from-client", 50, "--from-peer", 50,
        "--duration", 5, "--json", "--quiet",
    )
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    for load in loads:
        load.kill()
        load.wait()
    if report["errors"] or report["loss_ratio"] > 0.001:
        raise SystemExit(f"relaying failed: {report}")
    return report["latency_us"]["p50"], report["latency_us"]["p99"]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--megabytes", type=int, default=200)
    options = options.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    missing = [tool for tool in ("nginx", "haproxy", "curl", "openssl", "taskset") if not shutil.which(tool)]
    if missing or not HALLPASS.exists():
        raise SystemExit(f"missing: {', '.join(missing) or 'target/release/hallpass (cargo build --release)'}")
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        directory.chmod(0o755)
        subprocess.run([ROOT / "certs/make.sh", "self-signed", directory], check=True)
        (directory / "bundle.pem").write_text((directory / "cert.pem").read_text() + (directory / "key.pem").read_text())
        http1, h2, port = free_ports(3)
        print(f"| {options.megabytes} MB by | Hallpass, ms of CPU | haproxy, ms of CPU | ratio |\n|---|---|---|---|")
        with nginx(directory, http1, h2, options.megabytes):
            for protocol, name in (("1.1", "HTTP/1.1"), ("2", "HTTP/2")):
                figures = {hallpass: [], haproxy: []}
                for _ in range(options.rounds):
                    for server, values in figures.items():
                        with server(directory, port, http1, h2) as running:
                            before = running.cpu_ms()
                            subprocess.run(curl(port, protocol), check=True)
                            values.append(running.cpu_ms() - before)
                ours, theirs = figures.values()
                ratio = statistics.median(ours) / statistics.median(theirs)
                print(f"| {name} | {spread(ours)} | {spread(theirs)} | {ratio:.2f} |")
            print("\n| relaying on the same port, us one way | p50 | p99 |\n|---|---|---|")
            for downloads, name in ((0, "alone"), (2, "beside two downloads")):
                both = []
                for _ in range(options.rounds):
                    with hallpass(directory, port, http1, h2):
                        both.append(relay_latency(port, downloads))
                p50, p99 = zip(*both)
                print(f"| {name} | {spread(p50)} | {spread(p99)} |")


if __name__ == "__main__":
    main()
