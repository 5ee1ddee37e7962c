// The view that is shown and its place in the browser's history: each view has an address, Back and
// Forward lead to views.

import { NOWHERE, isSame, read, write } from "./address.mjs";

/** Milliseconds that a step back may take. */
const PATIENCE = 2_000;

let view = NOWHERE;
let show = () => {};
let say = () => {};
/**
 * Whether the page is on its way back to the view below an event, and what a person asked for
 * meanwhile.
 */
let leaving = false;
let meanwhile = null;

/** The view that is shown. */
export const current = () => view;

/**
 * Begins with the address of the page. `onShow` is called with the new view, the one before, and
 * what the caller of `go` gave along; `onFaults` with what is wrong in the address.
 */
export function start({ onShow, onFaults }) {
  show = onShow;
  say = onFaults;
  addEventListener("popstate", () => {
    leaving = false;
    arrive();
    const next = meanwhile;
    meanwhile = null;
    next?.();
  });
  arrive();
}

/** Goes to a view that differs from this one as `change` says. */
export function go(change, { replace = false, ...along } = {}) {
  if (leaving) {
    meanwhile = () => go(change, { replace, ...along });
    return;
  }
  const next = { ...view, ...change };
  if (isSame(next, view)) {
    show(view, view, along);
    return;
  }
  // `above` says that the entry before is the same page: closing an event goes back to it.
  const address = location.pathname + write(next);
  if (replace) history.replaceState(history.state, "", address);
  else history.pushState({ above: true }, "", address);
  if (!replace) say([]);
  set(next, along);
}

/** Closes the event that is open: back to the view below it, or to the same address without it. */
export function leaveEvent() {
  if (view.event_id === null || leaving) return;
  if (history.state?.above === true) {
    leaving = true;
    history.back();
    // A browser may have dropped that entry.
    setTimeout(stay, PATIENCE);
  } else {
    go({ event_id: null }, { replace: true });
  }
}

function stay() {
  if (!leaving) return;
  leaving = false;
  go({ event_id: null }, { replace: true });
}

/** Shows the view that the address names. */
function arrive() {
  const { view: next, faults } = read(location.search);
  say(faults);
  set(next, {});
}

function set(next, along) {
  const before = view;
  view = next;
  if (!isSame(before, next)) show(next, before, along);
}
