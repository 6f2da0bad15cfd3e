// Differences between two texts, line by line.

/// Tables larger than this are not computed: the lines are split at unique lines first.
const MAX_CELLS = 4_000_000;

/// Returns `[{ kind: "same" | "old" | "new", text, old, new }]` with line numbers from 1.
export function diff(before, after) {
  const rows = [];
  compare(lines(before), lines(after), rows);
  let [old, now] = [0, 0];
  for (const row of rows) {
    if (row.kind !== "new") row.old = ++old;
    if (row.kind !== "old") row.new = ++now;
  }
  return rows;
}

export const lines = text => text === "" ? [] : text.replace(/\n$/, "").split("\n");

function compare(before, after, rows) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start++;
  let end = 0;
  while (end < before.length - start && end < after.length - start
    && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  add(rows, "same", before.slice(0, start));
  const [a, b] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  if (a.length * b.length <= MAX_CELLS) compareByTable(a, b, rows);
  else compareByAnchors(a, b, rows);
  add(rows, "same", end ? before.slice(-end) : []);
}

const add = (rows, kind, texts) => { for (const text of texts) rows.push({ kind, text }) };

/// The longest common subsequence.
function compareByTable(a, b, rows) {
  const width = b.length + 1;
  const length = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      length[i * width + j] = a[i] === b[j]
        ? length[(i + 1) * width + j + 1] + 1
        : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add(rows, "same", [a[i]]); i++; j++ }
    else if (j >= b.length || (i < a.length && length[(i + 1) * width + j] >= length[i * width + j + 1])) add(rows, "old", [a[i++]]);
    else add(rows, "new", [b[j++]]);
  }
}

/// Splits at a line that occurs exactly once in both texts. Without one, all lines count as replaced.
function compareByAnchors(a, b, rows) {
  const places = new Map();
  const note = (text, side, index) => {
    const place = places.get(text) ?? { a: [], b: [] };
    if (place[side].length < 2) place[side].push(index);
    places.set(text, place);
  };
  a.forEach((text, index) => note(text, "a", index));
  b.forEach((text, index) => note(text, "b", index));
  const anchors = [...places.values()].filter(place => place.a.length === 1 && place.b.length === 1);
  let [fromA, fromB] = [0, 0];
  for (const { a: [i], b: [j] } of increasing(anchors)) {
    compareByPart(a.slice(fromA, i), b.slice(fromB, j), rows);
    add(rows, "same", [a[i]]);
    [fromA, fromB] = [i + 1, j + 1];
  }
  compareByPart(a.slice(fromA), b.slice(fromB), rows);
}

function compareByPart(a, b, rows) {
  if (a.length === 0 || b.length === 0) { add(rows, "old", a); add(rows, "new", b) }
  else if (a.length * b.length <= MAX_CELLS) compareByTable(a, b, rows);
  else { add(rows, "old", a); add(rows, "new", b) }
}

/// The longest run of anchors that is in order in both texts. Anchors are in the order of `a`.
function increasing(anchors) {
  const tails = [];
  const previous = [];
  anchors.forEach((anchor, index) => {
    let [low, high] = [0, tails.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (anchors[tails[middle]].b[0] < anchor.b[0]) low = middle + 1; else high = middle;
    }
    previous[index] = low ? tails[low - 1] : -1;
    tails[low] = index;
  });
  const run = [];
  for (let index = tails.at(-1) ?? -1; index >= 0; index = previous[index]) run.push(anchors[index]);
  return run.reverse();
}

/// Groups changed rows with `context` unchanged rows around them.
export function hunks(rows, context = 3) {
  const groups = [];
  let last = -Infinity;
  rows.forEach((row, index) => {
    if (row.kind === "same") return;
    const from = Math.max(0, index - context);
    if (from <= last) groups.at(-1).to = Math.min(rows.length, index + context + 1);
    else groups.push({ from, to: Math.min(rows.length, index + context + 1) });
    last = groups.at(-1).to;
  });
  return groups.map(({ from, to }) => rows.slice(from, to));
}
