// The overview: all trusts with the state of their keys, their use and their end.

import { badge, count, fault, fill, h, hidden, notice, relative, when } from "./dom.js";
import { PLATFORMS, platformOf } from "./platforms.js";
import { isOwner, load, onForget, onLoad, savedBy, state, versionNumber } from "./state.js";

/// More rows than this are not shown: the filter finds the others.
const MAX_ROWS = 200;

export function createOverview({ guard, addTrust, addRule }) {
  const summary = h("p", { className: "soft" });
  const alerts = h("div", { className: "stack" });
  const filter = h("input", { type: "search", id: "trust-filter", placeholder: "Filter by name or issuer", oninput: () => draw() });
  const search = h("div", { className: "search" }, h("label", { for: filter.id, className: "visually-hidden" }, "Filter the trusts"), filter);
  const add = h("button", { type: "button", className: "primary", id: "overview-add", onclick: addTrust }, "Add a trust");
  const list = h("div", {});
  const root = h("section", { className: "view", "aria-labelledby": "overview-title" },
    h("div", { className: "head" }, h("div", {}, h("h2", { id: "overview-title", tabIndex: -1 }, "Trusts"), summary), h("div", { className: "actions" }, search, add)),
    alerts, list);

  function draw() {
    const { view } = state;
    const all = view.trusts;
    fill(summary, summaryOf(view));
    search.hidden = all.length < 6;
    add.hidden = !view.writable || !isOwner() || all.length === 0;
    fill(alerts, storeNotice(view.store), rejectedNotice(view.store), tenantNotice(view), warningsOf(view.warnings));
    const wanted = filter.value.trim().toLowerCase();
    const shown = all.filter(trust => !wanted || [trust.id, trust.issuer, trust.trust_domain].some(text => text?.toLowerCase().includes(wanted)));
    fill(list, all.length === 0 ? empty(view, addTrust) : table(shown, view.writable && addRule));
  }

  onLoad(draw);
  onForget(() => [summary, alerts, list].forEach(each => fill(each)));
  return { root, title: "Trusts", show: () => guard(load) };
}

function summaryOf({ trusts, version }) {
  if (trusts.length === 0 && !version) return null;
  const rules = trusts.reduce((sum, trust) => sum + trust.rules, 0);
  const saved = version && [" · ", `Version ${versionNumber(version)}, ${savedBy(version)} `, when(version.at)];
  return [`${count(trusts.length, "trust")} with ${count(rules, "rule")}`, saved].flat();
}

function storeNotice(store) {
  return store?.state === "away"
    && notice("warn", h("strong", {}, "The store of the policy does not answer. "), "The loaded policy stays in force. Nothing can be saved until the store is back.");
}

/// Says that an earlier version is in force, because the latest one has faults.
export const rejectedNotice = store => store?.rejected
  && notice("warn", h("strong", {}, `Version ${store.rejected.split("-")[0]} in the store has faults. `), "The version before it stays in force. What you save here replaces it.");

const tenantNotice = ({ access, tenant }) => access === "tenant"
  && notice("info", h("strong", {}, `You administer tenant ${tenant}. `), "You see the trusts and rules that concern this tenant, and can change its rules.");

function warningsOf(warnings) {
  if (!warnings?.length) return null;
  return notice("warn", h("strong", {}, count(warnings.length, "warning")),
    h("ul", {}, warnings.slice(0, 20).map(warning =>
      h("li", {}, h("a", { href: `#policy?line=${warning.line ?? 1}` }, `Line ${warning.line ?? "?"}`), " ", fault(warning)))));
}

function empty({ writable, access }, addTrust) {
  const mayAdd = writable && access !== "tenant";
  return h("div", { className: "empty" },
    h("div", { className: "empty-signs", "aria-hidden": "true" }, PLATFORMS.map(({ id, sign }) => h("span", { className: `platform ${id}` }, sign))),
    h("h3", {}, "No trust yet"),
    h("p", {}, "A trust says which tokens of another platform this service accepts – of Kubernetes pods, CI jobs or cloud workloads – and who they are here."),
    mayAdd && h("button", { type: "button", className: "primary", id: "first-trust", onclick: addTrust }, "Add the first trust"));
}

const COLUMNS = ["Trust", "Keys", "Mode", "Last used", "Granted", "Denied", "Ends"];
const classOf = name => ["Granted", "Denied"].includes(name) ? "count" : "";

function table(trusts, addRule) {
  if (trusts.length === 0) return h("p", { className: "empty" }, "No trust matches the filter.");
  const more = trusts.length > MAX_ROWS && h("p", { className: "soft" }, `${count(trusts.length - MAX_ROWS, "more trust")}: use the filter to find them.`);
  // Phones show each row as a card. The roles keep the table for screen readers.
  return [h("table", { className: "cards", role: "table", "aria-labelledby": "overview-title" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map(name => h("th", { scope: "col", role: "columnheader", className: classOf(name) }, name)),
      h("th", { scope: "col", role: "columnheader" }, hidden("Actions")))),
    h("tbody", { role: "rowgroup" }, trusts.slice(0, MAX_ROWS).map(trust => row(trust, addRule)))), more];
}

function row(trust, addRule) {
  const platform = platformOf(trust);
  const name = h("div", { className: "trust-name" },
    h("span", { className: `platform ${platform.id}`, "aria-hidden": "true" }, platform.sign),
    h("div", {}, h("a", { href: `#policy?trust=${encodeURIComponent(trust.id)}` }, trust.id), hidden(` – ${platform.name}`),
      h("div", { className: "issuer" }, trust.issuer ?? `spiffe://${trust.trust_domain}`)));
  const cells = [keysOf(trust), modeOf(trust), when(trust.last_used), (trust.granted ?? 0).toLocaleString("en"), (trust.denied ?? 0).toLocaleString("en"), endOf(trust)];
  const actions = h("div", { className: "row-actions" },
    h("a", { href: `#decisions?trust=${encodeURIComponent(trust.id)}` }, "Decisions", hidden(` of ${trust.id}`)),
    addRule && h("button", { type: "button", className: "link", onclick: () => addRule(trust.id) }, "Add a rule", hidden(` to ${trust.id}`)));
  return h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader" }, name),
    cells.map((cell, nth) => h("td", { role: "cell", "data-label": COLUMNS[nth + 1], className: classOf(COLUMNS[nth + 1]) }, cell)),
    h("td", { role: "cell", className: "last" }, actions));
}

function keysOf({ ended, keys }) {
  if (ended) return [badge("quiet", "Ended"), h("div", { className: "detail" }, "No key is used any more.")];
  const [kind, text] = { ok: ["good", "Fresh"], stale: ["warn", "Stale"], missing: ["bad", "Missing"] }[keys?.state] ?? ["quiet", "Not used yet"];
  const minutes = Math.round((keys?.age_seconds ?? 0) / 60);
  const age = keys?.state === "stale" && minutes > 0 && `${count(minutes, "minute")} old`;
  return [badge(kind, text), (keys?.problem || age) && h("div", { className: "detail" }, keys.problem || age)].filter(Boolean);
}

function modeOf(trust) {
  if (trust.ended) return badge("quiet", "Ended");
  const [named, audited] = [trust.named_only && "only if named", trust.mode === "audit" && "grants nothing"]
    .map(text => text && h("div", { className: "detail" }, text));
  return [trust.mode === "audit" ? badge("info", "Audit") : badge("good", "Enforced"), audited, named].filter(Boolean);
}

function endOf(trust) {
  if (!trust.not_after) return h("span", { className: "soft" }, "never");
  const time = when(trust.not_after);
  if (!trust.ended && trust.expires_soon) time.firstChild.replaceWith(badge("warn", relative(trust.not_after)));
  return time;
}
