// Each view of the console has an address: Back, Forward, Reload and another tab lead to it.

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  besidesAnswers,
  fill,
  numbered,
  opened,
  publish,
  search,
  textOf,
  useBrowser,
  visited,
} from "./page.mjs";

useBrowser();

const view = (page) => Object.fromEntries(new URL(page.url()).searchParams);
const topicIs = (page, name) =>
  page.locator("#topic-title", { hasText: new RegExp(`^Live tail of ${name}$`) }).waitFor();
const eventIs = (page, id) =>
  page.locator("dialog[open] #event-title", { hasText: new RegExp(`^${id}$`) }).waitFor();
const closed = (page) => page.locator("dialog#event:not([open])").waitFor({ state: "attached" });

const EVENTS = [
  ...numbered("alpha", 0, 3),
  ...numbered("beta", 0, 3),
  { topic: "beta", event_id: "alpha-1" },
];

test("Back and Forward lead through topics and events, and Back does not leave the page", async (context) => {
  const { page, wrong } = await opened(context, { events: EVENTS, topic: "alpha" });
  await page.locator("#topic-table tbody a", { hasText: "beta" }).click();
  await topicIs(page, "beta");
  await page.locator("#tail tbody a", { hasText: "beta-2" }).click();
  await eventIs(page, "beta-2");
  assert.deepEqual(view(page), { topic: "beta", event_id: "beta-2" });
  assert.equal((await page.title()).replaceAll(/[\u2068\u2069]/g, ""), "beta-2 · beta · sekali");
  await page.goBack();
  await closed(page);
  assert.deepEqual(view(page), { topic: "beta" });
  await page.goBack();
  await topicIs(page, "alpha");
  await page.locator("#tail tbody tr", { hasText: "alpha-2" }).waitFor();
  assert.deepEqual(view(page), { topic: "alpha" });
  await page.goForward();
  await topicIs(page, "beta");
  await page.goForward();
  await eventIs(page, "beta-2");
  await page.reload();
  await eventIs(page, "beta-2");
  await topicIs(page, "beta");
  await page.keyboard.press("Escape");
  await page.waitForURL((url) => !url.searchParams.has("event_id"));
  await page.goForward();
  await eventIs(page, "beta-2");
  assert.deepEqual(wrong, []);
});

test("an address opens an event in another tab, and closing it there stays on its topic", async (context) => {
  const { log, page: first } = await opened(context, { events: EVENTS, topic: "beta" });
  const href = await first.locator("#tail tbody a", { hasText: "beta-1" }).getAttribute("href");
  const { page, wrong } = await visited(context, new URL(href, log.url).href);
  await eventIs(page, "beta-1");
  await topicIs(page, "beta");
  await page.locator("#event-close").click();
  await closed(page);
  assert.deepEqual(view(page), { topic: "beta" });
  // The newest topic is chosen by itself, which is no step.
  await log.publish({ topic: "beta", event_id: "newest" });
  await page.goto(log.url);
  await page.waitForURL((url) => url.searchParams.get("topic") === "beta");
  assert.deepEqual(wrong, []);
});

test("a search has an address; its only event opens once, and Back leads to what was found", async (context) => {
  const { page, wrong } = await opened(context, { events: EVENTS, topic: "alpha" });
  await search(page, { event_id: "beta-0" });
  await eventIs(page, "beta-0");
  assert.deepEqual(view(page), { topic: "beta", event_id: "beta-0", find: "beta-0" });
  await page.goBack();
  await closed(page);
  assert.deepEqual(view(page), { topic: "alpha", find: "beta-0" });
  await page.locator("#found li", { hasText: "beta" }).waitFor();
  await search(page, { event_id: "alpha-1" });
  await page.locator("#found li").nth(1).waitFor();
  assert.deepEqual(view(page), { topic: "alpha", find: "alpha-1" });
  await page.reload();
  await page.locator("#found li").nth(1).waitFor();
  assert.equal(await page.locator("#find-form [name=event_id]").inputValue(), "alpha-1");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await page.goBack();
  await page.locator("#found li:only-child").waitFor();
  await page.goBack();
  await page.locator("#found-said", { hasText: "The id must be exact." }).waitFor();
  assert.equal(await page.locator("#find-form [name=event_id]").inputValue(), "");
  assert.deepEqual(wrong, []);
});

test("the event of a verdict has an address too", async (context) => {
  const { page, wrong } = await opened(context, { events: EVENTS, topic: "alpha" });
  await publish(page, { topic: "beta", event_id: "new" });
  await page.locator("#verdict a").click();
  await eventIs(page, "new");
  assert.deepEqual(view(page), { topic: "beta", event_id: "new" });
  await page.keyboard.press("Escape");
  await page.waitForURL((url) => url.searchParams.get("topic") === "alpha");
  await topicIs(page, "alpha");
  assert.deepEqual(wrong, []);
});

test("names that are hard to write have addresses", async (context) => {
  const names = ["..", ".", "a&topic=b", "50%", "a+b c", "مرحبا", "#x?y/z", "e\u0301"];
  const { log, page: first } = await opened(context, {
    events: names.map((name) => ({ topic: name, event_id: name })),
  });
  await first
    .locator("#topic-table tbody tr")
    .nth(names.length - 1)
    .waitFor();
  for (const name of names) {
    const link = first
      .locator("#topic-table tbody a")
      .filter({ has: first.locator("bdi", { hasText: name }) });
    const hrefs = await link.evaluateAll(
      (found, wanted) =>
        found.filter((one) => one.textContent === wanted).map((one) => one.getAttribute("href")),
      name,
    );
    assert.equal(hrefs.length, 1, name);
    const address = new URL(hrefs[0], log.url);
    address.searchParams.set("event_id", name);
    const { page, wrong } = await visited(context, address.href);
    await page.locator("dialog[open]").waitFor();
    assert.equal(await page.locator("#event-title").evaluate((found) => found.textContent), name);
    assert.equal(
      await page.locator("#topic-title").evaluate((found) => found.textContent),
      `Live tail of ${name}`,
    );
    assert.deepEqual(wrong, [], name);
    await page.close();
  }
});

test("an address that is wrong, or names no event, says so", async (context) => {
  const { log } = await opened(context, { events: EVENTS });
  const cases = {
    "?topci=alpha": /^The address of this page is wrong: topci is no parameter of this page\.$/,
    "?topic=alpha&topic=beta": /topic is there twice/,
    "?event_id=x": /event_id needs topic beside it/,
    "?topic=": /topic is empty/,
    "?topic=beta&event_id=nothing": /^No event with the id nothing is stored in the topic beta\.$/,
  };
  for (const [query, words] of Object.entries(cases)) {
    const { page, wrong } = await visited(context, `${log.url}/${query}`);
    await page.locator("#address", { hasText: words }).waitFor();
    // A step of the person leads on.
    await page.locator("#topic-table tbody a", { hasText: "beta" }).click();
    await page.locator("#tail tbody a", { hasText: "beta-2" }).click();
    await eventIs(page, "beta-2");
    assert.ok(await page.locator("#address").isHidden(), query);
    assert.deepEqual(besidesAnswers(wrong), [], query);
    await page.close();
  }
});

test("an event of the address that cannot be read appears when the server is back", async (context) => {
  const { log, page: first } = await opened(context, { events: EVENTS });
  await first.close();
  const { page } = await visited(context, `${log.url}/?topic=beta`);
  await page.route("**/event?topic=beta&event_id=beta-1", (route) => route.abort());
  await page.route("**/metrics", (route) => route.abort());
  await page.evaluate(() => {
    history.pushState(null, "", "?topic=beta&event_id=beta-1");
    dispatchEvent(new PopStateEvent("popstate"));
  });
  await page
    .locator("#address", {
      hasText: "The event beta-1 cannot be read: the server does not answer.",
    })
    .waitFor();
  await page.unroute("**/event?topic=beta&event_id=beta-1");
  await page.unroute("**/metrics");
  await eventIs(page, "beta-1");
  assert.ok(await page.locator("#address").isHidden());
});

test("what was found in thousands of topics is shown in part, counted, and can be narrowed", async (context) => {
  const events = Array.from({ length: 1_500 }, (_, index) => ({
    topic: `topic-${String(index).padStart(4, "0")}`,
    event_id: "1",
  }));
  const { page, wrong } = await opened(context, { events });
  await search(page, { event_id: "1" });
  await page
    .locator("#found-said", { hasText: "1,500 topics have an event with this id." })
    .waitFor();
  assert.match(
    await textOf(page, "#found-said"),
    /The first 50 are shown, and 1,450 more are not: filter by name, or search in one topic\./,
  );
  assert.equal(await page.locator("#found li").count(), 50);
  const height = () => page.evaluate(() => document.documentElement.scrollHeight);
  assert.ok((await height()) < 2_500, `${await height()} pixels`);
  await page.locator("#found-filter").fill("TOPIC-149");
  await page.locator("#found-said", { hasText: "10 of them" }).waitFor();
  assert.equal(await page.locator("#found li").count(), 10);
  await page.locator("#found-filter").fill("nothing");
  assert.equal(await page.locator("#found li").count(), 0);
  await search(page, { event_id: "1", topic: "topic-0777" });
  await eventIs(page, "1");
  assert.equal(view(page).topic, "topic-0777");
  assert.deepEqual(wrong, []);
});

test("an id that the server does not answer with is not promised in an answer", async (context) => {
  const { log, page } = await opened(context);
  const help = (await textOf(page, "#found-said")).replaceAll(/\s+/g, " ");
  const [result] = await log.publish({ topic: "t", event_id: "the-id" });
  assert.ok(!JSON.stringify(result).includes("the-id"), "the answer to /publish has no ids");
  const events = await (
    await fetch(`${log.url}/events?topic=t`, { headers: { accept: "application/json" } })
  ).json();
  assert.equal(events.events[0].event_id, "the-id");
  assert.match(
    help,
    /GET \/events returns it with each event.* POST \/publish has only the results, in the order of the request/,
  );
  assert.doesNotMatch(help, /each answer/);
});

test("a fault of a payload is named where the person typed it", async (context) => {
  const { page } = await opened(context);
  const verdict = (payload) => publish(page, { topic: "t", event_id: "1", payload });
  assert.match(
    await verdict('{"a": 1'),
    /^refused The body is not JSON \(400 not_json\)\. The payload is not JSON at line 1, column 8: expected `,` or `}`, but the payload ends here\.$/,
  );
  assert.equal(await page.locator("#publish-form textarea").getAttribute("aria-invalid"), "true");
  assert.match(await verdict('{"a": 1,}'), /line 1, column 9: expected a name in double quotes/);
  assert.match(await verdict('{\n  "a": 1,\n  b: 2\n}'), /line 3, column 3: /);
  assert.match(await verdict('{"é😀": tru}'), /line 1, column 8: /);
  // What would end the payload and go on with the event around it.
  assert.match(
    await verdict('{}, "source": "other"'),
    /line 1, column 3: expected the end of the payload, found `,`/,
  );
  for (const payload of ['{"a": 1', '{"a"', '{"a":"\n"}'])
    assert.doesNotMatch(await verdict(payload), /line 2/, payload);
  assert.match(await verdict("{}"), /^accepted/);
  assert.equal(await page.locator("#publish-form textarea").getAttribute("aria-invalid"), "false");
  await fill(page, "publish-form", { payload: "{}" });
});
