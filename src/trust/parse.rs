//! From a tree to trusts: unknown, missing and mistyped fields, all reported.

use super::fault::Faults;
use super::glob::Pattern;
use super::policy::{Jwks, Mode, Trust};
use super::rule::{Condition, Constant, Grant, Mapping, Template};
use super::time::{Expiry, Period};
use super::tree::{Node, Value};
use crate::config::Algorithm;
use crate::identity::{ClaimPath, Scopes, TenantId};

/// Numbers up to this are exact however a JSON reader holds them.
const LARGEST: u64 = 1 << 53;

/// What the whole is called.
const POLICY: &str = "the policy";

/// The fields of each table.
const TRUST: &str = "id, issuer, discovery_url, jwks, algorithms, audiences, max_lifetime, max_age, \
    leeway, single_use_jti, not_after, mode, named_only, allow_loopback_http, grant";
const JWKS: &str = "url, ca_file, bearer_file, inline";
const GRANT: &str = "name, subject, claims, map";
const MAP: &str = "identity, tenant, scopes";
const CONDITION: &str = "eq, one_of, glob, contains";

/// Reads what can be read, and reports what cannot.
pub(super) fn policy(tree: &Node, faults: &Faults) -> Vec<Trust> {
    let at = At { node: tree, place: POLICY.to_owned(), faults };
    at.table("trust");
    at.list("trust", Some("id"), trust)
}

fn trust(at: &At<'_>) -> Option<Trust> {
    at.table(TRUST)?;
    let id =
        at.required("id", "is missing: give a short name for the log, such as \"k8s-prod-eu\"");
    let issuer = at.required("issuer", "is missing: give what `iss` says, letter for letter");
    let trust = Trust {
        // No two have as many faults before them.
        id: id.and_then(|at| text(&at)).unwrap_or_else(|| format!("unnamed-{}", at.faults.count())),
        discovery_url: at.read("discovery_url", text),
        jwks: at.read("jwks", jwks),
        algorithms: match at.get("algorithms") {
            Some(_) => at.list("algorithms", None, algorithm),
            None => vec![Algorithm::RS256, Algorithm::ES256],
        },
        audiences: at.list("audiences", None, text),
        max_lifetime: at.read("max_lifetime", period).unwrap_or(Period::seconds(24 * 3600)),
        max_age: at.read("max_age", period),
        leeway: at.read("leeway", period).unwrap_or(Period::seconds(60)),
        single_use_jti: at.read("single_use_jti", flag).unwrap_or_default(),
        not_after: at.read("not_after", expiry),
        mode: at.read("mode", mode).unwrap_or(Mode::Enforce),
        named_only: at.read("named_only", flag).unwrap_or_default(),
        allow_loopback_http: at.read("allow_loopback_http", flag).unwrap_or_default(),
        grants: at.list("grant", Some("name"), grant),
        lines: at.node.lines(),
        // Last, so that without one the faults of the rest are told.
        issuer: issuer.and_then(|at| text(&at))?,
    };
    Some(trust)
}

fn jwks(at: &At<'_>) -> Option<Jwks> {
    at.table(JWKS)?;
    let url = at.read("url", text);
    let inline = match at.get("inline") {
        Some(inline) => Some(key_set(&inline)?),
        None => None,
    };
    let (ca_file, bearer_file) = (at.read("ca_file", text), at.read("bearer_file", text));
    match (url, inline) {
        (Some(url), None) => Some(Jwks::Fetched { url, ca_file, bearer_file }),
        (None, Some(_)) if ca_file.is_some() || bearer_file.is_some() => {
            at.fault("names a file for fetching keys, and none are fetched")
        }
        (None, Some(inline)) => Some(Jwks::Inline { inline }),
        _ => at.fault("needs either `url` or `inline`, and not both"),
    }
}

fn key_set(at: &At<'_>) -> Option<String> {
    match &at.node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Table(_) => serde_json::to_string(at.node).ok(),
        _ => at.is_not("a key set, as JSON text or as a table"),
    }
}

fn grant(at: &At<'_>) -> Option<Grant> {
    at.table(GRANT)?;
    let name = at.required("name", "is missing: give a short name for the log");
    let name = name.and_then(|at| text(&at)).unwrap_or_else(|| "unnamed".to_owned());
    let before = at.faults.count();
    let subject = at.read("subject", pattern);
    let claims = at.read("claims", conditions).unwrap_or_default();
    let is_whole = at.faults.count() == before;
    let map = at.required(
        "map",
        "is missing: say who a match becomes, { identity = …, tenant = …, scopes = [ … ] }",
    );
    Some(Grant { name, subject, claims, map: mapping(&map?)?, lines: at.node.lines(), is_whole })
}

fn mapping(at: &At<'_>) -> Option<Mapping> {
    at.table(MAP)?;
    let identity = at
        .required("identity", "is missing: give who a match becomes, such as \"sa:{trust}:{sub}\"");
    let tenant = at.required("tenant", "is missing: give the one tenant it works in");
    let scopes = at.required("scopes", "is missing: give what it may do at most");
    // What could not be read is reported; with something in its place, the rest is looked at, too.
    Some(Mapping {
        identity: identity
            .and_then(|at| at.parse(Template::parse))
            .or_else(|| Template::parse("sa:unreadable").ok())?,
        tenant: tenant
            .and_then(|at| tenant_id(&at))
            .or_else(|| TenantId::new("unreadable").ok())?,
        scopes: scopes.and_then(|scopes| permitted(at, &scopes)).unwrap_or_default(),
    })
}

/// Reads the scopes of a `map`; `at` is their list. Each that is none is reported by itself.
fn permitted(map: &At<'_>, at: &At<'_>) -> Option<Scopes> {
    let before = at.faults.count();
    let scopes: Scopes = map.list("scopes", None, scope).join(" ").parse().ok()?;
    match scopes.is_empty() {
        false => Some(scopes),
        true if at.faults.count() > before => None,
        true => at.fault("is empty: a rule that permits nothing is no rule"),
    }
}

fn scope(at: &At<'_>) -> Option<String> {
    let read = |text: &str| text.parse::<Scopes>().map(|_| text.to_owned());
    at.parse(|text| {
        read(text).map_err(|_| "has a character that scopes do not have (RFC 6749 §3.3)")
    })
}

fn conditions(at: &At<'_>) -> Option<Vec<(ClaimPath, Condition)>> {
    let mut conditions = Vec::new();
    let mut paths: Vec<ClaimPath> = Vec::new();
    for (name, node) in at.members()? {
        let member = At { node, place: format!("{}.{}", at.place, name.escape_debug()), ..*at };
        match name.parse::<ClaimPath>() {
            // A claim's name, and a pointer to it.
            Ok(path) if paths.contains(&path) => member.note("is given twice, in two spellings"),
            Ok(path) => {
                paths.push(path.clone());
                // With something in place of what could not be read, its claim is looked at, too.
                let nothing = Condition::OneOf(Vec::new());
                conditions.push((path, condition(&member).unwrap_or(nothing)));
            }
            Err(error) => member.note(format!("is no claim: {error}")),
        }
    }
    // So that what is the same is equal in whatever order it was written.
    conditions.sort_by_cached_key(|(path, _)| path.to_string());
    Some(conditions)
}

fn condition(at: &At<'_>) -> Option<Condition> {
    let Value::Table(_) = at.node.value else {
        return at.fault(format!(
            "is {}: write {{ eq = … }}, {{ one_of = [ … ] }}, {{ glob = … }} or {{ contains = … }}",
            at.node.value.kind()
        ));
    };
    at.table(CONDITION)?;
    let given = CONDITION.split(", ").filter_map(|name| Some((name, at.get(name)?)));
    let given: Vec<_> = given.collect();
    match &*given {
        [("eq", value)] => constant(&At { place: at.place.clone(), ..*value }).map(Condition::Eq),
        [("contains", value)] => constant(value).map(Condition::Contains),
        [("glob", value)] => pattern(value).map(Condition::Glob),
        [("one_of", list)] => match &list.node.value {
            Value::List(none) if none.is_empty() => {
                at.fault("lists no value: nothing could ever match")
            }
            _ => Some(Condition::OneOf(at.list("one_of", None, constant))),
        },
        _ => at.fault("needs exactly one of eq, one_of, glob and contains"),
    }
}

fn constant(at: &At<'_>) -> Option<Constant> {
    match &at.node.value {
        Value::Text(text) => Some(Constant::Text(text.clone())),
        Value::Bool(truth) => Some(Constant::Bool(*truth)),
        Value::Integer(number) if number.unsigned_abs() < LARGEST => {
            Some(Constant::Integer(*number))
        }
        other => at.fault(format!(
            "compares with {}: give a text, a whole number below 2^53, true or false",
            other.kind()
        )),
    }
}

fn text(at: &At<'_>) -> Option<String> {
    at.parse(|text| Ok::<_, String>(text.to_owned()))
}

fn flag(at: &At<'_>) -> Option<bool> {
    match at.node.value {
        Value::Bool(truth) => Some(truth),
        _ => at.is_not("true or false"),
    }
}

fn pattern(at: &At<'_>) -> Option<Pattern> {
    at.parse(Pattern::parse)
}

fn period(at: &At<'_>) -> Option<Period> {
    at.parse(|text| Period::parse(text).ok_or("is no length of time: write 90s, 15m, 1h or 1d"))
}

fn expiry(at: &At<'_>) -> Option<Expiry> {
    let problem = "is no date: write 2027-06-30 or 2027-06-30T12:00:00Z";
    at.parse(|text| Expiry::parse(text).ok_or(problem))
}

fn mode(at: &At<'_>) -> Option<Mode> {
    at.parse(|text| match text {
        "enforce" => Ok(Mode::Enforce),
        "audit" => Ok(Mode::Audit),
        _ => Err("is neither \"enforce\" nor \"audit\""),
    })
}

fn algorithm(at: &At<'_>) -> Option<Algorithm> {
    at.parse(|name| {
        name.parse().map_err(|_| {
            format!("names {name:?}: only public-key signatures are verified, such as RS256")
        })
    })
}

fn tenant_id(at: &At<'_>) -> Option<TenantId> {
    at.parse(|text| match text.contains(['{', '}']) {
        true => Err("is a template: a rule leads into one tenant, by its id"),
        false => {
            TenantId::new(text).map_err(|_| "is no tenant id: 1 to 255 bytes without white space")
        }
    })
}

/// Fit for logs, metrics and identities.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// A value of the tree, what its place is called, and where faults are noted.
struct At<'r> {
    node: &'r Node,
    place: String,
    faults: &'r Faults,
}

impl<'r> At<'r> {
    fn note(&self, problem: impl Into<String>) {
        self.faults.note(self.node.line, &*self.place, problem);
    }

    /// Notes a fault, in place of the value.
    fn fault<T>(&self, problem: impl Into<String>) -> Option<T> {
        self.note(problem);
        None
    }

    fn is_not<T>(&self, wanted: &str) -> Option<T> {
        self.fault(format!("is {}: give {wanted}", self.node.value.kind()))
    }

    fn members(&self) -> Option<&'r [(String, Node)]> {
        match &self.node.value {
            Value::Table(members) => Some(members),
            _ => self.is_not("a table"),
        }
    }

    /// Notes whether it is no table, and which members are not known.
    fn table(&self, known: &str) -> Option<()> {
        for (name, member) in self.members()? {
            if !known.split(", ").any(|field| field == name) {
                let name: String = name.chars().take(40).collect();
                let problem = format!("is not known here; the fields are {known}");
                self.faults.note(member.line, format!("{}.{name:?}", self.place), problem);
            }
        }
        Some(())
    }

    /// A value of the tree as the field `name`.
    fn field(&self, name: &str, node: &'r Node) -> Self {
        let place = match self.place.as_str() {
            POLICY => name.to_owned(),
            place => format!("{place}.{name}"),
        };
        Self { node, place, faults: self.faults }
    }

    fn get(&self, name: &str) -> Option<Self> {
        self.node.get(name).map(|node| self.field(name, node))
    }

    /// A field, or a fault that says so: it stands in the line of the table.
    fn required(&self, name: &str, missing: &str) -> Option<Self> {
        self.get(name).or_else(|| self.field(name, self.node).fault(missing))
    }

    /// Reads a field, if it is there and can be read.
    fn read<T>(&self, name: &str, read: impl FnOnce(&Self) -> Option<T>) -> Option<T> {
        read(&self.get(name)?)
    }

    fn parse<T, E: Into<String>>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match &self.node.value {
            Value::Text(text) => parse(text).map_err(|problem| self.note(problem)).ok(),
            _ => self.is_not("a text"),
        }
    }

    /// Reads a list: what of it can be read. Items with a `label` are called by it, or by their number.
    fn list<T>(
        &self,
        name: &str,
        label: Option<&str>,
        read: impl Fn(&Self) -> Option<T>,
    ) -> Vec<T> {
        let Some(list) = self.get(name) else { return Vec::new() };
        let items = match &list.node.value {
            Value::List(items) => items.as_slice(),
            Value::Table(_) => {
                let header = if name == "grant" { "trust.grant" } else { name };
                list.note(format!("is a table: give a list; in TOML, write [[{header}]]"));
                &[]
            }
            _ => list.is_not("a list").unwrap_or_default(),
        };
        let item = |(nth, node): (usize, &'r Node)| {
            let place = match label.map(|label| node.get(label)) {
                None => list.place.clone(),
                Some(Some(Node { value: Value::Text(text), .. })) if is_label(text) => {
                    format!("{}.{text}", list.place)
                }
                Some(_) => format!("{}[{nth}]", list.place),
            };
            read(&Self { node, place, faults: self.faults })
        };
        items.iter().enumerate().filter_map(item).collect()
    }
}
