//! [`PolicyText`]: the places of the rules in a policy in TOML, to read and change the rules of one tenant without
//! touching another byte.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, RawString, Table, Value};

use super::rule::{Condition, Constant, Grant};

/// A policy in TOML, with the places of its rules.
pub(super) struct PolicyText<'t> {
    text: &'t str,
    is_of_one_author: bool,
    /// The tables of the text in its order.
    sections: Vec<Section>,
    /// The ranges of the tables of each rule or trust. Adjacent ones are one range.
    pieces: BTreeMap<Owner, Vec<Range<usize>>>,
    /// For each trust, the inline value that has its rules, if they are not `[[trust.grant]]` tables.
    inline: Vec<Option<Range<usize>>>,
}

/// A header with the fields below it.
struct Section {
    owner: Owner,
    /// The range from the line of the header to the end of the line of the last field.
    lines: Range<usize>,
}

/// The trust, or the rule of a trust, that a table belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Trust(usize),
    Rule(usize, usize),
}

impl Owner {
    fn trust(self) -> usize {
        match self {
            Self::Trust(trust) | Self::Rule(trust, _) => trust,
        }
    }
}

/// What changes in the rules of a trust. The indexes are those of its rules.
#[derive(Default)]
pub(super) struct RuleChanges<'c> {
    pub(super) removed: Vec<usize>,
    /// The new text of a rule, and the rule.
    pub(super) replaced: Vec<(usize, String, &'c Grant)>,
    pub(super) added: Vec<(String, &'c Grant)>,
}

impl RuleChanges<'_> {
    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.replaced.is_empty() && self.added.is_empty()
    }
}

impl<'t> PolicyText<'t> {
    /// Finds the rules. Returns `None` if the text is not TOML.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        Self::with_comments(text, false)
    }

    /// Finds the rules of a text that is all of one tenant: every comment directly above a rule belongs to it.
    pub(super) fn of_one_author(text: &'t str) -> Option<Self> {
        Self::with_comments(text, true)
    }

    fn with_comments(text: &'t str, is_of_one_author: bool) -> Option<Self> {
        let document = Document::parse(text).ok()?;
        let mut headers = Headers::default();
        let mut inline = Vec::new();
        match document.get("trust") {
            Some(Item::ArrayOfTables(trusts)) => {
                for (nth, trust) in trusts.iter().enumerate() {
                    headers.add_trust(nth, trust);
                    let rules = trust.get("grant").and_then(Item::as_array);
                    inline.push(rules.and_then(Array::span));
                }
            }
            Some(Item::Value(Value::Array(trusts))) => {
                inline.extend(trusts.iter().map(Value::span));
            }
            _ => {}
        }
        let (sections, pieces) = (headers.sections(text), BTreeMap::new());
        let mut policy = Self { text, is_of_one_author, sections, pieces, inline };
        policy.pieces = policy.find_pieces();
        Some(policy)
    }

    /// Returns the text of a rule: the comment directly above it, its tables and the comments in them. `None` if it
    /// is an inline table.
    ///
    /// A comment belongs to the rule below it only if an empty line separates it from what is above, because it
    /// could otherwise be about another tenant's rule.
    pub(super) fn rule(&self, trust: usize, rule: usize) -> Option<String> {
        let pieces = self.pieces(trust, rule);
        let mut text = String::new();
        for piece in pieces {
            text.push_str(self.text.get(piece.clone())?);
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
        (!pieces.is_empty()).then_some(text)
    }

    /// Returns the text with these changes, or `None` if it cannot be changed so.
    pub(super) fn with_changes(&self, changes: &[(usize, RuleChanges<'_>)]) -> Option<String> {
        let mut edits = Vec::new();
        for (trust, changes) in changes.iter().filter(|(_, changes)| !changes.is_empty()) {
            match self.inline.get(*trust)? {
                Some(range) => {
                    let rules = self.inline_rules(*trust, changes)?;
                    edits.push((range.clone(), self.with_line_ends(&rules)));
                }
                None => self.edit_tables(*trust, changes, &mut edits)?,
            }
        }
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut changed = String::new();
        let mut at = 0;
        for (range, text) in edits {
            changed.push_str(self.text.get(at..range.start)?);
            changed.push_str(&text);
            at = range.end;
        }
        changed.push_str(self.text.get(at..)?);
        Some(changed)
    }

    fn edit_tables(
        &self,
        trust: usize,
        changes: &RuleChanges<'_>,
        edits: &mut Vec<(Range<usize>, String)>,
    ) -> Option<()> {
        for rule in &changes.removed {
            for piece in self.pieces(trust, *rule) {
                self.remove_piece(piece, edits);
            }
        }
        for (rule, text, _) in &changes.replaced {
            let mut pieces = self.pieces(trust, *rule).iter();
            if let Some(first) = pieces.next() {
                let is_joined = text.starts_with('#') && !self.is_separated(first.start);
                let gap = if is_joined { "\n" } else { "" };
                edits.push((first.clone(), self.with_line_ends(&format!("{gap}{text}"))));
            }
            pieces.for_each(|piece| self.remove_piece(piece, edits));
        }
        if !changes.added.is_empty() {
            let at = self.end_of(trust)?;
            let is_after_line = self.text.get(..at)?.ends_with('\n');
            let mut text = String::new();
            text.push_str(if is_after_line { "" } else { "\n" });
            for (rule, _) in &changes.added {
                text.push('\n');
                text.push_str(rule);
            }
            edits.push((at..at, self.with_line_ends(&text)));
        }
        Some(())
    }

    /// Returns the inline value of a trust with these changes.
    fn inline_rules(&self, trust: usize, changes: &RuleChanges<'_>) -> Option<String> {
        let mut document: DocumentMut = self.text.parse().ok()?;
        match document.get_mut("trust")? {
            Item::ArrayOfTables(trusts) => {
                let rules = trusts.get_mut(trust)?.get_mut("grant")?.as_array_mut()?;
                change_array(rules, changes);
                rules.decor_mut().clear();
                Some(rules.to_string())
            }
            Item::Value(Value::Array(trusts)) => {
                let trust = trusts.get_mut(trust)?.as_inline_table_mut()?;
                let rules = trust.get_or_insert("grant", Array::new());
                change_array(rules.as_array_mut()?, changes);
                trust.decor_mut().clear();
                Some(trust.to_string())
            }
            _ => None,
        }
    }

    /// Removes a part of a rule, so that the comments around it belong to the same rules as before, or to none.
    fn remove_piece(&self, piece: &Range<usize>, edits: &mut Vec<(Range<usize>, String)>) {
        let end = self.after_empty_lines(piece.end);
        if end > piece.end {
            // Without an empty line above, the one below still separates.
            let end = if self.is_separated(piece.start) { end } else { piece.end };
            edits.push((piece.start..end, String::new()));
            return;
        }
        edits.push((piece.clone(), String::new()));
        let rest = self.text.get(end..).unwrap_or_default().split_inclusive('\n');
        let comment = rest.take_while(|line| line.trim_start().starts_with('#'));
        let comment_end = comment.fold(end, |end, line| end + line.len());
        let is_above_table = self.after_empty_lines(comment_end) == comment_end;
        if comment_end > end && is_above_table && comment_end < self.text.len() {
            // It belonged to no rule: it must not become the next one's.
            edits.push((comment_end..comment_end, self.with_line_ends("\n")));
        }
    }

    /// Returns whether there is an empty line above a place.
    fn is_separated(&self, at: usize) -> bool {
        let above = self.text.get(..at).unwrap_or_default().lines().next_back();
        above.is_none_or(|line| line.trim().is_empty())
    }

    fn pieces(&self, trust: usize, rule: usize) -> &[Range<usize>] {
        self.pieces.get(&Owner::Rule(trust, rule)).map_or(&[], Vec::as_slice)
    }

    fn find_pieces(&self) -> BTreeMap<Owner, Vec<Range<usize>>> {
        let mut pieces: BTreeMap<Owner, Vec<Range<usize>>> = BTreeMap::new();
        let mut previous = None;
        for (nth, section) in self.sections.iter().enumerate() {
            let own = pieces.entry(section.owner).or_default();
            match own.last_mut().filter(|_| previous == Some(section.owner)) {
                Some(piece) => piece.end = section.lines.end,
                None => own.push(self.comment_above(nth)..section.lines.end),
            }
            previous = Some(section.owner);
        }
        pieces
    }

    /// Returns the beginning of the comment directly above a table that is separated from what is above, or the
    /// beginning of the table.
    fn comment_above(&self, nth: usize) -> usize {
        let Some(section) = self.sections.get(nth) else { return 0 };
        let before = nth.checked_sub(1).and_then(|nth| self.sections.get(nth));
        let gap = before.map_or(0, |before| before.lines.end)..section.lines.start;
        let mut start = section.lines.start;
        for line in self.text.get(gap).unwrap_or_default().split_inclusive('\n').rev() {
            match line.trim() {
                "" => return start,
                _ => start -= line.len(),
            }
        }
        if self.is_of_one_author { start } else { section.lines.start }
    }

    /// Returns the end of a trust: after its last field and the comment that directly follows it.
    fn end_of(&self, trust: usize) -> Option<usize> {
        let last = self.sections.iter().rposition(|section| section.owner.trust() == trust)?;
        let end = self.sections.get(last)?.lines.end;
        let next = self.sections.get(last + 1).map_or(self.text.len(), |next| next.lines.start);
        let mut after = end;
        for line in self.text.get(end..next)?.split_inclusive('\n') {
            match line.trim() {
                "" => return Some(after),
                _ => after += line.len(),
            }
        }
        // The comment is directly above the next table, so it belongs there.
        Some(if next == self.text.len() { after } else { end })
    }

    fn after_empty_lines(&self, end: usize) -> usize {
        let rest = self.text.get(end..).unwrap_or_default().split_inclusive('\n');
        rest.take_while(|line| line.trim().is_empty()).fold(end, |end, line| end + line.len())
    }

    /// Returns a text with the line ends of this one. Strings of several lines keep theirs.
    fn with_line_ends(&self, text: &str) -> String {
        if text.contains("\"\"\"") || text.contains("'''") {
            return text.to_owned();
        }
        let text = text.replace("\r\n", "\n");
        let first_line = self.text.split_inclusive('\n').next().unwrap_or_default();
        if first_line.ends_with("\r\n") { text.replace('\n', "\r\n") } else { text }
    }
}

/// The headers and the ends of the values of a document.
#[derive(Default)]
struct Headers {
    headers: Vec<(Range<usize>, Owner)>,
    ends: Vec<usize>,
}

impl Headers {
    fn add_trust(&mut self, nth: usize, trust: &Table) {
        self.add_table(trust, Owner::Trust(nth));
        for (name, item) in trust.iter() {
            match item {
                Item::ArrayOfTables(rules) if name == "grant" => {
                    for (rule, table) in rules.iter().enumerate() {
                        let owner = Owner::Rule(nth, rule);
                        self.add_table(table, owner);
                        table.iter().for_each(|(_, item)| self.add_item(item, owner));
                    }
                }
                item => self.add_item(item, Owner::Trust(nth)),
            }
        }
    }

    fn add_item(&mut self, item: &Item, owner: Owner) {
        match item {
            Item::Table(table) => {
                if !table.is_implicit() && !table.is_dotted() {
                    self.add_table(table, owner);
                }
                table.iter().for_each(|(_, item)| self.add_item(item, owner));
            }
            Item::ArrayOfTables(tables) => {
                for table in tables {
                    self.add_table(table, owner);
                    table.iter().for_each(|(_, item)| self.add_item(item, owner));
                }
            }
            Item::Value(value) => self.ends.extend(value.span().map(|span| span.end)),
            Item::None => {}
        }
    }

    fn add_table(&mut self, table: &Table, owner: Owner) {
        self.headers.extend(table.span().map(|header| (header, owner)));
    }

    fn sections(mut self, text: &str) -> Vec<Section> {
        self.headers.sort_by_key(|(header, _)| header.start);
        self.ends.sort_unstable();
        let next_header =
            |nth: usize| self.headers.get(nth + 1).map_or(text.len(), |(header, _)| header.start);
        let headers = self.headers.iter().enumerate();
        let section = |(nth, (header, owner)): (usize, &(Range<usize>, Owner))| {
            let values = self.ends.partition_point(|end| *end <= next_header(nth));
            let last = values.checked_sub(1).and_then(|nth| self.ends.get(nth));
            let end = last.copied().unwrap_or_default().max(header.end);
            let lines = line_start(text, header.start)..line_end(text, end);
            Section { owner: *owner, lines }
        };
        headers.map(section).collect()
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1)
}

fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |end| at + end + 1)
}

fn change_array(rules: &mut Array, changes: &RuleChanges<'_>) {
    for (rule, _, grant) in &changes.replaced {
        rules.replace(*rule, inline_rule(grant));
    }
    let mut removed = changes.removed.clone();
    removed.sort_unstable();
    for rule in removed.iter().rev() {
        remove(rules, *rule);
    }
    for (_, grant) in &changes.added {
        let before = rules.iter().last().and_then(|last| last.decor().prefix()?.as_str());
        // On a line of its own, if the last one is.
        let line = before.and_then(|before| before.get(before.rfind('\n')?..));
        let mut rule = Value::InlineTable(inline_rule(grant));
        rule.decor_mut().set_prefix(line.unwrap_or(" "));
        rules.push_formatted(rule);
    }
}

/// Removes a rule from a list, but not a comment that stands before it: it may be about the rule before.
fn remove(rules: &mut Array, rule: usize) {
    let text = |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or("").to_owned();
    let comment = text(rules.remove(rule).decor().prefix());
    if !comment.contains('#') {
        return;
    }
    match rules.get_mut(rule) {
        Some(next) => {
            let prefix = comment + &text(next.decor().prefix());
            next.decor_mut().set_prefix(prefix);
        }
        None => {
            let trailing = comment + &text(Some(rules.trailing()));
            rules.set_trailing(trailing);
        }
    }
}

/// Returns the text of a rule as a `[[trust.grant]]` table.
pub(super) fn rule_table(grant: &Grant) -> String {
    let fields = inline_rule(grant);
    let line = |(name, value): (&str, &Value)| format!("{name} = {}\n", value.to_string().trim());
    format!("[[trust.grant]]\n{}", fields.iter().map(line).collect::<String>())
}

fn inline_rule(grant: &Grant) -> InlineTable {
    let mut rule = InlineTable::new();
    rule.insert("name", grant.name.as_str().into());
    if let Some(subject) = &grant.subject {
        rule.insert("subject", subject.as_str().into());
    }
    if !grant.claims.is_empty() {
        let claims = grant.claims.iter();
        let claims =
            claims.map(|(path, condition)| (path.to_string(), inline_condition(condition)));
        rule.insert("claims", Value::InlineTable(claims.collect()));
    }
    let map = [
        ("identity", Value::from(grant.map.identity.as_str())),
        ("tenant", Value::from(grant.map.tenant.as_str())),
        ("scopes", grant.map.scopes.iter().collect::<Array>().into()),
    ];
    rule.insert("map", Value::InlineTable(map.into_iter().collect()));
    rule
}

fn inline_condition(condition: &Condition) -> Value {
    let (name, value) = match condition {
        Condition::Eq(value) => ("eq", inline_constant(value)),
        Condition::OneOf(values) => {
            ("one_of", values.iter().map(inline_constant).collect::<Array>().into())
        }
        Condition::Glob(pattern) => ("glob", pattern.as_str().into()),
        Condition::Contains(value) => ("contains", inline_constant(value)),
    };
    Value::InlineTable([(name, value)].into_iter().collect())
}

fn inline_constant(constant: &Constant) -> Value {
    match constant {
        Constant::Text(text) => text.as_str().into(),
        Constant::Integer(number) => (*number).into(),
        Constant::Bool(flag) => (*flag).into(),
    }
}
