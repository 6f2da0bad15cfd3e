//! [`Delegation`]: lets the administrators of a tenant write rules in a trust, and its checks.
//!
//! The checks make every rule within a delegation harmless for other tenants: it matches no token of their rules,
//! and gives no identity of theirs. A refused rule therefore tells nothing about the rules of other tenants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::fault::{Faults, shorten};
use super::pattern::Pattern;
use super::policy::Trust;
use super::requirements::Requirements;
use super::rule::{
    Condition, Constant, Grant, Mapping, Part, RequiredText, Template, as_table, encoded,
};
use super::tree::Positions;
use crate::identity::{ClaimPath, Scopes, TenantId};

/// Lets the administrators of a tenant write rules that have these conditions, equal or narrower, and grant only
/// these scopes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Delegation {
    pub(super) tenant: TenantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<Pattern>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_table")]
    pub(super) claims: Vec<(ClaimPath, Condition)>,
    pub(super) scopes: Scopes,
    #[serde(skip)]
    pub(super) positions: Positions,
    /// Whether all conditions could be read.
    #[serde(skip)]
    pub(super) is_complete: bool,
}

impl Delegation {
    fn requirements(&self) -> Requirements<'_> {
        Requirements { subject: self.subject.as_ref(), claims: &self.claims }
    }

    /// Returns a rule with the same conditions, for the checks that both have.
    pub(super) fn as_rule(&self) -> Option<Grant> {
        let identity = Template::parse("sa:delegated").ok()?;
        Some(Grant {
            name: self.tenant.to_string(),
            subject: self.subject.clone(),
            claims: self.claims.clone(),
            map: Mapping {
                identity,
                tenant: self.tenant.clone(),
                scopes: self.scopes.clone(),
                positions: self.positions.clone(),
            },
            positions: self.positions.clone(),
            is_complete: self.is_complete,
        })
    }

    /// Checks that a rule is within the delegation. The error is the field and its problem.
    pub(super) fn check(&self, trust: &Trust, rule: &Grant) -> Result<(), (&'static str, String)> {
        let requirements = rule.requirements();
        if let Some(subject) = &self.subject
            && !requirements.imply(&Requirements { subject: Some(subject), claims: &[] })
        {
            return Err(("subject", format!("must be {:?} or narrower", subject.as_str())));
        }
        for claim in &self.claims {
            let claims = std::slice::from_ref(claim);
            if !requirements.imply(&Requirements { subject: None, claims }) {
                let (path, condition) = claim;
                let problem =
                    format!("must have a condition on `{path}`: {condition}, or narrower");
                return Err(("claims", problem));
            }
        }
        // A subject of a trust domain could also match a trust of that trust domain.
        let is_spiffe_id = |subject: &Pattern| subject.as_str().starts_with("spiffe:");
        if self.subject.is_none()
            && !trust.authority.is_trust_domain()
            && rule.subject.as_ref().is_some_and(is_spiffe_id)
        {
            return Err((
                "subject",
                "is a SPIFFE ID, but the delegation has no `subject`".to_owned(),
            ));
        }
        if !self.scopes.contains_all(&rule.map.scopes) {
            return Err(("map.scopes", format!("may only be among \"{}\"", self.scopes)));
        }
        Ok(())
    }
}

/// Returns the segment that separates the identities of a tenant's delegated rules from all others.
fn namespace(tenant: &TenantId) -> String {
    encoded(tenant.as_str(), false)
}

/// Returns whether all identities of a template are in the namespace of a tenant: a kind, the tenant, and more.
pub(super) fn is_in_namespace(template: &Template, tenant: &TenantId) -> bool {
    let Some(Part::Text(start)) = template.parts.first() else { return false };
    let mut segments = start.splitn(3, ':');
    segments.next().is_some_and(|kind| !kind.is_empty() && !kind.contains('/'))
        && segments.next() == Some(&*namespace(tenant))
        && segments.next().is_some()
}

/// Returns an identity that a delegated rule may give, to suggest in an error, and its required beginning.
pub(super) fn suggested_identity(tenant: &TenantId) -> (String, String) {
    let start = format!("sa:{}:", namespace(tenant));
    (format!("{start}{{trust}}:{{sub}}"), start)
}

/// Rejects delegations that could let a tenant's administrators match tokens of another tenant's rules, and rules
/// that could give an identity of another tenant's delegated rules.
pub(super) fn check(trusts: &[Trust], faults: &Faults) {
    for trust in trusts.iter().filter(|trust| !trust.delegations.is_empty()) {
        check_disjoint(trust, faults);
    }
    check_namespaces(trusts, faults);
}

/// A rule or a delegation of a trust.
struct Entry<'t> {
    tenant: &'t TenantId,
    requirements: Requirements<'t>,
    rule: Option<&'t Grant>,
}

fn check_disjoint(trust: &Trust, faults: &Faults) {
    let rules = trust.grants.iter().filter(|grant| grant.is_complete).map(|grant| Entry {
        tenant: &grant.map.tenant,
        requirements: grant.requirements(),
        rule: Some(grant),
    });
    let complete = || trust.delegations.iter().filter(|delegation| delegation.is_complete);
    let delegations = complete().map(|delegation| Entry {
        tenant: &delegation.tenant,
        requirements: delegation.requirements(),
        rule: None,
    });
    let entries: Vec<_> = rules.chain(delegations).collect();
    let first = entries.len() - complete().count();
    let mut indexes = HashMap::new();
    for (at, delegation) in complete().enumerate() {
        let Some(claim) = Claim::of(delegation) else { continue };
        let index = indexes.entry(claim.name()).or_insert_with(|| Index::of(claim, &entries));
        let own = delegation.requirements();
        let overlaps = |other: &&Entry<'_>| {
            *other.tenant != delegation.tenant && !own.exclude(&other.requirements)
        };
        // Of two delegations, the later one is reported.
        let mut earlier = index.candidates(claim, own).filter(|other| *other < first + at);
        let other = earlier.find_map(|other| entries.get(other).filter(overlaps));
        if let Some(other) = other {
            report_overlap(trust, delegation, other, faults);
        }
    }
}

fn report_overlap(trust: &Trust, delegation: &Delegation, other: &Entry<'_>, faults: &Faults) {
    let other = match other.rule {
        Some(rule) => format!("rule `{}` of", shorten(&rule.name).escape_debug()),
        None => "the delegation to".to_owned(),
    } + &format!(" tenant `{}`", shorten(other.tenant.as_str()));
    let (trust, tenant) = (shorten(&trust.id), shorten(delegation.tenant.as_str()));
    let place = format!("trust.{}.delegation.{}", trust.escape_debug(), tenant.escape_debug());
    faults.report(delegation.positions.own, place, format!("could match the same tokens as {other}, so its rules could make those tokens ambiguous: give both a condition on the same claim, or a subject, with values that exclude each other"));
}

/// The claim by which an [`Index`] finds entries.
#[derive(Clone, Copy)]
enum Claim<'t> {
    Subject,
    At(&'t ClaimPath),
}

impl<'t> Claim<'t> {
    fn of(delegation: &'t Delegation) -> Option<Self> {
        match &delegation.subject {
            Some(_) => Some(Self::Subject),
            None => delegation.claims.first().map(|(path, _)| Self::At(path)),
        }
    }

    fn name(self) -> Option<String> {
        match self {
            Self::Subject => None,
            Self::At(path) => Some(path.to_string()),
        }
    }

    /// Returns the keys of what a claim must be, or `None` if everything is possible.
    fn keys(self, requirements: Requirements<'_>) -> Option<Vec<Key>> {
        let Self::At(path) = self else { return Some(vec![Key::of(requirements.subject?)]) };
        match requirements.on(path)? {
            Condition::Eq(value) => Some(vec![Key::of_value(value)]),
            // An empty list stands for an unreadable condition.
            Condition::OneOf(values) if values.is_empty() => None,
            Condition::OneOf(values) => Some(values.iter().map(Key::of_value).collect()),
            Condition::Glob(pattern) => Some(vec![Key::of(pattern)]),
            Condition::Contains(_) => {
                Some(vec![Key { text: "list".to_owned(), is_pattern: false }])
            }
        }
    }
}

/// A value, or the literal beginning of a pattern. The first characters are the type.
struct Key {
    text: String,
    is_pattern: bool,
}

impl Key {
    fn of(pattern: &Pattern) -> Self {
        let (literal, is_pattern) = match pattern.as_str().split_once('*') {
            Some((literal, _)) => (literal, true),
            None => (pattern.as_str(), false),
        };
        Self { text: format!("text {literal}"), is_pattern }
    }

    fn of_value(value: &Constant) -> Self {
        let text = match value {
            Constant::Text(text) => format!("text {text}"),
            other => format!("other {other}"),
        };
        Self { text, is_pattern: false }
    }
}

/// Finds the entries that could match the same tokens, without comparing each with each.
struct Index {
    exact: BTreeMap<String, Vec<usize>>,
    patterns: BTreeMap<String, Vec<usize>>,
    /// The lengths of the keys of `patterns`.
    lengths: BTreeSet<usize>,
    /// Entries without a condition on the claim.
    open: Vec<usize>,
}

impl Index {
    fn of(claim: Claim<'_>, entries: &[Entry<'_>]) -> Self {
        let (mut exact, mut patterns) = (BTreeMap::new(), BTreeMap::new());
        let (mut lengths, mut open) = (BTreeSet::new(), Vec::new());
        for (nth, entry) in entries.iter().enumerate() {
            let Some(keys) = claim.keys(entry.requirements) else {
                open.push(nth);
                continue;
            };
            for Key { text, is_pattern } in keys {
                lengths.extend(is_pattern.then_some(text.len()));
                let map = if is_pattern { &mut patterns } else { &mut exact };
                map.entry(text).or_insert_with(Vec::new).push(nth);
            }
        }
        Self { exact, patterns, lengths, open }
    }

    fn candidates(
        &self,
        claim: Claim<'_>,
        requirements: Requirements<'_>,
    ) -> impl Iterator<Item = usize> {
        let keys = claim.keys(requirements).unwrap_or_default();
        let found = keys.into_iter().flat_map(|key| self.matching(&key));
        self.open.iter().copied().chain(found)
    }

    fn matching(&self, key: &Key) -> Vec<usize> {
        let text = key.text.as_str();
        let shorter = self.lengths.range(..text.len()).filter_map(|length| text.get(..*length));
        let mut found: Vec<usize> =
            shorter.filter_map(|start| self.patterns.get(start)).flatten().copied().collect();
        let is_longer = |(other, _): &(&String, _)| other.starts_with(text);
        if key.is_pattern {
            for map in [&self.exact, &self.patterns] {
                let longer = map.range(text.to_owned()..).take_while(is_longer);
                found.extend(longer.flat_map(|(_, entries)| entries));
            }
        } else {
            let same = [self.exact.get(text), self.patterns.get(text)];
            found.extend(same.into_iter().flatten().flatten());
        }
        found
    }
}

fn check_namespaces(trusts: &[Trust], faults: &Faults) {
    let delegations = trusts.iter().flat_map(|trust| &trust.delegations);
    let tenants: BTreeMap<String, &TenantId> =
        delegations.map(|delegation| (namespace(&delegation.tenant), &delegation.tenant)).collect();
    if tenants.is_empty() {
        return;
    }
    for trust in trusts {
        for rule in &trust.grants {
            let tenant = tenant_of_identities(trust, rule, &tenants);
            if let Some(tenant) = tenant {
                let place = format!(
                    "trust.{}.grant.{}.map.identity",
                    trust.id.escape_debug(),
                    rule.name.escape_debug()
                );
                let problem = format!(
                    "could be an identity of tenant `{tenant}`, whose administrators write rules by delegation: put another segment after the kind"
                );
                faults.report(rule.position_of("map.identity"), place, problem);
            }
        }
    }
}

/// Returns another tenant whose namespace may contain an identity of the rule.
fn tenant_of_identities<'t>(
    trust: &Trust,
    rule: &Grant,
    tenants: &BTreeMap<String, &'t TenantId>,
) -> Option<&'t TenantId> {
    let (start, is_open) = literal_start(trust, rule);
    let (_, rest) = start.split_once(':')?;
    let is_other = |tenant: &&&TenantId| ***tenant != rule.map.tenant;
    match rest.split_once(':') {
        Some((segment, _)) => tenants.get(segment).filter(is_other).copied(),
        None if is_open => {
            let possible = tenants.range(rest.to_owned()..);
            let mut possible = possible.take_while(|(name, _)| name.starts_with(rest));
            possible.find(|(_, tenant)| is_other(tenant)).map(|(_, tenant)| *tenant)
        }
        None => None,
    }
}

/// Returns the literal beginning of the identities of a rule, and whether anything follows it.
fn literal_start(trust: &Trust, rule: &Grant) -> (String, bool) {
    let keeps_separators = rule.map.identity.claims().count() < 2;
    let mut start = String::new();
    for part in &rule.map.identity.parts {
        match part {
            Part::Text(text) => start.push_str(text),
            Part::Trust => start.push_str(&trust.id),
            Part::Claim(path) => match rule.required_text(path) {
                Some(RequiredText::Exact(text)) => start.push_str(&encoded(text, keeps_separators)),
                _ => return (start, true),
            },
        }
    }
    (start, false)
}
