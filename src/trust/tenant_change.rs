//! Checks and merges what a tenant's administrator submits.

use std::collections::{HashMap, HashSet};

use super::delegation;
use super::fault::{Faults, PolicyError, PolicyFault, Position};
use super::lint;
use super::overlap::Collisions;
use super::parse::TenantTrust;
use super::policy::{Trust, TrustPolicy};
use super::rule::Grant;
use super::rule_text::{PolicyText, RuleChanges, rule_table};
use super::tenant_policy::{Visible, hidden, submitted};
use crate::identity::TenantId;
use crate::support::invisible::is_misleading;

/// The limit of a text that a tenant's administrator submits.
const MAX_TEXT_BYTES: usize = 128 * 1024;

/// The limit of a tenant's rules, so that one tenant cannot use up the limit of all.
const MAX_RULES: usize = 500;

/// The limit of the work of comparing a tenant's identities, so that one tenant cannot use up the limit of all.
/// 500 rules of the suggested forms need less than a tenth.
const MAX_STEPS: usize = 200_000;

/// Returns the rules of each visible trust after the change, and the warnings about them.
///
/// All checks here see only what the tenant sees, so their faults tell nothing else.
pub(super) fn check(
    tenant: &TenantId,
    visible: &[Visible],
    text: &str,
) -> Result<(Vec<Vec<Grant>>, Vec<PolicyFault>), PolicyError> {
    check_text(text)?;
    let trusts = submitted(text)?;
    let faults = Faults::default();
    check_trusts(tenant, visible, &trusts, &faults);
    PolicyError::check_none(faults)?;
    let after: Vec<Trust> = visible.iter().map(|before| after(before, &trusts)).collect();
    let (faults, warnings) = (Faults::default(), Faults::default());
    lint::check(&after, &faults, &warnings);
    if !faults.are_all(is_about_rule) {
        return Err(hidden());
    }
    if Collisions::of(&after).steps > MAX_STEPS {
        let problem = "has identities that are too similar: begin them with different literal segments after the tenant";
        faults.report(Position::default(), "the text", problem);
    }
    for (before, after) in visible.iter().zip(&after) {
        let is_changed = |rule: &&Grant| !before.trust.grants.contains(rule);
        for rule in after.grants.iter().filter(is_changed) {
            check_rule(tenant, &before.trust, rule, &faults);
        }
    }
    PolicyError::check_none(faults)?;
    let warnings = warnings.into_vec().into_iter().filter(is_about_rule).collect();
    Ok((after.into_iter().map(|trust| trust.grants).collect(), warnings))
}

fn check_text(text: &str) -> Result<(), PolicyError> {
    if text.len() > MAX_TEXT_BYTES {
        let problem =
            format!("is longer than {} KiB: combine or remove rules", MAX_TEXT_BYTES / 1024);
        return Err(PolicyError::one(Position::default(), "the text", problem));
    }
    // In the owner's editor they could make a comment look like a rule, or a rule like another.
    for (nth, line) in text.lines().enumerate() {
        if let Some(at) = line.chars().position(is_misleading) {
            let problem = "has an invisible character: write it as an escape, such as \"\\u200b\"";
            let at = Position { line: nth + 1, column: at + 1 };
            return Err(PolicyError::one(at, "the text", problem));
        }
    }
    Ok(())
}

fn check_trusts(tenant: &TenantId, visible: &[Visible], trusts: &[TenantTrust], faults: &Faults) {
    let mut seen = HashSet::new();
    for trust in trusts {
        let at = trust.positions.of("id");
        if !visible.iter().any(|visible| visible.trust.id == trust.id) {
            let problem =
                "is the id of no trust in which you have rules, or can write some: remove it";
            faults.report(at, "trust.id", problem);
        } else if !seen.insert(&trust.id) {
            let problem = "is given twice: give all rules of a trust under one [[trust]]";
            faults.report(at, "trust.id", problem);
        }
        for rule in trust.grants.iter().filter(|rule| rule.map.tenant != *tenant) {
            let problem = format!("must have your tenant, {:?}", tenant.as_str());
            report(&trust.id, rule, "map.tenant", problem, faults);
        }
    }
    let before: usize = visible.iter().map(|visible| visible.places.len()).sum();
    let after: usize = trusts.iter().map(|trust| trust.grants.len()).sum();
    if after > before.max(MAX_RULES) {
        let problem = format!("has more than {MAX_RULES} rules: combine or remove some");
        faults.report(Position::default(), "the text", problem);
    }
}

/// Returns a visible trust with the submitted rules.
fn after(before: &Visible, trusts: &[TenantTrust]) -> Trust {
    let mut after = before.trust.clone();
    let submitted = trusts.iter().find(|trust| trust.id == after.id);
    after.grants = submitted.map_or_else(Vec::new, |trust| trust.grants.clone());
    after
}

/// Returns whether a fault is about a rule: faults about a trust could have its URLs.
fn is_about_rule(fault: &PolicyFault) -> bool {
    let mut segments = fault.field.split(".grant");
    segments.next().is_some_and(|trust| trust.starts_with("trust.")) && segments.next().is_some()
}

/// Checks that a new or changed rule is within a delegation.
fn check_rule(tenant: &TenantId, trust: &Trust, rule: &Grant, faults: &Faults) {
    if let Err((field, problem)) = check_delegated(trust, rule) {
        report(&trust.id, rule, field, problem, faults);
    } else if !delegation::is_in_namespace(&rule.map.identity, tenant) {
        let (suggestion, _) = delegation::suggested_identity(tenant);
        let problem = format!("must begin with a kind and your tenant, such as {suggestion:?}");
        report(&trust.id, rule, "map.identity", problem, faults);
    }
}

/// Checks that a rule is within a delegation. The error is the field and its problem.
fn check_delegated(trust: &Trust, rule: &Grant) -> Result<(), (&'static str, String)> {
    let mut checks = trust.delegations.iter().map(|delegation| delegation.check(trust, rule));
    match trust.delegations.len() {
        0 => Err(("name", "is new or changed, but you can only keep and remove rules of this trust: ask the owner of the policy for a delegation".to_owned())),
        1 => checks.next().unwrap_or(Ok(())),
        _ if checks.any(|check| check.is_ok()) => Ok(()),
        _ => Err(("name", "is within none of your delegations in this trust: see the comment above [[trust]]".to_owned())),
    }
}

fn report(trust: &str, rule: &Grant, field: &str, problem: impl Into<String>, faults: &Faults) {
    let place =
        format!("trust.{}.grant.{}.{field}", trust.escape_debug(), rule.name.escape_debug());
    faults.report(rule.position_of(field), place, problem);
}

/// Returns the text of the policy with the rules of each visible trust, or `None` if it cannot be changed so.
pub(super) fn merge(
    before: &PolicyText<'_>,
    visible: &[Visible],
    rules: &[Vec<Grant>],
    submitted_text: &str,
) -> Option<String> {
    let after = PolicyText::of_one_author(submitted_text)?;
    let trusts = submitted(submitted_text).ok()?;
    let mut changes = Vec::new();
    for (visible, rules) in visible.iter().zip(rules) {
        let at = trusts.iter().position(|trust| trust.id == visible.trust.id);
        let texts = (0..rules.len()).map(|rule| after.rule(at?, rule)).collect::<Vec<_>>();
        let new: Vec<_> = rules.iter().zip(texts).collect();
        changes.push((visible.nth, changes_of(visible, &new, before)));
    }
    before.with_changes(&changes)
}

/// Returns what changes in the rules of a trust.
fn changes_of<'c>(
    visible: &Visible,
    after: &[(&'c Grant, Option<String>)],
    before: &PolicyText<'_>,
) -> RuleChanges<'c> {
    let mut changes = RuleChanges::default();
    let text_of =
        |(rule, text): &(&Grant, Option<String>)| text.clone().unwrap_or_else(|| rule_table(rule));
    for (old, place) in visible.trust.grants.iter().zip(&visible.places) {
        let Some(new) = after.iter().find(|(rule, _)| rule.name == old.name) else {
            changes.removed.push(*place);
            continue;
        };
        // A rule outside of every delegation is kept with its comments.
        let can_change = check_delegated(&visible.trust, new.0).is_ok();
        let has_new_text = match (before.rule(visible.nth, *place), &new.1) {
            (Some(old), Some(new)) => plain(&old) != plain(new),
            _ => false,
        };
        if new.0 != old || (can_change && has_new_text) {
            changes.replaced.push((*place, text_of(new), new.0));
        }
    }
    let is_new =
        |(rule, _): &&(&Grant, _)| visible.trust.grants.iter().all(|old| old.name != rule.name);
    for new in after.iter().filter(is_new) {
        match changes.removed.pop() {
            Some(place) => changes.replaced.push((place, text_of(new), new.0)),
            None => changes.added.push((text_of(new), new.0)),
        }
    }
    changes
}

/// Returns a text without the differences that editors make.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").trim().to_owned()
}

/// Returns a warning for each line of a submitted text whose comment is not in the tenant's text after the change.
pub(super) fn lost_comments(submitted: &str, after: &str) -> Vec<PolicyFault> {
    let mut kept: HashMap<&str, usize> = HashMap::new();
    for line in after.lines() {
        *kept.entry(line.trim()).or_default() += 1;
    }
    let warnings = Faults::default();
    for (nth, line) in submitted.lines().enumerate().filter(|(_, line)| line.contains('#')) {
        match kept.get_mut(line.trim()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => {
                let column = line.chars().take_while(|c| *c != '#').count() + 1;
                let problem = "has a comment that is not saved: comments belong directly above a rule that you may change, or in it";
                warnings.report(Position { line: nth + 1, column }, "the text", problem);
            }
        }
    }
    warnings.into_vec()
}

/// Returns whether the rules of all other tenants have the same texts, with the comments that their tenants see.
pub(super) fn are_texts_of_others_kept(
    before: (&TrustPolicy, &PolicyText<'_>),
    after: (&TrustPolicy, &PolicyText<'_>),
    tenant: &TenantId,
) -> bool {
    let others = |(policy, text): (&TrustPolicy, &PolicyText<'_>)| -> Vec<_> {
        let rules = policy.trusts.iter().enumerate().flat_map(|(nth, trust)| {
            trust.grants.iter().enumerate().map(move |(place, rule)| (nth, place, rule))
        });
        let others = rules.filter(|(_, _, rule)| rule.map.tenant != *tenant);
        others.map(|(nth, place, _)| (nth, text.rule(nth, place))).collect()
    };
    others(before) == others(after)
}

/// Returns whether a changed policy differs only in the rules of a tenant, which are these.
pub(super) fn is_only_change(
    before: &TrustPolicy,
    after: &TrustPolicy,
    tenant: &TenantId,
    rules: &[Vec<Grant>],
) -> bool {
    let is_own = |rule: &Grant| rule.map.tenant == *tenant;
    let is_kept = |(before, after): (&Trust, &Trust)| {
        before.clone().for_others(tenant) == after.clone().for_others(tenant)
    };
    let own = |trust: &Trust| {
        let mut own: Vec<_> = trust.grants.iter().filter(|rule| is_own(rule)).cloned().collect();
        own.sort_by(|one, other| one.name.cmp(&other.name));
        own
    };
    let mut rules: Vec<Vec<Grant>> = rules.to_vec();
    rules.iter_mut().for_each(|rules| rules.sort_by(|one, other| one.name.cmp(&other.name)));
    rules.retain(|rules| !rules.is_empty());
    let found: Vec<_> = after.trusts.iter().map(own).filter(|rules| !rules.is_empty()).collect();
    before.trusts.len() == after.trusts.len()
        && before.trusts.iter().zip(&after.trusts).all(is_kept)
        && found == rules
}
