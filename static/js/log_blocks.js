// The lines of a log, fetched by blocks when one of them is looked at.
const BLOCK = 200; // lines fetched at once
const BLOCKS_MAX = 60; // kept; the oldest go first

export class Blocks {
  // fetchBlock(first, limit) → lines; came() is told when some have arrived.
  constructor(fetchBlock, came) {
    this.fetchBlock = fetchBlock;
    this.came = came;
    this.generation = 0;
    this.reset();
  }

  reset() {
    this.blocks = new Map();
    this.generation += 1; // what was asked for before is not wanted any more
  }

  // There are more lines than before: a block that was short is read again.
  grow() {
    for (const [at, block] of this.blocks) {
      if (block.lines && block.lines.length < BLOCK) this.blocks.delete(at);
    }
  }

  // The line at a place, or undefined while it is on its way.
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
        this.came();
      },
      () => this.blocks.delete(at),
    );
    return block;
  }
}
