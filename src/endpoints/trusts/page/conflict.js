// Two administrators changed the policy: shows what each did, and joins both texts.

import { MAX_ROWS, diffRow } from "./changes.js";
import { count, h, hidden } from "./dom.js";
import { diff, lines } from "./diff.js";
import { isAddition, merge, places } from "./merge.js";

/// The number of unchanged lines around a difference.
const CONTEXT = 2;

/// Remembers choices while the administrator goes on typing.
export function createChoices() {
  const made = new Map();
  const nameOf = ({ base, mine, theirs }) => JSON.stringify([base, mine, theirs]);
  return {
    of: place => made.get(nameOf(place)) ?? (isAddition(place) ? "all" : "mine"),
    make: (place, choice) => { made.set(nameOf(place), choice) },
    clear: () => made.clear(),
  };
}

export const joined = ({ base, mine, theirs }, choices) => merge(base, mine, theirs, choices.of);

/// Whether all own changes are in the other text as well.
export const isIncluded = ({ base, mine, theirs }) => places(base, mine, theirs).every(({ kind }) => kind === "theirs" || kind === "alike");

/// Shows the differences in groups: what both changed, what only the others changed, and what is only the own.
export function conflictGroups({ base, mine, theirs }, choices) {
  const found = places(base, mine, theirs);
  const before = lines(base);
  const of = kind => found.filter(place => place.kind === kind);
  const [both, alike] = [of("both"), of("alike")];
  return [
    both.length > 0 && group("both", "Changed by both", "Choose which lines “Keep mine on top of theirs” writes here.", both, (place, nth) => choice(place, nth, before, choices)),
    oneSided("theirs", "Changed by them", "“Keep mine on top of theirs” keeps these.", of("theirs"), before),
    oneSided("mine", "Changed by you", "“Take theirs” drops these.", of("mine"), before),
    alike.length > 0 && h("p", { className: "soft" }, `You and they made the same change at ${count(alike.length, "other place")}.`),
  ];
}

function group(id, title, help, found, show) {
  return h("section", { className: "side", "aria-labelledby": `conflict-${id}` },
    h("h4", { id: `conflict-${id}` }, title, " ", h("span", { className: "chip" }, count(found.length, "place"))),
    h("p", { className: "soft" }, help), limited(found).map(show), found.length > limited(found).length && h("p", { className: "soft" }, "The other places are too many to show."));
}

/// The places whose lines are shown.
function limited(found) {
  let left = MAX_ROWS;
  return found.filter(({ base, mine, theirs }) => (left -= base.length + mine.length + theirs.length) > 0);
}

function oneSided(side, title, help, found, before) {
  if (found.length === 0) return null;
  return group(side, title, help, found, place => box(`${title}, ${lineOf(place)}`, lineOf(place), rows(place, side, before)));
}

const lineOf = ({ at, base }) => base.length > 1 ? `lines ${at.base + 1} to ${at.base + base.length}` : `line ${at.base + 1}`;

const box = (label, head, shown) => h("div", { className: "hunks", tabIndex: 0, role: "group", "aria-label": label },
  head && h("div", { className: "hunk-head" }, head[0].toUpperCase() + head.slice(1)), h("div", { className: "rows" }, shown.map(diffRow)));

/// The lines of one side against those before, with some unchanged ones around them.
function rows({ at, base, ...place }, side, before) {
  let [old, now] = [at.base, at[side]];
  const numbered = diff(`${base.join("\n")}\n`.repeat(base.length > 0), `${place[side].join("\n")}\n`.repeat(place[side].length > 0)).map(({ kind, text }) => {
    if (kind !== "new") old++;
    if (kind !== "old") now++;
    return { kind, text, old, ...(kind !== "old" && { new: now }) };
  });
  const around = (from, to, shift) => before.slice(from, to).map((text, nth) => ({ kind: "same", text, new: from + nth + 1 + shift }));
  const end = at.base + base.length;
  return [...around(Math.max(0, at.base - CONTEXT), at.base, at[side] - at.base), ...numbered, ...around(end, end + CONTEXT, now - end)];
}

const CHOICES = [["mine", "Yours"], ["theirs", "Theirs"], ["all", "Both: theirs, then yours"]];

function choice(place, nth, before, choices) {
  const chosen = choices.of(place);
  const radio = ([value, text]) => {
    const input = h("input", { type: "radio", name: `conflict-${nth}`, value, id: `conflict-${nth}-${value}`, checked: value === chosen, onchange: () => choices.make(place, value) });
    return h("label", { for: input.id }, input, text);
  };
  const offered = CHOICES.filter(([value]) => value !== "all" || isAddition(place));
  const legend = `At ${lineOf(place)}`;
  return h("fieldset", { className: "segments decision" }, h("legend", {}, legend, hidden(": which lines stay?")), offered.map(radio),
    h("div", { className: "versus" }, [["mine", "Yours"], ["theirs", "Theirs"]].map(([side, name]) =>
      h("div", {}, h("p", { className: "soft", "aria-hidden": "true" }, name), box(`${name}, ${legend}`, null, rows(place, side, before))))));
}
