// JSON as text. JavaScript's numbers round long integers, so a payload is never parsed: it is cut out of its event and
// indented token by token, with every digit, name and escape as it was stored.

const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s"{}[\],:]+/gsy;
const SPACE = /\s+/gy;

/** The tokens of a JSON text, each with where it begins. What is no JSON ends the list. */
export function* tokens(text) {
  let at = 0;
  while (at < text.length) {
    SPACE.lastIndex = at;
    if (SPACE.test(text)) at = SPACE.lastIndex;
    TOKEN.lastIndex = at;
    const found = TOKEN.exec(text);
    if (found === null) return;
    yield { text: found[0], at };
    at = TOKEN.lastIndex;
  }
}

/** The members of a JSON object by their names, each as the text that stands there. */
export function members(text) {
  const found = new Map();
  let depth = 0;
  let name = null;
  let start = null;
  let last = null;
  for (const token of tokens(text)) {
    const closes = token.text === "}" || token.text === "]";
    if (depth === 1 && start !== null && (token.text === "," || token.text === "}")) {
      found.set(name, text.slice(start, last.at + last.text.length));
      name = start = null;
    } else if (depth === 1 && name !== null && start === null && token.text !== ":") {
      start = token.at;
    } else if (depth === 1 && name === null && token.text.startsWith('"')) {
      name = JSON.parse(token.text);
    }
    if (closes) depth -= 1;
    if (token.text === "{" || token.text === "[") depth += 1;
    last = token;
  }
  return found;
}

/** What kind of token it is, for its colour. */
function kind(token, isName) {
  if (token.startsWith('"')) return isName ? "name" : "string";
  if ("{}[],:".includes(token)) return "mark";
  return /^[-\d]/.test(token) ? "number" : "word";
}

/** A JSON text with line breaks and indentation: pieces of `[kind, text]`, where kind is null for white space. */
export function indented(text) {
  const all = [...tokens(text)].map((token) => token.text);
  const pieces = [];
  let depth = 0;
  const line = () => pieces.push([null, `\n${"  ".repeat(Math.max(0, depth))}`]);
  all.forEach((token, index) => {
    const before = all[index - 1];
    const opened = before === "{" || before === "[";
    if (token === "}" || token === "]") {
      depth -= 1;
      if (!opened) line();
    } else if (opened || before === ",") {
      line();
    }
    pieces.push([kind(token, all[index + 1] === ":"), token]);
    if (token === ":") pieces.push([null, " "]);
    if (token === "{" || token === "[") depth += 1;
  });
  return pieces;
}

/** An event as the server gives it: its texts, and its payload as it was stored. */
export function event(text) {
  const parts = members(text);
  const read = (name) => (parts.has(name) ? JSON.parse(parts.get(name)) : "");
  return {
    seq: parts.get("seq"),
    topic: read("topic"),
    event_id: read("event_id"),
    timestamp: read("timestamp"),
    source: read("source"),
    received_at: read("received_at"),
    payload: parts.get("payload") ?? "",
    repeats: parts.has("repeats") ? JSON.parse(parts.get("repeats")) : null,
  };
}
