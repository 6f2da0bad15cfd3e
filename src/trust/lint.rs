//! The linter: what reads well and would still trust more than it seems to is refused at load.

use super::fault::Faults;
use super::glob::Pattern;
use super::overlap::Identities;
use super::parse::is_label;
use super::policy::{Jwks, Trust};
use super::rule::{Condition, Constant, Grant, Part, names};
use super::time::Period;
use super::tree::{Node, Value};
use crate::config::{AuthConfig, JwksSettings};
use crate::identity::ClaimPath;
use crate::issuer::inspect_keys;

/// A token that lives longer is a password.
const LONGEST: Period = Period::seconds(7 * 24 * 3600);

/// Issuers whose one name and key set serve everybody's workloads, and the claims that say whose
/// a token is and are never given to somebody else. Names can be: repositories are renamed,
/// organisations deleted and registered anew.
const SHARED: &[(&str, &[&str])] = &[
    ("https://token.actions.githubusercontent.com", &["repository_id", "repository_owner_id"]),
    ("https://gitlab.com", &["project_id", "namespace_id"]),
    ("https://accounts.google.com", &[]),
    ("https://oidc.circleci.com", &["oidc.circleci.com/project-id"]),
    ("https://app.terraform.io", &["terraform_workspace_id", "terraform_organization_id"]),
    ("https://agent.buildkite.com", &["pipeline_id", "organization_id"]),
];

/// What platforms call themselves in `aud`: tokens meant for the platform are not meant for us.
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

/// How audiences begin that a platform fills in when the workload asks for none.
const PLATFORM_AUDIENCE_STARTS: &[&str] =
    &["https://github.com/", "//iam.googleapis.com/", "https://iam.googleapis.com/"];

/// Claims that every token is judged by before a rule sees it.
const JUDGED: &[&str] = &["iss", "aud", "exp", "nbf", "iat", "jti"];

pub(super) fn check(trusts: &[Trust], faults: &Faults, warnings: &Faults) {
    for (nth, trust) in trusts.iter().enumerate() {
        let earlier = trusts.get(..nth).unwrap_or_default();
        let lint = Lint { trust, faults };
        lint.identifier(earlier);
        lint.issuer();
        lint.audiences();
        lint.times();
        lint.keys();
        lint.told_apart(earlier);
        for (nth, grant) in trust.grants.iter().enumerate() {
            let lint = RuleLint { trust, grant, faults };
            lint.name(trust.grants.get(..nth).unwrap_or_default());
            lint.somebody_in_particular();
            lint.verified_email();
            lint.judged_elsewhere();
            lint.request_tags();
            lint.identity();
            RuleLint { faults: warnings, ..lint }.client_id_alone();
        }
    }
    told_apart(trusts, faults);
}

/// Refuses rules that could make one identity of two workloads. Two that take the same claims of one
/// trust's tokens make the same of one workload; and what is written out twice is meant.
fn told_apart(trusts: &[Trust], faults: &Faults) {
    let rules: Vec<_> = trusts
        .iter()
        .flat_map(|trust| trust.grants.iter().map(move |grant| (trust, grant)))
        .filter(|(_, grant)| grant.is_whole && grant.map.identity.keeps_apart())
        .map(|(trust, grant)| (trust, grant, Identities::of(trust, grant)))
        .collect();
    for (nth, (trust, grant, these)) in rules.iter().enumerate() {
        let could_be = |(other_trust, other, those): &&(&Trust, &Grant, Identities)| {
            let is_same = trust.id == other_trust.id && grant.map.identity == other.map.identity;
            !is_same && (these.is_open || those.is_open) && these.meet(those)
        };
        if let Some((other_trust, other, _)) = rules.iter().take(nth).find(could_be) {
            let lint = RuleLint { trust, grant, faults };
            lint.fault("map.identity", format!("could be what rule `{}` of trust `{}` makes of another workload: put a word of its own behind {{trust}}, such as \"sa:{{trust}}:{}:…\"", other.name.escape_debug(), other_trust.id.escape_debug(), grant.name.escape_debug()));
        }
    }
}

/// Texts that still have a gap to be filled in.
pub(super) fn placeholders(tree: &Node) -> Faults {
    let gaps = Faults::default();
    tree.each(&mut |node| {
        if let Value::Text(text) = &node.value
            && let Some(gap) = gap(text)
        {
            let problem = format!("still has the placeholder <{gap}>: put your own value there");
            gaps.note(node.line, "the text", problem);
        }
    });
    gaps
}

fn gap(text: &str) -> Option<&str> {
    let (gap, _) = text.split_once('<')?.1.split_once('>')?;
    Some(gap).filter(|gap| gap.len() < 80 && !gap.contains('<'))
}

struct Lint<'l> {
    trust: &'l Trust,
    faults: &'l Faults,
}

impl Lint<'_> {
    fn fault(&self, field: &str, problem: impl Into<String>) {
        let place = format!("trust.{}.{field}", self.trust.id.escape_debug());
        self.faults.note(self.trust.lines.of(field), place, problem);
    }

    fn identifier(&self, earlier: &[Trust]) {
        if !is_label(&self.trust.id) {
            self.fault("id", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        if earlier.iter().any(|other| other.id == self.trust.id) {
            self.fault("id", "is the id of an earlier trust: give each its own");
        }
    }

    fn issuer(&self) {
        let issuer = &self.trust.issuer;
        if issuer.contains(['{', '}', '*']) {
            self.fault("issuer", "is a pattern: one trust believes one issuer, letter for letter");
        }
        let common = ["common", "organizations", "consumers"];
        let is_entra = issuer.starts_with("https://login.microsoftonline.com/")
            || issuer.starts_with("https://sts.windows.net/");
        if is_entra && issuer.split('/').any(|segment| common.contains(&segment)) {
            self.fault("issuer", "is the address of all Entra tenants, which is no issuer: name your tenant's, https://login.microsoftonline.com/TENANT-ID/v2.0");
        }
        if self.trust.discovery_url.is_some() && self.trust.jwks.is_some() {
            self.fault("discovery_url", "is not asked when `jwks` is given: remove one of them");
        }
        // Everything that is the same for the issuers of this crate.
        let config = self.trust.issuer_config();
        let Err(error) = AuthConfig::of_issuer(&config, &[]).check() else { return };
        for fault in error.faults() {
            let field = match fault.field.strip_prefix("issuers[0].").unwrap_or(&fault.field) {
                // The audience is looked at more closely elsewhere. A template was refused above,
                // whatever its tenants and its spelling.
                "audience" | "tenants" | "claims.tenant_id" => continue,
                "issuer" if fault.problem.contains("the placeholder is") => continue,
                "jwks_uri" => "jwks",
                "leeway_seconds" => "leeway",
                known @ ("discovery_url" | "algorithms") => known,
                _ => "issuer",
            };
            let variable = ", or the variable …_ALLOW_LOOPBACK_HTTP=true";
            self.fault(field, fault.problem.replace(variable, " = true"));
        }
    }

    fn audiences(&self) {
        let audiences = &self.trust.audiences;
        if audiences.is_empty() {
            self.fault("audiences", "is missing: name what `aud` must say, such as [\"scaivault\"]; a token for somebody else must not work here");
        }
        let own = self.trust.issuer.trim_end_matches('/');
        for audience in audiences {
            let lower = audience.to_ascii_lowercase();
            let lower = lower.trim_end_matches('/');
            let is_platform = PLATFORM_AUDIENCES.contains(&lower)
                || PLATFORM_AUDIENCE_STARTS.iter().any(|start| lower.starts_with(start))
                || lower == own.to_ascii_lowercase();
            if audience.is_empty() || audience.contains('*') {
                let problem =
                    format!("has {audience:?}: an audience is compared letter for letter");
                self.fault("audiences", problem);
            } else if is_platform {
                self.fault("audiences", format!("has {audience:?}, which is the platform's own: its tokens are everywhere; let workloads ask for a token for this service by name"));
            }
        }
    }

    fn times(&self) {
        let periods =
            [("max_lifetime", Some(self.trust.max_lifetime)), ("max_age", self.trust.max_age)];
        for (field, period) in periods {
            if period.is_some_and(|period| period.0.is_zero()) {
                self.fault(field, "is 0: no token could ever be good");
            } else if period.is_some_and(|period| period > LONGEST) {
                self.fault(field, "is above 7d: a token that lives so long is a password");
            }
        }
    }

    fn keys(&self) {
        let Some(Jwks::Inline { inline }) = &self.trust.jwks else { return };
        let max_keys = JwksSettings::default().max_keys;
        if let Err(problem) = inspect_keys(inline, &self.trust.algorithms, max_keys) {
            self.fault("jwks", problem);
        }
    }

    /// A token must lead to one trust: by issuer and audience, or because the caller says which.
    fn told_apart(&self, earlier: &[Trust]) {
        let trust = self.trust;
        let collides = |other: &&Trust| {
            let shares = |audience: &String| other.audiences.contains(audience);
            other.issuer == trust.issuer
                && !(other.named_only || trust.named_only)
                && trust.audiences.iter().any(shares)
        };
        for other in earlier.iter().filter(collides) {
            self.fault("audiences", format!("has an audience of `{}`, which has the same issuer, so that a token could belong to either: give each its own audience, or set `named_only = true` and let callers name the trust", other.id));
        }
    }
}

struct RuleLint<'l> {
    trust: &'l Trust,
    grant: &'l Grant,
    faults: &'l Faults,
}

impl RuleLint<'_> {
    fn fault(&self, field: &str, problem: impl Into<String>) {
        let (trust, grant) = (self.trust.id.escape_debug(), self.grant.name.escape_debug());
        let place = format!("trust.{trust}.grant.{grant}.{field}");
        let field = field.split_once('.').map_or(field, |(field, _)| field);
        self.faults.note(self.grant.lines.of(field), place, problem);
    }

    fn name(&self, earlier: &[Grant]) {
        let grant = self.grant;
        if !is_label(&grant.name) {
            self.fault("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        for other in earlier {
            if other.name == grant.name {
                self.fault("name", "is the name of an earlier rule: give each its own");
            } else if other.subject == grant.subject && other.claims == grant.claims {
                self.fault(
                    "name",
                    format!(
                        "asks the same as `{}`: two rules that match are refused as ambiguous",
                        other.name
                    ),
                );
            }
        }
    }

    fn has_exact_subject(&self) -> bool {
        self.grant.subject.as_ref().is_some_and(Pattern::is_exact)
    }

    /// Whether only tokens with one of a few written-out values in this claim match.
    fn pins(&self, claim: &str) -> bool {
        self.grant.conditions(|on| names(on, claim)).any(Condition::is_exact)
    }

    fn somebody_in_particular(&self) {
        if self.grant.subject.as_ref().is_some_and(|subject| subject.as_str().is_empty()) {
            self.fault("subject", "is empty");
        }
        if !self.grant.is_whole {
            return;
        }
        if self.grant.subject.is_none() && self.grant.claims.is_empty() {
            self.fault("subject", "is missing, and there are no claims either: every token of the issuer would match; say whose tokens are meant");
            return;
        }
        let issuer = self.trust.issuer.trim_end_matches('/');
        let Some((_, ids)) = SHARED.iter().find(|(shared, _)| *shared == issuer) else { return };
        if self.has_exact_subject() || ids.iter().any(|id| self.pins(id)) {
            return;
        }
        let how = match ids {
            [] => "an exact `subject`".to_owned(),
            ids => format!("an exact `subject`, or eq / one_of on `{}`", ids.join("` or `")),
        };
        self.fault("subject", format!("does not say whose workload is meant: this issuer signs for everybody, and names there can change hands; pin it by {how}"));
    }

    fn verified_email(&self) {
        let is_email = |path: &ClaimPath| names(path, "email");
        let used = self.grant.claims.iter().map(|(path, _)| path).any(is_email)
            || self.grant.map.identity.claims().any(is_email);
        let verified = Condition::Eq(Constant::Bool(true));
        let is_verified =
            self.grant.conditions(|on| names(on, "email_verified")).any(|it| *it == verified);
        if used && !is_verified {
            self.fault("claims", "relies on `email`, which anybody may have written: add email_verified = { eq = true }");
        }
    }

    fn judged_elsewhere(&self) {
        let claims = self.grant.claims.iter();
        let firsts: Vec<&str> =
            claims.filter_map(|(path, _)| path.steps().first().map(|step| &**step)).collect();
        for name in firsts.iter().filter(|name| JUDGED.contains(name)) {
            self.fault("claims", format!("has a condition on `{name}`, which is judged by the trust's own fields: remove it"));
        }
        if firsts.contains(&"sub") {
            self.fault("claims", "has a condition on `sub`: use the field `subject`");
        }
    }

    /// Request tags are chosen by whoever asks AWS for the token.
    fn request_tags(&self) {
        let chosen = |(path, _): &(ClaimPath, Condition)| matches!(path.steps(), [platform, kind, ..] if **platform == *"https://sts.amazonaws.com/" && **kind == *"request_tags");
        if self.grant.claims.iter().any(chosen) && !self.has_exact_subject() {
            self.fault("claims", "relies on request tags, which the caller chooses: pin the caller by an exact `subject`");
        }
    }

    /// What a token says may fill a name in, but not begin it, and not reach into other trusts.
    fn identity(&self) {
        let template = &self.grant.map.identity;
        let start = match template.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        };
        if start.find(':').is_none_or(|at| at == 0) {
            let problem = "must begin with the kind of identity, written out: \"sa:…\"";
            self.fault("map.identity", problem);
        }
        if start.starts_with("user:") {
            let problem =
                "makes a workload pass for a person: begin with another kind, such as \"sa:\"";
            self.fault("map.identity", problem);
        }
        if !template.keeps_apart() {
            self.fault("map.identity", format!("could be the same for two workloads: between placeholders, and on both sides of {{trust}}, there must be a `:` or `/`, which no value contains; write {:?}", template.in_segments()));
        } else if template.has_claim_before_trust() {
            self.fault("map.identity", format!("has a claim before {{trust}}, where a workload could write another trust's name: write {:?}", template.in_segments()));
        }
        let is_unfit = |path: &&ClaimPath| {
            self.grant.conditions(|on| on == *path).any(Condition::takes_no_text)
        };
        if let Some(path) = template.claims().find(is_unfit) {
            self.fault("map.identity", format!("is made from `{path}`, which the rule wants to be no text, so that a match would be denied: an identity takes texts alone; write the name out"));
        }
        let is_free = |path: &&ClaimPath| match names(path, "sub") {
            true => !self.has_exact_subject(),
            false => !self.grant.conditions(|on| on == *path).any(Condition::is_exact),
        };
        let names_trust = template.parts.contains(&Part::Trust);
        if let Some(path) = template.claims().find(is_free).filter(|_| !names_trust) {
            self.fault("map.identity", format!("is made from `{path}` without {{trust}}: another trust's workload could get the same name"));
        }
    }

    /// Anybody in an Entra tenant with the client's secret has its id; the object id is the
    /// workload's own.
    fn client_id_alone(&self) {
        let relies = self.pins("appid") || self.pins("azp");
        if relies && !self.has_exact_subject() && !self.pins("oid") {
            self.fault(
                "claims",
                "relies on a client id alone: pin the object id, oid = { eq = … }",
            );
        }
    }
}
