//! Prefixes, wrapped answers, sessions and other origins.

use std::collections::BTreeMap;

use axum::Router;
use scaikey_auth::endpoints::{SignIn, TrustAdmin};
use scaikey_auth::exchange::SealingKeys;
use scaikey_auth::issuer::ClientAuth;
use scaikey_auth::session::Sessions;
use scaikey_auth::testing::{Client, User};
use scaikey_auth::{TokenExchangeClient, scope};
use serde_json::json;

use super::fixture::{Store, World, assert_problem, members};
use crate::fixture::{grant, trust};
use crate::support::{Answer, Server, request};

#[tokio::test]
async fn successes_are_wrapped_in_data() {
    let world = World::new().await;
    let evaluator = world.evaluator().store(Store::default());
    let service = world.start(evaluator, |endpoints| endpoints.wrap_in_data()).await;
    let owner = world.owner();
    let put = service.put(&owner, &[("if-none-match", "*")], &world.text()).await;
    let answers = [
        put,
        service.get("", &owner).await,
        service.get("/history", &owner).await,
        service.get("/history/1", &owner).await,
        service.get("/decisions", &owner).await,
        service.get("/presets", &owner).await,
        service.post_toml("/lint", &owner, "[[trust]]").await,
        service.post_toml("/dry_run", &owner, "").await,
        service.post_json("/explain", &owner, &json!({ "token": "x" })).await,
    ];
    for answer in answers {
        assert_eq!((answer.status, members(&answer.json())), (200, vec!["data"]), "{answer:?}");
    }
    let refused = service.put(&owner, &[], "").await;
    assert_problem(&refused, 428, "precondition_required");
    let toml = [("accept", "application/toml")];
    assert_eq!(service.send("GET", "", &owner, &toml, "").await.body, world.text());
}

#[tokio::test]
async fn administration_works_below_any_prefix() {
    let world = World::new().await;
    let evaluator = world.evaluator().store(Store::default());
    let service = world.start(evaluator, |endpoints| endpoints.prefix("/app/auth")).await;
    let owner = world.owner();
    let get = async |path: &str| service.server.get_as(path, &owner).await.status;
    assert_eq!(get("/app/auth/trusts").await, 200);
    assert_eq!(get("/app/auth/trusts/ui/app.js").await, 200);
    assert_eq!(get("/v1/auth/trusts").await, 404);
    // A router that removes the whole prefix.
    let evaluator = world.evaluator().store(Store::default()).build().unwrap();
    let admin = TrustAdmin::new(scope("trust:admin"));
    let endpoints = world.auth().endpoints().workloads(world.workloads(&evaluator)).prefix("");
    let endpoints = endpoints.trust_admin(admin).build().unwrap();
    let app = Router::new().nest_service("/v1/auth", endpoints.service());
    let server = Server::axum(app).await;
    assert_eq!(server.get_as("/v1/auth/trusts", &owner).await.status, 200);
    assert_eq!(server.get_as("/v1/auth/trusts/presets", &owner).await.status, 200);
    assert_eq!(server.get("/v1/auth/trusts/ui", &[]).await.status, 200);
}

/// A browser with a session.
struct Browser {
    server: Server,
    cookies: String,
}

impl Browser {
    /// Signs bob of `tnt_acme` in. The provider gives him this scope.
    async fn signed_in(world: &World, admin_scope: &str) -> Self {
        let redirect = "https://wave.example/v1/auth/login";
        let scopes = format!("openid {admin_scope}");
        let wave = Client::new("wave", "secret").scopes(&scopes);
        world.scaikey.register_client(wave.redirect_uri(redirect));
        world.scaikey.register_user(User::new("bob", "hunter2").claim("tenant_id", "tnt_acme"));
        let client = TokenExchangeClient::builder(world.scaikey.issuer())
            .allow_loopback_http(true)
            .client_auth(ClientAuth::basic("wave", "secret"))
            .clock(world.clock.clone());
        let (auth, client) = (world.auth(), client.build().unwrap());
        let keys = SealingKeys::random().unwrap();
        let sessions = Sessions::builder(&auth, client.clone(), keys);
        let sessions = sessions.trusted_origin("https://spa.example").build().unwrap();
        let evaluator = world.evaluator().store(Store::default()).build().unwrap();
        let endpoints = auth.endpoints().client(client).sessions(sessions.clone());
        let endpoints = endpoints.sign_in(SignIn::new(redirect).scopes(scopes.as_str()));
        let endpoints = endpoints.workloads(world.workloads(&evaluator));
        let admin = TrustAdmin::new(scope("trust:admin")).tenant_guard(scope("trust:tenant"));
        let endpoints = endpoints.trust_admin(admin);
        let app = Router::new().layer(endpoints.build().unwrap()).layer(sessions.layer());
        let mut browser = Self { server: Server::axum(app).await, cookies: String::new() };
        browser.sign_in(world, redirect, &scopes).await;
        browser
    }

    async fn sign_in(&mut self, world: &World, redirect: &str, scopes: &str) {
        let answer = self.server.get("/v1/auth/login?return_to=/v1/auth/trusts/ui", &[]).await;
        self.store_cookies(&answer);
        let location = url::Url::parse(answer.header("location")).unwrap();
        let query: BTreeMap<_, _> = location.query_pairs().into_owned().collect();
        let code = world.scaikey.authorize_with(
            "bob",
            "wave",
            redirect,
            &query["code_challenge"],
            scopes,
            query.get("nonce").map(String::as_str),
        );
        let issuer: String =
            url::form_urlencoded::byte_serialize(world.scaikey.issuer().as_bytes()).collect();
        let callback = format!("/v1/auth/login?code={code}&state={}&iss={issuer}", query["state"]);
        let answer = self.server.get(&callback, &[("cookie", &self.cookies)]).await;
        assert_eq!(answer.header("location"), "/v1/auth/trusts/ui", "{answer:?}");
        self.store_cookies(&answer);
    }

    fn store_cookies(&mut self, answer: &Answer) {
        let cookies = answer.header_lines("set-cookie").into_iter();
        let set = cookies.filter(|line| !line.contains("Max-Age=0"));
        let pairs: Vec<_> = set.filter_map(|line| line.split(';').next()).collect();
        self.cookies = pairs.join("; ");
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("cookie", &*self.cookies), ("content-type", "application/toml")];
        all.extend(headers);
        let request = request(method, &format!("/v1/auth/trusts{path}"), &all);
        self.server.send(request.map(|_| body.to_owned())).await
    }
}

#[tokio::test]
async fn sessions_administer_from_own_pages_only() {
    let world = World::new().await;
    let browser = Browser::signed_in(&world, "trust:admin").await;
    assert_eq!(browser.send("GET", "", &[], "").await.status, 200);
    let first = ("if-none-match", "*");
    let foreign: &[&[(&str, &str)]] = &[
        &[first],
        &[first, ("sec-fetch-site", "cross-site")],
        &[first, ("sec-fetch-site", "same-site")],
        &[first, ("origin", "https://evil.example")],
        &[first, ("origin", "null")],
    ];
    for headers in foreign {
        for (method, path) in [("PUT", ""), ("POST", "/rollback"), ("POST", "/explain")] {
            let answer = browser.send(method, path, headers, &world.text()).await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
            assert!(answer.body.contains("foreign_origin"), "{answer:?}");
        }
    }
    assert_eq!(browser.send("GET", "", &[], "").await.json()["version"], json!(null));
    let own = [first, ("sec-fetch-site", "same-origin")];
    let answer = browser.send("PUT", "", &own, &world.text()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["version"]["author"]["subject"], "bob-id");
    // Without the cookies there is no session.
    assert_eq!(browser.server.get("/v1/auth/trusts", &[]).await.status, 401);
}

#[tokio::test]
async fn sessions_administer_their_tenant() {
    let world = World::new().await;
    let browser = Browser::signed_in(&world, "trust:tenant").await;
    let rule = grant("own", "subject = \"system:serviceaccount:reports:reporter\"")
        .replace("sa:{trust}", "sa:tnt_acme");
    let delegation = "[[trust.delegation]]\ntenant = \"tnt_acme\"\nsubject = \"system:serviceaccount:reports:*\"\nscopes = [\"secrets:read\", \"secrets:list\"]\n";
    let text = format!("{}{delegation}", trust("k8s", &world.cluster, ""));
    let put = request(
        "PUT",
        "/v1/auth/trusts",
        &[
            ("authorization", &format!("Bearer {}", world.owner())),
            ("content-type", "application/toml"),
            ("if-none-match", "*"),
        ],
    );
    let answer = browser.server.send(put.map(|_| text)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = browser.send("GET", "", &[], "").await;
    let body = seen.json();
    assert_eq!((&body["access"], &body["tenant"]), (&json!("tenant"), &json!("tnt_acme")));
    let own = format!("[[trust]]\nid = \"k8s\"\n{rule}");
    let condition = ("if-match", seen.header("etag"));
    for headers in [&[condition][..], &[condition, ("sec-fetch-site", "cross-site")]] {
        let answer = browser.send("PUT", "", headers, &own).await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("foreign_origin"), "{answer:?}");
    }
    let from_page = [condition, ("sec-fetch-site", "same-origin")];
    let answer = browser.send("PUT", "", &from_page, &own).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let author = answer.json()["version"]["author"].clone();
    assert_eq!((&author["subject"], &author["tenant"]), (&json!("bob-id"), &json!("tnt_acme")));
}

#[tokio::test]
async fn mock_callers_are_marked() {
    let auth = crate::support::mock();
    let evaluator = scaikey_auth::trust::TrustEvaluator::builder().build().unwrap();
    let world = World::new().await;
    let admin = TrustAdmin::new(scaikey_auth::guard::authenticated());
    let endpoints = auth.endpoints().workloads(world.workloads(&evaluator)).trust_admin(admin);
    let server = Server::hyper(endpoints.build().unwrap().service()).await;
    let answer = server.get_as("/v1/auth/trusts", "mock").await;
    assert_eq!((answer.status, answer.header_opt("x-auth-provenance")), (200, Some("mock")));
}
