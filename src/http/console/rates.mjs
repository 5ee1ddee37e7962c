// Rates from looks at counters. Time is the server's own, which each answer carries: a late answer
// changes no rate.

import { quantile } from "./metrics.mjs";

/** Seconds over which the figures are taken; the charts show each look. */
const RECENT = 5;

/**
 * Seconds between two looks beyond which no rate is drawn: the page was hidden, or a machine slept.
 * An answer may take less than that, so a slow network thins out the points and does not remove
 * them.
 */
export const GAP = 12;

/** Seconds that a rate needs at least: over a shorter time, one batch would look like a flood. */
const LEAST = 0.5;

const COUNTERS = ["accepted", "duplicates", "conflicts", "commits"];
const NOTHING = { accepted: null, duplicates: null, p50: null, p99: null };

/**
 * Points of the last `span` seconds. A look is `{run, uptime, accepted, duplicates, conflicts,
 * commits, publishes}`: which process answered, for how many seconds it has been running, and
 * what it counted until then.
 */
export class Rates {
  #span;
  /** The newest look. */
  #last = null;
  /** The looks of the last seconds, at least `LEAST` apart. */
  #looks = [];
  /**
   * Seconds between the uptime and the reader's clock, by the answer that was on its way for the
   * shortest time.
   */
  #offset = 0;
  /**
   * `{time, accepted, duplicates, p50, p99}`: time in seconds on the reader's clock; nulls are a
   * gap.
   */
  points = [];

  constructor(span) {
    this.#span = span;
  }

  /**
   * Takes a look whose answer arrived at `arrived`, in seconds on the reader's clock. Returns `old`
   * for an answer that is no newer than the last one, which changes nothing; `first` for the first
   * look at a process; `next` otherwise.
   */
  take(look, arrived) {
    const isFirst = this.#last === null || look.run !== this.#last.run;
    if (!isFirst && !(look.uptime > this.#last.uptime)) return "old";
    const offset = arrived - look.uptime;
    // A larger step is no delay: the reader's clock was set, or a machine slept.
    const isMoved = isFirst || offset - this.#offset > GAP;
    this.#offset = isMoved ? offset : Math.min(offset, this.#offset);
    this.#last = look;
    const before = isFirst ? null : this.#looks.at(-1);
    const passed = before === null ? Infinity : look.uptime - before.uptime;
    if (passed < LEAST) return "next";
    // Counters of one process never fall; a line through counters that did would be false.
    const isWhole = passed <= GAP && COUNTERS.every((name) => look[name] >= before[name]);
    this.#draw(look.uptime + this.#offset, isWhole ? between(before, look) : null);
    const kept = this.#looks.filter(
      (one) => one === before || look.uptime - one.uptime <= RECENT + 0.5,
    );
    this.#looks = isWhole ? [...kept, look] : [look];
    return isFirst ? "first" : "next";
  }

  /** What happened in the last seconds; null where there are no two looks to compare. */
  recent() {
    return this.#looks.length < 2 ? null : between(this.#looks[0], this.#looks.at(-1));
  }

  /** Adds a point, and a gap before it where the line ends. */
  #draw(time, rates) {
    const shown = this.points.at(-1)?.time ?? -Infinity;
    // The reader's clock was set back: new points cannot stand before older ones.
    if (time <= shown) this.points = [];
    else if (shown > -Infinity && (rates === null || time - shown > GAP))
      this.points.push({ time: (shown + time) / 2, ...NOTHING });
    if (rates !== null) this.points.push({ time, ...rates });
    this.points = this.points.filter((point) => time - point.time <= this.#span);
  }
}

/** What happened between two looks at one process, a second. */
function between(before, now) {
  const passed = now.uptime - before.uptime;
  return {
    accepted: (now.accepted - before.accepted) / passed,
    duplicates: (now.duplicates - before.duplicates) / passed,
    commits: (now.commits - before.commits) / passed,
    p50: quantile(0.5, before.publishes, now.publishes),
    p99: quantile(0.99, before.publishes, now.publishes),
  };
}
