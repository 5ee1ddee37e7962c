// Numbers and times for a person.

const whole = new Intl.NumberFormat("en");
const upTo = (digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits });
const digits = [upTo(0), upTo(1), upTo(2)];

/** Three significant digits at least: 0.25, 3.5, 120, 12,345. */
function short(value) {
  if (value >= 100 || value === 0) return digits[0].format(value);
  return digits[value >= 10 ? 1 : 2].format(value);
}

export const count = (value) => whole.format(value);

/** Events a second. */
export const rate = (value) => (value === null ? "–" : digits[value > 0 && value < 10 ? 1 : 0].format(value));

/** A part of a whole in percent, or a dash where there is no whole. A part is never shown as nothing. */
export function share(part, all) {
  if (all === 0) return "–";
  const percent = (100 * part) / all;
  if (part > 0 && percent < 0.1) return "<0.1 %";
  return `${digits[percent < 10 ? 1 : 0].format(percent)} %`;
}

/** Seconds as a length of time. */
export function seconds(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value < 0.001) return `${short(value * 1e6)} µs`;
  if (value < 1) return `${short(value * 1e3)} ms`;
  if (value < 120) return `${short(value)} s`;
  return duration(value);
}

/** A long time in its two largest units. */
export function duration(value) {
  const units = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => value >= size);
  if (first < 0) return "0 s";
  let rest = Math.floor(value);
  const parts = units.slice(first, first + 2).map(([unit, size]) => {
    const amount = Math.floor(rest / size);
    rest -= amount * size;
    return [amount, unit];
  });
  return parts.filter(([amount]) => amount > 0).map(([amount, unit]) => `${amount} ${unit}`).join(" ");
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, value < 1 ? 0 : Math.floor(Math.log2(value) / 10));
  return `${short(value / 1024 ** power)} ${units[power]}`;
}

/** How long ago a time is, in its largest unit. Clocks of two machines differ a little: what seems to come is now. */
export function ago(time) {
  const passed = (Date.now() - Date.parse(time)) / 1000;
  if (!Number.isFinite(passed)) return time;
  return passed < 1 ? "now" : duration(passed).split(" ").slice(0, 2).join(" ");
}

/** The same within a sentence. */
export const since = (time) => (ago(time) === "now" ? "now" : `${ago(time)} ago`);

/** The time of day where the reader is, with milliseconds. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return time;
  return `${date.toLocaleTimeString("en-GB")}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/** The first characters of a text, none of them halved. */
export const firstOf = (text, most) => text.slice(0, most).replace(/[\ud800-\udbff]$/, "");

/** The same to the second. */
export const second = (time) => clock(time).slice(0, 8);
