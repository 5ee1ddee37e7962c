// Prometheus' text format, as far as the console needs it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Every sample: `[{name, labels, value}]`. */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = SAMPLE.exec(line);
    if (found === null) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]));
    samples.push({ name: found[1], labels, value: found[3] === "+Inf" ? Infinity : Number(found[3]) });
  }
  return samples;
}

/** The samples of one name. */
export const named = (samples, name) => samples.filter((sample) => sample.name === name);

/** The sum over all labels; null where there is no sample. */
export function sum(samples, name) {
  const found = named(samples, name);
  return found.length === 0 ? null : found.reduce((total, sample) => total + sample.value, 0);
}

/** The buckets of a histogram, ascending: how many were at most `le`. */
export function buckets(samples, name) {
  const found = named(samples, `${name}_bucket`).map(({ labels, value }) => ({
    le: labels.le === "+Inf" ? Infinity : Number(labels.le),
    count: value,
  }));
  return found.sort((one, other) => one.le - other.le);
}

/**
 * A quantile of what was counted between two looks at a histogram, by straight lines within a bucket as Prometheus'
 * `histogram_quantile` does it; null where nothing was counted.
 */
export function quantile(part, before, after) {
  const counts = after.map(({ le, count }, index) => ({ le, count: count - (before[index]?.count ?? 0) }));
  const total = counts.at(-1)?.count ?? 0;
  if (!(total > 0)) return null;
  const rank = part * total;
  const at = counts.findIndex(({ count }) => count >= rank);
  const low = at === 0 ? { le: 0, count: 0 } : counts[at - 1];
  const high = counts[at];
  if (high.le === Infinity) return low.le;
  if (high.count === low.count) return high.le;
  return low.le + ((high.le - low.le) * (rank - low.count)) / (high.count - low.count);
}
