"use strict";
// What both pages need. Whatever is shown is set as text, never as markup.

// An element with attributes, listeners (functions) and children (elements or text).
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const byId = (id) => document.getElementById(id);

let tips = 0;

// A name that explains itself to pointers, keyboards and fingers. What it is in is where the explanation hangs below.
function explained(name, text) {
  const id = `tip-${++tips}`;
  return [
    make("button", { type: "button", class: "name", "aria-describedby": id }, name),
    make("span", { role: "tooltip", class: "tip", id }, text),
  ];
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement?.classList.contains("name")) document.activeElement.blur();
});

// "2 d 3 h", "3 h 5 min", "4 min 10 s".
function duration(seconds) {
  const whole = Math.floor(seconds);
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = Math.min(parts.findIndex(([count]) => count > 0) >>> 0, 3);
  return parts.slice(first, first + 2).map(([count, unit]) => `${count} ${unit}`).join(" ");
}
