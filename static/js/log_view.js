// A window on a log of any length: only the lines in sight are elements.
import { heading, lineElement } from "./log_line.js";

const ROW_PX = 20;
const BLOCK = 200; // lines fetched at once
const BLOCKS_MAX = 60; // kept; the oldest go first
const OVERSCAN = 20;

export class LogView {
  // scroller: the element that scrolls; fetchBlock(first, limit) → lines.
  constructor(scroller, fetchBlock) {
    this.scroller = scroller;
    this.fetchBlock = fetchBlock;
    this.inner = document.createElement("div");
    this.inner.className = "log-lines";
    scroller.replaceChildren(this.inner);
    this.folded = new Set();
    this.chosen = null; // [first, last] line numbers
    this.current = -1; // place of the match or error gone to
    this.query = "";
    this.rows = new Map();
    scroller.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(scroller);
    this.reset({ total: 0, phases: [] });
  }

  reset(index) {
    this.blocks = new Map();
    this.generation = (this.generation ?? 0) + 1;
    this.grow(index);
  }

  // More lines than before; those that were read stay.
  grow(index) {
    for (const [at, block] of this.blocks) {
      if (block.lines && block.lines.length < BLOCK) this.blocks.delete(at);
    }
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
    this.rowCount = row;
    this.inner.style.height = `${row * ROW_PX}px`;
    for (const element of this.rows.values()) element.remove();
    this.rows.clear();
    this.draw();
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
    const row = this.rowOfPlace(place);
    const top = row * ROW_PX - this.scroller.clientHeight / 3;
    this.scroller.scrollTop = Math.max(0, top);
    this.lay();
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  placeInSight() {
    const row = Math.ceil(this.scroller.scrollTop / ROW_PX);
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
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_PX) - OVERSCAN);
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
  }

  element(row) {
    const part = this.partOfRow(row);
    const top = `${row * ROW_PX}px`;
    if (row === part.row) return heading(top, part, this.folded.has(part.name));
    const place = part.first + row - part.row - 1;
    const line = this.line(place);
    const number = line?.[0];
    const chosen = this.chosen && number >= this.chosen[0] && number <= this.chosen[1];
    return lineElement(top, line, { query: this.query, chosen, current: place === this.current });
  }

  line(place) {
    const at = Math.floor(place / BLOCK);
    const block = this.blocks.get(at) ?? this.fetch(at);
    return block.lines?.[place - at * BLOCK];
  }

  fetch(at) {
    const block = { lines: null };
    const generation = this.generation;
    this.blocks.set(at, block);
    while (this.blocks.size > BLOCKS_MAX) this.blocks.delete(this.blocks.keys().next().value);
    this.fetchBlock(at * BLOCK, BLOCK).then(
      (lines) => {
        if (generation !== this.generation) return;
        block.lines = lines;
        this.later();
      },
      () => this.blocks.delete(at),
    );
    return block;
  }
}
