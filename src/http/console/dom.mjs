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

/** Names and ids that others chose: their direction must not change that of what stands around them. */
export const foreign = (text, attributes = {}) => element("bdi", attributes, text);

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
  list.replaceChildren(...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}
