// The console in a real browser, against a real log.

import assert from "node:assert/strict";
import { test } from "node:test";

import axe from "axe-core";

import { fill, numbered, opened, publish, textOf, useBrowser, visited } from "./page.mjs";
import { Log } from "./log.mjs";

useBrowser();

test("an empty log is told what to do, and its first event appears", async (context) => {
  const { log, page, wrong } = await opened(context);
  await page.locator("#topics-empty", { hasText: "No event is stored yet" }).waitFor();
  await log.publish({ topic: "first", event_id: "one" });
  await page.locator("#topic-table tbody tr", { hasText: "first" }).waitFor();
  await page.locator("#tail tbody tr", { hasText: "one" }).waitFor();
  assert.equal(await textOf(page, "#topic-title"), "Live tail of first");
  assert.deepEqual(wrong, []);
});

test("figures say what was counted", async (context) => {
  const { log, page, wrong } = await opened(context, { events: [...numbered("a", 0, 30), ...numbered("a", 0, 10), ...numbered("b", 0, 2)] });
  await page.locator("#tile-stored", { hasText: /^32$/ }).waitFor();
  assert.equal(await textOf(page, "#more-stored"), "10 duplicates, 0 conflicts ever");
  const row = page.locator("#topic-table tbody tr", { hasText: "a" });
  assert.match((await row.innerText()).replaceAll(/\s+/g, " "), /^a 30 25 % 0 /);
  await log.publish(...numbered("a", 0, 40));
  await page.locator("#tile-stored", { hasText: /^42$/ }).waitFor();
  await page.locator("#tile-p50", { hasText: /\d (ms|µs|s)$/ }).waitFor();
  await page.locator("#more-duplicates", { hasText: /^75 % of what came$/ }).waitFor();
  assert.deepEqual(wrong, []);
});

test("an event that is published meanwhile is shown, newest first", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("orders", 1, 4), topic: "orders" });
  await page.locator("#tail tbody tr", { hasText: "orders-3" }).waitFor();
  await log.publish({ topic: "orders", event_id: "orders-4", source: "meanwhile", payload: '{"n": 18446744073709551617}' }, { topic: "other", event_id: "elsewhere" });
  const newest = page.locator("#tail tbody tr").first();
  await newest.getByText("orders-4").waitFor();
  assert.match(await newest.innerText(), /meanwhile[^]*18446744073709551617/);
  assert.equal(await page.locator("#tail tbody tr").count(), 4);
  assert.equal(await page.locator("#tail", { hasText: "elsewhere" }).count(), 0);
  await page.locator("#pause").click();
  await log.publish({ topic: "orders", event_id: "orders-5" });
  await page.locator("#tail-state", { hasText: "held, 1 new" }).waitFor();
  assert.equal(await page.locator("#tail tbody tr").count(), 4);
  await page.locator("#pause").click();
  await page.locator("#tail tbody tr", { hasText: "orders-5" }).waitFor();
  assert.deepEqual(wrong, []);
});

test("a topic with many events shows its newest, and a flood no more than a hundred", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 1_000), topic: "t" });
  await page.locator("#tail tbody tr", { hasText: "t-999" }).waitFor();
  assert.equal(await page.locator("#tail tbody tr").count(), 100);
  await log.publish(...numbered("t", 1_000, 6_000));
  await page.locator("#tail tbody tr", { hasText: "t-5999" }).waitFor();
  assert.equal(await page.locator("#tail tbody tr").count(), 100);
  assert.deepEqual(wrong, []);
});

test("an event is found by its id, in one topic and in all", async (context) => {
  const payload = '{"id":12345678901234567890123,"z":1.50,"a":{"b":[]}}';
  const events = [...numbered("orders", 0, 3), { topic: "a/b?c", event_id: "id/1%2F#", source: "é", payload }, { topic: "other", event_id: "orders-1" }, { topic: "..", event_id: "." }];
  const { page, wrong } = await opened(context, { events });
  await fill(page, "find-form", { event_id: "id/1%2F#" });
  await page.locator("#find-form [name=event_id]").press("Enter");
  await page.locator("dialog[open]").waitFor();
  assert.equal(await textOf(page, "#event-title"), "id/1%2F#");
  assert.match(await textOf(page, "#event-facts"), /a\/b\?c[^]*é/);
  assert.equal(await textOf(page, "#event-payload"), '{\n  "id": 12345678901234567890123,\n  "z": 1.50,\n  "a": {\n    "b": []\n  }\n}');
  await page.locator("#event-stored").check();
  assert.equal(await textOf(page, "#event-payload"), payload);
  const link = await page.locator("#event-link").getAttribute("href");
  assert.equal(link, "event?topic=a%2Fb%3Fc&event_id=id%2F1%252F%23");
  await page.keyboard.press("Escape");

  await fill(page, "find-form", { event_id: "orders-1" });
  await page.locator("#find-form button.main").click();
  await page.locator("#found li").nth(1).waitFor();
  assert.equal(await page.locator("dialog[open]").count(), 0, "of two, a person chooses");
  await page.locator("#found li a", { hasText: "other" }).click();
  await page.locator("dialog[open] #event-facts", { hasText: "other" }).waitFor();
  await page.locator("#event-close").click();

  await fill(page, "find-form", { event_id: "orders-1", topic: "a/b?c" });
  await page.locator("#find-form button.main").click();
  await page.locator("#found", { hasText: "No event with the id orders-1 is stored in a/b?c." }).waitFor();

  // Steps in a path: no browser asks for these.
  await fill(page, "find-form", { event_id: ".", topic: ".." });
  await page.locator("#find-form button.main").click();
  await page.locator("dialog[open] #event-facts", { hasText: ".." }).waitFor();
  assert.deepEqual(wrong, []);
});

test("a test event gets each verdict", async (context) => {
  const { page, wrong } = await opened(context);
  const values = { topic: "tests", event_id: "one", payload: '{"n": 9007199254740993}' };
  assert.match(await publish(page, values), /^accepted Stored durably, as seq 1\./);
  assert.match(await publish(page, values), /^duplicate It was stored before, as seq 1\./);
  assert.match(await publish(page, { ...values, payload: '{"n": 9007199254740992}' }), /^conflict Seq 1 has this id and another payload\./);
  assert.deepEqual(wrong, []);
  assert.match(await publish(page, { ...values, source: "", timestamp: "noon" }), /^rejected Invalid events \(422 invalid_events\)\..* timestamp .* source source is empty/);
  assert.match(await publish(page, { ...values, payload: "nonsense" }), /^refused The body is not JSON \(400 not_json\)/);
  assert.match(await publish(page, { ...values, payload: "[]" }), /^rejected .* payload /);
  // Chromium writes a line for each answer that is an error; nothing else went wrong.
  assert.deepEqual(wrong.filter((line) => !line.includes("Failed to load resource")), []);
  await page.locator("#topic-table tbody tr", { hasText: "tests" }).waitFor();
  const before = await page.locator("#publish-form [name=event_id]").inputValue();
  await page.locator("#new-id").click();
  assert.notEqual(await page.locator("#publish-form [name=event_id]").inputValue(), before);
});

test("what the server could not finish is not called rejected, and what to do is said once", async (context) => {
  const { page, wrong } = await opened(context);
  const answers = [
    ["store_unavailable", "The store is not available", "not every event is known to be stored; send the same events again, which is safe"],
    ["overloaded", "Overloaded", "too much is in flight"],
  ];
  for (const [code, title, detail] of answers) {
    await page.route("**/publish", (route) => route.fulfill({
      status: 503,
      contentType: "application/problem+json",
      body: JSON.stringify({ type: `urn:sekali:problem:${code}`, title, status: 503, code, detail }),
    }));
    const said = await publish(page, { topic: "t", event_id: code });
    assert.ok(said.startsWith(`not known ${title} (503 ${code}). ${detail}.`), said);
    assert.equal(said.match(/again/g).length, 1, said);
    await page.unroute("**/publish");
  }
  assert.deepEqual(wrong.filter((line) => !line.includes("Failed to load resource")), []);
});

test("the tail says that it reads before it says that there is nothing", async (context) => {
  const { page, wrong } = await opened(context, { events: numbered("full", 0, 3), topic: "nothing" });
  const empty = page.locator("#tail-empty");
  await empty.filter({ hasText: "No event is stored in this topic yet." }).waitFor();
  let release;
  const released = new Promise((resolve) => { release = resolve; });
  await page.route("**/events?*", async (route) => { await released; await route.continue(); });
  const asked = page.waitForRequest(/topic\?topic=full/);
  await page.locator("#topic-table tbody a", { hasText: "full" }).click();
  await (await (await asked).response()).finished();
  assert.equal(await empty.innerText(), "Reading…");
  release();
  await page.locator("#tail tbody tr", { hasText: "full-2" }).waitFor();
  assert.ok(await empty.isHidden());
  await page.locator("#tail-state", { hasText: /^live$/ }).waitFor();
  // Chromium writes a line for the topic that there is none of.
  assert.deepEqual(wrong.filter((line) => !line.includes("404")), []);
});

test("the tail is not called live while the store is away", async (context) => {
  const { page, wrong } = await opened(context, { events: numbered("t", 0, 3), topic: "t" });
  const tail = (text) => page.locator("#tail-state", { hasText: text }).waitFor();
  await tail(/^live$/);
  await page.route("**/health/ready", (route) => route.fulfill({
    status: 503,
    contentType: "application/problem+json",
    body: JSON.stringify({ title: "The store is not available", status: 503, code: "store_unavailable", detail: "the store cannot write now" }),
  }));
  await page.locator("#state", { hasText: "the store is not available" }).waitFor();
  await tail(/^waiting$/);
  await page.unroute("**/health/ready");
  await tail(/^live$/);
  assert.deepEqual(wrong.filter((line) => !line.includes("Failed to load resource")), []);
});

test("charts have room for their last time, and tiles fill their rows", async (context) => {
  const { page, wrong } = await opened(context, { events: [...numbered("t", 0, 30), ...numbered("t", 0, 9)], topic: "t" });
  await page.locator("#sources tbody tr").waitFor();
  await page.locator("#tile-size", { hasText: /\d/ }).waitFor();
  for (const width of [1280, 800, 620, 360]) {
    await page.setViewportSize({ width, height: 800 });
    const found = await page.evaluate(() => {
      const right = (element) => element.getBoundingClientRect().right;
      const charts = [...document.querySelectorAll(".uplot")].map((chart) => {
        const canvas = chart.querySelector("canvas");
        const context = canvas.getContext("2d");
        context.font = `11px ${getComputedStyle(chart).fontFamily}`;
        return right(canvas) - right(chart.querySelector(".u-over")) - context.measureText("00:00:00").width / 2;
      });
      const tiles = [...document.querySelectorAll(".tiles > div")].map((tile) => tile.getBoundingClientRect());
      const inside = document.querySelector(".tiles");
      const covered = tiles.reduce((sum, { width, height }) => sum + (width + 1) * (height + 1), 0);
      const sources = document.querySelector("#sources");
      return { charts, bare: (inside.clientWidth + 1) * (inside.clientHeight + 1) - covered, sideways: sources.scrollWidth - sources.clientWidth };
    });
    assert.equal(found.charts.length, 2);
    for (const room of found.charts) assert.ok(room >= 0, `${width}: a time is cut off by ${-room} pixels`);
    assert.ok(Math.abs(found.bare) < 2_000, `${width}: ${found.bare} square pixels have no tile`);
    assert.equal(found.sideways, 0, `${width}: how late is cut off`);
  }
  assert.deepEqual(wrong, []);
});

test("hostile text is shown as text", async (context) => {
  const hostile = '<img src=x onerror=alert(1)>"\'</script><script>alert(2)</script>&amp;\u202e';
  const events = [{ topic: hostile, event_id: hostile, source: hostile, payload: JSON.stringify({ [hostile]: hostile }) }];
  const { page, wrong } = await opened(context, { events });
  await page.locator("#topic-table tbody tr").first().waitFor();
  await page.locator("#tail tbody tr a").first().click();
  await page.locator("dialog[open]").waitFor();
  for (const place of ["#topic-table tbody th", "#topic-title", "#tail tbody th", "#tail .source", "#event-title", "#event-facts", "#event-payload"]) {
    const text = await page.locator(place).first().evaluate((found) => found.textContent);
    assert.ok(text.includes("<img src=x onerror=alert(1)>"), `${place}: ${text}`);
  }
  await page.keyboard.press("Escape");
  await fill(page, "find-form", { event_id: hostile });
  await page.locator("#find-form button.main").click();
  await page.locator("#found li").waitFor();
  await page.keyboard.press("Escape");
  assert.match(await publish(page, { topic: hostile, event_id: hostile, payload: "{}" }), /^conflict/);
  assert.equal(await page.locator("img:not(h1 img), main script").count(), 0);
  assert.deepEqual(wrong, []);
  // And if a script made HTML of it, the policy would stop that.
  const stopped = await page.evaluate((text) => {
    try {
      document.createElement("p").innerHTML = text;
      return "made";
    } catch (error) {
      return error.name;
    }
  }, hostile);
  assert.equal(stopped, "TypeError");
});

test("light, dark, and a choice that stays", async (context) => {
  const { page, wrong } = await opened(context, { events: numbered("orders", 0, 20) });
  const brightness = () => page.evaluate(() => Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]));
  await page.emulateMedia({ colorScheme: "light" });
  assert.ok(await brightness() > 200);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.ok(await brightness() < 60);
  await page.locator("#theme").selectOption("light");
  assert.ok(await brightness() > 200);
  await page.reload();
  assert.equal(await page.locator("#theme").inputValue(), "light");
  assert.ok(await brightness() > 200, "also after a reload");
  await page.locator("#theme").selectOption("auto");
  assert.ok(await brightness() < 60);
  assert.deepEqual(wrong, []);
});

test("no barrier that axe finds, in light and dark, with an event open and without", async (context) => {
  const { page, wrong } = await opened(context, { events: [...numbered("orders", 0, 20), ...numbered("orders", 0, 5), { topic: "orders", event_id: "orders-1", payload: '{"other":1}' }] });
  await page.locator("#tail tbody tr").first().waitFor();
  await page.evaluate(axe.source);
  const check = async (what) => {
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => [id, ...nodes.map(({ html, failureSummary }) => `${html}: ${failureSummary}`)]), [], what);
  };
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await check(colorScheme);
    await page.locator("#tail tbody a").first().click();
    await page.locator("dialog[open]").waitFor();
    await check(`${colorScheme}, an event`);
    await page.keyboard.press("Escape");
  }
  await publish(page, { topic: "orders", event_id: "orders-1", payload: '{"other":2}' });
  await check("a verdict");
  assert.deepEqual(wrong, []);
});

test("a phone shows everything without scrolling sideways", async (context) => {
  const long = "x".repeat(200);
  const { page, wrong } = await opened(context, { events: [...numbered("orders", 0, 20), { topic: long, event_id: long, source: long, payload: `{"${long}":"${long}"}` }], topic: long });
  await page.setViewportSize({ width: 360, height: 740 });
  await page.locator("#tail tbody tr a").first().waitFor();
  const wide = () => page.evaluate(() => {
    const all = [...document.querySelectorAll("body *")].filter((found) => found.closest(".uplot, .unseen, .tail table, .skip") === null);
    const out = all.filter((found) => found.getBoundingClientRect().right > innerWidth + 0.5).map((found) => found.outerHTML.slice(0, 80));
    return { page: document.documentElement.scrollWidth, out };
  });
  assert.deepEqual(await wide(), { page: 360, out: [] });
  await page.locator("#tail tbody tr a").first().click();
  await page.locator("dialog[open]").waitFor();
  assert.deepEqual(await wide(), { page: 360, out: [] });
  await page.keyboard.press("Escape");
  assert.deepEqual(wrong, []);
});

test("everything can be done by keyboard", async (context) => {
  const { page, wrong } = await opened(context, { events: [...numbered("alpha", 0, 3), ...numbered("beta", 0, 3)], topic: "alpha" });
  await page.locator("#topic-table tbody tr").nth(1).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  const focused = (selector) => page.evaluate((wanted) => document.activeElement.matches(wanted), selector);
  const tabTo = async (selector) => {
    for (let step = 0; step < 80; step += 1) {
      await page.keyboard.press("Tab");
      if (await focused(selector)) {
        const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
        assert.notEqual(outline, "none", `${selector} shows that it has the focus`);
        return;
      }
    }
    assert.fail(`no tab leads to ${selector}`);
  };
  await tabTo("#topic-table tbody tr:nth-child(2) a");
  await page.keyboard.press("Enter");
  await page.locator("#topic-title", { hasText: "beta" }).waitFor();
  await page.locator("#tail tbody tr", { hasText: "beta-2" }).waitFor();
  await tabTo("#tail tbody tr:first-child a");
  await page.keyboard.press("Enter");
  await page.locator("dialog[open] #event-title", { hasText: "beta-2" }).waitFor();
  await page.keyboard.press("Escape");
  assert.ok(await focused("#tail tbody tr:first-child a"), "where the focus was");
  await tabTo("#find-form [name=event_id]");
  await page.keyboard.type("alpha-1");
  await page.keyboard.press("Enter");
  await page.locator("dialog[open] #event-title", { hasText: "alpha-1" }).waitFor();
  await page.keyboard.press("Escape");
  await tabTo("#publish-form button.main");
  await page.keyboard.press("Space");
  await page.locator("#verdict .accepted").waitFor();
  assert.deepEqual(wrong, []);
});

test("a server that goes away is said, and everything goes on when it is back", async (context) => {
  const { log, page, wrong } = await opened(context, { events: numbered("t", 1, 5), topic: "t" });
  await page.locator("#tail tbody tr", { hasText: "t-4" }).waitFor();
  await log.end();
  await page.locator("#gone", { hasText: "The server does not answer since" }).waitFor();
  assert.equal(await textOf(page, "#state"), "no answer");
  await fill(page, "publish-form", { topic: "t", event_id: "t-5" });
  await page.locator("#publish-form button.main").click();
  await page.locator("#verdict", { hasText: "Send the same id again" }).waitFor();
  await log.begin();
  await page.locator("#state[data-kind=good]").waitFor();
  assert.ok(await page.locator("#gone").isHidden());
  assert.match(await publish(page, { topic: "t", event_id: "t-5" }), /^accepted .* seq 5/);
  await page.locator("#tail tbody tr", { hasText: "t-5" }).waitFor();
  const seqs = await page.locator("#tail tbody .seq").allInnerTexts();
  assert.deepEqual(seqs, ["5", "4", "3", "2", "1"], "none twice, none missing");
  await page.locator("#tile-stored", { hasText: /^5$/ }).waitFor();
  assert.deepEqual(wrong.filter((line) => !line.includes("Failed to load resource") && !line.includes("net::ERR")), []);
});

test("a thousand topics are listed by pages, filtered and sorted, and asked for rarely", async (context) => {
  const events = Array.from({ length: 1_200 }, (_, index) => ({ topic: `topic-${String(index).padStart(4, "0")}`, event_id: "1" }));
  const { log, page, wrong } = await opened(context, { events: [...events, events[700], events[700]] });
  await page.locator("#topics-count", { hasText: /^1,200$/ }).waitFor();
  assert.equal(await page.locator("#topic-table tbody tr").count(), 12);
  await page.locator("#page-next").click();
  assert.equal(await textOf(page, "#topic-table tbody th"), "topic-0012");
  await page.locator("[data-sort=share]").click();
  assert.equal(await textOf(page, "#topic-table tbody th"), "topic-0700");
  assert.equal(await page.locator("th[aria-sort=descending]").innerText(), "Duplicates");
  await page.locator("#filter").fill("TOPIC-119");
  await page.locator("#topics-count", { hasText: "10 of 1,200" }).waitFor();
  await page.locator("#filter").fill("nothing");
  await page.locator("#topics-empty", { hasText: "No topic has this in its name." }).waitFor();
  const asked = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await log.publish({ topic: "topic-0000", event_id: "2" });
  await page.locator("#tile-stored", { hasText: /^1,201$/ }).waitFor();
  assert.ok(asked.includes("/metrics"));
  assert.ok(asked.filter((path) => path === "/topics").length <= 2, `${asked}`);
  assert.deepEqual(wrong, []);
});

test("a page that nobody sees asks for nothing", async (context) => {
  const { page, wrong } = await opened(context, { events: numbered("t", 0, 3), topic: "t" });
  await page.locator("#tail tbody tr").first().waitFor();
  const hide = (hidden) => page.evaluate((value) => {
    Object.defineProperty(document, "hidden", { value, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await hide(true);
  // What was under way ends; then a beat of the page passes.
  await page.waitForLoadState("networkidle");
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 2_000)));
  assert.deepEqual(asked, []);
  const back = page.waitForRequest(/metrics/);
  await hide(false);
  await back;
  assert.deepEqual(wrong, []);
});

test("sources, lateness, repeats and the store's size are shown", async (context) => {
  const log = await Log.start();
  context.after(() => log.remove());
  const again = (event_id, source, payload) => ({ topic: "t", event_id, source, payload });
  await log.publish(...numbered("t", 0, 3));
  await log.publish(again("t-1", "<b>a", "{}"), again("t-1", "<b>a", "{}"), again("t-2", "<b>a", '{"n":1}'), again("x", "<b>a", "{}"));
  const { page, wrong } = await visited(context, `${log.url}/?topic=t`);
  const flat = async (selector) => (await textOf(page, selector)).replaceAll(/\s+/g, " ");
  await page.locator("#sources tbody tr").nth(1).waitFor();
  assert.match(await flat("#sources tbody tr"), /^<b>a 4 3 \(75 %\) 1 99 % within \d+ s$/);
  assert.match((await page.locator("#sources tbody tr").nth(1).innerText()).replaceAll(/\s+/g, " "), /^e2e 3 0 \(0 %\) 0 –$/);
  assert.equal(await page.locator("#sources tbody tr").count(), 2, "others sent nothing");
  assert.match(await flat("#topic-facts"), /Came late 99 % within \d+ s/);
  await page.locator("#more-size", { hasText: /^[\d.]+ [KM]iB database, [\d.]+ [KM]iB wal$/ }).waitFor();
  await page.locator("#tail tbody tr a", { hasText: "t-2" }).click();
  await page.locator("#event-facts", { hasText: /once, 1 with another payload; last .* by <b>a, with another payload/ }).waitFor();
  assert.deepEqual(wrong, []);
});
