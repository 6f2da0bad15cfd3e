// Try a token: which rule would decide, and why. Nothing is minted, and the token is used nowhere else.

import { call } from "./api.js";
import { badge, field, fill, focusOn, h, marked, notice, once, options } from "./dom.js";
import { isDirty, load, onForget, onLoad, state, trustIds } from "./state.js";

export function createExplain({ guard }) {
  const token = h("input", { type: "password", id: "try-token", autocomplete: "off", spellcheck: false });
  const claims = h("textarea", { id: "try-claims", rows: 9, spellcheck: false, autocomplete: "off", placeholder: '{ "iss": "https://…", "sub": "…", "aud": "…" }' });
  const trust = h("select", { id: "try-trust" });
  const unsaved = h("input", { type: "checkbox", id: "try-unsaved" });
  const unsavedLine = h("label", { className: "check", for: unsaved.id }, unsaved, h("span", {}, "Use my unsaved policy", h("small", {}, "Instead of the policy in force.")));
  const problem = h("div", {});
  const result = h("section", { className: "result", "aria-labelledby": "result-title", hidden: true });
  const submit = h("button", { type: "submit", className: "primary", id: "try" }, "Try it");
  const tokenField = field("Token", token, "The foreign token, as the workload would send it. The field is cleared when you try it.");
  const claimsField = field("Claims", claims, "The claims as JSON. They are judged as if a key of the trust had signed them.");
  const kinds = [["token", "A token"], ["claims", "Only claims"]].map(([value, text], nth) => {
    const input = h("input", { type: "radio", name: "try-kind", value, id: `try-kind-${value}`, checked: nth === 0, onchange: choose });
    return h("label", { for: input.id }, input, text);
  });
  const form = h("form", { className: "card", onsubmit: event => { event.preventDefault(); submitOnce() } },
    h("fieldset", { className: "segments" }, h("legend", {}, "What do you have?"), kinds), tokenField, claimsField,
    field("Trust", trust, "Leave this unless the workload sends `trust_id`."), unsavedLine, problem, h("div", { className: "actions" }, submit));
  const root = h("section", { className: "view", "aria-labelledby": "try-title" },
    h("div", { className: "head" }, h("div", {}, h("h2", { id: "try-title", tabIndex: -1 }, "Try a token"),
      h("p", { className: "soft" }, "See which rule would decide, and why. Nothing is issued, and a single use is not spent."))),
    h("div", { className: "columns" }, form, result));

  const submitOnce = once(submit, ask);
  const isToken = () => form.querySelector("[name=try-kind]:checked").value === "token";

  function choose() {
    tokenField.hidden = !isToken();
    claimsField.hidden = isToken();
    fill(problem);
  }

  function question() {
    const more = {};
    if (trust.value) more.trust_id = trust.value;
    if (isDirty() && unsaved.checked) more.text = state.text;
    if (isToken()) return { token: token.value.trim(), ...more };
    // The text goes as it is: a large number would become another one here.
    JSON.parse(claims.value);
    return `{${[`"claims":${claims.value}`, ...Object.entries(more).map(pair => pair.map(part => JSON.stringify(part)).join(":"))].join()}}`;
  }

  async function ask() {
    let json;
    try {
      json = question();
    } catch (error) {
      return refuse(`This is not JSON: ${error.message}`, claims);
    }
    if (json.token === "") return refuse("Paste a token.", token);
    const isUnsaved = isDirty() && unsaved.checked;
    token.value = "";
    fill(problem);
    try {
      const { body } = await guard(() => call("explain", { method: "POST", json }), show => fill(problem, show));
      showResult(body, isUnsaved);
    } catch {
      result.hidden = true;
    }
  }

  function refuse(message, input) {
    fill(problem, notice("bad", message));
    result.hidden = true;
    input.focus();
  }

  function showResult(explanation, isUnsaved) {
    const granted = explanation.outcome === "granted";
    const heading = h("h3", { id: "result-title", tabIndex: -1 }, h("span", { "aria-hidden": "true" }, granted ? "✓ " : "✕ "), granted ? "Granted" : "Denied");
    const facts = [["Trust", explanation.trust], ["Rule", explanation.rule], ["Identity", explanation.identity], ["Tenant", explanation.tenant], ["Scopes", explanation.scopes?.join(" ")]];
    fill(result,
      h("div", { className: `verdict ${granted ? "good" : "bad"}` }, heading,
        explanation.problem && h("p", {}, marked(explanation.problem)), !granted && h("code", {}, explanation.outcome)),
      h("button", { type: "button", className: "small back", id: "try-back", onclick: () => (isToken() ? token : claims).focus() }, "Back to the form"),
      h("p", { className: "soft" }, explanation.verified === true && "The signature, audience and times are valid.", explanation.verified === false && "The claims were not verified: no signature was checked.", isUnsaved && " Judged by your unsaved text."),
      h("dl", { className: "facts" }, facts.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, h("code", {}, value))])),
      explanation.rules?.length > 0 && [h("h4", {}, "Rules"), h("ul", { className: "rules" }, explanation.rules.map(ruleItem))],
      h("h4", {}, "Steps"), h("ol", { className: "steps" }, (explanation.lines ?? []).map(line => h("li", {}, marked(line)))));
    result.hidden = false;
    focusOn(heading);
  }

  const ruleItem = ({ name, matches, problem: why }) => h("li", {},
    badge(matches ? "good" : "quiet", matches ? "matches" : "does not match"), h("div", {}, h("strong", {}, name), why && h("p", {}, marked(why))));

  function draw() {
    options(trust, [["", "Found by the issuer of the token"], ...trustIds().map(id => [id, id])], trust.value);
    if (trust.selectedIndex < 0) trust.value = "";
    unsavedLine.hidden = !isDirty();
  }

  choose();
  onLoad(draw);
  onForget(() => {
    fill(result);
    result.hidden = true;
    token.value = claims.value = "";
    options(trust, [["", ""]]);
  });
  return { root, title: "Try a token", async show() { if (!state.view) await guard(load); draw() } };
}
