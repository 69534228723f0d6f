// Numbers, times and elements for people. Text from the server goes into the page as text only.

/** Makes an element. `text` becomes its text; other keys of `options` become attributes. */
export function element(name, options = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** A name or address from the network. Text that is written from right to left does not disturb what is around it. */
export const foreign = (text) => element("bdi", { text });

const DECIMAL = ["", "k", "M", "G", "T"];
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Three digits: 1.23, 12.3, 123. Nothing after the point that is zero. */
function digits(value) {
  if (value >= 100) return String(Math.round(value));
  return String(Number(value.toFixed(value >= 10 ? 1 : 2)));
}

function scaled(value, base, units) {
  let at = 0;
  let left = value;
  while (left >= base * 0.9995 && at < units.length - 1) {
    left /= base;
    at += 1;
  }
  return [digits(left), units[at]];
}

/** A number with a unit, such as 1.2 Mbit/s. */
export function decimal(value, unit) {
  const [number, prefix] = scaled(value, 1000, DECIMAL);
  return `${number} ${prefix}${unit}`.trim();
}

export const bits = (value) => decimal(value, "bit/s");
export const packets = (value) => decimal(value, "/s");
export const perMinute = (value) => `${digits(value)} /min`;
export const cores = (value) => digits(value);
export const count = (value) => Math.round(value).toLocaleString("en");

export function bytes(value) {
  const [number, unit] = scaled(value, 1024, BINARY);
  return `${number} ${unit}`;
}

/** A length of time: 45 s, 3 min, 2 h 5 min, 4 days. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) {
    const minutes = Math.floor((whole % 3600) / 60);
    return `${Math.floor(whole / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
  }
  const days = Math.floor(whole / 86400);
  return days === 1 ? "1 day" : `${days} days`;
}

const two = (number) => String(number).padStart(2, "0");

/** 22:05 */
export function minute(ms) {
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** 22:05:10 */
export const second = (ms) => `${minute(ms)}:${two(new Date(ms).getSeconds())}`;

/** 2026-11-28 22:05 */
export function date(ms) {
  const day = new Date(ms);
  return `${day.getFullYear()}-${two(day.getMonth() + 1)}-${two(day.getDate())} ${minute(ms)}`;
}

export const plural = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;
