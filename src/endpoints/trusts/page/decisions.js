// The decisions of late, live.

import { call } from "./api.js";
import { badge, count, exact, fill, h, notice, options } from "./dom.js";
import { OUTCOMES, outcomeWords } from "./outcomes.js";
import { load, onForget, onLoad, state, trustIds } from "./state.js";

/// The time between two requests, in milliseconds.
const INTERVAL = 3000;
const LIMIT = 100;
/// The shortest time between two announcements of new decisions, in milliseconds.
const NEWS_INTERVAL = 20000;

export function createDecisions({ guard, go }) {
  const trust = h("select", { id: "filter-trust", onchange: apply });
  const outcome = h("select", { id: "filter-outcome", onchange: apply });
  const pause = h("button", { type: "button", id: "pause", onclick: toggle }, "Pause");
  const live = h("p", { className: "soft", id: "live" });
  const news = h("p", { className: "visually-hidden", role: "status" });
  const problem = h("div", {});
  const body = h("tbody", { role: "rowgroup" });
  const table = h("table", { className: "cards", role: "table", "aria-labelledby": "decisions-title" },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ["Time (UTC)", "Outcome", "Trust and rule", "Tenant", "Subject", "Scopes"].map(name => h("th", { scope: "col", role: "columnheader" }, name)))), body);
  const empty = h("p", { className: "empty" });
  const root = h("section", { className: "view", "aria-labelledby": "decisions-title" },
    h("div", { className: "head" }, h("div", {}, h("h2", { id: "decisions-title", tabIndex: -1 }, "Decisions"), live),
      h("div", { className: "actions" }, h("div", { className: "inline-field" }, h("label", { for: trust.id }, "Trust"), trust),
        h("div", { className: "inline-field" }, h("label", { for: outcome.id }, "Outcome"), outcome), pause)),
    news, problem, empty, table);
  const seenOutcomes = new Set(OUTCOMES);
  let [isShown, isPaused, timer, shown, filter] = [false, false, null, new Map(), ""];
  let [unannounced, announcedAt] = [0, 0];

  function apply() {
    const query = new URLSearchParams([["trust", trust.value], ["outcome", outcome.value]].filter(([, value]) => value));
    go("decisions", query);
  }

  function toggle() {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Continue" : "Pause";
    poll();
  }

  async function poll() {
    clearTimeout(timer);
    if (!isShown || isPaused || document.hidden) return drawState();
    try {
      const query = new URLSearchParams({ limit: LIMIT });
      if (trust.value) query.set("trust", trust.value);
      if (outcome.value) query.set("outcome", outcome.value);
      const asked = query.toString();
      const { body: answer } = await call(`decisions?${asked}`);
      fill(problem);
      draw(answer.decisions, asked);
    } catch (error) {
      if (error.status === 401) return guard(() => Promise.reject(error));
      fill(problem, notice("warn", error.message));
    }
    drawState();
    if (isShown && !isPaused) timer = setTimeout(poll, INTERVAL);
  }

  function drawState() {
    fill(live, h("span", { className: `dot ${isPaused ? "" : "live"}`, "aria-hidden": "true" }), isPaused ? "Paused" : "Live, from this process. Subjects are SHA-256, as in the log.");
  }

  function draw(decisions, asked) {
    const isOther = asked !== filter;
    const name = decision => `${decision.number} ${decision.at}`;
    const fresh = decisions.filter(decision => !shown.has(name(decision)));
    const isSame = !isOther && fresh.length === 0 && decisions.length === shown.size;
    if (isSame) return;
    const isNew = !isOther && shown.size > 0;
    shown = new Map(decisions.map(decision => [name(decision), shown.get(name(decision)) ?? row(decision, isNew)]));
    arrange(body, [...shown.values()]);
    if (isNew) tellNews(fresh.length);
    filter = asked;
    table.hidden = decisions.length === 0;
    empty.hidden = decisions.length > 0;
    empty.textContent = trust.value || outcome.value ? "No decision matches the filter." : "No decision yet. As soon as a workload sends a token, it appears here.";
    for (const decision of decisions) seenOutcomes.add(decision.outcome);
    drawFilters();
  }

  /// With traffic, each request finds new ones: a screen reader is told now and then.
  function tellNews(number) {
    unannounced += number;
    if (unannounced === 0 || Date.now() - announcedAt < NEWS_INTERVAL) return;
    fill(news, count(unannounced, "new decision"));
    [unannounced, announcedAt] = [0, Date.now()];
  }

  function drawFilters() {
    const add = (values, chosen) => chosen && !values.includes(chosen) ? [...values, chosen] : values;
    const chosen = [trust.value, outcome.value];
    options(trust, [["", "All"], ...add(trustIds(), chosen[0]).map(id => [id, id])], chosen[0]);
    options(outcome, [["", "All"], ...add([...seenOutcomes], chosen[1]).map(name => [name, outcomeWords(name)])], chosen[1]);
  }

  document.addEventListener("visibilitychange", poll);
  onLoad(drawFilters);
  onForget(() => {
    shown = new Map();
    for (const each of [body, problem, news]) fill(each);
    for (const select of [trust, outcome]) options(select, [["", "All"]]);
  });
  return {
    root, title: "Decisions",
    async show(parameters) {
      isShown = true;
      if (!state.view) await guard(load);
      for (const [select, value] of [[trust, parameters.trust], [outcome, parameters.outcome]]) {
        options(select, [["", "All"], [value ?? "", value ?? "All"]], value ?? "");
      }
      drawFilters();
      await poll();
    },
    hide() {
      isShown = false;
      clearTimeout(timer);
    },
  };
}

function row(decision, isNew) {
  const { at, trust, rule, outcome, tenant, subject_sha256: subject, scopes } = decision;
  const kind = outcome === "granted" ? "good" : outcome === "audit_mode" ? "info" : outcome === "unavailable" ? "warn" : "bad";
  const result = [badge(kind, outcomeWords(outcome)), outcome !== "granted" && h("div", { className: "detail" }, h("code", {}, outcome))].filter(Boolean);
  const cells = [
    ["Time (UTC)", h("time", { dateTime: at }, exact(at).slice(11, 19), h("span", { className: "soft" }, ` ${at.slice(0, 10)}`))],
    ["Outcome", result],
    ["Trust and rule", [h("span", { className: "name" }, trust ?? "–"), rule && h("div", { className: "detail" }, rule)].filter(Boolean)],
    ["Tenant", h("span", { className: "name" }, tenant ?? "–")],
    ["Subject", subject ? h("details", {}, h("summary", {}, h("code", {}, subject.slice(0, 12))), h("code", {}, subject)) : "–"],
    ["Scopes", scopesOf(scopes)],
  ];
  return h("tr", { role: "row", className: isNew ? "fresh" : "" }, cells.map(([name, cell]) => name === "Trust and rule"
    ? h("th", { scope: "row", role: "rowheader", "data-label": name }, cell)
    : h("td", { role: "cell", "data-label": name }, cell)));
}

/// Puts the rows of a table in order. Those that stay are not touched, so a reading position and a selection stay too.
function arrange(body, rows) {
  const wanted = new Set(rows);
  for (const old of [...body.children]) if (!wanted.has(old)) old.remove();
  rows.forEach((each, nth) => { if (body.children[nth] !== each) body.insertBefore(each, body.children[nth] ?? null) });
}

function scopesOf(scopes) {
  return scopes?.length ? h("span", { className: "chips" }, scopes.map(scope => h("span", { className: "chip" }, scope))) : "–";
}
