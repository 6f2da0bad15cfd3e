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

const listeners = [];
export const onLoad = listener => { listeners.push(listener) };

export const isDirty = () => state.text !== state.base.text;
export const isOwner = () => state.view?.access !== "tenant";
export const trustIds = () => (state.view?.trusts ?? []).map(trust => trust.id);

/// A `textarea` has LF line ends only, so the texts are compared with these.
export const normalized = text => text.replace(/\r\n?/g, "\n");

/// Proxies that compress answers weaken entity tags.
const strong = etag => etag?.replace(/^W\//, "") ?? null;

/// Reads the policy in force. The own text follows it, unless it has changes.
export async function load() {
  const { body, etag } = await call("../trusts");
  const follows = !isDirty();
  // A version with faults, which only another program can have stored, is the one to replace.
  const rejected = body.store?.rejected;
  Object.assign(state, { view: body, etag: rejected ? `"${rejected}"` : strong(etag) });
  if (follows) follow();
  listeners.forEach(listener => listener({ follows }));
}

/// Makes the version in force the base of the own text.
export function follow({ keepText = false } = {}) {
  const text = normalized(state.view.text ?? "");
  state.base = { text, etag: state.etag, version: state.view.version };
  if (!keepText) state.text = text;
}

/// Whether another version than the base of the own text is in force.
export const isBehind = () => state.view !== null && state.etag !== state.base.etag;

/// The number of a version. Those of a tenant's view are no count, so the digest names them.
export function versionNumber({ number, version }) {
  return isOwner() ? String(number) : version.split("-")[1].slice(0, 7);
}

export const versionName = version => version ? `version ${versionNumber(version)}` : "the empty policy";

/// The author of a version. A policy that was changed in its file has none.
export function authorName({ author }) {
  return author ? author.name || author.subject : "an edit outside of this service";
}
