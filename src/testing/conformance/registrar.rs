//! The exam for a [`Registrar`].

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

/// How many callers come at once.
const CROWD: usize = 32;

/// A [`Registrar`] under exam, and a way into its store (feature `testing`).
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
    /// A registrar on the store under exam. Where processes share the store, each call gives one
    /// that knows nothing of the others but through the store, as another process's would.
    fn registrar(&self) -> Arc<dyn Registrar>;

    /// What the store shows a participant as. The default has no way there; rules that need one are
    /// then left out.
    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let _ = participant;
        None
    }
}

/// The exam for a [`Registrar`] (feature `testing`).
///
/// Tests that an identity has one participant and one personal workspace, the same whenever and
/// from wherever it registers; that issuer, tenant, kind and subject are told apart byte for byte,
/// and nothing else is; that of a crowd exactly one is told that it created; that ids say nothing;
/// that abandoned calls do no harm. With [`profile`](RegistrarSuite::profile), that the profile
/// follows the tokens. The store is left with some 150 participants of issuers below
/// `https://conformance.example`.
///
/// What is *not* tested: a store that is away, which must be an `Err` and soon, a process that dies
/// in the middle, and that what was registered outlives a process.
///
/// # Panics
/// When a rule is broken; the message names it.
pub async fn registrar(suite: &dyn RegistrarSuite) {
    let fixture = Fixture::new();
    stays_the_same(suite, &fixture).await;
    keys_are_told_apart(suite, &fixture).await;
    long_subjects_are_not_cut(suite, &fixture).await;
    an_address_is_no_key(suite, &fixture).await;
    ids_say_nothing(suite, &fixture).await;
    for turn in 0..4 {
        a_crowd_is_one(suite, &fixture, turn).await;
    }
    a_crowd_of_many_stays_many(suite, &fixture).await;
    abandoned_calls_do_no_harm(suite, &fixture).await;
    profiles_follow(suite, &fixture).await;
}

/// Makes identities that no exam had before: the store may be a lasting one.
struct Fixture {
    issuer: String,
}

impl Fixture {
    fn new() -> Self {
        let mark = require(ParticipantId::random(), "there are random numbers");
        Self { issuer: format!("https://conformance.example/{mark}") }
    }

    /// Somebody of the exam's issuer, unless the claims say otherwise.
    fn somebody(&self, mut claims: Value) -> Identity {
        if let Some(claims) = claims.as_object_mut() {
            claims.entry("iss").or_insert_with(|| self.issuer.as_str().into());
        }
        identity(claims)
    }
}

async fn stays_the_same(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let alice = fixture.somebody(json!({"sub": "alice", "tenant_id": "acme"}));
    let first = register(suite, &alice).await;
    assert!(first.created, "rule broken: the first registration creates");
    for _ in 0..3 {
        let again = register(suite, &alice).await;
        same(&first, &again, "a registration is remembered");
        assert!(!again.created, "rule broken: later registrations create nothing");
        let rule = "rule broken: created_at stays";
        assert_eq!(first.created_at, again.created_at, "{rule}");
    }
}

/// Nobody is taken for anybody else, neither now nor when all come again.
async fn keys_are_told_apart(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let issuer = &fixture.issuer;
    let mut held: Vec<(Value, Registration)> = Vec::new();
    for claims in neighbours(issuer) {
        let registration = register(suite, &fixture.somebody(claims.clone())).await;
        for (other, theirs) in &held {
            let rule = "issuer, tenant, kind and subject are told apart byte for byte";
            apart(&registration, theirs, &format!("{rule}: {claims} and {other}"));
        }
        assert!(registration.created, "rule broken: the first registration creates: {claims}");
        held.push((claims, registration));
    }
    for (claims, registration) in &held {
        let again = register(suite, &fixture.somebody(claims.clone())).await;
        same(registration, &again, "each finds its own again");
    }
}

/// Identities that careless keys, comparisons or quoting take for one.
fn neighbours(issuer: &str) -> Vec<Value> {
    let mut all = vec![
        json!({"sub": "bob", "tenant_id": "acme"}),
        json!({"sub": "bob", "tenant_id": "acme", "iss": format!("{issuer}/")}),
        json!({"sub": "bob", "tenant_id": "acme", "iss": format!("{issuer}/other")}),
        json!({"sub": "bob", "tenant_id": "other"}),
        json!({"sub": "bob", "tenant_id": "ACME"}),
        json!({"sub": "bob", "tenant_id": "null"}),
        json!({"sub": "bob"}),
        // A client whose id is the user's.
        json!({"sub": "bob", "tenant_id": "acme", "client_id": "bob"}),
        // What lies where must not matter when keys are put together from parts.
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

/// A store may refuse long ones, but not shorten them.
async fn long_subjects_are_not_cut(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    for length in [254, 511, 1023, 4095, 65_535] {
        let start = "x".repeat(length);
        let both = ["y", "z"].map(|end| {
            fixture.somebody(json!({"sub": format!("{start}{end}"), "tenant_id": "acme"}))
        });
        let [first, second] = &both;
        let first = suite.registrar().register(first).await;
        let second = suite.registrar().register(second).await;
        match (first, second) {
            (Ok(first), Ok(second)) => {
                apart(&first, &second, "subjects that differ after many bytes are two");
            }
            (Err(RegistrarError::Unfit { .. }), Err(RegistrarError::Unfit { .. }))
                if length > 255 => {}
            answers => fail(&format!("a subject of {length} bytes is stored: {answers:?}")),
        }
    }
}

async fn an_address_is_no_key(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let person = |subject: &str, email: &str| {
        fixture.somebody(json!({
            "sub": subject, "tenant_id": "acme", "name": "Carol",
            "email": email, "email_verified": true,
        }))
    };
    let carol = register(suite, &person("carol", "carol@conformance.example")).await;
    let thief = register(suite, &person("thief", "carol@conformance.example")).await;
    apart(&carol, &thief, "who has somebody's address is not that one");
    let moved = register(suite, &person("carol", "new@conformance.example")).await;
    same(&carol, &moved, "another address makes nobody another");
    let heir = register(suite, &person("heir", "carol@conformance.example")).await;
    apart(&carol, &heir, "who has somebody's former address is not that one");
}

async fn ids_say_nothing(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let telling = json!({
        "sub": "subject-of-dora", "tenant_id": "tenant-of-dora", "name": "Dora",
        "email": "dora@conformance.example",
    });
    let dora = register(suite, &fixture.somebody(telling)).await;
    let ids = [dora.participant_id.as_str(), dora.workspace_id.as_str()];
    for id in ids.map(str::to_lowercase) {
        let tells = id.contains("dora") || id.contains("suite");
        assert!(!tells, "rule broken: ids are not derived from names or addresses: {id}");
    }
}

/// Half of the crowd says something else of itself, so that no two calls need be alike.
async fn a_crowd_is_one(suite: &dyn RegistrarSuite, fixture: &Fixture, turn: usize) {
    let answers = together((0..CROWD).map(|caller| {
        let erin = fixture.somebody(json!({
            "sub": format!("erin-{turn}"), "tenant_id": "acme", "name": format!("Erin {}", caller % 2),
        }));
        let registrar = suite.registrar();
        async move { registrar.register(&erin).await }
    }))
    .await;
    let Some((first, others)) = answers.split_first() else { return };
    for other in others {
        same(first, other, "parallel registrations of one identity are one");
    }
    let created = answers.iter().filter(|answer| answer.created).count();
    assert_eq!(created, 1, "rule broken: of {CROWD} parallel registrations exactly one creates");
    let erin = json!({"sub": format!("erin-{turn}"), "tenant_id": "acme"});
    same(
        first,
        &register(suite, &fixture.somebody(erin)).await,
        "what a crowd created is remembered",
    );
}

async fn a_crowd_of_many_stays_many(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let answers = together((0..CROWD).map(|caller| {
        let somebody =
            fixture.somebody(json!({"sub": format!("crowd-{caller}"), "tenant_id": "acme"}));
        let registrar = suite.registrar();
        async move { registrar.register(&somebody).await }
    }))
    .await;
    let participants: HashSet<_> = answers.iter().map(|answer| &answer.participant_id).collect();
    let workspaces: HashSet<_> = answers.iter().map(|answer| &answer.workspace_id).collect();
    let rule = "rule broken: parallel registrations of many identities are as many";
    assert_eq!((participants.len(), workspaces.len()), (CROWD, CROWD), "{rule}");
}

async fn abandoned_calls_do_no_harm(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let frank = fixture.somebody(json!({"sub": "frank", "tenant_id": "acme"}));
    for _ in 0..8 {
        let registrar = suite.registrar();
        let _ = tokio::time::timeout(Duration::ZERO, registrar.register(&frank)).await;
    }
    let first = register(suite, &frank).await;
    same(&first, &register(suite, &frank).await, "registrations given up half-way do no harm");
}

async fn profiles_follow(suite: &dyn RegistrarSuite, fixture: &Fixture) {
    let mut claims = json!({
        "sub": "grace", "tenant_id": "acme", "name": "Grace",
        "email": "g@conformance.example", "email_verified": true,
    });
    let grace = fixture.somebody(claims.clone());
    let known = register(suite, &grace).await.participant_id;
    let Some(shown) = suite.profile(&known).await else { return };
    assert_eq!(shown, Profile::of(&grace), "rule broken: a new participant has the profile");
    if let Some(claims) = claims.as_object_mut() {
        claims.insert("name".to_owned(), "Grace \u{2713}".into());
        claims.insert("email".to_owned(), "grace@conformance.example".into());
        claims.insert("email_verified".to_owned(), false.into());
    }
    let grace = fixture.somebody(claims);
    register(suite, &grace).await;
    let shown = suite.profile(&known).await;
    assert_eq!(shown, Some(Profile::of(&grace)), "rule broken: each call refreshes the profile");
    register(suite, &fixture.somebody(json!({"sub": "grace", "tenant_id": "acme"}))).await;
    let shown = suite.profile(&known).await;
    let rule = "rule broken: a token that says nothing of the profile leaves it";
    assert_eq!(shown, Some(Profile::of(&grace)), "{rule}");
}

/// Each by a registrar of its own, as from another process.
async fn register(suite: &dyn RegistrarSuite, identity: &Identity) -> Registration {
    require(suite.registrar().register(identity).await, "an identity can be registered")
}

async fn together<F>(calls: impl Iterator<Item = F>) -> Vec<Registration>
where
    F: Future<Output = Result<Registration, RegistrarError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    calls.for_each(|call| drop(tasks.spawn(call)));
    let answers = tasks.join_all().await.into_iter();
    answers.map(|answer| require(answer, "parallel registrations succeed")).collect()
}

fn same(one: &Registration, other: &Registration, rule: &str) {
    assert_eq!(one.participant_id, other.participant_id, "rule broken: {rule}");
    assert_eq!(one.workspace_id, other.workspace_id, "rule broken: {rule}: one workspace");
}

fn apart(one: &Registration, other: &Registration, rule: &str) {
    assert_ne!(one.participant_id, other.participant_id, "rule broken: {rule}");
    assert_ne!(one.workspace_id, other.workspace_id, "rule broken: {rule}: no shared workspace");
}

fn require<T>(answer: Result<T, RegistrarError>, rule: &str) -> T {
    answer.unwrap_or_else(|why| fail(&format!("{rule}: {why}")))
}

#[expect(clippy::panic, reason = "a conformance suite fails by panicking")]
fn fail(rule: &str) -> ! {
    panic!("rule broken: {rule}")
}
