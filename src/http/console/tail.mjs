// The chosen topic: what was counted in it, and its newest events as they are stored.

import { write } from "./address.mjs";
import { byId, cut, describe, element, foreign, link, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import { event } from "./json.mjs";
import * as server from "./server.mjs";
import { lateness, table } from "./sources.mjs";
import { Stream } from "./stream.mjs";
import * as topics from "./topics.mjs";

/** The most events that are shown, and how many of the stored ones come first. */
const SHOWN = 100;

/** Milliseconds between two drawings, however fast events come. */
const PACE = 250;

/** The longest piece of a payload in the list, in characters. */
const SNIPPET = 160;

/**
 * The longest name that the title is sure to show whole, in characters; below the title a longer
 * one stands in full.
 */
const SHORT = 40;

/** What stands in place of rows: until it is known whether there are any, and where there are none. */
const READING = "Reading…";
const NONE = "No event is stored in this topic yet. New ones appear here by themselves.";

const list = byId("tail");
const body = list.querySelector("tbody");
const stream = new Stream({ find, onEvent: arrived, onRefused: refused });

let topic = null;
/** Events that came and are not drawn yet, oldest first. Past `SHOWN` the oldest are never drawn. */
let waiting = [];
let passed = 0;
let paused = false;
let held = false;
/** What is away: `server`, `store`, or null. */
let away = null;
let open = () => {};

/** Begins. `onOpen` is called with an event that a person opens. */
export function start(onOpen) {
  open = onOpen;
  setInterval(draw, PACE);
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    draw();
  });
  // Rows do not move away under a mouse, nor under the keys of who walks through them.
  list.addEventListener("pointerenter", ({ pointerType }) => {
    held = pointerType === "mouse";
  });
  list.addEventListener("pointerleave", () => {
    held = false;
  });
  document.addEventListener("visibilitychange", () =>
    document.hidden ? stream.close() : stream.open(),
  );
}

/** Follows this topic from its newest events on. */
export function show(name) {
  topic = name;
  paused = false;
  byId("pause").setAttribute("aria-pressed", "false");
  byId("pause").hidden = false;
  byId("topic-title").replaceChildren("Live tail of ", cut(name));
  note("");
  clear();
  facts(topics.find(name) ?? null);
  stream.follow(name);
}

/** Removes all rows: another list of events begins. */
function clear() {
  waiting = [];
  passed = 0;
  body.replaceChildren();
  list.scrollTop = 0;
  setText(byId("tail-empty"), READING);
  byId("tail-empty").hidden = false;
}

/** Says what is away, `server` or `store`, or null: then nothing new can come. */
export function wait(isAway) {
  const isBack = away === "server" && isAway === null;
  away = isAway;
  // A connection may have died without a word, while the server was away or this machine slept.
  if (isBack && topic !== null) stream.open();
  draw();
}

/** Reads again what was counted in the topic, and returns it; null where it has no event. */
export async function refresh() {
  if (topic === null) return null;
  const name = topic;
  const { cursor } = stream;
  const known = await server.topic(name);
  if (topic !== name) return null;
  const end = known?.last_seq ?? 0;
  if (end === 0) setText(byId("tail-empty"), NONE);
  // An event came that the log does not hold now: the log was replaced by an older state of itself,
  // or by another log.
  if (cursor !== null && stream.cursor !== null && end < cursor.seq) {
    restored(
      `The log was restored: ${end === 0 ? "this topic has no event now" : `its last event is now seq ${end}`}.`,
    );
    stream.open();
  }
  facts(known);
  return known;
}

/** Where the stream begins or resumes. Only the server knows where its newest events are. */
async function find() {
  const known = await refresh();
  return (
    stream.cursor ?? { seq: Math.max(0, (known?.last_seq ?? 0) - SHOWN), history: known?.history }
  );
}

/**
 * The next connection begins at the newest events, since those that are shown are no longer those
 * of the log.
 */
function restored(words) {
  stream.cursor = null;
  clear();
  note(`${words} The list starts again with the newest events.`);
}

function refused(problem) {
  if (problem === null) return;
  if (problem.code === "history_changed") {
    const { common_seq: common } = problem.document;
    restored(`The history of the log changed: events after seq ${common} are lost or replaced.`);
  } else if (problem.status < 500) {
    note(
      `The server refuses to send the events of this topic. ${problem.title}: ${problem.message}.`,
    );
  }
}

/** A notice above the events. */
function note(words) {
  setText(byId("tail-note"), words);
  byId("tail-note").hidden = words === "";
}

function arrived(data) {
  waiting.push(data);
  if (waiting.length > 2 * SHOWN) {
    passed += waiting.length - SHOWN;
    waiting = waiting.slice(-SHOWN);
  }
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
    ["Name", topic.length > SHORT ? foreign(topic) : undefined],
    ["Events", format.count(accepted)],
    [
      "Duplicates",
      `${format.count(duplicates)} (${format.share(duplicates, accepted + duplicates)})`,
    ],
    ["Conflicts", format.count(conflicts)],
    ["Came late", late === undefined || duplicates === 0 ? undefined : lateness(late, ends)],
    ["Lanes", format.count(lanes)],
    ["Last event", format.ago(found.last_received_at)],
  ]);
  byId("sources").replaceChildren(...table(found));
}

function draw() {
  const walking = body.querySelector(":focus-visible") !== null;
  // An empty list has no row that could move.
  const still = paused || ((held || walking) && body.firstChild !== null);
  setText(byId("pause"), paused ? "Go on" : "Pause");
  if (!still && waiting.length > 0) {
    passed += Math.max(0, waiting.length - SHOWN);
    const rows = waiting.splice(0).slice(-SHOWN).map(row).reverse();
    body.prepend(...rows);
    while (body.children.length > SHOWN) body.lastChild.remove();
    byId("tail-empty").hidden = true;
  }
  const [state, more] = stateOf(still);
  setText(byId("tail-word"), state);
  setText(byId("tail-more"), more);
}

/**
 * In words how the tail is, which a screen reader says, and a number, which it does not: that
 * changes all the time.
 */
function stateOf(still) {
  if (topic === null) return ["", ""];
  if (away === "server") return ["not connected", ""];
  if (away === "store") return ["waiting", ""];
  if (!stream.isLive) return ["connecting", ""];
  if (!still) return ["live", passed > 0 ? ", too fast to show all" : ""];
  return [
    "held",
    waiting.length === 0
      ? ""
      : `, ${waiting.length > SHOWN ? `over ${SHOWN}` : waiting.length} new`,
  ];
}

/** The time of day, its milliseconds apart, which a phone has no room for. */
function time(at) {
  const [second, fraction] = format.clock(at).split(".");
  return element(
    "time",
    { datetime: at, title: at },
    second,
    element("span", { class: "fraction" }, `.${fraction}`),
  );
}

function row(text) {
  const found = event(text);
  const { topic: of, event_id: id } = found;
  const shown = link(cut(id), write({ topic: of, event_id: id }), () => open(found), {
    class: "open",
  });
  const made = element(
    "tr",
    {},
    element("td", { class: "number seq" }, found.seq),
    element("th", { scope: "row" }, shown),
    element("td", { class: "source" }, cut(found.source)),
    element("td", { class: "payload" }, foreign(format.firstOf(found.payload, SNIPPET))),
    element("td", { class: "number time" }, time(found.received_at)),
  );
  made.addEventListener("click", ({ target }) => {
    if (!shown.contains(target)) open(found);
  });
  return made;
}
