// The text editor: a plain `textarea`, over lines that are painted behind it with numbers and faults. Only the visible
// lines are painted, so a text of 1 MiB stays quick.

import { fault, fill, h } from "./dom.js";
import { multilineStates } from "./toml.js";

export function createEditor({ label, onInput }) {
  const numbers = h("div", { className: "numbers", "aria-hidden": "true" });
  const paint = h("div", { className: "paint", "aria-hidden": "true" });
  const area = h("textarea", {
    id: "policy-text", spellcheck: false, autocapitalize: "off", autocomplete: "off", wrap: "off",
    "aria-label": label, placeholder: "The policy is empty: no foreign token is accepted.", "aria-describedby": "problems-summary", "data-gramm": "false",
  });
  const root = h("div", { className: "editor" }, numbers, h("div", { className: "sheet" }, paint, area));
  let [lines, states, marks] = [[""], [""], new Map()];

  function changed() {
    lines = area.value.split("\n");
    states = multilineStates(lines);
    root.classList.toggle("long", lines.length > 9999);
    draw();
  }

  function draw() {
    const height = lineHeight();
    const first = Math.floor(area.scrollTop / height);
    const last = Math.min(lines.length, first + Math.ceil(area.clientHeight / height) + 1);
    const visible = Array.from({ length: Math.max(0, last - first) }, (_, nth) => first + nth);
    fill(numbers, visible.map(index => numberOf(index, marks.get(index + 1))));
    fill(paint, visible.map(index => paintedLine(lines[index], states[index], marks.get(index + 1))));
    const offset = first * height - area.scrollTop;
    numbers.style.transform = `translateY(${offset}px)`;
    paint.style.transform = `translate(${-area.scrollLeft}px, ${offset}px)`;
  }

  const lineHeight = () => parseFloat(getComputedStyle(area).lineHeight) || 21;

  function select(from, to) {
    area.focus();
    area.setSelectionRange(from, to);
  }

  area.addEventListener("input", () => { changed(); onInput() });
  area.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(area);

  return {
    root, area,
    get text() { return area.value },
    set text(text) {
      area.value = text;
      changed();
    },
    /// Marks lines: `[{ line, field, problem, kind: "bad" | "warn" }]`.
    mark(faults) {
      marks = new Map();
      for (const fault of faults) {
        const there = marks.get(fault.line);
        if (!there || (there.kind === "warn" && fault.kind === "bad")) marks.set(fault.line, fault);
      }
      draw();
    },
    /// Moves the cursor to a line and column, both from 1. Columns count characters, not UTF-16 units.
    goTo(line, column = 1) {
      const nth = Math.min(Math.max(line, 1), lines.length) - 1;
      const before = lines.slice(0, nth).reduce((sum, text) => sum + text.length + 1, 0);
      const within = [...lines[nth]].slice(0, Math.max(0, column - 1)).join("").length;
      area.scrollTop = Math.max(0, nth * lineHeight() - area.clientHeight / 3);
      select(before + within, before + within);
      area.scrollLeft = Math.max(0, column * 7 - area.clientWidth / 2);
      draw();
    },
    /// Replaces the text as typing would, so that Undo works, and moves the cursor to `line`.
    replace(text, line) {
      const old = area.value;
      let start = 0;
      while (start < old.length && start < text.length && old[start] === text[start]) start++;
      let end = 0;
      while (end < old.length - start && end < text.length - start && old[old.length - 1 - end] === text[text.length - 1 - end]) end++;
      select(start, old.length - end);
      // The only way into the browser's undo history. Where it is missing, the value is set.
      const inserted = text.slice(start, text.length - end);
      const done = !area.readOnly && document.execCommand(inserted ? "insertText" : "delete", false, inserted);
      if (!done || area.value !== text) area.value = text;
      changed();
      onInput();
      if (line) this.goTo(line);
    },
  };
}

function numberOf(index, mark) {
  const sign = mark && { bad: "✕", warn: "!" }[mark.kind];
  return h("div", { className: `number ${mark?.kind ?? ""}` },
    h("span", { className: "sign" }, sign ?? ""), String(index + 1));
}

/// Longer lines are painted without colours.
const MAX_PAINTED = 2000;

const TOKEN = /("(?:\\.|[^"\\])*"?|'[^']*'?)|(#.*)|(^\s*\[.*?\]+)|(\b(?:true|false)\b|\b\d[\w.:+-]*)|([A-Za-z0-9_-]+(?=\s*[=.]))/g;
const KINDS = ["string", "comment", "header", "value", "key"];

/// The last part of the name of a field. Quoted parts may have dots.
const LAST_PART = /(?:"(?:\\.|[^"\\])*"|[^.])*$/;

function paintedLine(line, state, mark) {
  const note = mark && h("span", { className: "note" }, fault({ ...mark, field: mark.field.match(LAST_PART)[0] }));
  return h("div", { className: `line ${mark?.kind ?? ""}` }, tokens(line, state), note);
}

function tokens(line, state) {
  if (line.length > MAX_PAINTED) return [line];
  if (state) return [h("span", { className: "string" }, line)];
  const parts = [];
  let end = 0;
  for (const match of line.matchAll(TOKEN)) {
    parts.push(line.slice(end, match.index));
    const kind = KINDS[match.slice(1).findIndex(group => group !== undefined)];
    parts.push(h("span", { className: kind }, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, line.slice(end)];
}
