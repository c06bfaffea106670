// Draws each [data-chart] from the figure at its address, in the page's own colours.
import { makeRoom, nameWhereThereIsRoom } from "./chart_labels.js";
import { onPaper } from "./chart_print.js";

const CONFIG = { responsive: true, displayModeBar: false }; // drag zooms, double click resets
const LOADING_LIMIT_MS = 20_000;
const HEADROOM = 1.1; // of what is drawn, as the site leaves it
const TOLD_MAX = 600; // what agents told that no record has yet; one a poll
const figures = new WeakMap(); // chart → its figure as the site sent it
const told = []; // {at_s, count} of a live Run, in order of time

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function themed(figure) {
  const ink = token("ink-2");
  const line = token("line");
  for (const trace of figure.data) {
    const name = trace.meta?.token;
    const colour = name === "possible" ? token("proven") : token(name) || token("proven");
    if (trace.mode.startsWith("markers")) trace.marker = { ...trace.marker, color: colour };
    else trace.line = { ...trace.line, color: colour };
    if (trace.fill) trace.fillcolor = name === "failed" ? `${colour}33` : token("possible");
  }
  const axis = { gridcolor: line, linecolor: line, tickfont: { color: ink } };
  const layout = figure.layout;
  layout.font = { family: token("font"), size: 12, color: ink };
  layout.xaxis = { ...layout.xaxis, ...axis };
  layout.yaxis = { ...layout.yaxis, ...axis };
  Object.assign(layout.xaxis, { spikecolor: ink, spikethickness: 1, spikedash: "solid" });
  layout.hoverlabel = { bgcolor: token("sheet"), bordercolor: line, font: { color: token("ink") } };
  for (const label of layout.annotations ?? []) {
    const names = { proven: "proven", possible: "proven" };
    label.font = { color: token(names[label.text] ?? "ink-2") };
  }
  for (const shape of layout.shapes ?? []) {
    if (shape.name === "target") shape.line = { ...shape.line, color: token("target") };
    if (shape.name === "mark") shape.line = { ...shape.line, color: ink };
  }
  return figure;
}

// A drawn chart stays when a later answer has none: old is better than gone.
function why(place, text) {
  if (place.dataset.drawn !== undefined) return;
  place.textContent = text;
  place.dataset.why = "";
}

async function ask(place) {
  try {
    return await fetch(place.dataset.chart, { headers: { Accept: "application/json" } });
  } catch {
    return { ok: false };
  }
}

// The drawing library comes after the page, and only where there is a chart.
function library() {
  if (window.Plotly) return Promise.resolve(window.Plotly);
  return new Promise((resolve, reject) => {
    const script = document.querySelector("script[data-plotly]");
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", reject);
    setTimeout(reject, LOADING_LIMIT_MS);
  });
}

export async function draw(place) {
  const address = place.dataset.chart;
  const answer = await ask(place);
  if (address !== place.dataset.chart) return; // another one was asked for since
  if (!answer.ok) {
    why(place, "The chart cannot be read now.");
    return;
  }
  const figure = await answer.json();
  if (!figure.data) {
    why(place, figure.why ?? "There is no curve yet.");
    return;
  }
  await library();
  const first = place.dataset.drawn === undefined;
  if (first) place.textContent = "";
  place.dataset.drawn ??= "";
  delete place.dataset.why;
  figures.set(place, figure);
  await show(place);
  place.dataset.drawn = address;
  if (first) wire(place);
}

// From where the record ends the curve goes on with what agents told since.
function tellOn({ data, layout }) {
  const line = data.find((trace) => trace.meta?.told);
  if (!line) return;
  const since = told.filter((point) => point.at_s > line.x[0]);
  if (!since.length) {
    line.showlegend = false;
    return;
  }
  line.x = [...line.x, ...since.map((point) => point.at_s)];
  line.y = [...line.y, ...since.map((point) => point.count)];
  layout.xaxis.range[1] = Math.max(layout.xaxis.range[1], line.x.at(-1));
  layout.yaxis.range[1] = Math.max(layout.yaxis.range[1], HEADROOM * Math.max(...line.y));
}

// One more figure of a live Run: how many its agents say are alive.
export async function tell(point) {
  if (!point || point.at_s <= (told.at(-1)?.at_s ?? -1)) return;
  told.push(point);
  if (told.length > TOLD_MAX) told.shift();
  for (const place of document.querySelectorAll("[data-chart]")) {
    if (place.dataset.drawn && figures.get(place).data.some((trace) => trace.meta?.told)) await show(place);
  }
}

async function show(place, width = 0) {
  const figure = structuredClone(figures.get(place));
  tellOn(figure);
  const { data, layout } = themed(figure);
  layout.uirevision = place.dataset.chart; // a zoom outlives the same chart drawn anew
  if (width) layout.width = width;
  else layout.autosize = true; // as wide as its place, also after it was printed
  if (!width && window.innerWidth < 640) {
    layout.margin = { ...layout.margin, l: 44, r: 8 };
    const title = layout.xaxis.title;
    if (title?.text.includes(" · ")) {
      const text = title.text.replaceAll(" · ", "<br>");
      layout.xaxis.title = { ...title, text, font: { ...title.font, size: 12 } };
      layout.margin.b = (layout.margin.b ?? 44) + 18;
    }
    const named = data.filter((trace) => trace.showlegend !== false).length; // one below the other
    layout.height = Math.min(layout.height ?? 300, 300) + (named > 3 ? 18 * named : 0);
  }
  nameWhereThereIsRoom(width || place.clientWidth, data, layout);
  await window.Plotly.react(place, data, layout, CONFIG);
  const moved = makeRoom(place, layout.annotations);
  if (moved) await window.Plotly.relayout(place, { annotations: moved });
}

// A click on a point leads to what it counts; the buttons beneath take the chart away.
function wire(place) {
  place.on("plotly_click", (event) => {
    const point = event.points.find((one) => one.fullData.meta?.click) ?? event.points[0];
    const address = point?.fullData.meta?.click;
    if (address && point.customdata !== undefined) location.href = address + point.customdata;
  });
  const actions = document.createElement("p");
  actions.className = "chart-actions";
  for (const format of ["png", "svg"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = `Save as ${format.toUpperCase()}`;
    button.addEventListener("click", () => save(place, format));
    actions.append(button);
  }
  place.after(actions);
}

// On the page's own paper, so that a dark chart can be read wherever it is put.
async function save(place, format) {
  const paper = { paper_bgcolor: token("sheet"), plot_bgcolor: token("sheet") };
  const size = { width: place.clientWidth, height: place.clientHeight, scale: 2 };
  const figure = { data: place.data, layout: { ...place.layout, ...paper } };
  await window.Plotly.downloadImage(figure, { format, filename: place.dataset.name ?? "chart", ...size });
}

export function drawAll() {
  return Promise.all([...document.querySelectorAll("[data-chart]")].map(draw));
}

drawAll();
onPaper((width) => {
  const drawn = [...document.querySelectorAll("[data-chart]")].filter((place) => figures.has(place));
  for (const place of drawn) show(place, width);
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
