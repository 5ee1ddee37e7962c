// The console's own reading of JSON, metrics and lateness, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";

import { shown } from "../../src/http/console/chart.mjs";
import { bytes, duration, rate, seconds, share } from "../../src/http/console/format.mjs";
import { event, eventsOf, indented, members } from "../../src/http/console/json.mjs";
import { buckets, parse, quantile, sum } from "../../src/http/console/metrics.mjs";
import { lateness, within } from "../../src/http/console/sources.mjs";

const written = (text) => indented(text).map(([, piece]) => piece).join("");

test("a payload keeps every digit, name and escape", () => {
  const payload = '{"id":12345678901234567890123, "e":1.50e+2,"s":"a\\"}{,\\u0041","a":[1,[],{}, null],"id":1}';
  assert.equal(written(payload), [
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
  ].join("\n"));
  assert.equal(written("{}"), "{}");
});

test("names, strings, numbers and words are told apart", () => {
  const kinds = indented('{"a":"b","c":-1,"d":true}').filter(([kind]) => kind !== null && kind !== "mark");
  assert.deepEqual(kinds, [["name", '"a"'], ["string", '"b"'], ["name", '"c"'], ["number", "-1"], ["name", '"d"'], ["word", "true"]]);
});

test("an event is cut up without touching its payload", () => {
  const payload = '{ "payload" : [1.0, {"seq":2}],\r\n"x":"}" }';
  const text = `{"seq":7,"topic":"a\\"b","event_id":"é","timestamp":"t","source":"s","payload":${payload},"received_at":"r"}`;
  assert.deepEqual(event(text), { seq: "7", topic: 'a"b', event_id: "é", timestamp: "t", source: "s", received_at: "r", payload, repeats: null });
  assert.deepEqual(eventsOf(`{"topic":"t","count":2,"events":[${text},{"seq":8}],"next_after":8}`), [text, '{"seq":8}']);
  assert.deepEqual(eventsOf('{"events":[]}'), []);
});

test("a payload of a megabyte is no trouble", () => {
  const long = `"${"x\\n".repeat(300_000)}"`;
  assert.equal(members(`{"a":${long},"b":1}`).get("a"), long);
  assert.equal(written(`[${"1,".repeat(300_000)}1]`).split("\n").length, 300_003);
});

test("what is no JSON ends the reading and breaks nothing", () => {
  for (const text of ["", "{", '{"a', '{"a":', "}}}", "[,]"]) assert.ok(Array.isArray(indented(text)), text);
});

test("a chart shows the last minutes, and before its first point the minute until now", () => {
  assert.deepEqual(shown(1_000, 1_010), [950, 1_010]);
  assert.deepEqual(shown(1_000, 1_100), [1_000, 1_100]);
  assert.deepEqual(shown(1_000, 2_000), [1_700, 2_000]);
  const now = Date.now() / 1000;
  const [from, to] = shown(null, null);
  assert.ok(to >= now && to < now + 60 && Math.abs(to - from - 60) < 1e-6, `${from} ${to}`);
});

const HISTOGRAM = (counts) => parse(["0.001", "0.002", "0.004", "+Inf"].map((le, index) => `h_bucket{le="${le}"} ${counts[index]}`).join("\n"));

test("quantiles are those of what was counted between two looks", () => {
  const before = buckets(HISTOGRAM([100, 100, 100, 100]), "h");
  const after = buckets(HISTOGRAM([100, 110, 120, 120]), "h");
  assert.equal(quantile(0.5, before, after), 0.002);
  assert.equal(quantile(0.75, before, after), 0.003);
  assert.equal(quantile(0.5, after, after), null, "nothing was counted");
  assert.equal(quantile(0.99, [], buckets(HISTOGRAM([0, 0, 0, 5]), "h")), 0.004, "beyond the last end there is no other");
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
  assert.deepEqual([0.000_25, 0.0123, 1.5, 3_700].map(seconds), ["250 µs", "12.3 ms", "1.5 s", "1 h 1 min"]);
  assert.deepEqual([0, 1_023, 1_536, 5 << 20].map(bytes), ["0 B", "1,023 B", "1.5 KiB", "5 MiB"]);
  assert.deepEqual([0.2, 60, 90_061].map(duration), ["0 s", "1 min", "1 d 1 h"]);
  assert.deepEqual([[0, 0], [0, 5], [1, 100_000], [1, 4]].map(([part, all]) => share(part, all)), ["–", "0 %", "<0.1 %", "25 %"]);
});

test("lateness is told by the ends of buckets, which promise no more than was counted", () => {
  const ends = [1, 10, 60];
  assert.equal(within(0.5, [5, 0, 5, 0], ends), 1);
  assert.equal(within(0.51, [5, 0, 5, 0], ends), 60);
  assert.equal(within(0.99, [0, 0, 0, 1], ends), Infinity);
  assert.equal(within(0.5, [0, 0, 0, 0], ends), null);
  assert.equal(lateness([9, 0, 0, 1], ends), "half within 1 s, 99 % over 1 min");
  assert.equal(lateness([0, 3, 0, 0], ends), "99 % within 10 s");
});
