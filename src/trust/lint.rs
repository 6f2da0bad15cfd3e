//! The linter: rejects well-formed policies that would trust more than they appear to.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::delegation::{self, Delegation};
use super::fault::{Faults, shorten};
use super::overlap::Collisions;
use super::pattern::Pattern;
use super::policy::{Authority, Jwks, SVID_ALGORITHMS, Trust};
use super::reader::{self, is_label};
use super::rule::{Condition, Constant, Grant, MAX_IDENTITY_BYTES, Part, is_top_level};
use super::time::Period;
use super::tree::Node;
use crate::config::{AuthConfig, JwksSettings, KeySetForm, MESH_REMEDY, OTHER_PLACEHOLDER};
use crate::identity::{ClaimPath, spiffe_id};
use crate::issuer::inspect_keys;

/// The limit of `max_lifetime` and `max_age`. A token that lives longer is in effect a password.
const MAX_PERIOD: Period = Period::seconds(7 * 24 * 3600);

/// Issuers that all customers of a platform share, with the claims that identify a customer and are
/// never reassigned. Names can be reassigned: a repository can be renamed, and the name of a
/// deleted organisation can be registered again.
const SHARED_ISSUERS: &[(&str, &[&str])] = &[
    ("https://token.actions.githubusercontent.com", &["repository_id", "repository_owner_id"]),
    ("https://gitlab.com", &["project_id", "namespace_id"]),
    ("https://accounts.google.com", &[]),
    ("https://oidc.circleci.com", &["oidc.circleci.com/project-id"]),
    ("https://app.terraform.io", &["terraform_workspace_id", "terraform_organization_id"]),
    ("https://agent.buildkite.com", &["pipeline_id", "organization_id"]),
];

/// Audiences of the platforms themselves. Tokens with these audiences are not meant for this
/// service.
const PLATFORM_AUDIENCES: &[&str] = &[
    "sts.amazonaws.com",
    "https://sts.amazonaws.com",
    "pods.eks.amazonaws.com",
    "api://azureadtokenexchange",
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
    "https://management.azure.com",
    "https://vault.azure.net",
    "https://sts.googleapis.com",
];

/// Audiences of platforms whose workloads cannot choose another one. `insecure_shared_audience` accepts
/// them: Azure DevOps
/// (<https://learn.microsoft.com/azure/devops/pipelines/release/configure-workload-identity>) and the
/// workload identities of AKS
/// (<https://learn.microsoft.com/azure/aks/workload-identity-overview>).
const FIXED_AUDIENCES: &[&str] = &["api://azureadtokenexchange"];

/// Prefixes of the audiences that a platform sets if the workload requests none.
const PLATFORM_AUDIENCE_PREFIXES: &[&str] =
    &["https://github.com/", "//iam.googleapis.com/", "https://iam.googleapis.com/"];

/// Claims that the trust's own fields already check.
const CHECKED_CLAIMS: &[&str] = &["iss", "aud", "exp", "nbf", "iat", "jti"];

pub(super) fn check(trusts: &[Trust], faults: &Faults, warnings: &Faults) {
    let mut earlier = EarlierTrusts::default();
    let svids = svid_trusts(trusts);
    for trust in trusts {
        let lint = TrustLint { trust, faults };
        lint.check_id(&mut earlier);
        match &trust.authority {
            Authority::Issuer(issuer) => {
                lint.check_issuer(issuer);
                lint.check_unique_match(issuer, &mut earlier);
            }
            Authority::TrustDomain(_) => lint.check_trust_domain(&mut earlier),
        }
        lint.check_shared_settings();
        lint.check_audiences();
        TrustLint { trust, faults: warnings }.warn_of_shared_audience();
        lint.check_times();
        lint.check_keys();
        lint.check_svids_of_an_issuer(&svids);
        let mut earlier = EarlierRules::default();
        for grant in &trust.grants {
            let lint = GrantLint { trust, grant, table: "grant", faults };
            lint.check_name(&mut earlier);
            lint.check_specific_workload();
            lint.check_spiffe_id();
            lint.check_shared_audience();
            lint.check_email();
            lint.check_claim_names();
            lint.check_request_tags();
            lint.check_identity();
            GrantLint { faults: warnings, ..lint }.check_client_id();
        }
        for rule in trust.delegations.iter().filter_map(Delegation::as_rule) {
            let lint = GrantLint { trust, grant: &rule, table: "delegation", faults };
            lint.check_specific_workload();
            lint.check_spiffe_id();
            lint.check_claim_names();
        }
    }
    check_distinct_identities(trusts, faults);
    delegation::check(trusts, faults);
}

/// The trusts that were checked already, by everything in which a later one must differ. To compare each
/// of 10,000 trusts with each other one would take minutes.
#[derive(Default)]
struct EarlierTrusts<'p> {
    ids: HashSet<&'p str>,
    trust_domains: HashMap<&'p str, &'p Trust>,
    /// By issuer and audience, if callers need not name the trust.
    issuers: HashMap<(&'p str, &'p str), &'p Trust>,
}

/// The rules of a trust that were checked already.
#[derive(Default)]
struct EarlierRules<'p> {
    /// By tenant, so that a tenant's administrators learn nothing about the rules of others.
    names: HashSet<(&'p str, &'p str)>,
    conditions: HashMap<Conditions<'p>, &'p Grant>,
}

/// The subject and the claims of a rule.
type Conditions<'p> = (Option<&'p Pattern>, &'p [(ClaimPath, Condition)]);

/// Returns the trusts for JWT-SVIDs that callers need not name, by trust domain and audience.
fn svid_trusts(trusts: &[Trust]) -> HashMap<(&str, &str), &Trust> {
    let is_found = |trust: &&Trust| trust.authority.is_trust_domain() && !trust.named_only;
    let mut found = HashMap::new();
    for trust in trusts.iter().filter(is_found) {
        for audience in &trust.audiences {
            found.entry((trust.authority.name(), audience.as_str())).or_insert(trust);
        }
    }
    found
}

/// Rejects two rules that could give the same identity to two workloads.
fn check_distinct_identities(trusts: &[Trust], faults: &Faults) {
    let collisions = Collisions::of(trusts);
    for ((trust, grant), (other_trust, other)) in collisions.iter() {
        let lint = GrantLint { trust, grant, table: "grant", faults };
        lint.fault("map.identity", format!("could be the identity of another workload by rule `{}` of trust `{}`: add a distinct segment after {{trust}}, such as \"sa:{{trust}}:{}:…\"", shorten(&other.name).escape_debug(), shorten(&other_trust.id).escape_debug(), shorten(&grant.name).escape_debug()));
    }
    if let Some((trust, grant)) = collisions.too_many {
        let lint = GrantLint { trust, grant, table: "grant", faults };
        lint.fault("map.identity", "is too similar to those of too many other rules to compare it with all: begin the identities of these rules with different literal segments, such as \"sa:{trust}:NAME:…\"");
    }
}

/// Reports the placeholders of a preset that were not replaced.
pub(super) fn placeholders(tree: &Node) -> Faults {
    let faults = Faults::default();
    reader::each_text(tree, &mut |at, text, field| {
        if let Some(name) = placeholder(text) {
            let problem = format!("still has the placeholder <{name}>: replace it with your value");
            faults.report(at, field(), problem);
        }
    });
    faults
}

fn placeholder(text: &str) -> Option<&str> {
    let (name, _) = text.split_once('<')?.1.split_once('>')?;
    Some(name).filter(|name| name.len() < 80 && !name.contains('<'))
}

fn is_fixed(audience: &str) -> bool {
    let lower = audience.to_ascii_lowercase();
    FIXED_AUDIENCES.contains(&lower.trim_end_matches('/'))
}

/// Returns the trust domain of a SPIFFE ID, or of a pattern for SPIFFE IDs of one trust domain.
fn trust_domain_of(pattern: &str) -> Option<&str> {
    let domain = spiffe_id::trust_domain(&pattern.replace('*', "x"))?.len();
    pattern.get(..domain).filter(|domain| !domain.contains('*'))
}

struct TrustLint<'l> {
    trust: &'l Trust,
    faults: &'l Faults,
}

impl<'l> TrustLint<'l> {
    fn fault(&self, field: &str, problem: impl Into<String>) {
        let place = format!("trust.{}.{field}", shorten(&self.trust.id).escape_debug());
        self.faults.report(self.trust.positions.of(field), place, problem);
    }

    fn check_id(&self, earlier: &mut EarlierTrusts<'l>) {
        if !is_label(&self.trust.id) {
            self.fault("id", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        if !earlier.ids.insert(&self.trust.id) {
            self.fault("id", "is the id of an earlier trust: give each trust a different id");
        }
    }

    fn check_issuer(&self, issuer: &str) {
        if issuer.contains(['{', '}', '*']) {
            self.fault("issuer", "is a pattern: give one exact issuer for each trust");
        }
        let common = ["common", "organizations", "consumers"];
        let is_entra = issuer.starts_with("https://login.microsoftonline.com/")
            || issuer.starts_with("https://sts.windows.net/");
        if is_entra && issuer.split('/').any(|segment| common.contains(&segment)) {
            self.fault("issuer", "is the address of all Entra tenants, not an issuer: give your tenant's, https://login.microsoftonline.com/TENANT-ID/v2.0");
        }
        if self.trust.discovery_url.is_some() && self.trust.jwks.is_some() {
            self.fault("discovery_url", "is not used if `jwks` is given: remove one of them");
        }
        if self.trust.bundle.is_some() {
            self.fault("bundle", "is only for a `trust_domain`: give `jwks` for an issuer");
        }
    }

    /// Checks a trust for JWT-SVIDs.
    fn check_trust_domain(&self, earlier: &mut EarlierTrusts<'l>) {
        let trust = self.trust;
        let other = *earlier.trust_domains.entry(trust.authority.name()).or_insert(trust);
        if !std::ptr::eq(other, trust) {
            self.fault("trust_domain", format!("is the trust domain of trust `{}`: give a trust domain one trust, with all its audiences and rules", shorten(&other.id).escape_debug()));
        }
        match (&trust.bundle, &trust.jwks) {
            (Some(_), Some(_)) => self.fault("jwks", "is given together with `bundle`: remove one; `jwks` is for a plain key set, without `jwt-svid` keys"),
            (None, None) if !trust.positions.has("bundle") && !trust.positions.has("jwks") => self.fault("bundle", "is missing: give { url = … } or { file = … } of the SPIFFE bundle, or `jwks` if the keys are a plain key set"),
            _ => {}
        }
        if trust.discovery_url.is_some() {
            self.fault("discovery_url", "has no effect with `trust_domain`: remove it");
        }
        let other = trust.algorithms.iter().find(|it| !SVID_ALGORITHMS.contains(it));
        if let Some(other) = other {
            self.fault("algorithms", format!("has {other}, which a JWT-SVID cannot have: choose among RS256, ES256 and PS256, or these with 384 or 512"));
        }
    }

    /// Rejects an issuer with a rule for the JWT-SVIDs of a trust domain that has a trust of its own, because
    /// both would match the same token.
    fn check_svids_of_an_issuer(&self, svids: &HashMap<(&str, &str), &Trust>) {
        let trust = self.trust;
        if trust.authority.is_trust_domain() || trust.named_only {
            return;
        }
        let rules = trust.grants.iter().map(|grant| (grant, "grant"));
        let delegated: Vec<_> = trust.delegations.iter().filter_map(Delegation::as_rule).collect();
        let delegated = delegated.iter().map(|rule| (rule, "delegation"));
        for (grant, table) in rules.chain(delegated) {
            let subject = grant.subject.as_ref().map(|subject| subject.as_str());
            let Some(trust_domain) = subject.and_then(trust_domain_of) else { continue };
            let mut audiences = trust.audiences.iter();
            if let Some(other) =
                audiences.find_map(|audience| svids.get(&(trust_domain, audience.as_str())))
            {
                let lint = GrantLint { trust, grant, table, faults: self.faults };
                lint.fault("subject", format!("is of the trust domain of trust `{}`, so a token could match both trusts: move the rule there, or set `named_only = true` in one of them", shorten(&other.id).escape_debug()));
            }
        }
    }

    /// Applies the checks that trusts share with the issuers of `AuthConfig`.
    fn check_shared_settings(&self) {
        let config = self.trust.issuer_config();
        let Err(error) = AuthConfig::of_issuer(&config, &[]).check() else { return };
        for fault in error.faults() {
            let field = match fault.field.strip_prefix("issuers[0].").unwrap_or(&fault.field) {
                // `check_audiences` is stricter. Issuer patterns were rejected above.
                "audience" | "tenants" | "claims.tenant_id" => continue,
                "issuer" if fault.problem == OTHER_PLACEHOLDER => continue,
                "jwks_uri" if self.trust.bundle.is_some() => "bundle",
                "jwks_uri" => "jwks",
                "leeway_seconds" => "leeway",
                known @ ("discovery_url" | "algorithms") => known,
                _ => "issuer",
            };
            // A policy has no such setting. The variable in parentheses was removed already.
            let remedy = MESH_REMEDY.split(" (`").next().unwrap_or_default();
            self.fault(field, fault.problem.replace(remedy, ""));
        }
    }

    fn check_audiences(&self) {
        let audiences = &self.trust.audiences;
        if audiences.is_empty() {
            self.fault("audiences", "is missing: give the accepted values of `aud`, such as [\"scaivault\"], so that tokens for other services are denied");
        }
        if self.trust.insecure_shared_audience && !self.has_fixed_audience() {
            self.fault(
                "insecure_shared_audience",
                "has no effect: remove it, because no audience needs it",
            );
        }
        let own = self.trust.authority.name().trim_end_matches('/');
        for audience in audiences {
            let lower = audience.to_ascii_lowercase();
            let lower = lower.trim_end_matches('/');
            let shown = shorten(audience);
            let is_platform = PLATFORM_AUDIENCES.contains(&lower)
                || PLATFORM_AUDIENCE_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
                || lower == own.to_ascii_lowercase();
            if audience.is_empty() || audience.contains('*') {
                self.fault("audiences", format!("has {shown:?}: give exact audiences"));
            } else if is_fixed(audience) {
                if !self.trust.insecure_shared_audience {
                    self.fault("audiences", format!("has {shown:?}, the audience of Entra ID, so other services receive the same tokens: let workloads request tokens with an audience of this service; if the platform offers no other, set `insecure_shared_audience = true`"));
                }
            } else if is_platform {
                self.fault("audiences", format!("has {shown:?}, an audience of the platform itself, so other services receive the same tokens: let workloads request tokens with an audience of this service"));
            }
        }
    }

    fn has_fixed_audience(&self) -> bool {
        self.trust.audiences.iter().any(|audience| is_fixed(audience))
    }

    fn warn_of_shared_audience(&self) {
        if self.trust.insecure_shared_audience && self.has_fixed_audience() {
            self.fault("insecure_shared_audience", "accepts tokens that workloads also send to other services: each of these services could use them here");
        }
    }

    fn check_times(&self) {
        let periods =
            [("max_lifetime", Some(self.trust.max_lifetime)), ("max_age", self.trust.max_age)];
        for (field, period) in periods {
            if period.is_some_and(|period| period.0.is_zero()) {
                self.fault(
                    field,
                    "is 0, so no token could be valid: give a longer period, such as 1h",
                );
            } else if period.is_some_and(|period| period > MAX_PERIOD) {
                self.fault(field, "is above the limit of 7d: give a shorter period");
            }
        }
    }

    fn check_keys(&self) {
        let keys = [
            ("jwks", KeySetForm::Jwks, &self.trust.jwks),
            ("bundle", KeySetForm::SpiffeBundle, &self.trust.bundle),
        ];
        let max_keys = JwksSettings::default().max_keys;
        for (field, form, keys) in keys {
            let Some(Jwks::Inline { inline }) = keys else { continue };
            if let Err(problem) = inspect_keys(inline, form, &self.trust.algorithms, max_keys) {
                self.fault(field, problem);
            }
        }
    }

    /// Rejects trusts that match the same token, unless the caller must name one of them.
    fn check_unique_match(&self, issuer: &'l str, earlier: &mut EarlierTrusts<'l>) {
        let trust = self.trust;
        let audiences = trust.audiences.iter().filter(|_| !trust.named_only);
        for audience in audiences {
            match earlier.issuers.entry((issuer, audience)) {
                Entry::Vacant(entry) => {
                    entry.insert(trust);
                }
                Entry::Occupied(entry) if std::ptr::eq(*entry.get(), trust) => {}
                Entry::Occupied(entry) => self.fault("audiences", format!("has an audience of trust `{}`, which has the same issuer, so a token could match both: give each trust a different audience, or set `named_only = true` and let callers name the trust", shorten(&entry.get().id).escape_debug())),
            }
        }
    }
}

struct GrantLint<'l> {
    trust: &'l Trust,
    grant: &'l Grant,
    /// The table of the rule in the policy.
    table: &'static str,
    faults: &'l Faults,
}

impl<'l> GrantLint<'l> {
    fn fault(&self, field: &str, problem: impl Into<String>) {
        let (trust, grant) = (shorten(&self.trust.id), shorten(&self.grant.name));
        let (trust, grant) = (trust.escape_debug(), grant.escape_debug());
        let place = format!("trust.{trust}.{}.{grant}.{field}", self.table);
        self.faults.report(self.grant.position_of(field), place, problem);
    }

    fn check_name(&self, earlier: &mut EarlierRules<'l>) {
        let grant = self.grant;
        if !is_label(&grant.name) {
            self.fault("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        let is_new = earlier.names.insert((grant.map.tenant.as_str(), &grant.name));
        let conditions = (grant.subject.as_ref(), &*grant.claims);
        // What a faulty rule lacks may be what it differs in.
        let is_comparable = grant.is_complete && conditions != (None, &[]);
        let same = match is_comparable {
            true => *earlier.conditions.entry(conditions).or_insert(grant),
            false => grant,
        };
        if !is_new {
            let problem = "is the name of an earlier rule: give each rule a different name";
            self.fault("name", problem);
        } else if !std::ptr::eq(same, grant) {
            self.fault("name", format!("has the same conditions as `{}`, so both would match and be ambiguous: remove one", shorten(&same.name).escape_debug()));
        }
    }

    fn has_exact_subject(&self) -> bool {
        self.grant.subject.as_ref().is_some_and(Pattern::is_exact)
    }

    /// Returns whether the rule lists the accepted values of this claim.
    fn lists_values_of(&self, claim: &str) -> bool {
        self.grant.conditions(|path| is_top_level(path, claim)).any(Condition::lists_values)
    }

    fn check_specific_workload(&self) {
        if self.grant.subject.as_ref().is_some_and(|subject| subject.as_str().is_empty()) {
            self.fault("subject", "is empty: give the value of `sub`, or remove the field");
        }
        if !self.grant.is_complete {
            return;
        }
        if self.grant.subject.is_none() && self.grant.claims.is_empty() {
            self.fault("subject", "is missing, and so are `claims`, so every token of the issuer would match: give one of them");
            return;
        }
        let issuer = self.trust.authority.name().trim_end_matches('/');
        let Some((_, ids)) = SHARED_ISSUERS.iter().find(|(shared, _)| *shared == issuer) else {
            return;
        };
        if self.has_exact_subject() || ids.iter().any(|id| self.lists_values_of(id)) {
            return;
        }
        let remedy = match ids {
            [] => "an exact `subject`".to_owned(),
            ids => format!("an exact `subject`, or eq / one_of on `{}`", ids.join("` or `")),
        };
        self.fault("subject", format!("does not identify the owner of the workload: all customers share this issuer, and names can be reassigned; give {remedy}"));
    }

    /// Rejects a rule for JWT-SVIDs whose subject no token of the trust domain can have.
    fn check_spiffe_id(&self) {
        let Some(subject) = &self.grant.subject else { return };
        let Authority::TrustDomain(expected) = &self.trust.authority else { return };
        if !subject.as_str().is_empty() && trust_domain_of(subject.as_str()) != Some(expected) {
            self.fault("subject", format!("is no SPIFFE ID of the trust domain, so no token could match: write \"{expected}/…\", without a `/` at the end, and with `*` for a whole segment"));
        }
    }

    /// Requires more of a rule whose tokens are also for other services: the audience does not separate
    /// the workloads of this service from others, so the subject must.
    fn check_shared_audience(&self) {
        if !self.trust.insecure_shared_audience || !self.grant.is_complete {
            return;
        }
        if !self.has_exact_subject() {
            self.fault(
                "subject",
                "must be exact with `insecure_shared_audience`: give the full value of `sub`",
            );
        }
        let issuer = self.trust.authority.name().trim_end_matches('/');
        let shared = SHARED_ISSUERS.iter().find(|(shared, _)| *shared == issuer);
        if let Some((_, ids)) = shared
            && !ids.iter().any(|id| self.lists_values_of(id))
        {
            self.fault("claims", "must pin the organisation with `insecure_shared_audience`, because all customers share this issuer: give eq / one_of on one of its ids");
        }
    }

    fn check_email(&self) {
        let is_email = |path: &ClaimPath| is_top_level(path, "email");
        let used = self.grant.claims.iter().map(|(path, _)| path).any(is_email)
            || self.grant.map.identity.claims().any(is_email);
        let required = Condition::Eq(Constant::Bool(true));
        let is_verified = self
            .grant
            .conditions(|path| is_top_level(path, "email_verified"))
            .any(|condition| *condition == required);
        if used && !is_verified {
            self.fault(
                "claims",
                "relies on `email`, which may be unverified: add email_verified = { eq = true }",
            );
        }
    }

    fn check_claim_names(&self) {
        let claims = self.grant.claims.iter();
        let names: Vec<&str> =
            claims.filter_map(|(path, _)| path.steps().first().map(|step| &**step)).collect();
        for name in names.iter().filter(|name| CHECKED_CLAIMS.contains(name)) {
            self.fault(
                "claims",
                format!(
                    "has a condition on `{name}`, which the trust's own fields check: remove it"
                ),
            );
        }
        if names.contains(&"sub") {
            self.fault("claims", "has a condition on `sub`: use the field `subject`");
        }
    }

    /// Rejects a rule that relies only on AWS request tags, because the workload itself chooses
    /// them when it requests a token.
    fn check_request_tags(&self) {
        let is_tag = |(path, _): &(ClaimPath, Condition)| matches!(path.steps(), [platform, kind, ..] if **platform == *"https://sts.amazonaws.com/" && **kind == *"request_tags");
        if self.grant.claims.iter().any(is_tag) && !self.has_exact_subject() {
            self.fault(
                "claims",
                "relies on request tags, which the caller chooses: add an exact `subject`",
            );
        }
    }

    /// Rejects identities that begin with a claim, or that another trust could also give.
    fn check_identity(&self) {
        let template = &self.grant.map.identity;
        let start = match template.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        };
        if start.find(':').is_none_or(|at| at == 0) {
            let problem = "must begin with literal text and a `:`, such as \"sa:…\"";
            self.fault("map.identity", problem);
        }
        let parts = template.parts.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Trust => self.trust.id.len(),
            Part::Claim(_) => 1,
        });
        if parts.sum::<usize>() > MAX_IDENTITY_BYTES {
            let problem = format!(
                "is longer than {MAX_IDENTITY_BYTES} bytes, so no token could get it: write a shorter one"
            );
            self.fault("map.identity", problem);
        }
        if start.starts_with("user:") {
            let problem =
                "gives a workload the identity of a user: begin with another kind, such as \"sa:\"";
            self.fault("map.identity", problem);
        }
        if !template.is_unambiguous() {
            self.fault("map.identity", format!("could be the same for two workloads: put a `:` or `/` between placeholders and on both sides of {{trust}}; write {:?}", template.suggestion()));
        } else if template.has_claim_before_trust() {
            self.fault("map.identity", format!("has a claim before {{trust}}, which could contain another trust's name: write {:?}", template.suggestion()));
        }
        let is_non_string = |path: &&ClaimPath| {
            self.grant.conditions(|on| on == *path).any(Condition::accepts_non_string)
        };
        if let Some(path) = template.claims().find(is_non_string) {
            self.fault("map.identity", format!("uses `{path}`, but the rule accepts values of it that are not strings, and those tokens would be denied: require a string, or write a literal name"));
        }
        let is_open = |path: &&ClaimPath| match is_top_level(path, "sub") {
            true => !self.has_exact_subject(),
            false => !self.grant.conditions(|on| on == *path).any(Condition::lists_values),
        };
        let names_trust = template.parts.contains(&Part::Trust);
        if let Some(path) = template.claims().find(is_open).filter(|_| !names_trust) {
            self.fault("map.identity", format!("uses `{path}` without {{trust}}, so a workload of another trust could get the same identity: add {{trust}}, such as \"sa:{{trust}}:…\""));
        }
    }

    /// Warns about a rule that relies on a client id alone. Everyone who has the client's secret
    /// can get a token with that id; an object id belongs to one workload.
    fn check_client_id(&self) {
        let relies = self.lists_values_of("appid") || self.lists_values_of("azp");
        if relies && !self.has_exact_subject() && !self.lists_values_of("oid") {
            self.fault(
                "claims",
                "relies on a client id alone: add the object id, oid = { eq = … }",
            );
        }
    }
}
