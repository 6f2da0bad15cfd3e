//! Rules for the header and claims of an access token: one pure function per rule.

use std::time::{Duration, SystemTime};

use super::jws::{Header, Typ};
use crate::clock::unix_time;
use crate::config::{IssuerConfig, TokenProfile};
use crate::error::InvalidToken;
use crate::identity::{Confirmation, TenantId, numeric_date, read_tenant, spiffe_id, text};
use crate::issuer::{Issuer, Rules};
use crate::support::json::Value;
use crate::support::telemetry;

/// Returns `iss`, which must be a string (RFC 7519 §4.1.1).
pub(super) fn issuer_of(claims: Value<'_>) -> Result<&str, InvalidToken> {
    match claims.get("iss") {
        None => Err(InvalidToken::MissingClaim("iss")),
        Some(iss) => iss.as_str().ok_or(InvalidToken::MalformedClaim("iss")),
    }
}

/// Returns the trust domain of `sub`, which must be the SPIFFE ID of a workload (JWT-SVID §3.1).
pub(super) fn trust_domain_of(claims: Value<'_>) -> Result<&str, InvalidToken> {
    let subject = text(claims.get("sub"), "sub")?.ok_or(InvalidToken::MissingClaim("sub"))?;
    spiffe_id::trust_domain(subject).ok_or(InvalidToken::MalformedClaim("sub"))
}

/// Checks every rule that needs no key, cheapest first. Unless the issuer changes, only the time can change
/// the result: a token that passed stays valid during the returned [`ValidityPeriod`].
pub(super) fn check(
    claims: Value<'_>,
    header: &Header,
    rules: &Rules,
    own_tenant: Option<&TenantId>,
    now: SystemTime,
    allows_bound: bool,
) -> Result<ValidityPeriod, InvalidToken> {
    let config = &rules.config;
    if !config.algorithms.contains(&header.algorithm) {
        return Err(InvalidToken::Algorithm);
    }
    match config.is_trust_domain {
        true => check_svid_header(header)?,
        false => check_type(header.typ, config)?,
    }
    check_audience(claims, config, &rules.audience)?;
    let lifetime = check_times(claims, now, config.leeway, config.max_token_lifetime)?;
    check_token_kind(claims, config)?;
    check_access_token(claims, config)?;
    check_confirmation(claims, allows_bound)?;
    text(claims.get("jti"), "jti")?;
    if config.profile == TokenProfile::Rfc9068 {
        check_rfc9068(claims)?;
    }
    check_tenant(claims, config, own_tenant)?;
    Ok(lifetime)
}

/// Checks the rules for the ID token of a session that the rules for a sign-in lack: it is bound to no key, and
/// its tenant belongs to the issuer.
pub(super) fn check_session(
    claims: Value<'_>,
    issuer: &Issuer,
    now: SystemTime,
) -> Result<ValidityPeriod, InvalidToken> {
    check_confirmation(claims, false)?;
    let mut lifetime = check_times(claims, now, issuer.rules.config.leeway, None)?;
    for rules in issuer.all_rules() {
        check_tenant(claims, &rules.config, issuer.tenant.as_ref())?;
        lifetime = lifetime.intersection(check_times(claims, now, rules.config.leeway, None)?);
    }
    Ok(lifetime)
}

/// The rules for an introspection answer that differ from those for a JWT.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntrospectionRules<'a> {
    /// The `iss` of the issuer that was asked.
    pub(super) issuer: &'a str,
    pub(super) needs_audience: bool,
    /// The end of the validity of a token without `exp`.
    pub(super) ends_without_expiry: SystemTime,
    pub(super) now: SystemTime,
}

/// Checks the members of an introspection answer about an active token (RFC 7662 §2.2, §4). There is no header and
/// no signature. A bound token passes: the caller compares [`Confirmation`] for each request.
pub(super) fn check_introspected(
    claims: Value<'_>,
    rules: &Rules,
    own: &IntrospectionRules<'_>,
) -> Result<ValidityPeriod, InvalidToken> {
    let config = &rules.config;
    // The endpoint is of one issuer, so its answers need not name it.
    if text(claims.get("iss"), "iss")?.is_some_and(|iss| iss != own.issuer) {
        return Err(InvalidToken::Issuer);
    }
    if own.needs_audience || has_audience(claims, config) {
        check_audience(claims, config, &rules.audience)?;
    }
    let default_exp = config.max_token_lifetime.is_none().then_some(own.ends_without_expiry);
    let (leeway, max_lifetime) = (config.leeway, config.max_token_lifetime);
    let lifetime = check_times_until(claims, own.now, leeway, max_lifetime, default_exp)?;
    check_token_kind(claims, config)?;
    check_access_token(claims, config)?;
    check_dpop(claims)?;
    text(claims.get("jti"), "jti")?;
    check_tenant(claims, config, None)?;
    Ok(lifetime)
}

fn has_audience(claims: Value<'_>, config: &IssuerConfig) -> bool {
    config.audience_claims.iter().any(|path| claims.follow(path.steps()).is_some())
}

/// Refuses a malformed `cnf`, and a DPoP token whose key the answer does not name (RFC 9449 §6.2).
fn check_dpop(claims: Value<'_>) -> Result<(), InvalidToken> {
    let kind = text(claims.get("token_type"), "token_type")?.unwrap_or_default();
    match Confirmation::read(claims)? {
        None if kind.eq_ignore_ascii_case("dpop") => Err(InvalidToken::Unproven),
        _ => Ok(()),
    }
}

/// The time in which a token is valid, extended by the leeway: from `begins` (inclusive) to `ends`
/// (exclusive).
#[derive(Debug, Clone, Copy)]
pub(super) struct ValidityPeriod {
    begins: SystemTime,
    ends: SystemTime,
}

impl ValidityPeriod {
    /// Creates a period from two NumericDates. Returns `None` if the system's clock cannot represent one of
    /// them.
    fn between(begins: f64, expires: f64, leeway: Duration) -> Option<Self> {
        let begins = Duration::try_from_secs_f64(begins).ok()?.saturating_sub(leeway);
        let ends = Duration::try_from_secs_f64(expires).ok()?.saturating_add(leeway);
        let moment = |since| SystemTime::UNIX_EPOCH.checked_add(since);
        Some(Self { begins: moment(begins)?, ends: moment(ends)? })
    }

    /// Shortens the lifetime to `end`, if there is one.
    pub(super) fn at_most(self, end: Option<SystemTime>) -> Self {
        Self { ends: end.map_or(self.ends, |end| self.ends.min(end)), ..self }
    }

    /// Returns the time in which a token is valid by both rules.
    pub(super) fn intersection(self, other: Self) -> Self {
        Self { begins: self.begins.max(other.begins), ends: self.ends.min(other.ends) }
    }

    /// Returns the end of the period.
    pub(super) fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Checks the time. At exactly `ends`, the token has expired.
    pub(super) fn check(&self, now: SystemTime) -> Result<(), InvalidToken> {
        if self.is_over(now) {
            return Err(InvalidToken::Expired);
        }
        if self.begins > now {
            return Err(InvalidToken::NotYetValid);
        }
        Ok(())
    }

    pub(super) fn is_over(&self, now: SystemTime) -> bool {
        now >= self.ends
    }

    #[cfg(test)]
    pub(super) fn until(expires: u64) -> Self {
        Self::between(0.0, expires as f64, Duration::ZERO).unwrap()
    }
}

/// Checks `typ` (RFC 9068 §4). A stated type must be the expected one (RFC 8725 §3.11).
fn check_type(typ: Typ, config: &IssuerConfig) -> Result<(), InvalidToken> {
    match (typ, config.profile) {
        (Typ::AccessToken, _) | (Typ::Absent | Typ::Jwt, TokenProfile::Lenient) => Ok(()),
        _ => Err(other_type(config, "typ of the header")),
    }
}

/// Logs what shows that the token is no access token.
fn other_type(config: &IssuerConfig, mark: &str) -> InvalidToken {
    telemetry::type_refused(config.expected(), mark);
    InvalidToken::Type
}

/// Checks the header of a JWT-SVID (JWT-SVID §2): `typ` is absent, `JWT` or `JOSE`, and there is no member that
/// the specification does not name.
fn check_svid_header(header: &Header) -> Result<(), InvalidToken> {
    if !matches!(header.typ, Typ::Absent | Typ::Jwt | Typ::Jose) {
        return Err(InvalidToken::Type);
    }
    match header.has_other_members {
        true => {
            Err(InvalidToken::Malformed("a JWT-SVID has no header member besides alg, kid, typ"))
        }
        false => Ok(()),
    }
}

/// Checks the audience: a string, or a list of strings, with a name of this service (RFC 7519 §4.1.3). Only the
/// first configured claim that is present counts, so a token for another service is never accepted because
/// of a second claim. Errors call the claim `aud`; the log names it.
fn check_audience(
    claims: Value<'_>,
    config: &IssuerConfig,
    expected: &[Box<str>],
) -> Result<(), InvalidToken> {
    let mut paths = config.audience_claims.iter();
    let present = paths.find_map(|path| Some((path, claims.follow(path.steps())?)));
    let Some((path, audience)) = present else {
        telemetry::audience_missing(config.expected(), &config.audience_claims);
        return Err(InvalidToken::MissingClaim("aud"));
    };
    let result = names_one_of(audience, expected);
    if result.is_err() {
        telemetry::audience_refused(config.expected(), path);
    }
    result
}

pub(super) fn names_one_of(
    audience: Value<'_>,
    expected: &[impl AsRef<str>],
) -> Result<(), InvalidToken> {
    let is_expected = |name: &str| expected.iter().any(|own| own.as_ref() == name);
    let named = if let Some(single) = audience.as_str() {
        is_expected(single)
    } else if audience.is_list() {
        let mut named = false;
        for name in audience.children() {
            named |= is_expected(name.as_str().ok_or(InvalidToken::MalformedClaim("aud"))?);
        }
        named
    } else {
        return Err(InvalidToken::MalformedClaim("aud"));
    };
    if named { Ok(()) } else { Err(InvalidToken::Audience) }
}

/// Checks `exp`, `nbf` and `iat` (RFC 7519 §4.1.4–4.1.6).
fn check_times(
    claims: Value<'_>,
    now: SystemTime,
    leeway: Duration,
    max_lifetime: Option<Duration>,
) -> Result<ValidityPeriod, InvalidToken> {
    check_times_until(claims, now, leeway, max_lifetime, None)
}

/// Checks the times of a verified token once more, with another leeway.
#[cfg(feature = "trust")]
pub(crate) fn check_times_with(
    claims: Value<'_>,
    now: SystemTime,
    leeway: Duration,
) -> Result<(), InvalidToken> {
    check_times(claims, now, leeway, None).map(|_| ())
}

/// Checks the times as [`check_times`] does. A token without `exp` ends at `default_exp`.
fn check_times_until(
    claims: Value<'_>,
    now: SystemTime,
    leeway: Duration,
    max_lifetime: Option<Duration>,
    default_exp: Option<SystemTime>,
) -> Result<ValidityPeriod, InvalidToken> {
    let exp = numeric_date(claims.get("exp"), "exp")?.or(default_exp.map(unix_time));
    let exp = exp.ok_or(InvalidToken::MissingClaim("exp"))?;
    let nbf = numeric_date(claims.get("nbf"), "nbf")?;
    let iat = numeric_date(claims.get("iat"), "iat")?;
    let begins = nbf.unwrap_or(0.0).max(iat.unwrap_or(0.0));
    let lifetime = ValidityPeriod::between(begins, exp, leeway);
    // The fault names `exp`, although `nbf` or `iat` may be the date that the clock cannot represent.
    let lifetime = lifetime.ok_or(InvalidToken::MalformedClaim("exp"))?;
    lifetime.check(now)?;
    match max_lifetime {
        None => Ok(lifetime),
        Some(limit) => match iat {
            None => Err(InvalidToken::MissingClaim("iat")),
            Some(iat) if exp - iat > limit.as_secs_f64() => {
                Err(InvalidToken::MalformedClaim("exp"))
            }
            Some(_) => Ok(lifetime),
        },
    }
}

/// Refuses ID, refresh and logout tokens of the same issuer (RFC 8725 §3.12). Many issuers do not mark them
/// by `typ`, but their claims differ from those of access tokens.
fn check_token_kind(claims: Value<'_>, config: &IssuerConfig) -> Result<(), InvalidToken> {
    let of_id_token = || match config.insecure_accept_id_tokens {
        true => None,
        false => mark_of_id_token(claims),
    };
    match mark_of_other_token(claims).or_else(of_id_token) {
        Some(mark) => Err(other_type(config, mark)),
        None => Ok(()),
    }
}

/// Returns the claim that marks a refresh or logout token.
fn mark_of_other_token(claims: Value<'_>) -> Option<&'static str> {
    const KINDS: [(&str, &[&str]); 3] = [
        ("typ", &["Refresh", "Offline", "Logout"]),
        ("token_use", &["refresh"]),
        ("token_type", &["refresh", "refresh_token"]),
    ];
    claims.get("events").map(|_| "events").or_else(|| mark_among(claims, &KINDS))
}

/// Returns the claim that marks an ID token.
fn mark_of_id_token(claims: Value<'_>) -> Option<&'static str> {
    const HASHES: [&str; 3] = ["at_hash", "c_hash", "s_hash"];
    const KINDS: [(&str, &[&str]); 3] =
        [("typ", &["ID"]), ("token_use", &["id"]), ("token_type", &["id_token"])];
    let has = |name: &&str| claims.get(name).is_some();
    // `nonce` belongs to ID tokens. Some issuers copy it into access tokens, but those also have a scope or
    // a client.
    let bare_nonce = || has(&"nonce") && !["scope", "scp", "scopes", "client_id"].iter().any(has);
    let hash = HASHES.into_iter().find(has);
    hash.or_else(|| mark_among(claims, &KINDS)).or_else(|| bare_nonce().then_some("nonce"))
}

fn mark_among(claims: Value<'_>, kinds: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let mut names = kinds.iter().filter(|(name, kinds)| {
        claims.get(name).and_then(Value::as_str).is_some_and(|kind| kinds.contains(&kind))
    });
    names.next().map(|(name, _)| *name)
}

/// Applies the configured tests for access tokens, of which one must pass.
fn check_access_token(claims: Value<'_>, config: &IssuerConfig) -> Result<(), InvalidToken> {
    let tests = &config.access_token;
    let needs_none = tests.is_empty() || config.insecure_accept_id_tokens;
    match needs_none || tests.iter().any(|test| test.passes(claims)) {
        true => Ok(()),
        false => Err(other_type(config, "no test of access_token passes")),
    }
}

/// Refuses a token that is bound to a key (RFC 9449 §7.2, RFC 8705 §3), unless the caller verifies the
/// proof. This happens before the expensive signature check.
fn check_confirmation(claims: Value<'_>, allows_bound: bool) -> Result<(), InvalidToken> {
    match Confirmation::read(claims)? {
        Some(_) if !allows_bound => Err(InvalidToken::Unproven),
        _ => Ok(()),
    }
}

/// Checks the claims that RFC 9068 §2.2 requires and other profiles do not.
fn check_rfc9068(claims: Value<'_>) -> Result<(), InvalidToken> {
    for name in ["client_id", "jti"] {
        let claim = claims.get(name).ok_or(InvalidToken::MissingClaim(name))?;
        claim.as_str().ok_or(InvalidToken::MalformedClaim(name))?;
    }
    match claims.get("iat") {
        Some(_) => Ok(()),
        None => Err(InvalidToken::MissingClaim("iat")),
    }
}

/// Checks that the tenant belongs to the issuer: it must equal the tenant in `iss`, if there is one, and be
/// in the configured list, if there is one. Without either, the layer decides whether a tenant is required.
fn check_tenant(
    claims: Value<'_>,
    config: &IssuerConfig,
    own: Option<&TenantId>,
) -> Result<(), InvalidToken> {
    let allowed = &config.tenants;
    if own.is_none() && allowed.is_empty() {
        return Ok(());
    }
    let claimed = read_tenant(claims, &config.claims)?;
    let matches_own = own.is_none() || claimed.as_ref() == own;
    let listed = allowed.is_empty() || claimed.is_some_and(|claimed| allowed.contains(&claimed));
    if matches_own && listed { Ok(()) } else { Err(InvalidToken::IssuerTenant) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::json::Document;

    fn fault_of<T>(
        json: &str,
        rule: impl Fn(Value<'_>) -> Result<T, InvalidToken>,
    ) -> Option<InvalidToken> {
        rule(Document::parse(json.as_bytes()).unwrap().root()).err()
    }

    #[test]
    fn audience_must_match_exactly() {
        let ours = ["me".into(), "also-me".into()];
        let table = [
            (r#"{"aud":"me"}"#, None),
            (r#"{"aud":["x","also-me"]}"#, None),
            (r#"{}"#, Some(InvalidToken::MissingClaim("aud"))),
            (r#"{"aud":"ME"}"#, Some(InvalidToken::Audience)),
            (r#"{"aud":"me "}"#, Some(InvalidToken::Audience)),
            (r#"{"aud":[]}"#, Some(InvalidToken::Audience)),
            (r#"{"aud":""}"#, Some(InvalidToken::Audience)),
            (r#"{"aud":null}"#, Some(InvalidToken::MalformedClaim("aud"))),
            (r#"{"aud":["me",7]}"#, Some(InvalidToken::MalformedClaim("aud"))),
            (r#"{"aud":{"me":1}}"#, Some(InvalidToken::MalformedClaim("aud"))),
        ];
        let config = IssuerConfig::new("https://id.example");
        for (json, expected) in table {
            let fault = fault_of(json, |claims| check_audience(claims, &config, &ours));
            assert_eq!(fault, expected, "{json}");
        }
    }

    #[test]
    fn only_first_present_audience_claim_counts() {
        use InvalidToken::{Audience, MalformedClaim, MissingClaim};
        let config = IssuerConfig::new("https://id.example");
        let config = config.audience_claims(["aud", "client_id", "/app/id"]);
        for (json, expected) in [
            (r#"{"aud":"me"}"#, None),
            (r#"{"client_id":"me"}"#, None),
            (r#"{"client_id":["x","me"],"app":{"id":"x"}}"#, None),
            (r#"{"app":{"id":"me"}}"#, None),
            (r#"{"aud":"x","client_id":"me"}"#, Some(Audience)),
            (r#"{"aud":[],"client_id":"me"}"#, Some(Audience)),
            (r#"{"aud":null,"client_id":"me"}"#, Some(MalformedClaim("aud"))),
            (r#"{"client_id":"x","app":{"id":"me"}}"#, Some(Audience)),
            (r#"{"client_id":7}"#, Some(MalformedClaim("aud"))),
            (r#"{"azp":"me"}"#, Some(MissingClaim("aud"))),
            (r#"{"app":"me"}"#, Some(MissingClaim("aud"))),
        ] {
            let fault = fault_of(json, |claims| check_audience(claims, &config, &["me".into()]));
            assert_eq!(fault, expected, "{json}");
        }
    }

    #[test]
    fn times_are_checked_with_leeway() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let table = [
            (r#"{"exp":1001}"#, 0, None),
            (r#"{"exp":1000}"#, 0, Some(InvalidToken::Expired)),
            (r#"{"exp":941}"#, 60, None),
            (r#"{"exp":940}"#, 60, Some(InvalidToken::Expired)),
            (r#"{"exp":1000.5}"#, 0, None),
            (r#"{"exp":2000,"nbf":1060}"#, 60, None),
            (r#"{"exp":2000,"nbf":1061}"#, 60, Some(InvalidToken::NotYetValid)),
            (r#"{"exp":2000,"iat":1061}"#, 60, Some(InvalidToken::NotYetValid)),
            (r#"{}"#, 0, Some(InvalidToken::MissingClaim("exp"))),
            (r#"{"exp":"2000"}"#, 0, Some(InvalidToken::MalformedClaim("exp"))),
            (r#"{"exp":null}"#, 0, Some(InvalidToken::MalformedClaim("exp"))),
            (r#"{"exp":-1}"#, 0, Some(InvalidToken::MalformedClaim("exp"))),
            (r#"{"exp":1e300}"#, 0, Some(InvalidToken::MalformedClaim("exp"))),
            (r#"{"exp":18446744073709551615}"#, 0, Some(InvalidToken::MalformedClaim("exp"))),
            (r#"{"exp":2000,"nbf":"9"}"#, 0, Some(InvalidToken::MalformedClaim("nbf"))),
            (r#"{"exp":2000,"nbf":null}"#, 0, Some(InvalidToken::MalformedClaim("nbf"))),
            (r#"{"exp":2000,"iat":[]}"#, 0, Some(InvalidToken::MalformedClaim("iat"))),
        ];
        for (json, leeway, expected) in table {
            assert_eq!(
                fault_of(json, |claims| check_times(
                    claims,
                    now,
                    Duration::from_secs(leeway),
                    None
                )),
                expected,
                "{json}"
            );
        }
        let limited = |json| {
            fault_of(json, |claims| {
                check_times(claims, now, Duration::ZERO, Some(Duration::from_secs(3600)))
            })
        };
        assert_eq!(limited(r#"{"exp":4600,"iat":1000}"#), None);
        assert_eq!(
            limited(r#"{"exp":4601,"iat":1000}"#),
            Some(InvalidToken::MalformedClaim("exp"))
        );
        assert_eq!(limited(r#"{"exp":2000}"#), Some(InvalidToken::MissingClaim("iat")));
    }

    #[test]
    fn other_token_types_are_not_access_tokens() {
        let fault = |json, accepts_id_tokens| {
            let mut config = IssuerConfig::new("https://id.example");
            config.insecure_accept_id_tokens = accepts_id_tokens;
            fault_of(json, |claims| check_token_kind(claims, &config))
        };
        for json in [
            r#"{"at_hash":"x","scope":"openid","client_id":"c"}"#,
            r#"{"c_hash":"x"}"#,
            r#"{"s_hash":"x"}"#,
            r#"{"nonce":"x"}"#,
            r#"{"typ":"ID"}"#,
            r#"{"token_use":"id"}"#,
            r#"{"token_type":"id_token"}"#,
        ] {
            assert_eq!(fault(json, false), Some(InvalidToken::Type), "{json}");
            assert_eq!(fault(json, true), None, "{json}");
        }
        for json in [
            r#"{"events":{}}"#,
            r#"{"events":{},"at_hash":"x"}"#,
            r#"{"typ":"Refresh","scope":"a"}"#,
            r#"{"typ":"Offline"}"#,
            r#"{"typ":"Logout"}"#,
            r#"{"typ":"ID","token_use":"refresh"}"#,
            r#"{"token_type":"refresh"}"#,
            r#"{"token_type":"refresh_token"}"#,
        ] {
            assert_eq!(fault(json, false), Some(InvalidToken::Type), "{json}");
            assert_eq!(fault(json, true), Some(InvalidToken::Type), "{json}");
        }
        for json in [
            r#"{"nonce":"x","scope":"a"}"#,
            r#"{"typ":"Bearer"}"#,
            r#"{"token_type":"client_credentials"}"#,
        ] {
            assert_eq!(fault(json, false), None, "{json}");
        }
    }

    #[test]
    fn bound_token_is_refused_unless_allowed() {
        let bound = r#"{"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}"#;
        for (json, allows_bound, expected) in [
            ("{}", false, None),
            ("{}", true, None),
            (bound, false, Some(InvalidToken::Unproven)),
            (bound, true, None),
            (r#"{"cnf":{"future":1}}"#, true, Some(InvalidToken::Unproven)),
            (r#"{"cnf":null}"#, true, Some(InvalidToken::MalformedClaim("cnf"))),
        ] {
            let refusal = fault_of(json, |claims| check_confirmation(claims, allows_bound));
            assert_eq!(refusal, expected, "{json} {allows_bound}");
        }
    }
}
