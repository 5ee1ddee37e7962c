// A log to test against: the debug build, on a port and a store of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROGRAM = process.env.SEKALI ?? new URL("../../target/debug/sekali", import.meta.url).pathname;

export class Log {
  #home;
  #port;
  #process = null;
  #environment = {};

  /** Starts a log with an empty store and these variables in its environment. */
  static async start(environment = {}) {
    const log = new Log();
    log.#environment = environment;
    log.#home = await mkdtemp(join(tmpdir(), "sekali-e2e-"));
    log.#port = await freePort();
    await log.begin();
    return log;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  /**
   * Starts the program on the same port, and waits until it listens; `store` is the file of another
   * store.
   */
  async begin({ store: file = "log.db" } = {}) {
    const store = `sqlite:${join(this.#home, file)}`;
    const child = spawn(PROGRAM, ["serve", "--bind", `127.0.0.1:${this.#port}`, "--store", store], {
      cwd: this.#home,
      env: { ...process.env, ...this.#environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    const said = [];
    const listening = new Promise((resolve, reject) => {
      for (const output of [child.stdout, child.stderr]) {
        createInterface({ input: output }).on("line", (line) => {
          said.push(line);
          if (line.includes("listening on")) resolve();
        });
      }
      child.once("exit", (code) => reject(new Error(`sekali ended with ${code}:\n${said.join("\n")}`)));
    });
    await listening;
  }

  /** Ends the program in order, if it runs; the store stays. */
  async end() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await ended;
  }

  /** Ends the program and removes its store. */
  async remove() {
    await this.end();
    await rm(this.#home, { recursive: true });
  }

  /** Publishes events and returns the verdicts. */
  async publish(...events) {
    const whole = events.map(({ payload = "{}", ...rest }) => {
      const texts = { timestamp: "2026-11-22T10:00:00Z", source: "e2e", ...rest };
      return `${JSON.stringify(texts).slice(0, -1)},"payload":${payload}}`;
    });
    const answer = await fetch(`${this.url}/publish`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: `[${whole.join(",")}]`,
    });
    if (!answer.ok) throw new Error(await answer.text());
    return (await answer.json()).results;
  }
}

/**
 * A port that nobody listens on, below those that the system gives to connections: a log that is
 * started again must find it free.
 */
async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 10_000);
    const server = createServer();
    const taken = await new Promise((told) => {
      server.once("error", () => told(true));
      server.listen(port, "127.0.0.1", () => told(false));
    });
    if (taken) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
