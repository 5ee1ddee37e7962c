// Finding an event by its exact id, in one topic or in all.

import { byId, button, element, foreign } from "./dom.mjs";
import { open } from "./event.mjs";
import * as format from "./format.mjs";
import * as server from "./server.mjs";

const place = byId("found");

/** Begins. `names` gives every topic that there is, as a promise. */
export function start(names) {
  const form = byId("find-form");
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const { event_id: id, topic } = Object.fromEntries(new FormData(form));
    place.replaceChildren(element("p", { class: "quiet" }, "Looking…"));
    try {
      await find(id, topic === "" ? await names() : [topic], topic);
    } catch (error) {
      place.replaceChildren(element("p", { class: "bad" }, error.message));
    }
  });
}

async function find(id, topics, topic) {
  const found = await server.lookup(topics.map((name) => ({ topic: name, event_id: id })));
  const hits = found.flatMap((at, index) => (at === null ? [] : [{ ...at, topic: topics[index] }]));
  if (hits.length === 0) {
    const where = topic === "" ? [`in any of ${format.count(topics.length)} topics`] : ["in ", foreign(topic)];
    place.replaceChildren(element("p", {}, "No event with the id ", element("b", {}, foreign(id)), " is stored ", ...where, "."));
    return;
  }
  place.replaceChildren(element("ul", { class: "hits" }, ...hits.map((hit) => line(id, hit))));
  if (hits.length === 1) await show(hits[0].topic, id);
}

function line(id, { topic, seq, received_at: at }) {
  const shown = button(foreign(topic), () => show(topic, id), { class: "open" });
  return element("li", {}, shown, element("span", { class: "quiet" }, ` seq ${seq}, received ${at} (${format.since(at)})`));
}

/** Reads an event and shows it. */
export async function show(topic, id) {
  const event = await server.eventOf(topic, id);
  if (event !== null) await open(event);
}
