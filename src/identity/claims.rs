//! Claims to [`Identity`]: the only place where what was sent becomes what we believe.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::sent::Sent;
use super::texts::{Span, Writer};
use super::{
    Actor, ClaimPath, ClaimsMapping, Identity, IdentityKind, Inner, Provenance, Scopes, TenantId,
};
use crate::error::InvalidToken;
use crate::json::Value;

/// The largest NumericDate taken: 2^53, up to which JSON numbers are exact.
const LATEST: f64 = 9_007_199_254_740_992.0;

/// What the reader of claims needs to know beside them.
pub(crate) struct Reading<'r> {
    pub(crate) issuer: Arc<str>,
    pub(crate) mapping: &'r ClaimsMapping,
    pub(crate) provenance: Provenance,
    /// Take `client_id` for `sub` where a client-credentials token has none.
    pub(crate) legacy_service_tokens: bool,
}

impl Reading<'_> {
    /// Reads `claims`, which the identity keeps as they were `sent`.
    pub(crate) fn identity(
        self,
        claims: Value<'_>,
        sent: impl FnOnce() -> Sent,
    ) -> Result<Identity, InvalidToken> {
        let mapping = self.mapping;
        let client_id = match text(claims.get("client_id"), "client_id")? {
            Some(client_id) => Some(client_id),
            None => text(claims.get("azp"), "azp")?,
        };
        let client_grant =
            claims.get("token_type").and_then(Value::as_str) == Some("client_credentials");
        let subject = match text(claims.get("sub"), "sub")? {
            None if self.legacy_service_tokens && client_grant => client_id,
            subject => subject,
        };
        let subject =
            subject.filter(|sub| !sub.is_empty()).ok_or(InvalidToken::MissingClaim("sub"))?;
        let kind = match mapping.kind {
            Some(kind) => kind,
            None if client_grant || client_id == Some(subject) => IdentityKind::ServiceAccount,
            None => IdentityKind::User,
        };
        let issued_at = time(claims.get("iat"), "iat")?;
        let expires_at =
            time(claims.get("exp"), "exp")?.ok_or(InvalidToken::MissingClaim("exp"))?;
        let partner_id = first(claims, &mapping.partner_id, "partner_id")?;
        let display_name = first(claims, &mapping.display_name, "name")?;
        let email = first(claims, &mapping.email, "email")?;
        let singles = [Some(subject), client_id, partner_id, display_name, email];
        let lists = [&mapping.roles, &mapping.groups].map(|paths| room_for_names(claims, paths));
        let room = singles.into_iter().flatten().map(str::len).chain(lists).sum();
        let mut texts = Writer::with_room(room);
        Ok(Identity(Arc::new(Inner {
            tenant_id: tenant(claims, mapping)?,
            subject: texts.add(subject),
            client_id: texts.add_if_any(client_id),
            partner_id: texts.add_if_any(partner_id),
            display_name: texts.add_if_any(display_name),
            email: texts.add_if_any(email),
            email_verified: claims.get("email_verified").and_then(Value::as_bool).unwrap_or(false),
            scopes: scopes(claims, mapping)?,
            roles: names(claims, &mapping.roles, "roles", &mut texts)?,
            groups: names(claims, &mapping.groups, "groups", &mut texts)?,
            mfa_verified_at: mfa_verified_at(claims, mapping)?,
            actors: actors(claims)?,
            issuer: self.issuer,
            provenance: self.provenance,
            texts: texts.finish(),
            sent: sent(),
            kind,
            issued_at,
            expires_at,
        })))
    }
}

/// The tenant that `claims` name under `mapping`.
pub(crate) fn tenant(
    claims: Value<'_>,
    mapping: &ClaimsMapping,
) -> Result<Option<TenantId>, InvalidToken> {
    first(claims, &mapping.tenant_id, "tenant_id")?
        .map(|id| TenantId::new(id).map_err(|_| InvalidToken::MalformedClaim("tenant_id")))
        .transpose()
}

/// A NumericDate (RFC 7519 §2): a finite, non-negative number up to 2^53, possibly with a fraction.
pub(crate) fn numeric_date(
    value: Option<Value<'_>>,
    name: &'static str,
) -> Result<Option<f64>, InvalidToken> {
    let Some(value) = value else { return Ok(None) };
    match value.as_f64() {
        Some(seconds) if (0.0..=LATEST).contains(&seconds) => Ok(Some(seconds)),
        _ => Err(InvalidToken::MalformedClaim(name)),
    }
}

fn time(value: Option<Value<'_>>, name: &'static str) -> Result<Option<SystemTime>, InvalidToken> {
    let Some(seconds) = numeric_date(value, name)? else { return Ok(None) };
    // Whole seconds: what a fraction adds is below every leeway.
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds as u64))
        .map(Some)
        .ok_or(InvalidToken::MalformedClaim(name))
}

/// A string, or absent; `null` is absent.
pub(crate) fn text<'v>(
    value: Option<Value<'v>>,
    name: &'static str,
) -> Result<Option<&'v str>, InvalidToken> {
    match value {
        None => Ok(None),
        Some(value) if value.is_null() => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or(InvalidToken::MalformedClaim(name)),
    }
}

/// What the paths lead to, without `null`s.
fn found<'v>(claims: Value<'v>, paths: &'v [ClaimPath]) -> impl Iterator<Item = Value<'v>> {
    paths.iter().filter_map(move |path| claims.follow(path.steps())).filter(|v| !v.is_null())
}

fn first<'v>(
    claims: Value<'v>,
    paths: &'v [ClaimPath],
    name: &'static str,
) -> Result<Option<&'v str>, InvalidToken> {
    text(found(claims, paths).next(), name)
}

pub(crate) fn scopes(claims: Value<'_>, mapping: &ClaimsMapping) -> Result<Scopes, InvalidToken> {
    let malformed = InvalidToken::MalformedClaim("scope");
    let mut scopes = Scopes::new();
    for value in found(claims, &mapping.scopes) {
        if let Some(list) = value.as_str() {
            scopes.insert(list).map_err(|_| malformed)?;
        } else if value.is_list() {
            for item in value.children() {
                scopes.insert(item.as_str().ok_or(malformed)?).map_err(|_| malformed)?;
            }
        } else {
            return Err(malformed);
        }
    }
    Ok(scopes)
}

/// What [`names`] takes if no name occurs twice.
fn room_for_names(claims: Value<'_>, paths: &[ClaimPath]) -> usize {
    let named = |value: Value<'_>| value.as_str().map_or(0, |name| name.len() + 1);
    let of =
        |value: Value<'_>| value.children().map(named).fold(named(value), usize::saturating_add);
    found(claims, paths).map(of).sum()
}

/// A string, or a list of strings or of objects with a `value` (RFC 9068 §2.2.3.1, RFC 7643 §4.1.2).
fn names(
    claims: Value<'_>,
    paths: &[ClaimPath],
    name: &'static str,
    texts: &mut Writer,
) -> Result<Span, InvalidToken> {
    let malformed = InvalidToken::MalformedClaim(name);
    let mut names = texts.list();
    for value in found(claims, paths) {
        if let Some(single) = value.as_str() {
            names.insert(single).map_err(|_| malformed)?;
        } else if value.is_list() {
            for item in value.children() {
                let named = item.as_str().or_else(|| item.get("value").and_then(Value::as_str));
                names.insert(named.ok_or(malformed)?).map_err(|_| malformed)?;
            }
        } else {
            return Err(malformed);
        }
    }
    Ok(names.finish())
}

fn mfa_verified_at(
    claims: Value<'_>,
    mapping: &ClaimsMapping,
) -> Result<Option<SystemTime>, InvalidToken> {
    let amr = claims.get("amr").filter(|amr| amr.is_list());
    let by_method =
        amr.is_some_and(|amr| amr.children().any(|method| method.as_str() == Some("mfa")));
    let acr = claims.get("acr").and_then(Value::as_str);
    let by_class = acr.is_some_and(|acr| mapping.mfa_acr.iter().any(|mfa| mfa == acr));
    if by_method || by_class { time(claims.get("auth_time"), "auth_time") } else { Ok(None) }
}

/// The `act` chain, outermost first. Its depth is bounded by the JSON reader.
fn actors(claims: Value<'_>) -> Result<Box<[Actor]>, InvalidToken> {
    let mut chain = Vec::new();
    let mut next = claims.get("act").filter(|act| !act.is_null());
    while let Some(act) = next {
        if !act.is_object() {
            return Err(InvalidToken::MalformedClaim("act"));
        }
        let member = |name| text(act.get(name), "act").map(|found| found.map(Box::from));
        chain.push(Actor {
            subject: member("sub")?,
            client_id: member("client_id")?,
            issuer: member("iss")?,
        });
        next = act.get("act").filter(|act| !act.is_null());
    }
    Ok(chain.into())
}
