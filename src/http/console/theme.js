// Sets the colour scheme before anything is drawn, so that the page does not flash. Not a module: those run later.
"use strict";
{
  const chosen = () => {
    try {
      return localStorage.getItem("sekali-theme") ?? "auto";
    } catch {
      return "auto"; // A browser that keeps nothing.
    }
  };
  document.documentElement.dataset.theme = chosen();
}
