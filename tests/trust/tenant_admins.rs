//! Administrators of a tenant at work: they save while others do, read their history, and try tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use scaikey_auth::TenantId;
use scaikey_auth::error::BoxError;
use scaikey_auth::testing::ManualClock;
use scaikey_auth::trust::{
    Appended, MemoryPolicies, NewPolicyVersion, PolicyAuthor, PolicyChange, PolicyStore,
    PolicyVersion, PolicyVersionId, SaveError, TenantPolicy, TrustEvaluator,
};

use super::delegations::{TRUST, delegation, rule};
use super::fixture::{grant, platform, pod, reporter, trust};
use super::tenant_policy::{POLICY, acme};
use crate::support::File;

/// An evaluator with the policy in a store.
async fn stored(policy: &str) -> (TrustEvaluator, MemoryPolicies) {
    let store = MemoryPolicies::new();
    store.append(NewPolicyVersion::new(policy, SystemTime::UNIX_EPOCH), None).await.unwrap();
    let trusts = TrustEvaluator::builder().store(store.clone()).build().unwrap();
    trusts.sync().await.unwrap();
    (trusts, store)
}

/// A version by an administrator.
fn version(text: impl Into<String>, by: &str, tenant: &str) -> NewPolicyVersion {
    let mut version = NewPolicyVersion::new(text, SystemTime::UNIX_EPOCH);
    let mut author = PolicyAuthor::new("https://scaikey.example", by);
    author.tenant = Some(tenant.to_owned());
    version.author = Some(author);
    version.note = Some(format!("note of {by}"));
    version
}

async fn save_as_owner(trusts: &TrustEvaluator, tenant: &str, change: impl Fn(&str) -> String) {
    trusts.sync().await.unwrap();
    let current = trusts.current();
    let current = current.version().unwrap();
    let version = version(change(&current.text), "owner", tenant);
    trusts.save(version, Some(&current.change.id)).await.unwrap();
}

fn own(trusts: &TrustEvaluator) -> TenantPolicy {
    trusts.tenant_policy(&acme()).unwrap()
}

fn with_rule(view: &TenantPolicy, name: &str) -> String {
    let conditions = format!(
        "subject = \"system:serviceaccount:acme:{name}\"\nclaims = {{ \"/kubernetes.io/cluster\" = {{ eq = \"us\" }} }}"
    );
    let head = view.text().find("\n# Tokens of issuer \"https://token").unwrap();
    let (before, after) = view.text().split_at(head);
    format!("{before}{}{after}", rule(name, "acme", &conditions))
}

async fn save(
    trusts: &TrustEvaluator,
    text: String,
    expected: &PolicyVersionId,
) -> Result<PolicyVersionId, SaveError> {
    trusts.save_for_tenant(&acme(), version(text, "ann", "acme"), expected).await
}

#[tokio::test]
async fn changes_of_others_are_kept() {
    let (trusts, store) = stored(POLICY).await;
    let (view, other) =
        (own(&trusts), TrustEvaluator::builder().store(store.clone()).build().unwrap());
    // Another process saves what does not concern acme. This process has not seen it.
    save_as_owner(&other, "owners", |text| text.replace("rival:agent\"", "rival:agent2\"")).await;
    let id = save(&trusts, with_rule(&view, "new"), view.id()).await.unwrap();
    let text = trusts.current().version().unwrap().text.clone();
    assert!(text.contains("rival:agent2\"") && text.contains("sa:acme:new"), "{text}");
    assert_eq!((&id, trusts.version().unwrap().number()), (own(&trusts).id(), 3));
    // The same once more: another administrator of acme was faster.
    match save(&trusts, with_rule(&view, "late"), view.id()).await {
        Err(SaveError::Conflict(Some(current))) => assert_eq!(current, id),
        other => panic!("{other:?}"),
    }
    // Nothing changed: no version.
    let same = own(&trusts);
    assert_eq!(save(&trusts, same.text().to_owned(), same.id()).await.unwrap(), id);
    assert_eq!(store.latest().await.unwrap().unwrap().number(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_lose_nothing() {
    let (trusts, store) = stored(POLICY).await;
    let mut writers = tokio::task::JoinSet::new();
    for nth in 0..4 {
        let (trusts, store) = (trusts.clone(), store.clone());
        writers.spawn(async move {
            let _ = store;
            for _ in 0..50 {
                trusts.sync().await.unwrap();
                let view = own(&trusts);
                let name = format!("new{nth}");
                if save(&trusts, with_rule(&view, &name), view.id()).await.is_ok() {
                    return;
                }
            }
            panic!("never saved");
        });
    }
    writers.join_all().await;
    let text = own(&trusts).text().to_owned();
    assert!((0..4).all(|nth| text.contains(&format!("\"new{nth}\""))), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_save_at_the_same_moment() {
    let names: Vec<_> = (0..16).map(|nth| format!("t{nth:02}")).collect();
    let subject = |name: &str| format!("subject = \"system:serviceaccount:{name}:*\"");
    let delegations = names.iter().map(|name| delegation(name, &subject(name)));
    let (trusts, _) = stored(&format!("{TRUST}{}", delegations.collect::<String>())).await;
    let mut savers = tokio::task::JoinSet::new();
    for name in &names {
        let (trusts, tenant) = (trusts.clone(), TenantId::new(name.as_str()).unwrap());
        let view = trusts.tenant_policy(&tenant).unwrap();
        let text = format!("{}{}", view.text(), rule("r", name, &subject(name).replace('*', "x")));
        let version = version(text, "ann", name);
        savers.spawn(async move { trusts.save_for_tenant(&tenant, version, view.id()).await });
    }
    for saved in savers.join_all().await {
        saved.unwrap();
    }
    let text = trusts.current().version().unwrap().text.clone();
    assert!(names.iter().all(|name| text.contains(&format!("sa:{name}:r"))), "{text}");
}

#[tokio::test]
async fn refused_change_is_not_stored() {
    let (trusts, store) = stored(POLICY).await;
    let view = own(&trusts);
    for (text, expected) in [
        (with_rule(&view, "new").replace("sa:acme:new", "sa:new:x"), "must begin with a kind"),
        ("[[trust]]\nid = \"hidden\"\n".to_owned(), "is the id of no trust"),
    ] {
        match save(&trusts, text, view.id()).await {
            Err(SaveError::Faults(faults)) => assert!(faults.to_string().contains(expected)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.latest().await.unwrap().unwrap().number(), 1);
    let without = TrustEvaluator::builder().build().unwrap();
    let empty = without.tenant_policy(&acme()).unwrap();
    assert!(empty.is_empty());
    assert!(matches!(save(&without, String::new(), empty.id()).await, Err(SaveError::ReadOnly)));
}

#[tokio::test]
async fn file_of_hidden_trust_is_not_named() {
    let (trusts, store) = stored(POLICY).await;
    let view = own(&trusts);
    // Its file was removed after the policy was saved, so the policy cannot be loaded any more.
    let broken = POLICY.replace(
        "issuer = \"https://hidden.example\"",
        "issuer = \"https://hidden.example\"\njwks = { file = \"/nowhere/secret.json\" }",
    );
    let expected = store.latest().await.unwrap();
    store.append(version(broken, "owner", "owners"), expected.as_ref()).await.unwrap();
    match save(&trusts, with_rule(&view, "new"), view.id()).await {
        Err(SaveError::Faults(faults)) => assert_eq!(
            faults.faults()[0].to_string(),
            "the policy conflicts with rules that you cannot see: ask the owner of the policy"
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn history_shows_own_changes_only() {
    let (trusts, _) = stored(POLICY).await;
    let first = own(&trusts);
    save_as_owner(&trusts, "acme", |text| text.replace("rival:agent\"", "rival:a2\"")).await;
    let text = with_rule(&own(&trusts), "one");
    let second = save(&trusts, text, own(&trusts).id()).await.unwrap();
    save_as_owner(&trusts, "acme", |text| text.replace("call Jane", "call Joe")).await;
    // By an owner who is of acme, with a change for others too.
    save_as_owner(&trusts, "acme", |text| {
        text.replace("acme:one\"", "acme:two\"").replace("call Joe", "call Jim")
    })
    .await;
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    let notes: Vec<_> = history.iter().map(|change| change.note.as_deref()).collect();
    assert_eq!(notes, [None, Some("note of ann"), None]);
    let authors: Vec<_> = history.iter().map(|change| change.author.is_some()).collect();
    assert_eq!(authors, [false, true, false]);
    assert!(history[0].id.is_of(own(&trusts).text()));
    assert_eq!(
        history[1].id.to_string().split_once('-').unwrap().1,
        second.to_string().split_once('-').unwrap().1
    );
    assert!(history.iter().all(|change| change.id.number() > 1000 && change.restores.is_none()));
    let oldest = trusts.tenant_version(&acme(), history[2].id.number()).await.unwrap().unwrap();
    assert_eq!(oldest.text, first.text());
    // Pages, and numbers of the whole policy.
    let page = async |before, limit| trusts.tenant_history(&acme(), before, limit).await.unwrap();
    assert_eq!(page(None, 2).await, history[..2]);
    assert_eq!(page(Some(history[0].id.number()), 1).await, history[1..2]);
    assert_eq!(page(Some(history[2].id.number()), 9).await, Vec::<PolicyChange>::new());
    for number in 0..6 {
        assert!(trusts.tenant_version(&acme(), number).await.unwrap().is_none());
    }
    // Another tenant has the same versions, but not the same history.
    let rival = TenantId::new("rival").unwrap();
    let others = trusts.tenant_history(&rival, None, 100).await.unwrap();
    assert!(
        others.iter().all(|other| history.iter().all(|own| own.id.number() != other.id.number()))
    );
    assert!(trusts.tenant_version(&rival, history[0].id.number()).await.unwrap().is_none());
    let nobody = TenantId::new("nobody").unwrap();
    assert_eq!(trusts.tenant_history(&nobody, None, 100).await.unwrap().len(), 0);
}

#[tokio::test]
async fn owner_is_no_author_for_tenants() {
    let (trusts, _) = stored(POLICY).await;
    let view = own(&trusts);
    // Who saves for a tenant says neither of which tenant they are, nor what they restore.
    let mut signed = version(with_rule(&view, "one"), "ann", "rival");
    signed.restores = Some(1);
    trusts.save_for_tenant(&acme(), signed, view.id()).await.unwrap();
    let saved = trusts.current().version().unwrap().change.clone();
    assert_eq!(saved.author.unwrap().tenant.as_deref(), Some("acme"));
    assert_eq!(saved.restores, None);
    // The owner changes a rule of acme, and nothing else.
    save_as_owner(&trusts, "owners", |text| text.replace("acme:one\"", "acme:two\"")).await;
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    let authors: Vec<_> =
        history.iter().map(|it| it.author.as_ref().map(|it| &*it.subject)).collect();
    assert_eq!(authors, [None, Some("ann"), None]);
    assert_eq!(history[0].note, None);
}

#[tokio::test]
async fn edit_of_the_owner_is_kept() {
    let file = File::new("trust.toml", POLICY);
    let trusts = TrustEvaluator::builder().file(file.path()).build().unwrap();
    let view = own(&trusts);
    // By hand, while an administrator of acme writes.
    file.write(&POLICY.replace("call Jane", "call Joe"));
    save(&trusts, with_rule(&view, "new"), view.id()).await.unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(text.contains("call Joe") && text.contains("sa:acme:new"), "{text}");
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    let notes: Vec<_> = history.iter().map(|change| change.note.as_deref()).collect();
    assert_eq!(notes, [Some("note of ann"), None]);
}

#[tokio::test]
async fn old_change_is_found() {
    let (trusts, store) = stored(POLICY).await;
    let first = own(&trusts);
    save(&trusts, with_rule(&first, "one"), first.id()).await.unwrap();
    let text = trusts.current().version().unwrap().text.clone();
    let mut latest = store.latest().await.unwrap();
    for nth in 0..120 {
        let version = version(format!("{text}# {nth}\n"), "owner", "owners");
        match store.append(version, latest.as_ref()).await.unwrap() {
            Appended::Done(id) => latest = Some(id),
            Appended::Conflict(id) => panic!("{id:?}"),
        }
    }
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    assert_eq!(history.len(), 2, "{history:?}");
    let oldest = history[1].id.number();
    let version = trusts.tenant_version(&acme(), oldest).await.unwrap().unwrap();
    assert_eq!(version.text, first.text());
}

#[test]
fn tenant_above_its_limit_removes_rules() {
    let rules = (0..502).map(|nth| {
        rule(
            &format!("r{nth}"),
            "acme",
            &format!("subject = \"system:serviceaccount:acme:r{nth}\""),
        )
    });
    let policy = format!("{TRUST}{}", rules.collect::<String>());
    let view = TenantPolicy::of(&policy, &acme()).unwrap();
    let (fewer, _) = view.text().rsplit_once("[[trust.grant]]").unwrap();
    let change = TenantPolicy::change(&policy, &acme(), fewer).unwrap();
    assert!(!change.policy_text().contains("sa:acme:r501"));
}

#[tokio::test]
async fn history_search_leaves_time_to_others() {
    let (trusts, _) = stored(POLICY).await;
    for nth in 0..20 {
        save_as_owner(&trusts, "owners", |text| format!("{text}# {nth}\n")).await;
    }
    let (is_done, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let other = tokio::spawn({
        let (is_done, turns) = (is_done.clone(), turns.clone());
        async move {
            while !is_done.load(Ordering::SeqCst) {
                turns.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    let turns = turns.load(Ordering::SeqCst);
    is_done.store(true, Ordering::SeqCst);
    other.await.unwrap();
    assert_eq!(history.len(), 1);
    assert!(turns >= 10, "another task had {turns} turns while 21 versions were read");
}

/// A store in memory that cannot read the text of its second version.
#[derive(Debug)]
struct Damaged(MemoryPolicies);

#[async_trait]
impl PolicyStore for Damaged {
    async fn latest(&self) -> Result<Option<PolicyVersionId>, BoxError> {
        self.0.latest().await
    }

    async fn read(&self, number: u64) -> Result<Option<PolicyVersion>, BoxError> {
        match number {
            2 => Err("version 2 is damaged".into()),
            number => self.0.read(number).await,
        }
    }

    async fn append(
        &self,
        version: NewPolicyVersion,
        expected: Option<&PolicyVersionId>,
    ) -> Result<Appended, BoxError> {
        self.0.append(version, expected).await
    }

    async fn history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PolicyChange>, BoxError> {
        self.0.history(before, limit).await
    }
}

#[tokio::test]
async fn damaged_version_hides_no_other() {
    let (trusts, store) = stored(POLICY).await;
    for name in ["one", "two", "three"] {
        let text = with_rule(&own(&trusts), name);
        save(&trusts, text, own(&trusts).id()).await.unwrap();
    }
    let trusts = TrustEvaluator::builder().store(Damaged(store)).build().unwrap();
    trusts.sync().await.unwrap();
    let history = trusts.tenant_history(&acme(), None, 100).await.unwrap();
    let notes: Vec<_> = history.iter().map(|change| change.note.as_deref()).collect();
    // The author of the change after the damaged one may not be that of the whole difference.
    assert_eq!(notes, [Some("note of ann"), None, None]);
    for change in &history {
        assert!(trusts.tenant_version(&acme(), change.id.number()).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn hidden_trust_is_as_unknown() {
    let clock = ManualClock::new();
    let (cluster, secret) = (platform(&clock).await, platform(&clock).await);
    let parts = [
        trust("k8s", &cluster, ""),
        reporter(),
        grant("mine", "subject = \"system:serviceaccount:mine:x\"").replace("tnt_acme", "acme"),
        trust("secret", &secret, ""),
        reporter(),
    ];
    let trusts = TrustEvaluator::builder()
        .policy(super::fixture::policy(&parts))
        .clock(clock.clone())
        .build()
        .unwrap();
    let explain = async |token: &str, id| trusts.explain_for_tenant(&acme(), token, id).await;
    let of_secret = pod(&secret).sign();
    let unknown = pod(&secret).issuer("https://unknown.example").sign();
    let reason = |it: &scaikey_auth::trust::Explanation| it.denial().map(|reason| reason.as_str());
    let [hidden, other] = [explain(&of_secret, None).await, explain(&unknown, None).await];
    assert_eq!((reason(&hidden), hidden.trust()), (Some("trust_none"), None));
    assert_eq!(reason(&hidden), reason(&other));
    let text = |it: &scaikey_auth::trust::Explanation| {
        it.to_string().lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(text(&hidden), text(&other));
    let [hidden, other] =
        [explain(&of_secret, Some("secret")).await, explain(&of_secret, Some("unknown")).await];
    assert_eq!((hidden.to_string(), reason(&hidden)), (other.to_string(), Some("trust_unknown")));
    assert_eq!(secret.jwks_requests(), 0);
    // In a visible trust, rules of others do not count.
    let of_reporter = explain(&pod(&cluster).sign(), None).await;
    assert_eq!((reason(&of_reporter), of_reporter.trust()), (Some("grant_none"), Some("k8s")));
    assert!(!of_reporter.to_string().contains("reporting"), "{of_reporter}");
    let own = explain(&pod(&cluster).subject("system:serviceaccount:mine:x").sign(), None).await;
    assert_eq!((reason(&own), own.rule()), (None, Some("mine")));
}
