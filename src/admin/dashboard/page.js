// The dashboard: asks the server every ten seconds while the page is visible, and shows what it answers.
import { Chart, Cursor, Past } from "./chart.js";
import { bits, bytes, cores, count, date, decimal, duration, element, packets, perMinute, plural, second } from "./format.js";
import { Checks } from "./checks.js";
import { Refusals, Sessions } from "./lists.js";

const EVERY_MS = 10e3;
/** The server closes a connection after ten seconds. */
const PATIENCE_MS = 12e3;
const HOUR_MS = 3600e3;

const byId = (id) => document.getElementById(id);

const show = (id, text) => {
  if (byId(id).textContent !== text) byId(id).textContent = text;
};

/** Requests JSON from the server. The page's address may contain a password, so it is not the base. */
async function ask(path) {
  const url = new URL(path, window.location.origin);
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  } catch {
    throw new Error("No answer from the server");
  }
  if (answer.status === 401) throw new Error("The server wants another token: reload this page");
  if (answer.status === 429) throw new Error("The server waits after wrong tokens: reload this page in a minute");
  if (!answer.ok) throw new Error(`The server answers with status ${answer.status}`);
  return answer.json();
}

const byTransport = (what) => [
  { label: "UDP", colour: 1, names: [`${what}_udp_from_client`] },
  { label: "TCP", colour: 2, names: [`${what}_tcp_from_client`] },
  { label: "TLS", colour: 3, names: [`${what}_tls_from_client`] },
  { label: "UDP", colour: 1, names: [`${what}_udp_from_peer`], below: true },
  { label: "TCP", colour: 2, names: [`${what}_tcp_from_peer`], below: true },
  { label: "TLS", colour: 3, names: [`${what}_tls_from_peer`], below: true },
];

const parts = (prefix, labels) =>
  labels.map(([label, ...names], at) => ({ label, colour: at + 1, names: names.map((name) => prefix + name) }));

const BOTH = ["from clients", "to clients"];

const CHARTS = [
  { id: "traffic", title: "Traffic", parts: byTransport("bits"), both: BOTH, format: bits, least: 1000 },
  { id: "packets", title: "Packets", parts: byTransport("packets"), both: BOTH, format: packets, least: 10 },
  {
    id: "allocations",
    title: "Allocations",
    parts: [
      ...parts("allocations_", [["UDP", "udp"], ["TCP", "tcp"], ["TLS", "tls"]]),
      { label: "users", colour: 7, names: ["users"], isLine: true },
    ],
    format: (value) => decimal(value, ""),
    least: 4,
  },
  {
    id: "refused",
    title: "Refusals",
    parts: parts("refusals_", [
      ["credentials", "credentials"],
      ["peers", "peers"],
      ["limits", "limits"],
      ["capacity", "capacity"],
      ["too fast", "rate"],
      ["other", "other"],
    ]),
    format: perMinute,
    factor: 60,
    least: 4,
  },
  {
    id: "dropped",
    title: "Dropped packets",
    parts: parts("drops_", [
      ["malformed", "malformed"],
      ["not permitted", "not_permitted"],
      ["throttled", "throttled"],
      ["over a rate", "over_rate"],
      ["not delivered", "undelivered"],
    ]),
    format: packets,
    least: 4,
  },
  {
    id: "turns",
    title: "Slow turns",
    parts: parts("turns_over_", [
      ["5 to 10 ms", "5ms"],
      ["10 to 50 ms", "10ms"],
      ["over 50 ms: gaps in calls", "50ms"],
    ]),
    format: perMinute,
    factor: 60,
    least: 4,
  },
  { id: "processors", title: "Processors in use", parts: [{ label: "all threads", colour: 1, names: ["cpu"] }], format: cores, least: 1 },
  { id: "memory", title: "Memory", parts: [{ label: "resident", colour: 1, names: ["memory"] }], format: bytes, least: 2 ** 22, isBinary: true },
  {
    id: "sockets",
    title: "Sockets",
    parts: [{ label: "open, of all kinds", colour: 1, names: ["descriptors"] }],
    format: (value) => decimal(value, ""),
    least: 4,
  },
];

class Page {
  constructor() {
    this.cursor = new Cursor();
    this.charts = CHARTS.map((spec) => new Chart(spec, this.cursor));
    byId("charts").replaceChildren(...this.charts.map((chart) => chart.figure));
    this.pasts = { hour: new Past(HOUR_MS), day: new Past(24 * HOUR_MS) };
    this.span = "hour";
    this.refusals = new Refusals();
    this.sessions = new Sessions(ask);
    this.checks = new Checks(ask);
    this.seen = { started: null, refusals: null, problems: null };
    this.answered = null;
    byId("span").addEventListener("change", (event) => {
      this.span = event.target.value;
      this.cursor.set(null);
      this.poll();
    });
    document.addEventListener("visibilitychange", () => this.poll());
    this.poll();
  }

  /** Asks now, and again in ten seconds. A poll that is running is not disturbed: it asks again after its end. */
  async poll() {
    clearTimeout(this.timer);
    if (this.isBusy) {
      this.isDue = true;
      return;
    }
    if (document.hidden) return;
    this.isBusy = true;
    try {
      await this.read();
    } catch (error) {
      this.fail(error);
    }
    this.isBusy = false;
    this.timer = setTimeout(() => this.poll(), this.isDue ? 0 : EVERY_MS);
    this.isDue = false;
  }

  async read() {
    const overview = await ask("/overview");
    if (overview.started !== this.seen.started) {
      this.pasts.hour.clear();
      this.pasts.day.clear();
      this.seen = { started: overview.started, refusals: null, problems: null };
    }
    const span = this.span;
    const past = this.pasts[span];
    const answer = await ask(`/history?span=${span}&after=${past.next}`);
    const now = Date.now();
    past.absorb(answer, now);
    if (overview.refusals !== this.seen.refusals) {
      this.refusals.update(await ask("/refusals"));
      this.seen.refusals = overview.refusals;
    }
    this.answered = now;
    this.overview(overview);
    for (const chart of this.charts) chart.update(past, now);
    this.traffic(past);
    show("updated", `Updated ${second(now)}`);
  }

  fail(error) {
    const since = this.answered === null ? "" : ` The figures below are from ${second(this.answered)}.`;
    this.verdict("bad", error.message, [{ level: "bad", text: `Asked in vain at ${second(Date.now())}.${since}`, next_step: "is the server running? systemctl status hallpass" }], "away");
  }

  /** `title` in one glance, and the problems. The screen reader hears it only if it has changed. */
  verdict(level, title, problems, kind = level) {
    const signature = JSON.stringify([kind, title, kind === "away" ? this.answered : problems]);
    if (signature === this.seen.problems) return;
    this.seen.problems = signature;
    byId("verdict").dataset.level = level;
    show("verdict-title", title);
    const items = problems.map((problem) => {
      const item = element("li", { class: problem.level }, element("span", { text: problem.text }));
      if (problem.next_step) item.append(element("span", { class: "step" }, element("b", { text: "Next step: " }), problem.next_step));
      return item;
    });
    byId("problems").replaceChildren(...items);
    document.title = level === "good" ? "✓ Hallpass" : `! ${title} – Hallpass`;
  }

  overview(overview) {
    const { problems, levels, state } = overview;
    const level = problems.length === 0 ? "good" : problems.some((problem) => problem.level === "bad") ? "bad" : "warning";
    this.verdict(level, problems.length === 0 ? "All is well" : plural(problems.length, "problem"), problems);
    const up = duration(overview.now - overview.started);
    show("about", `relay, version ${overview.version}, up ${up}`);
    show("tile-refusals", count(overview.refusals_last_hour));
    if (levels) {
      show("tile-users", count(levels.users));
      show("tile-allocations", count(levels.allocations));
    }
    if (state?.certificate) {
      const left = state.certificate.not_after - overview.now;
      show("tile-certificate", left < 0 ? "expired" : duration(left));
    }
    if (state) this.facts(overview);
  }

  facts({ started, revision, ready, state, levels, now }) {
    const reload = ({ successful, succeeded }) =>
      `${successful ? "succeeded" : "failed; last success"} ${duration(now - succeeded)} ago`;
    const rows = [
      ["Started", date(started * 1000)],
      ["Ready", ready ? "yes" : state.draining ? "no, it drains" : "no"],
      ["Certificate", state.certificate ? `${state.certificate.name}, until ${date(state.certificate.not_after * 1000)}` : "none"],
      ["Reload of the configuration", reload(state.configuration_reload)],
      ["Reload of the certificate", reload(state.certificate_reload)],
      ["Memory", bytes(levels.memory)],
      ["Sockets", `${count(levels.descriptors)} of ${count(state.descriptors_max)}`],
      ["TCP and TLS connections", count(levels.connections)],
      ["Relay ports in use", count(state.relay_ports)],
      ["Threads that relay", count(state.workers)],
    ];
    if (revision) rows.splice(1, 0, ["Commit", revision]);
    byId("facts").replaceChildren(
      ...rows.map(([name, value]) => element("div", {}, element("dt", { text: name }), element("dd", { text: value }))),
    );
    this.sessions.hosts(state.hosts);
  }

  /** The traffic of the last point. */
  traffic(past) {
    const last = past.times.length - 1;
    for (const [id, way] of [["tile-from-client", "from_client"], ["tile-from-peer", "from_peer"]]) {
      const names = ["udp", "tcp", "tls"].map((transport) => `bits_${transport}_${way}`);
      show(id, last < 0 ? "–" : bits(past.value(names, last)));
    }
  }
}

new Page();
