// The page's elements. Whatever comes from events is put there as text or as an attribute's value, never as HTML.

export const byId = (id) => document.getElementById(id);

/** A new element. Attributes that are undefined are left out; children are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/**
 * Characters that change the direction of a text, or that nobody sees: a name may consist of
 * nothing else.
 */
const UNSEEN =
  /([\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202f\u2060-\u2069\u3164\ufeff\uffa0\u{e0001}]|^\s|\s$)/u;

/** The most characters of one text that are marked: each is an element of the page. */
const MARKS = 1_000;

/**
 * Texts that others chose. Their direction does not change that of their neighbours. Each character
 * that nobody sees stands in a `mark`, before which the style sheet writes its number; the text
 * itself is unchanged.
 */
export const foreign = (text, attributes = {}) => element("bdi", attributes, ...marked(text));

/**
 * The same as pieces of a text, where its direction is that of the place. Past `MARKS` characters
 * are not marked.
 */
export function marked(text) {
  const pieces = text.split(UNSEEN);
  // Between each two pieces stands the character that separates them.
  if (pieces.length > 2 * MARKS) return [text];
  return pieces
    .map((piece, index) => (index % 2 === 1 ? mark(piece) : piece))
    .filter((piece) => piece !== "");
}

const mark = (char) =>
  element(
    "span",
    {
      class: "mark",
      "data-code": `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`,
    },
    char,
  );

/** A name in one line, cut off where there is no room for it; the pointer shows all of it. */
export const cut = (text) => foreign(text, { class: "cut", title: text });

/**
 * A link to a view of this page. Its address can be copied and opened in another tab; a plain click
 * calls `act` and loads nothing.
 */
export function link(label, href, act, attributes = {}) {
  const made = element("a", { href, ...attributes }, label);
  made.addEventListener("click", (click) => {
    if (click.ctrlKey || click.metaKey || click.shiftKey || click.altKey) return;
    click.preventDefault();
    act();
  });
  return made;
}

/** A button that does something. */
export function button(label, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

/** Changes a text only where it differs, so that a reader's selection survives. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** The rows of a description list. Values are texts or elements; those that are undefined are left out. */
export function describe(list, rows) {
  const shown = rows.filter(([, value]) => value !== undefined);
  list.replaceChildren(
    ...shown.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
}
