// The console: looks at the server once a second while somebody looks at the page, and shows what it sees.

import { byId, setText } from "./dom.mjs";
import * as event from "./event.mjs";
import * as find from "./find.mjs";
import * as format from "./format.mjs";
import * as now from "./now.mjs";
import * as publish from "./publish.mjs";
import * as server from "./server.mjs";
import * as tail from "./tail.mjs";
import * as topics from "./topics.mjs";

/** Milliseconds between two looks. */
const BEAT = 1_000;

/** Looks between two readings of the topics and of /stats, where there are more than `MANY` topics. */
const RARELY = 10;
const MANY = 100;

/** The most topics that are listed and searched. */
const TOPICS = 10_000;

let beats = 0;
let chosen = null;
let stats = null;
/** When the process started, in milliseconds. */
let started = null;

async function beat() {
  const begun = performance.now();
  if (!document.hidden) {
    try {
      await look();
      state("good", "ready");
    } catch (error) {
      trouble(error);
    }
  }
  setTimeout(beat, Math.max(100, BEAT - (performance.now() - begun)));
}

async function look() {
  const restarted = now.look(await server.metrics());
  if (restarted) stats = null;
  if (stats === null || beats % (stats.topics_total > MANY ? RARELY : 1) === 0) await survey();
  beats += 1;
  await tail.refresh();
  if (started !== null) facts();
  await server.ready();
}

/** Reads what needs not be read at each look where there are many topics. */
async function survey() {
  stats = await server.stats();
  started = Date.now() - stats.uptime_seconds * 1000;
  now.counted(stats);
  topics.update(await server.topics(TOPICS), stats.topics_total);
  if (chosen === null) choose(topics.newest());
}

function facts() {
  const durability = stats.durability === "full" ? "synced before each answer" : `durability ${stats.durability}`;
  setText(byId("facts"), `up ${format.duration((Date.now() - started) / 1000)} · ${stats.shards} ${stats.shards === 1 ? "shard" : "shards"} · ${durability}`);
}

function state(kind, text, banner = "") {
  byId("state").dataset.kind = kind;
  setText(byId("state-text"), text);
  setText(byId("gone"), banner);
  byId("gone").hidden = banner === "";
  tail.wait(kind === "bad");
}

function trouble(error) {
  if (error instanceof server.NoAnswer) {
    state("bad", "no answer", "The server does not answer. The page asks every second and goes on by itself when it is back.");
    now.gone();
  } else if (error instanceof server.Problem) {
    state("bad", error.title.toLowerCase(), `${error.title}: ${error.message}.`);
  } else {
    state("bad", "fault of this page");
    console.error(error);
  }
}

/** Chooses a topic, and says so in the address, so that it can be sent to somebody. */
function choose(name) {
  if (name === null) return;
  chosen = name;
  const address = new URL(location.href);
  address.searchParams.set("topic", name);
  history.replaceState(null, "", address);
  topics.mark(name);
  tail.show(name);
}

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
event.start();
topics.start((name) => {
  choose(name);
  // On a phone the tail is below the list.
  if (byId("topic").getBoundingClientRect().top > innerHeight * 0.8) byId("topic").scrollIntoView();
});
tail.start();
find.start(async () => (await server.topics(TOPICS)).map(({ topic }) => topic));
publish.start((topic) => { if (chosen === null) choose(topic); });
choose(new URL(location.href).searchParams.get("topic"));
beat();
