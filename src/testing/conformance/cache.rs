//! The conformance suite for a [`TokenCache`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::clock::{SystemClock, sleep, with_timeout};
use crate::exchange::{
    AccessToken, CacheKey, ClientFingerprint, ExchangeRequest, Fence, RefreshRequest, TokenCache,
    TokenRequest, TokenType,
};
use crate::identity::TenantId;
use crate::support::seal::SealingKeys;

/// A TTL that is longer than the suite runs.
const LONG: Duration = Duration::from_secs(600);

/// A TTL that elapses while the suite runs.
const SHORT: Duration = Duration::from_millis(500);

/// The default of [`CacheSuite::timeout`].
const TIMEOUT: Duration = Duration::from_secs(60);

/// A [`TokenCache`] to test, with access to its store (feature `testing`).
///
/// ```
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use scaikey_auth::TokenCache;
/// use scaikey_auth::exchange::MemoryCache;
/// use scaikey_auth::testing::conformance::{CacheSuite, token_cache};
///
/// struct Suite(Arc<MemoryCache>);
///
/// #[async_trait]
/// impl CacheSuite for Suite {
///     fn cache(&self) -> Arc<dyn TokenCache> {
///         self.0.clone()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// token_cache(&Suite(Arc::new(MemoryCache::default()))).await;
/// # }
/// ```
#[async_trait]
pub trait CacheSuite: Sync {
    /// Returns a cache on the store under test. For a shared cache, each call returns an instance
    /// that shares only the store with the others, like the instance of another process. Otherwise
    /// each call returns the same cache.
    fn cache(&self) -> Arc<dyn TokenCache>;

    /// Returns all names and values in the store. By default it returns none, and the suite skips
    /// the rules that need them.
    async fn stored(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        Vec::new()
    }

    /// Replaces the value of `name`, a name from [`stored`](Self::stored). The default does
    /// nothing. Implement both methods or neither: the suite fails if `stored` returns entries and
    /// this method changes none.
    async fn overwrite(&self, name: &[u8], value: &[u8]) {
        let _ = (name, value);
    }

    /// Returns the time within which an entry with a TTL of 500 ms must expire. Default: 60 s, for
    /// busy machines.
    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

/// Runs the conformance suite for a [`TokenCache`] (feature `testing`). It takes one to two seconds
/// of real time.
///
/// The suite tests that:
/// - a token is returned for its own key and no other;
/// - tokens are replaced, removed and expire in time;
/// - parallel and cancelled calls have no effect on other calls;
/// - [`peek`](TokenCache::peek) agrees with [`get`](TokenCache::get);
/// - in a [shared](TokenCache::is_shared) cache, other instances see a token, a lock has one holder
///   and expires, and a put by a former holder is ignored; a cache that is not shared grants every
///   lock;
/// - in a shared cache with [`stored`](CacheSuite::stored): the store contains no token, subject or
///   user name in plain text;
/// - in a shared cache with [`overwrite`](CacheSuite::overwrite): a modified value is never
///   returned.
///
/// It does *not* test an unavailable store, which must be an `Err` without a long wait.
///
/// # Panics
/// Panics if the cache breaks a rule. The message names the rule.
pub async fn token_cache(suite: &dyn CacheSuite) {
    let fixture = Fixture::new(suite.timeout());
    stores_tokens(suite, &fixture).await;
    separates_keys(suite, &fixture).await;
    expires_tokens(suite, &fixture).await;
    handles_parallel_calls(suite, &fixture).await;
    if suite.cache().is_shared() {
        shares_tokens(suite, &fixture).await;
        locks(suite, &fixture).await;
        fences(suite, &fixture).await;
        seals(suite, &fixture).await;
        rejects_modified_values(suite, &fixture).await;
    } else {
        grants_every_lock(suite, &fixture).await;
    }
}

/// Keys and tokens that are unique to one run of the suite.
#[derive(Clone)]
struct Fixture {
    keys: SealingKeys,
    client: Arc<ClientFingerprint>,
    clock: SystemClock,
    /// A random text in each token and key of this run.
    nonce: String,
    timeout: Duration,
}

/// The fields of a request that distinguish cache keys.
#[derive(Debug, Clone, Default)]
struct RequestFields {
    is_refresh: bool,
    tenant: Option<&'static str>,
    subject: &'static str,
    subject_type: &'static str,
    actor: Option<&'static str>,
    audience: &'static str,
    resource: Option<&'static str>,
    scopes: &'static str,
}

const ALICE: RequestFields = RequestFields {
    is_refresh: false,
    tenant: Some("suite-acme"),
    subject: "alice's token, a secret",
    subject_type: "access_token",
    actor: None,
    audience: "suite-vault",
    resource: None,
    scopes: "read write",
};

impl RequestFields {
    fn request(&self) -> TokenRequest<'static> {
        let tenant = self.tenant.and_then(|id| TenantId::new(id).ok());
        if self.is_refresh {
            let mut request = RefreshRequest::new(self.subject);
            request.tenant = tenant;
            return TokenRequest::Refresh(Cow::Owned(request));
        }
        let mut request = ExchangeRequest::new(self.subject, self.audience);
        request.tenant = tenant;
        request.subject_type = TokenType::Other(self.subject_type.to_owned());
        request.actor = self.actor.map(|token| (token.into(), TokenType::Jwt));
        request.resources = self.resource.iter().filter_map(|url| url.parse().ok()).collect();
        request.scopes = obtain(self.scopes.parse().ok(), "the suite's scopes are valid");
        TokenRequest::Exchange(Cow::Owned(request))
    }
}

impl Fixture {
    fn new(timeout: Duration) -> Self {
        let nonce =
            obtain(Fence::random().ok(), "the system provides random numbers").as_str().to_owned();
        Self {
            keys: obtain(SealingKeys::random().ok(), "the system provides random numbers"),
            client: Arc::new(ClientFingerprint::new([nonce.as_str()].into_iter(), true)),
            clock: SystemClock::default(),
            nonce,
            timeout,
        }
    }

    /// Polls `condition` and returns whether it became true within the timeout.
    async fn until(&self, mut condition: impl AsyncFnMut() -> bool) -> bool {
        let polling = async {
            while !condition().await {
                sleep(SHORT / 10).await;
            }
        };
        with_timeout(self.timeout, polling).await.is_some()
    }

    /// Calls `use_key` with the cache key of a request.
    async fn with<T>(
        &self,
        fields: &RequestFields,
        use_key: impl AsyncFnOnce(&CacheKey<'_>) -> T,
    ) -> T {
        let server_key = obtain(self.keys.current(&self.clock).first().cloned(), "there is a key");
        let request = fields.request();
        use_key(&CacheKey::new(&self.client, &request, server_key, &self.clock)).await
    }

    /// Returns a token whose text members contain this name, so that the suite can search for them
    /// in the store.
    fn token(&self, name: &str) -> AccessToken {
        let body = format!(
            r#"{{"access_token":"token-{name}-{nonce}","token_type":"Bearer","expires_in":3600,
            "scope":"read {name}","refresh_token":"refresh-{name}-{nonce}",
            "issued_token_type":"urn:ietf:params:oauth:token-type:jwt"}}"#,
            nonce = self.nonce
        );
        obtain(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the suite's token is valid")
    }

    /// Returns a token with the required members only.
    fn bare_token(&self) -> AccessToken {
        let body = format!(r#"{{"access_token":"bare-{}","token_type":"N_A"}}"#, self.nonce);
        obtain(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the suite's token is valid")
    }

    async fn put(&self, cache: &dyn TokenCache, fields: &RequestFields, token: &AccessToken) {
        self.put_for(cache, fields, token, LONG, None).await;
    }

    async fn put_for(
        &self,
        cache: &dyn TokenCache,
        fields: &RequestFields,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) {
        let put = self.with(fields, async |key| cache.put(key, token, ttl, fence).await).await;
        expect_ok("put", put);
    }

    async fn get(&self, cache: &dyn TokenCache, fields: &RequestFields) -> Option<AccessToken> {
        self.with(fields, async |key| {
            let got = expect_ok("get", cache.get(key).await);
            if let Some(peek) = cache.peek(key) {
                let same = got.as_ref().is_some_and(|got| got.secret() == peek.secret());
                assert!(same, "rule broken: peek agrees with get");
            }
            got
        })
        .await
    }

    async fn lock(
        &self,
        cache: &dyn TokenCache,
        fields: &RequestFields,
        life: Duration,
    ) -> Option<Fence> {
        let fence = obtain(Fence::random().ok(), "the system provides random numbers");
        self.lock_with(cache, fields, &fence, life).await.then_some(fence)
    }

    async fn lock_with(
        &self,
        cache: &dyn TokenCache,
        fields: &RequestFields,
        fence: &Fence,
        life: Duration,
    ) -> bool {
        let lock = self.with(fields, async |key| cache.lock(key, fence, life).await).await;
        expect_ok("lock", lock)
    }

    async fn unlock(&self, cache: &dyn TokenCache, fields: &RequestFields, fence: &Fence) {
        expect_ok("unlock", self.with(fields, async |key| cache.unlock(key, fence).await).await);
    }

    async fn remove(&self, cache: &dyn TokenCache, fields: &RequestFields) {
        expect_ok("remove", self.with(fields, async |key| cache.remove(key).await).await);
    }

    async fn expect(
        &self,
        cache: &dyn TokenCache,
        fields: &RequestFields,
        token: Option<&AccessToken>,
        rule: &str,
    ) {
        match (self.get(cache, fields).await, token) {
            (None, None) => {}
            (Some(got), Some(put)) => equal(&got, put, rule),
            (got, put) => {
                let found = |is_there: bool| if is_there { "a token" } else { "nothing" };
                let (got, put) = (found(got.is_some()), found(put.is_some()));
                fail(&format!("{rule}: expected {put}, got {got}"));
            }
        }
    }
}

fn equal(got: &AccessToken, put: &AccessToken, rule: &str) {
    assert!(got.secret() == put.secret(), "rule broken: {rule}: another token");
    assert!(got.refresh_token() == put.refresh_token(), "rule broken: {rule}: refresh_token");
    assert_eq!(got.is_bearer(), put.is_bearer(), "rule broken: {rule}: is_bearer");
    assert_eq!(
        got.issued_token_type(),
        put.issued_token_type(),
        "rule broken: {rule}: issued_token_type"
    );
    assert_eq!(got.scopes(), put.scopes(), "rule broken: {rule}: scopes");
    assert_eq!(got.lifetime(), put.lifetime(), "rule broken: {rule}: lifetime");
    assert_eq!(got.cacheable_for(), put.cacheable_for(), "rule broken: {rule}: cacheable_for");
}

async fn stores_tokens(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    fixture.expect(cache, &ALICE, None, "get returns nothing before a put").await;
    for token in [fixture.token("first"), fixture.bare_token(), fixture.token("last")] {
        fixture.put(cache, &ALICE, &token).await;
        fixture.expect(cache, &ALICE, Some(&token), "get returns the token put last").await;
        fixture.expect(cache, &ALICE, Some(&token), "get returns the same token again").await;
    }
    fixture.remove(cache, &ALICE).await;
    fixture.expect(cache, &ALICE, None, "a removed token is gone").await;
    fixture.remove(cache, &ALICE).await;
}

async fn separates_keys(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    let keys = [
        ALICE,
        RequestFields { is_refresh: true, ..ALICE },
        RequestFields { tenant: None, ..ALICE },
        RequestFields { tenant: Some("-"), ..ALICE },
        RequestFields { tenant: Some("suite-Acme"), ..ALICE },
        RequestFields { tenant: Some("suite-acme:token"), ..ALICE },
        RequestFields { tenant: Some("{}"), ..ALICE },
        RequestFields { tenant: Some("{suite"), ..ALICE },
        RequestFields { tenant: Some("*"), ..ALICE },
        RequestFields { subject: "bob's token, a secret", ..ALICE },
        RequestFields { subject_type: "jwt", ..ALICE },
        RequestFields { actor: Some("robot"), ..ALICE },
        RequestFields { audience: "suite-grid", ..ALICE },
        RequestFields { resource: Some("https://conformance.example/"), ..ALICE },
        RequestFields { scopes: "read", ..ALICE },
        RequestFields { scopes: "", ..ALICE },
    ];
    let names = ('a'..='z').map(String::from);
    let tokens: Vec<_> = names.take(keys.len()).map(|name| fixture.token(&name)).collect();
    let rule = "each key has its own token";
    for (fields, token) in keys.iter().zip(&tokens) {
        fixture.expect(cache, fields, None, &format!("{rule}: {fields:?}")).await;
        fixture.put(cache, fields, token).await;
    }
    for (fields, token) in keys.iter().zip(&tokens) {
        fixture.expect(cache, fields, Some(token), &format!("{rule}: {fields:?}")).await;
    }
    let mut left: Vec<_> = keys.iter().zip(&tokens).collect();
    while let Some((fields, _)) = left.pop() {
        fixture.remove(cache, fields).await;
        fixture.expect(cache, fields, None, "a removed token is gone").await;
        if let Some((other, token)) = left.last() {
            fixture.expect(cache, other, Some(token), "removing a token keeps the others").await;
        }
    }
}

async fn expires_tokens(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    let token = fixture.token("short");
    fixture.put_for(cache, &ALICE, &token, SHORT, None).await;
    fixture.expect(cache, &ALICE, Some(&token), "a token is available during its TTL").await;
    // An instance that reads the token in the meantime must not keep it for longer either.
    let other = &*suite.cache();
    fixture.get(other, &ALICE).await;
    for cache in [cache, other] {
        let gone = fixture.until(async || fixture.get(cache, &ALICE).await.is_none()).await;
        assert!(gone, "rule broken: a token expires after its TTL");
    }
    fixture.put_for(cache, &ALICE, &token, Duration::ZERO, None).await;
    let rule = "a token with a TTL of zero is not stored";
    fixture.expect(&*suite.cache(), &ALICE, None, rule).await;
    fixture.put_for(cache, &ALICE, &token, Duration::MAX, None).await;
    fixture.expect(cache, &ALICE, Some(&token), "the longest TTL is accepted").await;
    fixture.remove(cache, &ALICE).await;
}

async fn handles_parallel_calls(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = suite.cache();
    let (token, other) = (fixture.token("parallel"), RequestFields { scopes: "parallel", ..ALICE });
    fixture.put(&*cache, &ALICE, &token).await;
    for _ in 0..16 {
        fixture.with(&ALICE, async |key| with_timeout(Duration::ZERO, cache.get(key)).await).await;
        fixture
            .with(&ALICE, async |key| {
                with_timeout(Duration::ZERO, cache.put(key, &token, LONG, None)).await
            })
            .await;
    }
    let rule = "cancelled calls have no effect";
    fixture.expect(&*cache, &ALICE, Some(&token), rule).await;
    let fixture = Arc::new(fixture.clone());
    let mut calls = JoinSet::new();
    for turn in 0..64 {
        let (cache, fixture) = (cache.clone(), fixture.clone());
        let (fields, token) = match turn % 2 {
            0 => (ALICE, Some(token.clone())),
            _ => (other.clone(), None),
        };
        calls.spawn(async move {
            let rule = "parallel calls return their own tokens";
            fixture.expect(&*cache, &fields, token.as_ref(), rule).await;
        });
    }
    while let Some(call) = calls.join_next().await {
        if let Err(failed) = call {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    fixture.remove(&*cache, &ALICE).await;
}

async fn shares_tokens(suite: &dyn CacheSuite, fixture: &Fixture) {
    let token = fixture.token("shared");
    fixture.put(&*suite.cache(), &ALICE, &token).await;
    fixture
        .expect(
            &*suite.cache(),
            &ALICE,
            Some(&token),
            "another instance of a shared cache sees a token",
        )
        .await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    fixture
        .expect(&*suite.cache(), &ALICE, None, "a removed token is gone for all instances")
        .await;
}

async fn locks(suite: &dyn CacheSuite, fixture: &Fixture) {
    let (one, two) = (&*suite.cache(), &*suite.cache());
    let other = RequestFields { scopes: "another lock", ..ALICE };
    let fence = granted(fixture.lock(one, &ALICE, LONG).await);
    for cache in [one, two] {
        let again = fixture.lock(cache, &ALICE, LONG).await;
        assert!(again.is_none(), "rule broken: a lock has one holder");
    }
    let again = fixture.lock_with(two, &ALICE, &fence, LONG).await;
    assert!(again, "rule broken: the same fence acquires a lock again");
    let elsewhere = granted(fixture.lock(two, &other, LONG).await);
    fixture.unlock(two, &ALICE, &elsewhere).await;
    let again = fixture.lock(two, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: only the holder releases a lock");
    fixture.unlock(one, &ALICE, &fence).await;
    let next = granted(fixture.lock(two, &ALICE, LONG).await);
    fixture.unlock(one, &ALICE, &fence).await;
    let again = fixture.lock(one, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: an old fence does not release a newer lock");
    fixture.unlock(two, &ALICE, &next).await;
    fixture.unlock(two, &other, &elsewhere).await;

    // A lock accepts the longest lifetime, and a lifetime of zero.
    let endless = granted(fixture.lock(one, &ALICE, Duration::MAX).await);
    fixture.unlock(one, &ALICE, &endless).await;
    fixture.lock(one, &ALICE, Duration::ZERO).await;
    lock_expires(one, fixture).await;

    let short = granted(fixture.lock(one, &ALICE, SHORT).await);
    let ended = fixture.until(async || fixture.lock(two, &ALICE, SHORT).await.is_some()).await;
    assert!(ended, "rule broken: a lock expires");
    fixture.unlock(one, &ALICE, &short).await;
    lock_expires(two, fixture).await;
}

/// Checks that the current lock expires.
async fn lock_expires(cache: &dyn TokenCache, fixture: &Fixture) {
    let ended = fixture.until(async || match fixture.lock(cache, &ALICE, LONG).await {
        Some(fence) => {
            fixture.unlock(cache, &ALICE, &fence).await;
            true
        }
        None => false,
    });
    assert!(ended.await, "rule broken: a lock expires");
}

async fn fences(suite: &dyn CacheSuite, fixture: &Fixture) {
    let (one, two) = (&*suite.cache(), &*suite.cache());
    let (first, second, late) = (fixture.token("one"), fixture.token("two"), fixture.token("late"));
    let fence = granted(fixture.lock(one, &ALICE, LONG).await);
    fixture.put_for(one, &ALICE, &first, LONG, Some(&fence)).await;
    let rule = "a put by the lock holder is stored";
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    fixture.unlock(one, &ALICE, &fence).await;
    // Checked from new instances: an instance that puts may keep its own copy.
    let rule = "a put by a former lock holder is ignored";
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    let next = granted(fixture.lock(two, &ALICE, LONG).await);
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    fixture.put_for(two, &ALICE, &second, LONG, Some(&next)).await;
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&second), rule).await;
    fixture.unlock(two, &ALICE, &next).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    // An expired lock, or one lost with its server, has no holder.
    let fence = obtain(Fence::random().ok(), "the system provides random numbers");
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    let rule = "any fence may put if there is neither a lock nor a token";
    fixture.expect(&*suite.cache(), &ALICE, Some(&late), rule).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
}

/// Checks that the store reveals neither tokens nor subjects.
async fn seals(suite: &dyn CacheSuite, fixture: &Fixture) {
    let token = fixture.token("canary");
    let cache = &*suite.cache();
    fixture.put(cache, &ALICE, &token).await;
    let fence = granted(fixture.lock(cache, &ALICE, LONG).await);
    let refresh = token.refresh_token().map_or("", |token| token.expose());
    let canaries = [token.secret().expose(), refresh, ALICE.subject, &fixture.nonce];
    for (name, value) in suite.stored().await {
        for canary in canaries {
            let shows = |text: &[u8]| contains(text, canary.as_bytes());
            assert!(!shows(&name), "rule broken: names in the store reveal nothing");
            assert!(!shows(&value), "rule broken: values in the store are sealed");
        }
    }
    fixture.unlock(cache, &ALICE, &fence).await;
    fixture.remove(cache, &ALICE).await;
}

/// Checks that a value that was modified in the store is a miss.
async fn rejects_modified_values(suite: &dyn CacheSuite, fixture: &Fixture) {
    let bob = RequestFields { subject: "bob's token, a secret", ..ALICE };
    let (alices, bobs) = (fixture.token("alice"), fixture.token("bob"));
    let before: Vec<_> = suite.stored().await;
    let put_and_find = async |fields: &RequestFields, token: &AccessToken| {
        let known: Vec<_> = suite.stored().await.into_iter().map(|(name, _)| name).collect();
        fixture.put(&*suite.cache(), fields, token).await;
        let mut now = suite.stored().await.into_iter();
        now.find(|(name, _)| !known.contains(name))
    };
    let (Some((alice, sealed)), Some((_, other))) =
        (put_and_find(&ALICE, &alices).await, put_and_find(&bob, &bobs).await)
    else {
        return;
    };
    assert!(!before.iter().any(|(name, _)| *name == alice), "rule broken: a removed token is gone");
    let half = sealed.get(..sealed.len() / 2).unwrap_or_default();
    let mut changed = sealed.clone();
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
    }
    let mut longer = sealed.clone();
    longer.push(0);
    let elsewhere = sealed_elsewhere(fixture, &alices).await;
    let changes: [(&str, &[u8]); 8] = [
        ("changed by one bit", &changed),
        ("truncated", half),
        ("extended", &longer),
        ("copied from another key", &other),
        ("sealed with other sealing keys", &elsewhere),
        ("plain text", b"garbage"),
        ("1 MiB long", &vec![7; 1 << 20]),
        ("empty", b""),
    ];
    for (change, value) in changes {
        fixture.put(&*suite.cache(), &ALICE, &alices).await;
        suite.overwrite(&alice, value).await;
        let rule = format!("a value that is {change} is a miss");
        fixture.expect(&*suite.cache(), &ALICE, None, &rule).await;
    }
    fixture.put(&*suite.cache(), &ALICE, &alices).await;
    let rule = "an overwritten token can be replaced";
    fixture.expect(&*suite.cache(), &ALICE, Some(&alices), rule).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    fixture.remove(&*suite.cache(), &bob).await;
}

/// Seals the same token for the same request with other sealing keys.
async fn sealed_elsewhere(fixture: &Fixture, token: &AccessToken) -> Vec<u8> {
    let keys = obtain(SealingKeys::random().ok(), "the system provides random numbers");
    let other = Fixture { keys, ..fixture.clone() };
    let sealed = other.with(&ALICE, async |key| key.seal(token, LONG)).await;
    sealed.unwrap_or_default()
}

async fn grants_every_lock(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    for _ in 0..2 {
        let fence = fixture.lock(cache, &ALICE, LONG).await;
        assert!(fence.is_some(), "rule broken: a cache that is not shared grants every lock");
    }
}

fn granted(fence: Option<Fence>) -> Fence {
    require(fence, "a free lock is granted")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Returns a value that the suite itself needs.
#[expect(clippy::expect_used, reason = "a conformance suite fails by panicking")]
fn obtain<T>(it: Option<T>, need: &str) -> T {
    it.expect(need)
}

fn require<T>(it: Option<T>, rule: &str) -> T {
    it.unwrap_or_else(|| fail(rule))
}

fn expect_ok<T, E: std::fmt::Display>(call: &str, answer: Result<T, E>) -> T {
    answer.unwrap_or_else(|why| fail(&format!("an available store answers: {call} failed: {why}")))
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn fail(rule: &str) -> ! {
    panic!("rule broken: {rule}")
}
