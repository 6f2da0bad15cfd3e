//! Tokens do not appear in `Debug` output, errors or the log.

use http::header::AUTHORIZATION;
use scaikey_auth::outbound::{CallerLayer, OutboundToken, with_caller};
use scaikey_auth::testing::{Fault, ProviderEndpoint};
use tower::{Layer, Service, ServiceExt};

use crate::support::Log;

use super::{Downstream, World, by, http, secs, send};

/// Asserts that the text contains no part of these tokens and not the client secret. The header of a
/// token is skipped, because all tokens share it.
fn assert_clean(text: &str, tokens: &[String], place: &str) {
    let parts = tokens.iter().flat_map(|token| token.split('.').skip(1));
    for part in parts.chain(["a secret", "YSBzZWNyZXQ", "ZHJpdmU6YSBzZWNyZXQ="]) {
        assert!(!text.contains(part), "{place} contains {part}: {text}");
    }
}

#[tokio::test]
async fn no_token_is_printed_or_logged() {
    let log = Log::start();
    let (world, vault) = (World::new().await, Downstream::start().await);
    let alice = world.caller("alice-id").await;
    let mut tokens = vec![alice.token().unwrap().to_owned()];
    let mut printed = vec![format!("{alice:?} {alice:#?}"), format!("{CallerLayer:?}")];
    for token in [
        OutboundToken::on_behalf_of_caller("scaivault"),
        OutboundToken::on_behalf_of_caller("payroll"),
        OutboundToken::service(),
        OutboundToken::forwarded(),
    ] {
        let builder = world.builder().destination(vault.url(), token);
        printed.push(format!("{builder:?}"));
        let layer = builder.build().unwrap();
        let mut service = layer.layer(http());
        printed.push(format!("{layer:?} {service:?} {:?}", CallerLayer.layer(service.clone())));
        let future = service.ready().await.unwrap().call(by(&alice, vault.get("/")));
        let future = with_caller(alice.clone(), future);
        printed.push(format!("{future:?}"));
        if let Err(error) = future.await {
            printed.push(format!("{error} {error:?} {error:#?}"));
        }
        // Then a 401, a request with a token of its own, and an outage of the provider.
        world.clock.advance(secs(11));
        vault.will_answer([401]);
        let _ = send(&layer, by(&alice, vault.get("/"))).await;
        let mut own = by(&alice, vault.get("/"));
        own.headers_mut().insert(AUTHORIZATION, "Bearer x.own-canary".parse().unwrap());
        tokens.push("x.own-canary".to_owned());
        let error = send(&layer, own).await.unwrap_err();
        printed.push(format!("{error} {error:?}"));
        world.provider.fail(ProviderEndpoint::Token, Fault::Status(500));
        world.clock.advance(secs(3600));
        if let Err(error) = send(&layer, by(&alice, vault.get("/"))).await {
            printed.push(format!("{error} {error:?} {error:#?}"));
        }
        world.provider.heal(ProviderEndpoint::Token);
        world.clock.advance(secs(120));
    }
    tokens.extend(vault.seen().iter().map(|seen| seen.token().to_owned()));
    assert!(tokens.len() > 8, "{}", tokens.len());
    for text in printed {
        assert_clean(&text, &tokens, "Debug");
    }
    let text = log.text();
    assert!(text.contains("scaikey_auth"), "{text}");
    assert_clean(&text, &tokens, "the log");
}

#[tokio::test]
async fn authorization_header_is_marked_sensitive() {
    let world = World::new().await;
    let alice = world.caller("alice-id").await;
    for token in [OutboundToken::service(), OutboundToken::forwarded()] {
        let builder = world.builder().destination("https://vault.example", token);
        let client = |request: http::Request<http_body_util::Full<bytes::Bytes>>| async move {
            let headers = format!("{:?}", request.headers());
            Ok::<_, std::convert::Infallible>(http::Response::new(headers))
        };
        let service = builder.build().unwrap().layer(tower::service_fn(client));
        let request = http::Request::get("https://vault.example/");
        let request = request.body(http_body_util::Full::default()).unwrap();
        let headers = service.oneshot(by(&alice, request)).await.unwrap().into_body();
        assert_eq!(headers, r#"{"authorization": Sensitive}"#);
    }
}
