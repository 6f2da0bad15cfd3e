//! Tokens go only to configured destinations, in every spelling of a URI.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Request, Response};
use http_body_util::Full;
use scaikey_auth::outbound::{OutboundLayer, OutboundToken};
use tower::{Layer, ServiceExt};

use super::{Downstream, Via, World, by, http, reqwest_client, send, within_timeout};
use crate::support::Log;

/// Sends a request through the layer to a client that does not connect. Returns the `Authorization` header,
/// `-` if there is none, or the error.
async fn token_sent(layer: &OutboundLayer, uri: &str, hosts: &[&str]) -> String {
    let sent = Arc::new(Mutex::new(None));
    let book = sent.clone();
    let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let token = request.headers().get(AUTHORIZATION).map(|token| token.to_str().unwrap());
        *book.lock().unwrap() = Some(token.unwrap_or("-").to_owned());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let mut request = Request::get(uri);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    let outcome =
        within_timeout(layer.layer(client).oneshot(request.body(Full::default()).unwrap())).await;
    let sent = sent.lock().unwrap().take();
    match (outcome, sent) {
        (Ok(_), Some(token)) => token,
        (Err(error), None) => {
            format!("{:?}", error.downcast::<scaikey_auth::outbound::OutboundError>().unwrap())
        }
        (outcome, sent) => panic!("{uri}: {outcome:?} and {sent:?}"),
    }
}

/// Returns `sent` for a request with a token, `-` for one without, or the error.
async fn outcome_of(layer: &OutboundLayer, uri: &str, hosts: &[&str]) -> String {
    let outcome = token_sent(layer, uri, hosts).await;
    assert_reqwest_agrees(layer, uri, hosts).await;
    if outcome.starts_with("Bearer ") { "sent".to_owned() } else { outcome }
}

/// Asserts that a `reqwest` client sends the same token to the URL as a tower client. It normalises URLs.
async fn assert_reqwest_agrees(layer: &OutboundLayer, uri: &str, hosts: &[&str]) {
    let Ok(url) = uri.parse::<url::Url>() else { return };
    if url.as_str().parse::<http::Uri>().is_ok() {
        let expected = token_sent(layer, url.as_str(), hosts).await;
        assert_eq!(
            reqwest_client::token_sent(layer, url, hosts).await,
            expected,
            "{uri} {hosts:?}"
        );
    }
}

#[tokio::test]
async fn token_goes_only_to_configured_origin() {
    let world = World::new().await;
    let builder = world.builder().destination("https://vault.example", OutboundToken::service());
    let builder = builder.destination("https://[2001:db8::1]:8443", OutboundToken::service());
    let builder = builder.destination("http://127.0.0.1:8080", OutboundToken::service());
    let layer = builder.destination("http://localhost", OutboundToken::service()).build().unwrap();
    let unknown = |host: &str| format!("UnknownDestination({host:?})");
    let cases = [
        ("https://vault.example", "sent".to_owned()),
        ("https://vault.example/", "sent".to_owned()),
        ("https://vault.example/any/path?q=https://evil.example", "sent".to_owned()),
        ("https://vault.example?q", "sent".to_owned()),
        ("https://vault.example:443/", "sent".to_owned()),
        ("https://VAULT.Example/", "sent".to_owned()),
        ("HTTPS://vault.example/", "sent".to_owned()),
        ("https://[2001:db8::1]:8443/", "sent".to_owned()),
        ("https://[2001:DB8::1]:8443/", "sent".to_owned()),
        ("http://127.0.0.1:8080/", "sent".to_owned()),
        ("http://localhost:80/", "sent".to_owned()),
        // No destination has a path, so no path is ambiguous.
        ("https://vault.example/a/../b//%2e%2f", "sent".to_owned()),
        // Another port, or an invalid one.
        ("https://vault.example:8443/", unknown("vault.example")),
        ("https://vault.example:80/", unknown("vault.example")),
        ("https://vault.example:/", unknown("vault.example")),
        ("https://vault.example:65979/", unknown("vault.example")),
        ("https://vault.example:+443/", unknown("vault.example")),
        ("https://[2001:db8::1]/", unknown("[2001:db8::1]")),
        ("http://127.0.0.1/", unknown("127.0.0.1")),
        ("http://localhost:443/", unknown("localhost")),
        // Another scheme.
        ("http://vault.example/", unknown("vault.example")),
        ("http://vault.example:443/", unknown("vault.example")),
        ("ftp://vault.example:443/", unknown("vault.example")),
        ("https://127.0.0.1:8080/", unknown("127.0.0.1")),
        // User information.
        ("https://user@vault.example/", unknown("vault.example")),
        ("https://user:pass@vault.example/", unknown("vault.example")),
        ("https://vault.example@evil.example/", unknown("evil.example")),
        ("https://vault.example:443@evil.example/", unknown("evil.example")),
        ("https://vault.example@vault.example/", unknown("vault.example")),
        ("https://evil.example:443@vault.example/", unknown("vault.example")),
        ("https://@vault.example/", unknown("vault.example")),
        // Another host.
        ("https://vault.example./", unknown("vault.example.")),
        ("https://a.vault.example/", unknown("a.vault.example")),
        ("https://vault.example.evil.example/", unknown("vault.example.evil.example")),
        ("https://evil-vault.example/", unknown("evil-vault.example")),
        ("https://vault.exampl/", unknown("vault.exampl")),
        ("https://evil.example/?vault.example", unknown("evil.example")),
        ("https://evil.example/https://vault.example/", unknown("evil.example")),
        ("https://[2001:db8:0::1]:8443/", unknown("[2001:db8:0::1]")),
        ("https://[::ffff:127.0.0.1]:8080/", unknown("[::ffff:127.0.0.1]")),
        ("http://127.1:8080/", unknown("127.1")),
        ("http://2130706433:8080/", unknown("2130706433")),
        ("http://0x7f.0.0.1:8080/", unknown("0x7f.0.0.1")),
        // No host.
        ("/", "RelativeUrl".to_owned()),
        ("/https://vault.example/", "RelativeUrl".to_owned()),
        ("*", "RelativeUrl".to_owned()),
        ("vault.example:443", unknown("vault.example")),
    ];
    for (uri, expected) in cases {
        assert_eq!(outcome_of(&layer, uri, &[]).await, expected, "{uri}");
    }
}

#[tokio::test]
async fn host_header_must_match_uri() {
    let world = World::new().await;
    let builder = world.builder().destination("https://vault.example", OutboundToken::service());
    let layer = builder.destination("https://box.example:8443", OutboundToken::none());
    let layer = layer.build().unwrap();
    let (vault, other) = ("https://vault.example/", "https://box.example:8443/");
    let cases: [(&str, &[&str], &str); 20] = [
        (vault, &["vault.example"], "sent"),
        (vault, &["VAULT.example:443"], "sent"),
        (other, &["box.example:8443"], "-"),
        (vault, &["evil.example"], "HostMismatch"),
        (vault, &["box.example:8443"], "HostMismatch"),
        (vault, &["vault.example:8443"], "HostMismatch"),
        (vault, &["vault.example:80"], "HostMismatch"),
        (vault, &["vault.example:65979"], "HostMismatch"),
        (vault, &["vault.example:"], "HostMismatch"),
        (vault, &["vault.example."], "HostMismatch"),
        (vault, &["vault.example/x"], "HostMismatch"),
        (vault, &["user@vault.example"], "HostMismatch"),
        (vault, &["evil.example@vault.example"], "HostMismatch"),
        (vault, &["vault.example:443@evil.example"], "HostMismatch"),
        (vault, &["vault.example, evil.example"], "HostMismatch"),
        (vault, &[""], "HostMismatch"),
        (vault, &["vault.example", "vault.example"], "HostMismatch"),
        (vault, &["vault.example", "evil.example"], "HostMismatch"),
        (other, &["box.example"], "HostMismatch"),
        (other, &["vault.example"], "HostMismatch"),
    ];
    for (uri, hosts, expected) in cases {
        assert_eq!(outcome_of(&layer, uri, hosts).await, expected, "{uri} {hosts:?}");
    }
}

/// A service token that tests recognise by its scope.
fn own(scope: &str) -> OutboundToken {
    OutboundToken::service().scopes(scope.parse().unwrap())
}

/// Returns the scope of the token, `-` for a request without one, or the error.
async fn scope_of(layer: &OutboundLayer, uri: &str) -> String {
    let outcome = token_sent(layer, uri, &[]).await;
    assert_reqwest_agrees(layer, uri, &[]).await;
    let Some(token) = outcome.strip_prefix("Bearer ") else { return outcome };
    let claims: serde_json::Value = scaikey_auth::validator::insecure_decode_claims(token).unwrap();
    claims["scope"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn path_prefix_matches_only_its_subtree() {
    let world = World::new().await;
    let layer = world
        .builder()
        .destination("https://h.example/api/", own("read"))
        .destination("https://h.example/api/v2/open", OutboundToken::none())
        .destination("https://h.example/caf\u{e9}", own("write"))
        .build()
        .unwrap();
    let nowhere = r#"UnknownDestination("h.example")"#;
    let cases = [
        ("/api", "read"),
        ("/api/", "read"),
        ("/api?x=/../admin", "read"),
        ("/api/v2/x.y/..z/.w", "read"),
        ("/api/items;color=red", "read"),
        ("/api/100%25", "read"),
        ("/api/a%20b/%C3%A9", "read"),
        ("/api/v2/open", "-"),
        ("/api/v2/open/x", "-"),
        ("/api/v2/opened", "read"),
        ("/caf%C3%A9/x", "write"),
        ("/", nowhere),
        ("", nowhere),
        ("/apix", nowhere),
        ("/ap", nowhere),
        ("/admin", nowhere),
        ("/admin/api", nowhere),
        ("/x?/api/", nowhere),
        // Dots.
        ("/api/../admin", "AmbiguousPath"),
        ("/api/..", "AmbiguousPath"),
        ("/api/./x", "AmbiguousPath"),
        ("/api/%2e%2e/admin", "AmbiguousPath"),
        ("/api/.%2E/admin", "AmbiguousPath"),
        ("/api/%2e/x", "AmbiguousPath"),
        ("/api/%252e%252e/admin", "AmbiguousPath"),
        ("/api/..;/admin", "AmbiguousPath"),
        ("/api/..;a=b/admin", "AmbiguousPath"),
        ("/api/%2e%2e%3b/admin", "AmbiguousPath"),
        ("/admin/../api/x", "AmbiguousPath"),
        // Empty segments.
        ("//", "AmbiguousPath"),
        ("//api", "AmbiguousPath"),
        ("/api//x", "AmbiguousPath"),
        ("/api//", "AmbiguousPath"),
        ("/;/api", "AmbiguousPath"),
        // Encoded slashes.
        ("/api%2fx", "AmbiguousPath"),
        ("/api/..%2fadmin", "AmbiguousPath"),
        ("/api/x%2Fy", "AmbiguousPath"),
        ("/api/x%252fy", "AmbiguousPath"),
        ("/api/..%5cadmin", "AmbiguousPath"),
        ("/api/v2%5Copen", "AmbiguousPath"),
        (r"/api/..\admin", "AmbiguousPath"),
        (r"/api/v2\open", "AmbiguousPath"),
        // Other spellings of a path prefix.
        ("/api/v2/%6fpen", "AmbiguousPath"),
        ("/api/v2/%256fpen", "AmbiguousPath"),
        ("/api/v2/OPEN/x", "AmbiguousPath"),
        ("/api/v2;x/open", "AmbiguousPath"),
        ("/api/v2/open;x", "AmbiguousPath"),
        ("/%61pi", "AmbiguousPath"),
        ("/API", "AmbiguousPath"),
        ("/caf%c3%a9", "AmbiguousPath"),
    ];
    for (path, expected) in cases {
        let uri = format!("https://h.example{path}");
        assert_eq!(scope_of(&layer, &uri).await, expected, "{path}");
    }
}

#[tokio::test]
async fn longest_path_prefix_wins() {
    let world = World::new().await;
    let rules = [
        ("https://h.example", own("read")),
        ("https://h.example/admin", own("write")),
        ("https://h.example/admin/open", OutboundToken::none()),
        ("https://h.example:8443/admin", own("read write")),
    ];
    for turn in 0..rules.len() {
        let mut rules = rules.to_vec();
        rules.rotate_left(turn);
        let with = |builder: scaikey_auth::outbound::OutboundBuilder, (url, token): (&str, _)| {
            builder.destination(url, token)
        };
        let layer = rules.into_iter().fold(world.builder(), with).build().unwrap();
        for (rest, expected) in [
            ("", "read"),
            ("/x", "read"),
            ("/administration", "read"),
            ("/admin", "write"),
            ("/admin/x", "write"),
            ("/admin/open/x", "-"),
            (":8443/admin/open", "read write"),
            (":8443/", r#"UnknownDestination("h.example")"#),
            ("/x/../admin", "AmbiguousPath"),
            ("/ADMIN", "AmbiguousPath"),
            ("/%61dmin", "AmbiguousPath"),
            ("/admin;x", "AmbiguousPath"),
        ] {
            let uri = format!("https://h.example{rest}");
            assert_eq!(scope_of(&layer, &uri).await, expected, "{turn} {rest}");
        }
    }
}

#[tokio::test]
async fn adversarial_path_is_matched_quickly() {
    let world = World::new().await;
    let layer = world.builder().destination("https://h.example/api", own("read"));
    let layer = layer.build().unwrap();
    let begin = std::time::Instant::now();
    for part in ["%25", "25", "/..", ";", "%", "a;"] {
        let uri = format!("https://h.example/api/%{}", part.repeat(60_000 / part.len()));
        let _ = token_sent(&layer, &uri, &[]).await;
    }
    // A linear algorithm takes milliseconds. One that decodes each layer of encoding takes hours.
    assert!(begin.elapsed() < super::secs(60), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn rejected_request_reaches_no_server() {
    let world = World::new().await;
    let (vault, evil) = (Downstream::start().await, Downstream::start().await);
    let layer = world.layer(&vault, OutboundToken::on_behalf_of_caller("scaivault"));
    let alice = world.caller("alice-id").await;
    let mut other_host = vault.get("/");
    other_host.headers_mut().insert(HOST, evil.address().parse().unwrap());
    let mut other_uri = evil.get("/");
    other_uri.headers_mut().insert(HOST, vault.address().parse().unwrap());
    let userinfo = format!("http://{}@{}/", vault.address(), evil.address());
    let userinfo = Request::get(userinfo).body(Full::default()).unwrap();
    for request in [evil.get("/"), other_host, other_uri, userinfo] {
        for via in Via::BOTH {
            via.send(&layer, by(&alice, request.clone())).await.unwrap_err();
        }
    }
    assert_eq!((vault.seen().len(), evil.seen().len()), (0, 0));
    // No token was requested.
    assert_eq!(world.provider.token_requests(), 0);
    // A redirect is not followed.
    vault.will_answer([307]);
    let answer = send(&layer, by(&alice, vault.get("/"))).await.unwrap();
    assert_eq!((answer.status().as_u16(), vault.seen().len()), (307, 1));
}

#[tokio::test]
async fn ipv6_destination_matches() {
    let world = World::new().await;
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else { return };
    let url = format!("http://[::1]:{}", listener.local_addr().unwrap().port());
    let app = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
        format!("{:?} {:?}", headers[HOST], headers.contains_key(AUTHORIZATION))
    });
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let layer = world.builder().destination(url.as_str(), OutboundToken::service());
    let layer = layer.build().unwrap();
    let request = Request::get(format!("{url}/")).body(Full::default()).unwrap();
    let answer = within_timeout(layer.layer(http()).oneshot(request)).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert!(body.ends_with(b"true") && body.starts_with(b"\"[::1]:"), "{body:?}");
    server.abort();
}

#[tokio::test]
async fn empty_configuration_rejects_every_request() {
    let world = World::new().await;
    let layer = world.builder().build().unwrap();
    assert_eq!(
        outcome_of(&layer, "https://h.example/", &[]).await,
        r#"UnknownDestination("h.example")"#
    );
}

#[tokio::test]
async fn all_destination_faults_are_reported_together() {
    let world = World::new().await;
    let service = OutboundToken::service;
    let wrong = [
        ("vault.example", "is not a URL"),
        ("http://vault.example", "is not an https URL"),
        ("http://127.0.0.1:1", "is not an https URL"),
        ("ftp://vault.example", "is not an https URL"),
        ("https://vault.example?q", "has more than"),
        ("https://vault.example#f", "has more than"),
        ("https://user@vault.example", "has more than"),
        ("https://user:word@vault.example", "has more than"),
        ("https://:word@vault.example", "has more than"),
        ("https://vault.example/a//b", "has an ambiguous path"),
        ("https://vault.example/a%2fb", "has an ambiguous path"),
        ("https://good.example", "is equivalent to an earlier destination"),
        ("https://GOOD.example:443/", "is equivalent to an earlier destination"),
        ("https://good.example/API/", "is equivalent to an earlier destination"),
        ("https://good.example/%61pi", "is equivalent to an earlier destination"),
    ];
    let builder = world.builder().allow_loopback_http(false);
    let builder = builder.destination("https://good.example", service());
    let mut builder = builder.destination("https://good.example/api", OutboundToken::none());
    for (url, _) in wrong {
        builder = builder.destination(url, service());
    }
    let error = builder.build().unwrap_err();
    assert_eq!(error.faults().len(), wrong.len(), "{error}");
    for (fault, (url, problem)) in error.faults().iter().zip(wrong) {
        let text = format!("{fault:?}");
        assert!(text.contains(problem) && !text.contains("word@ "), "{url}: {text}");
    }
}

#[tokio::test]
async fn inapplicable_token_option_is_a_fault() {
    let world = World::new().await;
    let scopes = || "read".parse().unwrap();
    let resource = || "https://vault.example/".parse().unwrap();
    let on_behalf = OutboundToken::on_behalf_of_caller;
    let cases = [
        (on_behalf("scaivault").scopes(scopes()).resource(resource()), None),
        (OutboundToken::service().scopes(scopes()), None),
        (OutboundToken::service_in_callers_tenant().scopes(scopes()), None),
        (on_behalf(""), Some("has an empty audience")),
        (OutboundToken::forwarded().scopes(scopes()), Some("has scopes, but requests no token")),
        (OutboundToken::none().scopes(scopes()), Some("has scopes, but requests no token")),
        (OutboundToken::service().resource(resource()).audience("scaivault"), None),
        (on_behalf("scaivault").audience("scaigrid"), None),
        (OutboundToken::service().audience(""), Some("has an empty audience")),
        (OutboundToken::none().audience("a"), Some("has an audience, but requests no token")),
        (
            OutboundToken::forwarded().resource(resource()),
            Some("has a resource, but requests no token"),
        ),
        (OutboundToken::none().resource(resource()), Some("has a resource, but requests no token")),
    ];
    for (token, problem) in cases {
        let case = format!("{token:?}");
        let built = world.builder().destination("https://vault.example", token).build();
        match (built, problem) {
            (Ok(_), None) => {}
            (Err(error), Some(problem)) => assert!(error.to_string().contains(problem), "{error}"),
            (built, _) => panic!("{case}: {built:?}"),
        }
    }
}

#[tokio::test]
async fn plain_http_needs_loopback_and_opt_in() {
    let world = World::new().await;
    for (url, is_good) in [
        ("http://127.0.0.1", true),
        ("http://127.9.9.9:1", true),
        ("http://[::1]:1", true),
        ("http://localhost:3000/api", true),
        ("http://vault.localhost:3000/api", true),
        ("http://localhost.evil.example", false),
        ("http://10.0.0.1", false),
        ("http://0.0.0.0", false),
        ("http://vault.example", false),
    ] {
        let builder = world.builder().destination(url, OutboundToken::service());
        assert_eq!(builder.clone().build().is_ok(), is_good, "{url}");
        assert!(builder.allow_loopback_http(false).build().is_err(), "{url}");
    }
}

#[tokio::test]
async fn plain_http_is_allowed_for_named_hosts() {
    let world = World::new().await;
    let log = Log::start();
    let builder = || world.builder().insecure_http_host("vault.svc:8080");
    for (url, is_good) in [
        ("http://vault.svc:8080/api", true),
        ("http://VAULT.svc:8080", true),
        ("https://vault.svc", true),
        ("http://127.0.0.1", true),
        ("http://vault.svc", false),
        ("http://a.vault.svc:8080", false),
        ("http://vault.svc.evil.example:8080", false),
        ("ftp://vault.svc:8080", false),
    ] {
        let builder = builder().destination(url, OutboundToken::service());
        assert_eq!(builder.build().is_ok(), is_good, "{url}");
    }
    assert!(log.lines("WARN").iter().any(|line| line.contains("vault.svc:8080")));
    let wrong = builder().insecure_http_host("http://search.svc").build().unwrap_err();
    assert!(wrong.to_string().contains("insecure_http_host entry 2 is not a host"), "{wrong}");
    let plain = builder().destination("http://vault.svc:8080/api", OutboundToken::service());
    let layer = plain.build().unwrap();
    for (uri, expected) in [
        ("http://vault.svc:8080/api/x", "sent"),
        ("https://vault.svc:8080/api", r#"UnknownDestination("vault.svc")"#),
        ("http://vault.svc/api", r#"UnknownDestination("vault.svc")"#),
    ] {
        assert_eq!(outcome_of(&layer, uri, &[]).await, expected, "{uri}");
    }
}
