//! [`KnownTokens`]: tokens verified before, so that a signature is verified once and not per request.
//!
//! What is kept of a token is the identity with the text of its claims, a [mark](Mark) of its
//! signature, and what its verification rests on. The signature itself is not kept, and without it
//! the rest is no token. Only tokens that passed every rule get in, and only acceptance is ever
//! remembered: whatever else there is to say about a token, the way of a first-seen token says it. A
//! remembered token is taken if
//!
//! - what it signs is the same, octet for octet, and so is its signature, by its mark;
//! - no issuer was removed, replaced or purged since before it was first looked at;
//! - nobody flushed it since then;
//! - its key was not withdrawn, and the key set is neither due to be asked for nor too old, so that
//!   a service that sees known tokens only still learns of withdrawn keys;
//! - the time is within its `nbf`, `iat` and `exp`, by the same arithmetic as the first time.
//!
//! Everything else the rules look at (audience, issuer policy, token type, claims mapping) belongs
//! to the issuer's configuration, which never changes: a change makes a new issuer.

mod hot;
mod table;
mod tally;

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use self::hot::Hot;
use self::table::{Placed, Table};
use self::tally::Tally;
use super::rules::Lifetime;
use crate::clock::Clock;
use crate::identity::{Identity, TenantId};
use crate::issuer::Grounds;
use crate::mark::{Mark, Spot};
use crate::sync::{AtomicU64, Ordering, RandomState};
use crate::telemetry;

/// The tokens a validator verified before and need not verify again. A handle: clones share them.
///
/// Switched on by default and bounded by `AuthConfig::known_tokens_bytes`. A token is forgotten
/// when it expires; it stops counting at once when its key is withdrawn or its issuer removed or
/// purged. There is nothing to flush for safety: a flushed token is verified anew, and accepted if
/// it still holds. Flush to free memory, or to hold fewer personal data of a tenant that left.
#[derive(Clone)]
pub struct KnownTokens(Option<Arc<Memory>>);

/// How many tokens are known, and how often that helped. Counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct KnownTokensStats {
    /// Tokens held now, those included that stopped counting and were not cleared away yet.
    pub tokens: usize,
    /// Bytes held now, as asked of the allocator; it takes some more. The table that finds them,
    /// 3 % of the limit, is included, and so are the copies of tokens that one thread is asked for
    /// over and over, at most a sixteenth.
    pub bytes: usize,
    /// The limit; 0 if switched off.
    pub max_bytes: usize,
    /// Tokens looked for and found.
    pub hits: u64,
    /// Tokens looked for and not found, good or bad. One whose keys must be waited for is looked
    /// for more than once.
    pub misses: u64,
    /// Tokens that were still good and gave way to others, or were not taken in for want of room.
    /// When this grows like `misses`, the limit is too low.
    pub displaced: u64,
}

impl KnownTokensStats {
    /// The share of tokens that were found, if any was looked for.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits.saturating_add(self.misses);
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

#[derive(Debug)]
struct Memory {
    table: Table<Known>,
    hot: Hot<Known>,
    tally: Tally,
    displaced: AtomicU64,
    flushes: Flushes,
}

/// A token that was verified.
#[derive(Debug)]
struct Known {
    identity: Identity,
    mark: Mark,
    lifetime: Lifetime,
    grounds: Grounds,
    /// [`Issuers::changes`](crate::issuer::Issuers::changes) before its issuer was looked up.
    changes: u64,
    /// When it was looked at, in flushes.
    flushes: u64,
    lot: usize,
}

/// A token looked at for the first time: what to remember it by, should it turn out to be good.
#[derive(Debug)]
pub(crate) struct Sighting<'t>(Option<Sighted<'t>>);

#[derive(Debug)]
struct Sighted<'t> {
    token: &'t [u8],
    spot: Spot,
    changes: u64,
    flushes: u64,
}

impl Sighting<'_> {
    /// Of a token that is not to be remembered.
    pub(super) const NONE: Self = Self(None);
}

impl KnownTokens {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self((max_bytes > 0).then(|| {
            let hot = Hot::within(max_bytes);
            Arc::new(Memory {
                table: Table::new(max_bytes - hot.max_bytes()),
                hot,
                tally: Tally::default(),
                displaced: AtomicU64::new(0),
                flushes: Flushes::default(),
            })
        }))
    }

    /// Forgets all tokens. Also those being verified right now are not remembered.
    pub fn flush(&self) {
        if let Some(memory) = &self.0 {
            memory.flushes.all();
            memory.sweep(|_| true);
        }
    }

    /// Forgets the tokens of one tenant, as [`flush`](Self::flush) does for all. Some of other
    /// tenants may go along, and are verified anew.
    pub fn flush_tenant(&self, tenant: &TenantId) {
        if let Some(memory) = &self.0 {
            memory.flushes.one(memory.flushes.lot(Some(tenant)));
            memory.sweep(|known| known.identity.tenant_id() == Some(tenant));
        }
    }

    /// How many tokens are known, and how often that helped.
    pub fn stats(&self) -> KnownTokensStats {
        let Some(memory) = &self.0 else { return KnownTokensStats::default() };
        let (hits, misses) = memory.tally.totals();
        KnownTokensStats {
            tokens: memory.table.entries(),
            bytes: memory.table.bytes() + memory.hot.bytes(),
            max_bytes: memory.table.max_bytes() + memory.hot.max_bytes(),
            hits,
            misses,
            displaced: memory.displaced.load(Ordering::Relaxed),
        }
    }

    /// Who the token stands for, if it is known and still good; `changes` is what the issuers say
    /// now. Otherwise, what to [remember](Self::remember) it by.
    pub(super) fn recall<'t>(
        &self,
        token: &'t [u8],
        changes: u64,
        clock: &dyn Clock,
    ) -> Result<Identity, Sighting<'t>> {
        let Some(memory) = &self.0 else { return Err(Sighting::NONE) };
        // Before anything is verified: a flush from now on concerns this token too.
        let flushes = memory.flushes.so_far();
        let spot = Spot::of(token);
        let accept =
            |known: &Known| known.is(token) && memory.counts(known, changes) && known.holds(clock);
        let own = memory.hot.find(spot, |known| accept(known).then(|| known.identity.clone()));
        let found = own.or_else(|| memory.find_shared(token, spot, accept, clock));
        match found {
            Some(_) => memory.tally.hit(),
            None => memory.tally.miss(),
        }
        found.ok_or(Sighting(Some(Sighted { token, spot, changes, flushes })))
    }

    /// Remembers a token that passed every rule after it was sighted.
    pub(super) fn remember(
        &self,
        sighting: Sighting<'_>,
        identity: &Identity,
        lifetime: Lifetime,
        grounds: Grounds,
        clock: &dyn Clock,
    ) {
        let (Some(memory), Some(sighted)) = (&self.0, sighting.0) else { return };
        let Sighted { token, spot, changes, flushes } = sighted;
        let mark = Mark::of(token.get(identity.signed_text().len()..).unwrap_or_default());
        let lot = memory.flushes.lot(identity.tenant_id());
        let identity = identity.clone();
        let known = Known { identity, mark, lifetime, grounds, changes, flushes, lot };
        let (is_same, is_dead) = (|held: &Known| held.is(token), memory.is_dead(changes, clock));
        let bytes = known.identity.footprint();
        let displaced = match memory.table.insert(spot, bytes, known, is_same, is_dead) {
            Placed::Displacing(others) => others,
            Placed::TurnedAway => 1,
        };
        if displaced > 0 {
            memory.displaced.fetch_add(displaced as u64, Ordering::Relaxed);
            telemetry::known_tokens_displaced(displaced as u64);
        }
    }
}

impl fmt::Debug for KnownTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KnownTokens").field(&self.stats()).finish()
    }
}

impl Memory {
    /// What all threads find. One that finds it over and over gets a copy.
    fn find_shared(
        &self,
        token: &[u8],
        spot: Spot,
        accept: impl Fn(&Known) -> bool,
        clock: &dyn Clock,
    ) -> Option<Identity> {
        let (identity, copy) = self.table.find(spot, |known| {
            let wanted = || self.hot.wants(spot, || known.identity.footprint());
            accept(known).then(|| (known.identity.clone(), wanted().then(|| known.copy())))
        })?;
        if let Some(copy) = copy {
            let (is_same, is_dead) =
                (|held: &Known| held.is(token), self.is_dead(copy.changes, clock));
            self.hot.insert(spot, copy.identity.footprint(), copy, is_same, is_dead);
        }
        Some(identity)
    }

    /// Tells which tokens are worth nothing any more.
    fn is_dead(&self, changes: u64, clock: &dyn Clock) -> impl Fn(&Known) -> bool {
        let (now, _) = clock.coarse();
        move |known| !self.counts(known, changes) || known.is_over(now)
    }

    fn sweep(&self, is_unwanted: impl Fn(&Known) -> bool) {
        self.table.sweep(&is_unwanted);
        self.hot.sweep(is_unwanted);
    }

    /// Whether neither a change of the issuers nor a flush came after the token was looked at.
    fn counts(&self, known: &Known, changes: u64) -> bool {
        known.changes == changes && !self.flushes.concern(known.lot, known.flushes)
    }
}

impl Known {
    /// The same in memory of its own.
    fn copy(&self) -> Self {
        let Self { mark, lifetime, changes, flushes, lot, .. } = *self;
        let (identity, grounds) = (self.identity.copy(), self.grounds.clone());
        Self { identity, mark, lifetime, grounds, changes, flushes, lot }
    }

    /// Whether it is this token: its signature by the mark, and letter for letter what that signs.
    fn is(&self, token: &[u8]) -> bool {
        self.mark.before(token).is_some_and(|signed| self.identity.signed_text() == signed)
    }

    /// Whether the token would be accepted again now.
    fn holds(&self, clock: &dyn Clock) -> bool {
        let (now, elapsed) = clock.coarse();
        self.grounds.stand(elapsed) && self.lifetime.check(now).is_ok()
    }

    /// Whether it never will be again.
    fn is_over(&self, now: SystemTime) -> bool {
        self.grounds.are_gone() || self.lifetime.is_over(now)
    }
}

/// How many lots tenants are in. One more costs eight bytes.
const LOTS: usize = 64;

/// What was flushed when, counted in flushes. A token sighted before the last flush of its lot is
/// flushed, wherever it is just then: in the table, or on its way there.
#[derive(Debug)]
struct Flushes {
    count: AtomicU64,
    last: [AtomicU64; LOTS],
    hasher: RandomState,
}

impl Default for Flushes {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            last: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher: RandomState::new(),
        }
    }
}

impl Flushes {
    fn lot(&self, tenant: Option<&TenantId>) -> usize {
        (self.hasher.hash_one(tenant) % LOTS as u64) as usize
    }

    fn so_far(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn one(&self, lot: usize) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(last) = self.last.get(lot) {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn all(&self) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        for last in &self.last {
            last.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether a token of this lot, sighted then, was flushed since.
    fn concern(&self, lot: usize, sighted: u64) -> bool {
        self.last.get(lot).is_none_or(|last| sighted < last.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::{ClaimsMapping, Provenance, Reading, Sent};
    use crate::json::Document;

    const BUDGET: usize = 1 << 20;
    const TOKEN: &[u8] = b"claims.signature";
    const FOR_EVER: u64 = 1 << 40;

    /// Seconds since 1970, and since the start.
    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Seconds {
        fn now(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Clock for Seconds {
        fn now(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.now())
        }
    }

    /// Somebody called `subject`, of a tenant, whose token is this and expires then.
    fn somebody(token: &[u8], subject: &str, tenant: &str, exp: u64) -> Identity {
        let claims = format!(r#"{{"sub":"{subject}","tenant_id":"{tenant}","exp":{exp}}}"#);
        let reading = Reading {
            issuer: "issuer".into(),
            mapping: &ClaimsMapping::default(),
            provenance: Provenance::Verified,
            legacy_service_tokens: false,
        };
        let document = Document::parse(claims.as_bytes()).unwrap();
        let signed =
            token.iter().rposition(|octet| *octet == b'.').map_or(token, |dot| &token[..dot]);
        let sent = Sent::signed(signed, 0);
        reading.identity(document.root(), || sent).unwrap()
    }

    fn standing() -> Grounds {
        Grounds::until(Duration::MAX).0
    }

    /// So often must a token be found that the thread has a copy, and that the copy is found.
    const OFTEN: usize = 3;

    /// Remembers `token` as that of `identity`, for ever, and asks for it over and over.
    fn learn(known: &KnownTokens, token: &[u8], identity: &Identity, grounds: Grounds) {
        let clock = Seconds::default();
        if let Err(sighting) = known.recall(token, 0, &clock) {
            known.remember(sighting, identity, Lifetime::until(FOR_EVER), grounds, &clock);
        }
        (0..OFTEN).for_each(|_| drop(known.recall(token, 0, &clock)));
    }

    /// What the copies of all threads take.
    fn hot_bytes(known: &KnownTokens) -> usize {
        known.0.as_ref().unwrap().hot.bytes()
    }

    fn subject(known: &KnownTokens, token: &[u8]) -> Option<String> {
        let found = known.recall(token, 0, &Seconds::default());
        found.ok().map(|identity| identity.subject().to_owned())
    }

    /// What an attacker would make of a good token: cut, prolonged, doubled, and with other letters.
    fn variants(token: &[u8]) -> Vec<Vec<u8>> {
        let mut variants = vec![token.to_ascii_uppercase(), token.to_ascii_lowercase()];
        variants.extend((0..token.len()).map(|at| token[..at].to_vec()));
        variants.extend((1..token.len()).map(|at| token[at..].to_vec()));
        for more in [&b"="[..], b"==", b"A", b"\0", b" ", b".", b"\r\n", token] {
            variants.extend([[token, more].concat(), [more, token].concat()]);
        }
        for at in 0..token.len() {
            for changed in [token[at] ^ 1, token[at] ^ 0x20, token[at] ^ 0x80, b'.', 0] {
                let mut variant = token.to_vec();
                variant[at] = changed;
                variants.push(variant);
            }
            let mut longer = token.to_vec();
            longer.insert(at, token[at]);
            variants.push(longer);
        }
        variants.retain(|variant| variant != token);
        variants
    }

    #[test]
    fn a_token_is_known_by_all_its_octets_and_nothing_near_it_is() {
        // How long what is signed is, and the signature: of one block and of several, whole and not.
        for (signed, signature) in
            [(0, 0), (0, 1), (3, 31), (3, 32), (3, 33), (100, 86), (700, 342)]
        {
            let known = KnownTokens::new(BUDGET);
            let letter = |n: usize| b'A' + (n * 7 % 50) as u8;
            let mut token: Vec<u8> = (0..=signed + signature).map(letter).collect();
            token[signed] = b'.';
            let name = format!("of {signed} and {signature}");
            learn(&known, &token, &somebody(&token, &name, "acme", 1), standing());
            assert_eq!(subject(&known, &token).as_ref(), Some(&name));
            for variant in variants(&token) {
                assert_eq!(subject(&known, &variant), None, "{name}: {variant:?}");
            }
        }
    }

    /// Longer than the key that marks are made with; of RSA keys of 8,192 bits, and of 16,384.
    #[test]
    fn a_long_signature_is_known_by_all_its_octets_too() {
        for signature in [1366, 2731, 9000] {
            let known = KnownTokens::new(BUDGET);
            let token = [b"claims.", &vec![b'A'; signature][..]].concat();
            learn(&known, &token, &somebody(&token, "a", "acme", 1), standing());
            assert_eq!(subject(&known, &token).as_deref(), Some("a"), "{signature}");
            for at in [7, 8, 500, signature / 2, signature - 30, signature - 20, signature + 6] {
                let mut variant = token.clone();
                variant[at] = b'B';
                assert_eq!(subject(&known, &variant), None, "octet {at} of {signature}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_alike_texts_are_each_is_known_as_itself(
            texts in proptest::collection::hash_set(r"[abA.=]{0,6}\.[ab.=]{0,6}|[aA]?\.[aA+/_-]{30,34}", 0..100),
        ) {
            let known = KnownTokens::new(BUDGET);
            let texts: Vec<_> = texts.into_iter().enumerate().collect();
            for (n, text) in texts.iter().filter(|(n, _)| n % 2 == 0) {
                let identity = somebody(text.as_bytes(), &n.to_string(), "acme", 1);
                learn(&known, text.as_bytes(), &identity, standing());
            }
            for (n, text) in &texts {
                let expected = (n % 2 == 0).then(|| n.to_string());
                prop_assert_eq!(subject(&known, text.as_bytes()), expected, "{}", text);
            }
        }
    }

    #[test]
    fn a_token_counts_while_time_key_issuers_and_flushes_allow_it() {
        let known = KnownTokens::new(BUDGET);
        let (grounds, withdraw) = Grounds::until(Duration::from_secs(50));
        let clock = Seconds::default();
        let learn = |grounds: &Grounds| {
            let sighting = known.recall(TOKEN, 7, &clock).unwrap_err();
            let lifetime = Lifetime::until(40);
            known.remember(
                sighting,
                &somebody(TOKEN, "a", "acme", 40),
                lifetime,
                grounds.clone(),
                &clock,
            );
            (0..OFTEN).for_each(|_| drop(known.recall(TOKEN, 7, &clock).unwrap()));
            let memory = known.0.as_ref().unwrap();
            let good = |known: &Known| memory.counts(known, 7) && known.holds(&clock);
            let copy = memory.hot.find(Spot::of(TOKEN), |known| good(known).then_some(()));
            assert!(copy.is_some(), "the thread has a good copy");
        };
        let counts = |changes, at| {
            clock.0.store(at, Ordering::SeqCst);
            known.recall(TOKEN, changes, &clock).is_ok()
        };
        learn(&grounds);
        assert!(counts(7, 0) && counts(7, 39));
        assert!(!counts(7, 40) && !counts(8, 0) && !counts(6, 0));
        assert!(counts(7, 0), "looking changes nothing");
        known.flush_tenant(&TenantId::new("acme").unwrap());
        assert!(!counts(7, 0));
        learn(&grounds);
        assert!(counts(7, 0));
        known.flush();
        assert!(!counts(7, 0));
        learn(&grounds);
        assert!(counts(7, 0));
        withdraw();
        assert!(!counts(7, 0));
        learn(&Grounds::until(Duration::from_secs(30)).0);
        assert!(counts(7, 29) && !counts(7, 30), "its keys are due");
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.displaced), (1, 0));
    }

    #[test]
    fn threads_that_ask_for_one_token_over_and_over_do_not_share_its_identity() {
        let known = KnownTokens::new(BUDGET);
        learn(&known, TOKEN, &somebody(TOKEN, "a", "acme", 1), standing());
        let place = || {
            let found = || known.recall(TOKEN, 0, &Seconds::default()).unwrap();
            (0..OFTEN).for_each(|_| drop(found()));
            let identity = found();
            assert_eq!((identity.subject(), identity.signed_text()), ("a", &b"claims"[..]));
            identity.subject().as_ptr() as usize
        };
        let other = thread::scope(|scope| scope.spawn(place).join().unwrap());
        assert_eq!(place(), place());
        assert_ne!(place(), other);
        let stats = known.stats();
        assert_eq!((stats.tokens, stats.misses), (1, 1));
        let held = stats.bytes;
        known.flush();
        assert_eq!((known.stats().tokens, hot_bytes(&known) < 1000), (0, true));
        assert!(known.stats().bytes < held);
    }

    #[test]
    fn tokens_that_come_in_turn_are_not_copied() {
        let known = KnownTokens::new(BUDGET);
        let tokens: Vec<String> = (0..100).map(|n| format!("claims.{n}")).collect();
        for token in tokens.iter().cycle().take(1000) {
            let clock = Seconds::default();
            if let Err(sighting) = known.recall(token.as_bytes(), 0, &clock) {
                let identity = somebody(token.as_bytes(), "a", "acme", 1);
                let lifetime = Lifetime::until(FOR_EVER);
                known.remember(sighting, &identity, lifetime, standing(), &clock);
            }
        }
        assert_eq!((known.stats().hits, hot_bytes(&known)), (900, 0));
    }

    #[test]
    fn what_was_sighted_before_a_flush_is_not_remembered_after_it() {
        let clock = Seconds::default();
        let acme = |known: &KnownTokens| known.flush_tenant(&TenantId::new("acme").unwrap());
        let flushes: [&dyn Fn(&KnownTokens); 2] = [&KnownTokens::flush, &acme];
        for flush in flushes {
            let known = KnownTokens::new(BUDGET);
            let sighting = known.recall(TOKEN, 0, &clock).unwrap_err();
            flush(&known);
            let lifetime = Lifetime::until(FOR_EVER);
            known.remember(
                sighting,
                &somebody(TOKEN, "a", "acme", 1),
                lifetime,
                standing(),
                &clock,
            );
            assert_eq!(subject(&known, TOKEN), None);
            learn(&known, TOKEN, &somebody(TOKEN, "a", "acme", 1), standing());
            assert_eq!(subject(&known, TOKEN).as_deref(), Some("a"));
        }
    }

    #[test]
    fn a_token_weighs_what_it_makes_the_allocator_give() {
        let token = |n: u32| [b"claims.", &n.to_ne_bytes()[..]].concat();
        let identity = |n: u32| {
            let scopes = "read ".repeat(n as usize);
            somebody(&token(n), &format!("subject-{n}-{scopes}"), "acme", 1)
        };
        let known = KnownTokens::new(BUDGET);
        // The first look sets up what belongs to the thread.
        learn(&known, b"first.", &somebody(b"first.", "first", "acme", 1), standing());
        let before = known.stats().bytes;
        let grounds = standing();
        let allocated = allocations::measure(|| {
            for n in 0..100_u32 {
                learn(&known, &token(n), &identity(n), grounds.clone());
            }
        });
        let held = (known.stats().bytes - before) as i64;
        // The name of the issuer is the issuer's; here each has its own.
        let names = 100 * (2 * size_of::<usize>() + "issuer".len()).next_multiple_of(8) as i64;
        assert_eq!(known.stats().tokens, 101);
        let off = (allocated.bytes - names - held).abs();
        assert!(off * 50 < held, "{held} said, {} given", allocated.bytes);
    }

    /// Threads verify, recall, flush, withdraw and let time pass, all at once. Whatever the order:
    /// once a flush or a withdrawal has returned, or time has passed, nothing older is recalled.
    #[test]
    fn nothing_is_recalled_that_was_flushed_withdrawn_or_expired_before() {
        let copied = [20_000, BUDGET].map(|budget| {
            let known = KnownTokens::new(budget);
            visit_flush_withdraw_and_let_time_pass(&known);
            hot_bytes(&known) > 0
        });
        assert_eq!(copied, [false, true], "with copies and without");
    }

    fn visit_flush_withdraw_and_let_time_pass(known: &KnownTokens) {
        const ROUNDS: u64 = 3000;
        let clock = Seconds::default();
        // A round withdraws its key, flushes, and lets a second pass.
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let current = Mutex::new(Grounds::until(Duration::MAX));
        let acme = TenantId::new("acme").unwrap();
        let visit = |n: u64| {
            let token = [b'.', n as u8 % 20];
            let (over, now) = (ended.load(Ordering::SeqCst), clock.now());
            match known.recall(&token, 0, &clock) {
                Ok(identity) => {
                    let round: u64 = identity.subject().parse().unwrap();
                    assert!(round >= over, "of round {round} after round {over}");
                    let expires = identity.expires_at();
                    assert!(expires > SystemTime::UNIX_EPOCH + Duration::from_secs(now));
                }
                Err(sighting) => {
                    let grounds = current.lock().unwrap().0.clone();
                    // Not before the sighting: what is older than the label says is let pass, what
                    // is younger is not.
                    let round = begun.load(Ordering::SeqCst);
                    let exp = now + 1 + n % 3;
                    let identity = somebody(&token, &round.to_string(), "acme", exp);
                    let lifetime = Lifetime::until(exp);
                    known.remember(sighting, &identity, lifetime, grounds, &clock);
                }
            }
        };
        thread::scope(|scope| {
            for start in 0..3 {
                let (visit, ended) = (&visit, &ended);
                scope.spawn(move || {
                    let mut n = start;
                    while ended.load(Ordering::SeqCst) < ROUNDS {
                        (0..=OFTEN).for_each(|_| visit(n));
                        n += 7;
                    }
                });
            }
            for round in 1..=ROUNDS {
                begun.store(round, Ordering::SeqCst);
                match round % 3 {
                    0 => known.flush(),
                    1 => known.flush_tenant(&acme),
                    _ => {
                        let mut current = current.lock().unwrap();
                        (current.1)();
                        *current = Grounds::until(Duration::MAX);
                    }
                }
                ended.store(round, Ordering::SeqCst);
                clock.0.fetch_add(1, Ordering::SeqCst);
                visit(round);
                thread::yield_now();
            }
        });
        let stats = known.stats();
        assert!(stats.bytes <= stats.max_bytes);
        assert!(stats.hits > 0 && stats.misses > 0, "{stats:?}");
    }
}
