// The chosen topic: what was counted in it, and its newest events as they are stored.

import { byId, button, describe, element, foreign, setText } from "./dom.mjs";
import { open } from "./event.mjs";
import * as format from "./format.mjs";
import { event } from "./json.mjs";
import * as server from "./server.mjs";
import { lateness, table } from "./sources.mjs";
import * as topics from "./topics.mjs";

/** The most events that are shown, and how many of the stored ones come first. */
const SHOWN = 100;

/** Milliseconds between two drawings, however fast events come. */
const PACE = 250;

/** Milliseconds until a stream that the server refused is asked for again. */
const AGAIN = 1_000;

/** The longest piece of a payload in the list, in characters. */
const SNIPPET = 160;

/** What stands in place of rows: until it is known whether there are any, and where there are none. */
const READING = "Reading…";
const NONE = "No event is stored in this topic yet. New ones appear here by themselves.";

const list = byId("tail");
const body = list.querySelector("tbody");

let topic = null;
let stream = null;
let retry = null;
/** The last seq that came, as a number: where the stream goes on. */
let last = 0;
/** Events that came and are not drawn yet, oldest first. Past `SHOWN` the oldest are never drawn. */
let waiting = [];
let passed = 0;
let paused = false;
let held = false;
let away = false;

/** Begins. */
export function start() {
  setInterval(draw, PACE);
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    draw();
  });
  // Rows do not move away under a mouse, nor under the keys of who walks through them.
  list.addEventListener("pointerenter", ({ pointerType }) => { held = pointerType === "mouse"; });
  list.addEventListener("pointerleave", () => { held = false; });
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : begin()));
}

/** Follows this topic from its newest events on. */
export function show(name) {
  close();
  topic = name;
  waiting = [];
  passed = 0;
  paused = false;
  byId("pause").setAttribute("aria-pressed", "false");
  byId("pause").hidden = false;
  body.replaceChildren();
  list.scrollTop = 0;
  byId("topic-title").replaceChildren("Live tail of ", foreign(name));
  setText(byId("tail-empty"), READING);
  byId("tail-empty").hidden = false;
  last = 0;
  facts(topics.find(name) ?? null);
  begin();
}

/** Says whether the server or its store is away: then nothing new can come. */
export function wait(isAway) {
  away = isAway;
  draw();
}

/** Reads anew what was counted in the topic. */
export async function refresh() {
  if (topic === null) return;
  const name = topic;
  const answer = (await server.topic(name)) ?? topics.find(name) ?? null;
  if (topic !== name) return;
  // Begin with the newest; and so anew where another store has taken the place of the one before, whose seqs are smaller.
  const end = answer?.last_seq ?? 0;
  if (end === 0) setText(byId("tail-empty"), NONE);
  if (last === 0 || (stream === null && end < last)) last = Math.max(0, end - SHOWN);
  facts(answer);
}

function facts(found) {
  const list = byId("topic-facts");
  if (found === null) {
    list.replaceChildren();
    byId("sources").replaceChildren();
    return;
  }
  const { accepted, duplicates, conflicts, lanes, late, late_up_to_seconds: ends } = found;
  describe(list, [
    ["Events", format.count(accepted)],
    ["Duplicates", `${format.count(duplicates)} (${format.share(duplicates, accepted + duplicates)})`],
    ["Conflicts", format.count(conflicts)],
    ["Came late", late === undefined || duplicates === 0 ? undefined : lateness(late, ends)],
    ["Lanes", format.count(lanes)],
    ["Last event", format.ago(found.last_received_at)],
  ]);
  byId("sources").replaceChildren(...table(found));
}

function close() {
  clearTimeout(retry);
  stream?.close();
  stream = null;
}

/** Follows the topic from where we are, which only the server knows at first. */
async function begin() {
  const name = topic;
  try {
    await refresh();
    if (topic === name) resume();
  } catch {
    if (topic === name) again();
  }
}

function resume() {
  if (topic === null || stream !== null || document.hidden) return;
  clearTimeout(retry);
  stream = server.follow(topic, last);
  stream.onmessage = ({ lastEventId, data }) => {
    last = Number(lastEventId);
    waiting.push(data);
    if (waiting.length > 2 * SHOWN) {
      passed += waiting.length - SHOWN;
      waiting = waiting.slice(-SHOWN);
    }
  };
  stream.addEventListener("end", again);
  // A broken connection the browser mends by itself; a refusal it does not.
  stream.onerror = () => { if (stream?.readyState === EventSource.CLOSED) again(); };
}

/** Comes again after a moment, at the place where the stream ended. */
function again() {
  close();
  retry = setTimeout(begin, AGAIN);
}

function draw() {
  const walking = body.querySelector(":focus-visible") !== null;
  const still = paused || held || walking;
  setText(byId("pause"), paused ? "Go on" : "Pause");
  if (!still && waiting.length > 0) {
    passed += Math.max(0, waiting.length - SHOWN);
    const rows = waiting.splice(0).slice(-SHOWN).map(row).reverse();
    body.prepend(...rows);
    while (body.children.length > SHOWN) body.lastChild.remove();
    byId("tail-empty").hidden = true;
  }
  setText(byId("tail-state"), stateOf(still));
}

function stateOf(still) {
  if (topic === null) return "";
  if (away) return "waiting";
  if (stream?.readyState !== EventSource.OPEN) return "connecting";
  if (!still) return passed > 0 ? "live, too fast to show all" : "live";
  return waiting.length === 0 ? "held" : `held, ${waiting.length > SHOWN ? `over ${SHOWN}` : waiting.length} new`;
}

/** The time of day, its milliseconds apart, which a phone has no room for. */
function time(at) {
  const [second, fraction] = format.clock(at).split(".");
  return element("time", { datetime: at, title: at }, second, element("span", { class: "fraction" }, `.${fraction}`));
}

function row(text) {
  const found = event(text);
  const shown = button(foreign(found.event_id), () => open(found), { class: "open" });
  const made = element("tr", {},
    element("td", { class: "number seq" }, found.seq),
    element("th", { scope: "row" }, shown),
    element("td", { class: "source" }, foreign(found.source)),
    element("td", { class: "payload" }, foreign(found.payload.slice(0, SNIPPET))),
    element("td", { class: "number time" }, time(found.received_at)),
  );
  made.addEventListener("click", ({ target }) => { if (!shown.contains(target)) open(found); });
  return made;
}
