#!/usr/bin/env python3
"""A long run under mixed load and attack, which watches memory, descriptors, latency and calls.

    cargo build --release && python3 benches/soak.py [--minutes 60] [--out DIR]

One server on loopback. Calls over UDP, TCP and TLS run all the time, beside set-ups, Bindings, handshakes and
short-lived allocations; hostile clients send malformed and forbidden traffic at a fixed rate; every minute the
configuration is reloaded (good, changed, broken, in turn) and the certificate replaced. Probes measure how long datagrams
take through the relay. At the end the load stops, and the script checks that the server has released everything.

Writes soak.csv, soak.svg, summary.md, summary.json and server.log to DIR. Exit codes: 0 success, 1 a bound was exceeded,
2 usage.
"""

import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path

sys.dont_write_bytecode = True

from soak_parts import hostile, probe, report
from soak_parts.load import SHORT_LIVED, STEADY, Load
from soak_parts.server import CLIENT, PATIENCE, PEER, SECRET, STRANGER, TRANSPORTS, Reloads, Server
from soak_parts.summary import JUDGED_MINUTES, MIB, grown, plot, text, warm_up

ROOT = Path(__file__).resolve().parent.parent
# The limits of a run that passes.
BOUNDS = {
    "RSS growth in the later half, lower end of its 95 % interval, MiB an hour": 1.0,
    "steady packets lost, %": 0.1,
    "errors of calls and cycles": 0,
    "probe datagrams lost, %": 0.1,
    "probe failures": 0,
    "signals without effect": 0,
    "panics": 0,
    "descriptors left afterwards": 2,
    "allocations left afterwards": 0,
    "permissions left afterwards": 0,
    "streams left afterwards": 0,
    "relay sockets left afterwards": 0,
    "server log, MiB an hour": 100,
}


class Soak:
    """One run: the server, its load, the hostile clients and the probes."""

    def __init__(self, options, directory):
        self.options, self.rows, self.stopping = options, [], False
        self.seconds = options.minutes * 60
        call = min(max(self.seconds / 12, 20), 300)
        self.server = Server(options, directory)
        for _ in range(2):
            self.server.fill_frames()
        time.sleep(1)
        self.at_start = self.server.in_use()
        self.loads = [
            Load(name, options, self.server, [name[-3:]], arguments, 0.5, call) for name, arguments in STEADY.items()
        ] + [
            Load(name, options, self.server, list(transports), arguments, pause)
            for name, (arguments, pause, transports) in SHORT_LIVED.items()
        ]
        self.reloads = Reloads(self.server, options.reload)
        plan = types.SimpleNamespace(
            servers={kind: self.server.address(kind) for kind in TRANSPORTS}, peer=PEER, client=CLIENT, stranger=STRANGER,
            secret=SECRET, seed=options.seed, parent=os.getpid(),
        )
        fork = multiprocessing.get_context("fork")
        self.stopped = fork.Event()
        self.hostile = fork.Array("Q", len(hostile.KINDS), lock=False)
        self.probes, self.helpers = {}, []
        for kind in ("udp", "tls"):
            ours, theirs = fork.Pipe()
            self.probes[kind] = {"pipe": ours, "sent": 0, "lost": 0, "us": [], "failures": []}
            self.helpers.append(fork.Process(target=helper, args=(options, probe.run, kind, plan, theirs, self.stopped)))
        for kind in ("datagrams", "streams"):
            self.helpers.append(
                fork.Process(target=helper, args=(options, hostile.run, kind, plan, self.hostile, self.stopped))
            )
        self.helper_failures = []

    def stop(self, *_):
        self.stopping = True

    def run(self):
        for one in self.helpers:
            one.start()
        self.started = time.monotonic()
        end = self.started + self.seconds
        due = self.started
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.stop)
        try:
            while not self.stopping and time.monotonic() < end:
                for load in self.loads:
                    load.poll(end)
                self.reloads.poll(self.started)
                if time.monotonic() >= due:
                    due += self.options.sample
                    if self.server.process.poll() is not None:
                        return
                    self.sample()
                time.sleep(0.1)
        finally:
            self.lasted = time.monotonic() - self.started
            self.stopped.set()
            for load in self.loads:
                load.end(0 if self.stopping else PATIENCE)
            self.drain_probes()
            for one in self.helpers:
                one.join(PATIENCE)
                if one.exitcode is None:
                    one.kill()
                    one.join()
                if one.exitcode:
                    self.helper_failures.append(f"{one.name}: exit {one.exitcode}")
            self.drain_probes()

    def drain_probes(self):
        for one in self.probes.values():
            with contextlib.suppress(EOFError, OSError):
                while one["pipe"].poll():
                    got = one["pipe"].recv()
                    if "failure" in got:
                        one["failures"].append(f"{(time.monotonic() - self.started) / 60:.1f} min: {got['failure']}")
                        continue
                    one["us"] += got["us"]
                    one["sent"] += len(got["us"]) + got["lost"]
                    one["lost"] += got["lost"]

    def sample(self):
        seen = self.server.metrics()
        total = lambda prefix: sum(value for key, value in seen.items() if re.match(prefix + r"(\{|$)", key))
        row = {"minute": round((time.monotonic() - self.started) / 60, 3), **self.server.in_use()}
        for name in ("allocations", "permissions", "channels", "connections", "worker_relays"):
            row[name] = int(total(f"hallpass_{name}"))
        for name in ("allocations", "relayed_packets", "drops", "errors", "worker_icmp", "stream_stale"):
            row[f"{name}_total"] = int(total(f"hallpass_{name}_total"))
        self.drain_probes()
        for kind, one in self.probes.items():
            times = sorted(one["us"])
            one["us"] = []
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                row[f"probe_{kind}_{name}_us"] = round(times[int(share * (len(times) - 1))]) if times else ""
            row[f"probe_{kind}_lost"] = one["lost"]
        row["hostile"] = sum(self.hostile)
        row["reloads"] = sum(self.reloads.done.values())
        # Of the whole machine: it explains delays that the server does not cause.
        row["load_average"] = os.getloadavg()[0]
        self.last_metrics = seen or getattr(self, "last_metrics", {})
        self.rows.append(row)
        # Written at once, so that an interrupted run keeps its rows.
        with open(self.options.out / "soak.csv", "w" if len(self.rows) == 1 else "a", newline="") as file:
            table = csv.DictWriter(file, row.keys())
            if len(self.rows) == 1:
                table.writeheader()
            table.writerow(row)

    def afterwards(self):
        """Waits until abandoned allocations and connections have ended. Returns what is left, and the resources in use."""
        names = {
            "allocations": "hallpass_allocations", "permissions": "hallpass_permissions",
            "streams": "hallpass_connections", "relay sockets": "hallpass_worker_relays",
        }
        end = time.monotonic() + self.options.afterwards
        while self.options.afterwards and not self.stopping and self.server.process.poll() is None:
            seen = self.server.metrics()
            left = {
                what: int(sum(value for key, value in seen.items() if re.match(name + r"(\{|$)", key)))
                for what, name in names.items()
            }
            now = self.server.in_use()
            left["descriptors"] = now["descriptors"] - self.at_start["descriptors"]
            bound = lambda what: left[what] <= BOUNDS[f"{what} left afterwards"]
            if (seen and all(map(bound, left))) or time.monotonic() > end:
                return left, now
            time.sleep(1)
        return {}, {}

    def summarize(self, left, after):
        steady = [load for load in self.loads if load.seconds]
        sent, lost = (sum(load.packets(kind) for load in steady) for kind in ("sent", "lost"))
        minutes = self.rows[-1]["minute"] if self.rows else 0
        warm = [row for row in self.rows if row["minute"] >= warm_up(minutes)]
        series = lambda name: [(row["minute"] / 60, row[name]) for row in warm]
        growth = grown(self.rows)
        log = self.server.log_path.read_bytes()
        rss = growth.get("rss_kib")
        probes = self.probes.values()
        # An allocator's memory settles and a leak does not, so only the later half is judged.
        half = rss["later_half"] if rss and minutes > JUDGED_MINUTES else {"kib_an_hour": 0, "plus_minus": 0}
        least_growth = max(half["kib_an_hour"] - half["plus_minus"], 0) / 1024
        figures = {
            "RSS growth in the later half, lower end of its 95 % interval, MiB an hour": least_growth,
            "steady packets lost, %": 100 * lost / sent if sent else 100,
            "errors of calls and cycles": sum(sum(load.errors.values()) for load in self.loads),
            "probe datagrams lost, %": 100 * sum(p["lost"] for p in probes) / max(sum(p["sent"] for p in probes), 1),
            "probe failures": sum(len(p["failures"]) for p in probes),
            "signals without effect": len(self.reloads.failed),
            "panics": log.count(b"panicked"),
            **{f"{what} left afterwards": count for what, count in left.items()},
            "server log, MiB an hour": len(log) / MIB / max(self.lasted / 3600, 0.01),
        }
        broken = [f"{name}: {figures[name]:g}, bound {BOUNDS[name]:g}" for name in figures if figures[name] > BOUNDS[name]]
        if self.server.process.poll() is not None:
            broken.append(f"the server exited early: {self.server.process.returncode}")
        broken += self.helper_failures
        first, last = (self.rows[0], self.rows[-1]) if self.rows else ({}, {})
        span = lambda a, b: max((b["minute"] - a["minute"]) * 60, 1)
        waits = [(b["waited_s"] - a["waited_s"]) / span(a, b) for a, b in zip(self.rows, self.rows[1:])]
        drops = {key: value for key, value in self.last_metrics.items() if "drops_total" in key or "errors_total" in key}
        percentiles = {}
        for kind in self.probes:
            for name in ("p50", "p99"):
                values = [row[f"probe_{kind}_{name}_us"] for row in warm if row[f"probe_{kind}_{name}_us"] != ""]
                if values:
                    percentiles[f"{kind} {name} us"] = {"median": statistics.median(values), "worst": max(values)}
        return {
            "minutes": round(self.lasted / 60, 1), "interrupted": self.stopping, "samples": len(self.rows),
            "broken": broken, "figures": figures, "growth": growth,
            "descriptors": dict(zip(("first", "last"), report.ends(series("descriptors")))) if warm else {},
            "at_start": self.at_start, "afterwards": after, "left": left,
            "cpu_share_of_a_core": (last["cpu_s"] - first["cpu_s"]) / (minutes * 60) if minutes else 0,
            "waited_share": (last["waited_s"] - first["waited_s"]) / (minutes * 60) if minutes else 0,
            "waited_worst_ms": max(waits, default=0) * 1000,
            "loads": {load.name: load.summary() for load in self.loads},
            "probes": {k: {n: p[n] for n in ("sent", "lost", "failures")} for k, p in self.probes.items()},
            "probe_percentiles": percentiles, "steady": {"sent": sent, "lost": lost},
            "reloads": self.reloads.done, "reloads_failed": self.reloads.failed,
            "hostile": dict(zip(hostile.KINDS, self.hostile)), "log_bytes": len(log), "server_counts": drops,
        }

    def write(self, result):
        out = self.options.out
        result["reloads_at"] = self.reloads.at
        (out / "summary.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(out, self.rows, result)


def draw(out, rows, result):
    """Writes the table and the plot."""
    (out / "summary.md").write_text(text(result))
    (out / "soak.svg").write_text(plot(rows, result, result.get("reloads_at", [])))
    print(text(result))


def redraw(out):
    """Writes table and plot of a finished run again, from its files."""
    with open(out / "soak.csv", newline="") as file:
        rows = [{key: float(value) if value else "" for key, value in row.items()} for row in csv.DictReader(file)]
    result = json.loads((out / "summary.json").read_text())
    result["growth"] = grown(rows)
    draw(out, rows, result)


def helper(options, run, *arguments):
    """The main function of a child process, which leaves Ctrl-C to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if options.pin:
        os.sched_setaffinity(0, {1})
    run(*arguments)


def arguments():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--server", type=Path, default=ROOT / "target/release/hallpass", metavar="BIN", help="the binary of the server")
    options.add_argument("--minutes", type=float, default=60, metavar="N", help="length of the run (60)")
    options.add_argument("--sample", type=float, default=5, metavar="SECONDS", help="time between two samples (5)")
    options.add_argument("--reload", type=float, default=60, metavar="SECONDS", help="time between two reloads (60)")
    options.add_argument(
        "--afterwards", type=float, default=660, metavar="SECONDS",
        help="how long to wait at the end until everything is released (660); 0: no check",
    )
    options.add_argument("--out", type=Path, default=Path("soak-out"), metavar="DIR", help="directory for the files (soak-out)")
    options.add_argument("--seed", type=int, default=1, help="seed of the hostile traffic (1)")
    options.add_argument("--no-pin", dest="pin", action="store_false", help="let server and load run on any core")
    options.add_argument("--redraw", action="store_true", help="only write table and plot again, from the files in DIR")
    options = options.parse_args()
    if options.redraw:
        return options
    options.server = options.server.resolve()
    missing = [tool for tool in ("openssl", "taskset") if not shutil.which(tool)]
    if not options.server.is_file():
        missing.append(f"{options.server} (cargo build --release)")
    if missing or options.minutes <= 0 or options.sample <= 0 or options.reload <= 0:
        print(f"missing: {', '.join(missing)}" if missing else "times must be above 0", file=sys.stderr)
        raise SystemExit(2)
    options.pin = options.pin and {0, 1} <= os.sched_getaffinity(0)
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def main():
    options = arguments()
    if options.redraw:
        redraw(options.out)
        return
    with tempfile.TemporaryDirectory(prefix="hallpass-soak-") as directory:
        soak = Soak(options, Path(directory))
        left, after = {}, {}
        try:
            soak.run()
            left, after = soak.afterwards()
        finally:
            if soak.rows:
                result = soak.summarize(left, after)
                soak.write(result)
            soak.server.end()
    raise SystemExit(1 if not soak.rows or result["broken"] else 0)


if __name__ == "__main__":
    main()
