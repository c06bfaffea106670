// Draws each [data-chart] from the figure at its address, in the page's own colours.
const CONFIG = { responsive: true, displayModeBar: false }; // drag zooms, double click resets

function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function themed(figure) {
  const ink = token("ink-2");
  const line = token("line");
  for (const trace of figure.data) {
    const name = trace.meta?.token;
    const colour = token(name) || token("proven");
    trace.line = { ...trace.line, color: name === "possible" ? token("proven") : colour };
    if (trace.fill) trace.fillcolor = token("possible");
  }
  const axis = { gridcolor: line, linecolor: line, tickfont: { color: ink } };
  const layout = figure.layout;
  layout.font = { family: token("font"), size: 12, color: ink };
  layout.xaxis = { ...layout.xaxis, ...axis };
  layout.yaxis = { ...layout.yaxis, ...axis };
  layout.xaxis.unifiedhovertitle = { text: "%{x:.2f} s" };
  Object.assign(layout.xaxis, { spikecolor: ink, spikethickness: 1, spikedash: "solid" });
  layout.hoverlabel = { bgcolor: token("sheet"), bordercolor: line, font: { color: token("ink") } };
  for (const shape of layout.shapes ?? []) {
    if (shape.name === "target") shape.line = { width: 1, color: token("target") };
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

export async function draw(place) {
  const answer = await ask(place);
  if (!answer.ok) {
    why(place, "The curve cannot be read now.");
    return;
  }
  const figure = await answer.json();
  if (!figure.data) {
    why(place, figure.why ?? "There is no curve yet.");
    return;
  }
  if (place.dataset.drawn === undefined) place.textContent = "";
  place.dataset.drawn = "";
  delete place.dataset.why;
  const { data, layout } = themed(figure);
  if (window.innerWidth < 640) {
    layout.margin = { ...layout.margin, l: 44, r: 8 };
    layout.height = Math.min(layout.height ?? 300, 300);
  }
  await window.Plotly.react(place, data, layout, CONFIG);
}

export function png(place, name) {
  return window.Plotly.downloadImage(place, { format: "png", filename: name, scale: 2 });
}

export function drawAll() {
  return Promise.all([...document.querySelectorAll("[data-chart]")].map(draw));
}

drawAll();
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
