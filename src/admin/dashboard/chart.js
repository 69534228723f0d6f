// A stacked chart over time with a legend that shows the values at the cursor. Arrow keys, mouse and finger move the cursor.
import { element, minute, second } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { left: 68, right: 10, top: 10, bottom: 20 };
/** The least width of a step on the screen: thinner ones are hard to see. */
const STEP_WIDTH = 2;
const HOUR_MS = 3600e3;
/** Distances of times below a chart, in minutes. */
const TICKS = [1, 2, 5, 10, 20, 30, 60, 120, 180, 360];

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The moment that all charts show: a time in milliseconds, or null for the last point. */
export class Cursor {
  constructor() {
    this.time = null;
    this.charts = [];
  }

  set(time) {
    if (time === this.time) return;
    this.time = time;
    for (const chart of this.charts) chart.mark();
  }
}

/** The points of an hour or a day. */
export class Past {
  constructor(length) {
    this.length = length;
    this.clear();
  }

  clear() {
    this.step = 10;
    this.next = 0;
    this.times = [];
    this.series = {};
    this.isLive = false;
  }

  /** Adds the points of an answer of the server that arrived at `now`. */
  absorb(answer, now) {
    this.step = answer.step;
    this.next = answer.next;
    if (this.isLive) {
      this.times.pop();
      for (const values of Object.values(this.series)) values.pop();
    }
    for (const age of answer.age) this.times.push(now - age * 1000);
    for (const [name, values] of Object.entries(answer.series)) {
      this.series[name] = (this.series[name] ?? []).concat(values);
    }
    // The figures since the last point are replaced by the next answer.
    this.isLive = answer.live !== null;
    if (this.isLive) {
      this.times.push(now);
      for (const [name, value] of Object.entries(answer.live)) this.series[name].push(value);
    }
    const old = this.times.findIndex((time) => time > now - this.length);
    const drop = old < 0 ? this.times.length : old;
    if (drop > 0) {
      this.times.splice(0, drop);
      for (const values of Object.values(this.series)) values.splice(0, drop);
    }
  }

  value(names, at) {
    return names.reduce((sum, name) => sum + (this.series[name]?.[at] ?? 0), 0);
  }

  /** The time to show: not much more than there are points, so that a young server has a chart, too. */
  shown(now) {
    const known = this.times.length > 0 ? now - this.times[0] : 0;
    return Math.min(this.length, Math.max(this.length / 6, known));
  }

  /** The point nearest to a time. */
  nearest(time) {
    let best = 0;
    for (let at = 1; at < this.times.length; at += 1) {
      if (Math.abs(this.times[at] - time) < Math.abs(this.times[best] - time)) best = at;
    }
    return best;
  }
}

/** The distance of lines in a chart: 1, 2 or 5 times a power of ten; for bytes a power of two. */
function niceStep(rough, isBinary) {
  if (isBinary) return 2 ** Math.ceil(Math.log2(rough));
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
}

/**
 * `spec`: id, title, parts (each with label, colour, names of series; below for the lower half, isLine for a line that is not
 * in the sum), format of a value, factor of the series, least top of the scale. `both` names the upper and the lower half.
 */
export class Chart {
  constructor(spec, cursor) {
    this.spec = { factor: 1, least: 1, isBinary: false, both: null, ...spec };
    this.cursor = cursor;
    this.past = null;
    this.end = 0;
    this.shown = 1;
    cursor.charts.push(this);
    this.build();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  build() {
    const { id, title, parts, both } = this.spec;
    this.when = element("span", { class: "when" });
    const caption = element("figcaption", {}, element("h3", { id: `${id}-title`, text: title }), this.when);
    this.legend = element("ul", { class: "legend" });
    this.readouts = [];
    const labels = [...new Set(parts.map((part) => part.label))];
    for (const label of labels) {
      const own = parts.filter((part) => part.label === label);
      const mark = element("span", { class: `swatch c${own[0].colour}`, "aria-hidden": "true" });
      const item = element("li", {}, mark, element("span", { text: label }));
      for (const part of own) {
        const value = element("b");
        if (both) {
          const way = part.below ? both[1] : both[0];
          item.append(element("span", { class: "way", "aria-hidden": "true", text: part.below ? "↓" : "↑" }));
          item.append(element("span", { class: "hidden", text: way }));
        }
        item.append(value);
        this.readouts.push([part, value]);
      }
      this.legend.append(item);
    }
    this.svg = shape("svg", { "aria-hidden": "true", focusable: "false" });
    this.empty = element("p", { class: "empty", text: "No figures yet: the first come in a few seconds." });
    this.plot = element(
      "div",
      {
        class: "plot",
        role: "slider",
        tabindex: "0",
        "aria-label": `${title}: moment shown`,
        "aria-describedby": `${id}-peak`,
        "aria-valuemin": "0",
        "aria-valuemax": "0",
        "aria-valuenow": "0",
        "aria-valuetext": "no figures yet",
      },
      this.svg,
      this.empty,
    );
    this.peak = element("p", { class: "peak", id: `${id}-peak` });
    this.figure = element(
      "figure",
      { class: "chart", id, "aria-labelledby": `${id}-title` },
      caption,
      this.legend,
      this.plot,
      this.peak,
    );
    this.plot.addEventListener("keydown", (event) => this.onKey(event));
    this.plot.addEventListener("blur", () => this.cursor.set(null));
    for (const kind of ["pointerdown", "pointermove"]) {
      this.plot.addEventListener(kind, (event) => this.onPointer(event));
    }
    this.plot.addEventListener("pointerleave", () => this.cursor.set(null));
  }

  update(past, end) {
    this.past = past;
    this.end = end;
    this.shown = past.shown(end);
    this.draw();
  }

  value(part, at) {
    return this.spec.factor * this.past.value(part.names, at);
  }

  onKey(event) {
    const points = this.past?.times.length ?? 0;
    if (points === 0) return;
    const now = this.cursor.time === null ? points - 1 : this.past.nearest(this.cursor.time);
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
    let next;
    if (event.key in moves) next = now + moves[event.key];
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = points - 1;
    else if (event.key === "Escape") {
      this.cursor.set(null);
      return;
    } else return;
    event.preventDefault();
    this.cursor.set(this.past.times[Math.min(points - 1, Math.max(0, next))]);
  }

  onPointer(event) {
    if (!this.past || this.past.times.length === 0) return;
    const box = this.plot.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / this.width();
    const time = this.end - (1 - share) * this.shown;
    this.cursor.set(this.past.times[this.past.nearest(time)]);
  }

  width() {
    return Math.max(1, this.plot.clientWidth - MARGIN.left - MARGIN.right);
  }

  x(time) {
    const share = 1 - (this.end - time) / this.shown;
    return MARGIN.left + Math.min(1, Math.max(0, share)) * this.width();
  }

  draw() {
    if (!this.past) return;
    const points = this.past.times.length;
    this.empty.hidden = points > 0;
    const [width, height] = [this.plot.clientWidth, this.plot.clientHeight];
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const tops = this.tops();
    const scale = this.scale(tops, height);
    const shapes = [...this.grid(scale, width, height)];
    for (const isBelow of [false, true]) shapes.push(...this.areas(isBelow, scale));
    shapes.push(...this.lines(scale));
    const zero = scale.y(0);
    shapes.push(shape("line", { class: "zero", x1: MARGIN.left, x2: width - MARGIN.right, y1: zero, y2: zero }));
    this.line = shape("line", { class: "cursor", y1: MARGIN.top, y2: height - MARGIN.bottom });
    shapes.push(this.line);
    this.svg.replaceChildren(...shapes);
    this.describe(tops);
    this.mark();
  }

  stacked(isBelow) {
    return this.spec.parts.filter((part) => !part.isLine && Boolean(part.below) === isBelow);
  }

  /** The highest sum above and below, and when. */
  tops() {
    return [false, true].map((isBelow) => {
      const parts = this.stacked(isBelow);
      let top = { value: 0, at: -1 };
      for (let at = 0; at < this.past.times.length; at += 1) {
        const sum = parts.reduce((sum, part) => sum + this.value(part, at), 0);
        if (sum > top.value) top = { value: sum, at };
      }
      return top;
    });
  }

  scale(tops, height) {
    const [up, down] = tops.map((top) => top.value);
    const least = this.spec.least;
    const step = niceStep(Math.max((up + down) / 4, least / 2), this.spec.isBinary);
    const steps = (value) => Math.ceil(value / step - 1e-6);
    const most = Math.max(steps(Math.max(up, this.spec.both ? least / 2 : least)), 1);
    const fewest = this.spec.both ? Math.max(steps(Math.max(down, least / 2)), 1) : 0;
    const room = height - MARGIN.top - MARGIN.bottom;
    const y = (value) => MARGIN.top + room * (1 - (value + fewest * step) / ((most + fewest) * step));
    return { y, step, most, fewest };
  }

  *grid({ y, step, most, fewest }, width, height) {
    for (let line = -fewest; line <= most; line += 1) {
      const at = y(line * step);
      yield shape("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at });
      const label = shape("text", { class: "axis", x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" });
      label.textContent = line === 0 ? "0" : this.spec.format(Math.abs(line) * step);
      yield label;
    }
    const ticks = this.width() < 420 ? 4 : 7;
    const minutes = TICKS.find((minutes) => this.shown / (minutes * 60e3) <= ticks) ?? TICKS.at(-1);
    const first = new Date(this.end - this.shown);
    const sinceMidnight = first.getHours() * 60 + first.getMinutes();
    first.setHours(0, (Math.floor(sinceMidnight / minutes) + 1) * minutes, 0, 0);
    for (let time = first.getTime(); time < this.end; time += minutes * 60e3) {
      const at = this.x(time);
      yield shape("line", { class: "tick", x1: at, x2: at, y1: height - MARGIN.bottom, y2: height - MARGIN.bottom + 4 });
      if (at > width - MARGIN.right - 12) continue;
      const label = shape("text", { class: "axis", x: at, y: height - 4, "text-anchor": "middle" });
      label.textContent = minute(time);
      yield label;
    }
  }

  /**
   * The points to draw: of neighbours that share a step on the screen, the one with the highest sum, so that no peak is lost.
   * Each has its start and end. A gap in the points is a gap in the chart.
   */
  steps(parts) {
    const { times, step } = this.past;
    const share = (step * 1000 * this.width()) / this.shown;
    const group = Math.max(1, Math.ceil(STEP_WIDTH / share));
    const steps = [];
    times.forEach((time, at) => {
      const isNew = at === 0 || time - times[at - 1] > step * 1500;
      const sum = parts.reduce((sum, part) => sum + this.value(part, at), 0);
      const last = steps.at(-1);
      // Groups are counted from the start of the server, so that a peak keeps its place while time moves on.
      const number = Math.floor((this.past.next - times.length + at) / group);
      if (!isNew && last.number === number) {
        last.end = time;
        if (sum > last.sum) Object.assign(last, { at, sum });
      } else {
        steps.push({ start: isNew ? time - step * 1000 : times[at - 1], end: time, at, sum, number, isNew });
      }
    });
    return steps;
  }

  /** The area of each part, as steps: each point is the mean of the time before it. */
  *areas(isBelow, { y }) {
    const parts = this.stacked(isBelow);
    const sign = isBelow ? -1 : 1;
    const steps = this.steps(parts);
    const floor = steps.map(() => 0);
    for (const part of parts) {
      const top = steps.map((step, at) => floor[at] + this.value(part, step.at));
      if (top.every((value, at) => value === floor[at])) continue;
      let path = "";
      for (let first = 0; first < steps.length; ) {
        let last = first;
        while (last + 1 < steps.length && !steps[last + 1].isNew) last += 1;
        const [above, under] = [[], []];
        for (let at = first; at <= last; at += 1) {
          const [from, to] = [this.x(steps[at].start).toFixed(1), this.x(steps[at].end).toFixed(1)];
          const [high, low] = [y(sign * top[at]).toFixed(1), y(sign * floor[at]).toFixed(1)];
          above.push(`${from},${high} ${to},${high}`);
          under.unshift(`${to},${low} ${from},${low}`);
        }
        path += `M${above.join(" ")} ${under.join(" ")}Z`;
        first = last + 1;
      }
      floor.splice(0, floor.length, ...top);
      yield shape("path", { class: `area c${part.colour}`, d: path });
    }
  }

  /** The parts that are not in the sum. */
  *lines({ y }) {
    const steps = this.steps(this.stacked(false));
    for (const part of this.spec.parts.filter((part) => part.isLine)) {
      const path = steps.map((step) => {
        const at = y(this.value(part, step.at)).toFixed(1);
        return `${step.isNew ? "M" : "L"}${this.x(step.start).toFixed(1)},${at} L${this.x(step.end).toFixed(1)},${at}`;
      });
      if (path.length > 0) yield shape("path", { class: `curve c${part.colour}`, d: path.join(" ") });
    }
  }

  /** Writes the highest values below the chart. */
  describe(tops) {
    const { both, format } = this.spec;
    const texts = tops.map(({ value, at }, below) => {
      if (at < 0) return null;
      const way = both ? ` ${both[below]}` : "";
      return `${format(value)}${way} at ${minute(this.past.times[at])}`;
    });
    const known = texts.filter(Boolean);
    this.peak.textContent = known.length ? `Highest: ${known.join(", ")}` : "Nothing in this time";
  }

  /** Shows the values at the cursor. */
  mark() {
    const points = this.past?.times.length ?? 0;
    if (points === 0) {
      this.when.textContent = "";
      return;
    }
    const isLast = this.cursor.time === null;
    const at = isLast ? points - 1 : this.past.nearest(this.cursor.time);
    const time = this.past.times[at];
    this.when.textContent = isLast ? "now" : (this.past.length <= HOUR_MS ? second : minute)(time);
    const spoken = this.readouts.map(([part, value]) => {
      value.textContent = this.spec.format(this.value(part, at));
      const way = this.spec.both ? ` ${this.spec.both[part.below ? 1 : 0]}` : "";
      return `${part.label}${way} ${value.textContent}`;
    });
    if (this.line) {
      this.line.setAttribute("x1", this.x(time));
      this.line.setAttribute("x2", this.x(time));
      this.line.toggleAttribute("data-shown", !isLast);
    }
    this.plot.setAttribute("aria-valuemax", points - 1);
    this.plot.setAttribute("aria-valuenow", at);
    this.plot.setAttribute("aria-valuetext", `${isLast ? "now" : second(time)}: ${spoken.join(", ")}`);
  }
}
