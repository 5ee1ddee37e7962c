// A log, and a page of its console, for the tests in a browser.

import { after, before } from "node:test";

import { Browser } from "./browser.mjs";
import { Log } from "./log.mjs";

let browser;

/** Starts the browser of a file of tests. */
export function useBrowser() {
  before(async () => {
    browser = await Browser.start();
  });
  after(() => browser.close());
}

/**
 * A log, a page of its console at this view, and what went wrong on the page. Waits until the log
 * is said to be ready.
 */
export async function opened(context, { events = [], ...view } = {}) {
  const log = await Log.start();
  context.after(() => log.remove());
  if (events.length > 0) await log.publish(...events);
  return { log, ...(await visited(context, `${log.url}/${query(view)}`)) };
}

/** A page of this address, and what went wrong on it. */
export async function visited(context, address, { prepare = () => {} } = {}) {
  const { page, wrong } = await browser.open(address, prepare);
  context.after(() => page.close());
  await page.locator("#state[data-kind=good]").waitFor();
  return { page, wrong };
}

const query = (view) => (Object.keys(view).length === 0 ? "" : `?${new URLSearchParams(view)}`);

export const numbered = (topic, from, to) =>
  Array.from({ length: to - from }, (_, index) => ({
    topic,
    event_id: `${topic}-${from + index}`,
  }));
export const textOf = (page, selector) => page.locator(selector).first().innerText();

/** What went wrong besides requests without a good answer, of which Chromium writes a line each. */
export const besidesAnswers = (wrong) =>
  wrong.filter((line) => !line.includes("Failed to load resource") && !line.includes("net::ERR"));

export async function fill(page, form, values) {
  for (const [name, value] of Object.entries(values))
    await page.locator(`#${form} [name=${name}]`).fill(value);
}

export async function publish(page, values) {
  await fill(page, "publish-form", values);
  const verdict = page.locator("#verdict");
  const answered = page.waitForResponse((response) => response.url().endsWith("/publish"));
  await page.locator("#publish-form button.main").click();
  await answered;
  await verdict.locator(".chip").waitFor();
  return (await verdict.innerText()).replaceAll(/\s+/g, " ");
}

export async function search(page, values) {
  await fill(page, "find-form", { topic: "", ...values });
  await page.locator("#find-form button.main").click();
}
