// Shows differences between texts, and decisions that a new policy would change.

import { diff, hunks } from "./diff.js";
import { count, exact, fault, h, hidden, notice } from "./dom.js";
import { outcomeWords } from "./outcomes.js";

/// More rows than this are not shown.
export const MAX_ROWS = 2000;

/// Shows the differences.
export function differences(before, after) {
  const rows = diff(before, after);
  const groups = hunks(rows);
  if (groups.length === 0) return h("p", { className: "soft" }, "The texts are the same.");
  const [added, removed] = ["new", "old"].map(kind => rows.filter(row => row.kind === kind).length);
  let left = MAX_ROWS;
  const shown = groups.map(group => {
    const part = group.slice(0, Math.max(0, left));
    left -= group.length;
    return part.length > 0 && h("div", { className: "hunk" },
      h("div", { className: "hunk-head" }, `Line ${part[0].new ?? part[0].old}`), h("div", { className: "rows" }, part.map(diffRow)));
  });
  return h("div", { className: "diff" },
    h("p", { className: "soft" }, [added && `${count(added, "line")} added`, removed && `${count(removed, "line")} removed`].filter(Boolean).join(", ")),
    h("div", { className: "hunks", tabIndex: 0, role: "group", "aria-label": "Differences" }, shown),
    left < 0 && h("p", { className: "soft" }, "The other differences are too many to show."));
}

export function diffRow({ kind, text, old, new: now }) {
  const [sign, words] = { new: ["+", "added: "], old: ["−", "removed: "], same: [" ", ""] }[kind];
  return h("div", { className: `row ${kind}` },
    h("span", { className: "at", "aria-hidden": "true" }, String(now ?? old)),
    h("span", { className: "sign", "aria-hidden": "true" }, sign), words && hidden(words), h("code", {}, text || " "));
}

/// Shows which decisions of late a policy would change.
export function dryRun({ considered, unknown, skipped, changes }) {
  const summary = considered === 0
    ? "There is no decision yet to compare with."
    : changes.length === 0
      ? `None of the ${considered.toLocaleString("en")} recent decisions would change.`
      : `${changes.length.toLocaleString("en")} of ${considered.toLocaleString("en")} recent decisions would change:`;
  const earlier = skipped > 0 && h("p", { className: "soft" }, `${count(skipped, "earlier decision")} took too long to compare.`);
  const rest = unknown > 0 && h("p", { className: "soft" }, `For ${count(unknown, "decision")} this is unknown, because the new policy needs other keys or claims.`);
  if (changes.length === 0) return h("div", {}, h("p", {}, summary), rest, earlier);
  return notice("warn", h("p", {}, summary), h("ul", { className: "plain" }, changes.slice(0, 50).map(change =>
    h("li", {}, h("div", { className: "soft" }, exact(change.at)), h("strong", {}, change.trust ?? "no trust"), change.rule ? ` / ${change.rule}: ` : ": ",
      outcomeWords(change.before), " → ", outcomeWords(change.after), otherDifferences(change)))),
  changes.length > 50 && h("p", {}, `And ${count(changes.length - 50, "more")}.`), rest, earlier);
}

/// A workload that is granted before and after may get another identity, tenant or other scopes.
function otherDifferences({ differences: names = [] }) {
  const others = names.filter(name => name !== "outcome");
  return others.length > 0 && ` with other ${others.join(", ")}`;
}

/// Says that a version was saved. Warnings are shown with their lines of the text that was sent, because the service
/// may have changed it.
export function savedNotice(words, warnings, sent) {
  if (!warnings?.length) return null;
  const written = sent.split("\n");
  const item = warning => h("li", {}, warning.line && [`Line ${warning.line}: `, h("code", {}, written[warning.line - 1]?.trim()), " – "], fault(warning));
  return notice("warn", h("strong", {}, `${words}, with ${count(warnings.length, "warning")}`), h("ul", {}, warnings.slice(0, 20).map(item)),
    warnings.length > 20 && h("p", {}, `And ${count(warnings.length - 20, "more")}.`));
}
