//! The kinds of tokens that a destination may get, and requests whose token is missing.

use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use http_body_util::Full;
use scaikey_auth::exchange::ExchangeError;
use scaikey_auth::identity::ClaimsMapping;
use scaikey_auth::layer::TenantSource;
use scaikey_auth::outbound::{OutboundError, OutboundLayer, OutboundToken, with_caller};
use scaikey_auth::tenant::AnyTenant;
use scaikey_auth::testing::{Fault, Provider, ProviderEndpoint};
use scaikey_auth::{Auth, ExchangeRequest, IssuerConfig, TenantId};
use serde_json::json;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};

use crate::support::local;

use super::{
    Downstream, EXCHANGE, SERVICE, Via, World, by, drive, http, mock_caller, secs, send, why,
    within_timeout,
};

#[tokio::test]
async fn exchanged_token_names_user_and_actor() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let alice = world.caller("alice-id").await;
    assert_eq!(send(&layer, by(&alice, vault.get("/secrets"))).await.unwrap().status(), 200);
    let seen = vault.only();
    let claims = seen.claims();
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("alice-id"), &json!("scaivault")));
    assert_eq!(claims["act"], json!({ "sub": "drive" }));
    assert_eq!(claims["scope"], "vault:read vault:write");
    assert_ne!(Some(seen.token()), alice.token());
    assert_eq!(seen.path, "/secrets");
}

#[tokio::test]
async fn only_configured_scopes_are_requested() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let read = || "vault:read".parse().unwrap();
    let on_behalf = OutboundToken::on_behalf_of_caller("scaivault").scopes(read());
    let alice = world.caller("alice-id").await;
    send(&world.layer(&vault, on_behalf), by(&alice, vault.get("/"))).await.unwrap();
    let own = OutboundToken::service().scopes("write".parse().unwrap());
    send(&world.layer(&vault, own), vault.get("/")).await.unwrap();
    let scopes = vault.seen().iter().map(|seen| seen.claims()["scope"].clone()).collect::<Vec<_>>();
    assert_eq!(scopes, ["vault:read", "write"]);
}

#[tokio::test]
async fn resource_is_sent_with_audience() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let url = "https://vault.example/";
    world.provider.register_client(drive().may_exchange(url, "vault:read"));
    let token = OutboundToken::on_behalf_of_caller("scaivault");
    let token = token.resource(format!("{url}#part").parse().unwrap());
    let alice = world.caller("alice-id").await;
    send(&world.layer(&vault, token), by(&alice, vault.get("/"))).await.unwrap();
    assert_eq!(vault.only().claims()["aud"], json!(["scaivault", url]));
}

#[tokio::test]
async fn layer_and_exchange_share_one_token() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let client = world.client_builder().build().unwrap();
    let layer = OutboundLayer::builder(client.clone()).allow_loopback_http(true);
    let token = OutboundToken::on_behalf_of_caller("scaivault");
    let layer = layer.destination(vault.url(), token).build().unwrap();
    let alice = world.caller("alice-id").await;
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    let by_hand = ExchangeRequest::new(alice.token().unwrap(), "scaivault");
    let token = client.exchange(&by_hand).await.unwrap();
    assert_eq!(vault.only().token(), token.secret().expose());
    let tenant = alice.identity().tenant_id().unwrap().clone();
    client.exchange(&by_hand.clone().in_tenant(tenant)).await.unwrap();
    assert_eq!(world.provider.granted(EXCHANGE), 1);
    // Another tenant is another request. The provider's token is not of that tenant.
    let other = by_hand.in_tenant(TenantId::new("other").unwrap());
    client.exchange(&other).await.unwrap_err();
    assert_eq!(world.provider.granted(EXCHANGE), 2);
}

#[tokio::test]
async fn shared_token_follows_the_claims_mapping() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let mapping = ClaimsMapping::default().tenant_id(["tid"]);
    let issuer = local(world.provider.issuer()).claims(mapping.clone());
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").clock(world.clock.clone());
    let auth = auth.build().unwrap();
    let client = world.client_builder().claims(mapping).build().unwrap();
    let layer = OutboundLayer::builder(client.clone()).allow_loopback_http(true);
    let token = OutboundToken::on_behalf_of_caller("scaivault");
    let layer = layer.destination(vault.url(), token).build().unwrap();
    let token = world.provider.token().without("tenant_id").claim("tid", "acme").sign();
    let alice = auth.authenticate(&token).await.unwrap();
    let by_hand = ExchangeRequest::new(token, "scaivault");
    client.exchange(&by_hand).await.unwrap();
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    assert_eq!(world.provider.granted(EXCHANGE), 1);
}

#[tokio::test]
async fn service_token_has_the_configured_targets() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let body = json!({ "access_token": "opaque", "token_type": "Bearer", "expires_in": 600 });
    let fault = Fault::Body("application/json", body.to_string());
    world.provider.fail(ProviderEndpoint::Token, fault);
    let token = OutboundToken::service().audience("scaivault");
    let token = token.resource("https://vault.example/".parse().unwrap());
    send(&world.layer(&vault, token), vault.get("/")).await.unwrap();
    let form = world.provider.received(ProviderEndpoint::Token)[0].form();
    for (name, value) in [("audience", "scaivault"), ("resource", "https://vault.example/")] {
        assert!(form.contains(&(name.to_owned(), value.to_owned())), "{form:?}");
    }
}

#[tokio::test]
async fn service_token_is_equal_for_all_callers() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::service());
    let alice = world.caller("alice-id").await;
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    send(&layer, vault.get("/")).await.unwrap();
    let [first, second] = &vault.seen()[..] else { panic!("two requests") };
    assert_eq!(first.claims()["sub"], "drive");
    assert_eq!(first.token(), second.token());
    assert_eq!((world.provider.granted(SERVICE), world.provider.granted(EXCHANGE)), (1, 0));
}

/// Returns a provider with one issuer for each tenant, a service that trusts all of them, and a function
/// that builds a layer.
async fn multi_tenant() -> (Provider, Auth, impl Fn(&Downstream, OutboundToken) -> OutboundLayer) {
    let provider = Provider::start().await;
    for tenant in ["acme", "umbrella"] {
        provider.tenant(tenant, tenant).register_client(drive());
    }
    let url = provider.url();
    let issuer = IssuerConfig::new(format!("{url}/tenants/{{tenant_id}}"))
        .jwks_uri(format!("{url}/api/v1/auth/tenants/{{tenant_id}}/.well-known/jwks.json"))
        .allow_loopback_http(true);
    let auth = Auth::builder().issuer(issuer).audience("scaiwave").tenants(AnyTenant);
    let auth = auth.build().unwrap();
    let client = scaikey_auth::TokenExchangeClient::builder(provider.issuer())
        .client_auth(scaikey_auth::issuer::ClientAuth::basic("drive", "a secret"))
        .allow_loopback_http(true)
        .token_url(format!("{url}/api/v1/auth/tenants/{{tenant_id}}/oauth/token"))
        .build()
        .unwrap();
    let layer = move |to: &Downstream, token| {
        let builder = OutboundLayer::builder(client.clone()).allow_loopback_http(true);
        builder.destination(to.url(), token).build().unwrap()
    };
    (provider, auth, layer)
}

#[tokio::test]
async fn service_token_has_configured_or_callers_tenant() {
    let (provider, auth, layer) = multi_tenant().await;
    let vault = Downstream::start().await;
    let acme = TenantId::new("acme").unwrap();
    let fixed = layer(&vault, OutboundToken::service_in(acme));
    let callers = layer(&vault, OutboundToken::service_in_callers_tenant());
    let on_behalf = layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let user = provider.tenant("umbrella", "umbrella").token().subject("bob-id").sign();
    let bob = auth.authenticate(&user).await.unwrap();
    for layer in [&fixed, &callers, &on_behalf] {
        send(layer, by(&bob, vault.get("/"))).await.unwrap();
    }
    let seen: Vec<_> = vault.seen().iter().map(|seen| seen.claims()).collect();
    let tenants = seen.iter().map(|claims| &claims["tenant_id"]).collect::<Vec<_>>();
    let subjects = seen.iter().map(|claims| &claims["sub"]).collect::<Vec<_>>();
    assert_eq!(tenants, ["acme", "umbrella", "umbrella"]);
    assert_eq!(subjects, ["drive", "drive", "bob-id"]);
}

#[tokio::test]
async fn request_tenant_applies_to_service_tokens_only() {
    let (provider, auth, layer) = multi_tenant().await;
    let vault = Downstream::start().await;
    // The request may name another tenant than the token.
    let tenants = TenantSource::header(http::HeaderName::from_static("x-tenant"));
    let incoming = auth.layer().tenant_from(tenants.authorised_by(|_, _| true));
    let layers = [
        layer(&vault, OutboundToken::service_in_callers_tenant()),
        layer(&vault, OutboundToken::on_behalf_of_caller("scaivault")),
    ];
    let url = vault.url();
    let handler = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let (layers, url) = (layers.clone(), url.clone());
        async move {
            let caller = request.extensions().get::<scaikey_auth::AuthContext>().unwrap().clone();
            for layer in layers {
                let request = Request::get(&url).body(Full::<Bytes>::default()).unwrap();
                layer.layer(http()).oneshot(by(&caller, request)).await?;
            }
            Ok::<_, scaikey_auth::error::BoxError>(http::Response::new(Full::<Bytes>::default()))
        }
    });
    let token = provider.tenant("umbrella", "umbrella").token().sign();
    let request = Request::get("/").header("x-tenant", "acme");
    let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    let answer = incoming.layer(handler).oneshot(request.body(Full::default()).unwrap());
    assert_eq!(within_timeout(answer).await.unwrap().status(), 200);
    let seen: Vec<_> = vault.seen().iter().map(|seen| seen.claims()["tenant_id"].clone()).collect();
    assert_eq!(seen, ["acme", "umbrella"]);
}

#[tokio::test]
async fn forwarded_token_is_the_callers() {
    let (world, twin) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&twin, OutboundToken::forwarded());
    let alice = world.caller("alice-id").await;
    send(&layer, by(&alice, twin.get("/"))).await.unwrap();
    assert_eq!(Some(twin.only().token()), alice.token());
    assert_eq!(world.provider.token_requests(), 0);
}

#[tokio::test]
async fn request_without_token_passes_unchanged() {
    let (world, open) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&open, OutboundToken::none());
    let alice = world.caller("alice-id").await;
    send(&layer, by(&alice, open.get("/"))).await.unwrap();
    let mut own = open.get("/");
    own.headers_mut().insert(AUTHORIZATION, "Basic eDp5".parse().unwrap());
    send(&layer, by(&alice, own)).await.unwrap();
    let seen: Vec<_> = open.seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(seen, [vec![], vec!["Basic eDp5".to_owned()]]);
    assert_eq!(world.provider.token_requests(), 0);
}

#[tokio::test]
async fn request_extension_overrides_task_caller() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let (alice, bob) = (world.caller("alice-id").await, world.caller("bob-id").await);
    let both = send(&layer, by(&bob, vault.get("/")));
    with_caller(alice.clone(), both).await.unwrap();
    with_caller(alice, send(&layer, vault.get("/"))).await.unwrap();
    let subjects: Vec<_> = vault.seen().iter().map(|seen| seen.claims()["sub"].clone()).collect();
    assert_eq!(subjects, ["bob-id", "alice-id"]);
}

#[tokio::test]
async fn concurrent_requests_share_one_exchange() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let service =
        world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault")).layer(http());
    let alice = world.caller("alice-id").await;
    world.provider.fail(ProviderEndpoint::Token, Fault::Slow(std::time::Duration::from_millis(50)));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        requests.spawn(service.clone().oneshot(by(&alice, vault.get("/"))));
    }
    for answer in within_timeout(requests.join_all()).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let seen = vault.seen();
    assert_eq!((seen.len(), world.provider.token_requests()), (100, 1));
    assert!(seen.iter().all(|one| one.token() == seen[0].token()));
}

#[tokio::test]
async fn missing_caller_or_tenant_prevents_sending() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let alice = world.caller("alice-id").await;
    let nowhere = world.provider.token().without("tenant_id").sign();
    let nowhere = world.auth.authenticate(&nowhere).await.unwrap();
    let mock = mock_caller().await;
    let on_behalf = || OutboundToken::on_behalf_of_caller("scaivault");
    let in_tenant = OutboundToken::service_in_callers_tenant;
    let own = |caller| {
        let mut request = by(caller, vault.get("/"));
        request.headers_mut().insert(AUTHORIZATION, "Bearer own".parse().unwrap());
        request
    };
    let cases = [
        (on_behalf(), vault.get("/"), "NoCaller"),
        (OutboundToken::forwarded(), vault.get("/"), "NoCaller"),
        (in_tenant(), vault.get("/"), "NoCaller"),
        (on_behalf(), by(&mock, vault.get("/")), "MockCaller"),
        (OutboundToken::forwarded(), by(&mock, vault.get("/")), "MockCaller"),
        (in_tenant(), by(&nowhere, vault.get("/")), "NoTenant"),
        (on_behalf(), own(&alice), "HasAuthorization"),
        (OutboundToken::service(), own(&alice), "HasAuthorization"),
        (OutboundToken::forwarded(), own(&alice), "HasAuthorization"),
    ];
    for (token, request, expected) in cases {
        let (case, layer) = (format!("{token:?}"), world.layer(&vault, token));
        for via in Via::BOTH {
            let error = via.send(&layer, request.clone()).await.unwrap_err();
            assert_eq!(format!("{error:?}"), expected, "{via:?} {case}");
        }
    }
    assert_eq!((vault.seen().len(), world.provider.token_requests()), (0, 0));
}

#[tokio::test]
async fn failed_token_request_prevents_sending() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let alice = world.caller("alice-id").await;
    let refused = world.layer(&vault, OutboundToken::on_behalf_of_caller("payroll"));
    let error = why(send(&refused, by(&alice, vault.get("/"))).await);
    assert!(matches!(error, OutboundError::Token(ExchangeError::Refused { .. })), "{error:?}");
    // The client cannot send a tenant to the provider.
    let stuck = world.layer(&vault, OutboundToken::service_in_callers_tenant());
    let error = why(send(&stuck, by(&alice, vault.get("/"))).await);
    assert!(matches!(error, OutboundError::Token(ExchangeError::NotConfigured(_))), "{error:?}");
    world.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let error = why(send(&layer, by(&alice, vault.get("/"))).await);
    assert!(matches!(error, OutboundError::Token(ExchangeError::Unavailable { .. })), "{error:?}");
    assert_eq!(vault.seen().len(), 0);
    // A cached token works while the provider is unavailable.
    world.provider.heal(ProviderEndpoint::Token);
    world.clock.advance(secs(60));
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    world.provider.fail(ProviderEndpoint::Token, Fault::Status(503));
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    assert_eq!(vault.seen().len(), 2);
}

#[tokio::test]
async fn non_bearer_token_is_not_sent() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let client = world.client_builder().accept_non_bearer_tokens().build().unwrap();
    let layer = OutboundLayer::builder(client)
        .allow_loopback_http(true)
        .destination(vault.url(), OutboundToken::on_behalf_of_caller("scaivault"))
        .build()
        .unwrap();
    world.provider.fail(
        ProviderEndpoint::Token,
        Fault::rewrite(|mut answer| {
            answer["token_type"] = "N_A".into();
            answer.to_string()
        }),
    );
    let alice = world.caller("alice-id").await;
    let error = why(send(&layer, by(&alice, vault.get("/"))).await);
    assert!(matches!(error, OutboundError::Token(ExchangeError::InvalidAnswer(_))), "{error:?}");
    assert_eq!((vault.seen().len(), world.provider.token_requests()), (0, 1));
}
