// The guided forms: they write a trust or a rule into the text. The service checks the text as any other.

import { fill, h, marked, notice, openDialog, options } from "./dom.js";
import { PLATFORMS, ruleQuestions, trustQuestions, writeTrust } from "./platforms.js";
import { list, rule, string, trusts, words } from "./toml.js";

/// Opens the form for a trust. `insert` gets the written text.
export function openTrustGuide({ text, tenant, insert }) {
  const taken = new Set(trusts(text).map(trust => trust.id));
  let form;
  /// What was typed, also for another platform.
  const typed = new Map();
  const preview = previewBox();
  const questions = h("div", { className: "questions" });
  const tiles = PLATFORMS.map((platform, nth) => {
    const radio = h("input", { type: "radio", name: "platform", value: platform.id, id: `platform-${platform.id}`, checked: nth === 0, onchange: () => choose(platform) });
    return h("label", { className: "tile", for: radio.id }, radio, h("span", { className: `platform ${platform.id}`, "aria-hidden": "true" }, platform.sign), platform.name);
  });
  const add = h("button", { type: "submit", className: "primary", id: "guide-insert" }, "Insert into the policy");
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const audit = h("input", { type: "checkbox", id: "guide-audit", onchange: update });

  function choose(platform) {
    const own = platform.questions.map(question => ({ ...question, key: `${platform.id} ${question.name}` }));
    const asked = [...trustQuestions(free(platform.suggestion, taken)), ...own, ...ruleQuestions(tenant)];
    form = createQuestions(asked, update, typed);
    form.write = () => writeTrust(platform, { ...form.answers(), mode: audit.checked ? string("audit") : null });
    fill(questions, h("p", { className: "soft" }, platform.about), form.root,
      h("label", { className: "check", for: audit.id }, audit, h("span", {}, "Start in audit mode", h("small", {}, "Judges and logs tokens, but grants nothing."))));
    update();
  }

  function update() {
    preview.text.textContent = form.write();
  }

  function finish() {
    if (!form.check()) return;
    dialog.close();
    insert(form.write());
  }

  const body = h("div", { className: "guide" },
    h("fieldset", { className: "tiles" }, h("legend", {}, "Platform"), tiles),
    h("div", { className: "columns" }, questions, preview.root));
  const dialog = openDialog("Add a trust", body, [cancel, add], { wide: true, onsubmit: finish });
  choose(PLATFORMS[0]);
  dialog.querySelector("input").focus();
}

/// A name that no trust has yet.
function free(name, taken) {
  if (!taken.has(name)) return name;
  let nth = 2;
  while (taken.has(`${name}-${nth}`)) nth++;
  return `${name}-${nth}`;
}

const OPERATORS = [["eq", "is"], ["one_of", "is one of"], ["glob", "matches"], ["contains", "contains"]];

/// Opens the form for a rule. `insert` gets the id of the trust and the written text.
export function openRuleGuide({ text, tenant, trustId, insert }) {
  const found = trusts(text);
  if (found.length === 0) {
    const close = h("button", { type: "button", className: "primary", onclick: () => dialog.close() }, "Close");
    const dialog = openDialog("Add a rule", notice("info", "The text has no [[trust]] with an id. Add a trust first."), [close]);
    return;
  }
  const select = options(h("select", { onchange: update }), found.map(({ id }) => [id, id]), found.some(({ id }) => id === trustId) ? trustId : found[0].id);
  const [first, ...others] = ruleQuestions(tenant);
  // An identity that a tenant gives begins with the tenant.
  const own = tenant ? `sa:${encodeURIComponent(tenant)}:` : "sa:";
  const subject = { name: "subject", label: "Subject", help: "The value of sub. A * stands for one whole segment between : or /.", example: "system:serviceaccount:reports:*", optional: true };
  const identity = { name: "identity", label: "Identity", help: "Who the workload is here. {trust}, {sub} and {claim} are filled in.", value: `${own}{trust}:{sub}` };
  const form = createQuestions([first, subject], update);
  const rest = createQuestions([identity, ...others], update);
  const preview = previewBox();
  const claims = h("div", { className: "claims" });
  const missing = h("p", { className: "hint", role: "alert" });

  function addClaim() {
    const name = h("input", { placeholder: "claim or /pointer", oninput: update, className: "claim-name" });
    const operator = options(h("select", { onchange: update }), OPERATORS, "eq");
    const value = h("input", { placeholder: "value", oninput: update, className: "claim-value" });
    const remove = h("button", { type: "button", className: "icon", onclick: () => { line.remove(); number(); update(); more.focus() } }, "✕");
    const line = h("div", { className: "claim" }, name, operator, value, remove);
    claims.append(line);
    number();
    name.focus();
  }

  /// Names the parts of each condition for screen readers.
  function number() {
    [...claims.children].forEach((line, nth) => [...line.children].forEach((part, place) =>
      part.setAttribute("aria-label", `${["Claim", "Comparison", "Value", "Remove"][place]} of condition ${nth + 1}`)));
  }

  function conditions() {
    return [...claims.children].map(line => {
      const [name, operator, value] = [...line.querySelectorAll("input, select")].map(input => input.value);
      return name && [name, operator, operator === "one_of" ? list(words(value)) : string(value)];
    }).filter(Boolean);
  }

  function write() {
    const answers = { ...form.answers(), ...rest.answers() };
    return rule({ name: answers.rule, subject: answers.subject, claims: conditions(), identity: answers.identity, tenant: answers.tenant, scopes: words(answers.scopes) });
  }

  function update() {
    missing.textContent = "";
    preview.text.textContent = write();
  }

  function finish() {
    const complete = [form.check(), rest.check()].every(Boolean);
    if (!complete) return;
    if (!form.answers().subject && conditions().length === 0) {
      missing.textContent = "Give a subject or a condition: otherwise every token of the issuer would match.";
      return;
    }
    dialog.close();
    insert(select.value, write());
  }

  select.id = "guide-trust";
  const more = h("button", { type: "button", className: "small", onclick: addClaim }, "Add a condition on a claim");
  const trust = h("div", { className: "field" }, h("label", { for: select.id }, "Trust"), select);
  const body = h("div", { className: "guide" }, h("div", { className: "columns" },
    h("div", { className: "questions" }, trust, form.root, claims, more, missing, rest.root), preview.root));
  const add = h("button", { type: "submit", className: "primary", id: "guide-insert" }, "Insert into the policy");
  const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
  const dialog = openDialog("Add a rule", body, [cancel, add], { wide: true, onsubmit: finish });
  select.focus();
  update();
}

function previewBox() {
  const text = h("pre", { id: "guide-preview", tabIndex: 0, role: "region", "aria-labelledby": "guide-preview-title" });
  return { text, root: h("div", { className: "preview" }, h("h3", { id: "guide-preview-title" }, "Text that is inserted"), text) };
}

/// Builds the fields of questions. `check` marks what is missing and moves the focus there.
/// `typed` keeps what was typed, by the key or the name of the question.
function createQuestions(asked, onInput, typed = new Map()) {
  const fields = asked.map(question => createField(question, onInput, typed));
  return {
    root: h("div", { className: "fields" }, fields.map(each => each.root)),
    answers: () => Object.fromEntries(fields.map(each => [each.name, each.value()])),
    check() {
      const faulty = fields.filter(each => !each.check(true));
      faulty[0]?.input.focus();
      return faulty.length === 0;
    },
  };
}

function createField({ name, label, help, hint, pattern, example, value, choices, fixed, optional, key = name }, onInput, typed) {
  const id = `guide-${name}`;
  const input = choices
    ? options(h("select", { id }), choices, choices[0][0])
    : h("input", { id, value: value ?? "", placeholder: example ? `e.g. ${example}` : "", autocomplete: "off", spellcheck: false, readOnly: Boolean(fixed) });
  if (typed.has(key)) input.value = typed.get(key);
  const note = h("small", { id: `${id}-help` }, marked(help));
  const problem = h("p", { id: `${id}-hint`, className: "hint" });
  input.setAttribute("aria-describedby", `${note.id} ${problem.id}`);
  if (!optional && !choices) input.required = true;

  /// A value of another form is marked only: the service decides. A missing one is not inserted.
  function check(isFinal) {
    const text = input.value.trim();
    const isMissing = !text && !optional && isFinal;
    const isOdd = text && pattern && !pattern.test(text);
    problem.textContent = isMissing ? "Fill in this field." : isOdd ? `Check this: ${hint}` : "";
    input.toggleAttribute("data-odd", Boolean(isMissing || isOdd));
    if (isMissing) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
    return !isMissing;
  }

  input.addEventListener("input", () => { typed.set(key, input.value); if (problem.textContent) check(false); onInput() });
  input.addEventListener("change", () => { check(false); onInput() });
  return { name, input, check, value: () => input.value.trim(), root: h("div", { className: "field" }, h("label", { for: id }, label, optional && h("span", { className: "soft" }, " (optional)")), input, note, problem) };
}
