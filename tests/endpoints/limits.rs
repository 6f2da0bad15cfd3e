//! How often endpoints may be tried.

use std::time::Duration;

use axum::http::Method;
use scaikey_auth::{TokenBuckets, TrustedProxies};
use serde_json::json;

use super::house::{Plan, Visitor};

const WRONG: &str = "grant_type=password&username=bob&password=wrong";

async fn guess(visitor: &Visitor, forwarded: &str) -> u16 {
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-forwarded-for", forwarded)];
    visitor.send(Method::POST, "/v1/auth/token", &headers, WRONG).await.status
}

fn slowly() -> TokenBuckets {
    let hour = Duration::from_secs(3600);
    TokenBuckets::new().per_address(3, hour).per_account(5, hour).introspections(2, hour)
}

#[tokio::test]
async fn passwords_cannot_be_guessed_for_long() {
    let plan = Plan::default().endpoints(|endpoints| endpoints.throttle(slowly()));
    let house = plan.build().await;
    let visitor = house.visitor();
    // A header that anybody can write does not make somebody else of them.
    for (nth, expected) in [400, 400, 400, 429, 429].into_iter().enumerate() {
        assert_eq!(guess(&visitor, &format!("192.0.2.{nth}")).await, expected, "{nth}");
    }
    let answer = visitor.post_form("/v1/auth/token", WRONG).await;
    answer.refused(429, "temporarily_unavailable");
    assert_eq!(answer.header("retry-after"), "3600");
    assert_eq!(house.provider.requests(scaikey_auth::testing::Endpoint::Token), 3);
    // Other endpoints are counted by themselves, and time heals.
    assert_eq!(visitor.post_form("/v1/auth/refresh", "refresh_token=x").await.status, 400);
    house.clock.advance(Duration::from_secs(3600));
    assert_eq!(guess(&visitor, "192.0.2.1").await, 400);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_counts_and_each_account() {
    let plan = Plan::default().endpoints(|endpoints| {
        let proxies = TrustedProxies::new(["127.0.0.0/8"]).unwrap();
        endpoints.throttle(slowly()).trusted_proxies(proxies)
    });
    let house = plan.build().await;
    let visitor = house.visitor();
    for nth in 0..5 {
        assert_eq!(guess(&visitor, &format!("6.6.6.6, 192.0.2.{nth}")).await, 400);
    }
    // From wherever they come: this account was tried often enough.
    assert_eq!(guess(&visitor, "192.0.2.77").await, 429);
    let other = WRONG.replace("bob", "carol");
    let headers =
        [("content-type", "application/x-www-form-urlencoded"), ("x-forwarded-for", "192.0.2.99")];
    let answer = visitor.send(Method::POST, "/v1/auth/token", &headers, &other).await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn introspection_is_throttled_in_the_words_of_the_layer() {
    let plan = Plan::default().endpoints(|endpoints| endpoints.throttle(slowly()));
    let house = plan.build().await;
    let visitor = house.visitor();
    let bearer = format!("Bearer {}", house.provider.token().scope("admin").sign());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let question = json!({ "token": "x" }).to_string();
    for expected in [200, 200, 429] {
        let answer = visitor.send(Method::POST, "/v1/auth/introspect", &headers, &question).await;
        assert_eq!(answer.status, expected);
        if expected == 429 {
            assert_eq!(answer.json()["type"], "urn:scaikey-auth:too_many_requests");
            assert_eq!(answer.header("retry-after"), "3600");
        }
    }
}
