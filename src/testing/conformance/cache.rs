//! The exam for a [`TokenCache`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::clock::{SystemClock, pause, within};
use crate::exchange::{
    AccessToken, CacheKey, ClientFingerprint, ExchangeRequest, Fence, RefreshRequest, TokenCache,
    TokenRequest, TokenType,
};
use crate::identity::TenantId;
use crate::support::seal::SealingKeys;

/// Long enough for what is examined between two looks at a clock.
const LONG: Duration = Duration::from_secs(600);

/// What is to end by itself.
const SHORT: Duration = Duration::from_millis(500);

/// By when it must have ended, by default.
const PATIENCE: Duration = Duration::from_secs(60);

/// A [`TokenCache`] under exam, and a way into its store (feature `testing`).
#[async_trait]
pub trait CacheSuite: Sync {
    /// A cache on the store under exam. Where the cache is shared, each call gives one that knows
    /// nothing of the others but through the store, as another process's would. Otherwise each
    /// gives the same.
    fn cache(&self) -> Arc<dyn TokenCache>;

    /// All that lies in the store, names and values. The default has no way there; rules that
    /// need one are then left out.
    async fn stored(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        Vec::new()
    }

    /// Puts `value` in the place of what lies under `name`, which [`stored`](Self::stored) gave.
    async fn overwrite(&self, name: &[u8], value: &[u8]) {
        let _ = (name, value);
    }

    /// By when what is to end by itself after half a second must have ended. Default: 60 s, for machines
    /// that are busy.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// The exam for a [`TokenCache`] (feature `testing`).
///
/// Tests that what was put is what is got, under its own key and no other; that it is replaced,
/// removed and forgotten in time; that parallel and abandoned calls do no harm; and that
/// [`peek`](TokenCache::peek) agrees with [`get`](TokenCache::get). Of a
/// [shared](TokenCache::is_shared) cache also that a lock has one holder, ends, and fences off
/// whoever held it before, and that other instances see what was put. With
/// [`stored`](CacheSuite::stored), that no token, subject or name of a user lies in the store; with
/// [`overwrite`](CacheSuite::overwrite), that nothing is given out that was changed there.
///
/// What is *not* tested: a store that is away, which must be an `Err` and soon. It takes a second
/// or two of real time.
///
/// # Panics
/// When a rule is broken; the message names it.
pub async fn token_cache(suite: &dyn CacheSuite) {
    let fixture = Fixture::new(suite.patience());
    keeps_what_it_is_given(suite, &fixture).await;
    keeps_keys_apart(suite, &fixture).await;
    forgets(suite, &fixture).await;
    stands_a_crowd(suite, &fixture).await;
    if suite.cache().is_shared() {
        is_seen_by_others(suite, &fixture).await;
        locks(suite, &fixture).await;
        fences(suite, &fixture).await;
        seals(suite, &fixture).await;
        distrusts(suite, &fixture).await;
    } else {
        grants_every_lock(suite, &fixture).await;
    }
}

/// What the exam is written with: keys and tokens that nobody else has.
#[derive(Clone)]
struct Fixture {
    keys: SealingKeys,
    client: Arc<ClientFingerprint>,
    clock: SystemClock,
    mark: String,
    patience: Duration,
}

/// What tells one key from another.
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
    subject: "alice's token, a secret of its own",
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
        request.scopes = require(self.scopes.parse().ok(), "the exam's scopes are some");
        TokenRequest::Exchange(Cow::Owned(request))
    }
}

impl Fixture {
    fn new(patience: Duration) -> Self {
        let mark = require(Fence::random().ok(), "there are random numbers").as_str().to_owned();
        Self {
            keys: require(SealingKeys::random().ok(), "there are random numbers"),
            client: Arc::new(ClientFingerprint::new([mark.as_str()].into_iter(), true)),
            clock: SystemClock::default(),
            mark,
            patience,
        }
    }

    /// Whether it comes to pass.
    async fn until(&self, mut what: impl AsyncFnMut() -> bool) -> bool {
        let polling = async {
            while !what().await {
                pause(SHORT / 10).await;
            }
        };
        within(self.patience, polling).await.is_some()
    }

    /// Does something with the key of what is fields.
    async fn with<T>(
        &self,
        fields: &RequestFields,
        use_key: impl AsyncFnOnce(&CacheKey<'_>) -> T,
    ) -> T {
        let server_key = require(self.keys.iter().next(), "there is a key");
        let request = fields.request();
        use_key(&CacheKey::new(&self.client, &request, server_key, &self.clock)).await
    }

    /// A token of this name, which is a canary, too.
    fn token(&self, name: &str) -> AccessToken {
        let body = format!(
            r#"{{"access_token":"token-{name}-{mark}","token_type":"Bearer","expires_in":3600,
            "scope":"read {name}","refresh_token":"refresh-{name}-{mark}",
            "issued_token_type":"urn:ietf:params:oauth:token-type:jwt"}}"#,
            mark = self.mark
        );
        require(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the exam's token is one")
    }

    /// A token of no more than it must have.
    fn bare_token(&self) -> AccessToken {
        let body = format!(r#"{{"access_token":"bare-{}","token_type":"N_A"}}"#, self.mark);
        require(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the exam's token is one")
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
                assert!(same, "rule broken: peek gives what get gives");
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
        let fence = require(Fence::random().ok(), "there are random numbers");
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
                let found = |it: bool| if it { "a token" } else { "nothing" };
                let (got, put) = (found(got.is_some()), found(put.is_some()));
                fail(&format!("{rule}: there is {got} where {put} should be"));
            }
        }
    }
}

fn equal(got: &AccessToken, put: &AccessToken, rule: &str) {
    assert!(got.secret() == put.secret(), "rule broken: {rule}: another token");
    assert!(got.refresh_token() == put.refresh_token(), "rule broken: {rule}: refresh_token");
    assert_eq!(got.is_bearer(), put.is_bearer(), "rule broken: {rule}: is_bearer");
    assert_eq!(got.issued_token_type(), put.issued_token_type(), "rule broken: {rule}");
    assert_eq!(got.scopes(), put.scopes(), "rule broken: {rule}: scopes");
    assert_eq!(got.lifetime(), put.lifetime(), "rule broken: {rule}: lifetime");
    assert_eq!(got.cacheable_for(), put.cacheable_for(), "rule broken: {rule}: ttl");
}

async fn keeps_what_it_is_given(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    fixture.expect(cache, &ALICE, None, "nothing is there before it is put").await;
    for token in [fixture.token("first"), fixture.bare_token(), fixture.token("last")] {
        fixture.put(cache, &ALICE, &token).await;
        fixture.expect(cache, &ALICE, Some(&token), "what was put last is what is got").await;
        fixture.expect(cache, &ALICE, Some(&token), "what was got can be got again").await;
    }
    fixture.remove(cache, &ALICE).await;
    fixture.expect(cache, &ALICE, None, "what was removed is gone").await;
    fixture.remove(cache, &ALICE).await;
}

async fn keeps_keys_apart(suite: &dyn CacheSuite, fixture: &Fixture) {
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
        RequestFields { subject: "bob's token, a secret of its own", ..ALICE },
        RequestFields { subject_type: "jwt", ..ALICE },
        RequestFields { actor: Some("robot"), ..ALICE },
        RequestFields { audience: "suite-grid", ..ALICE },
        RequestFields { resource: Some("https://conformance.example/"), ..ALICE },
        RequestFields { scopes: "read", ..ALICE },
        RequestFields { scopes: "", ..ALICE },
    ];
    let names = ('a'..='z').map(String::from);
    let tokens: Vec<_> = names.take(keys.len()).map(|name| fixture.token(&name)).collect();
    let rule = "each key has a token of its own";
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
        fixture.expect(cache, fields, None, "what was removed is gone").await;
        if let Some((other, token)) = left.last() {
            fixture.expect(cache, other, Some(token), "removing a token leaves the others").await;
        }
    }
}

async fn forgets(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = &*suite.cache();
    let token = fixture.token("short");
    fixture.put_for(cache, &ALICE, &token, SHORT, None).await;
    fixture.expect(cache, &ALICE, Some(&token), "what was put for a while is there").await;
    // A far instance that looks meanwhile must not keep it for longer, either.
    let other = &*suite.cache();
    fixture.get(other, &ALICE).await;
    for cache in [cache, other] {
        let gone = fixture.until(async || fixture.get(cache, &ALICE).await.is_none()).await;
        assert!(gone, "rule broken: a token is kept for as long as was said and no longer");
    }
    fixture.put_for(cache, &ALICE, &token, Duration::ZERO, None).await;
    let rule = "what is put for no time is not kept";
    fixture.expect(&*suite.cache(), &ALICE, None, rule).await;
    fixture.put_for(cache, &ALICE, &token, Duration::MAX, None).await;
    fixture.expect(cache, &ALICE, Some(&token), "no time is too long to be kept for").await;
    fixture.remove(cache, &ALICE).await;
}

async fn stands_a_crowd(suite: &dyn CacheSuite, fixture: &Fixture) {
    let cache = suite.cache();
    let (token, other) = (fixture.token("crowd"), RequestFields { scopes: "crowd", ..ALICE });
    fixture.put(&*cache, &ALICE, &token).await;
    for _ in 0..16 {
        fixture.with(&ALICE, async |key| within(Duration::ZERO, cache.get(key)).await).await;
        fixture
            .with(&ALICE, async |key| {
                within(Duration::ZERO, cache.put(key, &token, LONG, None)).await
            })
            .await;
    }
    let rule = "calls given up half-way do no harm";
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
            let rule = "parallel calls give each its own";
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

async fn is_seen_by_others(suite: &dyn CacheSuite, fixture: &Fixture) {
    let token = fixture.token("shared");
    fixture.put(&*suite.cache(), &ALICE, &token).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&token), "a shared cache is shared").await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    fixture.expect(&*suite.cache(), &ALICE, None, "what was removed is gone for all").await;
}

async fn locks(suite: &dyn CacheSuite, fixture: &Fixture) {
    let (one, two) = (&*suite.cache(), &*suite.cache());
    let other = RequestFields { scopes: "another lock", ..ALICE };
    let fence = taken(fixture.lock(one, &ALICE, LONG).await);
    for cache in [one, two] {
        let again = fixture.lock(cache, &ALICE, LONG).await;
        assert!(again.is_none(), "rule broken: a lock has one holder");
    }
    let again = fixture.lock_with(two, &ALICE, &fence, LONG).await;
    assert!(again, "rule broken: the same fence takes a lock again");
    let elsewhere = taken(fixture.lock(two, &other, LONG).await);
    fixture.unlock(two, &ALICE, &elsewhere).await;
    let again = fixture.lock(two, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: only its holder gives a lock back");
    fixture.unlock(one, &ALICE, &fence).await;
    let next = taken(fixture.lock(two, &ALICE, LONG).await);
    fixture.unlock(one, &ALICE, &fence).await;
    let again = fixture.lock(one, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: an old fence opens no later lock");
    fixture.unlock(two, &ALICE, &next).await;
    fixture.unlock(two, &other, &elsewhere).await;

    // However long it is to live, what takes it answers.
    let endless = taken(fixture.lock(one, &ALICE, Duration::MAX).await);
    fixture.unlock(one, &ALICE, &endless).await;
    fixture.lock(one, &ALICE, Duration::ZERO).await;
    ends(one, fixture).await;

    let short = taken(fixture.lock(one, &ALICE, SHORT).await);
    let ended = fixture.until(async || fixture.lock(two, &ALICE, SHORT).await.is_some()).await;
    assert!(ended, "rule broken: a lock ends by itself");
    fixture.unlock(one, &ALICE, &short).await;
    ends(two, fixture).await;
}

/// Whoever holds this lock loses it.
async fn ends(cache: &dyn TokenCache, fixture: &Fixture) {
    let ended = fixture.until(async || match fixture.lock(cache, &ALICE, LONG).await {
        Some(fence) => {
            fixture.unlock(cache, &ALICE, &fence).await;
            true
        }
        None => false,
    });
    assert!(ended.await, "rule broken: a lock ends by itself");
}

async fn fences(suite: &dyn CacheSuite, fixture: &Fixture) {
    let (one, two) = (&*suite.cache(), &*suite.cache());
    let (first, second, late) = (fixture.token("one"), fixture.token("two"), fixture.token("late"));
    let fence = taken(fixture.lock(one, &ALICE, LONG).await);
    fixture.put_for(one, &ALICE, &first, LONG, Some(&fence)).await;
    let rule = "what the holder of the lock puts is kept";
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    fixture.unlock(one, &ALICE, &fence).await;
    // Seen from instances that know only the store: one that puts may keep a copy for itself.
    let rule = "who no longer holds the lock changes nothing";
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    let next = taken(fixture.lock(two, &ALICE, LONG).await);
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&first), rule).await;
    fixture.put_for(two, &ALICE, &second, LONG, Some(&next)).await;
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    fixture.expect(&*suite.cache(), &ALICE, Some(&second), rule).await;
    fixture.unlock(two, &ALICE, &next).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    // A lock that ended, or was lost with a server, is nobody's.
    let fence = require(Fence::random().ok(), "there are random numbers");
    fixture.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    let rule = "a lock that nobody holds fences nobody off";
    fixture.expect(&*suite.cache(), &ALICE, Some(&late), rule).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
}

/// Nothing that lies in the store gives anything away.
async fn seals(suite: &dyn CacheSuite, fixture: &Fixture) {
    let token = fixture.token("canary");
    let cache = &*suite.cache();
    fixture.put(cache, &ALICE, &token).await;
    let fence = taken(fixture.lock(cache, &ALICE, LONG).await);
    let refresh = token.refresh_token().map_or("", |token| token.expose());
    let canaries = [token.secret().expose(), refresh, ALICE.subject, &fixture.mark];
    for (name, value) in suite.stored().await {
        for canary in canaries {
            let shows = |text: &[u8]| contains(text, canary.as_bytes());
            assert!(!shows(&name), "rule broken: names in the store give nothing away");
            assert!(!shows(&value), "rule broken: values in the store are sealed");
        }
    }
    fixture.unlock(cache, &ALICE, &fence).await;
    fixture.remove(cache, &ALICE).await;
}

/// What was changed in the store is not there.
async fn distrusts(suite: &dyn CacheSuite, fixture: &Fixture) {
    let bob = RequestFields { subject: "bob's token, a secret of its own", ..ALICE };
    let (alices, bobs) = (fixture.token("alice"), fixture.token("bob"));
    let before: Vec<_> = suite.stored().await;
    let place = async |fields: &RequestFields, token: &AccessToken| {
        let known: Vec<_> = suite.stored().await.into_iter().map(|(name, _)| name).collect();
        fixture.put(&*suite.cache(), fields, token).await;
        let mut now = suite.stored().await.into_iter();
        now.find(|(name, _)| !known.contains(name))
    };
    let (Some((alice, sealed)), Some((_, other))) =
        (place(&ALICE, &alices).await, place(&bob, &bobs).await)
    else {
        return;
    };
    assert!(
        !before.iter().any(|(name, _)| *name == alice),
        "rule broken: what was removed is gone"
    );
    let half = sealed.get(..sealed.len() / 2).unwrap_or_default();
    let mut changed = sealed.clone();
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
    }
    let mut longer = sealed.clone();
    longer.push(0);
    let elsewhere = sealed_elsewhere(fixture, &alices).await;
    let changes: [(&str, &[u8]); 8] = [
        ("changed by a bit", &changed),
        ("cut off", half),
        ("made longer", &longer),
        ("put under another's name", &other),
        ("sealed with another key", &elsewhere),
        ("text", b"garbage"),
        ("huge", &vec![7; 1 << 20]),
        ("nothing", b""),
    ];
    for (what, value) in changes {
        fixture.put(&*suite.cache(), &ALICE, &alices).await;
        suite.overwrite(&alice, value).await;
        let rule = format!("a value that was {what} is a miss");
        fixture.expect(&*suite.cache(), &ALICE, None, &rule).await;
    }
    fixture.put(&*suite.cache(), &ALICE, &alices).await;
    let rule = "what was overwritten can be put again";
    fixture.expect(&*suite.cache(), &ALICE, Some(&alices), rule).await;
    fixture.remove(&*suite.cache(), &ALICE).await;
    fixture.remove(&*suite.cache(), &bob).await;
}

/// The same token for the same request, from a service with another secret.
async fn sealed_elsewhere(fixture: &Fixture, token: &AccessToken) -> Vec<u8> {
    let keys = require(SealingKeys::random().ok(), "there are random numbers");
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

fn taken(fence: Option<Fence>) -> Fence {
    require(fence, "a lock that nobody holds is granted")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn require<T>(it: Option<T>, rule: &str) -> T {
    it.unwrap_or_else(|| fail(rule))
}

fn expect_ok<T, E: std::fmt::Display>(call: &str, answer: Result<T, E>) -> T {
    answer.unwrap_or_else(|why| fail(&format!("a store that is up answers: {call} failed: {why}")))
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn fail(rule: &str) -> ! {
    panic!("rule broken: {rule}")
}
