// The list of topics: filtered by name, sorted, a page at a time, so that a thousand are as quick as one.

import { write } from "./address.mjs";
import { byId, cut, element, link, setText } from "./dom.mjs";
import * as format from "./format.mjs";

const ROWS = 12;

/** The most names that the topic fields propose. */
const PROPOSED = 200;

const body = byId("topic-table").querySelector("tbody");
const share = ({ accepted, duplicates }) => duplicates / Math.max(1, accepted + duplicates);

/** What each column sorts by, and whether its greatest comes first. */
const COLUMNS = {
  topic: { of: null, down: false },
  accepted: { of: (topic) => topic.accepted, down: true },
  share: { of: share, down: true },
  conflicts: { of: (topic) => topic.conflicts, down: true },
  last: { of: (topic) => Date.parse(topic.last_received_at), down: true },
};

let all = [];
let total = 0;
let sort = "topic";
let page = 0;
let chosen = null;
let choose = () => {};
/** The rows that stand there, by topic, so that a row keeps its place, its focus and its selection. */
let rows = new Map();

/** Begins. `onChoose` is called with the topic that a person chooses. */
export function start(onChoose) {
  choose = onChoose;
  byId("filter").addEventListener("input", () => { page = 0; draw(); });
  byId("page-before").addEventListener("click", () => { page -= 1; draw(); });
  byId("page-next").addEventListener("click", () => { page += 1; draw(); });
  for (const head of document.querySelectorAll("[data-sort]")) {
    head.addEventListener("click", () => { sort = head.dataset.sort; page = 0; draw(); });
  }
}

/** The topics that there are now; `count` is how many there are in all. */
export function update(topics, count) {
  all = topics;
  total = count;
  propose();
  draw();
}

export const known = () => all.map(({ topic }) => topic);
export const find = (name) => all.find(({ topic }) => topic === name);

/** The topic that got an event last. */
export function newest() {
  return all.reduce((best, topic) => (best === null || topic.last_received_at > best.last_received_at ? topic : best), null)?.topic ?? null;
}

/** Marks this topic as the chosen one. */
export function mark(name) {
  chosen = name;
  draw();
}

function draw() {
  const wanted = byId("filter").value.toLowerCase();
  const found = all.filter(({ topic }) => topic.toLowerCase().includes(wanted));
  const { of, down } = COLUMNS[sort];
  // The server's order is that of the names.
  if (of !== null) found.sort((one, other) => of(other) - of(one));
  const pages = Math.max(1, Math.ceil(found.length / ROWS));
  page = Math.min(Math.max(page, 0), pages - 1);
  place(found.slice(page * ROWS, (page + 1) * ROWS));
  for (const head of document.querySelectorAll("[data-sort]")) {
    const direction = head.dataset.sort === sort ? (down ? "descending" : "ascending") : "none";
    head.closest("th").setAttribute("aria-sort", direction);
  }
  byId("pager").hidden = pages === 1;
  enable(byId("page-before"), page > 0, byId("page-next"));
  enable(byId("page-next"), page < pages - 1, byId("page-before"));
  setText(byId("page-now"), `${page + 1} of ${pages}`);
  setText(byId("topics-count"), counted(found.length));
  empty(found.length === 0, wanted);
}

/** A button that ends its own use hands the focus to the other one. */
function enable(one, isOn, other) {
  const focused = document.activeElement === one;
  one.disabled = !isOn;
  if (!focused || isOn) return;
  other.disabled = false;
  other.focus();
}

function counted(found) {
  if (found < all.length) return `${format.count(found)} of ${format.count(all.length)}`;
  return total > all.length ? `the first ${format.count(all.length)} of ${format.count(total)}` : format.count(total);
}

/** Puts the rows of these topics there, and moves none that need not move. */
function place(topics) {
  const next = new Map(topics.map((topic) => [topic.topic, rows.get(topic.topic) ?? row(topic.topic)]));
  for (const [name, { made }] of rows) if (!next.has(name)) made.remove();
  rows = next;
  topics.forEach((topic, index) => {
    const shown = rows.get(topic.topic);
    fill(shown, topic);
    if (body.children[index] !== shown.made) {
      const focused = shown.made.contains(document.activeElement) ? document.activeElement : null;
      body.insertBefore(shown.made, body.children[index] ?? null);
      focused?.focus();
    }
  });
}

function row(name) {
  const cell = (label) => element("td", { class: "number", "data-label": label });
  const open = link(cut(name), write({ topic: name }), () => choose(name), { class: "open" });
  const [events, duplicates, conflicts, last] = ["Events", "Duplicates", "Conflicts", "Last"].map(cell);
  const bar = element("span", { class: "bar", "aria-hidden": "true" }, element("i"));
  const percent = element("span");
  duplicates.append(bar, percent);
  const made = element("tr", {}, element("th", { scope: "row" }, open), events, duplicates, conflicts, last);
  return { made, open, events, bar, percent, conflicts, last };
}

function fill({ made, open, events, bar, percent, conflicts, last }, topic) {
  setText(events, format.count(topic.accepted));
  bar.firstChild.style.width = `${100 * share(topic)}%`;
  setText(percent, format.share(topic.duplicates, topic.accepted + topic.duplicates));
  setText(conflicts, format.count(topic.conflicts));
  conflicts.classList.toggle("alarm", topic.conflicts > 0);
  setText(last, format.ago(topic.last_received_at));
  made.classList.toggle("chosen", topic.topic === chosen);
  if (topic.topic === chosen) open.setAttribute("aria-current", "true");
  else open.removeAttribute("aria-current");
}

function empty(nothing, wanted) {
  const place = byId("topics-empty");
  byId("topic-table").hidden = nothing;
  place.hidden = !nothing;
  const kind = wanted === "" ? "none" : "filtered";
  if (!nothing || place.dataset.kind === kind) return;
  place.dataset.kind = kind;
  place.replaceChildren(...(kind === "none" ? welcome() : [element("p", {}, "No topic has this in its name.")]));
}

function welcome() {
  return [
    element("p", {}, "No event is stored yet. Publish one below, or from a terminal:"),
    element("pre", { tabindex: "0" }, "sekali publish config/example-events.ndjson"),
    element("p", {}, "Topics appear here with their first event."),
  ];
}

function propose() {
  const list = byId("topic-names");
  const names = known().slice(0, PROPOSED);
  if (names.length === list.children.length && names.every((name, index) => list.children[index].value === name)) return;
  list.replaceChildren(...names.map((name) => element("option", { value: name })));
}
