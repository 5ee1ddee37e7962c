// Publishing a test event, and what became of it.

import { byId, button, element, foreign } from "./dom.mjs";
import { show } from "./find.mjs";
import { NoAnswer, Problem, publish } from "./server.mjs";

const form = byId("publish-form");
const place = byId("verdict");

/** Begins. `onStored` is called with the topic of an event that was stored. */
export function start(onStored) {
  const { event_id: id } = form.elements;
  id.value = newId();
  byId("new-id").addEventListener("click", () => {
    id.value = newId();
    id.focus();
  });
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const event = Object.fromEntries(new FormData(form));
    event.timestamp ||= new Date().toISOString();
    try {
      place.replaceChildren(...verdict(event, await publish(event)));
      onStored(event.topic);
    } catch (error) {
      place.replaceChildren(...trouble(error));
    }
  });
}

/** Not `randomUUID`, which browsers have on https and localhost alone. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return `test-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

const SAFE = "Send the same id again: that is always safe.";

const chip = (kind, text) => element("b", { class: `chip ${kind}` }, text);

function verdict({ topic, event_id: id }, { status, seq, conflict }) {
  const see = button("Show the stored event", () => show(topic, id));
  const [kind, words] = conflict
    ? ["conflict", `Seq ${seq} has this id and another payload. The first one stays; this one is not stored.`]
    : status === "duplicate"
      ? ["duplicate", `It was stored before, as seq ${seq}. Nothing was stored again.`]
      : ["accepted", `Stored durably, as seq ${seq}.`];
  return [element("p", {}, chip(kind, kind), " ", words), element("p", { class: "quiet" }, foreign(topic), " / ", foreign(id), " ", see)];
}

function trouble(error) {
  if (error instanceof NoAnswer) {
    return [element("p", {}, chip("conflict", "no answer"), ` Nobody knows whether it is stored. ${SAFE}`)];
  }
  if (!(error instanceof Problem)) throw error;
  // Rejected is what breaks a rule; of what the server could not finish, nobody knows whether it is stored.
  const isOpen = error.status >= 500;
  const fate = isOpen ? "not known" : error.code === "invalid_events" ? "rejected" : "refused";
  const again = isOpen && !/\bagain\b/.test(error.message) ? ` ${SAFE}` : "";
  const rules = error.errors.map(({ field, code, detail }) => element("li", {}, element("code", {}, field ?? code), " ", foreign(detail)));
  return [
    element("p", {}, chip("conflict", fate), ` ${error.title} (${error.status} `, element("code", {}, error.code), "). ", foreign(error.message), `.${again}`),
    ...(rules.length === 0 ? [] : [element("ul", {}, ...rules)]),
  ];
}
