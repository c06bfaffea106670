// Keeps an unsealed Run's page fresh, and wires what is on it.
import { draw, drawAll, tell } from "./chart.js";
import { colourGrid, wireGrid } from "./grid.js";

const CURVE_EVERY = 3; // polls per drawing of the curve
const FAILURES_MAX = 60;
const WAIT_MAX_MS = 10_000;
let turn = 0;
let failures = 0;
let timer = 0;

function place() {
  return document.querySelector("[data-live]");
}

function put(part, html) {
  const where = document.querySelector(`[data-part=${part}]`);
  if (!where || where.dataset.shown === html || where.contains(document.activeElement)) return;
  where.dataset.shown = "";
  where.innerHTML = html;
}

async function poll() {
  const live = place();
  const answer = await fetch(live.dataset.live, { cache: "no-cache" }); // 304 where nothing changed
  if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
  const told = await answer.json();
  if (told.state === "sealed") {
    await showSealed();
    return;
  }
  const moved = told.state !== live.dataset.state;
  live.dataset.state = told.state;
  put("head", told.head);
  put("agents", told.agents);
  colourGrid(told.tones, told.says);
  const abort = live.querySelector("[data-abort]");
  if (abort) abort.hidden = !told.abortable;
  if (moved) await showKnown();
  turn += 1;
  await tell(told.alive);
  if (moved || turn % CURVE_EVERY === 0) await drawAll();
}

// What the Run is measured by becomes known from phase to phase.
async function showKnown() {
  const sections = (await fetchPage()).querySelector("[data-sections]");
  const here = document.querySelector("[data-sections]");
  if (sections && place() && !here.contains(document.activeElement)) here.replaceWith(document.adoptNode(sections));
}

async function fetchPage() {
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`the site answers ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// The evidence of a sealed Run takes the place of what could be watched.
async function showSealed() {
  const page = await fetchPage();
  document.body.className = page.body.className;
  document.querySelector("main").replaceWith(document.adoptNode(page.querySelector("main")));
  document.title = page.title;
  wireGrid();
  await drawAll();
}

async function follow() {
  clearTimeout(timer);
  const live = place();
  if (!live || document.hidden) return; // coming back polls at once
  try {
    await poll();
    failures = 0;
  } catch {
    failures += 1;
  }
  stale();
  const every = Number(live.dataset.every);
  const wait = Math.min(WAIT_MAX_MS, every * 2 ** Math.min(failures, 4));
  if (failures < FAILURES_MAX) timer = setTimeout(follow, wait);
}

function stale() {
  const note = document.querySelector("[data-stale]");
  if (!note) return;
  note.hidden = failures === 0;
  note.textContent =
    failures < FAILURES_MAX
      ? "The site does not answer; what you see is not fresh. Trying again …"
      : "The site does not answer. Reload the page to try again.";
}

// Which latency the two charts of its spread show.
function choosePhase(chosen) {
  const spread = chosen.closest("[data-spread]");
  for (const button of spread.querySelectorAll("[data-phase]")) {
    button.setAttribute("aria-pressed", String(button === chosen));
  }
  for (const chart of spread.querySelectorAll("[data-chart]")) {
    chart.dataset.chart = chart.dataset.chart.replace(/phase=\w+/, `phase=${chosen.dataset.phase}`);
    draw(chart);
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
  if (!document.hidden) follow();
});
wireGrid();
if (place()) timer = setTimeout(follow, Number(place().dataset.every));
