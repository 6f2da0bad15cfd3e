// Builds elements. Every text becomes a text node, so nothing that a token or a policy says is read as HTML.

export const byId = id => document.getElementById(id);

/// Creates an element. Names in `props` with a `-`, `role` and `for` are attributes, functions named `on…` are listeners.
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

/// Replaces the children of an element.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter(child => child || child === 0));
  return element;
}

export const hidden = text => h("span", { className: "visually-hidden" }, text);

/// A label with a sign, so that colour is never the only difference.
export function badge(kind, text) {
  const sign = { good: "✓", warn: "!", bad: "✕", quiet: "–", info: "i" }[kind];
  return h("span", { className: `badge ${kind}` }, h("span", { className: "sign", "aria-hidden": "true" }, sign), text);
}

/// A box with a message, which can get the focus. Of kind "bad", it is announced immediately.
export function notice(kind, ...children) {
  const words = children.map(child => typeof child === "string" ? marked(child) : child);
  return h("div", { className: `notice ${kind}`, tabIndex: -1, ...(kind === "bad" && { role: "alert" }) }, words);
}

/// A form field with its label and one sentence of help.
export function field(label, input, help) {
  input.id ||= `field-${++field.count}`;
  const note = help && h("small", { id: `${input.id}-help` }, marked(help));
  if (note) input.setAttribute("aria-describedby", note.id);
  return h("div", { className: "field" }, h("label", { for: input.id }, label), input, note);
}
field.count = 0;

/// Text between backticks is code.
export const marked = text => text.split("`").map((part, nth) => nth % 2 ? h("code", {}, part) : part);

/// A fault or a warning: its problem continues the name of its field.
export const fault = ({ field, problem }) => [h("code", {}, field), " ", marked(problem)];

/// Sets the options of a select: `[value, text]` pairs. The same ones are left alone: the list may be open.
export function options(select, values, chosen = "") {
  const isSame = values.length === select.length && values.every(([value, text], nth) => select[nth].value === value && select[nth].text === text);
  if (!isSame) fill(select, values.map(([value, text]) => h("option", { value }, text)));
  select.value = chosen;
  return select;
}

/// Announces a message, and shows it for a while.
export function announce(message) {
  const box = byId("status");
  clearTimeout(announce.timer);
  box.textContent = message;
  announce.timer = setTimeout(() => { box.textContent = "" }, 8000);
}

/// Returns an action that runs once at a time. Its button keeps the focus meanwhile, which `disabled` would take.
export const once = (button, action) => async (...values) => {
  if (button.hasAttribute("aria-disabled")) return;
  button.setAttribute("aria-disabled", "true");
  try {
    await action(...values);
  } finally {
    button.removeAttribute("aria-disabled");
  }
};

/// Moves the focus to the heading of a result. On a phone the result is below the rest, and is scrolled to.
export function focusOn(heading) {
  heading.focus();
  if (matchMedia("(max-width: 60rem)").matches) heading.parentElement.scrollIntoView();
}

/// Opens a dialog and removes it when it closes. The browser keeps the focus inside and gives it back.
/// Enter in a field does what the submit button among the actions does.
export function openDialog(title, body, actions, { wide = false, onsubmit = () => {} } = {}) {
  const heading = h("h2", { id: "dialog-title", tabIndex: -1 }, title);
  const close = h("button", { type: "button", className: "icon", "aria-label": "Close", onclick: () => mayLeave() && dialog.close() }, "✕");
  const question = h("p", { className: "hint", role: "alert" });
  const form = h("form", { noValidate: true, oninput: () => { isChanged = true; fill(question) }, onsubmit: event => { event.preventDefault(); onsubmit() } },
    h("div", { className: "dialog-head" }, heading, close),
    h("div", { className: "dialog-body" }, body),
    h("div", { className: "dialog-foot" }, question, actions));
  const dialog = h("dialog", { className: wide ? "wide" : "", "aria-labelledby": heading.id }, form);
  let isChanged = false;

  /// Asks before the first way out that throws away what was typed.
  function mayLeave() {
    if (!isChanged) return true;
    isChanged = false;
    question.textContent = "Discard what you typed? Then close this once more.";
    return false;
  }

  dialog.addEventListener("cancel", event => { if (event.target === dialog && !mayLeave()) event.preventDefault() });
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60]];

/// The time in words: "in 12 days", "3 hours ago".
export function relative(time) {
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  if (Number.isNaN(seconds)) return "";
  const unit = UNITS.find(([, length]) => Math.abs(seconds) >= length);
  return unit ? RELATIVE.format(Math.trunc(seconds / unit[1]), unit[0]) : "just now";
}

/// A time in words, and to the minute.
export function when(time, absent = "never") {
  if (!time) return h("span", { className: "soft" }, absent);
  return h("time", { dateTime: time }, relative(time), " ", h("span", { className: "detail" }, exact(time).replace(/:\d\d UTC$/, " UTC")));
}

export const exact = time => time.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");
export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
