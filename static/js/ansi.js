// Terminal colours as classes. Text only ever becomes text: nothing here makes markup.
const SEQUENCE = /\x1b(?:\[([0-?]*)[ -/]*([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\\-_])/g;
const BASE = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

export function plain(text) {
  return text.replace(SEQUENCE, "");
}

// The nearest of the eight colours, for 256 and 24 bit.
function nearest(red, green, blue) {
  const most = Math.max(red, green, blue);
  const least = Math.min(red, green, blue);
  if (most - least < 40) return most > 150 ? "white" : "black";
  const bit = (value) => (value > (most + least) / 2 ? 1 : 0);
  return BASE[bit(red) + 2 * bit(green) + 4 * bit(blue)];
}

function of256(number) {
  if (number < 16) return BASE[number % 8];
  if (number >= 232) return number > 243 ? "white" : "black";
  const place = number - 16;
  return nearest(Math.floor(place / 36) * 51, (Math.floor(place / 6) % 6) * 51, (place % 6) * 51);
}

function extended(codes) {
  const kind = codes.shift();
  if (kind === 5) return of256(codes.shift() ?? 0);
  if (kind === 2) return nearest(...codes.splice(0, 3).map(Number));
  return "";
}

function apply(state, codes) {
  while (codes.length) {
    const code = codes.shift();
    if (code === 0) Object.assign(state, { ink: "", paper: "", marks: new Set() });
    else if (code === 1) state.marks.add("bold");
    else if (code === 2) state.marks.add("faint");
    else if (code === 3) state.marks.add("italic");
    else if (code === 4) state.marks.add("underline");
    else if (code === 22) ["bold", "faint"].forEach((mark) => state.marks.delete(mark));
    else if (code === 23) state.marks.delete("italic");
    else if (code === 24) state.marks.delete("underline");
    else if (code === 38) state.ink = extended(codes);
    else if (code === 48) state.paper = extended(codes);
    else if (code === 39) state.ink = "";
    else if (code === 49) state.paper = "";
    else if (code >= 30 && code <= 37) state.ink = BASE[code - 30];
    else if (code >= 90 && code <= 97) state.ink = BASE[code - 90];
    else if (code >= 40 && code <= 47) state.paper = BASE[code - 40];
    else if (code >= 100 && code <= 107) state.paper = BASE[code - 100];
  }
}

// [{text, classes}] of one line.
export function pieces(text) {
  const found = [];
  const state = { ink: "", paper: "", marks: new Set() };
  let from = 0;
  const add = (upto) => {
    if (upto <= from) return;
    const classes = [...state.marks].map((mark) => `a-${mark}`);
    if (state.ink) classes.push(`a-${state.ink}`);
    if (state.paper) classes.push(`a-on-${state.paper}`);
    found.push({ text: text.slice(from, upto), classes: classes.join(" ") });
  };
  for (const match of text.matchAll(SEQUENCE)) {
    add(match.index);
    from = match.index + match[0].length;
    if (match[2] === "m") apply(state, (match[1] || "0").split(/[;:]/).map((n) => Number(n) || 0));
  }
  add(text.length);
  return found;
}
