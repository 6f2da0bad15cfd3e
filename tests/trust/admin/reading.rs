//! `GET trusts` and the presets.

use scaikey_auth::trust::presets;
use serde_json::json;

use super::fixture::World;

#[tokio::test]
async fn presets_are_listed_with_texts() {
    let world = World::new().await;
    let (service, owner) = (world.start_read_only().await, world.owner());
    let answer = service.get("/presets", &owner).await;
    let listed = answer.json()["presets"].as_array().unwrap().len();
    assert_eq!(listed, presets::ALL.len());
    assert_eq!(
        answer.json()["presets"][0],
        json!({ "name": "kubernetes", "text": presets::kubernetes() })
    );
}
