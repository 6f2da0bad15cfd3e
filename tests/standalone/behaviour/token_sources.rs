//! The sources of tokens in a request.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request};
use scaikey_auth::AuthError;
use scaikey_auth::layer::{RequestHead, TokenSource};

use crate::support::{Answer, Server, Spy, World};

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-access-token");

async fn server(world: &World, sources: Option<Vec<TokenSource>>) -> (Server, Spy) {
    let spy = Spy::default();
    let layer = world.auth().build().unwrap().layer();
    let layer = match sources {
        Some(sources) => layer.tokens_from(sources),
        None => layer,
    };
    (Server::axum(spy.app().layer(layer)).await, spy)
}

/// Returns the status and the error code.
fn outcome(answer: &Answer) -> (u16, Option<String>) {
    (answer.status, answer.error())
}

#[tokio::test]
async fn only_one_valid_authorization_header_is_accepted() {
    let world = World::new().await;
    let (server, spy) = server(&world, None).await;
    let token = world.provider.token().sign();
    let (bearer, lower, spaces, tab, tail) = (
        format!("Bearer {token}"),
        format!("bEARER {token}"),
        format!("Bearer    {token}"),
        format!("Bearer\t{token}"),
        format!("Bearer {token} x"),
    );
    let (dpop, glued, listed) =
        (format!("DPoP {token}"), format!("Bearer{token}"), format!("Bearer {token}, Basic eA=="));
    let ok = (200, None);
    let missing = (401, None);
    let malformed = (400, Some("invalid_request"));
    let table: [(Vec<&str>, _); 19] = [
        (vec![&bearer], ok),
        (vec![&lower], ok),
        (vec![&spaces], ok),
        (vec![], missing),
        (vec![""], missing),
        (vec!["Basic YWxpY2U6cGFzc3dvcmQ="], missing),
        (vec![&dpop], missing),
        (vec![&glued], missing),
        (vec![&token], missing),
        (vec![&tab], missing),
        (vec!["Bearer"], malformed),
        (vec!["Bearer "], malformed),
        (vec!["Bearer ="], malformed),
        (vec![&tail], malformed),
        (vec![&listed], malformed),
        (vec![&bearer, &bearer], malformed),
        (vec![&bearer, "Basic eA=="], malformed),
        (vec!["Basic eA==", &bearer], malformed),
        (vec!["Bearer x"], (401, Some("invalid_token"))),
    ];
    let mut served = 0;
    for (values, (status, error)) in table {
        let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
        let answer = server.get("/", &headers).await;
        assert_eq!(outcome(&answer), (status, error.map(str::to_owned)), "{values:?}");
        served += u64::from(status == 200);
        assert_eq!(spy.calls(), served, "{values:?}");
    }
}

#[tokio::test]
async fn invalid_character_anywhere_in_token_is_refused() {
    let world = World::new().await;
    let (server, spy) = server(&world, None).await;
    let good = world.provider.token().sign();
    let second = good.rfind('.').unwrap();
    for at in [0, 5, good.find('.').unwrap() + 5, second + 1, good.len() - 1] {
        let mut broken = good.clone();
        broken.replace_range(at..=at, ",");
        let answer = server.get("/", &[("authorization", &format!("Bearer {broken}"))]).await;
        assert_eq!(outcome(&answer), (400, Some("invalid_request".to_owned())), "{at}");
    }
    // The claims are checked before the signature.
    let expired = format!("Bearer {},", world.provider.token().expired().sign());
    let answer = server.get("/", &[("authorization", &expired)]).await;
    assert_eq!(outcome(&answer), (401, Some("invalid_token".to_owned())));
    assert_eq!(spy.calls(), 0);
}

#[tokio::test]
async fn tokens_outside_authorization_header_are_ignored() {
    let world = World::new().await;
    let (server, spy) = server(&world, None).await;
    let token = world.provider.token().sign();
    let path = format!("/?access_token={token}");
    let header = ("x-forwarded-access-token", token.as_str());
    let cookie = ("cookie", &*format!("access_token={token}"));
    for (path, headers) in [(path.as_str(), vec![]), ("/", vec![header]), ("/", vec![cookie])] {
        let answer = server.get(path, &headers).await;
        assert_eq!(outcome(&answer), (401, None), "{headers:?}");
    }
    let form = Request::post("/").header("content-type", "application/x-www-form-urlencoded");
    let answer = server.send(form.body(format!("access_token={token}")).unwrap()).await;
    assert_eq!(outcome(&answer), (401, None));
    assert_eq!(spy.calls(), 0);
    // They are ignored in a request with a valid header too.
    let path = format!("/?access_token={}", world.provider.token().subject("mallory").sign());
    assert_eq!(server.get_as(&path, &token).await.status, 200);
}

#[tokio::test]
async fn configured_sources_contain_only_the_token() {
    let world = World::new().await;
    let cookie = |head: RequestHead<'_>| {
        let Some(cookie) = head.headers.get("cookie") else { return Ok(None) };
        let token = cookie.as_bytes().strip_prefix(b"token=");
        let token = token.ok_or(AuthError::MalformedCredentials("The cookie is malformed."))?;
        Ok(HeaderValue::from_bytes(token).ok())
    };
    let sources = vec![
        TokenSource::Authorization,
        TokenSource::Header(FORWARDED),
        TokenSource::Custom(Arc::new(cookie)),
    ];
    let (server, _) = server(&world, Some(sources)).await;
    let token = world.provider.token().sign();
    let bearer = ("authorization", &*format!("Bearer {token}"));
    let basic = ("authorization", "Basic eA==");
    let forwarded = ("x-forwarded-access-token", token.as_str());
    let prefixed = ("x-forwarded-access-token", &*format!("Bearer {token}"));
    let empty = ("x-forwarded-access-token", "");
    let cookie = ("cookie", &*format!("token={token}"));
    let two = Some("invalid_request");
    let table = [
        (vec![bearer], 200, None),
        (vec![forwarded], 200, None),
        (vec![cookie], 200, None),
        (vec![forwarded, basic], 200, None),
        (vec![], 401, None),
        (vec![basic], 401, None),
        (vec![bearer, forwarded], 400, two),
        (vec![bearer, cookie], 400, two),
        (vec![forwarded, cookie], 400, two),
        (vec![forwarded, forwarded], 400, two),
        (vec![prefixed], 400, two),
        (vec![empty], 400, two),
        (vec![("cookie", "other=x")], 400, two),
    ];
    for (headers, status, error) in table {
        let answer = server.get("/", &headers).await;
        assert_eq!(outcome(&answer), (status, error.map(str::to_owned)), "{headers:?}");
    }
}

#[tokio::test]
async fn configured_sources_replace_authorization_header() {
    let world = World::new().await;
    let token = world.provider.token().sign();
    let (forwarded, _) = server(&world, Some(vec![TokenSource::Header(FORWARDED)])).await;
    assert_eq!(forwarded.get_as("/", &token).await.status, 401);
    let (nowhere, _) = server(&world, Some(Vec::new())).await;
    assert_eq!(outcome(&nowhere.get_as("/", &token).await), (401, None));
}
