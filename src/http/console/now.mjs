// What happens now: the figures and charts at the top, from looks at /metrics and /stats.

import { AMOUNTS, SPAN, TIMES, chart } from "./chart.mjs";
import { byId, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import { buckets, named, parse, sum } from "./metrics.mjs";
import { GAP, Rates } from "./rates.mjs";

const charts = {
  rates: chart(byId("rates"), ["accepted", "duplicates"], AMOUNTS, format.rate),
  latency: chart(byId("latency"), ["p50", "p99"], TIMES, format.seconds),
};

const rates = new Rates(SPAN + GAP);
let stats = null;
/** The newest look. */
let last = null;

/** One look at /metrics. Returns whether the process is another one than at the look before. */
export function look(text) {
  const samples = parse(text);
  const now = {
    run: named(samples, "sekali_process_info")[0]?.labels.run,
    uptime: sum(samples, "sekali_uptime_seconds"),
    accepted: sum(samples, "sekali_events_accepted_total") ?? 0,
    duplicates: sum(samples, "sekali_events_duplicate_total") ?? 0,
    conflicts: sum(samples, "sekali_events_conflict_total") ?? 0,
    commits: sum(samples, "sekali_commit_seconds_count") ?? 0,
    publishes: buckets(samples, "sekali_publish_seconds"),
  };
  const taken = rates.take(now, Date.now() / 1000);
  if (taken === "old") return false;
  if (taken === "first") stats = null;
  last = now;
  plot();
  figures();
  totals();
  size(named(samples, "sekali_store_bytes"));
  return taken === "first";
}

/**
 * What /stats said, after the newest look. A process that runs for a shorter time was started in
 * between.
 */
export function counted(answer) {
  stats = last === null || answer.uptime_seconds < last.uptime ? null : answer;
  totals();
}

/** There is no answer: nobody knows what happens now. What was counted stays. */
export function gone() {
  for (const tile of ["accepted", "duplicates", "p50"]) setText(byId(`tile-${tile}`), "–");
  for (const more of ["accepted", "duplicates", "latency"]) setText(byId(`more-${more}`), "\u00a0");
}

export function recolour() {
  charts.rates.recolour();
  charts.latency.recolour();
}

function plot() {
  const line = (name) => rates.points.map((point) => point[name]);
  charts.rates.draw(line("time"), line("accepted"), line("duplicates"));
  charts.latency.draw(line("time"), line("p50"), line("p99"));
}

function figures() {
  const recent = rates.recent();
  if (recent === null) {
    gone();
  } else {
    setText(byId("tile-accepted"), format.rate(recent.accepted));
    setText(byId("tile-duplicates"), format.rate(recent.duplicates));
    setText(byId("more-accepted"), `in ${format.rate(recent.commits)} commits/s`);
    setText(byId("tile-p50"), format.seconds(recent.p50));
    const all = recent.accepted + recent.duplicates;
    setText(byId("more-duplicates"), all > 0 ? `${format.share(recent.duplicates, all)} of what came` : "none came");
    setText(byId("more-latency"), recent.p99 === null ? "nothing was published" : `${format.seconds(recent.p99)} p99`);
  }
}

function totals() {
  if (stats === null || last === null) return;
  // Since the store was made: what this process counted, and what those before it had.
  const ever = (name, mine) => stats.persistent[name] - stats.runtime[name] + mine;
  const accepted = ever("total_unique_events_processed", last.accepted);
  const duplicates = ever("total_duplicate_events_dropped", last.duplicates);
  const conflicts = ever("total_conflicts", last.conflicts);
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
