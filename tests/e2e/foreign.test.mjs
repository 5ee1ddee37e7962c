// Pages of other origins, in a real browser, against a real log: what they try to do to it.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { connect, createServer as createSocketServer } from "node:net";
import { after, before, test } from "node:test";

import { Browser, LISTED, REBOUND } from "./browser.mjs";
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
  "a blob": ([url, event]) => fetch(url, { method: "POST", mode: "no-cors", body: new Blob([event]) }).then(() => "sent", ({ name }) => name),
  "a blob of a page that names no referrer": ([url, event]) => fetch(url, { method: "POST", mode: "no-cors", referrerPolicy: "no-referrer", body: new Blob([event]) }).then(() => "sent", ({ name }) => name),
  "a beacon": ([url, event]) => (navigator.sendBeacon(url, new Blob([event])) ? "sent" : "not sent"),
};

/**
 * Waits until the log has refused this many requests as those of another origin. The browser tells
 * nobody of an answer that it keeps from a page.
 */
async function refused(log, count) {
  for (;;) {
    const text = await (await fetch(`${log.url}/metrics`)).text();
    if (text.includes(`sekali_refusals_total{reason="cross_origin"} ${count}\n`)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

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
      const outcome = await page.evaluate(send, [`${log.url}/publish`, EVENT]);
      // The browser keeps the answer from the page; a beacon has none.
      assert.equal(outcome, name === "a beacon" ? "sent" : "TypeError");
      await refused(log, 1);
      assert.equal((await fetch(`${log.url}/topics/csrf`)).status, 404);
    });
  }
}

test("a form of another origin publishes nothing", async (context) => {
  const { log, page } = await foreign(context, "localhost");
  await page.evaluate(([url, event]) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: url, enctype: "text/plain" });
    const [name, value] = [event.slice(0, -2) + '"x', '":1}}'];
    form.append(Object.assign(document.createElement("input"), { name, value }));
    document.body.append(form);
    form.submit();
  }, [`${log.url}/publish`, EVENT]);
  await refused(log, 1);
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

/** A port of this machine that is forwarded to the log, as a container's is. */
async function forwarded(context, log) {
  const { port } = new URL(log.url);
  const sockets = new Set();
  const forwarder = createSocketServer((from) => {
    const to = connect(port, "127.0.0.1");
    for (const [one, other] of [[from, to], [to, from]]) {
      sockets.add(one);
      one.on("error", () => other.destroy()).pipe(other);
    }
  });
  forwarder.listen(0, "127.0.0.1");
  await once(forwarder, "listening");
  context.after(() => {
    forwarder.close();
    for (const socket of sockets) socket.destroy();
  });
  return forwarder.address().port;
}

for (const [way, portOf] of [["straight", (_, log) => new URL(log.url).port], ["through a forwarded port", forwarded]]) {
  test(`a page whose name was made to lead to this machine is told nothing, ${way}`, async (context) => {
    const log = await Log.start();
    context.after(() => log.remove());
    const port = await portOf(context, log);
    await log.publish({ topic: "csrf", event_id: "one" });
    const { page } = await browser.open(`http://localhost:${port}/`);
    context.after(() => page.close());
    await page.locator("#state[data-kind=good]").waitFor();
    for (const path of ["/", "/events?topic=csrf", "/docs/"]) {
      const answer = await page.goto(`http://${REBOUND}:${port}${path}`);
      assert.equal(answer.status(), 421, path);
      const { code, detail } = JSON.parse(await answer.text());
      assert.equal(code, "host_not_allowed");
      assert.ok(detail.includes(REBOUND) && detail.includes("server.allowed_hosts"), detail);
    }
    // From there it is the same origin, and still refused.
    const asked = await page.evaluate(async (event) => {
      const status = (asked) => asked.then((answer) => answer.status);
      return [await status(fetch("/stats")), await status(fetch("/publish", { method: "POST", body: event }))];
    }, EVENT);
    assert.deepEqual(asked, [421, 421]);
    assert.equal((await (await fetch(`${log.url}/stats`)).json()).runtime.total_events_received, 1);
  });
}

/** Ways to have another server's answer shown in a page: the element, and the attribute with the address. */
const SHOWS = { object: "data", embed: "src", iframe: "src", img: "src", script: "src", link: "href", video: "src" };

/** What a page learns when it has an address shown: the event, and the size that the element then has. */
const probe = ([kind, attribute, url]) => new Promise((resolve) => {
  const element = document.createElement(kind);
  if (kind === "link") element.rel = "stylesheet";
  const learnt = (event) => setTimeout(() => resolve(`${event.type} ${element.offsetWidth}x${element.offsetHeight} ${window.length}`));
  element.onload = learnt;
  element.onerror = learnt;
  element[attribute] = url;
  document.body.append(element);
});

for (const [way, at, environment] of [
  ["where the browser tells whose page asks", "127.0.0.1", {}],
  ["where it does not, at another address without TLS", LISTED, { SEKALI_ALLOWED_HOSTS: LISTED }],
]) {
  for (const [kind, attribute] of Object.entries(SHOWS)) {
    test(`<${kind}> of a page of another origin does not tell whether an event exists, ${way}`, async (context) => {
      const log = await Log.start(environment);
      context.after(() => log.remove());
      await log.publish({ topic: "csrf", event_id: "one" });
      const { port } = new URL(log.url);
      const learnt = [];
      for (const [number, id] of ["one", "none"].entries()) {
        const { port: elsewhere } = await server(context);
        const { page } = await browser.open(`http://localhost:${elsewhere}/`);
        const url = `http://${at}:${port}/events/csrf/${id}`;
        learnt.push(await page.evaluate(probe, [kind, attribute, url]));
        if (at === "127.0.0.1") await refused(log, number + 1);
        await page.close();
      }
      assert.equal(learnt[0], learnt[1]);
    });
  }
}

test("a link of another page opens the console, and no data", async (context) => {
  const { log, page } = await foreign(context, "localhost");
  const from = page.url();
  const follow = async (path) => {
    await page.goto(from);
    const answer = page.waitForResponse(`${log.url}${path}`);
    await page.evaluate((url) => {
      const link = document.createElement("a");
      link.href = url;
      document.body.append(link);
      link.click();
    }, `${log.url}${path}`);
    const status = (await answer).status();
    // Else the next navigation would meet this one.
    await page.waitForURL(`${log.url}${path}`);
    return status;
  };
  assert.equal(await follow("/stats"), 403);
  assert.equal(await follow("/"), 200);
  await page.locator("#state[data-kind=good]").waitFor();
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
