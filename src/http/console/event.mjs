// One event in a window of its own, its payload with every digit as it was stored.

import { byId, cut, describe, element, foreign, marked, setText } from "./dom.mjs";
import * as format from "./format.mjs";
import { indented } from "./json.mjs";
import { eventOf, eventPath } from "./server.mjs";

/** Characters of a payload that are shown at most; indented it may have this many times as many. */
const SHOWN = 256 << 10;
const WIDER = 4;

/**
 * An id that is longer, in characters, may be cut off in the title, and stands in full below it.
 */
const SHORT = 40;

/** A payload that is longer, in characters, is shown in one colour: each coloured token is an element of the page. */
const COLOURED = 64 << 10;

const dialog = byId("event");
let shown = null;
/** Counts what is opened, so that an answer that comes later than the next one is not shown. */
let turn = 0;

/** Begins. `onClose` is called when a person closes the window. */
export function start(onClose) {
  dialog.addEventListener("close", onClose);
  byId("event-close").addEventListener("click", () => dialog.close());
  byId("event-stored").addEventListener("change", payload);
  // A click beside the window closes it.
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
  const copy = byId("event-copy");
  // Browsers allow it on https and localhost alone.
  copy.hidden = navigator.clipboard === undefined;
  copy.addEventListener("click", async () => {
    const done = await navigator.clipboard.writeText(shown.payload).then(
      () => "Copied",
      () => "Not allowed",
    );
    setText(copy, done);
    setTimeout(() => setText(copy, "Copy"), 1_500);
  });
}

export const isOpen = () => dialog.open;

/** Closes the window. */
export function close() {
  turn += 1;
  dialog.close();
}

/**
 * Shows an event, at once where it is known. What came over a stream has its line breaks joined, so
 * the payload is read as it is stored. Returns false where no such event is stored.
 */
export async function open(topic, id, known = null) {
  const mine = (turn += 1);
  if (known !== null) fill(known);
  const whole = await (known === null ? eventOf(topic, id) : eventOf(topic, id).catch(() => known));
  if (mine !== turn) return true;
  if (whole === null && known === null) dialog.close();
  if (whole !== null) fill(whole);
  return whole !== null || known !== null;
}

function fill(event) {
  shown = event;
  byId("event-title").replaceChildren(cut(event.event_id));
  describe(byId("event-facts"), [
    ["Event id", event.event_id.length > SHORT ? foreign(event.event_id) : undefined],
    ["Topic", foreign(event.topic)],
    ["Seq", event.seq],
    ["Source", foreign(event.source)],
    ["Timestamp", foreign(event.timestamp)],
    ["Received", `${event.received_at} (${format.since(event.received_at)})`],
    ["Sent again", event.repeats === null ? undefined : repeated(event.repeats)],
  ]);
  byId("event-link").href = eventPath(event.topic, event.event_id);
  payload();
  if (!dialog.open) dialog.showModal();
}

/** How it was sent again, which the server tells of the events that were repeated most recently. */
function repeated({
  duplicates,
  conflicts,
  last_at: at,
  last_source: source,
  last_conflict: conflict,
}) {
  const times = duplicates === 1 ? "once" : `${format.count(duplicates)} times`;
  const others = conflicts === 0 ? "" : `, ${format.count(conflicts)} with another payload`;
  const last = conflict ? ", with another payload" : "";
  return element(
    "span",
    {},
    `${times}${others}; last ${format.since(at)} by `,
    foreign(source),
    last,
  );
}

function payload() {
  const place = byId("event-payload");
  const { payload: text } = shown;
  const pieces =
    byId("event-stored").checked || text.length > SHOWN ? [[null, text]] : indented(text);
  const written = pieces.map(([, piece]) => piece).join("");
  const most = pieces.length === 1 ? SHOWN : SHOWN * WIDER;
  const size = format.bytes(new TextEncoder().encode(text).length);
  setText(byId("event-size"), written.length > most ? `${size}, its beginning is shown` : size);
  if (text.length > COLOURED || pieces.length === 1)
    place.replaceChildren(...marked(format.firstOf(written, most)));
  else
    place.replaceChildren(
      ...pieces.map(([kind, piece]) =>
        kind === null || kind === "mark"
          ? piece
          : element("span", { class: kind }, ...marked(piece)),
      ),
    );
}
