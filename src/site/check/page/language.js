// The words of the page. Each language is a file in lang/; a text in braces is a blank.
const LANGUAGES = ["en", "de", "fr", "es"];

/** Returns the language that the address of the page names, else the first of the browser's that there is, else English. */
export function preferred() {
  const named = new URLSearchParams(window.location.search).get("lang");
  const wanted = [named, ...(navigator.languages ?? [navigator.language])];
  const tags = wanted.map((tag) => String(tag ?? "").toLowerCase().split("-")[0]);
  return tags.find((tag) => LANGUAGES.includes(tag)) ?? "en";
}

export class Words {
  constructor(tag, texts) {
    this.tag = tag;
    this.texts = texts;
  }

  static async load(tag) {
    const answer = await fetch(new URL(`lang/${tag}.json`, import.meta.url));
    if (!answer.ok) throw new Error(`lang/${tag}.json: status ${answer.status}`);
    return new Words(tag, await answer.json());
  }

  /** Returns the text with this name, such as `verdict.good`, with its blanks filled. */
  say(name, blanks = {}) {
    const text = name.split(".").reduce((part, key) => part?.[key], this.texts);
    if (typeof text !== "string") return name;
    return text.replace(/\{(\w+)\}/g, (whole, key) => blanks[key] ?? whole);
  }

  number(value, digits = 0) {
    return new Intl.NumberFormat(this.tag, { maximumFractionDigits: digits }).format(value);
  }

  list(items) {
    return new Intl.ListFormat(this.tag, { type: "conjunction" }).format(items);
  }

  date(time) {
    return new Intl.DateTimeFormat(this.tag, { dateStyle: "medium", timeStyle: "long" }).format(time);
  }

  /** Writes the texts of the elements that name one. */
  apply(root) {
    root.documentElement.lang = this.tag;
    for (const element of root.querySelectorAll("[data-text]")) element.textContent = this.say(element.dataset.text);
    for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", this.say(element.dataset.label));
    root.title = this.say("page.title");
  }
}
