//! Revoked workload tokens of other platforms are not exchanged.

use axum::Router;
use http::Request;
use scaikey_auth::config::Algorithm;
use scaikey_auth::mint::{LocalMinter, WorkloadExchange};
use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::{Provider, SigningKey};
use scaikey_auth::trust::{TrustEvaluator, TrustPolicy};
use serde_json::json;

use super::Revocable;
use crate::support::{Answer, Server};

const POD: &str = "system:serviceaccount:reports:reporter";

fn workloads(service: &Revocable, cluster: &Provider) -> WorkloadExchange {
    let policy = format!(
        r#"
        [[trust]]
        id = "cluster"
        issuer = "{}"
        allow_loopback_http = true
        audiences = ["scaivault"]
        [[trust.grant]]
        name = "reporting"
        subject = "{POD}"
        map = {{ identity = "sa:{{trust}}:{{sub}}", tenant = "acme", scopes = ["secrets:read"] }}
        "#,
        cluster.issuer(),
    );
    let (clock, key) =
        (service.world.clock.clone(), SigningKey::generate(Algorithm::ES256).private_pem());
    let policy = TrustPolicy::from_toml(&policy).unwrap();
    let trusts = TrustEvaluator::builder().policy(policy).clock(clock.clone()).build().unwrap();
    let minter = LocalMinter::new("https://vault.example", Algorithm::ES256, key, "m-1").unwrap();
    WorkloadExchange::new(trusts, minter, "scaivault").clock(clock)
}

#[tokio::test]
async fn revoked_workload_token_is_not_exchanged() {
    let service = Revocable::new().await;
    let cluster = Provider::builder().clock(service.world.clock.clone()).audience("scaivault");
    let cluster = cluster.start().await;
    let endpoints = service.auth.endpoints().workloads(workloads(&service, &cluster));
    let server = Server::axum(Router::new().layer(endpoints.build().unwrap())).await;
    let exchange = async |token: &str| -> Answer {
        let request = json!({
            "grant_type": "token_exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        });
        let post = Request::post("/v1/auth/exchange").header("content-type", "application/json");
        server.send(post.body(request.to_string()).unwrap()).await
    };
    let pod = cluster.token().subject(POD).claim("jti", "7").sign();
    let other = cluster.token().subject(POD).claim("jti", "8").sign();
    assert_eq!(exchange(&pod).await.status, 200);
    service.revoke(Revocation::token(cluster.issuer(), "7")).await;
    exchange(&pod).await.assert_oauth_error(400, "invalid_request");
    assert_eq!(exchange(&other).await.status, 200);
    // A forged token does not tell who is revoked.
    let forged = Provider::start().await.token().claim("iss", cluster.issuer());
    let [revoked, unknown] = ["7", "9"].map(|id| forged.clone().claim("jti", id).sign());
    assert_eq!(exchange(&revoked).await.body, exchange(&unknown).await.body);
    service.revoke(Revocation::subject(cluster.issuer(), POD)).await;
    exchange(&other).await.assert_oauth_error(400, "invalid_request");
    service.advance(10);
    assert_eq!(exchange(&cluster.token().subject(POD).sign()).await.status, 200);
}
