// The console's own reading of JSON, metrics, lateness and addresses, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { NOWHERE, isSame, read, write } from "../../src/http/console/address.mjs";
import { shown } from "../../src/http/console/chart.mjs";
import { describe, faultOf, within } from "../../src/http/console/fault.mjs";
import { bytes, duration, firstOf, rate, seconds, share } from "../../src/http/console/format.mjs";
import { event, indented, members } from "../../src/http/console/json.mjs";
import { buckets, parse, quantile, sum } from "../../src/http/console/metrics.mjs";
import { GAP, Rates } from "../../src/http/console/rates.mjs";
import { lateness, within as withinTime } from "../../src/http/console/sources.mjs";
import { cursorOf } from "../../src/http/console/stream.mjs";

const written = (text) =>
  indented(text)
    .map(([, piece]) => piece)
    .join("");

test("a payload keeps every digit, name and escape", () => {
  const payload =
    '{"id":12345678901234567890123, "e":1.50e+2,"s":"a\\"}{,\\u0041","a":[1,[],{}, null],"id":1}';
  assert.equal(
    written(payload),
    [
      "{",
      '  "id": 12345678901234567890123,',
      '  "e": 1.50e+2,',
      '  "s": "a\\"}{,\\u0041",',
      '  "a": [',
      "    1,",
      "    [],",
      "    {},",
      "    null",
      "  ],",
      '  "id": 1',
      "}",
    ].join("\n"),
  );
  assert.equal(written("{}"), "{}");
});

test("names, strings, numbers and words are told apart", () => {
  const kinds = indented('{"a":"b","c":-1,"d":true}').filter(
    ([kind]) => kind !== null && kind !== "mark",
  );
  assert.deepEqual(kinds, [
    ["name", '"a"'],
    ["string", '"b"'],
    ["name", '"c"'],
    ["number", "-1"],
    ["name", '"d"'],
    ["word", "true"],
  ]);
});

test("an event is cut up without touching its payload", () => {
  const payload = '{ "payload" : [1.0, {"seq":2}],\r\n"x":"}" }';
  const text = `{"seq":7,"topic":"a\\"b","event_id":"é","timestamp":"t","source":"s","payload":${payload},"received_at":"r"}`;
  assert.deepEqual(event(text), {
    seq: "7",
    topic: 'a"b',
    event_id: "é",
    timestamp: "t",
    source: "s",
    received_at: "r",
    payload,
    repeats: null,
  });
});

test("a payload of a megabyte is no trouble", () => {
  const long = `"${"x\\n".repeat(300_000)}"`;
  assert.equal(members(`{"a":${long},"b":1}`).get("a"), long);
  assert.equal(written(`[${"1,".repeat(300_000)}1]`).split("\n").length, 300_003);
});

test("what is no JSON ends the reading and breaks nothing", () => {
  for (const text of ["", "{", '{"a', '{"a":', "}}}", "[,]"])
    assert.ok(Array.isArray(indented(text)), text);
});

test("a chart shows the last minutes, and before its first point the minute until now", () => {
  assert.deepEqual(shown(1_000, 1_010), [950, 1_010]);
  assert.deepEqual(shown(1_000, 1_100), [1_000, 1_100]);
  assert.deepEqual(shown(1_000, 2_000), [1_700, 2_000]);
  const now = Date.now() / 1000;
  const [from, to] = shown(null, null);
  assert.ok(to >= now && to < now + 60 && Math.abs(to - from - 60) < 1e-6, `${from} ${to}`);
});

const HISTOGRAM = (counts) =>
  parse(
    ["0.001", "0.002", "0.004", "+Inf"]
      .map((le, index) => `h_bucket{le="${le}"} ${counts[index]}`)
      .join("\n"),
  );

test("quantiles are those of what was counted between two looks", () => {
  const before = buckets(HISTOGRAM([100, 100, 100, 100]), "h");
  const after = buckets(HISTOGRAM([100, 110, 120, 120]), "h");
  assert.equal(quantile(0.5, before, after), 0.002);
  assert.equal(quantile(0.75, before, after), 0.003);
  assert.equal(quantile(0.5, after, after), null, "nothing was counted");
  assert.equal(
    quantile(0.99, [], buckets(HISTOGRAM([0, 0, 0, 5]), "h")),
    0.004,
    "beyond the last end there is no other",
  );
  assert.equal(quantile(0.5, [], []), null);
});

test("samples are read with their labels", () => {
  const samples = parse('# HELP x y\nx_total{a="b,}",c="d\\"e"} 3\nx_total 4.5\nother 1\n');
  assert.deepEqual(samples[0], { name: "x_total", labels: { a: "b,}", c: 'd\\"e' }, value: 3 });
  assert.equal(sum(samples, "x_total"), 7.5);
  assert.equal(sum(samples, "missing"), null);
});

test("numbers are written for a person", () => {
  assert.deepEqual([0, 0.4, 12.34, 12_345].map(rate), ["0", "0.4", "12", "12,345"]);
  assert.deepEqual([0.000_25, 0.0123, 1.5, 3_700].map(seconds), [
    "250 µs",
    "12.3 ms",
    "1.5 s",
    "1 h 1 min",
  ]);
  assert.deepEqual([0, 1_023, 1_536, 5 << 20].map(bytes), ["0 B", "1,023 B", "1.5 KiB", "5 MiB"]);
  assert.deepEqual([0.2, 60, 90_061].map(duration), ["0 s", "1 min", "1 d 1 h"]);
  assert.deepEqual(
    [
      [0, 0],
      [0, 5],
      [1, 100_000],
      [1, 4],
    ].map(([part, all]) => share(part, all)),
    ["–", "0 %", "<0.1 %", "25 %"],
  );
});

test("lateness is told by the ends of buckets, which promise no more than was counted", () => {
  const ends = [1, 10, 60];
  assert.equal(withinTime(0.5, [5, 0, 5, 0], ends), 1);
  assert.equal(withinTime(0.51, [5, 0, 5, 0], ends), 60);
  assert.equal(withinTime(0.99, [0, 0, 0, 1], ends), Infinity);
  assert.equal(withinTime(0.5, [0, 0, 0, 0], ends), null);
  assert.equal(lateness([9, 0, 0, 1], ends), "half within 1 s, 99 % over 1 min");
  assert.equal(lateness([0, 3, 0, 0], ends), "99 % within 10 s");
});

/**
 * Looks at a server that stores 95 events a second, each with the delay of its answer, from
 * `[uptime, delay]`.
 */
function looked(rates, looks, { start = 1_000, before = 0, rate = 95 } = {}) {
  return looks.map(([uptime, delay]) =>
    rates.take(
      {
        run: start,
        uptime,
        accepted: before + rate * uptime,
        duplicates: 0,
        conflicts: 0,
        commits: 0,
        publishes: [],
      },
      start + uptime + delay,
    ),
  );
}

const drawn = (rates) =>
  rates.points.map(({ accepted }) => (accepted === null ? null : Math.round(accepted)));

test("rates are by the server's clock: late answers draw no spikes", () => {
  const rates = new Rates(300);
  looked(rates, [
    [1, 0],
    [2, 0],
    [3, 8],
    [11.1, 0],
    [12, 0.4],
    [13, 3],
    [16.1, 0],
    [17, 0],
  ]);
  assert.deepEqual(
    drawn(rates).filter((rate) => rate !== null),
    [95, 95, 95, 95, 95, 95, 95],
  );
  assert.equal(Math.round(rates.recent().accepted), 95);
  const times = rates.points.map(({ time }) => time);
  assert.deepEqual(
    times,
    [...times].sort((one, other) => one - other),
  );
});

test("answers out of order, and those of the same moment, change nothing", () => {
  const rates = new Rates(300);
  assert.deepEqual(
    looked(rates, [
      [1, 0],
      [3, 0],
      [2, 2],
      [3, 0.5],
      [4, 0],
    ]),
    ["first", "next", "old", "old", "next"],
  );
  assert.deepEqual(drawn(rates), [95, 95]);
  assert.deepEqual(
    looked(new Rates(300), [
      [null, 0],
      [null, 1],
    ]),
    ["first", "old"],
    "a server that does not say its time",
  );
});

test("two looks that follow closely draw no rate of their own: one batch would be a flood", () => {
  const rates = new Rates(300);
  const look = (uptime, accepted) =>
    rates.take(
      { run: 1, uptime, accepted, duplicates: 0, conflicts: 0, commits: 0, publishes: [] },
      1 + uptime,
    );
  look(1, 0);
  look(2, 95);
  look(2.1, 190);
  look(3, 190);
  assert.deepEqual(drawn(rates), [95, 95]);
});

test("a process that was started again begins another line, whatever its counters", () => {
  for (const before of [0, 5_000, 10_000_000]) {
    const rates = new Rates(300);
    looked(rates, [
      [100, 0],
      [101, 0],
      [102, 0],
    ]);
    assert.deepEqual(
      looked(
        rates,
        [
          [0.2, 0.5],
          [1.2, 0.5],
        ],
        { start: 1_103, before },
      ),
      ["first", "next"],
    );
    assert.deepEqual(drawn(rates), [95, 95, null, 95], `${before}`);
  }
});

test("counters that fell within one process draw a gap, and never a negative rate", () => {
  const rates = new Rates(300);
  looked(rates, [
    [1, 0],
    [2, 0],
  ]);
  looked(
    rates,
    [
      [3, 0],
      [4, 0],
    ],
    { before: -200 },
  );
  assert.deepEqual(drawn(rates), [95, null, 95]);
});

test("a hidden page, and a machine that slept, leave a gap", () => {
  const hidden = new Rates(300);
  looked(hidden, [
    [1, 0],
    [2, 0],
    [2 + GAP + 1, 0],
    [3 + GAP + 1, 0],
  ]);
  assert.deepEqual(drawn(hidden), [95, null, 95]);
  // The server's clock stood still with its machine, and the reader's did not.
  const slept = new Rates(300);
  looked(slept, [
    [1, 0],
    [2, 0],
    [3, 3_600],
    [4, 3_600],
  ]);
  assert.equal(drawn(slept).filter((rate) => rate !== null && rate !== 95).length, 0);
  assert.ok(slept.points.at(-1).time > 4_600);
  // The reader's clock was set back.
  const back = new Rates(300);
  looked(back, [
    [1, 0],
    [2, 0],
    [3, -50],
    [4, -50],
  ]);
  assert.deepEqual(drawn(back), [95, 95]);
});

test("points are kept for their time and no longer, also a high one", () => {
  const rates = new Rates(60);
  looked(rates, [[1, 0]]);
  looked(rates, [[2, 0]], { rate: 1_000_000 });
  assert.ok(drawn(rates)[0] > 1_000_000);
  looked(
    rates,
    Array.from({ length: 70 }, (_, index) => [3 + index, 0]),
    { before: 3_000_000 },
  );
  assert.ok(
    drawn(rates).every((rate) => rate === null || rate === 95),
    `${drawn(rates)}`,
  );
  assert.equal(drawn(rates).length, 61);
});

test("the address of each view leads back to it", () => {
  const names = [
    "a",
    "..",
    "a&topic=b",
    "50%",
    "a+b c",
    "\u202eabc",
    "é\u0301",
    "👩‍👩‍👧",
    "#x?y/z",
    "=",
  ];
  for (const name of names) {
    for (const view of [
      { topic: name },
      { topic: name, event_id: name },
      { find: name },
      { topic: "t", event_id: name, find: name, find_topic: name },
    ]) {
      const whole = { ...NOWHERE, ...view };
      const { view: again, faults } = read(write(whole));
      assert.ok(isSame(again, whole) && faults.length === 0, `${name}: ${write(whole)} ${faults}`);
    }
  }
  assert.equal(write(NOWHERE), "");
  assert.deepEqual(read(""), { view: NOWHERE, faults: [] });
});

test("an address that is wrong says what is wrong, and shows the rest", () => {
  const long = "é".repeat(128);
  const cases = {
    "?topci=a": "topci is no parameter of this page",
    "?topic=": "topic is empty",
    "?topic=a&topic=b": "topic is there twice",
    "?topic=%FF": "topic is not UTF-8",
    "?topic=a%0Ab": "topic has control characters",
    [`?topic=${encodeURIComponent(long)}`]: "topic has 256 bytes, and names have at most 255",
    "?event_id=x": "event_id needs topic beside it",
    "?find_topic=x": "find_topic needs find beside it",
    "?topic=&event_id=x": "topic is empty",
  };
  for (const [query, fault] of Object.entries(cases))
    assert.deepEqual(read(query).faults, [fault], query);
  assert.equal(read("?topic=a&topic=b").view.topic, "a");
  assert.deepEqual(read("?topic=a&event_id=&find=b").view, { ...NOWHERE, topic: "a", find: "b" });
});

test("a fault of a payload is named at its place in what a person typed", () => {
  const cases = [
    ['{"a":1', "1:7", /expected `,` or `}`, but the payload ends here/],
    ['{"a":1,}', "1:8", /expected a name in double quotes, found `}`/],
    ['{\n  "a": 1,\n  b: 2\n}', "3:3", /a name in double quotes/],
    ["{'a': 1}", "1:2", /found `'`/],
    ['{"é😀": tru}', "1:8", /expected a value, found `tru`/],
    ['{"a":1}}', "1:8", /expected the end of the payload/],
    ['{},"topic":{}', "1:3", /expected the end of the payload, found `,`/],
    ['{"a":"b\r\nc"}', "1:8", /over the end of the line/],
    ['{"a":"\\x"}', "1:7", /escape/],
    ['{"a":"b', "1:8", /a string is not closed/],
    ['{"a":01}', "1:6", /`01` is no JSON value/],
    ["\ufeff{}", "1:1", /found U\+FEFF/],
    ["{}\u00a0", "1:3", /found U\+00A0/],
    ["", "1:1", /the payload ends here/],
  ];
  for (const [text, place, message] of cases) {
    const found = faultOf(text);
    assert.equal(`${found?.line}:${found?.column}`, place, text);
    assert.match(found.message, message);
  }
  for (const text of [
    "{}",
    ' {"a":[1,-0.5e+3,{"b":[]}],"c":"\\u00e9\\n","d":null}\n',
    "[]",
    "1",
    `[${"[".repeat(100_000)}${"]".repeat(100_000)}]`,
  ])
    assert.equal(faultOf(text), null, text.slice(0, 50));
});

test("what is JSON and what is not, is what the language says", () => {
  const pieces = [...'{}[],:"\\-.0e+a \n', "true", "null", '"a"', '"b":', "12", "\\u0041"];
  let state = 7;
  const roll = (most) => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) % most;
  let good = 0;
  for (let round = 0; round < 60_000; round += 1) {
    const text = Array.from(
      { length: 1 + ((roll(65_536) >> 8) % 8) },
      () => pieces[(roll(1 << 24) >> 8) % pieces.length],
    ).join("");
    let isJson = true;
    try {
      JSON.parse(text);
    } catch {
      isJson = false;
    }
    good += isJson;
    assert.equal(faultOf(text) === null, isJson, JSON.stringify(text));
  }
  assert.ok(good > 500, `${good}`);
});

test("a place in the server's message becomes a place in the payload", () => {
  const lead = '{"topic":"é","payload":';
  const shift = new TextEncoder().encode(lead).length;
  assert.equal(
    within(`the body is not JSON at line 1, column ${shift + 4}: x`, lead, '{"é":'),
    "the body is not JSON at line 1, column 4: x",
  );
  assert.equal(within("at line 2, column 7: x", lead, '{\n"é": 1'), "at line 2, column 6: x");
  assert.equal(
    within("at line 3, column 1: x", lead, '{\n"a"'),
    `at ${describe({ line: 2, column: 4 })}: x`,
  );
  assert.equal(within("source is empty", lead, "{}"), "source is empty");
});

test("the id of a streamed event is a seq, with a history or without", () => {
  assert.deepEqual(cursorOf("41"), { seq: 41, history: undefined, id: "41" });
  assert.deepEqual(cursorOf("41@k3f9"), { seq: 41, history: "k3f9", id: "41@k3f9" });
  assert.deepEqual(cursorOf("7@a@b"), { seq: 7, history: "a@b", id: "7@a@b" });
});

test("the beginning of a text halves no character", () => {
  assert.equal(firstOf("a😀b", 2), "a");
  assert.equal(firstOf("a😀b", 3), "a😀");
  assert.equal(firstOf("ab", 5), "ab");
});
