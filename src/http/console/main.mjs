// The console: looks at the server once a second while somebody looks at the page, and shows what it sees.

import { byId, foreign, setText } from "./dom.mjs";
import * as event from "./event.mjs";
import * as find from "./find.mjs";
import * as format from "./format.mjs";
import * as now from "./now.mjs";
import * as publish from "./publish.mjs";
import * as route from "./route.mjs";
import * as server from "./server.mjs";
import * as tail from "./tail.mjs";
import * as topics from "./topics.mjs";

/** Milliseconds between two looks. */
const BEAT = 1_000;

/** Milliseconds without an answer until the page says so; the answer may still come. */
const LATE = 4_000;

/** Looks between two readings of the topics and of /stats, where there are more than `MANY` topics. */
const RARELY = 10;
const MANY = 100;

/** The most topics that are listed and searched. */
const TOPICS = 10_000;

let beats = 0;
let stats = null;
/** When the process started, in milliseconds. */
let started = null;
/**
 * When the figures were last read, when the look that is under way began, and since when there is
 * no answer: milliseconds or null.
 */
let seen = null;
let asked = null;
let silent = null;
/** Whether the event that the address names could not be read, for want of an answer. */
let unread = false;
let timer = null;

async function beat() {
  clearTimeout(timer);
  if (asked !== null) return;
  const begun = performance.now();
  if (!document.hidden) {
    asked = Date.now();
    try {
      await look();
      good();
    } catch (error) {
      trouble(error);
    }
    asked = null;
  }
  timer = setTimeout(beat, Math.max(100, BEAT - (performance.now() - begun)));
}

async function look() {
  const restarted = now.look(await server.metrics());
  if (restarted) stats = null;
  if (stats === null || beats % (stats.topics_total > MANY ? RARELY : 1) === 0) await survey();
  beats += 1;
  await tail.refresh();
  if (started !== null) facts();
  seen = Date.now();
  stale(false);
  await server.ready();
}

/** Reads what needs not be read at each look where there are many topics. */
async function survey() {
  stats = await server.stats();
  started = Date.now() - stats.uptime_seconds * 1000;
  now.counted(stats);
  topics.update(await server.topics(TOPICS), stats.topics_total);
  if (route.current().topic === null) route.go({ topic: topics.newest() }, { replace: true });
}

function facts() {
  const durability =
    stats.durability === "full" ? "synced before each answer" : `durability ${stats.durability}`;
  setText(
    byId("facts"),
    `up ${format.duration((Date.now() - started) / 1000)} · ${stats.shards} ${stats.shards === 1 ? "shard" : "shards"} · ${durability}`,
  );
}

function state(kind, text, banner = "", away = null) {
  byId("state").dataset.kind = kind;
  setText(byId("state-text"), text);
  setText(byId("gone"), banner);
  byId("gone").hidden = banner === "";
  tail.wait(away);
}

function good() {
  silent = null;
  state("good", "ready");
  const { topic, event_id: id } = route.current();
  if (!unread) return;
  unread = false;
  if (id !== null) openEvent(topic, id, { isAgain: true });
}

function trouble(error) {
  if (error instanceof server.NoAnswer) {
    noAnswer();
  } else if (error instanceof server.Problem) {
    silent = null;
    // The figures were read, and it is the store that is not ready.
    const isRead = seen !== null && seen >= asked;
    stale(!isRead);
    state(
      "bad",
      error.title.toLowerCase(),
      `${error.title}: ${error.message}.${isRead ? "" : asOf()}`,
      "store",
    );
  } else {
    state("bad", "fault of this page");
    console.error(error);
  }
}

/** The server does not answer, or not yet. */
function noAnswer() {
  silent ??= Math.max(asked, server.answeredAt());
  stale(true);
  const since = `The server does not answer since ${format.second(silent)}.`;
  state(
    "bad",
    "no answer",
    `${since}${asOf()} The page asks every second, and shows new figures when the server is back.`,
    "server",
  );
  now.gone();
}

const asOf = () => (seen === null ? "" : ` The figures are as of ${format.second(seen)}.`);

/** Marks the figures as old, or as those of now. */
function stale(isOld) {
  if (isOld) document.documentElement.dataset.stale = "";
  else delete document.documentElement.dataset.stale;
  for (const place of document.querySelectorAll(".as-of")) {
    place.hidden = !isOld || seen === null;
    setText(place, seen === null ? "" : `as of ${format.second(seen)}`);
  }
  if (isOld && seen !== null) setText(byId("facts"), "");
}

/** Shows what differs from the view before. */
function show(view, before, { isSearch = false, known = null }) {
  if (view.topic !== null && view.topic !== before.topic) {
    topics.mark(view.topic);
    tail.show(view.topic);
  }
  const isOther = view.find !== before.find || view.find_topic !== before.find_topic;
  if (view.find === null && isOther) find.clear();
  if (view.find !== null && (isOther || isSearch)) search(view, isSearch);
  if (view.event_id === null) event.close();
  else if (view.topic !== before.topic || view.event_id !== before.event_id || !event.isOpen())
    openEvent(view.topic, view.event_id, { known });
  document.title =
    [view.event_id, view.topic]
      .filter((name) => name !== null)
      .map((name) => `\u2068${name}\u2069 · `)
      .join("") + "sekali";
}

/** Searches, and opens the only event that is found if a person asked for it just now. */
async function search({ find: id, find_topic: topic }, isNew) {
  const only = await find.search(id, topic);
  if (isNew && only !== null) goToEvent(only, id);
}

async function openEvent(topic, id, { known = null, isAgain = false } = {}) {
  const isCurrent = () => route.current().topic === topic && route.current().event_id === id;
  try {
    const isStored = await event.open(topic, id, known);
    if (!isCurrent()) return;
    if (!isStored)
      say("No event with the id ", foreign(id), " is stored in the topic ", foreign(topic), ".");
    else if (isAgain) say("");
  } catch (error) {
    if (!isCurrent()) return;
    unread = true;
    say("The event ", foreign(id), ` cannot be read: ${error.message}.`);
  }
}

/** Says something about what the address names. */
function say(...words) {
  byId("address").replaceChildren(...words);
  byId("address").hidden = words.every((word) => word === "");
}

const goToEvent = (topic, id, known = null) => route.go({ topic, event_id: id }, { known });

/** The colour scheme: that of the system, or the one that was chosen. */
function colours() {
  const select = byId("theme");
  select.value = document.documentElement.dataset.theme;
  select.addEventListener("change", () => {
    document.documentElement.dataset.theme = select.value;
    try {
      localStorage.setItem("sekali-theme", select.value);
    } catch {
      // A browser that keeps nothing: it holds until the page is closed.
    }
    now.recolour();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", now.recolour);
}

colours();
event.start(route.leaveEvent);
topics.start((name) => {
  route.go({ topic: name, event_id: null });
  // On a phone the tail is below the list.
  if (byId("topic").getBoundingClientRect().top > innerHeight * 0.8) byId("topic").scrollIntoView();
});
tail.start((found) => goToEvent(found.topic, found.event_id, found));
find.start({
  names: async () => {
    const names = (await server.topics(TOPICS)).map(({ topic }) => topic);
    return { names, total: Math.max(names.length, stats?.topics_total ?? 0) };
  },
  onSearch: (id, topic) =>
    route.go({ find: id, find_topic: topic, event_id: null }, { isSearch: true }),
  onOpen: goToEvent,
});
publish.start({
  onStored: (topic) => {
    if (route.current().topic === null) route.go({ topic }, { replace: true });
  },
  onOpen: goToEvent,
});
route.start({
  onShow: show,
  onFaults: (faults) =>
    say(faults.length === 0 ? "" : `The address of this page is wrong: ${faults.join("; ")}.`),
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) beat();
});
setInterval(() => {
  if (asked !== null && Date.now() - Math.max(asked, server.answeredAt()) > LATE) noAnswer();
}, 500);
beat();
