//! Foreign workload tokens: which are believed, as whom, in which tenant, with which scopes
//! (feature `trust`).
//!
//! A pod, a CI job or a virtual machine has a token that its platform signed. With a
//! [`TrustPolicy`] a service says which of those count and what they are worth; [`TrustEvaluator`] holds the
//! policy and decides.
//!
//! How it fits together: [manual::endpoints](crate::manual::endpoints#workloads).
//!
//! ```
//! use scaikey_auth::identity::Scopes;
//! use scaikey_auth::trust::{TrustPolicy, TrustEvaluator};
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
//! let trusts =
//!     TrustEvaluator::builder().policy(policy).own_issuer("https://scaikey.example").build().unwrap();
//!
//! let denied = trusts.evaluate("not a token", None, &Scopes::new()).await.unwrap_err();
//! assert_eq!(denied.code(), "invalid_request"); // what the caller learns
//! assert_eq!(denied.reason().as_str(), "token_malformed"); // what the log learns
//! println!("{}", trusts.explain("not a token", None).await); // what an administrator learns
//! # }
//! ```
//!
//! # The policy
//!
//! TOML or JSON, with the same fields. [`presets`] has one to begin with for each platform.
//!
//! `[[trust]]` *registers* a source of tokens: whose signature counts, and what every token must
//! say. By itself it grants nothing.
//!
//! | field | meaning | default |
//! |---|---|---|
//! | `id` | its name in the log and in `{trust}` | required |
//! | `issuer` | what `iss` says, letter for letter | required |
//! | `discovery_url` | where the discovery document is, if not under the issuer | under the issuer |
//! | `jwks` | `{ url = … }`: where the keys are; `{ inline = … }`: the keys, as JSON text or table | by discovery |
//! | `jwks.ca_file` | certificates (PEM) that alone vouch for that `url`, such as a cluster's | the system's |
//! | `jwks.bearer_file` | a token to show there, such as a pod's own; read for each fetch | none |
//! | `algorithms` | what tokens may be signed with | RS256, ES256 |
//! | `audiences` | what `aud` must say, one of these, letter for letter | required |
//! | `max_lifetime` | the longest `exp - iat`, up to 7 d; `iat` is required | 24 h |
//! | `max_age` | the longest time since `iat`, beside `exp` | none |
//! | `leeway` | how far clocks may differ, up to 10 min | 60 s |
//! | `single_use_jti` | a token works once; it must have a `jti` | false |
//! | `not_after` | when the trust ends, in UTC; a day counts to its end | never |
//! | `mode` | `enforce`; `audit` judges and logs all the same, and grants nothing | `enforce` |
//! | `named_only` | only for callers that name the trust by its id | false |
//! | `allow_loopback_http` | `http` on loopback addresses, for tests | false |
//!
//! `[[trust.grant]]` *grants*: whoever matches becomes one identity, in one tenant.
//!
//! | field | meaning |
//! |---|---|
//! | `name` | its name in the log |
//! | `subject` | what `sub` says: exact, or with `*` for whole segments between `:` or `/` |
//! | `claims` | claim name or JSON pointer = one of `{ eq = … }`, `{ one_of = [ … ] }`, `{ glob = … }`, `{ contains = … }`; text, whole number and truth value are different things |
//! | `map.identity` | who it becomes; `{trust}`, `{sub}` and `{/json/pointer}` are filled in, see below |
//! | `map.tenant` | the tenant |
//! | `map.scopes` | what it may do at most |
//!
//! All conditions of a rule must hold, and exactly one rule of the trust must match.
//!
//! No two workloads become one identity, unless a policy writes the whole identity out (`sa:deploy`):
//! then all who match share it. `{trust}` is a segment of its own, before the claims, and
//! between two claims stands a `:` or `/`: write `sa:{trust}:{ns}:{name}`, not
//! `sa:{trust}:{ns}-{name}`, which makes one name of `team-a`, `b` and of `team`, `a-b`. What an
//! identity does not take as it is (white space, control characters, `{`, `}`, `%`, all that is not
//! ASCII) is percent-encoded (RFC 3986 §2.1); where there are several claims, `:` and `/` are, too. An
//! identity has at most 255 bytes; a token that makes a longer one is denied.
//!
//! Two clusters may have one issuer string. Each is a trust of its own with keys of its own: give
//! them different audiences, or set `named_only` and let callers say which is meant.
//!
//! # Refused at load
//!
//! All faults are reported at once, each with its line. Beside what cannot be read: no audience,
//! or the platform's own; neither subject nor claims; on an issuer that serves everybody (GitHub,
//! GitLab.com, Google, CircleCI, Terraform Cloud, Buildkite) neither an exact subject nor an id that
//! is never given away; a wildcard that begins a pattern, is part of a segment, or would cross one;
//! two trusts that a token could belong to; Entra's `common`; e-mail without `email_verified`;
//! request tags without the caller; this service's own issuer; identities that begin as the token
//! likes, could be another trust's, or could be the same for two workloads, by one rule or by two;
//! private keys; unknown fields; gaps of a preset.

mod evaluator;
mod explain;
mod fault;
mod glob;
mod lint;
mod outcome;
mod overlap;
mod parse;
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
