//! Claims to [`Identity`]: the only module that turns claims into an identity.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::claim_test::{ClaimTest, is_set};
use super::{
    Actor, ClaimPath, ClaimsMapping, Confirmation, Identity, IdentityKind, Inner, Provenance,
    Scopes, TenantId,
};
use crate::error::InvalidToken;
use crate::support::json::{Document, Span, Value};
use crate::support::telemetry::{self, LoggedOnce};

/// The largest accepted NumericDate: 2^53, up to which JSON numbers are exact.
const LATEST: f64 = 9_007_199_254_740_992.0;

/// The settings for reading an identity from claims.
pub(crate) struct Reading<'r> {
    pub(crate) issuer: Arc<str>,
    pub(crate) mapping: &'r ClaimsMapping,
    pub(crate) provenance: Provenance,
    /// Whether `client_id` replaces a missing `sub` in a client-credentials token, and in an introspection answer
    /// that names no user.
    pub(crate) legacy_service_tokens: bool,
    /// The ignored claims of the issuer that were logged. `None` logs none as new.
    pub(crate) logged: Option<&'r LoggedOnce>,
}

impl Identity {
    /// Creates an identity from claims that your own [validator](crate::TokenValidator) has verified, for
    /// example the record of an API key or the answer of an introspection endpoint.
    ///
    /// The claims have the meaning that they have in a token, with the names in `mapping`. `iss`, a subject
    /// and `exp` are required. *Not* checked: signature, audience, token type, times, and the proof of a bound
    /// token (`cnf`). The validator answers for them, so an attacker must not be able to choose the claims.
    ///
    /// ```
    /// use scaikey_auth::Identity;
    /// use scaikey_auth::identity::{ClaimsMapping, Provenance};
    /// use serde_json::json;
    ///
    /// # fn main() -> Result<(), scaikey_auth::error::InvalidToken> {
    /// let claims = json!({
    ///     "iss": "https://keys.example", "sub": "robot", "client_id": "robot",
    ///     "exp": 4_000_000_000_u64, "tenant_id": "acme", "scope": "docs:read",
    /// });
    /// let robot = Identity::from_claims(&claims, &ClaimsMapping::default(), Provenance::Verified)?;
    /// assert!(robot.scopes().contains("docs:read"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidToken::MissingClaim`] and [`InvalidToken::MalformedClaim`] name the claim;
    /// [`InvalidToken::Malformed`] if the claims are not an object, or larger than those of a token may be
    /// (1,024 members per object, 16 levels), or if a path or a test in `mapping` is invalid.
    pub fn from_claims(
        claims: &serde_json::Value,
        mapping: &ClaimsMapping,
        provenance: Provenance,
    ) -> Result<Self, InvalidToken> {
        if mapping.is_invalid() {
            return Err(InvalidToken::Malformed("the claims mapping has an invalid path or test"));
        }
        let document = Document::parse(claims.to_string()).map_err(|_| {
            InvalidToken::Malformed("the claims are not an object of a token's size")
        })?;
        let issuer = text(document.root().get("iss"), "iss")?;
        let issuer = issuer.ok_or(InvalidToken::MissingClaim("iss"))?.into();
        Reading { issuer, mapping, provenance, legacy_service_tokens: false, logged: None }
            .identity(document)
    }
}

impl Reading<'_> {
    /// Reads the identity from the claims in `document`. The identity keeps the document's text.
    pub(crate) fn identity(self, document: Document) -> Result<Identity, InvalidToken> {
        self.identity_until(document, None)
    }

    /// Reads the identity as [`identity`](Self::identity) does. Without `exp`, it expires at `default_expiry`.
    pub(crate) fn identity_until(
        self,
        document: Document,
        default_expiry: Option<SystemTime>,
    ) -> Result<Identity, InvalidToken> {
        let (claims, mapping) = (document.root(), self.mapping);
        let client_id = first(claims, &mapping.client_id, "client_id")?;
        let client_grant =
            claims.get("token_type").and_then(Value::as_str) == Some("client_credentials");
        // An introspection answer does not name the grant: its `token_type` is `Bearer` (RFC 7662 §2.2).
        let names_no_user =
            || self.provenance == Provenance::Introspected && claims.get("username").is_none();
        let subject = match first(claims, &mapping.subject, "sub")? {
            None if self.legacy_service_tokens && (client_grant || names_no_user()) => client_id,
            subject => subject,
        };
        let subject = subject.filter(|sub| sub.as_str().is_some_and(|sub| !sub.is_empty()));
        let subject = subject.ok_or(InvalidToken::MissingClaim("sub"))?;
        let is_its_client = || client_id.is_some_and(|id| id.as_str() == subject.as_str());
        let is_service_account = || mapping.service_account.iter().any(|test| test.passes(claims));
        let kind = match mapping.kind {
            Some(kind) => kind,
            None if is_service_account() || client_grant || is_its_client() => {
                IdentityKind::ServiceAccount
            }
            None => IdentityKind::User,
        };
        let (issued_at, expires_at) = (date(claims, "iat")?, date(claims, "exp")?);
        let expires_at = expires_at.or(default_expiry);
        let expires_at = expires_at.ok_or(InvalidToken::MissingClaim("exp"))?;
        let mut names = Names::with_capacity_for(claims, [&mapping.roles, &mapping.groups]);
        self.log_unless(names.add_all(claims, &mapping.roles, &mapping.name_member), "roles");
        let roles = names.count();
        self.log_unless(names.add_all(claims, &mapping.groups, &mapping.name_member), "groups");
        let (tenant_id, scopes) = (tenant(claims, mapping)?, scopes(claims, mapping)?);
        // A partner may decide which tenants a caller acts in, and a deny list looks up `sid` and `jti`.
        let partner_id = first(claims, &mapping.partner_id, "partner_id")?;
        let (session_id, token_id) =
            (string(claims.get("sid"), "sid")?, string(claims.get("jti"), "jti")?);
        let display_name = values_at(claims, &mapping.display_name).next();
        let email = values_at(claims, &mapping.email).next();
        // `email_verified` is about the claim `email`, and not about an address that another claim holds.
        let verifiable = claims.get("email").and_then(Value::span);
        let is_verifiable = verifiable.is_some() && email.and_then(Value::span) == verifiable;
        let is_verified = claims.get("email_verified").and_then(Value::as_bool);
        let authenticated_at = self.authenticated_at(claims);
        Ok(Identity(Arc::new(Inner {
            tenant_id,
            provenance: self.provenance,
            kind,
            email_verified: is_verified.filter(|_| is_verifiable),
            has_group_overage: has_group_overage(claims),
            is_of_id_token: false,
            subject: span(Some(subject)),
            partner_id: span(partner_id),
            client_id: span(client_id),
            display_name: self.optional_span(display_name, "display_name"),
            email: self.optional_span(email, "email"),
            session_id: span(session_id),
            token_id: span(token_id),
            acr: self.optional_span(claims.get("acr"), "acr"),
            names: names.found.into(),
            scopes,
            issued_at,
            expires_at,
            valid_until: expires_at,
            answered_at: None,
            authenticated_at,
            mfa_verified_at: self.mfa_verified_at(claims, authenticated_at),
            actors: self.actors(claims),
            confirmation: Confirmation::read(claims)?.map(Box::new),
            roles,
            digests: OnceLock::new(),
            issuer: self.issuer,
            claims_length: document.length(),
            text: document.into_text(),
        })))
    }

    /// Returns the place of a string that decides nothing. A value of another type counts as absent.
    fn optional_span(&self, value: Option<Value<'_>>, attribute: &'static str) -> Span {
        let value = string(value, attribute);
        self.log_unless(value.is_ok(), attribute);
        span(value.unwrap_or_default())
    }

    /// Reads the time of the authentication.
    fn authenticated_at(&self, claims: Value<'_>) -> Option<SystemTime> {
        let claim = values_at(claims, &self.mapping.auth_time).next()?;
        let time = seconds(claim).and_then(system_time);
        self.log_unless(time.is_some(), "auth_time");
        time
    }

    /// Reads the time of the last multi-factor authentication that a test finds.
    fn mfa_verified_at(
        &self,
        claims: Value<'_>,
        authenticated_at: Option<SystemTime>,
    ) -> Option<SystemTime> {
        let passing = self.mapping.mfa.iter().filter(|test| test.passes(claims));
        passing.filter_map(|test| time_of(test, claims, authenticated_at)).max()
    }

    /// Reads the chain of `act` claims, outermost first. The nesting limit of the JSON reader limits its
    /// length. An actor that cannot be read stays in the chain: a token with an actor must not look like a
    /// token without.
    fn actors(&self, claims: Value<'_>) -> Box<[Actor]> {
        let mut chain = Vec::new();
        let mut next = claims.get("act").filter(|act| !act.is_null());
        while let Some(act) = next {
            let actor = actor(act);
            self.log_unless(actor.is_some(), "act");
            chain.push(actor.unwrap_or(Actor::UNREADABLE));
            next = act.get("act").filter(|act| !act.is_null());
        }
        chain.into()
    }

    /// Logs an attribute whose claim could not be read: once as a warning for each issuer.
    fn log_unless(&self, is_readable: bool, attribute: &'static str) {
        if !is_readable {
            let is_new = self.logged.is_some_and(|logged| logged.is_first(attribute));
            telemetry::claim_ignored(&self.issuer, attribute, is_new);
        }
    }
}

/// Returns whether Entra ID left the groups out of the token
/// (<https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference#groups-overage-claim>).
fn has_group_overage(claims: Value<'_>) -> bool {
    let has_groups = claims.get("hasgroups").and_then(Value::as_bool) == Some(true);
    has_groups || claims.get("_claim_names").is_some_and(|names| names.get("groups").is_some())
}

/// Returns the tenant in `claims`, at the places that `mapping` names; `None` if there is none.
pub(crate) fn tenant(
    claims: Value<'_>,
    mapping: &ClaimsMapping,
) -> Result<Option<TenantId>, InvalidToken> {
    first(claims, &mapping.tenant_id, "tenant_id")?
        .and_then(Value::as_str)
        .map(|id| TenantId::new(id).map_err(|_| InvalidToken::MalformedClaim("tenant_id")))
        .transpose()
}

/// Reads a NumericDate (RFC 7519 §2): a number from 0 to 2^53, possibly with a fraction.
pub(crate) fn numeric_date(
    value: Option<Value<'_>>,
    name: &'static str,
) -> Result<Option<f64>, InvalidToken> {
    let Some(value) = value else { return Ok(None) };
    seconds(value).map(Some).ok_or(InvalidToken::MalformedClaim(name))
}

fn date(claims: Value<'_>, name: &'static str) -> Result<Option<SystemTime>, InvalidToken> {
    let Some(seconds) = numeric_date(claims.get(name), name)? else { return Ok(None) };
    system_time(seconds).map(Some).ok_or(InvalidToken::MalformedClaim(name))
}

/// Returns the seconds of a NumericDate.
fn seconds(value: Value<'_>) -> Option<f64> {
    value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds))
}

/// Returns the time of a NumericDate in whole seconds, unless the platform cannot represent it. The rules for
/// `exp`, `nbf` and `iat` use the exact number.
fn system_time(seconds: f64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds as u64))
}

/// Returns the time of the authentication methods that a test found, or else of the authentication.
fn time_of(
    test: &ClaimTest,
    claims: Value<'_>,
    authenticated_at: Option<SystemTime>,
) -> Option<SystemTime> {
    // An item of `amr` may state when its method was used. All of the tested methods were used since the
    // earliest of these times.
    let times = test.found(claims).filter_map(|it| it.get("timestamp")).filter_map(seconds);
    times.reduce(f64::min).map_or(authenticated_at, system_time)
}

/// Reads an optional string. `null` counts as absent.
pub(crate) fn text<'v>(
    value: Option<Value<'v>>,
    name: &'static str,
) -> Result<Option<&'v str>, InvalidToken> {
    Ok(string(value, name)?.and_then(Value::as_str))
}

/// Reads an optional string as [`text`] does, and returns its JSON value.
fn string<'v>(
    value: Option<Value<'v>>,
    name: &'static str,
) -> Result<Option<Value<'v>>, InvalidToken> {
    match value {
        Some(value) if value.span().is_some() => Ok(Some(value)),
        Some(value) if !value.is_null() => Err(InvalidToken::MalformedClaim(name)),
        _ => Ok(None),
    }
}

fn span(string: Option<Value<'_>>) -> Span {
    string.and_then(Value::span).unwrap_or_default()
}

/// Returns the values at `paths`, without `null`s.
fn values_at<'v>(claims: Value<'v>, paths: &'v [ClaimPath]) -> impl Iterator<Item = Value<'v>> {
    paths.iter().filter_map(move |path| claims.follow(path.steps())).filter(|v| !v.is_null())
}

/// Returns the string at the first of `paths` that has a value, if it is one.
pub(crate) fn first_text<'v>(claims: Value<'v>, paths: &[ClaimPath]) -> Option<&'v str> {
    let mut values = paths.iter().filter_map(|path| claims.follow(path.steps()));
    values.find(|value| !value.is_null())?.as_str()
}

fn first<'v>(
    claims: Value<'v>,
    paths: &'v [ClaimPath],
    name: &'static str,
) -> Result<Option<Value<'v>>, InvalidToken> {
    string(values_at(claims, paths).next(), name)
}

/// Reads the scopes from all claims that `mapping` names.
pub(crate) fn scopes(claims: Value<'_>, mapping: &ClaimsMapping) -> Result<Scopes, InvalidToken> {
    let malformed = InvalidToken::MalformedClaim("scope");
    let mut scopes = Scopes::new();
    for value in values_at(claims, &mapping.scopes) {
        if let Some(list) = value.as_str() {
            scopes.insert(list).map_err(|_| malformed)?;
        } else if value.is_list() {
            // Inserted together, because each insertion compares with all scopes in the set.
            let items: Option<Vec<_>> = value.children().map(Value::as_str).collect();
            scopes.insert(&items.ok_or(malformed)?.join(" ")).map_err(|_| malformed)?;
        } else {
            return Err(malformed);
        }
    }
    Ok(scopes)
}

/// The names of roles and groups, in one list.
struct Names {
    found: Vec<Span>,
}

impl Names {
    /// Reserves room for all names of `lists`, so that converting into a boxed slice does not reallocate.
    fn with_capacity_for(claims: Value<'_>, lists: [&[ClaimPath]; 2]) -> Self {
        let count =
            |paths| values_at(claims, paths).map(|list| list.descendants().max(1)).sum::<usize>();
        Self { found: Vec::with_capacity(lists.map(count).iter().sum()) }
    }

    /// Adds the distinct names of one attribute, in the order of the token: a string; the strings of a list,
    /// and of its objects the member `name_member` (RFC 9068 §2.2.3.1, RFC 7643 §4.1.2); or the names of an
    /// object's members. Returns whether there was nothing else.
    fn add_all(&mut self, claims: Value<'_>, paths: &[ClaimPath], name_member: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut all_readable = true;
        for value in values_at(claims, paths) {
            if value.is_list() {
                for item in value.children().filter(|item| !item.is_null()) {
                    let name = if item.is_object() { item.get(name_member) } else { Some(item) };
                    all_readable &= self.add(&mut seen, name.and_then(text_and_span));
                }
            } else if value.is_object() {
                for member in value.children().filter(|member| !is_unset(*member)) {
                    let name = member.name_span().map(|span| (member.name(), span));
                    all_readable &= self.add(&mut seen, name.filter(|_| is_set(member)));
                }
            } else {
                all_readable &= self.add(&mut seen, text_and_span(value));
            }
        }
        all_readable
    }

    /// Adds a name, unless it was seen. Returns whether there is a name.
    fn add<'v>(&mut self, seen: &mut BTreeSet<&'v str>, name: Option<(&'v str, Span)>) -> bool {
        if let Some((text, span)) = name
            && seen.insert(text)
        {
            self.found.push(span);
        }
        name.is_some()
    }

    /// Returns the number of names. There are fewer than bytes in the token, whose number fits into a u32.
    fn count(&self) -> u32 {
        self.found.len() as u32
    }
}

fn text_and_span(value: Value<'_>) -> Option<(&str, Span)> {
    value.as_str().zip(value.span())
}

/// Returns whether the member of an object says that its name does not count.
fn is_unset(member: Value<'_>) -> bool {
    member.is_null() || member.as_bool() == Some(false)
}

/// Reads one `act`. Returns `None` unless it is an object whose members have the right types: with some of them
/// missing, it would look like another actor.
fn actor(act: Value<'_>) -> Option<Actor> {
    let member = |name| Some(text(act.get(name), "act").ok()?.map(Box::from));
    act.is_object().then_some(())?;
    Some(Actor { subject: member("sub")?, client_id: member("client_id")?, issuer: member("iss")? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(claims: &str) -> Result<Identity, InvalidToken> {
        let reading = Reading {
            issuer: "issuer".into(),
            mapping: &ClaimsMapping::default(),
            provenance: Provenance::Verified,
            legacy_service_tokens: false,
            logged: None,
        };
        reading.identity(Document::parse(claims).unwrap())
    }

    #[test]
    fn escaped_claims_give_the_same_identity() {
        let plain = r#"{"sub":"alice","name":"é\u0000\"\\","exp":1,"email":"","tenant_id":"acme",
            "roles":["a b","","a b","é"],"role":"","groups":[{"value":"g"},"h","g",""],"scope":"r w r"}"#;
        let escaped = r#"{"s\u0075b":"\u0061lice","name":"\u00e9\u0000\u0022\u005c","exp":1e0,"email":"",
            "tenant_id":"\u0061cme","roles":["a\u0020b","","a b","\u00e9"],"role":[""],
            "groups":[{"v\u0061lue":"g"},"\u0068","\u0067",""],"scope":["r","\u0077","r"]}"#;
        let all: [Json; 2] = [plain, escaped].map(|claims| {
            let identity = read(claims).unwrap();
            let (roles, groups): (Vec<_>, Vec<_>) =
                (identity.roles().collect(), identity.groups().collect());
            assert_eq!((roles, groups), (vec!["a b", "", "é"], vec!["g", "h", ""]));
            assert_eq!((identity.subject(), identity.scopes().as_str()), ("alice", "r w"));
            assert_eq!(identity.display_name(), Some("é\0\"\\"));
            assert_eq!((identity.email(), identity.partner_id()), (Some(""), None));
            assert_eq!(identity.tenant_id().map(TenantId::as_str), Some("acme"));
            assert!(identity.has_role("é") && identity.has_role("") && !identity.has_role("a"));
            assert!(identity.in_group("h") && !identity.in_group("é"));
            identity.claims().unwrap()
        });
        // `claims` returns the token's JSON unchanged.
        assert_eq!(all[0]["groups"], json!([{"value": "g"}, "h", "g", ""]));
        assert_eq!((&all[0]["sub"], &all[0]["groups"]), (&all[1]["sub"], &all[1]["groups"]));
    }

    #[test]
    fn long_lists_keep_each_name_once() {
        let names = |many| (0..many).map(|n| format!("n{}", n % 1200)).collect::<Vec<_>>();
        let claims = json!({"sub": "a", "exp": 1, "roles": names(2400), "role": names(3),
            "groups": names(1300), "scp": names(2400)});
        let identity = read(&claims.to_string()).unwrap();
        let once = names(1200);
        assert!(identity.roles().eq(&once) && identity.groups().eq(&once));
        assert!(identity.scopes().iter().eq(&once));
    }

    #[test]
    fn names_have_three_forms() {
        let table: [(&str, &[&str]); 16] = [
            (r#""a b""#, &["a b"]),
            (r#"["a","b","a"]"#, &["a", "b"]),
            (r#"[{"value":"a","display":"x"},"b"]"#, &["a", "b"]),
            (r#"{"a":{"org":"x"},"b":true,"\u0063":{}}"#, &["a", "b", "c"]),
            (r#"{"a":false,"b":null,"c":{}}"#, &["c"]),
            (r#"[null,"a",null]"#, &["a"]),
            ("null", &[]),
            ("[]", &[]),
            ("{}", &[]),
            // What cannot be read is not there.
            ("7", &[]),
            ("true", &[]),
            (r#"[7,"a",["b"],true]"#, &["a"]),
            (r#"[{},{"value":7},{"name":"b"},{"value":"a"}]"#, &["a"]),
            (r#"[{"value":null}]"#, &[]),
            (r#"{"value":"a","b":1,"c":["d"]}"#, &[]),
            (r#"{"a":"no","b":0,"c":{}}"#, &["c"]),
        ];
        for (json, expected) in table {
            let claims = format!(r#"{{"sub":"s","exp":1,"roles":{json},"groups":{json}}}"#);
            let identity = read(&claims).unwrap();
            assert!(identity.roles().eq(expected.iter().copied()), "{json}");
            assert!(identity.groups().eq(expected.iter().copied()), "{json}");
        }
    }
}
