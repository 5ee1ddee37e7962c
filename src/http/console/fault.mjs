// Where a text breaks the rules of JSON. The server reads a payload within its event, and cannot
// tell where it began.

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /true|false|null/y;
const SPACE = /[ \t\n\r]*/y;
const LATER = /[\w.+-]/;

/**
 * The first fault of a JSON text: `{at, line, column, message}`, line and column from 1; null where
 * there is none.
 */
export function faultOf(text) {
  const found = scan(text);
  return found === null ? null : { ...found, ...placeOf(text, found.at) };
}

/**
 * Line and column of a character of a text, both from 1. A column is a character as a person counts
 * them, not a byte.
 */
export function placeOf(text, at) {
  const lines = text.slice(0, at).split(/\r\n|\r|\n/);
  return { line: lines.length, column: [...lines.at(-1)].length + 1 };
}

/**
 * Names the places of a message about a body in which the payload stands behind `lead` by those of
 * the payload. Columns of the server are bytes. What it found behind the payload is at the
 * payload's end.
 */
export function within(message, lead, payload) {
  const encoder = new TextEncoder();
  const decoder = new TextDecoder();
  return message.replaceAll(/\bline (\d+), column (\d+)/g, (words, line, column) => {
    const lines = payload.split("\n");
    const shift = Number(line) === 1 ? encoder.encode(lead).length : 0;
    if (Number(column) - 1 < shift) return words;
    if (Number(line) > lines.length) return describe(placeOf(payload, payload.length));
    const bytes = encoder.encode(lines[Number(line) - 1]).slice(0, Number(column) - 1 - shift);
    return describe({ line: Number(line), column: [...decoder.decode(bytes)].length + 1 });
  });
}

export const describe = ({ line, column }) => `line ${line}, column ${column}`;

/**
 * Reads a value and what may stand behind it, with a list of what is open: a text may be nested
 * deeper than functions can be.
 */
function scan(text) {
  const open = [];
  let at = skip(text, 0);
  /**
   * What may come next: a value, a name, or what stands behind a value. `end` says that the object
   * or array may close at once.
   */
  let next = "value";
  let end = false;
  for (;;) {
    const char = text[at];
    const inObject = open.at(-1) === "{";
    const closes = char !== undefined && char === (inObject ? "}" : "]") && open.length > 0;
    if (closes && (end || next === "more")) {
      open.pop();
      next = "more";
      at += 1;
    } else if (next === "more" && open.length === 0) {
      return char === undefined ? null : fault(text, at, "the end of the payload");
    } else if (next === "more") {
      if (char !== ",") return fault(text, at, inObject ? "`,` or `}`" : "`,` or `]`");
      next = inObject ? "name" : "value";
      at += 1;
    } else if (next === "name") {
      if (char !== '"')
        return fault(text, at, end ? "a name in double quotes or `}`" : "a name in double quotes");
      const found = string(text, at);
      if (typeof found !== "number") return found;
      at = skip(text, found);
      if (text[at] !== ":") return fault(text, at, "`:`");
      next = "value";
      at += 1;
    } else if (char === "{" || char === "[") {
      open.push(char);
      next = char === "{" ? "name" : "value";
      end = true;
      at = skip(text, at + 1);
      continue;
    } else {
      const found = scalar(text, at, end);
      if (typeof found !== "number") return found;
      next = "more";
      at = found;
    }
    end = false;
    at = skip(text, at);
  }
}

/** Where a string, number or word ends, or its fault. */
function scalar(text, at, mayClose) {
  if (text[at] === '"') return string(text, at);
  const end = match(NUMBER, text, at) ?? match(WORD, text, at);
  if (end === null) return fault(text, at, mayClose ? "a value or `]`" : "a value");
  return LATER.test(text[end] ?? "")
    ? { at, message: `\`${wordAt(text, at)}\` is no JSON value` }
    : end;
}

/** Where a string ends, or its fault. */
function string(text, from) {
  for (let at = from + 1; at < text.length; at += 1) {
    const char = text[at];
    if (char === '"') return at + 1;
    if (char < " ")
      return {
        at,
        message:
          char === "\n" || char === "\r"
            ? "a string goes over the end of the line"
            : "a string has a control character",
      };
    if (char !== "\\") continue;
    const escape = /^(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(text.slice(at + 1, at + 6));
    if (escape === null)
      return at + 1 < text.length
        ? { at, message: "a string has an escape that JSON does not know" }
        : { at, message: "a string is not closed" };
    at += escape[0].length;
  }
  return { at: text.length, message: "a string is not closed" };
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : null;
}

const skip = (text, at) => match(SPACE, text, at);

const wordAt = (text, at) => /^[\w.+-]{1,20}/.exec(text.slice(at, at + 20))?.[0] ?? "";

/** A character, or its number where a person would not see it. */
function shown(code) {
  const char = String.fromCodePoint(code);
  return /[\p{C}\p{Z}\p{M}]/u.test(char)
    ? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`
    : `\`${char}\``;
}

function fault(text, at, wanted) {
  const found =
    at < text.length
      ? `found ${wordAt(text, at) === "" ? shown(text.codePointAt(at)) : `\`${wordAt(text, at)}\``}`
      : "but the payload ends here";
  return { at, message: `expected ${wanted}, ${found}` };
}
