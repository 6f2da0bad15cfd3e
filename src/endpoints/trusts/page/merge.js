// Merges two texts that began as the same one, line by line.

import { diff, lines } from "./diff.js";

/// Returns the places where `mine` or `theirs` differs from `base`, in order: `{ kind, at, base, mine, theirs }`.
/// `at` is the line in each text, from 0; the others are lists of lines. The kind is "mine" or "theirs" if only
/// one text changed, "alike" if both changed the same, and "both" if they changed differently or side by side.
export function places(base, mine, theirs) {
  const before = lines(base);
  const edits = [...editsOf(base, mine, "mine"), ...editsOf(base, theirs, "theirs")].sort((a, b) => a.from - b.from || a.to - b.to);
  const found = [];
  const ahead = { mine: 0, theirs: 0 };
  for (const group of touching(edits)) {
    const { from, to } = group;
    const part = side => applied(before, group, side);
    const place = { at: { base: from, mine: from + ahead.mine, theirs: from + ahead.theirs }, base: before.slice(from, to), mine: part("mine"), theirs: part("theirs") };
    found.push({ ...place, kind: kindOf(group, place) });
    for (const side of ["mine", "theirs"]) ahead[side] += place[side].length - (to - from);
  }
  return found;
}

/// The changes of one side as `{ side, from, to, lines }`: lines of the base from `from` to before `to` become others.
function editsOf(base, text, side) {
  const found = [];
  let [at, open] = [0, null];
  for (const { kind, text: line } of diff(base, text)) {
    if (kind === "same") { at++; open = null; continue }
    if (!open) found.push(open = { side, from: at, to: at, lines: [] });
    if (kind === "old") open.to = ++at; else open.lines.push(line);
  }
  return found;
}

/// Groups edits that overlap or touch: the order of touching ones would be a guess.
function touching(edits) {
  const groups = [];
  for (const edit of edits) {
    const last = groups.at(-1);
    if (last && edit.from <= last.to) {
      last.to = Math.max(last.to, edit.to);
      last.edits.push(edit);
    } else groups.push({ from: edit.from, to: edit.to, edits: [edit] });
  }
  return groups;
}

/// The lines of a group as one side has them.
function applied(before, { from, to, edits }, side) {
  const result = [];
  let at = from;
  for (const edit of edits.filter(each => each.side === side)) {
    result.push(...before.slice(at, edit.from), ...edit.lines);
    at = edit.to;
  }
  return [...result, ...before.slice(at, to)];
}

function kindOf({ edits }, { mine, theirs }) {
  if (edits.every(edit => edit.side === edits[0].side)) return edits[0].side;
  return isSame(mine, theirs) ? "alike" : "both";
}

const isSame = (a, b) => a.length === b.length && a.every((line, nth) => line === b[nth]);

/// Whether both sides only added lines, so that a text can have both additions.
export const isAddition = ({ kind, base }) => kind === "both" && base.length === 0;

/// Joins the texts. `choose` says for each place of kind "both" which lines count: "mine", "theirs", or "all" for
/// theirs, then mine.
export function merge(base, mine, theirs, choose) {
  const before = lines(base);
  const result = [];
  let at = 0;
  for (const place of places(base, mine, theirs)) {
    result.push(...before.slice(at, place.at.base), ...chosen(place, choose));
    at = place.at.base + place.base.length;
  }
  result.push(...before.slice(at));
  // A text may end without a line end.
  return isSame(result, lines(theirs)) ? theirs : result.map(line => `${line}\n`).join("");
}

function chosen(place, choose) {
  if (place.kind !== "both") return place.kind === "mine" ? place.mine : place.theirs;
  const choice = choose(place);
  return choice === "all" ? [...place.theirs, ...place.mine] : place[choice];
}
