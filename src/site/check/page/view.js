// Draws the ways, the verdict and the facts. Texts are inserted as text only.
import { faults, level } from "./verdict.js";
import { STAGES } from "./rung.js";

const SVG = "http://www.w3.org/2000/svg";
const SPARK = { width: 100, height: 34, dots: 100 };

const byId = (id) => document.getElementById(id);

function element(name, fields = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(fields)) {
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const show = (target, text) => {
  if (target.textContent !== text) target.textContent = text;
};

/** Transport and port of a way. */
export const port = (rung) => `${rung.transport.toUpperCase()} ${rung.port}`;

/** The name of a way, such as `TLS 443`. */
export function named(words, rung) {
  return rung.kind === "address" ? words.say("ways.address") : port(rung);
}

/** How far a way came, in words. */
export function state(words, rung) {
  if (rung.running) return words.say(`ways.step.${rung.stage}`);
  if (rung.stage === "refused") return words.say("ways.state.refused", { code: rung.refusal?.code ?? "?" });
  return words.say(`ways.state.${rung.stage}`);
}

/** What was measured on a way. */
export function figures(words, rung) {
  const parts = [];
  if (rung.rtt !== null) parts.push(words.say("ways.rtt", { rtt: words.number(rung.rtt, rung.rtt < 10 ? 1 : 0) }));
  if (rung.jitter !== null && !rung.running) parts.push(words.say("ways.jitter", { jitter: words.number(rung.jitter, 1) }));
  if (rung.loss !== null) parts.push(words.say("ways.loss", { loss: words.number(rung.loss, 1) }));
  if (rung.kbit !== null) parts.push(words.say("ways.rate", { rate: words.number(rung.kbit / 1000, 1) }));
  // A number and its unit stay on one line.
  return parts.map((part) => part.replaceAll(" ", "\u00a0")).join(" · ");
}

/** A row for each way: its name, a ladder of stages, words, and the round trips as they come. */
export class Row {
  constructor(rung) {
    this.rung = rung;
    this.title = element("h3");
    this.steps = element("div", { class: "steps", "aria-hidden": "true" });
    const count = rung.kind === "address" ? 1 : STAGES.length;
    for (let step = 0; step < count; step += 1) this.steps.append(element("i"));
    this.state = element("span", { class: "state" });
    this.figures = element("span", { class: "figures" });
    const text = element("p", {}, this.state, " ", this.figures);
    this.spark = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" })) {
      this.spark.setAttribute(key, value);
    }
    this.paths = ["floor", "line", "lost"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      this.spark.append(path);
      return path;
    });
    this.root = element("li", { class: `way ${rung.kind}` }, this.title, element("div", { class: "middle" }, this.steps, text), this.spark);
  }

  draw(words) {
    const { rung } = this;
    this.root.dataset.level = level(rung);
    this.root.classList.toggle("running", rung.running);
    const name = named(words, rung);
    if (this.title.firstChild?.textContent !== name || this.tag !== words.tag) {
      const kind = rung.kind === "address" ? "address" : rung.transport;
      this.title.replaceChildren(name, element("small", { text: words.say(`ways.kind.${kind}`) }));
      this.tag = words.tag;
    }
    const reached = rung.stage === "address" ? 1 : STAGES.indexOf(rung.stage) + 1;
    [...this.steps.children].forEach((step, at) => {
      step.className = at < reached ? "done" : at === reached && rung.running ? "next" : "";
    });
    show(this.state, state(words, rung));
    show(this.figures, figures(words, rung));
    this.drawTrips();
  }

  drawTrips() {
    const { trips, running, kind } = this.rung;
    this.spark.toggleAttribute("hidden", kind === "address");
    const known = trips.filter((trip) => trip !== null);
    const top = Math.max(20, ...known) * 1.1;
    const x = (at) => ((at / SPARK.dots) * SPARK.width).toFixed(1);
    const y = (trip) => (SPARK.height - 2 - (trip / top) * (SPARK.height - 4)).toFixed(1);
    let line = "";
    let lost = "";
    trips.forEach((trip, at) => {
      if (trip !== null) line += `${line && trips[at - 1] !== null ? "L" : "M"}${x(at)} ${y(trip)}`;
      else if (!running || at < trips.length - 40) lost += `M${x(at)} ${SPARK.height - 2}V${SPARK.height - 11}`;
    });
    const floor = kind === "address" ? "" : `M0 ${SPARK.height - 1}H${SPARK.width}`;
    [floor, line, lost].forEach((d, at) => this.paths[at].setAttribute("d", d));
  }
}

/** Shows the headline. The names of its blanks are those of the texts. */
export function showVerdict(words, name, level, blanks = {}) {
  byId("verdict").dataset.level = level;
  show(byId("headline"), words.say(`verdict.${name}`, blanks));
  show(byId("explanation"), words.say(`verdict.${name}_text`, blanks));
}

/** Shows the verdict about finished ways. */
export function showJudgement(words, judgement, interception) {
  const { name, ways = [], best, refusal, opened } = judgement;
  const blanks = { ways: words.list(ways.map((rung) => named(words, rung))) };
  if (best) {
    const values = { loss: words.number(best.loss ?? 0, 1), rtt: words.number(best.rtt ?? 0), rate: words.number((best.kbit ?? 0) / 1000, 1) };
    blanks.faults = words.list(faults(best).map((fault) => words.say(`faults.${fault}`, values)));
  }
  if (refusal) blanks.reason = `${refusal.code} ${refusal.text ?? ""}`.trim();
  let shown = name;
  if (name === "blocked" && interception?.likely) shown = "blocked_inspected";
  else if (name === "blocked" && opened.length > 0) shown = "cut_off";
  showVerdict(words, shown, judgement.level, blanks);
}

/** Shows what the server knows about the connection of this page. */
export function showFacts(words, answer) {
  show(byId("fact-address"), answer?.client.address ?? "–");
  show(byId("fact-family"), answer ? words.say(`facts.${answer.client.family}`) : "–");
  const target = byId("fact-encryption");
  if (!answer) return show(target, "–");
  const { known, likely, reasons } = answer.interception;
  const name = !known ? "unknown" : likely ? "likely" : reasons.length > 0 ? "maybe" : "untouched";
  const list = element("ul", {}, ...reasons.map((reason) => element("li", { text: words.say(`reasons.${reason}`) })));
  target.replaceChildren(words.say(`facts.${name}`), ...(reasons.length > 0 ? [list] : []));
  return undefined;
}

export { byId, show };
