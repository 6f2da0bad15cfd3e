//! Tokens appear in no answer, log, history or decision.

use serde_json::json;

use super::fixture::World;
use crate::fixture::pod;
use crate::support::Log;

#[tokio::test]
async fn tokens_appear_nowhere() {
    let world = World::new().await;
    let log = Log::start();
    let (service, _) = world.start_with_policy().await;
    let owner = world.owner();
    let foreign = pod(&world.cluster).claim("note", "claim-canary").sign();
    let denied = pod(&world.cluster).subject("subject-canary").sign();
    let mut answers = Vec::new();
    for token in [&foreign, &denied, &"junk-canary".to_owned(), &owner] {
        answers.push(service.exchange(token).await);
        let body = json!({ "token": token, "trust_id": "trust-canary" });
        answers.push(service.post_json("/explain", &owner, &body).await);
        answers.push(service.post_json("/explain", &owner, &json!({ "token": token })).await);
        // A token at the wrong place.
        answers.push(service.post_json("/explain", &owner, &json!({ "tokens": token })).await);
        answers.push(service.post_toml("/lint", &owner, token).await);
        answers.push(service.change(&owner, token).await);
    }
    // The minted token is the answer of an exchange.
    let minted = answers.remove(0).json()["access_token"].as_str().unwrap().to_owned();
    for path in ["", "/history", "/history/1", "/decisions", "/presets"] {
        answers.push(service.get(path, &owner).await);
    }
    let secrets = [&foreign, &denied, &owner, &minted];
    let parts = secrets.iter().flat_map(|token| token.split('.').skip(1));
    let lines = log.text();
    for part in parts {
        assert!(!lines.contains(part), "{part}\n{lines}");
        assert!(answers.iter().all(|answer| !answer.body.contains(part)), "{part}");
    }
    for canary in ["claim-canary", "subject-canary", "trust-canary"] {
        assert!(!lines.contains(canary), "{canary}\n{lines}");
    }
    let decisions = service.get("/decisions", &owner).await.body;
    for canary in ["canary", "system:serviceaccount"] {
        assert!(!decisions.contains(canary), "{decisions}");
    }
}
