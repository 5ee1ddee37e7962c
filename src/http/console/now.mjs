// What happens now: the figures and charts at the top, from looks at /metrics and /stats.

import { AMOUNTS, SPAN, TIMES, chart } from "./chart.mjs";
import { byId, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import { buckets, named, parse, quantile, sum } from "./metrics.mjs";

/** Seconds over which the figures are taken; the charts show each look. */
const RECENT = 5;

/** A gap between two looks that is longer, in seconds, is a gap in the lines: the page was hidden, or the server gone. */
const GAP = 5;

const rates = chart(byId("rates"), ["accepted", "duplicates"], AMOUNTS, format.rate);
const latency = chart(byId("latency"), ["p50", "p99"], TIMES, format.seconds);

/** The looks of the last minutes: when, and what was counted until then. */
let looks = [];
let points = [];
let stats = null;

/** One look at /metrics. Returns whether the process is another one than at the look before. */
export function look(text) {
  const samples = parse(text);
  const now = {
    time: Date.now() / 1000,
    accepted: sum(samples, "sekali_events_accepted_total") ?? 0,
    duplicates: sum(samples, "sekali_events_duplicate_total") ?? 0,
    conflicts: sum(samples, "sekali_events_conflict_total") ?? 0,
    commits: sum(samples, "sekali_commit_seconds_count") ?? 0,
    publishes: buckets(samples, "sekali_publish_seconds"),
  };
  const before = looks.at(-1);
  const restarted = before !== undefined && (now.accepted < before.accepted || now.duplicates < before.duplicates);
  if (restarted) {
    looks = [];
    stats = null;
  }
  looks = [...looks.filter(({ time }) => now.time - time <= RECENT + 1), now];
  plot(restarted ? undefined : before, now);
  figures(now);
  size(named(samples, "sekali_store_bytes"));
  return restarted;
}

/** What /stats said. */
export function counted(answer) {
  stats = answer;
}

/** There was no answer: the figures would be of another time. */
export function gone() {
  looks = [];
  for (const tile of ["accepted", "duplicates", "p50"]) setText(byId(`tile-${tile}`), "–");
}

export function recolour() {
  rates.recolour();
  latency.recolour();
}

function plot(before, now) {
  const last = points.at(-1);
  if (last !== undefined && now.time - last.time > GAP) {
    points.push({ time: last.time + 1, accepted: null, duplicates: null, p50: null, p99: null });
  }
  if (before !== undefined && now.time - before.time <= GAP) points.push({ time: now.time, ...between(before, now) });
  points = points.filter(({ time }) => now.time - time <= SPAN + GAP);
  const line = (name) => points.map((point) => point[name]);
  rates.draw(line("time"), line("accepted"), line("duplicates"));
  latency.draw(line("time"), line("p50"), line("p99"));
}

/** What happened between two looks. */
function between(before, now) {
  const passed = Math.max(now.time - before.time, 0.001);
  return {
    accepted: (now.accepted - before.accepted) / passed,
    duplicates: (now.duplicates - before.duplicates) / passed,
    commits: (now.commits - before.commits) / passed,
    p50: quantile(0.5, before.publishes, now.publishes),
    p99: quantile(0.99, before.publishes, now.publishes),
  };
}

function figures(now) {
  const before = looks.find(({ time }) => now.time - time <= RECENT + 0.5);
  if (before !== undefined && before !== now) {
    const recent = between(before, now);
    setText(byId("tile-accepted"), format.rate(recent.accepted));
    setText(byId("tile-duplicates"), format.rate(recent.duplicates));
    setText(byId("more-accepted"), `in ${format.rate(recent.commits)} commits/s`);
    setText(byId("tile-p50"), format.seconds(recent.p50));
    const all = recent.accepted + recent.duplicates;
    setText(byId("more-duplicates"), all > 0 ? `${format.share(recent.duplicates, all)} of what came` : "none came");
    setText(byId("more-latency"), recent.p99 === null ? "nothing was published" : `${format.seconds(recent.p99)} p99`);
  }
  if (stats === null) return;
  // Since the store was made: what this process counted, and what those before it had.
  const ever = (name, mine) => stats.persistent[name] - stats.runtime[name] + mine;
  const accepted = ever("total_unique_events_processed", now.accepted);
  const duplicates = ever("total_duplicate_events_dropped", now.duplicates);
  const conflicts = ever("total_conflicts", now.conflicts);
  setText(byId("tile-stored"), format.count(accepted));
  setText(byId("more-stored"), `${format.count(duplicates)} duplicates, ${format.count(conflicts)} conflicts ever`);
}

/** The store's size, where the server says it. */
function size(samples) {
  byId("size").hidden = samples.length === 0;
  setText(byId("tile-size"), format.bytes(samples.reduce((total, { value }) => total + value, 0)));
  const parts = samples.map(({ labels, value }) => `${format.bytes(value)} ${Object.values(labels).join(" ")}`);
  setText(byId("more-size"), parts.join(", "));
}
