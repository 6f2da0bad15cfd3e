//! The exam for registrars: ours passes, and broken ones fail by the rule they break.

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
            "the subject of this identity cannot be stored: it has a NUL",
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

/// Makes a key of what it looks at; what has the same key is taken for the same.
type Key = fn(&Identity) -> String;

/// A registrar with a fault. All that were made from one share what they know.
#[derive(Debug, Clone)]
struct Broken {
    known: Arc<Mutex<HashMap<String, (Registration, Profile)>>>,
    key: Key,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Forgets,
    LooksThenInserts,
    AnotherWorkspaceEachTime,
    OneWorkspaceForAll,
    SaysCreatedAlways,
    SaysCreatedNever,
    IdsFromNames,
    NewTimeEachTime,
    KeepsTheFirstProfile,
    WipesTheProfile,
}

fn whole(identity: &Identity) -> String {
    format!("{:?}", identity.key())
}

impl Broken {
    fn fresh(&self, identity: &Identity) -> Registration {
        let participant = match self.fault {
            Fault::IdsFromNames => {
                ParticipantId::new(&whole(identity).replace(char::is_whitespace, "_"))
                    .unwrap_or_else(|_| ParticipantId::random().unwrap())
            }
            _ => ParticipantId::random().unwrap(),
        };
        let workspace = match self.fault {
            Fault::OneWorkspaceForAll => WorkspaceId::new("home").unwrap(),
            _ => WorkspaceId::random().unwrap(),
        };
        let now = scaikey_auth::clock::SystemClock::default().now();
        let mut fresh = Registration::new(participant, workspace, now);
        fresh.created = self.fault != Fault::SaysCreatedNever;
        fresh
    }
}

#[async_trait]
impl Registrar for Broken {
    async fn register(&self, identity: &Identity) -> Result<Registration, RegistrarError> {
        let (key, fresh) = ((self.key)(identity), self.fresh(identity));
        if self.fault == Fault::LooksThenInserts {
            let found = self.known.lock().unwrap().get(&key).cloned();
            if let Some((mut found, _)) = found {
                found.created = false;
                return Ok(found);
            }
            tokio::task::yield_now().await;
            let entry = (fresh.clone(), Profile::new(identity));
            self.known.lock().unwrap().insert(key, entry);
            return Ok(fresh);
        }
        let mut known = self.known.lock().unwrap();
        if self.fault == Fault::Forgets {
            known.clear();
        }
        let mut created = false;
        let (registration, profile) = known.entry(key).or_insert_with(|| {
            created = true;
            (fresh.clone(), Profile::new(identity))
        });
        match self.fault {
            Fault::KeepsTheFirstProfile => {}
            Fault::WipesTheProfile => *profile = Profile::new(identity),
            _ => profile.update(&Profile::new(identity)),
        }
        let mut answer = registration.clone();
        answer.created = match self.fault {
            Fault::SaysCreatedAlways => true,
            Fault::SaysCreatedNever => false,
            _ => created,
        };
        if self.fault == Fault::AnotherWorkspaceEachTime {
            answer.workspace_id = fresh.workspace_id;
        }
        if self.fault == Fault::NewTimeEachTime {
            answer.created_at = fresh.created_at;
        }
        Ok(answer)
    }
}

struct Candidate(Broken);

#[async_trait]
impl RegistrarSuite for Candidate {
    fn registrar(&self) -> Arc<dyn Registrar> {
        Arc::new(self.0.clone())
    }

    async fn profile(&self, participant: &ParticipantId) -> Option<Profile> {
        let known = self.0.known.lock().unwrap();
        let found = known.values().find(|(known, _)| known.participant_id == *participant);
        found.map(|(_, profile)| profile.clone())
    }
}

/// The rule that the exam says was broken; `None` if it passed.
async fn verdict(key: Key, fault: Fault) -> Option<String> {
    let candidate = Candidate(Broken { known: Arc::default(), key, fault });
    let exam = tokio::spawn(async move { registrar(&candidate).await });
    let panic = exam.await.err()?.into_panic();
    let literal = || panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    panic.downcast_ref::<String>().cloned().or_else(literal)
}

#[tokio::test]
async fn correct_registrar_passes() {
    assert_eq!(verdict(whole, Fault::None).await, None);
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
        let verdict = verdict(key, Fault::None).await;
        let verdict = verdict.unwrap_or_else(|| panic!("passed with a key of {name}"));
        assert!(verdict.contains("rule broken: "), "{name}: {verdict}");
        assert!(verdict.contains(rule), "{name}: {verdict}");
    }
}

#[tokio::test]
async fn registrars_with_faulty_stores_fail() {
    for (fault, rule) in [
        (Fault::Forgets, "later registrations return the same participant"),
        (Fault::LooksThenInserts, "parallel registrations of one identity return one participant"),
        (
            Fault::AnotherWorkspaceEachTime,
            "later registrations return the same participant: same workspace",
        ),
        (Fault::OneWorkspaceForAll, "no shared workspace"),
        (Fault::SaysCreatedAlways, "later registrations create nothing"),
        (Fault::SaysCreatedNever, "the first registration creates"),
        (Fault::IdsFromNames, "ids are not derived"),
        (Fault::NewTimeEachTime, "created_at never changes"),
        (Fault::KeepsTheFirstProfile, "each registration updates the profile"),
        (Fault::WipesTheProfile, "keeps the profile"),
    ] {
        let verdict = verdict(whole, fault).await;
        let verdict = verdict.unwrap_or_else(|| panic!("passed: {fault:?}"));
        assert!(verdict.contains(rule), "{fault:?}: {verdict}");
    }
}
