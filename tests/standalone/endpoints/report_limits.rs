//! The rate limit of logout tokens and security events: only forged ones count.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use http_body_util::{BodyExt as _, Full};
use scaikey_auth::endpoints::{Endpoint, Endpoints, EventStream, TokenBuckets};
use scaikey_auth::testing::{ProviderEndpoint, TestIssuer, TokenBuilder};
use tower::ServiceExt as _;

use super::backchannel_logout::{PATH as LOGOUT, logout_token};
use super::env::MINUTE;
use super::security_events::{AUDIENCE, PATH as EVENTS, session_revoked};
use crate::support::World;

/// The addresses of the provider and of an attacker.
const PROVIDER: [u8; 4] = [192, 0, 2, 1];
const ATTACKER: [u8; 4] = [192, 0, 2, 66];

struct Service {
    world: World,
    endpoints: Endpoints,
}

impl Service {
    async fn new(buckets: TokenBuckets) -> Self {
        Self::with(buckets, |stream| stream).await
    }

    async fn with(buckets: TokenBuckets, set: fn(EventStream) -> EventStream) -> Self {
        let world = World::new().await;
        let auth = world.auth().build().unwrap();
        let stream = set(EventStream::push(world.provider.issuer(), AUDIENCE));
        let endpoints = auth.endpoints().throttle(buckets).security_events(stream);
        let endpoints = endpoints.backchannel_logout_for("wave").build().unwrap();
        Self { world, endpoints }
    }

    fn valid(&self, endpoint: Endpoint, id: usize) -> String {
        signed(&self.world.provider, endpoint, id, |token| token)
    }

    /// Returns a token with the signature of another key, under the `kid` of a known one.
    fn forged(&self, endpoint: Endpoint, id: usize) -> String {
        let (own, key) = (self.world.provider.key(), self.world.provider.issuer_at("/other").key());
        let change = |token: TokenBuilder| token.signed_by(&key).kid(Some(own.kid()));
        signed(&self.world.provider, endpoint, id, change)
    }

    /// Sends a token from an address, without a socket. Returns the status and `Retry-After`.
    async fn report(&self, endpoint: Endpoint, address: [u8; 4], token: &str) -> (u16, String) {
        self.report_as(endpoint, address, None, token).await
    }

    async fn report_as(
        &self,
        endpoint: Endpoint,
        address: [u8; 4],
        authorization: Option<&str>,
        token: &str,
    ) -> (u16, String) {
        let (path, content_type, body) = match endpoint {
            Endpoint::Events => (EVENTS, "application/secevent+jwt", token.to_owned()),
            _ => (LOGOUT, "application/x-www-form-urlencoded", format!("logout_token={token}")),
        };
        let request = Request::post(path).header("content-type", content_type);
        let request =
            authorization.into_iter().fold(request, |it, value| it.header("authorization", value));
        let mut request = request.body(Full::new(Bytes::from(body))).unwrap();
        request.extensions_mut().insert(SocketAddr::from((address, 4000)));
        let answer = self.endpoints.service().oneshot(request).await.unwrap();
        let wait = answer.headers().get("retry-after").map(|it| it.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        (status, wait.unwrap_or_default())
    }

    async fn status(&self, endpoint: Endpoint, address: [u8; 4], token: &str) -> u16 {
        self.report(endpoint, address, token).await.0
    }
}

fn signed(
    issuer: &TestIssuer,
    endpoint: Endpoint,
    id: usize,
    change: impl FnOnce(TokenBuilder) -> TokenBuilder,
) -> String {
    let token = match endpoint {
        Endpoint::Events => session_revoked(issuer),
        _ => logout_token(issuer),
    };
    change(token.claim("jti", id.to_string()).claim("sid", id.to_string())).sign()
}

const BOTH: [(Endpoint, u16); 2] = [(Endpoint::BackchannelLogout, 200), (Endpoint::Events, 202)];

#[tokio::test]
async fn valid_reports_have_no_limit() {
    let service = Service::new(TokenBuckets::new().per_address(2, MINUTE)).await;
    for (endpoint, accepted) in BOTH {
        for id in 0..10 {
            let token = service.valid(endpoint, id);
            assert_eq!(service.status(endpoint, PROVIDER, &token).await, accepted, "{id}");
        }
    }
}

#[tokio::test]
async fn forged_reports_are_throttled() {
    let service = Service::new(TokenBuckets::new()).await;
    for (endpoint, accepted) in BOTH {
        let mut statuses = Vec::new();
        for id in 0..100 {
            let token = service.forged(endpoint, id);
            statuses.push(service.status(endpoint, ATTACKER, &token).await);
        }
        assert_eq!(statuses[..60], [400; 60], "{endpoint:?}");
        assert_eq!(statuses[60..], [429; 40], "{endpoint:?}");
        // Then nothing of this address is verified, and those of others are.
        let valid = service.valid(endpoint, 1);
        assert_eq!(service.report(endpoint, ATTACKER, &valid).await, (429, "1".to_owned()));
        assert_eq!(service.status(endpoint, PROVIDER, &valid).await, accepted);
        service.world.clock.advance(Duration::from_secs(1));
        assert_eq!(service.status(endpoint, ATTACKER, &valid).await, accepted);
    }
}

#[tokio::test]
async fn only_costly_refusals_are_charged() {
    for (endpoint, accepted) in BOTH {
        let service = Service::new(TokenBuckets::new().per_address(2, MINUTE)).await;
        let report = async |token: &str| service.report(endpoint, ATTACKER, token).await;
        let valid = service.valid(endpoint, 1);
        let foreign = signed(&service.world.provider, endpoint, 2, |it| it.audience("x"));
        // Neither accepted tokens, nor those that are refused before their signature is verified.
        for _ in 0..5 {
            assert_eq!(report(&valid).await.0, accepted);
            assert_eq!(report("x").await.0, 400);
            assert_eq!(report(&foreign).await.0, 400);
        }
        assert_eq!(report(&service.forged(endpoint, 2)).await.0, 400);
        assert_eq!(report(&service.forged(endpoint, 3)).await.0, 400);
        // A true report waits for some seconds, not for the next place in the bucket.
        let forged = service.forged(endpoint, 4);
        assert_eq!(report(&forged).await, (429, "5".to_owned()));
        assert_eq!(report(&valid).await, (429, "5".to_owned()));
        service.world.clock.advance(Duration::from_secs(5));
        assert_eq!(report(&valid).await.0, accepted);
        assert_eq!(report(&forged).await.0, 429);
    }
}

#[tokio::test]
async fn header_of_the_stream_precedes_the_address() {
    let buckets = TokenBuckets::new().per_address(1, MINUTE);
    let service = Service::with(buckets, |stream| stream.authorization("Bearer s3cret")).await;
    let report = async |authorization, token: &str| {
        service.report_as(Endpoint::Events, PROVIDER, authorization, token).await.0
    };
    let (valid, forged) = (service.valid(Endpoint::Events, 1), service.forged(Endpoint::Events, 2));
    for _ in 0..5 {
        for authorization in [None, Some("Bearer wrong")] {
            assert_eq!(report(authorization, &forged).await, 400);
            assert_eq!(report(authorization, "x").await, 400);
        }
        assert_eq!(report(Some("Bearer s3cret"), &forged).await, 400);
        assert_eq!(report(Some("Bearer s3cret"), &valid).await, 202);
    }
}

#[tokio::test]
async fn unknown_keys_are_fetched_within_bounds() {
    let service = Service::new(TokenBuckets::new().per_address(50, MINUTE)).await;
    let keys = ProviderEndpoint::Jwks;
    let known = service.valid(Endpoint::Events, 0);
    assert_eq!(service.status(Endpoint::Events, PROVIDER, &known).await, 202);
    let before = service.world.provider.requests(keys);
    let mut statuses = Vec::new();
    for id in 1..=51 {
        let change = |token: TokenBuilder| token.kid(Some(&format!("k{id}")));
        let token = signed(&service.world.provider, Endpoint::Events, id, change);
        statuses.push(service.status(Endpoint::Events, ATTACKER, &token).await);
    }
    assert!(service.world.provider.requests(keys) - before <= 3);
    // A refusal is final only after a fetch: the key may have been published since the last one.
    assert_eq!(statuses[0], 400);
    assert_eq!(statuses[10..], [[503; 40].as_slice(), &[429]].concat());
}
