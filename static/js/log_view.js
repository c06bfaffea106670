// A window on a log of any length: only the lines in sight are elements.
import { Heights } from "./heights.js";
import { Blocks } from "./log_blocks.js";
import { heading, lineElement } from "./log_line.js";

const ROW_PX = 20; // of a line that is not wrapped
const OVERSCAN = 20;

export class LogView {
  // scroller: the element that scrolls; fetchBlock(first, limit) → lines.
  constructor(scroller, fetchBlock) {
    this.scroller = scroller;
    this.blocks = new Blocks(fetchBlock, () => this.later());
    this.inner = document.createElement("div");
    this.inner.className = "log-lines";
    scroller.replaceChildren(this.inner);
    this.folded = new Set();
    this.chosen = null; // [first, last] line numbers
    this.current = -1; // place of the match or error gone to
    this.query = "";
    this.wrapped = false;
    this.rows = new Map();
    scroller.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.resized()).observe(scroller);
    this.reset({ total: 0, phases: [] });
  }

  reset(index) {
    this.blocks.reset();
    this.grow(index);
  }

  // More lines than before; those that were read stay.
  grow(index) {
    this.blocks.grow();
    const phases = index.phases.filter((phase, at) => {
      const end = index.phases[at + 1]?.first ?? index.total;
      return end > phase.first;
    });
    this.total = index.total;
    this.parts = phases.map((phase, at) => ({
      name: phase.name,
      first: phase.first,
      count: (phases[at + 1]?.first ?? index.total) - phase.first,
    }));
    this.lay();
  }

  // Rows: a heading for each phase, then its lines unless it is folded.
  lay() {
    let row = 0;
    for (const part of this.parts) {
      part.row = row;
      row += 1 + (this.folded.has(part.name) ? 0 : part.count);
    }
    const known = this.heights?.count === row ? this.heights : null;
    this.rowCount = row;
    this.heights = (this.wrapped && known) || new Heights(row, ROW_PX);
    this.inner.classList.toggle("is-wrapped", this.wrapped);
    this.fit();
    for (const element of this.rows.values()) element.remove();
    this.rows.clear();
    this.draw();
  }

  // A short log needs no tall window.
  fit() {
    this.inner.style.height = `${this.heights.total}px`;
    this.scroller.style.maxHeight = `${this.heights.total + 2 * ROW_PX}px`;
  }

  // Long lines over several rows; the line at the top stays there.
  wrap(on) {
    const place = this.placeInSight();
    this.wrapped = on;
    this.heights = null;
    this.lay();
    this.scrollTo(this.rowOfPlace(place));
  }

  // Another width breaks lines elsewhere.
  resized() {
    if (this.wrapped && this.width !== this.scroller.clientWidth) {
      this.width = this.scroller.clientWidth;
      this.wrap(true);
    }
    this.later();
  }

  fold(name) {
    if (!this.folded.delete(name)) this.folded.add(name);
    this.lay();
  }

  partOfRow(row) {
    return this.parts.findLast((part) => part.row <= row);
  }

  rowOfPlace(place) {
    const part = this.parts.findLast((one) => one.first <= place);
    if (!part) return 0;
    if (this.folded.has(part.name)) this.fold(part.name);
    return part.row + 1 + place - part.first;
  }

  goTo(place) {
    this.current = place;
    this.scrollTo(this.rowOfPlace(place), this.scroller.clientHeight / 3);
    this.lay();
  }

  scrollTo(row, below = 0) {
    this.scroller.scrollTop = Math.max(0, this.heights.top(row) - below);
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  placeInSight() {
    const row = this.heights.rowAt(this.scroller.scrollTop + ROW_PX - 1);
    const part = this.partOfRow(row);
    return part ? part.first + Math.max(0, row - part.row - 1) : 0;
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const first = Math.max(0, this.heights.rowAt(this.scroller.scrollTop) - OVERSCAN);
    const shown = Math.ceil(this.scroller.clientHeight / ROW_PX) + 2 * OVERSCAN;
    const last = Math.min(this.rowCount, first + shown);
    for (const [row, element] of this.rows) {
      if (row < first || row >= last) {
        element.remove();
        this.rows.delete(row);
      }
    }
    const fresh = document.createDocumentFragment();
    for (let row = first; row < last; row += 1) {
      const known = this.rows.get(row);
      if (known && !known.dataset.open) continue;
      const element = this.element(row);
      if (known) known.replaceWith(element);
      else fresh.append(element);
      this.rows.set(row, element);
    }
    this.inner.append(fresh);
    if (this.wrapped) this.measure();
  }

  // Rows that turned out taller push down those after them; what is read stays put.
  measure() {
    const top = this.scroller.scrollTop;
    const first = this.heights.rowAt(top);
    let above = 0;
    let grown = 0;
    const found = [...this.rows].map(([row, element]) => [row, element.offsetHeight]);
    for (const [row, height] of found) {
      const more = this.heights.set(row, height);
      grown += Math.abs(more);
      if (row < first) above += more;
    }
    if (!grown) return;
    for (const [row, element] of this.rows) element.style.top = `${this.heights.top(row)}px`;
    this.fit();
    if (above) this.scroller.scrollTop = top + above;
  }

  element(row) {
    const part = this.partOfRow(row);
    const top = `${this.heights.top(row)}px`;
    if (row === part.row) return heading(top, part, this.folded.has(part.name));
    const place = part.first + row - part.row - 1;
    const line = this.blocks.line(place);
    const number = line?.[0];
    const chosen = this.chosen && number >= this.chosen[0] && number <= this.chosen[1];
    return lineElement(top, line, { query: this.query, chosen, current: place === this.current });
  }
}
