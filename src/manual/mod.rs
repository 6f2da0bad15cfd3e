//! The manual: guides for users and for maintainers. These modules contain text only.
//!
//! New here? Read [`start`]. To find something, search this page for a word of the [index](#index).
//!
//! # By task
//!
//! | you | read |
//! |---|---|
//! | protect an API | [`start`], your [provider](providers), [guards](request#guards), [`tenants`], [`opaque`] tokens, [`revocation`], [`testing`] |
//! | sign browsers in | [a whole program](endpoints#a-web-application) with its variables, and the example `web_app`; then [sessions](endpoints#sessions), [sessions on the server](sessions), [proxies and sub-paths](endpoints#behind-a-proxy) |
//! | accept pods, CI jobs and machines without secrets | [`trust`], and the example `trust_admin` |
//! | call other services | [`outbound`]; [`exchange`] has the details of tokens and their cache |
//! | accept web sockets, streams or gRPC | [streams, also of gRPC](request#web-sockets-and-event-streams), [tonic](start#with-tonic), [a guard for each method](request#a-guard-for-each-path) |
//! | operate a service | [`deploying`] for Kubernetes, [alerts](deploying#alerts), [refusals](deploying#refusals); [`operating`] for variables, [outages](operating#outages), [logs and metrics](operating#logs-and-metrics) |
//! | replace another library | [`migrating`] |
//! | decide or review | [`threats`], [what is not covered](threats#not-covered), [`costs`] |
//!
//! # Pages in reading order
//!
//! The first five are for every service.
//!
//! | page | questions that it answers |
//! |---|---|
//! | [`start`] | [How do I get from `cargo new` to the first 200?](start#2-the-service) [What do I set for my own provider?](start#5-your-own-provider) [Why do I get 401 or 403?](start#if-it-does-not-work) [Which routes are public?](start#public-routes) [How do I use it with hyper](start#with-hyper) [or tonic?](start#with-tonic) |
//! | [`modes`] | [Can I develop without a provider?](modes#the-mock-user) [What keeps the mock user out of production?](modes#how-production-is-protected-from-mocks) [How do I ship a binary that cannot mock?](modes#a-binary-that-cannot-mock) |
//! | [`request`] | [In which order is a token checked?](request) [Which status and headers does a refusal have?](request#answers) [How do I guard a route by scope, role or MFA?](request#guards) [Where do roles, groups and the tenant come from?](request#where-an-identity-comes-from) [Where in my stack does the layer belong?](request#in-a-stack-of-layers) |
//! | [`providers`] | [What do I copy for Keycloak, Entra ID, Auth0 or Okta?](providers) [What must I set up there, and not trust?](providers#keycloak) [My provider is not listed: what now?](providers#not-listed-four-questions) |
//! | [`opaque`] | [How do I accept tokens that are no JWTs?](opaque) [Which tokens are they?](opaque#which-tokens-are-opaque) [How soon does a revocation count?](opaque#how-many-questions-are-asked) [What if the endpoint fails?](opaque#when-the-endpoint-fails) |
//! | [`revocation`] | [How do I refuse the tokens of a user who was removed?](revocation) [What can be revoked?](revocation#what-can-be-revoked) [How do all processes learn of it?](revocation#several-processes) [How does the provider report a sign-out?](revocation#reports-of-the-provider) [What if Redis fails?](revocation#failures) |
//! | [`tenants`] | [How do I use my own tenant table?](tenants#resolvers) [Can a request name its tenant?](tenants#tenant-in-the-path-or-a-header) [What if each tenant has its own issuer?](tenants#one-issuer-per-tenant) [Where do I keep my users?](tenants#participants) |
//! | [`endpoints`] | [How do users sign in?](endpoints#browser-sign-in) [What is in the session cookies, and when are they renewed?](endpoints#sessions) [How do users sign out, also at the provider?](endpoints#sign-out-logout) [How does a page without a session lead to the sign-in?](endpoints#pages-without-a-session) [How do I run behind a proxy under a sub-path?](endpoints#behind-a-proxy) [How many attempts may a client make?](endpoints#rate-limits-and-client-addresses) |
//! | [`sessions`] | [How does the server keep sessions?](sessions) [Which store do I take?](sessions#stores) [When does a session end?](sessions#when-a-session-ends) [How do users and administrators end sessions?](sessions#ending-sessions) [What if the store fails?](sessions#when-the-store-fails) |
//! | [`trust`] | [How do workloads of other platforms get tokens?](trust#the-exchange) [Who may change the policy, and where?](trust#turning-the-administration-on) [How do I change it from a pipeline?](trust#from-a-pipeline) [Where is it kept, and when do processes follow?](trust#stores) [What may the administrators of a tenant do?](trust#tenants) |
//! | [`outbound`] | [How does a `reqwest` client carry the right token?](outbound#with-reqwest) [As whom does it call?](outbound#choosing-the-token) [Can a token reach another host?](outbound#matching-destinations) [What happens after a 401?](outbound#when-a-service-answers-401) |
//! | [`exchange`] | [Which grants are there?](exchange#grants) [How are tokens cached and renewed?](exchange#from-call-to-token) [Which answers of the provider are refused?](exchange#checks-of-the-response) [How do processes share tokens in Redis?](exchange#sharing-tokens-between-processes) |
//! | [`testing`] | [How do I test without a provider?](testing) [How do tokens get the claims of my provider?](testing#the-layout-and-the-claims-of-your-provider) [Which suites test my own store?](testing#items) |
//! | [`operating`] | [Which variables are there, and which defaults?](operating#environment-variables) [What happens in an outage?](operating#outages) [How do I reach a provider behind a proxy or a private CA?](operating#reaching-the-provider) [Which logs and metrics are there?](operating#logs-and-metrics) |
//! | [`deploying`] | [What does a Kubernetes manifest look like?](deploying#the-manifest) [What must readiness depend on?](deploying#probes) [What do replicas share?](deploying#replicas) [How does a pod stop without errors?](deploying#stopping-without-errors) [Which alerts do I need?](deploying#alerts) [What do I do about a refusal?](deploying#refusals) |
//! | [`threats`] | [Which attacks are prevented?](threats) [Which are not?](threats#not-covered) [Is the cache safe?](threats#cached-verified-tokens) |
//! | [`costs`] | [What does a request cost?](costs#verified-tokens) [How does that compare?](costs#compared-with-other-crates) |
//! | [`migrating`] | [How do I replace `jsonwebtoken`](migrating#from-jsonwebtoken) [or a middleware of my own?](migrating#from-an-axum-middleware-written-by-hand) [What about HS256?](migrating#hs256) |
//!
//! For maintainers: [`architecture`] (where is what?), [`contributing`] (how do I change, test and release the
//! crate?), [`decisions`] (why is it built this way?).
//!
//! # Index
//!
//! | word | treated in |
//! |---|---|
//! | 401, 403, 503, status | [answers](request#answers), [causes and remedies](start#if-it-does-not-work) |
//! | act, actor, impersonation | [attributes of an identity](request#where-an-identity-comes-from), [on behalf of a caller](outbound#choosing-the-token) |
//! | AD FS, Apple, Dex, Kinde, WorkOS, LemonLDAP::NG | [other providers](providers#other-providers) |
//! | admin page, Access → Token Exchange | [the administration of the trust policy](trust#turning-the-administration-on) |
//! | admission check, deny list | [step 11](request), [`AdmissionCheck`](crate::admission::AdmissionCheck); of revoked tokens: [revocations](revocation) |
//! | alert, Prometheus | [alerts](deploying#alerts), [metrics](operating#metrics) |
//! | algorithm, RS256, ES256, EdDSA, ML-DSA (post-quantum) | [`P_ALGORITHMS`](operating#environment-variables), [`Algorithm`](crate::config::Algorithm) |
//! | API key, opaque token, personal access token | of a provider: [opaque tokens](opaque); of your own: [`TokenValidator`](crate::TokenValidator) |
//! | audience, aud | [your own provider](start#5-your-own-provider), [relaxed rules](request#relaxed-rules) |
//! | audit log | of the trust policy: [history](trust#history-roll-back-and-audit); of callers: [who calls](operating#who-calls) |
//! | Auth0 | [Auth0](providers#auth0) |
//! | axum | [start](start#2-the-service), [a layer in a stack](request#in-a-stack-of-layers), [`extract`](crate::extract) |
//! | benchmark, performance, latency | [costs](costs#compared-with-other-crates) |
//! | CA certificate, TLS | [reaching the provider](operating#reaching-the-provider) |
//! | cache | of verified tokens: [operating](operating#verified-tokens), [its security](threats#cached-verified-tokens); of tokens for other services: [exchange](exchange#sharing-tokens-between-processes); of tenants: [resolvers](tenants#resolvers) |
//! | claim | [where an identity comes from](request#where-an-identity-comes-from), [wrong types](request#claims-of-the-wrong-type) |
//! | Clerk | [Clerk](providers#clerk) |
//! | client authentication, client secret, private_key_jwt | [`P_CLIENT_AUTH`](operating#environment-variables), [`ClientAuth`](crate::issuer::ClientAuth); without a secret: [workload tokens](exchange#without-a-client-secret) |
//! | client credentials, service token | [grants](exchange#grants), [a named service](exchange#service-tokens-for-a-named-service) |
//! | clock, leeway | [`P_LEEWAY_SECONDS`](operating#environment-variables), [step 6](request) |
//! | Cognito | [Amazon Cognito](providers#amazon-cognito) |
//! | configuration, file, environment | [configuration](operating#configuration), [variables](operating#environment-variables) |
//! | conformance suite | [suites](testing#items), [adding a store](contributing#add-a-store) |
//! | cookie | [sign-in cookies](endpoints#cookies), [session cookies](endpoints#sessions) |
//! | CORS, preflight | [step 1](request) |
//! | CSRF, origin | [sessions](endpoints#sessions), [threats](threats#sign-in-and-sessions) |
//! | default | [defaults of all variables](operating#environment-variables) |
//! | delegation to tenants | [tenants of a trust policy](trust#tenants) |
//! | deployment, replicas | [the manifest](deploying#the-manifest), [replicas](deploying#replicas) |
//! | discovery, metadata | [`P_DISCOVERY_URL`](operating#environment-variables), [four questions](providers#not-listed-four-questions) |
//! | DPoP, mTLS, proof of possession | [step 10](request), [`ProofVerifier`](crate::proof::ProofVerifier) |
//! | e-mail | [participants](tenants#participants), [an identity](request#where-an-identity-comes-from) |
//! | encrypted token, JWE | [encrypted tokens](request#encrypted-tokens), [threats](threats#encrypted-tokens-feature-jwe) |
//! | Entra ID, Azure | [Microsoft Entra ID](providers#microsoft-entra-id), [on-behalf-of](exchange#microsoft-entra-id), [missing groups](request#groups-that-a-token-leaves-out) |
//! | error format, problem+json | [answers](request#answers), [`ErrorResponse`](crate::error::ErrorResponse) |
//! | error page, failure page | [error pages](endpoints#error-pages) |
//! | example | [a table of the examples](testing#examples) |
//! | form post, Apple | [form post](endpoints#form-post), [other providers](providers#other-providers) |
//! | Google | [Google](providers#google) |
//! | graceful shutdown, SIGTERM | [stopping without errors](deploying#stopping-without-errors) |
//! | group | [roles and groups](request#where-an-identity-comes-from), [guards](request#guards) |
//! | gRPC, tonic | [start](start#with-tonic), [a guard for each method](request#a-guard-for-each-path), [answers](request#answers), [calls](outbound#with-tonic) |
//! | health, readiness, liveness | [probes](deploying#probes), [readiness and health](operating#readiness-and-health) |
//! | HS256 | [migrating](migrating#hs256) |
//! | hyper | [start](start#with-hyper), [server limits](operating#server-limits) |
//! | ID token | [relaxed rules](request#relaxed-rules), [sign-in](endpoints#browser-sign-in) |
//! | introspection, RFC 7662, RFC 9701 | of a provider's tokens: [opaque tokens](opaque); of this service: [the endpoint](endpoints#all-endpoints) |
//! | issuer, iss | [your own provider](start#5-your-own-provider), [one issuer per tenant](tenants#one-issuer-per-tenant) |
//! | JWKS, key set, key rotation | [keys](operating#keys), [step 7](request) |
//! | JWT | [how a token is checked](request), [from `jsonwebtoken`](migrating#from-jsonwebtoken) |
//! | Keycloak | [Keycloak](providers#keycloak) |
//! | keyless client, client without a secret | [without a client secret](exchange#without-a-client-secret) |
//! | Kubernetes | [deploying](deploying#the-manifest); tokens of pods: [workloads](trust) |
//! | logout, log out, sign-out | [sign-out](endpoints#sign-out-logout), [at each provider](providers#sign-out-logout-at-the-provider), [back-channel logout](revocation#reports-of-the-provider) |
//! | logs, tracing | [logs and metrics](operating#logs-and-metrics), [who calls](operating#who-calls) |
//! | metrics | [logs and metrics](operating#logs-and-metrics) |
//! | MFA, step-up, acr, amr | [guards](request#guards), [the time of the authentication](request#where-an-identity-comes-from) |
//! | mock | [three modes](modes), [the mock user](modes#the-mock-user) |
//! | multi-tenant | [the page on tenants](tenants), [one issuer per tenant](tenants#one-issuer-per-tenant) |
//! | OAuth 2.0, OpenID Connect, OIDC | [how a token is checked](request), [grants](exchange#grants) |
//! | Okta | [Okta](providers#okta) |
//! | on-behalf-of | [choosing the token](outbound#choosing-the-token), [Entra ID](exchange#microsoft-entra-id) |
//! | OpenAPI, utoipa | [in OpenAPI](request#in-openapi-with-utoipa) |
//! | optional authentication, public route | [public routes](start#public-routes) |
//! | outage, offline | [outages](operating#outages), [when the provider fails](exchange#when-the-provider-fails) |
//! | password | the password grant: [all endpoints](endpoints#all-endpoints), [grants](exchange#grants) |
//! | PKCE | [browser sign-in](endpoints#browser-sign-in) |
//! | post-quantum signature, ML-DSA | [what to check first](operating#post-quantum-tokens), [what it costs](costs#kinds-of-tokens), [`Algorithm`](crate::config::Algorithm) |
//! | PostgreSQL, SQLite, database | [resolvers](tenants#resolvers), [participants](tenants#participants) |
//! | proxy | in front: [endpoints](endpoints#behind-a-proxy), [client addresses](endpoints#rate-limits-and-client-addresses); to the provider: [reaching the provider](operating#reaching-the-provider) |
//! | rate limit, brute force | [rate limits](endpoints#rate-limits-and-client-addresses) |
//! | reason of a refusal | [refusals](deploying#refusals) |
//! | Redis, Valkey | [sharing tokens](exchange#sharing-tokens-between-processes), [sharing revocations](revocation#several-processes) |
//! | refresh token | [renewal](endpoints#sessions), [used once](exchange#refresh-tokens-are-used-once) |
//! | registration, user table | [participants](tenants#participants) |
//! | reqwest | [with reqwest](outbound#with-reqwest); for the requests to the provider: [reaching the provider](operating#reaching-the-provider) |
//! | revocation, revoked | refresh tokens: [sign-out](endpoints#sign-out-logout); opaque tokens: [within 30 s](opaque#how-many-questions-are-asked); JWTs, sessions and users: [revocations](revocation), [its threats](threats#revocation) |
//! | role, permission | [guards](request#guards), [roles and groups](request#where-an-identity-comes-from) |
//! | scope | [guards](request#guards) |
//! | secret | [secrets in files](operating#secrets-in-files), [in Kubernetes](deploying#secrets) |
//! | security event, CAEP, RISC, Shared Signals | [reports of the provider](revocation#reports-of-the-provider) |
//! | service account, machine | [kinds of identities](request#where-an-identity-comes-from) |
//! | session | [in cookies](endpoints#sessions), [on the server](sessions); idle limit: [when a session ends](sessions#when-a-session-ends) |
//! | several providers, second issuer | [several providers](operating#several-providers) |
//! | SIGHUP, reload | [secrets](deploying#secrets), [secrets in files](operating#secrets-in-files) |
//! | sign-out everywhere | [ending sessions](sessions#ending-sessions) |
//! | SPIFFE, SPIRE, JWT-SVID | to authenticate this service: [`WorkloadToken::spiffe`](crate::issuer::WorkloadToken::spiffe); of callers: [the trust policy](crate::trust#jwt-svids) |
//! | streams, server-sent events, EventSource, WebSocket | [web sockets and event streams](request#web-sockets-and-event-streams) |
//! | sub-path, prefix | [behind a proxy](endpoints#behind-a-proxy) |
//! | Supabase | [Supabase](providers#supabase) |
//! | Terraform, pipeline | [the trust policy from a pipeline](trust#from-a-pipeline) |
//! | test, forged token | [testing your service](testing) |
//! | token exchange, RFC 8693 | [exchange](exchange#grants), [outbound](outbound#choosing-the-token) |
//! | tower, order of layers | [a layer in a stack](request#in-a-stack-of-layers), [the order of layers](request#the-order-of-layers) |
//! | trust policy | [workloads and their trust policy](trust), [its language](crate::trust), [its threats](threats#administration-of-trust-feature-trust) |
//! | version, semver | [version policy](contributing#version-policy) |
//! | workload identity, GitHub, GitLab, AWS, GCP | [workloads](trust), [the trust policy](crate::trust) |
//! | ZITADEL | [ZITADEL](providers#zitadel) |

#[doc = include_str!("start.md")]
pub mod start {}

#[doc = include_str!("modes.md")]
pub mod modes {}

#[doc = include_str!("request.md")]
pub mod request {}

#[doc = include_str!("opaque.md")]
pub mod opaque {}

#[doc = include_str!("revocation.md")]
pub mod revocation {}

#[doc = include_str!("providers.md")]
pub mod providers {}

#[doc = include_str!("tenants.md")]
pub mod tenants {}

#[doc = include_str!("endpoints.md")]
pub mod endpoints {}

#[doc = include_str!("sessions.md")]
pub mod sessions {}

#[doc = include_str!("trust.md")]
pub mod trust {}

#[doc = include_str!("exchange.md")]
pub mod exchange {}

#[doc = include_str!("outbound.md")]
pub mod outbound {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("deploying.md")]
pub mod deploying {}

#[doc = include_str!("threats.md")]
pub mod threats {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("migrating.md")]
pub mod migrating {}

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("contributing.md")]
pub mod contributing {}

#[doc = include_str!("decisions.md")]
pub mod decisions {}
