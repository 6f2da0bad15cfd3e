//! Administrators of one tenant: what they see and change, and what they must not learn.

use std::time::Duration;

use scaikey_auth::endpoints::{EndpointsBuilder, TokenBuckets, TrustAdmin};
use scaikey_auth::scope;
use serde_json::{Value, json};

use super::fixture::{Service, Store, World, assert_problem};
use crate::fixture::{pod, trust};
use crate::support::Server;

/// A policy with a rule of the owner for `tnt_other`, and a delegation to `tnt_acme`.
fn text(world: &World) -> String {
    let hidden = trust("hidden", &world.scaikey, "")
        .replace(&world.scaikey.issuer(), "https://hidden-issuer.example");
    format!(
        r#"# Owner's secret comment.
{k8s}
[[trust.delegation]]
tenant = "tnt_acme"
subject = "system:serviceaccount:reports:*"
scopes = ["secrets:read"]

[[trust.grant]]
name = "other-rule"
subject = "system:serviceaccount:billing:biller"
map = {{ identity = "sa:other-identity", tenant = "tnt_other", scopes = ["secrets:write"] }}

{hidden}
[[trust.grant]]
name = "hidden-rule"
subject = "hidden-subject"
map = {{ identity = "sa:hidden-identity", tenant = "tnt_other", scopes = ["secrets:write"] }}
"#,
        k8s = trust("k8s", &world.cluster, ""),
    )
}

/// The text of `tnt_acme` with a rule.
fn own_rule(name: &str) -> String {
    format!(
        "[[trust]]\nid = \"k8s\"\n[[trust.grant]]\nname = \"{name}\"\n\
         subject = \"system:serviceaccount:reports:reporter\"\n\
         map = {{ identity = \"sa:tnt_acme:{{trust}}:{name}\", tenant = \"tnt_acme\", scopes = [\"secrets:read\"] }}\n"
    )
}

/// Texts of the owner's policy that a tenant must never see.
const HIDDEN: [&str; 8] = [
    "other-rule",
    "other-identity",
    "hidden-rule",
    "hidden-subject",
    "hidden-issuer",
    "tnt_other",
    "secret comment",
    "secrets:write",
];

#[track_caller]
fn assert_hides(body: &str) {
    for hidden in HIDDEN {
        assert!(!body.contains(hidden), "{hidden}: {body}");
    }
}

async fn start(world: &World) -> (Service, Store) {
    start_with(world, |endpoints| endpoints).await
}

async fn start_with(
    world: &World,
    more: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder,
) -> (Service, Store) {
    let store = Store::default();
    let service = process(world, &store, more).await;
    let answer = service.put(&world.owner(), &[("if-none-match", "*")], &text(world)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    (service, store)
}

/// Starts a process whose policy is in the store.
async fn process(
    world: &World,
    store: &Store,
    more: impl FnOnce(EndpointsBuilder) -> EndpointsBuilder,
) -> Service {
    let evaluator = world.evaluator().store(store.clone()).build().unwrap();
    let admin = TrustAdmin::new(scope("trust:admin")).tenant_guard(scope("trust:tenant"));
    let endpoints = world.auth().endpoints().workloads(world.workloads(&evaluator));
    let endpoints = more(endpoints.trust_admin(admin)).build().unwrap();
    Service { server: Server::hyper(endpoints.service()).await, evaluator }
}

fn admin_of(world: &World, tenant: &str) -> String {
    world.scaikey.token().scope("trust:tenant").tenant(tenant).subject("tina").sign()
}

#[tokio::test]
async fn tenant_sees_its_part_only() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let tina = admin_of(&world, "tnt_acme");
    let answer = service.get("", &tina).await;
    let body = answer.json();
    assert_eq!((&body["access"], &body["tenant"]), (&json!("tenant"), &json!("tnt_acme")));
    assert_eq!(body["writable"], true);
    assert_eq!(body["policy"], json!({ "trust": [{ "id": "k8s" }] }));
    let ids: Vec<_> = body["trusts"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["k8s"]);
    assert_eq!(body["trusts"][0]["rules"], 0);
    assert_eq!(body["store"]["kind"], Value::Null);
    let number = body["version"]["number"].as_u64().unwrap();
    let paths = [
        String::new(),
        "/history".to_owned(),
        format!("/history/{number}"),
        "/decisions".to_owned(),
    ];
    service
        .exchange(&pod(&world.cluster).subject("system:serviceaccount:billing:biller").sign())
        .await;
    for path in paths {
        let answer = service.get(&path, &tina).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        assert_hides(&answer.body);
        assert!(!answer.body.contains("alice"), "the owner wrote it: {answer:?}");
    }
    assert_eq!(service.get("/decisions", &tina).await.json()["decisions"], json!([]));
    assert_problem(&service.get("/history/1", &tina).await, 404, "not_found");
    let toml = service.send("GET", "", &tina, &[("accept", "application/toml")], "").await;
    assert_eq!(toml.body, body["text"].as_str().unwrap());
    // A tenant without rules and delegations sees nothing.
    let nobody = service.get("", &admin_of(&world, "tnt_none")).await;
    assert_eq!((nobody.status, &nobody.json()["trusts"]), (200, &json!([])), "{nobody:?}");
    assert_eq!(nobody.json()["writable"], false);
}

#[tokio::test]
async fn unchanged_tenant_text_is_304() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let tina = admin_of(&world, "tnt_acme");
    let toml = ("accept", "application/toml");
    let answer = service.send("GET", "", &tina, &[toml], "").await;
    let tag = answer.header("etag").to_owned();
    assert_eq!((answer.status, answer.header("vary")), (200, "accept"));
    let known = service.send("GET", "", &tina, &[toml, ("if-none-match", &tag)], "").await;
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", &*tag));
    assert_eq!((known.header_opt("content-type"), known.header("vary")), (None, "accept"));
    // The JSON has more than the rules, so it is always sent.
    let json = service.send("GET", "", &tina, &[("if-none-match", &tag)], "").await;
    assert_eq!((json.status, json.header("vary")), (200, "accept"));
    let put = service.put(&tina, &[("if-match", &tag)], &own_rule("r")).await;
    assert_eq!(put.status, 200, "{put:?}");
    let changed = service.send("GET", "", &tina, &[toml, ("if-none-match", &tag)], "").await;
    assert_eq!((changed.status, changed.header("etag")), (200, put.header("etag")));
}

#[tokio::test]
async fn reads_of_tenants_are_throttled() {
    let world = World::new().await;
    let buckets = TokenBuckets::new().administration(2, Duration::from_secs(60));
    let (service, _) = start_with(&world, |endpoints| endpoints.throttle(buckets)).await;
    for (tenant, path) in [("tnt_acme", ""), ("tnt_other", "/history"), ("tnt_none", "/history/7")]
    {
        let admin = admin_of(&world, tenant);
        for _ in 0..2 {
            let status = service.get(path, &admin).await.status;
            assert!([200, 404].contains(&status), "{path}: {status}");
        }
        let answer = service.get(path, &admin).await;
        assert_problem(&answer, 429, "too_many_requests");
        assert_eq!(answer.header("retry-after"), "60");
        // The page repeats this request, which costs little.
        assert_eq!(service.get("/decisions", &admin).await.status, 200);
    }
}

#[tokio::test]
async fn tenant_guard_needs_tenant() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let table = [
        (world.scaikey.token().scope("trust:tenant").without("tenant_id").sign(), 403),
        (world.scaikey.token().scope("other").tenant("tnt_acme").sign(), 403),
        (admin_of(&world, "tnt_acme"), 200),
    ];
    for (token, status) in table {
        let answer = service.get("", &token).await;
        assert_eq!(answer.status, status, "{answer:?}");
        // A token without a tenant is refused before any guard.
        if status == 403 && !answer.body.contains("tenant_missing") {
            assert_eq!(answer.error().as_deref(), Some("insufficient_scope"));
            assert!(answer.header("www-authenticate").contains("trust:admin"), "{answer:?}");
        }
    }
    // Who has both is the owner.
    let both = world.scaikey.token().scope("trust:tenant trust:admin").tenant("tnt_acme").sign();
    assert_eq!(service.get("", &both).await.json()["access"], "owner");
}

#[tokio::test]
async fn tenant_changes_delegated_rules() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let (tina, owner) = (admin_of(&world, "tnt_acme"), world.owner());
    let token = pod(&world.cluster).sign();
    assert_eq!(service.exchange(&token).await.status, 400);
    let before = service.get("", &tina).await;
    let tag = before.header("etag").to_owned();
    let lint = service.post_toml("/lint", &tina, &own_rule("r")).await;
    assert_eq!(lint.json()["faults"], json!([]), "{lint:?}");
    let put = service.put_at("?note=mine", &tina, &[("if-match", &tag)], &own_rule("r")).await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_hides(&put.body);
    assert_eq!(service.exchange(&token).await.status, 200);
    // A workload of another tenant uses the same trust.
    let biller = pod(&world.cluster).subject("system:serviceaccount:billing:biller").sign();
    assert_eq!(service.exchange(&biller).await.status, 200);
    // The rest of the policy is as it was.
    let whole = service.get("", &owner).await.json()["text"].as_str().unwrap().to_owned();
    assert!(HIDDEN.iter().all(|hidden| whole.contains(hidden)), "{whole}");
    // The answer names the tenant's version, which GET returns, too.
    let seen = service.get("", &tina).await;
    assert_eq!(put.header("etag"), seen.header("etag"));
    assert_eq!(seen.json()["version"], put.json()["version"]);
    assert_ne!(seen.json()["version"], before.json()["version"]);
    // That of another tenant is another one.
    let other = service.get("", &admin_of(&world, "tnt_other")).await.json()["version"].clone();
    assert_ne!(seen.json()["version"]["number"], other["number"], "{other}");
    let history = service.get("/history", &tina).await.json()["versions"].clone();
    assert_eq!(history.as_array().unwrap().len(), 2, "{history}");
    assert_eq!(
        (&history[0]["note"], &history[0]["author"]["subject"]),
        (&json!("mine"), &json!("tina"))
    );
    assert_eq!(history[0]["in_force"], true);
    // A version has one id, and it is the tag.
    let version = format!("/history/{}", history[0]["number"]);
    let version = service.get(&version, &tina).await.json()["version"].clone();
    for body in [&seen.json()["version"], &put.json()["version"], &history[0], &version] {
        let id = body["version"].as_str().unwrap();
        assert_eq!(seen.header("etag"), format!("\"{id}\""), "{body}");
    }
    assert_eq!((&history[1]["note"], &history[1]["author"]), (&Value::Null, &Value::Null));
    let decisions = service.get("/decisions", &tina).await.json()["decisions"].clone();
    assert_eq!(decisions[0]["rule"], "r", "{decisions}");
    let trusts = seen.json()["trusts"].clone();
    assert_eq!((&trusts[0]["granted"], &trusts[0]["rules"]), (&json!(1), &json!(1)), "{trusts}");
    // What others use and change shows in no number.
    let dry_run = service.post_toml("/dry_run", &tina, "[[trust]]\nid = \"k8s\"\n").await.json();
    assert_eq!(dry_run["considered"], 1, "{dry_run}");
    assert_eq!(dry_run["changes"].as_array().unwrap().len(), 1, "{dry_run}");
    // They roll back by their own numbers.
    let number = history[1]["number"].clone();
    let body = json!({ "number": number });
    let answer = service.roll_back(&tina, seen.header("etag"), &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(service.exchange(&token).await.status, 400);
}

#[tokio::test]
async fn tenant_writes_nothing_else() {
    let world = World::new().await;
    let (service, store) = start(&world).await;
    let tina = admin_of(&world, "tnt_acme");
    let tag = service.get("", &tina).await.header("etag").to_owned();
    let good = own_rule("r");
    let attacks = [
        good.replace("tnt_acme\", scopes", "tnt_other\", scopes"),
        good.replace("secrets:read", "secrets:write"),
        good.replace("reports:reporter", "billing:biller"),
        good.replace("id = \"k8s\"", "id = \"k8s\"\nissuer = \"https://evil.example\""),
        good.replace("id = \"k8s\"", "id = \"k8s\"\njwks = { file = \"/etc/passwd\" }"),
        good.replace("id = \"k8s\"", "id = \"hidden\""),
        good.replace("id = \"k8s\"", "id = \"unknown\""),
        format!(
            "{good}[[trust.delegation]]\ntenant = \"tnt_acme\"\nsubject = \"*\"\nscopes = [\"x\"]\n"
        ),
        format!("{good}{good}"),
        text(&world),
        "[[trust]".to_owned(),
    ];
    for attack in &attacks {
        let lint = service.post_toml("/lint", &tina, attack).await;
        assert!(!lint.json()["faults"].as_array().unwrap().is_empty(), "{attack}");
        let put = service.put(&tina, &[("if-match", &tag)], attack).await;
        assert_problem(&put, 422, "policy_invalid");
        let dry_run = service.post_toml("/dry_run", &tina, attack).await;
        assert_problem(&dry_run, 422, "policy_invalid");
        // Faults quote the attack, but nothing else.
        for answer in [lint, put] {
            for hidden in HIDDEN.iter().filter(|hidden| !attack.contains(**hidden)) {
                assert!(!answer.body.contains(hidden), "{hidden} {answer:?}");
            }
        }
    }
    // An unknown trust and a hidden one are the same.
    let faults = async |text: &str| {
        let answer = service.post_toml("/lint", &tina, text).await.json()["faults"].to_string();
        answer.replace("hidden", "X").replace("unknown", "X")
    };
    assert_eq!(faults(&attacks[5]).await, faults(&attacks[6]).await);
    let json = [("content-type", "application/json"), ("if-match", &*tag)];
    let answer = service.send("PUT", "", &tina, &json, "{}").await;
    assert_problem(&answer, 415, "unsupported_media_type");
    for condition in [("if-none-match", "*"), ("if-match", "\"1-0000000000000000\"")] {
        let answer = service.put(&tina, &[condition], &good).await;
        assert_problem(&answer, 412, "precondition_failed");
        assert_eq!(answer.header("etag"), tag);
    }
    assert_problem(&service.put(&tina, &[], &good).await, 428, "precondition_required");
    use scaikey_auth::trust::PolicyStore as _;
    assert_eq!(store.versions.history(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn explanations_are_no_oracle() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let tina = admin_of(&world, "tnt_acme");
    let biller = pod(&world.cluster).subject("system:serviceaccount:billing:biller").sign();
    let answer = service.post_json("/explain", &tina, &json!({ "token": biller })).await;
    assert_eq!((answer.status, &answer.json()["rule"]), (200, &Value::Null), "{answer:?}");
    assert_hides(&answer.body);
    // A hidden trust is an unknown trust, and its keys are not fetched.
    let claims = |issuer: &str| json!({ "iss": issuer, "aud": "scaivault", "sub": "x" });
    let explain = async |issuer: &str, trust_id: &str| {
        let body = json!({ "claims": claims(issuer), "trust_id": trust_id });
        let answer = service.post_json("/explain", &tina, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.replace(issuer, "ISSUER")
    };
    let hidden = explain("https://hidden-issuer.example", "hidden").await;
    assert_eq!(hidden, explain("https://unknown.example", "unknown").await);
    let fetches = world.cluster.jwks_requests();
    let other = admin_of(&world, "tnt_none");
    let token = pod(&world.cluster).sign();
    let answer = service.post_json("/explain", &other, &json!({ "token": token })).await;
    assert_eq!(answer.json()["outcome"], "trust_none", "{answer:?}");
    assert_eq!(world.cluster.jwks_requests(), fetches);
    // The same with a text that is not saved.
    let body = json!({ "token": token, "text": own_rule("r") });
    let answer = service.post_json("/explain", &tina, &body).await;
    assert_eq!(answer.json()["rule"], "r", "{answer:?}");
}

#[tokio::test]
async fn owner_changes_do_not_disturb_tenants() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let (tina, owner) = (admin_of(&world, "tnt_acme"), world.owner());
    let before = service.get("", &tina).await;
    let text = format!("{}# another comment\n", text(&world));
    assert_eq!(service.change(&owner, &text).await.status, 200);
    // The tenant's version did not change, so it learns nothing, and its tag is still good.
    let after = service.get("", &tina).await;
    assert_eq!(after.header("etag"), before.header("etag"));
    assert_eq!(after.json()["version"], before.json()["version"]);
    let condition = [("if-match", before.header("etag"))];
    assert_eq!(service.put(&tina, &condition, &own_rule("r")).await.status, 200);
    let stale = service.put(&tina, &condition, &own_rule("s")).await;
    assert_problem(&stale, 412, "precondition_failed");
    let text = service.get("", &owner).await.json()["text"].as_str().unwrap().to_owned();
    assert!(text.contains("# another comment") && text.contains("sa:tnt_acme:{trust}:r"), "{text}");
}

/// Two rules for the same workload. Only the first is of `tnt_acme`.
fn rules_of_two(world: &World) -> [String; 2] {
    let rule = |name: &str, tenant: &str, subject: &str| {
        format!(
            "[[trust.grant]]\nname = \"{name}\"\nsubject = \"system:serviceaccount:reports:{subject}\"\n\
             map = {{ identity = \"sa:{name}\", tenant = \"{tenant}\", scopes = [\"secrets:read\"] }}\n"
        )
    };
    let own =
        format!("{}\n{}", trust("k8s", &world.cluster, ""), rule("own", "tnt_acme", "reporter"));
    [own.clone(), format!("{own}{}", rule("hidden-rule", "tnt_other", "*"))]
}

#[tokio::test]
async fn hidden_rule_changes_no_answer() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let (tina, owner) = (admin_of(&world, "tnt_acme"), world.owner());
    let [alone, beside] = rules_of_two(&world);
    let token = pod(&world.cluster).sign();
    assert_eq!(service.change(&owner, &alone).await.status, 200);
    assert_eq!(service.exchange(&token).await.status, 200);
    let claims = json!({ "iss": world.cluster.issuer(), "aud": "scaivault",
        "sub": "system:serviceaccount:reports:reporter" });
    let ask = async || {
        let text = service.get("", &tina).await.json()["text"].as_str().unwrap().to_owned();
        let mut answers = vec![service.post_toml("/dry_run", &tina, &text).await.body];
        for body in [
            json!({ "token": token }),
            json!({ "token": token, "text": text }),
            json!({ "claims": claims }),
            json!({ "claims": claims, "text": text }),
        ] {
            let answer = service.post_json("/explain", &tina, &body).await;
            assert_eq!(answer.json()["rule"], "own", "{answer:?}");
            answers.push(answer.body);
        }
        answers
    };
    let before = ask().await;
    assert_eq!(service.change(&owner, &beside).await.status, 200);
    assert_eq!(service.exchange(&token).await.status, 400, "two rules match");
    assert_eq!(ask().await, before);
}

#[tokio::test]
async fn fresh_process_checks_the_latest_policy() {
    let world = World::new().await;
    let (_, store) = start(&world).await;
    let tina = admin_of(&world, "tnt_acme");
    let token = pod(&world.cluster).sign();
    for path in ["/lint", "/dry_run", "/explain"] {
        // This process has neither decided nor shown anything.
        let fresh = process(&world, &store, |endpoints| endpoints).await;
        let answer = match path {
            "/explain" => {
                let body = json!({ "token": token, "text": own_rule("r") });
                fresh.post_json(path, &tina, &body).await
            }
            _ => fresh.post_toml(path, &tina, &own_rule("r")).await,
        };
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let faults = answer.json()["faults"].clone();
        assert!(faults.is_null() || faults == json!([]), "{path} {faults}");
        // Without a policy it says so, and not that nothing is trusted.
        let fresh = process(&world, &store, |endpoints| endpoints).await;
        store.set_away(true);
        let answer = match path {
            "/explain" => {
                fresh.post_json(path, &tina, &json!({ "token": token })).await.json()["outcome"]
                    .clone()
            }
            _ => fresh.post_toml(path, &tina, &own_rule("r")).await.json()["type"].clone(),
        };
        assert!(answer.as_str().unwrap().ends_with("unavailable"), "{path} {answer}");
        store.set_away(false);
    }
}

#[tokio::test]
async fn tenant_workload_keeps_its_own_rule() {
    let world = World::new().await;
    let (service, _) = start(&world).await;
    let rule = own_rule("terraform").replace("secrets:read", "trust:tenant");
    let delegated = text(&world).replace("[\"secrets:read\"]", "[\"trust:tenant\"]");
    assert_eq!(service.change(&world.owner(), &delegated).await.status, 200);
    let tina = admin_of(&world, "tnt_acme");
    let earlier = service.get("", &tina).await.json()["version"]["number"].clone();
    assert_eq!(service.change(&tina, &rule).await.status, 200);
    let minted = service.exchange(&pod(&world.cluster).sign()).await.json();
    let terraform = minted["access_token"].as_str().unwrap();
    let seen = service.get("", terraform).await;
    assert_eq!(seen.json()["access"], "tenant", "{seen:?}");
    let condition = [("if-match", seen.header("etag"))];
    let without = "[[trust]]\nid = \"k8s\"\n";
    assert_problem(&service.put(terraform, &condition, without).await, 409, "locks_you_out");
    let back = service.roll_back(terraform, condition[0].1, &json!({ "number": earlier })).await;
    assert_problem(&back, 409, "locks_you_out");
    let insists = service.put_at("?accept_lockout=true", terraform, &condition, without).await;
    assert_eq!(insists.status, 200, "{insists:?}");
}
