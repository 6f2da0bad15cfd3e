// The policy in force, as the service last reported it, and the administrator's own text.

import { call } from "./api.js";

export const state = {
  /// The answer of `GET trusts`, or `null` before the first one.
  view: null,
  etag: null,
  /// The version that the own text began with: `{ text, etag, version }`.
  base: { text: "", etag: null, version: null },
  /// The own text.
  text: "",
};

/// Changes of an account that is signed out: `{ account, base, text }`. Only the same account gets them back.
let draft = null;

const [listeners, forgetters] = [[], []];
export const onLoad = listener => { listeners.push(listener) };
export const onForget = forget => { forgetters.push(forget) };

/// Empties the page: what one account saw is not for the next one.
export function forget() {
  Object.assign(state, { view: null, etag: null, base: { text: "", etag: null, version: null }, text: "" });
  forgetters.forEach(each => each());
}

/// As `forget`, but keeps changes for when this account signs in again.
export function forgetUntil(account) {
  if (isDirty() && account !== null) draft = { account: accountOf(account), base: state.base, text: state.text };
  forget();
}

/// Gives an account its kept changes back. Those of another account are dropped.
export function restore(account) {
  if (draft?.account === accountOf(account)) {
    Object.assign(state, { base: draft.base, text: draft.text });
    tell({ follows: false });
  }
  draft = null;
}

const accountOf = account => JSON.stringify([account, state.view.access, state.view.tenant]);
const tell = how => listeners.forEach(listener => listener(how));

export const isDirty = () => state.text !== state.base.text;
export const hasChanges = () => isDirty() || draft !== null;
export const isOwner = () => state.view?.access !== "tenant";
export const trustIds = () => (state.view?.trusts ?? []).map(trust => trust.id);

/// A `textarea` has LF line ends only, so the texts are compared with these.
export const normalized = text => text.replace(/\r\n?/g, "\n");

/// Proxies that compress answers weaken entity tags.
const strong = etag => etag?.replace(/^W\//, "") ?? null;

/// Reads the policy in force. The own text follows it, unless it has changes.
export async function load() {
  const { body, etag } = await call("../trusts");
  // Another tab may have signed in to another account.
  if (state.view && (state.view.access !== body.access || state.view.tenant !== body.tenant)) forget();
  const follows = !isDirty();
  // A version with faults, which only another program can have stored, is the one to replace.
  const rejected = body.store?.rejected;
  Object.assign(state, { view: body, etag: rejected ? `"${rejected}"` : strong(etag) });
  if (follows) follow();
  tell({ follows });
}

/// Makes the version in force the base of the own text.
export function follow({ keepText = false } = {}) {
  const text = normalized(state.view.text ?? "");
  state.base = { text, etag: state.etag, version: state.view.version };
  if (!keepText) state.text = text;
}

/// Makes a saved text the version in force, by the answer of the service. The next `load` tells the rest.
export function saved(text, { body, etag }) {
  const version = body.version ?? null;
  state.etag = strong(etag);
  state.view = { ...state.view, text, version };
  // What was typed meanwhile stays a change of its own.
  state.base = { text, etag: state.etag, version };
}

/// Whether another version than the base of the own text is in force.
export const isBehind = () => state.view !== null && state.etag !== state.base.etag;

/// The number of a version. Those of a tenant's view are no count, so the digest names them.
export function versionNumber({ number, version }) {
  return isOwner() ? String(number) : version.split("-")[1].slice(0, 7);
}

export const versionName = version => version ? `version ${versionNumber(version)}` : "the empty policy";

export const savedWords = version => version ? `Saved as ${versionName(version)}` : "Saved";

/// Who saved a version. A policy that was changed in its file has no author, and a tenant does not learn who the
/// owner is.
export function savedBy(version) {
  if (version?.author) return `saved by ${version.author.name || version.author.subject}`;
  return isOwner() ? "edited outside of this page" : "changed by the owner of the policy";
}
