//! [`AccessToken`]: what the token endpoint gave, and how long it is good (RFC 6749 §5.1).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::ExchangeError;
use crate::clock::{Clock, jittered, unix_time};
use crate::identity::Scopes;
use crate::support::base64url;
use crate::support::json::{Document, Fault, Value};
use crate::support::secret::Secret;

/// A token with less than this left is not worth sending: it may expire on its way.
const SAFETY: Duration = Duration::from_secs(30);

/// No token is relied upon for longer, whatever the provider says.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An access token and what the provider said about it. Cheap to clone.
///
/// Its age is measured on the monotonic clock from when it arrived, so a clock that is set does
/// not make it older or younger.
#[derive(Debug, Clone)]
pub struct AccessToken {
    issued: Arc<Issued>,
    status: CacheStatus,
    /// How long a shared cache still kept it when it came from there.
    stay: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Issued {
    token: Secret,
    bearer: bool,
    issued_type: Option<String>,
    scopes: Option<Scopes>,
    refresh_token: Option<Secret>,
    id_token: Option<Secret>,
    arrived: Duration,
    /// Its age when it arrived, if it was another process that got it.
    age_then: Duration,
    lifetime: Option<Duration>,
    /// How long it may be kept at most for a reason outside of it.
    limit: Duration,
    /// The share of its life after which the next one is sought.
    due: f64,
}

impl Issued {
    /// The age until which it is kept.
    fn retention(&self) -> Duration {
        self.lifetime.unwrap_or_default().saturating_sub(SAFETY).min(self.limit)
    }

    /// The age until which it is fresh.
    fn fresh_for(&self) -> Duration {
        let due = self.lifetime.unwrap_or_default().min(MAX_LIFETIME).mul_f64(self.due);
        due.min(self.retention().mul_f64(0.9))
    }
}

/// The version of [`Stored`]. Tokens that were written in another one are not found.
const VERSION: u8 = 1;

/// A token as it lies sealed outside of this process, in JSON. Only the wall clock is common there, so
/// it tells when the token was issued. `T` is a text: borrowed to be written, a [`Secret`] when read.
#[derive(Serialize, Deserialize)]
struct Stored<T> {
    v: u8,
    /// In seconds since 1970; the spans below are in seconds, too.
    at: f64,
    life: Option<f64>,
    limit: f64,
    bearer: bool,
    token: T,
    kind: Option<T>,
    scopes: Option<T>,
    refresh: Option<T>,
    id: Option<T>,
}

/// Where a token is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Less than 80 % of its life has passed, give or take 5 % of that, so that many tokens got
    /// together are not renewed together.
    Fresh,
    /// It is good, and time to get the next one.
    Due,
    /// Less than 30 seconds are left, or it is not known how many.
    Expired,
}

/// How a token came to its caller (after RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheStatus {
    /// From the cache.
    Hit,
    /// From the provider, because this caller asked.
    Miss,
    /// From the provider or a shared cache, because somebody else was asking for the same already.
    Collapsed,
}

impl CacheStatus {
    /// `hit`, `miss` or `collapsed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
        }
    }
}

impl AccessToken {
    /// The token.
    pub fn secret(&self) -> &Secret {
        &self.issued.token
    }

    /// Whether it is sent as `Authorization: Bearer`. A `token_type` of `N_A` means that what was
    /// issued is no access token (RFC 8693 §2.2.1).
    pub fn is_bearer(&self) -> bool {
        self.issued.bearer
    }

    /// `issued_token_type`, if the provider said.
    pub fn issued_token_type(&self) -> Option<&str> {
        self.issued.issued_type.as_deref()
    }

    /// What was granted, if the provider said; otherwise what was asked for.
    pub fn scopes(&self) -> Option<&Scopes> {
        self.issued.scopes.as_ref()
    }

    /// The refresh token, if one came along. After a refresh, its absence means that the one used
    /// stays good (RFC 6749 §6). What exchanges and service tokens come with is left out
    /// (RFC 6749 §4.4.3).
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.issued.refresh_token.as_ref()
    }

    /// The ID token, if one came along: who signed in, *not verified*. It is of use once, when the
    /// sign-in ends. A shared cache keeps it sealed for a minute, for a browser that comes back
    /// twice; sessions do not keep it.
    pub fn id_token(&self) -> Option<&Secret> {
        self.issued.id_token.as_ref()
    }

    /// How long it lives from when it was issued: `expires_in`, else the `exp` of a JWT, else what
    /// the client was told to assume, else unknown.
    pub fn lifetime(&self) -> Option<Duration> {
        self.issued.lifetime
    }

    /// How this one came.
    pub fn cache_status(&self) -> CacheStatus {
        self.status
    }

    /// How long it may be kept from when it was issued: 30 seconds less than it lives, no longer
    /// than the subject token it was exchanged for, and a day at most. `None`: not at all.
    pub fn cacheable_for(&self) -> Option<Duration> {
        Some(self.issued.retention()).filter(|kept| !kept.is_zero())
    }

    /// Where it is in its life. Tokens that live for less than four minutes are due a little
    /// earlier than at 80 %, at nine tenths of what may be kept.
    pub fn freshness(&self, clock: &dyn Clock) -> Freshness {
        match self.age(clock) {
            age if age < self.issued.fresh_for() => Freshness::Fresh,
            age if age < self.issued.retention() => Freshness::Due,
            _ => Freshness::Expired,
        }
    }

    /// Where it is in its life for whoever holds it as long as it lives: a session whose token
    /// lives for ten seconds needs it for ten seconds.
    pub(crate) fn freshness_until_expiry(&self, clock: &dyn Clock) -> Freshness {
        let Some(lifetime) = self.lifetime() else { return Freshness::Fresh };
        match self.age(clock) {
            age if age >= lifetime => Freshness::Expired,
            age if age >= lifetime.mul_f64(self.issued.due) => Freshness::Due,
            _ => Freshness::Fresh,
        }
    }

    /// How much longer it may be kept; `None`: not at all.
    pub(super) fn left(&self, clock: &dyn Clock) -> Option<Duration> {
        let left = self.cacheable_for()?.saturating_sub(self.age(clock));
        let left = left.min(self.stay.unwrap_or(Duration::MAX));
        (!left.is_zero()).then_some(left)
    }

    /// How much longer it lives, where that is known.
    pub(crate) fn remaining(&self, clock: &dyn Clock) -> Option<Duration> {
        Some(self.lifetime()?.saturating_sub(self.age(clock)))
    }

    pub(super) fn age(&self, clock: &dyn Clock) -> Duration {
        clock.elapsed().saturating_sub(self.issued.arrived) + self.issued.age_then
    }

    /// How much memory its texts take.
    pub(super) fn octets(&self) -> usize {
        let of = |text: Option<&Secret>| text.map_or(0, |text| text.expose().len());
        of(Some(self.secret())) + of(self.refresh_token()) + of(self.id_token())
    }

    pub(super) fn with_status(mut self, status: CacheStatus) -> Self {
        self.status = status;
        self
    }

    /// As it comes from a shared cache, which keeps it for so much longer.
    pub(super) fn staying(mut self, stay: Duration) -> Self {
        self.stay = Some(stay);
        self
    }

    /// For no longer than this, for a reason outside of it.
    pub(super) fn kept_at_most(mut self, limit: Duration) -> Self {
        let issued = Arc::make_mut(&mut self.issued);
        issued.limit = issued.limit.min(limit);
        self
    }

    pub(super) fn with_lifetime(mut self, lifetime: Duration) -> Self {
        Arc::make_mut(&mut self.issued).lifetime = Some(lifetime);
        self
    }

    pub(crate) fn with_refresh_token(mut self, refresh_token: Option<Secret>) -> Self {
        Arc::make_mut(&mut self.issued).refresh_token = refresh_token;
        self
    }

    /// Writes it for a place outside of this process, where it lies sealed.
    pub(crate) fn to_bytes(&self, clock: &dyn Clock) -> Zeroizing<Vec<u8>> {
        self.written(clock, None)
    }

    /// The same with the ID token, for a process that ends the same sign-in.
    pub(super) fn to_bytes_with_id_token(&self, clock: &dyn Clock) -> Zeroizing<Vec<u8>> {
        self.written(clock, self.id_token())
    }

    fn written(&self, clock: &dyn Clock, id_token: Option<&Secret>) -> Zeroizing<Vec<u8>> {
        let issued = &*self.issued;
        let stored = Stored {
            v: VERSION,
            at: unix_time(clock.now()) - self.age(clock).as_secs_f64(),
            life: issued.lifetime.map(|life| life.as_secs_f64()),
            limit: issued.limit.as_secs_f64(),
            bearer: issued.bearer,
            token: issued.token.expose(),
            kind: issued.issued_type.as_deref(),
            scopes: issued.scopes.as_ref().map(Scopes::as_str),
            refresh: issued.refresh_token.as_ref().map(Secret::expose),
            id: id_token.map(Secret::expose),
        };
        // In one place, which does not grow: that would leave a copy of the token behind.
        let more = [stored.scopes, stored.kind].into_iter().flatten().map(str::len).sum::<usize>();
        // Twice, because a text may have characters that JSON escapes.
        let mut out = Zeroizing::new(Vec::with_capacity(2 * (self.octets() + more) + 400));
        // It is memory, and all members are texts and finite numbers.
        let _ = serde_json::to_writer(&mut *out, &stored);
        out
    }

    /// What [`to_bytes`](Self::to_bytes) gave, here or elsewhere. `None` for anything else.
    pub(crate) fn from_bytes(octets: &[u8], clock: &dyn Clock) -> Option<Self> {
        let stored: Stored<Secret> = serde_json::from_slice(octets).ok()?;
        if stored.v != VERSION {
            return None;
        }
        let span = |seconds| Duration::try_from_secs_f64(seconds).ok();
        let issued = Issued {
            token: stored.token,
            bearer: stored.bearer,
            issued_type: stored.kind.map(|kind| kind.expose().to_owned()),
            scopes: stored.scopes.map(|it| it.expose().parse()).transpose().ok()?,
            refresh_token: stored.refresh,
            id_token: stored.id,
            arrived: clock.elapsed(),
            age_then: span((unix_time(clock.now()) - stored.at).max(0.0))?,
            lifetime: stored.life.and_then(span),
            limit: span(stored.limit)?,
            due: due(),
        };
        Some(Self { issued: Arc::new(issued), status: CacheStatus::Hit, stay: None })
    }

    /// Reads a successful answer. Members that are `null` count as absent.
    pub(crate) fn parse(body: &[u8], clock: &dyn Clock) -> Result<Self, ExchangeError> {
        let refused = ExchangeError::Answer;
        let document = Document::parse(body).map_err(|fault| {
            refused(match fault {
                Fault::Syntax => "is not a JSON object",
                Fault::Limit => "has more members or is deeper than the limit",
                Fault::Duplicate => "has a member twice",
            })
        })?;
        let member = |name| document.root().get(name).filter(|value| !value.is_null());
        let text = |name| match member(name) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(refused("has a member of a wrong type")),
        };
        let token = text("access_token")?.filter(|token| !token.is_empty());
        let token = token.ok_or(refused("has no access_token"))?;
        let kind = text("token_type")?.ok_or(refused("has no token_type"))?;
        let bearer = kind.eq_ignore_ascii_case("bearer");
        if !bearer && !kind.eq_ignore_ascii_case("n_a") {
            return Err(refused("has a token_type that is not Bearer"));
        }
        let scopes = text("scope")?.map(str::parse).transpose();
        let told =
            member("expires_in").map(|value| seconds(value).ok_or(refused("has a bad expires_in")));
        let refresh_token = text("refresh_token")?.filter(|token| !token.is_empty());
        let token = Secret::from(token);
        let lifetime = told.transpose()?.or_else(|| until_exp(&token, clock.now()));
        let issued = Issued {
            token,
            bearer,
            issued_type: text("issued_token_type")?.map(str::to_owned),
            scopes: scopes.map_err(|_| refused("has a bad scope"))?,
            refresh_token: refresh_token.map(Secret::from),
            id_token: text("id_token")?.map(Secret::from),
            arrived: clock.elapsed(),
            age_then: Duration::ZERO,
            lifetime,
            limit: MAX_LIFETIME,
            due: due(),
        };
        Ok(Self { issued: Arc::new(issued), status: CacheStatus::Miss, stay: None })
    }

    /// Whether it has the `sub` and the tenant of another, as far as both tell: a session stays its
    /// user's.
    pub(crate) fn has_same_subject_as(&self, other: &Self) -> bool {
        ["sub", "tenant_id"].into_iter().all(|name| match (self.read(name), other.read(name)) {
            (Ok(Some(one)), Ok(Some(another))) => one == another,
            (Ok(_), Ok(_)) => true,
            _ => false,
        })
    }

    /// A claim of the token if it is a JWT, unverified: the provider gave it to us directly.
    pub(crate) fn claim(&self, name: &str) -> Option<String> {
        self.read(name).ok()?
    }

    /// A claim of the token, or why its claims cannot be read.
    fn read(&self, name: &str) -> Result<Option<String>, Fault> {
        let claims = claims_of(self.secret())?;
        let claim = claims.as_ref().and_then(|claims| claims.root().get(name));
        Ok(claim.and_then(Value::as_str).map(str::to_owned))
    }
}

/// Returns the claims of a token, *unverified*, and `None` for a token that is no JWT.
///
/// # Errors
/// The token is a JWT whose claims cannot be read here: others may read them.
pub(super) fn claims_of(token: &Secret) -> Result<Option<Document>, Fault> {
    let text = token.expose();
    let mut parts = text.split('.').map(base64url::decode);
    let (header, payload) = (parts.next().flatten(), parts.next().flatten());
    let Some(payload) = payload else { return Ok(None) };
    let is_object = |part: &[u8]| part.trim_ascii_start().starts_with(b"{");
    // The second of the five parts of a JWE is an encrypted key, and may begin with any byte.
    let is_jwt = text.split('.').count() == 3
        && is_object(&payload)
        && header.is_some_and(|header| is_object(&header));
    match Document::parse(payload) {
        Ok(claims) => Ok(Some(claims)),
        Err(Fault::Duplicate) => Err(Fault::Duplicate),
        Err(fault) if is_jwt => Err(fault),
        Err(_) => Ok(None),
    }
}

/// A number of seconds, also as a text (some servers write it so).
fn seconds(value: Value<'_>) -> Option<Duration> {
    let number: f64 = match value.as_str() {
        Some(text) => text.trim().parse().ok()?,
        None => value.as_f64()?,
    };
    number.is_finite().then(|| Duration::from_secs_f64(number.clamp(0.0, 1e9)))
}

/// Four fifths, a little more or less.
fn due() -> f64 {
    jittered(Duration::from_millis(800), 0.05).as_secs_f64()
}

/// How long until the `exp` of a token, if it is a JWT that has one. A JWT that cannot be read ends now:
/// others may read an `exp` that is past.
pub(super) fn until_exp(token: &Secret, now: SystemTime) -> Option<Duration> {
    let Ok(claims) = claims_of(token) else { return Some(Duration::ZERO) };
    let left = claims?.root().get("exp")?.as_f64()? - unix_time(now);
    left.is_finite().then(|| Duration::from_secs_f64(left.clamp(0.0, 1e9)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn parse(body: &str) -> Result<AccessToken, ExchangeError> {
        AccessToken::parse(body.as_bytes(), &SystemClock::default())
    }

    #[test]
    fn answers_of_real_servers_are_read() {
        let cases = [
            (r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#, Some(3600), true),
            (r#"{"access_token":"a","token_type":"BEARER","expires_in":"60"}"#, Some(60), true),
            (r#"{"access_token":"a","token_type":"N_A","x":[1],"scope":null}"#, None, false),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":null}"#, None, true),
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":-5}"#, Some(0), true),
        ];
        for (body, lifetime, bearer) in cases {
            let token = parse(body).unwrap();
            assert_eq!(token.lifetime().map(|life| life.as_secs()), lifetime, "{body}");
            assert_eq!(token.is_bearer(), bearer, "{body}");
        }
        for body in [
            "",
            "<html>",
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"a"}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"abc"}"#,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":"NaN x"}"#,
            r#"{"access_token":7,"token_type":"Bearer"}"#,
        ] {
            parse(body).expect_err(body);
        }
    }

    #[derive(Debug)]
    struct At(u64);

    impl Clock for At {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0)
        }
    }

    #[test]
    fn a_token_is_due_at_four_fifths_and_gone_half_a_minute_early() {
        use Freshness::{Due, Expired, Fresh};
        let cases = [
            ("3600", 2735, Fresh),
            ("3600", 3025, Due),
            ("3600", 3569, Due),
            ("3600", 3570, Expired),
            ("60", 26, Fresh),
            ("60", 27, Due),
            ("60", 30, Expired),
            ("30", 0, Expired),
            ("1e300", 0, Fresh),
            ("null", 0, Expired),
        ];
        for (told, age, state) in cases {
            let body =
                format!(r#"{{"access_token":"a","token_type":"Bearer","expires_in":{told}}}"#);
            let token = AccessToken::parse(body.as_bytes(), &At(0)).unwrap();
            assert_eq!(token.freshness(&At(age)), state, "{told} {age}");
        }
        let token =
            parse(r#"{"access_token":"a","token_type":"Bearer","expires_in":1e9}"#).unwrap();
        assert_eq!(token.cacheable_for(), Some(MAX_LIFETIME));
    }

    #[test]
    fn unreadable_jwt_ends_and_is_of_nobody() {
        let jwt = |claims: &str| format!("e30.{}.AA", base64url::encode(claims));
        let of = |token: String| {
            parse(&format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#)).unwrap()
        };
        let alice = of(jwt(r#"{"sub":"alice","exp":3600}"#));
        let left = |token: &AccessToken| until_exp(token.secret(), SystemTime::UNIX_EPOCH);
        assert_eq!(left(&alice), Some(Duration::from_secs(3600)));
        assert_eq!(left(&of("opaque".to_owned())), None);
        assert!(alice.has_same_subject_as(&of("opaque".to_owned())));
        for claims in [
            format!(r#"{{"sub":"alice","exp":3600,"x":{}1{}}}"#, "[".repeat(20), "]".repeat(20)),
            r#"{"sub":"alice","exp":3600,"sub":"mallory"}"#.to_owned(),
        ] {
            let token = of(jwt(&claims));
            assert_eq!(left(&token), Some(Duration::ZERO), "{claims}");
            assert!(
                !token.has_same_subject_as(&alice) && !alice.has_same_subject_as(&token),
                "{claims}"
            );
        }
    }

    /// What lies in a cache or a cookie, as JSON.
    fn stored(token: &AccessToken) -> serde_json::Value {
        serde_json::from_slice(&token.to_bytes_with_id_token(&At(0))).unwrap()
    }

    fn read(stored: &serde_json::Value) -> Option<AccessToken> {
        AccessToken::from_bytes(stored.to_string().as_bytes(), &At(0))
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let texts = ["plain", r#"a "quoted\" one"#, "ü\n\u{1}", ""];
        for (nth, text) in texts.into_iter().enumerate() {
            let body = serde_json::json!({
                "access_token": format!("t{text}"), "token_type": "bearer", "expires_in": 3600.25,
                "scope": "read write", "refresh_token": format!("r{text}"), "id_token": text,
                "issued_token_type": text,
            });
            let had = parse(&body.to_string()).unwrap();
            let got = read(&stored(&had)).unwrap();
            let all = |of: &AccessToken| {
                let texts = [Some(of.secret()), of.refresh_token(), of.id_token()];
                let texts = texts.map(|text| text.map(|text| text.expose().to_owned()));
                let spans = (of.lifetime(), of.cacheable_for());
                (
                    texts,
                    spans,
                    of.scopes().cloned(),
                    of.is_bearer(),
                    of.issued_token_type().map(str::to_owned),
                )
            };
            assert_eq!(all(&got), all(&had), "{nth}");
            let without = AccessToken::from_bytes(&had.to_bytes(&At(0)), &At(0)).unwrap();
            assert_eq!(without.id_token(), None);
        }
        let bare = read(&stored(&parse(r#"{"access_token":"a","token_type":"N_A"}"#).unwrap()));
        assert!(bare.is_some_and(|it| it.lifetime().is_none() && !it.is_bearer()));
    }

    #[test]
    fn another_version_is_a_miss() {
        let body = r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#;
        let good = stored(&parse(body).unwrap());
        assert!(read(&good).is_some());
        for (member, value) in [
            ("v", serde_json::json!(0)),
            ("v", serde_json::json!(2)),
            ("v", serde_json::Value::Null),
            ("at", serde_json::json!(-1e300)),
            ("life", serde_json::json!("3600")),
            ("limit", serde_json::json!(-1)),
            ("token", serde_json::Value::Null),
            ("scopes", serde_json::json!("\n")),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(read(&bad).is_none(), "{bad}");
        }
        // The format before this one: two spans and a moment, a flag, and texts behind their lengths.
        let mut former = [1.7e9_f64, 3600.0, 86_400.0].map(f64::to_be_bytes).concat();
        former.extend_from_slice(&[1, 0, 0, 0, 1, b'a']);
        former.extend_from_slice(&[255; 12]);
        assert!(AccessToken::from_bytes(&former, &At(0)).is_none());
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_a_miss(octets in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), cut in 0_usize..200) {
            assert!(AccessToken::from_bytes(&octets, &At(0)).is_none());
            let body = r#"{"access_token":"a","token_type":"bearer","expires_in":3600}"#;
            let mut good = parse(body).unwrap().to_bytes(&At(0));
            if cut < good.len() {
                good.truncate(cut);
                assert!(AccessToken::from_bytes(&good, &At(0)).is_none());
            }
        }
    }
}
