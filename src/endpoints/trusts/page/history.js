// The versions of the policy, their differences, and the way back.

import { call } from "./api.js";
import { differences, dryRun, savedNotice } from "./changes.js";
import { announce, badge, exact, fault, field, fill, focusOn, h, hidden, notice, once, openDialog, options, when } from "./dom.js";
import { isDirty, isOwner, load, normalized, onForget, savedBy, state, versionName, versionNumber } from "./state.js";

const PAGE = 30;

export function createHistory({ guard }) {
  const list = h("ol", { className: "versions", "aria-label": "Versions" });
  const older = h("button", { type: "button", id: "older", onclick: () => guard(more) }, "Show older versions");
  const [from, to] = ["from", "to"].map(name => h("select", { id: `compare-${name}`, onchange: () => guard(compare) }));
  const panel = h("div", {});
  /// The button that asked for the differences.
  let origin = null;
  const back = h("button", { type: "button", className: "small back", id: "history-back", onclick: () => (origin?.isConnected ? origin : title()).focus() }, "Back to the versions");
  const comparison = h("section", { className: "card comparison", "aria-labelledby": "comparison-title" },
    h("h3", { id: "comparison-title", tabIndex: -1 }, "Differences"), back,
    h("div", { className: "actions" }, h("div", { className: "inline-field" }, h("label", { for: from.id }, "From"), from), h("div", { className: "inline-field" }, h("label", { for: to.id }, "to"), to)), panel);
  const outcome = h("div", {});
  const none = h("p", { className: "empty", hidden: true }, "No version yet. Each saved change appears here.");
  const root = h("section", { className: "view", "aria-labelledby": "history-title" },
    h("div", { className: "head" }, h("div", {}, h("h2", { id: "history-title", tabIndex: -1 }, "History"),
      h("p", { className: "soft" }, "Versions are only ever added, so this is also the audit log."))),
    outcome, none, h("div", { className: "history" }, list, comparison));
  const title = () => root.querySelector("h2");
  let versions = [];
  const texts = new Map();

  async function start() {
    await load();
    versions = [];
    await more();
    const [latest, previous] = versions.filter(isReadable);
    if (latest) choose(previous?.number ?? latest.number, latest.number);
    if (latest) await compare();
  }

  async function more() {
    const before = versions.length ? `&before=${versions.at(-1).number}` : "";
    const { body } = await call(`history?limit=${PAGE}${before}`);
    versions = [...versions, ...body.versions];
    older.remove();
    fill(list, versions.map(item));
    if (body.versions.length === PAGE) list.after(older);
    none.hidden = versions.length > 0;
    comparison.hidden = !versions.some(isReadable);
    drawOptions();
  }

  const drawOptions = () => choose(Number(from.value), Number(to.value));

  function choose(first, second) {
    const all = versions.filter(isReadable).map(version => [String(version.number), `${nameOf(version)}${version.in_force ? " (in force)" : ""}`]);
    options(from, all, String(first));
    options(to, all, String(second));
  }

  function item(version, nth) {
    if (!isReadable(version)) {
      return h("li", {}, h("div", { className: "version-head" }, h("strong", {}, `Version ${version.number}`), badge("bad", "damaged")),
        h("p", { className: "soft" }, "The store cannot read this version."));
    }
    const previous = versions.slice(nth + 1).find(isReadable);
    const inForce = versions.find(each => each.in_force);
    const show = (first, second) => event => {
      origin = event.currentTarget;
      choose(first, second);
      guard(compare).then(() => focusOn(byTitle()));
    };
    const actions = [
      previous && h("button", { type: "button", className: "link", onclick: show(previous.number, version.number) }, "What changed", hidden(` in ${versionName(version)}`)),
      inForce && !version.in_force && h("button", { type: "button", className: "link", onclick: show(version.number, inForce.number) }, "Compare with today", hidden(`: ${versionName(version)}`)),
      state.view.writable && !version.in_force && h("button", { type: "button", className: "link roll-back", "data-number": String(version.number), onclick: () => guard(() => confirmRollback(version)) }, "Roll back", hidden(` to ${versionName(version)}`)),
    ];
    return h("li", { className: version.in_force ? "in-force" : "" },
      h("div", { className: "version-head" }, h("strong", {}, `Version ${versionNumber(version)}`), version.in_force && badge("good", "in force"), version.restores && badge("info", isOwner() ? `restores ${version.restores}` : "restores an earlier one")),
      version.note && h("p", {}, version.note),
      h("p", { className: "soft" }, savedBy(version), version.author?.tenant && ` of ${version.author.tenant}`, " · ", when(version.at)),
      h("div", { className: "row-actions" }, actions));
  }

  const byTitle = () => comparison.querySelector("h3");

  async function textOf(number) {
    if (!texts.has(number)) texts.set(number, normalized((await call(`history/${number}`)).body.text));
    return texts.get(number);
  }

  async function compare() {
    const [first, second] = [Number(from.value), Number(to.value)];
    const [before, after] = await Promise.all([textOf(first), textOf(second)]);
    fill(panel, first === second ? h("p", { className: "soft" }, "This is the first version.") : differences(before, after));
  }

  async function confirmRollback(version) {
    const text = await textOf(version.number);
    fill(outcome);
    const trial = h("div", { role: "status" }, h("p", { className: "soft" }, "Comparing with the last decisions…"));
    const note = h("input", { id: "rollback-note", maxLength: 200, autocomplete: "off" });
    const problem = h("div", {});
    const confirm = h("button", { type: "submit", className: "primary", id: "confirm-rollback" }, `Roll back to ${versionName(version)}`);
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const dialog = openDialog(`Roll back to ${versionName(version)}?`, [
      h("p", {}, "The old text becomes a new version. Nothing of the history is lost."),
      isDirty() && notice("warn", "You have unsaved changes in the editor. They stay there."),
      differences(normalized(state.view.text), text), h("h3", {}, "What would change"), trial, field("Note (optional)", note, "For the history: why this change.")], [problem, cancel, confirm], { wide: true, onsubmit: once(confirm, send) });
    note.focus();

    async function send() {
      try {
        const json = { number: version.number, ...(note.value.trim() && { note: note.value.trim() }) };
        const { body } = await call("rollback", { method: "POST", json, ifMatch: state.etag });
        dialog.close();
        await guard(start);
        const words = `Version ${versionNumber(version)} is restored`;
        const warnings = savedNotice(words, body.warnings ?? state.view?.warnings, text);
        fill(outcome, warnings);
        (warnings ?? title()).focus();
        if (!warnings) announce(`${words}.`);
      } catch (error) {
        fill(problem, notice("bad", ...[rollbackProblem(error)].flat())).firstChild.focus();
        if (error.status === 412 || error.isUncertain) guard(start);
      }
    }

    call("dry_run", { method: "POST", toml: text }).then(
      ({ body }) => fill(trial, dryRun(body)),
      error => fill(trial, h("p", {}, `Not known: ${error.message}`), faultsOf(error)));
  }

  onForget(() => {
    versions = [];
    texts.clear();
    fill(list);
    fill(panel);
    fill(outcome);
  });
  return { root, title: "History", show: () => guard(start), hide: () => fill(outcome) };
}

const isReadable = version => !version.damaged;

/// A tenant's versions with the same text have the same name, so their times tell them apart.
const nameOf = version => isOwner() ? `Version ${version.number}` : `${exact(version.at).replace(" UTC", "")}, ${versionNumber(version)}`;

function rollbackProblem(error) {
  if (error.isUncertain) return [h("strong", {}, "It is not known whether this was saved. "), error.message, " Then close this: if the list begins with a new version of yours, it was saved."];
  if (error.status === 412) return "Another version was saved meanwhile. Close this, look at it, and try again.";
  return [error.message, faultsOf(error)];
}

const faultsOf = ({ faults }) => faults.length > 0 && h("ul", {}, faults.map(each => h("li", {}, each.line ? `Line ${each.line}: ` : "", fault(each))));
