// The address of a view: which topic is shown, which event is open, and what is searched.
// docs/API.md documents the parameters.

/** Bytes of a name: the server stores no longer one. */
const LONGEST = 255;

const PARAMETERS = ["topic", "event_id", "find", "find_topic"];
/** A parameter that says nothing without another one. */
const NEEDS = { event_id: "topic", find_topic: "find" };

/** A view of nothing in particular. */
export const NOWHERE = { topic: null, event_id: null, find: null, find_topic: null };

/**
 * Reads a query, `?topic=..`: the view, and in words each parameter that is wrong, which is left
 * out of the view.
 */
export function read(query) {
  const view = { ...NOWHERE };
  const faults = [];
  const seen = new Set();
  for (const part of query
    .replace(/^\?/, "")
    .split("&")
    .filter((text) => text !== "")) {
    const [name, value] = pairOf(part);
    if (!PARAMETERS.includes(name)) faults.push(`${name} is no parameter of this page`);
    else if (seen.has(name)) faults.push(`${name} is there twice`);
    else if (value === null) faults.push(`${name} is not UTF-8`);
    else if (faultOf(value) !== null) faults.push(`${name} ${faultOf(value)}`);
    else view[name] = value;
    seen.add(name);
  }
  for (const [name, other] of Object.entries(NEEDS)) {
    if (view[name] === null || view[other] !== null) continue;
    if (!seen.has(other)) faults.push(`${name} needs ${other} beside it`);
    view[name] = null;
  }
  return { view, faults };
}

/** The query of a view. */
export function write(view) {
  const written = PARAMETERS.filter((name) => (view[name] ?? null) !== null).map((name) => [
    name,
    view[name],
  ]);
  return written.length === 0 ? "" : `?${new URLSearchParams(written)}`;
}

/** Whether two views are the same. */
export const isSame = (one, other) => PARAMETERS.every((name) => one[name] === other[name]);

function pairOf(part) {
  const at = part.includes("=") ? part.indexOf("=") : part.length;
  return [decoded(part.slice(0, at)) ?? part.slice(0, at), decoded(part.slice(at + 1))];
}

/** A part of a query as text; null where its bytes are none. */
function decoded(text) {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return null;
  }
}

function faultOf(name) {
  if (name === "") return "is empty";
  if (/\p{Cc}/u.test(name)) return "has control characters";
  const bytes = new TextEncoder().encode(name).length;
  return bytes > LONGEST ? `has ${bytes} bytes, and names have at most ${LONGEST}` : null;
}
