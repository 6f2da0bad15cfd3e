//! A caller who was revoked while a request or a job runs gets no token any more.

use http::Request;
use http_body_util::Full;
use scaikey_auth::outbound::OutboundToken;
use scaikey_auth::revocation::Revocation;
use scaikey_auth::testing::ProviderEndpoint;
use tower::{Layer, ServiceExt};

use super::{Downstream, World, http, why};

#[tokio::test]
async fn revoked_caller_gets_no_token() {
    let tokens = [
        OutboundToken::on_behalf_of_caller("scaivault"),
        OutboundToken::forwarded(),
        OutboundToken::service_in_callers_tenant(),
    ];
    for token in tokens {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let client = world.client_builder().tenant_parameter("tenant").build().unwrap();
        let layer = scaikey_auth::outbound::OutboundLayer::builder(client);
        let layer = layer.allow_loopback_http(true).destination(vault.url(), token);
        let calls = layer.build().unwrap().layer(http());
        let (caller, other) = (world.caller("alice").await, world.caller("bob").await);
        let send = async |caller: &scaikey_auth::AuthContext| {
            let request = Request::get(vault.url()).extension(caller.clone());
            calls.clone().oneshot(request.body(Full::default()).unwrap()).await
        };
        assert!(send(&caller).await.is_ok());
        assert!(!caller.is_revoked());
        let alice = Revocation::subject(world.provider.issuer(), "alice");
        world.auth.revocations().revoke(alice).await.unwrap();
        let asked = world.provider.requests(ProviderEndpoint::Token);
        let refused = why(send(&caller).await);
        assert!(refused.to_string().contains("revoked"), "{refused}");
        assert_eq!(world.provider.requests(ProviderEndpoint::Token), asked);
        assert!(send(&other).await.is_ok());
        assert!(caller.is_revoked() && !other.is_revoked());
    }
}
