// What the results mean, in the words of somebody who only wants to hold a lesson.

/** From which values on calls suffer (ITU-T G.114 for the delay, which is half of a round trip). */
const LOSS_PERCENT = 2;
const TRIP_MS = 300;
const KBIT = 700;

const RANK = { udp: 0, tls: 1, tcp: 2 };

/** What is poor about a way that works: names of texts. */
export function faults(rung) {
  const found = [];
  if (rung.loss !== null && rung.loss > LOSS_PERCENT) found.push("loss");
  if (rung.rtt !== null && rung.rtt > TRIP_MS) found.push("delay");
  if (rung.kbit !== null && rung.kbit < KBIT) found.push("rate");
  return found;
}

/** The best first: those without faults, then UDP, TLS, TCP. */
const better = (a, b) =>
  faults(a).length - faults(b).length || RANK[a.transport] - RANK[b.transport] || (a.rtt ?? 0) - (b.rtt ?? 0);

/** Judges finished ways. Returns the name of the verdict, its level, the ways that work by the best transport, and the best. */
export function judge(rungs) {
  const media = rungs.filter((rung) => rung.kind === "media");
  const working = media.filter((rung) => rung.works);
  if (working.length === 0) {
    const refused = media.filter((rung) => rung.stage === "refused");
    if (refused.length > 0 && refused.length === media.length) return { name: "no_login", level: "bad", refusal: refused[0].refusal };
    return { name: "blocked", level: "bad", opened: media.filter((rung) => rung.stage !== "none") };
  }
  const transport = ["udp", "tls", "tcp"].find((one) => working.some((rung) => rung.transport === one));
  const ways = working.filter((rung) => rung.transport === transport).sort(better);
  const [best] = ways;
  const poor = faults(best);
  const names = { udp: ["good", "weak"], tls: ["no_udp", "no_udp_weak"], tcp: ["only_tcp", "no_udp_weak"] };
  const name = names[transport][poor.length > 0 ? 1 : 0];
  return { name, level: name === "good" ? "good" : "warn", ways, best, faults: poor };
}

/** How good a single way is. */
export function level(rung) {
  if (rung.running) return "wait";
  if (rung.stage === "address") return "good";
  if (!rung.works) return "bad";
  return faults(rung).length > 0 || rung.stage !== "media" ? "warn" : "good";
}
