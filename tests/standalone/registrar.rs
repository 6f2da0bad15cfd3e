//! The conformance suite for registrars: correct registrars pass, and each faulty one fails with the broken
//! rule.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use scaikey_auth::Identity;
use scaikey_auth::clock::Clock;
use scaikey_auth::registrar::{
    MemoryRegistrar, ParticipantId, Profile, Registrar, RegistrarError, Registration, WorkspaceId,
};
use scaikey_auth::testing::conformance::{RegistrarSuite, registrar};
use scaikey_auth::testing::{ManualClock, identity};
use serde_json::json;

struct Memory(MemoryRegistrar);

#[async_trait]
impl RegistrarSuite for Memory {
    fn registrar(&self) -> Arc<dyn Registrar> {
        Arc::new(self.0.clone())
    }

    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        self.0.profile(participant)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_passes() {
    registrar(&Memory(MemoryRegistrar::new())).await;
}

#[tokio::test]
async fn memory_uses_its_clock_and_validates_keys() {
    let clock = ManualClock::new();
    let registrar = MemoryRegistrar::new().clock(clock.clone());
    let alice = identity(json!({"sub": "alice"}));
    let begun = clock.now();
    let first = registrar.register(&alice).await.unwrap();
    assert!(begun.duration_since(first.created_at).unwrap() < Duration::from_secs(1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(registrar.register(&alice).await.unwrap().created_at, first.created_at);
    assert_eq!(format!("{registrar:?}"), "MemoryRegistrar { participants: 1 }");
    for (claims, reason) in [
        (
            json!({"sub": "a".repeat(1025)}),
            "the subject of this identity cannot be stored: it has more",
        ),
        (
            json!({"sub": "hunter\u{0}2"}),
            "the subject of this identity cannot be stored: it contains a NUL character",
        ),
        (
            json!({"sub": "a", "iss": "i".repeat(1025)}),
            "the issuer of this identity cannot be stored",
        ),
    ] {
        let error = registrar.register(&identity(claims)).await.unwrap_err();
        assert!(matches!(error, RegistrarError::InvalidIdentity { .. }), "{error:?}");
        assert!(error.to_string().starts_with(reason), "{error}");
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
}

/// Computes the key of an identity. Identities with equal keys are the same participant.
type Key = fn(&Identity) -> String;

/// A registrar with a fault. Clones share the participants.
#[derive(Debug, Clone)]
struct FaultyRegistrar {
    participants: Arc<Mutex<HashMap<String, (Registration, Profile)>>>,
    key: Key,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    LosesParticipants,
    LookupThenInsert,
    NoWorkspaces,
    LosesWorkspaces,
    NewWorkspaceEachTime,
    SharedWorkspace,
    AlwaysCreated,
    NeverCreated,
    DerivedIds,
    NewTimeEachTime,
    NeverUpdatesProfile,
    ClearsProfile,
}

fn whole(identity: &Identity) -> String {
    format!("{:?}", identity.key())
}

impl FaultyRegistrar {
    fn fresh(&self, identity: &Identity) -> Registration {
        let participant = match self.fault {
            Fault::DerivedIds => {
                ParticipantId::new(&whole(identity).replace(char::is_whitespace, "_"))
                    .unwrap_or_else(|_| ParticipantId::random().unwrap())
            }
            _ => ParticipantId::random().unwrap(),
        };
        let workspace = match self.fault {
            Fault::NoWorkspaces => None,
            Fault::SharedWorkspace => Some(WorkspaceId::new("home").unwrap()),
            _ => Some(WorkspaceId::random().unwrap()),
        };
        let now = scaikey_auth::clock::SystemClock::default().now();
        let mut fresh = Registration::new(participant, now);
        fresh.workspace_id = workspace;
        fresh.created = self.fault != Fault::NeverCreated;
        fresh
    }
}

#[async_trait]
impl Registrar for FaultyRegistrar {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let (key, fresh) = ((self.key)(identity), self.fresh(identity));
        if self.fault == Fault::LookupThenInsert {
            let found = self.participants.lock().unwrap().get(&key).cloned();
            if let Some((mut found, _)) = found {
                found.created = false;
                return Ok(found);
            }
            tokio::task::yield_now().await;
            let entry = (fresh.clone(), Profile::new(identity));
            self.participants.lock().unwrap().insert(key, entry);
            return Ok(fresh);
        }
        let mut participants = self.participants.lock().unwrap();
        if self.fault == Fault::LosesParticipants {
            participants.clear();
        }
        let mut created = false;
        let (registration, profile) = participants.entry(key).or_insert_with(|| {
            created = true;
            (fresh.clone(), Profile::new(identity))
        });
        match self.fault {
            Fault::NeverUpdatesProfile => {}
            Fault::ClearsProfile => *profile = Profile::new(identity),
            _ => profile.update(&Profile::new(identity)),
        }
        let mut answer = registration.clone();
        answer.created = match self.fault {
            Fault::AlwaysCreated => true,
            Fault::NeverCreated => false,
            _ => created,
        };
        if self.fault == Fault::LosesWorkspaces && !created {
            answer.workspace_id = None;
        }
        if self.fault == Fault::NewWorkspaceEachTime {
            answer.workspace_id = fresh.workspace_id;
        }
        if self.fault == Fault::NewTimeEachTime {
            answer.created_at = fresh.created_at;
        }
        Ok(answer)
    }
}

struct Candidate(FaultyRegistrar);

#[async_trait]
impl RegistrarSuite for Candidate {
    fn registrar(&self) -> Arc<dyn Registrar> {
        Arc::new(self.0.clone())
    }

    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let participants = self.0.participants.lock().unwrap();
        let found = participants.values().find(|(it, _)| it.participant_id == *participant);
        found.map(|(_, profile)| profile.clone())
    }
}

/// Returns the broken rule that the suite reports, or `None` if the registrar passed.
async fn broken_rule(key: Key, fault: Fault) -> Option<String> {
    let candidate = Candidate(FaultyRegistrar { participants: Arc::default(), key, fault });
    let suite = tokio::spawn(async move { registrar(&candidate).await });
    let panic = suite.await.err()?.into_panic();
    let literal = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    panic.downcast_ref::<String>().cloned().or_else(literal)
}

#[tokio::test]
async fn correct_registrar_passes() {
    assert_eq!(broken_rule(whole, Fault::None).await, None);
    assert_eq!(broken_rule(whole, Fault::NoWorkspaces).await, None);
}

#[tokio::test]
async fn registrars_with_weak_keys_fail() {
    let keys: [(&str, Key, &str); 11] = [
        ("sub alone", |i| i.subject().into(), "compared byte for byte"),
        ("e-mail", |i| i.email().map_or_else(|| whole(i), String::from), "the same e-mail address"),
        (
            "e-mail and key",
            |i| format!("{}{:?}", whole(i), i.email()),
            "a changed e-mail address keeps the participant",
        ),
        (
            "no issuer",
            |i| format!("{:?} {} {}", i.tenant_id(), i.kind(), i.subject()),
            "compared byte for byte",
        ),
        (
            "no tenant",
            |i| format!("{} {} {}", i.issuer(), i.kind(), i.subject()),
            "compared byte for byte",
        ),
        (
            "no kind",
            |i| format!("{} {:?} {}", i.issuer(), i.tenant_id(), i.subject()),
            "compared byte for byte",
        ),
        ("no case", |i| whole(i).to_lowercase(), "compared byte for byte"),
        (
            "trimmed",
            |i| format!("{} {:?} {} {}", i.issuer(), i.tenant_id(), i.kind(), i.subject().trim()),
            "compared byte for byte",
        ),
        (
            "parts put together",
            |i| {
                let tenant = i.tenant_id().map_or("", |id| id.as_str());
                format!("{}:{}:{tenant}:{}", i.kind(), i.issuer(), i.subject())
            },
            "compared byte for byte",
        ),
        (
            "no tenant is a tenant",
            |i| {
                let tenant = i.tenant_id().map_or("null", |id| id.as_str());
                format!("{:?}", (i.kind(), i.issuer(), tenant, i.subject()))
            },
            "compared byte for byte",
        ),
        (
            "cut off",
            |i| {
                let start: String = i.subject().chars().take(255).collect();
                format!("{:?}", (i.kind(), i.issuer(), i.tenant_id(), start))
            },
            "differ only in the last byte",
        ),
    ];
    for (name, key, rule) in keys {
        let broken_rule = broken_rule(key, Fault::None).await;
        let broken_rule = broken_rule.unwrap_or_else(|| panic!("passed with a key of {name}"));
        assert!(broken_rule.contains("rule broken: "), "{name}: {broken_rule}");
        assert!(broken_rule.contains(rule), "{name}: {broken_rule}");
    }
}

#[tokio::test]
async fn registrars_with_faulty_stores_fail() {
    for (fault, rule) in [
        (Fault::LosesParticipants, "later registrations return the same participant"),
        (Fault::LookupThenInsert, "parallel registrations of one identity return one participant"),
        (
            Fault::NewWorkspaceEachTime,
            "later registrations return the same participant: same workspace",
        ),
        (Fault::LosesWorkspaces, "later registrations return the same participant: same workspace"),
        (Fault::SharedWorkspace, "no shared workspace"),
        (Fault::AlwaysCreated, "later registrations create nothing"),
        (Fault::NeverCreated, "the first registration creates"),
        (Fault::DerivedIds, "ids are not derived"),
        (Fault::NewTimeEachTime, "created_at never changes"),
        (Fault::NeverUpdatesProfile, "each registration updates the profile"),
        (Fault::ClearsProfile, "keeps the profile"),
    ] {
        let broken_rule = broken_rule(whole, fault).await;
        let broken_rule = broken_rule.unwrap_or_else(|| panic!("passed: {fault:?}"));
        assert!(broken_rule.contains(rule), "{fault:?}: {broken_rule}");
    }
}
