//! Converts a parsed tree to trusts. Reports all unknown, missing and mistyped fields.

use std::collections::HashSet;

use super::delegation::Delegation;
use super::fault::{Faults, Position, shorten};
use super::pattern::Pattern;
use super::policy::{Authority, Jwks, Mode, SVID_ALGORITHMS, Trust, TrustPolicy};
use super::reader::{FieldReader, POLICY};
use super::rule::{Condition, Constant, Grant, Mapping, Template};
use super::time::{Expiry, Period};
use super::tree::{Node, NodeValue, Positions};
use crate::config::Algorithm;
use crate::identity::{ClaimPath, Scopes, TenantId, spiffe_id};

/// What a tenant's administrator submits about a trust.
pub(super) struct TenantTrust {
    pub(super) id: String,
    pub(super) grants: Vec<Grant>,
    pub(super) positions: Positions,
}

/// Below this limit an `f64` holds every integer exactly.
const MAX_INTEGER: u64 = 1 << 53;

/// The limit of the scopes of a rule or delegation together, in bytes. They are kept with each decision, and no token
/// holds more.
const MAX_SCOPES_BYTES: usize = 8 * 1024;

/// The fields of each table.
pub(super) const TRUST: &str = "id, issuer, trust_domain, discovery_url, jwks, bundle, algorithms, audiences, \
    max_lifetime, max_age, leeway, single_use_jti, not_after, mode, named_only, \
    insecure_shared_audience, allow_loopback_http, grant, delegation";
const JWKS: &str = "url, file, ca_file, bearer_file, inline";
const GRANT: &str = "name, subject, claims, map";
const DELEGATION: &str = "tenant, subject, claims, scopes";
const MAP: &str = "identity, tenant, scopes";
const CONDITION: &str = "eq, one_of, glob, contains";

/// Returns the trusts that can be read, and reports the faults of the others.
pub(super) fn policy(tree: &Node, faults: &Faults) -> Vec<Trust> {
    let field = FieldReader { node: tree, place: POLICY.to_owned(), faults };
    field.check_fields("trust");
    let trusts = field.list("trust", Some("id"), trust);
    check_count("trusts", trusts.iter().map(|trust| trust.positions.own), faults);
    let delegations = trusts.iter().flat_map(|trust| &trust.delegations);
    check_count("delegations", delegations.map(|delegation| delegation.positions.own), faults);
    let grants = trusts.iter().flat_map(|trust| &trust.grants);
    check_count("rules", grants.map(|grant| grant.positions.own), faults);
    trusts
}

/// Returns the trusts of a tenant's text that can be read, and reports the faults of the others.
pub(super) fn tenant_policy(tree: &Node, faults: &Faults) -> Vec<TenantTrust> {
    let field = FieldReader { node: tree, place: POLICY.to_owned(), faults };
    field.check_fields("trust");
    field.list("trust", Some("id"), tenant_trust)
}

fn tenant_trust(field: &FieldReader<'_>) -> Option<TenantTrust> {
    field.check_fields("id, grant")?;
    let id = field.required("id", "is missing: give the id of the trust");
    let grants = field.list("grant", Some("name"), grant);
    Some(TenantTrust { id: text(&id?)?, grants, positions: field.node.positions() })
}

/// Reports a fault at the first trust, delegation or rule above the limit.
fn check_count(kind: &str, mut places: impl Iterator<Item = Position>, faults: &Faults) {
    let limit = TrustPolicy::MAX_RULES;
    if let Some(at) = places.nth(limit) {
        faults.report(
            at,
            POLICY,
            format!("has more than {limit} {kind}: remove those without use"),
        );
    }
}

fn trust(field: &FieldReader<'_>) -> Option<Trust> {
    field.check_fields(TRUST)?;
    let id =
        field.required("id", "is missing: give a short name for the log, such as \"k8s-prod-eu\"");
    let authority = authority(field);
    let is_trust_domain = field.get("trust_domain").is_some();
    let trust = Trust {
        // The number of earlier faults makes the name unique.
        id: id
            .and_then(|field| text(&field))
            .unwrap_or_else(|| format!("unnamed-{}", field.faults.count())),
        discovery_url: field.read("discovery_url", text),
        jwks: field.read("jwks", jwks),
        bundle: field.read("bundle", jwks),
        algorithms: match field.get("algorithms") {
            Some(_) => field.short_list("algorithms", algorithm),
            None if is_trust_domain => SVID_ALGORITHMS.to_vec(),
            None => vec![Algorithm::RS256, Algorithm::ES256],
        },
        audiences: field.short_list("audiences", text),
        max_lifetime: field.read("max_lifetime", period).unwrap_or(Period::seconds(24 * 3600)),
        max_age: field.read("max_age", period),
        leeway: field.read("leeway", period).unwrap_or(Period::seconds(60)),
        single_use_jti: field.read("single_use_jti", flag).unwrap_or_default(),
        not_after: field.read("not_after", expiry),
        mode: field.read("mode", mode).unwrap_or(Mode::Enforce),
        named_only: field.read("named_only", flag).unwrap_or_default(),
        insecure_shared_audience: field.read("insecure_shared_audience", flag).unwrap_or_default(),
        allow_loopback_http: field.read("allow_loopback_http", flag).unwrap_or_default(),
        grants: field.list("grant", Some("name"), grant),
        delegations: field.list("delegation", Some("tenant"), delegation),
        positions: field.node.positions(),
        // Last, so that the faults of all other fields are reported even if this one is missing.
        authority: authority?,
    };
    Some(trust)
}

fn authority(field: &FieldReader<'_>) -> Option<Authority> {
    let Some(trust_domain) = field.get("trust_domain") else {
        let problem = "is missing: give the exact value of `iss`, or `trust_domain` if the tokens are JWT-SVIDs";
        return text(&field.required("issuer", problem)?).map(Authority::Issuer);
    };
    if field.get("issuer").is_some() {
        return trust_domain
            .report_none("is given together with `issuer`: remove one, because JWT-SVIDs are found by the trust domain of `sub`, and other tokens by `iss`");
    }
    trust_domain.parse(|name| match spiffe_id::is_trust_domain(name) {
        true => Ok(Authority::TrustDomain(format!("spiffe://{name}"))),
        false => Err("is not the name of a trust domain: give it without scheme and path, such as \"prod.acme.example\", in lower case"),
    })
}

fn jwks(field: &FieldReader<'_>) -> Option<Jwks> {
    field.check_fields(JWKS)?;
    let (url, file) = (field.read("url", text), field.read("file", text));
    let inline = match field.get("inline") {
        Some(inline) => Some(key_set(&inline)?),
        None => None,
    };
    let (ca_file, bearer_file) = (field.read("ca_file", text), field.read("bearer_file", text));
    match (url, file, inline) {
        (Some(url), None, None) => Some(Jwks::Fetched { url, ca_file, bearer_file }),
        (None, Some(_), None) | (None, None, Some(_))
            if ca_file.is_some() || bearer_file.is_some() =>
        {
            field.report_none(
                "has `ca_file` or `bearer_file`, which have no effect without `url`: remove them",
            )
        }
        (None, Some(file), None) => Some(Jwks::File { file }),
        (None, None, Some(inline)) => Some(Jwks::Inline { inline }),
        _ => field.report_none("needs exactly one of `url`, `file` and `inline`"),
    }
}

fn key_set(field: &FieldReader<'_>) -> Option<String> {
    match &field.node.value {
        NodeValue::Text(text) => Some(text.clone()),
        NodeValue::Table(_) => serde_json::to_string(field.node).ok(),
        _ => field.report_type("a key set, as JSON text or as a table"),
    }
}

fn grant(field: &FieldReader<'_>) -> Option<Grant> {
    field.check_fields(GRANT)?;
    let name = field.required("name", "is missing: give a short name for the log");
    let name = name.and_then(|field| text(&field)).unwrap_or_else(|| "unnamed".to_owned());
    let before = field.faults.count();
    let subject = field.read("subject", pattern);
    let claims = field.read("claims", conditions).unwrap_or_default();
    let is_complete = field.faults.count() == before;
    let map =
        field.required("map", "is missing: give { identity = …, tenant = …, scopes = [ … ] }");
    Some(Grant {
        name,
        subject,
        claims,
        map: mapping(&map?)?,
        positions: field.node.positions(),
        is_complete,
    })
}

fn delegation(field: &FieldReader<'_>) -> Option<Delegation> {
    field.check_fields(DELEGATION)?;
    let before = field.faults.count();
    let subject = field.read("subject", pattern);
    let claims = field.read("claims", conditions).unwrap_or_default();
    let is_complete = field.faults.count() == before;
    let tenant = field
        .required("tenant", "is missing: give the tenant whose administrators may write rules");
    let scopes = field.required("scopes", "is missing: give the scopes that the rules may grant");
    let scopes = scopes.and_then(|list| permitted_scopes(field, &list));
    Some(Delegation {
        tenant: tenant_id(&tenant?)?,
        subject,
        claims,
        scopes: scopes.unwrap_or_default(),
        positions: field.node.positions(),
        is_complete,
    })
}

fn mapping(field: &FieldReader<'_>) -> Option<Mapping> {
    field.check_fields(MAP)?;
    let identity = field.required(
        "identity",
        "is missing: give the workload's identity, such as \"sa:{trust}:{sub}\"",
    );
    let tenant = field.required("tenant", "is missing: give the workload's tenant");
    let scopes = field.required("scopes", "is missing: give the permitted scopes");
    // Unreadable values, which have been reported, are replaced, so that the linter can check the
    // other fields.
    Some(Mapping {
        identity: identity
            .and_then(|field| field.parse(Template::parse))
            .or_else(|| Template::parse("sa:unreadable").ok())?,
        tenant: tenant
            .and_then(|field| tenant_id(&field))
            .or_else(|| TenantId::new("unreadable").ok())?,
        scopes: scopes.and_then(|list| permitted_scopes(field, &list)).unwrap_or_default(),
        positions: field.node.positions(),
    })
}

/// Reads the field `scopes` of `map`. Reports each invalid scope, and too many.
fn permitted_scopes(map: &FieldReader<'_>, list: &FieldReader<'_>) -> Option<Scopes> {
    let before = list.faults.count();
    let scopes = map.list("scopes", None, scope).join(" ");
    if scopes.len() > MAX_SCOPES_BYTES {
        let problem = format!(
            "has {} bytes, above the limit of {MAX_SCOPES_BYTES}: remove those without use",
            scopes.len()
        );
        return list.report_none(problem);
    }
    let scopes: Scopes = scopes.parse().ok()?;
    match scopes.is_empty() {
        false => Some(scopes),
        true if list.faults.count() > before => None,
        true => list.report_none("is empty: give at least one scope"),
    }
}

fn scope(field: &FieldReader<'_>) -> Option<String> {
    let read = |text: &str| text.parse::<Scopes>().map(|_| text.to_owned());
    field.parse(|text| {
        read(text).map_err(|_| "has a character that a scope cannot contain (RFC 6749 §3.3)")
    })
}

fn conditions(field: &FieldReader<'_>) -> Option<Vec<(ClaimPath, Condition)>> {
    let mut conditions = Vec::new();
    let mut paths = HashSet::new();
    for (name, node) in field.members()? {
        let member = FieldReader {
            node,
            place: format!("{}.{}", field.place, shorten(name).escape_debug()),
            ..*field
        };
        match name.parse::<ClaimPath>() {
            // A claim's name and the pointer to it are the same path.
            Ok(path) if !paths.insert(path.clone()) => {
                member.report("is given twice, as a name and as a pointer: remove one")
            }
            Ok(path) => {
                // An empty condition stands for an unreadable one, so that the linter still checks
                // its path.
                let unreadable = Condition::OneOf(Vec::new());
                conditions.push((path, condition(&member).unwrap_or(unreadable)));
            }
            Err(error) => member.report(format!("is not a claim: {error}")),
        }
    }
    // Sorted, so that rules that differ only in the order of their conditions are equal.
    conditions.sort_by_cached_key(|(path, _)| path.to_string());
    Some(conditions)
}

fn condition(field: &FieldReader<'_>) -> Option<Condition> {
    let NodeValue::Table(_) = field.node.value else {
        return field.report_none(format!(
            "is {}: write {{ eq = … }}, {{ one_of = [ … ] }}, {{ glob = … }} or {{ contains = … }}",
            field.node.value.kind()
        ));
    };
    field.check_fields(CONDITION)?;
    let given = CONDITION.split(", ").filter_map(|name| Some((name, field.get(name)?)));
    let given: Vec<_> = given.collect();
    match &*given {
        [("eq", value)] => {
            constant(&FieldReader { place: field.place.clone(), ..*value }).map(Condition::Eq)
        }
        [("contains", value)] => constant(value).map(Condition::Contains),
        [("glob", value)] => pattern(value).map(Condition::Glob),
        [("one_of", list)] => match &list.node.value {
            NodeValue::List(none) if none.is_empty() => {
                field.report_none("is empty, so nothing could match: list at least one value")
            }
            _ => Some(Condition::OneOf(field.list("one_of", None, constant))),
        },
        _ => field.report_none("needs exactly one of eq, one_of, glob and contains"),
    }
}

fn constant(field: &FieldReader<'_>) -> Option<Constant> {
    match &field.node.value {
        NodeValue::Text(text) => Some(Constant::Text(text.clone())),
        NodeValue::Bool(flag) => Some(Constant::Bool(*flag)),
        NodeValue::Integer(number) if number.unsigned_abs() < MAX_INTEGER => {
            Some(Constant::Integer(*number))
        }
        other => field.report_none(format!(
            "cannot compare with {}: give a string, a whole number below 2^53, `true` or `false`",
            other.kind()
        )),
    }
}

fn text(field: &FieldReader<'_>) -> Option<String> {
    field.parse(|text| Ok::<_, String>(text.to_owned()))
}

fn flag(field: &FieldReader<'_>) -> Option<bool> {
    match field.node.value {
        NodeValue::Bool(flag) => Some(flag),
        _ => field.report_type("true or false"),
    }
}

fn pattern(field: &FieldReader<'_>) -> Option<Pattern> {
    field.parse(Pattern::parse)
}

fn period(field: &FieldReader<'_>) -> Option<Period> {
    field.parse(|text| Period::parse(text).ok_or("is not a duration: write 90s, 15m, 1h or 1d"))
}

fn expiry(field: &FieldReader<'_>) -> Option<Expiry> {
    let problem = "is not a date: write 2027-06-30 or 2027-06-30T12:00:00Z";
    field.parse(|text| Expiry::parse(text).ok_or(problem))
}

fn mode(field: &FieldReader<'_>) -> Option<Mode> {
    field.parse(|text| match text {
        "enforce" => Ok(Mode::Enforce),
        "audit" => Ok(Mode::Audit),
        _ => Err("is neither \"enforce\" nor \"audit\""),
    })
}

fn algorithm(field: &FieldReader<'_>) -> Option<Algorithm> {
    field.parse(|name| {
        name.parse().map_err(|_| {
            format!(
                "has {:?}: only public-key algorithms are supported, such as RS256",
                shorten(name)
            )
        })
    })
}

fn tenant_id(field: &FieldReader<'_>) -> Option<TenantId> {
    field.parse(|text| match text.contains(['{', '}']) {
        true => Err("contains a placeholder: give the id of one tenant"),
        false => TenantId::new(text)
            .map_err(|_| "is not a tenant id: give 1 to 255 bytes without white space"),
    })
}
