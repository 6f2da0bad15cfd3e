//! Trust policies for tokens of foreign workloads (feature `trust`).
//!
//! A pod, a CI job or a virtual machine has a token that its platform signed. A [`TrustPolicy`]
//! says which of these tokens a service accepts, which identity and tenant they get, and which
//! scopes. A [`TrustEvaluator`] holds the policy and decides about each token.
//!
//! See also: [manual::endpoints](crate::manual::endpoints#workloads).
//!
//! ```
//! use scaikey_auth::identity::Scopes;
//! use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let policy = TrustPolicy::from_toml(r#"
//!     [[trust]]
//!     id = "k8s-prod-eu"
//!     issuer = "https://oidc.prod-eu.acme.example"
//!     audiences = ["scaivault"]
//!     max_lifetime = "1h"
//!
//!     [[trust.grant]]
//!     name = "reporting"
//!     subject = "system:serviceaccount:reports:reporter"
//!     claims = { "/kubernetes.io/namespace" = { eq = "reports" } }
//!     map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme_prod", scopes = ["secrets:read"] }
//! "#).unwrap();
//! let evaluator = TrustEvaluator::builder()
//!     .policy(policy)
//!     .own_issuer("https://scaikey.example")
//!     .build()
//!     .unwrap();
//!
//! let denied = evaluator.evaluate("not a token", None, &Scopes::new()).await.unwrap_err();
//! assert_eq!(denied.code(), "invalid_request"); // for the caller
//! assert_eq!(denied.reason().as_str(), "token_malformed"); // for the log
//! println!("{}", evaluator.explain("not a token", None).await); // for an administrator
//! # }
//! ```
//!
//! # The policy
//!
//! A policy is TOML or JSON with the same fields. [`presets`] has a template for each platform.
//!
//! `[[trust]]` *registers* a source of tokens: the issuer, its keys, and the conditions for each of
//! its tokens. By itself it grants nothing.
//!
//! | field | meaning | default |
//! |---|---|---|
//! | `id` | its name in the log and in `{trust}` | required |
//! | `issuer` | the value of `iss`; must match exactly | required |
//! | `discovery_url` | the URL of the discovery document | under the issuer |
//! | `jwks` | `{ url = … }`: the URL of the keys; `{ inline = … }`: the keys, as JSON text or table | by discovery |
//! | `jwks.ca_file` | CA certificates (PEM) for that `url`, such as a cluster's; no others are trusted | the system's |
//! | `jwks.bearer_file` | a file with a bearer token for that `url`, such as a pod's; read before each request | none |
//! | `algorithms` | the accepted signature algorithms | RS256, ES256 |
//! | `audiences` | the accepted values of `aud`; one must match exactly | required |
//! | `max_lifetime` | the limit of `exp - iat`, up to 7 d; `iat` is required | 24 h |
//! | `max_age` | the limit of the time since `iat`, in addition to `exp` | none |
//! | `leeway` | the accepted clock difference, up to 10 min | 60 s |
//! | `single_use_jti` | accepts each token once; it must have a `jti` | false |
//! | `not_after` | the end of the trust, in UTC; a date includes its whole day | never |
//! | `mode` | `enforce`; `audit` evaluates and logs each token, but grants nothing | `enforce` |
//! | `named_only` | applies only to callers that name the trust by its id | false |
//! | `allow_loopback_http` | allows `http` on loopback addresses, for tests | false |
//!
//! `[[trust.grant]]` is a rule that *grants*: a matching token gets one identity, in one tenant.
//!
//! | field | meaning |
//! |---|---|
//! | `name` | its name in the log |
//! | `subject` | the value of `sub`: exact, or with `*` for whole segments between `:` or `/` |
//! | `claims` | claim name or JSON pointer = one of `{ eq = … }`, `{ one_of = [ … ] }`, `{ glob = … }`, `{ contains = … }`; the type must match too: `"1"` is not `1` |
//! | `map.identity` | the identity; `{trust}`, `{sub}` and `{/json/pointer}` are filled in, see below |
//! | `map.tenant` | the tenant |
//! | `map.scopes` | the scopes that the rule permits |
//!
//! All conditions of a rule must hold, and exactly one rule of the trust must match.
//!
//! No two workloads get the same identity, unless a policy writes the whole identity out
//! (`sa:deploy`): then all matching workloads share it. Therefore `{trust}` must be a segment of
//! its own, before the claims, and a `:` or `/` must separate two claims: write
//! `sa:{trust}:{ns}:{name}`, not `sa:{trust}:{ns}-{name}`, which gives `team-a`, `b` and `team`,
//! `a-b` the same name. Characters that an identity cannot contain (white space, control
//! characters, `{`, `}`, `%`, non-ASCII) are percent-encoded (RFC 3986 §2.1). If a template has
//! several claims, `:` and `/` in their values are encoded too. An identity has at most 255 bytes;
//! a token with a longer one is denied.
//!
//! Two clusters may use the same issuer string. Register each as a trust of its own, with its own
//! keys. Give them different audiences, or set `named_only` and let callers name the trust.
//!
//! # Policies that are refused
//!
//! Loading reports all faults together, each with its line. These policies are refused:
//!
//! - text that cannot be parsed, unknown fields, and unfilled placeholders of a preset
//! - a trust without an audience, or with an audience of the platform itself
//! - a rule with neither subject nor claims
//! - a rule for a shared issuer (GitHub, GitLab.com, Google, CircleCI, Terraform Cloud, Buildkite)
//!   with neither an exact subject nor an id that is never reassigned
//! - a wildcard that begins a pattern, is part of a segment, or would cross a separator
//! - two trusts that match the same token
//! - Entra's `common` issuer
//! - a condition on `email` without `email_verified`, or on request tags without the caller
//! - an issuer of this service
//! - an identity that begins with a claim, could belong to another trust, or could be the same for
//!   two workloads, by one rule or by two
//! - private keys

mod evaluator;
mod explain;
mod fault;
mod lint;
mod outcome;
mod overlap;
mod parse;
mod pattern;
mod policy;
pub mod presets;
mod rule;
mod time;
mod tree;
mod verification;

pub use evaluator::{TrustEvaluator, TrustEvaluatorBuilder};
pub use explain::Explanation;
pub use fault::{PolicyError, PolicyFault};
pub use outcome::{DenialReason, Denied, Granted};
pub use policy::TrustPolicy;
