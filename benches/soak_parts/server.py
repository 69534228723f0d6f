"""The server under test: started, measured, signalled and ended."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

from .turn import connected

SECRET = "a secret of the soak"
# Loopback addresses that no other program on the machine is likely to use.
SERVER, PEER, CLIENT, STRANGER = "127.77.0.1", "127.77.0.2", "127.77.0.3", "127.77.0.66"
# Above the kernel's ephemeral ports.
RELAY_PORTS = "61000-65535"
TRANSPORTS = ("udp", "tcp", "tls")
PATIENCE = 20
MAKE_CERTIFICATE = Path(__file__).resolve().parent.parent.parent / "certs/make.sh"
# Receive frames of a worker (`net::syscall::BATCH`), flows enough to reach all workers, longest UDP payload over IPv4.
FRAMES, FLOWS, LONGEST = 64, 16, 65_507


def free_port(kind="tcp"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as one:
        one.bind((SERVER, 0))
        return one.getsockname()[1]


def on_core(options, core, *command):
    prefix = ["taskset", "-c", str(core)] if options.pin else []
    return [*prefix, *map(str, command)]


class Server:
    """Hallpass with a configuration and certificate of its own."""

    def __init__(self, options, directory):
        self.directory, self.options = directory, options
        self.ports = {kind: free_port(kind) for kind in (*TRANSPORTS, "admin")}
        self.certificate()
        self.configure({})
        self.log_path = options.out / "server.log"
        self.log = open(self.log_path, "wb")
        command = [options.server, "serve", "--config", directory / "hallpass.toml"]
        self.process = subprocess.Popen(
            on_core(options, 0, *command), stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.pid = self.process.pid
        end = time.monotonic() + PATIENCE
        while not self.metrics():
            if self.process.poll() is not None or time.monotonic() > end:
                self.end()
                raise SystemExit(f"the server does not start:\n{self.log_path.read_text()}")
            time.sleep(0.05)

    def address(self, transport):
        return SERVER, self.ports[transport]

    def certificate(self):
        subprocess.run([MAKE_CERTIFICATE, "self-signed", self.directory], check=True)

    def configure(self, limits, tail=""):
        # A mutated request may ask for the longest lifetime, and abandoned allocations must expire within the last wait.
        limits = {"workers": 2, "drain_seconds": 5, "lifetime_max_seconds": 600, "allocations_per_user": 0,
                  "requests_per_user": 0, "packets_per_user": 0, **limits}
        listeners = "".join(
            f'[[listen]]\ntransport = "{kind}"\naddress = "{SERVER}:{self.ports[kind]}"\n' for kind in TRANSPORTS
        )
        text = (
            f'realm = "relay.test"\n{listeners}[relay]\nports = "{RELAY_PORTS}"\n[tls]\ncert = "cert.pem"\nkey = "key.pem"\n'
            f'[[host]]\nname = "soak"\nsecret = "{SECRET}"\npeers = ["{PEER}/32"]\n[peers]\nallow = ["{PEER}/32"]\n'
            "[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items())
            + f'[drain]\nalternate_server = ["{SERVER}:9"]\n[admin]\naddress = "{SERVER}:{self.ports["admin"]}"\n{tail}'
        )
        (self.directory / "hallpass.toml").write_text(text)

    def fill_frames(self):
        """Uses every receive frame once, before anything is measured. Each worker has 64 frames of 64 KiB, and a page
        becomes resident at its first use. Long datagrams late in a batch are rare: the last frames would become resident
        during the run, which would look like a slow leak."""
        self.process.send_signal(signal.SIGSTOP)
        for _ in range(FLOWS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
                one.bind((STRANGER, 0))
                for _ in range(2 * FRAMES // FLOWS + 4):
                    # The kernel drops what exceeds the socket's buffer.
                    one.sendto(bytes(LONGEST), self.address("udp"))
        self.process.send_signal(signal.SIGCONT)
        self.metrics()

    def signal(self, number):
        self.process.send_signal(number)

    def metrics(self):
        """The value of every series, by name and labels; empty if there is no answer."""
        connection = http.client.HTTPConnection(SERVER, self.ports["admin"], timeout=5)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
            return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()

    def in_use(self):
        """The resources of the process: memory, descriptors, threads, CPU."""
        process = Path(f"/proc/{self.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        rollup = dict(line.split(":", 1) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
        kib = lambda text: int(text.split()[0])
        # Nanoseconds that the threads ran, and that they were runnable and waited for a core.
        times = [list(map(int, (task / "schedstat").read_text().split())) for task in (process / "task").iterdir()]
        return {
            "rss_kib": kib(status["VmRSS"]),
            "pss_kib": kib(rollup["Pss"]),
            "anonymous_kib": kib(rollup["Anonymous"]),
            "descriptors": len(os.listdir(process / "fd")),
            "threads": int(status["Threads"]),
            "cpu_s": round(sum(one[0] for one in times) / 1e9, 3),
            "waited_s": round(sum(one[1] for one in times) / 1e9, 3),
            "log_bytes": self.log_path.stat().st_size,
        }

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return self.process.returncode


class Reloads:
    """Sends the signals in turn, and checks the effect of each."""

    TURN = ("good", "changed", "broken")
    SAYS = {
        "good": b"the new configuration is in use",
        "changed": b"the new configuration is in use",
        "broken": b"reload: the configuration in use stays",
    }

    def __init__(self, server, period):
        self.server, self.period = server, period
        self.due, self.halfway = time.monotonic() + period, True
        self.done = {kind: 0 for kind in (*self.TURN, "certificate")}
        self.failed, self.at, self.expecting = [], [], None

    def poll(self, started):
        now = time.monotonic()
        self.check(now)
        if now < self.due or self.expecting:
            return
        self.due += self.period / 2
        self.halfway = not self.halfway
        self.at.append((now - started) / 60)
        kind = "certificate" if self.halfway else self.TURN[(sum(self.done.values()) - self.done["certificate"]) % 3]
        self.expecting = (kind, self.server.log_path.stat().st_size, now + PATIENCE)
        if kind == "certificate":
            self.server.certificate()
            self.server.signal(signal.SIGUSR2)
            return
        changed = {"unauthenticated_per_source": 400, "permissions_per_allocation": 900, "channels_per_allocation": 800}
        self.server.configure(changed if kind == "changed" else {}, "[nonsense\n" if kind == "broken" else "")
        self.server.signal(signal.SIGHUP)

    def check(self, now):
        if not self.expecting:
            return
        kind, before, patience = self.expecting
        with open(self.server.log_path, "rb") as log:
            log.seek(before)
            said = log.read()
        if kind == "certificate":
            good = b"new certificate in use" in said and self.serves_the_file()
        else:
            good = self.SAYS[kind] in said
        if good:
            self.done[kind] += 1
        elif now > patience:
            self.failed.append(kind)
            self.done[kind] += 1
        if good or now > patience:
            self.expecting = None

    def serves_the_file(self):
        try:
            with connected("tls", self.server.address("tls"), CLIENT) as one:
                served = one.getpeercert(binary_form=True)
            return served == ssl.PEM_cert_to_DER_cert((self.server.directory / "cert.pem").read_text())
        except OSError:
            return False
