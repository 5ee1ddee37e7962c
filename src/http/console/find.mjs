// Finding an event by its exact id, in one topic or in all.

import { write } from "./address.mjs";
import { byId, cut, element, link, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import * as server from "./server.mjs";

/** The most topics with the id that are shown; a filter finds the others. */
const SHOWN = 50;

const form = byId("find-form");
const said = byId("found-said");
const list = byId("found-list");
const filter = byId("found-filter");
const help = [...said.childNodes];

let topics = async () => ({ names: [], total: 0 });
let open = () => {};
/** What the newest search found; a search that ends later is not shown. */
let hits = [];
let id = "";
let turn = 0;

/**
 * Begins. `names` promises the topics that are searched, and how many there are in all; `onSearch`
 * is called with what a person searches for, `onOpen` with the topic and id of an event that is
 * opened.
 */
export function start({ names, onSearch, onOpen }) {
  topics = names;
  open = onOpen;
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const { event_id: find, topic } = Object.fromEntries(new FormData(form));
    onSearch(find, topic === "" ? null : topic);
  });
  filter.addEventListener("input", draw);
}

/** Shows the form as before any search. */
export function clear() {
  turn += 1;
  form.reset();
  shown([], help);
}

/**
 * Searches for an id in a topic, or in all where that is null. Returns the topic of a single event
 * that has it, otherwise null.
 */
export async function search(wanted, topic) {
  const mine = (turn += 1);
  form.elements.event_id.value = wanted;
  form.elements.topic.value = topic ?? "";
  filter.value = "";
  shown([], ["Looking…"]);
  try {
    const { names, total } = topic === null ? await topics() : { names: [topic], total: 1 };
    const found = await server.lookup(names.map((name) => ({ topic: name, event_id: wanted })));
    if (mine !== turn) return null;
    id = wanted;
    shown(found.flatMap((at, index) => (at === null ? [] : [{ ...at, topic: names[index] }])));
    if (hits.length === 0)
      said.replaceChildren(
        "No event with the id ",
        element("b", {}, cut(wanted)),
        " is stored ",
        ...place(topic, names.length, total),
        ".",
      );
    return hits.length === 1 ? hits[0].topic : null;
  } catch (error) {
    if (mine === turn) shown([], [element("span", { class: "bad" }, error.message)]);
    return null;
  }
}

function place(topic, searched, total) {
  if (topic !== null) return ["in ", cut(topic)];
  const first = total > searched ? `the first ${format.count(searched)} of ` : "";
  return [`in any of ${first}${format.count(Math.max(total, searched))} topics`];
}

/** Puts these hits there, or words in their place. */
function shown(found, words = null) {
  hits = found;
  filter.hidden = hits.length <= SHOWN;
  draw();
  if (words !== null) said.replaceChildren(...words);
}

/** Draws the hits whose topic has the filter's text in its name. */
function draw() {
  const wanted = filter.value.toLowerCase();
  const named = filter.hidden
    ? hits
    : hits.filter(({ topic }) => topic.toLowerCase().includes(wanted));
  list.replaceChildren(...named.slice(0, SHOWN).map(line));
  if (hits.length > 0) setText(said, counted(named.length, wanted));
}

function counted(named, wanted) {
  const all = hits.length === 1 ? "One topic has" : `${format.count(hits.length)} topics have`;
  const some = wanted === "" ? "" : `, ${format.count(named)} of them this name`;
  const rest =
    named > SHOWN
      ? ` The first ${SHOWN} are shown, and ${format.count(named - SHOWN)} more are not: filter by name, or search in one topic.`
      : "";
  return `${all} an event with this id${some}.${rest}`;
}

function line({ topic, seq, received_at: at }) {
  const shown = link(cut(topic), write({ topic, event_id: id }), () => open(topic, id), {
    class: "open",
  });
  return element(
    "li",
    {},
    shown,
    element("span", { class: "quiet" }, ` seq ${seq}, received ${at} (${format.since(at)})`),
  );
}
