//! [`AccessToken`]: a token from the token endpoint, with its lifetime (RFC 6749 §5.1).

mod response;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, jittered};
use crate::identity::Scopes;
use crate::support::secret::Secret;

pub(super) use response::claims_of;
pub(crate) use response::{claimed_identity, subject_of, until_exp};
#[cfg(feature = "endpoints")]
pub(crate) use response::{
    has_readable_claims, has_same_claim, has_same_subject, identity_of, text_claim,
};

/// The remaining lifetime below which a token counts as expired, because it may expire in transit.
const SAFETY_MARGIN: Duration = Duration::from_secs(30);

/// The longest time for which a token is cached, even if it lives longer.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// An access token and the other members of the provider's answer. Cheap to clone.
///
/// Its age is measured on the monotonic clock, so setting the wall clock does not change it.
///
/// ```
/// use scaikey_auth::exchange::AccessToken;
///
/// /// A token for a tool that knows only headers, and the seconds for which it may use it.
/// fn header(token: &AccessToken) -> (String, Option<u64>) {
///     let seconds = token.lifetime().map(|lifetime| lifetime.as_secs());
///     (format!("Bearer {}", token.secret().expose()), seconds)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct AccessToken {
    data: Arc<TokenData>,
    status: CacheStatus,
    /// The remaining time for which the shared cache that returned this token keeps it.
    remaining_ttl: Option<Duration>,
}

#[derive(Debug, Clone)]
struct TokenData {
    token: Secret,
    bearer: bool,
    issued_type: Option<String>,
    scopes: Option<Scopes>,
    refresh_token: Option<Secret>,
    id_token: Option<Secret>,
    /// The monotonic time at which this process received the token.
    received: Duration,
    /// The age of the token at `received`. Not zero if another process requested the token.
    age_when_received: Duration,
    lifetime: Option<Duration>,
    /// The maximum age up to which the token may be cached, in addition to the limit set by its
    /// lifetime.
    max_ttl: Duration,
    /// The fraction of the lifetime after which the token is due: about 0.8.
    due_fraction: f64,
}

impl TokenData {
    /// Returns the age up to which the token may be cached.
    fn cacheable_age(&self) -> Duration {
        self.lifetime.unwrap_or_default().saturating_sub(SAFETY_MARGIN).min(self.max_ttl)
    }

    /// Returns the age until which the token is fresh.
    fn fresh_age(&self) -> Duration {
        let lifetime = self.lifetime.unwrap_or_default().min(MAX_LIFETIME);
        lifetime.mul_f64(self.due_fraction).min(self.cacheable_age().mul_f64(0.9))
    }
}

/// The phase of a token's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Less than about 80 % of the lifetime (at most one day) has passed. The limit is a random value
    /// between 76 % and 84 %, so that tokens issued together are not renewed together.
    Fresh,
    /// The token is valid, but should be renewed.
    Due,
    /// Less than 30 seconds are left, the lifetime is unknown, or the token may no longer be cached for
    /// another reason: see [`cacheable_for`](AccessToken::cacheable_for).
    Expired,
}

/// The source of a token, modelled on the `Cache-Status` header (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheStatus {
    /// From the cache.
    Hit,
    /// From the provider, for this call.
    Miss,
    /// From the provider or a shared cache, by another call that was already in progress.
    Collapsed,
}

impl CacheStatus {
    /// Returns `hit`, `miss` or `collapsed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
        }
    }
}

impl AccessToken {
    /// Returns the text of the access token.
    pub fn secret(&self) -> &Secret {
        &self.data.token
    }

    /// Returns whether the `token_type` is `Bearer`. If it is `N_A`, the token is not an access token
    /// (RFC 8693 §2.2.1).
    pub fn is_bearer(&self) -> bool {
        self.data.bearer
    }

    /// Returns `issued_token_type`, if the answer has it.
    pub fn issued_token_type(&self) -> Option<&str> {
        self.data.issued_type.as_deref()
    }

    /// Returns the granted scopes, if the answer has them. `None` means that the requested scopes were
    /// granted.
    pub fn scopes(&self) -> Option<&Scopes> {
        self.data.scopes.as_ref()
    }

    /// Returns the refresh token, if the answer has one. `None` after a refresh means that the refresh
    /// token just used stays valid (RFC 6749 §6). Always `None` for exchanges and service tokens
    /// (RFC 6749 §4.4.3).
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.data.refresh_token.as_ref()
    }

    /// Returns the ID token, if the answer has one. It is *not verified*. A shared cache keeps it sealed
    /// for a minute, in case the browser repeats the sign-in callback. Sessions in cookies keep it only for a
    /// sign-out at the provider.
    pub fn id_token(&self) -> Option<&Secret> {
        self.data.id_token.as_ref()
    }

    /// Returns the lifetime, counted from the time of issue: `expires_in`, else the `exp` of a JWT,
    /// else [`default_lifetime`](super::TokenExchangeBuilder::default_lifetime), else `None`.
    pub fn lifetime(&self) -> Option<Duration> {
        self.data.lifetime
    }

    /// Returns the source of this token.
    pub fn cache_status(&self) -> CacheStatus {
        self.status
    }

    /// Returns the time for which the token may be cached, counted from the time of issue: the lifetime
    /// minus 30 seconds, but no longer than the subject token of the exchange lives, and at most one
    /// day. `None` means that it must not be cached.
    pub fn cacheable_for(&self) -> Option<Duration> {
        Some(self.data.cacheable_age()).filter(|age| !age.is_zero())
    }

    /// Returns the phase of the token's life. A token with a lifetime below about 4.5 minutes is due
    /// earlier: at 90 % of [`cacheable_for`](Self::cacheable_for).
    pub fn freshness(&self, clock: &dyn Clock) -> Freshness {
        match self.age(clock) {
            age if age < self.data.fresh_age() => Freshness::Fresh,
            age if age < self.data.cacheable_age() => Freshness::Due,
            _ => Freshness::Expired,
        }
    }

    /// Returns the freshness without the safety margin of 30 seconds: a session uses its token until it
    /// expires, even if it lives for only ten seconds. A token of unknown lifetime is fresh.
    pub(crate) fn freshness_until_expiry(&self, clock: &dyn Clock) -> Freshness {
        let Some(lifetime) = self.lifetime() else { return Freshness::Fresh };
        match self.age(clock) {
            age if age >= lifetime => Freshness::Expired,
            age if age >= lifetime.mul_f64(self.data.due_fraction) => Freshness::Due,
            _ => Freshness::Fresh,
        }
    }

    /// Returns how much longer the token may be cached. `None` means that it must not be cached.
    pub(super) fn remaining_ttl(&self, clock: &dyn Clock) -> Option<Duration> {
        let left = self.cacheable_for()?.saturating_sub(self.age(clock));
        let left = left.min(self.remaining_ttl.unwrap_or(Duration::MAX));
        (!left.is_zero()).then_some(left)
    }

    /// Returns how much longer the token lives, if known.
    pub(crate) fn remaining(&self, clock: &dyn Clock) -> Option<Duration> {
        Some(self.lifetime()?.saturating_sub(self.age(clock)))
    }

    pub(super) fn age(&self, clock: &dyn Clock) -> Duration {
        // Saturating, because a stored token may claim any age.
        let since = clock.elapsed().saturating_sub(self.data.received);
        since.saturating_add(self.data.age_when_received)
    }

    /// Returns the size of the tokens in bytes.
    pub(super) fn size(&self) -> usize {
        let length = |text: Option<&Secret>| text.map_or(0, |text| text.expose().len());
        length(Some(self.secret())) + length(self.refresh_token()) + length(self.id_token())
    }

    pub(super) fn with_status(mut self, status: CacheStatus) -> Self {
        self.status = status;
        self
    }

    /// Sets the remaining time in the shared cache that returned this token.
    pub(super) fn with_remaining_ttl(mut self, remaining_ttl: Duration) -> Self {
        self.remaining_ttl = Some(remaining_ttl);
        self
    }

    /// Limits the time for which the token may be cached.
    pub(super) fn cacheable_at_most(mut self, limit: Duration) -> Self {
        let data = Arc::make_mut(&mut self.data);
        data.max_ttl = data.max_ttl.min(limit);
        self
    }

    pub(super) fn with_lifetime(mut self, lifetime: Duration) -> Self {
        Arc::make_mut(&mut self.data).lifetime = Some(lifetime);
        self
    }

    /// Returns the token with another remaining lifetime.
    #[cfg(feature = "endpoints")]
    pub(crate) fn with_remaining(self, left: Duration, clock: &dyn Clock) -> Self {
        let age = self.age(clock);
        self.with_lifetime(age.saturating_add(left))
    }

    #[cfg(feature = "endpoints")]
    pub(crate) fn with_id_token(mut self, id_token: Option<Secret>) -> Self {
        Arc::make_mut(&mut self.data).id_token = id_token;
        self
    }

    pub(crate) fn with_refresh_token(mut self, refresh_token: Option<Secret>) -> Self {
        Arc::make_mut(&mut self.data).refresh_token = refresh_token;
        self
    }
}

/// Returns a random fraction between 0.76 and 0.84.
fn random_due_fraction() -> f64 {
    jittered(Duration::from_millis(800), 0.05).as_secs_f64()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock::SystemClock;
    use crate::exchange::ExchangeError;

    pub(super) fn parse(body: &str) -> Result<AccessToken, ExchangeError> {
        AccessToken::parse(body.as_bytes(), &SystemClock::default())
    }

    /// A clock that stands still at this number of seconds.
    #[derive(Debug)]
    pub(super) struct FixedClock(pub(super) u64);

    impl Clock for FixedClock {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0)
        }
    }

    #[test]
    fn freshness_follows_age() {
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
        for (expires_in, age, freshness) in cases {
            let body = format!(
                r#"{{"access_token":"a","token_type":"Bearer","expires_in":{expires_in}}}"#
            );
            let token = AccessToken::parse(body.as_bytes(), &FixedClock(0)).unwrap();
            assert_eq!(token.freshness(&FixedClock(age)), freshness, "{expires_in} {age}");
        }
        let token =
            parse(r#"{"access_token":"a","token_type":"Bearer","expires_in":1e9}"#).unwrap();
        assert_eq!(token.cacheable_for(), Some(MAX_LIFETIME));
    }
}
