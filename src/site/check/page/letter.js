// The text for the administrator of the network: what to allow, and what this test saw.
import { figures, named, port, state } from "./view.js";

/** Returns the text. */
export function letter(words, { answer, rungs, code, time, browser }) {
  const say = (name, blanks) => words.say(`letter.${name}`, blanks);
  const relay = answer.addresses.length > 0 ? `${answer.name} (${answer.addresses.join(", ")})` : answer.name;
  const media = rungs.filter((rung) => rung.kind === "media");
  const blocked = media.filter((rung) => !rung.works);
  const lines = [say("subject", { relay }), ""];
  if (blocked.length === 0) {
    lines.push(say("nothing"), "");
  } else {
    lines.push(say("intro"), "", say("allow", { relay }), "");
    for (const rung of blocked) {
      const inspected = rung.transport === "tls" && answer.interception.likely ? "_inspected" : "";
      lines.push(`- ${say(rung.transport + inspected, { port: rung.port, host: rung.host })}`);
    }
    lines.push("", say("out"), say("inspection"), "");
  }
  lines.push(say("seen", { date: words.date(time) }), "");
  for (const rung of rungs) {
    const measured = figures(words, rung);
    const name = rung.kind === "address" ? `${named(words, rung)} (${port(rung)})` : port(rung);
    lines.push(`- ${name}: ${state(words, rung)}${measured ? ` (${measured})` : ""}`);
  }
  lines.push("", say("from", { address: answer.client.address, browser }));
  if (answer.interception.likely) {
    lines.push(say("intercepted"));
    for (const reason of answer.interception.reasons) lines.push(`  - ${words.say(`reasons.${reason}`)}`);
  }
  if (code) lines.push(say("code", { code }));
  return `${lines.join("\n")}\n`;
}
