// One row of a log's viewer: a line, or the heading of a phase.
import { pieces } from "./ansi.js";

export function heading(top, part, folded) {
  const element = row(top, "log-phase");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.fold = part.name;
  button.setAttribute("aria-expanded", String(!folded));
  button.textContent = `${folded ? "▸" : "▾"} ${part.name} · ${part.count.toLocaleString("en")} line${part.count === 1 ? "" : "s"}`;
  element.append(button);
  return element;
}

// line: [number, elapsed µs, level, text], or nothing while it is on its way.
export function lineElement(top, line, { query, chosen, current }) {
  const element = row(top, "log-line");
  if (!line) {
    element.dataset.open = "1";
    return element;
  }
  const [number, elapsed, level, text] = line;
  element.classList.add(`l-${/^[A-Z]+$/.test(level) ? level.toLowerCase() : "none"}`);
  element.classList.toggle("is-current", Boolean(current));
  element.classList.toggle("is-chosen", Boolean(chosen));
  const address = document.createElement("a");
  address.href = `#L${number}`;
  address.dataset.number = number;
  address.textContent = number;
  element.append(address, cell("time", clock(elapsed)), cell("level", level), said(text, query));
  return element;
}

// The text in its colours, with every match of the query marked.
function said(text, query) {
  const element = cell("text", "");
  const sought = query.toLowerCase();
  for (const piece of pieces(text)) {
    const span = document.createElement("span");
    if (piece.classes) span.className = piece.classes;
    const low = piece.text.toLowerCase();
    let from = 0;
    for (let at = sought ? low.indexOf(sought) : -1; at >= 0; at = low.indexOf(sought, from)) {
      span.append(piece.text.slice(from, at));
      const mark = document.createElement("mark");
      mark.textContent = piece.text.slice(at, at + sought.length);
      span.append(mark);
      from = at + sought.length;
    }
    span.append(piece.text.slice(from));
    element.append(span);
  }
  return element;
}

function row(top, name) {
  const element = document.createElement("div");
  element.style.top = top;
  element.className = name;
  return element;
}

function cell(name, text) {
  const element = document.createElement("span");
  element.className = name;
  element.textContent = text;
  return element;
}

function clock(elapsed) {
  if (elapsed === null) return "–";
  const ms = Math.abs(Math.round(elapsed / 1000));
  const part = (value, size) => String(value).padStart(size, "0");
  const minutes = part(Math.floor(ms / 60_000), 2);
  const seconds = part(Math.floor(ms / 1000) % 60, 2);
  return `${elapsed < 0 ? "−" : ""}${minutes}:${seconds}.${part(ms % 1000, 3)}`;
}
