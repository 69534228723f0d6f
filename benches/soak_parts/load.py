"""Steady calls and short-lived clients, by `hallpass load`."""

import json
import subprocess
import time

from .server import PEER, SECRET, TRANSPORTS, on_core

# Steady calls, as arguments of `hallpass load`: speech in both directions, and the video of a camera.
TALK = ["--from-client", "25", "--from-peer", "25", "--size", "160"]
SEE = ["--from-client", "0", "--from-peer", "100", "--size", "1100", "--burst", "5"]
STEADY = {
    "talk, udp": ["traffic", "--allocations", "8", *TALK],
    "talk, tcp": ["traffic", "--allocations", "4", *TALK],
    "talk, tls": ["traffic", "--allocations", "4", *TALK],
    "video, udp": ["traffic", "--allocations", "4", *SEE],
    "video, tls": ["traffic", "--allocations", "4", *SEE],
    "indications, udp": ["traffic", "--allocations", "2", "--via", "indication", *TALK],
}
# Short-lived clients: arguments of `hallpass load`, seconds between two runs, and the transports in turn.
SHORT_LIVED = {
    "set-ups": (["setups", "--warm-up", "0", "--duration", "0.3", "--concurrency", "4"], 20, TRANSPORTS),
    "churn": (["churn", "--allocations", "100", "--total", "200"], 15, TRANSPORTS),
    "Bindings": (["bindings", "--warm-up", "0", "--duration", "0.2", "--concurrency", "4"], 30, ("udp", "tcp")),
    "handshakes": (["handshakes", "--warm-up", "0", "--duration", "0.2", "--concurrency", "4"], 25, ("tls",)),
    "idle": (["idle", "--allocations", "50", "--duration", "20"], 40, ("tls", "tcp")),
}


class Load:
    """Runs `hallpass load` again and again with a pause in between, and keeps each report."""

    def __init__(self, name, options, server, transports, arguments, pause, seconds=None):
        self.name, self.options, self.server, self.transports = name, options, server, transports
        self.arguments, self.pause, self.seconds = arguments, pause, seconds
        self.user = name.replace(", ", "-")
        self.process, self.runs, self.due = None, 0, time.monotonic()
        self.reports, self.errors, self.lossy = [], {}, []
        self.began = time.monotonic()

    def poll(self, end):
        now = time.monotonic()
        if self.process:
            if self.process.poll() is None:
                return
            self.take()
            self.due = now + self.pause
        longest = 3 if self.seconds else 25
        if now < self.due or now > end - longest:
            return
        transport = self.transports[self.runs % len(self.transports)]
        self.runs += 1
        host, port = self.server.address(transport)
        duration = ["--duration", f"{min(self.seconds, end - now - 2):.1f}"] if self.seconds else []
        command = [
            self.options.server, "load", *self.arguments, *duration, "--server", f"{host}:{port}", "--transport", transport,
            "--tls-name", "relay.test", "--insecure", "--secret", SECRET, "--user", f"{self.user}-{self.runs}",
            "--peer-address", PEER, "--json", "--quiet",
        ]
        self.process = subprocess.Popen(
            on_core(self.options, 1, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def take(self):
        out, err = self.process.communicate()
        try:
            got = json.loads(out)
        except ValueError:
            got = {"errors": {f"exit {self.process.returncode}: {err.decode(errors='replace').strip()[-200:]}": 1}}
        self.process = None
        self.reports.append(got)
        lost = sum(got.get("lost", {}).values())
        if lost:
            self.lossy.append(f"{lost} in the run that ended at {(time.monotonic() - self.began) / 60:.1f} min")
        for what, count in got["errors"].items():
            self.errors[what] = self.errors.get(what, 0) + count

    def end(self, wait):
        if self.process:
            try:
                self.process.wait(wait)
                self.take()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
                self.process = None

    def packets(self, kind):
        return sum(sum(one[kind].values()) for one in self.reports if kind in one)

    def summary(self):
        result = {"runs": len(self.reports), "errors": self.errors}
        if any("sent" in one for one in self.reports):
            result |= {"sent": self.packets("sent"), "lost": self.packets("lost"), "lossy": self.lossy}
            result["p99_us_worst"] = max(one["latency_us"]["p99"] for one in self.reports if one.get("latency_us"))
        else:
            result["operations"] = sum(one.get("operations", one.get("allocations", 0)) for one in self.reports)
        return result
