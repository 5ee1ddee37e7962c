// Writes docs/console.png and docs/console-dark.png: the console of a log that a small shop writes to.

import { Browser } from "./browser.mjs";
import { Log } from "./log.mjs";
import { events } from "./sample.mjs";

const docs = new URL("../../docs/", import.meta.url).pathname;
const seconds = Number(process.env.SECONDS_SHOWN ?? 60);
const extra = process.env.EXTRA; // A folder for pictures of a phone and of an event, to look at.

const log = await Log.start();
const browser = await Browser.start({ viewport: { width: 1240, height: 940 } });
const source = events();
const take = (amount) => Array.from({ length: amount }, () => source.next().value);
await log.publish(...take(4_000));

const { page, wrong } = await browser.open(`${log.url}/?topic=payments`);
let shown = false;
/** Waves of events, until the pictures are taken. */
async function waves() {
  for (let step = 0; !shown; step += 1) {
    await log.publish(...take(Math.round(14 + 8 * Math.sin(step / 40) + 6 * Math.sin(step / 7))));
    await page.waitForTimeout(100);
  }
}
const load = waves();
await page.waitForTimeout(seconds * 1000);

const dark = (on) => page.emulateMedia({ colorScheme: on ? "dark" : "light" });
await dark(false);
await page.waitForTimeout(1_200);
await page.screenshot({ path: `${docs}console.png` });
await dark(true);
await page.waitForTimeout(1_200);
await page.screenshot({ path: `${docs}console-dark.png` });
if (extra !== undefined) {
  await fillForms();
  await page.locator("#tail a.open").first().click();
  await page.waitForTimeout(300);
  await page.screenshot({ path: `${extra}/event-dark.png` });
  await dark(false);
  await page.screenshot({ path: `${extra}/event.png` });
  await page.keyboard.press("Escape");
  await page.screenshot({ path: `${extra}/full.png`, fullPage: true });
  await page.setViewportSize({ width: 360, height: 780 });
  await page.waitForTimeout(1_200);
  await page.screenshot({ path: `${extra}/phone.png`, fullPage: true });
}
shown = true;
await load;
await browser.close();
await log.remove();
if (wrong.length > 0) throw new Error(wrong.join("\n"));

async function fillForms() {
  await page.locator("#publish-form [name=topic]").fill("orders");
  await page.locator("#publish-form button.main").click();
  await page.locator("#verdict .accepted").waitFor();
  await page.locator("#find-form [name=event_id]").fill("nothing");
  await page.locator("#find-form button.main").click();
  await page.evaluate(() => scrollTo(0, 0));
  await page.mouse.move(2, 2);
}
