// Writes TOML, and finds the trusts in a text. The service parses and checks the text; this page does not.

/// A basic string. Characters that a reader could not see are escaped too.
export function string(text) {
  const escapes = { '"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r" };
  const escaped = character => {
    if (escapes[character]) return escapes[character];
    const code = character.codePointAt(0);
    // Half of a surrogate pair is no character.
    if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
    const digits = code.toString(16);
    return code > 0xffff ? `\\U${digits.padStart(8, "0")}` : `\\u${digits.padStart(4, "0")}`;
  };
  return `"${text.replace(/["\\\p{C}\p{Zl}\p{Zp}]/gu, escaped)}"`;
}

export const list = texts => `[${texts.map(string).join(", ")}]`;
export const words = text => text.split(/[\s,]+/).filter(Boolean);
export const key = name => /^[A-Za-z0-9_-]+$/.test(name) ? name : string(name);

/// One comment line for each line of a text.
export const comment = text => text.split(/[\r\n]+/).map(line => `# ${line.replace(/\p{C}/gu, "\ufffd")}`).join("\n");

/// Writes a trust: `[name, value already in TOML]` pairs, without absent values, and its rules.
export const trust = (fields, rules) => `[[trust]]\n${pairs(fields)}${rules.map(each => `\n${each}`).join("")}`;

/// Writes a rule. `claims` are `[name, operator, value already in TOML]`.
export function rule({ name, subject, claims = [], identity, tenant, scopes }) {
  const table = claims.map(([claim, operator, value]) => [key(claim), `{ ${operator} = ${value} }`]);
  const map = `{ identity = ${string(identity)}, tenant = ${string(tenant)}, scopes = ${list(scopes)} }`;
  const own = [["name", string(name)], ["subject", subject ? string(subject) : null], ["map", map]];
  return `[[trust.grant]]\n${pairs(own)}${table.length ? `\n[trust.grant.claims]\n${pairs(table)}` : ""}`;
}

const pairs = fields => fields.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => `${name} = ${value}\n`).join("");

/// For each line: the quotes of the multi-line string that it begins in, or "".
export function multilineStates(lines) {
  let open = "";
  return lines.map(line => {
    const state = open;
    if (open || line.includes('"""') || line.includes("'''")) open = stateAfter(line, open);
    return state;
  });
}

function stateAfter(line, open) {
  let at = 0;
  while (at < line.length) {
    if (open) {
      if (open === '"""' && line[at] === "\\") at += 2;
      else if (line.startsWith(open, at)) {
        at += 3;
        // A string may end with quotes of its own: `""""` and `"""""`.
        while (line[at] === open[0]) at++;
        open = "";
      } else at++;
    } else if (line.startsWith('"""', at) || line.startsWith("'''", at)) {
      open = line.slice(at, at + 3);
      at += 3;
    } else if (line[at] === "#") break;
    else {
      const short = /^(?:"(?:\\.|[^"\\])*"?|'[^']*'?)/.exec(line.slice(at));
      at += short?.[0].length || 1;
    }
  }
  return open;
}

/// Returns the trusts that the text writes as `[[trust]]`: `{ id, line, end }`, in lines from 0; `end` is exclusive.
export function trusts(text) {
  const lines = text.split("\n");
  const states = multilineStates(lines);
  const found = [];
  let header = "";
  lines.forEach((line, index) => {
    if (states[index]) return;
    if (/^\s*\[/.test(line)) {
      header = line.replace(/\s*(#.*)?$/, "").replace(/\s/g, "");
      if (header !== "[[trust]]") return;
      if (found.length) found.at(-1).end = index;
      found.push({ id: null, line: index, end: lines.length });
    } else if (header === "[[trust]]") {
      const id = /^\s*(?:id|"id"|'id')\s*=\s*("(?:\\.|[^"\\])*"|'[^']*')/.exec(line);
      if (id) found.at(-1).id ??= unquoted(id[1]);
    }
  });
  // Comments above a trust belong to it, not to the one before.
  for (const each of found) {
    while (each.end > each.line + 1 && /^\s*(#.*)?$/.test(lines[each.end - 1])) each.end--;
  }
  return found.filter(each => each.id !== null);
}

function unquoted(text) {
  try {
    return text.startsWith("'") ? text.slice(1, -1) : JSON.parse(text);
  } catch {
    return text.slice(1, -1);
  }
}

/// Inserts a rule at the end of a trust. Returns the new text and the line of the rule, from 1.
export function insertRule(text, trustId, written) {
  const place = trusts(text).find(each => each.id === trustId);
  if (!place) return null;
  const lines = text.split("\n");
  const block = ["", ...written.replace(/\n$/, "").split("\n")];
  if (lines[place.end] !== undefined && lines[place.end] !== "") block.push("");
  lines.splice(place.end, 0, ...block);
  const joined = lines.join("\n");
  return { text: joined.endsWith("\n") ? joined : `${joined}\n`, line: place.end + 2 };
}

/// Appends a trust at the end. Returns the new text and its line, from 1.
export function appendTrust(text, written) {
  const before = text.trimEnd();
  const start = before ? `${before}\n\n` : "";
  return { text: start + written, line: start.split("\n").length };
}
