//! Conformance suites for your own implementations of this crate's traits (feature `testing`). A
//! suite panics with the rule that the implementation breaks.
//!
//! ```
//! use std::sync::Arc;
//! use async_trait::async_trait;
//! use scaikey_auth::tenant::{MemoryTenants, TenantStatus};
//! use scaikey_auth::testing::conformance::{TenantSuite, tenant_resolver};
//! use scaikey_auth::{Tenant, TenantId, TenantResolver};
//!
//! struct Suite(MemoryTenants);
//!
//! #[async_trait]
//! impl TenantSuite for Suite {
//!     fn resolver(&self) -> Arc<dyn TenantResolver> {
//!         Arc::new(self.0.clone())
//!     }
//!     fn known(&self) -> TenantId {
//!         "acme".parse().unwrap()
//!     }
//!     fn unknown(&self) -> TenantId {
//!         "nobody".parse().unwrap()
//!     }
//!     async fn insert(&self, id: &TenantId, status: TenantStatus) -> bool {
//!         self.0.insert(Tenant::with_row(id.clone(), status, ()));
//!         true
//!     }
//!     async fn remove(&self, id: &TenantId) {
//!         self.0.remove(id);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let acme = Tenant::new("acme".parse().unwrap());
//! tenant_resolver(&Suite(MemoryTenants::from_iter([acme]))).await;
//! # }
//! ```

#[cfg(feature = "exchange")]
mod cache;
#[cfg(feature = "trust")]
mod policy_store;
#[cfg(feature = "endpoints")]
mod registrar;
mod replay;
mod revocation_log;
#[cfg(feature = "endpoints")]
mod session_store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

#[cfg(feature = "exchange")]
pub use cache::{CacheSuite, token_cache};
#[cfg(feature = "trust")]
pub use policy_store::policy_store;
#[cfg(feature = "endpoints")]
pub use registrar::{RegistrarSuite, registrar};
pub use replay::replay_log;
pub use revocation_log::revocation_log;
#[cfg(feature = "endpoints")]
pub use session_store::session_store;

use crate::identity::TenantId;
use crate::tenant::{TenantResolver, TenantStatus};

/// A [`TenantResolver`] to test, and the means to change its tenants (feature `testing`).
///
/// A store that is read-only implements three methods. The [module page](self) has one that can be changed.
///
/// ```
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use scaikey_auth::tenant::MemoryTenants;
/// use scaikey_auth::testing::conformance::{TenantSuite, tenant_resolver};
/// use scaikey_auth::{Tenant, TenantId, TenantResolver};
///
/// struct Suite(Arc<MemoryTenants>);
///
/// #[async_trait]
/// impl TenantSuite for Suite {
///     fn resolver(&self) -> Arc<dyn TenantResolver> {
///         self.0.clone()
///     }
///     fn known(&self) -> TenantId {
///         "acme".parse().unwrap()
///     }
///     fn unknown(&self) -> TenantId {
///         "unknown".parse().unwrap()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let acme = Tenant::new("acme".parse().unwrap());
/// tenant_resolver(&Suite(Arc::new(MemoryTenants::from_iter([acme])))).await;
/// # }
/// ```
#[async_trait]
pub trait TenantSuite: Sync {
    /// Returns the resolver.
    fn resolver(&self) -> Arc<dyn TenantResolver>;

    /// Returns the id of an active tenant. The store must have no tenant whose id differs from it
    /// only in case, in accents, or by one character at the end (changed, removed or added).
    fn known(&self) -> TenantId;

    /// Returns an id that no tenant has.
    fn unknown(&self) -> TenantId;

    /// Adds a tenant, or changes its status. When this returns, the resolver must report the
    /// change: invalidate a cache first.
    ///
    /// Returns `false` if the store cannot hold this id (for example, because its ids are UUIDs) or
    /// is read-only. The suite then skips the rules that need the tenant. Default: `false`.
    async fn insert(&self, id: &TenantId, status: TenantStatus) -> bool {
        let _ = (id, status);
        false
    }

    /// Removes a tenant that [`insert`](Self::insert) added. When this returns, the resolver must
    /// report the removal. The default does nothing.
    async fn remove(&self, id: &TenantId) {
        let _ = id;
    }
}

/// Runs the conformance suite for a [`TenantResolver`] (feature `testing`).
///
/// The suite tests that:
/// - a found tenant has exactly the requested id, byte for byte;
/// - an unknown tenant is `Ok(None)`;
/// - suspensions and removals are reported;
/// - parallel and cancelled lookups have no effect on other lookups;
/// - [`try_resolve`](TenantResolver::try_resolve) agrees with [`resolve`](TenantResolver::resolve).
///
/// Run it on a store of its own, in a Tokio runtime with the time driver: if
/// [`insert`](TenantSuite::insert) is implemented, the suite adds and removes tenants such as
/// `suite-acme`, `7` and `null`. It does *not* test an outage of the store, which must be an `Err`,
/// nor the rows attached to tenants.
///
/// # Panics
/// Panics if the resolver breaks a rule. The message names the rule.
pub async fn tenant_resolver(suite: &dyn TenantSuite) {
    let resolver = suite.resolver();
    let (known, unknown) = (suite.known(), suite.unknown());
    expect(&resolver, &known, Some(TenantStatus::Active), "a known tenant is found").await;
    expect(&resolver, &unknown, None, "an unknown tenant is Ok(None)").await;
    for id in similar_ids(&known) {
        expect(&resolver, &id, None, "ids are compared byte for byte").await;
    }
    cancelled_lookups(&resolver, &known).await;
    parallel_lookups(&resolver, &known, &unknown).await;
    changes(suite, &resolver).await;
    similar_ids_are_stored(suite, &resolver).await;
}

/// Resolves `id` with both methods and compares the status with `expected`.
#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
async fn expect(
    resolver: &Arc<dyn TenantResolver>,
    id: &TenantId,
    expected: Option<TenantStatus>,
    rule: &str,
) {
    let resolved = ("resolve", Some(resolver.resolve(id).await));
    for (by, answer) in [resolved, ("try_resolve", resolver.try_resolve(id))] {
        let found = match answer {
            None => continue, // `try_resolve` may always return `None`
            Some(Ok(found)) => found,
            Some(Err(why)) => panic!("rule broken: {rule}: {by}({id:?}) failed: {why}"),
        };
        if let Some(tenant) = &found {
            let rule = "a found tenant has the requested id";
            assert_eq!(tenant.id(), id, "rule broken: {rule}: {by}({id:?})");
        }
        let status = found.map(|tenant| tenant.status());
        assert_eq!(status, expected, "rule broken: {rule}: {by}({id:?})");
    }
}

/// Returns ids that careless comparison, pattern matching or quoting confuses with `id`.
fn similar_ids(id: &TenantId) -> Vec<TenantId> {
    let text = id.as_str();
    let mut rest = text.chars();
    let last = rest.next_back();
    let start = rest.as_str();
    [
        text.to_lowercase(),
        text.to_uppercase(),
        start.to_owned(),
        format!("{start}_"),
        format!("{start}%"),
        format!("{start}*"),
        "%".to_owned(),
        format!("{text}%"),
        format!("{text}x"),
        format!("{text}/"),
        format!("{text}'"),
        format!("{text}'--"),
        "'OR'1'='1".to_owned(),
        format!("{text}\u{301}"),  // a combining accent
        format!("{text}\u{200b}"), // a zero-width space
        format!("{start}{}", last.map(full_width).unwrap_or_default()),
    ]
    .iter()
    .filter(|similar| *similar != text)
    .filter_map(|similar| TenantId::new(similar).ok())
    .collect()
}

/// Returns the full-width form of a character, which Unicode normalisation (NFKC) would convert
/// back.
fn full_width(letter: char) -> char {
    match letter {
        '!'..='~' => char::from_u32(u32::from(letter) + 0xfee0).unwrap_or(letter),
        other => other,
    }
}

async fn cancelled_lookups(resolver: &Arc<dyn TenantResolver>, known: &TenantId) {
    for _ in 0..16 {
        let _ = tokio::time::timeout(Duration::ZERO, resolver.resolve(known)).await;
    }
    let rule = "cancelled lookups have no effect";
    expect(resolver, known, Some(TenantStatus::Active), rule).await;
}

async fn parallel_lookups(
    resolver: &Arc<dyn TenantResolver>,
    known: &TenantId,
    unknown: &TenantId,
) {
    let mut lookups = JoinSet::new();
    for turn in 0..64 {
        let (id, expected) = match turn % 2 {
            0 => (known.clone(), Some(TenantStatus::Active)),
            _ => (unknown.clone(), None),
        };
        let resolver = resolver.clone();
        lookups.spawn(async move {
            let rule = "parallel lookups give the same answers as single ones";
            expect(&resolver, &id, expected, rule).await;
        });
    }
    while let Some(lookup) = lookups.join_next().await {
        if let Err(failed) = lookup {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

async fn changes(suite: &dyn TenantSuite, resolver: &Arc<dyn TenantResolver>) {
    let Ok(id) = TenantId::new("suite-changes") else { return };
    let steps = [
        (Some(TenantStatus::Active), "an added tenant is found"),
        (Some(TenantStatus::Suspended), "a suspended tenant is reported as suspended"),
        (Some(TenantStatus::Active), "a reactivated tenant is active"),
        (None, "a removed tenant is Ok(None)"),
        (Some(TenantStatus::Suspended), "a tenant added again has its new status"),
        (None, "a removed tenant is Ok(None)"),
    ];
    expect(resolver, &id, None, "an unknown tenant is Ok(None)").await;
    for (step, rule) in steps {
        match step {
            Some(status) if !suite.insert(&id, status).await => return,
            Some(_) => {}
            None => suite.remove(&id).await,
        }
        expect(resolver, &id, step, rule).await;
    }
}

/// Stores many ids that are easily confused, then reads each one and compares its status.
async fn similar_ids_are_stored(suite: &dyn TenantSuite, resolver: &Arc<dyn TenantResolver>) {
    let long = "x".repeat(254);
    let (longer, other) = (format!("{long}x"), format!("{long}y"));
    let ids = [
        "suite-acme",
        "suite-Acme",
        "suite-ACME",
        "suite-acm_",
        "suite-acm%",
        "%",
        "_",
        "suite-acme'",
        "suite-acme\"",
        "suite-acme;--",
        "suite-acme\\",
        "suite-\u{e9}",
        "suite-e\u{301}",
        "suite-ß",
        "suite-ss",
        "suite-🦀",
        "../suite",
        "$1",
        "?",
        "7",
        "007",
        "7.0",
        "null",
        &long,
        &longer,
        &other,
    ];
    let mut stored = Vec::new();
    for (turn, id) in ids.into_iter().enumerate() {
        let Ok(id) = TenantId::new(id) else { continue };
        let status = [TenantStatus::Active, TenantStatus::Suspended].into_iter().nth(turn % 2);
        if suite.insert(&id, status.unwrap_or_default()).await {
            stored.push((id, status));
        }
    }
    for (id, status) in &stored {
        expect(resolver, id, *status, "ids are stored and compared byte for byte").await;
    }
    while let Some((id, _)) = stored.pop() {
        suite.remove(&id).await;
        expect(resolver, &id, None, "a removed tenant is Ok(None)").await;
        if let Some((other, status)) = stored.last() {
            expect(resolver, other, *status, "removing a tenant keeps the others").await;
        }
    }
}
