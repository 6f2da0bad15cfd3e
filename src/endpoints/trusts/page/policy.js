// The policy: editor, faults, guided forms, saving, and conflicts with other administrators.

import { call } from "./api.js";
import { differences, dryRun, savedNotice } from "./changes.js";
import { conflictGroups, createChoices, isIncluded, joined } from "./conflict.js";
import { announce, count, fault, field, fill, h, hidden, notice, once, openDialog, when } from "./dom.js";
import { createEditor } from "./editor.js";
import { openRuleGuide, openTrustGuide } from "./guide.js";
import { rejectedNotice } from "./overview.js";
import { follow, hasChanges, isBehind, isDirty, isOwner, load, normalized, onForget, onLoad, saved, savedBy, savedWords, state, versionName, versionNumber } from "./state.js";
import { appendTrust, insertRule, trusts } from "./toml.js";

/// The time after the last keystroke, in milliseconds.
const LINT_DELAY = 400;

export function createPolicy({ guard, go }) {
  const editor = createEditor({ label: "Policy text (TOML)", onInput: edited });
  const summary = h("p", { id: "problems-summary", role: "status" });
  const problems = h("ol", { className: "problems", "aria-label": "Problems" });
  const version = h("span", {});
  const unsaved = h("strong", { hidden: true, className: "badge info" }, "Unsaved changes");
  const banners = h("div", { className: "stack" });
  /// What became of the last save.
  const outcome = h("div", { className: "stack" });
  const conflict = h("div", {});
  const choices = createChoices();
  const button = (id, text, onclick, className = "") => h("button", { type: "button", id, className, onclick }, text);
  const addTrustButton = button("add-trust", "Add a trust", () => addTrust());
  const addRuleButton = button("add-rule", "Add a rule", () => addRule());
  const discardButton = button("discard", "Discard changes", discard);
  const saveButton = button("review", "Review and save", () => reviewOnce(), "primary");
  const root = h("section", { className: "view", "aria-labelledby": "policy-title" },
    h("div", { className: "head" }, h("div", {}, h("div", { className: "title" }, h("h2", { id: "policy-title", tabIndex: -1 }, "Policy"), unsaved), h("p", { className: "soft" }, version)),
      h("div", { className: "actions" }, discardButton, addTrustButton, addRuleButton, saveButton)),
    banners, outcome, conflict, editor.root, h("div", { className: "problem-box" }, summary, problems));
  /// The faults of the text that was checked last.
  let [faults, checked] = [[], null];
  let timer;
  let [isLinting, isStale] = [false, false];
  /// The note of the next save.
  let typedNote = "";

  const reviewOnce = once(saveButton, review);
  const title = () => root.querySelector("h2");

  function edited() {
    state.text = editor.text;
    drawState();
    clearTimeout(timer);
    timer = setTimeout(() => { if (hasConflict()) showConflict(); lint() }, LINT_DELAY);
  }

  /// Asks for faults: one request at a time, and another for the newest text.
  async function lint() {
    if (isLinting) { isStale = true; return }
    [isLinting, isStale] = [true, false];
    const text = state.text;
    summary.textContent = "Checking…";
    try {
      const { body } = await call("lint", { method: "POST", toml: text });
      if (!state.view) return;
      if (text !== state.text) return;
      showFaults(body.faults, body.warnings);
      checked = text;
    } catch (error) {
      const wait = error.retryAfter ?? 5;
      summary.textContent = `Not checked: ${error.message}`;
      if ([0, 429, 503].includes(error.status)) timer = setTimeout(lint, wait * 1000);
      if (error.status === 401) guard(() => Promise.reject(error));
    } finally {
      isLinting = false;
      if (isStale) lint();
    }
  }

  function showFaults(newFaults, warnings = []) {
    faults = newFaults;
    const all = [...newFaults.map(each => ({ ...each, kind: "bad" })), ...warnings.map(each => ({ ...each, kind: "warn" }))];
    editor.mark(all.filter(each => each.line));
    fill(problems, all.map(problemItem));
    summary.textContent = all.length === 0
      ? state.text.trim() ? "No faults." : "The policy is empty."
      : [newFaults.length && count(newFaults.length, "fault"), warnings.length && count(warnings.length, "warning")].filter(Boolean).join(" and ");
    summary.className = newFaults.length ? "bad" : warnings.length ? "warn" : "good";
  }

  function problemItem({ line, column, kind, ...what }) {
    const place = [line && `Line ${line}`, column && `column ${column}`].filter(Boolean).join(", ");
    return h("li", { className: kind }, h("button", { type: "button", onclick: () => editor.goTo(line ?? 1, column ?? 1) },
      h("span", { className: "sign", "aria-hidden": "true" }, kind === "bad" ? "✕" : "!"),
      h("span", { className: "place" }, hidden(kind === "bad" ? "Fault: " : "Warning: "), place || "Whole text"),
      h("span", { className: "words" }, fault(what))));
  }

  function drawState() {
    const writable = Boolean(state.view?.writable);
    editor.area.readOnly = !writable;
    addTrustButton.hidden = !writable || !isOwner();
    discardButton.hidden = saveButton.hidden = !writable;
    addRuleButton.hidden = !writable || !state.text.trim();
    // Its place stays, so that the first key does not move the editor.
    discardButton.classList.toggle("absent", !isDirty());
    saveButton.disabled = !isDirty();
    unsaved.hidden = !isDirty();
  }

  function draw({ follows }) {
    if (!follows && isBehind() && isIncluded(texts())) {
      // The answer to this save was lost.
      follow();
      follows = true;
      typedNote = "";
      fill(outcome, notice("info", h("strong", {}, "Your changes are saved. "), `They are in force in ${versionName(state.view.version)}, ${savedBy(state.view.version)}.`));
    }
    const { view, base } = state;
    fill(version, base.version ? [`Version ${versionNumber(base.version)}, ${savedBy(base.version)} `, when(base.version.at)] : ["Nothing has been saved yet."],
      base.version?.note && ` · “${base.version.note}”`);
    fill(banners, rejectedNotice(view.store),
      !view.writable && notice("info", h("strong", {}, "Read-only. "), "You can read this policy and try tokens, but not change it here."),
      view.access === "tenant" && notice("info", h("strong", {}, `Rules of tenant ${view.tenant}. `), "You see only what concerns this tenant. Each rule must keep to what the owner of the policy permits."));
    if (editor.text !== state.text) editor.text = state.text;
    if (isBehind()) showConflict();
    else {
      choices.clear();
      fill(conflict);
    }
    if (follows) showFaults([], view.warnings);
    else {
      if (checked !== state.text) lint();
    }
    drawState();
  }

  function discard() {
    const confirm = h("button", { type: "submit", className: "primary" }, "Discard my changes");
    const keep = h("button", { type: "button", onclick: () => dialog.close() }, "Keep editing");
    const dialog = openDialog("Discard your changes?", differences(state.text, normalized(state.view.text)), [keep, confirm], { onsubmit: () => {
      dialog.close();
      follow();
      fill(outcome);
      draw({ follows: true });
      title().focus();
      announce("Your changes were discarded.");
    } });
  }

  function addTrust() {
    openTrustGuide({ text: state.text, tenant: null, insert: async written => {
      await go("policy");
      const { text, line } = appendTrust(state.text, written);
      editor.replace(text, line);
      announce("The trust was inserted. It is not saved yet.");
    } });
  }

  function addRule(trustId) {
    openRuleGuide({ text: state.text, tenant: isOwner() ? null : state.view.tenant, trustId, insert: async (id, written) => {
      await go("policy");
      const { text, line } = insertRule(state.text, id, written);
      editor.replace(text, line);
      announce("The rule was inserted. It is not saved yet.");
    } });
  }

  /// Shows what will change, and saves.
  async function review() {
    clearTimeout(timer);
    fill(outcome);
    if (hasConflict()) return focusOnConflict();
    if (checked !== state.text) await lint();
    if (checked === state.text && faults.length > 0) return refused({ status: 422, faults });
    const trial = h("div", { role: "status" }, h("p", { className: "soft" }, "Comparing with the last decisions…"));
    const note = h("input", { id: "save-note", maxLength: 200, autocomplete: "off", value: typedNote, oninput: () => { typedNote = note.value } });
    const problem = h("div", {});
    const save = h("button", { type: "submit", className: "primary", id: "save" }, "Save");
    let acceptLockout = false;
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Keep editing");
    const body = [differences(state.base.text, state.text), h("h3", {}, "What would change"), trial, field("Note (optional)", note, "For the history: why this change.")];
    const dialog = openDialog("Save the policy", body, [problem, cancel, save], { wide: true, onsubmit: once(save, send) });
    note.focus();

    async function send() {
      fill(problem);
      try {
        const done = await put(note.value.trim(), acceptLockout);
        dialog.close();
        await showSaved(done);
      } catch (error) {
        if ([401, 412, 422].includes(error.status)) { dialog.close(); return refused(error) }
        if (error.status === 409 && error.code.includes("lock")) {
          acceptLockout = true;
          save.textContent = "Save nevertheless";
          save.classList.add("danger");
        }
        if (error.isUncertain) tell(uncertain(error));
        else tell(notice("bad", acceptLockout && h("strong", {}, "This policy would lock you out. "), error.message));
      }
    }

    /// Shows a message in the dialog, or in the view if the dialog was closed meanwhile.
    function tell(message) {
      fill(dialog.open ? problem : outcome, message);
      message.focus();
    }

    function uncertain(error) {
      const look = h("button", { type: "button", id: "look", onclick: () => lookOnce() }, "Look whether it was saved");
      const lookOnce = once(look, () => lookForText(dialog, tell, uncertain));
      return notice("bad", h("p", {}, h("strong", {}, "It is not known whether your text was saved. "), "The service did not confirm it. Your text and your note are still here."),
        h("p", {}, error.message), h("div", { className: "actions" }, look));
    }

    try {
      const { body: run } = await call("dry_run", { method: "POST", toml: state.text });
      fill(trial, dryRun(run));
    } catch (error) {
      if (error.status === 422) { dialog.close(); refused(error) }
      else fill(trial, h("p", {}, `Not known: ${error.message}`));
    }
  }

  async function put(note, acceptLockout) {
    const query = new URLSearchParams();
    if (note) query.set("note", note);
    if (acceptLockout) query.set("accept_lockout", "true");
    const text = state.text;
    const answer = await call(`../trusts${query.size ? `?${query}` : ""}`, { method: "PUT", toml: text, ifMatch: state.base.etag });
    saved(text, answer);
    return { text, ...answer.body };
  }

  async function showSaved({ text, version, warnings }) {
    typedNote = "";
    await guard(load);
    const words = savedWords(version);
    const box = savedNotice(words, warnings ?? state.view?.warnings, text);
    fill(outcome, box);
    (box ?? title()).focus();
    announce(box ? "" : `${words}.`);
  }

  /// After a lost answer: looks which version is in force.
  async function lookForText(dialog, tell, uncertain) {
    try {
      await load();
    } catch (error) {
      if (error.status === 401) { dialog.close(); return refused(error) }
      return tell(uncertain(error));
    }
    if (isDirty() && !isBehind()) {
      return tell(notice("warn", h("strong", {}, "Not saved so far. "), `${state.view.version ? `Version ${versionNumber(state.view.version)}` : "The empty policy"} is still in force. Save once more: the same change is never saved twice.`));
    }
    dialog.close();
    focusOnOutcome();
  }

  async function refused(error) {
    if (error.status === 422) {
      if (error.faults !== faults) showFaults(error.faults);
      announce(`Not saved: ${count(error.faults.length, "fault")}.`);
      (problems.querySelector("button") ?? editor.area).focus();
    } else if (error.status === 412) {
      await guard(load);
      focusOnOutcome();
    } else guard(() => Promise.reject(error));
  }

  const texts = () => ({ base: state.base.text, mine: state.text, theirs: normalized(state.view.text) });
  const hasConflict = () => isBehind() && isDirty();
  const focusOnConflict = () => conflict.querySelector("h3")?.focus();
  const focusOnOutcome = () => hasConflict() ? focusOnConflict() : outcome.firstChild?.focus();

  /// Another administrator saved meanwhile: shows what each changed. The own text stays until one of the buttons.
  function showConflict() {
    const { version, writable } = state.view;
    const heading = h("h3", { tabIndex: -1, id: "conflict-title" }, `New meanwhile: ${versionName(version)}, ${savedBy(version)}`);
    const keep = writable && button("rebase", "Keep mine on top of theirs", keepMine, "primary");
    fill(conflict, h("section", { className: "conflict", "aria-labelledby": heading.id }, heading,
      h("p", {}, "You and they began with the same version. Your text is unchanged and not saved."),
      conflictGroups(texts(), choices), h("div", { className: "actions" }, keep, button("take-theirs", "Take theirs", takeTheirs))));
  }

  function keepMine() {
    const [text, name] = [joined(texts(), choices), versionName(state.view.version)];
    if (text !== state.text) editor.replace(text);
    follow({ keepText: true });
    draw({ follows: false });
    (isDirty() ? saveButton : title()).focus();
    announce(`Your text now has the changes of ${name} too. Review it before you save.`);
  }

  function takeTheirs() {
    const name = versionName(state.view.version);
    editor.replace(texts().theirs);
    clearTimeout(timer);
    follow();
    draw({ follows: true });
    title().focus();
    announce(`The editor has ${name}. Undo in the editor brings your text back.`);
  }

  addEventListener("beforeunload", event => { if (hasChanges()) event.preventDefault() });
  onLoad(draw);
  onForget(() => {
    clearTimeout(timer);
    editor.text = "";
    [faults, checked] = [[], null];
    editor.mark([]);
    typedNote = "";
    choices.clear();
    for (const each of [version, banners, outcome, conflict, problems, summary]) fill(each);
  });
  return {
    root, title: "Policy", addTrust, addRule,
    async show({ trust, line }) {
      if (!state.view) await guard(load);
      const place = trust && trusts(state.text).find(each => each.id === trust);
      if (place) editor.goTo(place.line + 1);
      else if (Number(line)) editor.goTo(Number(line));
    },
    hide: () => fill(outcome),
  };
}
