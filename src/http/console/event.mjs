// One event in a window of its own, its payload with every digit as it was stored.

import { byId, describe, element, foreign, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import { indented } from "./json.mjs";
import { eventOf, eventPath } from "./server.mjs";

/** A payload that is longer, in characters, is shown in one colour: each coloured token is an element of the page. */
const COLOURED = 64 << 10;

const dialog = byId("event");
let shown = null;

/** Begins. */
export function start() {
  byId("event-close").addEventListener("click", () => dialog.close());
  byId("event-stored").addEventListener("change", payload);
  // A click beside the window closes it.
  dialog.addEventListener("click", ({ target }) => { if (target === dialog) dialog.close(); });
  const copy = byId("event-copy");
  // Browsers allow it on https and localhost alone.
  copy.hidden = navigator.clipboard === undefined;
  copy.addEventListener("click", async () => {
    const done = await navigator.clipboard.writeText(shown.payload).then(() => "Copied", () => "Not allowed");
    setText(copy, done);
    setTimeout(() => setText(copy, "Copy"), 1_500);
  });
}

/** Shows an event. What came over a stream has its line breaks joined, so the payload is read as it is stored. */
export async function open(event) {
  fill(event);
  dialog.showModal();
  const whole = await eventOf(event.topic, event.event_id).catch(() => null);
  if (whole !== null && shown === event) fill(whole);
}

function fill(event) {
  shown = event;
  byId("event-title").replaceChildren(foreign(event.event_id));
  describe(byId("event-facts"), [
    ["Topic", foreign(event.topic)],
    ["Seq", event.seq],
    ["Source", foreign(event.source)],
    ["Timestamp", foreign(event.timestamp)],
    ["Received", `${event.received_at} (${format.since(event.received_at)})`],
    ["Sent again", event.repeats === null ? undefined : repeated(event.repeats)],
  ]);
  const size = new TextEncoder().encode(event.payload).length;
  setText(byId("event-size"), format.bytes(size));
  const path = eventPath(event.topic, event.event_id);
  byId("event-link").hidden = path === null;
  byId("event-link").href = path ?? "";
  payload();
}

/** How it was sent again, which the server tells of the events that were repeated most recently. */
function repeated({ duplicates, conflicts, last_at: at, last_source: source, last_conflict: conflict }) {
  const times = duplicates === 1 ? "once" : `${format.count(duplicates)} times`;
  const others = conflicts === 0 ? "" : `, ${format.count(conflicts)} with another payload`;
  const last = conflict ? ", with another payload" : "";
  return element("span", {}, `${times}${others}; last ${format.since(at)} by `, foreign(source), last);
}

function payload() {
  const place = byId("event-payload");
  const { payload: text } = shown;
  if (byId("event-stored").checked) return place.replaceChildren(text);
  const pieces = indented(text);
  if (text.length > COLOURED) return place.replaceChildren(pieces.map(([, piece]) => piece).join(""));
  return place.replaceChildren(...pieces.map(([kind, piece]) => (kind === null || kind === "mark" ? piece : element("span", { class: kind }, piece))));
}
