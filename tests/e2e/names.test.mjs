// Names and ids that are hard to show: long, without spaces, from right to left, invisible,
// stacked.

import assert from "node:assert/strict";
import { test } from "node:test";

import axe from "axe-core";

import { opened, publish, search, useBrowser } from "./page.mjs";

useBrowser();

const NAMES = {
  long: "x".repeat(255),
  longRtl: "מ".repeat(127),
  rtl: "مرحبا-1 (x)",
  override: "abc\u202edcba\u2066",
  stacked: `z${"\u0301\u0327\u0308".repeat(40)}`,
  family: "👩‍👩‍👧‍👦🏳️‍🌈",
  unseen: "\u200b",
  spaces: "  a   b  ",
  lines: "a\u2028b\u2029c",
  dot: ".",
  dots: "..",
};
const EVENTS = Object.values(NAMES).map((name) => ({
  topic: name,
  event_id: name,
  source: name,
  payload: JSON.stringify({ [name]: name }),
}));

const contentOf = (page, selector) =>
  page
    .locator(selector)
    .first()
    .evaluate((found) => found.textContent);

test("a long name takes one line in each list, and stands in full in the view of its topic and event", async (context) => {
  const { page, wrong } = await opened(context, {
    events: [...EVENTS, ...EVENTS],
    topic: NAMES.long,
  });
  await page.locator("#tail tbody tr").first().waitFor();
  await search(page, { event_id: NAMES.long });
  await page.locator("dialog[open]").waitFor();
  assert.equal(await contentOf(page, "#event-facts div:first-child dd"), NAMES.long);
  await page.keyboard.press("Escape");
  await page.locator("dialog#event:not([open])").waitFor({ state: "attached" });
  await publish(page, { topic: NAMES.long, event_id: NAMES.long, payload: "{}" });
  for (const width of [1360, 800, 360]) {
    await page.setViewportSize({ width, height: 800 });
    const rows = await page
      .locator("#topic-table tbody tr, #tail tbody tr, #sources tbody tr, #found li")
      .evaluateAll((found) =>
        found.map((one) => [one.closest("[id]").id, one.getBoundingClientRect().height]),
      );
    assert.ok(rows.length > 12, `${rows.length}`);
    // How late stands in a second line below the numbers of a phone, and when it was received
    // behind a topic that was found.
    for (const [place, height] of rows)
      assert.ok(
        height < (["sources", "found-list"].includes(place) ? 90 : 45),
        `${width}: ${height} pixels in ${place}`,
      );
    assert.ok(
      (await page
        .locator("#topic-title")
        .evaluate((found) => found.getBoundingClientRect().height)) < 60,
      `${width}: the title`,
    );
    assert.equal(await contentOf(page, "#topic-facts dd"), NAMES.long);
    const sideways = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.equal(sideways, 0, `${width}`);
  }
  // Its accessible name is the whole one, and the pointer shows it.
  const link = page.locator("#topic-table tbody a", { hasText: NAMES.long });
  assert.equal(await link.locator("bdi").getAttribute("title"), NAMES.long);
  await page.getByRole("link", { name: NAMES.long, exact: true }).first().waitFor();
  assert.deepEqual(wrong, []);
});

test("each name is itself in every place, and changes none of its neighbours", async (context) => {
  const { page, wrong } = await opened(context, {
    events: [...EVENTS, ...EVENTS, { topic: "between", event_id: "between" }],
  });
  await page.evaluate(axe.source);
  await page.locator("#topic-table tbody tr").nth(11).waitFor();
  const shown = await page
    .locator("#topic-table tbody a")
    .evaluateAll((links) => links.map((link) => link.textContent));
  for (const name of Object.values(NAMES)) {
    assert.ok(shown.includes(name), JSON.stringify(name));
    await page.locator("#topic-table tbody a").nth(shown.indexOf(name)).click();
    await page.locator("#tail tbody tr:only-child").waitFor();
    assert.equal(await contentOf(page, "#topic-title"), `Live tail of ${name}`);
    assert.equal(await contentOf(page, "#tail tbody th"), name);
    await page.locator("#tail tbody a").click();
    await page.locator("dialog[open]").waitFor();
    assert.equal(await contentOf(page, "#event-title"), name);
    assert.equal(
      await contentOf(page, "#event-payload"),
      `{\n  ${JSON.stringify(name)}: ${JSON.stringify(name)}\n}`,
    );
    await page.keyboard.press("Escape");
    await page.locator("dialog#event:not([open])").waitFor({ state: "attached" });
    // Digits beside a name stand where they would without it: left to right, each in its own cell,
    // none outside.
    const faults = await page
      .locator("#topic-table tbody tr, #tail tbody tr, #sources tbody tr")
      .evaluateAll((rows) =>
        rows.flatMap((row) => {
          const cells = [...row.children]
            .filter((cell) => cell.getClientRects().length > 0)
            .map((cell) => cell.getBoundingClientRect());
          const inOrder = cells.every(
            (cell, index) =>
              index === 0 ||
              cell.left >= cells[index - 1].right - 1 ||
              cell.top >= cells[index - 1].bottom - 1,
          );
          const isOutside = [...row.querySelectorAll("a, .cut")].some(
            (one) => one.getBoundingClientRect().bottom > row.getBoundingClientRect().bottom + 1,
          );
          return inOrder && !isOutside ? [] : [row.textContent];
        }),
      );
    assert.deepEqual(faults, [], JSON.stringify(name));
  }
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(
    violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]),
    [],
  );
  assert.deepEqual(wrong, []);
});

test("what nobody would see is shown by its number, and what it does to directions ends with it", async (context) => {
  const { page } = await opened(context, { events: EVENTS });
  await page.locator("#topic-table tbody tr").nth(10).waitFor();
  const numbers = await page
    .locator("#topic-table tbody .mark")
    .evaluateAll((marks) =>
      marks.map((mark) => [
        getComputedStyle(mark, "::before").content,
        getComputedStyle(mark).display,
      ]),
    );
  const shown = numbers.map(([content]) => content.replaceAll('"', ""));
  for (const number of ["U+202E", "U+2066", "U+200B", "U+2028", "U+2029", "U+0020"])
    assert.ok(shown.includes(number), `${number} in ${shown}`);
  // Chromium takes such a box for a paragraph of its own, which nothing within it can leave.
  assert.ok(numbers.every(([, bidi]) => bidi === "inline-block"));
  // Letters behind an override stand in the order in which they were written, and so does the line
  // in a payload.
  await page.locator("#topic-table tbody a", { hasText: "dcba" }).click();
  await page.locator("#tail tbody a", { hasText: "dcba" }).click();
  await page.locator("dialog[open]").waitFor();
  for (const place of [
    "#topic-table tbody tr.chosen a",
    "#tail tbody th",
    "#tail .source",
    "#tail .payload",
    "#event-title",
    "#event-facts dd",
    "#event-payload",
  ]) {
    const lines = await page
      .locator(place)
      .first()
      .evaluate((found) => {
        const walker = document.createTreeWalker(found, NodeFilter.SHOW_TEXT);
        const byLine = new Map();
        for (let node = walker.nextNode(); node !== null; node = walker.nextNode()) {
          if (node.parentElement.matches(".mark")) continue;
          for (let at = 0; at < node.data.length; at += 1) {
            const range = document.createRange();
            range.setStart(node, at);
            range.setEnd(node, at + 1);
            const { left, bottom, width } = range.getBoundingClientRect();
            if (width > 0)
              byLine.set(Math.round(bottom / 12), [
                ...(byLine.get(Math.round(bottom / 12)) ?? []),
                left,
              ]);
          }
        }
        return [...byLine.values()];
      });
    assert.ok(
      lines.some((lefts) => lefts.length >= 4),
      place,
    );
    for (const lefts of lines)
      assert.deepEqual(
        lefts,
        [...lefts].sort((one, other) => one - other),
        place,
      );
  }
});

test("nothing that changes each second is said by a screen reader", async (context) => {
  const { log, page } = await opened(context, { events: EVENTS, topic: NAMES.dots });
  await page.locator("#tail tbody tr").first().waitFor();
  await page.locator("#tail-state", { hasText: /^live$/ }).waitFor();
  const said = page.evaluate(() => {
    const found = [];
    const isLive = (node) => {
      const place = (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement)?.closest(
        "[aria-live], [role=status], [role=alert], output",
      );
      return place !== null && place !== undefined && place.getAttribute("aria-live") !== "off"
        ? place
        : null;
    };
    const observer = new MutationObserver((changes) =>
      found.push(
        ...changes
          .map(({ target }) => isLive(target))
          .filter((place) => place !== null)
          .map((place) => `${place.id}: ${place.textContent}`),
      ),
    );
    observer.observe(document.body, { subtree: true, childList: true, characterData: true });
    globalThis.said = () => (observer.disconnect(), found);
  });
  await said;
  for (let round = 0; round < 3; round += 1) {
    await log.publish({ topic: "..", event_id: `round-${round}` });
    await page.locator("#tail tbody tr", { hasText: `round-${round}` }).waitFor();
    await page.waitForResponse("**/metrics");
  }
  assert.deepEqual(await page.evaluate(() => globalThis.said()), []);
});
