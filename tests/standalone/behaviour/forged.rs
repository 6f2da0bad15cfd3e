//! Forged tokens, which must be refused, and valid counterparts, which must be accepted.

use scaikey_auth::config::{Algorithm, TokenProfile};
use scaikey_auth::error::InvalidToken;
use scaikey_auth::testing::forge;
use scaikey_auth::{Auth, AuthError};

use crate::support::{Server, Spy, World};

async fn world() -> World {
    World::with(Algorithm::ALL).await
}

fn auth(world: &World, profile: TokenProfile) -> Auth {
    world.auth_with(world.issuer().profile(profile)).build().unwrap()
}

#[tokio::test]
async fn every_valid_token_is_accepted() {
    let world = world().await;
    for (profile, valid) in [
        (TokenProfile::Lenient, forge::valid(&world.provider)),
        (TokenProfile::Rfc9068, forge::rfc9068_valid(&world.provider)),
    ] {
        let auth = auth(&world, profile);
        let server = Server::axum(Spy::default().app().layer(auth.layer())).await;
        for valid in valid {
            let result = auth.authenticate(&valid.token).await;
            assert!(result.is_ok(), "{}: {result:?}", valid.name);
            let answer = server.get_as("/", &valid.token).await;
            assert_eq!(answer.status, 200, "{}: {answer:?}", valid.name);
        }
    }
}

#[tokio::test]
async fn every_forged_token_is_refused() {
    let world = world().await;
    let mut bad = Vec::new();
    for (profile, forged) in [
        (TokenProfile::Lenient, forge::all(&world.provider)),
        (TokenProfile::Rfc9068, forge::all(&world.provider)),
        (TokenProfile::Rfc9068, forge::rfc9068(&world.provider)),
        (TokenProfile::Lenient, forge::ml_dsa(&world.provider)),
    ] {
        let auth = auth(&world, profile);
        for forged in forged {
            match auth.authenticate(&forged.token).await {
                Ok(_) => bad.push(format!("{}: accepted, although {}", forged.name, forged.why)),
                Err(error) if error.status().as_u16() == 503 => {
                    bad.push(format!("{}: {error}", forged.name))
                }
                Err(_) => {}
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// Over HTTP, a forged token gets the expected status and challenge. It causes no call of the service, no request
/// to a URL in the token, and few requests to the provider.
#[tokio::test]
async fn forged_tokens_are_refused_without_outgoing_requests() {
    let world = world().await;
    let (auth, spy) = (auth(&world, TokenProfile::Lenient), Spy::default());
    let server = Server::axum(spy.app().layer(auth.layer())).await;
    let mut bad = Vec::new();
    let all = forge::all(&world.provider).into_iter().chain(forge::ml_dsa(&world.provider));
    for forged in all {
        let Some(value) = forged.header() else { continue };
        let mut request = http::Request::builder().uri("/").body("").unwrap();
        request.headers_mut().insert("authorization", value);
        let answer = server.send(request).await;
        let expected = match forged.rejection {
            forge::Rejection::Unauthorized => "invalid_token",
            forge::Rejection::BadRequest => "invalid_request",
        };
        let is_as_expected = answer.status == forged.rejection.status()
            && answer.error().as_deref() == Some(expected);
        if !is_as_expected {
            bad.push(format!("{}: {answer:?}, although {}", forged.name, forged.why));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(spy.calls(), 0, "the service was called for a refused request");
    assert_eq!(world.provider.stray_requests(), 0, "a token's URL was followed");
    assert!(world.provider.jwks_requests() <= 3, "{} key fetches", world.provider.jwks_requests());
}

#[tokio::test]
async fn forbidden_algorithm_is_refused_before_fetching_keys() {
    let world = World::with([Algorithm::RS256, Algorithm::ES256]).await;
    let issuer = world.issuer().algorithms([Algorithm::RS256]);
    let auth = world.auth_with(issuer).build().unwrap();
    let token = |algorithm| world.provider.token().algorithm(algorithm).sign();
    let refusal = auth.authenticate(&token(Algorithm::ES256)).await.unwrap_err();
    assert!(matches!(refusal, AuthError::InvalidToken(InvalidToken::Algorithm)), "{refusal}");
    assert_eq!((world.provider.discovery_requests(), world.provider.jwks_requests()), (0, 0));
    auth.authenticate(&token(Algorithm::RS256)).await.unwrap();
}
