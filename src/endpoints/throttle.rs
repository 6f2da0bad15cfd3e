//! [`Throttle`]: rate limits of the endpoints.

use std::convert::Infallible;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::Endpoint;
use crate::clock::with_timeout;
use crate::error::BoxError;
use crate::support::bounded::{Bounded, bounded};
use crate::support::mac::{BuildMacHasher, Mac};
use crate::support::retry::{Rate, TokenBucket};
use crate::support::telemetry::{self, Outage};

/// An attempt to use an endpoint.
///
/// Test a throttle of your own:
///
/// ```
/// use std::net::IpAddr;
/// use std::time::Duration;
///
/// use scaikey_auth::endpoints::{Attempt, Endpoint, Throttle, ThrottleDecision, TokenBuckets};
///
/// let throttle = TokenBuckets::new().per_address(1, Duration::from_secs(60));
/// let address = Some(IpAddr::from([203, 0, 113, 7]));
/// let attempt = Attempt::new(Endpoint::Login, address, None);
/// let now = Duration::ZERO; // a monotonic time
/// let first = throttle.try_admit(&attempt, now);
/// assert_eq!(first, Some(ThrottleDecision::Allow));
/// let second = throttle.try_admit(&attempt, now);
/// assert!(matches!(second, Some(ThrottleDecision::Deny { .. })));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The client's address, if known: see [`peer_address`](super::EndpointsBuilder::peer_address).
    /// Group IPv6 addresses by /64 network, because one client usually has a whole network.
    pub address: Option<IpAddr>,
    /// The account. `None` in the first call for an attempt, before its body is read. If the
    /// attempt concerns an account, a second call names it.
    ///
    /// At `token` it is the user name, normalised so that equivalent spellings are one account
    /// ([`account_of`](super::EndpointsBuilder::account_of)). The caller chooses it, so it may be
    /// any text. At `introspect`, `sessions` and `trusts` it is the caller: issuer, tenant, kind and subject.
    pub account: Option<&'a str>,
}

impl<'a> Attempt<'a> {
    /// Creates an attempt, for tests of a throttle.
    pub fn new(endpoint: Endpoint, address: Option<IpAddr>, account: Option<&'a str>) -> Self {
        Self { endpoint, address, account }
    }
}

/// The decision of a [`Throttle`] about an attempt.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::endpoints::ThrottleDecision;
///
/// /// Decides with a counter that expires `rest` from now.
/// fn decide(count: u64, rest: Duration) -> ThrottleDecision {
///     match count {
///         0..=10 => ThrottleDecision::Allow,
///         _ => ThrottleDecision::Deny { retry_after: rest },
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleDecision {
    /// The attempt may proceed.
    Allow,
    /// The attempt exceeds the limit. The response is 429 with `Retry-After`.
    Deny {
        /// Time until another attempt can succeed. `Retry-After` contains it, rounded up to whole
        /// seconds (at least one).
        retry_after: Duration,
    },
}

/// Limits attempts, so that passwords, codes and tokens cannot be guessed (RFC 6749 §4.3.2, §10.10;
/// RFC 7662 §4).
///
/// Set with [`EndpointsBuilder::throttle`](super::EndpointsBuilder::throttle). The default,
/// [`TokenBuckets`], counts in the memory of one process. To share limits between processes,
/// implement this trait over a store.
///
/// The throttle is called for `login`, `token`, `refresh`, `logout`, `sessions`, `introspect`,
/// `exchange` and the requests with a body for `trusts`, before the body is read and before any request to the
/// provider. In this call [`attempt.account`](Attempt::account) is `None`. If the attempt concerns an account, a second
/// call for the same attempt names it. For `sessions` there is only the call that names the caller. Count addresses and
/// accounts separately.
///
/// For `backchannel_logout` and `events` it is called after a forged report: one whose signature or key is not valid.
/// If it denies, this process refuses the reports of the address unread for `retry_after`, but for 5 s at most. Pushed
/// events with the [header of their stream](super::EventStream::authorization) are not counted, and not refused.
///
/// The endpoints call [`try_admit`](Self::try_admit) first, and [`admit`](Self::admit) if it
/// returns `None`. `now` is a monotonic time of this process, so a shared store must use its own
/// clock.
///
/// If the store fails, or does not answer within one second, this process uses its own
/// [`TokenBuckets`] with default rates, and logs a warning once. An outage then does not lock users
/// out, and guesses stay limited: ten processes allow at most ten times as many. To refuse attempts
/// during an outage, return [`Deny`](ThrottleDecision::Deny) instead of the error.
///
/// An implementation may lose counts or be slightly inexact. It must not store an unbounded number
/// of addresses and accounts (callers choose both), refuse all callers because of one, or read and
/// write a count in separate steps, which would let concurrent attempts pass.
///
/// ```
/// use std::time::Duration;
/// use async_trait::async_trait;
/// use scaikey_auth::endpoints::{Attempt, Throttle, ThrottleDecision};
/// use scaikey_auth::error::BoxError;
///
/// # #[derive(Debug)] struct Store;
/// # impl Store { async fn increment(&self, _: String, _: Duration) -> Result<u64, BoxError> { Ok(1) } }
/// const MINUTE: Duration = Duration::from_secs(60);
///
/// /// Ten attempts a minute, counted for all processes.
/// #[derive(Debug)]
/// struct Shared(Store); // your store: counters that all processes share
///
/// #[async_trait]
/// impl Throttle for Shared {
///     async fn admit(&self, attempt: &Attempt<'_>, _: Duration) -> Result<ThrottleDecision, BoxError> {
///         let subject = match (attempt.account, attempt.address) {
///             (Some(account), _) => format!("account:{account}"),
///             (None, Some(address)) => format!("address:{address}"), // group IPv6 by /64
///             (None, None) => return Ok(ThrottleDecision::Allow),
///         };
///         // Addresses and accounts have separate counters: a user name may look like an address.
///         // One atomic step: increments the counter, which expires one minute after its creation.
///         let key = format!("{}:{subject}", attempt.endpoint.as_str());
///         let count = self.0.increment(key, MINUTE).await?;
///         if count <= 10 {
///             return Ok(ThrottleDecision::Allow);
///         }
///         // At most a minute; less if the counter is older.
///         Ok(ThrottleDecision::Deny { retry_after: MINUTE })
///     }
/// }
///
/// # let auth = scaikey_auth::Auth::builder().issuer("https://scaikey.example").audience("scaiwave");
/// # let auth = auth.build().unwrap();
/// # let store = Store;
/// let endpoints = auth.endpoints().throttle(Shared(store));
/// ```
#[async_trait]
pub trait Throttle: Debug + Send + Sync + 'static {
    /// Counts the attempt if this does not need to wait. `None`, the default, means that nothing
    /// was counted; [`admit`](Self::admit) is called next.
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        let _ = (attempt, now);
        None
    }

    /// Counts the attempt.
    ///
    /// # Errors
    /// Returns an error if the store cannot count. This process then counts in its own memory.
    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError>;
}

#[async_trait]
impl<T: Throttle + ?Sized> Throttle for Arc<T> {
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        (**self).try_admit(attempt, now)
    }

    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        (**self).admit(attempt, now).await
    }
}

/// Maximum time to wait for a [`Throttle`].
const TIMEOUT: Duration = Duration::from_secs(1);

/// A throttle with a local fallback.
#[derive(Debug)]
pub(super) struct ThrottleWithFallback {
    throttle: Box<dyn Throttle>,
    /// Created at the first failure of the throttle.
    local: OnceLock<TokenBuckets>,
    outage: Outage,
}

impl ThrottleWithFallback {
    pub(super) fn new(throttle: impl Throttle) -> Self {
        let (local, outage) = (OnceLock::new(), Outage::default());
        Self { throttle: Box::new(throttle), local, outage }
    }

    /// Decides about an attempt at the monotonic time `now`.
    pub(super) async fn admit(&self, attempt: &Attempt<'_>, now: Duration) -> ThrottleDecision {
        if let Some(decision) = self.throttle.try_admit(attempt, now) {
            return decision;
        }
        let answer = with_timeout(TIMEOUT, self.throttle.admit(attempt, now)).await;
        match answer.unwrap_or_else(|| Err("the throttle did not answer within one second".into()))
        {
            Ok(decision) => {
                if self.outage.record_success(|| now) {
                    telemetry::store_recovered("throttle");
                }
                decision
            }
            Err(error) => {
                telemetry::throttle_failed(&*error, self.outage.record_failure(&error, now));
                self.local.get_or_init(TokenBuckets::new).admit_now(attempt, now)
            }
        }
    }
}

/// Token buckets in the memory of this process: one per endpoint and address, and one per endpoint
/// and account. The default throttle.
///
/// | | burst | then one per |
/// |---|---|---|
/// | each address: `login`, `token`, `refresh`, `logout`, `exchange` | 60 | second |
/// | each address: *forged* logout tokens and security events | 60 | second |
/// | each address, and each caller: `introspect` | 1000 | 10 ms |
/// | each address (only requests with a body), and each caller: `trusts` | 120 | 0.5 seconds |
/// | each caller: `sessions` | 120 | 0.5 seconds |
/// | each account, [in equivalent spellings](super::EndpointsBuilder::account_of): `token` | 10 | 30 seconds |
///
/// Addresses are counted before a body is read. Only at `backchannel_logout` and `events`, they are counted when the
/// signature or key of a report is not valid, because a provider may report thousands of sign-outs within a second.
/// `register`, `whoami`, `config` and the metadata do not read a body and are not counted.
///
/// An IPv6 /64 network counts as one address, because one client usually has a whole network.
/// Attempts without a known address are not counted by address; a warning is logged once. See
/// [`peer_address`](super::EndpointsBuilder::peer_address).
///
/// About 100,000 buckets are kept, which needs some 10 MB. Buckets that were used once are evicted
/// before those used again. A bucket that was evicted starts again with its whole burst. Each
/// process counts on its own.
///
/// ```
/// use std::time::Duration;
///
/// use scaikey_auth::endpoints::TokenBuckets;
///
/// # fn example(auth: &scaikey_auth::Auth) {
/// // Five passwords for an account, then one per minute.
/// let buckets = TokenBuckets::new().per_account(5, Duration::from_secs(60));
/// let builder = auth.endpoints().throttle(buckets);
/// # }
/// ```
#[derive(Debug)]
pub struct TokenBuckets {
    buckets: Bounded<Mac, Arc<Mutex<TokenBucket>>, BuildMacHasher>,
    per_address: Rate,
    per_account: Rate,
    introspections: Rate,
    administration: Rate,
}

const MAX_BUCKETS: usize = 100_000;
const MAX_PERIOD: Duration = Duration::from_secs(3600);

impl Default for TokenBuckets {
    fn default() -> Self {
        Self {
            buckets: bounded(MAX_BUCKETS),
            per_address: Rate::ADDRESS,
            per_account: Rate::ACCOUNT,
            introspections: Rate::INTROSPECTION,
            administration: Rate::ADMINISTRATION,
        }
    }
}

impl TokenBuckets {
    /// Creates buckets with the default rates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows `burst` attempts from each address, and then one per `period` (longer periods are
    /// capped at one hour). Of logout tokens and security events, only forged ones count.
    #[must_use]
    pub fn per_address(mut self, burst: u32, period: Duration) -> Self {
        self.per_address = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    /// Allows `burst` attempts on each account, and then one per `period` (longer periods are
    /// capped at one hour).
    #[must_use]
    pub fn per_account(mut self, burst: u32, period: Duration) -> Self {
        self.per_account = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    /// Allows `burst` introspections from each address and by each caller, and then one per `period` (longer periods
    /// are capped at one hour).
    #[must_use]
    pub fn introspections(mut self, burst: u32, period: Duration) -> Self {
        self.introspections = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    /// Allows `burst` requests with a body for `trusts` from each address and by each caller, and requests for
    /// `sessions` by each caller, and then one per `period` (longer periods are capped at one hour). The page sends
    /// such a request for each pause in typing. For each administrator of a tenant, requests for its rules and its
    /// history count, too.
    #[must_use]
    pub fn administration(mut self, burst: u32, period: Duration) -> Self {
        self.administration = Rate::new(burst, period.min(MAX_PERIOD));
        self
    }

    fn take(
        &self,
        kind: &str,
        subject: &[u8],
        endpoint: Endpoint,
        rate: Rate,
        now: Duration,
    ) -> Result<(), Duration> {
        // NUL separates the parts: kinds and endpoints do not contain it.
        let key = [kind.as_bytes(), endpoint.as_str().as_bytes(), subject].join(&0);
        let new = || Ok::<_, Infallible>(Arc::default());
        let Ok(bucket) = self.buckets.get_or_insert_with(&Mac::of(&key), new);
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
    }
}

impl TokenBuckets {
    fn admit_now(&self, attempt: &Attempt<'_>, now: Duration) -> ThrottleDecision {
        let (kind, subject, rate) = match (attempt.account, attempt.address) {
            // The first call for this attempt counted its address.
            (Some(account), _) => ("account", account.as_bytes().to_vec(), self.per_account),
            (None, Some(address)) => ("address", network(address), self.per_address),
            (None, None) => return ThrottleDecision::Allow,
        };
        let rate = match attempt.endpoint {
            Endpoint::Introspect => self.introspections,
            Endpoint::Sessions | Endpoint::Trusts => self.administration,
            _ => rate,
        };
        match self.take(kind, &subject, attempt.endpoint, rate, now) {
            Ok(()) => ThrottleDecision::Allow,
            Err(retry_after) => ThrottleDecision::Deny { retry_after },
        }
    }
}

#[async_trait]
impl Throttle for TokenBuckets {
    fn try_admit(&self, attempt: &Attempt<'_>, now: Duration) -> Option<ThrottleDecision> {
        Some(self.admit_now(attempt, now))
    }

    async fn admit(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
    ) -> Result<ThrottleDecision, BoxError> {
        Ok(self.admit_now(attempt, now))
    }
}

/// Returns the bytes that identify an address: an IPv4 address or an IPv6 /64 network.
pub(super) fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !(u128::MAX >> 64);
            Ipv6Addr::from(prefix).octets().to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt<'a>(endpoint: Endpoint, address: &str, account: Option<&'a str>) -> Attempt<'a> {
        Attempt { endpoint, address: Some(address.parse().unwrap()), account }
    }

    fn admit(buckets: &TokenBuckets, attempt: &Attempt<'_>, now: Duration) -> Result<(), Duration> {
        match buckets.try_admit(attempt, now).unwrap() {
            ThrottleDecision::Allow => Ok(()),
            ThrottleDecision::Deny { retry_after } => Err(retry_after),
        }
    }

    /// Calls the throttle like the endpoints do: without the account, and then with it.
    fn admit_with_account(
        buckets: &TokenBuckets,
        whole: &Attempt<'_>,
        now: Duration,
    ) -> Result<(), Duration> {
        admit(buckets, &Attempt { account: None, ..*whole }, now)?;
        if whole.account.is_some() { admit(buckets, whole, now) } else { Ok(()) }
    }

    #[test]
    fn bucket_allows_burst_then_one_per_period() {
        let buckets = TokenBuckets::new().per_address(3, SECOND);
        let login = attempt(Endpoint::Login, "192.0.2.1", None);
        let mut now = Duration::from_secs(1000);
        for _ in 0..3 {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        // A refused attempt takes nothing from the bucket.
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        now += SECOND / 2;
        assert_eq!(admit(&buckets, &login, now), Err(SECOND / 2));
        now += SECOND / 2;
        admit(&buckets, &login, now).unwrap();
        assert_eq!(admit(&buckets, &login, now), Err(SECOND));
        now += SECOND * 100;
        for _ in 0..3 {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(
            admit(&buckets, &login, now),
            Err(SECOND),
            "the bucket never holds more than its burst"
        );
    }

    #[test]
    fn period_is_capped_at_one_hour() {
        let buckets = TokenBuckets::new().per_address(2, Duration::MAX);
        let login = attempt(Endpoint::Login, "192.0.2.1", None);
        for now in [Duration::ZERO, Duration::ZERO] {
            admit(&buckets, &login, now).unwrap();
        }
        assert_eq!(admit(&buckets, &login, Duration::ZERO), Err(Duration::from_secs(3600)));
        let _ = admit(&buckets, &login, Duration::MAX);
    }

    #[test]
    fn concurrent_attempts_share_one_bucket() {
        for round in 0..50 {
            let buckets = TokenBuckets::new().per_address(10, SECOND);
            let login = attempt(Endpoint::Login, &format!("192.0.2.{round}"), None);
            let start = std::sync::Barrier::new(4);
            let admitted = || {
                start.wait();
                (0..10).filter(|_| admit(&buckets, &login, SECOND).is_ok()).count()
            };
            let admitted: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).sum()
            });
            assert_eq!(admitted, 10);
        }
    }

    #[test]
    fn address_flood_keeps_account_refused() {
        let (buckets, now) = (TokenBuckets::new(), SECOND);
        let flood = |from: u32| {
            for n in from..from + MAX_BUCKETS as u32 {
                let address = IpAddr::V4(n.into());
                let login =
                    Attempt { endpoint: Endpoint::Login, address: Some(address), account: None };
                admit(&buckets, &login, now).unwrap();
            }
        };
        flood(0);
        let alice = attempt(Endpoint::Token, "192.0.2.1", Some("alice"));
        while admit(&buckets, &alice, now).is_ok() {}
        flood(1 << 24);
        admit(&buckets, &alice, now).unwrap_err();
    }

    #[test]
    fn limits_count_addresses_and_accounts_separately() {
        let buckets = TokenBuckets::new().per_address(1, SECOND).per_account(2, SECOND);
        let now = Duration::from_secs(1);
        let once = |attempt: Attempt<'_>| admit_with_account(&buckets, &attempt, now);
        once(attempt(Endpoint::Token, "192.0.2.1", Some("alice"))).unwrap();
        once(attempt(Endpoint::Token, "192.0.2.1", Some("bob"))).unwrap_err();
        once(attempt(Endpoint::Login, "192.0.2.1", None)).unwrap();
        once(attempt(Endpoint::Token, "::ffff:192.0.2.1", None)).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8::1", Some("alice"))).unwrap();
        once(attempt(Endpoint::Token, "2001:db8::ffff:2", None)).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8:0:1::1", Some("alice"))).unwrap_err();
        once(attempt(Endpoint::Token, "2001:db8:0:2::1", Some("bob"))).unwrap();
    }
}
