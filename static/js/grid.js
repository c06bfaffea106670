// The grid of Shards: arrow keys move over the squares; what one is stands below.
const COLUMNS = 50;

export function wireGrid() {
  const grid = document.querySelector("[data-grid]");
  if (!grid) return;
  const cells = [...grid.children];
  const says = document.querySelector("[data-grid-says]");
  const usual = says.textContent;
  const name = (cell) => {
    says.textContent = cell ? cell.getAttribute("aria-label") : usual;
  };
  const columns = () => (grid.classList.contains("few") ? cells.length : COLUMNS);
  cells.forEach((cell, at) => (cell.tabIndex = at ? -1 : 0)); // one stop for Tab
  grid.addEventListener("keydown", (event) => {
    const row = columns();
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row };
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
  grid.addEventListener("focusout", () => name(null));
  grid.addEventListener("mouseover", (event) => name(event.target.closest("a")));
  grid.addEventListener("mouseleave", () => name(null));
}

// Changes only the squares that changed; tones are single letters, one a Shard.
export function colourGrid(tones, says) {
  const names = { w: "waiting", a: "armed", p: "pending", c: "clean", s: "some", m: "many", q: "silent", l: "lost" };
  const cells = document.querySelector("[data-grid]")?.children ?? [];
  for (let at = 0; at < cells.length; at += 1) {
    const wanted = `cell ${names[tones[at]] ?? "pending"}`;
    if (cells[at].className !== wanted) cells[at].className = wanted;
    const label = `Shard ${at}: ${says[at]}`;
    if (cells[at].getAttribute("aria-label") !== label) cells[at].setAttribute("aria-label", label);
  }
}
