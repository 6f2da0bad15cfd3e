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
pub trait CacheExam: Sync {
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
/// [`stored`](CacheExam::stored), that no token, subject or name of a user lies in the store; with
/// [`overwrite`](CacheExam::overwrite), that nothing is given out that was changed there.
///
/// What is *not* tested: a store that is away, which must be an `Err` and soon. It takes a second
/// or two of real time.
///
/// # Panics
/// When a rule is broken; the message names it.
pub async fn token_cache(exam: &dyn CacheExam) {
    let desk = Desk::new(exam.patience());
    keeps_what_it_is_given(exam, &desk).await;
    keeps_keys_apart(exam, &desk).await;
    forgets(exam, &desk).await;
    stands_a_crowd(exam, &desk).await;
    if exam.cache().is_shared() {
        is_seen_by_others(exam, &desk).await;
        locks(exam, &desk).await;
        fences(exam, &desk).await;
        seals(exam, &desk).await;
        distrusts(exam, &desk).await;
    } else {
        grants_every_lock(exam, &desk).await;
    }
}

/// What the exam is written with: keys and tokens that nobody else has.
#[derive(Clone)]
struct Desk {
    keys: SealingKeys,
    client: Arc<ClientFingerprint>,
    clock: SystemClock,
    mark: String,
    patience: Duration,
}

/// What tells one key from another.
#[derive(Debug, Clone, Default)]
struct Asked {
    is_refresh: bool,
    tenant: Option<&'static str>,
    subject: &'static str,
    subject_type: &'static str,
    actor: Option<&'static str>,
    audience: &'static str,
    resource: Option<&'static str>,
    scopes: &'static str,
}

const ALICE: Asked = Asked {
    is_refresh: false,
    tenant: Some("exam-acme"),
    subject: "alice's token, a secret of its own",
    subject_type: "access_token",
    actor: None,
    audience: "exam-vault",
    resource: None,
    scopes: "read write",
};

impl Asked {
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
        request.scopes = sure(self.scopes.parse().ok(), "the exam's scopes are some");
        TokenRequest::Exchange(Cow::Owned(request))
    }
}

impl Desk {
    fn new(patience: Duration) -> Self {
        let mark = sure(Fence::random().ok(), "there are random numbers").as_str().to_owned();
        Self {
            keys: sure(SealingKeys::random().ok(), "there are random numbers"),
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

    /// Does something with the key of what is asked.
    async fn with<T>(&self, asked: &Asked, use_key: impl AsyncFnOnce(&CacheKey<'_>) -> T) -> T {
        let server_key = sure(self.keys.iter().next(), "there is a key");
        let request = asked.request();
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
        sure(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the exam's token is one")
    }

    /// A token of no more than it must have.
    fn bare_token(&self) -> AccessToken {
        let body = format!(r#"{{"access_token":"bare-{}","token_type":"N_A"}}"#, self.mark);
        sure(AccessToken::parse(body.as_bytes(), &self.clock).ok(), "the exam's token is one")
    }

    async fn put(&self, cache: &dyn TokenCache, asked: &Asked, token: &AccessToken) {
        self.put_for(cache, asked, token, LONG, None).await;
    }

    async fn put_for(
        &self,
        cache: &dyn TokenCache,
        asked: &Asked,
        token: &AccessToken,
        ttl: Duration,
        fence: Option<&Fence>,
    ) {
        let put = self.with(asked, async |key| cache.put(key, token, ttl, fence).await).await;
        answered("put", put);
    }

    async fn get(&self, cache: &dyn TokenCache, asked: &Asked) -> Option<AccessToken> {
        self.with(asked, async |key| {
            let got = answered("get", cache.get(key).await);
            if let Some(peek) = cache.peek(key) {
                let same = got.as_ref().is_some_and(|got| got.secret() == peek.secret());
                assert!(same, "rule broken: peek gives what get gives");
            }
            got
        })
        .await
    }

    async fn lock(&self, cache: &dyn TokenCache, asked: &Asked, life: Duration) -> Option<Fence> {
        let fence = sure(Fence::random().ok(), "there are random numbers");
        self.lock_with(cache, asked, &fence, life).await.then_some(fence)
    }

    async fn lock_with(
        &self,
        cache: &dyn TokenCache,
        asked: &Asked,
        fence: &Fence,
        life: Duration,
    ) -> bool {
        let lock = self.with(asked, async |key| cache.lock(key, fence, life).await).await;
        answered("lock", lock)
    }

    async fn unlock(&self, cache: &dyn TokenCache, asked: &Asked, fence: &Fence) {
        answered("unlock", self.with(asked, async |key| cache.unlock(key, fence).await).await);
    }

    async fn remove(&self, cache: &dyn TokenCache, asked: &Asked) {
        answered("remove", self.with(asked, async |key| cache.remove(key).await).await);
    }

    async fn expect(
        &self,
        cache: &dyn TokenCache,
        asked: &Asked,
        token: Option<&AccessToken>,
        rule: &str,
    ) {
        match (self.get(cache, asked).await, token) {
            (None, None) => {}
            (Some(got), Some(put)) => equal(&got, put, rule),
            (got, put) => {
                let found = |it: bool| if it { "a token" } else { "nothing" };
                let (got, put) = (found(got.is_some()), found(put.is_some()));
                broken(&format!("{rule}: there is {got} where {put} should be"));
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

async fn keeps_what_it_is_given(exam: &dyn CacheExam, desk: &Desk) {
    let cache = &*exam.cache();
    desk.expect(cache, &ALICE, None, "nothing is there before it is put").await;
    for token in [desk.token("first"), desk.bare_token(), desk.token("last")] {
        desk.put(cache, &ALICE, &token).await;
        desk.expect(cache, &ALICE, Some(&token), "what was put last is what is got").await;
        desk.expect(cache, &ALICE, Some(&token), "what was got can be got again").await;
    }
    desk.remove(cache, &ALICE).await;
    desk.expect(cache, &ALICE, None, "what was removed is gone").await;
    desk.remove(cache, &ALICE).await;
}

async fn keeps_keys_apart(exam: &dyn CacheExam, desk: &Desk) {
    let cache = &*exam.cache();
    let keys = [
        ALICE,
        Asked { is_refresh: true, ..ALICE },
        Asked { tenant: None, ..ALICE },
        Asked { tenant: Some("-"), ..ALICE },
        Asked { tenant: Some("exam-Acme"), ..ALICE },
        Asked { tenant: Some("exam-acme:token"), ..ALICE },
        Asked { tenant: Some("{}"), ..ALICE },
        Asked { tenant: Some("{exam"), ..ALICE },
        Asked { tenant: Some("*"), ..ALICE },
        Asked { subject: "bob's token, a secret of its own", ..ALICE },
        Asked { subject_type: "jwt", ..ALICE },
        Asked { actor: Some("robot"), ..ALICE },
        Asked { audience: "exam-grid", ..ALICE },
        Asked { resource: Some("https://exam.example/"), ..ALICE },
        Asked { scopes: "read", ..ALICE },
        Asked { scopes: "", ..ALICE },
    ];
    let names = ('a'..='z').map(String::from);
    let tokens: Vec<_> = names.take(keys.len()).map(|name| desk.token(&name)).collect();
    let rule = "each key has a token of its own";
    for (asked, token) in keys.iter().zip(&tokens) {
        desk.expect(cache, asked, None, &format!("{rule}: {asked:?}")).await;
        desk.put(cache, asked, token).await;
    }
    for (asked, token) in keys.iter().zip(&tokens) {
        desk.expect(cache, asked, Some(token), &format!("{rule}: {asked:?}")).await;
    }
    let mut left: Vec<_> = keys.iter().zip(&tokens).collect();
    while let Some((asked, _)) = left.pop() {
        desk.remove(cache, asked).await;
        desk.expect(cache, asked, None, "what was removed is gone").await;
        if let Some((other, token)) = left.last() {
            desk.expect(cache, other, Some(token), "removing a token leaves the others").await;
        }
    }
}

async fn forgets(exam: &dyn CacheExam, desk: &Desk) {
    let cache = &*exam.cache();
    let token = desk.token("short");
    desk.put_for(cache, &ALICE, &token, SHORT, None).await;
    desk.expect(cache, &ALICE, Some(&token), "what was put for a while is there").await;
    // A far instance that looks meanwhile must not keep it for longer, either.
    let other = &*exam.cache();
    desk.get(other, &ALICE).await;
    for cache in [cache, other] {
        let gone = desk.until(async || desk.get(cache, &ALICE).await.is_none()).await;
        assert!(gone, "rule broken: a token is kept for as long as was said and no longer");
    }
    desk.put_for(cache, &ALICE, &token, Duration::ZERO, None).await;
    let rule = "what is put for no time is not kept";
    desk.expect(&*exam.cache(), &ALICE, None, rule).await;
    desk.put_for(cache, &ALICE, &token, Duration::MAX, None).await;
    desk.expect(cache, &ALICE, Some(&token), "no time is too long to be kept for").await;
    desk.remove(cache, &ALICE).await;
}

async fn stands_a_crowd(exam: &dyn CacheExam, desk: &Desk) {
    let cache = exam.cache();
    let (token, other) = (desk.token("crowd"), Asked { scopes: "crowd", ..ALICE });
    desk.put(&*cache, &ALICE, &token).await;
    for _ in 0..16 {
        desk.with(&ALICE, async |key| within(Duration::ZERO, cache.get(key)).await).await;
        desk.with(&ALICE, async |key| {
            within(Duration::ZERO, cache.put(key, &token, LONG, None)).await
        })
        .await;
    }
    let rule = "calls given up half-way do no harm";
    desk.expect(&*cache, &ALICE, Some(&token), rule).await;
    let desk = Arc::new(desk.clone());
    let mut calls = JoinSet::new();
    for turn in 0..64 {
        let (cache, desk) = (cache.clone(), desk.clone());
        let (asked, token) = match turn % 2 {
            0 => (ALICE, Some(token.clone())),
            _ => (other.clone(), None),
        };
        calls.spawn(async move {
            let rule = "parallel calls give each its own";
            desk.expect(&*cache, &asked, token.as_ref(), rule).await;
        });
    }
    while let Some(call) = calls.join_next().await {
        if let Err(failed) = call {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    desk.remove(&*cache, &ALICE).await;
}

async fn is_seen_by_others(exam: &dyn CacheExam, desk: &Desk) {
    let token = desk.token("shared");
    desk.put(&*exam.cache(), &ALICE, &token).await;
    desk.expect(&*exam.cache(), &ALICE, Some(&token), "a shared cache is shared").await;
    desk.remove(&*exam.cache(), &ALICE).await;
    desk.expect(&*exam.cache(), &ALICE, None, "what was removed is gone for all").await;
}

async fn locks(exam: &dyn CacheExam, desk: &Desk) {
    let (one, two) = (&*exam.cache(), &*exam.cache());
    let other = Asked { scopes: "another lock", ..ALICE };
    let fence = taken(desk.lock(one, &ALICE, LONG).await);
    for cache in [one, two] {
        let again = desk.lock(cache, &ALICE, LONG).await;
        assert!(again.is_none(), "rule broken: a lock has one holder");
    }
    let again = desk.lock_with(two, &ALICE, &fence, LONG).await;
    assert!(again, "rule broken: the same fence takes a lock again");
    let elsewhere = taken(desk.lock(two, &other, LONG).await);
    desk.unlock(two, &ALICE, &elsewhere).await;
    let again = desk.lock(two, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: only its holder gives a lock back");
    desk.unlock(one, &ALICE, &fence).await;
    let next = taken(desk.lock(two, &ALICE, LONG).await);
    desk.unlock(one, &ALICE, &fence).await;
    let again = desk.lock(one, &ALICE, LONG).await;
    assert!(again.is_none(), "rule broken: an old fence opens no later lock");
    desk.unlock(two, &ALICE, &next).await;
    desk.unlock(two, &other, &elsewhere).await;

    // However long it is to live, what takes it answers.
    let endless = taken(desk.lock(one, &ALICE, Duration::MAX).await);
    desk.unlock(one, &ALICE, &endless).await;
    desk.lock(one, &ALICE, Duration::ZERO).await;
    ends(one, desk).await;

    let short = taken(desk.lock(one, &ALICE, SHORT).await);
    let ended = desk.until(async || desk.lock(two, &ALICE, SHORT).await.is_some()).await;
    assert!(ended, "rule broken: a lock ends by itself");
    desk.unlock(one, &ALICE, &short).await;
    ends(two, desk).await;
}

/// Whoever holds this lock loses it.
async fn ends(cache: &dyn TokenCache, desk: &Desk) {
    let ended = desk.until(async || match desk.lock(cache, &ALICE, LONG).await {
        Some(fence) => {
            desk.unlock(cache, &ALICE, &fence).await;
            true
        }
        None => false,
    });
    assert!(ended.await, "rule broken: a lock ends by itself");
}

async fn fences(exam: &dyn CacheExam, desk: &Desk) {
    let (one, two) = (&*exam.cache(), &*exam.cache());
    let (first, second, late) = (desk.token("one"), desk.token("two"), desk.token("late"));
    let fence = taken(desk.lock(one, &ALICE, LONG).await);
    desk.put_for(one, &ALICE, &first, LONG, Some(&fence)).await;
    let rule = "what the holder of the lock puts is kept";
    desk.expect(&*exam.cache(), &ALICE, Some(&first), rule).await;
    desk.unlock(one, &ALICE, &fence).await;
    // Seen from instances that know only the store: one that puts may keep a copy for itself.
    let rule = "who no longer holds the lock changes nothing";
    desk.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    desk.expect(&*exam.cache(), &ALICE, Some(&first), rule).await;
    let next = taken(desk.lock(two, &ALICE, LONG).await);
    desk.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    desk.expect(&*exam.cache(), &ALICE, Some(&first), rule).await;
    desk.put_for(two, &ALICE, &second, LONG, Some(&next)).await;
    desk.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    desk.expect(&*exam.cache(), &ALICE, Some(&second), rule).await;
    desk.unlock(two, &ALICE, &next).await;
    desk.remove(&*exam.cache(), &ALICE).await;
    // A lock that ended, or was lost with a server, is nobody's.
    let fence = sure(Fence::random().ok(), "there are random numbers");
    desk.put_for(one, &ALICE, &late, LONG, Some(&fence)).await;
    let rule = "a lock that nobody holds fences nobody off";
    desk.expect(&*exam.cache(), &ALICE, Some(&late), rule).await;
    desk.remove(&*exam.cache(), &ALICE).await;
}

/// Nothing that lies in the store gives anything away.
async fn seals(exam: &dyn CacheExam, desk: &Desk) {
    let token = desk.token("canary");
    let cache = &*exam.cache();
    desk.put(cache, &ALICE, &token).await;
    let fence = taken(desk.lock(cache, &ALICE, LONG).await);
    let refresh = token.refresh_token().map_or("", |token| token.expose());
    let canaries = [token.secret().expose(), refresh, ALICE.subject, &desk.mark];
    for (name, value) in exam.stored().await {
        for canary in canaries {
            let shows = |text: &[u8]| contains(text, canary.as_bytes());
            assert!(!shows(&name), "rule broken: names in the store give nothing away");
            assert!(!shows(&value), "rule broken: values in the store are sealed");
        }
    }
    desk.unlock(cache, &ALICE, &fence).await;
    desk.remove(cache, &ALICE).await;
}

/// What was changed in the store is not there.
async fn distrusts(exam: &dyn CacheExam, desk: &Desk) {
    let bob = Asked { subject: "bob's token, a secret of its own", ..ALICE };
    let (alices, bobs) = (desk.token("alice"), desk.token("bob"));
    let before: Vec<_> = exam.stored().await;
    let place = async |asked: &Asked, token: &AccessToken| {
        let known: Vec<_> = exam.stored().await.into_iter().map(|(name, _)| name).collect();
        desk.put(&*exam.cache(), asked, token).await;
        let mut now = exam.stored().await.into_iter();
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
    let elsewhere = sealed_elsewhere(desk, &alices).await;
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
        desk.put(&*exam.cache(), &ALICE, &alices).await;
        exam.overwrite(&alice, value).await;
        let rule = format!("a value that was {what} is a miss");
        desk.expect(&*exam.cache(), &ALICE, None, &rule).await;
    }
    desk.put(&*exam.cache(), &ALICE, &alices).await;
    let rule = "what was overwritten can be put again";
    desk.expect(&*exam.cache(), &ALICE, Some(&alices), rule).await;
    desk.remove(&*exam.cache(), &ALICE).await;
    desk.remove(&*exam.cache(), &bob).await;
}

/// The same token for the same request, from a service with another secret.
async fn sealed_elsewhere(desk: &Desk, token: &AccessToken) -> Vec<u8> {
    let keys = sure(SealingKeys::random().ok(), "there are random numbers");
    let other = Desk { keys, ..desk.clone() };
    let sealed = other.with(&ALICE, async |key| key.seal(token, LONG)).await;
    sealed.unwrap_or_default()
}

async fn grants_every_lock(exam: &dyn CacheExam, desk: &Desk) {
    let cache = &*exam.cache();
    for _ in 0..2 {
        let fence = desk.lock(cache, &ALICE, LONG).await;
        assert!(fence.is_some(), "rule broken: a cache that is not shared grants every lock");
    }
}

fn taken(fence: Option<Fence>) -> Fence {
    sure(fence, "a lock that nobody holds is granted")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn sure<T>(it: Option<T>, rule: &str) -> T {
    it.unwrap_or_else(|| broken(rule))
}

fn answered<T, E: std::fmt::Display>(call: &str, answer: Result<T, E>) -> T {
    answer
        .unwrap_or_else(|why| broken(&format!("a store that is up answers: {call} failed: {why}")))
}

#[expect(clippy::panic, reason = "an exam is failed by panicking")]
fn broken(rule: &str) -> ! {
    panic!("rule broken: {rule}")
}
