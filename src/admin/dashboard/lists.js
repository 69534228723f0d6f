// The list of refusals and the table of sessions.
import { bytes, count, date, duration, element, foreign, plural } from "./format.js";

/** Refusals and sessions that are shown at first, and then with each press of the button. */
const FIRST = { refusals: 10, sessions: 25 };
const MORE = 50;

const byId = (id) => document.getElementById(id);

export class Refusals {
  constructor() {
    this.all = [];
    this.reason = "";
    this.shown = FIRST.refusals;
    this.filter = byId("refusals-filter");
    this.filter.addEventListener("input", () => this.restart());
    byId("refusals-more").addEventListener("click", () => {
      const first = this.shown;
      this.shown += MORE;
      this.draw();
      byId("refusals").children[first]?.focus();
    });
  }

  update(answer) {
    this.all = answer.refusals;
    this.kept = answer.kept;
    this.draw();
  }

  restart() {
    this.shown = FIRST.refusals;
    this.draw();
  }

  matches(refusal) {
    const words = this.filter.value.trim().toLowerCase();
    const text = `${refusal.user} ${refusal.host} ${refusal.client}`.toLowerCase();
    return (!this.reason || refusal.reason === this.reason) && text.includes(words);
  }

  draw() {
    this.drawReasons();
    const found = this.all.filter((refusal) => this.matches(refusal));
    const now = Date.now() / 1000;
    byId("refusals").replaceChildren(...found.slice(0, this.shown).map((refusal) => entry(refusal, now)));
    byId("refusals-more").hidden = found.length <= this.shown;
    let told = "none since the start";
    if (this.all.length > 0) {
      told = found.length === this.all.length ? `the last ${count(found.length)}` : `${count(found.length)} of the last ${count(this.all.length)}`;
    }
    const place = byId("refusals-count");
    if (place.textContent !== told) place.textContent = told;
  }

  drawReasons() {
    const numbers = new Map();
    for (const { reason } of this.all) numbers.set(reason, (numbers.get(reason) ?? 0) + 1);
    if (this.reason && !numbers.has(this.reason)) this.reason = "";
    const signature = JSON.stringify([...numbers, this.reason]);
    if (signature === this.signature) return;
    this.signature = signature;
    const focused = document.activeElement?.dataset?.reason;
    const reasons = [...numbers].sort((one, other) => other[1] - one[1]);
    const chips = reasons.map(([reason, number]) => {
      const chip = element("button", { type: "button", "aria-pressed": String(reason === this.reason), "data-reason": reason });
      chip.append(element("span", { text: reason }), element("b", { text: count(number) }));
      chip.addEventListener("click", () => {
        this.reason = this.reason === reason ? "" : reason;
        this.restart();
      });
      return chip;
    });
    byId("reasons").replaceChildren(...chips);
    chips.find((chip) => chip.dataset.reason === focused)?.focus();
  }
}

function entry(refusal, now) {
  const ago = element("time", { datetime: new Date(refusal.time * 1000).toISOString(), title: date(refusal.time * 1000) });
  ago.textContent = `${duration(now - refusal.time)} ago`;
  const code = refusal.code ? ` (${refusal.code})` : "";
  const who = element("span", { class: "who" });
  who.append(refusal.user ? foreign(refusal.user) : "no user name");
  if (refusal.host) who.append(" of ", foreign(refusal.host));
  const how = element("span", { class: "how" });
  how.append(`${refusal.request} over ${refusal.transport.toUpperCase()} from `, foreign(refusal.client));
  return element(
    "li",
    { tabindex: "-1" },
    element("p", { class: "line" }, element("strong", { text: `${refusal.reason}${code}` }), who, how, ago),
    element("p", { class: "story", text: sentence(refusal.text) }),
    element("p", { class: "step" }, element("b", { text: "Next step: " }), refusal.next_step),
  );
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const peers = (session) => [...new Set(session.relayed.flatMap((relay) => relay.peers))];

/** Heading, the value to sort by, and the text of a cell. */
const COLUMNS = [
  ["User", (session) => session.user, (session) => foreign(session.user)],
  ["Host", (session) => session.host, (session) => foreign(session.host)],
  ["Via", (session) => session.transport, (session) => session.transport.toUpperCase()],
  ["Client", (session) => session.client, (session) => foreign(session.client)],
  ["Connected", (session) => session.seconds, (session) => duration(session.seconds)],
  ["From client", (session) => session.from_client.bytes, (session) => traffic(session.from_client)],
  ["To client", (session) => session.from_peer.bytes, (session) => traffic(session.from_peer)],
  ["Peers", (session) => peers(session).length, (session) => peersText(session)],
];

function traffic({ bytes: size, packets }) {
  return element("span", { class: "unbroken", text: `${bytes(size)} in ${plural(packets, "packet")}` });
}

function peersText(session) {
  const all = peers(session);
  const first = all.slice(0, 2).join(", ");
  return all.length > 2 ? `${first} and ${all.length - 2} more` : first || "none";
}

export class Sessions {
  /** `ask` requests a path of the server. */
  constructor(ask) {
    this.ask = ask;
    this.all = [];
    this.shown = FIRST.sessions;
    this.by = 4;
    this.isDown = false;
    this.head();
    // Before this, a click would send the form to the server.
    byId("sessions-ask").disabled = false;
    byId("sessions-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    this.onlyWrong = byId("sessions-wrong");
    this.onlyWrong.addEventListener("change", () => {
      this.shown = FIRST.sessions;
      this.draw();
    });
    byId("sessions-more").addEventListener("click", () => {
      this.shown += MORE;
      this.draw();
    });
  }

  hosts(names) {
    const select = byId("sessions-host");
    const known = [...select.options].slice(1).map((option) => option.value);
    if (JSON.stringify(known) === JSON.stringify(names)) return;
    const chosen = select.value;
    select.replaceChildren(select.options[0], ...names.map((name) => element("option", { value: name, text: name })));
    select.value = names.includes(chosen) ? chosen : "";
  }

  head() {
    const cells = COLUMNS.map(([title], at) => {
      const button = element("button", { type: "button", text: title });
      button.addEventListener("click", () => {
        this.isDown = this.by === at ? !this.isDown : false;
        this.by = at;
        this.draw();
      });
      return element("th", { scope: "col", role: "columnheader" }, button);
    });
    byId("sessions-head").replaceChildren(...cells);
  }

  async read() {
    const told = byId("sessions-count");
    const query = new URLSearchParams();
    if (byId("sessions-user").value) query.set("user", byId("sessions-user").value);
    if (byId("sessions-host").value) query.set("host", byId("sessions-host").value);
    told.textContent = "asking the workers";
    try {
      const answer = await this.ask(`/sessions?${query}`);
      this.all = answer.sessions;
      this.shown = FIRST.sessions;
      this.tell(answer);
      this.draw();
    } catch (error) {
      told.textContent = error.message;
    }
  }

  tell({ total, complete }) {
    const shown = this.all.length;
    const wrong = this.all.filter((session) => session.hints.length > 0).length;
    const parts = [shown === total ? plural(total, "session") : `${count(shown)} of ${plural(total, "session")}`];
    if (wrong > 0) parts.push(`${count(wrong)} look${wrong === 1 ? "s" : ""} wrong`);
    if (!complete) parts.push("a worker did not answer, see the log");
    byId("sessions-count").textContent = parts.join(", ");
  }

  draw() {
    const [, key] = COLUMNS[this.by];
    const compare = (one, other) => (key(one) < key(other) ? -1 : key(one) > key(other) ? 1 : 0);
    const found = this.all.filter((session) => !this.onlyWrong.checked || session.hints.length > 0);
    const sorted = found.sort((one, other) => (this.isDown ? compare(other, one) : compare(one, other)));
    const table = byId("sessions");
    table.hidden = found.length === 0;
    byId("sessions-more").hidden = sorted.length <= this.shown;
    for (const body of [...table.tBodies]) body.remove();
    table.append(...sorted.slice(0, this.shown).map(rows));
    [...byId("sessions-head").children].forEach((cell, at) => {
      const order = this.isDown ? "descending" : "ascending";
      if (at === this.by) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    });
  }
}

/** One session, with what looks wrong, or is normal although it may look wrong, in a row of its own. The roles survive the layout for phones. */
function rows(session) {
  const cells = COLUMNS.map(([title, , text], at) => {
    const kind = at === 0 ? { scope: "row", role: "rowheader" } : { role: "cell" };
    return element(at === 0 ? "th" : "td", { ...kind, "data-label": title }, text(session));
  });
  const body = element("tbody", { role: "rowgroup" }, element("tr", { role: "row" }, ...cells));
  const below = [...session.hints.map((hint) => [hint, "hint"]), ...session.notes.map((note) => [note, "normal"])];
  for (const [line, kind] of below) {
    const cell = element("td", { colspan: String(COLUMNS.length), role: "cell", text: sentence(line) });
    body.append(element("tr", { class: kind, role: "row" }, cell));
  }
  return body;
}
