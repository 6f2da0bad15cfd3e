//! [`Collisions`]: rules that could give different workloads the same identity.

use std::collections::{BTreeMap, HashMap};

use super::pattern::SEPARATORS;
use super::policy::Trust;
use super::reader::is_label;
use super::rule::{Condition, Grant, MAX_IDENTITY_BYTES, Part, RequiredText, encoded};

/// The limit of the work of comparing identities, in steps of some 10 ns. 10,000 rules whose identities begin
/// with different literals take fewer than 100,000.
const MAX_STEPS: usize = 10_000_000;

/// A part of the identities that a rule can give.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Symbol {
    Exactly(char),
    /// At least one character, but no separator.
    Segment,
    /// At least one character.
    Anything,
}

/// The set of identities that a rule can give, as a pattern.
struct IdentityPattern {
    symbols: Vec<Symbol>,
    /// The literal characters before the first other symbol.
    prefix: String,
    /// Whether a part of the identity depends on a claim that the rule does not fix.
    is_open: bool,
}

impl IdentityPattern {
    /// Returns `None` if all identities are too long, so that the rule gives none.
    fn of(trust: &Trust, grant: &Grant) -> Option<Self> {
        let mut identities = Self { symbols: Vec::new(), prefix: String::new(), is_open: false };
        let keeps_separators = grant.map.identity.claims().count() < 2;
        let any = if keeps_separators { Symbol::Anything } else { Symbol::Segment };
        for part in &grant.map.identity.parts {
            match part {
                Part::Text(text) => identities.push_literal(text),
                Part::Trust => identities.push_literal(&trust.id),
                Part::Claim(path) => match grant.required_text(path) {
                    Some(RequiredText::Exact(text)) => {
                        identities.push_literal(&encoded(text, keeps_separators));
                    }
                    Some(RequiredText::Pattern(pattern)) if keeps_separators => {
                        identities.push_pattern(pattern)
                    }
                    _ if grant.conditions(|on| on == path).any(Condition::lists_values) => {
                        identities.symbols.push(any)
                    }
                    _ => identities.push_open(any),
                },
            }
            if identities.symbols.len() > MAX_IDENTITY_BYTES {
                return None;
            }
        }
        let literals = identities.symbols.iter().map_while(|symbol| symbol.literal());
        identities.prefix = literals.collect();
        Some(identities)
    }

    fn push_literal(&mut self, text: &str) {
        self.symbols.extend(text.chars().map(Symbol::Exactly));
    }

    fn push_open(&mut self, symbol: Symbol) {
        self.symbols.push(symbol);
        self.is_open = true;
    }

    fn push_pattern(&mut self, pattern: &str) {
        let mut literals = pattern.split('*');
        self.push_literal(&encoded(literals.next().unwrap_or_default(), true));
        for literal in literals {
            self.push_open(Symbol::Segment);
            self.push_literal(&encoded(literal, true));
        }
    }

    fn is_literal(&self) -> bool {
        self.symbols.iter().all(|symbol| symbol.literal().is_some())
    }

    /// Returns whether the two sets share an identity, and adds the work to `steps`. The prefix of `self`
    /// begins that of `other`.
    fn intersects(&self, other: &Self, steps: &mut usize) -> bool {
        let common = self.prefix.chars().count();
        let rest = |of: &'_ Self| of.symbols.get(common..).unwrap_or_default().to_vec();
        let (mut these, mut those) = (rest(self), rest(other));
        while let (Some(Symbol::Exactly(one)), Some(Symbol::Exactly(other))) =
            (these.last(), those.last())
        {
            *steps += 1;
            if one != other {
                return false;
            }
            these.pop();
            those.pop();
        }
        share_a_text(&these, &those, steps)
    }
}

/// Searches the product automaton of two patterns.
fn share_a_text(these: &[Symbol], those: &[Symbol], steps: &mut usize) -> bool {
    let columns = those.len() + 1;
    let mut is_seen = vec![false; (these.len() + 1) * columns];
    let mut next = vec![(0, 0)];
    while let Some((a, b)) = next.pop() {
        match is_seen.get_mut(a * columns + b) {
            Some(seen) if !*seen => *seen = true,
            _ => continue,
        }
        *steps += 1;
        let (Some(one), Some(two)) = (these.get(a), those.get(b)) else {
            if a == these.len() && b == those.len() {
                return true;
            }
            continue;
        };
        if !one.shares_a_character(*two) {
            continue;
        }
        next.push((a + 1, b + 1));
        next.extend(one.repeats().then_some((a, b + 1)));
        next.extend(two.repeats().then_some((a + 1, b)));
    }
    false
}

impl Symbol {
    fn literal(self) -> Option<char> {
        match self {
            Self::Exactly(character) => Some(character),
            _ => None,
        }
    }

    fn repeats(self) -> bool {
        !matches!(self, Self::Exactly(_))
    }

    fn shares_a_character(self, other: Self) -> bool {
        match (self, other) {
            (Self::Exactly(one), Self::Exactly(other)) => one == other,
            (Self::Exactly(one), Self::Segment) | (Self::Segment, Self::Exactly(one)) => {
                !SEPARATORS.contains(&one)
            }
            _ => true,
        }
    }
}

/// A rule with its trust.
pub(super) type Rule<'p> = (&'p Trust, &'p Grant);

/// A rule, its place in the text, and the identities that it can give.
struct Candidate<'p> {
    nth: usize,
    rule: Rule<'p>,
    /// The same for all rules of a trust with the same template.
    group: usize,
    pattern: IdentityPattern,
}

/// Candidates with the same prefix, by group and whether they are open.
struct Level<'c, 'p> {
    prefix: &'c str,
    groups: BTreeMap<(usize, bool), Vec<&'c Candidate<'p>>>,
}

/// The collisions found so far.
#[derive(Default)]
pub(super) struct Collisions<'p> {
    /// Each rule, by its place in the text, with the first rule before it that it collides with.
    found: BTreeMap<usize, (Rule<'p>, usize, Rule<'p>)>,
    pub(super) steps: usize,
    /// The rule at which the limit of the work was reached.
    pub(super) too_many: Option<Rule<'p>>,
}

impl<'p> Collisions<'p> {
    /// Finds pairs of rules that could give the same identity to two workloads. Rules of one trust with the
    /// same template are allowed, because equal identities then mean the same workload. Identities without
    /// claims are allowed too, because sharing them is deliberate.
    ///
    /// Two patterns can share an identity only if the literal prefix of one begins that of the other. In the
    /// order of the prefixes, these are a stack.
    pub(super) fn of(trusts: &'p [Trust]) -> Self {
        let mut candidates = candidates(trusts);
        candidates.sort_by(|a, b| a.pattern.prefix.cmp(&b.pattern.prefix).then(a.nth.cmp(&b.nth)));
        let mut collisions = Self::default();
        let mut levels: Vec<Level<'_, 'p>> = Vec::new();
        for candidate in &candidates {
            let prefix = candidate.pattern.prefix.as_str();
            while levels.pop_if(|level| !prefix.starts_with(level.prefix)).is_some() {}
            for level in &levels {
                collisions.add_those_of(candidate, level);
            }
            if collisions.steps > MAX_STEPS {
                collisions.too_many = Some(candidate.rule);
                return collisions;
            }
            // Other symbols stand for at least one character, so no longer literal begins with this one.
            if candidate.pattern.is_literal() {
                continue;
            }
            if levels.last().is_none_or(|level| level.prefix != prefix) {
                levels.push(Level { prefix, groups: BTreeMap::new() });
            }
            if let Some(level) = levels.last_mut() {
                let key = (candidate.group, candidate.pattern.is_open);
                level.groups.entry(key).or_default().push(candidate);
            }
        }
        collisions
    }

    /// Returns each rule that collides with an earlier one, and that one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Rule<'p>, Rule<'p>)> {
        self.found.values().map(|(rule, _, earlier)| (*rule, *earlier))
    }

    fn add_those_of(&mut self, candidate: &Candidate<'p>, level: &Level<'_, 'p>) {
        for ((group, is_open), members) in &level.groups {
            self.steps += 1;
            if *group == candidate.group || !(*is_open || candidate.pattern.is_open) {
                continue;
            }
            for other in members {
                self.steps += 1;
                if self.steps > MAX_STEPS {
                    return;
                }
                let (later, earlier) = match candidate.nth > other.nth {
                    true => (candidate, *other),
                    false => (*other, candidate),
                };
                let is_known =
                    self.found.get(&later.nth).is_some_and(|(_, nth, _)| *nth <= earlier.nth);
                if !is_known && other.pattern.intersects(&candidate.pattern, &mut self.steps) {
                    self.found.insert(later.nth, (later.rule, earlier.nth, earlier.rule));
                }
            }
        }
    }
}

fn candidates<'p>(trusts: &'p [Trust]) -> Vec<Candidate<'p>> {
    let mut groups = HashMap::new();
    // An invalid id is a fault of its own.
    let rules = trusts
        .iter()
        .filter(|trust| is_label(&trust.id))
        .flat_map(|trust| trust.grants.iter().map(move |grant| (trust, grant)))
        .filter(|(_, grant)| grant.is_complete && grant.map.identity.is_unambiguous());
    let candidate = |(nth, (trust, grant)): (usize, Rule<'p>)| {
        let pattern = IdentityPattern::of(trust, grant)?;
        let next = groups.len();
        let group = groups.entry((&trust.id, grant.map.identity.as_str()));
        Some((nth, (trust, grant), *group.or_insert(next), pattern))
    };
    rules
        .enumerate()
        .filter_map(candidate)
        .map(|(nth, rule, group, pattern)| Candidate { nth, rule, group, pattern })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::policy::TrustPolicy;
    use super::*;

    const RULES: usize = 10_000;

    /// Returns the work for a policy of one trust with these subjects and identities.
    fn work(rule: impl Fn(usize) -> (String, String)) -> usize {
        let rule = |nth: usize| {
            let (subject, identity) = rule(nth);
            serde_json::json!({ "name": format!("r{nth}"), "subject": subject,
                "map": { "identity": identity, "tenant": "t", "scopes": ["a"] } })
        };
        let trust = serde_json::json!({ "id": "k8s", "issuer": "https://k8s.example", "audiences": ["s"],
            "grant": (0..RULES).map(rule).collect::<Vec<_>>() });
        steps(&serde_json::json!({ "trust": [trust] }))
    }

    fn steps(policy: &serde_json::Value) -> usize {
        let policy: TrustPolicy = serde_json::from_value(policy.clone()).unwrap();
        Collisions::of(&policy.trusts).steps
    }

    #[test]
    fn work_grows_with_number_of_rules() {
        let long = "the-same-long-beginning:".repeat(4);
        let kinds = [
            work(|nth| (format!("ns:{nth}"), "sa:{trust}:{sub}".to_owned())),
            work(|nth| (format!("ns:{nth}:*"), "sa:{trust}:{sub}".to_owned())),
            work(|nth| (format!("{long}{nth}:*"), "sa:{trust}:{sub}".to_owned())),
            work(|nth| (format!("ns:{nth}:*"), format!("sa:{{trust}}:{long}{nth}:{{sub}}"))),
            work(|nth| (format!("ns:{nth}:*"), format!("sa:{{trust}}:{nth}:{{a}}:{{b}}"))),
            work(|nth| (format!("ns:{nth}"), format!("sa:svc-{nth}"))),
            work(|nth| match nth % 2 {
                0 => (format!("ns:{nth}"), "sa:{trust}:{sub}".to_owned()),
                _ => (format!("job:{nth}:*"), "sa:{trust}:job:{sub}".to_owned()),
            }),
        ];
        assert!(kinds.iter().all(|steps| *steps < 10 * RULES), "{kinds:?}");
    }

    #[test]
    fn work_grows_with_number_of_trusts() {
        let trust = |nth: usize| {
            serde_json::json!({ "id": format!("cluster-{nth}"), "issuer": format!("https://{nth}.example"),
                "audiences": ["s"], "grant": [{ "name": "g", "subject": "ns:*",
                    "map": { "identity": "sa:{trust}:{sub}", "tenant": "t", "scopes": ["a"] } }] })
        };
        let trusts: Vec<_> = (0..2_000).map(trust).collect();
        let steps = steps(&serde_json::json!({ "trust": trusts }));
        assert!(steps < 10 * trusts.len(), "{steps}");
    }
}
