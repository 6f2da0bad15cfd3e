//! The conformance suite for a [`Registrar`].

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::identity::Identity;
use crate::registrar::{ParticipantId, Profile, Registrar, RegistrarError, Registration};
use crate::testing::identity;

/// The number of parallel callers.
const CALLERS: usize = 32;

/// A [`Registrar`] to test, with access to its profiles (feature `testing`).
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use scaikey_auth::registrar::{MemoryRegistrar, ParticipantId, Profile, Registrar};
/// use scaikey_auth::testing::conformance::{RegistrarSuite, registrar};
///
/// struct Suite(MemoryRegistrar);
///
/// #[async_trait]
/// impl RegistrarSuite for Suite {
///     fn registrar(&self) -> Arc<dyn Registrar> {
///         Arc::new(self.0.clone())
///     }
///     async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
///         self.0.profile(participant)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// registrar(&Suite(MemoryRegistrar::new())).await;
/// # }
/// ```
#[async_trait]
pub trait RegistrarSuite: Sync {
    /// Returns a registrar on the store under test. If processes share the store, each call returns
    /// an instance that shares only the store with the others, like the instance of another
    /// process.
    fn registrar(&self) -> Arc<dyn Registrar>;

    /// Returns the stored profile of a participant. By default it returns none, and the suite skips
    /// the rules that need it.
    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let _ = participant;
        None
    }
}

/// Runs the conformance suite for a [`Registrar`] (feature `testing`).
///
/// The suite tests that:
/// - each identity has one participant, and one personal workspace or none, the same for every
///   registration from every instance; no two participants have the same workspace;
/// - issuer, tenant, kind and subject identify a participant, compared byte for byte, and nothing
///   else does;
/// - of many parallel registrations exactly one reports that it created the participant;
/// - ids reveal nothing about the identity;
/// - cancelled calls have no effect;
/// - a subject of up to 255 bytes is stored, and a longer one is stored or rejected with
///   [`RegistrarError::InvalidIdentity`], never truncated;
/// - with [`profile`](RegistrarSuite::profile): each registration updates the profile, except with
///   a token without profile claims.
///
/// It leaves up to 93 participants in the store, of issuers below `https://conformance.example`. It
/// does *not* test whether an unavailable store is an `Err` without a long wait, whether a crash
/// during a registration does harm, or whether registrations survive a restart.
///
/// # Panics
/// Panics if the registrar breaks a rule. The message names the rule.
pub async fn registrar(suite: &dyn RegistrarSuite) {
    let fixture = Fixture::new();
    repeated_registrations(suite, &fixture).await;
    separate_identities(suite, &fixture).await;
    long_subjects(suite, &fixture).await;
    email_addresses(suite, &fixture).await;
    opaque_ids(suite, &fixture).await;
    for turn in 0..4 {
        parallel_registrations_of_one(suite, &fixture, turn).await;
    }
    parallel_registrations_of_many(suite, &fixture).await;
    cancelled_registrations(suite, &fixture).await;
    profile_updates(suite, &fixture).await;
}

/// Identities that are unique to one run of the suite, because the store may be persistent.
struct Fixture {
    issuer: String,
}

impl Fixture {
    #[expect(clippy::expect_used, reason = "a conformance suite fails by panicking")]
    fn new() -> Self {
        let run = ParticipantId::random().expect("the system provides random numbers");
        Self { issuer: format!("https://conformance.example/{run}") }
    }

    /// Returns an identity with these claims. Default issuer: the unique issuer of this run.
    fn identity(&self, mut claims: Value) -> Identity {
        if let Some(claims) = claims.as_object_mut() {
            claims.entry("iss").or_insert_with(|| self.issuer.as_str().into());
        }
        identity(claims)
    }
}

async fn repeated_registrations(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let alice = fixture.identity(json!({"sub": "alice", "tenant_id": "acme"}));
    let first = register(suite, &alice).await;
    assert!(first.created, "rule broken: the first registration creates a participant");
    for _ in 0..3 {
        let again = register(suite, &alice).await;
        assert_same(&first, &again, "later registrations return the same participant");
        assert!(!again.created, "rule broken: later registrations create nothing");
        let rule = "rule broken: created_at never changes";
        assert_eq!(first.created_at, again.created_at, "{rule}");
    }
}

/// Checks that no identity is confused with another, at the first and at later registrations.
async fn separate_identities(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let issuer = &fixture.issuer;
    let mut registered: Vec<(Value, Registration)> = Vec::new();
    for claims in similar_identities(issuer) {
        let registration = register(suite, &fixture.identity(claims.clone())).await;
        for (other, theirs) in &registered {
            let rule = "issuer, tenant, kind and subject are compared byte for byte";
            assert_distinct(&registration, theirs, &format!("{rule}: {claims} and {other}"));
        }
        assert!(
            registration.created,
            "rule broken: the first registration creates a participant: {claims}"
        );
        registered.push((claims, registration));
    }
    for (claims, registration) in &registered {
        let again = register(suite, &fixture.identity(claims.clone())).await;
        assert_same(registration, &again, "each identity finds its own registration");
    }
}

/// Returns identities that a careless key, comparison or quoting confuses.
fn similar_identities(issuer: &str) -> Vec<Value> {
    let mut all = vec![
        json!({"sub": "bob", "tenant_id": "acme"}),
        json!({"sub": "bob", "tenant_id": "acme", "iss": format!("{issuer}/")}),
        json!({"sub": "bob", "tenant_id": "acme", "iss": format!("{issuer}/other")}),
        json!({"sub": "bob", "tenant_id": "other"}),
        json!({"sub": "bob", "tenant_id": "ACME"}),
        json!({"sub": "bob", "tenant_id": "null"}),
        json!({"sub": "bob"}),
        // A client with the user's id.
        json!({"sub": "bob", "tenant_id": "acme", "client_id": "bob"}),
        // A store that joins tenant and subject to one key must still distinguish these pairs.
        json!({"sub": "b:c", "tenant_id": "a"}),
        json!({"sub": "c", "tenant_id": "a:b"}),
        json!({"sub": "b|c", "tenant_id": "a"}),
        json!({"sub": "c", "tenant_id": "a|b"}),
        json!({"sub": "b/c", "tenant_id": "a"}),
        json!({"sub": "c", "tenant_id": "a/b"}),
    ];
    let subjects = [
        "Bob",
        "BOB",
        "bob ",
        " bob",
        "bo",
        "bo_",
        "bo%",
        "%",
        "bob'",
        "bob'--",
        "bob\"",
        "bob\\",
        "$1",
        "?",
        "b\u{f6}b",
        "bo\u{308}b",
        "bob\u{200b}",
        "\u{ff42}ob",
        "stra\u{df}e",
        "strasse",
        "🦀",
        "7",
        "007",
        "7.0",
        "null",
        "user",
    ];
    all.extend(subjects.map(|subject| json!({"sub": subject, "tenant_id": "acme"})));
    all
}

/// Checks long subjects: a store may reject them but must not truncate them.
async fn long_subjects(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    for length in [254, 511, 1023, 4095, 65_535] {
        let start = "x".repeat(length);
        let both = ["y", "z"].map(|end| {
            fixture.identity(json!({"sub": format!("{start}{end}"), "tenant_id": "acme"}))
        });
        let [first, second] = &both;
        let first = suite.registrar().register(first).await;
        let second = suite.registrar().register(second).await;
        match (first, second) {
            (Ok(first), Ok(second)) => {
                assert_distinct(
                    &first,
                    &second,
                    "subjects that differ only in the last byte are distinct",
                );
            }
            (
                Err(RegistrarError::InvalidIdentity { .. }),
                Err(RegistrarError::InvalidIdentity { .. }),
            ) if length > 255 => {}
            answers => fail(&format!("a subject of {} bytes is stored: {answers:?}", length + 1)),
        }
    }
}

async fn email_addresses(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let person = |subject: &str, email: &str| {
        fixture.identity(json!({
            "sub": subject, "tenant_id": "acme", "name": "Carol",
            "email": email, "email_verified": true,
        }))
    };
    let carol = register(suite, &person("carol", "carol@conformance.example")).await;
    let thief = register(suite, &person("thief", "carol@conformance.example")).await;
    assert_distinct(
        &carol,
        &thief,
        "an identity with the same e-mail address is another participant",
    );
    let moved = register(suite, &person("carol", "new@conformance.example")).await;
    assert_same(&carol, &moved, "a changed e-mail address keeps the participant");
    let heir = register(suite, &person("heir", "carol@conformance.example")).await;
    assert_distinct(
        &carol,
        &heir,
        "an identity with a former e-mail address is another participant",
    );
}

async fn opaque_ids(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let claims = json!({
        "sub": "subject-of-dora", "tenant_id": "tenant-of-dora", "name": "Dora",
        "email": "dora@conformance.example",
    });
    let dora = register(suite, &fixture.identity(claims)).await;
    let workspace = dora.workspace_id.as_ref().map(|id| id.as_str());
    for id in workspace.into_iter().chain([dora.participant_id.as_str()]).map(str::to_lowercase) {
        let reveals = id.contains("dora") || id.contains("conformance");
        assert!(!reveals, "rule broken: ids are not derived from names or addresses: {id}");
    }
}

/// Registers one identity from many callers in parallel. Half of them send another name, so that a
/// store cannot rely on identical calls.
async fn parallel_registrations_of_one(suite: &dyn RegistrarSuite, fixture: &Fixture, turn: usize) {
    let answers = register_in_parallel((0..CALLERS).map(|caller| {
        let erin = fixture.identity(json!({
            "sub": format!("erin-{turn}"), "tenant_id": "acme", "name": format!("Erin {}", caller % 2),
        }));
        let registrar = suite.registrar();
        async move { registrar.register(&erin).await }
    }))
    .await;
    let Some((first, others)) = answers.split_first() else { return };
    for other in others {
        assert_same(first, other, "parallel registrations of one identity return one participant");
    }
    let created = answers.iter().filter(|answer| answer.created).count();
    let rule = "exactly one creates the participant";
    assert_eq!(created, 1, "rule broken: of {CALLERS} parallel registrations {rule}");
    let erin = json!({"sub": format!("erin-{turn}"), "tenant_id": "acme"});
    assert_same(
        first,
        &register(suite, &fixture.identity(erin)).await,
        "a registration created in parallel is stored",
    );
}

async fn parallel_registrations_of_many(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let answers = register_in_parallel((0..CALLERS).map(|caller| {
        let identity =
            fixture.identity(json!({"sub": format!("parallel-{caller}"), "tenant_id": "acme"}));
        let registrar = suite.registrar();
        async move { registrar.register(&identity).await }
    }))
    .await;
    let participants: HashSet<_> = answers.iter().map(|answer| &answer.participant_id).collect();
    let rule = "rule broken: parallel registrations of many identities stay distinct";
    assert_eq!(participants.len(), CALLERS, "{rule}");
    let workspaces: Vec<_> =
        answers.iter().filter_map(|answer| answer.workspace_id.as_ref()).collect();
    let distinct: HashSet<_> = workspaces.iter().collect();
    assert_eq!(distinct.len(), workspaces.len(), "{rule}: no shared workspace");
}

async fn cancelled_registrations(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let frank = fixture.identity(json!({"sub": "frank", "tenant_id": "acme"}));
    for _ in 0..8 {
        let registrar = suite.registrar();
        let _ = tokio::time::timeout(Duration::ZERO, registrar.register(&frank)).await;
    }
    let first = register(suite, &frank).await;
    assert_same(&first, &register(suite, &frank).await, "cancelled registrations have no effect");
}

async fn profile_updates(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let mut claims = json!({
        "sub": "grace", "tenant_id": "acme", "name": "Grace",
        "email": "g@conformance.example", "email_verified": true,
    });
    let grace = fixture.identity(claims.clone());
    let known = register(suite, &grace).await.participant_id;
    let Some(shown) = suite.profile(&known).await else { return };
    assert_eq!(
        shown,
        Profile::new(&grace),
        "rule broken: a new participant gets the profile of the token"
    );
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("name".to_owned(), "Grace \u{2713}".into());
        claims.insert("email".to_owned(), "grace@conformance.example".into());
        claims.insert("email_verified".to_owned(), false.into());
    }
    let grace = fixture.identity(claims);
    register(suite, &grace).await;
    let shown = suite.profile(&known).await;
    assert_eq!(
        shown,
        Some(Profile::new(&grace)),
        "rule broken: each registration updates the profile"
    );
    register(suite, &fixture.identity(json!({"sub": "grace", "tenant_id": "acme"}))).await;
    let shown = suite.profile(&known).await;
    let rule = "rule broken: a token without profile claims keeps the profile";
    assert_eq!(shown, Some(Profile::new(&grace)), "{rule}");
}

/// Registers through a new registrar, like another process.
async fn register(suite: &dyn RegistrarSuite, identity: &Identity) -> Registration {
    require(suite.registrar().register(identity).await, "an identity can be registered")
}

async fn register_in_parallel<F>(calls: impl Iterator<Item = F>) -> Vec<Registration>
where
    F: Future<Output = Result<Registration, RegistrarError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    calls.for_each(|call| drop(tasks.spawn(call)));
    let answers = tasks.join_all().await.into_iter();
    answers.map(|answer| require(answer, "parallel registrations succeed")).collect()
}

fn assert_same(one: &Registration, other: &Registration, rule: &str) {
    assert_eq!(one.participant_id, other.participant_id, "rule broken: {rule}");
    assert_eq!(one.workspace_id, other.workspace_id, "rule broken: {rule}: same workspace");
}

fn assert_distinct(one: &Registration, other: &Registration, rule: &str) {
    assert_ne!(one.participant_id, other.participant_id, "rule broken: {rule}");
    let is_shared = one.workspace_id.is_some() && one.workspace_id == other.workspace_id;
    assert!(!is_shared, "rule broken: {rule}: no shared workspace");
}

fn require<T>(answer: Result<T, RegistrarError>, rule: &str) -> T {
    answer.unwrap_or_else(|why| fail(&format!("{rule}: {why}")))
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn fail(rule: &str) -> ! {
    panic!("rule broken: {rule}")
}
