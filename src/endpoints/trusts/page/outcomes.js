// The outcomes of decisions, in words.

const WORDS = {
  granted: "Granted",
  audit_mode: "Audit mode: would be granted",
  trust_unknown: "Named trust is unknown",
  trust_none: "No trust for the token",
  trust_ambiguous: "Several trusts match",
  trust_ended: "Trust has ended",
  grant_none: "No rule matches",
  grant_ambiguous: "Several rules match",
  identity: "Identity cannot be made",
  scope: "Scope not permitted",
  replayed: "Used before",
  jti_missing: "No jti",
  unavailable: "Keys or store unavailable",
  token_malformed: "Not a valid token",
  token_expired: "Expired",
  token_not_yet_valid: "Not yet valid",
  token_lifetime: "Lives too long",
  token_age: "Too old",
  token_audience: "Other audience",
  token_issuer: "Other issuer",
  token_algorithm: "Algorithm not accepted",
  token_type: "Other kind of token",
  token_key_unknown: "Signed by an unknown key",
  token_signature: "Wrong signature",
  token_claim_missing: "A claim is missing",
  token_claim_malformed: "A claim is malformed",
};

export const OUTCOMES = Object.keys(WORDS);
export const outcomeWords = outcome => WORDS[outcome] ?? outcome;
