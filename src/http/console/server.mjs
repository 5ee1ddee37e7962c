// What the console asks the server. Addresses are relative to the page, so that it also works behind a proxy's prefix.

import { firstOf } from "./format.mjs";
import { event } from "./json.mjs";

/** How long an answer may take, in milliseconds. */
const PATIENCE = 10_000;

/** The most topics of one page, and the most keys of one lookup that are asked for. */
const PAGE = 1_000;

/** An answer that is a problem document. */
export class Problem extends Error {
  constructor(document) {
    super(document.detail ?? document.title);
    Object.assign(this, {
      title: document.title,
      status: document.status,
      code: document.code,
      errors: document.errors ?? [],
      document,
    });
  }
}

/** There was no answer. */
export class NoAnswer extends Error {}

let answered = 0;

/** When the server answered last, in milliseconds. */
export const answeredAt = () => answered;

async function ask(path, options = {}) {
  let response;
  let text;
  try {
    response = await fetch(path, {
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE),
      ...options,
    });
    text = await response.text();
    answered = Date.now();
  } catch {
    throw new NoAnswer("the server does not answer");
  }
  if (response.ok) return text;
  throw refusal(response, text);
}

const refusal = (response, text) =>
  new Problem(
    problemOf(text) ?? {
      title: "Unexpected answer",
      status: response.status,
      code: "unknown",
      detail: firstOf(text, 200),
    },
  );

/** A problem document; null where it is none, from a proxy for instance. */
function problemOf(text) {
  try {
    const document = JSON.parse(text);
    return typeof document?.code === "string" ? document : null;
  } catch {
    return null;
  }
}

const send = (path, body) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body });
const query = (parameters) => new URLSearchParams(parameters).toString();

export const metrics = () => ask("metrics");
export const stats = async () => JSON.parse(await ask("stats"));
export const ready = () => ask("health/ready");

/** All topics by name, up to this many. */
export async function topics(most) {
  const found = [];
  for (let after; found.length < most;) {
    const page = JSON.parse(
      await ask(`topics?${query({ limit: PAGE, ...(after !== undefined && { after }) })}`),
    );
    found.push(...page.topics);
    if (page.topics.length < PAGE) break;
    after = page.next_after;
  }
  return found.slice(0, most);
}

/** Where one topic is read: a query, since browsers take `.` and `..` for steps in a path. */
const topicPath = (name) => `topic?${query({ topic: name })}`;

/** Where one event is read. */
export const eventPath = (name, id) => `event?${query({ topic: name, event_id: id })}`;

/** Where a topic is followed from a place on. */
const followPath = (name, { seq, history }) =>
  `events?${query({ topic: name, after: seq, ...(history !== undefined && { history }) })}`;

/** One topic; null where it has no event. */
export const topic = (name) =>
  orNull("topic_not_found", async () => JSON.parse(await ask(topicPath(name))));

/** One event; null where there is none. */
export const eventOf = (name, id) =>
  orNull("event_not_found", async () => event(await ask(eventPath(name, id))));

/** Where and when events with these keys were stored: `{seq, received_at}` or null for each. */
export async function lookup(keys) {
  const found = [];
  for (let at = 0; at < keys.length; at += PAGE) {
    found.push(
      ...JSON.parse(await send("events/lookup", JSON.stringify(keys.slice(at, at + PAGE)))),
    );
  }
  return found;
}

/** What stands before the payload in the body of a publish. */
export function leadOf({ payload, ...texts }) {
  const written = Object.entries(texts).map(
    ([name, text]) => `${JSON.stringify(name)}:${JSON.stringify(text)}`,
  );
  return `{${written.join(",")},"payload":`;
}

/**
 * Publishes one event, whose payload is sent as it was written. The verdict is that of the server.
 */
export async function publish(event) {
  const answer = JSON.parse(await send("publish", `${leadOf(event)}${event.payload}\n}`));
  return answer.results[0];
}

/** The stream of a topic's events after a cursor, `{seq, history}`: stored ones, then new ones. */
export const follow = (name, cursor) => new EventSource(followPath(name, cursor));

/**
 * Why the server refuses such a stream, which an `EventSource` cannot tell; null where it does not
 * refuse it.
 */
export async function refusalOf(name, cursor) {
  const stop = new AbortController();
  try {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(PATIENCE)]);
    const response = await fetch(followPath(name, cursor), {
      cache: "no-store",
      headers: { accept: "text/event-stream" },
      signal,
    });
    return response.ok ? null : refusal(response, await response.text());
  } catch {
    return null;
  } finally {
    stop.abort();
  }
}

async function orNull(code, read) {
  try {
    return await read();
  } catch (error) {
    if (error instanceof Problem && error.code === code) return null;
    throw error;
  }
}
