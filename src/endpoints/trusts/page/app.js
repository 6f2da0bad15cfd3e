// Access → Token Exchange: starts the page, signs in, and switches between the views.

import { ApiError, call, hasToken, useToken } from "./api.js";
import { createDecisions } from "./decisions.js";
import { byId, fill, h, notice, once } from "./dom.js";
import { createExplain } from "./explain.js";
import { createHistory } from "./history.js";
import { createOverview } from "./overview.js";
import { createPolicy } from "./policy.js";
import { forget, forgetUntil, hasChanges, load, onForget, onLoad, restore, state } from "./state.js";

const problem = byId("problem");
let current = null;
/// Who is signed in, as far as the service says it.
let account = null;
let retry;

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

const closeDialogs = () => document.querySelectorAll("dialog[open]").forEach(dialog => dialog.close());

/// Changes the address, and shows the view that it then names.
async function go(name, query) {
  const hash = query?.size ? `#${name}?${query}` : `#${name}`;
  if (location.hash !== hash) history.pushState(null, "", hash);
  await route();
}

const policy = createPolicy({ guard, go });
const addRule = id => policy.addRule(id);
const views = {
  overview: createOverview({ guard, go, addTrust: () => policy.addTrust(), addRule }),
  policy,
  try: createExplain({ guard }),
  decisions: createDecisions({ guard, go }),
  history: createHistory({ guard }),
};

/// Shows the view that the address names, or the overview.
async function route({ moveFocus = true } = {}) {
  const [name, query] = location.hash.slice(1).split("?");
  const view = Object.hasOwn(views, name) ? views[name] : views.overview;
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
  byId("forget").hidden = !isShown;
  byId("forget").textContent = hasToken() ? "Forget the token" : "Sign out";
}

/// Asks for a session or a token. What was typed is kept for the same account.
async function askToSignIn(error) {
  current?.hide?.();
  current = null;
  clearTimeout(retry);
  closeDialogs();
  const wasToken = hasToken();
  useToken(null);
  const wasSignedIn = state.view !== null;
  if (wasSignedIn) forgetUntil(account);
  account = null;
  document.title = "Sign in – Token Exchange";
  showApp(false);
  fill(problem);
  byId("sign-in-problem").textContent = error.status === 403
    ? "This account may not administer the trust policy. Sign in with another one, or paste a token."
    : [wasToken ? "The token is not accepted. It may have expired." : wasSignedIn && "You were signed out.",
      hasChanges() && "Your unsaved changes are kept: sign in in a new tab, then continue here."].filter(Boolean).join(" ");
  const link = byId("sign-in-link");
  link.href = `../login?return_to=${encodeURIComponent(location.pathname)}`;
  // Leaving this page would lose the changes.
  link.textContent = hasChanges() ? "Sign in (opens a new tab)" : "Sign in";
  link.target = hasChanges() ? "_blank" : "";
  byId("again").hidden = !hasChanges();
  byId("by-session").hidden = !(await offersSessions());
  byId("sign-in-title").focus();
}

/// Whether the service signs browsers in. If it does not say, the link is offered. Without sign-in it has no `config`,
/// so its own answer comes instead.
async function offersSessions() {
  try {
    return (await call("../config")).body.sessions !== false;
  } catch (error) {
    return ![401, 403, 404].includes(error.status);
  }
}

/// Reads the policy and shows it: at first, and after a sign-in or a failure.
async function begin() {
  clearTimeout(retry);
  const moveFocus = document.activeElement !== document.body;
  byId("loading").hidden = false;
  try {
    await load();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if ([401, 403].includes(error.status) || (hasToken() && error.status === 400)) return askToSignIn(error);
    return showFailure(error, moveFocus);
  } finally {
    byId("loading").hidden = true;
  }
  fill(problem);
  account = await whoami();
  if (!state.view) return;
  restore(account);
  showApp(true);
  await route({ moveFocus });
}

function showFailure({ message, retryAfter }, moveFocus) {
  const heading = h("h2", { tabIndex: -1 }, "The policy cannot be shown");
  const again = h("button", { type: "button", id: "try-again" }, "Try again");
  again.addEventListener("click", once(again, begin));
  byId("sign-in").hidden = true;
  fill(problem, h("div", { className: "stack" }, heading, notice("bad", message), h("div", {}, again)));
  if (moveFocus) heading.focus();
  if (retryAfter) retry = setTimeout(begin, retryAfter * 1000);
}

/// Shows who is signed in. Returns what tells accounts apart, or `null` if the service does not say it.
async function whoami() {
  try {
    const { body } = await call("../whoami");
    byId("who").textContent = body.display_name ?? body.identity_id ?? body.subject ?? "";
    return JSON.stringify([body.identity_id, body.tenant_id]);
  } catch {
    return null;
  }
}

/// Ends the session, or forgets the token, and empties the page.
async function signOut() {
  if (hasChanges() && !confirm("Discard your unsaved changes?")) return;
  let next;
  if (!hasToken()) next = (await call("../logout", { method: "POST" })).body.end_session_url;
  forget();
  if (/^https?:/.test(next)) location.assign(next); else location.reload();
}

byId("token-form").addEventListener("submit", event => {
  event.preventDefault();
  const input = byId("token");
  const text = input.value.trim();
  input.value = "";
  if (!text) return input.focus();
  const pasted = text.replace(/^Bearer\s+/i, "");
  // Other characters cannot be sent.
  if (!/^[\x21-\x7e]+$/.test(pasted)) {
    byId("sign-in-problem").textContent = "The token is not accepted: it has characters that no token has.";
    return input.focus();
  }
  useToken(pasted);
  begin();
});
byId("again").addEventListener("click", begin);
byId("forget").addEventListener("click", () => guard(signOut));
addEventListener("hashchange", () => {
  closeDialogs();
  if (!byId("views").hidden) route();
});

// The skip link leaves the address alone, which names the view.
document.querySelector(".skip").addEventListener("click", event => {
  event.preventDefault();
  [...document.querySelectorAll("main h2")].find(heading => heading.checkVisibility())?.focus();
});

onLoad(() => {
  byId("tenant").textContent = state.view.access === "tenant" ? `Tenant ${state.view.tenant}` : "";
  byId("tenant").hidden = state.view.access !== "tenant";
});
onForget(() => {
  for (const id of ["tenant", "who", "status"]) fill(byId(id));
  byId("tenant").hidden = true;
});
byId("views").append(...Object.values(views).map(({ root }) => root));
for (const { root } of Object.values(views)) root.hidden = true;
fill(byId("sign-in-problem"));
begin();
