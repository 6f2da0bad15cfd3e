//! From a tree to trusts: unknown, missing and mistyped fields, all reported.

use std::str::FromStr;

use super::fault::PolicyFault;
use super::moment::{Moment, Period};
use super::policy::{Jwks, Mode, Trust};
use super::rule::{Condition, Constant, Grant, Mapping, Pattern, Template};
use super::tree::{Node, Value};
use crate::config::Algorithm;
use crate::identity::{ClaimPath, Scopes, TenantId};

/// Numbers up to this are exact however a JSON reader holds them.
const LARGEST: i64 = 1 << 53;

const POLICY: &[&str] = &["trust"];
const TRUST: &[&str] = &[
    "id",
    "issuer",
    "discovery_url",
    "jwks",
    "algorithms",
    "audiences",
    "max_lifetime",
    "max_age",
    "leeway",
    "single_use_jti",
    "not_after",
    "mode",
    "named_only",
    "allow_loopback_http",
    "grant",
];
const JWKS: &[&str] = &["url", "ca_file", "bearer_file", "inline"];
const GRANT: &[&str] = &["name", "subject", "claims", "map"];
const MAP: &[&str] = &["identity", "tenant", "scopes"];
const CONDITION: &[&str] = &["eq", "one_of", "glob", "contains"];

/// Reads what can be read, and reports what cannot.
pub(super) fn policy(tree: &Node, faults: &mut Vec<PolicyFault>) -> Vec<Trust> {
    let Some(fields) = Fields::of(tree, "the policy".to_owned(), POLICY, faults) else {
        return Vec::new();
    };
    let nodes = fields.list("trust", faults);
    let read = |(nth, node)| trust(node, nth, faults);
    nodes.iter().enumerate().filter_map(read).collect()
}

fn trust(node: &Node, nth: usize, faults: &mut Vec<PolicyFault>) -> Option<Trust> {
    let place = match label(node, "id") {
        Some(id) => format!("trust.{id}"),
        None => format!("trust[{nth}]"),
    };
    let fields = Fields::of(node, place, TRUST, faults)?;
    let id = fields.required("id", "a short name for the log, such as \"k8s-prod-eu\"", faults);
    let issuer = fields.required("issuer", "what `iss` says, letter for letter", faults);
    let parsed =
        |text: &str| Period::parse(text).ok_or("is no length of time: write 90s, 15m, 1h or 1d");
    let trust = Trust {
        discovery_url: fields.text("discovery_url", faults),
        jwks: fields.get("jwks").and_then(|node| jwks(node, fields.at("jwks"), faults)),
        algorithms: algorithms(&fields, faults),
        audiences: fields.texts("audiences", faults),
        max_lifetime: fields.parsed("max_lifetime", parsed, faults).unwrap_or(Period::hours(24)),
        max_age: fields.parsed("max_age", parsed, faults),
        leeway: fields
            .parsed("leeway", parsed, faults)
            .unwrap_or(Period(std::time::Duration::from_secs(60))),
        single_use_jti: fields.flag("single_use_jti", faults),
        not_after: fields.parsed(
            "not_after",
            |text| {
                Moment::parse(text).ok_or("is no date: write 2027-06-30 or 2027-06-30T12:00:00Z")
            },
            faults,
        ),
        mode: fields.parsed("mode", mode, faults).unwrap_or(Mode::Enforce),
        named_only: fields.flag("named_only", faults),
        allow_loopback_http: fields.flag("allow_loopback_http", faults),
        grants: grants(&fields, faults),
        line: node.line,
        lines: fields.lines(),
        id: id.unwrap_or_else(|| format!("unnamed-{nth}")),
        issuer: issuer?,
    };
    Some(trust)
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "enforce" => Ok(Mode::Enforce),
        "audit" => Ok(Mode::Audit),
        _ => Err("is neither \"enforce\" nor \"audit\""),
    }
}

fn algorithms(fields: &Fields<'_>, faults: &mut Vec<PolicyFault>) -> Vec<Algorithm> {
    if fields.get("algorithms").is_none() {
        return vec![Algorithm::RS256, Algorithm::ES256];
    }
    let mut algorithms = Vec::new();
    for name in fields.texts("algorithms", faults) {
        match Algorithm::from_str(&name) {
            Ok(algorithm) => algorithms.push(algorithm),
            Err(_) => fields.fault(
                "algorithms",
                format!("names {name:?}: only public-key signatures are verified, such as RS256"),
                faults,
            ),
        }
    }
    algorithms
}

fn jwks(node: &Node, place: String, faults: &mut Vec<PolicyFault>) -> Option<Jwks> {
    let fields = Fields::of(node, place, JWKS, faults)?;
    let url = fields.text("url", faults);
    let inline = match fields.get("inline") {
        None => None,
        Some(Node { value: Value::Text(text), .. }) => Some(text.clone()),
        Some(table @ Node { value: Value::Table(_), .. }) => Some(table.to_json().to_string()),
        Some(other) => {
            let problem =
                format!("is {}: give a key set, as JSON text or as a table", other.value.kind());
            fields.fault("inline", problem, faults);
            return None;
        }
    };
    let (ca_file, bearer_file) =
        (fields.text("ca_file", faults), fields.text("bearer_file", faults));
    match (url, inline) {
        (Some(url), None) => Some(Jwks::Fetched { url, ca_file, bearer_file }),
        (None, Some(_)) if ca_file.is_some() || bearer_file.is_some() => {
            fields.own_fault("names a file for fetching keys, and none are fetched", faults);
            None
        }
        (None, Some(inline)) => Some(Jwks::Inline { inline }),
        _ => {
            fields.own_fault("needs either `url` or `inline`, and not both", faults);
            None
        }
    }
}

fn grants(fields: &Fields<'_>, faults: &mut Vec<PolicyFault>) -> Vec<Grant> {
    let nodes = fields.list("grant", faults);
    let read = |(nth, node): (usize, &Node)| {
        let place = match label(node, "name") {
            Some(name) => format!("{}.grant.{name}", fields.place),
            None => format!("{}.grant[{nth}]", fields.place),
        };
        grant(&Fields::of(node, place, GRANT, faults)?, faults)
    };
    nodes.iter().enumerate().filter_map(read).collect()
}

fn grant(fields: &Fields<'_>, faults: &mut Vec<PolicyFault>) -> Option<Grant> {
    let name = fields.required("name", "a short name for the log", faults);
    let before = faults.len();
    let subject = fields.parsed("subject", Pattern::parse, faults);
    let claims = conditions(fields, faults);
    let is_whole = faults.len() == before;
    let map = match fields.get("map") {
        Some(node) => mapping(node, fields.at("map"), faults),
        None => {
            let problem =
                "is missing: say who a match becomes, { identity = …, tenant = …, scopes = [ … ] }";
            fields.fault("map", problem, faults);
            None
        }
    };
    let (line, lines) = (fields.line, fields.lines());
    let name = name.unwrap_or_else(|| "unnamed".to_owned());
    Some(Grant { name, subject, claims, map: map?, line, lines, is_whole })
}

fn mapping(node: &Node, place: String, faults: &mut Vec<PolicyFault>) -> Option<Mapping> {
    let fields = Fields::of(node, place, MAP, faults)?;
    let missing = |name, what, faults: &mut Vec<_>| {
        if fields.get(name).is_none() {
            fields.fault(name, format!("is missing: give {what}"), faults);
        }
    };
    missing("identity", "who a match becomes, such as \"sa:{trust}:{sub}\"", faults);
    missing("tenant", "the one tenant it works in", faults);
    missing("scopes", "what it may do at most", faults);
    let identity = fields.parsed("identity", Template::parse, faults);
    let tenant = |text: &str| match text.contains(['{', '}']) {
        true => Err("is a template: a rule leads into one tenant, by its id"),
        false => {
            TenantId::new(text).map_err(|_| "is no tenant id: 1 to 255 bytes without white space")
        }
    };
    let tenant = fields.parsed("tenant", tenant, faults);
    let mut scopes = Scopes::new();
    let listed = fields.texts("scopes", faults);
    for scope in &listed {
        if scopes.insert(scope).is_err() {
            fields.fault(
                "scopes",
                "has a character that scopes do not have (RFC 6749 §3.3)",
                faults,
            );
        }
    }
    if scopes.is_empty() && listed.iter().all(String::is_empty) && fields.get("scopes").is_some() {
        fields.fault("scopes", "is empty: a rule that permits nothing is no rule", faults);
    }
    // What could not be read is reported; with something in its place, the rest is looked at, too.
    let identity = identity.or_else(|| Template::parse("sa:unreadable").ok())?;
    let tenant = tenant.or_else(|| TenantId::new("unreadable").ok())?;
    Some(Mapping { identity, tenant, scopes })
}

fn conditions(fields: &Fields<'_>, faults: &mut Vec<PolicyFault>) -> Vec<(ClaimPath, Condition)> {
    let members = match fields.get("claims") {
        None => return Vec::new(),
        Some(Node { value: Value::Table(members), .. }) => members,
        Some(other) => {
            fields.fault("claims", format!("is {}: give a table", other.value.kind()), faults);
            return Vec::new();
        }
    };
    let mut conditions = Vec::new();
    for (path, node) in members {
        let place = format!("{}.claims.{}", fields.place, path.escape_debug());
        match path.parse::<ClaimPath>() {
            Ok(path) => conditions.extend(condition(node, place, faults).map(|it| (path, it))),
            Err(error) => {
                faults.push(PolicyFault::new(node.line, place, format!("is no claim: {error}")))
            }
        }
    }
    conditions
}

fn condition(node: &Node, place: String, faults: &mut Vec<PolicyFault>) -> Option<Condition> {
    if !matches!(node.value, Value::Table(_)) {
        let problem = format!(
            "is {}: write {{ eq = … }}, {{ one_of = [ … ] }}, {{ glob = … }} or {{ contains = … }}",
            node.value.kind()
        );
        faults.push(PolicyFault::new(node.line, place, problem));
        return None;
    }
    let fields = Fields::of(node, place, CONDITION, faults)?;
    let given: Vec<&str> =
        CONDITION.iter().copied().filter(|name| fields.get(name).is_some()).collect();
    let &[kind] = given.as_slice() else {
        fields.own_fault("needs exactly one of eq, one_of, glob and contains", faults);
        return None;
    };
    match kind {
        "eq" => fields.constant(fields.get("eq")?, faults).map(Condition::Eq),
        "contains" => fields.constant(fields.get("contains")?, faults).map(Condition::Contains),
        "glob" => fields.parsed("glob", Pattern::parse, faults).map(Condition::Glob),
        _ => {
            let items = fields.list("one_of", faults);
            if items.is_empty() {
                fields.own_fault("lists no value: nothing could ever match", faults);
            }
            let read = |item| fields.constant(item, faults);
            items.iter().map(read).collect::<Option<_>>().map(Condition::OneOf)
        }
    }
}

/// A member that names the table it is in, if it is fit to be shown.
fn label<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    let Value::Table(members) = &node.value else { return None };
    let Value::Text(text) = &members.iter().find(|(member, _)| member == name)?.1.value else {
        return None;
    };
    is_label(text).then_some(text)
}

/// Fit for logs, metrics and identities.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// The members of a table, of which all are known.
struct Fields<'n> {
    place: String,
    line: usize,
    members: &'n [(String, Node)],
}

impl<'n> Fields<'n> {
    fn of(
        node: &'n Node,
        place: String,
        known: &[&str],
        faults: &mut Vec<PolicyFault>,
    ) -> Option<Self> {
        let Value::Table(members) = &node.value else {
            let problem = format!("is {}: give a table", node.value.kind());
            faults.push(PolicyFault::new(node.line, place, problem));
            return None;
        };
        for (name, member) in members.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            let name: String = name.chars().take(40).collect();
            let problem = format!("is not known here; the fields are {}", known.join(", "));
            faults.push(PolicyFault::new(member.line, format!("{place}.{name:?}"), problem));
        }
        Some(Self { place, line: node.line, members })
    }

    fn get(&self, name: &str) -> Option<&'n Node> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, node)| node)
    }

    fn at(&self, name: &str) -> String {
        match self.place.as_str() {
            "the policy" => name.to_owned(),
            place => format!("{place}.{name}"),
        }
    }

    /// How the header of a list of tables is written.
    fn header(&self, name: &str) -> String {
        if name == "grant" { "trust.grant".to_owned() } else { name.to_owned() }
    }

    fn lines(&self) -> Vec<(String, usize)> {
        self.members.iter().map(|(name, node)| (name.clone(), node.line)).collect()
    }

    fn fault(&self, name: &str, problem: impl Into<String>, faults: &mut Vec<PolicyFault>) {
        let line = self.get(name).map_or(self.line, |node| node.line);
        faults.push(PolicyFault::new(line, self.at(name), problem));
    }

    fn own_fault(&self, problem: &str, faults: &mut Vec<PolicyFault>) {
        faults.push(PolicyFault::new(self.line, self.place.clone(), problem));
    }

    fn text(&self, name: &str, faults: &mut Vec<PolicyFault>) -> Option<String> {
        match &self.get(name)?.value {
            Value::Text(text) => Some(text.clone()),
            other => {
                self.fault(name, format!("is {}: give a text", other.kind()), faults);
                None
            }
        }
    }

    fn required(&self, name: &str, what: &str, faults: &mut Vec<PolicyFault>) -> Option<String> {
        if self.get(name).is_none() {
            self.fault(name, format!("is missing: give {what}"), faults);
        }
        self.text(name, faults)
    }

    fn parsed<T, E: Into<String>>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        faults: &mut Vec<PolicyFault>,
    ) -> Option<T> {
        let text = self.text(name, faults)?;
        parse(&text).map_err(|problem| self.fault(name, problem, faults)).ok()
    }

    fn flag(&self, name: &str, faults: &mut Vec<PolicyFault>) -> bool {
        match self.get(name).map(|node| &node.value) {
            None => false,
            Some(Value::Bool(truth)) => *truth,
            Some(other) => {
                self.fault(name, format!("is {}: give true or false", other.kind()), faults);
                false
            }
        }
    }

    fn list(&self, name: &str, faults: &mut Vec<PolicyFault>) -> &'n [Node] {
        match self.get(name).map(|node| &node.value) {
            None => &[],
            Some(Value::List(items)) => items,
            Some(other) => {
                let problem = match other {
                    Value::Table(_) => {
                        format!("is a table: give a list; in TOML, write [[{}]]", self.header(name))
                    }
                    _ => format!("is {}: give a list", other.kind()),
                };
                self.fault(name, problem, faults);
                &[]
            }
        }
    }

    fn texts(&self, name: &str, faults: &mut Vec<PolicyFault>) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.list(name, faults) {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                other => {
                    let problem = format!("has {} in it: give texts", other.kind());
                    self.fault(name, problem, faults);
                }
            }
        }
        texts
    }

    fn constant(&self, node: &Node, faults: &mut Vec<PolicyFault>) -> Option<Constant> {
        match &node.value {
            Value::Text(text) => Some(Constant::Text(text.clone())),
            Value::Bool(truth) => Some(Constant::Bool(*truth)),
            Value::Integer(number) if number.abs() < LARGEST => Some(Constant::Integer(*number)),
            other => {
                let problem = format!(
                    "compares with {}: give a text, a whole number below 2^53, true or false",
                    other.kind()
                );
                faults.push(PolicyFault::new(node.line, self.place.clone(), problem));
                None
            }
        }
    }
}
