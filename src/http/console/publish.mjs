// Publishing a test event, and what became of it.

import { write } from "./address.mjs";
import { byId, cut, element, foreign, link } from "./dom.mjs";
import { describe, faultOf, within } from "./fault.mjs";
import { NoAnswer, Problem, leadOf, publish } from "./server.mjs";

const form = byId("publish-form");
const place = byId("verdict");

/** Counts what is published. */
let turn = 0;
let open = () => {};

/**
 * Begins. `onStored` is called with the topic of an event that was stored, `onOpen` with topic and
 * id of one that is opened.
 */
export function start({ onStored, onOpen }) {
  open = onOpen;
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
    const mine = (turn += 1);
    let words;
    try {
      words = verdict(event, await publish(event));
      onStored(event.topic);
    } catch (error) {
      words = trouble(error, event);
    }
    // A slow answer does not take the place of a newer one.
    if (mine !== turn) return;
    place.replaceChildren(...words);
    form.elements.payload.setAttribute("aria-invalid", String(faultOf(event.payload) !== null));
  });
}

/** Not `randomUUID`, which browsers have on https and localhost alone. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(6));
  return `test-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The most broken rules that are listed. One event breaks fewer. */
const RULES = 20;

const SAFE = "Send the same id again: that is always safe.";

const chip = (kind, text) => element("b", { class: `chip ${kind}` }, text);

function verdict({ topic, event_id: id }, { status, seq, conflict }) {
  const see = link("Show the stored event", write({ topic, event_id: id }), () => open(topic, id));
  const [kind, words] = conflict
    ? [
        "conflict",
        `Seq ${seq} has this id and another payload. The first one stays; this one is not stored.`,
      ]
    : status === "duplicate"
      ? ["duplicate", `It was stored before, as seq ${seq}. Nothing was stored again.`]
      : ["accepted", `Stored durably, as seq ${seq}.`];
  return [
    element("p", {}, chip(kind, kind), " ", words),
    element("p", { class: "quiet" }, cut(topic), " / ", cut(id), " ", see),
  ];
}

function trouble(error, event) {
  const fault = faultOf(event.payload);
  if (error instanceof NoAnswer) {
    return [
      element(
        "p",
        {},
        chip("conflict", "no answer"),
        ` Nobody knows whether it is stored. ${SAFE}`,
      ),
    ];
  }
  if (!(error instanceof Problem)) throw error;
  // Rejected is what breaks a rule; of what the server could not finish, nobody knows whether it is stored.
  const isOpen = error.status >= 500;
  const fate = isOpen ? "not known" : error.code === "invalid_events" ? "rejected" : "refused";
  const again = isOpen && !/\bagain\b/.test(error.message) ? ` ${SAFE}` : "";
  // The server names the place in the event that it was sent, of which a person wrote the payload
  // alone.
  const message =
    fault === null || isOpen
      ? within(error.message, leadOf(event), event.payload)
      : `The payload is not JSON at ${describe(fault)}: ${fault.message}`;
  const rules = error.errors
    .slice(0, RULES)
    .map(({ field, code, detail }) =>
      element("li", {}, element("code", {}, field ?? code), " ", foreign(detail)),
    );
  return [
    element(
      "p",
      {},
      chip("conflict", fate),
      ` ${error.title} (${error.status} `,
      element("code", {}, error.code),
      "). ",
      foreign(message),
      `.${again}`,
    ),
    ...(rules.length === 0 ? [] : [element("ul", {}, ...rules)]),
  ];
}
