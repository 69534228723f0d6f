// The test page: asks its server for a login and the ways to try, tries all of them at once, and says what that means.
import { Words, preferred } from "./language.js";
import { letter } from "./letter.js";
import { Media } from "./media.js";
import { Rung, Turns } from "./rung.js";
import { judge } from "./verdict.js";
import { Row, byId, show, showFacts, showJudgement, showVerdict } from "./view.js";

/** The whole test ends after this time, whatever is left. */
const LIMIT_MS = 15e3;
/** The result stands without a code, so the server gets less time to give one. */
const CODE_MS = 4e3;
const TICK_MS = 200;
/** How often a test that the server puts off is tried again. */
const TRIES = 4;
const WAIT_MAX_S = 30;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

class Problem extends Error {
  constructor(name, blanks = {}) {
    super(name);
    Object.assign(this, { name, blanks });
  }
}

/** Sends JSON to the server of the page and returns its answer. */
async function post(path, body, limit = LIMIT_MS) {
  let answer;
  try {
    answer = await fetch(new URL(path, import.meta.url), {
      method: "POST",
      headers: { "content-type": "application/json", "x-check": "1" },
      body: JSON.stringify(body),
      credentials: "omit",
      cache: "no-store",
      signal: AbortSignal.timeout(limit),
    });
  } catch {
    throw new Problem("no_server");
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  if (answer.status === 429) throw new Problem("busy", { seconds: content.seconds ?? 5 });
  throw new Problem(content.problem === "no_login" ? "no_user" : "no_server");
}

const browser = () => {
  const agent = navigator.userAgent;
  const found = [/Firefox\/\d+/, /Edg\/\d+/, /Chrome\/\d+/, /Version\/\d+.*Safari/].map((pattern) => agent.match(pattern)?.[0]).find(Boolean);
  return (found ?? "?").replace(/Version\/(\d+).*Safari/, "Safari $1").replace("/", " ").replace("Edg ", "Edge ");
};

class Page {
  /** Loads the words and runs the first test. */
  async start() {
    const select = byId("language");
    await this.speak(preferred());
    select.value = this.words.tag;
    select.addEventListener("change", () => this.speak(select.value));
    byId("again").addEventListener("click", () => this.run());
    byId("copy").addEventListener("click", () => this.copy());
    byId("save").addEventListener("click", () => this.save());
    await this.run();
  }

  async speak(tag) {
    this.words = await Words.load(tag);
    this.words.apply(document);
    this.draw();
  }

  /** Shows everything again, in the language of now. */
  draw() {
    const { words } = this;
    this.rows?.forEach((row) => row.draw(words));
    showFacts(words, this.answer);
    if (this.judgement) showJudgement(words, this.judgement, this.answer?.interception);
    else if (this.problem) showVerdict(words, this.problem.name, this.problem.name === "busy" ? "wait" : "bad", this.problem.blanks);
    else showVerdict(words, "testing", "wait");
    const finished = Boolean(this.judgement && this.answer);
    // Together with the ways, so that nothing moves when they come.
    byId("facts-section").hidden = !(this.answer && this.rows);
    byId("letter-section").hidden = !finished;
    if (finished) show(byId("letter"), letter(words, { ...this, browser: browser() }));
    byId("code-line").hidden = !this.code;
    show(byId("code"), this.code ?? "");
    byId("again").hidden = !this.finished;
    byId("progress").classList.toggle("over", Boolean(this.finished));
    document.documentElement.dataset.state = this.finished ? "finished" : "running";
  }

  async run() {
    Object.assign(this, { answer: null, judgement: null, problem: null, code: null, finished: false, rows: null, rungs: [] });
    byId("ways").replaceChildren();
    this.draw();
    try {
      await this.test();
    } catch (error) {
      this.problem = error instanceof Problem ? error : new Problem("failed", { reason: `${error}` });
    }
    this.finished = true;
    this.draw();
    byId("verdict").scrollIntoView({ block: "nearest" });
  }

  async test() {
    if (typeof RTCPeerConnection !== "function") throw new Problem("no_webrtc");
    this.answer = await this.ask();
    this.time = new Date();
    const began = performance.now();
    const over = pause(LIMIT_MS);
    const ticking = setInterval(() => { byId("progress").value = (performance.now() - began) / 1000; }, TICK_MS);
    const media = new Media();
    const turns = new Turns();
    const rows = new Map();
    this.rungs = this.answer.rungs.map((way) => new Rung(way, (rung) => rows.get(rung)?.draw(this.words)));
    this.rungs.forEach((rung) => rows.set(rung, new Row(rung)));
    this.rows = [...rows.values()];
    byId("ways").replaceChildren(...this.rows.map((row) => row.root));
    this.draw();
    const login = { user: this.answer.user, password: this.answer.password };
    await Promise.all(this.rungs.map((rung) => rung.test(login, media, turns, over)));
    // An address that needs no translation is not always told, and the port that accepts logins answers that question, too.
    for (const rung of this.rungs) {
      if (rung.kind === "address" && rung.stage === "none" && this.rungs.some((other) => other.accepts(rung))) rung.reach("address");
    }
    clearInterval(ticking);
    byId("progress").value = byId("progress").max;
    media.stop();
    this.judgement = judge(this.rungs);
    this.draw();
    await this.report();
  }

  /** Asks for a login; waits if the server says so. */
  async ask() {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await post("credentials", {});
      } catch (problem) {
        const seconds = problem.blanks?.seconds;
        if (problem.name !== "busy" || attempt === TRIES || seconds > WAIT_MAX_S) throw problem;
        this.problem = problem;
        this.draw();
        // Not all at once.
        await pause(1000 * (seconds + Math.random() * attempt));
        this.problem = null;
      }
    }
  }

  /** Leaves the result with the server, which gives it a code. Without a code the result stands as well. */
  async report() {
    const number = (value) => (Number.isFinite(value) ? Math.round(Math.max(0, value) * 10) / 10 : null);
    const rungs = this.rungs.map(({ id, stage, rtt, loss, jitter, kbit }) => ({
      id, stage, rtt: number(rtt), loss: number(loss), jitter: number(jitter), kbit: number(kbit),
    }));
    try {
      this.code = (await post("result", { verdict: this.judgement.name, rungs }, CODE_MS)).code;
    } catch {
      this.code = null;
    }
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(byId("letter").textContent);
      show(byId("copied"), this.words.say("letter.copied"));
    } catch {
      // Without the permission the text is selected, ready to be copied with the keyboard.
      window.getSelection().selectAllChildren(byId("letter"));
      show(byId("copied"), this.words.say("letter.selected"));
    }
  }

  save() {
    const link = document.createElement("a");
    const url = URL.createObjectURL(new Blob([byId("letter").textContent], { type: "text/plain;charset=utf-8" }));
    link.href = url;
    link.download = `${this.answer.name}-${this.code ?? "test"}.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10e3);
  }
}

new Page().start();
