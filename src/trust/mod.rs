//! Trust policies for tokens of foreign workloads (feature `trust`).
//!
//! A pod, a CI job or a virtual machine has a token that its platform signed. A [`TrustPolicy`]
//! specifies which of these tokens a service accepts, and the identity, tenant and scopes that each
//! of them gets. A [`TrustEvaluator`] applies the policy to each token.
//!
//! See also: [manual::trust](crate::manual::trust).
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
//! A policy is TOML or JSON with the same fields. [`presets`] has a policy with placeholders for
//! each platform.
//!
//! A *trust* (`[[trust]]`) is a source of tokens: an issuer or a SPIFFE trust domain, its keys, and
//! the conditions that all its tokens must meet. A trust without rules grants nothing.
//!
//! | field | meaning | default |
//! |---|---|---|
//! | `id` | the name of the trust in the log and in the placeholder `{trust}` | required |
//! | `issuer` | the value of `iss`; must match exactly | required, or `trust_domain` |
//! | `trust_domain` | the SPIFFE trust domain of `sub`, without scheme; the tokens are [JWT-SVIDs](#jwt-svids) | none |
//! | `discovery_url` | the URL of the discovery document | `/.well-known/openid-configuration` under the issuer |
//! | `jwks` | `{ url = … }`: the URL of the keys; `{ file = … }`: a file with the keys, read again after 5 min and for an unknown key; `{ inline = … }`: the keys, as JSON text or table | by discovery |
//! | `bundle` | the same for the SPIFFE bundle of a trust domain | required for a trust domain, or `jwks` |
//! | `jwks.ca_file` | CA certificates (PEM) for this `url`; the system's certificates are then not trusted | the system's |
//! | `jwks.bearer_file` | a file with a bearer token for this `url`; read before each request | none |
//! | `algorithms` | the accepted signature algorithms | RS256, ES256; of a trust domain: RS, ES and PS, with 256, 384 or 512 |
//! | `audiences` | the accepted values of `aud`; one must match exactly | required |
//! | `max_lifetime` | the limit of `exp - iat`, up to 7 d; `iat` is required, but not in JWT-SVIDs, whose remaining lifetime is limited then | 24 h |
//! | `max_age` | the limit of the time since `iat`, in addition to `exp`; `iat` is required | none |
//! | `leeway` | the accepted clock difference, up to 10 min | 60 s |
//! | `single_use_jti` | accepts each token once; it must have a `jti` | false |
//! | `not_after` | the end of the trust, in UTC; with a date, the end of that day | never |
//! | `mode` | `enforce`; `audit` evaluates and logs each token, but grants nothing | `enforce` |
//! | `named_only` | applies only to callers that name the trust by its id | false |
//! | `insecure_shared_audience` | accepts `api://AzureADTokenExchange`, the only audience of Azure DevOps and AKS workload identities. The price: workloads send the same tokens to Entra ID and other services, and each of them could use the tokens here. Every rule then needs an exact `subject`, and for a shared issuer also an organisation's id. Prefer another audience where the platform offers one (AKS: a projected token), and combine it with `single_use_jti` or a short `max_age` | false |
//! | `allow_loopback_http` | allows `http` on loopback addresses, for tests | false |
//!
//! A *rule* (`[[trust.grant]]`) gives each matching token an identity, in one tenant.
//!
//! | field | meaning |
//! |---|---|
//! | `name` | the name of the rule in the log; no other rule of the trust for the same tenant has it |
//! | `subject` | the value of `sub`: exact, or with `*` for whole segments between `:` or `/` |
//! | `claims` | claim name or JSON pointer = one of `{ eq = … }`, `{ one_of = [ … ] }`, `{ glob = … }`, `{ contains = … }`; the type must match too: `"1"` is not `1` |
//! | `map.identity` | the identity; `{trust}`, `{sub}` and `{/json/pointer}` are filled in, see below |
//! | `map.tenant` | the tenant |
//! | `map.scopes` | the scopes that the rule permits |
//!
//! The name of a rule is unique among the rules of its tenant in the trust.
//!
//! All conditions of a rule must hold, and exactly one rule of the trust must match; otherwise the
//! token is denied.
//!
//! Two workloads never get the same identity, except an identity without claims (`sa:deploy`),
//! which all matching workloads share. For this, `{trust}` must be a whole segment before all
//! claims, and a `:` or `/` must separate two claims: write `sa:{trust}:{ns}:{name}`, not
//! `sa:{trust}:{ns}-{name}`, which gives namespace `team-a` with name `b` the same identity as
//! namespace `team` with name `a-b`. Characters that an identity cannot contain (white space,
//! control characters, `{`, `}`, `%`, non-ASCII) are percent-encoded (RFC 3986 §2.1). If an
//! identity has several claims, `:` and `/` in their values are encoded too. An identity has at
//! most 255 bytes; a token with a longer one is denied.
//!
//! Two clusters may use the same issuer string. Register each as a trust of its own, with its own
//! keys. Give them different audiences, or set `named_only` and let callers name the trust.
//!
//! # Delegation to tenants
//!
//! A *delegation* (`[[trust.delegation]]`) lets the administrators of a tenant write rules in a trust, without
//! seeing or changing anything else of the policy:
//!
//! | field | meaning |
//! |---|---|
//! | `tenant` | the tenant; the rules give their workloads this tenant |
//! | `subject` | the rules must have this `subject`, or a narrower one |
//! | `claims` | the rules must have a condition on each of these claims, equal or narrower; the form is that of rules |
//! | `scopes` | the scopes that the rules may grant |
//!
//! A delegation needs `subject` or `claims`. A condition is narrower if every value that it accepts is accepted by
//! the delegation too: a value of a list or a pattern, a shorter list, or a pattern with a literal for a `*`.
//!
//! ```
//! # let policy = scaikey_auth::trust::TrustPolicy::from_toml(r#"
//! [[trust]]
//! id = "k8s-prod-eu"
//! issuer = "https://oidc.prod-eu.acme.example"
//! audiences = ["scaivault"]
//!
//! [[trust.delegation]]
//! tenant = "tnt_payments"
//! subject = "system:serviceaccount:payments:*"
//! scopes = ["secrets:read"]
//! # "#).unwrap();
//! # assert_eq!(policy.trust_ids().collect::<Vec<_>>(), ["k8s-prod-eu"]);
//! ```
//!
//! * The administrators of a tenant see the trusts with its rules or delegations: issuer or trust domain, audiences,
//!   lifetimes, mode and end; and its own rules with the comments in them and directly above them, if an empty line
//!   separates these from what is above. Owners should not write secrets there. See [`TenantPolicy`].
//! * The identities of the rules that they write begin with a kind and the tenant, percent-encoded as claims are:
//!   `sa:tnt_payments:{trust}:{sub}`. No rule of another tenant can give such an identity.
//! * Delegations of two tenants in one trust exclude each other, and so do a delegation and the rules of other
//!   tenants: both have a condition on the same claim, or a subject, and no value meets both. Otherwise a token could
//!   match two rules, and would be denied.
//! * Rules of a tenant that are outside of its delegations, for example because the owner wrote them or removed the
//!   delegation, stay in force. The tenant's administrators can keep or remove them.
//! * A tenant's text has at most 128 KiB, and at most 500 rules.
//!
//! # JWT-SVIDs
//!
//! Workloads of a SPIFFE trust domain, for example of SPIRE, have JWT-SVIDs: tokens whose `sub` is
//! the SPIFFE ID of the workload, and which usually have no `iss`. A trust with `trust_domain` accepts
//! them:
//!
//! ```
//! # let policy = scaikey_auth::trust::TrustPolicy::from_toml(r#"
//! [[trust]]
//! id = "mesh"
//! trust_domain = "prod.acme.example"
//! bundle = { url = "https://bundle.acme.example" }
//! audiences = ["scaivault"]
//! max_lifetime = "1h"
//!
//! [[trust.grant]]
//! name = "reporters"
//! subject = "spiffe://prod.acme.example/ns/reports/sa/*"
//! map = { identity = "sa:{trust}:{sub}", tenant = "tnt_acme_prod", scopes = ["secrets:read"] }
//! # "#).unwrap();
//! # assert_eq!(policy.trust_ids().collect::<Vec<_>>(), ["mesh"]);
//! ```
//!
//! * A token belongs to the trust whose `trust_domain` is exactly that of its `sub`. Only the keys of
//!   this trust domain can have signed it. Its `iss`, if there is one, selects nothing. Each trust
//!   domain has one trust.
//! * `sub` must be a SPIFFE ID in its strict form: lower-case scheme and trust domain; neither user,
//!   port, query, fragment nor percent-encoding; no empty, `.` or `..` segment; a path; at most 2048
//!   bytes.
//! * The header has only `alg`, `kid` and `typ`. `typ` is absent, `JWT` or `JOSE`. `alg` is RS, ES or
//!   PS with 256, 384 or 512. A WIT-SVID (`wit+jwt`) is denied: it is no bearer token.
//! * `aud` and `exp` are required, `iat` is not.
//! * `bundle` is the SPIFFE bundle: at a URL with a certificate of a public CA or of `ca_file` (the
//!   profile `https_web`; `https_spiffe` is not supported), in a file, or inline. Only its keys with
//!   `use` `jwt-svid` and a `kid` count. A bundle without such a key is valid and revokes all keys;
//!   then every token is denied, and a warning is logged.
//! * The bundle is fetched again after its `spiffe_refresh_hint`, limited to 1 min to 1 h; a file at
//!   the latest after 5 min. Without a hint, the times of other key sets apply. While the bundle
//!   cannot be fetched, the previous keys stay in use for up to 24 h. If `spiffe_sequence` goes back,
//!   the bundle is used, and a warning is logged.
//! * If the keys are a plain key set (no `use`, or `sig`), as that of SPIRE's OIDC discovery provider,
//!   give `jwks` instead of `bundle`. If the tokens always have `iss`, a trust with `issuer` works too.
//!
//! Sources: SPIFFE-ID, JWT-SVID, SPIFFE Trust Domain and Bundle.
//!
//! # Rejected policies
//!
//! Loading reports the faults together, each with its line and column; after the first 200, only their number.
//! These policies are rejected:
//!
//! - a text above 1 MiB, more than 10,000 trusts or rules, more than 100 audiences or algorithms of a trust,
//!   more than 16 placeholders in an identity, or more than 16 levels of nesting
//! - text that cannot be parsed, unknown fields, and unfilled placeholders of a preset
//! - a trust without an audience, or with an audience of a platform itself, such as
//!   `sts.amazonaws.com`, except `api://AzureADTokenExchange` with `insecure_shared_audience`
//! - a rule with neither subject nor claims
//! - a rule for a shared issuer (GitHub, GitLab.com, Google, CircleCI, Terraform Cloud, Buildkite)
//!   with neither an exact subject nor an id that is never reassigned
//! - a wildcard that begins a pattern, is part of a segment, or would cross a separator
//! - two trusts with the same issuer and a common audience, unless one of them is `named_only`
//! - two trusts with the same trust domain, or a rule of an issuer for its workloads beside them
//! - a rule of a trust domain whose subject is no SPIFFE ID of it
//! - Entra's `common` issuer
//! - a condition on `email` without `email_verified`, or on AWS request tags without an exact
//!   `subject`
//! - an issuer of this service
//! - an identity that begins with a claim, that another trust could also give, or that could be the
//!   same for two workloads
//! - an identity whose literal part is longer than 255 bytes
//! - thousands of rules whose identities begin with the same literal and go on with a claim, which are too many to
//!   compare: give each a literal segment of its own
//! - inline keys that are private or symmetric
//! - a delegation that could match the same tokens as one of another tenant, or as a rule of another tenant
//! - an identity that begins like those of a tenant with a delegation, in a rule of another tenant

mod administration;
mod current;
mod decisions;
mod delegation;
mod dry_run;
mod evaluator;
mod explain;
mod fault;
mod following;
mod index;
mod lint;
mod lock_out;
mod normal_form;
mod outcome;
mod overlap;
#[cfg(feature = "endpoints")]
mod overview;
mod parse;
mod pattern;
mod policy;
pub mod presets;
mod reader;
mod requirements;
mod rule;
mod rule_text;
mod store;
mod tenancy;
mod tenant_change;
mod tenant_policy;
mod time;
mod tree;
mod verification;

pub use current::{CurrentPolicy, SaveError, SyncError};
pub use decisions::{Decision, DecisionFilter, TrustUsage};
pub use dry_run::{DecisionChange, DryRun};
pub use evaluator::{TrustEvaluator, TrustEvaluatorBuilder};
pub use explain::{ExplainedRule, Explanation};
pub use fault::{PolicyError, PolicyFault};
#[cfg(feature = "endpoints")]
pub(crate) use outcome::OUTCOMES;
pub use outcome::{DenialReason, Denied, Granted};
#[cfg(feature = "endpoints")]
pub(crate) use overview::TrustOverview;
pub use policy::TrustPolicy;
#[cfg(feature = "redis")]
pub use store::RedisPolicies;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use store::SqlPolicies;
pub use store::{
    Appended, FilePolicies, InvalidPolicyVersionId, MemoryPolicies, NewPolicyVersion, PolicyAuthor,
    PolicyChange, PolicyStore, PolicyVersion, PolicyVersionId,
};
pub use tenant_policy::{TenantChange, TenantPolicy};
