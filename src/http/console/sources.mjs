// Who sends events again, and how late: what an operator needs to find the producer, and to know which window would be safe.

import { cut, element } from "./dom.mjs";
import * as format from "./format.mjs";

/** The most sources that are shown, those with the most duplicates. */
const SHOWN = 6;

/**
 * Within which of these times, in seconds, so many of the duplicates came: `late` counts them by bucket, `ends` are the upper
 * ends of all buckets but the last. Infinity where the bucket has none, null where no duplicate came.
 */
export function within(part, late, ends) {
  const total = late.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let sum = 0;
  const at = late.findIndex((count) => (sum += count) >= part * total);
  return ends[at] ?? Infinity;
}

/** How late duplicates came, in words. */
export function lateness(late, ends) {
  const [half, most] = [0.5, 0.99].map((part) => within(part, late, ends));
  if (most === null) return "–";
  const time = (end) => (end === Infinity ? `over ${format.duration(ends.at(-1))}` : `within ${format.duration(end)}`);
  return half === most ? `99 % ${time(most)}` : `half ${time(half)}, 99 % ${time(most)}`;
}

/** The table of a topic's sources; nothing where the server does not tell them. */
export function table({ sources = [], other, late_up_to_seconds: ends = [] }) {
  const ranked = [...sources].sort((one, next) => next.duplicates - one.duplicates || next.accepted - one.accepted);
  const rows = ranked.slice(0, SHOWN).map((source) => row(cut(source.source), source, ends));
  if (other !== undefined && other.accepted + other.duplicates > 0) rows.push(row("all others", other, ends));
  if (rows.length === 0) return [];
  const head = ["Source", "Sent", "Duplicates", "Conflicts", "How late"].map((name, index) =>
    element("th", { scope: "col", class: index > 0 && index < 4 ? "number" : undefined }, name));
  const rest = ranked.length - SHOWN;
  return [
    element("table", {},
      element("caption", {}, "Who sends again"),
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows)),
    ...(rest > 0 ? [element("p", { class: "quiet" }, `and ${format.count(rest)} more with fewer duplicates`)] : []),
  ];
}

function row(name, { accepted, duplicates, conflicts, late = [] }, ends) {
  const sent = accepted + duplicates;
  const number = (text, alarm = false) => element("td", { class: alarm ? "number alarm" : "number" }, text);
  return element("tr", {},
    element("th", { scope: "row" }, name),
    number(format.count(sent)),
    number(`${format.count(duplicates)} (${format.share(duplicates, sent)})`),
    number(format.count(conflicts), conflicts > 0),
    element("td", { class: "quiet" }, lateness(late, ends)));
}
