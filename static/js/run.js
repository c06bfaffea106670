// Keeps an unsealed Run's page fresh, and wires what is on it.
import { draw, drawAll } from "./chart.js";

const SECTIONS_EVERY = 5; // times the live part is fetched per fetch of the sections
const COLUMNS = 50;
const FAILURES_MAX = 30;
const live = document.querySelector("[data-live]");
const sections = document.querySelector("[data-sections]");
let turn = 0;
let failures = 0;

async function fragment(name) {
  const answer = await fetch(location.href, { headers: { "X-Fragment": name } });
  if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
  return answer.text();
}

async function replaceSections() {
  const focused = document.activeElement?.matches?.("[data-grid] a")
    ? [...document.activeElement.parentElement.children].indexOf(document.activeElement)
    : -1;
  const open = [...sections.querySelectorAll("details")].map((part) => part.open);
  sections.innerHTML = await fragment("sections");
  sections.querySelectorAll("details").forEach((part, at) => (part.open = open[at]));
  if (focused >= 0) sections.querySelector("[data-grid]")?.children[focused]?.focus();
  wireGrid();
}

async function refresh() {
  const before = live.dataset.state;
  const text = await fragment("live");
  // A form that is about to be used must not vanish under the hand.
  if (!live.contains(document.activeElement) || document.activeElement.tagName !== "BUTTON") {
    live.innerHTML = text;
  }
  const parsed = new DOMParser().parseFromString(text, "text/html");
  const state = parsed.querySelector("[data-state]")?.dataset.state ?? before;
  live.dataset.state = state;
  turn += 1;
  if (state === "sealed") {
    live.innerHTML = text;
    live.dataset.live = "";
  }
  if (state !== before || turn % SECTIONS_EVERY === 0) await replaceSections();
  await drawAll();
}

async function follow() {
  const every = Number(live.dataset.live);
  if (!every) return;
  if (!document.hidden) {
    try {
      await refresh();
      failures = 0;
    } catch {
      failures += 1;
      stale(failures);
    }
  }
  if (failures < FAILURES_MAX) setTimeout(follow, every);
}

function stale(times) {
  let note = live.querySelector("[data-stale]");
  if (!note) {
    note = document.createElement("p");
    note.className = "note warning";
    note.dataset.stale = "";
    live.prepend(note);
  }
  note.textContent =
    times < FAILURES_MAX
      ? "The site does not answer; what you see is not fresh. Trying again …"
      : "The site does not answer. Reload the page to try again.";
}

// Arrow keys move over the squares; what one is stands below the grid.
function wireGrid() {
  const grid = document.querySelector("[data-grid]");
  if (!grid) return;
  const cells = [...grid.children];
  const says = document.querySelector("[data-grid-says]");
  const usual = says.textContent;
  const name = (cell) => {
    says.textContent = cell ? cell.getAttribute("aria-label") : usual;
  };
  cells.forEach((cell, at) => (cell.tabIndex = at ? -1 : 0)); // one stop for Tab
  grid.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS };
    const at = cells.indexOf(document.activeElement);
    let to = at + (steps[event.key] ?? 0);
    if (event.key === "Home") to = 0;
    if (event.key === "End") to = cells.length - 1;
    if (at < 0 || to === at || !cells[to]) return;
    event.preventDefault();
    cells[at].tabIndex = -1;
    cells[to].tabIndex = 0;
    cells[to].focus();
  });
  grid.addEventListener("focusin", (event) => name(event.target.closest("a")));
  grid.addEventListener("mouseover", (event) => name(event.target.closest("a")));
  grid.addEventListener("mouseleave", () => name(null));
}

// Which latency the two charts of its spread show.
function choosePhase(chosen) {
  const spread = chosen.closest("[data-spread]");
  for (const button of spread.querySelectorAll("[data-phase]")) {
    button.setAttribute("aria-pressed", String(button === chosen));
  }
  for (const place of spread.querySelectorAll("[data-chart]")) {
    place.dataset.chart = place.dataset.chart.replace(/phase=\w+/, `phase=${chosen.dataset.phase}`);
    draw(place);
  }
}

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-phase]");
  if (button) choosePhase(button);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && Number(live.dataset.live)) refresh().catch(() => {});
});
wireGrid();
if (Number(live.dataset.live)) setTimeout(follow, Number(live.dataset.live));
