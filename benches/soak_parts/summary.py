"""The results of a run: a Markdown table and the plot."""

import statistics

from . import report

MIB = 1 << 20
# The first tenth is warm-up; at least 11 minutes in a run that is long enough to judge its slope. An abandoned allocation
# lives for ten minutes (RFC 8656 section 3.2), so before that their number still grows.
WARM_UP, WARM_UP_MINUTES, JUDGED_MINUTES = 0.1, 11, 30


def warm_up(minutes):
    return max(WARM_UP * minutes, WARM_UP_MINUTES if minutes > JUDGED_MINUTES else 0)


def grown(rows):
    """The growth of each kind of memory after the warm-up, and in the later half of that time."""
    minutes = rows[-1]["minute"] if rows else 0
    growth = {}
    for name in ("rss_kib", "pss_kib", "anonymous_kib"):
        points = [(row["minute"] / 60, row[name]) for row in rows if row["minute"] >= warm_up(minutes)]
        # Spans have the same length in both.
        whole, half = fitted(points, report.BLOCKS), fitted(points[len(points) // 2 :], report.BLOCKS // 2)
        if whole and half:
            first, last = report.ends(points)
            growth[name] = {**whole, "first": first, "last": last, "later_half": half}
    return growth


def fitted(points, count):
    fit = report.slope(points, count) if points else None
    if not fit:
        return None
    sure = abs(fit[0]) > fit[1]
    return {"kib_an_hour": round(fit[0], 1), "plus_minus": round(fit[1], 1), "indistinguishable_from_0": not sure}


def said(fit):
    sure = "indistinguishable from 0" if fit["indistinguishable_from_0"] else "not 0"
    return f"{fit['kib_an_hour']:+.0f} ± {fit['plus_minus']:.0f} KiB an hour, {sure}"


def text(result):
    """The summary as a Markdown table."""
    rows = [("minutes", f"{result['minutes']}{' (interrupted)' if result['interrupted'] else ''}")]
    for name, one in result["growth"].items():
        kind = {"rss_kib": "RSS", "pss_kib": "PSS", "anonymous_kib": "anonymous memory"}[name]
        pair = f"{one['first']:.0f} and {one['last']:.0f} KiB; {said(one)}"
        rows.append((f"{kind}, first and last tenth", f"{pair}; later half {said(one['later_half'])}"))
    rows.append(("descriptors, first and last tenth", " and ".join(f"{one:.0f}" for one in result["descriptors"].values())))
    before, after = result["at_start"], result["afterwards"]
    if after:
        pair = f"{before['rss_kib']} and {after['rss_kib']} KiB, {before['descriptors']} and {after['descriptors']}"
        rows.append(("RSS and descriptors before the load and after it", pair))
        rows.append(("left afterwards", ", ".join(f"{count} {what}" for what, count in result["left"].items())))
    rows.append(("server's CPU", f"{result['cpu_share_of_a_core'] * 100:.1f} % of a core"))
    waits = f"{result['waited_share'] * 100:.1f} % of the time in all; {result['waited_worst_ms']:.0f} ms a second in the worst sample"
    rows.append(("its threads runnable, but without a core", waits))
    steady = result["steady"]
    rows.append(("packets of steady calls", f"{steady['sent']:,} sent, {steady['lost']:,} lost"))
    for name, one in result["loads"].items():
        errors = ", ".join(f"{what}: {count}" for what, count in one["errors"].items()) or "no errors"
        done = f"{one['sent']:,} sent, {one['lost']:,} lost" if "sent" in one else f"{one['operations']:,} done"
        if one.get("lossy"):
            done += f" ({'; '.join(one['lossy'])})"
        rows.append((name, f"{one['runs']} runs, {done}, {errors}"))
    for name, one in result["probes"].items():
        times = result["probe_percentiles"]
        spans = (times.get(f"{name} {share} us") for share in ("p50", "p99"))
        spans = " and ".join(f"{one['median'] / 1000:.2f} ms (worst {one['worst'] / 1000:.1f})" for one in spans if one)
        failed = "; ".join(one["failures"]) or "no failures"
        rows.append((f"probe, {name}: p50 and p99 of a sample", f"{spans}; {one['lost']} of {one['sent']:,} lost, {failed}"))
    rows.append(("reloads", ", ".join(f"{count} {kind}" for kind, count in result["reloads"].items())))
    rows.append(("hostile", ", ".join(f"{count:,} {kind}" for kind, count in result["hostile"].items())))
    rows.append(("server log", f"{result['log_bytes'] / MIB:.1f} MiB"))
    rows.append(("bounds exceeded", "; ".join(result["broken"]) or "none"))
    return "| what | figure |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def plot(rows, result, reloads):
    minutes = rows[-1]["minute"] if rows else 0
    line = lambda name, scale=1: [(row["minute"], row[name] / scale) for row in rows if row[name] != ""]
    rate = lambda name: [
        (b["minute"], max(b[name] - a[name], 0) / max(b["minute"] - a["minute"], 1e-9) / 60) for a, b in zip(rows, rows[1:])
    ]
    picture = report.Plot(f"Hallpass, {result['minutes']:g} minutes under mixed load and attack", minutes, reloads)
    line_of_rss = []
    rss = result["growth"].get("rss_kib")
    if rss:
        warm = [(at, value) for at, value in line("rss_kib", 1024) if at >= warm_up(minutes)]
        level, middle = statistics.fmean(v for _, v in warm), statistics.fmean(at for at, _ in warm)
        ends = (warm[0][0], warm[-1][0])
        line_of_rss = [(at, level + rss["kib_an_hour"] / 1024 / 60 * (at - middle)) for at in ends]
    picture.panel("memory, MiB", [
        ("RSS", "#c0392b", line("rss_kib", 1024), statistics.fmean, False),
        ("RSS, fitted", "#555", line_of_rss, max, True),
        ("anonymous", "#2471a3", line("anonymous_kib", 1024), statistics.fmean, False),
    ])
    picture.panel("descriptors, allocations", [
        ("descriptors", "#c0392b", line("descriptors"), max, False),
        ("allocations", "#2471a3", line("allocations"), max, False),
    ])
    picture.panel("probe through the relay and back, 99th percentile of each sample, ms", [
        ("UDP", "#c0392b", line("probe_udp_p99_us", 1000), max, False),
        ("TLS", "#2471a3", line("probe_tls_p99_us", 1000), max, False),
    ], logarithmic=True)
    picture.panel("dropped and refused, a second", [
        ("dropped", "#c0392b", rate("drops_total"), statistics.fmean, False),
        ("refused", "#2471a3", rate("errors_total"), statistics.fmean, False),
    ])
    picture.panel("probe datagrams lost, in all", [
        ("UDP", "#c0392b", line("probe_udp_lost"), max, False),
        ("TLS", "#2471a3", line("probe_tls_lost"), max, False),
    ])
    return picture.svg()
