// Debian's Chromium, and pages that notice whatever must not happen on any of them.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

/** How long anything may take, in milliseconds, on a machine that does other things too. */
const PATIENCE = 120_000;

/** A name that leads to this machine, as an attacker lets one. */
export const REBOUND = "rebound.example";

/** A name of the operator's that leads to this machine, without TLS. */
export const LISTED = "log.example";

/** What a person has, by default. */
const DESK = { viewport: { width: 1360, height: 900 } };

export class Browser {
  #home;
  #context;

  static async start(options = {}) {
    const browser = new Browser();
    browser.#home = await mkdtemp(join(tmpdir(), "sekali-chromium-"));
    browser.#context = await chromium.launchPersistentContext(browser.#home, {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", `--host-resolver-rules=MAP ${REBOUND} 127.0.0.1, MAP ${LISTED} 127.0.0.1`],
      ...DESK,
      ...options,
    });
    return browser;
  }

  /**
   * A page that shows this address, and the list of what went wrong on it. `prepare` gets the page
   * while it is empty.
   */
  async open(url, prepare = () => {}) {
    const page = await this.#context.newPage();
    page.setDefaultTimeout(PATIENCE);
    const wrong = [];
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) wrong.push(`console: ${message.text()}`); });
    page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => { wrong.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", (request) => { if (!isOurs(request, page)) wrong.push(`asked elsewhere: ${request.url()}`); });
    await page.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => console.error(`policy: ${violatedDirective} ${blockedURI}`));
    });
    await prepare(page);
    await page.goto(url);
    return { page, wrong };
  }

  async close() {
    await this.#context.close();
    await rm(this.#home, { recursive: true });
  }
}

/** A request for the page itself, or from it to where it came from. */
function isOurs(request, page) {
  return request.isNavigationRequest() || new URL(request.url()).origin === new URL(page.url()).origin;
}
