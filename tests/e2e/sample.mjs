// A shop's events, with producers that send again, for pictures of the console.

/** Numbers that are the same in each run. */
function dice(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const TOPICS = [
  { topic: "orders", source: ["shop-web", "shop-app"], weight: 5, again: 0.06 },
  { topic: "payments", source: ["gateway"], weight: 3, again: 0.21, conflict: 0.01 },
  { topic: "shipments", source: ["warehouse-1", "warehouse-2"], weight: 2, again: 0.02 },
  { topic: "clicks", source: ["web"], weight: 9, again: 0.11 },
  { topic: "inventory", source: ["erp"], weight: 1, again: 0 },
  { topic: "invoices", source: ["billing"], weight: 1, again: 0.35 },
  { topic: "returns", source: ["warehouse-1"], weight: 1, again: 0.04 },
  { topic: "sensor.oven-3", source: ["plc-3"], weight: 4, again: 0.01 },
];

/** Gives events without end; some were given before. */
export function* events() {
  const roll = dice(42);
  const total = TOPICS.reduce((sum, { weight }) => sum + weight, 0);
  const sent = new Map(TOPICS.map(({ topic }) => [topic, []]));
  for (let number = 1; ; number += 1) {
    let place = roll() * total;
    const kind = TOPICS.find(({ weight }) => (place -= weight) < 0);
    const before = sent.get(kind.topic);
    if (before.length > 0 && roll() < kind.again) {
      const event = before[Math.floor(roll() * before.length)];
      yield roll() < (kind.conflict ?? 0) * 5 ? { ...event, payload: `{"corrected":true}` } : event;
      continue;
    }
    const id = `${kind.topic.split(".")[0].replace(/s$/, "")}-${100_000 + number}`;
    const cents = Math.floor(roll() * 30_000);
    const payload = `{"amount":${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, "0")},"currency":"EUR","customer":${9_007_199_254_740_993n + BigInt(number)},"items":[{"sku":"A-${1 + Math.floor(roll() * 900)}","quantity":${1 + Math.floor(roll() * 4)}}],"gift":${roll() < 0.1}}`;
    const event = { topic: kind.topic, event_id: id, source: kind.source[Math.floor(roll() * kind.source.length)], payload };
    before.push(event);
    if (before.length > 400) before.shift();
    yield event;
  }
}
