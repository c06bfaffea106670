// Where rows of unequal height stand: sums and searches in log(n), however many rows.
export class Heights {
  constructor(count, usual) {
    this.count = count;
    this.usual = usual;
    this.more = new Map(); // row → px beyond the usual
    this.tree = new Float64Array(count + 1); // Fenwick tree of `more`
  }

  get total() {
    return this.top(this.count);
  }

  of(row) {
    return this.usual + (this.more.get(row) ?? 0);
  }

  // The px above a row.
  top(row) {
    let sum = row * this.usual;
    for (let at = Math.min(row, this.count); at > 0; at -= at & -at) sum += this.tree[at];
    return sum;
  }

  // How much the row grew.
  set(row, height) {
    const grown = height - this.of(row);
    if (!grown) return 0;
    this.more.set(row, height - this.usual);
    for (let at = row + 1; at <= this.count; at += at & -at) this.tree[at] += grown;
    return grown;
  }

  // The row that stands `px` below the top.
  rowAt(px) {
    let row = 0;
    let left = px;
    for (let step = 1 << Math.floor(Math.log2(this.count || 1)); step; step >>= 1) {
      const next = row + step;
      if (next > this.count) continue;
      const height = step * this.usual + this.tree[next];
      if (height > left) continue;
      row = next;
      left -= height;
    }
    return Math.max(0, Math.min(row, this.count - 1));
  }
}
