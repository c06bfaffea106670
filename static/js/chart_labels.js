// Names of phases and percentiles stand in a row above the plot; where two would touch,
// a later one goes a row higher, and what would leave the plot turns back into it.
const CHAR_PX = 7;
const GAP_PX = 6;
const ROW_PX = 15;
const ROWS = 3;

// Lines are named directly where their part of the plot is wide enough for the name;
// else in the legend.
export function nameWhereThereIsRoom(width, data, layout) {
  const [from, to] = layout.xaxis.range ?? [0, 0];
  const px = (width - layout.margin.l - layout.margin.r) / (to - from || 1);
  layout.annotations = layout.annotations?.filter((label) => {
    if (label.room_s === undefined || label.room_s * px > label.text.length * CHAR_PX) return true;
    data.find((trace) => trace.name === label.text).showlegend = true;
    return false;
  });
}

// The annotations with room for each, or null where all had it.
export function makeRoom(place, annotations) {
  const { xaxis } = place._fullLayout;
  const ends = Array(ROWS).fill(-Infinity);
  let moved = false;
  const found = (annotations ?? []).map((label) => {
    if (label.name !== "phase" && label.name !== "mark") return label;
    const long = label.text.length * CHAR_PX;
    const middle = label.name === "mark";
    let left = xaxis.l2p(label.x) - (middle ? long / 2 : 0);
    let kept = label;
    if (!middle && left + long > xaxis._length) {
      left = xaxis._length - long;
      kept = { ...kept, x: xaxis.range[1], xanchor: "right" };
    }
    const row = ends.findIndex((end) => left >= end + GAP_PX);
    if (row < 0) kept = { ...kept, text: "" };
    else ends[row] = left + long;
    if (row > 0) kept = { ...kept, yshift: (kept.yshift ?? 0) + row * ROW_PX };
    moved ||= kept !== label;
    return kept;
  });
  return moved ? found : null;
}
