// Pages of other origins, in a real browser, against a real log: what they try to do to it.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Browser, REBOUND } from "./browser.mjs";
import { Log } from "./log.mjs";

let browser;
before(async () => { browser = await Browser.start(); });
after(() => browser.close());

/** Another server on this machine: its port, and the headers of what was posted to it. */
async function server(context) {
  const posted = [];
  const made = createServer((request, response) => {
    if (request.method === "POST") posted.push(request.headers);
    response.setHeader("content-type", "text/html").end("<!doctype html><title>foreign</title>");
  });
  made.listen(0, "127.0.0.1");
  await once(made, "listening");
  context.after(() => made.close());
  return { port: made.address().port, posted };
}

/** A log, and a page of another server. */
async function foreign(context, host) {
  const log = await Log.start();
  context.after(() => log.remove());
  const { port } = await server(context);
  const { page } = await browser.open(`http://${host}:${port}/`);
  context.after(() => page.close());
  return { log, page };
}

const EVENT = JSON.stringify({ topic: "csrf", event_id: "1", timestamp: "2026-11-22T10:00:00Z", source: "foreign", payload: {} });

/** Ways to send without a preflight. */
const SENDS = {
  // A Blob without a type is sent without a Content-Type, which counts as JSON.
  "a blob": ([url, event]) => fetch(url, { method: "POST", mode: "no-cors", body: new Blob([event]) }).then(() => "sent"),
  "a blob of a page that names no referrer": ([url, event]) => fetch(url, { method: "POST", mode: "no-cors", referrerPolicy: "no-referrer", body: new Blob([event]) }).then(() => "sent"),
  "a beacon": ([url, event]) => (navigator.sendBeacon(url, new Blob([event])) ? "sent" : "not sent"),
};

/** The status of the answer to a publish, which the page itself may not see. */
const answered = (page) => page.waitForResponse((response) => response.url().endsWith("/publish")).then((response) => response.status());

for (const [host, kind] of [["localhost", "cross-site"], ["127.0.0.1", "same-site"]]) {
  for (const [name, send] of Object.entries(SENDS)) {
    test(`${name} of a page at ${host} (${kind}) publishes nothing`, async (context) => {
      const { log, page } = await foreign(context, host);
      // To a third server first, which tells that it is the attack that is meant.
      const third = await server(context);
      const there = page.waitForResponse((response) => response.url().endsWith("/third"));
      await page.evaluate(send, [`http://127.0.0.1:${third.port}/third`, EVENT]);
      await there;
      const [headers] = third.posted;
      assert.deepEqual([headers["sec-fetch-site"], headers["content-type"]], [kind, undefined]);
      const answer = answered(page);
      const outcome = await page.evaluate(send, [`${log.url}/publish`, EVENT]);
      assert.equal(outcome, "sent");
      assert.equal(await answer, 403);
      assert.equal((await fetch(`${log.url}/topics/csrf`)).status, 404);
    });
  }
}

test("a form of another origin publishes nothing", async (context) => {
  const { log, page } = await foreign(context, "localhost");
  const answer = answered(page);
  await page.evaluate(([url, event]) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: url, enctype: "text/plain" });
    const [name, value] = [event.slice(0, -2) + '"x', '":1}}'];
    form.append(Object.assign(document.createElement("input"), { name, value }));
    document.body.append(form);
    form.submit();
  }, [`${log.url}/publish`, EVENT]);
  assert.equal(await answer, 403);
  assert.equal((await fetch(`${log.url}/topics/csrf`)).status, 404);
});

test("a page of another origin reads nothing, and its preflight is refused", async (context) => {
  const { log, page } = await foreign(context, "localhost");
  await log.publish({ topic: "csrf", event_id: "one" });
  const read = await page.evaluate(async (url) => {
    const failed = (asked) => asked.then(() => "read", (error) => error.name);
    const stream = new EventSource(`${url}/events?topic=csrf`);
    const followed = new Promise((resolve) => {
      stream.onmessage = () => resolve("read");
      stream.onerror = () => resolve(stream.readyState);
    });
    return {
      fetched: await failed(fetch(`${url}/events?topic=csrf`)),
      posted: await failed(fetch(`${url}/publish`, { method: "POST", headers: { "content-type": "application/json" }, body: "[]" })),
      followed: await followed,
    };
  }, log.url);
  assert.deepEqual(read, { fetched: "TypeError", posted: "TypeError", followed: 2 });
});

test("a page whose name was made to lead to this machine is told nothing", async (context) => {
  const log = await Log.start();
  context.after(() => log.remove());
  const { port } = new URL(log.url);
  const { page } = await browser.open(`http://localhost:${port}/`);
  context.after(() => page.close());
  await page.locator("#state[data-kind=good]").waitFor();
  for (const path of ["/", "/events?topic=csrf", "/docs/"]) {
    const answer = await page.goto(`http://${REBOUND}:${port}${path}`);
    assert.equal(answer.status(), 421, path);
    assert.equal(JSON.parse(await answer.text()).code, "host_not_allowed");
  }
  // From there it is the same origin, and still refused.
  const posted = await page.evaluate((event) => fetch("/publish", { method: "POST", body: event }).then((answer) => answer.status), EVENT);
  assert.equal(posted, 421);
});

test("/docs works under its policy, and publishes", async (context) => {
  const log = await Log.start();
  context.after(() => log.remove());
  const { page, wrong } = await browser.open(`${log.url}/docs/`);
  context.after(() => page.close());
  const publish = page.locator("#operations-publish-publish");
  await publish.locator(".opblock-summary-control").first().click();
  await publish.locator("button.execute").click();
  await publish.locator(".live-responses-table", { hasText: "\"accepted\": 1" }).waitFor();
  assert.deepEqual(wrong, []);
});
