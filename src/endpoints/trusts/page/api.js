// Requests to the API. All addresses are relative to the page, so it works below any prefix.

/// A pasted token, kept only in this variable: neither in storage nor in the page.
let token = null;

/// The longest time that an answer may take, in milliseconds.
const TIME_LIMIT = 30000;

export const useToken = text => { token = text };
export const hasToken = () => token !== null;

export class ApiError extends Error {
  constructor(message, more) {
    super(message);
    Object.assign(this, { status: 0, code: "", faults: [], etag: null, retryAfter: null }, more);
  }

  /// Whether the service may have done what was asked, although its answer does not say so.
  get isUncertain() { return this.status < 400 || this.status >= 500 }
}

/// Sends a request, with `json` as a value or as text, and returns `{ body, etag }`, or throws an `ApiError`.
export async function call(path, { method = "GET", json, toml, ifMatch } = {}) {
  const headers = { Accept: "application/json" };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  if (toml !== undefined) headers["Content-Type"] = "application/toml";
  if (ifMatch) headers["If-Match"] = ifMatch;
  if (ifMatch === null) headers["If-None-Match"] = "*";
  let [answer, text] = [];
  try {
    answer = await fetch(path, {
      method, headers, signal: AbortSignal.timeout(TIME_LIMIT), cache: "no-store", credentials: "same-origin", redirect: "error",
      body: json === undefined ? toml : typeof json === "string" ? json : JSON.stringify(json),
    });
    text = await answer.text();
  } catch {
    throw new ApiError("The service does not answer. Check your connection and try again.");
  }
  const etag = answer.headers.get("ETag");
  const body = parsed(text);
  if (answer.ok && (body || answer.status === 204)) return { body: body?.data ?? body ?? {}, etag };
  throw failure(answer, body ?? {}, etag);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const MESSAGES = {
  401: "You are signed out. Sign in, or paste a token.",
  403: "Your account may not do this.",
  404: "The service does not have this.",
  413: "The text is too large: a policy has at most 1 MiB.",
  429: "Too many requests. Wait a moment and try again.",
  503: "The service cannot do this now. Try again later.",
};

function failure(answer, body, etag) {
  const { status } = answer;
  if (answer.ok) body = { detail: "The answer is not from this service: a proxy may be asking you to sign in. Reload the page." };
  const words = [body.detail, body.problem, body.error_description, body.message].find(text => typeof text === "string");
  const names = [body.code, body.error, body.type].filter(name => typeof name === "string").join(" ");
  return new ApiError(words ?? MESSAGES[status] ?? `The service answers with status ${status}.`, {
    status, etag,
    code: names,
    faults: Array.isArray(body.faults) ? body.faults : [],
    retryAfter: Number(answer.headers.get("Retry-After")) || null,
  });
}
