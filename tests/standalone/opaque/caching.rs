//! The cache of answers, and one question for all who present a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Form;
use axum::Router;
use axum::routing::post;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use scaikey_auth::testing::Fault;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{Introspection, change, outcome, server};
use crate::support::{Server, until};

#[tokio::test]
async fn many_callers_share_one_question() {
    let it = Introspection::new().await;
    let auth = it.auth();
    it.fail(Fault::Hang);
    let token = it.good();
    let calls: Vec<_> = (0..1000)
        .map(|_| {
            let (auth, token) = (auth.clone(), token.clone());
            tokio::spawn(async move { outcome(&auth, &token).await })
        })
        .collect();
    until(|| it.questions() == 1).await;
    it.heal();
    for call in join_all(calls).await {
        assert_eq!(call.unwrap(), "active");
    }
    assert_eq!((it.questions(), auth.introspected_tokens().stats().questions), (1, 1));
}

#[tokio::test]
async fn question_survives_its_first_caller() {
    let it = Introspection::new().await;
    let auth = it.auth();
    it.fail(Fault::Hang);
    let token = it.good();
    let call = {
        let (auth, token) = (auth.clone(), token.clone());
        tokio::spawn(async move { auth.authenticate(&token).await.map(drop) })
    };
    until(|| it.questions() == 1).await;
    call.abort();
    call.await.unwrap_err();
    it.heal();
    assert_eq!(outcome(&auth, &token).await, "active");
    assert_eq!(it.questions(), 1);
}

#[tokio::test]
async fn answer_is_reused_for_thirty_seconds() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let token = it.good();
    assert_eq!(outcome(&auth, &token).await, "active");
    it.world.provider.revoke_token(&token);
    it.advance(29);
    // Without waiting, so that the layer answers synchronously.
    assert!(auth.authenticate(&token).now_or_never().unwrap().is_ok());
    assert_eq!(it.questions(), 1);
    it.advance(1);
    assert!(auth.authenticate(&token).now_or_never().is_none());
    assert_eq!(outcome(&auth, &token).await, "token_inactive");
    let stats = auth.introspected_tokens().stats();
    assert_eq!((stats.questions, stats.hits, stats.active, stats.refused), (2, 1, 0, 1));
    assert!(stats.bytes < stats.max_bytes);
}

#[tokio::test]
async fn answer_is_not_reused_after_expiry() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().cache_for(Duration::from_secs(300)));
    let token = it.token().expires_in(Duration::from_secs(40)).opaque("skt_");
    assert_eq!(outcome(&auth, &token).await, "active");
    it.advance(39);
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 1));
    it.advance(1);
    // Its issuer is asked, although the leeway would accept the token for another minute.
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("token_inactive", 2));
}

#[tokio::test]
async fn answer_without_expiry_is_reused_briefly() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().cache_for(Duration::from_secs(300)));
    it.fail(change("exp", &Value::Null));
    let token = it.good();
    let caller = auth.authenticate(&token).await.unwrap();
    let lifetime = caller
        .identity()
        .expires_at()
        .duration_since(scaikey_auth::clock::Clock::now(&it.world.clock));
    assert_eq!(lifetime.unwrap(), Duration::from_secs(3600));
    it.advance(29);
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 1));
    it.advance(1);
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 2));
}

#[tokio::test]
async fn inactive_token_is_refused_for_ten_seconds() {
    let it = Introspection::new().await;
    let auth = it.auth();
    for _ in 0..3 {
        assert_eq!(outcome(&auth, "skt_unknown").await, "token_inactive");
    }
    assert_eq!(it.questions(), 1);
    it.advance(10);
    assert_eq!((outcome(&auth, "skt_unknown").await, it.questions()), ("token_inactive", 2));
    // The refusal of an active token is remembered, too.
    let foreign = it.token().audience("another-service").opaque("skt_");
    for _ in 0..3 {
        assert_eq!(outcome(&auth, &foreign).await, "token_audience");
    }
    assert_eq!(it.questions(), 3);
}

#[tokio::test]
async fn zero_asks_for_each_request() {
    let it = Introspection::new().await;
    let auth = it.auth_with(it.settings().cache_for(Duration::ZERO));
    let token = it.good();
    for n in 1..=5 {
        assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", n));
    }
    it.world.provider.revoke_token(&token);
    // A refused token is refused for 10 s, so that it cannot cause a question per request.
    for _ in 0..5 {
        assert_eq!((outcome(&auth, &token).await, it.questions()), ("token_inactive", 6));
    }
}

#[tokio::test]
async fn flush_and_removed_issuer_end_reuse() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let token = it.good();
    assert_eq!(outcome(&auth, &token).await, "active");
    auth.introspected_tokens().flush();
    assert_eq!(auth.introspected_tokens().stats().active, 0);
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 2));
    auth.issuers().purge(&it.world.provider.issuer());
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 3));
    auth.issuers().remove(&it.world.provider.issuer());
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("token_issuer", 3));
    auth.issuers().add(it.world.issuer()).unwrap();
    assert_eq!((outcome(&auth, &token).await, it.questions()), ("active", 4));
}

/// A request after a flush must not get the answer to an earlier question.
#[tokio::test]
async fn flush_concerns_questions_in_progress() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let token = it.good();
    it.fail(Fault::Hang);
    let ask = || {
        let (auth, token) = (auth.clone(), token.clone());
        tokio::spawn(async move { outcome(&auth, &token).await })
    };
    let before = ask();
    until(|| it.questions() == 1).await;
    auth.introspected_tokens().flush();
    let after = ask();
    until(|| it.questions() == 2).await;
    it.heal();
    assert_eq!((before.await.unwrap(), after.await.unwrap()), ("active", "active"));
}

#[tokio::test]
async fn last_byte_makes_another_token() {
    let it = Introspection::new().await;
    let auth = it.auth();
    let token = it.good();
    assert_eq!(outcome(&auth, &token).await, "active");
    let (rest, last) = token.split_at(token.len() - 1);
    let other = format!("{rest}{}", if last == "A" { "B" } else { "A" });
    for variant in [other, rest.to_owned(), format!("{token}A"), format!("{token}=")] {
        assert_eq!(outcome(&auth, &variant).await, "token_inactive", "{variant}");
    }
    assert_eq!(outcome(&auth, &token).await, "active");
    assert_eq!(it.questions(), 5);
}

/// An introspection endpoint that answers in an order that the test chooses.
#[derive(Default)]
struct Questions {
    asked: Mutex<Vec<String>>,
    may_answer: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Questions {
    fn gate(&self, token: &str) -> Arc<Notify> {
        self.may_answer.lock().unwrap().entry(token.to_owned()).or_default().clone()
    }

    async fn answer(self: Arc<Self>, form: HashMap<String, String>) -> axum::Json<Value> {
        let token = form["token"].clone();
        let gate = self.gate(&token);
        self.asked.lock().unwrap().push(token.clone());
        gate.notified().await;
        axum::Json(json!({ "active": true, "sub": token, "aud": "scaiwave", "tenant_id": "acme" }))
    }
}

#[tokio::test]
async fn answers_belong_to_their_questions() {
    let it = Introspection::new().await;
    let questions = Arc::new(Questions::default());
    let handler = {
        let questions = questions.clone();
        move |Form(form): Form<HashMap<String, String>>| questions.clone().answer(form)
    };
    let endpoint = Server::axum(Router::new().route("/introspect", post(handler))).await;
    let settings = it.settings().introspection_url(format!("{}/introspect", endpoint.url()));
    let server = Arc::new(server(&it.auth_with(settings)).await);
    let ask = |token: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { server.get_as("/", token).await.json()["sub"].clone() })
    };
    let (one, two) = (ask("skt_1"), ask("skt_2"));
    until(|| questions.asked.lock().unwrap().len() == 2).await;
    questions.gate("skt_2").notify_one();
    assert_eq!(two.await.unwrap(), "skt_2");
    questions.gate("skt_1").notify_one();
    assert_eq!(one.await.unwrap(), "skt_1");
}
