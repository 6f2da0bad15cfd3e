// Access → Token Exchange: starts the page, signs in, and switches between the views.

import { ApiError, call, hasToken, useToken } from "./api.js";
import { createDecisions } from "./decisions.js";
import { byId, fill, h, notice } from "./dom.js";
import { createExplain } from "./explain.js";
import { createHistory } from "./history.js";
import { createOverview } from "./overview.js";
import { createPolicy } from "./policy.js";
import { isDirty, load, onLoad, state } from "./state.js";

const problem = byId("problem");
let current = null;

/// Runs an action, and shows its error. With `show`, the error goes there, and is thrown as well.
async function guard(action, show) {
  try {
    const result = await action();
    fill(problem);
    return result;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 || (error.status === 403 && !state.view)) askToSignIn(error);
    else if (show) show(notice("bad", error.message));
    else fill(problem, notice("bad", error.message));
    if (show) throw error;
  }
}

const go = (name, query) => { location.hash = query?.size ? `${name}?${query}` : name };

const policy = createPolicy({ guard, go });
const addRule = id => policy.addRule(id);
const views = {
  overview: createOverview({ guard, go, addTrust: () => policy.addTrust(), addRule }),
  policy,
  try: createExplain({ guard }),
  decisions: createDecisions({ guard, go }),
  history: createHistory({ guard }),
};

/// Shows the view that the address names.
async function route({ moveFocus = true } = {}) {
  const [name, query] = location.hash.slice(1).split("?");
  if (name === "main") return current?.root.querySelector("h2").focus();
  const view = views[name] ?? views.overview;
  if (current && current !== view) current.hide?.();
  const isOther = current !== view;
  current = view;
  for (const [each, { root }] of Object.entries(views)) {
    root.hidden = views[each] !== view;
    const link = byId(`nav-${each}`);
    if (views[each] === view) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.title = `${view.title} – Token Exchange`;
  await view.show(Object.fromEntries(new URLSearchParams(query)));
  if (isOther && moveFocus && !document.querySelector("dialog[open]") && document.activeElement?.tagName !== "TEXTAREA") view.root.querySelector("h2").focus();
}

function showApp(isShown) {
  for (const id of ["nav", "views"]) byId(id).hidden = !isShown;
  byId("sign-in").hidden = isShown;
  byId("forget").hidden = !isShown || !hasToken();
}

/// Asks for a session or a token. The views keep what was typed.
async function askToSignIn(error) {
  current?.hide?.();
  document.querySelectorAll("dialog[open]").forEach(dialog => dialog.close());
  const wasToken = hasToken();
  useToken(null);
  showApp(false);
  fill(problem);
  byId("sign-in-problem").textContent = error.status === 403
    ? "This account may not administer the trust policy. Sign in with another one, or paste a token."
    : wasToken ? "The token is not accepted. It may have expired." : "";
  const link = byId("sign-in-link");
  link.href = `../login?return_to=${encodeURIComponent(location.pathname)}`;
  // Leaving this page would lose the changes.
  link.target = isDirty() ? "_blank" : "";
  byId("again").hidden = !isDirty();
  byId("by-session").hidden = !(await offersSessions());
  byId("sign-in-title").focus();
}

/// Whether the service signs browsers in. If it does not say, the link is offered.
async function offersSessions() {
  try {
    return (await call("../config")).body.sessions !== false;
  } catch (error) {
    return error.status !== 404;
  }
}

async function begin() {
  await guard(load);
  if (!state.view || !byId("views").hidden) return;
  showApp(true);
  await route({ moveFocus: false });
  showName();
}

async function showName() {
  try {
    const { body } = await call("../whoami");
    byId("who").textContent = body.display_name ?? body.identity_id ?? body.subject ?? "";
  } catch {
    byId("who").textContent = "";
  }
}

byId("token-form").addEventListener("submit", event => {
  event.preventDefault();
  const input = byId("token");
  const text = input.value.trim();
  input.value = "";
  if (!text) return input.focus();
  useToken(text.replace(/^Bearer\s+/i, ""));
  resume();
});
byId("again").addEventListener("click", resume);
byId("forget").addEventListener("click", () => askToSignIn(new ApiError("", { status: 401 })));
addEventListener("hashchange", () => { if (!byId("views").hidden) route() });

/// Continues after a sign-in.
async function resume() {
  try {
    await load();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if ([400, 401, 403].includes(error.status)) return askToSignIn(error);
    return fill(problem, notice("bad", error.message));
  }
  showApp(true);
  fill(problem);
  await route();
  showName();
}

onLoad(() => {
  byId("tenant").textContent = state.view.access === "tenant" ? `Tenant ${state.view.tenant}` : "";
  byId("tenant").hidden = state.view.access !== "tenant";
});
byId("views").append(...Object.values(views).map(({ root }) => root));
for (const { root } of Object.values(views)) root.hidden = true;
fill(byId("sign-in-problem"));
byId("loading").remove();
begin();
