// The results of the test page: the latest, or the one with a code.
import { date, duration, element, foreign } from "./format.js";

const SHOWN = 20;

const byId = (id) => document.getElementById(id);

const VERDICTS = {
  good: "Video lessons work",
  weak: "Video lessons work, but packets are lost, late or few",
  no_udp: "Video lessons work over TLS; UDP is blocked",
  no_udp_weak: "Video lessons may work; UDP is blocked, and the rest is poor",
  only_tcp: "Video lessons work over TCP; UDP and TLS are blocked",
  blocked: "Video lessons do not work: no way to the relay is open",
  no_login: "The relay refused the login of the test",
  no_webrtc: "The browser has no WebRTC",
};

const STAGES = {
  none: "blocked",
  refused: "refused",
  allocation: "login accepted, nothing passes",
  connection: "connected, packets do not come back",
  round_trip: "works",
  throughput: "works, no pictures in time",
  media: "works",
  address: "answered",
};

export class Checks {
  constructor(ask) {
    this.ask = ask;
    byId("checks-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
    byId("checks-ask").disabled = false;
  }

  async read() {
    const code = byId("checks-code").value.trim();
    try {
      const { checks, held } = await this.ask(`/checks${code ? `?code=${encodeURIComponent(code)}` : ""}`);
      byId("checks").replaceChildren(...checks.slice(0, SHOWN).map(entry));
      let told = held === 0 ? "none in the last day" : `${Math.min(SHOWN, checks.length)} of ${held}`;
      if (code && checks.length === 0) told = `no result with the code ${code.toUpperCase()}; results are kept for a day`;
      byId("checks-count").textContent = told;
    } catch (error) {
      byId("checks-count").textContent = error.message;
    }
  }
}

function entry(check) {
  const ago = element("time", { datetime: new Date(check.time * 1000).toISOString(), title: date(check.time * 1000) });
  ago.textContent = `${duration(Date.now() / 1000 - check.time)} ago`;
  const how = element("span", { class: "how" });
  how.append("from ", foreign(check.network), ` with ${check.browser}`);
  const ways = check.rungs.map(({ id, stage, rtt_ms: rtt, loss_percent: loss, kbit }) => {
    const name = id.replaceAll("-", " ").replace(/udp|tcp|tls/g, (word) => word.toUpperCase());
    const figures = [
      rtt !== null && `${rtt} ms`,
      loss !== null && `${loss} % lost`,
      kbit !== null && `${(kbit / 1000).toFixed(1)} Mbit/s`,
    ].filter(Boolean);
    return `${name}: ${STAGES[stage] ?? stage}${figures.length > 0 ? ` (${figures.join(", ")})` : ""}`;
  });
  const inspected = check.intercepted ? "; TLS is likely inspected there" : "";
  return element(
    "li",
    {},
    element("p", { class: "line" }, element("strong", { text: check.code }), how, ago),
    element("p", { class: "story", text: `${VERDICTS[check.verdict] ?? check.verdict}${inspected}` }),
    element("p", { class: "step", text: ways.join(" · ") }),
  );
}
