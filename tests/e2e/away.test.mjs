// The console while the server is slow, away, or back with another log.

import assert from "node:assert/strict";
import { test } from "node:test";

import { besidesAnswers, numbered, opened, textOf, useBrowser } from "./page.mjs";

useBrowser();

const isStale = (page) => page.evaluate(() => document.documentElement.dataset.stale !== undefined);
const rowsOf = (page) => page.locator("#tail tbody .seq").allInnerTexts();
const number = (text) => Number(text.replaceAll(",", ""));

/** Publishes so many events a second by the clock of the wall, until it is told to stop. */
function load(log, perSecond) {
  let isOn = true;
  const begun = performance.now();
  const run = async () => {
    for (let sent = 0; isOn;) {
      const due = Math.floor(((performance.now() - begun) / 1_000) * perSecond);
      if (due > sent) await log.publish(...numbered("load", sent, due));
      sent = Math.max(sent, due);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  const running = run();
  return async () => {
    isOn = false;
    await running;
  };
}

test("a late answer of /metrics draws no spike", async (context) => {
  const { log, page, wrong } = await opened(context);
  const stop = load(log, 60);
  const rates = [];
  const looks = [];
  // Each answer carries its time; the page's figures are compared with what the counters of the
  // answers say.
  page.on("response", async (response) => {
    if (!response.url().endsWith("/metrics")) return;
    const text = await response.text().catch(() => "");
    const value = (name) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1]);
    looks.push({
      uptime: value("sekali_uptime_seconds"),
      accepted: value("sekali_events_accepted_total"),
    });
  });
  let count = 0;
  await page.route("**/metrics", async (route) => {
    count += 1;
    const response = await route.fetch();
    // The answer is from before the delay, and the next one comes right after it.
    if (count % 3 === 2) await new Promise((resolve) => setTimeout(resolve, 2_500));
    await route.fulfill({ response });
  });
  while (count < 9) {
    await page.waitForResponse("**/metrics");
    rates.push(
      ...(await page.locator("#rates .key.accepted output").allInnerTexts()).map(number),
      number(await textOf(page, "#tile-accepted")),
    );
  }
  await stop();
  await page.unrouteAll({ behavior: "wait" });
  const known = rates.filter((rate) => !Number.isNaN(rate));
  assert.ok(known.length > 8, `${rates}`);
  // The highest rate that any two answers at least half a second apart show.
  const real = looks.flatMap((one, index) =>
    looks
      .slice(index + 1)
      .filter(({ uptime }) => uptime - one.uptime >= 0.5)
      .map((next) => (next.accepted - one.accepted) / (next.uptime - one.uptime)),
  );
  assert.ok(
    Math.max(...known) <= Math.max(...real) + 1,
    `shown ${known}, real ${real.map(Math.round)}`,
  );
  assert.deepEqual(wrong, []);
});

test("an answer from before is not taken for a new one", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 0, 10) });
  const old = await (await fetch(`${log.url}/metrics`)).text();
  await log.publish(...numbered("t", 10, 40));
  await page.locator("#tile-stored", { hasText: /^40$/ }).waitFor();
  await page.route("**/metrics", (route) =>
    route.fulfill({ contentType: "text/plain", body: old }),
  );
  await page.waitForResponse("**/metrics");
  await page.waitForResponse("**/metrics");
  assert.equal(await textOf(page, "#tile-stored"), "40");
  for (const rate of [
    await textOf(page, "#tile-accepted"),
    ...(await page.locator("#rates .key output").allInnerTexts()),
  ])
    assert.ok(!rate.startsWith("-"), rate);
  await page.unroute("**/metrics");
  await log.publish(...numbered("t", 40, 50));
  await page.locator("#tile-stored", { hasText: /^50$/ }).waitFor();
  assert.deepEqual(wrong, []);
});

test("while the server is away, figures are grey and say of when they are", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 5), topic: "t" });
  await page.locator("#tail-state", { hasText: /^live$/ }).waitFor();
  await page.locator("#tile-stored", { hasText: /^4$/ }).waitFor();
  assert.equal(await isStale(page), false);
  assert.equal(await page.locator(".as-of:visible").count(), 0);
  await log.end();
  const banner = page.locator("#gone", {
    hasText:
      /^The server does not answer since \d\d:\d\d:\d\d\. The figures are as of \d\d:\d\d:\d\d\. /,
  });
  await banner.waitFor();
  assert.ok(await isStale(page));
  assert.equal(await page.locator(".as-of:visible").count(), 3);
  const asOf = await page.locator(".as-of").allInnerTexts();
  for (const words of asOf) assert.match(words, /^as of \d\d:\d\d:\d\d$/);
  await page.locator("#tail-state", { hasText: /^not connected$/ }).waitFor();
  assert.equal(await textOf(page, "#tile-accepted"), "–");
  assert.equal(await textOf(page, "#tile-stored"), "4");
  // Grey figures that look like live ones would not be grey.
  const grey = await page.evaluate(() => [
    getComputedStyle(document.querySelector(".tiles")).filter,
    getComputedStyle(document.querySelector("#tile-stored")).color,
  ]);
  assert.equal(grey[0], "grayscale(1)");
  // The words stay as they are: a screen reader says them once.
  const said = await banner.innerText();
  const asked = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/metrics"));
  await asked;
  assert.equal(await banner.innerText(), said);
  assert.deepEqual(await page.locator(".as-of").allInnerTexts(), asOf);
  await log.begin();
  await page.locator("#state[data-kind=good]").waitFor();
  assert.equal(await isStale(page), false);
  assert.equal(await page.locator(".as-of:visible").count(), 0);
  await page.locator("#tail-state", { hasText: /^live$/ }).waitFor();
  await page.locator("#facts", { hasText: /^up / }).waitFor();
  const now = await page.evaluate(
    () => getComputedStyle(document.querySelector("#tile-stored")).color,
  );
  assert.notEqual(now, grey[1]);
  assert.deepEqual(besidesAnswers(wrong), []);
});

test("a server that takes requests and does not answer is said to be away, and what it answers later is shown", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 5), topic: "t" });
  let release;
  const released = new Promise((resolve) => {
    release = resolve;
  });
  await page.route("**/metrics", async (route) => {
    await released;
    await route.continue().catch(() => {});
  });
  await page.locator("#gone", { hasText: "The server does not answer since" }).waitFor();
  assert.ok(await isStale(page));
  await log.publish(...numbered("t", 5, 7));
  release();
  await page.unrouteAll({ behavior: "ignoreErrors" });
  await page.locator("#state[data-kind=good]").waitFor();
  await page.locator("#tile-stored", { hasText: /^6$/ }).waitFor();
  await page.locator("#tail tbody tr", { hasText: "t-6" }).waitFor();
  assert.deepEqual(await rowsOf(page), ["6", "5", "4", "3", "2", "1"]);
  assert.deepEqual(besidesAnswers(wrong), []);
});

test("a store that cannot be read leaves old figures that say so", async (context) => {
  const { page, wrong } = await opened(context, { events: numbered("t", 1, 5), topic: "t" });
  await page.route("**/stats", (route) =>
    route.fulfill({
      status: 503,
      contentType: "application/problem+json",
      body: JSON.stringify({
        title: "The store is not available",
        status: 503,
        code: "store_unavailable",
        detail: "the store cannot be read now",
      }),
    }),
  );
  await page
    .locator("#gone", {
      hasText: /^The store is not available: the store cannot be read now\. The figures are as of /,
    })
    .waitFor();
  assert.ok(await isStale(page));
  await page.unroute("**/stats");
  await page.locator("#state[data-kind=good]").waitFor();
  assert.equal(await isStale(page), false);
  assert.deepEqual(besidesAnswers(wrong), []);
});

test("another store with smaller counters is shown from its own events on", async (context) => {
  const { log, page, wrong } = await opened(context, {
    events: [...numbered("t", 1, 41), ...numbered("gone", 0, 3)],
    topic: "t",
  });
  await page.locator("#tail tbody tr", { hasText: "t-40" }).waitFor();
  await log.end();
  await page.locator("#tail-state", { hasText: /^not connected$/ }).waitFor();
  await log.begin({ store: "other.db" });
  await log.publish({ topic: "t", event_id: "new-1" }, { topic: "t", event_id: "new-2" });
  await page.locator("#tail tbody tr", { hasText: "new-2" }).waitFor();
  assert.deepEqual(await rowsOf(page), ["2", "1"], "no event of the other store");
  await page.locator("#tail-note", { hasText: /^The log was restored: / }).waitFor();
  await page.locator("#tile-stored", { hasText: /^2$/ }).waitFor();
  await page.locator("#topic-table tbody tr:only-child").waitFor();
  await log.publish({ topic: "t", event_id: "new-3" });
  await page.locator("#tail tbody tr", { hasText: "new-3" }).waitFor();
  for (const rate of await page.locator("#rates .key output").allInnerTexts())
    assert.ok(!rate.startsWith("-"), rate);
  assert.deepEqual(besidesAnswers(wrong), []);
});

/**
 * Answers requests for a stream as a server with histories: 409 for the old one, the newest events
 * after that.
 */
test("a stream that the server refuses for another history starts again, and says from where", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 8), topic: "t" });
  await page.locator("#tail tbody tr", { hasText: "t-7" }).waitFor();
  await log.end();
  await page.locator("#tail-state", { hasText: /^not connected$/ }).waitFor();
  const refused = [];
  await page.route("**/events?*", async (route) => {
    const { searchParams } = new URL(route.request().url());
    if (searchParams.get("after") !== "7") return route.continue();
    refused.push(route.request().headers().accept);
    return route.fulfill({
      status: 409,
      contentType: "application/problem+json",
      body: JSON.stringify({
        title: "The history changed",
        status: 409,
        code: "history_changed",
        detail: "resume after 2",
        history: "k4aa",
        common_seq: 2,
      }),
    });
  });
  await log.begin();
  await page
    .locator("#tail-note", { hasText: /^The history of the log changed: events after seq 2 are lost or replaced\./ })
    .waitFor();
  await page.locator("#tail tbody tr", { hasText: "t-7" }).waitFor();
  assert.deepEqual(await rowsOf(page), ["7", "6", "5", "4", "3", "2", "1"]);
  assert.deepEqual(new Set(refused), new Set(["text/event-stream"]));
  await page.unroute("**/events?*");
  await log.publish({ topic: "t", event_id: "after" });
  await page.locator("#tail tbody tr", { hasText: "after" }).waitFor();
  await page.locator("#topic-table tbody a").first().click();
  assert.deepEqual(besidesAnswers(wrong), []);
});

test("a stream carries the history of its events to the next connection", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 4) });
  const [text] = (
    await (
      await fetch(`${log.url}/events?topic=t&limit=1`, {
        headers: { accept: "application/x-ndjson" },
      })
    ).text()
  ).split("\n");
  const { history } = await (await fetch(`${log.url}/topic?topic=t`)).json();
  const asked = [];
  await page.route("**/events?*", (route) => {
    const { searchParams } = new URL(route.request().url());
    asked.push([searchParams.get("after"), searchParams.get("history")]);
    const body =
      asked.length === 1 ? `id: 1@k3f9\ndata: ${text}\n\nevent: end\ndata: {}\n\n` : `:\n\n`;
    return route.fulfill({ contentType: "text/event-stream", body });
  });
  await page.goto(`${log.url}/?topic=t`);
  while (asked.length < 2) await page.waitForRequest("**/events?*");
  assert.deepEqual(asked.slice(0, 2), [
    ["0", history],
    ["1", "k3f9"],
  ]);
  assert.deepEqual(besidesAnswers(wrong), []);
});
