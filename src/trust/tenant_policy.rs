//! [`TenantPolicy`] and [`TenantChange`]: the part of a policy that the administrators of one tenant see, and a
//! change of it.

use super::delegation::{self, Delegation};
use super::fault::{Faults, PolicyError, PolicyFault, Position};
use super::lint;
use super::parse::{self, TenantTrust};
use super::policy::{Authority, Mode, Trust, TrustPolicy};
use super::rule_text::{PolicyText, RuleChanges, rule_table};
use super::store::PolicyVersionId;
use super::tenant_change;
use super::tree::Node;
use crate::identity::TenantId;
use crate::support::{crypto, telemetry};

/// The fault of everything that depends on what the tenant cannot see. It is the same for all of them.
const HIDDEN: &str = "conflicts with rules that you cannot see: ask the owner of the policy";

/// The part of a policy that the administrators of one tenant see and may change (feature `trust`).
///
/// It has the trusts with a rule or a [delegation](crate::trust#delegation-to-tenants) of the tenant, each with its
/// id and the tenant's rules, and comments about what the tenant may write. It has nothing about other tenants, key
/// sources and files.
///
/// ```
/// use scaikey_auth::TenantId;
/// use scaikey_auth::trust::TenantPolicy;
///
/// let policy = r#"
///     [[trust]]
///     id = "k8s"
///     issuer = "https://k8s.example"
///     audiences = ["scaivault"]
///
///     [[trust.delegation]]
///     tenant = "acme"
///     subject = "system:serviceaccount:acme:*"
///     scopes = ["secrets:read"]
/// "#;
/// let acme = TenantId::new("acme")?;
/// let own = TenantPolicy::of(policy, &acme)?;
/// assert!(own.text().contains("[[trust]]\nid = \"k8s\"\n"));
///
/// let rule = r#"
///     [[trust]]
///     id = "k8s"
///     [[trust.grant]]
///     name = "reporter"
///     subject = "system:serviceaccount:acme:reporter"
///     map = { identity = "sa:acme:reporter", tenant = "acme", scopes = ["secrets:read"] }
/// "#;
/// let change = TenantPolicy::change(policy, &acme, rule)?;
/// assert!(change.policy_text().contains("sa:acme:reporter"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPolicy {
    id: PolicyVersionId,
    text: String,
    is_empty: bool,
}

/// A change of a policy by the administrators of one tenant, which was checked but not saved (feature `trust`).
///
/// Its text and policy have the rules of all tenants, so they are not for the tenant.
///
/// ```
/// use scaikey_auth::TenantId;
/// use scaikey_auth::trust::{DecisionFilter, DryRun, PolicyError, TrustEvaluator};
///
/// /// Returns what a change would do to the decisions of late about the tenant's workloads.
/// fn effect(trusts: &TrustEvaluator, tenant: &TenantId, text: &str) -> Result<DryRun, PolicyError> {
///     let policy = trusts.check_for_tenant(tenant, text)?.policy().for_tenant(tenant);
///     Ok(trusts.dry_run(&policy, &DecisionFilter::new().tenant(tenant.clone())))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct TenantChange {
    text: String,
    policy: TrustPolicy,
    /// What the tenant sees after the change.
    pub(super) own: TenantPolicy,
    warnings: Vec<PolicyFault>,
}

impl TenantChange {
    /// Returns the text of the whole policy after the change.
    pub fn policy_text(&self) -> &str {
        &self.text
    }

    /// Returns the whole policy after the change.
    pub fn policy(&self) -> &TrustPolicy {
        &self.policy
    }

    /// Returns the warnings about the tenant's rules and about comments that are not kept, with the lines of the
    /// submitted text.
    pub fn warnings(&self) -> &[PolicyFault] {
        &self.warnings
    }
}

impl TenantPolicy {
    /// Returns the part of a policy, in TOML, that a tenant sees.
    ///
    /// # Errors
    /// The text cannot be read. The fault is the same for all faults of the text, because they may be about other
    /// tenants.
    pub fn of(policy: &str, tenant: &TenantId) -> Result<Self, PolicyError> {
        let text = PolicyText::of(policy).ok_or_else(hidden)?;
        Self::of_trusts(&readable(policy)?, Some(&text), tenant)
    }

    /// Returns the part of a policy without a text that a tenant sees.
    pub(super) fn of_policy(policy: &TrustPolicy, tenant: &TenantId) -> Result<Self, PolicyError> {
        Self::of_trusts(&policy.trusts, None, tenant)
    }

    fn of_trusts(
        trusts: &[Trust],
        text: Option<&PolicyText<'_>>,
        tenant: &TenantId,
    ) -> Result<Self, PolicyError> {
        let visible = visible(trusts, tenant);
        let view = view(&visible, text, tenant);
        // The text repeats parts of the policy. It must not have anything but the tenant's rules.
        let is_exact = submitted(&view).is_ok_and(|trusts| {
            trusts.len() == visible.len()
                && trusts.iter().zip(&visible).all(|(one, Visible { trust, .. })| {
                    one.id == trust.id && one.grants == trust.grants
                })
        });
        match is_exact {
            true => Ok(Self {
                id: Self::id_of(tenant, &PolicyVersionId::new(0, &view)),
                text: view,
                is_empty: visible.is_empty(),
            }),
            false => Err(hidden()),
        }
    }

    /// Checks a changed [`text`](Self::text) of a tenant, and returns the whole policy with the change. A trust or a
    /// rule that the text lacks is a removed rule.
    ///
    /// All parts of the policy but the tenant's changed rules stay as they are, empty lines aside. Comments are kept
    /// directly above a rule, and in it; for others, there is a warning.
    ///
    /// # Errors
    /// All faults of the tenant's rules, with the lines of the submitted text. A fault that depends on what the
    /// tenant cannot see has no line, and always the same text.
    pub fn change(
        policy: &str,
        tenant: &TenantId,
        submitted: &str,
    ) -> Result<TenantChange, PolicyError> {
        let before = TrustPolicy::from_toml(policy).map_err(|_| hidden())?;
        let visible = visible(&before.trusts, tenant);
        let (rules, mut warnings) = tenant_change::check(tenant, &visible, submitted)?;
        let before_text = PolicyText::of(policy).ok_or_else(hidden)?;
        let text = tenant_change::merge(&before_text, &visible, &rules, submitted);
        let text = text.ok_or_else(hidden)?;
        let after = match text == policy {
            true => before.clone(),
            false => TrustPolicy::from_toml(&text).map_err(|error| {
                telemetry::trust_tenant_conflicts(tenant.as_str(), error.faults().first());
                hidden()
            })?,
        };
        let after_text = PolicyText::of(&text).ok_or_else(hidden)?;
        let (old, new) = ((&before, &before_text), (&after, &after_text));
        if !tenant_change::is_only_change(&before, &after, tenant, &rules)
            || !tenant_change::are_texts_of_others_kept(old, new, tenant)
        {
            return Err(hidden());
        }
        let own = Self::of_trusts(&after.trusts, Some(&after_text), tenant)?;
        warnings.extend(tenant_change::lost_comments(submitted, own.text()));
        Ok(TenantChange { text, policy: after, own, warnings })
    }

    /// Returns the id of this text, for entity tags. It depends on nothing but the text and the tenant, so a change
    /// of another tenant's rules does not change it; its number is no number of a version.
    pub fn id(&self) -> &PolicyVersionId {
        &self.id
    }

    /// Returns the [`id`](Self::id) of the text of an entry of the tenant's
    /// [history](super::TrustEvaluator::tenant_history), whose own id has the number of the entry.
    ///
    /// ```
    /// use scaikey_auth::TenantId;
    /// use scaikey_auth::trust::{PolicyVersion, TenantPolicy};
    ///
    /// /// Returns whether a version of the tenant's history has the text that is in force.
    /// fn is_in_force(tenant: &TenantId, version: &PolicyVersion, current: &TenantPolicy) -> bool {
    ///     TenantPolicy::id_of(tenant, &version.change.id) == *current.id()
    /// }
    /// ```
    pub fn id_of(tenant: &TenantId, entry: &PolicyVersionId) -> PolicyVersionId {
        let text = entry.digest();
        let digest = crypto::sha256_hex(&format!("tenant\0{tenant}\0{text}"));
        entry.with_number(number_of(&digest))
    }

    /// Returns the text, in TOML.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether the tenant has neither rules nor delegations.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }
}

pub(super) fn hidden() -> PolicyError {
    PolicyError::one(Position::default(), "the policy", HIDDEN)
}

/// Reads the trusts of a stored policy. Checks only that each rule can be read, because an old version may have
/// faults by the checks of today.
fn readable(policy: &str) -> Result<Vec<Trust>, PolicyError> {
    let faults = Faults::default();
    let trusts = parse::policy(&Node::from_toml(policy).map_err(|_| hidden())?, &faults);
    if faults.count() == 0 { Ok(trusts) } else { Err(hidden()) }
}

/// Reads the trusts of a tenant's text.
pub(super) fn submitted(text: &str) -> Result<Vec<TenantTrust>, PolicyError> {
    let tree = Node::from_toml(text)?;
    let faults = Faults::default();
    let trusts = parse::tenant_policy(&tree, &faults);
    PolicyError::check_none(lint::placeholders(&tree).with_faults_on_other_lines(faults))?;
    Ok(trusts)
}

/// Returns a number of 53 bits, which JSON readers keep, from a digest.
pub(super) fn number_of(digest: &str) -> u64 {
    let digits = digest.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    digits.unwrap_or_default() >> 11
}

/// Returns whether two policies differ in nothing but the rules of a tenant, empty lines aside. Comments count.
pub(super) fn is_same_for_others(before: &str, after: &str, tenant: &TenantId) -> bool {
    let others = |policy: &str| -> Option<Vec<String>> {
        let visible = visible(&readable(policy).ok()?, tenant).into_iter();
        let removed = |Visible { nth, places, .. }: Visible| {
            (nth, RuleChanges { removed: places, ..RuleChanges::default() })
        };
        let text =
            PolicyText::of(policy)?.with_changes(&visible.map(removed).collect::<Vec<_>>())?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        Some(lines.map(str::to_owned).collect())
    };
    let before = others(before);
    before.is_some() && before == others(after)
}

impl Trust {
    /// Returns the trust with nothing but the rules and delegations of a tenant, or `None` if it has none.
    pub(super) fn for_tenant(&self, tenant: &TenantId) -> Option<Self> {
        let grants = self.grants.iter().filter(|grant| grant.map.tenant == *tenant);
        let delegations = self.delegations.iter().filter(|it| it.tenant == *tenant);
        let (grants, delegations): (Vec<_>, Vec<_>) =
            (grants.cloned().collect(), delegations.cloned().collect());
        let is_visible = !grants.is_empty() || !delegations.is_empty();
        is_visible.then(|| Self { grants, delegations, ..self.clone() })
    }

    /// Returns the trust without the rules of a tenant.
    pub(super) fn for_others(mut self, tenant: &TenantId) -> Self {
        self.grants.retain(|grant| grant.map.tenant != *tenant);
        self
    }
}

impl TrustPolicy {
    /// Returns the policy with nothing but the trusts, rules and delegations that the administrators of a tenant
    /// see, to decide or explain with it. It still has the key sources of these trusts, so it is not for the tenant.
    pub fn for_tenant(&self, tenant: &TenantId) -> Self {
        let trusts = self.trusts.iter().filter_map(|trust| trust.for_tenant(tenant));
        Self::new(trusts.collect(), Vec::new())
    }
}

/// What a tenant sees of a trust.
pub(super) struct Visible {
    /// The index of the trust in the policy.
    pub(super) nth: usize,
    pub(super) trust: Trust,
    /// The index of each rule in the policy's trust.
    pub(super) places: Vec<usize>,
}

fn visible(trusts: &[Trust], tenant: &TenantId) -> Vec<Visible> {
    let visible = |(nth, whole): (usize, &Trust)| {
        let rules = whole.grants.iter().enumerate();
        let places = rules.filter(|(_, rule)| rule.map.tenant == *tenant).map(|(place, _)| place);
        Some(Visible { nth, trust: whole.for_tenant(tenant)?, places: places.collect() })
    };
    trusts.iter().enumerate().filter_map(visible).collect()
}

fn view(visible: &[Visible], text: Option<&PolicyText<'_>>, tenant: &TenantId) -> String {
    let mut view = format!(
        "# The trust rules of tenant {:?}. Add, change and remove [[trust.grant]] tables.\n# Comments are kept directly above a rule, and in it.\n# A [[trust]] has nothing but its id here: everything else is for the owner of the policy to change.\n",
        tenant.as_str()
    );
    if visible.is_empty() {
        view.push_str("# No trust has rules of this tenant, or lets it write rules.\n");
    }
    for Visible { nth, trust, places } in visible {
        view.push('\n');
        describe(trust, tenant).iter().for_each(|line| view.push_str(&format!("# {line}\n")));
        view.push_str(&format!("[[trust]]\nid = \"{}\"\n", trust.id));
        for (rule, place) in trust.grants.iter().zip(places) {
            view.push('\n');
            let text = text.and_then(|text| text.rule(*nth, *place));
            view.push_str(&text.unwrap_or_else(|| rule_table(rule)));
        }
    }
    view
}

/// Describes a trust for a tenant's administrators. The lines are comments, so texts of the policy are escaped.
fn describe(trust: &Trust, tenant: &TenantId) -> Vec<String> {
    let authority = match &trust.authority {
        Authority::Issuer(issuer) => format!("issuer {issuer:?}"),
        Authority::TrustDomain(name) => format!("trust domain {name:?}"),
    };
    let mut lines = vec![format!(
        "Tokens of {authority} for {:?}, valid for at most {}",
        trust.audiences, trust.max_lifetime
    )];
    if let Some(age) = trust.max_age {
        lines.push(format!("and at most {age} old"));
    }
    if trust.named_only {
        lines.push("Callers must name this trust by its id.".to_owned());
    }
    if trust.single_use_jti {
        lines.push("Each token is accepted once.".to_owned());
    }
    if trust.mode == Mode::Audit {
        lines.push("In audit mode: tokens are checked, but get nothing.".to_owned());
    }
    if let Some(end) = &trust.not_after {
        lines.push(format!("Ends: {:?}", end.as_str()));
    }
    for delegation in &trust.delegations {
        describe_delegation(delegation, tenant, &mut lines);
    }
    if trust.delegations.is_empty() {
        lines.push("Rules here can be kept or removed, but not changed or added.".to_owned());
    }
    lines
}

fn describe_delegation(delegation: &Delegation, tenant: &TenantId, lines: &mut Vec<String>) {
    lines.push("You can write rules with these conditions, or narrower ones:".to_owned());
    if let Some(subject) = &delegation.subject {
        lines.push(format!("  subject: {:?}", subject.as_str()));
    }
    for (path, condition) in &delegation.claims {
        lines.push(format!("  claim {:?}: {condition}", path.to_string()));
    }
    lines.push(format!("  scopes, all or some: {}", delegation.scopes));
    let (suggestion, start) = delegation::suggested_identity(tenant);
    lines.push(format!("  identity: {suggestion:?}, or another that begins with {start:?}"));
}
