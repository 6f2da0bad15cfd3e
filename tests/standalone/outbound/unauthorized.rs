//! A downstream service answers 401: the token is replaced and the request retried.

use bytes::Bytes;
use http::Request;
use http_body_util::{Empty, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use scaikey_auth::outbound::{OutboundToken, Resend};
use tower::{Layer, ServiceExt};

use super::{Downstream, Via, World, by, http, secs, send, within_timeout};

const OLD: u64 = 10;
const YOUNG: u64 = 9;

/// Each kind of client, with each kind of token that is requested.
fn cases() -> impl Iterator<Item = (Via, OutboundToken)> {
    let tokens = || [OutboundToken::on_behalf_of_caller("scaivault"), OutboundToken::service()];
    Via::BOTH.into_iter().flat_map(move |via| tokens().map(|token| (via, token)))
}

#[tokio::test]
async fn old_token_is_replaced_and_request_repeated() {
    for (via, token) in cases() {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&vault, token);
        let alice = world.caller("alice-id").await;
        via.send(&layer, by(&alice, vault.get("/"))).await.unwrap();
        world.clock.advance(secs(OLD));
        vault.will_answer([401, 201]);
        let mut request = by(&alice, vault.get("/a/b?c=d"));
        request.headers_mut().insert("x-own", "kept".parse().unwrap());
        assert_eq!(via.send(&layer, request).await.unwrap(), 201);
        let [first, rejected, retried] = &vault.seen()[..] else { panic!("{:?}", vault.seen()) };
        assert_eq!((rejected.path.as_str(), retried.path.as_str()), ("/a/b", "/a/b"));
        assert_eq!(first.token(), rejected.token());
        assert_ne!(rejected.token(), retried.token());
        // Later requests use the new token.
        via.send(&layer, by(&alice, vault.get("/"))).await.unwrap();
        assert_eq!(vault.seen()[3].token(), retried.token());
        assert_eq!(world.provider.token_requests(), 2);
    }
}

#[tokio::test]
async fn young_token_is_not_replaced() {
    for (via, token) in cases() {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&vault, token);
        let alice = world.caller("alice-id").await;
        via.send(&layer, by(&alice, vault.get("/"))).await.unwrap();
        world.clock.advance(secs(YOUNG));
        vault.will_answer([401, 201]);
        assert_eq!(via.send(&layer, by(&alice, vault.get("/"))).await.unwrap(), 401);
        assert_eq!((vault.seen().len(), world.provider.token_requests()), (2, 1));
    }
}

#[tokio::test]
async fn second_401_is_returned() {
    for via in Via::BOTH {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
        let alice = world.caller("alice-id").await;
        via.send(&layer, by(&alice, vault.get("/"))).await.unwrap();
        world.clock.advance(secs(OLD));
        vault.will_answer([401; 20]);
        assert_eq!(via.send(&layer, by(&alice, vault.get("/"))).await.unwrap(), 401);
        assert_eq!((vault.seen().len(), world.provider.token_requests()), (3, 2));
        // The new token is young, so it is not replaced for ten seconds.
        for _ in 0..5 {
            assert_eq!(via.send(&layer, by(&alice, vault.get("/"))).await.unwrap(), 401);
        }
        assert_eq!((vault.seen().len(), world.provider.token_requests()), (8, 2));
    }
}

#[tokio::test]
async fn other_statuses_replace_no_token() {
    for via in Via::BOTH {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&vault, OutboundToken::service());
        via.send(&layer, vault.get("/")).await.unwrap();
        world.clock.advance(secs(OLD));
        let statuses = [200, 204, 302, 400, 403, 404, 407, 429, 500, 503];
        vault.will_answer(statuses);
        for status in statuses {
            assert_eq!(via.send(&layer, vault.get("/")).await.unwrap(), status);
        }
        assert_eq!((vault.seen().len(), world.provider.token_requests()), (11, 1));
    }
}

/// Sends a request, waits, and sends one that is answered with 401. Returns the received bodies and the
/// number of token requests.
async fn posted<R: Resend<Full<Bytes>> + Sync>(resend: Option<R>) -> (Vec<Bytes>, u64) {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let builder = world.builder().destination(vault.url(), OutboundToken::service());
    let request = || Request::post(vault.url()).body(Full::from("a letter")).unwrap();
    vault.will_answer([200, 401, 201]);
    let both = async |service: tower::util::BoxCloneService<_, _, _>| {
        let mut answers = Vec::new();
        for _ in 0..2 {
            let answer: http::Response<hyper::body::Incoming> =
                within_timeout(service.clone().oneshot(request())).await.unwrap();
            answers.push(answer.status().as_u16());
            world.clock.advance(secs(OLD));
        }
        answers
    };
    let (service, last) = match resend {
        Some(resend) => (builder.resend(resend).build().unwrap().layer(http()).boxed_clone(), 201),
        None => (builder.build().unwrap().layer(http()).boxed_clone(), 401),
    };
    assert_eq!(both(service).await, [200, last]);
    let bodies = vault.seen().into_iter().map(|seen| seen.body).collect();
    (bodies, world.provider.token_requests())
}

#[tokio::test]
async fn only_copied_body_is_sent_again() {
    let never = None::<fn(&Full<Bytes>) -> Option<Full<Bytes>>>;
    let (bodies, tokens) = posted(never).await;
    // The token is replaced anyway, for the next request.
    assert_eq!((bodies.len(), tokens), (2, 2), "cannot be copied");
    let (bodies, tokens) = posted(Some(|body: &Full<Bytes>| Some(body.clone()))).await;
    assert_eq!((bodies, tokens), (vec![Bytes::from("a letter"); 3], 2));
}

#[tokio::test]
async fn next_request_has_the_new_token() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::service());
    let request = || Request::post(vault.url()).body(Full::from("a letter")).unwrap();
    send(&layer, request()).await.unwrap();
    world.clock.advance(secs(OLD));
    vault.will_answer([401]);
    assert_eq!(send(&layer, request()).await.unwrap().status(), 401);
    send(&layer, request()).await.unwrap();
    let seen = vault.seen();
    assert_eq!(seen[0].token(), seen[1].token());
    assert_ne!(seen[1].token(), seen[2].token());
}

#[tokio::test]
async fn forwarded_token_is_never_retried() {
    for via in Via::BOTH {
        let (world, twin) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&twin, OutboundToken::forwarded());
        let alice = world.caller("alice-id").await;
        world.clock.advance(secs(60));
        twin.will_answer([401, 201]);
        assert_eq!(via.send(&layer, by(&alice, twin.get("/"))).await.unwrap(), 401);
        assert_eq!((twin.seen().len(), world.provider.token_requests()), (1, 0));
    }
}

#[tokio::test]
async fn request_without_token_is_never_retried() {
    for via in Via::BOTH {
        let (world, open) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&open, OutboundToken::none());
        open.will_answer([401, 201]);
        assert_eq!(via.send(&layer, open.get("/")).await.unwrap(), 401);
        assert_eq!(open.seen().len(), 1);
    }
}

#[tokio::test]
async fn first_401_is_returned_without_new_token() {
    for via in Via::BOTH {
        let (world, vault) = (World::new().await, Downstream::start().await);
        let layer = world.layer(&vault, OutboundToken::service());
        via.send(&layer, vault.get("/")).await.unwrap();
        world.clock.advance(secs(OLD));
        vault.will_answer([401, 201]);
        let fault = scaikey_auth::testing::Fault::Status(500);
        world.provider.fail(scaikey_auth::testing::ProviderEndpoint::Token, fault);
        assert_eq!(via.send(&layer, vault.get("/")).await.unwrap(), 401);
        assert_eq!(vault.seen().len(), 2);
    }
}

#[tokio::test]
async fn concurrent_401s_get_one_new_token() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let service = layer.layer(http());
    let alice = world.caller("alice-id").await;
    send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    world.clock.advance(secs(OLD));
    vault.will_answer([401; 30]);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..30 {
        requests.spawn(service.clone().oneshot(by(&alice, vault.get("/"))));
    }
    within_timeout(requests.join_all()).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    let seen = vault.seen();
    assert!(seen.len() <= 61, "{}", seen.len());
    assert_eq!(world.provider.token_requests(), 2);
}

#[tokio::test]
async fn empty_body_of_any_type_is_retried() {
    let (world, vault) = (World::new().await, Downstream::start().await);
    let http: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let service = world.layer(&vault, OutboundToken::service()).layer(http);
    let request = || Request::delete(vault.url()).body(Empty::new()).unwrap();
    within_timeout(service.clone().oneshot(request())).await.unwrap();
    world.clock.advance(secs(OLD));
    vault.will_answer([401, 201]);
    assert_eq!(within_timeout(service.oneshot(request())).await.unwrap().status(), 201);
}
